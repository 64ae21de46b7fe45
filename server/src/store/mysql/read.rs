//! What the store reads, each function at one moment.

use futures_util::TryStreamExt as _;
use sqlx::mysql::{MySqlPool, MySqlRow};
use sqlx::{MySql, MySqlConnection, QueryBuilder};
use sync_core::merge::push::{Head, View};
use sync_core::model::{DatasetName, Owner, Position, Record, RecordKey, SyncCount, Timestamp};

use crate::store::mysql::failure::Failure;
use crate::store::mysql::owners;
use crate::store::mysql::rows::{self, FoundHead};
use crate::store::mysql::transaction::{begin_reading, end_reading};
use crate::store::sql;
use crate::store::{DatasetAddress, RecordsAfter, RecordsFrom, RecordsRead, Room};

/// Records that are asked for at once at least.
const ROWS_MIN: usize = 16;

/// The head and at most one record, in one statement, which is a moment of its own.
pub(super) async fn view_of_one(
    readers: &MySqlPool,
    dataset: &DatasetAddress,
    key: Option<&RecordKey>,
) -> Result<View, Failure> {
    let sql = format!(
        "SELECT {}, {} FROM syncline_dataset AS d LEFT JOIN syncline_record AS r ON r.dataset = d.id AND r.`key` = ?
         WHERE d.owner = ? AND d.name = ?",
        rows::HEAD,
        rows::RECORD
    );
    let mut connection = readers.acquire().await?;
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(key.map(|key| key.as_str().as_bytes()))
        .bind(dataset.owner.as_str().as_bytes())
        .bind(dataset.name.as_str().as_bytes())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else {
        owners::check(&mut connection, &dataset.owner).await?;
        return Ok(View::default());
    };
    let mut view = View { head: rows::head(&row)?.head, ..View::default() };
    if rows::has_record(&row, rows::HEAD_COLUMNS)? {
        let record = rows::record(&row, rows::HEAD_COLUMNS)?;
        view.records.insert(record.key.clone(), record);
    }
    Ok(view)
}

pub(super) async fn records_after(
    pool: &MySqlPool,
    dataset: &DatasetAddress,
    range: &RecordsAfter,
) -> Result<RecordsRead, Failure> {
    let mut moment = begin_reading(pool).await?;
    let read = records_after_at(&mut moment, dataset, range).await;
    end_reading(moment, read).await
}

async fn records_after_at(
    moment: &mut MySqlConnection,
    dataset: &DatasetAddress,
    range: &RecordsAfter,
) -> Result<RecordsRead, Failure> {
    let Some(FoundHead { id, head, .. }) = head(moment, dataset).await? else {
        owners::check(moment, &dataset.owner).await?;
        return Ok(RecordsRead::default());
    };
    let since = (sql::signed(range.since.0.saturating_add(1)), Vec::new());
    let after = range.after.as_ref().map(|(count, key)| (sql::signed(count.0), key.as_str().as_bytes().to_vec()));
    // Keys are not empty, so `since` lies below the first record behind it.
    let mut behind = after.unwrap_or_default().max(since);
    let mut reading = Reading::new(head, range.records_max, range.bytes_max);
    while reading.goes_on() {
        let rows_max = reading.rows_max;
        let mut query = select(
            rows::RECORD,
            " FROM syncline_record AS r FORCE INDEX (syncline_record_by_count) WHERE r.dataset = ",
        );
        query.push_bind(id).push(" AND (r.sync_count > ").push_bind(behind.0);
        query.push(" OR (r.sync_count = ").push_bind(behind.0).push(" AND r.`key` > ").push_bind(behind.1);
        query.push(")) AND (r.removal IS NULL OR r.sync_count > ");
        query.push_bind(sql::signed(range.skip_tombstones_to.0));
        query.push(") ORDER BY r.sync_count, r.`key` LIMIT ").push_bind(rows_max as i64);
        reading.take(query, moment, |_| true).await?;
        let Some(last) = reading.read.records.last() else { break };
        behind = (sql::signed(last.sync_count.0), last.key.as_str().as_bytes().to_vec());
    }
    Ok(reading.read)
}

pub(super) async fn records_from(
    pool: &MySqlPool,
    dataset: &DatasetAddress,
    range: &RecordsFrom,
) -> Result<RecordsRead, Failure> {
    let mut moment = begin_reading(pool).await?;
    let read = records_from_at(&mut moment, dataset, range).await;
    end_reading(moment, read).await
}

async fn records_from_at(
    moment: &mut MySqlConnection,
    dataset: &DatasetAddress,
    range: &RecordsFrom,
) -> Result<RecordsRead, Failure> {
    let Some(FoundHead { id, head, .. }) = head(moment, dataset).await? else {
        owners::check(moment, &dataset.owner).await?;
        return Ok(RecordsRead::default());
    };
    let mut after = range.after.as_ref().map_or(Vec::new(), |key| key.as_str().as_bytes().to_vec());
    let mut reading = Reading::new(head, range.records_max, range.bytes_max);
    while reading.goes_on() {
        let rows_max = reading.rows_max;
        let mut query = select(rows::RECORD, " FROM syncline_record AS r WHERE r.dataset = ");
        query.push_bind(id).push(" AND r.`key` >= ").push_bind(range.prefix.as_bytes());
        query.push(" AND r.`key` > ").push_bind(after);
        query.push(" AND r.removal IS NULL ORDER BY r.`key` LIMIT ").push_bind(rows_max as i64);
        reading.take(query, moment, |record| record.key.as_str().starts_with(&range.prefix)).await?;
        let Some(last) = reading.read.records.last() else { break };
        after = last.key.as_str().as_bytes().to_vec();
    }
    Ok(reading.read)
}

/// Records that are read in steps, none of which is much more than there is room for.
struct Reading {
    read: RecordsRead,
    room: Room,
    /// How many rows are asked for at once.
    rows_max: usize,
    /// Whether the last step came to the end.
    is_complete: bool,
}

impl Reading {
    fn new(head: Head, records_max: usize, bytes_max: usize) -> Self {
        let record_bytes = usize::try_from(head.bytes / head.records.max(1)).unwrap_or(usize::MAX).max(1);
        let rows_max = (4 * bytes_max / record_bytes).clamp(ROWS_MIN, 4_096).min(records_max.saturating_add(1));
        let read = RecordsRead { head, ..RecordsRead::default() };
        Self { read, room: Room { records: records_max, bytes: bytes_max }, rows_max, is_complete: false }
    }

    const fn goes_on(&self) -> bool {
        !self.is_complete && !self.read.has_more
    }

    /// Reads a step. Rows that find no room are left unread.
    async fn take(
        &mut self,
        mut query: QueryBuilder<MySql>,
        moment: &mut MySqlConnection,
        belongs: impl Fn(&Record) -> bool,
    ) -> Result<(), Failure> {
        let mut rows = query.build().fetch(moment);
        let mut found = 0;
        while let Some(row) = rows.try_next().await? {
            found += 1;
            let record = rows::record(&row, 0)?;
            if !belongs(&record) {
                self.is_complete = true;
                return Ok(());
            }
            if !self.read.admit(record, &mut self.room) {
                return Ok(());
            }
        }
        self.is_complete = found < self.rows_max;
        Ok(())
    }
}

pub(super) async fn datasets(
    pool: &MySqlPool,
    owner: &Owner,
    after: Option<&DatasetName>,
    names_max: usize,
) -> Result<Vec<DatasetName>, Failure> {
    let mut connection = pool.acquire().await?;
    let text = "SELECT name FROM syncline_dataset WHERE owner = ? AND name > ? AND is_live ORDER BY name LIMIT ?";
    let query = sqlx::query(text)
        .bind(owner.as_str().as_bytes())
        .bind(after.map_or("", DatasetName::as_str).as_bytes())
        .bind(sql::signed(names_max as u64));
    let names = query.fetch_all(&mut *connection).await?;
    if names.is_empty() {
        owners::check(&mut connection, owner).await?;
    }
    names.iter().map(|row| rows::name(row, 0)).collect()
}

pub(super) async fn positions(
    pool: &MySqlPool,
    owner: &Owner,
    after: Option<&DatasetName>,
    positions_max: usize,
) -> Result<Vec<(DatasetName, Position)>, Failure> {
    let mut connection = pool.acquire().await?;
    let text = "SELECT name, epoch, sync_count, tag FROM syncline_dataset
        WHERE owner = ? AND name > ? AND epoch IS NOT NULL ORDER BY name LIMIT ?";
    let query = sqlx::query(text)
        .bind(owner.as_str().as_bytes())
        .bind(after.map_or("", DatasetName::as_str).as_bytes())
        .bind(sql::signed(positions_max as u64));
    let found = query.fetch_all(&mut *connection).await?;
    if found.is_empty() {
        owners::check(&mut connection, owner).await?;
    }
    let named = |row: &MySqlRow| -> Result<_, Failure> {
        Ok(rows::position(row, 1)?.map(|position| rows::name(row, 0).map(|name| (name, position))))
    };
    found.iter().filter_map(|row| named(row).transpose()).map(|found| found?).collect()
}

pub(super) async fn addresses(
    pool: &MySqlPool,
    after: Option<&DatasetAddress>,
    addresses_max: usize,
) -> Result<Vec<DatasetAddress>, Failure> {
    let (owner, name) = after.map_or(("", ""), |after| (after.owner.as_str(), after.name.as_str()));
    let text = "SELECT owner, name FROM syncline_dataset WHERE owner > ? OR (owner = ? AND name > ?)
        ORDER BY owner, name LIMIT ?";
    let query = sqlx::query(text).bind(owner.as_bytes()).bind(owner.as_bytes()).bind(name.as_bytes());
    let found = query.bind(sql::signed(addresses_max as u64)).fetch_all(pool).await?;
    found.iter().map(|row| rows::address(row, 0)).collect()
}

pub(super) async fn old_tombstones(
    pool: &MySqlPool,
    before: Timestamp,
    tombstones_max: usize,
) -> Result<Vec<(DatasetAddress, SyncCount)>, Failure> {
    let text = "SELECT d.owner, d.name, MAX(oldest.removed_count) FROM (
            SELECT dataset, removed_count FROM syncline_record FORCE INDEX (syncline_tombstone_by_age)
            WHERE removed_at < ? ORDER BY removed_at, dataset, removed_count LIMIT ?
        ) AS oldest JOIN syncline_dataset AS d ON d.id = oldest.dataset
        GROUP BY d.owner, d.name ORDER BY d.owner, d.name";
    let query = sqlx::query(text).bind(before.0).bind(sql::signed(tombstones_max as u64));
    let found = query.fetch_all(pool).await?;
    found.iter().map(|row| Ok((rows::address(row, 0)?, rows::count(row, 2)?))).collect()
}

/// The head of a dataset, if it was ever written.
pub(super) async fn head(
    connection: &mut MySqlConnection,
    dataset: &DatasetAddress,
) -> Result<Option<FoundHead>, Failure> {
    let sql = format!("SELECT {} FROM syncline_dataset AS d WHERE d.owner = ? AND d.name = ?", rows::HEAD);
    let query = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(dataset.owner.as_str().as_bytes())
        .bind(dataset.name.as_str().as_bytes());
    let row = query.fetch_optional(connection).await?;
    row.as_ref().map(rows::head).transpose()
}

fn select(columns: &str, rest: &str) -> QueryBuilder<MySql> {
    let mut query = QueryBuilder::new("SELECT ");
    query.push(columns).push(rest);
    query
}
