//! A device that writes and asks, and a server that answers anything: late, twice, and what no server would say.

use std::collections::BTreeSet;

use sync_core::client::exchange::{plan_answer, plan_request, plan_response};
use sync_core::client::memory::MemoryReplica;
use sync_core::conflict::Resolution;
use sync_core::merge::claim::plan_claim;
use sync_core::merge::replica::{GroupState, Plan, Replica as _, Write};
use sync_core::merge::stack::Context;
use sync_core::merge::write::{
    WriteError, plan_delete, plan_discard, plan_local_only, plan_resolve, plan_restore, plan_retry, plan_write,
    questions,
};
use sync_core::model::{DatasetName, DeviceId, Limits, RecordKey, SyncCount, Timestamp, Value};
use sync_core::protocol::{DatasetRequest, Format, decode, encode};

use crate::dice::Dice;
use crate::fuzz::draw;
use crate::fuzz::input::Input;

struct World {
    name: DatasetName,
    device: DeviceId,
    limits: Limits,
    replica: MemoryReplica,
    guest: MemoryReplica,
    /// What was asked, and may still be answered.
    asked: Vec<DatasetRequest>,
    /// A page had what an earlier one of its pull had, as if not written since that pull began. A device need not
    /// notice; its digest differs from then on, and the next pull repairs it.
    repeated: bool,
    now: Timestamp,
    random: Dice,
}

/// The bytes say what the app does and what the server answers.
pub fn pull(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World {
        name: DatasetName::parse("notes").expect("it is a valid name"),
        device: DeviceId::from_bytes([1; 16]),
        limits: Limits { group_patches_max: *input.pick(&[1_024, 3]), ..Limits::default() },
        replica: MemoryReplica::default(),
        guest: MemoryReplica::default(),
        asked: Vec::new(),
        repeated: false,
        now: Timestamp(1_000_000),
        random: Dice::new(2),
    };
    let policies = vec![Write::Policies(draw::policies(&mut input))];
    world.execute(&Plan { writes: policies, ..Plan::default() });
    while !input.is_empty() {
        world.step(&mut input);
        world.check();
    }
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        self.now = self.now.plus_ms(1);
        let Self { replica, guest, limits, random, now, .. } = self;
        let mut context = Context { now: *now, random };
        let nth = input.below(4);
        let planned = match input.below(24) {
            0 => plan_delete(replica).map_err(WriteError::from),
            1 => plan_local_only(replica, input.one_in(4)).map_err(WriteError::from),
            2 => plan_discard(replica, replica.parked_units().keys().nth(nth).copied().unwrap_or_default()),
            3 => {
                let id = replica.parked_units().keys().nth(nth).copied().unwrap_or_default();
                plan_retry(replica, self.device, id, limits, &mut context)
            }
            4 => {
                let id = replica.log().keys().nth(nth).copied().unwrap_or_default();
                plan_restore(replica, id, limits, &mut context)
            }
            5 => {
                let Some(question) = questions(replica).expect(READS).into_iter().nth(nth) else { return };
                let with = match input.below(4) {
                    0 => Resolution::KeepLocal,
                    1 => Resolution::KeepRemote,
                    2 => Resolution::Value(None),
                    _ => Resolution::Value(Some(draw::value(input))),
                };
                plan_resolve(replica, &question, with, limits, &mut context)
            }
            6 => {
                let planned = plan_write(guest, limits, writes(input), &mut context);
                planned.map(|plan| guest.execute(&plan)).map(|_| Plan::default())
            }
            7 => {
                let plan = plan_claim(guest, replica, &mut context).map_err(WriteError::from);
                *guest = MemoryReplica::default();
                plan
            }
            8..12 => return self.ask(),
            12..18 => return self.absorb(input),
            _ => plan_write(replica, limits, writes(input), &mut context),
        };
        match planned {
            Ok(plan) => self.execute(&plan),
            Err(WriteError::Replica(error)) => panic!("{READS}: {error}"),
            Err(_) => {}
        }
    }

    fn ask(&mut self) {
        let Some(request) = self.request() else { return };
        assert_eq!(self.request().as_ref(), Some(&request), "a retry asks the same");
        let written = encode(&request, Format::MessagePack);
        assert_eq!(decode(&written, Format::MessagePack).as_ref(), Ok(&request));
        self.asked.push(request);
        if self.asked.len() > 3 {
            self.asked.remove(0);
        }
    }

    fn request(&mut self) -> Option<DatasetRequest> {
        let Self { replica, name, device, limits, .. } = self;
        let (plan, request) = plan_request(replica, name, *device, limits, true).expect(READS);
        self.execute(&plan);
        request
    }

    fn absorb(&mut self, input: &mut Input<'_>) {
        let at = input.below(4).min(self.asked.len().saturating_sub(1));
        let Some(request) = self.asked.iter().nth_back(at).cloned() else { return };
        let near = self.replica.state().expect(READS).cursor.map_or(SyncCount::ZERO, |cursor| cursor.count);
        let response = (!input.one_in(12)).then(|| draw::response(input, &request, near, self.now));
        let page = response.as_ref().and_then(|response| response.page.as_ref()).zip(request.page.as_ref());
        self.repeated |= page.is_some_and(|(page, asked)| {
            let is_staged = |key| self.replica.staged(key).expect(READS).is_some();
            page.records.iter().any(|record| record.sync_count <= asked.since && is_staged(&record.key))
        });
        let server_time = draw::time(input, self.now);
        let Self { replica, now, random, .. } = self;
        let mut context = Context { now: *now, random };
        let (plan, _) = plan_answer(replica, &request, response.as_ref(), &mut context).expect(READS);
        self.execute(&plan);
        let Self { replica, now, random, .. } = self;
        let mut context = Context { now: *now, random };
        let (again, _) = plan_answer(replica, &request, response.as_ref(), &mut context).expect(READS);
        assert!(again.writes.is_empty(), "a repeated answer changes something");
        let (plan, _) = plan_response(replica, &request, response, server_time, &mut context).expect(READS);
        self.execute(&plan);
    }

    fn execute(&mut self, plan: &Plan) {
        self.device = self.replica.execute(plan).unwrap_or(self.device);
    }

    /// What holds at any time.
    fn check(&self) {
        let state = self.replica.state().expect(READS);
        if !self.repeated {
            assert_eq!(state.digest, draw::digest(self.replica.base_records().values()), "of the base");
        }
        let pending = self.replica.pending();
        let in_flight = pending.iter().any(|(header, _)| header.state.is_in_flight());
        assert!(state.in_flight.is_some() || !in_flight, "a group is in flight, and no push is");
        let mut keys = BTreeSet::new();
        for (header, patches) in &pending {
            let size = |(key, patch): &(RecordKey, _)| key.as_str().len() + value_len(patch);
            let bytes: usize = patches.iter().map(size).sum();
            assert_eq!((header.patches, header.bytes), (patches.len(), bytes), "of group {}", header.id.0);
            assert!(!patches.is_empty(), "group {} is empty", header.id.0);
            if header.state == GroupState::Open {
                assert!(patches.iter().all(|(key, _)| keys.insert(key)), "two open groups share a key");
            }
        }
        let keys: BTreeSet<_> = pending.iter().flat_map(|(_, patches)| patches.iter().map(|(key, _)| key)).collect();
        let all = self.replica.pending_keys(true).expect(READS);
        assert_eq!(keys, all.iter().collect(), "each patch has a group");
        drop(self.replica.visible());
        drop(questions(&self.replica).expect(READS));
    }
}

fn value_len(patch: &sync_core::merge::replica::PendingPatch) -> usize {
    patch.value.as_ref().map_or(0, Value::encoded_len)
}

pub(super) fn writes(input: &mut Input<'_>) -> Vec<(RecordKey, Option<Value>)> {
    (0..=input.below(3)).map(|_| (draw::key(input), (!input.one_in(5)).then(|| draw::value(input)))).collect()
}

const READS: &str = "memory can be read";
