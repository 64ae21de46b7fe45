//! What a device's write costs beside an upsert of the same bytes with the same durability.

use std::time::Instant;

use rusqlite::Connection;
use sync_core::device::{Address, DeviceDb};
use sync_core::merge::stack::Context;
use sync_core::model::{DatasetName, RecordKey, Timestamp, Value};
use syncline_server::clock::{Draw, SystemRandom};
use tests::harness::Folder;

use crate::data::generated;
use crate::report::{Aim, Report, median};

/// Writes of each kind, in turn.
const WRITES: usize = 2_000;

pub(crate) fn measure(report: &mut Report) {
    let folder = Folder::new();
    let mut random = Draw(&SystemRandom);
    let mut db = DeviceDb::open(folder.path("device.db"), &mut random).expect("the file can be made");
    let address =
        Address { owner: db.owner().expect("it has one"), dataset: DatasetName::parse("notes").expect("a name") };
    let raw = Connection::open(folder.path("raw.db")).expect("the file can be made");
    raw.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -8192;
         CREATE TABLE record (key BLOB NOT NULL PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;",
    )
    .expect("the table can be made");
    let (mut ours, mut below) = (Vec::new(), Vec::new());
    for (key, value) in generated().into_iter().take(WRITES) {
        let value = Value::parse_json(&value.to_string()).expect("it is a value");
        let begun = Instant::now();
        let bytes = value.to_bytes();
        raw.prepare_cached("INSERT INTO record VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
            .and_then(|mut upsert| upsert.execute((key.as_bytes(), bytes)))
            .expect("it can be written");
        below.push(begun.elapsed().as_secs_f64() * 1e6);
        let begun = Instant::now();
        let write = vec![(RecordKey::parse(key).expect("a key"), Some(value))];
        db.write(&address, write, &mut Context { now: Timestamp(1), random: &mut random }).expect("it can be written");
        ours.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    report.beside("device: durable `put`", "µs", median(ours), median(below), Aim::TimesAtMost(1.3));
}
