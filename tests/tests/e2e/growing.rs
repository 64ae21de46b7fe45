//! A team grows: its data go from a file to a database, and its devices notice nothing.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::json;
use tests::harness::{CREDENTIALS, Device, DynamoDb, Exit, Fault, Folder, MariaDb, Proxy, Server, http, sql, syncline};

use crate::assert_same_lines;
use crate::pages::blocks;
use crate::real_data::{generated, write_array};

fn run(arguments: &[&str]) -> Output {
    Command::new(syncline()).args(arguments).envs(CREDENTIALS).stdin(Stdio::null()).output().unwrap()
}

/// What a command printed that succeeded.
#[track_caller]
fn ok(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a command said that did not.
#[track_caller]
fn refused(code: i32, arguments: &[&str]) -> String {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

fn config(folder: &Folder, url: &str) -> String {
    folder.write("syncline.toml", &format!("[store]\nurl = \"{url}\"\n")).to_str().unwrap().to_owned()
}

#[test]
fn a_copied_store_takes_the_place_of_the_old_one_and_no_device_begins_anew() {
    let folder = Folder::new();
    let data = folder.path("data");
    let server = Server::start(&data);
    let token = server.token("ada");
    let [phone, tablet] = ["phone", "tablet"].map(|name| Device::new(&folder, name).with_token(&token));
    for device in [&phone, &tablet] {
        device.ok(&["policy", "votes", "counter"]);
    }
    phone.ok(&["import", "people", &write_array(&folder, "people", &generated()), "--key", "id"]);
    phone.ok(&["put", "votes", "tea", "5"]);
    phone.ok(&["put", "notes", "gone", "1"]);
    for device in [&phone, &tablet] {
        device.at(server.url()).sync();
    }
    phone.ok(&["rm", "notes", "gone"]);
    phone.at(server.url()).sync();
    // The server has counted this, and the device does not know: the new store must remember the push.
    tablet.ok(&["put", "votes", "tea", "7"]);
    let silent = Proxy::start(server.url(), |_| Fault::Drop);
    tablet.at(&silent.url()).ends(Exit::Offline, &["sync", "--give-up-after", "300ms"]);
    let (from, to) = (format!("sqlite:{}", data.display()), MariaDb::shared().database());
    let copying = ["copy", "--from", &from, "--to", &to];
    assert!(refused(1, &copying).contains("in use"), "a server runs on it");
    server.stop();

    assert!(refused(1, &copying).contains("run `syncline migrate`"));
    let config = config(&folder, &to);
    assert!(ok(&["migrate", "--config", &config]).contains("has its tables now"));
    let records = copy_with_interruptions(&copying, &to);
    assert_eq!(records, 10_000 + 2, "people, votes, and a tombstone");

    let server = Server::start_configured(&data, Path::new(&config));
    phone.ok(&["put", "votes", "tea", "6"]);
    for device in [&phone, &tablet, &phone] {
        let synced = device.at(server.url()).sync();
        assert_eq!((&synced["resets"], &synced["repaired"]), (&json!({}), &json!([])));
    }
    for device in [&phone, &tablet] {
        assert_eq!(device.value("votes", "tea"), json!(5 + 2 + 1));
    }
    assert_same_lines(&phone.ok(&["export", "people"]), &tablet.ok(&["export", "people"]));

    server.stop();

    // And once more, to a table.
    let emulator = DynamoDb::start();
    let table = emulator.address();
    let config = self::config(&folder, &table);
    ok(&["migrate", "--config", &config]);
    assert!(ok(&["copy", "--from", &to, "--to", &table]).contains("takes no more writes"));
    let server = Server::start_configured(&data, Path::new(&config));
    phone.ok(&["put", "votes", "tea", "9"]);
    for device in [&phone, &tablet, &phone] {
        let synced = device.at(server.url()).sync();
        assert_eq!((&synced["resets"], &synced["repaired"]), (&json!({}), &json!([])));
        assert_eq!(device.value("votes", "tea"), json!(9));
    }
    assert_same_lines(&phone.ok(&["export", "people"]), &tablet.ok(&["export", "people"]));
    server.stop();

    // Whoever still asks the old one reads, and is told to come again when it writes.
    let old = Server::start(&data);
    let votes = format!("{}/v1/datasets/votes/records/tea", old.url());
    assert_eq!(http("GET", &votes, &token, &json!(null)), (200, json!(7)));
    let (status, body) = http("PUT", &votes, &token, &json!(1));
    assert_eq!((status, &body["code"]), (503, &json!("TooManyRequests")), "{body}");
    old.stop();
    // There is no way back by accident, but one on purpose.
    assert!(refused(1, &copying).contains("gone on by itself"));
    assert!(ok(&["copy", "--from", &from, "--give-up"]).contains("takes writes again"));
}

/// Copies, is killed a few times, and says how many records there are.
fn copy_with_interruptions(copying: &[&str], to: &str) -> u64 {
    let count = || sql(to, "SELECT COUNT(*) FROM syncline_record").trim().parse::<u64>().unwrap();
    let mut before = 0;
    for killed in 1..=3 {
        let mut process = Command::new(syncline()).args(copying).stdout(Stdio::null()).spawn().unwrap();
        // Until it has written something that was not there.
        while process.try_wait().unwrap().is_none() && count() == before {
            thread::sleep(Duration::from_millis(5));
        }
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(count() > before, "nothing was copied the {killed}. time");
        before = count();
    }
    assert!(before < 10_000, "it was over before it was killed");
    assert!(ok(copying).contains("takes no more writes"));
    count()
}

#[test]
fn check_config_connects_to_the_store_and_says_what_is_wrong_with_it() {
    let folder = Folder::new();
    let url = MariaDb::shared().database();
    let missing = url.replace("syncline_test", "no_such");
    let check = |url: &str| {
        let data = folder.path("data");
        let config = config(&folder, url);
        let arguments = ["check-config", "--dev", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
        let output = run(&[&arguments[..], &["--config", &config]].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let with_password = url.replace("//root@", "//root:secret@");
    for (url, expected) in [
        (url.as_str(), "run `syncline migrate`"),
        (&missing, "Unknown database"),
        ("mysql://root:secret@127.0.0.1:1/app", "cannot be reached"),
        (&with_password, "Access denied"),
    ] {
        let (code, said) = check(url);
        assert!(code == Some(2) && said.contains(expected) && !said.contains("secret"), "{code:?} {said}");
    }
    let config_file = config(&folder, &url);
    ok(&["migrate", "--config", &config_file]);
    assert!(ok(&["migrate", "--config", &config_file]).contains("was up to date"));
    let (code, said) = check(&url);
    assert!(code == Some(0) && said.contains("is up to date"), "{said}");
    assert!(refused(2, &["copy", "--from", &url, "--to", &url]).contains("to itself"));
    assert!(refused(2, &["copy", "--from", "postgres://x", "--to", &url]).contains("not the address of a store"));
    let nowhere = format!("sqlite:{}", folder.path("nowhere").display());
    assert!(refused(2, &["copy", "--from", &nowhere, "--to", &url]).contains("no database"));
}

/// The examples of the page about MySQL, in SQL and PHP, over what a device wrote.
#[test]
fn the_examples_for_sql_and_php_do_what_the_page_says() {
    let folder = Folder::new();
    let url = MariaDb::shared().database();
    let config = config(&folder, &url);
    ok(&["migrate", "--config", &config]);
    let server = Server::start_configured(&folder.path("data"), Path::new(&config));
    let phone = Device::new(&folder, "phone").at(server.url()).with_token(&server.token("ada"));
    for (key, value) in [
        ("a", json!({"title": "Buy milk", "done": false, "n": 2})),
        ("b", json!({"title": "Füße waschen", "done": true, "n": 1})),
    ] {
        phone.ok(&["put", "todos", key, &value.to_string()]);
    }
    phone.sync();
    let page = include_str!("../../../server/MYSQL.md");
    let mut printed = None;
    for block in blocks(page) {
        match block.language.as_str() {
            "sql" => printed = Some(sql(&url, &block.content)),
            "php" => {
                let file = folder.write("example.php", &block.content);
                let place = url.trim_start_matches("mysql://root@");
                let (host, name) = place.split_once('/').unwrap();
                let (host, port) = host.split_once(':').unwrap();
                let mut php = Command::new("php");
                php.arg(file).env("DSN", format!("mysql:host={host};port={port};dbname={name};charset=utf8mb4"));
                let output = php.output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
                printed = Some(String::from_utf8(output.stdout).unwrap());
            }
            "text" => {
                let printed = printed.take().expect("what is printed comes after what prints it");
                assert_eq!(printed.replace('\t', " | ").trim(), block.content.trim());
            }
            _ => {}
        }
    }
}
