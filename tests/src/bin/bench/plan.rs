//! What planning a push of a thousand edits takes: on the device alone, with reading and freezing them durably in its
//! file, and on the server without its store.

use std::time::Instant;

use sync_core::client::exchange::plan_request;
use sync_core::client::memory::MemoryReplica;
use sync_core::device::{Address, DeviceDb};
use sync_core::merge::push::{Outcome, Planned, PushContext, PushPlan, Submission, View, plan_push};
use sync_core::merge::replica::{Plan, Write};
use sync_core::merge::stack::Context;
use sync_core::merge::write::plan_write;
use sync_core::model::{
    CommitTag, DatasetName, DeviceId, EpochId, EpochReason, Limits, Record, RecordKey, RecordState, SyncCount,
    Timestamp, Value,
};
use sync_core::protocol::Push;
use syncline_server::clock::{Draw, SystemRandom};
use tests::harness::{Device, Folder, Server};

use crate::data::{edits, generated, put_lines};
use crate::report::{Aim, Report, median};

const ROUNDS: usize = 5;

pub(crate) fn measure(report: &mut Report) {
    let folder = Folder::new();
    let server = Server::start(&folder.path("server"));
    let writer = Device::new(&folder, "writer").at(server.url()).with_token(&server.token("ada"));
    let records = generated();
    records.chunks(1_000).map(put_lines).for_each(|lines| drop(writer.ok_with_input(&["apply", "items", "-"], &lines)));
    writer.sync();
    writer.ok_with_input(&["apply", "items", "-"], &put_lines(&edits(&records)));
    let (mut planned, mut on_device, mut on_server) = (Vec::new(), Vec::new(), Vec::new());
    let mut random = Draw(&SystemRandom);
    for round in 0..ROUNDS {
        let copy = writer.copy(&folder, &format!("copy{round}"));
        let mut db = DeviceDb::open(copy.file(), &mut random).expect("it is a device's file");
        let address =
            Address { owner: db.owner().expect("it has one"), dataset: DatasetName::parse("items").expect("a name") };
        let begun = Instant::now();
        let prepared = db.prepare(&address, &Limits::default(), true).expect("it can be planned");
        on_device.push(begun.elapsed().as_secs_f64() * 1e3);
        planned.push(plan(&records));
        let push = prepared.request.and_then(|request| request.push).expect("there is something to push");
        on_server.push(decide(&records, &push));
    }
    let aim = Some(Aim::AtMost(20.0));
    report.figure("device plans a push of 1,000 edits", "ms", median(planned), aim);
    report.figure("device reads, plans and freezes it durably", "ms", median(on_device), None);
    report.figure("server plans it", "ms", median(on_server), aim);
}

/// Milliseconds of the device's planning, over a replica in memory.
fn plan(records: &[(String, serde_json::Value)]) -> f64 {
    let mut random = Draw(&SystemRandom);
    let mut context = Context { now: Timestamp(2), random: &mut random };
    let (limits, name) = (Limits::default(), DatasetName::parse("items").expect("a name"));
    let staged = records.iter().map(|(key, value)| record(key, value, SyncCount(1))).collect();
    let mut replica = MemoryReplica::default();
    replica
        .execute(&Plan { writes: vec![Write::Stage(staged), Write::MergeStage { snapshot: true }], ..Plan::default() });
    let edits = edits(records).into_iter().map(|(key, value)| {
        let Record { key, state, .. } = record(&key, &value, SyncCount(1));
        let RecordState::Value(value) = state else { unreachable!("it was made of a value") };
        (key, Some(value))
    });
    let written = plan_write(&replica, &limits, edits.collect(), &mut context).expect("it can be written");
    replica.execute(&written);
    let begun = Instant::now();
    let (frozen, request) =
        plan_request(&replica, &name, DeviceId::random(context.random), &limits, true).expect("it can be planned");
    let took = begun.elapsed().as_secs_f64() * 1e3;
    let pushed = request.and_then(|request| request.push).expect("there is something to push");
    assert_eq!((pushed.groups[0].patches.len(), frozen.writes.len()), (1_000, 1_002));
    took
}

fn record(key: &str, value: &serde_json::Value, count: SyncCount) -> Record {
    Record {
        key: RecordKey::parse(key).expect("a key"),
        state: RecordState::Value(Value::parse_json(&value.to_string()).expect("it is a value")),
        sync_count: count,
        modified_by: None,
        modified_at: Timestamp(1),
        device_time: Timestamp(1),
    }
}

/// Milliseconds of the server's decision, over the records as they are stored.
fn decide(records: &[(String, serde_json::Value)], push: &Push) -> f64 {
    let mut random = Draw(&SystemRandom);
    let mut view = View::default();
    view.head.lineage.open(EpochId::random(&mut random), EpochReason::Created);
    view.head.lineage.advance(CommitTag::random(&mut random));
    for patch in push.groups.iter().flat_map(|group| &group.patches) {
        let at = records.binary_search_by(|(key, _)| key.as_str().cmp(patch.key.as_str())).expect("it was edited");
        let record = record(&records[at].0, &records[at].1, patch.base);
        view.head.lineage.count = view.head.lineage.count.max(SyncCount(patch.base.0));
        view.records.insert(record.key.clone(), record);
    }
    let submission =
        Submission { device: push.device, sequence: Some(push.sequence), groups: &push.groups, reviews: &[] };
    let limits = Limits::default();
    let mut context = PushContext { now: Timestamp(2), random: &mut random, limits: &limits };
    let mut planned = Planned::default();
    let begun = Instant::now();
    let plan = plan_push(&mut view, &mut planned, &submission, &mut context);
    let took = begun.elapsed().as_secs_f64() * 1e3;
    let PushPlan::Accept(answer) = plan else { panic!("it was not accepted: {plan:?}") };
    assert!(answer.outcomes.iter().all(|it| matches!(it, Outcome::Applied { .. })), "{:?}", answer.outcomes);
    took
}
