//! Any interleaving of devices converges.

use proptest::collection::vec;
use proptest::prelude::*;
use sync_core::conflict::Resolution;
use sync_core::merge::stack::Context;
use sync_core::merge::write::{plan_resolve, questions};
use sync_core::model::{RecordKey, Value};
use sync_core::policy::{Policies, Policy};
use sync_core::protocol::{DatasetRequest, DatasetResponse};

use crate::arbitrary::config;
use crate::device::Device;
use crate::notation::key;
use crate::server::TinyServer;

#[derive(Clone, Debug)]
enum Act {
    /// A transaction: keys, and what becomes of each.
    Write(Vec<(usize, u8)>),
    /// A round trip, with pages of so many records.
    Sync(u32),
    /// A request whose answer is lost.
    Lose,
    /// A request whose answer comes later.
    Ask,
    /// It comes, perhaps again.
    Answer,
}

const KEYS: [&str; 12] = ["c1", "c2", "s1", "m1", "n1", "f1", "f2", "l1", "k1", "r1", "x1", "a1"];

fn policies() -> Policies {
    let by_letter = [
        ("c", Policy::Counter),
        ("s", Policy::Set),
        ("m", Policy::Max),
        ("n", Policy::Min),
        ("f", Policy::Fields),
        ("l", Policy::LatestEditWins),
        ("k", Policy::KeepLocal),
        ("r", Policy::KeepRemote),
        ("x", Policy::Text),
        ("a", Policy::Ask),
    ];
    let prefixes = by_letter.into_iter().map(|(letter, policy)| (letter.to_owned(), policy)).collect();
    Policies { prefixes, ..Policies::default() }
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => vec((0..KEYS.len(), any::<u8>()), 1..4).prop_map(Act::Write),
        3 => (1..6_u32).prop_map(Act::Sync),
        1 => Just(Act::Lose),
        1 => Just(Act::Ask),
        2 => Just(Act::Answer),
    ]
}

struct Place {
    device: Device,
    /// An answer that is on its way.
    late: Option<(DatasetRequest, DatasetResponse)>,
}

fn change(device: &Device, key: &RecordKey, number: u8) -> Option<Value> {
    let seen = device.replica.visible().remove(key);
    if number.is_multiple_of(7) {
        return None;
    }
    let int = Value::Int(i64::from(number));
    Some(match (key.as_str().as_bytes()[0], seen) {
        (b'c', Some(Value::Int(seen))) => Value::Int(seen + i64::from(number)),
        (b's', Some(Value::List(mut list))) => {
            list.retain(|element| !number.is_multiple_of(3) || *element != Value::Int(i64::from(number % 5)));
            list.push(int);
            Value::List(list)
        }
        (b's', _) => Value::List(vec![int]),
        (b'f', Some(Value::Map(mut fields))) => {
            fields.insert(["x", "y", "z"][usize::from(number % 3)].to_owned(), int);
            Value::Map(fields)
        }
        (b'f', _) => Value::Map([("x".to_owned(), int)].into()),
        (b'x', Some(Value::Text(text))) => Value::Text(format!("{number}\n{text}")),
        (b'x', _) => Value::Text(number.to_string()),
        _ => int,
    })
}

fn act_on(place: &mut Place, server: &mut TinyServer, act: Act) {
    let Place { device, late } = place;
    device.now = device.now.plus_ms(1);
    match act {
        Act::Write(keys) => {
            let keys: std::collections::BTreeMap<_, _> = keys.into_iter().collect();
            let write = |(at, number): (usize, u8)| {
                let key = key(KEYS[at]);
                let value = change(device, &key, number);
                (key, value)
            };
            let writes = keys.into_iter().map(write).collect();
            device.try_write(writes).unwrap();
        }
        Act::Sync(limit) => drop(device.round(server, true, Some(limit))),
        Act::Lose => {
            let request = device.request(true).unwrap();
            server.sync(&request);
        }
        Act::Ask => {
            let request = device.request(true).unwrap();
            let response = server.sync(&request);
            *late = Some((request, response));
        }
        Act::Answer => {
            if let Some((request, response)) = late.clone() {
                device.absorb(&request, response);
            }
        }
    }
}

/// Answers all questions and syncs, until nothing is left.
fn settle(places: &mut [Place], server: &mut TinyServer) {
    for round in 0.. {
        for Place { device, .. } in &mut *places {
            for question in questions(&device.replica).unwrap() {
                let with = if round % 2 == 0 { Resolution::KeepLocal } else { Resolution::KeepRemote };
                let mut context = Context { now: device.now, random: &mut device.random };
                // An answer to another question may have taken this one along.
                if let Ok(plan) = plan_resolve(&device.replica, &question, with, &device.limits, &mut context) {
                    device.execute(&plan);
                }
            }
            device.sync(server);
        }
        if places.iter().all(|place| place.device.is_settled()) && round > 1 {
            return;
        }
        assert!(round < 50, "the devices do not settle");
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_interleaving_converges_and_leaves_nothing_pending(
        devices in 2..=4_usize,
        group_patches_max in 3..6_usize,
        story in vec((0..4_usize, act()), 0..60),
    ) {
        let mut server = TinyServer::new();
        server.now = sync_core::model::Timestamp(1_000_000);
        let mut places: Vec<_> = (0..devices)
            .map(|number| {
                let mut device = Device::with_policies(number as u8 + 1, policies());
                device.limits.group_patches_max = group_patches_max;
                Place { device, late: None }
            })
            .collect();
        for (at, act) in story {
            act_on(&mut places[at % devices], &mut server, act);
        }
        settle(&mut places, &mut server);
        for Place { device, .. } in &places {
            let live = server.records().values().filter(|record| record.value().is_some());
            let server: Vec<_> = live.map(|record| (record.key.clone(), record.clone())).collect();
            let here: Vec<_> = device.replica.base_records().clone().into_iter().collect();
            prop_assert_eq!(here, server);
        }
    }
}
