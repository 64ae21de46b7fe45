//! The messages of `POST /v1/sync`.

use serde::{Deserialize, Serialize};

use crate::model::{
    CommitTag, DatasetName, DeviceId, Digest, EpochEntry, Group, Limits, Lineage, Owner, Position, Record, RecordKey,
    SyncCount, Timestamp,
};
pub use crate::model::{NextPage, Overwritten};
use crate::protocol::columns;

/// One round trip: pushes and pulls several datasets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncRequest {
    /// The protocol version that the client speaks.
    pub version: u32,
    /// The device that asks.
    pub device: DeviceId,
    /// The app and the version of its schema, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppVersion>,
    /// The [`limits_version`](SyncResponse::limits_version) that the device knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits_version: Option<u32>,
    /// Asks for the names of all datasets of the caller.
    #[serde(default, skip_serializing_if = "is_false")]
    pub list: bool,
    /// One entry a dataset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub datasets: Vec<DatasetRequest>,
}

/// What an app says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppVersion {
    /// The app's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The version of the app's schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<u32>,
}

/// What a device wants of one dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatasetRequest {
    /// Whose dataset; the caller's if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Which dataset.
    pub name: DatasetName,
    /// Up to where the device has pulled; nothing on the first pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Position>,
    /// Asks for all records instead of those after the cursor.
    #[serde(default, skip_serializing_if = "is_false")]
    pub snapshot: bool,
    /// Goes on with a pull whose pages are not all there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<NextPage>,
    /// Changes of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<Push>,
    /// Deletes the dataset, if it is still where the cursor says.
    #[serde(default, skip_serializing_if = "is_false")]
    pub delete: bool,
    /// How much the device takes at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_limit: Option<u32>,
}

/// Changes of a device, frozen: a retry sends the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Push {
    /// The device under whose name it was frozen.
    pub device: DeviceId,
    /// Counts the pushes of this device to this dataset.
    pub sequence: u64,
    /// The groups, at most one for each key.
    #[serde(with = "columns")]
    pub groups: Vec<Group>,
}

/// The answer to a [`SyncRequest`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SyncResponse {
    /// The protocol version of the answer.
    pub version: u32,
    /// The server's clock.
    pub server_time: Timestamp,
    /// The caller's identity, with a listing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Owner>,
    /// The names of all datasets of the caller, if asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<DatasetName>>,
    /// The server's limits, if the device does not know them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Names these limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits_version: Option<u32>,
    /// The device should not come again sooner, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// One entry for each dataset that has anything to say; unchanged ones are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub datasets: Vec<DatasetResponse>,
}

/// The answer for one dataset. An answer to a push, and then a page, a restart, a reset or an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatasetResponse {
    /// Whose dataset, as asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Which dataset.
    pub name: DatasetName,
    /// The answer to the push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<PushAnswer>,
    /// Records since the cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<Page>,
    /// The pull must begin again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// The cursor is not on the dataset's line; nothing else of the request was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<Reset>,
    /// The answer to a deletion: whether the dataset is now deleted. If not, it has moved on since the cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<bool>,
    /// This dataset cannot be served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

impl DatasetResponse {
    /// An answer that says nothing yet.
    pub const fn empty(owner: Option<Owner>, name: DatasetName) -> Self {
        Self { owner, name, push: None, page: None, restart: None, reset: None, deleted: None, error: None }
    }
}

/// What became of a push.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PushAnswer {
    /// Which push.
    pub sequence: u64,
    /// Another push had this id: the device's file was copied or put back. It takes a new device id.
    #[serde(default, skip_serializing_if = "is_false")]
    pub copied: bool,
    /// The dataset's position after the push. A pull that contains it has its effects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<Position>,
    /// One answer a group, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupAnswer>,
}

/// What became of one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupAnswer {
    /// The verdict.
    pub status: GroupStatus,
    /// Why it was refused: a stable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Why it was refused, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What it overwrote that the device may not have seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overwritten: Vec<Overwritten>,
    /// The records of which a hook of the server wrote something else than asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewritten: Vec<RecordKey>,
}

/// The verdict on a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GroupStatus {
    /// Written.
    Applied,
    /// Written, over changes that the device had not seen.
    Merged,
    /// Written otherwise than asked, by a hook of the server.
    Rewritten,
    /// Not written: a record has moved on. The pull brings the newer record; the device decides again.
    Conflict,
    /// Not written, and not worth sending again as it is.
    Refused,
    /// A verdict that only newer versions know: not written.
    #[serde(other)]
    Unknown,
}

/// Records of one moment, in order of count and key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The records and tombstones.
    #[serde(default, with = "columns", skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Record>,
    /// Where it was read; nothing if the dataset was never written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// Where the next page begins. Nothing: this page ends at its own position, and what was pulled becomes visible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextPage>,
    /// The epoch line, if the device cannot have all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<Vec<EpochEntry>>,
    /// Tags of the counts after the cursor, as far as they are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(SyncCount, CommitTag)>,
    /// Tombstones at or below it are purged, and epochs that ended there may be missing from the line.
    #[serde(default, skip_serializing_if = "is_count_zero")]
    pub floor: SyncCount,
    /// With the last page: the digest of the dataset at its position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// How many live records the dataset has.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub total: u64,
}

/// A pull must begin again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// With all records, because tombstones that the pull needs have been purged.
    #[serde(default)]
    pub snapshot: bool,
}

/// The cursor is not on the dataset's line. The device compares histories and says what that means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reset {
    /// The server's line.
    pub lineage: Lineage,
    /// Tombstones at or below it are purged.
    pub floor: SyncCount,
}

/// The one shape of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// A stable code, such as `NotAuthorized`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// The stable error codes: Cognito's names.
pub mod code {
    /// Sign in, or sign in again.
    pub const NOT_AUTHORIZED: &str = "NotAuthorized";
    /// The request is wrong; sending it again does not help.
    pub const INVALID_PARAMETER: &str = "InvalidParameter";
    /// There is no such thing.
    pub const RESOURCE_NOT_FOUND: &str = "ResourceNotFound";
    /// It has changed since.
    pub const RESOURCE_CONFLICT: &str = "ResourceConflict";
    /// More than a limit allows.
    pub const LIMIT_EXCEEDED: &str = "LimitExceeded";
    /// Come again later.
    pub const TOO_MANY_REQUESTS: &str = "TooManyRequests";
    /// The server has no room to write; try again later. Reading goes on.
    pub const STORAGE_FULL: &str = "StorageFull";
    /// The server's fault; try again later.
    pub const INTERNAL_ERROR: &str = "InternalError";
    /// The client is too old for this server.
    pub const UPGRADE_REQUIRED: &str = "UpgradeRequired";
}

const fn is_false(it: &bool) -> bool {
    !*it
}

const fn is_zero(it: &u64) -> bool {
    *it == 0
}

const fn is_count_zero(it: &SyncCount) -> bool {
    it.0 == 0
}
