//! `values.json`: the JSON form of values, their canonical bytes, and digests.

use serde::{Deserialize, Serialize};

use crate::model::{Digest, InvalidValue, SyncCount, Value};
use crate::vectors::layout::layout;
use crate::vectors::{InvalidVector, hex, read, unhex};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    /// Digests are those of a record with this key,
    key: String,
    /// and this count.
    count: SyncCount,
    values: Vec<Case>,
    /// Bytes that are not canonical and are read all the same.
    read: Vec<Read>,
    refused_json: Vec<RefusedJson>,
    refused_bytes: Vec<RefusedBytes>,
    sums: Vec<Sum>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// As text, because not every reader of JSON keeps `1.0` and `9007199254740993` as they are.
    json: String,
    #[serde(default)]
    bytes: String,
    /// The JSON form that is written; left out if it is the one above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<String>,
    #[serde(default)]
    digest: Digest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    bytes: String,
    #[serde(default)]
    json: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RefusedJson {
    json: String,
    #[serde(default)]
    error: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RefusedBytes {
    bytes: String,
    #[serde(default)]
    error: String,
}

/// The digest of several records.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sum {
    records: Vec<crate::model::Record>,
    #[serde(default)]
    digest: Digest,
}

/// Replays `values.json`.
///
/// # Errors
/// If the file is not of its form, or a value does not survive its own encoding.
pub fn values(text: &str) -> Result<String, InvalidVector> {
    let mut file: File = read(text)?;
    for case in &mut file.values {
        let broken = |what: &str| InvalidVector::new(format!("{}: {what}", case.json));
        let value = Value::parse_json(&case.json).map_err(|error| broken(&error.to_string()))?;
        let bytes = value.to_bytes();
        let written = value.to_json();
        if value.encoded_len() != bytes.len() {
            return Err(broken("the length is not that of the bytes"));
        }
        if Value::from_bytes(&bytes) != Ok(value.clone()) || Value::parse_json(&written) != Ok(value.clone()) {
            return Err(broken("it does not survive its own encoding"));
        }
        case.digest = Digest::of(&file.key, file.count, &value);
        case.bytes = hex(&bytes);
        case.written = (written != case.json).then_some(written);
    }
    for case in &mut file.read {
        case.json = Value::from_bytes(&unhex(&case.bytes)?).map_err(InvalidVector::new)?.to_json();
    }
    for case in &mut file.refused_json {
        case.error = kind(&case.json, Value::parse_json(&case.json))?;
    }
    for case in &mut file.refused_bytes {
        case.error = kind(&case.bytes, Value::from_bytes(&unhex(&case.bytes)?))?;
    }
    for sum in &mut file.sums {
        sum.digest = sum.records.iter().fold(Digest::default(), |digest, record| digest.plus(record));
    }
    Ok(layout(&file))
}

fn kind(input: &str, parsed: Result<Value, InvalidValue>) -> Result<String, InvalidVector> {
    let kind = match parsed {
        Ok(_) => return Err(InvalidVector::new(format!("{input} is not refused"))),
        Err(InvalidValue::Syntax(_)) => "syntax",
        Err(InvalidValue::NotFinite) => "not_finite",
        Err(InvalidValue::IntegerRange) => "integer_range",
        Err(InvalidValue::TooDeep) => "too_deep",
    };
    Ok(kind.to_owned())
}
