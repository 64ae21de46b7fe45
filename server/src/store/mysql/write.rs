//! What the store writes: several commits in the transaction that is open. Everything is encoded before.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::mysql::MySqlPool;
use sqlx::{Executor as _, MySqlConnection, QueryBuilder};
use sync_core::merge::push::{Commit, Head};
use sync_core::model::{ChangeId, DeviceId, Owner, Position, Record, RecordState, SyncCount, Value, limits};

use crate::store::mysql::failure::Failure;
use crate::store::mysql::lanes::Job;
use crate::store::mysql::lists::{any_of, filled_up, in_powers_of_two};
use crate::store::mysql::transaction::end;
use crate::store::mysql::{owners, rows, schema};
use crate::store::sql::{self, EncodedPush};
use crate::store::{CommitOutcome, DatasetAddress};

/// A commit in the form of its rows.
pub(super) struct EncodedCommit {
    dataset: DatasetAddress,
    expected: Option<Position>,
    head: Head,
    lineage: Vec<u8>,
    records: Vec<EncodedRecord>,
    pushes: Vec<EncodedPush>,
    changes: Vec<(ChangeId, SyncCount)>,
    clear: bool,
    purge: bool,
}

struct EncodedRecord {
    /// Its value, if it has one, is in `bytes`.
    record: Record,
    bytes: Option<Vec<u8>>,
    json: Option<String>,
}

/// What is found of a dataset before it is written.
#[derive(Clone)]
struct Found {
    id: i64,
    position: Option<Position>,
    floor: SyncCount,
    next_change: i64,
}

/// Bytes of one statement, unless it has one row.
const STATEMENT_BYTES_MAX: usize = 2 << 20;
/// MariaDB reads JSON that is nested up to 32 deep, with one level to spare for whoever puts a value into a document.
const JSON_DEPTH_MAX: usize = 30;
/// Pushes of a device are forgotten after each so many, and change ids of a dataset.
const PUSHES_FORGOTTEN_EVERY: u64 = 16;
const CHANGES_FORGOTTEN_EVERY: i64 = 1_024;

impl EncodedCommit {
    pub(super) fn new(dataset: DatasetAddress, commit: Commit) -> Self {
        let Commit { expected, head, records, pushes, changes, clear, purge } = commit;
        Self {
            dataset,
            expected,
            lineage: rmp_serde::to_vec_named(&head.lineage).expect("lines have no unencodable parts"),
            head,
            records: records.into_iter().map(EncodedRecord::new).collect(),
            pushes: pushes.into_iter().map(EncodedPush::new).collect(),
            changes,
            clear,
            purge,
        }
    }
}

impl Job for EncodedCommit {
    type Done = CommitOutcome;
    const TOGETHER_MAX: usize = 256;
    const SIZE_MAX: usize = 8 << 20;

    fn dataset(&self) -> &DatasetAddress {
        &self.dataset
    }

    /// About how many bytes it has.
    fn size(&self) -> usize {
        self.records.iter().map(EncodedRecord::bytes).sum::<usize>() + self.lineage.len()
    }

    async fn do_together(
        writers: &MySqlPool,
        commits: &[Self],
    ) -> Result<Vec<Result<CommitOutcome, Failure>>, Failure> {
        let mut connection = writers.acquire().await?;
        connection.execute("START TRANSACTION").await?;
        let outcomes = write_together(&mut connection, commits).await;
        end(connection, outcomes).await
    }
}

impl EncodedRecord {
    fn new(mut record: Record) -> Self {
        let bytes = record.value().map(Value::to_bytes);
        let json = record.value().filter(|value| depth(value) <= JSON_DEPTH_MAX).map(Value::to_json);
        if bytes.is_some() {
            // Its bytes are enough from here on.
            record.state = RecordState::Value(Value::Null);
        }
        Self { record, bytes, json }
    }

    fn bytes(&self) -> usize {
        self.bytes.as_ref().map_or(0, Vec::len)
            + self.json.as_ref().map_or(0, String::len)
            + self.record.key.as_str().len()
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::List(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Map(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Writes commits to different datasets in the transaction that is open, and says for each what became of it. If it
/// fails, nothing may be committed.
async fn write_together(
    connection: &mut MySqlConnection,
    commits: &[EncodedCommit],
) -> Result<Vec<Result<CommitOutcome, Failure>>, Failure> {
    schema::check_writable(connection).await?;
    let (found, moved) = find_or_make(connection, commits).await?;
    let mut outcomes = Vec::new();
    let mut written = Vec::new();
    for commit in commits {
        let found = found.get(&commit.dataset);
        outcomes.push(if found.is_none() && moved.contains(&commit.dataset.owner) {
            Err(Failure::Moved)
        } else if found.and_then(|found| found.position) != commit.expected {
            Ok(CommitOutcome::Stale)
        } else {
            written.extend(found.map(|found| (commit, found)));
            Ok(CommitOutcome::Written)
        });
    }
    write_heads(connection, &written).await?;
    for (commit, found) in &written {
        if commit.clear {
            sqlx::query("DELETE FROM syncline_record WHERE dataset = ?")
                .bind(found.id)
                .execute(&mut *connection)
                .await?;
        }
    }
    write_records(connection, &written).await?;
    write_pushes(connection, &written).await?;
    write_changes(connection, &written).await?;
    for (commit, found) in &written {
        if commit.purge {
            let floor = found.floor.max(commit.head.floor);
            let text = "DELETE FROM syncline_record WHERE dataset = ? AND removed_count <= ?";
            sqlx::query(text).bind(found.id).bind(sql::signed(floor.0)).execute(&mut *connection).await?;
        }
    }
    Ok(outcomes)
}

type FoundByAddress = BTreeMap<DatasetAddress, Found>;

/// Locks what commits are about. What is new and expected to be so is made, if its owner was not linked away; which
/// owners were is said besides.
async fn find_or_make(
    connection: &mut MySqlConnection,
    commits: &[EncodedCommit],
) -> Result<(FoundByAddress, BTreeSet<Owner>), Failure> {
    let mut found = lock(connection, &addresses(commits, |_| true)).await?;
    let missing = addresses(commits, |commit| !found.contains_key(&commit.dataset));
    if missing.is_empty() {
        return Ok((found, BTreeSet::new()));
    }
    let owners: BTreeSet<Owner> = missing.iter().map(|address| address.owner.clone()).collect();
    let moved = owners::lock(connection, &owners).await?;
    // Somebody may have made some before the owners were locked.
    found.extend(lock(connection, &missing).await?);
    let is_new = |commit: &EncodedCommit| {
        commit.expected.is_none() && !moved.contains(&commit.dataset.owner) && !found.contains_key(&commit.dataset)
    };
    let new = addresses(commits, is_new);
    make(connection, &new).await?;
    found.extend(lock(connection, &new).await?);
    Ok((found, moved))
}

/// Addresses of the commits that are meant, in order.
fn addresses(commits: &[EncodedCommit], is_meant: impl Fn(&EncodedCommit) -> bool) -> Vec<DatasetAddress> {
    let meant: BTreeSet<_> = commits.iter().filter(|commit| is_meant(commit)).map(|commit| &commit.dataset).collect();
    meant.into_iter().cloned().collect()
}

async fn lock(connection: &mut MySqlConnection, datasets: &[DatasetAddress]) -> Result<FoundByAddress, Failure> {
    let mut found = BTreeMap::new();
    for datasets in filled_up(datasets) {
        let mut query = QueryBuilder::new(
            "SELECT owner, name, id, epoch, sync_count, tag, floor, next_change
            FROM syncline_dataset FORCE INDEX (syncline_dataset_by_name) WHERE ",
        );
        any_of(&mut query, &datasets, |query, DatasetAddress { owner, name }| {
            query.push("owner = ").push_bind(owner.as_str().as_bytes());
            query.push(" AND name = ").push_bind(name.as_str().as_bytes());
        });
        query.push(" FOR UPDATE");
        for row in query.build().fetch_all(&mut *connection).await? {
            let one = Found {
                id: rows::column(&row, 2)?,
                position: rows::position(&row, 3)?,
                floor: rows::count(&row, 6)?,
                next_change: rows::column(&row, 7)?,
            };
            found.insert(rows::address(&row, 0)?, one);
        }
    }
    Ok(found)
}

/// Makes datasets without anything in them; the commit that follows says what they are.
async fn make(connection: &mut MySqlConnection, datasets: &[DatasetAddress]) -> Result<(), Failure> {
    for datasets in in_powers_of_two(datasets) {
        let mut query = QueryBuilder::new(
            "INSERT INTO syncline_dataset (owner, name, sync_count, floor, is_live, records, bytes, digest, modified_at,
                next_change, lineage) ",
        );
        query.push_values(datasets, |mut row, DatasetAddress { owner, name }| {
            row.push_bind(owner.as_str().as_bytes()).push_bind(name.as_str().as_bytes());
            row.push("0, 0, FALSE, 0, 0, REPEAT(CHAR(0), 16), 0, 0, ''");
        });
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}

async fn write_heads(connection: &mut MySqlConnection, commits: &[(&EncodedCommit, &Found)]) -> Result<(), Failure> {
    for commits in in_powers_of_two(commits) {
        let mut query = QueryBuilder::new(
            "INSERT INTO syncline_dataset (id, owner, name, epoch, sync_count, tag, floor, is_live, records, bytes, digest,
                modified_at, modified_by, next_change, lineage) ",
        );
        query.push_values(commits, |mut row, (commit, found)| {
            let EncodedCommit { dataset, head, lineage, changes, .. } = commit;
            let position = head.lineage.position();
            row.push_bind(found.id)
                .push_bind(dataset.owner.as_str().as_bytes())
                .push_bind(dataset.name.as_str().as_bytes());
            row.push_bind(position.as_ref().map(|position| position.epoch.as_bytes().as_slice()));
            row.push_bind(sql::signed(head.lineage.count.0));
            row.push_bind(position.as_ref().map(|position| position.tag.as_bytes().as_slice()));
            row.push_bind(sql::signed(found.floor.max(head.floor).0)).push_bind(head.exists());
            row.push_bind(sql::signed(head.records)).push_bind(sql::signed(head.bytes));
            row.push_bind(head.digest.to_bytes().to_vec()).push_bind(head.modified_at.0);
            row.push_bind(head.modified_by.as_ref().map(|device| device.as_bytes().as_slice()));
            row.push_bind(found.next_change + changes.len() as i64).push_bind(lineage.as_slice());
        });
        query.push(
            " ON DUPLICATE KEY UPDATE epoch = VALUES(epoch), sync_count = VALUES(sync_count), tag = VALUES(tag),
                floor = VALUES(floor), is_live = VALUES(is_live), records = VALUES(records), bytes = VALUES(bytes),
                digest = VALUES(digest), modified_at = VALUES(modified_at), modified_by = VALUES(modified_by),
                next_change = VALUES(next_change), lineage = VALUES(lineage)",
        );
        query.build().execute(&mut *connection).await?;
    }
    Ok(())
}

async fn write_records(connection: &mut MySqlConnection, commits: &[(&EncodedCommit, &Found)]) -> Result<(), Failure> {
    let rows: Vec<(i64, &EncodedRecord)> =
        commits.iter().flat_map(|(commit, found)| commit.records.iter().map(|record| (found.id, record))).collect();
    let mut rest = rows.as_slice();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(fitting(rest));
        rest = later;
        for rows in in_powers_of_two(now) {
            upsert_records(connection, rows).await?;
        }
    }
    Ok(())
}

/// How many of these records go into statements together: at least one.
fn fitting(rows: &[(i64, &EncodedRecord)]) -> usize {
    let mut bytes = 0;
    let fits = |(_, record): &&(i64, &EncodedRecord)| {
        bytes += record.bytes();
        bytes <= STATEMENT_BYTES_MAX
    };
    rows.iter().take_while(fits).count().max(1)
}

async fn upsert_records(connection: &mut MySqlConnection, rows: &[(i64, &EncodedRecord)]) -> Result<(), Failure> {
    let mut query = QueryBuilder::new(
        "INSERT INTO syncline_record (dataset, `key`, sync_count, removal, modified_by, modified_at, device_time, bytes,
            value) ",
    );
    query.push_values(rows, |mut row, (dataset, EncodedRecord { record, bytes, json })| {
        let removal = match record.state {
            RecordState::Value(_) => None,
            RecordState::Removed(reason) => Some(sql::removal(reason).as_bytes()),
        };
        row.push_bind(*dataset).push_bind(record.key.as_str().as_bytes()).push_bind(sql::signed(record.sync_count.0));
        row.push_bind(removal).push_bind(record.modified_by.as_ref().map(|device| device.as_bytes().as_slice()));
        row.push_bind(record.modified_at.0).push_bind(record.device_time.0);
        row.push_bind(bytes.as_deref()).push_bind(json.as_deref());
    });
    query.push(
        " ON DUPLICATE KEY UPDATE sync_count = VALUES(sync_count), removal = VALUES(removal),
            modified_by = VALUES(modified_by), modified_at = VALUES(modified_at), device_time = VALUES(device_time),
            bytes = VALUES(bytes), value = VALUES(value)",
    );
    query.build().execute(connection).await?;
    Ok(())
}

async fn write_pushes(connection: &mut MySqlConnection, commits: &[(&EncodedCommit, &Found)]) -> Result<(), Failure> {
    let pushes: Vec<(i64, &EncodedPush)> =
        commits.iter().flat_map(|(commit, found)| commit.pushes.iter().map(|push| (found.id, push))).collect();
    for pushes in in_powers_of_two(&pushes) {
        let mut query = QueryBuilder::new("INSERT INTO syncline_push (dataset, device, sequence, hash, answer) ");
        query.push_values(pushes, |mut row, (dataset, push)| {
            row.push_bind(*dataset).push_bind(push.device.as_bytes().as_slice()).push_bind(sql::signed(push.sequence));
            row.push_bind(push.hash.as_slice()).push_bind(push.answer.as_slice());
        });
        query.push(" ON DUPLICATE KEY UPDATE hash = VALUES(hash), answer = VALUES(answer)");
        query.build().execute(&mut *connection).await?;
    }
    for (dataset, push) in pushes.iter().filter(|(_, push)| push.sequence % PUSHES_FORGOTTEN_EVERY == 0) {
        forget_pushes(connection, *dataset, push.device).await?;
    }
    Ok(())
}

/// Readers look at the latest ones only, so the rest may go at any time.
async fn forget_pushes(connection: &mut MySqlConnection, dataset: i64, device: DeviceId) -> Result<(), Failure> {
    let text = "DELETE FROM syncline_push WHERE dataset = ? AND device = ? AND sequence <= (SELECT sequence FROM (
            SELECT sequence FROM syncline_push WHERE dataset = ? AND device = ? ORDER BY sequence DESC LIMIT 1 OFFSET ?
        ) AS oldest)";
    let device = device.as_bytes().as_slice();
    let query = sqlx::query(text).bind(dataset).bind(device).bind(dataset).bind(device);
    query.bind(limits::PUSHES_REMEMBERED_MAX as i64).execute(connection).await?;
    Ok(())
}

async fn write_changes(connection: &mut MySqlConnection, commits: &[(&EncodedCommit, &Found)]) -> Result<(), Failure> {
    let numbered = |(commit, found): &(&EncodedCommit, &Found)| {
        let Found { id, next_change, .. } = **found;
        let changes: Vec<_> =
            commit.changes.iter().zip(next_change..).map(|(change, number)| (id, number, *change)).collect();
        changes
    };
    let changes: Vec<(i64, i64, (ChangeId, SyncCount))> = commits.iter().flat_map(numbered).collect();
    for changes in in_powers_of_two(&changes) {
        let mut query = QueryBuilder::new("INSERT INTO syncline_change (dataset, number, change_id, sync_count) ");
        query.push_values(changes, |mut row, (dataset, number, (change, count))| {
            row.push_bind(*dataset).push_bind(*number).push_bind(change.as_bytes().as_slice());
            row.push_bind(sql::signed(count.0));
        });
        // What is known stays as it is.
        query.push(" ON DUPLICATE KEY UPDATE number = syncline_change.number");
        query.build().execute(&mut *connection).await?;
    }
    for (commit, found) in commits {
        let next = found.next_change + commit.changes.len() as i64;
        if found.next_change / CHANGES_FORGOTTEN_EVERY != next / CHANGES_FORGOTTEN_EVERY {
            // Readers look at the latest ones only, so the rest may go at any time.
            let text = "DELETE FROM syncline_change WHERE dataset = ? AND number < ?";
            let forgotten = next - limits::CHANGES_REMEMBERED_MAX as i64;
            sqlx::query(text).bind(found.id).bind(forgotten).execute(&mut *connection).await?;
        }
    }
    Ok(())
}
