//! Parts of the model that are drawn from an input: few keys, ids and counts, so that they meet each other.

use std::collections::BTreeMap;

use sync_core::model::{
    Added, ChangeId, CommitTag, Compare, Delta, DeviceId, Digest, EpochEntry, EpochId, EpochReason, FieldDelta, Group,
    GroupStep, Lineage, NextPage, Overwritten, PatchOp, Position, Record, RecordKey, RecordPatch, RecordState,
    RemovalReason, SyncCount, Timestamp, Value,
};
use sync_core::policy::{OnDelete, Policies, Policy};
use sync_core::protocol::{
    DatasetRequest, DatasetResponse, ErrorBody, GroupAnswer, GroupStatus, Page, Push, PushAnswer, Reset, Restart,
};

use crate::fuzz::input::Input;

const KEYS: [&str; 13] = ["l", "k", "r", "a", "a/2", "e", "s", "m", "n", "f", "f/2", "x", "c"];
const NAMES: [&str; 5] = ["", "a", "b", "c", "$int"];
const TEXTS: [&str; 6] = ["", "a", "one\ntwo\nthree\n", "one\n2\nthree\n", "zero\none\ntwo", "one\nthree\n4\n"];
const DEPTH_MAX: usize = 4;

/// Policies by the first letter of a key.
pub(super) fn policies(input: &mut Input<'_>) -> Policies {
    let prefixes = [
        ("l", Policy::LastSyncWins),
        ("k", Policy::KeepLocal),
        ("r", Policy::KeepRemote),
        ("a", Policy::Ask),
        ("e", Policy::LatestEditWins),
        ("s", Policy::Set),
        ("m", Policy::Max),
        ("n", Policy::Min),
        ("f", Policy::Fields),
        ("x", Policy::Text),
        ("c", Policy::Counter),
    ];
    let fields = ["a", "b", "c", "a/b", "a/a"].into_iter().map(|path| (path.to_owned(), *input.pick(&Policy::ALL)));
    Policies {
        fields: fields.filter(|(_, policy)| policy.is_for_fields()).collect(),
        prefixes: prefixes.into_iter().map(|(prefix, policy)| (prefix.to_owned(), policy)).collect(),
        dataset: None,
        on_delete: if input.flag() { OnDelete::DeleteWins } else { OnDelete::EditWins },
    }
}

pub(super) fn key(input: &mut Input<'_>) -> RecordKey {
    RecordKey::parse(*input.pick(&KEYS)).expect("it is a valid key")
}

pub(super) fn value(input: &mut Input<'_>) -> Value {
    value_within(input, DEPTH_MAX)
}

fn value_within(input: &mut Input<'_>, depth: usize) -> Value {
    match input.below(if depth == 0 { 11 } else { 17 }) {
        0 => Value::Null,
        1 => Value::Bool(input.flag()),
        2..=4 => Value::Int(input.integer()),
        5 => Value::from_f64(f64::from_be_bytes(input.array())).unwrap_or(Value::Null),
        6 => Value::from_f64(f64::from(input.byte()) / 4.0).unwrap_or(Value::Null),
        7 => Value::Text(input.text()),
        8 => Value::Text((*input.pick(&TEXTS)).to_owned()),
        9 => Value::Bytes(input.bytes().to_vec()),
        10 => Value::Unknown { kind: input.byte() as i8, bytes: input.bytes().to_vec() },
        11..=12 => Value::List((0..input.below(5)).map(|_| value_within(input, depth - 1)).collect()),
        // Deeper than is allowed, perhaps.
        13 => (0..input.below(40)).fold(Value::Null, |inner, _| Value::List(vec![inner])),
        _ => {
            let mut fields = BTreeMap::new();
            for _ in 0..input.below(4) {
                fields.insert((*input.pick(&NAMES)).to_owned(), value_within(input, depth - 1));
            }
            Value::Map(fields)
        }
    }
}

fn delta(input: &mut Input<'_>, depth: usize) -> Delta {
    match input.below(if depth == 0 { 5 } else { 7 }) {
        0 | 1 => Delta::Add(input.integer()),
        2 => {
            let mut list = || (0..input.below(3)).map(|_| value_within(input, 1)).collect();
            Delta::Set { insert: list(), remove: list() }
        }
        3 => Delta::Max(value_within(input, 1)),
        4 => Delta::Min(value_within(input, 1)),
        _ => {
            let mut fields = BTreeMap::new();
            for _ in 0..input.below(4) {
                let name = (*input.pick(&NAMES)).to_owned();
                let field = match input.below(4) {
                    0 => FieldDelta::Set(value_within(input, 2)),
                    1 => FieldDelta::Remove,
                    _ => FieldDelta::Merge(delta(input, depth - 1)),
                };
                fields.insert(name, field);
            }
            Delta::Fields(fields)
        }
    }
}

/// A patch, whose base is one of the latest counts.
pub(super) fn patch(input: &mut Input<'_>, count: SyncCount, now: Timestamp) -> RecordPatch {
    let key = key(input);
    let compare = *input.pick(&[Compare::Base, Compare::EditTime, Compare::Nothing]);
    let op = match input.below(6) {
        0 => PatchOp::Remove(compare),
        1 | 2 => PatchOp::Replace(value(input), compare),
        _ => PatchOp::Merge(delta(input, 3)),
    };
    let base = match input.below(8) {
        0 => SyncCount::ZERO,
        1 => SyncCount::NEVER,
        back => SyncCount(count.0.saturating_sub(back as u64 - 2)),
    };
    RecordPatch { key, op, base, device_time: time(input, now) }
}

pub(super) fn group(input: &mut Input<'_>, count: SyncCount, now: Timestamp) -> Group {
    let added = |input: &mut Input<'_>| Added {
        key: key(input),
        path: (0..input.below(3)).map(|_| (*input.pick(&NAMES)).to_owned()).collect(),
        by: input.integer(),
    };
    Group {
        change_id: change_id(input),
        patches: (0..input.below(5)).map(|_| patch(input, count, now)).collect(),
        earlier: (0..input.below(8).saturating_sub(5))
            .map(|_| GroupStep {
                change_id: change_id(input),
                added: (0..input.below(3)).map(|_| added(input)).collect(),
            })
            .collect(),
    }
}

fn change_id(input: &mut Input<'_>) -> ChangeId {
    ChangeId::from_bytes([input.byte() % 32; 16])
}

pub(super) fn device(input: &mut Input<'_>) -> DeviceId {
    DeviceId::from_bytes([input.byte() % 3; 16])
}

/// A time near the present, and sometimes any.
pub(super) fn time(input: &mut Input<'_>, now: Timestamp) -> Timestamp {
    if input.one_in(8) { Timestamp(input.integer()) } else { now.plus_ms(i64::from(input.byte()) - 128) }
}

/// A count near another, and sometimes any that the protocol allows.
pub(super) fn count(input: &mut Input<'_>, near: SyncCount) -> SyncCount {
    match input.byte() {
        255 => SyncCount::NEVER,
        254 => SyncCount(u64::from_be_bytes(input.array()) >> 11),
        near_by => SyncCount((near.0 + u64::from(near_by % 8)).saturating_sub(3)),
    }
}

pub(super) fn position(input: &mut Input<'_>, near: SyncCount) -> Position {
    Position {
        epoch: EpochId::from_bytes([input.byte() % 4; 16]),
        count: count(input, near),
        tag: CommitTag::from_bytes([input.byte() % 3; 8]),
    }
}

pub(super) fn line(input: &mut Input<'_>, near: SyncCount) -> Vec<EpochEntry> {
    let reasons = [EpochReason::Created, EpochReason::Day, EpochReason::Fenced, EpochReason::RolledBack];
    let entry = |input: &mut Input<'_>| EpochEntry {
        epoch: EpochId::from_bytes([input.byte() % 4; 16]),
        start: count(input, near),
        why: if input.one_in(6) { EpochReason::Deleted } else { *input.pick(&reasons) },
    };
    (0..input.below(5)).map(|_| entry(input)).collect()
}

pub(super) fn tags(input: &mut Input<'_>, near: SyncCount) -> Vec<(SyncCount, CommitTag)> {
    (0..input.below(4)).map(|_| (count(input, near), CommitTag::from_bytes([input.byte() % 3; 8]))).collect()
}

pub(super) fn lineage(input: &mut Input<'_>, near: SyncCount) -> Lineage {
    let tags = tags(input, near).into_iter().collect();
    Lineage { entries: line(input, near), count: count(input, near), tags }
}

pub(super) fn next_page(input: &mut Input<'_>, near: SyncCount) -> NextPage {
    NextPage {
        since: count(input, near),
        at: position(input, near),
        after_count: count(input, near),
        after_key: key(input),
    }
}

pub(super) fn record(input: &mut Input<'_>, near: SyncCount, now: Timestamp) -> Record {
    let state = match input.below(8) {
        0 | 1 => RecordState::Removed(RemovalReason::Removed),
        2 => RecordState::Removed(RemovalReason::Left),
        _ => RecordState::Value(value(input)),
    };
    Record {
        key: key(input),
        state,
        sync_count: count(input, near),
        modified_by: input.flag().then(|| device(input)),
        modified_at: now,
        device_time: time(input, now),
    }
}

pub(super) fn overwritten(input: &mut Input<'_>) -> Overwritten {
    Overwritten {
        key: key(input),
        path: (0..input.below(3)).map(|_| (*input.pick(&NAMES)).to_owned()).collect(),
        value: input.flag().then(|| value(input)),
    }
}

/// An answer to a request: mostly one that fits.
pub(super) fn response(
    input: &mut Input<'_>,
    request: &DatasetRequest,
    near: SyncCount,
    now: Timestamp,
) -> DatasetResponse {
    let push = request.push.as_ref().filter(|_| !input.one_in(6)).map(|push| push_answer(input, push, near));
    let mut response = DatasetResponse { push, ..DatasetResponse::empty(None, request.name.clone()) };
    match input.below(16) {
        0 => response.restart = Some(Restart { snapshot: input.flag() }),
        1 => response.reset = Some(Reset { lineage: lineage(input, near), floor: count(input, near) }),
        2 => response.error = Some(ErrorBody { code: "InternalError".to_owned(), message: String::new() }),
        3 => response.deleted = Some(input.flag()),
        4 => {}
        _ => response.page = Some(page(input, near, now)),
    }
    if request.delete && input.flag() {
        response.deleted = Some(input.flag());
    }
    response
}

fn push_answer(input: &mut Input<'_>, push: &Push, near: SyncCount) -> PushAnswer {
    let statuses = [
        GroupStatus::Applied,
        GroupStatus::Merged,
        GroupStatus::Rewritten,
        GroupStatus::Conflict,
        GroupStatus::Refused,
        GroupStatus::Unknown,
    ];
    let answer = |input: &mut Input<'_>, group: &Group| GroupAnswer {
        status: *input.pick(&statuses),
        code: None,
        message: None,
        overwritten: (0..input.below(6).saturating_sub(3)).map(|_| overwritten(input)).collect(),
        rewritten: group.patches.iter().filter(|_| input.flag()).map(|patch| patch.key.clone()).collect(),
    };
    PushAnswer {
        sequence: if input.one_in(16) { 1 } else { push.sequence },
        copied: input.one_in(16),
        ack: (!input.one_in(8)).then(|| position(input, near)),
        groups: push.groups.iter().map(|group| answer(input, group)).collect(),
    }
}

fn page(input: &mut Input<'_>, near: SyncCount, now: Timestamp) -> Page {
    let records: BTreeMap<_, _> =
        (0..input.below(6)).map(|_| record(input, near, now)).map(|record| (record.key.clone(), record)).collect();
    Page {
        total: records.len() as u64,
        records: records.into_values().collect(),
        position: (!input.one_in(8)).then(|| position(input, near)),
        next: input.one_in(4).then(|| next_page(input, near)),
        line: input.one_in(3).then(|| line(input, near)),
        tags: tags(input, near),
        floor: if input.one_in(4) { count(input, near) } else { SyncCount::ZERO },
        digest: input.one_in(8).then(Digest::default),
    }
}

/// The digest of records, calculated anew.
pub(super) fn digest<'a>(records: impl IntoIterator<Item = &'a Record>) -> Digest {
    records.into_iter().fold(Digest::default(), Digest::plus)
}
