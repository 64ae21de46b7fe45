//! A column of values, of columns of what is in them.

use std::collections::BTreeMap;

use crate::model::Value;
use crate::protocol::columns::InvalidBlock;
use crate::protocol::columns::reader::{Reader, text};
use crate::protocol::columns::writer::Writer;

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const FLOAT: u8 = 4;
const TEXT: u8 = 5;
const BYTES: u8 = 6;
const LIST: u8 = 7;
const MAP: u8 = 8;
const UNKNOWN: u8 = 9;
const KINDS: u8 = 10;

/// Maps with more names than this, and each in few of them, are keyed by something and not records.
const NAMES_MAX: usize = 16;
/// In so many maps a name is on average, at least, where maps are written by name.
const NAME_USES_MIN: usize = 4;

const fn kind(value: &Value) -> u8 {
    match value {
        Value::Null => NULL,
        Value::Bool(false) => FALSE,
        Value::Bool(true) => TRUE,
        Value::Int(_) => INT,
        Value::Float(_) => FLOAT,
        Value::Text(_) => TEXT,
        Value::Bytes(_) => BYTES,
        Value::List(_) => LIST,
        Value::Map(_) => MAP,
        Value::Unknown { .. } => UNKNOWN,
    }
}

/// Writes a column. Its length is known to the reader.
pub(super) fn write(values: &[&Value], to: &mut Writer) {
    to.count_values(values.len());
    to.kinds(values.iter().map(|value| kind(value)));
    let (mut integers, mut floats, mut texts, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut lists, mut maps, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for value in values {
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Int(it) => integers.push(*it),
            Value::Float(it) => floats.push(*it),
            Value::Text(it) => texts.push(it.as_bytes()),
            Value::Bytes(it) => bytes.push(it.as_slice()),
            Value::List(it) => lists.push(it),
            Value::Map(it) => maps.push(it),
            Value::Unknown { kind, bytes } => unknown.push((*kind, bytes.as_slice())),
        }
    }
    to.integers(&integers);
    to.floats(&floats);
    to.texts(texts.into_iter());
    to.texts(bytes.into_iter());
    if !lists.is_empty() {
        to.integers(&lists.iter().map(|list| list.len() as i64).collect::<Vec<_>>());
        write(&lists.into_iter().flatten().collect::<Vec<_>>(), to);
    }
    if !maps.is_empty() {
        write_maps(&maps, to);
    }
    to.integers(&unknown.iter().map(|(kind, _)| i64::from(*kind)).collect::<Vec<_>>());
    to.texts(unknown.into_iter().map(|(_, bytes)| bytes));
}

fn write_maps(maps: &[&BTreeMap<String, Value>], to: &mut Writer) {
    let columns = by_name(maps);
    let entries: usize = maps.iter().map(|map| map.len()).sum();
    if columns.len() > NAMES_MAX && entries < columns.len() * NAME_USES_MIN {
        to.number(1);
        to.integers(&maps.iter().map(|map| map.len() as i64).collect::<Vec<_>>());
        to.texts(maps.iter().flat_map(|map| map.keys()).map(|name| name.as_bytes()).collect::<Vec<_>>().into_iter());
        write(&maps.iter().flat_map(|map| map.values()).collect::<Vec<_>>(), to);
        return;
    }
    to.number(0);
    to.length(columns.len());
    to.texts(columns.iter().map(|(name, _)| name.as_bytes()));
    for (name, column) in columns {
        to.count_bytes(name.len() * column.len());
        write_rows(maps.len(), column.iter().map(|(row, _)| *row), column.len(), to);
        write(&column.into_iter().map(|(_, value)| value).collect::<Vec<_>>(), to);
    }
}

/// The columns of maps, in order of their names. A value has its row.
fn by_name<'a>(maps: &[&'a BTreeMap<String, Value>]) -> Vec<(&'a str, Vec<(usize, &'a Value)>)> {
    let mut columns: Vec<(&str, Vec<(usize, &Value)>)> = Vec::new();
    for (row, map) in maps.iter().enumerate() {
        // Both are in order, and most maps have the names of those before.
        let mut at = 0;
        for (name, value) in *map {
            if columns.get(at).is_none_or(|(here, _)| *here != name) {
                at += columns[at..].partition_point(|(here, _)| *here < name.as_str());
            }
            if columns.get(at).is_none_or(|(here, _)| *here != name) {
                columns.insert(at, (name, Vec::new()));
            }
            columns[at].1.push((row, value));
            at += 1;
        }
    }
    columns
}

/// Which of `all` rows are there: all of them, or gaps between those that are there or, if these are fewer, not.
fn write_rows(all: usize, there: impl Iterator<Item = usize> + Clone, count: usize, to: &mut Writer) {
    let missing = all - count;
    if missing == 0 {
        to.number(0);
    } else if missing < count {
        let mut there = there.peekable();
        to.length(missing * 2);
        write_gaps((0..all).filter(|row| there.next_if_eq(row).is_none()), to);
    } else {
        to.length(count * 2 + 1);
        write_gaps(there, to);
    }
}

fn write_gaps(rows: impl Iterator<Item = usize>, to: &mut Writer) {
    let mut next = 0;
    for row in rows {
        to.length(row - next);
        next = row + 1;
    }
}

/// Reads a column of `count` values, nested `depth` deep at most.
pub(super) fn read(count: usize, depth: usize, from: &mut Reader<'_>) -> Result<Vec<Value>, InvalidBlock> {
    from.take_values(count)?;
    let kinds = from.kinds(count, KINDS)?;
    let mut counts = [0_usize; KINDS as usize];
    kinds.iter().for_each(|kind| counts[usize::from(*kind)] += 1);
    let of = |kind: u8| counts[usize::from(kind)];
    let mut integers = from.integers(of(INT))?.into_iter();
    let mut floats = from.floats(of(FLOAT))?.into_iter();
    let mut texts = from.texts(of(TEXT))?.into_iter();
    let mut bytes = from.texts(of(BYTES))?.into_iter();
    let deeper = || depth.checked_sub(1).ok_or(InvalidBlock::Wrong("values that are nested too deep"));
    let mut lists = if of(LIST) > 0 { read_lists(of(LIST), deeper()?, from)? } else { Vec::new() }.into_iter();
    let mut maps = if of(MAP) > 0 { read_maps(of(MAP), deeper()?, from)? } else { Vec::new() }.into_iter();
    let mut unknown_kinds = from.integers(of(UNKNOWN))?.into_iter();
    let mut unknown = from.texts(of(UNKNOWN))?.into_iter();
    let value = |kind| {
        let it = match kind {
            NULL => Some(Value::Null),
            FALSE => Some(Value::Bool(false)),
            TRUE => Some(Value::Bool(true)),
            INT => integers.next().map(Value::Int),
            FLOAT => floats.next().map(|it| Value::from_f64(it).map_err(|_| not_a_float())).transpose()?,
            TEXT => texts.next().map(text).transpose()?.map(Value::Text),
            BYTES => bytes.next().map(|it| Value::Bytes(it.into_owned())),
            LIST => lists.next().map(Value::List),
            MAP => maps.next().map(Value::Map),
            _ => {
                let kind = unknown_kinds.next().and_then(|kind| i8::try_from(kind).ok());
                let kind = kind.ok_or(InvalidBlock::Wrong("a kind of value that cannot be"))?;
                unknown.next().map(|bytes| Value::Unknown { kind, bytes: bytes.into_owned() })
            }
        };
        it.ok_or(InvalidBlock::Short)
    };
    kinds.into_iter().map(value).collect()
}

const fn not_a_float() -> InvalidBlock {
    InvalidBlock::Wrong("a float that is not finite")
}

fn read_lists(count: usize, depth: usize, from: &mut Reader<'_>) -> Result<Vec<Vec<Value>>, InvalidBlock> {
    let lengths = from.lengths(count)?;
    let mut elements = read(sum(&lengths)?, depth, from)?.into_iter();
    Ok(lengths.into_iter().map(|length| elements.by_ref().take(length).collect()).collect())
}

fn read_maps(count: usize, depth: usize, from: &mut Reader<'_>) -> Result<Vec<BTreeMap<String, Value>>, InvalidBlock> {
    if from.way()? {
        let lengths = from.lengths(count)?;
        let names = from.texts(sum(&lengths)?)?;
        let values = read(names.len(), depth, from)?;
        let mut entries = names.into_iter().zip(values);
        let mut map = |length| {
            let mut map = BTreeMap::new();
            for (name, value) in entries.by_ref().take(length) {
                let name = text(name)?;
                if map.last_key_value().is_some_and(|(last, _)| *last >= name) {
                    return Err(names_out_of_order());
                }
                map.insert(name, value);
            }
            Ok(map)
        };
        return lengths.into_iter().map(&mut map).collect();
    }
    let names = from.count()?;
    let names = from.texts(names)?;
    if !names.is_sorted_by(|a, b| a < b) {
        return Err(names_out_of_order());
    }
    let mut maps = vec![Vec::new(); count];
    for name in names {
        let name = text(name)?;
        let rows = read_rows(count, from)?;
        let there = rows.len(count);
        from.take_bytes(name.len().checked_mul(there).ok_or(InvalidBlock::Short)?)?;
        let mut values = read(there, depth, from)?.into_iter();
        rows.each(count, |row| maps[row].extend(values.next().map(|value| (name.clone(), value))));
    }
    // In order already, which is a quick way to make a map.
    Ok(maps.into_iter().map(BTreeMap::from_iter).collect())
}

const fn names_out_of_order() -> InvalidBlock {
    InvalidBlock::Wrong("names that are not in order")
}

/// Which rows have a field.
enum Rows {
    All,
    Only(Vec<usize>),
    AllBut(Vec<usize>),
}

impl Rows {
    const fn len(&self, all: usize) -> usize {
        match self {
            Self::All => all,
            Self::Only(rows) => rows.len(),
            Self::AllBut(rows) => all - rows.len(),
        }
    }

    fn each(self, all: usize, act: impl FnMut(usize)) {
        match self {
            Self::All => (0..all).for_each(act),
            Self::Only(rows) => rows.into_iter().for_each(act),
            Self::AllBut(rows) => {
                let mut rows = rows.into_iter().peekable();
                (0..all).filter(|row| rows.next_if_eq(row).is_none()).for_each(act);
            }
        }
    }
}

fn read_rows(all: usize, from: &mut Reader<'_>) -> Result<Rows, InvalidBlock> {
    let how = from.length()?;
    let (listed, there) = (how / 2, how % 2 == 1);
    // The shorter list is written, and a name that no row has is not written at all.
    let as_written = if there { listed > 0 && listed * 2 <= all } else { listed * 2 < all };
    if !as_written {
        return Err(InvalidBlock::Wrong("rows that are not written as they must be"));
    }
    if how == 0 {
        return Ok(Rows::All);
    }
    let mut rows = Vec::new();
    let mut next = 0_usize;
    for _ in 0..listed {
        let row = next.checked_add(from.length()?).filter(|row| *row < all);
        let row = row.ok_or(InvalidBlock::Wrong("a row that is not there"))?;
        rows.push(row);
        next = row + 1;
    }
    Ok(if there { Rows::Only(rows) } else { Rows::AllBut(rows) })
}

/// The sum of lengths.
pub(super) fn sum(lengths: &[usize]) -> Result<usize, InvalidBlock> {
    let add = |sum: usize, length: &usize| sum.checked_add(*length);
    lengths.iter().try_fold(0, add).ok_or(InvalidBlock::Wrong("lengths beyond memory"))
}
