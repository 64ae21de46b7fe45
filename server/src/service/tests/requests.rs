//! A request as a whole.

use sync_core::model::{Limits, Owner};
use sync_core::protocol::DatasetRequest;

use super::world::{ScriptedStore, World, ada, name, notes, push, request, verdicts};
use crate::service::ServiceSettings;

async fn refused(world: &World, datasets: Vec<DatasetRequest>) -> String {
    let error = world.send(datasets).await.unwrap_err();
    format!("{}: {error}", error.code())
}

#[tokio::test]
async fn a_request_that_cannot_be_served_as_a_whole_says_why() {
    let limits = Limits { request_patches_max: 3, ..Limits::default() };
    let world = World::with(ScriptedStore::default(), ServiceSettings { limits, ..ServiceSettings::default() });
    let twice = refused(
        &world,
        vec![notes(), DatasetRequest { owner: Some(ada().default_owner().unwrap().clone()), ..notes() }],
    )
    .await;
    assert_eq!(twice, "InvalidParameter: the request names dataset `notes` twice");
    let asked = |dataset, changes| DatasetRequest { name: name(dataset), push: Some(push(1, 1, changes)), ..notes() };
    let patches = refused(&world, vec![asked("d1", "a=1 b=1"), asked("d2", "a=1,b=1")]).await;
    assert_eq!(patches, "LimitExceeded: a request has at most 3 patches, and this one has 4");
    let many = (0..1_001).map(|number| DatasetRequest { name: name(&format!("d{number}")), ..notes() }).collect();
    assert_eq!(refused(&world, many).await, "LimitExceeded: a request names at most 1000 datasets");
    let mut asked = asked("d1", "a=1");
    asked.push.as_mut().unwrap().sequence = 1 << 53;
    assert_eq!(refused(&world, vec![asked]).await, "InvalidParameter: the sequence of a push is below 2^53");
    let mut old = request(vec![]);
    old.version = 0;
    assert_eq!(world.service.sync(&ada(), old).await.unwrap_err().code(), "UpgradeRequired");
    let mut new = request(vec![]);
    new.version = 99;
    assert_eq!(world.service.sync(&ada(), new).await.unwrap().version, 1);
}

#[tokio::test]
async fn a_dataset_of_somebody_else_is_not_served_and_holds_up_no_other() {
    let world = World::new();
    let owner = Some(Owner::parse("local:bob").unwrap());
    let theirs = DatasetRequest { owner: owner.clone(), push: Some(push(1, 1, "a=1")), ..notes() };
    let ours = DatasetRequest { push: Some(push(1, 1, "a=1")), ..notes() };
    let response = world.send(vec![theirs, ours]).await.unwrap();
    let [theirs, ours] = &response.datasets[..] else { panic!("{response:?}") };
    assert_eq!(theirs.error.as_ref().unwrap().code, "NotAuthorized");
    assert_eq!((&theirs.owner, &theirs.push, &theirs.page), (&owner, &None, &None));
    assert_eq!(verdicts(ours), "applied");
}

#[tokio::test]
async fn limits_are_told_until_they_are_known_and_names_when_asked_for() {
    let world = World::new();
    world.push(1, 1, "a=1").await;
    let mut asked = request(vec![]);
    asked.list = true;
    let response = world.service.sync(&ada(), asked.clone()).await.unwrap();
    assert_eq!(response.limits, Some(Limits::default()));
    assert_eq!(
        (response.names, response.identity),
        (Some(vec![name("notes")]), Some(ada().default_owner().unwrap().clone()))
    );
    asked.limits_version = response.limits_version;
    asked.list = false;
    let response = world.service.sync(&ada(), asked).await.unwrap();
    assert_eq!((response.limits, response.limits_version, response.names), (None, None, None));
}
