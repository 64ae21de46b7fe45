//! Executes plans, write by write, inside the caller's transaction.

use rusqlite::{Connection, Params};

use crate::conflict::{Cause, LogEntry, Loss, Side};
use crate::device::replica::replica_id;
use crate::device::{Address, DeviceError, bytes};
use crate::merge::replica::{GroupHeader, GroupId, PendingPatch, Write};
use crate::model::limits::GROUP_BYTES_MAX;
use crate::model::{Record, RecordKey, RecordState, SyncCount, Timestamp};

/// Executes the writes of a plan in order.
pub(super) fn execute(connection: &Connection, address: &Address, writes: &[Write]) -> Result<(), DeviceError> {
    if writes.is_empty() {
        return Ok(());
    }
    let id = create_replica(connection, address)?;
    let replica = Target { connection, id };
    writes.iter().try_for_each(|write| replica.execute(write))
}

/// The id of a dataset's replica, which is created if there is none.
pub(super) fn create_replica(connection: &Connection, address: &Address) -> Result<i64, DeviceError> {
    if let Some(id) = replica_id(connection, address)? {
        return Ok(id);
    }
    let mut insert = connection.prepare_cached("INSERT INTO replica (owner, dataset) VALUES (?1, ?2)")?;
    Ok(insert.insert((address.owner.as_str(), address.dataset.as_str()))?)
}

/// Removes a replica and all that belongs to it.
pub(super) fn drop_replica(connection: &Connection, id: i64) -> Result<(), DeviceError> {
    for table in ["base", "stage", "pending_group", "patch", "conflict", "parked"] {
        connection.prepare_cached(&format!("DELETE FROM {table} WHERE replica_id = ?1"))?.execute([id])?;
    }
    connection.prepare_cached("DELETE FROM replica WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// The replica that is written.
struct Target<'a> {
    connection: &'a Connection,
    id: i64,
}

impl Target<'_> {
    fn execute(&self, write: &Write) -> Result<(), DeviceError> {
        match write {
            Write::State(state) => {
                self.run("UPDATE replica SET state = ?2 WHERE id = ?1", (self.id, bytes::encode(state)))?;
            }
            Write::Policies(policies) => {
                self.run("UPDATE replica SET policies = ?2 WHERE id = ?1", (self.id, bytes::encode(policies)))?;
            }
            Write::Group(header) => self.put_group(header)?,
            Write::DropGroup(group) => {
                // SQLite would rather walk all patches than use the index.
                let delete = "DELETE FROM patch INDEXED BY patch_by_group WHERE replica_id = ?1 AND group_id = ?2";
                self.run(delete, self.of(*group))?;
                self.drop_header(*group)?;
            }
            Write::Patch { group, key, patch } => self.put_patch(*group, key, patch)?,
            Write::MovePatches { from, to } => {
                let update = "UPDATE OR REPLACE patch INDEXED BY patch_by_group SET group_id = ?3
                    WHERE replica_id = ?1 AND group_id = ?2";
                self.run(update, (self.id, bytes::integer(from.0), bytes::integer(to.0)))?;
                self.drop_header(*from)?;
            }
            Write::Stage(records) => self.stage(records)?,
            Write::ClearStage => self.clear_stage()?,
            Write::LogLost { cause, above, until, at } => self.log_lost(*cause, *above, *until, *at)?,
            Write::MergeStage { snapshot } => self.merge_stage(*snapshot)?,
            Write::ClearBase => self.clear_base()?,
            Write::Log(entry) => self.log(entry)?,
            Write::DropLog(id) => {
                let delete = "DELETE FROM conflict WHERE id = ?2 AND replica_id = ?1";
                self.run(delete, (self.id, bytes::integer(*id)))?;
            }
            Write::Park(unit) => {
                let insert = "INSERT INTO parked (replica_id, unit) VALUES (?1, ?2)";
                self.run(insert, (self.id, bytes::encode(unit)))?;
            }
            Write::Unpark(id) => {
                let delete = "DELETE FROM parked WHERE id = ?2 AND replica_id = ?1";
                self.run(delete, (self.id, bytes::integer(*id)))?;
            }
            Write::Device(id) => {
                self.run("UPDATE device SET device_id = ?1", [id.as_bytes()])?;
            }
        }
        Ok(())
    }

    /// Runs one statement; says how many rows it changed.
    fn run<P: Params>(&self, statement: &str, params: P) -> Result<i64, DeviceError> {
        Ok(bytes::length(self.connection.prepare_cached(statement)?.execute(params)?))
    }

    fn of(&self, group: GroupId) -> (i64, i64) {
        (self.id, bytes::integer(group.0))
    }

    fn put_group(&self, header: &GroupHeader) -> Result<(), DeviceError> {
        let GroupHeader { id, state, change_id, steps, patches, bytes: size } = header;
        let insert = "INSERT INTO pending_group (replica_id, group_id, state, change_id, steps, patches, bytes)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
            ON CONFLICT DO UPDATE SET state = excluded.state, change_id = excluded.change_id,
                steps = excluded.steps, patches = excluded.patches, bytes = excluded.bytes";
        let (replica, group) = self.of(*id);
        let state = bytes::encode(state);
        let steps = (!steps.is_empty()).then(|| bytes::encode(steps));
        let (patches, size) = (bytes::length(*patches), bytes::length(*size));
        self.run(insert, (replica, group, state, change_id.as_bytes(), steps, patches, size))?;
        Ok(())
    }

    fn drop_header(&self, group: GroupId) -> Result<(), DeviceError> {
        self.run("DELETE FROM pending_group WHERE replica_id = ?1 AND group_id = ?2", self.of(group))?;
        Ok(())
    }

    fn put_patch(&self, group: GroupId, key: &RecordKey, patch: &PendingPatch) -> Result<(), DeviceError> {
        let PendingPatch { under, value, device_time, whole, claimed, question, sent } = patch;
        let insert = "INSERT INTO patch
                (replica_id, group_id, key, under, value, device_time, whole, claimed, question, sent)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
            ON CONFLICT DO UPDATE SET under = excluded.under, value = excluded.value,
                device_time = excluded.device_time, whole = excluded.whole, claimed = excluded.claimed,
                question = excluded.question, sent = excluded.sent";
        let (replica, group) = self.of(group);
        self.run(
            insert,
            (
                replica,
                group,
                key.as_str().as_bytes(),
                under.as_ref().map(|value| bytes::sealed(key, value)),
                value.as_ref().map(|value| bytes::sealed(key, value)),
                device_time.0,
                whole,
                claimed,
                question.as_ref().map(bytes::encode),
                sent.as_ref().map(bytes::encode),
            ),
        )?;
        Ok(())
    }

    fn stage(&self, records: &[Record]) -> Result<(), DeviceError> {
        let mut insert = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO stage
                (replica_id, key, count, value, removed, modified_by, modified_at, device_time)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        for record in records {
            let Record { key, state, sync_count, modified_by, modified_at, device_time } = record;
            let (value, removed) = match state {
                RecordState::Value(value) => (Some(bytes::sealed(key, value)), None),
                RecordState::Removed(reason) => (None, Some(bytes::reason_name(*reason))),
            };
            insert.execute((
                self.id,
                key.as_str().as_bytes(),
                bytes::integer(sync_count.0),
                value,
                removed,
                modified_by.as_ref().map(|device| device.as_bytes()),
                modified_at.0,
                device_time.0,
            ))?;
        }
        Ok(())
    }

    /// Logs what the stage does not explain, without holding more than one entry of it.
    fn log_lost(
        &self,
        cause: Cause,
        above: SyncCount,
        until: Option<SyncCount>,
        at: Timestamp,
    ) -> Result<(), DeviceError> {
        let mut select = self.connection.prepare_cached(
            "SELECT base.key, base.value FROM base
            LEFT JOIN stage ON stage.replica_id = base.replica_id AND stage.key = base.key
            WHERE base.replica_id = ?1 AND base.count > ?2
                AND (stage.key IS NULL OR (stage.value IS NOT base.value AND (?3 IS NULL OR stage.count <= ?3)))
            ORDER BY base.key",
        )?;
        let until = until.map(|until| bytes::integer(until.0));
        let mut rows = select.query((self.id, bytes::integer(above.0), until))?;
        let mut entry = LogEntry { at, cause, losses: Vec::new() };
        let mut size = 0;
        while let Some(row) = rows.next()? {
            let value = row.get_ref(1)?.as_blob().map_err(bytes::corrupt)?;
            size += value.len();
            if entry.losses.len() == LOSSES_MAX || size > GROUP_BYTES_MAX && !entry.losses.is_empty() {
                self.log(&entry)?;
                entry.losses.clear();
                size = value.len();
            }
            let key = bytes::key(row.get(0)?)?;
            let value = Some(bytes::value(&key, value)?);
            entry.losses.push(Loss { key, path: Vec::new(), side: Side::Remote, under: None, value });
        }
        if entry.losses.is_empty() { Ok(()) } else { self.log(&entry) }
    }

    fn merge_stage(&self, snapshot: bool) -> Result<(), DeviceError> {
        if snapshot {
            self.clear_base()?;
        }
        let replaced = self.run(
            "DELETE FROM base WHERE replica_id = ?1 AND key IN (SELECT key FROM stage WHERE replica_id = ?1)
                AND EXISTS (SELECT 1 FROM replica WHERE id = ?1 AND records > 0)",
            [self.id],
        )?;
        let inserted = self.run(
            "INSERT INTO base (replica_id, key, count, value, modified_by, modified_at, device_time)
            SELECT replica_id, key, count, value, modified_by, modified_at, device_time
            FROM stage WHERE replica_id = ?1 AND value IS NOT NULL ORDER BY key",
            [self.id],
        )?;
        self.clear_stage()?;
        self.run("UPDATE replica SET records = records + ?2 WHERE id = ?1", (self.id, inserted - replaced))?;
        Ok(())
    }

    fn clear_stage(&self) -> Result<(), DeviceError> {
        let mut select = self.connection.prepare_cached(
            "SELECT (SELECT min(replica_id) FROM stage) = ?1 AND (SELECT max(replica_id) FROM stage) = ?1",
        )?;
        // SQLite drops the pages of a whole table without looking at its rows.
        if select.query_one([self.id], |row| row.get::<_, Option<bool>>(0))? == Some(true) {
            self.run("DELETE FROM stage", [])?;
        } else {
            self.run("DELETE FROM stage WHERE replica_id = ?1", [self.id])?;
        }
        Ok(())
    }

    fn clear_base(&self) -> Result<(), DeviceError> {
        self.run("DELETE FROM base WHERE replica_id = ?1", [self.id])?;
        self.run("UPDATE replica SET records = 0 WHERE id = ?1", [self.id])?;
        Ok(())
    }

    fn log(&self, entry: &LogEntry) -> Result<(), DeviceError> {
        let insert = "INSERT INTO conflict (replica_id, entry) VALUES (?1, ?2)";
        self.run(insert, (self.id, bytes::encode(entry)))?;
        Ok(())
    }
}

/// Losses in one entry that [`Write::LogLost`] makes. It also ends where a group would, so that it can be restored.
pub(super) const LOSSES_MAX: usize = 1_000;
