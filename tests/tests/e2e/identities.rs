//! Who is signed in.

use std::fs;

use serde_json::json;
use tests::harness::{Exit, Fault, Proxy, http};

use crate::real_data::{generated, write_array};
use crate::{World, assert_same_lines};

#[test]
fn a_token_that_expires_during_a_sync_loses_nothing() {
    let world = World::start();
    let [phone, tablet] = world.devices();
    let records = write_array(&world.folder, "people", &generated());
    for dataset in ["people", "copies"] {
        phone.ok(&["import", dataset, &records, "--key", "id"]);
    }
    let token = world.folder.write("token", &world.server.token("ada"));
    let (file, expired) = (token.clone(), world.server.expired_token("ada"));
    let proxy = Proxy::start(world.server.url(), move |_| {
        fs::write(&file, &expired).unwrap();
        Fault::Pass
    });
    let outcome = phone.with_token_file(&token).at(&proxy.url()).ends(Exit::NotSignedIn, &["sync", "--json"]);
    assert!(outcome.stderr.contains("NotAuthorized"), "{}", outcome.stderr);
    assert_eq!(proxy.answered(), 2, "one request was served, and one refused");

    // Offline, the device still knows whose it is.
    let offline = phone.with_token_file(&token);
    offline.ok(&["put", "people", "late", r#"{"name":"Late"}"#]);
    assert_eq!(offline.value("people", "late"), json!({"name": "Late"}));
    assert_eq!(offline.json(&["parked"]), json!([]));

    world.folder.write("token", &world.server.token("ada"));
    phone.with_token_file(&token).sync();
    tablet.sync();
    for (dataset, count) in [("people", 10_001), ("copies", 10_000)] {
        let export = tablet.ok(&["export", dataset]);
        assert_same_lines(&export, &phone.ok(&["export", dataset]));
        assert_eq!(export.lines().count(), count);
    }
}

#[test]
fn what_one_user_wrote_is_never_sent_as_another_from_the_same_file() {
    let world = World::start();
    let ada = world.device("ada", "phone");
    let bob = ada.with_token(&world.server.token("bob"));
    ada.ok(&["put", "notes", "hers", r#""secret""#]);
    bob.ok(&["put", "notes", "his", "1"]);
    bob.ends(Exit::NotFound, &["get", "notes", "hers"]);
    bob.sync();
    bob.sync();
    let bobs_tablet = world.device("bob", "bobs-tablet");
    bobs_tablet.sync();
    assert_eq!(bobs_tablet.json(&["list", "notes"]), json!([{"key": "his", "value": 1}]));

    ada.sync();
    let adas_tablet = world.device("ada", "adas-tablet");
    adas_tablet.sync();
    assert_eq!(adas_tablet.json(&["list", "notes"]), json!([{"key": "hers", "value": "secret"}]));
    ada.ends(Exit::NotFound, &["get", "notes", "his"]);
}

#[test]
fn a_claim_merges_what_was_written_before_signing_in() {
    let world = World::start();
    let tablet = world.device("ada", "tablet");
    tablet.ok(&["policy", "votes", "counter"]);
    tablet.ok(&["put", "votes", "tea", "3"]);
    tablet.ok(&["put", "notes", "title", r#""identity""#]);
    tablet.sync();

    let guest = tests::harness::Device::new(&world.folder, "phone");
    guest.ok(&["policy", "votes", "counter"]);
    guest.ok(&["put", "votes", "tea", "4"]);
    guest.ok(&["put", "notes", "title", r#""guest""#]);
    let phone = guest.at(world.server.url()).with_token(&world.server.token("ada"));
    phone.ok(&["claim"]);
    phone.sync();
    tablet.sync();
    for device in [&phone, &tablet] {
        assert_eq!(device.value("votes", "tea"), json!(7));
        assert_eq!(device.value("notes", "title"), json!("identity"));
    }
    assert_eq!(phone.losses("notes"), [("title".to_owned(), json!("guest"))]);
}

#[test]
fn linked_logins_see_one_set_of_datasets_and_their_devices_go_on_without_loss() {
    let world = World::start();
    let (ada, bob) = (world.server.token("ada"), world.server.token("bob"));
    let tablet = world.device("ada", "tablet");
    tablet.ok(&["put", "notes", "title", r#""hers""#]);
    tablet.sync();
    let phone = world.device("bob", "phone");
    phone.ok(&["policy", "votes", "counter"]);
    for (dataset, key, value) in [("notes", "title", r#""his""#), ("notes", "old", "1"), ("votes", "tea", "3")] {
        phone.ok(&["put", dataset, key, value]);
    }
    phone.sync();
    // Pending while the link is made.
    phone.ok(&["put", "notes", "new", "2"]);
    phone.ok(&["put", "votes", "tea", "4"]);

    let link = format!("{}/v1/identity/link", world.server.url());
    let identity = http("GET", &format!("{}/v1/identity", world.server.url()), &ada, &json!(null)).1;
    let his = http("GET", &format!("{}/v1/identity", world.server.url()), &bob, &json!(null)).1;
    let uuid = his["identity"].as_str().unwrap().split_once(':').unwrap().1.to_owned();
    let linked = http("POST", &link, &ada, &json!({"token": bob}));
    let renamed = json!([{"from": "notes", "to": format!("notes.{uuid}")}]);
    assert_eq!(linked, (200, json!({"identity": identity["identity"], "renamed": renamed})));
    assert_eq!(http("POST", &link, &ada, &json!({"token": bob})), linked);

    phone.sync();
    tablet.ok(&["policy", "votes", "counter"]);
    tablet.sync();
    // His dataset `votes` goes on. Under `notes` he now finds hers, with what he had not pushed yet; his own is beside it.
    let beside = format!("notes.{uuid}");
    for device in [&phone, &tablet] {
        assert_eq!(device.value("votes", "tea"), json!(4));
        assert_eq!(
            device.json(&["list", "notes"]),
            json!([{"key": "new", "value": 2}, {"key": "title", "value": "hers"}])
        );
        assert_eq!(
            device.json(&["list", &beside]),
            json!([{"key": "old", "value": 1}, {"key": "title", "value": "his"}])
        );
    }
    assert_eq!(phone.json(&["parked"]), json!([]));
    assert_eq!(phone.json(&["status"])["identity"], identity["identity"]);
    let log = world.server.log();
    let line = log.lines().find(|line| line.contains("linked identity")).expect("a link is logged");
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(
        (&line["identity"], &line["target"]),
        (&identity["identity"], &json!("syncline_server::service::identities"))
    );
}
