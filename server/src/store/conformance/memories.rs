//! What a store remembers of pushes: enough to recognise a repeat, and no more.

use std::sync::Arc;

use sync_core::model::{ChangeId, SyncCount, limits};

use crate::store::conformance::draft::{Draft, dataset, device, head, write};
use crate::store::{Store, Touched};

/// Of each device the latest pushes are remembered, whatever their numbers; a view has those asked for and the newest.
pub async fn the_latest_pushes_of_each_device_are_remembered(store: Arc<dyn Store>) {
    let notes = dataset("notes");
    let most = limits::PUSHES_REMEMBERED_MAX as u64;
    let mut draft = Draft::new();
    let numbers: Vec<u64> = (0..most + 6).map(|at| at * 3 + 1).collect();
    for pair in numbers.chunks(2) {
        let mut commit = draft.next(&head(&*store, &notes).await);
        for sequence in pair {
            draft.remember(&mut commit, 1, *sequence);
        }
        if pair[0] < 10 {
            draft.remember(&mut commit, 2, pair[0]);
        }
        write(&*store, &notes, commit).await;
    }
    let remembered = async |of: u8, sequences: Vec<u64>| {
        let touched = Touched { pushes: draft.pushes(of, sequences), ..Touched::default() };
        let view = store.view(&notes, &touched).await.unwrap();
        let pushes = view.pushes.get(&device(of)).cloned().unwrap_or_default();
        pushes.iter().map(|push| push.sequence).collect::<Vec<_>>()
    };
    assert_eq!(remembered(1, numbers.clone()).await, numbers[6..]);
    assert_eq!(remembered(1, vec![20, 22]).await, [22, *numbers.last().unwrap()]);
    assert_eq!(remembered(1, vec![]).await, [*numbers.last().unwrap()]);
    assert_eq!(remembered(2, vec![1, 2, 7]).await, [1, 7]);
    assert_eq!(remembered(3, vec![1]).await, [0_u64; 0]);
}

/// Of a dataset the latest change ids are remembered, across commits.
pub async fn the_latest_change_ids_are_remembered(store: Arc<dyn Store>) {
    let notes = dataset("notes");
    let most = limits::CHANGES_REMEMBERED_MAX;
    let mut draft = Draft::new();
    let mut ids = Vec::new();
    for length in [3, most - 1, 4] {
        let mut commit = draft.next(&head(&*store, &notes).await);
        let count = commit.head.lineage.count;
        commit.changes = (0..length).map(|_| (ChangeId::random(&mut draft), count)).collect();
        ids.extend(commit.changes.clone());
        write(&*store, &notes, commit).await;
    }
    let touched = Touched { changes: ids.iter().map(|(id, _)| *id).collect(), ..Touched::default() };
    let view = store.view(&notes, &touched).await.unwrap();
    assert_eq!(view.changes, ids[ids.len() - most..].iter().copied().collect());
    assert_eq!(view.changes[&ids[ids.len() - 1].0], SyncCount(3));
}
