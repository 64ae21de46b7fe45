//! Devices that are registered to be woken. Each is an item of its owner's; changes draw a mark in the item of the owner
//! itself, so that they come one after the other.

use std::collections::BTreeSet;

use sync_core::model::{DeviceId, Owner, Timestamp};

use crate::store::devices::{DeviceLabel, Platform, PushToken, Registration, first_of_each, sort_latest_first};
use crate::store::dynamodb::directory::{self, DEVICES};
use crate::store::dynamodb::failure::Failure;
use crate::store::dynamodb::head;
use crate::store::dynamodb::table::{
    Item, Query, Requests, SORT, bytes, key, number, number_of, text, text_if_any, text_of,
};

/// How the keys of devices begin, in the partition of the owner.
const PREFIX: &str = "V|";
/// Attributes: the platform, the token, the label, when it registered.
const PLATFORM: &str = "f";
const TOKEN: &str = "k";
const LABEL: &str = "l";
const REGISTERED_AT: &str = "t";
/// Tries to change the devices of an owner, while others do so too.
const ROUNDS_MAX: usize = 24;
/// Devices that come or go in one transaction, which has 100 parts at most.
const TOGETHER: usize = 90;

/// The devices of an owner, the latest registration first.
pub(super) async fn read(requests: Requests<'_>, owner: &Owner) -> Result<Vec<Registration>, Failure> {
    for _ in 0..ROUNDS_MAX {
        let state = directory::state(requests, owner).await?;
        if state.linked_to.is_some() {
            return Err(Failure::Moved);
        }
        let mut found = of(requests, owner).await?;
        let Some(source) = state.receiving else { return Ok(found) };
        if directory::state(requests, &source).await?.linked_to.is_some() {
            found = both(found, of(requests, &source).await?);
        }
        // While they come over, each is at one of the two; but they may have done so just now.
        if directory::state(requests, owner).await?.receiving.as_ref() == Some(&source) {
            return Ok(found);
        }
    }
    Err(Failure::Busy)
}

/// Registers a device; says whether it is new.
pub(super) async fn register(requests: Requests<'_>, owner: &Owner, new: &Registration) -> Result<bool, Failure> {
    let plan = |before: &[Registration]| {
        let kept = first_of_each([new.clone()].into_iter().chain(before.iter().cloned()));
        let stay: BTreeSet<DeviceId> = kept.iter().map(|kept| kept.device).collect();
        let gone = before.iter().map(|before| before.device).filter(|device| !stay.contains(device)).collect();
        let is_new = before.iter().all(|before| before.device != new.device);
        Some((Some(new.clone()), gone, is_new))
    };
    change(requests, owner, plan).await.map(|is_new| is_new.unwrap_or_default())
}

/// Forgets a device; says whether it was there.
pub(super) async fn unregister(requests: Requests<'_>, owner: &Owner, device: DeviceId) -> Result<bool, Failure> {
    let plan = |before: &[Registration]| {
        let is_there = before.iter().any(|before| before.device == device);
        is_there.then(|| (None, vec![device], true))
    };
    change(requests, owner, plan).await.map(|was_there| was_there.unwrap_or_default())
}

/// Changes the devices of an owner: what comes and what goes, and what is said about it. Nothing happens without a plan.
async fn change<T>(
    requests: Requests<'_>,
    owner: &Owner,
    plan: impl Fn(&[Registration]) -> Option<(Option<Registration>, Vec<DeviceId>, T)>,
) -> Result<Option<T>, Failure> {
    requests.table.lease.check(requests).await?;
    for _ in 0..ROUNDS_MAX {
        let state = directory::state(requests, owner).await?;
        if let Some(unfinished) = state.unfinished(owner) {
            directory::finish(requests, &unfinished).await?;
            continue;
        }
        if state.linked_to.is_some() {
            return Err(Failure::Moved);
        }
        let Some((new, gone, said)) = plan(&of(requests, owner).await?) else {
            directory::check(requests, owner).await?;
            return Ok(None);
        };
        let mut values = vec![(":next", bytes(head::draw()))];
        let condition = match state.devices {
            Some(devices) => {
                values.push((":seen", bytes(devices)));
                "dv = :seen AND attribute_not_exists(lt) AND attribute_not_exists(lv) AND attribute_not_exists(rc)"
            }
            None => {
                "attribute_not_exists(dv) AND attribute_not_exists(lt) AND attribute_not_exists(lv) AND \
                 attribute_not_exists(rc)"
            }
        };
        let mut parts = vec![directory::changing(requests, owner, &format!("{DEVICES} = :next"), condition, values)?];
        for device in gone {
            parts.push(requests.deleting(owner.as_str(), &sort_key(device))?);
        }
        if let Some(new) = new {
            parts.push(requests.putting(item(owner, &new), None)?);
        }
        if requests.writing().transact(parts).await? {
            return Ok(Some(said));
        }
    }
    Err(Failure::Busy)
}

/// Brings the devices of an owner that was linked to another. Whoever reads them meanwhile reads those of both.
pub(super) async fn bring(requests: Requests<'_>, source: &Owner, target: &Owner) -> Result<(), Failure> {
    let (of_source, of_target) = (of(requests, source).await?, of(requests, target).await?);
    let kept = both(of_target.clone(), of_source.clone());
    let mut parts = Vec::new();
    // What comes, before what goes: whoever reads meanwhile finds each at one of the two.
    for registration in kept.iter().filter(|registration| !of_target.contains(registration)) {
        parts.push(requests.putting(item(target, registration), None)?);
    }
    let stay: BTreeSet<DeviceId> = kept.iter().map(|kept| kept.device).collect();
    for Registration { device, .. } in of_target.iter().filter(|before| !stay.contains(&before.device)) {
        parts.push(requests.deleting(target.as_str(), &sort_key(*device))?);
    }
    for Registration { device, .. } in &of_source {
        parts.push(requests.deleting(source.as_str(), &sort_key(*device))?);
    }
    while !parts.is_empty() {
        let rest = parts.split_off(parts.len().min(TOGETHER));
        if !directory::while_receiving(requests, source, target, parts).await? {
            return Ok(());
        }
        parts = rest;
    }
    Ok(())
}

/// The items of an owner's devices, the latest registration first.
pub(super) async fn of(requests: Requests<'_>, owner: &Owner) -> Result<Vec<Registration>, Failure> {
    let items = requests.query_all(&Query::beginning(owner.as_str(), PREFIX)).await?;
    let mut found = items.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    sort_latest_first(&mut found);
    Ok(found)
}

fn both(of_target: Vec<Registration>, of_source: Vec<Registration>) -> Vec<Registration> {
    let mut both = [of_target, of_source].concat();
    sort_latest_first(&mut both);
    first_of_each(both)
}

fn sort_key(device: DeviceId) -> String {
    format!("{PREFIX}{device}")
}

fn item(owner: &Owner, registration: &Registration) -> Item {
    let Registration { device, platform, token, name, registered_at } = registration;
    let mut item = key(owner.as_str(), &sort_key(*device));
    item.insert(PLATFORM.to_owned(), text(platform.as_str()));
    item.insert(TOKEN.to_owned(), text(token.reveal()));
    item.insert(REGISTERED_AT.to_owned(), number(registered_at.0));
    if let Some(name) = name {
        item.insert(LABEL.to_owned(), text(name.as_str()));
    }
    item
}

fn parse(item: &Item) -> Result<Registration, Failure> {
    let device = text_of(item, SORT)?.strip_prefix(PREFIX).unwrap_or_default();
    Ok(Registration {
        device: DeviceId::parse(device).map_err(Failure::corrupt)?,
        platform: Platform::parse(text_of(item, PLATFORM)?).map_err(Failure::corrupt)?,
        token: PushToken::parse(text_of(item, TOKEN)?).map_err(Failure::corrupt)?,
        name: text_if_any(item, LABEL).map(DeviceLabel::parse).transpose().map_err(Failure::corrupt)?,
        registered_at: Timestamp(number_of(item, REGISTERED_AT)?),
    })
}
