//! What is pushed next, and how it travels.

use sync_core::conflict::Resolution;
use sync_core::merge::push::hash_groups;
use sync_core::merge::stack::Context;
use sync_core::merge::write::{plan_resolve, questions};
use sync_core::model::{PatchOp, SyncCount};
use sync_core::policy::Policy;
use sync_core::protocol::{DatasetRequest, Push};

use crate::device::Device;
use crate::server::TinyServer;

fn pushed(request: Option<DatasetRequest>) -> Option<Push> {
    request.and_then(|request| request.push)
}

/// The groups of a push: keys and bases.
fn show(push: Option<&Push>) -> String {
    let Some(push) = push else { return "nothing".to_owned() };
    let group = |group: &sync_core::model::Group| {
        let patches: Vec<_> = group.patches.iter().map(|patch| format!("{}@{}", patch.key, patch.base)).collect();
        patches.join(" ")
    };
    push.groups.iter().map(group).collect::<Vec<_>>().join(" | ")
}

/// How a write over a value travels, by policy.
#[track_caller]
fn check(policy: Policy, base: Option<&str>, write: &str, op: &str) {
    let (mut server, mut device) = (TinyServer::new(), Device::with_policy(1, policy));
    if let Some(base) = base {
        device.write(base);
        device.sync(&mut server);
    }
    device.write(write);
    let push = pushed(device.request(false)).unwrap();
    assert_eq!(serde_json::to_string(&push.groups[0].patches[0].op).unwrap(), op);
}

#[test]
fn each_policy_says_by_what_it_is_compared() {
    check(Policy::LastSyncWins, None, "a=1", r#"{"replace":[1,"nothing"]}"#);
    check(Policy::LatestEditWins, None, "a=1", r#"{"replace":[1,"edit_time"]}"#);
    for policy in [Policy::KeepRemote, Policy::KeepLocal, Policy::Text, Policy::Ask] {
        check(policy, None, "a=1", r#"{"replace":[1,"base"]}"#);
        check(policy, Some("a=1"), "a-", r#"{"remove":"base"}"#);
    }
    check(Policy::LastSyncWins, Some("a=1"), "a-", r#"{"remove":"nothing"}"#);
}

#[test]
fn mergeable_policies_travel_as_differences_and_what_is_not_of_their_type_whole() {
    check(Policy::Counter, Some("a=3"), "a=5", r#"{"merge":{"add":2}}"#);
    check(Policy::Counter, None, "a=5", r#"{"merge":{"add":5}}"#);
    check(Policy::Counter, Some("a=3"), "a=1.5", r#"{"replace":[1.5,"base"]}"#);
    check(Policy::Counter, Some("a=3"), "a-", r#"{"remove":"base"}"#);
    check(Policy::Set, Some("a=[1]"), "a=[2]", r#"{"merge":{"set":{"insert":[2],"remove":[1]}}}"#);
    check(Policy::Max, Some("a=1"), "a=2", r#"{"merge":{"max":2}}"#);
    check(Policy::Min, Some("a=2"), "a=1", r#"{"merge":{"min":1}}"#);
    check(Policy::Fields, Some(r#"a={"x":1,"y":1}"#), r#"a={"x":2,"y":1}"#, r#"{"merge":{"fields":{"x":{"set":2}}}}"#);
    check(Policy::Fields, None, r#"a={"x":1}"#, r#"{"replace":[{"x":1},"base"]}"#);
}

#[test]
fn a_push_has_one_group_a_key_and_what_lies_over_it_waits() {
    let (mut server, mut device) = (TinyServer::new(), Device::new(1));
    device.limits.group_patches_max = 2;
    for text in ["a=1 b=1", "b=2 c=2", "c=3 d=3", "e=1"] {
        device.write(text);
    }
    let push = pushed(device.request(true));
    assert_eq!(show(push.as_ref()), "a@0 b@0 | e@0");
    device.sync(&mut server);
    assert!(device.is_settled());
    assert_eq!(device.visible(), "a=1 b=2 c=3 d=3 e=1");
    assert_eq!(server.head().lineage.count, SyncCount(3));
}

#[test]
fn a_repeated_push_is_the_same_byte_for_byte() {
    let mut device = Device::new(1);
    device.write("a=1 b=2");
    let first = device.request(false);
    device.write("a=2");
    assert_eq!(device.request(false), first);
}

#[test]
fn a_push_holds_no_more_than_a_request_may() {
    let mut device = Device::new(1);
    device.limits.request_patches_max = 3;
    for text in ["a=1 b=1", "c=1", "d=1"] {
        device.write(text);
    }
    assert_eq!(show(pushed(device.request(false)).as_ref()), "a@0 b@0 | c@0");
    let mut large = Device::new(1);
    large.limits.request_bytes_max = 8;
    large.write(r#"a="more_than_that""#);
    large.write("b=1");
    assert_eq!(show(pushed(large.request(false)).as_ref()), "a@0");
}

/// A device with an open question about `q`, in one group with `with`, and one that lies over it.
fn asked(server: &mut TinyServer) -> Device {
    let (mut device, mut other) = (Device::with_policy(1, Policy::Ask), Device::with_policy(2, Policy::Ask));
    device.limits.group_patches_max = 2;
    other.write(r#"q="base""#);
    other.sync(server);
    device.sync(server);
    other.write(r#"q="theirs""#);
    other.sync(server);
    device.write(r#"q="mine" with=1"#);
    device.write("with=2 over=1");
    device.write("alone=1");
    device.sync(server);
    device
}

#[test]
fn a_group_with_an_open_question_is_held_and_what_lies_over_it_and_nothing_else() {
    let mut server = TinyServer::new();
    let mut device = asked(&mut server);
    assert_eq!(device.pending(), r#"sealed q="mine" with=1, open over=1 with=2"#);
    assert_eq!(server.records().keys().map(ToString::to_string).collect::<Vec<_>>(), ["alone", "q"]);
    assert_eq!(pushed(device.request(true)), None);
}

#[test]
fn an_answer_lets_the_group_go() {
    let mut server = TinyServer::new();
    let mut device = asked(&mut server);
    let question = questions(&device.replica).unwrap().remove(0);
    let mut context = Context { now: device.now, random: &mut device.random };
    let plan = plan_resolve(&device.replica, &question, Resolution::KeepLocal, &device.limits, &mut context).unwrap();
    device.execute(&plan);
    device.sync(&mut server);
    assert!(device.is_settled());
    assert_eq!(device.visible(), r#"alone=1 over=1 q="mine" with=2"#);
}

#[test]
fn bases_are_renewed_after_a_restore_and_the_changes_stay() {
    let (mut server, mut device) = (TinyServer::new(), Device::with_policy(1, Policy::Counter));
    device.write("a=1 b=1");
    device.sync(&mut server);
    let backup = server.clone();
    device.write("a=5");
    device.sync(&mut server);
    device.write("a=7 b=2");
    let before = pushed(device.request(false)).unwrap();
    assert_eq!(show(Some(&before)), "a@2 b@1");
    // Put back, and counted on along another path.
    server.put_back(&backup);
    let mut other = Device::with_policy(2, Policy::Counter);
    other.sync(&mut server);
    other.write("c=1");
    other.sync(&mut server);
    let asks = device.request(false).unwrap();
    let absorbed = device.absorb(&asks, server.sync(&asks));
    assert!(absorbed.reset.is_some());
    device.round(&mut server, false, None).unwrap();
    let after = pushed(device.request(false)).unwrap();
    assert_eq!(show(Some(&after)), format!("a@{} b@1", SyncCount::NEVER));
    assert_eq!((before.sequence, hash_groups(&before.groups)), (after.sequence, hash_groups(&after.groups)));
    assert!(matches!(after.groups[0].patches[0].op, PatchOp::Merge(_)));
    device.sync(&mut server);
    assert!(device.is_settled());
    assert_eq!(device.visible(), "a=3 b=2 c=1");
}
