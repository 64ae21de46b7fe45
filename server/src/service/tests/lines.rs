//! What stands on the line, and what is said to who does not.

use sync_core::model::{CommitTag, EpochId, EpochReason, NextPage, Position, RecordKey, SyncCount, limits};
use sync_core::protocol::{DatasetRequest, Restart};

use super::world::{World, notes, push, show, verdicts};

#[tokio::test]
async fn a_cursor_off_the_line_is_answered_before_its_push_is_looked_at() {
    let world = World::new();
    world.push(1, 1, "a=1").await;
    world.push(1, 2, "a=2").await;
    let at = world.cursor().unwrap();
    for cursor in [
        Position { tag: CommitTag::from_bytes([9; 8]), ..at },
        // An unknown epoch whose tag agrees has been pruned; one whose tag differs is another history.
        Position { epoch: EpochId::from_bytes([9; 16]), tag: CommitTag::from_bytes([9; 8]), ..at },
        Position { tag: CommitTag::from_bytes([9; 8]), count: SyncCount(1), ..at },
    ] {
        let asked = DatasetRequest { cursor: Some(cursor), push: Some(push(2, 1, "a=3")), ..notes() };
        let response = world.ask(asked).await.unwrap();
        let reset = response.reset.unwrap();
        assert_eq!(
            (reset.lineage, reset.floor),
            (world.store.inner.head(&super::world::address()).lineage, SyncCount(0))
        );
        assert_eq!((response.push, response.page, response.restart), (None, None, None));
    }
    assert_eq!(world.shown(), "a=2");
    assert_eq!(world.cursor(), Some(at));
}

#[tokio::test]
async fn a_cursor_of_a_dataset_that_was_never_written_is_off_its_empty_line() {
    let world = World::new();
    world.push(1, 1, "a=1").await;
    let cursor = world.cursor();
    world.store.inner.restore(Default::default());
    let asked = DatasetRequest { cursor, push: Some(push(1, 2, "a=2")), ..notes() };
    let response = world.ask(asked).await.unwrap();
    assert_eq!(response.reset.unwrap().lineage, Default::default());
    assert_eq!(world.shown(), "");
}

#[tokio::test]
async fn a_cursor_ahead_of_the_count_opens_an_epoch_before_it_is_answered() {
    let world = World::new();
    world.push(1, 1, "a=1").await;
    let backup = world.store.inner.snapshot();
    world.push(1, 2, "a=2").await;
    let lost = world.cursor();
    world.store.inner.restore(backup);
    let response = world.ask(DatasetRequest { cursor: lost, push: Some(push(1, 3, "a=3")), ..notes() }).await.unwrap();
    let lineage = response.reset.unwrap().lineage;
    let whys: Vec<_> = lineage.entries.iter().map(|entry| (entry.start.0, entry.why)).collect();
    assert_eq!(whys, [(0, EpochReason::Created), (1, EpochReason::Ahead)]);
    assert_eq!(world.shown(), "a=1");
    // Once is enough.
    let response = world.ask(DatasetRequest { cursor: lost, ..notes() }).await.unwrap();
    assert_eq!(response.reset.unwrap().lineage.entries.len(), 2);
}

#[tokio::test]
async fn cursors_that_are_made_up_open_only_so_many_epochs() {
    let world = World::new();
    world.push(1, 1, "a=1").await;
    for _ in 0..2 * limits::EPOCHS_AHEAD_MAX {
        let cursor = world.cursor().map(|cursor| Position { count: SyncCount(99), ..cursor });
        let response = world.ask(DatasetRequest { cursor, ..notes() }).await.unwrap();
        assert!(response.reset.is_some());
    }
    let at = Position { count: SyncCount(99), ..world.cursor().unwrap() };
    let page =
        NextPage { since: SyncCount::ZERO, at, after_count: SyncCount(1), after_key: RecordKey::parse("a").unwrap() };
    let response = world.ask(DatasetRequest { page: Some(page), ..notes() }).await.unwrap();
    assert_eq!(response.restart, Some(Restart { snapshot: false }));
    let line = world.store.inner.head(&super::world::address()).lineage;
    assert_eq!(line.entries.len(), 1 + limits::EPOCHS_AHEAD_MAX);
}

#[tokio::test]
async fn a_cursor_before_a_deletion_is_reset_and_one_after_it_goes_on() {
    let world = World::new();
    world.push(1, 1, "a=1").await;
    let before = world.cursor();
    let deleted = world.ask(DatasetRequest { cursor: before, delete: true, ..notes() }).await.unwrap();
    assert_eq!((deleted.deleted, deleted.page), (Some(true), None));
    let response =
        world.ask(DatasetRequest { cursor: before, push: Some(push(1, 2, "a=2")), ..notes() }).await.unwrap();
    assert!(response.push.is_none() && response.reset.is_some());
    let response = world.push(2, 1, "b=1").await;
    assert_eq!((verdicts(&response).as_str(), world.shown().as_str()), ("applied", "b=1"));
}

#[tokio::test]
async fn a_dataset_is_deleted_only_where_the_cursor_says() {
    let world = World::new();
    world.push(1, 1, "a=1").await;
    let old = world.cursor();
    world.push(1, 2, "b=1").await;
    let response = world.ask(DatasetRequest { cursor: old, delete: true, ..notes() }).await.unwrap();
    assert_eq!((response.deleted, show(&response.page.unwrap()).as_str()), (Some(false), "b=1@2"));
    assert_eq!(world.shown(), "a=1 b=1");
    // What never was is as good as deleted, and leaves no trace.
    let nothing = World::new();
    let response = nothing.ask(DatasetRequest { delete: true, ..notes() }).await.unwrap();
    assert_eq!((response.deleted, nothing.cursor()), (Some(true), None));
}

#[tokio::test]
async fn a_page_off_the_line_begins_the_pull_again_and_the_push_waits() {
    let world = World::new();
    world.push(1, 1, "a=1 b=2 c=3").await;
    let first = world.ask(DatasetRequest { pull_limit: Some(1), ..notes() }).await.unwrap().page.unwrap();
    let next = first.next.unwrap();
    let mut other = next.clone();
    other.at.tag = CommitTag::from_bytes([9; 8]);
    for (snapshot, cursor) in [(false, None), (true, None), (false, world.cursor()), (true, world.cursor())] {
        let page = Some(other.clone());
        let asked = DatasetRequest { cursor, snapshot, page, push: Some(push(2, 1, "a=9")), ..notes() };
        let response = world.ask(asked).await.unwrap();
        assert_eq!(response.restart, Some(Restart { snapshot }));
        assert_eq!((response.push, response.page, response.reset), (None, None, None));
    }
    // A page that is ahead proves that the server was put back, just as a cursor does.
    other = next;
    other.at.count = SyncCount(7);
    let response = world.ask(DatasetRequest { page: Some(other), ..notes() }).await.unwrap();
    assert_eq!(response.restart, Some(Restart { snapshot: false }));
    assert_eq!(world.store.inner.head(&super::world::address()).lineage.entries[1].why, EpochReason::Ahead);
}

#[tokio::test]
async fn a_fence_opens_an_epoch_in_every_dataset_and_cursors_stay_on_the_line() {
    let world = World::new();
    world.push(1, 1, "a=1").await;
    let cursor = world.cursor();
    let other = DatasetRequest { name: super::world::name("other"), push: Some(push(1, 1, "a=1")), ..notes() };
    world.ask(other).await.unwrap();
    assert_eq!(world.service.fence(EpochReason::Fenced).await.unwrap(), 2);
    let page = world.ask(DatasetRequest { cursor, ..notes() }).await.unwrap().page.unwrap();
    let whys: Vec<_> = page.line.as_ref().unwrap().iter().map(|entry| entry.why).collect();
    assert_eq!(whys, [EpochReason::Created, EpochReason::Fenced]);
    assert_eq!((show(&page).as_str(), page.position), ("", world.cursor()));
    assert!(world.ask(DatasetRequest { cursor: page.position, ..notes() }).await.is_none());
}
