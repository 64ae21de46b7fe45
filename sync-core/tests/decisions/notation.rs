//! The notation of the tables: `a@3=1` is the record `a` of count 3 with the value 1, `a@3-` its tombstone, and `~500`
//! after the count the time of its edit.

use std::collections::BTreeMap;

use sync_core::model::{
    ChangeId, CommitTag, Compare, DatasetName, DeviceId, EpochId, Group, PatchOp, Random, Record, RecordKey,
    RecordPatch, RecordState, RemovalReason, SyncCount, Timestamp, Value,
};

/// Counts up, so that nothing repeats.
#[derive(Clone, Debug)]
pub(crate) struct Counter(pub(crate) u64);

impl Random for Counter {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 += 1;
            chunk.copy_from_slice(&self.0.to_be_bytes()[..chunk.len()]);
        }
    }
}

pub(crate) fn key(key: &str) -> RecordKey {
    RecordKey::parse(key).unwrap()
}

pub(crate) fn json(json: &str) -> Value {
    Value::parse_json(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

pub(crate) fn dataset() -> DatasetName {
    DatasetName::parse("tables").unwrap()
}

pub(crate) fn device(number: u8) -> DeviceId {
    DeviceId::from_bytes([number; 16])
}

pub(crate) fn epoch(number: u8) -> EpochId {
    EpochId::from_bytes([number; 16])
}

pub(crate) fn tag(number: u64) -> CommitTag {
    CommitTag::from_bytes(number.to_be_bytes())
}

/// A record with a value or a tombstone.
pub(crate) fn record(text: &str) -> Record {
    let (at, value) = value(text);
    let (name, count, time) = place(at);
    let state = value.map_or(RecordState::Removed(RemovalReason::Removed), RecordState::Value);
    let (sync_count, device_time) = (SyncCount(count), Timestamp(time.unwrap_or(0)));
    Record { key: name, state, sync_count, modified_by: None, modified_at: Timestamp(0), device_time }
}

pub(crate) fn show(record: &Record) -> String {
    let at = format!("{}@{}", record.key, record.sync_count);
    record.value().map_or_else(|| format!("{at}-"), |value| format!("{at}={}", value.to_json()))
}

/// A value, or nothing, behind a name.
pub(crate) fn value(text: &str) -> (&str, Option<Value>) {
    match text.split_once('=') {
        Some((at, value)) => (at, Some(json(value))),
        None => (text.strip_suffix('-').unwrap_or_else(|| panic!("`=` or `-` at the end of {text}")), None),
    }
}

fn place(at: &str) -> (RecordKey, u64, Option<i64>) {
    let (at, time) = match at.split_once('~') {
        Some((at, time)) => (at, Some(time.parse().unwrap())),
        None => (at, None),
    };
    let (name, count) = at.split_once('@').unwrap_or((at, "0"));
    (key(name), count.parse().unwrap(), time)
}

/// A patch: `put` (compared by base), `edit` (by time), `set` (by nothing) and a record; or `merge` and a difference.
fn patch(text: &str) -> RecordPatch {
    let (verb, rest) = text.split_once(' ').unwrap_or_else(|| panic!("a verb before {text}"));
    let (at, op) = if verb == "merge" {
        let (at, delta) = rest.split_once('=').unwrap();
        (at, PatchOp::Merge(serde_json::from_str(delta).unwrap_or_else(|error| panic!("{delta}: {error}"))))
    } else {
        let compare = match verb {
            "put" => Compare::Base,
            "edit" => Compare::EditTime,
            "set" => Compare::Nothing,
            _ => panic!("{verb} is no verb"),
        };
        match value(rest) {
            (at, Some(value)) => (at, PatchOp::Replace(value, compare)),
            (at, None) => (at, PatchOp::Remove(compare)),
        }
    };
    let (key, base, time) = place(at);
    RecordPatch { key, op, base: SyncCount(base), device_time: Timestamp(time.unwrap_or(100)) }
}

/// Groups, parted by `|`, of patches, parted by `;`. Change ids follow from the place, and begin at `first`.
pub(crate) fn groups(text: &str, first: u8) -> Vec<Group> {
    let group = |(at, text): (usize, &str)| {
        let patches = text.split(';').map(|text| patch(text.trim())).collect();
        Group::new(ChangeId::from_bytes([first + at as u8; 16]), patches)
    };
    text.split('|').map(str::trim).enumerate().map(group).collect()
}

/// Values by name, parted by spaces.
pub(crate) fn writes(text: &str) -> Vec<(RecordKey, Option<Value>)> {
    text.split_whitespace().map(value).map(|(name, value)| (key(name), value)).collect()
}

pub(crate) fn show_values(values: &BTreeMap<RecordKey, Value>) -> String {
    let shown: Vec<_> = values.iter().map(|(key, value)| format!("{key}={}", value.to_json())).collect();
    shown.join(" ")
}
