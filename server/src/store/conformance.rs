//! What every store does, as tests: the definition of a store.
//!
//! [`store_conformance!`](crate::store_conformance) makes one test of each function, each on a store of its own.
#![expect(clippy::unwrap_used, reason = "it is a suite of tests, though not behind `cfg(test)`")]

mod copies;
mod devices;
mod draft;
mod links;
mod memories;
mod records;
mod several;
mod transfer;

pub use copies::*;
pub use devices::*;
pub use links::*;
pub use memories::*;
pub use records::*;
pub use several::*;
pub use transfer::*;

use std::sync::Arc;

use futures_util::future::join_all;
use sync_core::merge::push::Commit;
use sync_core::model::{EpochReason, SyncCount, Value};

use crate::store::conformance::draft::{Draft, dataset, head, live, owner, write};
use crate::store::{CommitOutcome, RecordsRead, Store, Touched};

/// Makes a test of each check. The expression opens an empty store, and comes with what must live as long as it.
#[macro_export]
macro_rules! store_conformance {
    ($open:expr) => {
        $crate::store_conformance!($open;
            a_dataset_never_written_is_empty
            a_commit_is_read_back_whole
            a_commit_on_another_position_writes_nothing
            increments_of_many_writers_all_count
            commits_to_many_datasets_at_once_do_not_mix
            existing_datasets_are_listed_in_order
            a_deletion_clears_the_records_and_keeps_the_rest
            pages_come_in_order_of_count_and_key
            a_page_ends_at_its_limits_and_has_a_record
            a_page_holds_what_was_written_while_pulling
            tombstones_are_skipped_up_to_a_count
            a_purge_removes_tombstones_up_to_the_floor
            the_floor_never_goes_down
            old_tombstones_are_found_oldest_first
            keys_are_compared_by_bytes
            the_longest_key_and_the_largest_value_fit
            every_kind_of_value_comes_back_as_it_was
            the_latest_pushes_of_each_device_are_remembered
            the_latest_change_ids_are_remembered
            an_owner_leads_to_whom_it_was_linked
            a_linked_owners_datasets_move_whole
            a_name_that_is_taken_is_changed_and_told
            a_link_takes_along_what_was_linked_before
            nothing_is_read_or_written_for_an_owner_that_was_linked
            the_latest_registration_of_a_device_counts
            the_latest_devices_stay_registered
            a_linked_owners_devices_move
            positions_come_in_order_of_names
            what_a_dataset_remembers_is_read_whole
            owners_with_links_or_devices_are_listed_in_order
            a_store_that_is_read_only_is_read_and_not_written
            a_dataset_is_written_in_steps_before_it_exists
        );
    };
    ($open:expr; $($check:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                let (store, _guard) = $open;
                $crate::store::conformance::$check(store).await;
            }
        )*
    };
}

/// What was never written has an empty head and no records.
pub async fn a_dataset_never_written_is_empty(store: Arc<dyn Store>) {
    let view = store.view(&dataset("none"), &live("a")).await.unwrap();
    assert_eq!((view.head, view.records.len()), Default::default());
    let read = store.records_after(&dataset("none"), &draft::range()).await.unwrap();
    assert_eq!(read, RecordsRead::default());
    assert_eq!(store.datasets(&owner("ada"), None, 10).await.unwrap(), []);
    assert_eq!(store.addresses(None, 10).await.unwrap(), []);
}

/// Head, records, push memory and change ids come back as they were committed.
pub async fn a_commit_is_read_back_whole(store: Arc<dyn Store>) {
    let notes = dataset("notes");
    let mut draft = Draft::new();
    let mut commit = draft.next(&head(&*store, &notes).await);
    draft.put(&mut commit, "a", Value::Int(1));
    draft.remove(&mut commit, "b");
    draft.remember(&mut commit, 1, 5);
    write(&*store, &notes, commit.clone()).await;
    let touched = Touched { pushes: draft.pushes(1, [5]), changes: draft.changes(&commit), ..live("a b c") };
    let view = store.view(&notes, &touched).await.unwrap();
    assert_eq!(view.head, commit.head);
    assert_eq!(view.records.into_values().collect::<Vec<_>>(), commit.records);
    assert_eq!(view.pushes, [(commit.pushes[0].0, vec![commit.pushes[0].1.clone()])].into());
    assert_eq!(view.changes, commit.changes.into_iter().collect());
}

/// Epoch, count and tag are compared; where one differs, nothing at all is written.
pub async fn a_commit_on_another_position_writes_nothing(store: Arc<dyn Store>) {
    let notes = dataset("notes");
    let mut draft = Draft::new();
    let first = draft.next(&head(&*store, &notes).await);
    write(&*store, &notes, first.clone()).await;
    let written = head(&*store, &notes).await;
    let at = written.lineage.position().unwrap();
    let other = draft.next(&written).head.lineage;
    let mut reopened = written.lineage.clone();
    reopened.open(draft.epoch(), EpochReason::Fenced);
    for expected in [
        None,
        other.position(),
        reopened.position(),
        Some(sync_core::model::Position { tag: draft.tag(), ..at }),
        Some(sync_core::model::Position { count: SyncCount::ZERO, ..at }),
    ] {
        let mut commit = Commit { expected, clear: true, purge: true, ..draft.next(&written) };
        draft.put(&mut commit, "a", Value::Int(2));
        draft.remember(&mut commit, 1, 1);
        let touched = Touched { pushes: draft.pushes(1, [1]), changes: draft.changes(&commit), ..live("a") };
        assert_eq!(store.commit(&notes, commit).await.unwrap(), CommitOutcome::Stale, "{expected:?}");
        let view = store.view(&notes, &touched).await.unwrap();
        assert_eq!(view.head, written);
        assert!(view.records.is_empty() && view.pushes.is_empty() && view.changes.is_empty());
    }
    let nobody = Commit { expected: Some(at), ..draft.next(&written) };
    assert_eq!(store.commit(&dataset("never"), nobody).await.unwrap(), CommitOutcome::Stale);
}

/// See [`increments_at_several_servers_count_once`].
pub async fn increments_of_many_writers_all_count(store: Arc<dyn Store>) {
    assert_eq!(increments_at_several_servers_count_once(&[store], 10).await, 0);
}

/// Commits that are made durable together stay apart.
pub async fn commits_to_many_datasets_at_once_do_not_mix(store: Arc<dyn Store>) {
    let one = |number: u64| {
        let store = Arc::clone(&store);
        async move {
            let mut draft = Draft::of(number);
            let mut commit = draft.next(&sync_core::merge::push::Head::default());
            draft.put(&mut commit, "n", Value::Int(number as i64));
            // Every other one is stale.
            let is_stale = number % 2 == 1;
            let expected = is_stale.then(|| commit.head.lineage.position()).flatten();
            let outcome = store.commit(&dataset(&format!("d{number}")), Commit { expected, ..commit }).await.unwrap();
            assert_eq!(outcome, if is_stale { CommitOutcome::Stale } else { CommitOutcome::Written });
        }
    };
    join_all((0..100).map(one)).await;
    for number in 0..100 {
        let view = store.view(&dataset(&format!("d{number}")), &live("n")).await.unwrap();
        let value = view.records.values().next().and_then(|record| record.value().cloned());
        assert_eq!(value, (number % 2 == 0).then_some(Value::Int(number)));
    }
}

/// Names and addresses come in order of their bytes, in pages.
pub async fn existing_datasets_are_listed_in_order(store: Arc<dyn Store>) {
    let mut draft = Draft::new();
    for name in ["b", "a", "B", "a.b"] {
        write(&*store, &dataset(name), draft.next(&Default::default())).await;
    }
    let other = crate::store::DatasetAddress { owner: owner("bob"), ..dataset("x") };
    write(&*store, &other, draft.next(&Default::default())).await;
    let names = async |after: Option<&str>, most| {
        let after = after.map(|after| dataset(after).name);
        let names = store.datasets(&owner("ada"), after.as_ref(), most).await.unwrap();
        names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(None, 10).await, "B a a.b b");
    assert_eq!(names(None, 2).await, "B a");
    assert_eq!(names(Some("a"), 2).await, "a.b b");
    assert_eq!(names(Some("b"), 2).await, "");
    let addresses = store.addresses(None, 10).await.unwrap();
    assert_eq!((addresses.len(), addresses.last()), (5, Some(&other)));
    assert_eq!(store.addresses(Some(&addresses[1]), 2).await.unwrap(), addresses[2..4]);
}

/// A deleted dataset has no records and is not listed, but its line and its push memory are still there.
pub async fn a_deletion_clears_the_records_and_keeps_the_rest(store: Arc<dyn Store>) {
    let notes = dataset("notes");
    let mut draft = Draft::new();
    let mut commit = draft.next(&Default::default());
    draft.put(&mut commit, "a", Value::Int(1));
    draft.remove(&mut commit, "b");
    draft.remember(&mut commit, 1, 1);
    let changes = draft.changes(&commit);
    write(&*store, &notes, commit).await;
    let deletion = draft.deletion(&head(&*store, &notes).await);
    write(&*store, &notes, deletion.clone()).await;
    let touched = Touched { pushes: draft.pushes(1, [1]), changes, ..live("a b") };
    let view = store.view(&notes, &touched).await.unwrap();
    assert_eq!(view.head, deletion.head);
    assert_eq!((view.records.len(), view.pushes.len(), view.changes.len()), (0, 1, 1));
    assert_eq!(store.records_after(&notes, &draft::range()).await.unwrap().records, []);
    assert_eq!(store.datasets(&owner("ada"), None, 10).await.unwrap(), []);
    assert_eq!(store.addresses(None, 10).await.unwrap(), std::slice::from_ref(&notes));
    let mut again = draft.next(&deletion.head);
    draft.put(&mut again, "a", Value::Int(2));
    write(&*store, &notes, again).await;
    assert_eq!(store.datasets(&owner("ada"), None, 10).await.unwrap(), [notes.name]);
}
