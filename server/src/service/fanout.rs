//! Several servers over one store: what another one did is said here too.
//!
//! What another server says is believed as far as it can do no harm. That a dataset has moved on is a hint, as any; a
//! link ends streams, so the store is asked about it. And where words may have been lost, the store is asked where the
//! datasets are of those who are listened to: once for each owner, which is less than to let each device pull everything.

use sync_core::model::{DatasetName, EpochId, Owner, SyncCount};

use crate::error::ServiceError;
use crate::service::Service;
use crate::store::{DatasetAddress, StoreError};

/// Positions that are read at once.
const POSITIONS_TOGETHER: usize = 1_000;

impl Service {
    /// Another server says that a dataset has moved on.
    pub fn moved_elsewhere(&self, dataset: &DatasetAddress, epoch: EpochId, sync_count: SyncCount) {
        self.hints.moved(dataset, epoch, sync_count);
    }

    /// Looks in the store where an owner's datasets are, and says to who listens which of them have moved on since it was
    /// last said. If the owner was linked to another, what is listened to ends as if that had been done here.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn look_after(&self, owner: &Owner) -> Result<(), ServiceError> {
        if self.hints.is_over(owner) {
            return Ok(());
        }
        let mut after: Option<DatasetName> = None;
        loop {
            let began = self.hints.number();
            let read = self.parts.store.positions(owner, after.as_ref(), POSITIONS_TOGETHER).await;
            let positions = match read {
                Ok(positions) => positions,
                Err(StoreError::Moved) => return self.follow_link(owner).await,
                Err(error) => return Err(error.into()),
            };
            let is_complete = positions.len() < POSITIONS_TOGETHER;
            after = positions.last().map(|(name, _)| name.clone());
            self.hints.found(owner, began, positions);
            if is_complete {
                return Ok(());
            }
        }
    }

    async fn follow_link(&self, source: &Owner) -> Result<(), ServiceError> {
        let target = self.parts.store.directory().resolve(source).await?;
        // Callers, too, are to be led to the target at once.
        self.resolved.forget();
        self.hints.linked(source, &target);
        Ok(())
    }
}
