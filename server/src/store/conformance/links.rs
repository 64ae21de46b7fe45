//! Owners that are linked to others, and what becomes of their datasets.

use std::sync::Arc;

use sync_core::merge::push::{Commit, View};
use sync_core::model::{Owner, Value};

use crate::store::conformance::draft::{Draft, dataset, head, live, owner, range, write};
use crate::store::directory::{Linked, Renamed};
use crate::store::{DatasetAddress, RecordsFrom, Store, StoreError, Touched};

fn of(id: &str, name: &str) -> DatasetAddress {
    DatasetAddress { owner: owner(id), ..dataset(name) }
}

/// Writes a first commit with one record, which says whose it is.
async fn begin(store: &dyn Store, draft: &mut Draft, dataset: &DatasetAddress) -> (Commit, Touched) {
    let mut commit = draft.next(&head(store, dataset).await);
    draft.put(&mut commit, "whose", Value::Text(dataset.owner.to_string()));
    draft.remember(&mut commit, 1, 1);
    let touched = Touched { pushes: draft.pushes(1, [1]), changes: draft.changes(&commit), ..live("whose") };
    write(store, dataset, commit.clone()).await;
    (commit, touched)
}

/// Links, and says what has another name now: `from>to`.
async fn link(store: &dyn Store, source: &str, target: &str) -> (Option<Owner>, Owner, String) {
    let linked = store.directory().link(&owner(source), &owner(target)).await.unwrap();
    let Linked { target, moved_from, renamed } = linked;
    let shown: Vec<_> = renamed.iter().map(|Renamed { from, to }| format!("{from}>{to}")).collect();
    (moved_from, target, shown.join(" "))
}

async fn names(store: &dyn Store, id: &str) -> String {
    let names = store.datasets(&owner(id), None, 100).await.unwrap();
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// An owner leads to itself, until it is linked; linked again, nothing changes and the same is said.
pub async fn an_owner_leads_to_whom_it_was_linked(store: Arc<dyn Store>) {
    let directory = store.directory();
    assert_eq!(directory.resolve(&owner("bob")).await.unwrap(), owner("bob"));
    for (source, target) in [("bob", "bob"), ("bob", "ada"), ("bob", "ada"), ("ada", "bob"), ("ada", "ada")] {
        let moved_from = ((source, target) == ("bob", "ada")).then(|| owner("bob"));
        let first = directory.resolve(&owner("bob")).await.unwrap() == owner("bob");
        let end = if source == target && first { owner("bob") } else { owner("ada") };
        assert_eq!(link(&*store, source, target).await, (moved_from.filter(|_| first), end, String::new()));
    }
    assert_eq!(directory.resolve(&owner("bob")).await.unwrap(), owner("ada"));
    assert_eq!(directory.resolve(&owner("ada")).await.unwrap(), owner("ada"));
}

/// A dataset moves with head, records, push memory and change ids, and goes on where it was.
pub async fn a_linked_owners_datasets_move_whole(store: Arc<dyn Store>) {
    let mut draft = Draft::new();
    let (commit, touched) = begin(&*store, &mut draft, &of("bob", "notes")).await;
    begin(&*store, &mut draft, &of("bob", "gone")).await;
    let deletion = draft.deletion(&head(&*store, &of("bob", "gone")).await);
    write(&*store, &of("bob", "gone"), deletion.clone()).await;
    begin(&*store, &mut draft, &of("eve", "other")).await;
    link(&*store, "bob", "ada").await;

    let View { head: found, records, pushes, changes } = store.view(&of("ada", "notes"), &touched).await.unwrap();
    assert_eq!(found, commit.head);
    assert_eq!(records.into_values().collect::<Vec<_>>(), commit.records);
    assert_eq!((pushes.len(), changes.len()), (1, 1));
    assert_eq!(store.records_after(&of("ada", "notes"), &range()).await.unwrap().records.len(), 1);
    assert_eq!(names(&*store, "ada").await, "notes");
    // What was deleted is still known to be.
    assert_eq!(head(&*store, &of("ada", "gone")).await, deletion.head);
    let addresses = [of("ada", "gone"), of("ada", "notes"), of("eve", "other")];
    assert_eq!(store.addresses(None, 10).await.unwrap(), addresses);

    let mut next = draft.next(&found);
    draft.put(&mut next, "more", Value::Int(1));
    write(&*store, &of("ada", "notes"), next).await;
}

/// Where a name was ever used, what comes gets another one, and nothing is merged.
pub async fn a_name_that_is_taken_is_changed_and_told(store: Arc<dyn Store>) {
    let mut draft = Draft::new();
    for (id, name) in [("ada", "gone"), ("ada", "notes"), ("bob", "gone"), ("bob", "notes"), ("bob", "todos")] {
        begin(&*store, &mut draft, &of(id, name)).await;
    }
    let deletion = draft.deletion(&head(&*store, &of("ada", "gone")).await);
    write(&*store, &of("ada", "gone"), deletion).await;
    for _ in 0..2 {
        let (_, _, renamed) = link(&*store, "bob", "ada").await;
        assert_eq!(renamed, "gone>gone.bob notes>notes.bob");
    }
    assert_eq!(names(&*store, "ada").await, "gone.bob notes notes.bob todos");
    for (name, whose) in [("notes", "local:ada"), ("notes.bob", "local:bob"), ("todos", "local:bob")] {
        let view = store.view(&of("ada", name), &live("whose")).await.unwrap();
        let found = view.records.values().next().and_then(|record| record.value());
        assert_eq!(found, Some(&Value::Text(whose.to_owned())), "{name}");
    }
    let deletion = draft.deletion(&head(&*store, &of("ada", "gone.bob")).await);
    write(&*store, &of("ada", "gone.bob"), deletion).await;
    assert_eq!(link(&*store, "bob", "ada").await, (None, owner("ada"), "notes>notes.bob".to_owned()));
}

/// Whoever was linked to an owner follows it, in one step, and first names are remembered.
pub async fn a_link_takes_along_what_was_linked_before(store: Arc<dyn Store>) {
    let mut draft = Draft::new();
    for id in ["ada", "bob", "eve"] {
        begin(&*store, &mut draft, &of(id, "notes")).await;
    }
    link(&*store, "bob", "ada").await;
    let renamed = "notes>notes.ada notes>notes.bob".to_owned();
    assert_eq!(link(&*store, "ada", "eve").await, (Some(owner("ada")), owner("eve"), renamed.clone()));
    for id in ["ada", "bob", "eve"] {
        assert_eq!(store.directory().resolve(&owner(id)).await.unwrap(), owner("eve"));
    }
    assert_eq!(link(&*store, "bob", "ada").await, (None, owner("eve"), renamed));
    assert_eq!(names(&*store, "eve").await, "notes notes.ada notes.bob");
}

/// Whoever still asks for an owner that was linked away learns it, and writes nothing.
pub async fn nothing_is_read_or_written_for_an_owner_that_was_linked(store: Arc<dyn Store>) {
    let mut draft = Draft::new();
    begin(&*store, &mut draft, &of("bob", "notes")).await;
    let on_the_way = draft.next(&head(&*store, &of("bob", "notes")).await);
    link(&*store, "bob", "ada").await;
    let moved = |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::Moved)), "{result:?}");
    let from = RecordsFrom { prefix: String::new(), after: None, records_max: 1, bytes_max: 1 };
    for name in ["notes", "new"] {
        let dataset = of("bob", name);
        for touched in [Touched::default(), live("a"), live("a b")] {
            moved(store.view(&dataset, &touched).await.map(drop));
        }
        moved(store.records_after(&dataset, &range()).await.map(drop));
        moved(store.records_from(&dataset, &from).await.map(drop));
        for commit in [on_the_way.clone(), draft.next(&Default::default())] {
            moved(store.commit(&dataset, commit).await.map(drop));
        }
    }
    moved(store.datasets(&owner("bob"), None, 10).await.map(drop));
    assert_eq!(store.addresses(None, 10).await.unwrap(), [of("ada", "notes")]);
}
