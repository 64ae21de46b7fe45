//! Columns: how the core's types are kept in SQLite's.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::device::{DeviceError, ReplicaError};
use crate::model::{RecordKey, RemovalReason, Value};

/// Encodes what is kept as one blob: MessagePack with named fields, so that later versions can add some.
pub(super) fn encode<T: Serialize>(it: &T) -> Vec<u8> {
    seal("", &rmp_serde::to_vec_named(it).expect("the core's types have no unencodable parts"))
}

/// Decodes such a blob.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ReplicaError> {
    rmp_serde::from_slice(unseal("", bytes)?).map_err(corrupt)
}

/// A record's value as it is kept: its canonical bytes.
pub(super) fn sealed(key: &RecordKey, value: &Value) -> Vec<u8> {
    seal(key.as_str(), &value.to_bytes())
}

/// Reads such a value.
pub(super) fn value(key: &RecordKey, bytes: &[u8]) -> Result<Value, ReplicaError> {
    Value::from_bytes(unseal(key.as_str(), bytes)?).map_err(corrupt)
}

/// Bytes between a mark and a check on them and the name they are kept under. SQLite would not notice if a disk changed
/// bytes within them.
fn seal(name: &str, bytes: &[u8]) -> Vec<u8> {
    [&[SEALED], bytes, &check(name, bytes)].concat()
}

/// The bytes that were sealed.
fn unseal<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a [u8], ReplicaError> {
    let (marked, sealed) = match bytes.split_first() {
        Some((&SEALED, sealed)) => (true, sealed),
        _ => (false, bytes),
    };
    match sealed.split_last_chunk::<CHECK_BYTES>() {
        Some((kept, found)) if check(name, kept) == *found => Ok(kept),
        _ if marked => Err(corrupt("bytes have changed since they were written")),
        // Of the first versions of the file, which had no mark, and no check on most.
        _ => Ok(bytes),
    }
}

/// Never the first byte of MessagePack, nor of a value.
const SEALED: u8 = 0xc1;

fn check(name: &str, bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = Sha256::new().chain_update(name).chain_update([0xff]).chain_update(bytes).finalize();
    hash.first_chunk().copied().expect("a hash is longer")
}

/// Enough that one damage in four thousand million is missed.
const CHECK_BYTES: usize = 4;

pub(super) fn key(bytes: Vec<u8>) -> Result<RecordKey, ReplicaError> {
    let text = String::from_utf8(bytes).map_err(corrupt)?;
    RecordKey::parse(text).map_err(corrupt)
}

pub(super) const fn reason_name(reason: RemovalReason) -> &'static str {
    match reason {
        RemovalReason::Removed => "removed",
        RemovalReason::Left => "left",
        RemovalReason::Unknown => "unknown",
    }
}

pub(super) fn reason(name: &str) -> RemovalReason {
    match name {
        "removed" => RemovalReason::Removed,
        "left" => RemovalReason::Left,
        _ => RemovalReason::Unknown,
    }
}

/// A count or an id as SQLite's integer. Counts stay below 2^53.
pub(super) fn integer(it: u64) -> i64 {
    i64::try_from(it).unwrap_or(i64::MAX)
}

/// A length as SQLite's integer.
pub(super) fn length(it: usize) -> i64 {
    i64::try_from(it).unwrap_or(i64::MAX)
}

/// SQLite's integer as a count, an id or a length.
pub(super) fn unsigned<T: TryFrom<i64>>(it: i64) -> Result<T, DeviceError> {
    T::try_from(it).map_err(|_| DeviceError::Corrupt(format!("{it} is no count")))
}

pub(super) fn corrupt(error: impl std::fmt::Display) -> ReplicaError {
    ReplicaError::Corrupt(error.to_string())
}
