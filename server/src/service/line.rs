//! Whether what a device knows lies on the dataset's epoch line: decided before anything else of its request.

use sync_core::merge::push::Head;
use sync_core::model::{NextPage, Position, SyncCount};
use sync_core::protocol::{DatasetRequest, Restart};

/// The positions that a request stands on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standing {
    pub(crate) cursor: Option<Position>,
    pub(crate) page: Option<NextPage>,
    pub(crate) snapshot: bool,
}

/// What the line says to a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LineVerdict {
    /// It goes on.
    On,
    /// A position of the newest epoch is ahead of the count: the server was put back without a fence. An epoch is to
    /// be opened before the request is answered.
    Ahead,
    /// The cursor is not on the line.
    Reset,
    /// The cursor is, but the page before is not.
    Restart(Restart),
}

impl Standing {
    pub(crate) fn of(request: &DatasetRequest) -> Self {
        Self { cursor: request.cursor, page: request.page.clone(), snapshot: request.snapshot }
    }

    /// Whether all records are asked for.
    pub(crate) const fn is_snapshot(&self) -> bool {
        self.snapshot || self.cursor.is_none()
    }

    /// Compares the positions with the line.
    pub(crate) fn check_line(&self, head: &Head) -> LineVerdict {
        let line = &head.lineage;
        let page_at = self.page.as_ref().map(|page| page.at);
        let off = |position: Position| !line.contains(position) || line.ended(position).is_some();
        let is_behind = [self.cursor, page_at].into_iter().flatten().any(|position| line.is_behind(position));
        if is_behind && line.takes_ahead() {
            LineVerdict::Ahead
        } else if self.cursor.is_some_and(off) {
            LineVerdict::Reset
        } else if page_at.is_some_and(off) {
            LineVerdict::Restart(Restart { snapshot: self.snapshot })
        } else {
            LineVerdict::On
        }
    }

    /// The count from which on tombstones are needed; nothing on the first page of a snapshot, which needs none.
    pub(crate) fn since(&self) -> Option<SyncCount> {
        match (&self.page, self.cursor) {
            (Some(page), _) => Some(page.since),
            (None, Some(cursor)) if !self.snapshot => Some(cursor.count),
            (None, _) => None,
        }
    }

    /// Whether tombstones that the pull needs have been purged.
    pub(crate) fn is_below_floor(&self, head: &Head) -> bool {
        self.since().is_some_and(|since| since < head.floor)
    }
}
