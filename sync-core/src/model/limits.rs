//! Every limit, in one place. Exceeding one is `LimitExceeded`, with a text that says which.

use serde::{Deserialize, Serialize};

/// A key's length in bytes: DynamoDB's sort key has 1,024, and a prefix must fit too.
pub const KEY_BYTES_MAX: usize = 1_000;
/// A dataset name's length in bytes: Cognito's maximum.
pub const DATASET_NAME_BYTES_MAX: usize = 128;
/// An owner's length in bytes.
pub const OWNER_BYTES_MAX: usize = 128;
/// A value's length in canonical bytes: Cognito's maximum.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Patches in a group: Cognito's largest call is one group.
pub const GROUP_PATCHES_MAX: usize = 1_024;
/// Keys and values of a group, in canonical bytes: DynamoDB's transactions end there.
pub const GROUP_BYTES_MAX: usize = 4 << 20;
/// Patches that a device takes into one push as long as they are more than one group. It is as much as a page has, for
/// the same reasons: memory, and mobile networks.
pub const PUSH_PATCHES_MAX: usize = 2_000;
/// Patches in one request.
pub const REQUEST_PATCHES_MAX: usize = 10_000;
/// Writes to counters that a device tells apart within a group. Further ones begin another group, because they are
/// written with each write.
pub const GROUP_STEPS_MAX: usize = 64;
/// A request's length in bytes, decompressed.
pub const REQUEST_BYTES_MAX: usize = 8 << 20;
/// What a client sends at most until a server told it its limits: Lambda takes 6 MB.
pub const REQUEST_BYTES_FIRST: usize = 4 << 20;
/// Datasets in one request.
pub const REQUEST_DATASETS_MAX: usize = 1_000;
/// Values in a decoded message: 8 MB of nils would become 500 MB of values.
pub const MESSAGE_VALUES_MAX: usize = 1_000_000;
/// Keys, names and texts in a decoded message, in bytes: what travels by column unfolds to more than it is.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// Nesting of a message: a value's, and what is around it.
pub const MESSAGE_DEPTH_MAX: usize = 64;
/// Records in one page of a pull.
pub const PAGE_RECORDS_MAX: usize = 2_000;
/// Keys and values in one page of a pull, in bytes; a page holds at least one record.
pub const PAGE_BYTES_MAX: usize = 2 << 20;
/// Datasets of one owner.
pub const DATASETS_MAX: usize = 1_000;
/// Live records of one dataset.
pub const RECORDS_MAX: u64 = 1_000_000;
/// Pushes that a server remembers for each device and dataset.
pub const PUSHES_REMEMBERED_MAX: usize = 64;
/// Change ids that a server remembers for each dataset: more than the groups of the largest push, so that two copies
/// of a device's file that push the same do not count it twice.
pub const CHANGES_REMEMBERED_MAX: usize = 16_384;
/// Commit tags that a dataset's head keeps.
pub const TAGS_REMEMBERED_MAX: usize = 64;
/// Epochs of one line that a server opens because a device is ahead of it. A server is not put back without a fence so
/// often; who makes up cursors could have it open any number.
pub const EPOCHS_AHEAD_MAX: usize = 16;
/// How long a tombstone is kept, in milliseconds: 90 days.
pub const TOMBSTONE_AGE_MS: i64 = 90 * 24 * 60 * 60 * 1000;

/// The limits that a server may lower, and tells its clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// A value's length in canonical bytes.
    pub value_bytes_max: usize,
    /// Patches in a group.
    pub group_patches_max: usize,
    /// Keys and values of a group, in canonical bytes.
    pub group_bytes_max: usize,
    /// Patches in one request.
    pub request_patches_max: usize,
    /// A request's length in bytes, decompressed.
    pub request_bytes_max: usize,
    /// Live records of one dataset.
    pub records_max: u64,
    /// Datasets of one owner.
    pub datasets_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            value_bytes_max: VALUE_BYTES_MAX,
            group_patches_max: GROUP_PATCHES_MAX,
            group_bytes_max: GROUP_BYTES_MAX,
            request_patches_max: REQUEST_PATCHES_MAX,
            request_bytes_max: REQUEST_BYTES_MAX,
            records_max: RECORDS_MAX,
            datasets_max: DATASETS_MAX,
        }
    }
}
