//! `policies.json`: what becomes of a change when a pull brings another one under it, for each policy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::client::exchange::{plan_request, plan_response};
use crate::client::memory::MemoryReplica;
use crate::conflict::{LogEntry, Parked};
use crate::merge::replica::{Plan, Write};
use crate::merge::stack::Context;
use crate::merge::write::{plan_write, questions};
use crate::model::value::present;
use crate::model::{
    CommitTag, DatasetName, DeviceId, EpochEntry, EpochId, EpochReason, Limits, PatchOp, Position, Record, RecordKey,
    RecordState, RemovalReason, SyncCount, Timestamp, Value,
};
use crate::policy::Policies;
use crate::protocol::{DatasetResponse, Page};
use crate::vectors::layout::layout;
use crate::vectors::random::CountingRandom;
use crate::vectors::step::QuestionForm;
use crate::vectors::{InvalidVector, is_default, read};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    /// The record's key in all cases.
    key: RecordKey,
    cases: Vec<Case>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    about: String,
    policies: Policies,
    /// The server's value at count 1; left out: absent.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    base: Option<Value>,
    /// What the device writes over it; left out: it removes the record.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    local: Option<Value>,
    /// What the pull at count 2 brings; left out: a tombstone.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    remote: Option<Value>,
    /// When the device wrote.
    #[serde(default = "local_time")]
    local_time: Timestamp,
    /// When the other side wrote.
    #[serde(default = "remote_time")]
    remote_time: Timestamp,
    #[serde(default)]
    outcome: Outcome,
}

const fn local_time() -> Timestamp {
    Timestamp(1000)
}

const fn remote_time() -> Timestamp {
    Timestamp(2000)
}

/// The clock of both sides when the pull comes.
const NOW: Timestamp = Timestamp(5000);

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outcome {
    /// What the app sees; left out: nothing.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    visible: Option<Value>,
    /// What is pushed next; left out: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    push: Option<Pushed>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    log: Vec<LogEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parked: Vec<Parked>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    questions: Vec<QuestionForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pushed {
    op: PatchOp,
    #[serde(default, skip_serializing_if = "is_default")]
    base: SyncCount,
}

/// Replays `policies.json`.
///
/// # Errors
/// If the file is not of its form, or a planner fails.
pub fn policies(text: &str) -> Result<String, InvalidVector> {
    let mut file: File = read(text)?;
    for case in &mut file.cases {
        case.outcome = play(&file.key, case).map_err(|error| InvalidVector::new(format!("{}: {error}", case.about)))?;
    }
    Ok(layout(&file))
}

fn play(key: &RecordKey, case: &Case) -> Result<Outcome, InvalidVector> {
    let mut random = CountingRandom::new([0; 4]);
    let mut replica = MemoryReplica::default();
    replica.execute(&Plan { writes: vec![Write::Policies(case.policies.clone())], ..Plan::default() });
    pull(&mut replica, 1, key, case.base.as_ref(), Timestamp::default(), &mut random)?;
    let mut context = Context { now: case.local_time, random: &mut random };
    let written = vec![(key.clone(), case.local.clone())];
    let plan = plan_write(&replica, &Limits::default(), written, &mut context).map_err(InvalidVector::new)?;
    replica.execute(&plan);
    pull(&mut replica, 2, key, case.remote.as_ref(), case.remote_time, &mut random)?;
    let asked = questions(&replica).map_err(InvalidVector::new)?;
    let mut outcome = Outcome {
        visible: replica.visible().remove(key),
        push: None,
        log: replica.log().values().cloned().collect(),
        parked: replica.parked_units().values().cloned().collect(),
        questions: asked.into_iter().map(QuestionForm::from).collect(),
    };
    let (_, request) = plan_request(&replica, &dataset(), DeviceId::from_bytes([1; 16]), &Limits::default(), false)
        .map_err(InvalidVector::new)?;
    let patches = request.and_then(|request| request.push).into_iter().flat_map(|push| push.groups);
    let patch = patches.flat_map(|group| group.patches).next();
    outcome.push = patch.map(|patch| Pushed { op: patch.op, base: patch.base });
    Ok(outcome)
}

fn dataset() -> DatasetName {
    DatasetName::parse("vectors").expect("it is a valid name")
}

/// A pull of one page with the record as it is at a count.
fn pull(
    replica: &mut MemoryReplica,
    count: u64,
    key: &RecordKey,
    value: Option<&Value>,
    device_time: Timestamp,
    random: &mut CountingRandom,
) -> Result<(), InvalidVector> {
    let device = DeviceId::from_bytes([1; 16]);
    let epoch = EpochId::from_bytes([2; 16]);
    let tag = |count: u64| CommitTag::from_bytes(count.to_be_bytes());
    let request = plan_request(replica, &dataset(), device, &Limits::default(), true);
    let (_, request) = request.map_err(InvalidVector::new)?;
    let mut request = request.ok_or_else(|| InvalidVector::new("there is nothing to pull"))?;
    request.push = None;
    let state = value.cloned().map_or(RecordState::Removed(RemovalReason::Removed), RecordState::Value);
    let sync_count = SyncCount(count);
    let record =
        Record { key: key.clone(), state, sync_count, modified_by: None, modified_at: device_time, device_time };
    let tags: BTreeMap<_, _> = (1..=count).map(|count| (SyncCount(count), tag(count))).collect();
    let page = Page {
        records: vec![record],
        position: Some(Position { epoch, count: sync_count, tag: tag(count) }),
        next: None,
        line: Some(vec![EpochEntry { epoch, start: SyncCount::ZERO, why: EpochReason::Created }]),
        tags: tags.into_iter().collect(),
        floor: SyncCount::ZERO,
        digest: None,
        total: 1,
    };
    let response = DatasetResponse { page: Some(page), ..DatasetResponse::empty(None, dataset()) };
    let mut context = Context { now: NOW, random };
    let (plan, _) = plan_response(replica, &request, Some(response), NOW, &mut context).map_err(InvalidVector::new)?;
    replica.execute(&plan);
    Ok(())
}
