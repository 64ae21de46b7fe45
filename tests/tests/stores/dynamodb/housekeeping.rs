//! What is cleaned up, what is beside the head, and what is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sync_core::merge::push::{Commit, Head, plan_purge};
use sync_core::model::{EpochId, EpochReason, SyncCount, Timestamp};
use syncline_server::metrics::StoreUnits;
use syncline_server::store::{CommitOutcome, Store, StoreError, Touched};
use tests::harness::DynamoDb;

use crate::dynamodb::crashes::items;
use crate::dynamodb::draft::{above, dataset, device, head, next, show, text, write};

/// A deletion is one write; the records, and what they keep apart, go later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_a_deleted_dataset_go_later_and_those_that_came_since_stay() {
    let emulator = DynamoDb::start();
    let store = emulator.store().await;
    let notes = dataset("ada", "notes");
    let many: Vec<_> = (0..300).map(|at| (format!("{at:03}"), text(if at < 3 { 5_000 } else { 10 }))).collect();
    write(&store, &notes, &many, &["gone"]).await;
    let mut deletion = next(&head(&store, &notes).await, &[], &[]);
    deletion.head.lineage.open(EpochId::from_bytes([2; 16]), EpochReason::Deleted);
    deletion.head = Head { lineage: deletion.head.lineage.clone(), floor: SyncCount(2), ..Head::default() };
    deletion.clear = true;
    assert_eq!(store.commit(&notes, deletion).await.unwrap(), CommitOutcome::Written);
    assert_eq!(show(&store.records_after(&notes, &above(0)).await.unwrap()), "");
    write(&store, &notes, &[("new".to_owned(), text(10))], &[]).await;
    let before = items(&emulator).await;
    assert_eq!((before["record"], before["tombstone"], before["V"]), (301, 1, 3));
    store.sweep(60_000).await.unwrap();
    assert_eq!(items(&emulator).await, before);
    store.sweep(0).await.unwrap();
    let after = items(&emulator).await;
    assert_eq!((after["record"], after.get("tombstone"), after.get("V")), (1, None, None));
    assert_eq!(show(&store.records_after(&notes, &above(0)).await.unwrap()), "new@3:11");
    assert_eq!(store.old_tombstones(Timestamp(i64::MAX), 10).await.unwrap(), []);
}

/// Purged tombstones are not seen from then on, and are deleted once nobody can be reading them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purged_tombstones_are_deleted_after_a_while() {
    let emulator = DynamoDb::start();
    let store = emulator.store().await;
    let notes = dataset("ada", "notes");
    write(&store, &notes, &[], &["a", "b"]).await;
    write(&store, &notes, &[("b".to_owned(), text(1))], &["c"]).await;
    let purge: Commit = plan_purge(&head(&store, &notes).await, SyncCount(1));
    assert_eq!(store.commit(&notes, purge).await.unwrap(), CommitOutcome::Written);
    let old = async || store.old_tombstones(Timestamp(i64::MAX), 10).await.unwrap();
    assert_eq!(old().await, [(notes.clone(), SyncCount(2))]);
    assert_eq!(items(&emulator).await["tombstone"], 2);
    tokio::time::sleep(Duration::from_millis(10_500)).await;
    assert_eq!(old().await, [(notes.clone(), SyncCount(2))]);
    assert_eq!(items(&emulator).await["tombstone"], 1);
    assert_eq!(show(&store.records_after(&notes, &above(0)).await.unwrap()), "b@2:2 c@2:-");
}

/// Of pushes that are forgotten, some are kept for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_pushes_are_deleted_and_remembered_ones_stay() {
    let emulator = DynamoDb::start();
    let store = emulator.store().await;
    let notes = dataset("ada", "notes");
    for _ in 0..128 {
        write(&store, &notes, &[("a".to_owned(), text(1))], &[]).await;
    }
    assert_eq!(items(&emulator).await["P"], 128);
    store.sweep(0).await.unwrap();
    assert_eq!(items(&emulator).await["P"], 64 + 32);
    let touched = Touched { pushes: [(device(), (1..=128).collect())].into(), ..Touched::default() };
    let pushes = &store.view(&notes, &touched).await.unwrap().pushes[&device()];
    assert_eq!((pushes.len(), pushes[0].sequence), (64, 65));
}

/// A line of epochs that does not fit into the head is beside it, as long as it may be, and is replaced when it is pruned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_line_of_epochs_is_kept_beside_the_head() {
    let emulator = DynamoDb::start();
    let store = emulator.store().await;
    let notes = dataset("ada", "notes");
    for epochs in [1, 8, 9, 12, 17, 40_000, 100, 3] {
        let mut commit = next(&head(&store, &notes).await, &[("a".to_owned(), text(1))], &[]);
        let lineage = &mut commit.head.lineage;
        lineage.entries.truncate(epochs);
        while lineage.entries.len() < epochs {
            let number = lineage.entries.len() as u128;
            lineage.open(EpochId::from_bytes(number.to_be_bytes()), EpochReason::Day);
        }
        let expected = commit.head.clone();
        assert_eq!(store.commit(&notes, commit).await.unwrap(), CommitOutcome::Written);
        assert_eq!(head(&store, &notes).await, expected, "{epochs}");
        let listed = store.positions(&notes.owner, None, 10).await.unwrap();
        assert_eq!(listed, [(notes.name.clone(), expected.lineage.position().unwrap())]);
    }
    // One head, and nothing beside it.
    assert_eq!(items(&emulator).await["D"], 1);
}

/// A dataset whose records would not fit into a partition is refused before, and one that shrinks is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dataset_that_is_too_large_for_a_partition_is_full() {
    let emulator = DynamoDb::start();
    let store = emulator.store().await;
    let notes = dataset("ada", "notes");
    let mut commit = next(&Head::default(), &[("a".to_owned(), text(1))], &[]);
    commit.head.records = 20_000_000;
    let refused = store.commit(&notes, commit.clone()).await;
    assert!(matches!(&refused, Err(StoreError::Full(_))), "{refused:?}");
    assert_eq!(head(&store, &notes).await, Head::default());
    commit.records.clear();
    assert_eq!(store.commit(&notes, commit).await.unwrap(), CommitOutcome::Written);
}

/// Once it is said that the store is read-only, no other server writes any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_writes_once_the_store_is_read_only() {
    let emulator = DynamoDb::start();
    let first = Arc::new(emulator.store().await);
    let second = DynamoDb::store_at(&emulator.url(), StoreUnits::default()).await;
    let notes = dataset("ada", "notes");
    write(&*first, &notes, &[("a".to_owned(), text(1))], &[]).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let writing = {
        let (first, notes, is_over) = (Arc::clone(&first), notes.clone(), Arc::clone(&is_over));
        tokio::spawn(async move {
            let (mut before, mut after) = (0, 0);
            loop {
                let said = is_over.load(Ordering::SeqCst);
                let commit = next(&head(&*first, &notes).await, &[("a".to_owned(), text(1))], &[]);
                match first.commit(&notes, commit).await {
                    Ok(_) if said => after += 1,
                    Ok(_) => before += 1,
                    Err(StoreError::ReadOnly) if said => return (before, after),
                    Err(StoreError::ReadOnly) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    second.transfer().set_read_only(true).await.unwrap();
    is_over.store(true, Ordering::SeqCst);
    let (before, after) = writing.await.unwrap();
    assert!(before > 1 && after == 0, "{before} before, {after} after");
    second.transfer().set_read_only(false).await.unwrap();
    write(&*first, &notes, &[("a".to_owned(), text(1))], &[]).await;
}
