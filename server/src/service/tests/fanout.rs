//! Two services over one store, which hear nothing of each other but what the store says.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sync_core::model::Owner;
use sync_core::protocol::DatasetRequest;

use super::world::{ScriptedStore, World, ada, name, notes, push};
use crate::auth::policy::Caller;
use crate::service::ServiceSettings;
use crate::service::hints::tests::hear;

fn worlds() -> [World; 2] {
    let store = ScriptedStore::default();
    let other = ScriptedStore { inner: store.inner.clone(), ..ScriptedStore::default() };
    [store, other].map(|store| World::with(store, ServiceSettings::default()))
}

fn owner(caller: &Caller) -> Owner {
    caller.default_owner().unwrap().clone()
}

fn bob() -> Caller {
    Caller::Identity(Owner::parse("local:bob").unwrap())
}

async fn write(world: &World, dataset: &str, sequence: u64) {
    let dataset = DatasetRequest { name: name(dataset), push: Some(push(1, sequence, "n+1")), ..notes() };
    world.ask(dataset).await.unwrap();
}

#[tokio::test]
async fn what_was_written_elsewhere_is_found_in_the_store_and_said_once() {
    let [here, elsewhere] = worlds();
    let ada = owner(&ada());
    let mut listener = here.service.hints().subscribe(&ada, None);
    write(&elsewhere, "a", 1).await;
    write(&elsewhere, "b", 1).await;
    assert_eq!(hear(&mut listener), "");
    here.service.look_after(&ada).await.unwrap();
    assert_eq!(hear(&mut listener), "a@1 b@1");
    write(&here, "a", 2).await;
    assert_eq!(hear(&mut listener), "a@2");
    here.service.look_after(&ada).await.unwrap();
    assert_eq!(hear(&mut listener), "");
    write(&elsewhere, "b", 2).await;
    here.service.look_after(&ada).await.unwrap();
    assert_eq!(hear(&mut listener), "b@2");
    // An owner without datasets, and one for whom nobody listens.
    for nobody in ["local:nobody", "local:bob"] {
        here.service.look_after(&Owner::parse(nobody).unwrap()).await.unwrap();
    }
    assert_eq!(here.service.hints().listened_to(), [ada]);
}

#[tokio::test]
async fn a_store_that_fails_ends_nothing() {
    let [here, elsewhere] = worlds();
    let ada = owner(&ada());
    let mut listener = here.service.hints().subscribe(&ada, None);
    write(&elsewhere, "a", 1).await;
    here.store.fails.store(true, Ordering::SeqCst);
    here.service.look_after(&ada).await.unwrap_err();
    assert_eq!(hear(&mut listener), "");
    here.store.fails.store(false, Ordering::SeqCst);
    here.service.look_after(&ada).await.unwrap();
    assert_eq!(hear(&mut listener), "a@1");
}

#[tokio::test]
async fn a_link_that_was_made_elsewhere_leads_listeners_and_callers_to_the_target() {
    let [here, elsewhere] = worlds();
    let (source, target) = (owner(&bob()), owner(&ada()));
    // Where Bob leads is remembered here.
    assert_eq!(here.service.resolve(&source).await.unwrap(), source);
    let mut of_bob = here.service.hints().subscribe(&source, None);
    let mut of_ada = here.service.hints().subscribe(&target, None);
    let id = of_bob.id();
    elsewhere.service.link(&ada(), &bob()).await.unwrap();
    assert_eq!((hear(&mut of_bob), hear(&mut of_ada)), (String::new(), String::new()));
    here.service.look_after(&source).await.unwrap();
    assert_eq!((hear(&mut of_bob), hear(&mut of_ada)), ("end".to_owned(), "behind".to_owned()));
    assert_eq!(here.service.resolve(&source).await.unwrap(), target);
    assert_eq!(hear(&mut here.service.hints().subscribe(&target, Some(id))), "behind");
    // Said again, it changes nothing.
    here.service.look_after(&source).await.unwrap();
    assert_eq!(hear(&mut of_ada), "");
    assert_eq!(here.service.hints().listened_to(), [target]);
}

#[tokio::test]
async fn somebody_with_more_datasets_than_are_read_at_once_is_told_to_pull_everything_once() {
    let [here, elsewhere] = worlds();
    let ada = owner(&ada());
    for at in 0..1_000 {
        write(&elsewhere, &format!("d{at:04}"), 1).await;
    }
    let mut listener = here.service.hints().subscribe(&ada, None);
    here.service.look_after(&ada).await.unwrap();
    assert_eq!(hear(&mut listener), "behind");
    here.service.look_after(&ada).await.unwrap();
    assert_eq!(hear(&mut listener), "");
    write(&elsewhere, "d0999", 2).await;
    let service = Arc::clone(&here.service);
    service.look_after(&ada).await.unwrap();
    assert_eq!(hear(&mut listener), "d0999@2");
}
