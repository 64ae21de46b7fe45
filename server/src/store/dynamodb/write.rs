//! What the store writes. The moment of a commit is one conditional write of the head: with what is written besides in it,
//! or staged before. See [`redo`](crate::store::dynamodb::redo) for what follows.

use sync_core::merge::push::{Commit, Head};
use sync_core::model::limits;

use crate::causes::with_causes;
use crate::clock::{Clock as _, SystemClock};
use crate::store::dynamodb::failure::Failure;
use crate::store::dynamodb::head::{EncodedHead, Kept, Pending};
use crate::store::dynamodb::items::{BODY_BYTES_MAX, CommitId};
use crate::store::dynamodb::read::Purpose;
use crate::store::dynamodb::redo::{self, Redo};
use crate::store::dynamodb::table::{Expression, Requests};
use crate::store::dynamodb::{directory, read, todo};
use crate::store::{CommitOutcome, DatasetAddress, StoreError};

/// How often a head is written, because it changed without moving: a purge, a commit that came into place.
const ROUNDS_MAX: usize = 24;
/// Bytes of a commit that may find room in its head.
const PACKED_MAX: usize = 3_000;
/// Bytes that the records of a dataset take at most, with their index: DynamoDB ends at 10 GB of 2^30 bytes. The rest is
/// for tombstones.
const PARTITION_BYTES_MAX: u64 = 10_000_000_000;
/// Bytes of an item and its entry in the index, besides key and value.
const ITEM_BYTES: u64 = 2 * 350;
/// Pushes of a device are forgotten after each so many.
const PUSHES_FORGOTTEN_EVERY: u64 = 64;

/// Writes a commit, or finds that the dataset is not where it was expected.
pub(super) async fn commit(
    requests: Requests<'_>,
    dataset: &DatasetAddress,
    commit: &Commit,
) -> Result<CommitOutcome, Failure> {
    requests.table.lease.check(requests).await?;
    let mut tried = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let found = read::settled(requests, dataset, Purpose::Write).await?;
        if found.as_ref().is_some_and(|found| is_written(found, commit, &tried)) {
            return Ok(CommitOutcome::Written);
        }
        if found.as_ref().and_then(|found| found.head.lineage.position()) != commit.expected {
            return Ok(CommitOutcome::Stale);
        }
        if let Some(found) = &found {
            redo::see_in_place(requests, found).await?;
        }
        let prepared = Prepared::new(requests, dataset, found, commit).await?;
        tried.push(prepared.next.version);
        if prepared.write(requests, dataset).await? {
            return Ok(CommitOutcome::Written);
        }
    }
    Err(Failure::Busy)
}

/// Whether one of the writes was done, though it was not heard of: the head is that one, or one that came after it.
fn is_written(found: &Kept, commit: &Commit, tried: &[CommitId]) -> bool {
    let position = commit.head.lineage.position().filter(|position| Some(*position) != commit.expected);
    let tags = &found.head.lineage.tags;
    let is_behind = || position.is_some_and(|position| tags.get(&position.count) == Some(&position.tag));
    tried.contains(&found.version) || !tried.is_empty() && is_behind()
}

/// A commit, of which all is written but the head.
struct Prepared {
    before: Option<Kept>,
    next: Kept,
    encoded: EncodedHead,
    redo: Redo,
    /// Whether something was written beside, which is to be looked after if it does not come to its end.
    is_beside: bool,
    /// What may be forgotten once it is written.
    forgotten: Vec<String>,
}

impl Prepared {
    async fn new(
        requests: Requests<'_>,
        dataset: &DatasetAddress,
        before: Option<Kept>,
        commit: &Commit,
    ) -> Result<Self, Failure> {
        let new = || Kept::new(&dataset.owner);
        let mut next = before.as_ref().map_or_else(new, Clone::clone).next();
        if !commit.records.is_empty() && partition_bytes(&commit.head) > PARTITION_BYTES_MAX {
            let text = format!("the records of dataset `{}` would take more than DynamoDB's 10 GB", dataset.name);
            return Err(Failure::Full(text));
        }
        if commit.clear && before.is_some() {
            todo::add(requests, &todo::generation(&next.home, next.generation)).await?;
            next.generation += 1;
        }
        if commit.purge {
            next.purged_at = SystemClock.now();
        }
        next.head = Head { floor: next.head.floor.max(commit.head.floor), ..commit.head.clone() };
        let (redo, parts) = Redo::of(commit, &next, next.version);
        let first_change = next.next_change;
        next.next_change += commit.changes.len() as u64;
        next.pending = Pending::Here(redo.clone());
        let fits = redo.pack().len() <= PACKED_MAX && next.fits(dataset);
        let is_beside = !parts.is_empty() || !fits;
        if is_beside {
            todo::add(requests, &todo::leftover(&next.home, next.version)).await?;
        }
        redo::write_parts(requests, &next.home, next.version, parts).await?;
        if !fits {
            let pieces = redo::stage(requests, &next.home, next.version, &redo).await?;
            next.pending = Pending::Staged { commit: next.version, pieces };
        }
        let encoded = next.clone().encode(dataset);
        for item in &encoded.line {
            requests.put(item.clone(), None).await?;
        }
        let mut forgotten = Vec::new();
        for push in redo.pushes.iter().filter(|push| push.sequence % PUSHES_FORGOTTEN_EVERY == 0) {
            forgotten.push(todo::pushes(&next.home, push.device));
        }
        let most = limits::CHANGES_REMEMBERED_MAX as u64;
        if first_change / most != next.next_change / most {
            forgotten.push(todo::changes(&next.home));
        }
        Ok(Self { before, next, encoded, redo, is_beside, forgotten })
    }

    /// Writes the head, if it is as before; says whether it was. Then it is durable, and what follows may fail.
    async fn write(self, requests: Requests<'_>, dataset: &DatasetAddress) -> Result<bool, Failure> {
        let item = self.encoded.item.clone();
        let is_written = match &self.before {
            Some(before) => requests.writing().put(item, Some(before.unchanged())).await?,
            None => {
                let is_new = || Some(Expression::of("attribute_not_exists(pk)", Vec::new()));
                let pointer = directory::pointer(&self.next.home, dataset);
                let parts = vec![
                    requests.putting(item, is_new())?,
                    requests.putting(pointer, is_new())?,
                    directory::staying(requests, &dataset.owner)?,
                ];
                requests.writing().transact(parts).await?
            }
        };
        if is_written && let Err(failure) = self.settle(requests, dataset).await {
            let error = StoreError::from(failure);
            let name = dataset.name.as_str();
            tracing::warn!(
                dataset.name = name,
                error = with_causes(&error),
                "left a commit to whoever comes next to put into place"
            );
        }
        Ok(is_written)
    }

    /// What follows the write of a head.
    async fn settle(&self, requests: Requests<'_>, dataset: &DatasetAddress) -> Result<(), Failure> {
        let Self { next, encoded, redo, is_beside, forgotten, .. } = self;
        redo::place(requests, &next.home, next.generation, redo).await?;
        match next.pending {
            Pending::Staged { .. } => redo::settle(requests, dataset, next).await?,
            Pending::Here(_) | Pending::Nothing => requests.table.placed.set(next.home.as_str(), next.version),
        }
        for key in &encoded.leftovers {
            requests.delete(dataset.owner.as_str(), key, None).await?;
        }
        for key in forgotten {
            todo::add(requests, key).await?;
        }
        if *is_beside {
            todo::done(requests, &todo::leftover(&next.home, next.version)).await?;
        }
        Ok(())
    }
}

/// How many bytes the records of a dataset take at most, with their index. Keys are there twice, and large values are
/// apart.
fn partition_bytes(head: &Head) -> u64 {
    let Head { records, bytes, .. } = *head;
    let of_each = |most: usize| records.saturating_mul(most as u64).min(bytes);
    let once = of_each(BODY_BYTES_MAX + limits::KEY_BYTES_MAX).saturating_add(of_each(limits::KEY_BYTES_MAX));
    once.saturating_mul(2).saturating_add(records.saturating_mul(ITEM_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_small_records_fit_and_so_do_large_values() {
        let head = |records, bytes| Head { records, bytes, ..Head::default() };
        for (records, bytes, fits) in [
            (0, 0, true),
            (1_000_000, 200 << 20, true),
            // Values apart: a terabyte of them.
            (1_000_000, 1 << 40, false),
            (800_000, 1 << 40, true),
            (10_000_000, 2 << 30, false),
            (u64::MAX, u64::MAX, false),
        ] {
            let found = partition_bytes(&head(records, bytes));
            assert_eq!(found <= PARTITION_BYTES_MAX, fits, "{records} records of {bytes} bytes: {found}");
        }
    }
}
