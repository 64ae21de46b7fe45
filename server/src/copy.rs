//! Copies a store to another one, which then takes its place: a team grows from SQLite to MySQL or DynamoDB, and devices
//! go on without a reset.
//!
//! The source takes no writes from the beginning on, and stays so: a server that still runs on it cannot accept what
//! nobody will see. A dataset is written in steps under a head without a line, and then gets its line: until then, it
//! does not exist. So a copy that was interrupted goes on where it was.

use sync_core::merge::push::{Commit, Head};
use sync_core::model::{Digest, RecordKey, SyncCount};

use crate::store::{CommitOutcome, DatasetAddress, RecordsAfter, RecordsRead, Store, StoreError, Touched};

/// What was copied, those things included that were there from an earlier try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Owners that were linked to others or have devices.
    pub owners: u64,
    /// Datasets, deleted ones too.
    pub datasets: u64,
    /// Records and tombstones that were written now.
    pub records: u64,
}

/// Why a copy stopped. What was copied stays, and the next try goes on.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A store failed.
    #[error("{0}: {1}")]
    Store(&'static str, #[source] StoreError),
    /// The target has something that the source has not, or further.
    #[error(
        "the target has a dataset `{}` of {} that the source has not, or that has gone on by itself: copy to an empty \
         store, and let no server run on it meanwhile", .0.name, .0.owner
    )]
    Differs(DatasetAddress),
    /// What is in the source is not what was written.
    #[error(
        "the records of dataset `{}` of {} in the source are not those that were written; check the source, or put back \
         a backup of it", .0.name, .0.owner
    )]
    Damaged(DatasetAddress),
}

/// Records that are copied at once, at most.
const RECORDS_MAX: usize = 1_000;
/// Bytes of these.
const BYTES_MAX: usize = 2 << 20;
/// Addresses and owners that are read at once, and pushes and change ids that are written at once.
const PAGE: usize = 500;

/// Copies all. `progress` hears after each step what was copied so far.
///
/// # Errors
/// If a store fails, if the target is not empty or of an earlier try, or if the source is damaged. Once the copy has
/// begun, the source stays read-only.
pub async fn copy(
    source: &dyn Store,
    target: &dyn Store,
    mut progress: impl FnMut(Copied) + Send,
) -> Result<Copied, CopyError> {
    // Before, so that nothing changes if it cannot be; and again, as the source has been written to until now.
    check_target(source, target).await?;
    source.transfer().set_read_only(true).await.map_err(of_source)?;
    check_target(source, target).await?;
    let mut copied = Copied::default();
    copy_owners(source, target, &mut copied).await?;
    let mut after = None;
    loop {
        let addresses = source.addresses(after.as_ref(), PAGE).await.map_err(of_source)?;
        let Some(last) = addresses.last() else { return Ok(copied) };
        after = Some(last.clone());
        for address in addresses {
            copied.records += copy_dataset(source, target, &address, |records| {
                progress(Copied { records: copied.records + records, ..copied });
            })
            .await?;
            copied.datasets += 1;
            progress(copied);
        }
    }
}

const fn of_source(error: StoreError) -> CopyError {
    CopyError::Store("the source", error)
}

const fn of_target(error: StoreError) -> CopyError {
    CopyError::Store("the target", error)
}

/// Looks whether all that the target has is of the source.
async fn check_target(source: &dyn Store, target: &dyn Store) -> Result<(), CopyError> {
    let mut after = None;
    loop {
        let addresses = target.addresses(after.as_ref(), PAGE).await.map_err(of_target)?;
        let Some(last) = addresses.last() else { return Ok(()) };
        after = Some(last.clone());
        for address in addresses {
            let there = head(target, &address).await.map_err(of_target)?;
            let here = match head(source, &address).await {
                Err(StoreError::Moved) => Head::default(),
                found => found.map_err(of_source)?,
            };
            if here == Head::default() || there != Head::default() && there != here {
                return Err(CopyError::Differs(address));
            }
        }
    }
}

async fn copy_owners(source: &dyn Store, target: &dyn Store, copied: &mut Copied) -> Result<(), CopyError> {
    let mut after = None;
    loop {
        let owners = source.transfer().owners(after.as_ref(), PAGE).await.map_err(of_source)?;
        let Some(last) = owners.last() else { return Ok(()) };
        after = Some(last.owner.clone());
        for known in owners {
            if let Some(linked_to) = &known.linked_to {
                target.directory().link(&known.owner, linked_to).await.map_err(of_target)?;
            }
            // The latest last, as they came.
            for registration in known.devices.into_iter().rev() {
                target.directory().register(&known.owner, registration).await.map_err(of_target)?;
            }
            copied.owners += 1;
        }
    }
}

/// Copies a dataset, and says how many records were written.
async fn copy_dataset(
    source: &dyn Store,
    target: &dyn Store,
    dataset: &DatasetAddress,
    mut progress: impl FnMut(u64) + Send,
) -> Result<u64, CopyError> {
    let head = head(source, dataset).await.map_err(of_source)?;
    let there = self::head(target, dataset).await.map_err(of_target)?;
    if there.lineage.position().is_some() {
        // It was checked that it is the same.
        return Ok(0);
    }
    let mut sum = Sum::default();
    while sum.add(&read(target, dataset, &sum).await.map_err(of_target)?) {}
    let mut written = 0;
    loop {
        let page = read(source, dataset, &sum).await.map_err(of_source)?;
        let has_more = sum.add(&page);
        written += page.records.len() as u64;
        if !page.records.is_empty() {
            write(target, dataset, Commit { records: page.records, ..Commit::on(&Head::default()) }).await?;
        }
        progress(written);
        if !has_more {
            break;
        }
    }
    if sum.digest != head.digest {
        return Err(CopyError::Damaged(dataset.clone()));
    }
    let memory = source.transfer().memory(dataset).await.map_err(of_source)?;
    for pushes in memory.pushes.chunks(PAGE) {
        write(target, dataset, Commit { pushes: pushes.to_vec(), ..Commit::on(&Head::default()) }).await?;
    }
    for changes in memory.changes.chunks(PAGE) {
        write(target, dataset, Commit { changes: changes.to_vec(), ..Commit::on(&Head::default()) }).await?;
    }
    write(target, dataset, Commit { head, ..Commit::on(&Head::default()) }).await?;
    if let Some(former_name) = &memory.former_name {
        target.transfer().set_former_name(dataset, former_name).await.map_err(of_target)?;
    }
    Ok(written)
}

/// How far records were read, and the sum of what was.
#[derive(Default)]
struct Sum {
    last: Option<(SyncCount, RecordKey)>,
    digest: Digest,
}

impl Sum {
    /// Says whether there is more.
    fn add(&mut self, read: &RecordsRead) -> bool {
        for record in &read.records {
            self.digest = self.digest.plus(record);
        }
        if let Some(last) = read.records.last() {
            self.last = Some((last.sync_count, last.key.clone()));
        }
        read.has_more
    }
}

async fn read(store: &dyn Store, dataset: &DatasetAddress, sum: &Sum) -> Result<RecordsRead, StoreError> {
    let range = RecordsAfter {
        since: SyncCount::ZERO,
        after: sum.last.clone(),
        skip_tombstones_to: SyncCount::ZERO,
        records_max: RECORDS_MAX,
        bytes_max: BYTES_MAX,
    };
    store.records_after(dataset, &range).await
}

async fn head(store: &dyn Store, dataset: &DatasetAddress) -> Result<Head, StoreError> {
    Ok(store.view(dataset, &Touched::default()).await?.head)
}

async fn write(target: &dyn Store, dataset: &DatasetAddress, commit: Commit) -> Result<(), CopyError> {
    match target.commit(dataset, commit).await.map_err(of_target)? {
        CommitOutcome::Written => Ok(()),
        CommitOutcome::Stale => Err(CopyError::Differs(dataset.clone())),
    }
}
