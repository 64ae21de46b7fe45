//! The app's writes: puts and removals, answers to questions, and bringing back what was parked or lost.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::conflict::{Cause, Loss, ParkedPatch, Question, Resolution, Side};
use crate::delta;
use crate::merge::replica::{
    GroupHeader, GroupId, GroupState, PendingPatch, Plan, Replica, ReplicaError, ReplicaState, Write,
};
use crate::merge::stack::Stack;
use crate::model::limits::GROUP_STEPS_MAX;
use crate::model::{Added, ChangeId, DeviceId, Digest, Limits, RecordKey, Value};
use crate::policy::{Policies, Policy};

pub use crate::merge::stack::Context;

/// Why the app's call was refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// More than a limit allows: write less.
    #[error("{0}")]
    Limit(String),
    /// The call contradicts itself: correct it.
    #[error("{0}")]
    Invalid(String),
    /// There is no such question, parked unit or log entry.
    #[error("{0}")]
    NotFound(String),
    /// The record has moved on since the app looked: look again.
    #[error("the record has changed since the question was shown; look at it again")]
    Stale,
    /// The replica could not be read.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

/// Puts (`Some`) and removes (`None`) records as one group: pushed whole or not at all.
///
/// Writes that change nothing are left out. Open groups that share a record with this one join it, unless the limits
/// of a group would be passed: then they are sealed, and this one lies over them.
///
/// # Errors
/// [`WriteError::Limit`] for a value or group that no server would take, [`WriteError::Invalid`] for a key written
/// twice.
pub fn plan_write(
    replica: &dyn Replica,
    limits: &Limits,
    writes: Vec<(RecordKey, Option<Value>)>,
    context: &mut Context<'_>,
) -> Result<Plan, WriteError> {
    let mut stack = Stack::over_base(replica)?;
    write_group(&mut stack, limits, writes, context)?;
    let (writes, changes) = stack.into_writes();
    Ok(Plan { writes, changes })
}

fn write_group(
    stack: &mut Stack<'_>,
    limits: &Limits,
    writes: Vec<(RecordKey, Option<Value>)>,
    context: &mut Context<'_>,
) -> Result<(), WriteError> {
    check_limits(&writes, limits)?;
    let mut effective = Vec::with_capacity(writes.len());
    for (key, mut value) in writes {
        let before = stack.visible(&key)?;
        if let Some(value) = &mut value {
            let policy = stack.policies.of_record(key.as_str(), before.as_ref(), Some(value));
            delta::normalise(&stack.policies, policy, value);
        }
        if value != before {
            effective.push((key, value));
        }
    }
    if effective.is_empty() {
        return Ok(());
    }
    let mut open = BTreeSet::new();
    let mut top = GroupId(0);
    for (key, _) in &effective {
        if let Some(id) = stack.layers(key)?.patches.last_key_value().map(|(id, _)| *id) {
            top = top.max(id);
            if stack.header(id)?.state == GroupState::Open {
                open.insert(id);
            }
        }
    }
    if !fits_together(stack, &open, &effective, limits)? {
        for id in std::mem::take(&mut open) {
            stack.change_header(id)?.state = GroupState::Sealed;
        }
    }
    let target = match open.last() {
        Some(id) if *id == top => *id,
        _ => stack.push_group(|id| GroupHeader::new(id, GroupState::Open, ChangeId::random(context.random))),
    };
    for id in open.into_iter().filter(|id| *id != target) {
        stack.join(id, target)?;
    }
    let mut added = Vec::new();
    for (key, value) in effective {
        let policies = Rc::clone(&stack.policies);
        let layers = stack.layers(&key)?;
        let before = layers.patches.get(&target).map(|patch| additions(&policies, &key, patch)).unwrap_or_default();
        let mut patch = layers.patches.get(&target).cloned().unwrap_or_else(|| PendingPatch {
            under: layers.below(target),
            value: None,
            device_time: context.now,
            whole: false,
            claimed: false,
            question: None,
            sent: None,
        });
        patch.value = value;
        patch.device_time = context.now;
        added.extend(grown(&key, before, additions(&policies, &key, &patch)));
        stack.set_patch(target, &key, patch)?;
    }
    stack.redraw(target, added, context.random)?;
    Ok(())
}

/// What a pending patch adds to the counters of its record.
fn additions(policies: &Policies, key: &RecordKey, patch: &PendingPatch) -> BTreeMap<Vec<String>, i64> {
    let Some(value) = &patch.value else { return BTreeMap::new() };
    let policy = policies.of_record(key.as_str(), patch.under.as_ref(), Some(value));
    // A map that another device makes too is merged field by field, as if both had been empty.
    let empty = Value::Map(BTreeMap::new());
    let under = if policy == Policy::Fields { patch.under.as_ref().or(Some(&empty)) } else { patch.under.as_ref() };
    delta::diff(policies, policy, under, value).map(|delta| delta::additions(&delta)).unwrap_or_default()
}

/// What is added now, and was not before.
fn grown(
    key: &RecordKey,
    mut before: BTreeMap<Vec<String>, i64>,
    after: BTreeMap<Vec<String>, i64>,
) -> impl Iterator<Item = Added> {
    let mut grown = Vec::new();
    for (path, after) in after {
        let before = before.remove(&path).unwrap_or(0);
        // Between two 64-bit integers; a difference beyond that is not sent as one either.
        grown.push((path, after.wrapping_sub(before)));
    }
    grown.extend(before.into_iter().map(|(path, before)| (path, before.wrapping_neg())));
    grown.into_iter().filter(|(_, by)| *by != 0).map(|(path, by)| Added { key: key.clone(), path, by })
}

fn check_limits(writes: &[(RecordKey, Option<Value>)], limits: &Limits) -> Result<(), WriteError> {
    if writes.len() > limits.group_patches_max {
        return Err(WriteError::Limit(format!(
            "a transaction has at most {} records; this one has {}",
            limits.group_patches_max,
            writes.len()
        )));
    }
    let mut bytes = 0;
    let mut keys = BTreeSet::new();
    for (key, value) in writes {
        if !keys.insert(key) {
            return Err(WriteError::Invalid(format!("`{key}` is written twice in one transaction")));
        }
        let length = value.as_ref().map_or(0, Value::encoded_len);
        if length > limits.value_bytes_max {
            return Err(WriteError::Limit(format!(
                "the value of `{key}` has {length} bytes, and at most {} are allowed",
                limits.value_bytes_max
            )));
        }
        if value.as_ref().is_some_and(|value| value.check_depth().is_err()) {
            return Err(WriteError::Limit(format!(
                "the value of `{key}` is nested more than {} deep",
                Value::DEPTH_MAX
            )));
        }
        bytes += key.as_str().len() + length;
    }
    if bytes > limits.group_bytes_max {
        return Err(WriteError::Limit(format!(
            "a transaction has at most {} bytes of keys and values; this one has {bytes}",
            limits.group_bytes_max
        )));
    }
    Ok(())
}

/// Whether these open groups and the new writes make one group within the limits.
fn fits_together(
    stack: &mut Stack<'_>,
    open: &BTreeSet<GroupId>,
    writes: &[(RecordKey, Option<Value>)],
    limits: &Limits,
) -> Result<bool, ReplicaError> {
    let (mut patches, mut bytes, mut additions) = (0, 0, 0);
    for id in open {
        let header = stack.header(*id)?;
        patches += header.patches;
        bytes += header.bytes;
        additions += header.additions();
    }
    for (key, value) in writes {
        let size = |value: Option<&Value>| key.as_str().len() + value.map_or(0, Value::encoded_len);
        bytes += size(value.as_ref());
        let layers = stack.layers(key)?;
        match open.iter().find_map(|id| layers.patches.get(id)) {
            Some(patch) => bytes = bytes.saturating_sub(size(patch.value.as_ref())),
            None => patches += 1,
        }
    }
    Ok(patches <= limits.group_patches_max && bytes <= limits.group_bytes_max && additions < GROUP_STEPS_MAX)
}

/// The open questions of a dataset.
///
/// # Errors
/// If the replica cannot be read.
pub fn questions(replica: &dyn Replica) -> Result<Vec<Question>, ReplicaError> {
    let mut questions = Vec::new();
    for key in replica.pending_keys(true)? {
        for (_, patch) in replica.patches(&key)? {
            if let Some(question) = patch.question {
                questions.push(Question {
                    key: key.clone(),
                    base: question.base,
                    local: patch.value,
                    remote: patch.under,
                    remote_count: question.remote_count,
                });
            }
        }
    }
    Ok(questions)
}

/// Answers a question under the policy `ask`, as it was shown to the app.
///
/// # Errors
/// [`WriteError::NotFound`] if there is no question about the record, [`WriteError::Stale`] if the record has moved on,
/// on the server or on this device: the question stands anew.
pub fn plan_resolve(
    replica: &dyn Replica,
    question: &Question,
    resolution: Resolution,
    limits: &Limits,
    context: &mut Context<'_>,
) -> Result<Plan, WriteError> {
    let mut stack = Stack::over_base(replica)?;
    let key = &question.key;
    let layers = stack.layers(key)?;
    let asked = layers.patches.iter().find(|(_, patch)| patch.question.is_some());
    let Some((id, mut patch)) = asked.map(|(id, patch)| (*id, patch.clone())) else {
        return Err(WriteError::NotFound(format!("there is no open question about `{key}`")));
    };
    let open = patch.question.as_ref().map(|open| open.remote_count);
    if open != Some(question.remote_count) || patch.value != question.local {
        return Err(WriteError::Stale);
    }
    let cause = Cause::Resolved;
    let remote =
        Loss { key: key.clone(), path: Vec::new(), side: Side::Remote, under: None, value: patch.under.clone() };
    let local = Loss { key: key.clone(), path: Vec::new(), side: Side::Local, under: None, value: patch.value.clone() };
    match resolution {
        Resolution::KeepRemote => {
            let gone = stack.lose(id, context.now, cause)?;
            stack.restack(gone, context.now)?;
        }
        Resolution::KeepLocal => {
            patch.question = None;
            stack.log(context.now, cause, vec![remote]);
            stack.set_patch(id, key, patch)?;
            stack.redraw(id, Vec::new(), context.random)?;
        }
        Resolution::Value(value) => {
            check_limits(&[(key.clone(), value.clone())], limits)?;
            patch.question = None;
            patch.value = value;
            patch.device_time = context.now;
            stack.log(context.now, cause, vec![remote, local]);
            stack.set_patch(id, key, patch)?;
            stack.redraw(id, Vec::new(), context.random)?;
            stack.restack([key.clone()], context.now)?;
        }
    }
    let (writes, changes) = stack.into_writes();
    Ok(Plan { writes, changes })
}

/// Brings a parked unit back as pending changes, made from what they were made from: what has changed since is decided
/// by policy, as for any pending change. A record that this device has written since keeps what was written, and the
/// parked value goes to the conflict log; counters and sets bring back their difference in any case.
///
/// # Errors
/// [`WriteError::NotFound`] if there is no such unit; limits as for [`plan_write`].
pub fn plan_retry(
    replica: &dyn Replica,
    device: DeviceId,
    id: u64,
    limits: &Limits,
    context: &mut Context<'_>,
) -> Result<Plan, WriteError> {
    let Some(parked) = replica.parked(id)? else {
        return Err(WriteError::NotFound(format!("nothing is parked under {id}")));
    };
    let mut stack = Stack::over_base(replica)?;
    // A unit may hold several groups that lay over each other: of each record the first base and the last value.
    let mut patches: BTreeMap<RecordKey, ParkedPatch> = BTreeMap::new();
    for patch in parked.patches {
        match patches.get_mut(&patch.key) {
            Some(lower) => lay_over(&stack.policies, lower, patch),
            None => drop(patches.insert(patch.key.clone(), patch)),
        }
    }
    let mut superseded = Vec::new();
    let mut back = Vec::new();
    for patch in patches.into_values() {
        let ParkedPatch { key, under, value, .. } = &patch;
        let written = written_since(&mut stack, &patch, device)?;
        if written && !is_sum(&stack, key, under.as_ref(), value.as_ref()) {
            let ParkedPatch { key, under, value, .. } = patch;
            superseded.push(Loss { key, path: Vec::new(), side: Side::Local, under, value });
        } else {
            back.push((patch.key.clone(), patch));
        }
    }
    let keys: Vec<_> = back.iter().map(|(key, _)| key.clone()).collect();
    // Two groups must not bring the same steps, or the second would be taken for a copy of the first.
    let mut steps = parked.steps;
    for key in &keys {
        // What was written since is closed: this lies over it.
        let top = stack.layers(key)?.patches.last_key_value().map(|(id, _)| *id);
        if let Some(id) = top
            && stack.header(id)?.state == GroupState::Open
        {
            stack.change_header(id)?.state = GroupState::Sealed;
        }
    }
    let (mut group, mut count, mut bytes) = (None, 0, 0);
    for (key, ParkedPatch { under, value, device_time, .. }) in back {
        let size = key.as_str().len() + value.as_ref().map_or(0, Value::encoded_len);
        let full = count >= limits.group_patches_max || bytes + size > limits.group_bytes_max;
        let id = match group {
            Some(id) if !full => id,
            _ => {
                (count, bytes) = (0, 0);
                let steps = std::mem::take(&mut steps);
                let change_id = ChangeId::random(context.random);
                stack.push_group(|id| GroupHeader { steps, ..GroupHeader::new(id, GroupState::Sealed, change_id) })
            }
        };
        group = Some(id);
        count += 1;
        bytes += size;
        let patch =
            PendingPatch { under, value, device_time, whole: false, claimed: false, question: None, sent: None };
        stack.set_patch(id, &key, patch)?;
    }
    stack.restack(keys, context.now)?;
    stack.log(context.now, Cause::Superseded, superseded);
    let (mut writes, changes) = stack.into_writes();
    writes.push(Write::Unpark(id));
    Ok(Plan { writes, changes })
}

/// Lays a later patch of a unit over an earlier one of the same record. A group may have lain between them that stayed,
/// because nothing stands on it: what that one changed is not the unit's to bring back.
fn lay_over(policies: &Policies, lower: &mut ParkedPatch, upper: ParkedPatch) {
    let ParkedPatch { key, under, value, device_time } = upper;
    let own = value.as_ref().filter(|_| under != lower.value).and_then(|value| {
        let policy = policies.of_record(key.as_str(), under.as_ref(), Some(value));
        let delta = delta::diff(policies, policy, under.as_ref(), value)?;
        delta::apply(&delta, lower.value.as_ref()).ok()
    });
    lower.value = own.or(value);
    lower.device_time = device_time;
}

/// Whether a change is a sum of its own: a counter's or a set's, which a later write does not replace.
fn is_sum(stack: &Stack<'_>, key: &RecordKey, under: Option<&Value>, value: Option<&Value>) -> bool {
    let Some(value) = value else { return false };
    let policy = stack.policies.of_record(key.as_str(), under, Some(value));
    matches!(policy, Policy::Counter | Policy::Set) && delta::diff(&stack.policies, policy, under, value).is_some()
}

/// Whether this device has written the record since the change was made: it is pending, or the server's record is this
/// device's and not the one that the change was made from.
fn written_since(stack: &mut Stack<'_>, patch: &ParkedPatch, device: DeviceId) -> Result<bool, ReplicaError> {
    let layers = stack.layers(&patch.key)?;
    let pending = layers.patches.values().any(|pending| pending.device_time >= patch.device_time);
    let own = layers.base.as_ref().filter(|record| record.modified_by == Some(device));
    Ok(pending || own.is_some_and(|record| record.value() != patch.under.as_ref()))
}

/// Forgets a parked unit.
///
/// # Errors
/// [`WriteError::NotFound`] if there is no such unit.
pub fn plan_discard(replica: &dyn Replica, id: u64) -> Result<Plan, WriteError> {
    match replica.parked(id)? {
        Some(_) => Ok(Plan { writes: vec![Write::Unpark(id)], ..Plan::default() }),
        None => Err(WriteError::NotFound(format!("nothing is parked under {id}"))),
    }
}

/// Writes the values of an entry of the conflict log again, as one transaction where the limits allow. The entry stays.
///
/// # Errors
/// [`WriteError::NotFound`] if there is no such entry; limits as for [`plan_write`].
pub fn plan_restore(
    replica: &dyn Replica,
    id: u64,
    limits: &Limits,
    context: &mut Context<'_>,
) -> Result<Plan, WriteError> {
    let Some(entry) = replica.log_entry(id)? else {
        return Err(WriteError::NotFound(format!("the conflict log has no entry {id}")));
    };
    let mut stack = Stack::over_base(replica)?;
    let mut again = Again::default();
    for loss in entry.losses {
        again.bring_back(&mut stack, loss)?;
    }
    again.write(&mut stack, limits, context)?;
    let (writes, changes) = stack.into_writes();
    Ok(Plan { writes, changes })
}

/// Values that are written again, on what the app sees now.
#[derive(Default)]
struct Again {
    values: BTreeMap<RecordKey, Option<Value>>,
}

impl Again {
    fn bring_back(&mut self, stack: &mut Stack<'_>, loss: Loss) -> Result<(), ReplicaError> {
        let Loss { key, path, side, under, value } = loss;
        let current = match self.values.get(&key) {
            Some(value) => value.clone(),
            None => stack.visible(&key)?,
        };
        let restored = match (&current, value) {
            (Some(Value::Map(fields)), Some(value)) if !path.is_empty() => Some(set_at(fields.clone(), &path, value)),
            (_, Some(value)) if path.is_empty() => {
                let policy = stack.policies.of_record(key.as_str(), under.as_ref(), Some(&value));
                // A remote value is brought back as it was; a local change as the difference that it made.
                let change = (side == Side::Local && policy.is_mergeable())
                    .then(|| delta::diff(&stack.policies, policy, under.as_ref(), &value))
                    .flatten();
                let merged = change.and_then(|change| delta::apply(&change, current.as_ref()).ok());
                Some(merged.unwrap_or(value))
            }
            (_, Some(_)) => current.clone(),
            (_, None) => None,
        };
        self.values.insert(key, restored);
        Ok(())
    }

    fn write(self, stack: &mut Stack<'_>, limits: &Limits, context: &mut Context<'_>) -> Result<(), WriteError> {
        let (mut group, mut bytes) = (Vec::new(), 0);
        for (key, value) in self.values {
            let size = key.as_str().len() + value.as_ref().map_or(0, Value::encoded_len);
            if group.len() >= limits.group_patches_max || bytes + size > limits.group_bytes_max {
                write_group(stack, limits, std::mem::take(&mut group), context)?;
                bytes = 0;
            }
            bytes += size;
            group.push((key, value));
        }
        write_group(stack, limits, group, context)
    }
}

fn set_at(mut fields: BTreeMap<String, Value>, path: &[String], value: Value) -> Value {
    if let [name, rest @ ..] = path {
        let value = match (rest, fields.remove(name)) {
            ([], _) => value,
            (rest, Some(Value::Map(inner))) => set_at(inner, rest, value),
            (rest, _) => set_at(BTreeMap::new(), rest, value),
        };
        fields.insert(name.clone(), value);
    }
    Value::Map(fields)
}

/// Declares that a dataset is never synced, or that it is again. What is pending stays, and is pushed then.
///
/// # Errors
/// If the replica cannot be read.
pub fn plan_local_only(replica: &dyn Replica, local_only: bool) -> Result<Plan, ReplicaError> {
    let state = ReplicaState { local_only, ..replica.state()? };
    Ok(Plan { writes: vec![Write::State(Box::new(state))], ..Plan::default() })
}

/// Deletes the dataset on this device, and on the server with the next sync, provided that nobody has changed it there
/// since this device last pulled. Pending changes go with it.
///
/// # Errors
/// If the replica cannot be read.
pub fn plan_delete(replica: &dyn Replica) -> Result<Plan, ReplicaError> {
    let state = replica.state()?;
    let mut writes: Vec<_> = replica.groups()?.into_iter().map(|group| Write::DropGroup(group.id)).collect();
    let state = ReplicaState {
        deleting: state.cursor.is_some(),
        digest: Digest::default(),
        in_flight: None,
        pull: None,
        ..state
    };
    writes.extend([Write::ClearStage, Write::ClearBase, Write::State(Box::new(state))]);
    let mut plan = Plan { writes, ..Plan::default() };
    plan.changes.many = true;
    Ok(plan)
}
