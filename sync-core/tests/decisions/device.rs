//! A device for the tables and properties: a replica in memory, and what apps and sessions do with it.

use sync_core::client::exchange::{Absorbed, plan_answer, plan_request, plan_response};
use sync_core::client::memory::MemoryReplica;
use sync_core::merge::replica::{GroupState, Plan, Replica as _, Verdict, Write};
use sync_core::merge::stack::Context;
use sync_core::merge::write::{WriteError, plan_retry, plan_write};
use sync_core::model::{DeviceId, Limits, RecordKey, Timestamp, Value};
use sync_core::policy::{Policies, Policy};
use sync_core::protocol::{DatasetRequest, DatasetResponse};

use crate::notation::{Counter, dataset, device, show_values, writes};
use crate::server::TinyServer;

#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) replica: MemoryReplica,
    pub(crate) limits: Limits,
    pub(crate) now: Timestamp,
    pub(crate) random: Counter,
}

impl Device {
    pub(crate) fn new(number: u8) -> Self {
        let random = Counter(u64::from(number) << 48);
        let (replica, limits) = (MemoryReplica::default(), Limits::default());
        Self { id: device(number), replica, limits, now: Timestamp(500), random }
    }

    pub(crate) fn with_policy(number: u8, policy: Policy) -> Self {
        Self::with_policies(number, Policies { dataset: Some(policy), ..Policies::default() })
    }

    pub(crate) fn with_policies(number: u8, policies: Policies) -> Self {
        let mut device = Self::new(number);
        device.execute(&Plan { writes: vec![Write::Policies(policies)], ..Plan::default() });
        device
    }

    pub(crate) fn execute(&mut self, plan: &Plan) {
        self.id = self.replica.execute(plan).unwrap_or(self.id);
    }

    /// Writes one group: `a=1 b-`.
    #[track_caller]
    pub(crate) fn write(&mut self, text: &str) {
        self.try_write(writes(text)).unwrap();
    }

    pub(crate) fn try_write(&mut self, writes: Vec<(RecordKey, Option<Value>)>) -> Result<Plan, WriteError> {
        let mut context = Context { now: self.now, random: &mut self.random };
        let plan = plan_write(&self.replica, &self.limits, writes, &mut context)?;
        self.execute(&plan);
        Ok(plan)
    }

    /// Brings a parked unit back.
    pub(crate) fn retry(&mut self, id: u64) {
        let mut context = Context { now: self.now, random: &mut self.random };
        let plan = plan_retry(&self.replica, self.id, id, &Limits::default(), &mut context).unwrap();
        self.execute(&plan);
    }

    /// Brings the first parked unit back.
    pub(crate) fn retry_first(&mut self) {
        self.retry(*self.replica.parked_units().keys().next().expect("something is parked"));
    }

    pub(crate) fn request(&mut self, first: bool) -> Option<DatasetRequest> {
        let (plan, request) = plan_request(&self.replica, &dataset(), self.id, &self.limits, first).unwrap();
        self.execute(&plan);
        request
    }

    pub(crate) fn absorb(&mut self, request: &DatasetRequest, response: DatasetResponse) -> Absorbed {
        let mut context = Context { now: self.now, random: &mut self.random };
        let (plan, answered) = plan_answer(&self.replica, request, Some(&response), &mut context).unwrap();
        self.id = self.replica.execute(&plan).unwrap_or(self.id);
        let planned = plan_response(&self.replica, request, Some(response), Timestamp(1000), &mut context);
        let (plan, absorbed) = planned.unwrap();
        self.execute(&plan);
        answered.and(absorbed)
    }

    /// One round trip.
    pub(crate) fn round(&mut self, server: &mut TinyServer, first: bool, pull_limit: Option<u32>) -> Option<Absorbed> {
        let mut request = self.request(first)?;
        request.pull_limit = pull_limit;
        let response = server.sync(&request);
        Some(self.absorb(&request, response))
    }

    /// Round trips until there is nothing left to say.
    #[track_caller]
    pub(crate) fn sync(&mut self, server: &mut TinyServer) {
        let mut first = true;
        for _ in 0..1000 {
            if self.round(server, first, None).is_none() {
                return;
            }
            first = false;
        }
        panic!("the device never has nothing left to say");
    }

    pub(crate) fn visible(&self) -> String {
        show_values(&self.replica.visible())
    }

    /// The pending groups, lowest first, with their state.
    pub(crate) fn pending(&self) -> String {
        let mut shown = Vec::new();
        for (header, patches) in self.replica.pending() {
            assert_eq!(header.patches, patches.len());
            let size = |value: &Option<Value>| value.as_ref().map_or(0, Value::encoded_len);
            let bytes: usize = patches.iter().map(|(key, patch)| key.as_str().len() + size(&patch.value)).sum();
            assert_eq!(header.bytes, bytes, "the header's bytes are those of its patches");
            let state = match header.state {
                GroupState::Open => "open",
                GroupState::Sealed => "sealed",
                GroupState::Sent => "sent",
                GroupState::Acked(Verdict::Accepted(_)) => "accepted",
                GroupState::Acked(Verdict::Rewritten { .. }) => "rewritten",
                GroupState::Acked(Verdict::Conflict) => "conflict",
                GroupState::Acked(Verdict::Refused { .. }) => "refused",
            };
            let one = |(key, patch): &(RecordKey, _)| show_patch(key, patch);
            let patches: Vec<_> = patches.iter().map(one).collect();
            shown.push(format!("{state} {}", patches.join(" ")));
        }
        shown.join(", ")
    }

    pub(crate) fn is_settled(&self) -> bool {
        let state = self.replica.state().unwrap();
        self.replica.pending().is_empty() && state.in_flight.is_none() && state.pull.is_none()
    }
}

fn show_patch(key: &RecordKey, patch: &sync_core::merge::replica::PendingPatch) -> String {
    patch.value.as_ref().map_or_else(|| format!("{key}-"), |value| format!("{key}={}", value.to_json()))
}
