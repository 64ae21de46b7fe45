//! Lost answers, killed processes, no server.

use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::json;
use tests::harness::{Device, Exit, Fault, Folder, Proxy};
use tests::soak::{Killed, Round, StoreKind};

use crate::real_data::{generated, write_array};
use crate::{World, assert_same_lines};

#[test]
fn a_counter_counts_each_increment_once_although_one_answer_in_three_is_lost() {
    let world = World::start();
    let proxies = [Proxy::losing(world.server.url()), Proxy::losing(world.server.url())];
    let devices = world.devices();
    for device in &devices {
        device.ok(&["policy", "votes", "counter"]);
        device.ok(&["sync", "votes"]);
    }
    for number in 0..1_000 {
        let device = &devices[number % 2];
        let before = device.run(&["get", "votes", "tea"]);
        let votes: u64 = if before.code == Some(0) { before.stdout.trim().parse().unwrap() } else { 0 };
        device.ok(&["put", "votes", "tea", &(votes + 1).to_string()]);
        if number % 20 >= 18 {
            let proxy = &proxies[number / 20 % 2];
            device.at(&proxy.url()).ok(&["sync", "votes"]);
        }
    }
    for device in [&devices[0], &devices[1], &devices[0]] {
        device.sync();
    }
    for device in &devices {
        assert_eq!(device.value("votes", "tea"), json!(1_000));
        assert_eq!(device.losses("votes"), []);
    }
    assert!(proxies.iter().all(|proxy| proxy.answered() > 50), "the answers went through the proxies");
}

#[test]
fn a_device_that_is_killed_while_it_syncs_goes_on_as_if_nothing_had_happened() {
    let world = World::start();
    let [phone, tablet] = world.devices();
    phone.ok(&["policy", "votes", "counter"]);
    phone.ok(&["put", "votes", "tea", "5"]);
    phone.ok(&["import", "people", &write_array(&world.folder, "people", &generated()), "--key", "id"]);

    let (answered, wait_answered) = channel();
    let (go, wait_killed) = channel::<()>();
    let proxy = Proxy::start(world.server.url(), move |_| {
        answered.send(()).unwrap();
        let _killed = wait_killed.recv();
        Fault::Drop
    });
    let mut process = phone.at(&proxy.url()).spawn(&["sync"]);
    wait_answered.recv().unwrap();
    process.kill().unwrap();
    assert!(!process.wait().unwrap().success());
    drop(go);

    phone.ok(&["put", "votes", "tea", "6"]);
    phone.sync();
    tablet.sync();
    assert_eq!(tablet.value("votes", "tea"), json!(6));
    assert_same_lines(&phone.ok(&["export", "people"]), &tablet.ok(&["export", "people"]));
}

#[test]
fn nothing_is_lost_doubled_or_torn_whoever_is_killed_again_and_again() {
    for (killed, store, servers) in [
        (Killed::Servers, StoreKind::Sqlite, 1),
        (Killed::Devices, StoreKind::Sqlite, 1),
        (Killed::Servers, StoreKind::Mysql, 1),
        (Killed::Database, StoreKind::Mysql, 1),
        (Killed::Servers, StoreKind::Mysql, 2),
        (Killed::Servers, StoreKind::Dynamodb, 2),
    ] {
        Round { killed, store, servers, lasting: Duration::from_secs(8), seed: 1 }.play();
    }
}

#[test]
fn without_a_server_everything_but_sync_works_and_sync_gives_up_in_time() {
    let folder = Folder::new();
    let phone = Device::new(&folder, "phone");
    phone.ok(&["put", "notes", "a", r#"{"text":"milk"}"#]);
    phone.ok_with_input(&["put", "notes", "b", "-"], "-5");
    assert_eq!(phone.ok(&["get", "notes", "b"]), "-5\n");
    phone.ok(&["put", "notes", "c", "-1.5"]);
    phone.ok(&["rm", "notes", "c"]);
    phone.ends(Exit::NotFound, &["get", "notes", "c"]);
    let listed = json!([{"key": "a", "value": {"text": "milk"}}, {"key": "b", "value": -5}]);
    assert_eq!(phone.json(&["list", "notes"]), listed);
    assert_eq!(phone.json(&["list", "notes", "--prefix", "b"])[0]["key"], json!("b"));
    assert_eq!(phone.json(&["list", "notes", "--limit", "1"]).as_array().map(Vec::len), Some(1));
    phone.ends(Exit::Usage, &["put", "notes", "a", "{"]);
    phone.ends(Exit::Usage, &["put", "no such name", "a", "1"]);
    phone.ends(Exit::Usage, &["put", "notes", "", "1"]);
    let text = "what another program has written, and wants to find again";
    let foreign = folder.write("foreign.db", text);
    let outcome = Device::new(&folder, "foreign").ends(Exit::Usage, &["list", "notes"]);
    assert!(
        outcome.stderr.ends_with("foreign.db: the file is not a device's file, or its beginning is damaged\n"),
        "{}",
        outcome.stderr
    );
    assert_eq!(std::fs::read_to_string(foreign).unwrap(), text);
    phone.ends(Exit::NotSignedIn, &["sync"]);
    let outcome = phone.ends(Exit::Usage, &["put", "notes", "--json"]);
    assert!(outcome.stderr.starts_with(r#"{"error":{"code":"InvalidParameter""#), "{}", outcome.stderr);

    let world = World::start();
    let phone = phone.with_token(&world.server.token("ada"));
    phone.ok(&["claim"]);
    assert_eq!(phone.value("notes", "a"), json!({"text": "milk"}));
    phone.at("ftp://127.0.0.1").ends(Exit::Usage, &["sync"]);
    let nobody = phone.at("http://127.0.0.1:1");
    let outcome = nobody.ends(Exit::Offline, &["sync", "--give-up-after", "300ms", "--json"]);
    let error: serde_json::Value = serde_json::from_str(&outcome.stderr).unwrap();
    assert_eq!(error["error"]["code"], json!("Offline"));
    phone.at(world.server.url()).sync();
    let tablet = world.device("ada", "tablet");
    tablet.sync();
    assert_eq!(tablet.json(&["list", "notes"]), listed);

    tablet.ok(&["delete", "notes"]);
    tablet.sync();
    assert_eq!(tablet.json(&["sync", "nots"])["missing"], json!(["nots"]));
    let told = tablet.ok(&["sync", "nots"]);
    assert!(told.ends_with("there is no `nots`, here or on the server; `put` makes it\n"), "{told}");
    phone.at(world.server.url()).sync();
    assert_eq!(phone.json(&["list", "notes"]), json!([]));
}
