//! Merge policies: which one holds for a record or a field.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::Value;

/// How a concurrent change is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Each changed field of a map on its own, recursively. The default for maps.
    Fields,
    /// The push that arrives last wins. The default for everything else.
    LastSyncWins,
    /// The later edit wins, by the devices' clocks, which the server clamps to its own.
    LatestEditWins,
    /// The server's value wins.
    KeepRemote,
    /// The device's value wins.
    KeepLocal,
    /// Both differences are added (integers).
    Counter,
    /// Both sides' insertions and removals (a list without repeats, sorted).
    Set,
    /// The larger value wins.
    Max,
    /// The smaller value wins.
    Min,
    /// Lines of text are merged three ways on the device; overlaps keep both.
    Text,
    /// The app decides.
    Ask,
}

impl Policy {
    /// All policies, in the order of the documentation.
    pub const ALL: [Self; 11] = [
        Self::Fields,
        Self::LastSyncWins,
        Self::LatestEditWins,
        Self::KeepRemote,
        Self::KeepLocal,
        Self::Counter,
        Self::Set,
        Self::Max,
        Self::Min,
        Self::Text,
        Self::Ask,
    ];

    /// The name, as it is declared and printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fields => "fields",
            Self::LastSyncWins => "last_sync_wins",
            Self::LatestEditWins => "latest_edit_wins",
            Self::KeepRemote => "keep_remote",
            Self::KeepLocal => "keep_local",
            Self::Counter => "counter",
            Self::Set => "set",
            Self::Max => "max",
            Self::Min => "min",
            Self::Text => "text",
            Self::Ask => "ask",
        }
    }

    /// The policy of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name() == name)
    }

    /// Whether changes travel as differences that commute.
    pub const fn is_mergeable(self) -> bool {
        matches!(self, Self::Fields | Self::Counter | Self::Set | Self::Max | Self::Min)
    }

    /// Whether a field may have this policy: those that need the whole record, or a person, may not.
    pub const fn is_for_fields(self) -> bool {
        self.is_mergeable() || matches!(self, Self::LastSyncWins)
    }

    /// Whether a value is of the type that this policy merges.
    pub const fn fits(self, value: &Value) -> bool {
        match self {
            Self::Fields => matches!(value, Value::Map(_)),
            Self::Counter => matches!(value, Value::Int(_)),
            Self::Set => matches!(value, Value::List(_)),
            Self::Max | Self::Min => {
                matches!(value, Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::Bytes(_))
            }
            Self::Text => matches!(value, Value::Text(_)),
            Self::LastSyncWins | Self::LatestEditWins | Self::KeepRemote | Self::KeepLocal | Self::Ask => true,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What happens when one side edits a map and the other removes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDelete {
    /// The record comes back with the edit.
    #[default]
    EditWins,
    /// The record stays removed; the edit goes to the conflict log.
    DeleteWins,
}

/// The policies that a device declared for one dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policies {
    /// For all records.
    pub dataset: Option<Policy>,
    /// For records whose key begins so; the longest prefix holds.
    pub prefixes: BTreeMap<String, Policy>,
    /// For fields of maps, by path: `address/city` is the field `city` of the field `address`.
    pub fields: BTreeMap<String, Policy>,
    /// When an edit meets a removal.
    pub on_delete: OnDelete,
}

impl Policies {
    /// The policy of a record that changes from one value to another; `None` is absent or removed.
    pub fn of_record(&self, key: &str, from: Option<&Value>, to: Option<&Value>) -> Policy {
        let by_prefix = self.prefixes.iter().filter(|(prefix, _)| key.starts_with(prefix.as_str()));
        let declared = by_prefix.max_by_key(|(prefix, _)| prefix.len()).map(|(_, policy)| *policy).or(self.dataset);
        declared.unwrap_or_else(|| default_policy(to.or(from)))
    }

    /// The policy of a field at a path, given the value that it gets.
    pub fn of_field(&self, path: &[&str], value: &Value) -> Policy {
        if self.fields.is_empty() {
            return default_policy(Some(value));
        }
        self.fields.get(&path.join("/")).copied().unwrap_or_else(|| default_policy(Some(value)))
    }
}

const fn default_policy(value: Option<&Value>) -> Policy {
    match value {
        Some(Value::Map(_)) => Policy::Fields,
        _ => Policy::LastSyncWins,
    }
}
