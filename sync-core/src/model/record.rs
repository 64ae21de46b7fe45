//! One key of a dataset.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::id::{DeviceId, RecordKey};
use crate::model::time::Timestamp;
use crate::model::value::Value;

/// A dataset's counter: plus one for each accepted push. Never goes down, not even after deletion.
///
/// Stays below 2^53, so that it is exact as a JSON number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SyncCount(pub u64);

impl SyncCount {
    /// Before the first push; as a patch's base: absent or removed.
    pub const ZERO: Self = Self(0);

    /// As a patch's base: what the device saw is on no line of the server, so nothing compares equal to it.
    pub const NEVER: Self = Self((1 << 53) - 1);

    /// The count of the next push.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for SyncCount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Why a record is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RemovalReason {
    /// Somebody removed it.
    Removed,
    /// It left the owner's scope: it still exists, but not for this owner.
    Left,
    /// A reason that only newer versions know.
    #[serde(other)]
    Unknown,
}

/// What is under a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordState {
    /// A value.
    Value(Value),
    /// A tombstone: the record is gone, and devices must learn of it.
    Removed(RemovalReason),
}

/// One key of a dataset with its value or tombstone and the push that last wrote it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The key.
    pub key: RecordKey,
    /// The value or tombstone.
    pub state: RecordState,
    /// The count of the push that last wrote it.
    #[serde(rename = "count")]
    pub sync_count: SyncCount,
    /// The device that last wrote it, if a device did.
    #[serde(rename = "by", default, skip_serializing_if = "Option::is_none")]
    pub modified_by: Option<DeviceId>,
    /// When the server accepted it, by the server's clock.
    #[serde(rename = "at")]
    pub modified_at: Timestamp,
    /// When the app wrote it, by the device's clock, but never later than the server's.
    #[serde(rename = "time")]
    pub device_time: Timestamp,
}

impl Record {
    /// The value, unless the record is a tombstone.
    pub const fn value(&self) -> Option<&Value> {
        match &self.state {
            RecordState::Value(value) => Some(value),
            RecordState::Removed(_) => None,
        }
    }

    /// The length of its key and value, in canonical bytes.
    pub fn bytes(&self) -> usize {
        self.key.as_str().len() + self.value().map_or(0, Value::encoded_len)
    }

    /// What a patch that saw this record names as its base: its count, or zero for a tombstone, because a tombstone
    /// may be purged at any time and must then compare the same.
    pub const fn base(&self) -> SyncCount {
        match &self.state {
            RecordState::Value(_) => self.sync_count,
            RecordState::Removed(_) => SyncCount::ZERO,
        }
    }
}
