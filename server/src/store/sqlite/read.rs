//! What the store reads, each function at one moment.

use std::collections::BTreeMap;
use std::ops::Deref;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, OptionalExtension as _, params};
use sync_core::merge::push::{Head, RememberedPush, View};
use sync_core::model::{ChangeId, DatasetName, DeviceId, Owner, Position, Record, RecordKey, SyncCount, Timestamp};

use crate::store::sql;
use crate::store::sqlite::schema::Failure;
use crate::store::sqlite::{owners, rows};
use crate::store::{DatasetAddress, RecordsAfter, RecordsFrom, RecordsRead, Touched};

/// Statements within it read at one moment.
struct Moment<'a>(&'a Connection);

impl<'a> Moment<'a> {
    fn begin(connection: &'a Connection) -> Result<Self, Error> {
        connection.prepare_cached("BEGIN")?.execute([])?;
        Ok(Self(connection))
    }
}

impl Deref for Moment<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.0
    }
}

impl Drop for Moment<'_> {
    fn drop(&mut self) {
        // There is nothing to write. If it fails all the same, the next moment fails to begin and says so.
        drop(self.0.prepare_cached("COMMIT").and_then(|mut end| end.execute([])));
    }
}

pub(super) fn view(connection: &Connection, dataset: &DatasetAddress, touched: Touched) -> Result<View, Failure> {
    if touched.pushes.is_empty()
        && touched.changes.is_empty()
        && touched.keys.len() == 1
        && let Some(key) = touched.keys.first()
    {
        return view_one(connection, dataset, key);
    }
    let moment = Moment::begin(connection)?;
    let Some((id, head)) = head(&moment, dataset)? else {
        owners::check(&moment, &dataset.owner)?;
        return Ok(View::default());
    };
    let Touched { keys, pushes: wanted, changes: ids } = touched;
    let mut records = BTreeMap::new();
    let sql = format!("SELECT {} FROM record WHERE dataset = ?1 AND key = ?2", rows::RECORD);
    let mut select = moment.prepare_cached(&sql)?;
    for key in keys {
        if let Some(record) = select.query_row(params![id, key.as_str()], rows::record).optional()? {
            records.insert(key, record);
        }
    }
    let mut pushes = BTreeMap::new();
    for (device, sequences) in wanted {
        let remembered = remembered_pushes(&moment, id, device, sequences.into_iter())?;
        if !remembered.is_empty() {
            pushes.insert(device, remembered);
        }
    }
    let mut changes = BTreeMap::new();
    let mut select = moment.prepare_cached("SELECT sync_count FROM change WHERE dataset = ?1 AND change_id = ?2")?;
    for change in ids {
        let id_column = ChangeId::as_bytes(&change);
        if let Some(count) = select.query_row(params![id, id_column], |row| rows::count(row, 0)).optional()? {
            changes.insert(change, count);
        }
    }
    Ok(View { head, records, pushes, changes })
}

/// The head and one record, in one statement, which is a moment of its own.
fn view_one(connection: &Connection, dataset: &DatasetAddress, key: &RecordKey) -> Result<View, Failure> {
    let sql = format!(
        "SELECT {} FROM dataset d LEFT JOIN record r ON r.dataset = d.id AND r.key = ?3
         WHERE d.owner = ?1 AND d.name = ?2",
        rows::HEAD_AND_RECORD
    );
    let view = |row: &rusqlite::Row<'_>| {
        let (_, head) = rows::head(row)?;
        let is_there = row.get_ref(rows::HEAD_COLUMNS)? != ValueRef::Null;
        let record = if is_there { Some(rows::record_at(row, rows::HEAD_COLUMNS)?) } else { None };
        let records = record.into_iter().map(|record| (key.clone(), record)).collect();
        Ok(View { head, records, ..View::default() })
    };
    let values = params![dataset.owner.as_str(), dataset.name.as_str(), key.as_str()];
    match connection.prepare_cached(&sql)?.query_row(values, view).optional()? {
        Some(view) => Ok(view),
        None => {
            owners::check(connection, &dataset.owner)?;
            Ok(View::default())
        }
    }
}

/// What is read of a dataset that was never written.
fn nothing(connection: &Connection, dataset: &DatasetAddress) -> Result<RecordsRead, Failure> {
    owners::check(connection, &dataset.owner)?;
    Ok(RecordsRead::default())
}

pub(super) fn records_after(
    connection: &Connection,
    dataset: &DatasetAddress,
    range: &RecordsAfter,
) -> Result<RecordsRead, Failure> {
    let moment = Moment::begin(connection)?;
    let Some((id, head)) = head(&moment, dataset)? else { return nothing(&moment, dataset) };
    let mut read = RecordsRead { head, ..RecordsRead::default() };
    // Keys are not empty, so this lies below the first record behind `since`.
    let since = (range.since.0.saturating_add(1), "");
    let behind = range.after.as_ref().map_or(since, |(count, key)| since.max((count.0, key.as_str())));
    let sql = format!(
        "SELECT {} FROM record INDEXED BY record_by_count
         WHERE dataset = ?1 AND (sync_count, key) > (?2, ?3) AND (removal IS NULL OR sync_count > ?4)
         ORDER BY sync_count, key LIMIT ?5",
        rows::RECORD
    );
    let mut select = moment.prepare_cached(&sql)?;
    let rows_max = range.records_max.saturating_add(1) as u64;
    let values =
        params![id, sql::signed(behind.0), behind.1, sql::signed(range.skip_tombstones_to.0), sql::signed(rows_max)];
    read.take(select.query_map(values, rows::record)?, range.records_max, range.bytes_max)?;
    Ok(read)
}

pub(super) fn records_from(
    connection: &Connection,
    dataset: &DatasetAddress,
    range: &RecordsFrom,
) -> Result<RecordsRead, Failure> {
    let moment = Moment::begin(connection)?;
    let Some((id, head)) = head(&moment, dataset)? else { return nothing(&moment, dataset) };
    let mut read = RecordsRead { head, ..RecordsRead::default() };
    let after = range.after.as_ref().map_or("", RecordKey::as_str);
    let sql = format!(
        "SELECT {} FROM record WHERE dataset = ?1 AND key >= ?2 AND key > ?3 AND removal IS NULL ORDER BY key",
        rows::RECORD
    );
    let mut select = moment.prepare_cached(&sql)?;
    let begins = |record: &Result<Record, Error>| {
        record.as_ref().map_or(true, |record| record.key.as_str().starts_with(&range.prefix))
    };
    let rows = select.query_map(params![id, range.prefix, after], rows::record)?.take_while(begins);
    read.take(rows, range.records_max, range.bytes_max)?;
    Ok(read)
}

pub(super) fn datasets(
    connection: &Connection,
    owner: &Owner,
    after: Option<&DatasetName>,
    names_max: usize,
) -> Result<Vec<DatasetName>, Failure> {
    let sql = "SELECT name FROM dataset WHERE owner = ?1 AND name > ?2 AND is_live ORDER BY name LIMIT ?3";
    let mut select = connection.prepare_cached(sql)?;
    let values = params![owner.as_str(), after.map_or("", DatasetName::as_str), sql::signed(names_max as u64)];
    let names: Vec<_> = select.query_map(values, |row| rows::name(row, 0))?.collect::<Result<_, _>>()?;
    if names.is_empty() {
        owners::check(connection, owner)?;
    }
    Ok(names)
}

pub(super) fn positions(
    connection: &Connection,
    owner: &Owner,
    after: Option<&DatasetName>,
    positions_max: usize,
) -> Result<Vec<(DatasetName, Position)>, Failure> {
    let sql = "SELECT name, epoch, sync_count, tag FROM dataset
        WHERE owner = ?1 AND name > ?2 AND epoch IS NOT NULL ORDER BY name LIMIT ?3";
    let mut select = connection.prepare_cached(sql)?;
    let values = params![owner.as_str(), after.map_or("", DatasetName::as_str), sql::signed(positions_max as u64)];
    let row = |row: &rusqlite::Row<'_>| Ok(rows::position(row, 1)?.map(|position| (rows::name(row, 0), position)));
    let mut positions = Vec::new();
    for found in select.query_map(values, row)? {
        if let Some((name, position)) = found? {
            positions.push((name?, position));
        }
    }
    if positions.is_empty() {
        owners::check(connection, owner)?;
    }
    Ok(positions)
}

pub(super) fn addresses(
    connection: &Connection,
    after: Option<&DatasetAddress>,
    addresses_max: usize,
) -> Result<Vec<DatasetAddress>, Failure> {
    let sql = "SELECT owner, name FROM dataset WHERE (owner, name) > (?1, ?2) ORDER BY owner, name LIMIT ?3";
    let mut select = connection.prepare_cached(sql)?;
    let (owner, name) = after.map_or(("", ""), |after| (after.owner.as_str(), after.name.as_str()));
    let values = params![owner, name, sql::signed(addresses_max as u64)];
    Ok(select.query_map(values, rows::address)?.collect::<Result<_, _>>()?)
}

pub(super) fn old_tombstones(
    connection: &Connection,
    before: Timestamp,
    tombstones_max: usize,
) -> Result<Vec<(DatasetAddress, SyncCount)>, Failure> {
    let sql = "WITH oldest AS (
            SELECT dataset, sync_count FROM record INDEXED BY tombstone_by_age
            WHERE removal IS NOT NULL AND modified_at < ?1 ORDER BY modified_at, dataset, sync_count LIMIT ?2
        )
        SELECT owner, name, MAX(oldest.sync_count) FROM oldest JOIN dataset ON dataset.id = oldest.dataset
        GROUP BY oldest.dataset ORDER BY owner, name";
    let mut select = connection.prepare_cached(sql)?;
    let row = |row: &rusqlite::Row<'_>| Ok((rows::address(row)?, rows::count(row, 2)?));
    let values = params![before.0, sql::signed(tombstones_max as u64)];
    Ok(select.query_map(values, row)?.collect::<Result<_, _>>()?)
}

fn head(connection: &Connection, dataset: &DatasetAddress) -> Result<Option<(i64, Head)>, Error> {
    let sql = format!("SELECT {} FROM dataset WHERE owner = ?1 AND name = ?2", rows::HEAD);
    let mut select = connection.prepare_cached(&sql)?;
    select.query_row(params![dataset.owner.as_str(), dataset.name.as_str()], rows::head).optional()
}

/// The wanted pushes of a device and its newest one, oldest first.
fn remembered_pushes(
    connection: &Connection,
    dataset: i64,
    device: DeviceId,
    sequences: impl Iterator<Item = u64>,
) -> Result<Vec<RememberedPush>, Error> {
    let newest_sql = "SELECT sequence, hash, answer FROM push WHERE dataset = ?1 AND device = ?2
        ORDER BY sequence DESC LIMIT 1";
    let mut newest = connection.prepare_cached(newest_sql)?;
    let Some(newest) = newest.query_row(params![dataset, device.as_bytes()], rows::push).optional()? else {
        return Ok(Vec::new());
    };
    let sql = "SELECT sequence, hash, answer FROM push WHERE dataset = ?1 AND device = ?2 AND sequence = ?3";
    let mut select = connection.prepare_cached(sql)?;
    let mut remembered = Vec::new();
    for sequence in sequences.take_while(|sequence| *sequence < newest.sequence) {
        let values = params![dataset, device.as_bytes(), sql::signed(sequence)];
        remembered.extend(select.query_row(values, rows::push).optional()?);
    }
    remembered.push(newest);
    Ok(remembered)
}
