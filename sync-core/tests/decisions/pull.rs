//! What a pull does to a replica.

use sync_core::conflict::{Cause, Side};
use sync_core::merge::replica::Replica as _;
use sync_core::merge::write::plan_delete;
use sync_core::model::limits::TAGS_REMEMBERED_MAX;
use sync_core::model::{Digest, Divergence, SyncCount};
use sync_core::policy::Policy;
use sync_core::protocol::{DatasetRequest, DatasetResponse, Restart};

use crate::device::Device;
use crate::notation::{dataset, json};
use crate::server::TinyServer;

/// A server with four records of another device.
fn stocked() -> (TinyServer, Device) {
    let (mut server, mut other) = (TinyServer::new(), Device::new(9));
    for text in ["a=1 b=1", "c=1", "d=1 a=2"] {
        other.write(text);
        other.sync(&mut server);
    }
    (server, other)
}

#[test]
fn pages_become_visible_together() {
    let (mut server, _) = stocked();
    let mut device = Device::new(1);
    for _ in 0..3 {
        assert_eq!(device.visible(), "");
        device.round(&mut server, true, Some(1)).unwrap();
    }
    device.round(&mut server, true, Some(1)).unwrap();
    assert_eq!(device.visible(), "a=2 b=1 c=1 d=1");
    assert!(device.is_settled());
}

#[test]
fn a_page_that_comes_twice_or_late_changes_nothing() {
    let (mut server, _) = stocked();
    let mut device = Device::new(1);
    let mut request = device.request(true).unwrap();
    request.pull_limit = Some(2);
    let response = server.sync(&request);
    device.absorb(&request, response.clone());
    let before = device.replica.clone();
    assert!(device.absorb(&request, response.clone()).late);
    assert_eq!(device.replica, before);
    device.sync(&mut server);
    let before = device.replica.clone();
    assert!(device.absorb(&request, response).late);
    assert_eq!(device.replica, before);
}

#[test]
fn tombstones_remove_and_a_group_is_never_half_visible() {
    let (mut server, mut other) = stocked();
    let mut device = Device::new(1);
    device.sync(&mut server);
    other.write("a- e=1");
    other.sync(&mut server);
    device.round(&mut server, true, Some(1)).unwrap();
    assert_eq!(device.visible(), "a=2 b=1 c=1 d=1");
    device.sync(&mut server);
    assert_eq!(device.visible(), "b=1 c=1 d=1 e=1");
}

/// The server answers that the pull is to begin again.
fn begin_again(device: &mut Device, snapshot: bool) {
    let request = device.request(true).unwrap();
    let restart = Some(Restart { snapshot });
    device.absorb(&request, DatasetResponse { restart, ..DatasetResponse::empty(None, dataset()) });
}

/// What is in the conflict log because the server was put back.
fn restored(device: &Device) -> String {
    let entries = device.replica.log().values().filter(|entry| entry.cause == Cause::Restored);
    let keys: Vec<_> = entries.flat_map(|entry| &entry.losses).map(|loss| loss.key.as_str()).collect();
    keys.join(" ")
}

#[test]
fn what_a_server_has_lost_that_was_put_back_before_a_snapshot_is_logged() {
    let (mut server, mut other) = stocked();
    let backup = server.clone();
    other.write("e=1");
    other.sync(&mut server);
    let mut device = Device::new(1);
    device.sync(&mut server);
    begin_again(&mut device, true);
    server.put_back(&backup);
    let mut third = Device::new(3);
    for text in ["f=1", "f=2"] {
        third.write(text);
        third.sync(&mut server);
    }
    device.sync(&mut server);
    assert_eq!((device.visible().as_str(), restored(&device).as_str()), ("a=2 b=1 c=1 d=1 f=2", "e"));
}

#[test]
fn a_record_that_the_server_lost_without_knowing_does_not_hold_up_who_changes_it() {
    let (mut server, _) = stocked();
    let mut device = Device::with_policy(1, Policy::KeepLocal);
    device.sync(&mut server);
    server.lose("c");
    device.write("c=2");
    device.sync(&mut server);
    assert_eq!((device.pending().as_str(), device.visible().as_str()), ("", "a=2 b=1 c=2 d=1"));
    let causes: Vec<_> = device.replica.log().values().map(|entry| entry.cause).collect();
    assert_eq!(causes, [Cause::Digest, Cause::Policy(Policy::KeepLocal)]);
}

#[test]
fn a_pull_that_is_to_begin_again_does_so_at_once_and_ends_if_nothing_is_new() {
    let (mut server, mut other) = stocked();
    let mut device = Device::new(1);
    device.sync(&mut server);
    begin_again(&mut device, false);
    device.round(&mut server, false, None).expect("it asks again");
    assert!(device.is_settled());
    other.write("e=1");
    other.sync(&mut server);
    begin_again(&mut device, false);
    device.round(&mut server, false, None).expect("it asks again");
    assert_eq!(device.visible(), "a=2 b=1 c=1 d=1 e=1");
}

#[test]
fn what_a_server_has_lost_that_was_put_back_twice_is_logged_whole() {
    let (mut server, mut other) = stocked();
    let earlier = server.clone();
    other.write("e=1");
    other.sync(&mut server);
    let later = server.clone();
    other.write("f=1");
    other.sync(&mut server);
    let mut device = Device::new(1);
    device.sync(&mut server);
    server.put_back(&later);
    assert_eq!(device.round(&mut server, true, None).unwrap().reset, Some(Divergence::Restored { fork: SyncCount(4) }));
    server.put_back(&earlier);
    device.sync(&mut server);
    assert_eq!((device.visible().as_str(), restored(&device).as_str()), ("a=2 b=1 c=1 d=1", "e f"));
}

#[test]
fn a_digest_that_differs_is_repaired_by_a_snapshot_and_logged() {
    let (mut server, mut other) = stocked();
    let mut device = Device::new(1);
    device.sync(&mut server);
    // The device's base is damaged: it holds a record that the server does not.
    let mut request = device.request(true).unwrap();
    other.write("b=2");
    other.sync(&mut server);
    request.pull_limit = None;
    let mut response = server.sync(&request);
    let mut page = response.page.take().unwrap();
    page.records.push(crate::notation::record("damage@4=1"));
    page.digest = page.digest.map(|digest| digest.plus(&crate::notation::record("damage@4=1")));
    response.page = Some(page);
    device.absorb(&request, response);
    assert_eq!(device.visible(), "a=2 b=2 c=1 d=1 damage=1");
    other.write("b=3");
    other.sync(&mut server);
    assert!(device.round(&mut server, true, None).unwrap().diverged);
    assert_eq!(device.visible(), "a=2 b=2 c=1 d=1 damage=1");
    device.sync(&mut server);
    assert_eq!(device.visible(), "a=2 b=3 c=1 d=1");
    let logged: Vec<_> = device.replica.log().values().map(|entry| (entry.cause, entry.losses.len())).collect();
    assert_eq!(logged, [(Cause::Digest, 1)]);
    assert_eq!(device.replica.state().unwrap().digest, server.head().digest);
}

#[test]
fn an_acknowledged_push_stays_as_a_layer_until_a_pull_contains_it() {
    let (mut server, _) = stocked();
    let mut device = Device::new(1);
    device.sync(&mut server);
    device.write("a=9");
    device.write("x=1 y=1");
    let mut request = device.request(false).unwrap();
    request.pull_limit = Some(1);
    let response = server.sync(&request);
    device.absorb(&request, response);
    assert_eq!(device.pending(), "accepted a=9, accepted x=1 y=1");
    assert_eq!(device.visible(), "a=9 b=1 c=1 d=1 x=1 y=1");
    device.round(&mut server, false, Some(1)).unwrap();
    assert_eq!(device.pending(), "accepted a=9, accepted x=1 y=1");
    device.round(&mut server, false, Some(1)).unwrap();
    assert!(device.is_settled());
    assert_eq!(device.visible(), "a=9 b=1 c=1 d=1 x=1 y=1");
}

#[test]
fn a_push_settles_as_a_whole_accepted_leave_conflicted_are_decided_again_refused_are_parked() {
    let (mut server, mut other) = (TinyServer::new(), Device::with_policy(2, Policy::KeepLocal));
    let mut device = Device::with_policy(1, Policy::KeepLocal);
    other.write("conflicted=1");
    other.sync(&mut server);
    device.sync(&mut server);
    other.write("conflicted=2");
    other.sync(&mut server);
    server.limits.value_bytes_max = 4;
    for text in ["accepted=1", "conflicted=3", r#"refused="too_long""#] {
        device.write(text);
    }
    let absorbed = device.round(&mut server, false, None).unwrap();
    assert_eq!((absorbed.accepted, absorbed.conflicts, absorbed.refused, absorbed.parked), (1, 1, 1, 1));
    assert_eq!(device.pending(), "sealed conflicted=3");
    assert_eq!(device.visible(), "accepted=1 conflicted=3");
    let parked: Vec<_> = device.replica.parked_units().values().map(|unit| unit.code.clone()).collect();
    assert_eq!(parked, ["LimitExceeded"]);
    device.sync(&mut server);
    assert!(device.is_settled());
}

#[test]
fn a_refused_group_takes_along_what_was_written_over_it() {
    let (mut server, mut device) = (TinyServer::new(), Device::new(1));
    device.limits.group_patches_max = 2;
    server.limits.value_bytes_max = 4;
    device.write(r#"a="too_long" b=1"#);
    device.write("b=2 c=2");
    device.write("d=1");
    device.sync(&mut server);
    assert_eq!((device.visible().as_str(), device.pending().as_str()), ("d=1", ""));
    let parked: Vec<_> = device.replica.parked_units().values().map(|unit| unit.patches.len()).collect();
    assert_eq!(parked, [4]);
}

#[test]
fn counters_over_a_refused_group_stand_by_themselves() {
    let (mut server, mut device) = (TinyServer::new(), Device::with_policy(1, Policy::Counter));
    device.limits.group_patches_max = 2;
    server.limits.value_bytes_max = 4;
    device.write(r#"a="too_long" n=1"#);
    device.write("n=11 m=5");
    device.sync(&mut server);
    assert_eq!((device.visible().as_str(), device.pending().as_str()), ("m=5 n=10", ""));
}

/// The push is acknowledged, and its page does not arrive.
fn push_unseen(device: &mut Device, server: &mut TinyServer, pending: &str) {
    let request = device.request(false).unwrap();
    let mut response = server.sync(&request);
    response.page = None;
    response.restart = Some(Restart { snapshot: false });
    device.absorb(&request, response);
    assert_eq!(device.pending(), pending);
}

#[test]
fn an_acknowledgement_that_is_not_on_the_line_or_not_known_to_be_is_pushed_again() {
    let forgotten = TAGS_REMEMBERED_MAX + 1;
    for (is_put_back, commits, settles) in
        [(true, 1, false), (true, forgotten, false), (false, 1, true), (false, forgotten, false)]
    {
        let (mut server, mut device) = (TinyServer::new(), Device::with_policy(1, Policy::Counter));
        device.write("n=1");
        device.sync(&mut server);
        let backup = server.clone();
        device.write("n=11");
        push_unseen(&mut device, &mut server, "accepted n=11");
        if is_put_back {
            server.put_back(&backup);
        }
        let mut other = Device::with_policy(2, Policy::Counter);
        other.sync(&mut server);
        for number in 1..=commits {
            other.write(&format!("m={number}"));
            other.sync(&mut server);
        }
        device.round(&mut server, false, None).unwrap();
        let pending = if settles { "" } else { "sent n=11" };
        assert_eq!(device.pending(), pending, "{is_put_back} {commits}");
        device.sync(&mut server);
        assert!(device.is_settled());
        assert_eq!(device.visible(), format!("m={commits} n=11"));
    }
}

#[test]
fn what_was_pushed_and_a_damaged_server_does_not_show_is_logged() {
    // With the tag forgotten, the push settles later than the damaged pages are taken.
    for commits in [0, TAGS_REMEMBERED_MAX + 1] {
        let (mut server, mut other) = stocked();
        let mut device = Device::new(1);
        device.sync(&mut server);
        device.write("n=11");
        device.write("a=9");
        push_unseen(&mut device, &mut server, "accepted n=11, accepted a=9");
        server.lose("n");
        for number in 1..=commits {
            other.write(&format!("d={number}"));
            other.sync(&mut server);
        }
        device.sync(&mut server);
        assert!(device.is_settled());
        assert_eq!(device.visible(), format!("a=9 b=1 c=1 d={}", commits.max(1)));
        let logged = device.replica.log().values().filter(|entry| entry.cause == Cause::Digest);
        let losses = logged.flat_map(|entry| &entry.losses).filter(|loss| loss.side == Side::Local);
        let losses: Vec<_> = losses.map(|loss| (loss.key.as_str(), loss.value.clone())).collect();
        assert_eq!(losses, [("n", Some(json("11")))], "after {commits} commits");
    }
}

#[test]
fn what_a_page_was_known_to_contain_the_next_one_contains() {
    let (mut server, mut other) = stocked();
    let mut device = Device::new(1);
    device.write("n=11");
    push_unseen(&mut device, &mut server, "accepted n=11");
    for number in 1..=5 {
        device.round(&mut server, false, Some(1)).unwrap();
        assert_eq!(device.pending(), "accepted n=11");
        for write in 0..TAGS_REMEMBERED_MAX / 2 {
            other.write(&format!("e={number}{write}"));
            other.sync(&mut server);
        }
    }
    device.round(&mut server, false, None).unwrap();
    assert!(device.is_settled());
}

#[test]
fn what_was_pulled_is_what_the_server_has() {
    let (mut server, _) = stocked();
    let mut device = Device::new(1);
    device.sync(&mut server);
    let digest = device.replica.base_records().values().fold(Digest::default(), |digest, record| digest.plus(record));
    assert_eq!(digest, server.head().digest);
    let cursor = device.replica.state().unwrap().cursor.unwrap();
    assert_eq!((cursor.count, Some(cursor)), (SyncCount(3), server.head().lineage.position()));
}

#[test]
fn what_answers_something_else_than_was_asked_changes_nothing() {
    let (mut server, mut device) = (TinyServer::new(), Device::new(1));
    device.write("a=1");
    device.sync(&mut server);
    device.write("a=2");
    let request = device.request(false).unwrap();
    let before = device.replica.clone();
    device.absorb(&request, DatasetResponse { deleted: Some(true), ..DatasetResponse::empty(None, dataset()) });
    assert_eq!(device.replica, before, "nothing was to be deleted");
    device.execute(&plan_delete(&device.replica).unwrap());
    let request = device.request(false).unwrap();
    let before = device.replica.clone();
    let snapshot = DatasetRequest { cursor: None, snapshot: true, ..request.clone() };
    device.absorb(&request, server.sync(&snapshot));
    assert_eq!(device.replica, before, "nothing was to be pulled");
}
