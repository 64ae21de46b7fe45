//! What is done to datasets as a whole: listing, creating within limits, deleting, fencing, purging.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sync_core::merge::push::{Head, plan_delete, plan_purge};
use sync_core::model::{DatasetName, DeviceId, EpochReason, Owner, Position, SyncCount, Timestamp};

use crate::auth::policy::{Action, Caller};
use crate::error::ServiceError;
use crate::service::Service;
use crate::service::records::{Condition, Version, device_of};
use crate::store::{CommitOutcome, DatasetAddress, StoreError, Touched};

/// A dataset as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// Its name.
    pub name: DatasetName,
    /// Where it is.
    pub version: Version,
    /// Live records.
    pub records: u64,
    /// Keys and values of the live records, in bytes.
    pub bytes: u64,
    /// When it last changed.
    pub modified_at: Timestamp,
}

/// How many datasets each owner is about to create.
#[derive(Default)]
pub(crate) struct Creations(Mutex<BTreeMap<Owner, usize>>);

/// One dataset that may be created, until the commit that does so.
pub(crate) struct Creation<'a> {
    creations: &'a Creations,
    owner: &'a Owner,
}

/// Datasets that are read from the store at once, when all of them are gone over.
const ADDRESSES_TOGETHER: usize = 1_000;
/// Commits that wait for the store at once, when all datasets are gone over.
const COMMITS_TOGETHER: usize = 64;
/// Tombstones that are purged in one step, so that pushes do not wait for long.
const TOMBSTONES_TOGETHER: usize = 10_000;

impl Service {
    /// The names of all datasets of an owner.
    pub(crate) async fn names(&self, owner: &Owner) -> Result<Vec<DatasetName>, ServiceError> {
        let mut names: Vec<DatasetName> = Vec::new();
        loop {
            let more = self.parts.store.datasets(owner, names.last(), ADDRESSES_TOGETHER).await?;
            let complete = more.len() < ADDRESSES_TOGETHER;
            names.extend(more);
            if complete {
                return Ok(names);
            }
        }
    }

    /// Describes a dataset.
    ///
    /// # Errors
    /// If the caller may not read it, if there is none, or if the store fails.
    pub async fn describe(&self, caller: &Caller, dataset: &DatasetAddress) -> Result<Described, ServiceError> {
        self.allow(caller, dataset, Action::Read)?;
        let head = self.parts.store.view(dataset, &Touched::default()).await?.head;
        described(dataset, &head).ok_or_else(|| no_dataset(dataset))
    }

    /// Describes the datasets of an owner, in order, behind one of them.
    ///
    /// # Errors
    /// If the caller may not see them, or the store fails.
    pub async fn describe_all(
        &self,
        caller: &Caller,
        owner: &Owner,
        after: Option<&DatasetName>,
        datasets_max: usize,
    ) -> Result<Vec<Described>, ServiceError> {
        self.allow_to_see(caller, owner)?;
        let mut all = Vec::new();
        for name in self.parts.store.datasets(owner, after, datasets_max).await? {
            let dataset = DatasetAddress { owner: owner.clone(), name };
            let head = self.parts.store.view(&dataset, &Touched::default()).await?.head;
            all.extend(described(&dataset, &head));
        }
        Ok(all)
    }

    /// Deletes a dataset.
    ///
    /// # Errors
    /// `PreconditionFailed` if the condition does not hold, `NotFound` if there is none; or the caller may not write, or
    /// the store fails.
    pub async fn delete_dataset(
        &self,
        caller: &Caller,
        dataset: &DatasetAddress,
        condition: &Condition,
    ) -> Result<(), ServiceError> {
        self.allow(caller, dataset, Action::Write)?;
        for _ in 0..self.settings.push_attempts_max {
            let head = self.parts.store.view(dataset, &Touched::default()).await?.head;
            let found = described(dataset, &head).ok_or_else(|| no_dataset(dataset))?.version;
            if !condition.holds(Some(found)) {
                let text = format!("the dataset `{}` is of the version \"{found}\"", dataset.name);
                return Err(ServiceError::PreconditionFailed(text));
            }
            if self.delete(dataset, head.lineage.position(), device_of(caller)).await? {
                self.audit(caller, dataset, head.lineage.position());
                return Ok(());
            }
        }
        Err(self.come_again())
    }

    /// Makes room for one more dataset of an owner. Nothing: it has as many as it may.
    pub(crate) async fn begin_creation<'a>(&'a self, owner: &'a Owner) -> Result<Option<Creation<'a>>, ServiceError> {
        let datasets_max = self.settings.limits.datasets_max;
        for attempt in 0..self.settings.push_attempts_max {
            let creation = self.creations.begin(owner);
            let existing = self.parts.store.datasets(owner, None, datasets_max).await?.len();
            if existing >= datasets_max {
                return Ok(None);
            }
            // The others may be in both numbers; then it is known when they are through.
            if existing + self.creations.of(owner) <= datasets_max {
                return Ok(Some(creation));
            }
            drop(creation);
            self.parts.sleep.sleep(self.jitter_ms(attempt)).await;
        }
        Err(self.come_again())
    }

    /// Deletes a dataset if it is still at `cursor`; says whether it is gone.
    pub(crate) async fn delete(
        &self,
        dataset: &DatasetAddress,
        cursor: Option<Position>,
        device: DeviceId,
    ) -> Result<bool, ServiceError> {
        let head = self.parts.store.view(dataset, &Touched::default()).await?.head;
        if !head.exists() && head.lineage.position() == cursor {
            return Ok(true);
        }
        if head.lineage.position() != cursor {
            return Ok(false);
        }
        let commit = self.plan(|context| plan_delete(&head, Some(device), context));
        let position = commit.head.lineage.position();
        // Stale: it has moved on since it was read, so it is not where the cursor says.
        let deleted = self.parts.store.commit(dataset, commit).await? == CommitOutcome::Written;
        if deleted {
            self.hints.publish(dataset, position);
        }
        Ok(deleted)
    }

    /// Opens an epoch in every dataset, because the store was put back from a backup. Says how many there are.
    ///
    /// # Errors
    /// If the store fails; then some datasets are fenced, and it does no harm to begin again.
    pub async fn fence(&self, why: EpochReason) -> Result<usize, ServiceError> {
        let mut fenced = 0;
        let mut after: Option<DatasetAddress> = None;
        loop {
            let addresses = self.parts.store.addresses(after.as_ref(), ADDRESSES_TOGETHER).await?;
            let Some(last) = addresses.last() else { return Ok(fenced) };
            after = Some(last.clone());
            let fence = |address| async move { self.fence_one(&address, why).await };
            let each = stream::iter(addresses).map(fence).buffered(COMMITS_TOGETHER);
            fenced += each.try_fold(0, async |sum, fenced| Ok(sum + usize::from(fenced))).await?;
        }
    }

    async fn fence_one(&self, dataset: &DatasetAddress, why: EpochReason) -> Result<bool, ServiceError> {
        for _ in 0..self.settings.push_attempts_max {
            let head = self.parts.store.view(dataset, &Touched::default()).await?.head;
            if head.lineage.position().is_none() {
                return Ok(false);
            }
            if self.open_epoch(dataset, &head, why).await?.is_some() {
                return Ok(true);
            }
        }
        Err(self.come_again())
    }

    /// Purges tombstones older than the retention. Says in how many steps, each of one dataset.
    ///
    /// # Errors
    /// If the store fails; the next run goes on.
    pub async fn purge(&self) -> Result<usize, ServiceError> {
        let before = self.parts.clock.now().plus_ms(-self.settings.tombstone_age_ms);
        let mut steps = 0;
        loop {
            let purged = self.purge_step(before).await?;
            if purged == 0 {
                return Ok(steps);
            }
            steps += purged;
        }
    }

    async fn purge_step(&self, before: Timestamp) -> Result<usize, ServiceError> {
        let old = self.parts.store.old_tombstones(before, TOMBSTONES_TOGETHER).await?;
        let purge = |(dataset, floor): (DatasetAddress, SyncCount)| async move {
            let purged = async {
                let head = self.parts.store.view(&dataset, &Touched::default()).await?.head;
                self.parts.store.commit(&dataset, plan_purge(&head, floor)).await
            };
            match purged.await {
                Ok(outcome) => Ok(outcome == CommitOutcome::Written),
                // The next run finds it at its new owner.
                Err(StoreError::Moved) => Ok(false),
                Err(error) => Err(ServiceError::from(error)),
            }
        };
        let each = stream::iter(old).map(purge).buffered(COMMITS_TOGETHER);
        each.try_fold(0, async |sum, purged| Ok(sum + usize::from(purged))).await
    }
}

fn described(dataset: &DatasetAddress, head: &Head) -> Option<Described> {
    let version = Version::of_dataset(head).filter(|_| head.exists())?;
    let Head { records, bytes, modified_at, .. } = *head;
    Some(Described { name: dataset.name.clone(), version, records, bytes, modified_at })
}

fn no_dataset(dataset: &DatasetAddress) -> ServiceError {
    ServiceError::NotFound(format!("there is no dataset `{}`", dataset.name))
}

impl Creations {
    fn begin<'a>(&'a self, owner: &'a Owner) -> Creation<'a> {
        *self.lock().entry(owner.clone()).or_default() += 1;
        Creation { creations: self, owner }
    }

    fn of(&self, owner: &Owner) -> usize {
        self.lock().get(owner).copied().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Owner, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Creation<'_> {
    fn drop(&mut self) {
        let mut creations = self.creations.lock();
        if let Some(count) = creations.get_mut(self.owner) {
            *count -= 1;
            if *count == 0 {
                creations.remove(self.owner);
            }
        }
    }
}
