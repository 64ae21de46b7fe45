//! What the store writes. The thread that writes only binds and steps; everything is encoded before.

use rusqlite::{Connection, Error, OptionalExtension as _, params};
use sync_core::merge::push::{Commit, Head};
use sync_core::model::{ChangeId, DeviceId, Position, Record, RecordState, SyncCount, limits};

use crate::store::sql::{self, EncodedPush};
use crate::store::sqlite::schema::Failure;
use crate::store::sqlite::{owners, rows};
use crate::store::{CommitOutcome, DatasetAddress};

/// A commit in the form of its rows.
pub(super) struct EncodedCommit {
    dataset: DatasetAddress,
    expected: Option<Position>,
    head: Head,
    lineage: Vec<u8>,
    records: Vec<(Record, Option<Vec<u8>>)>,
    pushes: Vec<EncodedPush>,
    changes: Vec<(ChangeId, SyncCount)>,
    clear: bool,
    purge: bool,
}

/// What is found of a dataset before it is written.
struct Found {
    id: i64,
    position: Option<Position>,
    floor: SyncCount,
    next_change: i64,
}

impl EncodedCommit {
    pub(super) fn new(dataset: DatasetAddress, commit: Commit) -> Self {
        let Commit { expected, head, records, pushes, changes, clear, purge } = commit;
        Self {
            dataset,
            expected,
            lineage: rmp_serde::to_vec_named(&head.lineage).expect("lines have no unencodable parts"),
            head,
            pushes: pushes.into_iter().map(EncodedPush::new).collect(),
            records: records
                .into_iter()
                .map(|mut record| {
                    let value = record.value().map(sync_core::model::Value::to_bytes);
                    // Its bytes are enough from here on.
                    if value.is_some() {
                        record.state = RecordState::Value(sync_core::model::Value::Null);
                    }
                    (record, value)
                })
                .collect(),
            changes,
            clear,
            purge,
        }
    }

    /// Writes the commit inside the transaction that is open.
    pub(super) fn write(&self, connection: &Connection) -> Result<CommitOutcome, Failure> {
        let found = find(connection, &self.dataset)?;
        if found.is_none() {
            owners::check(connection, &self.dataset.owner)?;
        }
        if found.as_ref().and_then(|found| found.position) != self.expected {
            return Ok(CommitOutcome::Stale);
        }
        let floor = found.as_ref().map_or(self.head.floor, |found| found.floor.max(self.head.floor));
        let first_change = found.as_ref().map_or(0, |found| found.next_change);
        let id = self.write_head(connection, found.map(|found| found.id), floor)?;
        if self.clear {
            connection.prepare_cached("DELETE FROM record WHERE dataset = ?1")?.execute([id])?;
        }
        self.write_records(connection, id)?;
        self.write_pushes(connection, id)?;
        self.write_changes(connection, id, first_change)?;
        if self.purge {
            let sql = "DELETE FROM record INDEXED BY tombstone_by_count
                WHERE dataset = ?1 AND sync_count <= ?2 AND removal IS NOT NULL";
            connection.prepare_cached(sql)?.execute(params![id, sql::signed(floor.0)])?;
        }
        Ok(CommitOutcome::Written)
    }

    fn write_head(&self, connection: &Connection, id: Option<i64>, floor: SyncCount) -> Result<i64, Error> {
        let Head { lineage, floor: _, digest, records, bytes, modified_at, modified_by } = &self.head;
        let position = lineage.position();
        let sql = "INSERT INTO dataset (id, owner, name, epoch, sync_count, tag, floor, is_live, records, bytes, digest,
                modified_at, modified_by, next_change, lineage)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
            ON CONFLICT (id) DO UPDATE SET epoch = ?4, sync_count = ?5, tag = ?6, floor = ?7, is_live = ?8, records = ?9,
                bytes = ?10, digest = ?11, modified_at = ?12, modified_by = ?13, next_change = next_change + ?14,
                lineage = ?15";
        connection.prepare_cached(sql)?.execute(params![
            id,
            self.dataset.owner.as_str(),
            self.dataset.name.as_str(),
            position.as_ref().map(|position| position.epoch.as_bytes()),
            sql::signed(lineage.count.0),
            position.as_ref().map(|position| position.tag.as_bytes()),
            sql::signed(floor.0),
            self.head.exists(),
            sql::signed(*records),
            sql::signed(*bytes),
            digest.to_bytes(),
            modified_at.0,
            modified_by.as_ref().map(DeviceId::as_bytes),
            sql::signed(self.changes.len() as u64),
            self.lineage,
        ])?;
        Ok(id.unwrap_or_else(|| connection.last_insert_rowid()))
    }

    fn write_records(&self, connection: &Connection, id: i64) -> Result<(), Error> {
        let sql = "INSERT INTO record (dataset, key, sync_count, removal, modified_by, modified_at, device_time, value)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
            ON CONFLICT (dataset, key) DO UPDATE SET sync_count = ?3, removal = ?4, modified_by = ?5, modified_at = ?6,
                device_time = ?7, value = ?8";
        let mut upsert = connection.prepare_cached(sql)?;
        for (record, value) in &self.records {
            let removal = match record.state {
                RecordState::Value(_) => None,
                RecordState::Removed(reason) => Some(sql::removal(reason)),
            };
            upsert.execute(params![
                id,
                record.key.as_str(),
                sql::signed(record.sync_count.0),
                removal,
                record.modified_by.as_ref().map(DeviceId::as_bytes),
                record.modified_at.0,
                record.device_time.0,
                value,
            ])?;
        }
        Ok(())
    }

    fn write_pushes(&self, connection: &Connection, id: i64) -> Result<(), Error> {
        let sql = "INSERT OR REPLACE INTO push (dataset, device, sequence, hash, answer) VALUES (?1, ?2, ?3, ?4, ?5)";
        let mut insert = connection.prepare_cached(sql)?;
        let sql = "DELETE FROM push WHERE dataset = ?1 AND device = ?2 AND sequence <= (
            SELECT sequence FROM push WHERE dataset = ?1 AND device = ?2 ORDER BY sequence DESC LIMIT 1 OFFSET ?3)";
        let mut forget = connection.prepare_cached(sql)?;
        for push in &self.pushes {
            let device = push.device.as_bytes();
            insert.execute(params![id, device, sql::signed(push.sequence), push.hash, push.answer])?;
            forget.execute(params![id, device, sql::signed(limits::PUSHES_REMEMBERED_MAX as u64)])?;
        }
        Ok(())
    }

    fn write_changes(&self, connection: &Connection, id: i64, first: i64) -> Result<(), Error> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let sql = "INSERT OR IGNORE INTO change (dataset, number, change_id, sync_count) VALUES (?1, ?2, ?3, ?4)";
        let mut insert = connection.prepare_cached(sql)?;
        let mut next = first;
        for (change, count) in &self.changes {
            insert.execute(params![id, next, change.as_bytes(), sql::signed(count.0)])?;
            next += 1;
        }
        let forgotten = next - sql::signed(limits::CHANGES_REMEMBERED_MAX as u64);
        connection
            .prepare_cached("DELETE FROM change WHERE dataset = ?1 AND number < ?2")?
            .execute(params![id, forgotten])?;
        Ok(())
    }
}

fn find(connection: &Connection, dataset: &DatasetAddress) -> Result<Option<Found>, Error> {
    let sql = "SELECT id, floor, next_change, epoch, sync_count, tag FROM dataset WHERE owner = ?1 AND name = ?2";
    let found = |row: &rusqlite::Row<'_>| {
        Ok(Found {
            id: row.get(0)?,
            floor: rows::count(row, 1)?,
            next_change: row.get(2)?,
            position: rows::position(row, 3)?,
        })
    };
    connection.prepare_cached(sql)?.query_row(params![dataset.owner.as_str(), dataset.name.as_str()], found).optional()
}
