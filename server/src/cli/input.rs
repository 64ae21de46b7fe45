//! What comes from files: records of a JSON array or of JSON lines, and the changes of a group.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek};
use std::path::Path;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed as _, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sync_core::model::{Limits, RecordKey, Value};

use crate::cli::exit::CliError;

/// A file that can be read twice: standard input is kept in memory.
pub(super) enum Input {
    File(BufReader<File>),
    Memory(Cursor<Vec<u8>>),
}

impl Input {
    pub(super) fn open(path: &Path) -> Result<Self, CliError> {
        if path == Path::new("-") {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes)?;
            return Ok(Self::Memory(Cursor::new(bytes)));
        }
        match File::open(path) {
            Ok(file) if file.metadata().is_ok_and(|it| it.is_file()) => Ok(Self::File(BufReader::new(file))),
            // A pipe under a name.
            Ok(mut pipe) => {
                let mut bytes = Vec::new();
                pipe.read_to_end(&mut bytes)?;
                Ok(Self::Memory(Cursor::new(bytes)))
            }
            Err(error) => Err(CliError::Usage(format!("{} cannot be read: {error}", path.display()))),
        }
    }

    /// Hands over each record from the beginning: the elements of a JSON array, or the values of JSON lines.
    pub(super) fn records(&mut self, each: &mut dyn FnMut(u64, &str) -> Result<(), CliError>) -> Result<(), CliError> {
        match self {
            Self::File(file) => {
                file.rewind()?;
                records(file, each)
            }
            Self::Memory(bytes) => {
                bytes.rewind()?;
                records(bytes, each)
            }
        }
    }
}

fn records(reader: &mut dyn BufRead, each: &mut dyn FnMut(u64, &str) -> Result<(), CliError>) -> Result<(), CliError> {
    let mut elements = Elements { each, number: 0, failed: None };
    let begins_with = skip_blanks(reader)?;
    if begins_with == Some(b'[') {
        let mut json = serde_json::Deserializer::from_reader(&mut *reader);
        let read = (&mut elements).deserialize(&mut json).and_then(|()| json.end());
        return elements.end(read);
    }
    for record in serde_json::Deserializer::from_reader(reader).into_iter::<Box<RawValue>>() {
        let read = record.map(|record| elements.next(&record));
        if read.is_err() || elements.failed.is_some() {
            return elements.end(read);
        }
    }
    Ok(())
}

fn skip_blanks(reader: &mut dyn BufRead) -> Result<Option<u8>, CliError> {
    loop {
        let bytes = reader.fill_buf()?;
        let blanks = bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let first = bytes.get(blanks).copied();
        let end = bytes.is_empty();
        reader.consume(blanks);
        if first.is_some() || end {
            return Ok(first);
        }
    }
}

/// Reads one element after the other, so that a file may be larger than memory.
struct Elements<'a> {
    each: &'a mut dyn FnMut(u64, &str) -> Result<(), CliError>,
    number: u64,
    failed: Option<CliError>,
}

impl Elements<'_> {
    fn next(&mut self, record: &RawValue) {
        self.number += 1;
        self.failed = (self.each)(self.number, record.get()).err();
    }

    fn end(self, read: serde_json::Result<()>) -> Result<(), CliError> {
        match (self.failed, read) {
            (Some(failed), _) => Err(failed),
            (None, Err(error)) => {
                Err(CliError::Usage(format!("after record {} the file is not valid JSON: {error}", self.number)))
            }
            (None, Ok(())) => Ok(()),
        }
    }
}

impl<'de> de::DeserializeSeed<'de> for &mut Elements<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut Elements<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(record) = seq.next_element::<Box<RawValue>>()? {
            self.next(&record);
            if self.failed.is_some() {
                return Err(de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// Parses a record of an import; its key is in one of its fields.
pub(super) fn parse_record(number: u64, json: &str, key: &str) -> Result<(RecordKey, Value), CliError> {
    let wrong = |what: String| CliError::Usage(format!("record {number}: {what}"));
    let value = Value::parse_json(json).map_err(|error| wrong(error.to_string()))?;
    let Value::Map(fields) = &value else {
        return Err(wrong(format!("it is not an object, so it has no field `{key}`")));
    };
    let text = match fields.get(key) {
        Some(Value::Text(text)) => text.clone(),
        Some(Value::Int(int)) => int.to_string(),
        Some(float @ Value::Float(_)) => float.to_json(),
        Some(_) => return Err(wrong(format!("the field `{key}` is neither text nor a number"))),
        None => return Err(wrong(format!("it has no field `{key}`"))),
    };
    let key = RecordKey::parse(text).map_err(|error| wrong(error.to_string()))?;
    Ok((key, value))
}

/// The keys seen so far and where, to refuse a second one.
#[derive(Default)]
pub(super) struct Seen(BTreeMap<RecordKey, u64>);

impl Seen {
    pub(super) fn insert(&mut self, number: u64, key: &RecordKey) -> Result<(), CliError> {
        match self.0.insert(key.clone(), number) {
            None => Ok(()),
            Some(first) => {
                Err(CliError::Usage(format!("record {number}: its key `{key}` is also that of record {first}")))
            }
        }
    }
}

/// Refuses a value that no server of these limits would take.
pub(super) fn check_size(number: u64, value: &Value, limits: &Limits) -> Result<(), CliError> {
    let (len, max) = (value.encoded_len(), limits.value_bytes_max);
    if len <= max {
        return Ok(());
    }
    Err(CliError::LimitExceeded(format!("record {number}: its value has {len} bytes, and the limit is {max}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeLine {
    op: ChangeOp,
    key: String,
    #[serde(default, deserialize_with = "present")]
    value: Option<Box<RawValue>>,
}

/// Tells a `null` from a field that is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ChangeOp {
    Put,
    Remove,
}

/// Parses one line of a group: the key, and the value unless the record is removed.
pub(super) fn parse_change(number: u64, json: &str) -> Result<(RecordKey, Option<Value>), CliError> {
    let wrong = |what: String| CliError::Usage(format!("change {number}: {what}"));
    let line: ChangeLine = serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
    let key = RecordKey::parse(line.key).map_err(|error| wrong(error.to_string()))?;
    match (line.op, line.value) {
        (ChangeOp::Put, Some(value)) => {
            let value = Value::parse_json(value.get()).map_err(|error| wrong(error.to_string()))?;
            Ok((key, Some(value)))
        }
        (ChangeOp::Remove, None) => Ok((key, None)),
        (ChangeOp::Put, None) => Err(wrong("`put` needs a `value`".into())),
        (ChangeOp::Remove, Some(_)) => Err(wrong("`remove` takes no `value`".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(file: &str, expected: &str) {
        let mut input = Input::Memory(Cursor::new(file.into()));
        let mut found = Vec::new();
        let read = input.records(&mut |number, json| {
            let (key, value) = parse_record(number, json, "id")?;
            found.push(format!("{key}={}", value.to_json()));
            Ok(())
        });
        if let Err(error) = read {
            found.push(error.to_string());
        }
        assert_eq!(found.join(" "), expected);
    }

    #[test]
    fn arrays_and_lines_hold_records() {
        check(r#" [{"id":1}, {"id":"b","x":null}] "#, r#"1={"id":1} b={"id":"b","x":null}"#);
        check("{\"id\":1}\n\n{\"id\":2.5}\n", r#"1={"id":1} 2.5={"id":2.5}"#);
        check("", "");
        check(" [ ] ", "");
    }

    #[test]
    fn what_is_wrong_with_a_record_names_its_number() {
        check(r#"[{"id":1},{"no":1}]"#, r#"1={"id":1} record 2: it has no field `id`"#);
        check(r#"{"id":null}"#, "record 1: the field `id` is neither text nor a number");
        check("[5]", "record 1: it is not an object, so it has no field `id`");
        check(r#"{"id":"a","n":18446744073709551616}"#, "record 1: an integer must fit into 64 bits (signed)");
        check(
            r#"[{"id":1},]"#,
            r#"1={"id":1} after record 1 the file is not valid JSON: trailing comma at line 1 column 11"#,
        );
    }

    #[test]
    fn a_key_may_come_once() {
        let mut seen = Seen::default();
        let key = RecordKey::parse("a").unwrap();
        assert!(seen.insert(1, &key).is_ok());
        let error = seen.insert(5, &key).unwrap_err();
        assert_eq!(error.to_string(), "record 5: its key `a` is also that of record 1");
    }

    #[test]
    fn changes_are_puts_and_removals() {
        let parse = |json: &str| match parse_change(3, json) {
            Ok((key, Some(value))) => format!("{key}={}", value.to_json()),
            Ok((key, None)) => format!("{key} removed"),
            Err(error) => error.to_string(),
        };
        assert_eq!(parse(r#"{"op":"put","key":"a","value":null}"#), "a=null");
        assert_eq!(parse(r#"{"op":"remove","key":"a"}"#), "a removed");
        assert_eq!(parse(r#"{"op":"put","key":"a"}"#), "change 3: `put` needs a `value`");
        assert_eq!(parse(r#"{"op":"remove","key":"a","value":1}"#), "change 3: `remove` takes no `value`");
        assert!(parse(r#"{"op":"increment","key":"a"}"#).starts_with("change 3: unknown variant"));
    }
}
