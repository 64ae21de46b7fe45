//! Links that are made while others are served.

use std::pin::pin;

use futures_util::FutureExt as _;
use sync_core::model::{Owner, Position};
use sync_core::protocol::{DatasetRequest, DatasetResponse, SyncResponse, code};
use tokio::sync::Semaphore;

use super::world::{ScriptedStore, World, ada, notes, push, request, verdicts};
use crate::auth::policy::Caller;
use crate::error::ServiceError;
use crate::service::ServiceSettings;

fn bob() -> Caller {
    Caller::Identity(Owner::parse("local:bob").unwrap())
}

/// Pushes an increment from Bob's device, and pulls.
fn increment(cursor: Option<Position>) -> DatasetRequest {
    DatasetRequest { cursor, push: Some(push(1, 1, "n+1")), ..notes() }
}

/// Asks as somebody who was verified before.
async fn ask_as(world: &World, caller: &Caller, dataset: DatasetRequest) -> DatasetResponse {
    let answer: Result<SyncResponse, ServiceError> = world.service.sync(caller, request(vec![dataset])).await;
    answer.unwrap().datasets.pop().unwrap()
}

/// Asks with Bob's login.
async fn ask(world: &World, dataset: DatasetRequest) -> DatasetResponse {
    let caller = world.service.resolve_caller(bob()).await.unwrap();
    ask_as(world, &caller, dataset).await
}

fn comes_again(response: &DatasetResponse) -> bool {
    let nothing_else = response.push.is_none() && response.page.is_none() && response.reset.is_none();
    nothing_else && response.error.as_ref().is_some_and(|error| error.code == code::TOO_MANY_REQUESTS)
}

#[tokio::test]
async fn a_push_that_a_link_overtakes_is_sent_again_and_written_once() {
    let store = ScriptedStore { gate: Some(Semaphore::new(0)), ..ScriptedStore::default() };
    let world = World::with(store, ServiceSettings::default());
    let mut on_the_way = pin!(ask(&world, increment(None)));
    assert!((&mut on_the_way).now_or_never().is_none(), "its commit waits");
    world.service.link(&ada(), &bob()).await.unwrap();
    world.store.gate.as_ref().unwrap().add_permits(10);
    assert!(comes_again(&on_the_way.await));
    for _ in 0..2 {
        assert_eq!(verdicts(&ask(&world, increment(None)).await), "applied");
    }
    assert_eq!(world.shown(), "n=1");
}

#[tokio::test]
async fn a_device_of_a_linked_login_goes_on_where_it_was() {
    let world = World::new();
    let first = ask(&world, increment(None)).await;
    let cursor = first.page.clone().unwrap().position;
    world.service.link(&ada(), &bob()).await.unwrap();
    // Verified before the link, and read after it.
    for dataset in [increment(None), increment(cursor), notes(), DatasetRequest { cursor, ..notes() }] {
        assert!(comes_again(&ask_as(&world, &bob(), dataset).await));
    }
    assert_eq!(ask(&world, increment(None)).await.push, first.push, "the answer that was lost");
    let next = DatasetRequest { push: Some(push(1, 2, "n+1")), ..increment(cursor) };
    let next = ask(&world, next).await;
    assert_eq!((verdicts(&next).as_str(), next.reset), ("merged", None));
    assert_eq!(world.shown(), "n=2");
}
