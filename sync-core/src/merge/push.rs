//! The server's decision about a push.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use crate::delta::{self, DoesNotFit};
use crate::model::{
    Added, ChangeId, CommitTag, Compare, DeviceId, Digest, EpochId, EpochReason, Group, Limits, Lineage, Overwritten,
    PatchOp, Position, Random, Record, RecordKey, RecordPatch, RecordState, RemovalReason, SyncCount, Timestamp, Value,
    limits,
};

/// What a server knows about a dataset as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Head {
    /// The epoch line with count and tags. Empty before the first commit.
    pub lineage: Lineage,
    /// Tombstones at or below it are purged.
    pub floor: SyncCount,
    /// The digest of the live records.
    pub digest: Digest,
    /// How many live records there are.
    pub records: u64,
    /// Keys and values of the live records, in canonical bytes.
    pub bytes: u64,
    /// When it last changed, by the server's clock. Its day decides when a new epoch is opened.
    pub modified_at: Timestamp,
    /// The device that last changed it.
    pub modified_by: Option<DeviceId>,
}

impl Head {
    /// Whether the dataset exists: it was written, and not deleted since.
    pub fn exists(&self) -> bool {
        let ended = |why| matches!(why, EpochReason::Deleted | EpochReason::Erased);
        self.lineage.entries.last().is_some_and(|newest| !(ended(newest.why) && newest.start == self.lineage.count))
    }
}

/// One push that a server remembers.
#[derive(Clone, Debug, PartialEq)]
pub struct RememberedPush {
    /// The device's number of it.
    pub sequence: u64,
    /// The hash of its changes; see [`hash_groups`].
    pub hash: [u8; 32],
    /// The answer that was given.
    pub answer: Answer,
}

/// What a server reads before deciding a push: the head and the touched records, at one moment.
///
/// Waiting pushes to one dataset are planned in turn on one view: [`plan_push`] changes it as if the push were written.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The dataset as a whole.
    pub head: Head,
    /// The touched records; a key that is missing here was read and not found.
    pub records: BTreeMap<RecordKey, Record>,
    /// The pushes remembered of the devices that push, oldest first.
    pub pushes: BTreeMap<DeviceId, Vec<RememberedPush>>,
    /// Which of the pushed change ids have been applied, and at which count.
    pub changes: BTreeMap<ChangeId, SyncCount>,
}

/// What became of a push, before it is put into words of the protocol.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Answer {
    /// The position after the push; nothing if the dataset was never written.
    pub ack: Option<Position>,
    /// One outcome a group, in order.
    pub outcomes: Vec<Outcome>,
}

/// What became of one group.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Outcome {
    /// Written. What it replaced unseen is listed.
    Applied {
        /// Whether it was written over changes that the device had not seen.
        merged: bool,
        /// What was there.
        overwritten: Vec<Overwritten>,
    },
    /// Written otherwise than asked, because a hook rewrote it.
    Rewritten {
        /// The keys whose patches the hook replaced.
        keys: Vec<RecordKey>,
        /// What it replaced unseen, as in [`Outcome::Applied`].
        overwritten: Vec<Overwritten>,
    },
    /// Not written: these records have moved on.
    Conflict {
        /// The keys that stood against it.
        keys: Vec<RecordKey>,
    },
    /// Not written, and not worth sending again as it is.
    Refused(Refusal),
}

/// Why a group is refused.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
pub enum Refusal {
    /// A limit of this server.
    #[error("{0}")]
    Limit(String),
    /// It contradicts itself.
    #[error("{0}")]
    Invalid(String),
    /// A hook of this server.
    #[error("{message}")]
    Hook {
        /// A stable code, of the hook's choice.
        code: String,
        /// For the user.
        message: String,
    },
}

/// What a hook says about a group before it is decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Review {
    /// It goes on as it is.
    Accept,
    /// It is not to be written.
    Refuse {
        /// A stable code.
        code: String,
        /// For the user.
        message: String,
    },
    /// These patches are to be decided instead of those with the same keys.
    Rewrite(Vec<RecordPatch>),
}

/// A push as it is submitted for a decision.
#[derive(Clone, Copy, Debug)]
pub struct Submission<'a> {
    /// The device that made the changes, or stands for who did.
    pub device: DeviceId,
    /// The device's number of the push, by which a repeat is recognised. Nothing: it is not remembered as a push; a
    /// group that was applied is still recognised by its change id.
    pub sequence: Option<u64>,
    /// What is pushed.
    pub groups: &'a [Group],
    /// One for each group; none at all if nobody reviews.
    pub reviews: &'a [Review],
}

/// What is to be made durable, all or nothing, if the dataset is still at `expected`.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// The position that was planned on; nothing: the dataset had never been written.
    pub expected: Option<Position>,
    /// The head afterwards.
    pub head: Head,
    /// Records and tombstones to write.
    pub records: Vec<Record>,
    /// Pushes to remember; of each device only the latest [`limits::PUSHES_REMEMBERED_MAX`] are kept.
    pub pushes: Vec<(DeviceId, RememberedPush)>,
    /// Change ids to remember; of a dataset only the latest [`limits::CHANGES_REMEMBERED_MAX`] are kept.
    pub changes: Vec<(ChangeId, SyncCount)>,
    /// Removes all records first: the dataset is deleted.
    pub clear: bool,
    /// Removes tombstones at or below the head's floor.
    pub purge: bool,
}

impl Commit {
    /// A commit that changes nothing yet.
    pub fn on(head: &Head) -> Self {
        Self {
            expected: head.lineage.position(),
            head: head.clone(),
            records: Vec::new(),
            pushes: Vec::new(),
            changes: Vec::new(),
            clear: false,
            purge: false,
        }
    }
}

/// What a server does about a push.
#[derive(Clone, Debug, PartialEq)]
pub enum PushPlan {
    /// Give the answer; the view has been changed, and what is new in it is to be committed.
    Accept(Answer),
    /// Give the answer that was given before.
    Repeat(Answer),
    /// Another push had this id: the device's file was copied or put back.
    Copied,
}

/// The parts of a commit that planned pushes add up to.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// Keys that were written.
    pub written: BTreeSet<RecordKey>,
    /// Pushes to remember.
    pub pushes: Vec<(DeviceId, RememberedPush)>,
    /// Change ids to remember.
    pub changes: Vec<(ChangeId, SyncCount)>,
}

impl Planned {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.pushes.is_empty() && self.changes.is_empty()
    }

    /// The commit of all that was planned, given where the view began and what it became.
    pub fn into_commit(self, expected: Option<Position>, view: &View) -> Commit {
        let records = self.written.iter().filter_map(|key| view.records.get(key)).cloned().collect();
        Commit {
            expected,
            head: view.head.clone(),
            records,
            pushes: self.pushes,
            changes: self.changes,
            clear: false,
            purge: false,
        }
    }
}

/// What the server's host adds to a decision.
pub struct PushContext<'a> {
    /// The server's clock.
    pub now: Timestamp,
    /// For epochs and tags.
    pub random: &'a mut dyn Random,
    /// The server's limits.
    pub limits: &'a Limits,
}

/// The hash by which a repeated push is recognised: over changes and change ids, but not over bases, because a device
/// may renew these after a restore.
pub fn hash_groups(groups: &[Group]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for group in groups {
        hasher.update(group.change_id.as_bytes());
        let changes: Vec<_> = group.patches.iter().map(|patch| (&patch.key, &patch.op, patch.device_time)).collect();
        hasher.update(rmp_serde::to_vec(&changes).expect("patches have no unencodable parts"));
    }
    hasher.finalize().into()
}

/// Decides a push. The caller has made sure that the device's cursor is on the line.
///
/// Groups are decided in order, each on what the ones before it wrote; rejected ones do not hold up the others. All of
/// them share one sync count. Even a push of which nothing is written is remembered, so that its answer stays the same.
pub fn plan_push(
    view: &mut View,
    planned: &mut Planned,
    submission: &Submission<'_>,
    context: &mut PushContext<'_>,
) -> PushPlan {
    let Some(sequence) = submission.sequence else {
        return PushPlan::Accept(plan_groups(view, planned, submission, context));
    };
    let device = submission.device;
    // Of what was asked, not of what a hook made of it: a repeat asks the same.
    let hash = hash_groups(submission.groups);
    let remembered = view.pushes.entry(device).or_default();
    if let Some(earlier) = remembered.iter().find(|push| push.sequence == sequence) {
        return if earlier.hash == hash { PushPlan::Repeat(earlier.answer.clone()) } else { PushPlan::Copied };
    }
    if remembered.last().is_some_and(|newest| sequence <= newest.sequence) {
        return PushPlan::Copied;
    }
    let answer = plan_groups(view, planned, submission, context);
    let push = RememberedPush { sequence, hash, answer: answer.clone() };
    let remembered = view.pushes.entry(device).or_default();
    remembered.push(push.clone());
    if remembered.len() > limits::PUSHES_REMEMBERED_MAX {
        remembered.remove(0);
    }
    planned.pushes.push((device, push));
    PushPlan::Accept(answer)
}

fn plan_groups(
    view: &mut View,
    planned: &mut Planned,
    submission: &Submission<'_>,
    context: &mut PushContext<'_>,
) -> Answer {
    let Submission { device, sequence: _, groups, reviews } = *submission;
    let next = view.head.lineage.count.next();
    let mut outcomes = Vec::with_capacity(groups.len());
    let mut written = BTreeSet::new();
    for (at, group) in groups.iter().enumerate() {
        if view.changes.contains_key(&group.change_id) {
            outcomes.push(Outcome::Applied { merged: false, overwritten: Vec::new() });
            continue;
        }
        let review = reviews.get(at).unwrap_or(&Review::Accept);
        let left = without_applied(view, group).map_err(Outcome::Refused);
        match left.and_then(|left| decide_reviewed(view, device, next, &left, review, context)) {
            Ok((records, outcome)) => {
                for record in records {
                    written.insert(record.key.clone());
                    replace_record(view, record);
                }
                for id in group.earlier.iter().map(|step| step.change_id).chain([group.change_id]) {
                    if view.changes.insert(id, next).is_none() {
                        planned.changes.push((id, next));
                    }
                }
                outcomes.push(outcome);
            }
            Err(rejected) => outcomes.push(rejected),
        }
    }
    if !written.is_empty() {
        advance(&mut view.head, device, context);
    }
    planned.written.extend(written);
    Answer { ack: view.head.lineage.position(), outcomes }
}

/// The records that a group writes, and its outcome; an error is the outcome of a group that is not written.
fn decide_reviewed(
    view: &View,
    device: DeviceId,
    count: SyncCount,
    group: &Group,
    review: &Review,
    context: &PushContext<'_>,
) -> Result<(Vec<Record>, Outcome), Outcome> {
    match review {
        Review::Accept => {
            let Decided { records, merged, overwritten } = decide_group(view, device, count, group, context)?;
            Ok((records, Outcome::Applied { merged, overwritten }))
        }
        Review::Refuse { code, message } => {
            Err(Outcome::Refused(Refusal::Hook { code: code.clone(), message: message.clone() }))
        }
        Review::Rewrite(patches) => {
            let rewritten = rewrite(group, patches);
            let Decided { records, merged: _, overwritten } = decide_group(view, device, count, &rewritten, context)?;
            Ok((
                records,
                Outcome::Rewritten { keys: patches.iter().map(|patch| patch.key.clone()).collect(), overwritten },
            ))
        }
    }
}

/// The group with other patches for some of its keys. What is for another key is left out: a group keeps to what it
/// touches.
fn rewrite(group: &Group, patches: &[RecordPatch]) -> Group {
    let other = |patch: &RecordPatch| patches.iter().find(|other| other.key == patch.key).unwrap_or(patch).clone();
    Group { patches: group.patches.iter().map(other).collect(), ..group.clone() }
}

/// The group without what has been added already, by copies of its device's file or before its group was parked: writes
/// that it has grown by and that are known to be applied, and not deleted since.
fn without_applied<'a>(view: &View, group: &'a Group) -> Result<Cow<'a, Group>, Refusal> {
    let mut group = Cow::Borrowed(group);
    let is_there = |count: &SyncCount| !view.head.lineage.has_deleted(*count);
    let applied = group.earlier.iter().filter(|step| view.changes.get(&step.change_id).is_some_and(is_there));
    let applied: Vec<_> = applied.flat_map(|step| &step.added).cloned().collect();
    for Added { key, path, by } in applied {
        let Some(at) = group.patches.iter().position(|patch| patch.key == key) else { continue };
        if let PatchOp::Merge(delta) = &mut group.to_mut().patches[at].op {
            let error = || Refusal::Invalid(format!("what was added to `{key}` before is beyond 64 bits"));
            delta::add_less(delta, &path, by).map_err(|_overflow| error())?;
        }
    }
    Ok(group)
}

/// Counts a commit in the head, and opens an epoch where one is due.
fn advance(head: &mut Head, device: DeviceId, context: &mut PushContext<'_>) {
    if head.lineage.entries.is_empty() {
        head.lineage.open(EpochId::random(context.random), EpochReason::Created);
    } else if head.modified_at.day() != context.now.day() {
        head.lineage.open(EpochId::random(context.random), EpochReason::Day);
        head.lineage.prune(head.floor);
    }
    head.lineage.advance(CommitTag::random(context.random));
    head.modified_at = context.now;
    head.modified_by = Some(device);
}

/// Opens an epoch outside of a push: for a fence, or because a device proved that the server had been further.
pub fn plan_epoch(head: &Head, why: EpochReason, context: &mut PushContext<'_>) -> Commit {
    let mut commit = Commit::on(head);
    commit.head.lineage.open(EpochId::random(context.random), why);
    commit
}

/// Deletes the dataset: its records go, its line and counts stay, so that every device learns of it.
pub fn plan_delete(head: &Head, device: Option<DeviceId>, context: &mut PushContext<'_>) -> Commit {
    let mut commit = Commit::on(head);
    let after = &mut commit.head;
    after.lineage.advance(CommitTag::random(context.random));
    after.lineage.open(EpochId::random(context.random), EpochReason::Deleted);
    after.floor = after.lineage.count;
    after.digest = Digest::default();
    after.records = 0;
    after.bytes = 0;
    after.modified_at = context.now;
    after.modified_by = device;
    commit.clear = true;
    commit
}

/// Purges tombstones up to a floor.
pub fn plan_purge(head: &Head, floor: SyncCount) -> Commit {
    let mut commit = Commit::on(head);
    commit.head.floor = commit.head.floor.max(floor);
    commit.head.lineage.prune(commit.head.floor);
    commit.purge = true;
    commit
}

/// Puts a record into the view and keeps digest and totals true.
fn replace_record(view: &mut View, record: Record) {
    let head = &mut view.head;
    let size = |record: &Record| record.value().map(|_| record.bytes() as u64);
    if let Some(old) = view.records.get(&record.key) {
        head.digest = head.digest.minus(old);
        if let Some(bytes) = size(old) {
            head.records = head.records.saturating_sub(1);
            head.bytes = head.bytes.saturating_sub(bytes);
        }
    }
    head.digest = head.digest.plus(&record);
    if let Some(bytes) = size(&record) {
        head.records += 1;
        head.bytes += bytes;
    }
    view.records.insert(record.key.clone(), record);
}

struct Decided {
    records: Vec<Record>,
    merged: bool,
    overwritten: Vec<Overwritten>,
}

fn decide_group(
    view: &View,
    device: DeviceId,
    count: SyncCount,
    group: &Group,
    context: &PushContext<'_>,
) -> Result<Decided, Outcome> {
    let refused = |refusal| Err(Outcome::Refused(refusal));
    let limits = context.limits;
    if group.patches.len() > limits.group_patches_max {
        return refused(Refusal::Limit(format!("a group has at most {} patches", limits.group_patches_max)));
    }
    let mut decided = Decided { records: Vec::new(), merged: false, overwritten: Vec::new() };
    let mut keys = BTreeSet::new();
    let mut against = Vec::new();
    let mut bytes = 0;
    let (mut added, mut removed) = (0_u64, 0_u64);
    for patch in &group.patches {
        if !keys.insert(&patch.key) {
            return refused(Refusal::Invalid("a group has at most one patch for each record".to_owned()));
        }
        let current = view.records.get(&patch.key);
        match decide_patch(current, patch, context.now) {
            Ok(Some(write)) => {
                let length = write.value.as_ref().map_or(0, Value::encoded_len);
                if length > limits.value_bytes_max {
                    return refused(Refusal::Limit(format!(
                        "the value of `{}` has {length} bytes, and at most {} are allowed",
                        patch.key, limits.value_bytes_max
                    )));
                }
                if write.value.as_ref().is_some_and(|value| value.check_depth().is_err()) {
                    return refused(Refusal::Limit(format!(
                        "the value of `{}` is nested more than {} deep",
                        patch.key,
                        Value::DEPTH_MAX
                    )));
                }
                bytes += patch.key.as_str().len() + length;
                let was_live = current.is_some_and(|record| record.value().is_some());
                added += u64::from(write.value.is_some() && !was_live);
                removed += u64::from(write.value.is_none() && was_live);
                decided.merged |= write.unseen;
                let overwritten = write.overwritten.into_iter();
                let key = || patch.key.clone();
                decided.overwritten.extend(overwritten.map(|(path, value)| Overwritten { key: key(), path, value }));
                decided.records.push(Record {
                    key: patch.key.clone(),
                    state: write.value.map_or(RecordState::Removed(RemovalReason::Removed), RecordState::Value),
                    sync_count: count,
                    modified_by: Some(device),
                    modified_at: context.now,
                    device_time: write.device_time,
                });
            }
            Ok(None) => {}
            Err(DoesNotFit::Overflow) => {
                return refused(Refusal::Limit(format!("the counter in `{}` would overflow 64 bits", patch.key)));
            }
            Err(DoesNotFit::Type) => against.push(patch.key.clone()),
        }
    }
    if !against.is_empty() {
        return Err(Outcome::Conflict { keys: against });
    }
    if bytes > limits.group_bytes_max {
        return refused(Refusal::Limit(format!(
            "the group has {bytes} bytes of keys and values, and at most {} are allowed",
            limits.group_bytes_max
        )));
    }
    if added > removed && view.head.records + added - removed > limits.records_max {
        return refused(Refusal::Limit(format!("a dataset has at most {} records", limits.records_max)));
    }
    Ok(decided)
}

struct PatchWrite {
    value: Option<Value>,
    device_time: Timestamp,
    unseen: bool,
    overwritten: Vec<(Vec<String>, Option<Value>)>,
}

/// What one patch writes over the current record. Nothing: there is nothing to remove. An error is a conflict, or an
/// overflow.
fn decide_patch(
    current: Option<&Record>,
    patch: &RecordPatch,
    now: Timestamp,
) -> Result<Option<PatchWrite>, DoesNotFit> {
    let value = current.and_then(Record::value);
    let seen = patch.base == current.map_or(SyncCount::ZERO, Record::base);
    let edited = patch.device_time.min(now);
    let stored = current.map_or_else(Timestamp::default, |record| record.device_time);
    let (compare, new) = match &patch.op {
        PatchOp::Merge(delta) => {
            let merged = delta::apply(delta, value)?;
            let overwritten = match value {
                Some(value) if !seen => {
                    delta::overwritten(delta, value).into_iter().map(|(path, value)| (path, Some(value))).collect()
                }
                // A removal that was not seen: for what merges it is nothing, and loses.
                None if !seen => vec![(Vec::new(), None)],
                _ => Vec::new(),
            };
            return Ok(Some(PatchWrite {
                value: Some(merged),
                device_time: edited.max(stored),
                unseen: !seen,
                overwritten,
            }));
        }
        PatchOp::Remove(_) if value.is_none() => return Ok(None),
        PatchOp::Remove(compare) => (*compare, None),
        PatchOp::Replace(new, compare) => (*compare, Some(new.clone())),
    };
    let device_time = match compare {
        Compare::Base if !seen => return Err(DoesNotFit::Type),
        // A patch on the current base wins whatever its clock says, and the stored time never goes down.
        Compare::Base | Compare::Nothing => edited.max(stored),
        Compare::EditTime if seen => edited.max(stored),
        Compare::EditTime if current.is_none() || edited >= stored => edited,
        Compare::EditTime => return Err(DoesNotFit::Type),
    };
    let overwritten = if !seen && value != new.as_ref() { vec![(Vec::new(), value.cloned())] } else { Vec::new() };
    Ok(Some(PatchWrite { value: new, device_time, unseen: !seen, overwritten }))
}
