//! A device: a replica that is durable, and a session that is not.

use std::collections::{BTreeMap, VecDeque};

use sync_core::client::exchange::{Absorbed, plan_answer, plan_request, plan_response};
use sync_core::client::memory::MemoryReplica;
use sync_core::client::session::{Failure, Input, Output, RequestId, Session, SessionConfig, SessionEnd};
use sync_core::conflict::LogEntry;
use sync_core::merge::replica::{GroupHeader, PendingPatch, Plan, Replica as _};
use sync_core::merge::stack::Context;
use sync_core::model::{ChangeId, DatasetName, DeviceId, Limits, Record, RecordKey, Timestamp};
use sync_core::protocol::{DatasetRequest, DatasetResponse, Format, SyncResponse, encode};

use crate::dice::Dice;
use crate::sim::tokens::KeptAside;

/// A request on its way.
pub(super) struct Sent {
    pub(super) id: u64,
    pub(super) bytes: Vec<u8>,
}

/// A sync session, with what it wants done.
#[derive(Clone)]
struct Running {
    session: Session,
    outputs: VecDeque<Output>,
    open: Option<RequestId>,
    sleeping: bool,
}

/// A device of the simulation.
#[derive(Clone)]
pub(super) struct Device {
    /// Which place of the simulation it has.
    pub(super) place: usize,
    pub(super) name: String,
    /// The id in its file.
    pub(super) id: DeviceId,
    pub(super) replica: MemoryReplica,
    /// What was written before sign-in.
    pub(super) guest: MemoryReplica,
    /// How far its clock is off, in milliseconds.
    pub(super) skew: i64,
    running: Option<Running>,
    /// What was asked, for answers that come after the session forgot about them.
    asked: BTreeMap<u64, Vec<DatasetRequest>>,
    limits: Limits,
    limits_version: Option<u32>,
    requests: u64,
    /// The last entry of the conflict log that was read.
    read: u64,
}

/// What a step of a device came to.
pub(super) enum Step {
    /// It has nothing to do, or waits for an answer.
    Idle,
    /// It did something inside.
    Worked,
    /// It sent a request.
    Sent(Sent),
    /// It absorbed an answer.
    Absorbed(Absorbed),
    /// Its session ended.
    Ended(SessionEnd),
}

impl Device {
    pub(super) fn new(place: usize, name: String, id: DeviceId, skew: i64, group_patches: usize) -> Self {
        let limits = Limits { group_patches_max: group_patches, ..Limits::default() };
        Self {
            place,
            name,
            id,
            replica: MemoryReplica::default(),
            guest: MemoryReplica::default(),
            skew,
            running: None,
            asked: BTreeMap::new(),
            limits,
            limits_version: None,
            requests: 0,
            read: 0,
        }
    }

    /// A copy of the device's file, in another place.
    pub(super) fn copy(&self, place: usize, name: String) -> Self {
        Self { place, name, running: None, asked: BTreeMap::new(), ..self.clone() }
    }

    /// Requests are numbered on from another device's, as connections are: no answer to one of its requests is taken for
    /// an answer to one of these.
    pub(super) fn number_requests_after(&mut self, other: &Self) {
        self.requests = self.requests.max(other.requests) + 1;
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits.clone()
    }

    /// Executes a plan durably.
    pub(super) fn execute(&mut self, plan: &Plan) {
        if let Some(id) = self.replica.execute(plan) {
            self.id = id;
        }
    }

    pub(super) fn is_syncing(&self) -> bool {
        self.running.is_some()
    }

    /// Whether it has received an answer that it has not absorbed.
    pub(super) fn has_answer(&self) -> bool {
        let absorbs = |output: &Output| matches!(output, Output::Absorb { .. });
        self.running.as_ref().is_some_and(|running| running.outputs.iter().any(absorbs))
    }

    /// What has come to the conflict log since it was last read.
    pub(super) fn read_log(&mut self) -> Vec<LogEntry> {
        let new: Vec<_> = self.replica.log().range(self.read + 1..).collect();
        self.read = new.last().map_or(self.read, |(id, _)| **id);
        new.into_iter().map(|(_, entry)| entry.clone()).collect()
    }

    /// Begins a session.
    pub(super) fn begin(&mut self, dataset: &DatasetName, now: Timestamp) {
        let config = SessionConfig {
            device: self.id,
            datasets: vec![dataset.clone()],
            known: vec![dataset.clone()],
            limits: self.limits(),
            limits_version: self.limits_version,
            give_up_after_ms: 3_600_000,
        };
        let mut session = Session::new(config, now);
        let outputs = std::iter::from_fn(|| session.poll_output()).collect();
        self.running = Some(Running { session, outputs, open: None, sleeping: false });
    }

    /// The process ends: what is durable stays.
    pub(super) fn crash(&mut self) {
        self.running = None;
    }

    fn feed(&mut self, input: Input, now: Timestamp, dice: &mut Dice) {
        let Some(running) = &mut self.running else { return };
        running.session.handle(input, now, dice);
        running.outputs.extend(std::iter::from_fn(|| running.session.poll_output()));
    }

    /// Does the next thing that the session wants.
    pub(super) fn step(&mut self, now: Timestamp, page_records: u32, format: Format, dice: &mut Dice) -> Step {
        let Some(running) = &mut self.running else { return Step::Idle };
        let Some(output) = running.outputs.pop_front() else {
            if std::mem::take(&mut running.sleeping) {
                self.feed(Input::Woken, now, dice);
                return Step::Worked;
            }
            return Step::Idle;
        };
        match output {
            Output::Prepare { dataset, first } => {
                let planned = plan_request(&self.replica, &dataset, self.id, &self.limits, first);
                let (plan, mut request) = planned.expect("memory does not fail");
                self.execute(&plan);
                if let Some(request) = &mut request {
                    request.pull_limit = Some(page_records);
                }
                self.feed(Input::Prepared { dataset, request: request.map(Box::new) }, now, dice);
                Step::Worked
            }
            Output::Send { id, request } => {
                running.open = Some(id);
                self.requests += 1;
                // Numbers of requests go on over sessions, as connections do.
                let number = self.requests << 20 | id.0;
                self.asked.insert(number, request.datasets.clone());
                if self.asked.len() > 8 {
                    self.asked.pop_first();
                }
                Step::Sent(Sent { id: number, bytes: encode(&*request, format) })
            }
            Output::Absorb { request, response, server_time } => {
                let absorbed = self.absorb(&request, response.map(|response| *response), server_time, now, dice);
                let dataset = request.name.clone();
                self.feed(Input::Absorbed { dataset, absorbed: Box::new(absorbed.clone()) }, now, dice);
                Step::Absorbed(absorbed)
            }
            Output::Learn { limits, .. } => {
                if let Some((_, version)) = limits {
                    // The server's own limits are kept to itself here, so that it has something to refuse.
                    self.limits_version = Some(version);
                }
                Step::Worked
            }
            Output::WakeAt(_) => {
                running.sleeping = true;
                Step::Worked
            }
            Output::Done(end) => {
                self.running = None;
                Step::Ended(end)
            }
        }
    }

    fn absorb(
        &mut self,
        request: &DatasetRequest,
        response: Option<DatasetResponse>,
        server_time: Timestamp,
        now: Timestamp,
        dice: &mut Dice,
    ) -> Absorbed {
        let mut context = Context { now: now.plus_ms(self.skew), random: dice };
        let planned = plan_answer(&self.replica, request, response.as_ref(), &mut context);
        let (plan, first) = planned.expect("memory does not fail");
        self.execute(&plan);
        let mut context = Context { now: now.plus_ms(self.skew), random: dice };
        let planned = plan_response(&self.replica, request, response, server_time, &mut context);
        let (plan, rest) = planned.expect("memory does not fail");
        self.execute(&plan);
        first.and(rest)
    }

    /// What is pending, by change id, also of the guest.
    pub(super) fn all_pending_aside(&self) -> BTreeMap<ChangeId, KeptAside> {
        let mut all = aside(&self.guest);
        all.extend(self.pending_aside());
        all
    }

    /// What is pending, by change id.
    pub(super) fn pending_aside(&self) -> BTreeMap<ChangeId, KeptAside> {
        aside(&self.replica)
    }

    /// Whether a group of this change id is pending.
    pub(super) fn has_pending(&self, change: ChangeId) -> bool {
        let groups = |replica: &MemoryReplica| replica.groups().expect("memory does not fail");
        [&self.replica, &self.guest].into_iter().flat_map(groups).any(|group| group.change_id == change)
    }

    /// The groups in flight, for the story.
    pub(super) fn in_flight(&self) -> String {
        let of_flight = self.replica.pending().into_iter().filter(|(header, _)| header.state.is_in_flight());
        let told = |(_, patches): (_, Vec<(RecordKey, _)>)| {
            let keys: Vec<_> = patches.iter().map(|(key, _)| key.as_str().to_owned()).collect();
            format!(" [{}]", keys.join(" "))
        };
        of_flight.map(told).collect()
    }

    /// An answer comes from the network. If it was for a session that is gone, what it did.
    pub(super) fn receive(
        &mut self,
        number: u64,
        answer: Result<SyncResponse, Failure>,
        now: Timestamp,
        dice: &mut Dice,
    ) -> Option<Vec<Absorbed>> {
        let id = RequestId(number & 0xf_ffff);
        let is_open =
            self.running.as_ref().is_some_and(|running| running.open == Some(id)) && number >> 20 == self.requests;
        if is_open {
            if let Some(running) = &mut self.running {
                running.open = None;
            }
            let input = match answer {
                Ok(response) => Input::Received { id, response },
                Err(failure) => Input::Failed { id, failure },
            };
            self.feed(input, now, dice);
            return None;
        }
        // The session is gone or has given the request up, but another process of the app may still hear the answer.
        let mut absorbed = Vec::new();
        if let (Ok(response), Some(asked)) = (answer, self.asked.get(&number).cloned()) {
            for request in asked {
                let part = response.datasets.iter().find(|part| part.name == request.name).cloned();
                absorbed.push(self.absorb(&request, part, response.server_time, now, dice));
            }
        }
        Some(absorbed)
    }

    /// The driver's own time-out: nothing came back.
    pub(super) fn time_out(&mut self, now: Timestamp, dice: &mut Dice) {
        if let Some(id) = self.running.as_mut().and_then(|running| running.open.take()) {
            self.feed(Input::Failed { id, failure: Failure::Unreachable }, now, dice);
        }
    }

    /// Whether it pulls all records anew.
    pub(super) fn pulls_all(&self) -> bool {
        self.replica.state().is_ok_and(|state| state.pull.is_some_and(|pull| pull.snapshot))
    }

    /// Whether it holds a record as it is, and neither changes it nor pulls all of them anew.
    pub(super) fn holds(&self, record: &Record) -> bool {
        let here = self.replica.base(&record.key).expect("memory does not fail");
        !self.pulls_all() && self.patches(&record.key).is_empty() && here.as_ref() == Some(record)
    }

    /// Whether a record is what it has pushed, and has not seen.
    pub(super) fn has_just_pushed(&self, record: &Record) -> bool {
        let patches = self.patches(&record.key);
        let is_pushed = |patch: &PendingPatch| patch.sent.is_some() && patch.value.as_ref() == record.value();
        record.modified_by == Some(self.id) && !self.pulls_all() && patches.last().is_some_and(is_pushed)
    }

    fn patches(&self, key: &RecordKey) -> Vec<PendingPatch> {
        let patches = self.replica.patches(key).expect("memory does not fail");
        patches.into_iter().map(|(_, patch)| patch).collect()
    }

    /// Whether everything is pushed and pulled.
    pub(super) fn is_settled(&self) -> bool {
        let state = self.replica.state().expect("memory does not fail");
        self.replica.pending().is_empty() && state.in_flight.is_none() && state.pull.is_none() && !state.deleting
    }
}

fn aside(replica: &MemoryReplica) -> BTreeMap<ChangeId, KeptAside> {
    let aside = |(header, patches): (GroupHeader, Vec<(RecordKey, PendingPatch)>)| {
        let mut kept = KeptAside::default();
        patches.iter().for_each(|(key, patch)| kept.add(key, patch.under.as_ref(), patch.value.as_ref()));
        (header.change_id, kept)
    };
    replica.pending().into_iter().map(aside).collect()
}
