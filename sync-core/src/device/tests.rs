//! The store on its own: what it keeps is what was written, whoever opens the file and whatever is in it.

mod conformance;
mod file;
mod operations;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::execute::execute;
use super::replica::StoredReplica;
use super::{Address, DeviceDb, DeviceError};
use crate::merge::replica::{GroupHeader, GroupId, GroupState, PendingPatch, Write};
use crate::merge::stack::Context;
use crate::model::{
    ChangeId, DatasetName, DeviceId, Owner, Random, Record, RecordKey, RecordState, RemovalReason, SyncCount,
    Timestamp, Value,
};

/// Bytes that follow from a number.
struct Seed(u64);

impl Random for Seed {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (self.0 >> 56) as u8;
        }
    }
}

/// A folder of its own, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("syncline-device-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("device.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn open(path: &Path) -> Result<DeviceDb, DeviceError> {
    DeviceDb::open(path, &mut Seed(1))
}

fn memory() -> DeviceDb {
    DeviceDb::open_in_memory(&mut Seed(1)).unwrap()
}

fn key(key: &str) -> RecordKey {
    RecordKey::parse(key).unwrap()
}

fn json(json: &str) -> Value {
    Value::parse_json(json).unwrap()
}

fn address(db: &mut DeviceDb) -> Address {
    Address { owner: db.owner().unwrap(), dataset: DatasetName::parse("notes").unwrap() }
}

/// `key@count=json`, or `key@count` for a tombstone.
fn record(text: &str) -> Record {
    let (at, value) = text.split_once('=').map_or((text, None), |(at, value)| (at, Some(value)));
    let (name, count) = at.split_once('@').unwrap();
    let count: u64 = count.parse().unwrap();
    Record {
        key: key(name),
        state: value.map_or(RecordState::Removed(RemovalReason::Removed), |value| RecordState::Value(json(value))),
        sync_count: SyncCount(count),
        modified_by: (!count.is_multiple_of(2)).then(|| DeviceId::from_bytes([7; 16])),
        modified_at: Timestamp(1_000 + count as i64),
        device_time: Timestamp(900 + count as i64),
    }
}

fn records(text: &str) -> Vec<Record> {
    text.split_whitespace().map(record).collect()
}

fn group(id: u64) -> Write {
    let change_id = ChangeId::from_bytes([id as u8; 16]);
    Write::Group(GroupHeader { patches: 1, bytes: 10, ..GroupHeader::new(GroupId(id), GroupState::Open, change_id) })
}

fn pending(value: Option<&str>) -> PendingPatch {
    PendingPatch {
        under: None,
        value: value.map(json),
        device_time: Timestamp(5),
        whole: false,
        claimed: false,
        question: None,
        sent: None,
    }
}

fn patch(group: u64, name: &str, value: Option<&str>) -> Write {
    Write::Patch { group: GroupId(group), key: key(name), patch: Box::new(pending(value)) }
}

fn run(db: &mut DeviceDb, address: &Address, writes: &[Write]) {
    db.change(|connection| execute(connection, address, writes)).unwrap();
}

fn read<T>(db: &mut DeviceDb, address: &Address, work: impl FnOnce(&StoredReplica<'_>) -> T) -> T {
    db.read(|connection| Ok::<_, DeviceError>(work(&StoredReplica::find(connection, address)?))).unwrap()
}

fn put(db: &mut DeviceDb, address: &Address, name: &str, value: &str) {
    let mut random = Seed(9);
    let mut context = Context { now: Timestamp(10), random: &mut random };
    db.write(address, vec![(key(name), Some(json(value)))], &mut context).unwrap();
}

/// What the app sees: `key=json`, in the order of a listing.
fn listed(db: &mut DeviceDb, address: &Address, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    db.for_each(address, prefix, |key, value| {
        found.push(format!("{key}={}", value.to_json()));
        Ok::<_, DeviceError>(())
    })
    .unwrap();
    found
}
