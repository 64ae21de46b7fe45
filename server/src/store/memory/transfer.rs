//! What is copied of the store if another one takes its place.

use async_trait::async_trait;
use sync_core::model::{DatasetName, Owner};

use crate::store::memory::MemoryStore;
use crate::store::transfer::{DatasetMemory, KnownOwner, Transfer};
use crate::store::{DatasetAddress, StoreError};

#[async_trait]
impl Transfer for MemoryStore {
    async fn memory(&self, dataset: &DatasetAddress) -> Result<DatasetMemory, StoreError> {
        let state = self.lock();
        let Some(dataset) = state.find(dataset)? else { return Ok(DatasetMemory::default()) };
        let pushes =
            dataset.pushes.iter().flat_map(|(device, pushes)| pushes.iter().map(|push| (*device, push.clone())));
        Ok(DatasetMemory {
            pushes: pushes.collect(),
            changes: dataset.changes_in_order.iter().map(|id| (*id, dataset.changes[id])).collect(),
            former_name: dataset.former_name.clone(),
        })
    }

    async fn set_former_name(&self, dataset: &DatasetAddress, former_name: &DatasetName) -> Result<(), StoreError> {
        if let Some(dataset) = self.lock().writable()?.datasets.get_mut(dataset) {
            dataset.former_name = Some(former_name.clone());
        }
        Ok(())
    }

    async fn owners(&self, after: Option<&Owner>, owners_max: usize) -> Result<Vec<KnownOwner>, StoreError> {
        Ok(self.lock().directory.owners(after, owners_max))
    }

    async fn is_read_only(&self) -> Result<bool, StoreError> {
        Ok(self.lock().is_read_only)
    }

    async fn set_read_only(&self, is_read_only: bool) -> Result<(), StoreError> {
        self.lock().is_read_only = is_read_only;
        Ok(())
    }
}
