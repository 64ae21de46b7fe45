//! A device's copy of one dataset, as the planners see it: a base with layers of pending groups over it.

use serde::{Deserialize, Serialize};

use crate::conflict::{Cause, LogEntry, Parked, ParkedPatch};
use crate::model::value::present;
use crate::model::{
    ChangeId, DeviceId, Digest, GroupStep, Lineage, NextPage, Overwritten, PatchOp, Position, Record, RecordKey,
    SyncCount, Timestamp, Value,
};
use crate::policy::Policies;

/// A group's place among the layers: later ones lie over earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub u64);

/// What became of a group that was pushed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Written. This was replaced.
    Accepted(Vec<Overwritten>),
    /// Written otherwise than asked, by a hook of the server.
    Rewritten {
        /// The keys of which something else was written.
        keys: Vec<RecordKey>,
        /// What was replaced, as above.
        overwritten: Vec<Overwritten>,
    },
    /// Not written: a record has moved on.
    Conflict,
    /// Not written, and not worth sending again as it is.
    Refused {
        /// A stable code.
        code: String,
        /// For people.
        message: String,
    },
}

/// Where a pending group stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupState {
    /// Later writes to its keys join it.
    Open,
    /// Closed to further writes, and not sent.
    Sealed,
    /// In flight, frozen.
    Sent,
    /// Answered; stays as a layer until a pull that contains the answer is visible.
    Acked(Verdict),
}

impl GroupState {
    /// Whether it is part of the push in flight.
    pub const fn is_in_flight(&self) -> bool {
        matches!(self, Self::Sent | Self::Acked(_))
    }
}

/// A pending group, without its patches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupHeader {
    /// Its place among the layers.
    pub id: GroupId,
    /// Where it stands.
    pub state: GroupState,
    /// Names its content; redrawn at each write.
    pub change_id: ChangeId,
    /// What each write added to its counters, oldest first, under the change id that it was given.
    pub steps: Vec<GroupStep>,
    /// How many patches it has.
    pub patches: usize,
    /// Keys and values, in canonical bytes.
    pub bytes: usize,
}

impl GroupHeader {
    /// A group without patches.
    pub const fn new(id: GroupId, state: GroupState, change_id: ChangeId) -> Self {
        Self { id, state, change_id, steps: Vec::new(), patches: 0, bytes: 0 }
    }

    /// What was added to counters, over all steps: the length of what they are written in.
    pub fn additions(&self) -> usize {
        self.steps.iter().map(|step| step.added.len()).sum()
    }

    /// The steps before the last write.
    pub fn earlier(&self) -> Vec<GroupStep> {
        self.steps.iter().filter(|step| step.change_id != self.change_id).cloned().collect()
    }
}

/// One change of a pending group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingPatch {
    /// The value that it was made from: that of the layer below. While a map is removed on the server, the last live
    /// one, so that an edit can still be told from what it edited.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub under: Option<Value>,
    /// The value that the app wants; nothing: removed.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// When the app wrote it.
    pub device_time: Timestamp,
    /// Travels whole and by compare-and-set, although its policy merges: the difference did not fit.
    pub whole: bool,
    /// Written before sign-in: where both sides have a plain value, the identity's wins.
    pub claimed: bool,
    /// The app is asked about it.
    pub question: Option<OpenQuestion>,
    /// How it was sent, while it is in flight.
    pub sent: Option<SentPatch>,
}

impl PendingPatch {
    /// What is left of it when it is set aside.
    pub(super) fn parked(self, key: RecordKey) -> ParkedPatch {
        let Self { under, value, device_time, .. } = self;
        ParkedPatch { key, under, value, device_time }
    }
}

/// A question to the app, under the policy `ask`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenQuestion {
    /// The remote's count that it is about. An answer names it, and is asked for again if the record has moved on.
    pub remote_count: SyncCount,
    /// What both sides began with.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub base: Option<Value>,
}

/// A patch as it was frozen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SentPatch {
    /// The change.
    pub op: PatchOp,
    /// The base it named.
    pub base: SyncCount,
}

/// The push in flight. Its groups are those whose state says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InFlight {
    /// The device under whose name it was frozen.
    pub device: DeviceId,
    /// Its number.
    pub sequence: u64,
    /// Whether the server has answered; its groups then say what became of them.
    pub answered: bool,
    /// Where its effects are, once it was answered; nothing: the dataset was never written.
    pub ack: Option<Position>,
    /// The server has said so twice, so it remembers the push.
    #[serde(default)]
    pub confirmed: bool,
    /// The server lost what it was made on: bases are renewed before it is sent again.
    pub renew: bool,
    /// Since it was sent, pages were taken that do not add up to the server's digest: what it wrote may be missing.
    #[serde(default)]
    pub damaged: bool,
}

/// A pull whose pages are not all there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pull {
    /// All records instead of those after the cursor.
    pub snapshot: bool,
    /// Where it goes on; nothing: it has not begun.
    pub next: Option<NextPage>,
    /// The digest of what the base will be.
    pub digest: Digest,
    /// Why there is a snapshot: what the base holds above this count, and the snapshot does not, was lost.
    pub lost: Option<(Cause, SyncCount)>,
    /// How many records are staged.
    pub staged: u64,
    /// The push in flight is known to be on the line that the pages so far are of.
    #[serde(default)]
    pub shows_push: bool,
    /// It is made because what was pulled before does not add up to the server's digest.
    #[serde(default)]
    pub again: bool,
}

/// What a device knows about a dataset as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplicaState {
    /// Up to where it has pulled.
    pub cursor: Option<Position>,
    /// The server's line, as far as it was pulled.
    pub lineage: Lineage,
    /// The digest of the base.
    pub digest: Digest,
    /// The number of the last push.
    pub sequence: u64,
    /// The push in flight.
    pub in_flight: Option<InFlight>,
    /// The pull in progress.
    pub pull: Option<Pull>,
    /// The app deleted the dataset; the server does not know yet.
    pub deleting: bool,
    /// Never synced.
    pub local_only: bool,
    /// Where all records were last pulled because something did not add up.
    #[serde(default)]
    pub repaired: Option<Position>,
}

/// Why a replica could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// The store failed; nothing was changed.
    #[error("the device's store failed")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store holds what no version of this code writes.
    #[error("the device's store is corrupt: {0}")]
    Corrupt(String),
}

/// Reads one dataset of a device, at one moment. A host implements it over its own store, so that planners read only
/// the keys that they touch.
pub trait Replica {
    /// The state as a whole; the default if the dataset was never touched.
    fn state(&self) -> Result<ReplicaState, ReplicaError>;
    /// The declared policies.
    fn policies(&self) -> Result<Policies, ReplicaError>;
    /// The record in the base; never a tombstone.
    fn base(&self, key: &RecordKey) -> Result<Option<Record>, ReplicaError>;
    /// The record or tombstone that a pull in progress has brought.
    fn staged(&self, key: &RecordKey) -> Result<Option<Record>, ReplicaError>;
    /// The pending patches of a key, lowest layer first.
    fn patches(&self, key: &RecordKey) -> Result<Vec<(GroupId, PendingPatch)>, ReplicaError>;
    /// All pending groups, lowest first.
    fn groups(&self) -> Result<Vec<GroupHeader>, ReplicaError>;
    /// One pending group.
    fn group(&self, id: GroupId) -> Result<Option<GroupHeader>, ReplicaError>;
    /// The patches of a group, by key.
    fn group_patches(&self, id: GroupId) -> Result<Vec<(RecordKey, PendingPatch)>, ReplicaError>;
    /// The highest group id in use, or zero.
    fn last_group(&self) -> Result<GroupId, ReplicaError>;
    /// Keys with pending patches; only those that are staged, unless `all`.
    fn pending_keys(&self, all: bool) -> Result<Vec<RecordKey>, ReplicaError>;
    /// A parked unit.
    fn parked(&self, id: u64) -> Result<Option<Parked>, ReplicaError>;
    /// An entry of the conflict log.
    fn log_entry(&self, id: u64) -> Result<Option<LogEntry>, ReplicaError>;
}

/// What a plan changes in a replica. Hosts execute writes in order, each by its kind, in one transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Replaces the state.
    State(Box<ReplicaState>),
    /// Replaces the policies.
    Policies(Policies),
    /// Inserts or replaces a group's header.
    Group(GroupHeader),
    /// Removes a group and its patches.
    DropGroup(GroupId),
    /// Inserts or replaces a patch.
    Patch {
        /// Its group.
        group: GroupId,
        /// Its record.
        key: RecordKey,
        /// The patch.
        patch: Box<PendingPatch>,
    },
    /// Moves all patches of a group into another and removes the emptied one.
    MovePatches {
        /// The group that goes.
        from: GroupId,
        /// The group that stays.
        to: GroupId,
    },
    /// Stages records and tombstones of a pull; a later one replaces an earlier one of its key.
    Stage(Vec<Record>),
    /// Throws away what is staged.
    ClearStage,
    /// Logs, as one entry of this cause, each base record above a count that the stage lacks or holds with another
    /// value. Staged records above `until` are later writes and explain the difference.
    LogLost {
        /// The cause of the entries.
        cause: Cause,
        /// Base records at or below it are not looked at.
        above: SyncCount,
        /// If set: a staged record above it is a later write.
        until: Option<SyncCount>,
        /// When.
        at: Timestamp,
    },
    /// Makes what is staged visible: values replace base records, tombstones remove them, and the stage is emptied.
    MergeStage {
        /// The base is emptied first.
        snapshot: bool,
    },
    /// Empties the base.
    ClearBase,
    /// Appends to the conflict log.
    Log(LogEntry),
    /// Removes an entry of the conflict log.
    DropLog(u64),
    /// Parks a unit.
    Park(Parked),
    /// Removes a parked unit.
    Unpark(u64),
    /// Gives the device's file a new id.
    Device(DeviceId),
}

/// Which records look different afterwards. Observers are told once the plan is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Records whose visible value may have changed.
    pub keys: Vec<RecordKey>,
    /// So many that it is better to read anew.
    pub many: bool,
}

/// What a host makes durable, all or nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In order.
    pub writes: Vec<Write>,
    /// What observers are told afterwards.
    pub changes: Changes,
}
