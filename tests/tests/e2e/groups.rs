//! Groups are pushed whole or not at all, and one that is refused holds no other up.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tests::harness::{Device, Exit, Fault, Folder, Proxy, Server};

use crate::World;

#[test]
fn a_group_that_only_the_server_refuses_is_parked_and_can_be_fixed() {
    let folder = Folder::new();
    let config = folder.write("config.toml", "[limits]\nvalue_bytes_max = 1000\n");
    let server = Server::start_configured(&folder.path("data"), &config);
    let world = World { server, folder };
    let [phone, tablet] = world.devices();
    let record = |number: usize| match number {
        500 => json!({"id": 500, "text": "x".repeat(2_000)}),
        _ => json!({"id": number, "text": "short"}),
    };
    let records: Vec<Value> = (0..1_000).map(record).collect();
    phone.ok(&["import", "notes", &crate::real_data::write_array(&world.folder, "notes", &records), "--key", "id"]);
    let outcome = phone.ends(Exit::Rejected, &["sync"]);
    assert!(outcome.stdout.contains("parked"), "it says what to do next: {}", outcome.stdout);
    tablet.sync();
    assert_eq!(tablet.ok(&["export", "notes"]).lines().count(), 999);

    let parked = phone.json(&["parked"]);
    assert_eq!(parked.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&parked[0]["dataset"], &parked[0]["code"], &parked[0]["keys"]),
        (&json!("notes"), &json!("LimitExceeded"), &json!(["500"]))
    );
    // A retry is refused again, and the device has learnt the limit for what is written from now on.
    phone.ok(&["retry", "notes", &parked[0]["id"].to_string()]);
    phone.ends(Exit::Rejected, &["sync"]);
    let id = phone.json(&["parked"])[0]["id"].to_string();
    let long = json!({"id": 500, "text": "x".repeat(1_500)}).to_string();
    phone.ends(Exit::Usage, &["put", "notes", "500", &long]);

    let fixed = json!({"id": 500, "text": "short"});
    phone.ok(&["put", "notes", "500", &fixed.to_string()]);
    phone.ok(&["discard", "notes", &id]);
    phone.sync();
    tablet.sync();
    assert_eq!(tablet.value("notes", "500"), fixed);
    assert_eq!(tablet.ok(&["export", "notes"]).lines().count(), 1_000);
    assert_eq!(phone.json(&["parked"]), json!([]));
}

#[test]
fn what_was_parked_lands_with_a_retry_once_the_server_takes_it() {
    let folder = Folder::new();
    let config = folder.write("config.toml", "[limits]\nvalue_bytes_max = 1000\n");
    let data = folder.path("data");
    let server = Server::start_configured(&data, &config);
    let token = server.token("ada");
    let phone = Device::new(&folder, "phone").with_token(&token);
    let long = json!("x".repeat(2_000));
    phone.ok(&["put", "notes", "a", &long.to_string()]);
    phone.at(server.url()).ends(Exit::Rejected, &["sync"]);
    server.stop();

    let server = Server::start(&data);
    phone.at(server.url()).sync();
    phone.ok(&["retry"]);
    phone.at(server.url()).sync();
    let tablet = Device::new(&folder, "tablet").at(server.url()).with_token(&token);
    tablet.sync();
    assert_eq!(tablet.value("notes", "a"), long);
}

#[test]
fn a_value_over_the_limit_that_the_device_knows_is_refused_when_it_is_written() {
    let folder = Folder::new();
    let phone = Device::new(&folder, "phone");
    let long = json!("x".repeat(1 << 20)).to_string();
    let outcome = phone.run_with_input(&["put", "notes", "a", "-", "--json"], &long);
    assert_eq!(outcome.code, Some(Exit::Usage as i32), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("LimitExceeded"), "{}", outcome.stderr);
    phone.ends(Exit::NotFound, &["get", "notes", "a"]);
}

#[test]
fn nobody_sees_half_of_a_transaction() {
    let world = World::start();
    let [phone, tablet] = world.devices();
    tablet.sync();
    let mut total = 0;
    for number in 1..=2_000 {
        total += number % 17;
        let group = format!(
            "{}\n{}\n",
            json!({"op": "put", "key": "total", "value": total}),
            json!({"op": "put", "key": format!("entry/{number:04}"), "value": number % 17}),
        );
        phone.ok_with_input(&["apply", "book", "-"], &group);
    }

    // The tablet syncs whenever the server has answered the phone, and before the phone hears of it.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (seen_by_tablet, watching) = (Arc::clone(&seen), tablet.clone());
    let proxy = Proxy::start(world.server.url(), move |number| {
        watching.sync();
        seen_by_tablet.lock().unwrap().push(balance(&watching));
        if number % 3 == 2 { Fault::Drop } else { Fault::Pass }
    });
    phone.at(&proxy.url()).sync();
    tablet.sync();
    let mut seen = seen.lock().unwrap().clone();
    seen.push(balance(&tablet));
    assert!(seen.iter().all(|(total, entries, _)| total == entries), "totals and sums of entries: {seen:?}");
    assert_eq!(seen.last(), Some(&(total, total, 2_000)));
    seen.dedup();
    assert!(seen.len() >= 2, "the transactions came in several pushes: {seen:?}");
}

/// The total that a device has, the sum of the entries that it has, and how many they are.
fn balance(device: &Device) -> (u64, u64, usize) {
    let export = device.ok(&["export", "book"]);
    let (mut total, mut sum, mut count) = (0, 0, 0);
    for line in export.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let value = record["value"].as_u64().unwrap();
        if record["key"] == "total" {
            total = value;
        } else {
            sum += value;
            count += 1;
        }
    }
    (total, sum, count)
}

#[test]
fn a_group_with_a_mistake_changes_nothing() {
    let folder = Folder::new();
    let phone = Device::new(&folder, "phone");
    for (group, message) in [
        ("{\"op\":\"put\",\"key\":\"a\",\"value\":1}\n{\"op\":\"put\",\"key\":\"b\"}\n", "change 2"),
        ("{\"op\":\"put\",\"key\":\"a\",\"value\":1}\n{\"op\":\"remove\",\"key\":\"a\"}\n", "`a` is written twice"),
    ] {
        let outcome = phone.run_with_input(&["apply", "notes", "-"], group);
        assert_eq!(outcome.code, Some(Exit::Usage as i32));
        assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
        assert_eq!(phone.json(&["list", "notes"]), json!([]));
    }
}
