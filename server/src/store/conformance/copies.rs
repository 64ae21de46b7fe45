//! What holds of a store that was copied to another one.

use std::sync::Arc;

use sync_core::merge::push::Head;
use sync_core::model::{SyncCount, Timestamp, Value};

use crate::copy::{Copied, CopyError, copy};
use crate::store::conformance::draft::{Draft, dataset, device, head, owner, range, write};
use crate::store::devices::{Platform, PushToken, Registration};
use crate::store::{DatasetAddress, RecordsAfter, Store, StoreError};

/// Records of the largest dataset: more than a copy takes at once.
const RECORDS: u32 = 2_500;

/// Everything is there afterwards and goes on from where it was; the source is read-only. A second copy finds nothing to
/// do, and one to a store that has gone on is refused.
pub async fn a_copy_takes_the_place_of_its_source(source: Arc<dyn Store>, target: Arc<dyn Store>) {
    let mut draft = Draft::new();
    fill(&*source, &mut draft).await;
    let linked = source.directory().link(&owner("bob"), &owner("ada")).await.unwrap();
    let all = Copied { owners: 3, datasets: 4, records: u64::from(RECORDS) + 1 };
    let mut told = Vec::new();
    assert_eq!(copy(&*source, &*target, |copied| told.push(copied.records)).await.unwrap(), all);
    assert!(told.is_sorted() && told.len() > 4, "{told:?}");
    assert_eq!(everything(&*source).await, everything(&*target).await);
    assert_eq!(target.directory().link(&owner("bob"), &owner("ada")).await.unwrap(), linked);

    let notes = dataset("notes");
    let refused = source.commit(&notes, draft.next(&head(&*source, &notes).await)).await;
    assert!(matches!(refused, Err(StoreError::ReadOnly)), "{refused:?}");
    assert_eq!(copy(&*source, &*target, |_| {}).await.unwrap(), Copied { records: 0, ..all });
    let next = draft.next(&head(&*target, &notes).await);
    write(&*target, &notes, next).await;
    let again = copy(&*source, &*target, |_| {}).await;
    assert!(matches!(&again, Err(CopyError::Differs(address)) if *address == notes), "{again:?}");

    // A copy that is refused before it begins leaves its source as it was.
    source.transfer().set_read_only(false).await.unwrap();
    assert!(copy(&*source, &*target, |_| {}).await.is_err());
    let next = draft.next(&head(&*source, &notes).await);
    write(&*source, &notes, next).await;
}

/// Whatever a store can hold: several pages of records, tombstones, a floor, a deleted dataset, push memory, links, a
/// name from before a link, devices.
async fn fill(store: &dyn Store, draft: &mut Draft) {
    let notes = dataset("notes");
    for step in 0..5 {
        let mut commit = draft.next(&head(store, &notes).await);
        for number in 0..RECORDS / 5 {
            draft.put(&mut commit, &format!("{step}-{number}"), Value::Text("x".repeat(number as usize)));
        }
        draft.remember(&mut commit, 1, step);
        write(store, &notes, commit).await;
    }
    let mut purge = draft.next(&head(store, &notes).await);
    purge.head.floor = SyncCount(2);
    purge.purge = true;
    draft.remove(&mut purge, "removed");
    purge.head.digest = purge.head.digest.plus(&purge.records[0]);
    write(store, &notes, purge).await;
    write(store, &dataset("gone"), draft.next(&Head::default())).await;
    let deletion = draft.deletion(&head(store, &dataset("gone")).await);
    write(store, &dataset("gone"), deletion).await;
    for id in ["bob", "eve"] {
        write(store, &DatasetAddress { owner: owner(id), ..notes.clone() }, draft.next(&Head::default())).await;
    }
    for (id, number) in [("ada", 1), ("bob", 2), ("eve", 3)] {
        let registration = Registration {
            device: device(number),
            platform: Platform::Fcm,
            token: PushToken::parse(format!("t{number}")).unwrap(),
            name: None,
            registered_at: Timestamp(i64::from(number)),
        };
        store.directory().register(&owner(id), registration).await.unwrap();
    }
    store.directory().link(&owner("bob"), &owner("ada")).await.unwrap();
}

/// All that can be read of a store, as text.
async fn everything(store: &dyn Store) -> String {
    let mut lines = vec![format!("{:?}", store.transfer().owners(None, 100).await.unwrap())];
    for address in store.addresses(None, 100).await.unwrap() {
        let mut range = RecordsAfter { records_max: 700, ..range() };
        loop {
            let read = store.records_after(&address, &range).await.unwrap();
            lines.push(format!("{address:?} {read:?}"));
            let Some(last) = read.records.last().filter(|_| read.has_more) else { break };
            range.after = Some((last.sync_count, last.key.clone()));
        }
        lines.push(format!("{:?}", store.transfer().memory(&address).await.unwrap()));
        lines.push(format!("{:?}", store.datasets(&address.owner, None, 100).await.unwrap()));
        lines.push(format!("{:?}", store.positions(&address.owner, None, 100).await.unwrap()));
    }
    lines.join("\n")
}
