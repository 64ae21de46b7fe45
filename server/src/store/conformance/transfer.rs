//! What another store needs to take the place of one.

use std::sync::Arc;

use sync_core::merge::push::{Commit, Head};
use sync_core::model::{DatasetName, Timestamp, Value};

use crate::store::conformance::draft::{Draft, dataset, device, head, live, owner, range, write};
use crate::store::devices::{Platform, PushToken, Registration};
use crate::store::transfer::{DatasetMemory, KnownOwner};
use crate::store::{DatasetAddress, Store, StoreError};

fn of(id: &str, name: &str) -> DatasetAddress {
    DatasetAddress { owner: owner(id), ..dataset(name) }
}

fn registration(number: u8) -> Registration {
    Registration {
        device: device(number),
        platform: Platform::Fcm,
        token: PushToken::parse(format!("t{number}")).unwrap(),
        name: None,
        registered_at: Timestamp(i64::from(number)),
    }
}

/// Where each dataset of an owner is, deleted ones too, in pages; not whether there are others.
pub async fn positions_come_in_order_of_names(store: Arc<dyn Store>) {
    let mut draft = Draft::new();
    for name in ["b", "a", "gone"] {
        write(&*store, &dataset(name), draft.next(&Head::default())).await;
    }
    write(&*store, &of("bob", "c"), draft.next(&Head::default())).await;
    write(&*store, &dataset("b"), draft.next(&head(&*store, &dataset("b")).await)).await;
    let deletion = draft.deletion(&head(&*store, &dataset("gone")).await);
    write(&*store, &dataset("gone"), deletion).await;
    let mut expected = Vec::new();
    for name in ["a", "b", "gone"] {
        expected.push((dataset(name).name, head(&*store, &dataset(name)).await.lineage.position().unwrap()));
    }
    assert_eq!(store.positions(&owner("ada"), None, 10).await.unwrap(), expected);
    assert_eq!(store.positions(&owner("ada"), None, 1).await.unwrap(), expected[..1]);
    assert_eq!(store.positions(&owner("ada"), Some(&dataset("a").name), 10).await.unwrap(), expected[1..]);
    assert_eq!(store.positions(&owner("eve"), None, 10).await.unwrap(), []);
    store.directory().link(&owner("bob"), &owner("ada")).await.unwrap();
    let moved = store.positions(&owner("bob"), None, 10).await;
    assert!(matches!(moved, Err(StoreError::Moved)), "{moved:?}");
    assert_eq!(store.positions(&owner("ada"), None, 10).await.unwrap().len(), 4);
}

/// Pushes by device and number, change ids in the order in which they came, and a name from before a link.
pub async fn what_a_dataset_remembers_is_read_whole(store: Arc<dyn Store>) {
    let (transfer, notes) = (store.transfer(), dataset("notes"));
    assert_eq!(transfer.memory(&notes).await.unwrap(), DatasetMemory::default());
    transfer.set_former_name(&notes, &DatasetName::parse("never").unwrap()).await.unwrap();
    let mut draft = Draft::new();
    let (mut pushes, mut changes) = (Vec::new(), Vec::new());
    for (of, sequence) in [(2, 7), (1, 3), (2, 300)] {
        let mut commit = draft.next(&head(&*store, &notes).await);
        draft.remember(&mut commit, of, sequence);
        pushes.extend(commit.pushes.clone());
        changes.extend(commit.changes.clone());
        write(&*store, &notes, commit).await;
    }
    pushes.sort_by_key(|(device, push)| (*device, push.sequence));
    let expected = DatasetMemory { pushes, changes, former_name: None };
    assert_eq!(transfer.memory(&notes).await.unwrap(), expected);
    let former_name = DatasetName::parse("former").unwrap();
    transfer.set_former_name(&notes, &former_name).await.unwrap();
    assert_eq!(transfer.memory(&notes).await.unwrap(), DatasetMemory { former_name: Some(former_name), ..expected });
    let linked = store.directory().link(&owner("eve"), &owner("ada")).await.unwrap();
    assert_eq!(linked.renamed.len(), 1, "{linked:?}");
}

/// Each with its link or its devices.
pub async fn owners_with_links_or_devices_are_listed_in_order(store: Arc<dyn Store>) {
    let directory = store.directory();
    let mut draft = Draft::new();
    write(&*store, &of("nobody", "notes"), draft.next(&Head::default())).await;
    for (id, number) in [("dan", 1), ("ada", 2), ("ada", 3), ("bob", 4)] {
        directory.register(&owner(id), registration(number)).await.unwrap();
    }
    for (source, target) in [("bob", "ada"), ("cleo", "eve")] {
        directory.link(&owner(source), &owner(target)).await.unwrap();
    }
    directory.unregister(&owner("dan"), device(1)).await.unwrap();
    let with = |id, numbers: &[u8]| KnownOwner {
        owner: owner(id),
        linked_to: None,
        devices: numbers.iter().map(|number| registration(*number)).collect(),
    };
    let linked = |id, target| KnownOwner { owner: owner(id), linked_to: Some(owner(target)), devices: Vec::new() };
    let expected = [with("ada", &[4, 3, 2]), linked("bob", "ada"), linked("cleo", "eve")];
    let transfer = store.transfer();
    assert_eq!(transfer.owners(None, 10).await.unwrap(), expected);
    assert_eq!(transfer.owners(None, 1).await.unwrap(), expected[..1]);
    assert_eq!(transfer.owners(Some(&owner("ada")), 10).await.unwrap(), expected[1..]);
}

/// Nothing is written from then on, until it is allowed again; all is read.
pub async fn a_store_that_is_read_only_is_read_and_not_written(store: Arc<dyn Store>) {
    let (notes, mut draft) = (dataset("notes"), Draft::new());
    let mut first = draft.next(&Head::default());
    draft.put(&mut first, "a", Value::Int(1));
    write(&*store, &notes, first).await;
    let (directory, transfer) = (store.directory(), store.transfer());
    directory.register(&owner("ada"), registration(1)).await.unwrap();
    assert!(!transfer.is_read_only().await.unwrap());
    for _ in 0..2 {
        transfer.set_read_only(true).await.unwrap();
        assert!(transfer.is_read_only().await.unwrap());
    }
    let refused = |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::ReadOnly)), "{result:?}");
    let written = head(&*store, &notes).await;
    refused(store.commit(&notes, draft.next(&written)).await.map(drop));
    refused(store.commit(&dataset("new"), draft.next(&Head::default())).await.map(drop));
    refused(directory.link(&owner("bob"), &owner("ada")).await.map(drop));
    refused(directory.register(&owner("ada"), registration(2)).await.map(drop));
    refused(directory.unregister(&owner("ada"), device(1)).await.map(drop));
    assert_eq!(head(&*store, &notes).await, written);
    assert_eq!(store.records_after(&notes, &range()).await.unwrap().records.len(), 1);
    assert_eq!(directory.devices(&owner("ada")).await.unwrap(), [registration(1)]);
    transfer.set_read_only(false).await.unwrap();
    write(&*store, &notes, draft.next(&written)).await;
}

/// A copy writes records under a head without a line, so that nobody takes a part for the whole, and then the line.
pub async fn a_dataset_is_written_in_steps_before_it_exists(store: Arc<dyn Store>) {
    let (notes, mut draft) = (dataset("notes"), Draft::new());
    let mut last = draft.next(&Head::default());
    for name in ["a", "b"] {
        let mut step = Commit::on(&Head::default());
        draft.put(&mut last, name, Value::Text(name.to_owned()));
        step.records = last.records.drain(..).collect();
        assert_eq!(step.expected, None);
        write(&*store, &notes, step).await;
    }
    assert_eq!(store.positions(&owner("ada"), None, 10).await.unwrap(), []);
    assert_eq!(store.datasets(&owner("ada"), None, 10).await.unwrap(), []);
    assert_eq!(store.records_after(&notes, &range()).await.unwrap().records.len(), 2);
    draft.remember(&mut last, 1, 1);
    write(&*store, &notes, last.clone()).await;
    assert_eq!(head(&*store, &notes).await, last.head);
    assert_eq!(store.view(&notes, &live("a b")).await.unwrap().records.len(), 2);
    assert_eq!(store.transfer().memory(&notes).await.unwrap().pushes, last.pushes);
}
