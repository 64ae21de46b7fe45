//! Disks that are full, read-only or damaged: a clear error, nothing lost in silence, and work goes on once there is room.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Output;

use rusqlite::Connection;
use serde_json::{Value, json};
use tests::harness::{Device, Exit, Folder, Hardship, Outcome, ReadOnly, Server, copy_folder, http, syncline};

use crate::assert_same_lines;

/// Where a record is.
fn record(server: &Server, key: &str) -> String {
    format!("{}/v1/datasets/notes/records/{key}", server.url())
}

/// Two devices of the same user.
fn phone_and_tablet(folder: &Folder, server: &Server, token: &str) -> [Device; 2] {
    ["phone", "tablet"].map(|name| Device::new(folder, name).at(server.url()).with_token(token))
}

/// Runs a command of the binary under a hardship.
fn run(hardship: &Hardship, arguments: &[&str], paths: &[&Path]) -> Output {
    hardship.command(syncline()).args(arguments).args(paths).output().unwrap()
}

/// A command that fails says in a sentence which file it is about.
#[track_caller]
fn assert_told(output: &Output, code: i32, sentences: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(!told.contains("panicked"), "{told}");
    for sentence in sentences {
        assert!(told.contains(sentence), "it does not say `{sentence}`: {told}");
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

fn database(data: &Path) -> [PathBuf; 2] {
    [data.join("syncline.db"), data.join("syncline.db-wal")]
}

/// Writes records until there is no room; gives the keys of those that were acknowledged.
fn fill(server: &Server, token: &str, value: &Value) -> Vec<String> {
    const WRITES_MAX: usize = 3_000;
    let mut acknowledged = Vec::new();
    for number in 0..WRITES_MAX {
        let key = format!("filled-{number}");
        match http("PUT", &record(server, &key), token, value) {
            (200 | 201, _) => acknowledged.push(key),
            (507, error) => {
                assert_eq!(error["code"], "StorageFull", "{error}");
                return acknowledged;
            }
            other => panic!("{key}: {other:?}"),
        }
    }
    panic!("{WRITES_MAX} writes found room");
}

/// How a server's disk becomes full: the longest file there may be, beyond what there is; and what is written.
struct Filling {
    room: u64,
    value_bytes: usize,
    /// Whether the server is stopped while its disk is full.
    stops: bool,
}

fn check_full_server(filling: &Filling) {
    let Filling { room, value_bytes, stops } = *filling;
    let folder = Folder::new();
    let data = folder.path("data");
    let server = Server::start(&data);
    let token = server.token("ada");
    let [phone, tablet] = phone_and_tablet(&folder, &server, &token);
    phone.ok(&["put", "notes", "before", "1"]);
    phone.sync();

    let longest = database(&data).iter().map(|file| length(file)).max().unwrap();
    server.bound_files(Some(longest + room));
    let value = json!("x".repeat(value_bytes));
    let mut acknowledged = fill(&server, &token, &value);
    // What is small may still find room in pages that are there; in the end nothing does.
    acknowledged.extend(
        fill(&server, &token, &value).into_iter().filter(|key| !acknowledged.contains(key)).collect::<Vec<_>>(),
    );
    assert!(answer_head(&record(&server, "more"), &token, &value).contains("retry-after: 30\r\n"));

    // Reading goes on, for devices too.
    assert_eq!(http("GET", &record(&server, "before"), &token, &Value::Null).0, 200);
    assert_eq!(http("GET", &format!("{}/readyz", server.url()), &token, &Value::Null).0, 200);
    tablet.sync();
    for key in &acknowledged {
        assert_eq!(tablet.value("notes", key), value);
    }
    phone.ok_with_input(&["put", "notes", "pending", "-"], &value.to_string());
    let outcome = phone.ends(Exit::Failure, &["sync", "--json"]);
    let error: Value = serde_json::from_str(&outcome.stderr).unwrap();
    assert_eq!(error["error"]["code"], "StorageFull", "{error}");
    assert!(error["error"]["message"].as_str().unwrap().contains("no room"), "{error}");

    let server = if stops {
        server.stop();
        Server::start(&data)
    } else {
        server.bound_files(None);
        server
    };
    let [phone, tablet] = [phone, tablet].map(|device| device.at(server.url()));
    phone.sync();
    assert_eq!(http("PUT", &record(&server, "after"), &token, &json!(1)).0, 201);
    tablet.sync();
    phone.sync();
    assert_eq!(tablet.value("notes", "pending"), value);
    for key in &acknowledged {
        assert_eq!(tablet.value("notes", key), value);
    }
    assert_same_lines(&phone.ok(&["export", "notes"]), &tablet.ok(&["export", "notes"]));
    let log = server.log();
    assert!(log.contains("there is no room to write to the store") && !log.contains("panicked"), "{log}");
    server.stop();
    // A backup looks whether all is sound.
    assert_told(&run(&Hardship::default(), &["backup", "--data"], &[&data, &folder.path("backup")]), 0, &[]);
}

/// The head of the answer to a write.
fn answer_head(url: &str, token: &str, value: &Value) -> String {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let body = value.to_string();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "PUT /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().0.to_owned() + "\r\n"
}

#[test]
fn a_server_without_room_refuses_writes_goes_on_reading_and_writes_again_without_a_restart() {
    for room in [0, 20_000, 300_000] {
        check_full_server(&Filling { room, value_bytes: 3_000, stops: false });
    }
}

#[test]
fn a_server_whose_log_cannot_be_put_into_its_database_loses_nothing() {
    // The log is put into the database each time that it has 16 MB, and the database may not become longer than a bit
    // more.
    check_full_server(&Filling { room: 17 << 20, value_bytes: 1_000_000, stops: false });
}

#[test]
fn a_server_that_stops_while_its_disk_is_full_loses_nothing() {
    check_full_server(&Filling { room: 20_000, value_bytes: 3_000, stops: true });
}

#[test]
fn a_server_that_has_no_room_to_start_says_so_and_starts_once_there_is_some() {
    let folder = Folder::new();
    let data = folder.path("data");
    let start = |bytes| {
        let arguments = ["serve", "--dev", "--listen", "127.0.0.1:0", "--data"];
        run(&Hardship::files_up_to(bytes), &arguments, &[&data])
    };
    for bytes in [0, 100] {
        assert_told(&start(bytes), 1, &[data.to_str().unwrap()]);
    }
    for bytes in [4_096, 20_000] {
        assert_told(&start(bytes), 1, &["syncline.db cannot be written", "make room"]);
    }
    let server = Server::start(&data);
    let phone = Device::new(&folder, "phone").at(server.url()).with_token(&server.token("ada"));
    phone.ok(&["put", "notes", "a", "1"]);
    phone.sync();
    server.stop();

    // The same with a migration, from the version before.
    let [file, _] = database(&data);
    let connection = Connection::open(&file).unwrap();
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    connection.execute_batch(&format!("DROP TABLE store_state; PRAGMA user_version = {}", version - 1)).unwrap();
    connection.close().unwrap();
    assert_told(&start(4_096), 1, &["syncline.db cannot be written", "make room"]);
    let server = Server::start(&data);
    phone.ok(&["put", "notes", "b", "2"]);
    phone.at(server.url()).sync();
}

#[test]
fn a_backup_without_room_says_so_and_leaves_nothing_behind() {
    let folder = Folder::new();
    let (data, backups) = (folder.path("data"), folder.path("backups"));
    let server = Server::start(&data);
    let token = server.token("ada");
    for number in 0..20 {
        assert_eq!(http("PUT", &record(&server, &format!("k{number}")), &token, &json!("x".repeat(9_000))).0, 201);
    }
    let backup = backups.join("one");
    for bytes in [0, 4_096, 100_000] {
        let output = run(&Hardship::files_up_to(bytes), &["backup", "--data"], &[&data, &backup]);
        assert_told(&output, 1, &[backups.to_str().unwrap()]);
        assert_eq!(fs::read_dir(&backups).unwrap().count(), 0, "something is left with {bytes} bytes");
    }
    assert_told(&run(&Hardship::default(), &["backup", "--data"], &[&data, &backup]), 0, &[]);
    let other = folder.path("other");
    let output = run(&Hardship::files_up_to(100_000), &["restore", "--data"], &[&other, &backup]);
    assert_told(&output, 1, &[other.to_str().unwrap()]);
    assert_told(&run(&Hardship::default(), &["restore", "--data"], &[&other, &backup]), 0, &[]);
}

#[test]
fn a_device_without_room_says_so_keeps_what_it_had_and_goes_on_once_there_is_some() {
    let folder = Folder::new();
    let server = Server::start(&folder.path("data"));
    let token = server.token("ada");
    let [phone, tablet] = phone_and_tablet(&folder, &server, &token);
    let lines = |text: &str| -> String {
        (0..200).map(|at| json!({"op": "put", "key": format!("k{at:03}"), "value": text}).to_string() + "\n").collect()
    };
    phone.ok_with_input(&["apply", "notes", "-"], &lines("first"));
    phone.sync();
    tablet.sync();
    tablet.ok_with_input(&["apply", "notes", "-"], &lines(&"second ".repeat(100)));
    tablet.sync();
    let first = phone.ok(&["export", "notes"]);
    let sizes = [0, 4_096, length(phone.file()), length(phone.file()) + 9_000, 2 * length(phone.file())];
    for bytes in sizes {
        let full = phone.under(&Hardship::files_up_to(bytes));
        let commands: [(&[&str], String); 3] = [
            (&["put", "notes", "k000", "-"], json!("third ".repeat(50_000)).to_string()),
            (&["apply", "notes", "-"], lines(&"third ".repeat(200))),
            (&["sync"], String::new()),
        ];
        for (command, input) in commands {
            let outcome = full.run_with_input(command, &input);
            assert_eq!(outcome.code, Some(Exit::Failure as i32), "{command:?} with {bytes} bytes: {outcome:?}");
            let told = &outcome.stderr;
            assert!(told.contains("phone.db: there is no room left for the device's file"), "{command:?}: {told}");
            assert!(told.contains("make room") && !told.contains("panicked"), "{command:?}: {told}");
            assert_same_lines(&phone.ok(&["export", "notes"]), &first);
        }
    }
    phone.sync();
    assert_same_lines(&phone.ok(&["export", "notes"]), &tablet.ok(&["export", "notes"]));
    phone.ok(&["put", "notes", "k000", "1"]);
    phone.sync();
    let new = Device::new(&folder, "new").under(&Hardship::files_up_to(0));
    let told = new.ends(Exit::Failure, &["put", "notes", "a", "1"]).stderr;
    assert!(told.contains("new.db: there is no room left"), "{told}");
    new.under(&Hardship::default()).ok(&["put", "notes", "a", "1"]);
}

#[test]
fn what_may_not_be_written_is_said_to_be_so_and_serves_again_once_it_may() {
    let folder = Folder::new();
    let data = folder.path("data");
    let server = Server::start(&data);
    let token = server.token("ada");
    fs::create_dir(folder.path("on-the-phone")).unwrap();
    let phone = Device::new(&folder, "on-the-phone/phone").at(server.url()).with_token(&token);
    phone.ok(&["put", "notes", "a", "1"]);
    phone.sync();
    let bears = Hardship::permissions_count();
    let strict = phone.under(&bears);
    {
        let _read_only = ReadOnly::make(&folder.path("on-the-phone"));
        let commands: [&[&str]; 4] = [&["put", "notes", "a", "2"], &["rm", "notes", "a"], &["sync"], &["claim"]];
        for command in commands {
            let told = strict.ends(Exit::Failure, command).stderr;
            assert!(told.contains("phone.db: the device's file cannot be "), "{command:?}: {told}");
            assert!(!told.contains("panicked"), "{command:?}: {told}");
        }
    }
    assert_eq!(strict.value("notes", "a"), json!(1));
    strict.ok(&["put", "notes", "a", "2"]);
    strict.sync();
    server.stop();

    let backup = folder.path("backups/one");
    fs::create_dir(folder.path("backups")).unwrap();
    {
        let _read_only = [ReadOnly::make(&data), ReadOnly::make(&folder.path("backups"))];
        let serve = ["serve", "--dev", "--listen", "127.0.0.1:0", "--data"];
        assert_told(&run(&bears, &serve, &[&data]), 1, &[data.to_str().unwrap(), "denied"]);
        let check = run(&bears, &["check-config", "--dev", "--listen", "127.0.0.1:0", "--data"], &[&data]);
        assert_told(&check, 2, &["the server would not start"]);
        assert!(String::from_utf8_lossy(&check.stdout).contains("denied"), "{check:?}");
        assert_told(&run(&bears, &["fence", "--data"], &[&data]), 1, &[data.to_str().unwrap(), "denied"]);
        let back_up = run(&bears, &["backup", "--data"], &[&data, &backup]);
        assert_told(&back_up, 1, &[folder.path("backups").to_str().unwrap(), "denied"]);
    }
    let server = Server::start_under(&data, &bears);
    strict.at(server.url()).sync();
}

/// The same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % bound as u64) as usize
    }
}

/// What a disk does to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// One bit is another.
    Bit,
    /// Some bytes in a row are others.
    Bytes,
    /// A page has what another one has.
    WrongPage,
    /// A page was never written.
    NoPage,
    /// A page is noise.
    Noise,
    /// The file ends too early.
    CutOff,
    /// Something in the first 100 bytes is other.
    Header,
}

impl Damage {
    const ALL: [Self; 7] =
        [Self::Bit, Self::Bytes, Self::WrongPage, Self::NoPage, Self::Noise, Self::CutOff, Self::Header];
    const PAGE: usize = 4_096;

    fn to(self, bytes: &mut Vec<u8>, random: &mut Random) {
        let pages = bytes.len() / Self::PAGE;
        let page = random.below(pages) * Self::PAGE;
        let at = random.below(bytes.len() - 64);
        match self {
            Self::Bit => bytes[at] ^= 1 << random.below(8),
            Self::Bytes => bytes[at..at + 64].iter_mut().for_each(|byte| *byte = random.below(256) as u8),
            Self::WrongPage => {
                let other = random.below(pages) * Self::PAGE;
                bytes.copy_within(other..other + Self::PAGE, page);
            }
            Self::NoPage => bytes[page..page + Self::PAGE].fill(0),
            Self::Noise => bytes[page..page + Self::PAGE].iter_mut().for_each(|byte| *byte = random.below(256) as u8),
            Self::CutOff => bytes.truncate(at),
            Self::Header => bytes[random.below(100)] ^= 1 << random.below(8),
        }
    }
}

/// Values by key, as `export` prints them.
fn exported(text: &str) -> BTreeMap<String, Value> {
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| (line["key"].as_str().unwrap().to_owned(), line["value"].clone())).collect()
}

/// A command on a damaged file ends as promised: with one of the exit codes, and a sentence about the file if it failed.
#[track_caller]
fn assert_ends(outcome: &Outcome, about: &str, what: &str) {
    let Outcome { code, stderr, .. } = outcome;
    assert!(code.is_some_and(|code| (0..=7).contains(&code)), "{what} ended with {code:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{what}: {stderr}");
    if [Some(1), Some(2)].contains(code) {
        assert!(stderr.contains(about), "{what} does not say which file: {stderr}");
    }
}

#[test]
fn a_damaged_device_file_gives_right_values_or_a_sentence_and_a_new_file_brings_back_what_was_synced() {
    const ROUNDS: u64 = 12;
    let folder = Folder::new();
    let server = Server::start(&folder.path("data"));
    let token = server.token("ada");
    let phone = Device::new(&folder, "phone").at(server.url()).with_token(&token);
    let lines = |from: usize, count: usize| -> String {
        let line = |at| json!({"op": "put", "key": format!("k{at:03}"), "value": {"n": at, "text": format!("value {at} ").repeat(at % 40)}});
        (from..from + count).map(|at| line(at).to_string() + "\n").collect()
    };
    phone.ok_with_input(&["apply", "notes", "-"], &lines(0, 300));
    phone.ok(&["put", "other", "a", "1"]);
    phone.sync();
    let synced = exported(&phone.ok(&["export", "notes"]));
    phone.ok_with_input(&["apply", "notes", "-"], &lines(280, 60));
    let truth = exported(&phone.ok(&["export", "notes"]));
    let whole = fs::read(phone.file()).unwrap();

    let mut told = 0;
    for (round, damage) in (0..ROUNDS).flat_map(|round| Damage::ALL.map(|damage| (round, damage))) {
        let mut random = Random(round * 100 + damage as u64 + 1);
        let mut bytes = whole.clone();
        damage.to(&mut bytes, &mut random);
        let damaged = phone.copy(&folder, "damaged");
        fs::write(damaged.file(), &bytes).unwrap();
        let some_key = format!("k{:03}", random.below(340));
        let commands: [&[&str]; 5] = [
            &["get", "notes", &some_key],
            &["export", "notes"],
            &["status"],
            &["put", "notes", &some_key, "\"written\""],
            &["sync", "--give-up-after", "3s"],
        ];
        for command in commands {
            let what = format!("{command:?} after {damage:?} of round {round}");
            let outcome = damaged.run(command);
            assert_ends(&outcome, "damaged.db", &what);
            told += u32::from(outcome.code == Some(1));
            match command {
                ["get", ..] if outcome.code == Some(0) => {
                    let value: Value = serde_json::from_str(&outcome.stdout).unwrap();
                    assert_eq!(Some(&value), truth.get(&some_key), "{what}");
                }
                ["export", ..] => {
                    let found = exported(&outcome.stdout);
                    for (key, value) in &found {
                        assert_eq!(Some(value), truth.get(key), "{what}: `{key}`");
                    }
                    assert!(outcome.code != Some(0) || found.len() == truth.len(), "{what}: records are missing");
                }
                _ => {}
            }
        }
        for ending in ["", "-wal", "-shm"] {
            let _gone = fs::remove_file(format!("{}{ending}", damaged.file().display()));
        }
    }
    assert!(told > 20, "few damages were noticed: {told}");
    // Nothing that was damaged has reached the server, apart from what was written.
    let fresh = Device::new(&folder, "fresh").at(server.url()).with_token(&token);
    fresh.sync();
    let there = exported(&fresh.ok(&["export", "notes"]));
    for (key, value) in &there {
        let known = [synced.get(key), truth.get(key), Some(&json!("written"))];
        assert!(known.contains(&Some(value)), "the server has {value} for `{key}`");
    }
    assert!(synced.keys().all(|key| there.contains_key(key)), "what was synced is there");
}

#[test]
fn a_large_device_file_is_checked_when_it_is_asked_for() {
    /// A page of rows, by SQLite's file format.
    const LEAF: u8 = 0x0a;
    let folder = Folder::new();
    let phone = Device::new(&folder, "phone");
    let line = |at| json!({"op": "put", "key": format!("k{at:05}"), "value": "x".repeat(800)}).to_string() + "\n";
    for from in (0..26_000).step_by(1_000) {
        phone.ok_with_input(&["apply", "notes", "-"], &(from..from + 1_000).map(line).collect::<String>());
    }
    let mut bytes = fs::read(phone.file()).unwrap();
    assert!(bytes.len() > 16 << 20, "it has {} bytes", bytes.len());
    assert_eq!(phone.ok(&["check"]).trim_end(), "the file is sound");

    let leaves: Vec<usize> =
        (1..bytes.len() / Damage::PAGE).filter(|page| bytes[page * Damage::PAGE] == LEAF).collect();
    let [one, other] = [leaves[leaves.len() / 3], leaves[leaves.len() / 2]].map(|page| page * Damage::PAGE);
    bytes.copy_within(one..one + Damage::PAGE, other);
    fs::write(phone.file(), &bytes).unwrap();
    let outcome = phone.run(&["check"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert_ends(&outcome, "phone.db", "check");
}

#[test]
fn a_damaged_server_file_is_told_of_and_no_backup_of_it_is_made() {
    const ROUNDS: u64 = 3;
    let folder = Folder::new();
    let whole = folder.path("whole");
    let server = Server::start(&whole);
    let token = server.token("ada");
    let phone = Device::new(&folder, "phone").at(server.url()).with_token(&token);
    let line = |at: usize| {
        let value = json!({"n": at, "text": format!("value {at} ").repeat(at % 40)});
        json!({"op": "put", "key": format!("k{at:03}"), "value": value}).to_string() + "\n"
    };
    phone.ok_with_input(&["apply", "notes", "-"], &(0..300).map(line).collect::<String>());
    phone.sync();
    phone.ok(&["rm", "notes", "k007"]);
    phone.sync();
    server.stop();
    let truth = phone.ok(&["export", "notes"]);
    let bytes = fs::read(database(&whole)[0].clone()).unwrap();
    let plain = Hardship::default();

    let (mut refused, mut sound) = (0, 0);
    for (round, damage) in (0..ROUNDS).flat_map(|round| Damage::ALL.map(|damage| (round, damage))) {
        let what = format!("{damage:?} of round {round}");
        let name = format!("{round}-{damage:?}");
        let mut random = Random(round * 100 + damage as u64 + 7);
        let (data, backup, restored) =
            (folder.path(&name), folder.path(&format!("{name}-b")), folder.path(&format!("{name}-r")));
        copy_folder(&whole, &data);
        let mut damaged = bytes.clone();
        damage.to(&mut damaged, &mut random);
        fs::write(&database(&data)[0], damaged).unwrap();

        let back_up = run(&plain, &["backup", "--data"], &[&data, &backup]);
        if back_up.status.success() {
            // Then nothing is missing: it hit what is not used, or what nobody can tell from what was written.
            assert_told(&run(&plain, &["restore", "--data"], &[&restored, &backup]), 0, &[]);
            let server = Server::start(&restored);
            let fresh = Device::new(&folder, &format!("{name}-r")).at(server.url()).with_token(&token);
            fresh.sync();
            assert_same_lines(&fresh.ok(&["export", "notes"]), &truth);
            sound += 1;
            continue;
        }
        assert_told(&back_up, 1, &["syncline.db"]);
        assert!(!backup.exists(), "{what}: there is half a backup");
        refused += 1;
        let begun = Server::try_start(&data);
        let Ok(server) = begun else {
            let told = begun.unwrap_err();
            assert!(told.contains("syncline.db") && !told.contains("panicked"), "{what}: {told}");
            continue;
        };
        let fresh = Device::new(&folder, &name).at(server.url()).with_token(&token);
        let synced = fresh.run(&["sync", "--give-up-after", "3s"]);
        assert_ends(&synced, "", &format!("the first sync with {what}"));
        if synced.code == Some(0) {
            // What was damaged is not among the records.
            assert_same_lines(&fresh.ok(&["export", "notes"]), &truth);
        }
        for command in [&["put", "notes", "k100", "1"][..], &["sync", "--give-up-after", "3s"]] {
            assert_ends(&fresh.run(command), "", &format!("{command:?} with {what}"));
        }
        for key in ["k000", "k007", "k100", "k299"] {
            let (status, answer) = http("GET", &record(&server, key), &token, &Value::Null);
            assert!([200, 404, 500].contains(&status), "{what}: {status} {answer}");
            assert!(status != 500 || answer["code"] == "InternalError", "{what}: {answer}");
        }
        let log = server.log();
        assert!(!log.contains("panicked"), "{what}: {log}");
        let failed = log.contains("failed to answer a request") || log.contains("failed to sync");
        assert!(!failed || log.contains("put back a backup with `syncline restore --replace`"), "{what}: {log}");
    }
    assert!(refused > 5 && sound > 0, "{refused} refused, {sound} sound");
}

#[test]
fn a_value_that_changes_on_the_servers_disk_is_told_to_who_pulls_it_and_kept_by_who_has_it() {
    let folder = Folder::new();
    let data = folder.path("data");
    let server = Server::start(&data);
    let token = server.token("ada");
    let [phone, tablet] = phone_and_tablet(&folder, &server, &token);
    phone.ok(&["put", "notes", "amount", r#"{"euros": "seventeen", "paid": false}"#]);
    phone.ok(&["put", "notes", "other", "1"]);
    phone.sync();
    server.stop();
    let [file, _] = database(&data);
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(9).position(|window| window == b"seventeen").expect("the value is in the file");
    bytes[at + 2] ^= 1;
    fs::write(&file, bytes).unwrap();

    let server = Server::start(&data);
    let [phone, tablet] = [phone, tablet].map(|device| device.at(server.url()));
    let damaged = |device: &Device| {
        let outcome = device.ends(Exit::Failure, &["sync", "--json"]);
        let synced: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!((&synced["damaged"], &synced["repaired"]), (&json!(["notes"]), &json!([])));
    };
    damaged(&tablet);
    assert_eq!(tablet.value("notes", "amount"), json!({"euros": "sewenteen", "paid": false}));
    // What is there is worked with, and not told again.
    tablet.ok(&["put", "notes", "other", "2"]);
    tablet.sync();
    phone.sync();
    assert_eq!(phone.value("notes", "amount"), json!({"euros": "seventeen", "paid": false}));
    tablet.ok(&["put", "notes", "amount", r#"{"euros": "sewenteen", "paid": true}"#]);
    tablet.sync();
    damaged(&phone);
    assert_eq!(phone.value("notes", "amount"), json!({"euros": "sewenteen", "paid": true}));
    let log = phone.json(&["conflicts", "notes"]);
    assert!(log.to_string().contains("seventeen"), "{log}");
    for device in [&phone, &tablet] {
        device.ok(&["put", "notes", "other", "3"]);
        device.sync();
    }
}

#[test]
fn a_row_that_somebody_deleted_from_the_servers_file_does_not_hold_up_who_changes_it() {
    let folder = Folder::new();
    let data = folder.path("data");
    let server = Server::start(&data);
    let token = server.token("ada");
    let [phone, tablet] = phone_and_tablet(&folder, &server, &token);
    phone.ok(&["put", "notes", "amount", r#"{"euros": 17, "paid": false}"#]);
    phone.ok(&["put", "notes", "other", "1"]);
    phone.sync();
    server.stop();
    let deleted = {
        let connection = Connection::open(&database(&data)[0]).unwrap();
        connection.execute("DELETE FROM record WHERE key = 'amount'", ()).unwrap()
    };
    assert_eq!(deleted, 1);

    let server = Server::start(&data);
    let [phone, tablet] = [phone, tablet].map(|device| device.at(server.url()));
    phone.sync();
    phone.ok(&["put", "notes", "amount", r#"{"euros": 17, "paid": true}"#]);
    let outcome = phone.ends(Exit::Failure, &["sync", "--json"]);
    let synced: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&synced["damaged"], &synced["pending"]), (&json!(["notes"]), &json!(0)));
    tablet.ends(Exit::Failure, &["sync"]);
    for device in [&phone, &tablet] {
        assert_eq!(device.value("notes", "amount"), json!({"euros": 17, "paid": true}));
        device.sync();
    }
}

#[test]
fn a_log_that_was_torn_by_a_loss_of_power_is_read_up_to_the_tear() {
    let folder = Folder::new();
    let data = folder.path("data");
    let server = Server::start(&data);
    let token = server.token("ada");
    for number in 0..100 {
        assert_eq!(http("PUT", &record(&server, &format!("k{number:03}")), &token, &json!(number)).0, 201);
    }
    let killed = folder.path("killed");
    copy_folder(&data, &killed);
    drop(server);
    let log = fs::read(&database(&killed)[1]).unwrap();
    assert!(log.len() > 100 * 4_096, "the writes are still in the log");
    let mut before = 100;
    for tenths in [9, 5, 1] {
        let torn = folder.path(&format!("torn-{tenths}"));
        copy_folder(&killed, &torn);
        let mut log = log[..log.len() / 10 * tenths].to_vec();
        // What was on its way is noise.
        let end = log.len() - 1_000;
        log[end..].iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 7) as u8);
        fs::write(&database(&torn)[1], log).unwrap();
        let server = Server::start(&torn);
        let (status, page) =
            http("GET", &format!("{}/v1/datasets/notes/records?limit=1000", server.url()), &token, &Value::Null);
        assert_eq!(status, 200, "{page}");
        let records = page["records"].as_array().unwrap();
        assert!(records.len() < before && !records.is_empty(), "{} records, and {before} before", records.len());
        before = records.len();
        for (number, record) in records.iter().enumerate() {
            assert_eq!((&record["key"], &record["value"]), (&json!(format!("k{number:03}")), &json!(number)));
        }
        assert_eq!(http("PUT", &record(&server, "after"), &token, &json!(1)).0, 201);
        server.stop();
        assert_told(
            &run(&Hardship::default(), &["backup", "--data"], &[&torn, &folder.path(&format!("b-{tenths}"))]),
            0,
            &[],
        );
    }
}
