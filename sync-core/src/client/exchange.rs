//! One dataset's part of a round trip: what a device asks for, and what it makes of the answer.

use crate::conflict::Cause;
use crate::merge::freeze::freeze;
use crate::merge::pull::{Arrived, Pulled, plan_page, plan_reset, plan_restart};
use crate::merge::replica::{GroupHeader, GroupState, Plan, Pull, Replica, ReplicaError, ReplicaState, Verdict, Write};
use crate::merge::stack::Context;
use crate::model::{DatasetName, DeviceId, Divergence, Limits, Lineage, Position, SyncCount, Timestamp};
use crate::protocol::{DatasetRequest, DatasetResponse, ErrorBody, GroupAnswer, GroupStatus, Page, Push, Reset, code};

/// What an answer did to a replica.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Absorbed {
    /// The answer was late or repeated, and changed nothing.
    pub late: bool,
    /// Groups that the server accepted.
    pub accepted: usize,
    /// Groups that it refused.
    pub refused: usize,
    /// Groups that it rejected because a record had moved on.
    pub conflicts: usize,
    /// Patches in the groups that it accepted.
    pub pushed: usize,
    /// Records and tombstones that came.
    pub pulled: usize,
    /// Live records of the dataset on the server, if known.
    pub total: Option<u64>,
    /// Why the pull begins again with a snapshot.
    pub reset: Option<Divergence>,
    /// The digests differed, and a snapshot is pulled to repair it.
    pub diverged: bool,
    /// A snapshot was taken that does not add up to the server's digest: records of the dataset are damaged on the
    /// server, or gone. What this device held otherwise is in its conflict log.
    pub damaged: bool,
    /// Groups that were parked.
    pub parked: usize,
    /// The device's file was copied or put back, and has a new device id.
    pub copied: bool,
    /// The dataset was not deleted, because somebody has changed it since this device pulled.
    pub deletion_refused: bool,
    /// The dataset cannot be synced.
    pub error: Option<ErrorBody>,
}

impl Absorbed {
    /// Both halves of one answer.
    #[must_use]
    pub fn and(self, rest: Self) -> Self {
        Self {
            late: self.late || rest.late,
            accepted: self.accepted + rest.accepted,
            refused: self.refused + rest.refused,
            conflicts: self.conflicts + rest.conflicts,
            pushed: self.pushed + rest.pushed,
            pulled: self.pulled + rest.pulled,
            total: rest.total.or(self.total),
            reset: rest.reset.or(self.reset),
            diverged: self.diverged || rest.diverged,
            damaged: self.damaged || rest.damaged,
            parked: self.parked + rest.parked,
            copied: self.copied || rest.copied,
            deletion_refused: self.deletion_refused || rest.deletion_refused,
            error: self.error.or(rest.error),
        }
    }
}

/// What a device asks for a dataset; nothing if there is nothing to push and nothing known to pull. `first` asks in any
/// case.
///
/// The plan must be durable before the request is sent.
///
/// # Errors
/// If the replica cannot be read.
pub fn plan_request(
    replica: &dyn Replica,
    name: &DatasetName,
    device: DeviceId,
    limits: &Limits,
    first: bool,
) -> Result<(Plan, Option<DatasetRequest>), ReplicaError> {
    let mut state = replica.state()?;
    if state.local_only {
        return Ok((Plan::default(), None));
    }
    let mut request = position_of(name, &state);
    if state.deleting {
        request.delete = true;
        return Ok((Plan::default(), Some(request)));
    }
    if state.pull.is_some() {
        return Ok((Plan::default(), Some(request)));
    }
    let frozen = freeze(replica, &mut state, device, limits)?;
    let awaits_pull = state.in_flight.as_ref().is_some_and(|in_flight| in_flight.answered);
    let Some(frozen) = frozen else {
        return Ok((Plan::default(), (first || awaits_pull).then_some(request)));
    };
    request.push = Some(Push { device: frozen.device, sequence: frozen.sequence, groups: frozen.groups });
    Ok((Plan { writes: frozen.writes, ..Plan::default() }, Some(request)))
}

/// The part of a request that says where the device stands. An answer counts only while the device still stands there.
fn position_of(name: &DatasetName, state: &ReplicaState) -> DatasetRequest {
    let pull = state.pull.as_ref();
    let snapshot = pull.is_some_and(|pull| pull.snapshot);
    DatasetRequest {
        owner: None,
        name: name.clone(),
        // A snapshot needs no cursor, and may be pulled just because the cursor is off the line.
        cursor: if snapshot { None } else { state.cursor },
        snapshot,
        page: pull.and_then(|pull| pull.next.clone()),
        push: None,
        delete: false,
        pull_limit: None,
    }
}

/// Whether an answer to this request still counts: the replica is where it was when it asked.
fn is_late(request: &DatasetRequest, state: &ReplicaState) -> bool {
    let here = position_of(&request.name, state);
    here.cursor != request.cursor
        || here.snapshot != request.snapshot
        || here.page != request.page
        || request.delete != state.deleting
}

/// Takes the answer to the push: its groups stay as layers until a pull shows their effects. Comes before
/// [`plan_response`], in the same transaction. A late or repeated answer changes nothing.
///
/// # Errors
/// If the replica cannot be read.
pub fn plan_answer(
    replica: &dyn Replica,
    request: &DatasetRequest,
    response: Option<&DatasetResponse>,
    context: &mut Context<'_>,
) -> Result<(Plan, Absorbed), ReplicaError> {
    let mut absorbed = Absorbed::default();
    let mut plan = Plan::default();
    let mut state = replica.state()?;
    let answer = response.and_then(|response| response.push.as_ref());
    let (Some(push), Some(answer)) = (&request.push, answer) else { return Ok((plan, absorbed)) };
    let Some(in_flight) = &mut state.in_flight else { return Ok((plan, absorbed)) };
    let waits = !in_flight.answered && (in_flight.device, in_flight.sequence) == (push.device, push.sequence);
    if is_late(request, &replica.state()?) || !waits || answer.sequence != push.sequence {
        return Ok((plan, absorbed));
    }
    if answer.copied {
        let device = DeviceId::random(context.random);
        in_flight.device = device;
        in_flight.sequence = 1;
        state.sequence = 1;
        absorbed.copied = true;
        plan.writes.extend([Write::Device(device), Write::State(Box::new(state))]);
        return Ok((plan, absorbed));
    }
    let groups: Vec<_> = replica.groups()?.into_iter().filter(|group| group.state.is_in_flight()).collect();
    if groups.len() != answer.groups.len() {
        absorbed.error = Some(ErrorBody {
            code: code::INTERNAL_ERROR.to_owned(),
            message: "the server's answer does not match what was pushed".to_owned(),
        });
        return Ok((plan, absorbed));
    }
    in_flight.answered = true;
    in_flight.confirmed = in_flight.ack.is_some() && in_flight.ack == answer.ack;
    in_flight.ack = answer.ack;
    plan.writes.push(Write::State(Box::new(state)));
    for (group, answer) in groups.into_iter().zip(&answer.groups) {
        let verdict = verdict(answer);
        match &verdict {
            Verdict::Accepted(_) | Verdict::Rewritten { .. } => {
                absorbed.accepted += 1;
                absorbed.pushed += group.patches;
            }
            Verdict::Conflict => absorbed.conflicts += 1,
            Verdict::Refused { .. } => absorbed.refused += 1,
        }
        plan.writes.push(Write::Group(GroupHeader { state: GroupState::Acked(verdict), ..group }));
    }
    Ok((plan, absorbed))
}

fn verdict(answer: &GroupAnswer) -> Verdict {
    let overwritten = || answer.overwritten.clone();
    match answer.status {
        GroupStatus::Applied | GroupStatus::Merged => Verdict::Accepted(overwritten()),
        GroupStatus::Rewritten => Verdict::Rewritten { keys: answer.rewritten.clone(), overwritten: overwritten() },
        GroupStatus::Conflict => Verdict::Conflict,
        GroupStatus::Refused | GroupStatus::Unknown => Verdict::Refused {
            code: answer.code.clone().unwrap_or_else(|| code::INVALID_PARAMETER.to_owned()),
            message: answer.message.clone().unwrap_or_else(|| "the server refused it and did not say why".to_owned()),
        },
    }
}

/// Takes the rest of an answer: a page, a restart, a reset or an error. A dataset that the answer leaves out is
/// unchanged. A late or repeated answer changes nothing.
///
/// # Errors
/// If the replica cannot be read.
pub fn plan_response(
    replica: &dyn Replica,
    request: &DatasetRequest,
    response: Option<DatasetResponse>,
    server_time: Timestamp,
    context: &mut Context<'_>,
) -> Result<(Plan, Absorbed), ReplicaError> {
    let state = replica.state()?;
    let mut absorbed = Absorbed { late: is_late(request, &state), ..Absorbed::default() };
    if absorbed.late {
        return Ok((Plan::default(), absorbed));
    }
    let response = response.unwrap_or_else(|| DatasetResponse::empty(None, request.name.clone()));
    if let Some(error) = response.error {
        absorbed.error = Some(error);
    } else if let Some(deleted) = response.deleted.filter(|_| request.delete) {
        absorbed.deletion_refused = !deleted;
        return Ok((plan_deletion(state, deleted), absorbed));
    } else if let Some(reset) = response.reset {
        let divergence = divergence(&state, &reset);
        absorbed.reset = Some(divergence);
        absorbed.deletion_refused = state.deleting && divergence != Divergence::Deleted;
        return Ok((plan_reset(replica, state, divergence, context)?, absorbed));
    } else if request.delete {
        // Nothing else answers a deletion.
    } else if let Some(restart) = response.restart {
        return Ok((plan_restart(state, restart.snapshot), absorbed));
    } else if let Some(page) = response.page {
        absorbed.pulled = page.records.len();
        absorbed.total = Some(page.total);
        let snapshot = request.snapshot || request.cursor.is_none();
        let acked = response.push.and_then(|push| push.ack);
        let arrived = arrive(&state, snapshot, page, acked);
        // Without a cursor in the request, the server could not say so.
        if let Some(ended) = state.cursor.filter(|_| snapshot).and_then(|cursor| arrived.lineage.ended(cursor)) {
            absorbed.reset = Some(ended);
            return Ok((plan_reset(replica, state, ended, context)?, absorbed));
        }
        if snapshot && leaves_cursor(&state, &arrived) {
            return Ok((plan_restart(ReplicaState { pull: None, ..state }, false), absorbed));
        }
        let (plan, Pulled { diverged, damaged, parked, .. }) =
            plan_page(replica, state, snapshot, arrived, server_time, context)?;
        absorbed.diverged = diverged;
        absorbed.damaged = damaged;
        absorbed.parked = parked;
        return Ok((plan, absorbed));
    } else if awaits_nothing_new(&state) {
        // The push wrote nothing and nobody else did: it settles where the device already is.
        let unchanged = Arrived {
            records: Vec::new(),
            position: state.cursor,
            next: None,
            lineage: state.lineage.clone(),
            floor: SyncCount::ZERO,
            digest: None,
            acked: response.push.and_then(|push| push.ack),
        };
        let (plan, pulled) = plan_page(replica, state, false, unchanged, server_time, context)?;
        absorbed.parked = pulled.parked;
        return Ok((plan, absorbed));
    }
    Ok((Plan::default(), absorbed))
}

/// Whether the answer that nothing is new says something: a push waits for it, or a pull that was to begin again.
fn awaits_nothing_new(state: &ReplicaState) -> bool {
    let waits = || state.in_flight.as_ref().is_some_and(|in_flight| in_flight.answered);
    state.pull.as_ref().map_or_else(waits, |pull| !pull.snapshot && pull.next.is_none())
}

/// Whether a snapshot is of a line without the cursor, and no reset has told of all that may be lost: it is the answer to
/// a request for an earlier one, which looked the same, or the server was put back, perhaps once more. It can tell which
/// if it is asked with the cursor.
fn leaves_cursor(state: &ReplicaState, arrived: &Arrived) -> bool {
    let off_line = |cursor: &Position| !arrived.lineage.contains(*cursor);
    let Some(cursor) = state.cursor.filter(off_line) else { return false };
    let fork = match arrived.lineage.diverge(&state.lineage, cursor, arrived.floor) {
        Divergence::Pruned => return false,
        Divergence::Restored { fork } | Divergence::RolledBack { fork } => fork,
        Divergence::Deleted | Divergence::Erased | Divergence::Foreign => SyncCount::ZERO,
    };
    let told = state.pull.as_ref().and_then(|pull| pull.lost).filter(|(cause, _)| *cause != Cause::Digest);
    told.is_none_or(|(_, above)| fork < above)
}

/// A page in the words of the planner. What the page leaves out of the line, the device has.
fn arrive(state: &ReplicaState, snapshot: bool, page: Page, acked: Option<Position>) -> Arrived {
    let mut lineage = if snapshot { Lineage::default() } else { state.lineage.clone() };
    if let Some(line) = &page.line {
        lineage.entries.clone_from(line);
    }
    lineage.count = page.position.map_or(SyncCount::ZERO, |position| position.count);
    let newest = page.position.map(|position| (position.count, position.tag));
    for (count, tag) in page.tags.iter().copied().chain(newest) {
        lineage.remember(count, tag);
    }
    let Page { records, position, next, floor, digest, .. } = page;
    Arrived { records, position, next, lineage, floor, digest, acked }
}

fn divergence(state: &ReplicaState, reset: &Reset) -> Divergence {
    let Some(cursor) = state.cursor else { return Divergence::Pruned };
    if reset.lineage.contains(cursor) {
        return reset.lineage.ended(cursor).unwrap_or(Divergence::Pruned);
    }
    reset.lineage.diverge(&state.lineage, cursor, reset.floor)
}

/// The server has deleted the dataset, or not because it has moved on: then all of it is pulled again.
fn plan_deletion(state: ReplicaState, deleted: bool) -> Plan {
    let sequence = state.sequence;
    let state = if deleted {
        ReplicaState { sequence, ..ReplicaState::default() }
    } else {
        // What the app has written since is meant for another dataset than the one that the cursor was of.
        ReplicaState { deleting: false, cursor: None, pull: Some(Pull { snapshot: true, ..Pull::default() }), ..state }
    };
    Plan { writes: vec![Write::State(Box::new(state))], ..Plan::default() }
}
