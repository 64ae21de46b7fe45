//! A dataset's history of epochs and commit tags: tells whether a device and a server still share one past.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::id::{CommitTag, EpochId};
use crate::model::limits;
use crate::model::position::Position;
use crate::model::record::SyncCount;

/// Why an epoch was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EpochReason {
    /// The dataset's first commit.
    Created,
    /// The first commit of a day.
    Day,
    /// A device proved that the server had been further: it was put back without a fence.
    Ahead,
    /// An operator said that the store was put back from a backup.
    Fenced,
    /// The same, and the loss was meant: nothing is offered again.
    RolledBack,
    /// The dataset was deleted.
    Deleted,
    /// The owner's data were erased for good.
    Erased,
    /// A reason that only newer versions know.
    #[serde(other)]
    Unknown,
}

/// One span of a dataset's counts; it ends where the next one starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochEntry {
    /// The epoch.
    pub epoch: EpochId,
    /// The count at which it was opened; its first commit has the next one.
    pub start: SyncCount,
    /// Why it was opened.
    pub why: EpochReason,
}

/// The epoch line of a dataset, how far it reaches, and the tags of its latest commits.
///
/// Kept by the server, and by each device as far as it has pulled. The idea is that of Kafka's leader epochs: a count
/// alone cannot tell whether a server that was put back from a backup has counted up again along another path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The epochs, oldest first.
    pub entries: Vec<EpochEntry>,
    /// The count that the line reaches.
    pub count: SyncCount,
    /// Tags of the latest counts, at most [`limits::TAGS_REMEMBERED_MAX`].
    pub tags: BTreeMap<SyncCount, CommitTag>,
}

/// How a device's history and a server's line differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divergence {
    /// The dataset was deleted after the device's cursor.
    Deleted,
    /// The owner's data were erased after the device's cursor.
    Erased,
    /// The server was put back; what it had above the fork is lost there.
    Restored {
        /// The last count that both are known to share.
        fork: SyncCount,
    },
    /// The server was put back on purpose; what it had above the fork was meant to go.
    RolledBack {
        /// The last count that both are known to share.
        fork: SyncCount,
    },
    /// Nothing in common: another dataset of that name.
    Foreign,
    /// The device was away so long that its epoch has been pruned; nothing is known to be lost.
    Pruned,
}

impl Lineage {
    /// The newest epoch, if there is any.
    pub fn epoch(&self) -> Option<EpochId> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// The newest position, if anything was ever committed.
    pub fn position(&self) -> Option<Position> {
        let tag = self.tags.get(&self.count)?;
        Some(Position { epoch: self.epoch()?, count: self.count, tag: *tag })
    }

    /// The epoch in which a count was committed; of pruned ones, the one before. Nothing before the first commit.
    pub fn epoch_at(&self, count: SyncCount) -> Option<EpochId> {
        let after = self.entries.partition_point(|entry| entry.start < count);
        self.entries.get(after.saturating_sub(1)).map(|entry| entry.epoch)
    }

    /// Opens an epoch at the current count.
    pub fn open(&mut self, epoch: EpochId, why: EpochReason) {
        self.entries.push(EpochEntry { epoch, start: self.count, why });
    }

    /// Counts one commit.
    pub fn advance(&mut self, tag: CommitTag) {
        self.count = self.count.next();
        self.remember(self.count, tag);
    }

    /// Keeps the tag of a count, and of the latest ones only so many.
    pub fn remember(&mut self, count: SyncCount, tag: CommitTag) {
        self.tags.insert(count, tag);
        while self.tags.len() > limits::TAGS_REMEMBERED_MAX {
            self.tags.pop_first();
        }
    }

    /// Whether the position lies on this line: where the tag of its count is still kept, that tag decides; otherwise its
    /// epoch's span must contain its count. A position before a deletion is on the line all the same; see
    /// [`Lineage::ended`].
    pub fn contains(&self, position: Position) -> bool {
        if let Some(tag) = self.tags.get(&position.count) {
            return *tag == position.tag && position.count <= self.count;
        }
        let Some(at) = self.index(position.epoch) else { return false };
        self.entries[at].start <= position.count && position.count <= self.end(at)
    }

    /// Whether the position's epoch has been pruned from this line, so that nothing speaks against it.
    pub fn has_pruned(&self, position: Position, floor: SyncCount) -> bool {
        position.count <= floor && self.index(position.epoch).is_none()
    }

    /// What ended the dataset after a position on the line, if anything did.
    pub fn ended(&self, position: Position) -> Option<Divergence> {
        let after = match self.index(position.epoch) {
            Some(at) => &self.entries[at + 1..],
            // Pruned: deletions are kept, and come after it if they begin above it.
            None => &self.entries[self.entries.partition_point(|entry| entry.start <= position.count)..],
        };
        after.iter().rev().find_map(|entry| ended_by(entry.why))
    }

    /// Whether what was written at a count of this line was deleted since.
    pub fn has_deleted(&self, count: SyncCount) -> bool {
        self.entries.iter().any(|entry| count <= entry.start && ended_by(entry.why).is_some())
    }

    /// Whether an epoch is still opened for a device that is ahead. If not, the device's cursor is off the line all the
    /// same: so far the count has not come.
    pub fn takes_ahead(&self) -> bool {
        let ahead = self.entries.iter().filter(|entry| entry.why == EpochReason::Ahead);
        ahead.count() < limits::EPOCHS_AHEAD_MAX
    }

    /// Whether the position is of the newest epoch and yet ahead of the count, which only a restore explains.
    pub fn is_behind(&self, position: Position) -> bool {
        self.epoch() == Some(position.epoch) && position.count > self.count
    }

    /// Compares a device's history, which ends at a cursor off this line, with this line.
    pub fn diverge(&self, history: &Self, cursor: Position, floor: SyncCount) -> Divergence {
        let shared = |entry: &&EpochEntry| self.index(entry.epoch).is_some();
        let Some(common) = history.entries.iter().rev().find(shared) else {
            return if self.entries.is_empty() {
                Divergence::Restored { fork: SyncCount::ZERO }
            } else {
                Divergence::Foreign
            };
        };
        let here = self.index(common.epoch).unwrap_or_default();
        let after = &self.entries[here + 1..];
        if let Some(ended) = after.iter().rev().find_map(|entry| ended_by(entry.why)) {
            return ended;
        }
        if self.index(cursor.epoch).is_none() && cursor.count <= floor {
            return Divergence::Pruned;
        }
        let there = history.index(common.epoch).unwrap_or_default();
        let upper = self.end(here).min(history.end(there)).min(cursor.count);
        // A fence is set where the server was put back to. Any other epoch may have ended later.
        let is_fence = |next: &EpochEntry| matches!(next.why, EpochReason::Fenced | EpochReason::RolledBack);
        let unknown = if after.first().is_some_and(is_fence) { upper } else { common.start };
        let fork = self.agreed(history, upper, common.start).unwrap_or(unknown);
        if after.iter().any(|entry| entry.why == EpochReason::RolledBack) {
            Divergence::RolledBack { fork }
        } else {
            Divergence::Restored { fork }
        }
    }

    /// The last count from `start` to `upper` at which both have the same tag, below the lowest one that differs.
    /// Nothing if not one count has a tag on both sides.
    fn agreed(&self, history: &Self, upper: SyncCount, start: SyncCount) -> Option<SyncCount> {
        let both = self.tags.range(..=upper).filter_map(|(count, tag)| Some((*count, tag == history.tags.get(count)?)));
        let mut agreed = None;
        for (count, agree) in both {
            if !agree {
                return agreed.or(Some(start));
            }
            agreed = Some(count.max(start));
        }
        agreed
    }

    /// Drops entries whose span lies below the floor, but neither the newest nor the first and last deletion: these
    /// tell a device that was away for long whether its dataset was deleted meanwhile.
    pub fn prune(&mut self, floor: SyncCount) {
        let deletion = |entry: &EpochEntry| ended_by(entry.why).is_some();
        let first = self.entries.iter().position(deletion);
        let last = self.entries.iter().rposition(deletion);
        let ends: Vec<_> = (0..self.entries.len()).map(|at| self.end(at)).collect();
        let newest = self.entries.len().saturating_sub(1);
        let mut at = 0;
        self.entries.retain(|_| {
            let keep = at == 0 || at == newest || Some(at) == first || Some(at) == last || ends[at] > floor;
            at += 1;
            keep
        });
    }

    fn index(&self, epoch: EpochId) -> Option<usize> {
        self.entries.iter().rposition(|entry| entry.epoch == epoch)
    }

    fn end(&self, at: usize) -> SyncCount {
        self.entries.get(at + 1).map_or(self.count, |next| next.start)
    }
}

fn ended_by(why: EpochReason) -> Option<Divergence> {
    match why {
        EpochReason::Deleted => Some(Divergence::Deleted),
        EpochReason::Erased => Some(Divergence::Erased),
        _ => None,
    }
}
