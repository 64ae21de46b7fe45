//! A store that is asked the same as the memory store, and must say the same: the simulation over a real database.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use sync_core::merge::push::{Commit, View};
use sync_core::model::{DatasetName, Owner, Position, SyncCount, Timestamp};
use syncline_server::store::directory::Directory;
use syncline_server::store::memory::MemoryStore;
use syncline_server::store::transfer::Transfer;
use syncline_server::store::{
    CommitOutcome, DatasetAddress, RecordsAfter, RecordsFrom, RecordsRead, Store, StoreError, Touched,
};
use tokio::runtime::Handle;

/// The memory store and another one, which begins empty.
pub(super) struct Mirror {
    pub(super) reference: MemoryStore,
    pub(super) other: Other,
}

/// A store that needs a runtime.
pub(super) struct Other {
    pub(super) store: Arc<dyn Store>,
    pub(super) runtime: Handle,
}

impl Mirror {
    /// Waits for what the other store says, and compares.
    fn same<T: Debug>(
        &self,
        expected: Result<T, StoreError>,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let said = self.other.runtime.block_on(work);
        assert_eq!(format!("{said:?}"), format!("{expected:?}"), "a store says something else than the memory store");
        said
    }
}

#[async_trait]
impl Store for Mirror {
    async fn view(&self, dataset: &DatasetAddress, touched: &Touched) -> Result<View, StoreError> {
        self.same(self.reference.view(dataset, touched).await, self.other.store.view(dataset, touched))
    }

    async fn records_after(&self, dataset: &DatasetAddress, range: &RecordsAfter) -> Result<RecordsRead, StoreError> {
        self.same(self.reference.records_after(dataset, range).await, self.other.store.records_after(dataset, range))
    }

    async fn records_from(&self, dataset: &DatasetAddress, range: &RecordsFrom) -> Result<RecordsRead, StoreError> {
        self.same(self.reference.records_from(dataset, range).await, self.other.store.records_from(dataset, range))
    }

    async fn commit(&self, dataset: &DatasetAddress, commit: Commit) -> Result<CommitOutcome, StoreError> {
        self.same(self.reference.commit(dataset, commit.clone()).await, self.other.store.commit(dataset, commit))
    }

    async fn datasets(
        &self,
        owner: &Owner,
        after: Option<&DatasetName>,
        names_max: usize,
    ) -> Result<Vec<DatasetName>, StoreError> {
        self.same(
            self.reference.datasets(owner, after, names_max).await,
            self.other.store.datasets(owner, after, names_max),
        )
    }

    async fn positions(
        &self,
        owner: &Owner,
        after: Option<&DatasetName>,
        positions_max: usize,
    ) -> Result<Vec<(DatasetName, Position)>, StoreError> {
        let expected = self.reference.positions(owner, after, positions_max).await;
        self.same(expected, self.other.store.positions(owner, after, positions_max))
    }

    async fn addresses(
        &self,
        after: Option<&DatasetAddress>,
        addresses_max: usize,
    ) -> Result<Vec<DatasetAddress>, StoreError> {
        let expected = self.reference.addresses(after, addresses_max).await;
        self.same(expected, self.other.store.addresses(after, addresses_max))
    }

    async fn old_tombstones(
        &self,
        before: Timestamp,
        tombstones_max: usize,
    ) -> Result<Vec<(DatasetAddress, SyncCount)>, StoreError> {
        let expected = self.reference.old_tombstones(before, tombstones_max).await;
        self.same(expected, self.other.store.old_tombstones(before, tombstones_max))
    }

    /// That of the memory store: nobody is linked in a simulation.
    fn directory(&self) -> &dyn Directory {
        &self.reference
    }

    /// As above.
    fn transfer(&self) -> &dyn Transfer {
        &self.reference
    }
}
