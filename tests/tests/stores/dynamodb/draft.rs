//! Commits for tests of this store.

use sync_core::merge::push::{Answer, Commit, Head, Outcome, RememberedPush};
use sync_core::model::{
    ChangeId, CommitTag, DatasetName, DeviceId, EpochId, EpochReason, Owner, Record, RecordKey, RecordState,
    RemovalReason, SyncCount, Timestamp, Value,
};
use syncline_server::store::{CommitOutcome, DatasetAddress, RecordsAfter, RecordsRead, Store, Touched};

pub(super) fn owner(id: &str) -> Owner {
    Owner::parse(format!("local:{id}")).unwrap()
}

pub(super) fn dataset(id: &str, name: &str) -> DatasetAddress {
    DatasetAddress { owner: owner(id), name: DatasetName::parse(name).unwrap() }
}

pub(super) fn key(name: &str) -> RecordKey {
    RecordKey::parse(name).unwrap()
}

pub(super) fn text(bytes: usize) -> Value {
    Value::Text("x".repeat(bytes))
}

/// The next commit: records to put, and keys to remove; with a push and a change id, as a device's has them.
pub(super) fn next(head: &Head, put: &[(String, Value)], remove: &[&str]) -> Commit {
    let mut commit = Commit::on(head);
    let lineage = &mut commit.head.lineage;
    if lineage.entries.is_empty() {
        lineage.open(EpochId::from_bytes([1; 16]), EpochReason::Created);
    }
    let tag = 0x0101_0101_0101_0101_u64.wrapping_mul(lineage.count.0 + 1).to_be_bytes();
    lineage.advance(CommitTag::from_bytes(tag));
    let count = lineage.count;
    commit.head.modified_at = Timestamp(1_700_000_000_000 + count.0 as i64);
    let modified_at = commit.head.modified_at;
    let record = |name: &str, state| Record {
        key: key(name),
        state,
        sync_count: count,
        modified_by: Some(device()),
        modified_at,
        device_time: modified_at,
    };
    let live = put.iter().map(|(name, value)| record(name, RecordState::Value(value.clone())));
    let removed = remove.iter().map(|name| record(name, RecordState::Removed(RemovalReason::Removed)));
    commit.records = live.chain(removed).collect();
    commit.head.records = commit.head.records.max(put.len() as u64);
    commit.head.bytes += put.iter().map(|(name, value)| (name.len() + value.encoded_len()) as u64).sum::<u64>();
    let outcomes = vec![Outcome::Applied { merged: false, overwritten: Vec::new() }];
    let answer = Answer { ack: commit.head.lineage.position(), outcomes };
    commit.pushes = vec![(device(), RememberedPush { sequence: count.0, hash: [7; 32], answer })];
    let mut change = [0; 16];
    change[8..].copy_from_slice(&count.0.to_be_bytes());
    commit.changes = vec![(ChangeId::from_bytes(change), count)];
    commit
}

pub(super) const fn device() -> DeviceId {
    DeviceId::from_bytes([5; 16])
}

pub(super) async fn head(store: &dyn Store, dataset: &DatasetAddress) -> Head {
    store.view(dataset, &Touched::default()).await.unwrap().head
}

/// Writes the next commit.
pub(super) async fn write(store: &dyn Store, dataset: &DatasetAddress, put: &[(String, Value)], remove: &[&str]) {
    let commit = next(&head(store, dataset).await, put, remove);
    assert_eq!(store.commit(dataset, commit).await.unwrap(), CommitOutcome::Written);
}

/// Records above a count.
pub(super) fn above(since: u64) -> RecordsAfter {
    RecordsAfter {
        since: SyncCount(since),
        after: None,
        skip_tombstones_to: SyncCount::ZERO,
        records_max: 2_000,
        bytes_max: 8 << 20,
    }
}

/// `key@count`, with a minus before tombstones, and how long values are.
pub(super) fn show(read: &RecordsRead) -> String {
    assert!(!read.has_more);
    let shown = read.records.iter().map(|record| {
        let length = record.value().map_or_else(|| "-".to_owned(), |value| value.encoded_len().to_string());
        format!("{}@{}:{length}", record.key, record.sync_count)
    });
    shown.collect::<Vec<_>>().join(" ")
}
