//! A device's file is copied, or a server's data folder is put back from an old copy.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};
use tests::harness::{Device, Exit, Fault, Folder, Proxy, Server, copy_folder, syncline};

use crate::{World, assert_same_lines};

#[test]
fn a_counter_that_is_copied_before_it_is_synced_counts_once_whoever_writes_and_comes_first() {
    for copy_first in [false, true] {
        let world = World::start();
        let phone = world.device("ada", "phone");
        phone.ok(&["policy", "votes", "counter"]);
        phone.ok(&["put", "votes", "tea", "5"]);
        let twin = phone.copy(&world.folder, "twin");
        phone.ok(&["put", "votes", "tea", "6"]);
        twin.ok(&["put", "votes", "tea", "7"]);
        let (first, second) = if copy_first { (&twin, &phone) } else { (&phone, &twin) };
        for device in [first, second, first] {
            device.sync();
        }
        for device in [&phone, &twin] {
            assert_eq!(device.value("votes", "tea"), json!(5 + 1 + 2), "copy first: {copy_first}");
        }
    }
}

#[test]
fn a_copied_device_and_its_original_both_keep_their_writes_and_count_nothing_twice() {
    let world = World::start();
    let phone = world.device("ada", "phone");
    phone.ok(&["policy", "votes", "counter"]);
    phone.ok(&["put", "votes", "tea", "5"]);
    // The server has counted this, and the device does not know.
    let silent = Proxy::start(world.server.url(), |_| Fault::Drop);
    phone.at(&silent.url()).ends(Exit::Offline, &["sync", "--give-up-after", "300ms"]);
    // And of this, the server does not know.
    phone.ok(&["put", "votes", "coffee", "7"]);

    let twin = phone.copy(&world.folder, "twin");
    for (device, more, name) in [(&phone, 6, "phone"), (&twin, 8, "twin")] {
        device.ok(&["put", "votes", "tea", &more.to_string()]);
        device.ok(&["put", "notes", name, "true"]);
        device.ok(&["put", "notes", "both", &json!(name).to_string()]);
    }
    for device in [&phone, &twin, &phone, &twin] {
        device.sync();
    }
    for device in [&phone, &twin] {
        assert_eq!(device.value("votes", "tea"), json!(5 + 1 + 3));
        assert_eq!(device.value("votes", "coffee"), json!(7));
        assert_eq!(device.value("notes", "phone"), json!(true));
        assert_eq!(device.value("notes", "twin"), json!(true));
        assert_eq!(device.value("notes", "both"), json!("twin"));
    }
    assert_eq!(twin.losses("notes"), [("both".to_owned(), json!("phone"))]);
    let ids = [&phone, &twin].map(|device| device.json(&["status"])["device"].clone());
    assert_ne!(ids[0], ids[1], "one of them took a new device id");
}

/// How a server comes back from its backup.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Comeback {
    /// Somebody ran `syncline fence`.
    Fenced,
    /// Nobody said anything, and its count is behind.
    Silent,
    /// Nobody said anything, and others have pushed meanwhile until its count was ahead.
    Overtaken,
}

#[test]
fn a_server_put_back_with_a_fence_is_recognised_and_nothing_is_lost() {
    check(Comeback::Fenced);
}

#[test]
fn a_server_put_back_without_a_word_is_recognised_and_nothing_is_lost() {
    check(Comeback::Silent);
}

#[test]
fn a_server_put_back_that_has_overtaken_its_devices_is_recognised_and_nothing_is_lost() {
    check(Comeback::Overtaken);
}

fn check(comeback: Comeback) {
    let folder = Folder::new();
    let (data, backup) = (folder.path("data"), folder.path("backup"));
    let server = Server::start(&data);
    let token = server.token("ada");
    let device = |name: &str| Device::new(&folder, name).with_token(&token);
    let [phone, tablet, laptop] = ["phone", "tablet", "laptop"].map(device);
    let put = |device: &Device, key: &str, value: &Value| device.ok(&["put", "notes", key, &value.to_string()]);
    for number in 0..5 {
        put(&phone, &format!("old/{number}"), &json!("old"));
    }
    put(&phone, "changed", &json!("before"));
    for device in [&phone, &tablet, &laptop] {
        device.at(server.url()).sync();
    }
    server.stop();
    copy_folder(&data, &backup);

    // Acknowledged, and then lost by the server.
    let server = Server::start(&data);
    let mut lost: BTreeMap<String, Value> = BTreeMap::new();
    for number in 0..6 {
        let device = if number % 2 == 0 { &phone } else { &tablet };
        lost.insert(format!("new/{number}"), json!(number));
        put(device, &format!("new/{number}"), &json!(number));
        device.at(server.url()).sync();
    }
    lost.insert("changed".into(), json!("after"));
    put(&phone, "changed", &json!("after"));
    phone.at(server.url()).sync();
    server.stop();

    // Pending at the moment.
    put(&phone, "pending/phone", &json!(1));
    put(&tablet, "pending/tablet", &json!(2));
    copy_folder(&backup, &data);
    if comeback == Comeback::Fenced {
        let fence = Command::new(syncline()).args(["fence", "--data"]).arg(&data).output().unwrap();
        assert!(fence.status.success(), "{}", String::from_utf8_lossy(&fence.stderr));
    }
    let server = Server::start(&data);
    let [phone, tablet, laptop] = [phone, tablet, laptop].map(|device| device.at(server.url()));
    if comeback == Comeback::Overtaken {
        for number in 0..10 {
            put(&laptop, &format!("late/{number}"), &json!("late"));
            laptop.sync();
        }
    }
    for device in [&phone, &tablet, &phone] {
        device.sync();
    }

    let logs = [&phone, &tablet].map(|device| device.losses("notes"));
    for (key, value) in &lost {
        let logged = logs.iter().flatten().any(|(logged, lost)| logged == key && lost == value);
        assert!(logged, "{comeback:?}: `{key}` is in no conflict log: {logs:?}");
    }
    for device in [&phone, &tablet] {
        assert_eq!(device.value("notes", "pending/phone"), json!(1), "{comeback:?}");
        assert_eq!(device.value("notes", "pending/tablet"), json!(2), "{comeback:?}");
        let entries = device.json(&["conflicts", "notes"]);
        for entry in entries.as_array().unwrap() {
            device.ok(&["restore", "notes", &entry["id"].to_string()]);
        }
        device.sync();
    }
    for device in [&phone, &tablet, &laptop] {
        device.sync();
        for (key, value) in &lost {
            assert_eq!(device.value("notes", key), *value, "{comeback:?}: `{key}` was restored");
        }
    }
    assert_same_lines(&phone.ok(&["export", "notes"]), &laptop.ok(&["export", "notes"]));
    assert_same_lines(&phone.ok(&["export", "notes"]), &tablet.ok(&["export", "notes"]));
}
