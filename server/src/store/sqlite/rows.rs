//! Rows to types. What a file holds is checked like everything that comes from outside.

use rusqlite::types::Type;
use rusqlite::{Error, Row};
use sync_core::merge::push::{Head, RememberedPush};
use sync_core::model::{
    CommitTag, DatasetName, DeviceId, Digest, EpochId, Owner, Position, Record, RecordKey, RecordState, SyncCount,
    Timestamp, Value,
};

use crate::store::DatasetAddress;
use crate::store::devices::{DeviceLabel, Platform, PushToken, Registration};
use crate::store::sql;

/// Columns of [`head`], behind the id.
pub(super) const HEAD: &str = "id, floor, records, bytes, digest, modified_at, modified_by, lineage";

/// Columns of [`head`] and, from [`HEAD_COLUMNS`] on, of a record that may be missing.
pub(super) const HEAD_AND_RECORD: &str = "d.id, d.floor, d.records, d.bytes, d.digest, d.modified_at, d.modified_by,
    d.lineage, r.key, r.sync_count, r.removal, r.modified_by, r.modified_at, r.device_time, r.value";

/// How many columns [`HEAD`] has.
pub(super) const HEAD_COLUMNS: usize = 8;

/// Columns of [`record`].
pub(super) const RECORD: &str = "key, sync_count, removal, modified_by, modified_at, device_time, value";

/// The id and head of a dataset.
pub(super) fn head(row: &Row<'_>) -> Result<(i64, Head), Error> {
    let digest: [u8; 16] = row.get(4)?;
    let head = Head {
        floor: count(row, 1)?,
        records: number(row, 2)?,
        bytes: number(row, 3)?,
        digest: Digest::from_bytes(digest),
        modified_at: Timestamp(row.get(5)?),
        modified_by: device(row, 6)?,
        lineage: message(row, 7)?,
    };
    Ok((row.get(0)?, head))
}

/// A record.
pub(super) fn record(row: &Row<'_>) -> Result<Record, Error> {
    record_at(row, 0)
}

/// A record whose columns begin there.
pub(super) fn record_at(row: &Row<'_>, at: usize) -> Result<Record, Error> {
    let removal: Option<String> = row.get(at + 2)?;
    let state = match removal {
        Some(reason) => RecordState::Removed(sql::parse_removal(&reason)),
        None => {
            let bytes = row.get_ref(at + 6)?.as_blob().map_err(|error| wrong(at + 6, Type::Blob, error))?;
            RecordState::Value(Value::from_bytes(bytes).map_err(|error| wrong(at + 6, Type::Blob, error))?)
        }
    };
    Ok(Record {
        key: RecordKey::parse(row.get::<_, String>(at)?).map_err(|error| wrong(at, Type::Text, error))?,
        state,
        sync_count: count(row, at + 1)?,
        modified_by: device(row, at + 3)?,
        modified_at: Timestamp(row.get(at + 4)?),
        device_time: Timestamp(row.get(at + 5)?),
    })
}

/// A remembered push: sequence, hash, answer.
pub(super) fn push(row: &Row<'_>) -> Result<RememberedPush, Error> {
    Ok(RememberedPush { sequence: number(row, 0)?, hash: row.get(1)?, answer: message(row, 2)? })
}

/// A position: epoch, count, tag.
pub(super) fn position(row: &Row<'_>, at: usize) -> Result<Option<Position>, Error> {
    let epoch: Option<[u8; 16]> = row.get(at)?;
    let tag: Option<[u8; 8]> = row.get(at + 2)?;
    let count = count(row, at + 1)?;
    Ok(epoch.zip(tag).map(|(epoch, tag)| Position {
        epoch: EpochId::from_bytes(epoch),
        count,
        tag: CommitTag::from_bytes(tag),
    }))
}

/// An address: owner, name.
pub(super) fn address(row: &Row<'_>) -> Result<DatasetAddress, Error> {
    Ok(DatasetAddress { owner: owner(row, 0)?, name: name(row, 1)? })
}

/// An owner.
pub(super) fn owner(row: &Row<'_>, at: usize) -> Result<Owner, Error> {
    Owner::parse(row.get::<_, String>(at)?).map_err(|error| wrong(at, Type::Text, error))
}

/// The name of a dataset.
pub(super) fn name(row: &Row<'_>, at: usize) -> Result<DatasetName, Error> {
    DatasetName::parse(row.get::<_, String>(at)?).map_err(|error| wrong(at, Type::Text, error))
}

/// Columns of [`registration`].
pub(super) const REGISTRATION: &str = "device, platform, token, name, registered_at";

/// A registered device.
pub(super) fn registration(row: &Row<'_>) -> Result<Registration, Error> {
    let text = |at| row.get::<_, String>(at);
    let label = row.get::<_, Option<String>>(3)?.map(DeviceLabel::parse).transpose();
    Ok(Registration {
        device: DeviceId::from_bytes(row.get(0)?),
        platform: Platform::parse(&text(1)?).map_err(|error| wrong(1, Type::Text, error))?,
        token: PushToken::parse(text(2)?).map_err(|error| wrong(2, Type::Text, error))?,
        name: label.map_err(|error| wrong(3, Type::Text, error))?,
        registered_at: Timestamp(row.get(4)?),
    })
}

/// A sync count.
pub(super) fn count(row: &Row<'_>, at: usize) -> Result<SyncCount, Error> {
    number(row, at).map(SyncCount)
}

fn number(row: &Row<'_>, at: usize) -> Result<u64, Error> {
    let number: i64 = row.get(at)?;
    u64::try_from(number).map_err(|error| wrong(at, Type::Integer, error))
}

fn device(row: &Row<'_>, at: usize) -> Result<Option<DeviceId>, Error> {
    Ok(row.get::<_, Option<[u8; 16]>>(at)?.map(DeviceId::from_bytes))
}

fn message<T: serde::de::DeserializeOwned>(row: &Row<'_>, at: usize) -> Result<T, Error> {
    let bytes = row.get_ref(at)?.as_blob().map_err(|error| wrong(at, Type::Blob, error))?;
    rmp_serde::from_slice(bytes).map_err(|error| wrong(at, Type::Blob, error))
}

fn wrong(at: usize, kind: Type, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::FromSqlConversionFailure(at, kind, Box::new(error))
}
