//! One dataset in the file, as planners read it.

use rusqlite::{Connection, OptionalExtension as _, Params, Row};

use crate::conflict::{LogEntry, Parked};
use crate::device::error::replica_error;
use crate::device::{Address, DeviceError, bytes};
use crate::merge::replica::{GroupHeader, GroupId, PendingPatch, Replica, ReplicaError, ReplicaState};
use crate::model::{ChangeId, DeviceId, Record, RecordKey, RecordState, SyncCount, Timestamp};
use crate::policy::Policies;

/// Reads one dataset, inside a transaction.
pub(super) struct StoredReplica<'a> {
    connection: &'a Connection,
    /// Nothing if the dataset was never touched.
    id: Option<i64>,
}

/// The id of a dataset's replica; nothing if it was never touched.
pub(super) fn replica_id(connection: &Connection, address: &Address) -> Result<Option<i64>, DeviceError> {
    let mut select = connection.prepare_cached("SELECT id FROM replica WHERE owner = ?1 AND dataset = ?2")?;
    Ok(select.query_row((address.owner.as_str(), address.dataset.as_str()), |row| row.get(0)).optional()?)
}

impl<'a> StoredReplica<'a> {
    pub(super) fn find(connection: &'a Connection, address: &Address) -> Result<Self, DeviceError> {
        Ok(Self { connection, id: replica_id(connection, address)? })
    }

    pub(super) const fn with_id(connection: &'a Connection, id: Option<i64>) -> Self {
        Self { connection, id }
    }

    fn rows<P: Params, T>(
        &self,
        select: &str,
        params: P,
        read: impl Fn(&Row<'_>) -> Result<T, DeviceError>,
    ) -> Result<Vec<T>, ReplicaError> {
        let collect = || -> Result<Vec<T>, DeviceError> {
            let mut select = self.connection.prepare_cached(select)?;
            let mut rows = select.query(params)?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(read(row)?);
            }
            Ok(found)
        };
        collect().map_err(replica_error)
    }

    fn row<P: Params, T>(
        &self,
        select: &str,
        params: P,
        read: impl Fn(&Row<'_>) -> Result<T, DeviceError>,
    ) -> Result<Option<T>, ReplicaError> {
        let first = || -> Result<Option<T>, DeviceError> {
            let mut select = self.connection.prepare_cached(select)?;
            let mut rows = select.query(params)?;
            rows.next()?.map(read).transpose()
        };
        first().map_err(replica_error)
    }
}

impl Replica for StoredReplica<'_> {
    fn state(&self) -> Result<ReplicaState, ReplicaError> {
        let state = self.row("SELECT state FROM replica WHERE id = ?1", [self.id], |row| blob(row, 0))?;
        state.flatten().map_or_else(|| Ok(ReplicaState::default()), |state| bytes::decode(&state))
    }

    fn policies(&self) -> Result<Policies, ReplicaError> {
        let policies = self.row("SELECT policies FROM replica WHERE id = ?1", [self.id], |row| blob(row, 0))?;
        policies.flatten().map_or_else(|| Ok(Policies::default()), |policies| bytes::decode(&policies))
    }

    fn base(&self, key: &RecordKey) -> Result<Option<Record>, ReplicaError> {
        let select = "SELECT value, NULL, count, modified_by, modified_at, device_time
            FROM base WHERE replica_id = ?1 AND key = ?2";
        self.row(select, (self.id, key.as_str().as_bytes()), |row| record(key, row))
    }

    fn staged(&self, key: &RecordKey) -> Result<Option<Record>, ReplicaError> {
        let select = "SELECT value, removed, count, modified_by, modified_at, device_time
            FROM stage WHERE replica_id = ?1 AND key = ?2";
        self.row(select, (self.id, key.as_str().as_bytes()), |row| record(key, row))
    }

    fn patches(&self, key: &RecordKey) -> Result<Vec<(GroupId, PendingPatch)>, ReplicaError> {
        let select = "SELECT under, value, device_time, whole, claimed, question, sent, group_id
            FROM patch WHERE replica_id = ?1 AND key = ?2 ORDER BY group_id";
        self.rows(select, (self.id, key.as_str().as_bytes()), |row| Ok((group_id(row, 7)?, patch(key, row)?)))
    }

    fn groups(&self) -> Result<Vec<GroupHeader>, ReplicaError> {
        let select = "SELECT group_id, state, change_id, steps, patches, bytes
            FROM pending_group WHERE replica_id = ?1 ORDER BY group_id";
        self.rows(select, [self.id], group_header)
    }

    fn group(&self, id: GroupId) -> Result<Option<GroupHeader>, ReplicaError> {
        let select = "SELECT group_id, state, change_id, steps, patches, bytes
            FROM pending_group WHERE replica_id = ?1 AND group_id = ?2";
        self.row(select, (self.id, bytes::integer(id.0)), group_header)
    }

    fn group_patches(&self, id: GroupId) -> Result<Vec<(RecordKey, PendingPatch)>, ReplicaError> {
        // SQLite would rather walk all patches in order of their keys than sort the few of a group.
        let select = "SELECT under, value, device_time, whole, claimed, question, sent, key
            FROM patch INDEXED BY patch_by_group WHERE replica_id = ?1 AND group_id = ?2 ORDER BY key";
        self.rows(select, (self.id, bytes::integer(id.0)), |row| {
            let key = bytes::key(row.get(7)?)?;
            let patch = patch(&key, row)?;
            Ok((key, patch))
        })
    }

    fn last_group(&self) -> Result<GroupId, ReplicaError> {
        let select = "SELECT coalesce(max(group_id), 0) FROM pending_group WHERE replica_id = ?1";
        Ok(self.row(select, [self.id], |row| group_id(row, 0))?.unwrap_or(GroupId(0)))
    }

    fn pending_keys(&self, all: bool) -> Result<Vec<RecordKey>, ReplicaError> {
        let select = if all {
            "SELECT DISTINCT key FROM patch WHERE replica_id = ?1 ORDER BY key"
        } else {
            "SELECT DISTINCT key FROM patch WHERE replica_id = ?1
                AND EXISTS (SELECT 1 FROM stage WHERE stage.replica_id = ?1 AND stage.key = patch.key) ORDER BY key"
        };
        self.rows(select, [self.id], |row| Ok(bytes::key(row.get(0)?)?))
    }

    fn parked(&self, id: u64) -> Result<Option<Parked>, ReplicaError> {
        let select = "SELECT unit FROM parked WHERE id = ?2 AND replica_id = ?1";
        let unit = self.row(select, (self.id, bytes::integer(id)), |row| blob(row, 0))?;
        unit.flatten().map(|unit| bytes::decode(&unit)).transpose()
    }

    fn log_entry(&self, id: u64) -> Result<Option<LogEntry>, ReplicaError> {
        let select = "SELECT entry FROM conflict WHERE id = ?2 AND replica_id = ?1";
        let entry = self.row(select, (self.id, bytes::integer(id)), |row| blob(row, 0))?;
        entry.flatten().map(|entry| bytes::decode(&entry)).transpose()
    }
}

fn blob(row: &Row<'_>, column: usize) -> Result<Option<Vec<u8>>, DeviceError> {
    Ok(row.get(column)?)
}

fn group_id(row: &Row<'_>, column: usize) -> Result<GroupId, DeviceError> {
    Ok(GroupId(bytes::unsigned(row.get(column)?)?))
}

/// Reads `value, removed, count, modified_by, modified_at, device_time`.
fn record(key: &RecordKey, row: &Row<'_>) -> Result<Record, DeviceError> {
    let state = match row.get_ref(0)?.as_blob_or_null().map_err(bytes::corrupt)? {
        Some(value) => RecordState::Value(bytes::value(key, value)?),
        None => RecordState::Removed(bytes::reason(row.get_ref(1)?.as_str().map_err(bytes::corrupt)?)),
    };
    let modified_by = row.get_ref(3)?.as_blob_or_null().map_err(bytes::corrupt)?;
    Ok(Record {
        key: key.clone(),
        state,
        sync_count: SyncCount(bytes::unsigned(row.get(2)?)?),
        modified_by: modified_by.map(DeviceId::parse_bytes).transpose().map_err(bytes::corrupt)?,
        modified_at: Timestamp(row.get(4)?),
        device_time: Timestamp(row.get(5)?),
    })
}

/// Reads `under, value, device_time, whole, claimed, question, sent`.
fn patch(key: &RecordKey, row: &Row<'_>) -> Result<PendingPatch, DeviceError> {
    let blob = |column| -> Result<Option<&[u8]>, DeviceError> {
        Ok(row.get_ref(column)?.as_blob_or_null().map_err(bytes::corrupt)?)
    };
    Ok(PendingPatch {
        under: blob(0)?.map(|value| bytes::value(key, value)).transpose()?,
        value: blob(1)?.map(|value| bytes::value(key, value)).transpose()?,
        device_time: Timestamp(row.get(2)?),
        whole: row.get(3)?,
        claimed: row.get(4)?,
        question: blob(5)?.map(bytes::decode).transpose()?,
        sent: blob(6)?.map(bytes::decode).transpose()?,
    })
}

/// Reads `group_id, state, change_id, steps, patches, bytes`.
fn group_header(row: &Row<'_>) -> Result<GroupHeader, DeviceError> {
    let change_id = row.get_ref(2)?.as_blob().map_err(bytes::corrupt)?;
    let steps = row.get_ref(3)?.as_blob_or_null().map_err(bytes::corrupt)?;
    Ok(GroupHeader {
        id: group_id(row, 0)?,
        state: bytes::decode(row.get_ref(1)?.as_blob().map_err(bytes::corrupt)?)?,
        change_id: ChangeId::parse_bytes(change_id).map_err(bytes::corrupt)?,
        steps: steps.map(bytes::decode).transpose()?.unwrap_or_default(),
        patches: bytes::unsigned(row.get(4)?)?,
        bytes: bytes::unsigned(row.get(5)?)?,
    })
}
