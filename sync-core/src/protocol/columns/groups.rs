//! The groups of a push.

use std::collections::BTreeMap;

use crate::model::{
    Added, ChangeId, Compare, Delta, FieldDelta, Group, GroupStep, PatchOp, RecordPatch, SyncCount, Timestamp, Value,
};
use crate::protocol::columns::reader::{Reader, text};
use crate::protocol::columns::writer::Writer;
use crate::protocol::columns::{Columns, InvalidBlock, values};

const REMOVE: u8 = 0;
const REPLACE: u8 = 3;
const MERGE: u8 = 6;
const OPS: u8 = 7;

const COMPARES: [Compare; 3] = [Compare::Base, Compare::EditTime, Compare::Nothing];

/// How deep a difference may be nested when it is written as a value: a field in a field is three levels.
const DELTA_DEPTH_MAX: usize = 4 + 3 * Value::DEPTH_MAX;

fn op(patch: &RecordPatch) -> u8 {
    let place = |compare: Compare| COMPARES.iter().position(|it| *it == compare).unwrap_or_default() as u8;
    match &patch.op {
        PatchOp::Remove(compare) => REMOVE + place(*compare),
        PatchOp::Replace(_, compare) => REPLACE + place(*compare),
        PatchOp::Merge(_) => MERGE,
    }
}

impl Columns for Group {
    fn write(rows: &[Self], to: &mut Writer) {
        let patches: Vec<_> = rows.iter().flat_map(|group| &group.patches).collect();
        to.count_values(rows.len() + patches.len());
        to.length(rows.len());
        rows.iter().for_each(|group| to.raw(group.change_id.as_bytes()));
        to.integers(&rows.iter().map(|group| group.patches.len() as i64).collect::<Vec<_>>());
        to.keys(patches.iter().map(|patch| patch.key.as_str()));
        to.kinds(patches.iter().map(|patch| op(patch)));
        to.integers(&patches.iter().map(|patch| patch.base.0 as i64).collect::<Vec<_>>());
        to.integers(&patches.iter().map(|patch| patch.device_time.0).collect::<Vec<_>>());
        let replaced = patches.iter().filter_map(|patch| match &patch.op {
            PatchOp::Replace(value, _) => Some(value),
            PatchOp::Remove(_) | PatchOp::Merge(_) => None,
        });
        values::write(&replaced.collect::<Vec<_>>(), to);
        let merged = patches.iter().filter_map(|patch| match &patch.op {
            PatchOp::Merge(delta) => Some(from_delta(delta)),
            PatchOp::Remove(_) | PatchOp::Replace(..) => None,
        });
        let merged: Vec<_> = merged.collect();
        values::write(&merged.iter().collect::<Vec<_>>(), to);
        to.integers(&rows.iter().map(|group| group.earlier.len() as i64).collect::<Vec<_>>());
        write_steps(&rows.iter().flat_map(|group| &group.earlier).collect::<Vec<_>>(), to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Vec<Self>, InvalidBlock> {
        let count = from.count()?;
        from.take_values(count)?;
        let ids = (0..count).map(|_| change_id(from)).collect::<Result<Vec<_>, _>>()?;
        let lengths = from.lengths(count)?;
        let mut patches = read_patches(values::sum(&lengths)?, from)?.into_iter();
        let earlier = from.lengths(count)?;
        let mut steps = read_steps(values::sum(&earlier)?, from)?.into_iter();
        let groups = ids.into_iter().zip(lengths.into_iter().zip(earlier));
        Ok(groups
            .map(|(change_id, (length, earlier))| Self {
                change_id,
                patches: patches.by_ref().take(length).collect(),
                earlier: steps.by_ref().take(earlier).collect(),
            })
            .collect())
    }
}

fn read_patches(count: usize, from: &mut Reader<'_>) -> Result<Vec<RecordPatch>, InvalidBlock> {
    from.take_values(count)?;
    let keys = from.keys(count)?;
    let ops = from.kinds(count, OPS)?;
    let bases = from.integers(count)?;
    let times = from.integers(count)?;
    let replaced = ops.iter().filter(|op| (REPLACE..MERGE).contains(*op)).count();
    let mut replaced = values::read(replaced, Value::DEPTH_MAX, from)?.into_iter();
    let merged = ops.iter().filter(|op| **op == MERGE).count();
    let mut merged = values::read(merged, DELTA_DEPTH_MAX, from)?.into_iter();
    let mut patches = Vec::with_capacity(count);
    for (at, key) in keys.into_iter().enumerate() {
        let op = match ops[at] {
            MERGE => PatchOp::Merge(to_delta(merged.next().ok_or(InvalidBlock::Short)?)?),
            op if op >= REPLACE => {
                PatchOp::Replace(replaced.next().ok_or(InvalidBlock::Short)?, COMPARES[usize::from(op - REPLACE)])
            }
            op => PatchOp::Remove(COMPARES[usize::from(op)]),
        };
        let base = u64::try_from(bases[at]).map_err(|_| InvalidBlock::Wrong("a negative base"))?;
        patches.push(RecordPatch { key, op, base: SyncCount(base), device_time: Timestamp(times[at]) });
    }
    Ok(patches)
}

fn write_steps(steps: &[&GroupStep], to: &mut Writer) {
    let added: Vec<_> = steps.iter().flat_map(|step| &step.added).collect();
    let names: Vec<_> = added.iter().flat_map(|added| &added.path).map(|name| name.as_bytes()).collect();
    to.count_values(steps.len() + added.len() + names.len());
    steps.iter().for_each(|step| to.raw(step.change_id.as_bytes()));
    to.integers(&steps.iter().map(|step| step.added.len() as i64).collect::<Vec<_>>());
    to.keys(added.iter().map(|added| added.key.as_str()));
    to.integers(&added.iter().map(|added| added.path.len() as i64).collect::<Vec<_>>());
    to.texts(names.into_iter());
    to.integers(&added.iter().map(|added| added.by).collect::<Vec<_>>());
}

fn read_steps(count: usize, from: &mut Reader<'_>) -> Result<Vec<GroupStep>, InvalidBlock> {
    from.take_values(count)?;
    let ids = (0..count).map(|_| change_id(from)).collect::<Result<Vec<_>, _>>()?;
    let lengths = from.lengths(count)?;
    let all = values::sum(&lengths)?;
    from.take_values(all)?;
    let keys = from.keys(all)?;
    let depths = from.lengths(all)?;
    let names = values::sum(&depths)?;
    from.take_values(names)?;
    let mut names = from.texts(names)?.into_iter();
    let by = from.integers(all)?;
    let mut added = Vec::with_capacity(all);
    for ((key, depth), by) in keys.into_iter().zip(depths).zip(by) {
        let path = names.by_ref().take(depth).map(text).collect::<Result<_, _>>()?;
        added.push(Added { key, path, by });
    }
    let mut added = added.into_iter();
    let steps = ids.into_iter().zip(lengths);
    Ok(steps.map(|(change_id, length)| GroupStep { change_id, added: added.by_ref().take(length).collect() }).collect())
}

fn change_id(from: &mut Reader<'_>) -> Result<ChangeId, InvalidBlock> {
    ChangeId::parse_bytes(from.raw(16)?).map_err(|_| InvalidBlock::Short)
}

const MAX: &str = ">";
const MIN: &str = "<";
const FIELDS: &str = "f";
const MERGED: &str = "m";

/// A difference as a value, so that its parts stand in columns: an integer adds, a pair of lists inserts and removes, and
/// a map of one name does what the name says.
fn from_delta(delta: &Delta) -> Value {
    match delta {
        Delta::Add(by) => Value::Int(*by),
        Delta::Set { insert, remove } => Value::List(vec![Value::List(insert.clone()), Value::List(remove.clone())]),
        Delta::Max(value) => named(MAX, value.clone()),
        Delta::Min(value) => named(MIN, value.clone()),
        Delta::Fields(fields) => {
            let fields = fields.iter().map(|(name, field)| (name.clone(), from_field(field)));
            named(FIELDS, Value::Map(fields.collect()))
        }
    }
}

/// Nothing removes a field, a list of one value sets it, and a named difference is merged into it.
fn from_field(field: &FieldDelta) -> Value {
    match field {
        FieldDelta::Remove => Value::Null,
        FieldDelta::Set(value) => Value::List(vec![value.clone()]),
        FieldDelta::Merge(delta) => named(MERGED, from_delta(delta)),
    }
}

fn named(name: &str, value: Value) -> Value {
    Value::Map(BTreeMap::from([(name.to_owned(), value)]))
}

fn to_delta(value: Value) -> Result<Delta, InvalidBlock> {
    match value {
        Value::Int(by) => Ok(Delta::Add(by)),
        Value::List(pair) => match <[Value; 2]>::try_from(pair) {
            Ok([Value::List(insert), Value::List(remove)]) => {
                insert.iter().chain(&remove).try_for_each(check_depth)?;
                Ok(Delta::Set { insert, remove })
            }
            _ => Err(not_a_difference()),
        },
        Value::Map(named) => match only(named) {
            Some((name, value)) if name == MAX => Ok(Delta::Max(within(value)?)),
            Some((name, value)) if name == MIN => Ok(Delta::Min(within(value)?)),
            Some((name, Value::Map(fields))) if name == FIELDS => {
                let field = |(name, value)| Ok((name, to_field(value)?));
                Ok(Delta::Fields(fields.into_iter().map(field).collect::<Result<_, _>>()?))
            }
            _ => Err(not_a_difference()),
        },
        _ => Err(not_a_difference()),
    }
}

fn to_field(value: Value) -> Result<FieldDelta, InvalidBlock> {
    match value {
        Value::Null => Ok(FieldDelta::Remove),
        Value::List(one) => match <[Value; 1]>::try_from(one) {
            Ok([value]) => Ok(FieldDelta::Set(within(value)?)),
            Err(_) => Err(not_a_difference()),
        },
        Value::Map(named) => match only(named) {
            Some((name, value)) if name == MERGED => Ok(FieldDelta::Merge(to_delta(value)?)),
            _ => Err(not_a_difference()),
        },
        _ => Err(not_a_difference()),
    }
}

fn only(map: BTreeMap<String, Value>) -> Option<(String, Value)> {
    if map.len() == 1 { map.into_iter().next() } else { None }
}

/// A value within a difference, which is nested no deeper than others.
fn within(value: Value) -> Result<Value, InvalidBlock> {
    check_depth(&value).map(|()| value)
}

fn check_depth(value: &Value) -> Result<(), InvalidBlock> {
    value.check_depth().map_err(|_| InvalidBlock::Wrong("values that are nested too deep"))
}

const fn not_a_difference() -> InvalidBlock {
    InvalidBlock::Wrong("a value that is no difference")
}
