//! What an app's write does.

use sync_core::merge::write::WriteError;
use sync_core::model::Limits;
use sync_core::policy::Policy;

use crate::device::Device;
use crate::notation::writes;
use crate::server::TinyServer;

/// Transactions one after the other, and the pending groups afterwards. A group has three patches at most.
#[track_caller]
fn check(transactions: &[&str], pending: &str) {
    let mut device = Device::new(1);
    device.limits.group_patches_max = 3;
    transactions.iter().for_each(|text| device.write(text));
    assert_eq!(device.pending(), pending);
}

#[track_caller]
fn check_refused(change: impl Fn(&mut Limits), text: &str, refusal: &str) {
    let mut device = Device::new(1);
    change(&mut device.limits);
    let error = device.try_write(writes(text)).unwrap_err();
    assert_eq!(error.to_string(), refusal);
    assert_eq!(device.pending(), "");
}

#[test]
fn a_transaction_is_one_group() {
    check(&["a=1 b=2"], "open a=1 b=2");
    check(&["a=1", "b=2"], "open a=1, open b=2");
}

#[test]
fn groups_that_share_a_record_join() {
    check(&["a=1 b=1", "b=2 c=2"], "open a=1 b=2 c=2");
    check(&["a=1", "b=1", "c=1", "a=2 b=2"], "open a=2 b=2, open c=1");
    check(&["a=1", "a=2"], "open a=2");
}

#[test]
fn a_group_that_would_be_too_large_is_sealed_and_the_next_lies_over_it() {
    check(&["a=1 b=1", "b=2 c=2 d=2"], "sealed a=1 b=1, open b=2 c=2 d=2");
    check(&["a=1 b=1", "b=2 c=2 d=2", "b=3"], "sealed a=1 b=1, open b=3 c=2 d=2");
    check(&["a=1 b=1", "b=2 c=2 d=2", "a=3"], "sealed a=1 b=1, open b=2 c=2 d=2, open a=3");
    check(&["a=1 b=1", "c=1 d=1", "a=2 c=2"], "sealed a=1 b=1, sealed c=1 d=1, open a=2 c=2");
}

#[test]
fn of_two_units_that_are_retried_the_later_edit_stays_in_whatever_order() {
    let (mut server, mut device) = (TinyServer::new(), Device::new(1));
    let refused = |device: &mut Device, server: &mut TinyServer| {
        server.limits.records_max = 0;
        device.sync(server);
        *device.replica.parked_units().keys().last().expect("it is parked")
    };
    let retry = |device: &mut Device, id: u64| {
        device.now = device.now.plus_ms(10);
        device.retry(id);
    };
    device.write("a=1");
    let earlier = refused(&mut device, &mut server);
    device.now = device.now.plus_ms(10);
    device.write("a=2");
    let later = refused(&mut device, &mut server);
    retry(&mut device, earlier);
    let parked_after_it = refused(&mut device, &mut server);
    retry(&mut device, later);
    retry(&mut device, parked_after_it);
    assert_eq!(device.visible(), "a=2");
}

#[test]
fn writes_that_change_nothing_are_left_out() {
    check(&["a-"], "");
    check(&["a=1", "a=1"], "open a=1");
    check(&["a=1", "a=1 b=2"], "open a=1, open b=2");
    check(&["a=1", "a-"], "open a-");
}

#[test]
fn sets_are_normalised_when_they_are_written() {
    let mut device = Device::with_policy(1, Policy::Set);
    device.write("a=[3,1,3,2]");
    assert_eq!(device.pending(), "open a=[1,2,3]");
    device.write("a=[2,1,3]");
    assert_eq!(device.visible(), "a=[1,2,3]");
}

#[test]
fn what_no_server_would_take_is_refused_when_it_is_written() {
    let few = |limits: &mut Limits| limits.group_patches_max = 1;
    check_refused(few, "a=1 b=1", "a transaction has at most 1 records; this one has 2");
    let short = |limits: &mut Limits| limits.value_bytes_max = 2;
    check_refused(short, r#"a=1 b="xx""#, "the value of `b` has 3 bytes, and at most 2 are allowed");
    let small = |limits: &mut Limits| limits.group_bytes_max = 3;
    check_refused(small, "a=1 b=1", "a transaction has at most 3 bytes of keys and values; this one has 4");
    check_refused(|_| {}, "a=1 a=2", "`a` is written twice in one transaction");
}

#[test]
fn each_refusal_has_its_kind() {
    let mut device = Device::new(1);
    assert!(matches!(device.try_write(writes("a=1 a-")), Err(WriteError::Invalid(_))));
    device.limits.group_patches_max = 0;
    assert!(matches!(device.try_write(writes("a=1")), Err(WriteError::Limit(_))));
}

#[test]
fn a_write_redraws_the_change_id_and_a_write_of_nothing_does_not() {
    let mut device = Device::new(1);
    device.write("a=1");
    let id = |device: &Device| device.replica.pending()[0].0.change_id;
    let first = id(&device);
    device.write("a=1");
    assert_eq!(id(&device), first);
    device.write("a=2");
    assert_ne!(id(&device), first);
}

#[test]
fn a_write_over_what_is_in_flight_is_a_group_of_its_own() {
    let mut device = Device::new(1);
    device.write("a=1 b=1");
    device.request(true).unwrap();
    device.write("a=2");
    assert_eq!(device.pending(), "sent a=1 b=1, open a=2");
    device.write("a=3 c=3");
    assert_eq!((device.pending().as_str(), device.visible().as_str()), ("sent a=1 b=1, open a=3 c=3", "a=3 b=1 c=3"));
}

#[test]
fn observers_are_told_what_looks_different() {
    let mut device = Device::new(1);
    let plan = device.try_write(writes("a=1 b-")).unwrap();
    assert_eq!(plan.changes.keys.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a"]);
    assert!(device.try_write(writes("a=1")).unwrap().changes.keys.is_empty());
}

#[test]
fn put_and_remove_leave_a_removal_until_the_server_has_seen_it() {
    let (mut server, mut device) = (TinyServer::new(), Device::new(1));
    device.write("a=1");
    device.sync(&mut server);
    device.write("a-");
    assert_eq!((device.pending().as_str(), device.visible().as_str()), ("open a-", ""));
    device.sync(&mut server);
    assert!(device.is_settled());
    assert_eq!(server.head().records, 0);
}
