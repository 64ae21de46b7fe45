//! What is SQLite's own; the rest is in the conformance suite.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use sync_core::merge::push::{Answer, Commit, Head, RememberedPush};
use sync_core::model::{
    ChangeId, CommitTag, DatasetName, DeviceId, EpochId, EpochReason, Owner, Record, RecordKey, RecordState, SyncCount,
    Timestamp, Value,
};

use super::*;

crate::store_conformance!(open());

fn open() -> (Arc<dyn Store>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Arc::new(SqliteStore::open(&folder.path().join("db")).unwrap()), folder)
}

fn dataset(name: &str) -> DatasetAddress {
    DatasetAddress { owner: Owner::parse("local:ada").unwrap(), name: DatasetName::parse(name).unwrap() }
}

fn first_commit() -> Commit {
    let mut commit = Commit::on(&Head::default());
    commit.head.lineage.open(EpochId::from_bytes([1; 16]), EpochReason::Created);
    commit.head.lineage.advance(CommitTag::from_bytes([2; 8]));
    commit
}

fn refused(file: &Path) -> String {
    match SqliteStore::open(file).err().unwrap() {
        StoreError::Unavailable(source) | StoreError::Full(source) => source.to_string(),
        StoreError::Corrupt(text) => text,
        other @ (StoreError::Moved | StoreError::ReadOnly) => other.to_string(),
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    let store = SqliteStore::open(&file).unwrap();
    let names: Vec<_> = (0..200).map(|number| dataset(&format!("d{number:03}"))).collect();
    let outcomes = join_all(names.iter().map(|name| store.commit(name, first_commit()))).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(CommitOutcome::Written))));
    drop(store);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the log was written into the file");
    let store = SqliteStore::open(&file).unwrap();
    assert_eq!(store.addresses(None, 1_000).await.unwrap(), names);
    let view = store.view(&names[0], &Touched::default()).await.unwrap();
    assert_eq!(view.head, first_commit().head);
}

#[test]
fn a_file_of_a_newer_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    drop(SqliteStore::open(&file).unwrap());
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(refused(&file).contains("was written by a newer version of Syncline (its version is 99"));
}

#[test]
fn a_file_whose_version_is_not_that_of_its_tables_is_refused_and_is_no_backup() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("syncline.db");
    for version in 0..schema::MIGRATIONS.len() {
        drop(SqliteStore::open(&file).unwrap());
        Connection::open(&file).unwrap().pragma_update(None, "user_version", version as i64).unwrap();
        assert!(matches!(SqliteStore::open(&file), Err(StoreError::Corrupt(_))), "{version}");
        assert!(matches!(SqliteStore::check(&file), Err(StoreError::Corrupt(_))), "{version}");
        assert!(matches!(SqliteStore::version(&file), Err(StoreError::Corrupt(_))), "{version}");
        fs::remove_file(&file).unwrap();
    }
    let others = [
        "CREATE TABLE note (text TEXT)",
        "CREATE VIEW note AS SELECT 1",
        "CREATE TABLE device (id); PRAGMA user_version = 3",
        "PRAGMA user_version = -1",
    ];
    for other in others {
        Connection::open(&file).unwrap().execute_batch(other).unwrap();
        assert!(refused(&file).contains("is not a database of Syncline, or it is damaged"), "{other}");
        fs::remove_file(&file).unwrap();
    }
}

#[test]
fn a_file_that_lacks_a_table_or_an_index_or_has_other_columns_is_refused_and_is_no_backup() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    drop(SqliteStore::open(&file).unwrap());
    let drop_each = "SELECT concat_ws(' ', 'DROP', type, name) FROM sqlite_schema WHERE sql IS NOT NULL";
    let mut damages: Vec<String> = {
        let connection = Connection::open(&file).unwrap();
        let mut select = connection.prepare(drop_each).unwrap();
        select.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    assert!(damages.len() > 10, "{damages:?}");
    damages.push("ALTER TABLE change RENAME COLUMN sync_count TO rync_count".to_owned());
    for damage in damages {
        fs::remove_file(&file).unwrap();
        drop(SqliteStore::open(&file).unwrap());
        Connection::open(&file).unwrap().execute_batch(&damage).unwrap();
        assert!(refused(&file).contains("is not a database of Syncline, or it is damaged"), "{damage}");
        assert!(matches!(SqliteStore::check(&file), Err(StoreError::Corrupt(_))), "{damage}");
    }
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    fs::write(&file, "a text, and long enough for a header ".repeat(100)).unwrap();
    assert!(refused(&file).contains("is not a database of Syncline"));
    assert!(fs::read_to_string(&file).unwrap().starts_with("a text"));
    assert!(refused(folder.path()).contains("cannot be opened"));
    assert!(refused(&folder.path().join("no/such/folder")).contains("cannot be opened"));
}

#[tokio::test]
async fn a_damaged_page_is_an_error_and_not_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    let store = SqliteStore::open(&file).unwrap();
    store.commit(&dataset("notes"), first_commit()).await.unwrap();
    drop(store);
    let page_of = "SELECT 4096 * (rootpage - 1) FROM sqlite_schema WHERE name = ?";
    let page_of = |table: &str| -> usize {
        let begins: i64 = Connection::open(&file).unwrap().query_row(page_of, [table], |row| row.get(0)).unwrap();
        begins as usize
    };
    let (schema_ends, read_when_opened) = (4096, page_of("store_state"));
    let mut bytes = fs::read(&file).unwrap();
    bytes[schema_ends..read_when_opened].fill(0x5a);
    bytes[read_when_opened + 4096..].fill(0x5a);
    fs::write(&file, &bytes).unwrap();
    let store = SqliteStore::open(&file).unwrap();
    for _ in 0..2 {
        let read = store.view(&dataset("notes"), &Touched::default()).await;
        assert!(matches!(read, Err(StoreError::Corrupt(_))), "{read:?}");
        let written = store.commit(&dataset("notes"), first_commit()).await;
        assert!(matches!(written, Err(StoreError::Corrupt(_))), "{written:?}");
    }
    drop(store);
    bytes[schema_ends..].fill(0x5a);
    fs::write(&file, bytes).unwrap();
    assert!(refused(&file).contains("put back a backup"));
}

#[tokio::test]
async fn rows_that_do_not_fit_together_are_no_backup() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let store = SqliteStore::open(&path("whole")).unwrap();
    let record = Record {
        key: RecordKey::parse("milk").unwrap(),
        state: RecordState::Value(Value::Int(2)),
        sync_count: SyncCount(1),
        modified_by: None,
        modified_at: Timestamp(1),
        device_time: Timestamp(1),
    };
    let answer = Answer { ack: None, outcomes: Vec::new() };
    let mut commit = first_commit();
    commit.head.digest = commit.head.digest.plus(&record);
    commit.head.records = 1;
    commit.head.bytes = record.bytes() as u64;
    commit.records = vec![record];
    commit.changes = vec![(ChangeId::from_bytes([5; 16]), SyncCount(1))];
    commit.pushes = vec![(DeviceId::from_bytes([3; 16]), RememberedPush { sequence: 1, hash: [4; 32], answer })];
    store.commit(&dataset("notes"), commit).await.unwrap();
    drop(store);
    SqliteStore::copy(&path("whole"), &path("copy")).unwrap();

    let refused = |name: &str| SqliteStore::copy(&path(name), &path("copy of damaged")).unwrap_err().to_string();
    for (damage, expected) in [
        ("DELETE FROM dataset", "belongs to no dataset"),
        ("UPDATE push SET answer = x'80'", "missing field"),
        ("DELETE FROM store_state", "no rows"),
        ("UPDATE record SET value = x'01'", "are not those that were written"),
        ("UPDATE dataset SET records = 2", "are not those that were written"),
        ("UPDATE dataset SET bytes = 2", "are not those that were written"),
        ("UPDATE dataset SET is_live = 0", "contradicts itself"),
        ("UPDATE dataset SET tag = NULL", "contradicts itself"),
        ("UPDATE dataset SET sync_count = 3", "contradicts itself"),
        ("UPDATE dataset SET next_change = 0", "still to be given"),
    ] {
        fs::copy(path("copy"), path("damaged")).unwrap();
        Connection::open(path("damaged")).unwrap().execute(damage, []).unwrap();
        let text = refused("damaged");
        assert!(text.contains(expected), "{damage}: {text}");
        fs::remove_file(path("copy of damaged")).unwrap();
    }
    // A copy of a table whose page is empty would be sound, and empty.
    let mut bytes = fs::read(path("copy")).unwrap();
    let root = "SELECT 4096 * (rootpage - 1) FROM sqlite_schema WHERE name = 'dataset'";
    let root: i64 = Connection::open(path("copy")).unwrap().query_row(root, [], |row| row.get(0)).unwrap();
    let empty_leaf = [0x0d, 0, 0, 0, 0, 0x10, 0, 0];
    bytes[root as usize..][..empty_leaf.len()].copy_from_slice(&empty_leaf);
    fs::write(path("damaged"), bytes).unwrap();
    let text = refused("damaged");
    assert!(text.contains("damaged") && !path("copy of damaged").exists(), "{text}");
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_the_store_goes_on_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    let mut connection = schema::open(&file).unwrap();
    schema::migrate(&file, &mut connection).unwrap();
    let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    connection.pragma_update(None, "max_page_count", pages + 4).unwrap();
    let writer = Writer::start(connection).unwrap();
    let mut large = first_commit();
    large.changes = (0..2_000_u32)
        .map(|number| {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&number.to_be_bytes());
            (ChangeId::from_bytes(id), SyncCount(1))
        })
        .collect();
    let write = |name: &str, commit| {
        let commit = EncodedCommit::new(dataset(name), commit);
        writer.write(move |connection| commit.write(connection))
    };
    let full = write("large", large).await;
    assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
    let small = write("small", first_commit()).await;
    assert!(matches!(small, Ok(CommitOutcome::Written)), "{small:?}");
}

/// A commit of these records, as a push by one change id makes it.
fn of_records(head: &Head, numbers: impl Iterator<Item = usize>) -> Commit {
    let mut commit = if head.exists() { Commit::on(head) } else { first_commit() };
    let count = commit.head.lineage.count.0 + 1;
    commit.head.lineage.advance(CommitTag::from_bytes(count.to_be_bytes()));
    let record = |number: usize| Record {
        key: key(number),
        state: RecordState::Value(Value::Text("a value".into())),
        sync_count: SyncCount(count),
        modified_by: None,
        modified_at: Timestamp(0),
        device_time: Timestamp(0),
    };
    commit.records = numbers.map(record).collect();
    commit.head.records = 1;
    commit.changes = vec![(change(count), SyncCount(count))];
    commit
}

fn key(number: usize) -> RecordKey {
    RecordKey::parse(format!("record/{number:07}")).unwrap()
}

fn change(count: u64) -> ChangeId {
    ChangeId::from_bytes((u128::from(count) << 64).to_be_bytes())
}

/// The steps of SQLite's machine while something runs. It takes at least one for each row that it reads or writes.
fn steps(connection: &Connection, run: impl FnOnce()) -> u64 {
    let taken = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&taken);
    let step = move || {
        count.fetch_add(1, Ordering::Relaxed);
        false
    };
    connection.progress_handler(1, Some(step)).unwrap();
    run();
    connection.progress_handler(0, None::<fn() -> bool>).unwrap();
    taken.load(Ordering::Relaxed)
}

/// The steps of a push of one record, from the view to the commit, and of the pull of it.
fn steps_of_one_record(records: usize) -> [u64; 3] {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    let mut connection = schema::open(&file).unwrap();
    schema::migrate(&file, &mut connection).unwrap();
    let dataset = dataset("notes");
    let write = |commit: Commit| {
        let written = EncodedCommit::new(dataset.clone(), commit).write(&connection).unwrap();
        assert!(matches!(written, CommitOutcome::Written));
    };
    let mut head = Head::default();
    connection.execute_batch("BEGIN").unwrap();
    for first in (0..records).step_by(1_000) {
        let commit = of_records(&head, first..first + 1_000);
        head = commit.head.clone();
        write(commit);
    }
    connection.execute_batch("COMMIT").unwrap();
    // What is counted is done once before: the first time, statements are prepared.
    let mut counted = [0; 3];
    for _ in 0..2 {
        let since = head.lineage.count;
        let commit = of_records(&head, 500..501);
        head = commit.head.clone();
        let touched = Touched {
            keys: [key(500), key(501)].into(),
            changes: [change(head.lineage.count.0)].into(),
            ..Touched::default()
        };
        let view = || assert_eq!(read::view(&connection, &dataset, touched).unwrap().records.len(), 2);
        let range = RecordsAfter {
            since,
            after: None,
            skip_tombstones_to: SyncCount(0),
            records_max: 1_000,
            bytes_max: 1 << 20,
        };
        let pull = || assert_eq!(read::records_after(&connection, &dataset, &range).unwrap().records.len(), 1);
        counted = [steps(&connection, view), steps(&connection, || write(commit)), steps(&connection, pull)];
    }
    counted
}

#[test]
fn one_record_takes_as_many_steps_in_a_large_dataset_as_in_a_small_one() {
    let [small, large] = [1_000, 1_000_000].map(steps_of_one_record);
    assert_eq!(small, large);
    assert!(small.iter().all(|steps| (10..1_000).contains(steps)), "{small:?}");
}
