//! Commits for the suite, made without the planners.

use std::collections::{BTreeMap, BTreeSet};

use sync_core::merge::push::{Answer, Commit, Head, Outcome, RememberedPush};
use sync_core::model::{
    ChangeId, CommitTag, DatasetName, DeviceId, EpochId, EpochReason, Overwritten, Owner, Random, Record, RecordKey,
    RecordState, RemovalReason, SyncCount, Timestamp, Value,
};

use crate::store::{CommitOutcome, DatasetAddress, RecordsAfter, Store, Touched};

/// Makes commits with ids of its own.
pub(super) struct Draft {
    writer: u64,
    drawn: u64,
}

impl Random for Draft {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.drawn += 1;
        let id = (u128::from(self.drawn) << 64 | u128::from(self.writer)).to_le_bytes();
        let both = (self.drawn << 8 | self.writer).to_le_bytes();
        let length = bytes.len();
        bytes.copy_from_slice(if length == 8 { &both } else { &id[..length] });
    }
}

impl Draft {
    pub(super) const fn new() -> Self {
        Self::of(0)
    }

    pub(super) const fn of(writer: u64) -> Self {
        Self { writer, drawn: 0 }
    }

    pub(super) fn epoch(&mut self) -> EpochId {
        EpochId::random(self)
    }

    pub(super) fn tag(&mut self) -> CommitTag {
        CommitTag::random(self)
    }

    /// A commit of the next count, without records.
    pub(super) fn next(&mut self, head: &Head) -> Commit {
        let mut commit = Commit::on(head);
        let lineage = &mut commit.head.lineage;
        if lineage.entries.is_empty() {
            let epoch = self.epoch();
            lineage.open(epoch, EpochReason::Created);
        }
        let tag = self.tag();
        lineage.advance(tag);
        commit.head.modified_at = Timestamp(1_000 * lineage.count.0 as i64);
        commit.head.modified_by = Some(device(7));
        commit
    }

    /// A commit that deletes the dataset.
    pub(super) fn deletion(&mut self, head: &Head) -> Commit {
        let mut commit = self.next(head);
        let epoch = self.epoch();
        commit.head.lineage.open(epoch, EpochReason::Deleted);
        let lineage = std::mem::take(&mut commit.head.lineage);
        commit.head = Head { floor: lineage.count, lineage, ..Head::default() };
        commit.clear = true;
        commit
    }

    /// Adds a value.
    #[expect(clippy::unused_self, reason = "it reads like the others")]
    pub(super) fn put(&self, commit: &mut Commit, name: &str, value: Value) {
        let record = record(commit, name, RecordState::Value(value));
        commit.head.records += 1;
        commit.head.bytes += 10;
        commit.head.digest = commit.head.digest.plus(&record);
        commit.records.push(record);
    }

    /// Adds a tombstone.
    #[expect(clippy::unused_self, reason = "it reads like the others")]
    pub(super) fn remove(&self, commit: &mut Commit, name: &str) {
        commit.records.push(record(commit, name, RecordState::Removed(RemovalReason::Removed)));
    }

    /// Adds a push with one change.
    pub(super) fn remember(&mut self, commit: &mut Commit, of: u8, sequence: u64) {
        let old = |value| Overwritten { key: key("a"), path: vec!["field".to_owned()], value };
        let overwritten = vec![old(Some(Value::Text("old".to_owned()))), old(Some(Value::Null)), old(None)];
        let outcomes = vec![
            Outcome::Applied { merged: true, overwritten },
            Outcome::Conflict { keys: vec![key("b")] },
            Outcome::Refused(sync_core::merge::push::Refusal::Limit("too much".to_owned())),
        ];
        let answer = Answer { ack: commit.head.lineage.position(), outcomes };
        commit.pushes.push((device(of), RememberedPush { sequence, hash: [of; 32], answer }));
        commit.changes.push((ChangeId::random(self), commit.head.lineage.count));
    }

    /// Asks for pushes of a device.
    #[expect(clippy::unused_self, reason = "it reads like the others")]
    pub(super) fn pushes(&self, of: u8, sequences: impl IntoIterator<Item = u64>) -> BTreeMap<DeviceId, BTreeSet<u64>> {
        [(device(of), sequences.into_iter().collect())].into()
    }

    /// Asks for the change ids of a commit.
    #[expect(clippy::unused_self, reason = "it reads like the others")]
    pub(super) fn changes(&self, commit: &Commit) -> BTreeSet<ChangeId> {
        commit.changes.iter().map(|(id, _)| *id).collect()
    }
}

pub(super) fn owner(id: &str) -> Owner {
    Owner::parse(format!("local:{id}")).unwrap()
}

/// A dataset of Ada.
pub(super) fn dataset(name: &str) -> DatasetAddress {
    DatasetAddress { owner: owner("ada"), name: DatasetName::parse(name).unwrap() }
}

pub(super) fn device(number: u8) -> DeviceId {
    DeviceId::from_bytes([number; 16])
}

pub(super) fn key(name: &str) -> RecordKey {
    RecordKey::parse(name).unwrap()
}

/// Asks for records, by keys between blanks.
pub(super) fn live(keys: &str) -> Touched {
    Touched { keys: keys.split(' ').map(key).collect(), ..Touched::default() }
}

/// All records.
pub(super) fn range() -> RecordsAfter {
    RecordsAfter {
        since: SyncCount::ZERO,
        after: None,
        skip_tombstones_to: SyncCount::ZERO,
        records_max: 1_000,
        bytes_max: 1 << 20,
    }
}

pub(super) async fn head(store: &dyn Store, dataset: &DatasetAddress) -> Head {
    store.view(dataset, &Touched::default()).await.unwrap().head
}

pub(super) async fn write(store: &dyn Store, dataset: &DatasetAddress, commit: Commit) {
    assert_eq!(store.commit(dataset, commit).await.unwrap(), CommitOutcome::Written);
}

fn record(commit: &Commit, name: &str, state: RecordState) -> Record {
    let count = commit.head.lineage.count;
    Record {
        key: key(name),
        state,
        sync_count: count,
        modified_by: (count.0 % 2 == 1).then(|| device(7)),
        modified_at: commit.head.modified_at,
        device_time: Timestamp(-5),
    }
}
