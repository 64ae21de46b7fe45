//! The store against the replica in memory, which says what each write of a plan means: after any plans, both read the
//! same.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::client::memory::MemoryReplica;
use crate::conflict::{Cause, LogEntry, Loss, Parked, ParkedPatch, Side};
use crate::merge::replica::{Changes, OpenQuestion, Plan, Replica, ReplicaState, SentPatch, Verdict};
use crate::merge::write::plan_write;
use crate::model::{Added, Compare, Delta, Digest, GroupStep, Limits, Overwritten, PatchOp};
use crate::policy::{OnDelete, Policies, Policy};

proptest! {
    #[test]
    fn any_plans_read_as_in_memory(plans in vec(plan(), 1..12)) {
        let mut db = memory();
        let at = address(&mut db);
        let mut reference = MemoryReplica::default();
        for plan in &plans {
            run(&mut db, &at, &plan.writes);
            reference.execute(plan);
            compare(&mut db, &at, &reference);
        }
    }

    #[test]
    fn planned_writes_read_as_in_memory(
        settings in policies(),
        groups in vec(vec((a_key(), option::of(value())), 1..4), 1..20),
    ) {
        let mut db = memory();
        let at = address(&mut db);
        let mut reference = MemoryReplica::default();
        db.set_policies(&at, settings.clone()).unwrap();
        reference.execute(&Plan { writes: vec![Write::Policies(settings)], changes: Changes::default() });
        for (number, group) in groups.into_iter().enumerate() {
            let (mut ours, mut theirs) = (Seed(number as u64), Seed(number as u64));
            let now = Timestamp(number as i64);
            let changes = db.write(&at, group.clone(), &mut Context { now, random: &mut ours });
            let limits = Limits::default();
            let plan = plan_write(&reference, &limits, group, &mut Context { now, random: &mut theirs });
            prop_assert_eq!(changes.is_ok(), plan.is_ok());
            if let (Ok(changes), Ok(plan)) = (changes, plan) {
                prop_assert_eq!(changes, plan.changes.clone());
                reference.execute(&plan);
            }
            db.check().unwrap();
            compare(&mut db, &at, &reference);
        }
    }
}

#[track_caller]
fn compare(db: &mut DeviceDb, at: &Address, reference: &MemoryReplica) {
    let log: Vec<_> = db.conflicts(at, None, 1_000).unwrap();
    assert!(log.iter().map(|(_, entry)| entry).eq(reference.log().values()), "log: {log:?}");
    let parked: Vec<_> = db.parked(at, None, 1_000).unwrap();
    assert!(parked.iter().map(|(_, unit)| unit).eq(reference.parked_units().values()), "parked: {parked:?}");
    let listed = db.list(at, "", None, 1_000).unwrap();
    assert_eq!(listed, reference.visible().into_iter().collect::<Vec<_>>());
    read(db, at, |stored| {
        macro_rules! same {
            ($($call:tt)*) => {
                assert_eq!(stored.$($call)*.unwrap(), reference.$($call)*.unwrap(), stringify!($($call)*))
            };
        }
        same!(state());
        same!(policies());
        same!(groups());
        same!(last_group());
        same!(pending_keys(true));
        same!(pending_keys(false));
        for key in KEYS.map(key) {
            same!(base(&key));
            same!(staged(&key));
            same!(patches(&key));
        }
        for id in (0..8).map(GroupId) {
            same!(group(id));
            same!(group_patches(id));
        }
        assert_eq!(stored.log_entry(99_999).unwrap(), None);
        for (id, entry) in &log {
            assert_eq!(stored.log_entry(*id).unwrap().as_ref(), Some(entry));
        }
        for (id, unit) in &parked {
            assert_eq!(stored.parked(*id).unwrap().as_ref(), Some(unit));
        }
    });
    if let Some(status) = db.datasets(&at.owner).unwrap().first() {
        assert_eq!(status.records, listed.len() as u64);
        assert_eq!(status.pending_groups, reference.groups().unwrap().len() as u64);
        assert_eq!((status.conflicts, status.parked), (log.len() as u64, parked.len() as u64));
        let pending = reference.pending_keys(true).unwrap();
        assert_eq!(status.pending_records, pending.len() as u64);
        let asked = pending.iter().flat_map(|key| reference.patches(key).unwrap());
        let questions = asked.filter(|(_, patch)| patch.question.is_some()).count();
        assert_eq!(status.questions, questions as u64);
    }
}

const KEYS: [&str; 6] = ["a", "A", "a ", "a\0", "b/c", "é"];

fn plan() -> impl Strategy<Value = Plan> {
    vec(write(), 1..6).prop_map(|writes| Plan { writes, changes: Changes::default() })
}

fn write() -> impl Strategy<Value = Write> {
    let group = || (1_u64..6).prop_map(GroupId);
    prop_oneof![
        1 => state().prop_map(|state| Write::State(Box::new(state))),
        1 => policies().prop_map(Write::Policies),
        4 => group_header().prop_map(Write::Group),
        1 => group().prop_map(Write::DropGroup),
        8 => (group(), a_key(), pending_patch())
            .prop_map(|(group, key, patch)| Write::Patch { group, key, patch: Box::new(patch) }),
        1 => (1_u64..6, 1_u64..5)
            .prop_map(|(from, more)| Write::MovePatches { from: GroupId(from), to: GroupId((from + more - 1) % 5 + 1) })
            .prop_filter("a group is moved into another", |write| {
                !matches!(write, Write::MovePatches { from, to } if from == to)
            }),
        6 => vec(a_record(), 0..5).prop_map(Write::Stage),
        1 => Just(Write::ClearStage),
        2 => (cause(), 0_u64..5, option::of(0_u64..5)).prop_map(|(cause, above, until)| Write::LogLost {
            cause,
            above: SyncCount(above),
            until: until.map(SyncCount),
            at: Timestamp(4),
        }),
        4 => any::<bool>().prop_map(|snapshot| Write::MergeStage { snapshot }),
        1 => Just(Write::ClearBase),
        1 => (cause(), vec(loss(), 0..3)).prop_map(|(cause, losses)| {
            Write::Log(LogEntry { at: Timestamp(-1), cause, losses })
        }),
        1 => (vec(parked_patch(), 0..3), steps()).prop_map(|(patches, steps)| {
            Write::Park(Parked { at: Timestamp(1), code: "c".into(), message: "ü".into(), patches, steps })
        }),
    ]
}

fn a_key() -> impl Strategy<Value = RecordKey> {
    prop::sample::select(&KEYS[..]).prop_map(key)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-2_i64..3).prop_map(Value::Int),
        any::<i64>().prop_map(Value::Int),
        Just(Value::Float(0.5)),
        "[a\\x00é]{0,3}".prop_map(Value::Text),
        vec(any::<u8>(), 0..3).prop_map(Value::Bytes),
        (any::<i8>(), vec(any::<u8>(), 0..5)).prop_map(|(kind, bytes)| Value::Unknown { kind, bytes }),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::List),
            prop::collection::btree_map("[ab]", inner, 0..3).prop_map(Value::Map),
        ]
    })
}

fn a_record() -> impl Strategy<Value = Record> {
    let reasons = vec![RemovalReason::Removed, RemovalReason::Left, RemovalReason::Unknown];
    let state = prop_oneof![
        3 => value().prop_map(RecordState::Value),
        1 => prop::sample::select(reasons).prop_map(RecordState::Removed),
    ];
    (a_key(), state, 0_u64..6, option::of(any::<[u8; 16]>())).prop_map(|(key, state, count, by)| Record {
        key,
        state,
        sync_count: SyncCount(count),
        modified_by: by.map(DeviceId::from_bytes),
        modified_at: Timestamp(count as i64 * 1_000),
        device_time: Timestamp(-5),
    })
}

fn group_header() -> impl Strategy<Value = GroupHeader> {
    let verdict = prop_oneof![
        vec((a_key(), vec("[ab]", 0..2), option::of(value())), 0..2).prop_map(|all| {
            let one = |(key, path, value)| Overwritten { key, path, value };
            Verdict::Accepted(all.into_iter().map(one).collect())
        }),
        vec(a_key(), 0..2).prop_map(|keys| Verdict::Rewritten { keys, overwritten: Vec::new() }),
        Just(Verdict::Conflict),
        Just(Verdict::Refused { code: "c".into(), message: String::new() }),
    ];
    let state = prop_oneof![
        Just(GroupState::Open),
        Just(GroupState::Sealed),
        Just(GroupState::Sent),
        verdict.prop_map(GroupState::Acked),
    ];
    (1_u64..6, state, any::<[u8; 16]>(), steps(), 0_usize..2_000).prop_map(|(id, state, change_id, steps, size)| {
        let change_id = ChangeId::from_bytes(change_id);
        GroupHeader { steps, patches: size / 2, bytes: size, ..GroupHeader::new(GroupId(id), state, change_id) }
    })
}

fn steps() -> impl Strategy<Value = Vec<GroupStep>> {
    let added = (a_key(), vec("[a-c]", 0..2), any::<i64>()).prop_map(|(key, path, by)| Added { key, path, by });
    let step = (any::<[u8; 16]>(), vec(added, 0..3))
        .prop_map(|(id, added)| GroupStep { change_id: ChangeId::from_bytes(id), added });
    vec(step, 0..3)
}

fn pending_patch() -> impl Strategy<Value = PendingPatch> {
    let op = prop_oneof![
        value().prop_map(|value| PatchOp::Replace(value, Compare::EditTime)),
        Just(PatchOp::Remove(Compare::Nothing)),
        (-3_i64..4).prop_map(|more| PatchOp::Merge(Delta::Add(more))),
        vec(value(), 0..2).prop_map(|insert| PatchOp::Merge(Delta::Set { insert, remove: Vec::new() })),
    ];
    let sent = (op, 0_u64..6).prop_map(|(op, base)| SentPatch { op, base: SyncCount(base) });
    let question =
        (0_u64..9, option::of(value())).prop_map(|(count, base)| OpenQuestion { remote_count: SyncCount(count), base });
    let flags = (any::<bool>(), any::<bool>());
    (option::of(value()), option::of(value()), any::<i64>(), flags, option::of(question), option::of(sent)).prop_map(
        |(under, value, time, (whole, claimed), question, sent)| {
            // A frozen difference always has the value that it was made from.
            let merges = matches!(&sent, Some(SentPatch { op: PatchOp::Merge(_), .. }));
            let value = if merges { value.or(Some(Value::Int(1))) } else { value };
            PendingPatch { under, value, device_time: Timestamp(time), whole, claimed, question, sent }
        },
    )
}

fn cause() -> impl Strategy<Value = Cause> {
    prop_oneof![
        prop::sample::select(&Policy::ALL[..]).prop_map(Cause::Policy),
        Just(Cause::Overwritten),
        Just(Cause::RolledBack),
        Just(Cause::Digest),
        Just(Cause::Rewritten),
    ]
}

fn loss() -> impl Strategy<Value = Loss> {
    let side = prop::sample::select(&[Side::Local, Side::Remote][..]);
    (a_key(), vec("[ab]", 0..2), side, option::of(value()), option::of(value()))
        .prop_map(|(key, path, side, under, value)| Loss { key, path, side, under, value })
}

fn parked_patch() -> impl Strategy<Value = ParkedPatch> {
    (a_key(), option::of(value()), option::of(value()), any::<i64>())
        .prop_map(|(key, under, value, time)| ParkedPatch { key, under, value, device_time: Timestamp(time) })
}

fn policies() -> impl Strategy<Value = Policies> {
    let policy = || prop::sample::select(&Policy::ALL[..]);
    let on_delete = prop::sample::select(&[OnDelete::EditWins, OnDelete::DeleteWins][..]);
    (option::of(policy()), prop::collection::btree_map("[ab]", policy(), 0..2), on_delete)
        .prop_map(|(dataset, prefixes, on_delete)| Policies { dataset, prefixes, on_delete, ..Policies::default() })
}

fn state() -> impl Strategy<Value = ReplicaState> {
    (any::<[u8; 16]>(), any::<u32>(), any::<bool>()).prop_map(|(digest, sequence, flag)| ReplicaState {
        digest: Digest::from_bytes(digest),
        sequence: u64::from(sequence),
        deleting: flag,
        local_only: !flag,
        ..ReplicaState::default()
    })
}
