//! MySQL or MariaDB.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use futures_util::future::join_all;
use sync_core::merge::push::{Commit, Head};
use sync_core::model::{
    CommitTag, DatasetName, EpochId, EpochReason, Owner, Record, RecordKey, RecordState, SyncCount, Timestamp, Value,
};
use syncline_server::store::conformance::{
    a_copy_takes_the_place_of_its_source, increments_at_several_servers_count_once,
};
use syncline_server::store::memory::MemoryStore;
use syncline_server::store::mysql::MysqlStore;
use syncline_server::store::sqlite::SqliteStore;
use syncline_server::store::{CommitOutcome, DatasetAddress, Store, StoreError, TablesVersion, Touched};
use tests::harness::{Folder, MariaDb, Tunnel, sql};

use crate::simulations::go_as_over_the_memory_store;

syncline_server::store_conformance!((open(&database().await).await, ()));

/// A database with tables.
async fn database() -> String {
    let url = MariaDb::shared().database();
    MysqlStore::migrate(&url).await.unwrap();
    url
}

async fn open(url: &str) -> Arc<dyn Store> {
    Arc::new(MysqlStore::open(url).await.unwrap())
}

fn told<T>(result: Result<T, StoreError>) -> String {
    match result.err().expect("it is refused") {
        StoreError::Unavailable(source) => source.to_string(),
        other => other.to_string(),
    }
}

#[tokio::test]
async fn tables_are_made_once_and_those_of_a_newer_version_are_left_alone() {
    let url = MariaDb::shared().database();
    assert!(told(MysqlStore::open(&url).await).contains("run `syncline migrate`"));
    let migrate = || MysqlStore::migrate(&url);
    let all = tokio::join!(migrate(), migrate(), migrate(), migrate());
    let mut found = <[_; 4]>::from(all).map(|version| version.unwrap().found);
    found.sort_unstable();
    let TablesVersion { found: current, known } = MysqlStore::version(&url).await.unwrap();
    assert_eq!((found, current), ([0, known, known, known], known));
    assert_eq!(MysqlStore::migrate(&url).await.unwrap().found, known);
    drop(MysqlStore::open(&url).await.unwrap());

    let mark = |success| {
        let columns = "(version, description, success, checksum, execution_time)";
        sql(&url, &format!("REPLACE INTO _syncline_migrations {columns} VALUES (9999, 'later', {success}, 'x', 1)"));
    };
    for (success, expected) in [(1, "newer version"), (0, "interrupted")] {
        mark(success);
        for told in [
            told(MysqlStore::open(&url).await),
            told(MysqlStore::migrate(&url).await),
            told(MysqlStore::version(&url).await),
        ] {
            assert!(told.contains(expected), "{told}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_said_in_words_that_have_no_password() {
    let url = MariaDb::shared().database();
    let name = url.rsplit('/').next().unwrap();
    let place = url.rsplit('@').next().unwrap().split('/').next().unwrap();
    for (url, expected) in [
        (format!("mysql://root:secret@127.0.0.1:1/{name}"), "127.0.0.1:1: cannot be reached"),
        (format!("mysql://stranger:secret@{place}/{name}"), "Access denied"),
        (format!("mysql://root@{place}/no_such_database"), "no_such_database"),
        (format!("mysql://root:secret@{place}"), "names no database"),
        (format!("mysql://root:secret@{place}/{name}?ssl-mode=sometimes"), "is not written"),
        (format!("mysql://root:secret@{place}/{name}?ssl-mod=REQUIRED"), "known are ssl-mode, "),
    ] {
        let told = told(MysqlStore::open(&url).await);
        assert!(told.contains(expected) && !told.contains("secret"), "{url}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_servers_write_to_one_database_over_lines_that_break() {
    let url = database().await;
    let direct = [open(&url).await, open(&url).await];
    assert_eq!(increments_at_several_servers_count_once(&direct, 20).await, 0);

    let url = database().await;
    let (place, name) = url.rsplit_once('/').unwrap();
    let (login, place) = place.rsplit_once('@').unwrap();
    let tunnels = [place; 2].map(|place| Arc::new(Tunnel::to(place)));
    let through = |tunnel: &Tunnel| format!("{login}@{}/{name}", tunnel.url().trim_start_matches("http://"));
    let stores = [open(&through(&tunnels[0])).await, open(&through(&tunnels[1])).await];
    let over = Arc::new(AtomicBool::new(false));
    let cutting = {
        let over = Arc::clone(&over);
        thread::spawn(move || {
            let mut cuts = 0;
            while !over.load(Ordering::Relaxed) {
                tunnels[cuts % 2].cut();
                cuts += 1;
                thread::sleep(Duration::from_millis(50 + 37 * cuts as u64 % 100));
            }
            cuts
        })
    };
    increments_at_several_servers_count_once(&stores, 200).await;
    over.store(true, Ordering::Relaxed);
    let cuts = cutting.join().unwrap();
    assert!(cuts > 10, "the lines were cut {cuts} times");
}

#[test]
fn simulations_over_it_go_as_over_the_memory_store() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let new = || (runtime.block_on(async { open(&database().await).await }), ());
    go_as_over_the_memory_store(&runtime, 2, new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_copied_from_sqlite_and_from_memory_and_on_to_another_database() {
    let folder = Folder::new();
    let sqlite: Arc<dyn Store> = Arc::new(SqliteStore::open(&folder.path("db")).unwrap());
    a_copy_takes_the_place_of_its_source(sqlite, open(&database().await).await).await;
    a_copy_takes_the_place_of_its_source(open(&database().await).await, Arc::new(MemoryStore::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_waits_for_whoever_else_has_the_row_and_is_tried_again() {
    let url = database().await;
    let store = open(&url).await;
    write(&*store, &[("a", Value::Int(1))]).await;
    // Longer than a statement waits for a lock.
    let hold = "BEGIN; SELECT id FROM syncline_dataset FOR UPDATE; SELECT SLEEP(6); COMMIT";
    let holding = thread::spawn(move || sql(&url, hold));
    tokio::time::sleep(Duration::from_millis(500)).await;
    write(&*store, &[("a", Value::Int(2))]).await;
    holding.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_reads_what_devices_wrote_and_each_value_comes_back_as_it_was() {
    let url = database().await;
    let store = open(&url).await;
    let map = |name: &str, value| Value::Map([(name.to_owned(), value)].into());
    let nested = |depth| (0..depth).fold(Value::Int(1), |inner, _| Value::List(vec![inner]));
    let values = [
        ("Key", map("title", Value::Text("Füße 🦶 'quoted' \\ \"so\"".to_owned()))),
        ("key", map("n", Value::Int((1 << 53) - 1))),
        ("key ", map("n", Value::Int(i64::MAX))),
        ("float", map("n", Value::Float(0.1))),
        ("tiny", map("n", Value::Float(5e-324))),
        ("huge", map("n", Value::Float(-1e308))),
        ("deep", nested(30)),
        ("deeper", nested(31)),
    ];
    write(&*store, &values).await;
    let read = |select: &str| {
        let from = "FROM syncline_records WHERE owner = 'local:ada' AND dataset = 'notes' ORDER BY key_bytes";
        sql(&url, &format!("SELECT {select} {from}"))
    };
    assert_eq!(read("record_key"), "Key\ndeep\ndeeper\nfloat\nhuge\nkey\nkey \ntiny\n");
    let titles = "JSON_UNQUOTE(JSON_EXTRACT(value, '$.title'))";
    assert_eq!(read(&format!("COALESCE({titles}, '-')")), "Füße 🦶 'quoted' \\ \"so\"\n-\n-\n-\n-\n-\n-\n-\n");
    assert_eq!(read("value IS NULL"), "0\n0\n1\n0\n0\n0\n0\n0\n");
    // Integers that JavaScript would round are written as text.
    let n = |path: &str| read(&format!("COALESCE(JSON_UNQUOTE(JSON_EXTRACT(value, '$.n{path}')), '-')"));
    assert_eq!(n("").lines().nth(5), Some("9007199254740991"), "{}", n(""));
    assert_eq!(n(".\"$int\"").lines().nth(6), Some("9223372036854775807"), "{}", n(".\"$int\""));
    let touched =
        Touched { keys: values.iter().map(|(key, _)| RecordKey::parse(*key).unwrap()).collect(), ..Touched::default() };
    let view = store.view(&notes(), &touched).await.unwrap();
    for (key, value) in &values {
        let found = view.records[&RecordKey::parse(*key).unwrap()].value().unwrap();
        assert_eq!(found.to_bytes(), value.to_bytes(), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_is_told_to_who_asks_for_it_and_not_to_those_who_ask_at_the_same_time() {
    let url = database().await;
    let store = open(&url).await;
    let datasets: Vec<DatasetAddress> = (0..50).map(|number| of_ada(&format!("d{number}"))).collect();
    for dataset in &datasets {
        write_to(&*store, dataset, &[("a", Value::Int(1)), ("b", Value::Int(2))]).await;
    }
    let damage = "UPDATE syncline_record SET bytes = X'C1'
        WHERE `key` = 'b' AND dataset = (SELECT id FROM syncline_dataset WHERE name = 'd7')";
    sql(&url, damage);
    let touched = Touched { keys: ["a", "b"].map(|key| RecordKey::parse(key).unwrap()).into(), ..Touched::default() };
    let views = join_all(datasets.iter().map(|dataset| store.view(dataset, &touched))).await;
    for (view, dataset) in views.into_iter().zip(&datasets) {
        match view {
            Ok(view) => assert!(view.records.len() == 2 && dataset.name.as_str() != "d7", "{}", dataset.name),
            Err(error) => {
                assert!(matches!(error, StoreError::Corrupt(_)) && dataset.name.as_str() == "d7", "{error}");
            }
        }
    }
}

fn notes() -> DatasetAddress {
    of_ada("notes")
}

fn of_ada(name: &str) -> DatasetAddress {
    DatasetAddress { owner: Owner::parse("local:ada").unwrap(), name: DatasetName::parse(name).unwrap() }
}

/// Writes values to Ada's notes.
async fn write(store: &dyn Store, values: &[(&str, Value)]) {
    write_to(store, &notes(), values).await;
}

async fn write_to(store: &dyn Store, dataset: &DatasetAddress, values: &[(&str, Value)]) {
    let head: Head = store.view(dataset, &Touched::default()).await.unwrap().head;
    let mut commit = Commit::on(&head);
    let lineage = &mut commit.head.lineage;
    if lineage.entries.is_empty() {
        lineage.open(EpochId::from_bytes([1; 16]), EpochReason::Created);
    }
    lineage.advance(CommitTag::from_bytes([2; 8]));
    let SyncCount(count) = lineage.count;
    commit.head.records = values.len() as u64;
    commit.records = values
        .iter()
        .map(|(key, value)| Record {
            key: RecordKey::parse(*key).unwrap(),
            state: RecordState::Value(value.clone()),
            sync_count: SyncCount(count),
            modified_by: None,
            modified_at: Timestamp(0),
            device_time: Timestamp(0),
        })
        .collect();
    assert_eq!(store.commit(dataset, commit).await.unwrap(), CommitOutcome::Written);
}
