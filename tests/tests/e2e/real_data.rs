//! Thousands of records.

use std::collections::BTreeMap;
use std::{fs, iter};

use serde_json::{Value, json};
use sync_core::model::Value as RecordValue;
use tests::harness::{Device, Fault, Folder, Proxy, movies};

use crate::{World, assert_same_lines};

const GENERATED: usize = 10_000;

#[test]
fn movies_and_generated_records_arrive_identical_on_a_second_device() {
    let world = World::start();
    let [phone, tablet] = world.devices();
    let sets = [("movies", numbered_movies()), ("generated", generated())];
    for (dataset, records) in &sets {
        let file = write_array(&world.folder, dataset, records);
        phone.ok(&["import", dataset, &file, "--key", "id"]);
    }
    phone.sync();
    tablet.sync();
    for (dataset, records) in &sets {
        let export = tablet.ok(&["export", dataset]);
        assert_same_lines(&export, &phone.ok(&["export", dataset]));
        assert_same_lines(&export, &expected_export(records));
    }
    assert_eq!(sets.map(|(_, records)| records.len()), [3_201, GENERATED]);
}

#[test]
fn overlapping_edits_of_two_offline_devices_merge_by_fields_and_lose_nothing() {
    let world = World::start();
    let [phone, tablet] = world.devices();
    let mut records = generated();
    phone.ok(&["import", "people", &write_array(&world.folder, "people", &records), "--key", "id"]);
    phone.sync();
    tablet.sync();

    // Records 500 to 899 get another field on each side, 900 to 999 the same one.
    let on_phone = |number: usize| (0..1_000).contains(&number).then_some("name");
    let on_tablet = |number: usize| match number {
        500..900 | 1_000..1_500 => Some("city"),
        900..1_000 => Some("name"),
        _ => None,
    };
    edit(&phone, &world.folder, &records, "phone", on_phone);
    edit(&tablet, &world.folder, &records, "tablet", on_tablet);
    phone.sync();
    tablet.sync();
    phone.sync();

    for (number, record) in records.iter_mut().enumerate() {
        for (field, device) in [(on_phone(number), "phone"), (on_tablet(number), "tablet")] {
            if let Some(field) = field {
                record[field] = json!(edited(device, number));
            }
        }
    }
    let export = phone.ok(&["export", "people"]);
    assert_same_lines(&export, &tablet.ok(&["export", "people"]));
    assert_same_lines(&export, &expected_export(&records));
    let mut lost: Vec<String> = tablet.losses("people").into_iter().map(|(_, value)| value.to_string()).collect();
    lost.sort();
    let expected: Vec<String> = (900..1_000).map(|number| json!(edited("phone", number)).to_string()).collect();
    assert_eq!(lost, expected, "what the tablet replaced is in its conflict log");
    assert_eq!(phone.losses("people"), []);
}

#[test]
fn a_check_of_datasets_in_sync_takes_one_round_trip_of_few_bytes_and_writes_nothing() {
    let world = World::start();
    let proxy = Proxy::start(world.server.url(), |_| Fault::Pass);
    let phone = world.device("ada", "phone").at(&proxy.url());
    let names: Vec<_> = (0..100).map(|number| format!("many{number:02}")).collect();
    names.iter().for_each(|name| drop(phone.ok(&["put", name, "a", "1"])));
    phone.sync();
    let server = world.folder.path("data");
    let files = [phone.file().to_owned(), server.join("syncline.db"), server.join("syncline.db-wal")];
    let contents = || files.each_ref().map(|file| fs::read(file).unwrap_or_default());
    for (checked, bytes_max) in [(1, 200), (100, 3_072)] {
        let (before, sent, answered) = (contents(), proxy.bytes(), proxy.answered());
        let arguments: Vec<_> = iter::once("sync").chain(names[..checked].iter().map(String::as_str)).collect();
        phone.ok(&arguments);
        assert_eq!(proxy.answered() - answered, 1);
        let bytes = proxy.bytes().requests + proxy.bytes().answers - sent.requests - sent.answers;
        assert!(bytes <= bytes_max, "{bytes} bytes for {checked}");
        assert!(contents() == before, "something was written for {checked}");
    }
}

#[test]
fn an_import_that_cannot_be_whole_writes_nothing() {
    let folder = Folder::new();
    let phone = Device::new(&folder, "phone");
    for (name, content, message) in [
        ("twice", r#"[{"id":1},{"id":2},{"id":"1"}]"#, "record 3: its key `1` is also that of record 1"),
        ("missing", "{\"id\":1}\n{\"no\":2}\n", "record 2: it has no field `id`"),
        ("broken", "[{\"id\":1},", "after record 1 the file is not valid JSON"),
    ] {
        let file = folder.write(name, content);
        let outcome = phone.ends(tests::harness::Exit::Usage, &["import", name, file.to_str().unwrap(), "--key", "id"]);
        assert!(outcome.stderr.contains(message), "{name}: {}", outcome.stderr);
        assert_eq!(phone.ok(&["export", name]), "", "{name}");
    }
}

/// Imports the records that `field_of` names again, with one field changed.
fn edit(
    device: &Device,
    folder: &Folder,
    records: &[Value],
    name: &str,
    field_of: impl Fn(usize) -> Option<&'static str>,
) {
    let edited: Vec<Value> = records
        .iter()
        .enumerate()
        .filter_map(|(number, record)| {
            let mut record = record.clone();
            record[field_of(number)?] = json!(edited(name, number));
            Some(record)
        })
        .collect();
    assert_eq!(edited.len(), 1_000);
    device.ok(&["import", "people", &write_array(folder, name, &edited), "--key", "id"]);
}

fn edited(device: &str, number: usize) -> String {
    format!("written on the {device}, {number:05}")
}

/// Titles of movies repeat, so each gets a number.
fn numbered_movies() -> Vec<Value> {
    let mut records: Vec<Value> = serde_json::from_str(&movies()).unwrap();
    for (number, record) in records.iter_mut().enumerate() {
        record["id"] = json!(number);
    }
    records
}

/// Records with six fields, different and always the same.
pub(crate) fn generated() -> Vec<Value> {
    let cities = ["Zürich", "京都", "São Paulo", "Reykjavík", "Nairobi"];
    let record = |number: usize| {
        let mixed = number.wrapping_mul(2_654_435_761) % 1_000_003;
        json!({
            "id": format!("person/{number:05}"),
            "name": format!("Person {mixed}"),
            "city": cities[mixed % cities.len()],
            "score": mixed as f64 / 7.0,
            "active": mixed.is_multiple_of(2),
            "friends": (!mixed.is_multiple_of(3)).then(|| vec![mixed % 100, mixed % 77]),
        })
    };
    (0..GENERATED).map(record).collect()
}

pub(crate) fn write_array(folder: &Folder, name: &str, records: &[Value]) -> String {
    let path = folder.write(&format!("{name}.json"), &Value::Array(records.to_vec()).to_string());
    path.to_str().unwrap().to_owned()
}

/// What `export` prints of such records, made without a device.
fn expected_export(records: &[Value]) -> String {
    let mut lines = BTreeMap::new();
    for record in records {
        let id = &record["id"];
        let key = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        let value = RecordValue::parse_json(&record.to_string()).unwrap();
        lines.insert(key.clone(), format!("{{\"key\":{},\"value\":{}}}\n", json!(key), value.to_json()));
    }
    lines.into_values().collect()
}
