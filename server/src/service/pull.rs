//! Pulling: pages of records since a cursor.

use std::sync::Arc;

use sync_core::merge::push::{Head, plan_epoch};
use sync_core::model::{EpochReason, NextPage, Position, Record, SyncCount, limits};
use sync_core::protocol::{DatasetRequest, Page, Reset, Restart};

use crate::error::ServiceError;
use crate::metrics::PullOutcome;
use crate::service::Service;
use crate::service::line::{LineVerdict, Standing};
use crate::store::{CommitOutcome, DatasetAddress, RecordsAfter, RecordsRead};

/// The answer to a pull.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Pulled {
    /// The device has everything.
    Unchanged,
    /// A page, and the dataset at its moment.
    Page(Page, Box<Head>),
    Restart(Restart),
    Reset(Reset),
}

impl Pulled {
    /// Keys and values in it, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let Self::Page(page, _) = self else { return 0 };
        page.records.iter().map(Record::bytes).sum()
    }
}

impl Service {
    /// Answers a pull, or says why the device's cursor is not on the line. `acked` is where a push of the same request
    /// is, and `unread` what that has read already.
    pub(crate) async fn pull(
        &self,
        dataset: &DatasetAddress,
        request: &DatasetRequest,
        acked: Option<Position>,
        unread: Option<Arc<RecordsRead>>,
        bytes_max: usize,
    ) -> Result<Pulled, ServiceError> {
        let result = self.read_page(dataset, request, acked, unread, bytes_max).await;
        let (outcome, records) = outcome(&result);
        self.parts.metrics.pulled(outcome, records);
        result
    }

    async fn read_page(
        &self,
        dataset: &DatasetAddress,
        request: &DatasetRequest,
        acked: Option<Position>,
        mut unread: Option<Arc<RecordsRead>>,
        bytes_max: usize,
    ) -> Result<Pulled, ServiceError> {
        let standing = Standing::of(request);
        let range = range(&standing, request.pull_limit, bytes_max);
        for _ in 0..self.settings.push_attempts_max {
            let read = match unread.take() {
                Some(unread) => unread.limited(range.records_max, range.bytes_max),
                None => self.parts.store.records_after(dataset, &range).await?,
            };
            let mut head = read.head.clone();
            let verdict = match standing.check_line(&head) {
                LineVerdict::Ahead => match self.open_epoch(dataset, &head, EpochReason::Ahead).await? {
                    Some(after) => {
                        tracing::warn!(dataset.name = %dataset.name, sync_count = head.lineage.count.0,
                            "a device is ahead of dataset `{}`: the store was put back without `syncline fence`", dataset.name);
                        head = after;
                        standing.check_line(&head)
                    }
                    None => continue,
                },
                verdict => verdict,
            };
            return Ok(match verdict {
                LineVerdict::Ahead | LineVerdict::Reset => {
                    Pulled::Reset(Reset { lineage: head.lineage, floor: head.floor })
                }
                LineVerdict::Restart(restart) => Pulled::Restart(restart),
                LineVerdict::On if standing.is_below_floor(&head) => Pulled::Restart(Restart { snapshot: true }),
                LineVerdict::On => page(&standing, acked, read),
            });
        }
        Err(self.come_again())
    }

    /// Opens an epoch at the current count. Nothing: the dataset has moved on.
    pub(crate) async fn open_epoch(
        &self,
        dataset: &DatasetAddress,
        head: &Head,
        why: EpochReason,
    ) -> Result<Option<Head>, ServiceError> {
        let commit = self.plan(|context| plan_epoch(head, why, context));
        let after = commit.head.clone();
        match self.parts.store.commit(dataset, commit).await? {
            CommitOutcome::Written => Ok(Some(after)),
            CommitOutcome::Stale => Ok(None),
        }
    }
}

/// What is counted of a pull: its outcome, and how many records it brought.
fn outcome(result: &Result<Pulled, ServiceError>) -> (PullOutcome, usize) {
    match result {
        Ok(Pulled::Page(page, _)) => (PullOutcome::Page, page.records.len()),
        Ok(Pulled::Unchanged) => (PullOutcome::Unchanged, 0),
        Ok(Pulled::Restart(_)) => (PullOutcome::Restart, 0),
        Ok(Pulled::Reset(_)) => (PullOutcome::Reset, 0),
        Err(_) => (PullOutcome::Failed, 0),
    }
}

fn range(standing: &Standing, pull_limit: Option<u32>, bytes_max: usize) -> RecordsAfter {
    let wanted = pull_limit.map_or(limits::PAGE_RECORDS_MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let since = standing.cursor.filter(|_| !standing.snapshot).map_or(SyncCount::ZERO, |cursor| cursor.count);
    let skip_tombstones_to = match &standing.page {
        _ if !standing.is_snapshot() => SyncCount::ZERO,
        Some(page) => page.since,
        None => SyncCount::NEVER,
    };
    RecordsAfter {
        since,
        after: standing.page.as_ref().map(|page| (page.after_count, page.after_key.clone())),
        skip_tombstones_to,
        records_max: wanted.clamp(1, limits::PAGE_RECORDS_MAX),
        bytes_max: bytes_max.min(limits::PAGE_BYTES_MAX),
    }
}

/// The page of what was read at one moment.
fn page(standing: &Standing, acked: Option<Position>, read: RecordsRead) -> Pulled {
    let RecordsRead { head, records, has_more } = read;
    let position = head.lineage.position();
    let in_sync = position.is_some() && standing.cursor == position;
    // A push that was answered before may be in an epoch that is pruned by now: the page's floor says so.
    let is_old = acked.is_some_and(|ack| Some(ack) != position);
    if in_sync && !standing.snapshot && standing.page.is_none() && !is_old {
        return Pulled::Unchanged;
    }
    let next = position.zip(records.last().filter(|_| has_more)).map(|(at, last)| NextPage {
        since: standing.since().unwrap_or(head.lineage.count),
        at,
        after_count: last.sync_count,
        after_key: last.key.clone(),
    });
    let same_epoch = standing.cursor.is_some_and(|cursor| head.lineage.epoch() == Some(cursor.epoch));
    let known = standing.cursor.map_or(SyncCount::ZERO, |cursor| cursor.count);
    let tags = head.lineage.tags.iter().filter(|(count, _)| **count > known);
    let page = Page {
        position,
        line: (standing.is_snapshot() || !same_epoch).then(|| head.lineage.entries.clone()),
        tags: tags.map(|(count, tag)| (*count, *tag)).collect(),
        floor: head.floor,
        digest: next.is_none().then_some(head.digest),
        total: head.records,
        next,
        records,
    };
    Pulled::Page(page, Box::new(head))
}
