//! Two devices change the same record offline, under each policy.

use serde_json::{Value, json};
use tests::harness::{Device, Exit};

use crate::World;

/// Who writes first; the phone always syncs first.
#[derive(Clone, Copy)]
enum Earlier {
    Phone,
    Tablet,
}

struct Case<'a> {
    policy: &'a [&'a str],
    start: Value,
    phone: Value,
    tablet: Value,
    earlier: Earlier,
    both: Value,
    /// What is in the tablet's conflict log, because it synced last.
    lost: Option<Value>,
}

#[test]
fn each_policy_gives_its_documented_outcome_on_both_devices_and_keeps_the_loser() {
    let world = World::start();
    let [phone, tablet] = world.devices();
    let text = |first: &str, last: &str| json!(format!("{first}\nmiddle\n{last}\n"));
    let case = |policy, start, phone, tablet, both, lost| Case {
        policy,
        start,
        phone,
        tablet,
        earlier: Earlier::Phone,
        both,
        lost,
    };
    let cases = [
        case(
            &["fields"],
            json!({"title": "tea", "done": false}),
            json!({"title": "green tea", "done": false}),
            json!({"title": "tea", "done": true}),
            json!({"title": "green tea", "done": true}),
            None,
        ),
        case(
            &["fields"],
            json!({"title": "tea"}),
            json!({"title": "green tea"}),
            json!({"title": "black tea"}),
            json!({"title": "black tea"}),
            Some(json!("green tea")),
        ),
        case(&["last_sync_wins"], json!(0), json!(1), json!(2), json!(2), Some(json!(1))),
        case(&["latest_edit_wins"], json!(0), json!(1), json!(2), json!(2), Some(json!(1))),
        Case {
            earlier: Earlier::Tablet,
            ..case(&["latest_edit_wins"], json!(0), json!(1), json!(2), json!(1), Some(json!(2)))
        },
        case(&["keep_remote"], json!(0), json!(1), json!(2), json!(1), Some(json!(2))),
        case(&["keep_local"], json!(0), json!(1), json!(2), json!(2), Some(json!(1))),
        case(&["counter"], json!(10), json!(15), json!(17), json!(22), None),
        case(&["set"], json!(["a", "b"]), json!(["a", "b", "c"]), json!(["b"]), json!(["b", "c"]), None),
        case(&["max"], json!(10), json!(20), json!(15), json!(20), Some(json!(15))),
        case(&["min"], json!(10), json!(5), json!(8), json!(5), Some(json!(8))),
        case(
            &["text"],
            text("first", "last"),
            text("FIRST", "last"),
            text("first", "LAST"),
            text("FIRST", "LAST"),
            None,
        ),
        case(
            &["counter", "--field", "votes"],
            json!({"votes": 1, "title": "tea"}),
            json!({"votes": 4, "title": "tea"}),
            json!({"votes": 3, "title": "coffee"}),
            json!({"votes": 6, "title": "coffee"}),
            None,
        ),
        case(&["keep_remote", "--prefix", "rec"], json!(0), json!(1), json!(2), json!(1), Some(json!(2))),
    ];
    for (number, case) in cases.iter().enumerate() {
        check(&phone, &tablet, &format!("case-{number}"), case);
    }
}

#[track_caller]
fn check(phone: &Device, tablet: &Device, dataset: &str, case: &Case<'_>) {
    let name = format!("{dataset}: {}", case.policy.join(" "));
    let put = |device: &Device, value: &Value| device.ok(&["put", dataset, "record", &value.to_string()]);
    let sync = |device: &Device| device.ok(&["sync", dataset]);
    for device in [phone, tablet] {
        device.ok(&[&["policy", dataset], case.policy].concat());
    }
    put(phone, &case.start);
    sync(phone);
    sync(tablet);
    match case.earlier {
        Earlier::Phone => {
            put(phone, &case.phone);
            put(tablet, &case.tablet);
        }
        Earlier::Tablet => {
            put(tablet, &case.tablet);
            put(phone, &case.phone);
        }
    }
    sync(phone);
    sync(tablet);
    sync(phone);
    for device in [phone, tablet] {
        assert_eq!(device.value(dataset, "record"), case.both, "{name}");
    }
    assert_eq!(phone.losses(dataset), [], "{name}: the phone's log");
    let lost: Vec<Value> = tablet.losses(dataset).into_iter().map(|(_, value)| value).collect();
    assert_eq!(lost, case.lost.clone().into_iter().collect::<Vec<_>>(), "{name}: the tablet's log");

    // The loser comes back when somebody wants it.
    let Some(lost) = &case.lost else { return };
    if matches!(case.policy[0], "max" | "min") {
        // The policy would decide the same again.
        return;
    }
    let id = tablet.json(&["conflicts", dataset])[0]["id"].to_string();
    tablet.ok(&["restore", dataset, &id]);
    sync(tablet);
    sync(phone);
    for device in [phone, tablet] {
        let value = device.value(dataset, "record");
        let restored = value.get("title").unwrap_or(&value);
        assert_eq!(restored, lost, "{name}: restored");
    }
    tablet.ok(&["conflicts", dataset, "--clear"]);
    assert_eq!(tablet.losses(dataset), [], "{name}: cleared");
}

#[test]
fn ask_waits_for_an_answer_and_holds_nothing_else_up() {
    let world = World::start();
    let [phone, tablet] = world.devices();
    for (answer, both) in [("local", json!("tablet")), ("remote", json!("phone")), (r#""third""#, json!("third"))] {
        let dataset = format!("ask-{}", answer.trim_matches('"'));
        let dataset = dataset.as_str();
        for device in [&phone, &tablet] {
            device.ok(&["policy", dataset, "ask"]);
        }
        phone.ok(&["put", dataset, "color", r#""start""#]);
        phone.ok(&["sync", dataset]);
        tablet.ok(&["sync", dataset]);

        phone.ok(&["put", dataset, "color", r#""phone""#]);
        phone.ok(&["sync", dataset]);
        tablet.ok(&["put", dataset, "color", r#""tablet""#]);
        tablet.ok(&["put", dataset, "other", "1"]);
        tablet.ends(Exit::Unresolved, &["sync", dataset]);
        assert_eq!(tablet.value(dataset, "color"), json!("tablet"), "the device still shows what was written on it");
        phone.ok(&["sync", dataset]);
        assert_eq!(phone.value(dataset, "other"), json!(1), "other changes are not held up");
        phone.ok(&["put", dataset, "another", "2"]);
        phone.ok(&["sync", dataset]);
        tablet.ends(Exit::Unresolved, &["sync", dataset]);
        assert_eq!(tablet.value(dataset, "another"), json!(2));

        let questions = tablet.json(&["resolve", dataset]);
        assert_eq!(
            questions,
            json!([{"key": "color", "base": "start", "local": "tablet", "remote": "phone"}]),
            "{answer}"
        );
        tablet.ok(&["resolve", dataset, "color", answer]);
        tablet.ok(&["sync", dataset]);
        phone.ok(&["sync", dataset]);
        for device in [&phone, &tablet] {
            assert_eq!(device.value(dataset, "color"), both, "{answer}");
        }
        tablet.ends(Exit::NotFound, &["resolve", dataset, "color", "local"]);
    }
}

#[test]
fn who_answers_with_the_remote_value_is_told_what_else_is_given_up() {
    let world = World::start();
    let [phone, tablet] = world.devices();
    for device in [&phone, &tablet] {
        device.ok(&["policy", "notes", "ask"]);
    }
    for (device, value) in [(&phone, "phone"), (&tablet, "tablet")] {
        let put = |key: &str| json!({"op": "put", "key": key, "value": value}).to_string();
        let group = format!("{}\n{}\n", put("color"), put(&format!("size of the {value}")));
        device.ok_with_input(&["apply", "notes", "-"], &group);
    }
    phone.ok(&["sync"]);
    tablet.ends(Exit::Unresolved, &["sync"]);
    let answered = tablet.json(&["resolve", "notes", "color", "remote"]);
    assert_eq!(answered["given_up"], json!(["size of the tablet"]));
    let lost = [("color".to_owned(), json!("tablet")), ("size of the tablet".to_owned(), json!("tablet"))];
    assert_eq!(tablet.losses("notes"), lost);
}

#[test]
fn who_restores_what_both_sides_lost_is_told_which_value_is_not_written() {
    let world = World::start();
    let [phone, tablet] = world.devices();
    for (device, value) in [(&phone, "1"), (&tablet, "2")] {
        device.ok(&["policy", "notes", "ask"]);
        device.ok(&["put", "notes", "color", value]);
    }
    phone.ok(&["sync"]);
    tablet.ends(Exit::Unresolved, &["sync"]);
    tablet.ok(&["resolve", "notes", "color", "3"]);
    let id = tablet.json(&["conflicts", "notes"])[0]["id"].to_string();
    let restored = tablet.json(&["restore", "notes", &id]);
    assert_eq!(restored["not_written"], json!([{"key": "color", "side": "remote", "value": 1}]));
    assert_eq!(tablet.value("notes", "color"), json!(2));
}

#[test]
fn an_edit_meets_a_removal() {
    let world = World::start();
    let [phone, tablet] = world.devices();
    let start = json!({"title": "tea", "done": false});
    let edited = json!({"title": "tea", "done": true});
    for (dataset, on_delete, tablet_removes, survives) in [
        ("edit-last-edit-wins", "edit_wins", false, true),
        ("edit-last-delete-wins", "delete_wins", false, false),
        ("removal-last-edit-wins", "edit_wins", true, true),
        ("removal-last-delete-wins", "delete_wins", true, false),
    ] {
        for device in [&phone, &tablet] {
            device.ok(&["policy", dataset, "fields", "--on-delete", on_delete]);
        }
        phone.ok(&["put", dataset, "record", &start.to_string()]);
        phone.ok(&["sync", dataset]);
        tablet.ok(&["sync", dataset]);
        let (editor, remover) = if tablet_removes { (&phone, &tablet) } else { (&tablet, &phone) };
        remover.ok(&["rm", dataset, "record"]);
        editor.ok(&["put", dataset, "record", &edited.to_string()]);
        for device in [&phone, &tablet, &phone] {
            device.ok(&["sync", dataset]);
        }
        for device in [&phone, &tablet] {
            if survives {
                assert_eq!(device.value(dataset, "record"), edited, "{dataset}");
            } else {
                device.ends(Exit::NotFound, &["get", dataset, "record"]);
            }
        }
        // A removal that was undone is no value to keep; an edit that was dropped is.
        let kept = tablet.losses(dataset).into_iter().any(|(_, value)| value == edited);
        assert_eq!(kept, !survives, "{dataset}: the edit in the tablet's log");
    }
}

#[test]
fn policies_are_printed_and_taken_back() {
    let folder = tests::harness::Folder::new();
    let phone = Device::new(&folder, "phone");
    phone.ok(&["policy", "notes", "fields", "--on-delete", "delete_wins"]);
    phone.ok(&["policy", "notes", "counter", "--field", "votes"]);
    phone.ok(&["policy", "notes", "ask", "--prefix", "draft/"]);
    let declared = json!({
        "dataset": "fields", "prefixes": {"draft/": "ask"}, "fields": {"votes": "counter"}, "on_delete": "delete_wins"
    });
    assert_eq!(phone.json(&["policy", "notes"]), declared);
    phone.ok(&["policy", "notes", "default"]);
    phone.ok(&["policy", "notes", "default", "--prefix", "draft/"]);
    let declared = json!({"dataset": null, "prefixes": {}, "fields": {"votes": "counter"}, "on_delete": "delete_wins"});
    assert_eq!(phone.json(&["policy", "notes"]), declared);
    let outcome = phone.ends(Exit::Usage, &["policy", "notes", "ask", "--field", "votes"]);
    assert!(outcome.stderr.contains("ask"), "{}", outcome.stderr);
}
