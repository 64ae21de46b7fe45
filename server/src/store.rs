//! What a store of datasets promises. The conformance suite is the definition; [`memory`] is the reference.
//!
//! **Architecture invariant:** a store decides nothing. It reads at one moment, and writes all or nothing if the
//! dataset is still where the plan began.

mod attempts;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod devices;
pub mod directory;
pub mod dynamodb;
pub mod memory;
pub mod metered;
pub mod mysql;
mod sql;
pub mod sqlite;
pub mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use sync_core::merge::push::{Commit, Head, View};
use sync_core::model::{ChangeId, DatasetName, DeviceId, Owner, Position, Record, RecordKey, SyncCount, Timestamp};

use crate::error::ServiceError;
use crate::store::directory::Directory;
use crate::store::transfer::Transfer;

/// Names a dataset: whose, and which.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatasetAddress {
    /// Whose dataset.
    pub owner: Owner,
    /// Which dataset.
    pub name: DatasetName,
}

/// What a push touches: the part of a dataset that a view is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Records to be read.
    pub keys: BTreeSet<RecordKey>,
    /// Pushes, by device and number. Of each device the newest remembered push is read besides.
    pub pushes: BTreeMap<DeviceId, BTreeSet<u64>>,
    /// Change ids.
    pub changes: BTreeSet<ChangeId>,
}

/// Which records of a dataset are read. They come in order of count and key, without an upper bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordsAfter {
    /// Only records of higher counts.
    pub since: SyncCount,
    /// Only records behind this one.
    pub after: Option<(SyncCount, RecordKey)>,
    /// Without tombstones up to this count.
    pub skip_tombstones_to: SyncCount,
    /// At most so many records.
    pub records_max: usize,
    /// At most so many bytes of keys and values, but always one record.
    pub bytes_max: usize,
}

/// Which live records of a dataset are listed. They come in order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordsFrom {
    /// Only records whose keys begin with it.
    pub prefix: String,
    /// Only records behind this one.
    pub after: Option<RecordKey>,
    /// At most so many records.
    pub records_max: usize,
    /// At most so many bytes of keys and values, but always one record.
    pub bytes_max: usize,
}

/// Some records of a dataset, and its head at the same moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordsRead {
    /// The dataset as a whole.
    pub head: Head,
    /// The records and tombstones.
    pub records: Vec<Record>,
    /// Whether there are more behind these.
    pub has_more: bool,
}

impl RecordsRead {
    /// As if only so much had been read.
    pub(crate) fn limited(&self, records_max: usize, bytes_max: usize) -> Self {
        let mut read = Self { head: self.head.clone(), ..Self::default() };
        let records = self.records.iter().cloned().map(Ok::<_, Infallible>);
        let Ok(()) = read.take(records, records_max, bytes_max);
        read
    }

    /// Takes records up to the limits, but at least one.
    fn take<E>(
        &mut self,
        records: impl Iterator<Item = Result<Record, E>>,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<(), E> {
        let mut room = Room { records: records_max, bytes: bytes_max };
        for record in records {
            if !self.admit(record?, &mut room) {
                break;
            }
        }
        Ok(())
    }

    /// Takes a record if there is room for it, or if it is the first; otherwise says that there are more.
    fn admit(&mut self, record: Record, room: &mut Room) -> bool {
        let bytes = record.bytes();
        let fits = room.records > 0 && bytes <= room.bytes;
        self.has_more = !fits && !self.records.is_empty();
        if !self.has_more {
            room.records = room.records.saturating_sub(1);
            room.bytes = room.bytes.saturating_sub(bytes);
            self.records.push(record);
        }
        !self.has_more
    }
}

/// What may still be read.
struct Room {
    records: usize,
    bytes: usize,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// All of it is durable.
    Written,
    /// None of it is written: the dataset is not where the commit expected it. Read and plan again.
    Stale,
}

/// The version of what a store keeps its data in, such as tables, and the newest one that this program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TablesVersion {
    /// That of the store; 0: there is nothing yet.
    pub found: usize,
    /// The newest one.
    pub known: usize,
}

/// Why a store did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Try again later. A commit may or may not have been written; its push memory will tell.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// There is no room to write, or the disk does not take it; reading goes on. Try again when a person has made room.
    /// As above, a commit may have been written.
    #[error("there is no room to write to the store")]
    Full(#[source] Box<dyn Error + Send + Sync>),
    /// The owner was linked to another one. Resolve it again, and ask about that one.
    #[error("the owner was linked to another one")]
    Moved,
    /// The store takes no writes, because it is copied to another one, or was; see [`Transfer::set_read_only`]. Reading
    /// goes on.
    #[error("the store is read-only, because it is copied to another one")]
    ReadOnly,
    /// Needs a person.
    #[error("stored data are corrupt: {0}")]
    Corrupt(String),
}

/// When to come again if an owner was linked while its request was served.
const MOVED_RETRY_MS: u64 = 100;
/// When to come again if the store is copied: then the servers use the new one.
const READ_ONLY_RETRY_MS: u64 = 5_000;
/// When to come again if the store does not answer: it was tried several times already.
const UNAVAILABLE_RETRY_MS: u64 = 1_000;
/// When to come again if there is no room: a person has to make it.
const FULL_RETRY_MS: u64 = 30_000;

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Moved => Self::Unavailable { retry_after_ms: MOVED_RETRY_MS },
            StoreError::ReadOnly => {
                Self::StoreUnavailable { retry_after_ms: READ_ONLY_RETRY_MS, source: Arc::new(error) }
            }
            StoreError::Full(_) => Self::StorageFull { retry_after_ms: FULL_RETRY_MS, source: Arc::new(error) },
            StoreError::Unavailable(_) => {
                Self::StoreUnavailable { retry_after_ms: UNAVAILABLE_RETRY_MS, source: Arc::new(error) }
            }
            StoreError::Corrupt(_) => Self::Internal(Arc::new(error)),
        }
    }
}

/// A place for datasets. Each method is one round trip.
///
/// What is asked about an owner that was linked to another one fails as [`StoreError::Moved`]; see [`Directory`].
#[async_trait]
pub trait Store: Send + Sync {
    /// Reads the head and what is touched, at one moment. A dataset never written has an empty head.
    async fn view(&self, dataset: &DatasetAddress, touched: &Touched) -> Result<View, StoreError>;

    /// Reads records and the head, at one moment. Costs what is returned, not what exists.
    async fn records_after(&self, dataset: &DatasetAddress, range: &RecordsAfter) -> Result<RecordsRead, StoreError>;

    /// Lists live records by key, and reads the head, at one moment. Costs what is returned, not what exists.
    async fn records_from(&self, dataset: &DatasetAddress, range: &RecordsFrom) -> Result<RecordsRead, StoreError>;

    /// Writes all of `commit` durably, or nothing if the dataset is no longer at `commit.expected`: epoch, count and
    /// tag are compared.
    ///
    /// A purge moves none of these, so the stored floor is raised to the commit's and never lowered: a push that was
    /// planned before the purge does not take it back.
    async fn commit(&self, dataset: &DatasetAddress, commit: Commit) -> Result<CommitOutcome, StoreError>;

    /// Names of the datasets of an owner that exist, in order, behind `after`.
    async fn datasets(
        &self,
        owner: &Owner,
        after: Option<&DatasetName>,
        names_max: usize,
    ) -> Result<Vec<DatasetName>, StoreError>;

    /// Where the datasets of an owner are, deleted ones too, in order of their names, behind `after`.
    async fn positions(
        &self,
        owner: &Owner,
        after: Option<&DatasetName>,
        positions_max: usize,
    ) -> Result<Vec<(DatasetName, Position)>, StoreError>;

    /// Addresses of everything that was ever written, deleted datasets too, in order, behind `after`.
    async fn addresses(
        &self,
        after: Option<&DatasetAddress>,
        addresses_max: usize,
    ) -> Result<Vec<DatasetAddress>, StoreError>;

    /// Datasets that have tombstones from before `before`, each with the highest count of these. Looks only at the
    /// `tombstones_max` oldest ones: purge these and ask again.
    async fn old_tombstones(
        &self,
        before: Timestamp,
        tombstones_max: usize,
    ) -> Result<Vec<(DatasetAddress, SyncCount)>, StoreError>;

    /// What is known of owners, in the same place.
    fn directory(&self) -> &dyn Directory;

    /// What else is copied if another store takes the place of this one.
    fn transfer(&self) -> &dyn Transfer;
}
