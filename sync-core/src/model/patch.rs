//! What a device asks a server to change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::id::{ChangeId, RecordKey};
use crate::model::record::SyncCount;
use crate::model::time::Timestamp;
use crate::model::value::{Value, present};

/// What a patch is compared by, so that a server needs no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    /// Only if the record is still as the device saw it (compare-and-set).
    Base,
    /// If the record is as the device saw it, or the edit is not older than the record's.
    EditTime,
    /// Always: whoever comes last wins.
    Nothing,
}

/// The difference from a base to a local value, under a merge policy. Whoever applies it needs no policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delta {
    /// Add to an integer; an absent one is 0. Travels like a value: in JSON, beyond ±2^53 as `{"$int": "…"}`.
    Add(#[serde(with = "int_as_value")] i64),
    /// Insert into and remove from a list that is a set; an absent one is empty.
    Set {
        /// Elements to insert.
        #[serde(default)]
        insert: Vec<Value>,
        /// Elements to remove.
        #[serde(default)]
        remove: Vec<Value>,
    },
    /// Keep the larger; anything is larger than an absent one.
    Max(Value),
    /// Keep the smaller; anything is smaller than an absent one.
    Min(Value),
    /// Change some fields of a map.
    Fields(BTreeMap<String, FieldDelta>),
}

mod int_as_value {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use crate::model::value::Value;

    pub(super) fn serialize<S: Serializer>(int: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        Value::Int(*int).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Int(int) => Ok(int),
            _ => Err(de::Error::custom("a counter's difference must be an integer")),
        }
    }
}

/// The difference of one field of a map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldDelta {
    /// Set it to a value.
    Set(Value),
    /// Take it out of the map.
    Remove,
    /// Merge a difference into it.
    Merge(Delta),
}

/// The change to one record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatchOp {
    /// Write a whole value.
    Replace(Value, Compare),
    /// Leave a tombstone.
    Remove(Compare),
    /// Merge a difference into whatever value is there.
    Merge(Delta),
}

/// One change that a device asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordPatch {
    /// The record.
    pub key: RecordKey,
    /// The change.
    pub op: PatchOp,
    /// The record's count that the device had seen; zero: absent or removed.
    #[serde(default)]
    pub base: SyncCount,
    /// When the app wrote it, by the device's clock.
    #[serde(rename = "time")]
    pub device_time: Timestamp,
}

/// The patches of one app transaction: pushed whole or not at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Names this content, whoever sends it.
    pub change_id: ChangeId,
    /// At most one patch a record.
    pub patches: Vec<RecordPatch>,
    /// What it was before the latest writes joined it, as far as counters are concerned. A copy of the device's file
    /// may have sent that; what is known to be applied is taken off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<GroupStep>,
}

impl Group {
    /// A group that was written at once.
    pub const fn new(change_id: ChangeId, patches: Vec<RecordPatch>) -> Self {
        Self { change_id, patches, earlier: Vec::new() }
    }

    /// How much a push has of it: patches, and what is said about earlier ones.
    pub fn weight(&self) -> usize {
        self.patches.len() + self.earlier.iter().map(|step| step.added.len()).sum::<usize>()
    }
}

/// One of the writes that a group has grown by, if it changed counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupStep {
    /// The group's change id after the write.
    pub change_id: ChangeId,
    /// What the write added to the group's differences.
    pub added: Vec<Added>,
}

/// What was added to a counter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Added {
    /// The record.
    pub key: RecordKey,
    /// The field within it; empty: the value itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<String>,
    /// How much. Travels like [`Delta::Add`].
    #[serde(with = "int_as_value")]
    pub by: i64,
}

impl Added {
    /// About how many bytes it takes in a message.
    pub fn encoded_len(&self) -> usize {
        const NAMES: usize = 64;
        NAMES + self.key.as_str().len() + self.path.iter().map(String::len).sum::<usize>()
    }
}

/// What a push replaced, and its device may not have seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overwritten {
    /// The record.
    pub key: RecordKey,
    /// The field within it; empty: the whole value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<String>,
    /// What was there; nothing: the record had been removed.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}
