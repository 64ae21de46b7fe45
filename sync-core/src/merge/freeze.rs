//! Which pending groups are pushed next, and how their patches travel.

use std::collections::BTreeSet;

use crate::delta;
use crate::merge::replica::{
    GroupHeader, GroupState, InFlight, PendingPatch, Replica, ReplicaError, ReplicaState, SentPatch, Write,
};
use crate::model::{
    Added, Compare, Delta, DeviceId, Group, Limits, PatchOp, Record, RecordKey, RecordPatch, SyncCount, Value,
    limits::PUSH_PATCHES_MAX,
};
use crate::policy::{Policies, Policy};

/// A push, ready to be sent, and what must be durable before it is.
pub struct Frozen {
    /// The device under whose name it is sent.
    pub device: DeviceId,
    /// Its number.
    pub sequence: u64,
    /// The groups.
    pub groups: Vec<Group>,
    /// Marks them as sent.
    pub writes: Vec<Write>,
}

/// Freezes what can be pushed now, or takes what is in flight and unanswered again, byte for byte. Nothing, if there is
/// nothing to push, or if the last push waits for the pull that shows its effects.
///
/// At most one group for each key: a group that lies over another one waits until that one has settled, because its
/// base is not known before. A group with an open question is held, and so is what lies over it; nothing else is.
///
/// # Errors
/// If the replica cannot be read.
pub fn freeze(
    replica: &dyn Replica,
    state: &mut ReplicaState,
    device: DeviceId,
    limits: &Limits,
) -> Result<Option<Frozen>, ReplicaError> {
    match &state.in_flight {
        Some(in_flight) if in_flight.answered => return Ok(None),
        Some(_) => return thaw_and_send(replica, state).map(Some),
        None => {}
    }
    let policies = replica.policies()?;
    let mut taken = BTreeSet::new();
    let (mut groups, mut writes) = (Vec::new(), Vec::new());
    let (mut count, mut bytes) = (0, 0);
    // Half of what a request may hold: keys and values are counted here, and their wrapping is not.
    let bytes_max = limits.request_bytes_max / 2;
    let patches_max = limits.request_patches_max.min(PUSH_PATCHES_MAX);
    for header in replica.groups()? {
        let patches = replica.group_patches(header.id)?;
        let waits = patches.iter().any(|(key, patch)| taken.contains(key) || patch.question.is_some());
        taken.extend(patches.iter().map(|(key, _)| key.clone()));
        if waits {
            continue;
        }
        let earlier = header.earlier();
        let additions = || earlier.iter().flat_map(|step| &step.added);
        count += header.patches + additions().count();
        bytes += header.bytes + additions().map(Added::encoded_len).sum::<usize>();
        let full = count > patches_max || bytes > bytes_max;
        if full && !groups.is_empty() {
            break;
        }
        let mut sent = Vec::with_capacity(patches.len());
        for (key, mut patch) in patches {
            let base = replica.base(&key)?;
            let frozen = freeze_patch(&policies, &key, &patch, base.as_ref());
            sent.push(wire(&key, &patch, &frozen));
            patch.sent = Some(frozen);
            writes.push(Write::Patch { group: header.id, key, patch: Box::new(patch) });
        }
        groups.push(Group { change_id: header.change_id, patches: sent, earlier });
        writes.push(Write::Group(GroupHeader { state: GroupState::Sent, ..header }));
    }
    if groups.is_empty() {
        return Ok(None);
    }
    state.sequence += 1;
    state.in_flight = Some(InFlight {
        device,
        sequence: state.sequence,
        answered: false,
        ack: None,
        confirmed: false,
        renew: false,
        damaged: false,
    });
    writes.push(Write::State(Box::new(state.clone())));
    Ok(Some(Frozen { device, sequence: state.sequence, groups, writes }))
}

/// Sends the push in flight again. After a restore its bases are renewed; changes and change ids stay, so that the
/// server recognises it.
fn thaw_and_send(replica: &dyn Replica, state: &mut ReplicaState) -> Result<Frozen, ReplicaError> {
    let missing = || ReplicaError::Corrupt("a push in flight has no patches".into());
    let in_flight = state.in_flight.as_mut().ok_or_else(missing)?;
    let renew = std::mem::take(&mut in_flight.renew);
    let (device, sequence) = (in_flight.device, in_flight.sequence);
    let (mut groups, mut writes) = (Vec::new(), Vec::new());
    for header in replica.groups()?.into_iter().filter(|group| group.state.is_in_flight()) {
        let mut sent = Vec::new();
        for (key, mut patch) in replica.group_patches(header.id)? {
            let mut frozen = patch.sent.take().ok_or_else(missing)?;
            if renew {
                let base = replica.base(&key)?;
                frozen.base = renewed_base(&patch, base.as_ref());
            }
            sent.push(wire(&key, &patch, &frozen));
            if renew {
                patch.sent = Some(frozen);
                writes.push(Write::Patch { group: header.id, key, patch: Box::new(patch) });
            }
        }
        groups.push(Group { change_id: header.change_id, patches: sent, earlier: header.earlier() });
    }
    if renew {
        writes.push(Write::State(Box::new(state.clone())));
    }
    Ok(Frozen { device, sequence, groups, writes })
}

/// The base of a frozen patch on another line: if what it was made from is not there any more, it was never seen there.
fn renewed_base(patch: &PendingPatch, base: Option<&Record>) -> SyncCount {
    if base.and_then(Record::value) == patch.under.as_ref() {
        base.map_or(SyncCount::ZERO, Record::base)
    } else {
        SyncCount::NEVER
    }
}

fn freeze_patch(policies: &Policies, key: &RecordKey, patch: &PendingPatch, base: Option<&Record>) -> SentPatch {
    let policy = policies.of_record(key.as_str(), patch.under.as_ref(), patch.value.as_ref());
    let compare = match policy {
        _ if patch.claimed => Compare::Base,
        Policy::LastSyncWins => Compare::Nothing,
        Policy::LatestEditWins => Compare::EditTime,
        _ => Compare::Base,
    };
    let mergeable = policy.is_mergeable() && !patch.whole;
    let op = match &patch.value {
        None => PatchOp::Remove(compare),
        Some(value) => match diff_if(mergeable, policies, policy, patch.under.as_ref(), value) {
            Some(delta) => PatchOp::Merge(delta),
            None => PatchOp::Replace(value.clone(), compare),
        },
    };
    SentPatch { op, base: base.map_or(SyncCount::ZERO, Record::base) }
}

fn diff_if(
    mergeable: bool,
    policies: &Policies,
    policy: Policy,
    under: Option<&Value>,
    value: &Value,
) -> Option<Delta> {
    if mergeable { delta::diff(policies, policy, under, value) } else { None }
}

fn wire(key: &RecordKey, patch: &PendingPatch, frozen: &SentPatch) -> RecordPatch {
    RecordPatch { key: key.clone(), op: frozen.op.clone(), base: frozen.base, device_time: patch.device_time }
}
