//! What pushes and pulls are charged with, as the service says.

use std::collections::BTreeSet;

use sync_core::model::{Value, limits};
use syncline_server::metrics::{StoreOperation, StoreUnits};
use syncline_server::store::{CommitOutcome, DatasetAddress, RecordsAfter, Store, Touched};
use tests::harness::DynamoDb;

use crate::dynamodb::draft::{above, dataset, head, key, next, text, write};

/// Units of reading and writing that an operation takes.
async fn charged<T>(units: &StoreUnits, operation: StoreOperation, work: impl Future<Output = T>) -> (T, f64, f64) {
    let before = units.of(operation);
    let done = work.await;
    let after = units.of(operation);
    (done, after.0 - before.0, after.1 - before.1)
}

/// So many records, in commits of a thousand; and then as many commits as a head has tags of, so that it is as large as it
/// gets.
async fn fill(store: &dyn Store, notes: &DatasetAddress, records: usize) {
    for from in (0..records).step_by(1_000) {
        let put: Vec<_> = (from..(from + 1_000).min(records)).map(|at| (format!("{at:06}"), text(200))).collect();
        write(store, notes, &put, &[]).await;
    }
    for _ in 0..limits::TAGS_REMEMBERED_MAX {
        write(store, notes, &[("000000".to_owned(), text(200))], &[]).await;
    }
}

/// Records, units to push them, to pull them, to pull the first one of all, to look at one.
type Told = (usize, f64, f64, f64, f64);

/// The table in `DYNAMODB.md`. It is the same with 100,000 records; `SYNCLINE_DYNAMODB_RECORDS` says how many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_costs_at_most_8_units_and_a_pull_2_however_large_the_dataset_is() {
    let many = std::env::var("SYNCLINE_DYNAMODB_RECORDS").map_or(5_000, |records| records.parse().unwrap());
    for records in [100, many] {
        let emulator = DynamoDb::start();
        drop(emulator.store().await);
        let units = StoreUnits::default();
        let store = DynamoDb::store_at(&emulator.url(), units.clone()).await;
        let notes = dataset("0123456789abcdef", "notes");
        fill(&store, &notes, records).await;
        // The push after a large one finds its head without it.
        let mut told: Vec<Told> = Vec::new();
        for together in [1, 1, 10, 1, 90, 1] {
            let put: Vec<_> = (0..together).map(|at| (format!("{at:06}"), text(200))).collect();
            let before = head(&store, &notes).await;
            let commit = next(&before, &put, &[]);
            let since = before.lineage.count.0;
            let (outcome, _, pushed) = charged(&units, StoreOperation::Commit, store.commit(&notes, commit)).await;
            assert_eq!(outcome.unwrap(), CommitOutcome::Written);
            let pull = |range: RecordsAfter| {
                let (store, notes, units) = (&store, &notes, &units);
                async move {
                    let read = store.records_after(notes, &range);
                    let (read, charged, _) = charged(units, StoreOperation::RecordsAfter, read).await;
                    (read.unwrap().records.len(), charged)
                }
            };
            let newest = pull(above(since)).await;
            assert_eq!(newest.0, together);
            // From further back: one record of those before, by the index.
            let one = pull(RecordsAfter { records_max: 1, ..above(0) }).await;
            assert_eq!(one.0, 1);
            let keys: BTreeSet<_> = [key("000050")].into();
            let touched = Touched { keys, ..Touched::default() };
            let (_, viewed, _) = charged(&units, StoreOperation::View, store.view(&notes, &touched)).await;
            told.push((together, pushed, newest.1, one.1, viewed));
        }
        assert_eq!(told, EXPECTED, "of {records}");
        for (together, pushed, newest, one, _) in told {
            assert!(together > 1 || pushed <= 8.0 && newest <= 2.0 && one <= 2.0, "of {records}");
        }
        let (unchanged, charged, _) =
            charged(&units, StoreOperation::RecordsAfter, store.records_after(&notes, &above(u64::MAX - 1))).await;
        assert_eq!((unchanged.unwrap().records.len(), charged), (0, 1.0));
    }
}

/// One record: the head 2, the record and its place in the index 3, the push and the change id 1 each. Ten do not fit into
/// their head, and are staged: an entry on the list that comes and goes 2, the pieces 3, the head twice 3, and 3 for each
/// record.
const EXPECTED: [Told; 6] = [
    (1, 7.0, 1.0, 2.0, 2.0),
    (1, 7.0, 1.0, 2.0, 2.0),
    (10, 40.0, 2.0, 2.0, 2.0),
    (1, 7.0, 1.0, 2.0, 2.0),
    (90, 299.0, 8.0, 2.0, 2.0),
    (1, 7.0, 1.0, 2.0, 2.0),
];

/// What a push costs does not grow with the pushes before it, whose marks and memory are kept: the dearest of 200, and
/// all of them on average.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_pushes_cost_what_one_does() {
    let emulator = DynamoDb::start();
    drop(emulator.store().await);
    let units = StoreUnits::default();
    let store = DynamoDb::store_at(&emulator.url(), units.clone()).await;
    let notes = dataset("0123456789abcdef", "notes");
    // The first one makes the dataset, in a transaction: nobody may link its owner meanwhile.
    let first = next(&Default::default(), &[("a".to_owned(), Value::Null)], &[]);
    let (_, _, made) = charged(&units, StoreOperation::Commit, store.commit(&notes, first)).await;
    assert_eq!(made, 11.0);
    let (mut dearest, mut all) = (0.0_f64, 0.0);
    for _ in 0..200 {
        let commit = next(&head(&store, &notes).await, &[("a".to_owned(), text(200))], &[]);
        let (_, _, pushed) = charged(&units, StoreOperation::Commit, store.commit(&notes, commit)).await;
        dearest = dearest.max(pushed);
        all += pushed;
    }
    assert!(dearest <= 8.0 && all / 200.0 <= 7.1, "{dearest}, and {} on average", all / 200.0);
}
