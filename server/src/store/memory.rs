//! The reference store: everything in memory, nothing durable. The simulator runs the service on it.

mod directory;
mod transfer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use sync_core::merge::push::{Commit, Head, RememberedPush, View};
use sync_core::model::{
    ChangeId, DatasetName, DeviceId, Owner, Position, Record, RecordKey, SyncCount, Timestamp, limits,
};

use crate::store::devices::Registration;
use crate::store::directory::{Directory, Linked};
use crate::store::memory::directory::MemoryDirectory;
use crate::store::transfer::Transfer;
use crate::store::{CommitOutcome, DatasetAddress, RecordsAfter, RecordsFrom, RecordsRead, Store, StoreError, Touched};

/// A store in memory. Clones share the same datasets.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    pushes_max: PushesMax,
}

/// All that it keeps.
#[derive(Clone, Debug, Default)]
struct State {
    datasets: BTreeMap<DatasetAddress, Dataset>,
    directory: MemoryDirectory,
    is_read_only: bool,
}

/// Pushes that are remembered of each device.
#[derive(Clone, Copy, Debug)]
struct PushesMax(usize);

impl Default for PushesMax {
    fn default() -> Self {
        Self(limits::PUSHES_REMEMBERED_MAX)
    }
}

/// Everything in a [`MemoryStore`] at one moment: a backup.
#[derive(Clone, Debug, Default)]
pub struct MemorySnapshot(State);

#[derive(Clone, Debug, Default)]
struct Dataset {
    head: Head,
    records: BTreeMap<RecordKey, Record>,
    by_count: BTreeSet<(SyncCount, RecordKey)>,
    pushes: BTreeMap<DeviceId, Vec<RememberedPush>>,
    changes: BTreeMap<ChangeId, SyncCount>,
    changes_in_order: VecDeque<ChangeId>,
    /// The name that it had, if a link gave it another one.
    former_name: Option<DatasetName>,
}

impl MemoryStore {
    /// A store without datasets.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store that remembers fewer pushes of each device than others do, so that a short simulation comes to the end
    /// of its memory.
    #[must_use]
    pub fn forgetful(pushes_max: usize) -> Self {
        Self { pushes_max: PushesMax(pushes_max), ..Self::default() }
    }

    /// Takes a backup.
    pub fn snapshot(&self) -> MemorySnapshot {
        MemorySnapshot(self.lock().clone())
    }

    /// Puts a backup back: everything written since is lost.
    pub fn restore(&self, snapshot: MemorySnapshot) {
        *self.lock() = snapshot.0;
    }

    /// All live records of a dataset, for checkers.
    pub fn live_records(&self, dataset: &DatasetAddress) -> Vec<Record> {
        let state = self.lock();
        let records = state.datasets.get(dataset).into_iter().flat_map(|dataset| dataset.records.values());
        records.filter(|record| record.value().is_some()).cloned().collect()
    }

    /// The head of a dataset, for checkers.
    pub fn head(&self, dataset: &DatasetAddress) -> Head {
        self.lock().datasets.get(dataset).map(|dataset| dataset.head.clone()).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn view(&self, dataset: &DatasetAddress, touched: &Touched) -> Result<View, StoreError> {
        Ok(self.lock().find(dataset)?.map(|dataset| dataset.view(touched)).unwrap_or_default())
    }

    async fn records_after(&self, dataset: &DatasetAddress, range: &RecordsAfter) -> Result<RecordsRead, StoreError> {
        Ok(self.lock().find(dataset)?.map(|dataset| dataset.records_after(range)).unwrap_or_default())
    }

    async fn records_from(&self, dataset: &DatasetAddress, range: &RecordsFrom) -> Result<RecordsRead, StoreError> {
        Ok(self.lock().find(dataset)?.map(|dataset| dataset.records_from(range)).unwrap_or_default())
    }

    async fn commit(&self, dataset: &DatasetAddress, commit: Commit) -> Result<CommitOutcome, StoreError> {
        let mut state = self.lock();
        state.writable()?;
        let found = state.find(dataset)?.and_then(|dataset| dataset.head.lineage.position());
        if found != commit.expected {
            return Ok(CommitOutcome::Stale);
        }
        state.datasets.entry(dataset.clone()).or_default().apply(commit, self.pushes_max);
        Ok(CommitOutcome::Written)
    }

    async fn datasets(
        &self,
        owner: &Owner,
        after: Option<&DatasetName>,
        names_max: usize,
    ) -> Result<Vec<DatasetName>, StoreError> {
        let state = self.lock();
        state.directory.check(owner)?;
        let of_owner =
            state.datasets.iter().filter(|(address, dataset)| address.owner == *owner && dataset.head.exists());
        let names = of_owner.map(|(address, _)| &address.name);
        Ok(names.filter(|name| after.is_none_or(|after| *name > after)).take(names_max).cloned().collect())
    }

    async fn positions(
        &self,
        owner: &Owner,
        after: Option<&DatasetName>,
        positions_max: usize,
    ) -> Result<Vec<(DatasetName, Position)>, StoreError> {
        let state = self.lock();
        state.directory.check(owner)?;
        let of_owner = state.datasets.iter().filter(|(address, _)| address.owner == *owner);
        let behind = of_owner.filter(|(address, _)| after.is_none_or(|after| address.name > *after));
        let at = |(address, dataset): (&DatasetAddress, &Dataset)| {
            Some((address.name.clone(), dataset.head.lineage.position()?))
        };
        Ok(behind.filter_map(at).take(positions_max).collect())
    }

    async fn addresses(
        &self,
        after: Option<&DatasetAddress>,
        addresses_max: usize,
    ) -> Result<Vec<DatasetAddress>, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.lock();
        Ok(state
            .datasets
            .range((from, Bound::Unbounded))
            .take(addresses_max)
            .map(|(address, _)| address.clone())
            .collect())
    }

    async fn old_tombstones(
        &self,
        before: Timestamp,
        tombstones_max: usize,
    ) -> Result<Vec<(DatasetAddress, SyncCount)>, StoreError> {
        let state = self.lock();
        let mut old: Vec<_> = state
            .datasets
            .iter()
            .flat_map(|(address, dataset)| dataset.records.values().map(move |record| (address, record)))
            .filter(|(_, record)| record.value().is_none() && record.modified_at < before)
            .map(|(address, record)| (record.modified_at, address, record.sync_count))
            .collect();
        old.sort();
        let mut floors = BTreeMap::new();
        for (_, address, count) in old.into_iter().take(tombstones_max) {
            let floor = floors.entry(address.clone()).or_insert(count);
            *floor = count.max(*floor);
        }
        Ok(floors.into_iter().collect())
    }

    fn directory(&self) -> &dyn Directory {
        self
    }

    fn transfer(&self) -> &dyn Transfer {
        self
    }
}

#[async_trait]
impl Directory for MemoryStore {
    async fn resolve(&self, owner: &Owner) -> Result<Owner, StoreError> {
        Ok(self.lock().directory.resolve(owner))
    }

    async fn link(&self, source: &Owner, target: &Owner) -> Result<Linked, StoreError> {
        let mut state = self.lock();
        state.writable()?;
        let State { datasets, directory, .. } = &mut *state;
        Ok(directory.link(source, target, datasets))
    }

    async fn devices(&self, owner: &Owner) -> Result<Vec<Registration>, StoreError> {
        self.lock().directory.devices(owner)
    }

    async fn register(&self, owner: &Owner, registration: Registration) -> Result<bool, StoreError> {
        self.lock().writable()?.directory.register(owner, registration)
    }

    async fn unregister(&self, owner: &Owner, device: DeviceId) -> Result<bool, StoreError> {
        self.lock().writable()?.directory.unregister(owner, device)
    }
}

impl State {
    fn writable(&mut self) -> Result<&mut Self, StoreError> {
        if self.is_read_only { Err(StoreError::ReadOnly) } else { Ok(self) }
    }

    /// A dataset, if it was ever written.
    fn find(&self, dataset: &DatasetAddress) -> Result<Option<&Dataset>, StoreError> {
        self.directory.check(&dataset.owner)?;
        Ok(self.datasets.get(dataset))
    }
}

impl Dataset {
    fn view(&self, touched: &Touched) -> View {
        let record = |key: &RecordKey| Some((key.clone(), self.records.get(key)?.clone()));
        let change = |id: &ChangeId| Some((*id, *self.changes.get(id)?));
        let pushes = touched.pushes.iter().filter_map(|(device, wanted)| {
            let remembered = self.pushes.get(device)?;
            let newest = remembered.last()?.sequence;
            let wanted = |push: &&RememberedPush| push.sequence == newest || wanted.contains(&push.sequence);
            Some((*device, remembered.iter().filter(wanted).cloned().collect()))
        });
        View {
            head: self.head.clone(),
            records: touched.keys.iter().filter_map(record).collect(),
            pushes: pushes.collect(),
            changes: touched.changes.iter().filter_map(change).collect(),
        }
    }

    fn records_after(&self, range: &RecordsAfter) -> RecordsRead {
        let mut read = RecordsRead { head: self.head.clone(), ..RecordsRead::default() };
        let behind = range.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let in_order = self.by_count.range((behind, Bound::Unbounded)).map(|(_, key)| &self.records[key]);
        let wanted = |record: &&Record| {
            let is_skipped = record.value().is_none() && record.sync_count <= range.skip_tombstones_to;
            record.sync_count > range.since && !is_skipped
        };
        take(&mut read, in_order.filter(wanted), range.records_max, range.bytes_max);
        read
    }

    fn records_from(&self, range: &RecordsFrom) -> RecordsRead {
        let mut read = RecordsRead { head: self.head.clone(), ..RecordsRead::default() };
        let begins = |record: &&Record| record.key.as_str().starts_with(&range.prefix);
        let behind = |record: &&Record| range.after.as_ref().is_none_or(|after| record.key > *after);
        let live = self.records.values().filter(|record| record.value().is_some());
        take(&mut read, live.filter(begins).filter(behind), range.records_max, range.bytes_max);
        read
    }

    fn apply(&mut self, commit: Commit, PushesMax(pushes_max): PushesMax) {
        let Commit { expected: _, head, records, pushes, changes, clear, purge } = commit;
        let floor = self.head.floor.max(head.floor);
        self.head = Head { floor, ..head };
        if clear {
            self.records.clear();
            self.by_count.clear();
        }
        for record in records {
            self.by_count.insert((record.sync_count, record.key.clone()));
            if let Some(old) = self.records.insert(record.key.clone(), record) {
                let still_there = self.records[&old.key].sync_count == old.sync_count;
                if !still_there {
                    self.by_count.remove(&(old.sync_count, old.key));
                }
            }
        }
        for (device, push) in pushes {
            let remembered = self.pushes.entry(device).or_default();
            remembered.retain(|earlier| earlier.sequence != push.sequence);
            remembered.push(push);
            remembered.sort_by_key(|push| push.sequence);
            let surplus = remembered.len().saturating_sub(pushes_max);
            remembered.drain(..surplus);
        }
        for (id, count) in changes {
            self.changes.entry(id).or_insert_with(|| {
                self.changes_in_order.push_back(id);
                count
            });
        }
        let surplus = self.changes_in_order.len().saturating_sub(limits::CHANGES_REMEMBERED_MAX);
        for id in self.changes_in_order.drain(..surplus) {
            self.changes.remove(&id);
        }
        if purge {
            let purged = |record: &Record| record.value().is_none() && record.sync_count <= floor;
            self.by_count.retain(|(_, key)| !purged(&self.records[key]));
            self.records.retain(|_, record| !purged(record));
        }
    }
}

fn take<'a>(read: &mut RecordsRead, records: impl Iterator<Item = &'a Record>, records_max: usize, bytes_max: usize) {
    let Ok(()) = read.take(records.map(|record| Ok::<_, Infallible>(record.clone())), records_max, bytes_max);
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::store_conformance!((Arc::new(MemoryStore::new()), ()));

    #[tokio::test]
    async fn a_copy_takes_the_place_of_its_source() {
        let store = || Arc::new(MemoryStore::new());
        crate::store::conformance::a_copy_takes_the_place_of_its_source(store(), store()).await;
    }

    #[tokio::test]
    async fn a_backup_that_is_put_back_takes_away_what_came_after_it() {
        let store = MemoryStore::new();
        let dataset =
            DatasetAddress { owner: Owner::parse("local:ada").unwrap(), name: DatasetName::parse("notes").unwrap() };
        let backup = store.snapshot();
        store.commit(&dataset, Commit::on(&Head::default())).await.unwrap();
        store.restore(backup);
        assert_eq!(store.addresses(None, 10).await.unwrap(), []);
    }
}
