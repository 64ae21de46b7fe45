//! What was lost, what is parked, what the app is asked.

use serde::{Deserialize, Serialize};

use crate::model::value::present;
use crate::model::{GroupStep, RecordKey, SyncCount, Timestamp, Value};
use crate::policy::Policy;

/// Why something is in the conflict log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A policy decided between two concurrent changes.
    Policy(Policy),
    /// A push of this device replaced a value that it had not seen.
    Overwritten,
    /// The app chose one side.
    Resolved,
    /// A guest's value met a value of the identity that claimed it.
    Claimed,
    /// The server was put back from a backup and lost it.
    Restored,
    /// The server was put back on purpose.
    RolledBack,
    /// The server has another dataset of that name.
    Foreign,
    /// Device and server held different records at the same position, which was repaired.
    Digest,
    /// A hook of the server wrote something else.
    Rewritten,
    /// A parked change was retried after the app had written the record anew.
    Superseded,
}

impl Cause {
    /// The cause in a word, as it is printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Policy(policy) => policy.name(),
            Self::Overwritten => "overwritten",
            Self::Resolved => "resolved",
            Self::Claimed => "claimed",
            Self::Restored => "restored",
            Self::RolledBack => "rolled_back",
            Self::Foreign => "foreign",
            Self::Digest => "digest",
            Self::Rewritten => "rewritten",
            Self::Superseded => "superseded",
        }
    }
}

/// Whose value was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// This device's.
    Local,
    /// Another device's, or the server's.
    Remote,
}

/// One value that lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// The record.
    pub key: RecordKey,
    /// The field within it; empty: the whole value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<String>,
    /// Whose it was.
    pub side: Side,
    /// What it had been made from; restoring a counter or a set brings back the difference.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub under: Option<Value>,
    /// The value that lost; nothing: a removal.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// An entry of the conflict log: what one decision cost, restorable as one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When it was decided, by this device's clock.
    pub at: Timestamp,
    /// Why.
    pub cause: Cause,
    /// The values that lost.
    pub losses: Vec<Loss>,
}

/// A rejected group, and what was written over it, set aside with the reason. It never blocks the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parked {
    /// When it was parked, by this device's clock.
    pub at: Timestamp,
    /// The reason: a stable code.
    pub code: String,
    /// The reason, for people.
    pub message: String,
    /// The changes.
    pub patches: Vec<ParkedPatch>,
    /// The steps of its groups: what is retried on two copies of a file counts once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<GroupStep>,
}

/// One change of a parked group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParkedPatch {
    /// The record.
    pub key: RecordKey,
    /// What it was made from.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub under: Option<Value>,
    /// The value; nothing: a removal.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// When the app wrote it.
    pub device_time: Timestamp,
}

/// An open question to the app, under the policy `ask`.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The record.
    pub key: RecordKey,
    /// What both sides began with.
    pub base: Option<Value>,
    /// This device's value; nothing: removed.
    pub local: Option<Value>,
    /// The other side's value: the server's, or what this device has already decided to make of it in an earlier
    /// transaction; nothing: removed.
    pub remote: Option<Value>,
    /// The remote's count. An answer names it, and is asked for again if the record has moved on.
    pub remote_count: SyncCount,
}

/// The app's answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolution {
    /// Keep this device's value.
    KeepLocal,
    /// Keep the server's value; the whole group of the local change goes to the conflict log.
    KeepRemote,
    /// A new value made of both; nothing: remove the record.
    Value(Option<Value>),
}
