//! Pushing: alone, together, again, and given up half-way.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use sync_core::model::{ChangeId, Limits, SyncCount};
use sync_core::protocol::{DatasetRequest, GroupStatus};
use tokio::sync::Semaphore;

use super::world::{ScriptedStore, World, ada, name, notes, push, request, verdicts};
use crate::service::ServiceSettings;

#[tokio::test]
async fn each_group_is_decided_on_its_own_and_says_what_it_overwrote() {
    let limits = Limits { value_bytes_max: 10, ..Limits::default() };
    let world = World::with(ScriptedStore::default(), ServiceSettings { limits, ..ServiceSettings::default() });
    world.push(1, 1, "a=1 b=1").await;
    let response = world.push(2, 1, "a=2 b?2@9,c=1 d=\"01234567890\" e=1,e=2 f=1").await;
    assert_eq!(verdicts(&response), "merged conflict refused refused applied");
    let groups = response.push.unwrap().groups;
    assert_eq!(groups[0].overwritten[0].value.as_ref().unwrap().to_json(), "1");
    assert_eq!(groups[2].code.as_deref(), Some("LimitExceeded"));
    assert_eq!(groups[3].code.as_deref(), Some("InvalidParameter"));
    assert_eq!(world.shown(), "a=2 b=1 f=1");
}

#[tokio::test]
async fn a_repeated_push_gets_the_same_answer_and_counts_once() {
    let world = World::new();
    let first = world.push(1, 1, "n+1 m?1@7").await;
    let again = world.push(1, 1, "n+1 m?1@7").await;
    assert_eq!(again.push, first.push);
    assert_eq!(world.shown(), "n=1");
}

#[tokio::test]
async fn what_a_push_has_read_may_be_forgotten_and_is_read_again() {
    let mut answers = Vec::new();
    for forgets in [false, true] {
        let world = World::new();
        world.push(1, 1, "a=1").await;
        let asked = DatasetRequest { cursor: world.cursor(), push: Some(push(2, 1, "b=2")), ..notes() };
        let mut begun = world.service.begin_sync(&ada(), request(vec![asked])).await.unwrap();
        if forgets {
            begun.forget_reads();
        }
        answers.push(world.service.finish_sync(begun, usize::MAX).await.unwrap());
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].datasets[0].page.as_ref().unwrap().records[0].key.as_str(), "b");
}

#[tokio::test]
async fn a_push_with_the_id_of_another_one_is_of_a_copied_device() {
    let world = World::new();
    world.push(1, 5, "n+1").await;
    for (sequence, changes) in [(5, "n+2"), (4, "n+1")] {
        let answer = world.push(1, sequence, changes).await.push.unwrap();
        assert!(answer.copied && answer.ack.is_none() && answer.groups.is_empty());
    }
    // Under a new device id, what was applied before is known by its change id.
    let mut copy = push(2, 1, "n+1");
    copy.groups[0].change_id = push(1, 5, "n+1").groups[0].change_id;
    let asked = DatasetRequest { cursor: world.cursor(), push: Some(copy), ..notes() };
    assert_eq!(verdicts(&world.ask(asked).await.unwrap()), "applied");
    assert_eq!(world.shown(), "n=1");
}

#[tokio::test]
async fn refused_pushes_to_nothing_leave_no_trace() {
    let world = World::new();
    assert_eq!(verdicts(&world.push(1, 1, "a?1@3").await), "conflict");
    assert_eq!(world.store.commits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn pushes_that_wait_for_the_same_dataset_are_committed_together() {
    let store = ScriptedStore { gate: Some(Semaphore::new(0)), ..ScriptedStore::default() };
    let world = World::with(store, ServiceSettings::default());
    let asked = |device| DatasetRequest { push: Some(push(device, 1, "n+1 m?1@0")), ..notes() };
    let devices: Vec<_> = (1..=50).map(|device| tokio::spawn(world.send(vec![asked(device)]))).collect();
    tokio::task::yield_now().await;
    world.store.gate.as_ref().unwrap().add_permits(100);
    let mut counts = Vec::new();
    let mut first_ones = 0;
    for device in devices {
        let response = device.await.unwrap().unwrap();
        let answer = response.datasets[0].push.clone().unwrap();
        assert_eq!(answer.groups[0].status, if counts.is_empty() { GroupStatus::Applied } else { GroupStatus::Merged });
        first_ones += u32::from(answer.groups[1].status != GroupStatus::Conflict);
        counts.push(answer.ack.unwrap().count.0);
    }
    assert_eq!((world.shown().as_str(), first_ones), ("m=1 n=50", 1));
    counts.sort_unstable();
    assert_eq!(counts, (1..=50).collect::<Vec<_>>(), "no two pushes share a count");
    assert!(world.store.commits.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn pushes_go_on_when_the_client_of_the_one_that_leads_is_gone() {
    let store = ScriptedStore { gate: Some(Semaphore::new(0)), ..ScriptedStore::default() };
    let world = World::with(store, ServiceSettings::default());
    let asked = |device| DatasetRequest { push: Some(push(device, 1, "n+1")), ..notes() };
    let leader = tokio::spawn(world.send(vec![asked(1)]));
    let others: Vec<_> = (2..=4).map(|device| tokio::spawn(world.send(vec![asked(device)]))).collect();
    let gone = tokio::spawn(world.send(vec![asked(5)]));
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    leader.abort();
    gone.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    world.store.gate.as_ref().unwrap().add_permits(100);
    for other in others {
        let response = tokio::time::timeout(Duration::from_secs(5), other).await.unwrap().unwrap().unwrap();
        assert_ne!(verdicts(&response.datasets[0]), "conflict");
    }
    assert_eq!(world.shown(), "n=3");
    // Whoever was cut off pushes again, and counts once.
    world.push(1, 1, "n+1").await;
    world.push(1, 1, "n+1").await;
    assert_eq!(world.shown(), "n=4");
}

#[tokio::test]
async fn a_push_that_is_overtaken_is_planned_again_on_a_new_view() {
    let world = World::new();
    world.store.stale.store(3, Ordering::SeqCst);
    assert_eq!(verdicts(&world.push(1, 1, "n+1").await), "applied");
    assert_eq!((world.cursor().unwrap().count, world.shown().as_str()), (SyncCount(1), "n=1"));
    world.store.stale.store(1_000, Ordering::SeqCst);
    let response = world.push(1, 2, "n+1").await;
    assert_eq!((response.error.unwrap().code.as_str(), response.push), ("TooManyRequests", None));
    assert_eq!(world.shown(), "n=1");
}

#[tokio::test]
async fn pushes_of_many_devices_by_many_requests_all_count() {
    let world = World::new();
    let devices = (1..=8_u8).map(|device| {
        let (service, world) = (Arc::clone(&world.service), &world);
        async move {
            for sequence in 1..=20 {
                let asked = DatasetRequest { push: Some(push(device, sequence, "n+1")), ..notes() };
                let request = request(vec![DatasetRequest { cursor: world.cursor(), ..asked }]);
                service.sync(&ada(), request).await.unwrap();
            }
        }
    });
    join_all(devices).await;
    assert_eq!((world.shown().as_str(), world.cursor().unwrap().count), ("n=160", SyncCount(160)));
}

#[tokio::test]
async fn an_owner_has_so_many_datasets_and_no_more_however_many_come_at_once() {
    let limits = Limits { datasets_max: 5, ..Limits::default() };
    let world = World::with(ScriptedStore::default(), ServiceSettings { limits, ..ServiceSettings::default() });
    let create = |number: u64| {
        let mut push = push(1, 1, "a=1");
        push.groups[0].change_id = ChangeId::from_bytes([number as u8; 16]);
        DatasetRequest { name: name(&format!("d{number}")), push: Some(push), ..notes() }
    };
    let response = world.send((0..8).map(create).collect()).await.unwrap();
    let created = response.datasets.iter().filter(|dataset| dataset.error.is_none() && verdicts(dataset) == "applied");
    let created = created.count();
    assert!((1..=5).contains(&created));
    for number in 8..20 {
        world.ask(create(number)).await;
    }
    let refused = world.ask(create(20)).await.unwrap();
    assert_eq!(verdicts(&refused), "refused");
    let group = &refused.push.as_ref().unwrap().groups[0];
    assert_eq!(group.code.as_deref(), Some("LimitExceeded"));
    assert_eq!(group.message.as_deref(), Some("an identity has at most 5 datasets"));
    let mut list = request(vec![]);
    list.list = true;
    assert_eq!(world.service.sync(&ada(), list).await.unwrap().names.unwrap().len(), 5);
}

#[tokio::test]
async fn a_store_that_fails_is_told_to_each_who_waits_and_hides_why() {
    let world = World::new();
    world.store.fails.store(true, Ordering::SeqCst);
    let asked = |device| DatasetRequest { push: Some(push(device, 1, "n+1")), ..notes() };
    for response in join_all((1..=3).map(|device| world.send(vec![asked(device)]))).await {
        let error = response.unwrap().datasets[0].error.clone().unwrap();
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            ("TooManyRequests", "the server cannot do this right now; come again later")
        );
    }
    world.store.fails.store(false, Ordering::SeqCst);
    world.push(1, 1, "n+1").await;
    assert_eq!(world.shown(), "n=1");
}
