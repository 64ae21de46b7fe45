//! The steps of a transcript, as they are written in the file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::client::exchange::Absorbed;
use crate::conflict::{LogEntry, Parked, Question};
use crate::model::value::present;
use crate::model::{DeviceId, Divergence, RecordKey, SyncCount, Timestamp, Value};
use crate::policy::Policies;
use crate::protocol::{DatasetRequest, DatasetResponse, ErrorBody};
use crate::vectors::is_default;

/// One step: who, when, and one of what follows.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Step {
    /// The replica that does it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) on: Option<String>,
    /// Sets everybody's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) now: Option<Timestamp>,
    /// Why the step is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) about: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policies: Option<Policies>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) write: Option<WriteStep>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resolve: Option<ResolveStep>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retry: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) discard: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) restore: Option<usize>,
    /// Deletes the dataset.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) delete: bool,
    /// Another replica's pending changes become this one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) claim: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) copy: Option<CopyStep>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request: Option<RequestStep>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response: Option<ResponseStep>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) visible: Option<BTreeMap<RecordKey, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) log: Option<Vec<LogEntry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parked: Option<Vec<Parked>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) questions: Option<Vec<QuestionForm>>,
    /// How many groups are pending, in flight or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pending: Option<usize>,
    /// The device's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) device: Option<DeviceId>,
    /// Something that happens to the server; devices skip it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<ServerEvent>,
    /// The refusal of a write, resolve, retry or restore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<String>,
}

/// One transaction.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WriteStep {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) put: BTreeMap<RecordKey, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) remove: Vec<RecordKey>,
}

/// An answer to the question with this place in the list.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResolveStep {
    pub(super) question: usize,
    pub(super) with: ResolutionForm,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ResolutionForm {
    KeepLocal,
    KeepRemote,
    Value(Value),
    Remove,
}

/// The device's file is copied.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CopyStep {
    /// The name of the replica in the copy.
    #[serde(rename = "as")]
    pub(super) to: String,
    /// The prefix of its random source, in hex.
    pub(super) random: String,
}

/// The replica is asked what it wants of the server.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestStep {
    /// Ask in any case.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) first: bool,
    /// The host puts it into the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pull_limit: Option<u32>,
    /// What it asks for; null: nothing.
    #[serde(default)]
    pub(super) asks: Option<Box<DatasetRequest>>,
}

/// The server answers the replica's last request.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResponseStep {
    /// The answer is the one to this step again, by number from 0: it came late, or twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) again: Option<usize>,
    /// The answer never reaches the device.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) lost: bool,
    /// What the server says; null: the dataset is left out, because nothing has changed.
    #[serde(default)]
    pub(super) answer: Option<Box<DatasetResponse>>,
    /// The server's clock.
    #[serde(default)]
    pub(super) server_time: Timestamp,
    /// What it does to the replica.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) absorbed: AbsorbedForm,
}

/// What happens to a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerEvent {
    /// A backup is taken.
    Backup,
    /// The last backup is put back, and an epoch is opened.
    Restore,
    /// The same, and the loss was meant.
    RollBack,
    /// The last backup is put back, and nobody says so.
    RestoreUnfenced,
    /// Values longer than this are refused from now on.
    ValueBytesMax(usize),
    /// The disk makes the value of this record null; no commit says so.
    Damage(RecordKey),
}

/// A question, as it is shown.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QuestionForm {
    key: RecordKey,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    base: Option<Value>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    local: Option<Value>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    remote: Option<Value>,
    remote_count: SyncCount,
}

impl From<Question> for QuestionForm {
    fn from(it: Question) -> Self {
        let Question { key, base, local, remote, remote_count } = it;
        Self { key, base, local, remote, remote_count }
    }
}

/// What an answer did. What is nothing, zero or false is left out.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AbsorbedForm {
    #[serde(skip_serializing_if = "is_default")]
    late: bool,
    #[serde(skip_serializing_if = "is_default")]
    accepted: usize,
    #[serde(skip_serializing_if = "is_default")]
    refused: usize,
    #[serde(skip_serializing_if = "is_default")]
    conflicts: usize,
    #[serde(skip_serializing_if = "is_default")]
    pushed: usize,
    #[serde(skip_serializing_if = "is_default")]
    pulled: usize,
    #[serde(skip_serializing_if = "is_default")]
    total: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    reset: Option<Divergence>,
    #[serde(skip_serializing_if = "is_default")]
    diverged: bool,
    #[serde(skip_serializing_if = "is_default")]
    damaged: bool,
    #[serde(skip_serializing_if = "is_default")]
    parked: usize,
    #[serde(skip_serializing_if = "is_default")]
    copied: bool,
    #[serde(skip_serializing_if = "is_default")]
    deletion_refused: bool,
    #[serde(skip_serializing_if = "is_default")]
    error: Option<ErrorBody>,
}

macro_rules! same_fields {
    ($from:ident, $to:ident: $($field:ident)*) => {
        impl From<$from> for $to {
            fn from(it: $from) -> Self {
                let $from { $($field),* } = it;
                Self { $($field),* }
            }
        }
    };
}

same_fields!(Absorbed, AbsorbedForm: late accepted refused conflicts pushed pulled total reset diverged damaged parked
    copied deletion_refused error);
same_fields!(AbsorbedForm, Absorbed: late accepted refused conflicts pushed pulled total reset diverged damaged parked
    copied deletion_refused error);
