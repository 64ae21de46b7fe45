//! Throttling, conflicts, failures and lost connections, which the store copes with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use syncline_server::metrics::StoreUnits;
use syncline_server::store::conformance::increments_at_several_servers_count_once;
use syncline_server::store::{CommitOutcome, Store, StoreError, Touched};
use tests::harness::{DynamoDb, DynamoDbFault, DynamoDbProxy};

use crate::dynamodb::draft::{dataset, head, next, text, write};

/// One request in ten meets a fault, each kind in turn.
fn faulty(emulator: &DynamoDb) -> DynamoDbProxy {
    const FAULTS: [DynamoDbFault; 5] = [
        DynamoDbFault::LoseAnswer,
        DynamoDbFault::Throttle,
        DynamoDbFault::LoseRequest,
        DynamoDbFault::Conflict,
        DynamoDbFault::Fail,
    ];
    let (mut state, mut faults) = (1_u64, FAULTS.into_iter().cycle());
    DynamoDbProxy::start(&emulator.url(), move |_, _| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let meets = (state >> 33) % 10 == 0;
        meets.then(|| faults.next()).flatten().unwrap_or(DynamoDbFault::Pass)
    })
}

mod conformance {
    use super::*;

    syncline_server::store_conformance!({
        let emulator = DynamoDb::start();
        drop(emulator.store().await);
        let proxy = faulty(&emulator);
        (Arc::new(DynamoDb::store_at(&proxy.url(), StoreUnits::default()).await), (proxy, emulator))
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_servers_count_once_over_lines_that_break() {
    let emulator = DynamoDb::start();
    drop(emulator.store().await);
    let proxies = [faulty(&emulator), faulty(&emulator)];
    let mut stores: Vec<Arc<dyn Store>> = Vec::new();
    for proxy in &proxies {
        stores.push(Arc::new(DynamoDb::store_at(&proxy.url(), StoreUnits::default()).await));
    }
    increments_at_several_servers_count_once(&stores, 20).await;
}

/// A fault that does not pass ends the tries, and is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_pass_is_told_and_nothing_is_written() {
    let emulator = DynamoDb::start();
    let direct = emulator.store().await;
    let notes = dataset("ada", "notes");
    write(&direct, &notes, &[("a".to_owned(), text(10))], &[]).await;
    let before = head(&direct, &notes).await;
    for fault in [DynamoDbFault::Throttle, DynamoDbFault::Conflict, DynamoDbFault::LoseRequest] {
        let armed = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicU64::new(0));
        let (is_armed, requests) = (Arc::clone(&armed), Arc::clone(&asked));
        let proxy = DynamoDbProxy::start(&emulator.url(), move |operation, _| {
            let meets = is_armed.load(Ordering::SeqCst) && operation == "PutItem";
            requests.fetch_add(u64::from(meets), Ordering::SeqCst);
            if meets { fault } else { DynamoDbFault::Pass }
        });
        let store = DynamoDb::store_at(&proxy.url(), StoreUnits::default()).await;
        armed.store(true, Ordering::SeqCst);
        let refused = store.commit(&notes, next(&before, &[("b".to_owned(), text(10))], &[])).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{fault:?}: {refused:?}");
        assert_eq!(asked.load(Ordering::SeqCst), 9, "{fault:?}");
        assert_eq!(head(&direct, &notes).await, before);
    }
}

/// The answer to the write of the head is lost, and somebody else writes before it is asked again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_which_nothing_was_heard_is_found_behind_the_next_one() {
    let emulator = DynamoDb::start();
    let direct = Arc::new(emulator.store().await);
    let notes = dataset("ada", "notes");
    write(&*direct, &notes, &[("a".to_owned(), text(10))], &[]).await;
    let (runtime, other) = (tokio::runtime::Handle::current(), Arc::clone(&direct));
    let proxy = {
        let (emulator_url, notes) = (emulator.url(), notes.clone());
        let mut state = 0;
        DynamoDbProxy::start(&emulator_url, move |operation, body| {
            if operation != "PutItem" || !body.contains("\"D|notes\"") {
                return DynamoDbFault::Pass;
            }
            state += 1;
            if state == 2 {
                runtime.block_on(write(&*other, &notes, &[("c".to_owned(), text(10))], &[]));
            }
            if state == 1 { DynamoDbFault::LoseAnswer } else { DynamoDbFault::Pass }
        })
    };
    let store = DynamoDb::store_at(&proxy.url(), StoreUnits::default()).await;
    let before = head(&*direct, &notes).await;
    let commit = next(&before, &[("b".to_owned(), text(10))], &[]);
    assert_eq!(store.commit(&notes, commit).await.unwrap(), CommitOutcome::Written);
    let view = direct.view(&notes, &Touched::default()).await.unwrap();
    assert_eq!(view.head.lineage.count.0, before.lineage.count.0 + 2);
}
