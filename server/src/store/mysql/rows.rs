//! Rows to types and back. What a database holds is checked like everything that comes from outside.

use sqlx::mysql::MySqlRow;
use sqlx::{MySql, Row as _, Type};
use sync_core::merge::push::{Head, RememberedPush};
use sync_core::model::{
    CommitTag, DatasetName, DeviceId, Digest, EpochId, Owner, Position, Record, RecordKey, RecordState, SyncCount,
    Timestamp, Value,
};

use crate::store::DatasetAddress;
use crate::store::devices::{DeviceLabel, Platform, PushToken, Registration};
use crate::store::mysql::failure::Failure;
use crate::store::sql;

/// Columns of [`head`].
pub(super) const HEAD: &str = "d.id, d.floor, d.records, d.bytes, d.digest, d.modified_at, d.modified_by, d.lineage,
    d.next_change";

/// How many columns [`HEAD`] has.
pub(super) const HEAD_COLUMNS: usize = 9;

/// Columns of [`record`].
pub(super) const RECORD: &str =
    "r.`key`, r.sync_count, r.removal, r.modified_by, r.modified_at, r.device_time, r.bytes";

/// How many columns [`RECORD`] has.
pub(super) const RECORD_COLUMNS: usize = 7;

/// Columns of [`push`].
pub(super) const PUSH: &str = "sequence, hash, answer";

/// How many columns [`PUSH`] has.
pub(super) const PUSH_COLUMNS: usize = 3;

/// Columns of [`registration`].
pub(super) const REGISTRATION: &str = "device, platform, token, name, registered_at";

/// A dataset as it is found: its number and its head.
pub(super) struct FoundHead {
    pub(super) id: i64,
    pub(super) head: Head,
    /// The number of the next change id.
    pub(super) next_change: i64,
}

/// A dataset's head.
pub(super) fn head(row: &MySqlRow) -> Result<FoundHead, Failure> {
    let head = Head {
        floor: count(row, 1)?,
        records: number(row, 2)?,
        bytes: number(row, 3)?,
        digest: Digest::from_bytes(array(row, 4)?),
        modified_at: Timestamp(column(row, 5)?),
        modified_by: device(row, 6)?,
        lineage: message(row, 7)?,
    };
    Ok(FoundHead { id: column(row, 0)?, head, next_change: column(row, 8)? })
}

/// A record whose columns begin there.
pub(super) fn record(row: &MySqlRow, at: usize) -> Result<Record, Failure> {
    let removal: Option<&[u8]> = column(row, at + 2)?;
    let state = match removal {
        Some(reason) => RecordState::Removed(sql::parse_removal(std::str::from_utf8(reason).unwrap_or_default())),
        None => RecordState::Value(Value::from_bytes(column(row, at + 6)?).map_err(wrong)?),
    };
    Ok(Record {
        key: RecordKey::parse(text(row, at)?).map_err(wrong)?,
        state,
        sync_count: count(row, at + 1)?,
        modified_by: device(row, at + 3)?,
        modified_at: Timestamp(column(row, at + 4)?),
        device_time: Timestamp(column(row, at + 5)?),
    })
}

/// Whether there is a record, of whose columns the first is there.
pub(super) fn has_record(row: &MySqlRow, at: usize) -> Result<bool, Failure> {
    Ok(column::<Option<&[u8]>>(row, at)?.is_some())
}

/// A remembered push.
pub(super) fn push(row: &MySqlRow) -> Result<RememberedPush, Failure> {
    Ok(RememberedPush { sequence: number(row, 0)?, hash: array(row, 1)?, answer: message(row, 2)? })
}

/// A position: epoch, count, tag.
pub(super) fn position(row: &MySqlRow, at: usize) -> Result<Option<Position>, Failure> {
    let is_there = column::<Option<&[u8]>>(row, at)?.is_some() && column::<Option<&[u8]>>(row, at + 2)?.is_some();
    if !is_there {
        return Ok(None);
    }
    Ok(Some(Position {
        epoch: EpochId::from_bytes(array(row, at)?),
        count: count(row, at + 1)?,
        tag: CommitTag::from_bytes(array(row, at + 2)?),
    }))
}

/// An address: owner, name.
pub(super) fn address(row: &MySqlRow, at: usize) -> Result<DatasetAddress, Failure> {
    Ok(DatasetAddress { owner: owner(row, at)?, name: name(row, at + 1)? })
}

/// An owner.
pub(super) fn owner(row: &MySqlRow, at: usize) -> Result<Owner, Failure> {
    Owner::parse(text(row, at)?).map_err(wrong)
}

/// An owner, if there is one.
pub(super) fn owner_if_any(row: &MySqlRow, at: usize) -> Result<Option<Owner>, Failure> {
    optional_text(row, at)?.map(|text| Owner::parse(text).map_err(wrong)).transpose()
}

/// The name of a dataset.
pub(super) fn name(row: &MySqlRow, at: usize) -> Result<DatasetName, Failure> {
    DatasetName::parse(text(row, at)?).map_err(wrong)
}

/// The name of a dataset, if there is one.
pub(super) fn name_if_any(row: &MySqlRow, at: usize) -> Result<Option<DatasetName>, Failure> {
    optional_text(row, at)?.map(|text| DatasetName::parse(text).map_err(wrong)).transpose()
}

/// A registered device.
pub(super) fn registration(row: &MySqlRow) -> Result<Registration, Failure> {
    Ok(Registration {
        device: DeviceId::from_bytes(array(row, 0)?),
        platform: Platform::parse(&text(row, 1)?).map_err(wrong)?,
        token: PushToken::parse(text(row, 2)?).map_err(wrong)?,
        name: optional_text(row, 3)?.map(DeviceLabel::parse).transpose().map_err(wrong)?,
        registered_at: Timestamp(column(row, 4)?),
    })
}

/// A sync count.
pub(super) fn count(row: &MySqlRow, at: usize) -> Result<SyncCount, Failure> {
    number(row, at).map(SyncCount)
}

/// Bytes of a certain length.
pub(super) fn array<const N: usize>(row: &MySqlRow, at: usize) -> Result<[u8; N], Failure> {
    column::<&[u8]>(row, at)?.try_into().map_err(wrong)
}

fn number(row: &MySqlRow, at: usize) -> Result<u64, Failure> {
    u64::try_from(column::<i64>(row, at)?).map_err(wrong)
}

fn device(row: &MySqlRow, at: usize) -> Result<Option<DeviceId>, Failure> {
    let bytes: Option<&[u8]> = column(row, at)?;
    bytes.map(|bytes| bytes.try_into().map(DeviceId::from_bytes).map_err(wrong)).transpose()
}

fn text(row: &MySqlRow, at: usize) -> Result<String, Failure> {
    String::from_utf8(column(row, at)?).map_err(wrong)
}

fn optional_text(row: &MySqlRow, at: usize) -> Result<Option<String>, Failure> {
    column::<Option<Vec<u8>>>(row, at)?.map(|bytes| String::from_utf8(bytes).map_err(wrong)).transpose()
}

fn message<T: serde::de::DeserializeOwned>(row: &MySqlRow, at: usize) -> Result<T, Failure> {
    rmp_serde::from_slice(column(row, at)?).map_err(wrong)
}

/// A column, as a type that it can be.
pub(super) fn column<'r, T: sqlx::Decode<'r, MySql> + Type<MySql>>(row: &'r MySqlRow, at: usize) -> Result<T, Failure> {
    row.try_get(at).map_err(wrong)
}

/// What stands in a column is not what was written.
fn wrong(error: impl std::error::Error) -> Failure {
    Failure::Corrupt(error.to_string())
}
