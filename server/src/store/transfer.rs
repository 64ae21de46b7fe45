//! What a store gives and takes, besides heads and records, if another store takes its place.

use async_trait::async_trait;
use sync_core::merge::push::RememberedPush;
use sync_core::model::{ChangeId, DatasetName, DeviceId, Owner, SyncCount};

use crate::store::devices::Registration;
use crate::store::{DatasetAddress, StoreError};

/// All that a dataset remembers of pushes, and what it was called.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DatasetMemory {
    /// The pushes of each device, oldest first; the devices in order.
    pub pushes: Vec<(DeviceId, RememberedPush)>,
    /// Change ids with the counts that applied them, oldest first.
    pub changes: Vec<(ChangeId, SyncCount)>,
    /// The name that it had, if a link gave it another one.
    pub former_name: Option<DatasetName>,
}

/// What is known of an owner besides its datasets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownOwner {
    /// Who it is.
    pub owner: Owner,
    /// To whom it was linked.
    pub linked_to: Option<Owner>,
    /// Its devices, the latest registration first.
    pub devices: Vec<Registration>,
}

/// What `syncline copy` needs of a store besides what servers ask of it.
#[async_trait]
pub trait Transfer: Send + Sync {
    /// What a dataset remembers. Nothing, if it was never written.
    async fn memory(&self, dataset: &DatasetAddress) -> Result<DatasetMemory, StoreError>;

    /// Says what a dataset was called before a link. Nothing happens if it was never written.
    async fn set_former_name(&self, dataset: &DatasetAddress, former_name: &DatasetName) -> Result<(), StoreError>;

    /// Owners that were linked away or have devices, in order, behind `after`.
    async fn owners(&self, after: Option<&Owner>, owners_max: usize) -> Result<Vec<KnownOwner>, StoreError>;

    /// Whether the store takes no writes.
    async fn is_read_only(&self) -> Result<bool, StoreError>;

    /// From its return on, the store takes no writes, whichever server asks, or takes them again. All else fails as
    /// [`StoreError::ReadOnly`]: commits, links, registrations.
    async fn set_read_only(&self, is_read_only: bool) -> Result<(), StoreError>;
}
