//! Devices that are registered to be woken.

use std::sync::Arc;

use sync_core::model::Timestamp;

use crate::store::conformance::draft::{device, owner};
use crate::store::devices::{DEVICES_MAX, DeviceLabel, Platform, PushToken, Registration};
use crate::store::{Store, StoreError};

fn registration(number: u8, token: &str, at: i64) -> Registration {
    Registration {
        device: device(number),
        platform: if number == 1 { Platform::ApnsSandbox } else { Platform::Fcm },
        token: PushToken::parse(token).unwrap(),
        name: (number == 1).then(|| DeviceLabel::parse("Ada's phone").unwrap()),
        registered_at: Timestamp(at),
    }
}

async fn register(store: &dyn Store, id: &str, registration: Registration) -> bool {
    store.directory().register(&owner(id), registration).await.unwrap()
}

/// The devices of an owner: `number token`.
async fn shown(store: &dyn Store, id: &str) -> String {
    let all = store.directory().devices(&owner(id)).await.unwrap();
    let shown = all.iter().map(|found| format!("{}{}", found.device.as_bytes()[0], found.token.reveal()));
    shown.collect::<Vec<_>>().join(" ")
}

/// A registration is read back whole, the latest first, and replaced by the next of the same device or token.
pub async fn the_latest_registration_of_a_device_counts(store: Arc<dyn Store>) {
    let directory = store.directory();
    assert_eq!(directory.devices(&owner("ada")).await.unwrap(), []);
    assert!(register(&*store, "ada", registration(1, "a", 1)).await);
    assert!(register(&*store, "ada", registration(2, "b", 2)).await);
    assert!(register(&*store, "bob", registration(1, "a", 2)).await);
    let both = [registration(2, "b", 2), registration(1, "a", 1)];
    assert_eq!(directory.devices(&owner("ada")).await.unwrap(), both);
    assert!(!register(&*store, "ada", registration(1, "c", 3)).await);
    assert_eq!(shown(&*store, "ada").await, "1c 2b");
    // Installed anew: another device, and the token of the old one.
    assert!(register(&*store, "ada", registration(3, "b", 4)).await);
    assert_eq!(shown(&*store, "ada").await, "3b 1c");
    assert!(directory.unregister(&owner("ada"), device(3)).await.unwrap());
    assert!(!directory.unregister(&owner("ada"), device(3)).await.unwrap());
    assert_eq!((shown(&*store, "ada").await, shown(&*store, "bob").await), ("1c".to_owned(), "1a".to_owned()));
}

/// An owner has so many devices and no more; who registered longest ago makes room, and never the one that comes.
pub async fn the_latest_devices_stay_registered(store: Arc<dyn Store>) {
    for number in 0..DEVICES_MAX as u8 {
        register(&*store, "ada", registration(number, &format!("t{number}"), i64::from(number))).await;
    }
    // The server's clock was put back.
    register(&*store, "ada", registration(200, "new", -1)).await;
    let found = store.directory().devices(&owner("ada")).await.unwrap();
    assert_eq!(found.len(), DEVICES_MAX);
    assert_eq!((found[0].device, found[DEVICES_MAX - 1].device), (device(99), device(200)));
    assert!(!found.iter().any(|found| found.device == device(0)));
}

/// Devices of an owner that is linked come along; of those that both had, the latest registration stays.
pub async fn a_linked_owners_devices_move(store: Arc<dyn Store>) {
    for (id, number, token, at) in [
        ("ada", 1, "a", 1),
        ("ada", 2, "b", 5),
        ("ada", 3, "x", 6),
        ("bob", 1, "c", 2),
        ("bob", 2, "d", 4),
        ("bob", 4, "x", 3),
    ] {
        register(&*store, id, registration(number, token, at)).await;
    }
    store.directory().link(&owner("bob"), &owner("ada")).await.unwrap();
    assert_eq!(shown(&*store, "ada").await, "3x 2b 1c");
    let moved = |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::Moved)), "{result:?}");
    moved(store.directory().devices(&owner("bob")).await.map(drop));
    moved(store.directory().register(&owner("bob"), registration(5, "e", 7)).await.map(drop));
    moved(store.directory().unregister(&owner("bob"), device(1)).await.map(drop));
    assert_eq!(shown(&*store, "ada").await, "3x 2b 1c");
}
