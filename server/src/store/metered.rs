//! A store that says how long the store under it takes.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use sync_core::merge::push::{Commit, View};
use sync_core::model::{DatasetName, DeviceId, Owner, Position, SyncCount, Timestamp};

use crate::metrics::{Metrics, StoreOperation};
use crate::store::devices::Registration;
use crate::store::directory::{Directory, Linked};
use crate::store::transfer::Transfer;
use crate::store::{CommitOutcome, DatasetAddress, RecordsAfter, RecordsFrom, RecordsRead, Store, StoreError, Touched};

/// Any store, measured.
pub struct MeteredStore {
    inner: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

impl MeteredStore {
    /// Measures what is asked of `inner`.
    pub fn new(inner: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }

    async fn measure<T>(
        &self,
        operation: StoreOperation,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let result = work.await;
        let failed = matches!(result, Err(StoreError::Unavailable(_) | StoreError::Full(_) | StoreError::Corrupt(_)));
        self.metrics.stored(operation, started.elapsed(), !failed);
        result
    }
}

#[async_trait]
impl Store for MeteredStore {
    async fn view(&self, dataset: &DatasetAddress, touched: &Touched) -> Result<View, StoreError> {
        self.measure(StoreOperation::View, self.inner.view(dataset, touched)).await
    }

    async fn records_after(&self, dataset: &DatasetAddress, range: &RecordsAfter) -> Result<RecordsRead, StoreError> {
        self.measure(StoreOperation::RecordsAfter, self.inner.records_after(dataset, range)).await
    }

    async fn records_from(&self, dataset: &DatasetAddress, range: &RecordsFrom) -> Result<RecordsRead, StoreError> {
        self.measure(StoreOperation::RecordsFrom, self.inner.records_from(dataset, range)).await
    }

    async fn commit(&self, dataset: &DatasetAddress, commit: Commit) -> Result<CommitOutcome, StoreError> {
        let _waiting = self.metrics.commit_waits();
        self.measure(StoreOperation::Commit, self.inner.commit(dataset, commit)).await
    }

    async fn datasets(
        &self,
        owner: &Owner,
        after: Option<&DatasetName>,
        names_max: usize,
    ) -> Result<Vec<DatasetName>, StoreError> {
        self.measure(StoreOperation::Datasets, self.inner.datasets(owner, after, names_max)).await
    }

    async fn positions(
        &self,
        owner: &Owner,
        after: Option<&DatasetName>,
        positions_max: usize,
    ) -> Result<Vec<(DatasetName, Position)>, StoreError> {
        self.measure(StoreOperation::Positions, self.inner.positions(owner, after, positions_max)).await
    }

    async fn addresses(
        &self,
        after: Option<&DatasetAddress>,
        addresses_max: usize,
    ) -> Result<Vec<DatasetAddress>, StoreError> {
        self.measure(StoreOperation::Addresses, self.inner.addresses(after, addresses_max)).await
    }

    async fn old_tombstones(
        &self,
        before: Timestamp,
        tombstones_max: usize,
    ) -> Result<Vec<(DatasetAddress, SyncCount)>, StoreError> {
        self.measure(StoreOperation::OldTombstones, self.inner.old_tombstones(before, tombstones_max)).await
    }

    fn directory(&self) -> &dyn Directory {
        self
    }

    /// Not measured: no server asks for it.
    fn transfer(&self) -> &dyn Transfer {
        self.inner.transfer()
    }
}

#[async_trait]
impl Directory for MeteredStore {
    async fn resolve(&self, owner: &Owner) -> Result<Owner, StoreError> {
        self.measure(StoreOperation::Resolve, self.inner.directory().resolve(owner)).await
    }

    async fn link(&self, source: &Owner, target: &Owner) -> Result<Linked, StoreError> {
        self.measure(StoreOperation::Link, self.inner.directory().link(source, target)).await
    }

    async fn devices(&self, owner: &Owner) -> Result<Vec<Registration>, StoreError> {
        self.measure(StoreOperation::Devices, self.inner.directory().devices(owner)).await
    }

    async fn register(&self, owner: &Owner, registration: Registration) -> Result<bool, StoreError> {
        self.measure(StoreOperation::Register, self.inner.directory().register(owner, registration)).await
    }

    async fn unregister(&self, owner: &Owner, device: DeviceId) -> Result<bool, StoreError> {
        self.measure(StoreOperation::Unregister, self.inner.directory().unregister(owner, device)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    crate::store_conformance!((Arc::new(MeteredStore::new(Arc::new(MemoryStore::new()), Arc::default())), ()));
}
