//! Strategies for values and messages.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::FileFailurePersistence;
use sync_core::model::{
    Added, ChangeId, CommitTag, Compare, Delta, DeviceId, Digest, EpochEntry, EpochId, EpochReason, FieldDelta, Group,
    GroupStep, NextPage, PatchOp, Position, Record, RecordKey, RecordPatch, RecordState, RemovalReason, SyncCount,
    Timestamp, Value,
};
use sync_core::protocol::{
    DatasetRequest, DatasetResponse, ErrorBody, GroupAnswer, GroupStatus, Overwritten, Page, Push, PushAnswer, Restart,
    SyncRequest, SyncResponse,
};

use crate::notation::dataset;

/// As many cases as `PROPTEST_CASES` says; what failed once is kept in one file.
pub(crate) fn config() -> ProptestConfig {
    let file = FileFailurePersistence::Direct("proptest-regressions/decisions.txt");
    ProptestConfig { failure_persistence: Some(Box::new(file)), ..ProptestConfig::default() }
}

pub(crate) fn number() -> impl Strategy<Value = Value> {
    let whole = prop_oneof![
        any::<i64>(),
        -3..=3_i64,
        (-3..=3_i64).prop_map(|near| (1 << 53) + near),
        (-3..=3_i64).prop_map(|near| -(1 << 53) + near),
        Just(i64::MAX),
        Just(i64::MIN),
    ];
    let float = prop_oneof![
        any::<f64>().prop_filter("finite", |float| float.is_finite()),
        (-4..=4_i32).prop_map(|n| f64::from(n) / 2.0),
        (-3..=3_i64).prop_map(|near| (1_i64 << 53) as f64 + near as f64 * 2.0),
        Just(9_223_372_036_854_775_808.0),
        Just(-9_223_372_036_854_775_808.0),
    ];
    prop_oneof![whole.prop_map(Value::Int), float.prop_map(|float| Value::from_f64(float).unwrap())]
}

pub(crate) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        number(),
        ".{0,40}".prop_map(Value::Text),
        vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
        (any::<i8>(), vec(any::<u8>(), 0..20)).prop_map(|(kind, bytes)| Value::Unknown { kind, bytes }),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..20).prop_map(Value::List),
            btree_map(r"\$?\$?(int|bytes|unknown|[a-zé]{0,3})", inner, 0..4).prop_map(Value::Map),
        ]
    })
}

fn count() -> impl Strategy<Value = SyncCount> {
    prop_oneof![0..9_u64, Just((1 << 53) - 1)].prop_map(SyncCount)
}

fn key() -> impl Strategy<Value = RecordKey> {
    "[a-z/é]{1,5}".prop_map(|key| RecordKey::parse(key).unwrap())
}

fn time() -> impl Strategy<Value = Timestamp> {
    (-5..1_i64 << 52).prop_map(Timestamp)
}

fn device() -> impl Strategy<Value = DeviceId> {
    any::<[u8; 16]>().prop_map(DeviceId::from_bytes)
}

fn position() -> impl Strategy<Value = Position> {
    (any::<[u8; 16]>(), count(), any::<[u8; 8]>()).prop_map(|(epoch, count, tag)| Position {
        epoch: EpochId::from_bytes(epoch),
        count,
        tag: CommitTag::from_bytes(tag),
    })
}

fn delta() -> impl Strategy<Value = Delta> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Delta::Add),
        (vec(value(), 0..3), vec(value(), 0..3)).prop_map(|(insert, remove)| Delta::Set { insert, remove }),
        value().prop_map(Delta::Max),
        value().prop_map(Delta::Min),
    ];
    leaf.prop_recursive(3, 9, 3, |inner| {
        let field =
            prop_oneof![value().prop_map(FieldDelta::Set), Just(FieldDelta::Remove), inner.prop_map(FieldDelta::Merge)];
        btree_map("[a-c$]{0,2}", field, 0..3).prop_map(Delta::Fields)
    })
}

fn compare() -> impl Strategy<Value = Compare> {
    prop_oneof![Just(Compare::Base), Just(Compare::EditTime), Just(Compare::Nothing)]
}

fn patch() -> impl Strategy<Value = RecordPatch> {
    let op = prop_oneof![
        (value(), compare()).prop_map(|(value, compare)| PatchOp::Replace(value, compare)),
        compare().prop_map(PatchOp::Remove),
        delta().prop_map(PatchOp::Merge),
    ];
    (key(), op, count(), time()).prop_map(|(key, op, base, device_time)| RecordPatch { key, op, base, device_time })
}

fn push() -> impl Strategy<Value = Push> {
    let change_id = || any::<[u8; 16]>().prop_map(ChangeId::from_bytes);
    let added = (key(), vec("[a-c]", 0..2), any::<i64>()).prop_map(|(key, path, by)| Added { key, path, by });
    let step = (change_id(), vec(added, 0..3)).prop_map(|(change_id, added)| GroupStep { change_id, added });
    let group = (change_id(), vec(patch(), 0..3), vec(step, 0..3)).prop_map(|(change_id, patches, earlier)| Group {
        change_id,
        patches,
        earlier,
    });
    (device(), 0..1_u64 << 53, vec(group, 0..3)).prop_map(|(device, sequence, groups)| Push {
        device,
        sequence,
        groups,
    })
}

fn next_page() -> impl Strategy<Value = NextPage> {
    (count(), position(), count(), key()).prop_map(|(since, at, after_count, after_key)| NextPage {
        since,
        at,
        after_count,
        after_key,
    })
}

pub(crate) fn request() -> impl Strategy<Value = SyncRequest> {
    use proptest::option::of;
    let asked = (of(position()), any::<bool>(), of(next_page()), of(push()), any::<bool>(), of(any::<u32>()));
    let asked = asked.prop_map(|(cursor, snapshot, page, push, delete, pull_limit)| DatasetRequest {
        owner: None,
        name: dataset(),
        cursor,
        snapshot,
        page,
        push,
        delete,
        pull_limit,
    });
    (any::<u32>(), device(), of(any::<u32>()), any::<bool>(), vec(asked, 0..3)).prop_map(
        |(version, device, limits_version, list, datasets)| SyncRequest {
            version,
            device,
            app: None,
            limits_version,
            list,
            datasets,
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    use proptest::option::of;
    let state = prop_oneof![
        value().prop_map(RecordState::Value),
        Just(RecordState::Removed(RemovalReason::Removed)),
        Just(RecordState::Removed(RemovalReason::Left)),
    ];
    (key(), state, count(), of(device()), time(), time()).prop_map(
        |(key, state, sync_count, modified_by, modified_at, device_time)| Record {
            key,
            state,
            sync_count,
            modified_by,
            modified_at,
            device_time,
        },
    )
}

fn page() -> impl Strategy<Value = Page> {
    use proptest::option::of;
    let entry = (any::<[u8; 16]>(), count()).prop_map(|(epoch, start)| EpochEntry {
        epoch: EpochId::from_bytes(epoch),
        start,
        why: EpochReason::Day,
    });
    let tag = (count(), any::<[u8; 8]>()).prop_map(|(count, tag)| (count, CommitTag::from_bytes(tag)));
    let digest = any::<[u8; 16]>().prop_map(Digest::from_bytes);
    let parts = (
        vec(record(), 0..4),
        of(position()),
        of(next_page()),
        of(vec(entry, 0..3)),
        vec(tag, 0..3),
        count(),
        of(digest),
    );
    parts.prop_map(|(records, position, next, line, tags, floor, digest)| Page {
        total: records.len() as u64,
        records,
        position,
        next,
        line,
        tags,
        floor,
        digest,
    })
}

pub(crate) fn response() -> impl Strategy<Value = SyncResponse> {
    use proptest::option::of;
    let status = prop_oneof![
        Just(GroupStatus::Applied),
        Just(GroupStatus::Merged),
        Just(GroupStatus::Rewritten),
        Just(GroupStatus::Conflict),
        Just(GroupStatus::Refused),
    ];
    let over =
        (key(), vec("[a-z]{0,2}", 0..3), of(value())).prop_map(|(key, path, value)| Overwritten { key, path, value });
    let group = (status, of(".{0,9}"), vec(over, 0..3), vec(key(), 0..2));
    let group = group.prop_map(|(status, message, overwritten, rewritten)| GroupAnswer {
        status,
        code: message.clone(),
        message,
        overwritten,
        rewritten,
    });
    let push = (0..1_u64 << 53, any::<bool>(), of(position()), vec(group, 0..3))
        .prop_map(|(sequence, copied, ack, groups)| PushAnswer { sequence, copied, ack, groups });
    let error = ".{0,9}".prop_map(|message| ErrorBody { code: "InternalError".into(), message });
    let restart = any::<bool>().prop_map(|snapshot| Restart { snapshot });
    let answered = (of(push), of(page()), of(restart), of(any::<bool>()), of(error)).prop_map(
        |(push, page, restart, deleted, error)| DatasetResponse {
            push,
            page,
            restart,
            deleted,
            error,
            ..DatasetResponse::empty(None, dataset())
        },
    );
    (time(), of(0..1_u64 << 53), vec(answered, 0..3)).prop_map(|(server_time, retry_after_ms, datasets)| SyncResponse {
        version: 1,
        server_time,
        retry_after_ms,
        datasets,
        ..SyncResponse::default()
    })
}

/// Some bytes are changed, put in or taken out.
pub(crate) fn mutate(mut bytes: Vec<u8>, changes: Vec<(Index, u8, u8)>) -> Vec<u8> {
    for (at, kind, byte) in changes {
        if bytes.is_empty() {
            break;
        }
        let at = at.index(bytes.len());
        match kind % 4 {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
    bytes
}
