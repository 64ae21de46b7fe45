//! Pulling page by page.

use sync_core::model::{Digest, SyncCount, limits};
use sync_core::protocol::{DatasetRequest, DatasetResponse, Page, Restart};

use super::world::{ScriptedStore, World, address, name, notes, push, show};
use crate::service::ServiceSettings;

/// Goes on with a pull.
async fn next(world: &World, page: &Page, asked: DatasetRequest) -> DatasetResponse {
    let asked = DatasetRequest { page: page.next.clone(), pull_limit: Some(2), ..asked };
    world.ask(asked).await.unwrap()
}

async fn first(world: &World, asked: DatasetRequest) -> Page {
    world.ask(DatasetRequest { pull_limit: Some(2), ..asked }).await.unwrap().page.unwrap()
}

#[tokio::test]
async fn a_dataset_that_was_never_written_is_an_empty_page() {
    let page = World::new().ask(notes()).await.unwrap().page.unwrap();
    assert_eq!((show(&page).as_str(), page.position, page.digest), ("", None, Some(Digest::default())));
}

#[tokio::test]
async fn a_device_in_sync_hears_nothing() {
    let world = World::new();
    world.push(1, 1, "a=1").await;
    let cursor = world.cursor();
    let response = world.send(vec![DatasetRequest { cursor, ..notes() }]).await.unwrap();
    assert!(response.datasets.is_empty());
    let asked = DatasetRequest { cursor, snapshot: true, ..notes() };
    assert_eq!(show(&world.ask(asked).await.unwrap().page.unwrap()), "a=1@1");
}

#[tokio::test]
async fn the_page_behind_a_push_has_what_it_wrote() {
    let world = World::new();
    world.push(1, 1, "a=1").await;
    let cursor = world.cursor();
    world.push(2, 1, "b=1").await;
    let asked = DatasetRequest { cursor, push: Some(push(1, 2, "c=1")), ..notes() };
    let response = world.ask(asked).await.unwrap();
    let page = response.page.unwrap();
    assert_eq!(show(&page), "b=1@2 c=1@3");
    assert_eq!((page.position, response.push.unwrap().ack), (world.cursor(), world.cursor()));
    assert_eq!(page.tags.iter().map(|(count, _)| count.0).collect::<Vec<_>>(), [2, 3]);
    assert_eq!((page.line, page.total), (None, 3));
    assert_eq!(page.digest, Some(world.store.inner.head(&address()).digest));
}

#[tokio::test]
async fn the_repeat_of_an_older_push_brings_the_floor_also_to_a_device_in_sync() {
    let world = World::new();
    world.push(1, 1, "a=1").await;
    world.push(2, 1, "b=1").await;
    let asked = DatasetRequest { cursor: world.cursor(), push: Some(push(1, 1, "a=1")), ..notes() };
    let response = world.ask(asked).await.unwrap();
    assert_eq!(response.push.unwrap().ack.unwrap().count, SyncCount(1));
    let page = response.page.unwrap();
    assert_eq!((show(&page).as_str(), page.position, page.floor), ("", world.cursor(), SyncCount::ZERO));
}

#[tokio::test]
async fn a_pull_goes_on_until_a_page_ends_at_its_own_position() {
    let world = World::new();
    world.push(1, 1, "a=1 b=2 c=3").await;
    let one = first(&world, notes()).await;
    assert_eq!((show(&one).as_str(), one.digest), ("a=1@1 b=2@1 …", None));
    world.push(1, 2, "a=4").await;
    let two = next(&world, &one, notes()).await.page.unwrap();
    assert_eq!((show(&two).as_str(), two.position), ("c=3@1 a=4@2", world.cursor()));
    assert_eq!(two.digest, Some(world.store.inner.head(&address()).digest));
    assert!(two.line.is_some());
}

#[tokio::test]
async fn a_snapshot_leaves_out_tombstones_from_before_it_began_only() {
    let world = World::new();
    world.push(1, 1, "a=1 b=2 c=3 d=4").await;
    world.push(1, 2, "-a").await;
    let one = first(&world, notes()).await;
    assert_eq!(show(&one), "b=2@1 c=3@1 …");
    assert_eq!(one.next.as_ref().unwrap().since, SyncCount(2));
    world.push(1, 3, "-b").await;
    let two = next(&world, &one, notes()).await.page.unwrap();
    assert_eq!(show(&two), "d=4@1 -b@3");
}

#[tokio::test]
async fn a_pull_since_a_cursor_brings_tombstones() {
    let world = World::new();
    world.push(1, 1, "a=1 b=2").await;
    let cursor = world.cursor();
    world.push(1, 2, "-a").await;
    world.push(1, 3, "c=1 d=1").await;
    let one = first(&world, DatasetRequest { cursor, ..notes() }).await;
    assert_eq!((show(&one).as_str(), one.line.clone()), ("-a@2 c=1@3 …", None));
    let two = next(&world, &one, DatasetRequest { cursor, ..notes() }).await.page.unwrap();
    assert_eq!(show(&two), "d=1@3");
}

#[tokio::test]
async fn whoever_needs_purged_tombstones_pulls_a_snapshot() {
    let world = World::new();
    world.push(1, 1, "a=1 b=2 c=3 d=4").await;
    let old = world.cursor();
    let snapshot_page = first(&world, notes()).await;
    world.push(1, 2, "-a").await;
    let since_page = first(&world, DatasetRequest { cursor: old, pull_limit: Some(1), ..notes() }).await;
    world.pass_ms(limits::TOMBSTONE_AGE_MS + 1);
    assert_eq!(world.service.purge().await.unwrap(), 1);
    assert_eq!(world.service.purge().await.unwrap(), 0);
    world.push(1, 3, "e=5 f=6 g=7").await;
    let again = Some(Restart { snapshot: true });
    // By a cursor, by a page of a pull since it, and by a page of a snapshot that began before.
    let cursor = old;
    assert_eq!(world.ask(DatasetRequest { cursor, ..notes() }).await.unwrap().restart, again);
    let page = Some(sync_core::protocol::NextPage {
        since: SyncCount(1),
        at: since_page.position.unwrap(),
        after_count: SyncCount(2),
        after_key: since_page.records[0].key.clone(),
    });
    assert_eq!(world.ask(DatasetRequest { cursor, page, ..notes() }).await.unwrap().restart, again);
    assert_eq!(next(&world, &snapshot_page, notes()).await.restart, again);
    // A push of such a device is looked at all the same.
    let asked = DatasetRequest { cursor, push: Some(push(2, 1, "h=1")), ..notes() };
    let response = world.ask(asked).await.unwrap();
    assert!(response.push.is_some() && response.restart == again);
    let asked = DatasetRequest { cursor, snapshot: true, ..notes() };
    assert_eq!(show(&first(&world, asked).await), "b=2@1 c=3@1 …");
}

#[tokio::test]
async fn an_answer_has_an_end_and_what_finds_no_room_is_asked_for_again() {
    let settings = ServiceSettings { response_bytes_max: 60, ..ServiceSettings::default() };
    let world = World::with(ScriptedStore::default(), settings);
    let text = format!("a=\"{}\" b=\"{0}\"", "x".repeat(40));
    let names = ["d1", "d2", "d3"];
    for dataset in names {
        world.ask(DatasetRequest { name: name(dataset), push: Some(push(1, 1, &text)), ..notes() }).await.unwrap();
    }
    let datasets = names.map(|dataset| DatasetRequest { name: name(dataset), ..notes() });
    let response = world.send(datasets.to_vec()).await.unwrap();
    let page = |at: usize| response.datasets[at].page.as_ref().map(|page| (page.records.len(), page.next.is_some()));
    assert_eq!([page(0), page(1), page(2)], [Some((1, true)), Some((1, true)), None]);
    assert_eq!(response.datasets[2].error.as_ref().unwrap().code, "TooManyRequests");
}
