//! A device's file is copied while counters have changes that no server knows. Whoever of the two comes first: what both
//! hold counts once.

use std::collections::BTreeMap;

use sync_core::model::limits;
use sync_core::policy::{Policies, Policy};

use crate::device::Device;
use crate::server::TinyServer;

/// Counters under `n`; maps elsewhere, whose field `n` is a counter.
fn policies() -> Policies {
    Policies {
        dataset: Some(Policy::Fields),
        prefixes: BTreeMap::from([("n".to_owned(), Policy::Counter), ("l".to_owned(), Policy::LastSyncWins)]),
        fields: BTreeMap::from([("n".to_owned(), Policy::Counter)]),
        ..Policies::default()
    }
}

/// Synced by all, then written and copied, then written by the original and by the copy, and what all see in the end:
/// given for the original coming first, and the same if the copy does.
#[track_caller]
fn check(synced: &[&str], shared: &[&str], original: &[&str], copy: &[&str], seen: &str) {
    for copy_first in [false, true] {
        let mut server = TinyServer::new();
        let mut phone = Device::with_policies(1, policies());
        synced.iter().for_each(|text| phone.write(text));
        phone.sync(&mut server);
        shared.iter().for_each(|text| phone.write(text));
        let mut twin = phone.clone();
        // What it draws is never the same again.
        twin.random.0 |= 1 << 40;
        original.iter().for_each(|text| phone.write(text));
        copy.iter().for_each(|text| twin.write(text));
        let mut both = if copy_first { [&mut twin, &mut phone] } else { [&mut phone, &mut twin] };
        for _ in 0..2 {
            both.iter_mut().for_each(|device| device.sync(&mut server));
        }
        both.iter().for_each(|device| assert_eq!(device.visible(), seen, "copy first: {copy_first}"));
    }
}

#[test]
fn what_was_pending_at_the_copy_counts_once() {
    check(&[], &["n=5"], &[], &[], "n=5");
    check(&[], &["n=5"], &[], &["n=7"], "n=7");
    check(&[], &["n=5"], &["n=6"], &["n=7"], "n=8");
    check(&[], &["n=5", "n=6"], &["n=7", "n=9"], &["n=10"], "n=13");
    check(&["n=100"], &["n=105"], &["n=106"], &["n=107"], "n=108");
}

#[test]
fn groups_that_join_bring_their_steps_along() {
    check(&[], &["na=5", "nb=3"], &["na=6 nb=4"], &[], "na=6 nb=4");
    check(&[], &["na=5", "nb=3"], &["na=6 nb=4"], &["na=7", "nb=5"], "na=8 nb=6");
    check(&[], &["na=5"], &["nb=1", "na=6 nb=2"], &["na=7"], "na=8 nb=2");
}

#[test]
fn counters_in_maps_are_counters_also_where_both_made_the_map() {
    check(&[r#"m={"n":1,"t":"x"}"#], &[r#"m={"n":6,"t":"x"}"#], &[], &[r#"m={"n":8,"t":"x"}"#], r#"m={"n":8,"t":"x"}"#);
    let made = [r#"m={"n":5,"t":"x"}"#];
    check(&[], &made, &[r#"m={"n":6,"t":"x"}"#], &[r#"m={"n":7,"t":"x"}"#], r#"m={"n":8,"t":"x"}"#);
}

#[test]
fn a_counter_that_was_removed_and_made_again_counts_from_nothing() {
    check(&[], &["n=5", "n-"], &[], &["n=2"], "n=2");
    check(&["n=1"], &["n=5"], &["n-", "n=3"], &[], "n=3");
}

#[test]
fn a_group_with_many_writes_to_counters_is_sealed_and_the_next_lies_over_it() {
    let mut phone = Device::with_policies(1, policies());
    for count in 1..=limits::GROUP_STEPS_MAX + 2 {
        phone.write(&format!("n={count}"));
    }
    let most = limits::GROUP_STEPS_MAX;
    assert_eq!(phone.pending(), format!("sealed n={most}, open n={}", most + 2));
    let mut phone = Device::with_policies(1, policies());
    for count in 1..=limits::GROUP_STEPS_MAX + 2 {
        phone.write(&format!("l={count}"));
    }
    assert_eq!(phone.pending(), format!("open l={}", most + 2), "what is not counted needs no steps");
}

#[test]
fn a_parked_counter_that_both_copies_retry_counts_once() {
    let mut server = TinyServer::new();
    server.limits.records_max = 0;
    let mut phone = Device::with_policies(1, policies());
    phone.write("n=5");
    phone.sync(&mut server);
    assert_eq!(phone.visible(), "");
    let mut twin = phone.clone();
    twin.random.0 |= 1 << 40;
    server.limits.records_max = 10;
    for device in [&mut phone, &mut twin] {
        device.retry_first();
        device.write("nb=1");
        device.sync(&mut server);
    }
    phone.sync(&mut server);
    assert_eq!(phone.visible(), "n=5 nb=2");
}

#[test]
fn a_unit_that_is_retried_brings_only_what_its_own_groups_added() {
    let mut server = TinyServer::new();
    let mut phone = Device::with_policies(1, policies());
    phone.limits.group_patches_max = 2;
    phone.write("l=1 n=1");
    let request = phone.request(true).expect("it has something to push");
    phone.write("m=1 n=3");
    phone.write("l=2 n=7");
    server.limits.records_max = 0;
    let response = server.sync(&request);
    phone.absorb(&request, response);
    assert_eq!(phone.pending(), "sealed m=1 n=2", "what adds to the counter only stays");
    server.limits.records_max = 10;
    phone.retry_first();
    phone.sync(&mut server);
    assert_eq!(phone.visible(), "l=2 m=1 n=7");
}

#[test]
fn what_a_deletion_parks_counts_once_though_it_was_written_before_or_after_it() {
    for comes_after in [true, false] {
        let (mut server, mut other) = (TinyServer::new(), Device::new(2));
        other.write("a=1");
        other.sync(&mut server);
        let mut phone = Device::with_policies(1, policies());
        let asked = phone.request(true).expect("it asks in any case");
        let answer = server.sync(&asked);
        phone.write("n=5");
        // Sent without a cursor, so no deletion stands against it. The answer to the request before brings one.
        let push = phone.request(false).expect("it has something to push");
        phone.absorb(&asked, answer);
        if comes_after {
            server.delete();
            server.sync(&push);
        } else {
            server.sync(&push);
            server.delete();
        }
        phone.sync(&mut server);
        phone.retry_first();
        phone.sync(&mut server);
        assert_eq!(phone.visible(), "n=5", "{comes_after}");
    }
}
