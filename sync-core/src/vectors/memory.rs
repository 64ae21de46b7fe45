//! Replicas in memory, for replaying transcripts.

use std::collections::BTreeMap;

use crate::client::exchange::{Absorbed, plan_answer, plan_request, plan_response};
use crate::client::memory::MemoryReplica;
use crate::conflict::{Question, Resolution};
use crate::merge::claim::plan_claim;
use crate::merge::replica::{Plan, Write};
use crate::merge::stack::Context;
use crate::merge::write::{
    WriteError, plan_delete, plan_discard, plan_resolve, plan_restore, plan_retry, plan_write, questions,
};
use crate::model::{DatasetName, DeviceId, Limits, RecordKey, Timestamp, Value};
use crate::policy::Policies;
use crate::protocol::{DatasetRequest, DatasetResponse};
use crate::vectors::transcript::{Host, Refused, Seen};

/// Replicas in memory.
#[derive(Debug, Default)]
pub struct MemoryHost {
    places: BTreeMap<String, Place>,
}

#[derive(Clone, Debug)]
struct Place {
    device: DeviceId,
    dataset: DatasetName,
    limits: Limits,
    replica: MemoryReplica,
}

impl Place {
    fn execute(&mut self, plan: &Plan) {
        self.device = self.replica.execute(plan).unwrap_or(self.device);
    }

    fn try_execute(&mut self, plan: Result<Plan, WriteError>) -> Refused {
        self.execute(&plan?);
        Ok(())
    }
}

const READS: &str = "memory can be read";

impl MemoryHost {
    fn place(&mut self, name: &str) -> &mut Place {
        self.places.get_mut(name).expect("the transcript names its replicas")
    }
}

impl Host for MemoryHost {
    fn open(&mut self, name: &str, device: DeviceId, dataset: &DatasetName, limits: &Limits) {
        let place =
            Place { device, dataset: dataset.clone(), limits: limits.clone(), replica: MemoryReplica::default() };
        self.places.insert(name.to_owned(), place);
    }

    fn set_policies(&mut self, on: &str, policies: Policies) {
        self.place(on).execute(&Plan { writes: vec![Write::Policies(policies)], ..Plan::default() });
    }

    fn write(&mut self, on: &str, writes: Vec<(RecordKey, Option<Value>)>, context: &mut Context<'_>) -> Refused {
        let place = self.place(on);
        let plan = plan_write(&place.replica, &place.limits, writes, context);
        place.try_execute(plan)
    }

    fn resolve(&mut self, on: &str, question: &Question, with: Resolution, context: &mut Context<'_>) -> Refused {
        let place = self.place(on);
        let plan = plan_resolve(&place.replica, question, with, &place.limits, context);
        place.try_execute(plan)
    }

    fn retry(&mut self, on: &str, at: usize, context: &mut Context<'_>) -> Refused {
        let place = self.place(on);
        let id = place.replica.parked_units().keys().nth(at).copied().unwrap_or(u64::MAX);
        let plan = plan_retry(&place.replica, place.device, id, &place.limits, context);
        place.try_execute(plan)
    }

    fn discard(&mut self, on: &str, at: usize) {
        let place = self.place(on);
        let id = place.replica.parked_units().keys().nth(at).copied().unwrap_or(u64::MAX);
        let plan = plan_discard(&place.replica, id);
        place.try_execute(plan).expect("the transcript discards what is there");
    }

    fn restore(&mut self, on: &str, at: usize, context: &mut Context<'_>) -> Refused {
        let place = self.place(on);
        let id = place.replica.log().keys().nth(at).copied().unwrap_or(u64::MAX);
        let plan = plan_restore(&place.replica, id, &place.limits, context);
        place.try_execute(plan)
    }

    fn delete(&mut self, on: &str) {
        let place = self.place(on);
        let plan = plan_delete(&place.replica).expect(READS);
        place.execute(&plan);
    }

    fn claim(&mut self, on: &str, guest: &str, context: &mut Context<'_>) {
        let guest = self.places.remove(guest).expect("the transcript names its replicas");
        let place = self.place(on);
        let plan = plan_claim(&guest.replica, &place.replica, context).expect(READS);
        // The guest's log and parked units move along.
        let log = guest.replica.log().values().cloned().map(Write::Log);
        let parked = guest.replica.parked_units().values().cloned().map(Write::Park);
        place.execute(&Plan { writes: log.chain(parked).collect(), ..Plan::default() });
        place.execute(&plan);
    }

    fn copy(&mut self, from: &str, to: &str) {
        let copy = self.place(from).clone();
        self.places.insert(to.to_owned(), copy);
    }

    fn request(&mut self, on: &str, first: bool) -> Option<DatasetRequest> {
        let place = self.place(on);
        let planned = plan_request(&place.replica, &place.dataset, place.device, &place.limits, first);
        let (plan, request) = planned.expect(READS);
        place.execute(&plan);
        request
    }

    fn absorb(
        &mut self,
        on: &str,
        request: &DatasetRequest,
        response: Option<DatasetResponse>,
        server_time: Timestamp,
        context: &mut Context<'_>,
    ) -> Absorbed {
        let place = self.place(on);
        let (plan, answered) = plan_answer(&place.replica, request, response.as_ref(), context).expect(READS);
        place.execute(&plan);
        let planned = plan_response(&place.replica, request, response, server_time, context);
        let (plan, absorbed) = planned.expect(READS);
        place.execute(&plan);
        answered.and(absorbed)
    }

    fn see(&mut self, on: &str) -> Seen {
        let Place { device, replica, .. } = self.place(on);
        Seen {
            visible: replica.visible(),
            log: replica.log().values().cloned().collect(),
            parked: replica.parked_units().values().cloned().collect(),
            questions: questions(replica).expect(READS),
            pending: replica.pending().len(),
            device: *device,
        }
    }
}
