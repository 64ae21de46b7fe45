//! What a pull does to a replica: pages are staged, and become visible together.

use std::collections::BTreeSet;

use crate::conflict::{Cause, Loss, Parked, Side};
use crate::delta;
use crate::merge::replica::{
    Changes, GroupHeader, GroupId, GroupState, PendingPatch, Plan, Pull, Replica, ReplicaError, ReplicaState,
    SentPatch, Verdict, Write,
};
use crate::merge::stack::{Context, Stack};
use crate::model::{
    Digest, Divergence, Lineage, NextPage, Overwritten, PatchOp, Position, Record, RecordKey, SyncCount, Timestamp,
};

/// One page of a pull, as the server sent it.
#[derive(Debug)]
pub struct Arrived {
    /// The records and tombstones.
    pub records: Vec<Record>,
    /// Where it was read.
    pub position: Option<Position>,
    /// Where the next page begins; nothing: this was the last one.
    pub next: Option<NextPage>,
    /// The server's line up to the position.
    pub lineage: Lineage,
    /// Epochs that ended at or below it may be missing from the line.
    pub floor: SyncCount,
    /// The digest of the dataset at the position.
    pub digest: Option<Digest>,
    /// Where the push was written of which the same answer told: before the page was read.
    pub acked: Option<Position>,
}

/// What came of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulled {
    /// What was pulled is now visible.
    pub visible: bool,
    /// The digests differed: a snapshot is pulled to repair it.
    pub diverged: bool,
    /// A snapshot does not add up to the server's digest: what the server has of the dataset is damaged.
    pub damaged: bool,
    /// Groups that were parked.
    pub parked: usize,
    /// Groups of this device that conflicted and were decided again.
    pub conflicts: usize,
    /// One of them did although its records are what they were when it was pushed.
    pub unexplained: bool,
    /// Groups that were accepted and are now part of the base.
    pub settled: usize,
}

/// Stages a page. With the last one, what is staged becomes the base, the push that it contains settles, and pending
/// patches are carried over to the new base, all in one plan.
///
/// # Errors
/// If the replica cannot be read.
pub fn plan_page(
    replica: &dyn Replica,
    mut state: ReplicaState,
    snapshot: bool,
    arrived: Arrived,
    server_time: Timestamp,
    context: &mut Context<'_>,
) -> Result<(Plan, Pulled), ReplicaError> {
    let mut pull = state.pull.take().unwrap_or_default();
    pull.snapshot |= snapshot;
    if pull.next.is_none() {
        pull.digest = if pull.snapshot { Digest::default() } else { state.digest };
        pull.staged = 0;
    }
    pull.shows_push = shows_push(&state, &pull, &arrived);
    for record in &arrived.records {
        let before = replaced(replica, &state, &pull, record)?;
        pull.digest = before.iter().fold(pull.digest, |digest, before| digest.minus(before)).plus(record);
    }
    let mut plan = Plan::default();
    if pull.next.is_none() {
        plan.writes.push(Write::ClearStage);
    }
    pull.staged += arrived.records.len() as u64;
    if let Some(next) = arrived.next {
        pull.next = Some(next);
        plan.writes.push(Write::Stage(arrived.records));
        state.pull = Some(pull);
        plan.writes.push(Write::State(Box::new(state)));
        return Ok((plan, Pulled::default()));
    }
    let differs = arrived.digest.is_some_and(|digest| digest != pull.digest);
    if differs && !pull.again {
        // Never ignored: all records are pulled again, and what they do not explain goes to the conflict log.
        plan.writes.push(Write::ClearStage);
        let lost = pull.lost.or_else(|| (!pull.snapshot).then_some((Cause::Digest, SyncCount::ZERO)));
        state.pull = Some(Pull { snapshot: true, lost, again: true, ..Pull::default() });
        plan.writes.push(Write::State(Box::new(state)));
        return Ok((plan, Pulled { diverged: true, ..Pulled::default() }));
    }
    let ack = state.in_flight.as_ref().and_then(|in_flight| in_flight.ack);
    if let Some(ended) = ack.and_then(|ack| arrived.lineage.ended(ack)) {
        // A first push has no cursor that could be off the line; but what lies over it stood on what is deleted.
        state.pull = Some(pull);
        return Ok((plan_reset(replica, state, ended, context)?, Pulled::default()));
    }
    // There is nothing else: it is taken, and said to be damaged.
    let mut pulled = Pulled { visible: true, damaged: differs, ..Pulled::default() };
    let keys = touched(replica, &pull, &arrived.records)?;
    let mut stack = Stack::over_pull(replica, pull.snapshot, &arrived.records, server_time)?;
    let dirty = settle(&mut stack, replica, &mut state, &arrived, &pull, &mut pulled, context)?;
    stack.restack(keys.into_iter().chain(dirty), context.now)?;
    let many = pull.staged > arrived.records.len() as u64 || pull.snapshot;
    let page_keys: Vec<_> = arrived.records.iter().map(|record| record.key.clone()).collect();
    plan.writes.push(Write::Stage(arrived.records));
    let lost = match pull.lost {
        // What was written since may stand on what is damaged, so it explains nothing.
        _ if differs => Some((pull.lost.map_or(Cause::Digest, |(cause, _)| cause), SyncCount::ZERO, None)),
        Some((Cause::Digest, above)) => Some((Cause::Digest, above, state.cursor.map(|cursor| cursor.count))),
        Some((cause, above)) => Some((cause, above, None)),
        None => None,
    };
    if let Some((cause, above, until)) = lost {
        plan.writes.push(Write::LogLost { cause, above, until, at: context.now });
    }
    plan.writes.push(Write::MergeStage { snapshot: pull.snapshot });
    let (writes, changes) = stack.into_writes();
    plan.writes.extend(writes);
    let keys: BTreeSet<_> = changes.keys.into_iter().chain(page_keys).collect();
    plan.changes =
        if many { Changes { keys: Vec::new(), many } } else { Changes { keys: keys.into_iter().collect(), many } };
    state.cursor = arrived.position;
    state.lineage = arrived.lineage;
    if matches!(pull.lost, Some((Cause::Digest, _))) {
        state.repaired = arrived.position;
    } else if pulled.unexplained && state.repaired != arrived.position {
        // The server may hold something else than here, though nobody has written it. Or what stood against the push came
        // and went before this device looked.
        state.pull = Some(Pull { snapshot: true, lost: Some((Cause::Digest, SyncCount::ZERO)), ..Pull::default() });
    }
    // The server's, so that damage of which it was told once does not ask for a snapshot after each change.
    state.digest = arrived.digest.unwrap_or(pull.digest);
    plan.writes.push(Write::State(Box::new(state)));
    Ok((plan, pulled))
}

/// Whether the push in flight is known to be on the line that the pages so far are of. A line that has forgotten its tag
/// may have given its count to another commit; but then it may go on from an earlier page's line, which knew.
fn shows_push(state: &ReplicaState, pull: &Pull, arrived: &Arrived) -> bool {
    let knows = |position: Position| arrived.lineage.tags.get(&position.count) == Some(&position.tag);
    let goes_on = || pull.shows_push && pull.next.as_ref().is_some_and(|next| knows(next.at));
    let ack = state.in_flight.as_ref().and_then(|in_flight| in_flight.ack);
    ack.is_some_and(|ack| arrived.acked == Some(ack) || knows(ack) || goes_on())
}

/// What a record of a page replaces in the base to be. Asked of the replica only where there may be something: most
/// records of a first pull replace nothing.
fn replaced(
    replica: &dyn Replica,
    state: &ReplicaState,
    pull: &Pull,
    record: &Record,
) -> Result<Option<Record>, ReplicaError> {
    // In a first pull and in a snapshot, `since` is where the first page was read: what has not been written since then
    // is on one page only.
    let on_one_page = pull.next.as_ref().is_none_or(|next| record.sync_count <= next.since);
    if !on_one_page && let Some(staged) = replica.staged(&record.key)? {
        return Ok(Some(staged));
    }
    if pull.snapshot || state.digest == Digest::default() { Ok(None) } else { replica.base(&record.key) }
}

/// Records with pending patches whose base the pull may change.
fn touched(replica: &dyn Replica, pull: &Pull, page: &[Record]) -> Result<Vec<RecordKey>, ReplicaError> {
    if pull.snapshot {
        return replica.pending_keys(true);
    }
    let mut keys = replica.pending_keys(false)?;
    if replica.last_group()?.0 > 0 {
        for record in page {
            if !replica.patches(&record.key)?.is_empty() {
                keys.push(record.key.clone());
            }
        }
    }
    Ok(keys)
}

/// Settles the push in flight, if it was answered and this pull contains its effects: accepted groups leave, conflicted
/// ones are decided again in their place, refused ones are parked. If the line does not contain it, or cannot tell, it is
/// sent again. Returns the records whose layers changed.
fn settle(
    stack: &mut Stack<'_>,
    replica: &dyn Replica,
    state: &mut ReplicaState,
    arrived: &Arrived,
    pull: &Pull,
    pulled: &mut Pulled,
    context: &mut Context<'_>,
) -> Result<BTreeSet<RecordKey>, ReplicaError> {
    let mut dirty = BTreeSet::new();
    let Some(in_flight) = &mut state.in_flight else { return Ok(dirty) };
    in_flight.damaged |= pulled.damaged;
    let reached = arrived.position.map_or(SyncCount::ZERO, |position| position.count);
    let groups: Vec<_> = replica.groups()?.into_iter().filter(|group| group.state.is_in_flight()).collect();
    if !in_flight.answered {
        in_flight.renew |= pull.lost.is_some();
        return Ok(dirty);
    }
    let on_line = |ack| arrived.lineage.contains(ack) || arrived.lineage.has_pruned(ack, arrived.floor);
    let shown = in_flight.ack.filter(|ack| on_line(*ack) && ack.count <= reached);
    let is_sure = pull.shows_push || in_flight.confirmed;
    if in_flight.ack.is_some() && (shown.is_none() || !is_sure) {
        in_flight.answered = false;
        in_flight.ack = shown;
        in_flight.renew = true;
        for GroupHeader { id, .. } in groups {
            stack.change_header(id)?.state = GroupState::Sent;
        }
        return Ok(dirty);
    }
    let damaged = in_flight.damaged;
    state.in_flight = None;
    let mut refused = Vec::new();
    for GroupHeader { id, state, .. } in groups {
        match state {
            GroupState::Acked(Verdict::Accepted(overwritten)) => {
                pulled.settled += 1;
                dirty.extend(leave(stack, id, &[], overwritten, damaged, context.now)?);
            }
            GroupState::Acked(Verdict::Rewritten { keys, overwritten }) => {
                pulled.settled += 1;
                dirty.extend(leave(stack, id, &keys, overwritten, damaged, context.now)?);
            }
            GroupState::Acked(Verdict::Conflict) => {
                pulled.conflicts += 1;
                pulled.unexplained |= is_unmoved(stack, id)?;
                thaw(stack, id, &mut dirty)?;
                stack.redraw(id, Vec::new(), context.random)?;
            }
            GroupState::Acked(Verdict::Refused { code, message }) => {
                thaw(stack, id, &mut dirty)?;
                refused.push((id, code, message));
            }
            GroupState::Open | GroupState::Sealed | GroupState::Sent => {
                return Err(ReplicaError::Corrupt(format!("group {} was pushed and has no verdict", id.0)));
            }
        }
    }
    for (id, code, message) in refused {
        // It may have left already, with a refused group below it.
        if stack.has(id) {
            pulled.parked += 1;
            dirty.extend(stack.park(id, context.now, &code, &message)?);
        }
    }
    Ok(dirty)
}

/// A group that was written leaves. What it replaced unseen goes to the log, and so does what a hook wrote otherwise, and
/// what damaged pages do not show: nobody else may have it.
fn leave(
    stack: &mut Stack<'_>,
    id: GroupId,
    rewritten: &[RecordKey],
    overwritten: Vec<Overwritten>,
    damaged: bool,
    now: Timestamp,
) -> Result<Vec<RecordKey>, ReplicaError> {
    let patches = stack.drop_group(id)?;
    let loss = |(key, patch): &(RecordKey, PendingPatch)| Loss {
        key: key.clone(),
        path: Vec::new(),
        side: Side::Local,
        under: patch.under.clone(),
        value: patch.value.clone(),
    };
    if damaged {
        let mut unseen = Vec::new();
        for own in &patches {
            let shown = stack.layers(&own.0)?.base.as_ref().and_then(Record::value);
            if own.1.value.as_ref() != shown {
                unseen.push(loss(own));
            }
        }
        stack.log(now, Cause::Digest, unseen);
    }
    let own = patches.iter().filter(|(key, _)| rewritten.contains(key)).map(loss);
    stack.log(now, Cause::Rewritten, own.collect());
    let under = |key: &RecordKey| patches.iter().find(|(it, _)| it == key).and_then(|(_, patch)| patch.under.as_ref());
    let mut losses = Vec::new();
    for Overwritten { key, path, value } in overwritten {
        let under = under(&key);
        if under.and_then(|under| delta::value_at(under, &path)) != value.as_ref() {
            // Of a removal it is kept what was removed, so that one sees what it was about.
            let under = under.filter(|_| value.is_none()).cloned();
            losses.push(Loss { key, path, side: Side::Remote, under, value });
        }
    }
    stack.log(now, Cause::Overwritten, losses);
    for (key, patch) in &patches {
        let Some(SentPatch { op: PatchOp::Merge(delta), .. }) = &patch.sent else { continue };
        let base = stack.layers(key)?.base.as_ref().and_then(Record::value).cloned();
        let outdone = delta::outdone(delta, base.as_ref()).into_iter().map(|(path, value)| Loss {
            key: key.clone(),
            path,
            side: Side::Local,
            under: None,
            value: Some(value),
        });
        let losses: Vec<_> = outdone.collect();
        let policy = stack.policies.of_record(key.as_str(), patch.under.as_ref(), patch.value.as_ref());
        stack.log(now, Cause::Policy(policy), losses);
    }
    Ok(patches.into_iter().map(|(key, _)| key).collect())
}

/// Whether the records of a group that was pushed are what they were then, and the pull has brought none of them.
fn is_unmoved(stack: &mut Stack<'_>, id: GroupId) -> Result<bool, ReplicaError> {
    for key in stack.keys_of(id)? {
        if stack.pulled(&key)?.is_some() {
            return Ok(false);
        }
        let layers = stack.layers(&key)?;
        let base = layers.base.as_ref().map_or(SyncCount::ZERO, Record::base);
        let sent = layers.patches.get(&id).and_then(|patch| patch.sent.as_ref());
        if sent.is_none_or(|sent| sent.base != base) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes a rejected group an unsent one again, in its place.
fn thaw(stack: &mut Stack<'_>, id: GroupId, dirty: &mut BTreeSet<RecordKey>) -> Result<(), ReplicaError> {
    stack.change_header(id)?.state = GroupState::Sealed;
    for key in stack.keys_of(id)? {
        if let Some(mut patch) = stack.layers(&key)?.patches.get(&id).cloned() {
            patch.sent = None;
            stack.set_patch(id, &key, patch)?;
        }
        dirty.insert(key);
    }
    Ok(())
}

/// The cursor is off the server's line. What was deleted goes, with pending changes parked; for everything else the
/// pull begins again with a snapshot, under which pending changes are kept.
///
/// # Errors
/// If the replica cannot be read.
pub fn plan_reset(
    replica: &dyn Replica,
    mut state: ReplicaState,
    divergence: Divergence,
    context: &mut Context<'_>,
) -> Result<Plan, ReplicaError> {
    let mut plan = Plan::default();
    plan.writes.push(Write::ClearStage);
    let lost = match divergence {
        Divergence::Deleted | Divergence::Erased => {
            plan.writes.extend(park_all(replica, context)?);
            plan.writes.push(Write::ClearBase);
            plan.changes.many = true;
            let sequence = state.sequence;
            state = ReplicaState { sequence, local_only: state.local_only, ..ReplicaState::default() };
            None
        }
        Divergence::Restored { fork } => Some((Cause::Restored, fork)),
        Divergence::RolledBack { fork } => Some((Cause::RolledBack, fork)),
        Divergence::Foreign => Some((Cause::Foreign, SyncCount::ZERO)),
        Divergence::Pruned => None,
    };
    state.deleting = false;
    state.pull = Some(Pull { snapshot: true, lost, ..Pull::default() });
    plan.writes.push(Write::State(Box::new(state)));
    Ok(plan)
}

/// Parks every pending group that was not accepted before the dataset was deleted.
fn park_all(replica: &dyn Replica, context: &Context<'_>) -> Result<Vec<Write>, ReplicaError> {
    let mut writes = Vec::new();
    for group in replica.groups()? {
        if !matches!(group.state, GroupState::Acked(Verdict::Accepted(_) | Verdict::Rewritten { .. })) {
            let patches = replica.group_patches(group.id)?.into_iter().map(|(key, patch)| patch.parked(key));
            writes.push(Write::Park(Parked {
                at: context.now,
                code: "ResourceNotFound".to_owned(),
                message: "the dataset was deleted on the server".to_owned(),
                patches: patches.collect(),
                // Sent without a cursor, it may have been written after the deletion all the same.
                steps: group.steps,
            }));
        }
        writes.push(Write::DropGroup(group.id));
    }
    Ok(writes)
}

/// The pull begins again, with all records if `snapshot`.
pub fn plan_restart(mut state: ReplicaState, snapshot: bool) -> Plan {
    let before = state.pull.take().unwrap_or_default();
    let snapshot = snapshot || before.snapshot;
    state.pull = Some(Pull { snapshot, lost: before.lost, again: before.again, ..Pull::default() });
    Plan { writes: vec![Write::ClearStage, Write::State(Box::new(state))], ..Plan::default() }
}
