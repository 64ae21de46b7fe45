//! Where a pull of several pages goes on.

use serde::{Deserialize, Serialize};

use crate::model::id::RecordKey;
use crate::model::position::Position;
use crate::model::record::SyncCount;

/// Where a pull goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextPage {
    /// The count at or below which this pull needs no tombstones: the cursor's, or, in a snapshot, the count at which
    /// it was begun.
    pub since: SyncCount,
    /// Where the page before was read. A page off that line is thrown away.
    pub at: Position,
    /// The count of the last record of the page before.
    pub after_count: SyncCount,
    /// The key of the last record of the page before.
    pub after_key: RecordKey,
}
