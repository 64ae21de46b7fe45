//! Owners that were linked to others.
//!
//! A link moves heads; all else of a dataset stays where it is. Each head of the source is frozen, and a copy of it put
//! beside the target's, not to be seen yet. Then one write to the source says that it is linked, and everybody sees the
//! copies, and no frozen head, from that moment on. What is left is cleaning up. Whoever comes across a link that was
//! interrupted, to write, brings it to its end.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};
use sync_core::model::{DatasetName, Owner};

use crate::store::DatasetAddress;
use crate::store::directory::{Linked, Renamed, name_beside};
use crate::store::dynamodb::failure::Failure;
use crate::store::dynamodb::head::{self, Kept, MARK, Mark};
use crate::store::dynamodb::items::{Home, shard};
use crate::store::dynamodb::table::{
    BY_KIND, Change, Expression, Item, KIND, Requests, SORT, bytes, bytes_if_any, key, text, text_if_any, text_of,
};
use crate::store::dynamodb::{devices, read};

/// What is known of an owner, besides datasets and devices.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnerState {
    /// Whom it was linked to.
    pub(super) linked_to: Option<Owner>,
    /// Whom it is being linked to.
    leaving_to: Option<Owner>,
    /// Whose link to it has not come to its end.
    pub(super) receiving: Option<Owner>,
    /// Drawn at each change of its devices.
    pub(super) devices: Option<Vec<u8>>,
}

/// The key of an owner's item, in the partition of the owner.
const SORT_KEY: &str = "O";
/// Attributes of it.
const LINKED_TO: &str = "lt";
const LEAVING_TO: &str = "lv";
const RECEIVING: &str = "rc";
pub(super) const DEVICES: &str = "dv";
/// It is neither linked, nor on the way to be, nor does another one come to it.
pub(super) const IS_FREE: &str = "attribute_not_exists(lt) AND attribute_not_exists(lv) AND attribute_not_exists(rc)";
/// The key of the item that says what the address of a dataset is, in the partition of its home.
const POINTER: &str = "@";
const POINTER_TO: (&str, &str) = ("o", "d");
/// Tries to begin a link, or to carry on with it, while others do so too.
const ROUNDS_MAX: usize = 24;
/// Links that lead to the next one. There is no end to them in principle.
const CHAIN_MAX: usize = 64;

impl OwnerState {
    /// Whose link has to come to its end before anything else of this owner is changed.
    pub(super) fn unfinished(&self, owner: &Owner) -> Option<Owner> {
        self.leaving_to.as_ref().map(|_| owner.clone()).or_else(|| self.receiving.clone())
    }
}

/// What is known of an owner.
pub(super) async fn state(requests: Requests<'_>, owner: &Owner) -> Result<OwnerState, Failure> {
    let item = requests.get(owner.as_str(), SORT_KEY).await?.unwrap_or_default();
    let owner = |name| text_if_any(&item, name).map(Owner::parse).transpose().map_err(Failure::corrupt);
    Ok(OwnerState {
        linked_to: owner(LINKED_TO)?,
        leaving_to: owner(LEAVING_TO)?,
        receiving: owner(RECEIVING)?,
        devices: bytes_if_any(&item, DEVICES).map(<[u8]>::to_vec),
    })
}

/// The owner to whom this one was linked; itself, if it was not.
pub(super) async fn resolve(requests: Requests<'_>, owner: &Owner) -> Result<Owner, Failure> {
    let mut end = owner.clone();
    for _ in 0..CHAIN_MAX {
        match state(requests, &end).await?.linked_to {
            Some(next) => end = next,
            None => return Ok(end),
        }
    }
    Err(Failure::corrupt("a link leads to another one without end"))
}

/// Fails if the owner was linked away. It is asked when nothing of the owner's was found, and not before: then no link
/// can come in between.
pub(super) async fn check(requests: Requests<'_>, owner: &Owner) -> Result<(), Failure> {
    if state(requests, owner).await?.linked_to.is_some() { Err(Failure::Moved) } else { Ok(()) }
}

/// Whether a dataset that a link is moving is at this owner; fails if it has left it.
pub(super) async fn is_here(requests: Requests<'_>, owner: &Owner, mark: &Mark) -> Result<bool, Failure> {
    match mark {
        Mark::Leaving { .. } => check(requests, owner).await.map(|()| true),
        Mark::Arriving { source, .. } => Ok(state(requests, source).await?.linked_to.is_some()),
    }
}

/// A part of a transaction that fails if an owner was linked away, or is about to be.
pub(super) fn staying(requests: Requests<'_>, owner: &Owner) -> Result<TransactWriteItem, Failure> {
    let stays = Expression::of("attribute_not_exists(lt) AND attribute_not_exists(lv)", Vec::new());
    requests.checking(owner.as_str(), SORT_KEY, stays)
}

/// Does what belongs to a link that has not come to its end, all or nothing. It says whether it did: somebody else may
/// have brought the link to its end meanwhile, and what is there now is not to be touched.
pub(super) async fn while_receiving(
    requests: Requests<'_>,
    source: &Owner,
    target: &Owner,
    mut parts: Vec<TransactWriteItem>,
) -> Result<bool, Failure> {
    let receives = Expression::of("rc = :s", vec![(":s", text(source.as_str()))]);
    parts.push(requests.checking(target.as_str(), SORT_KEY, receives)?);
    requests.transact(parts).await
}

/// A change of an owner's item, which is listed from then on.
pub(super) fn changing(
    requests: Requests<'_>,
    owner: &Owner,
    update: &str,
    condition: &'static str,
    values: Vec<(&'static str, AttributeValue)>,
) -> Result<TransactWriteItem, Failure> {
    let listed =
        [(":g", text(shard('O', owner.as_str()))), (":gs", text(owner.as_str()))].into_iter().chain(values).collect();
    let update = format!("SET {KIND} = :g, {BY_KIND} = :gs, {update}");
    requests.changing(owner.as_str(), SORT_KEY, Change { update, condition, values: listed })
}

/// The item that says what the address of a dataset is.
pub(super) fn pointer(home: &Home, dataset: &DatasetAddress) -> Item {
    let mut item = key(home.as_str(), POINTER);
    item.insert(POINTER_TO.0.to_owned(), text(dataset.owner.as_str()));
    item.insert(POINTER_TO.1.to_owned(), text(dataset.name.as_str()));
    item
}

/// The address of the dataset that lives somewhere.
pub(super) async fn address_of(requests: Requests<'_>, home: &Home) -> Result<Option<DatasetAddress>, Failure> {
    let Some(item) = requests.get(home.as_str(), POINTER).await? else { return Ok(None) };
    Ok(Some(DatasetAddress {
        owner: Owner::parse(text_of(&item, POINTER_TO.0)?).map_err(Failure::corrupt)?,
        name: DatasetName::parse(text_of(&item, POINTER_TO.1)?).map_err(Failure::corrupt)?,
    }))
}

pub(super) async fn link(requests: Requests<'_>, source: &Owner, target: &Owner) -> Result<Linked, Failure> {
    requests.table.lease.check(requests).await?;
    for _ in 0..ROUNDS_MAX {
        let (source, target) = (resolve(requests, source).await?, resolve(requests, target).await?);
        if source == target {
            return Ok(Linked { renamed: renamed(requests, &target).await?, moved_from: None, target });
        }
        let mut is_free = true;
        for owner in [&source, &target] {
            let state = state(requests, owner).await?;
            if let Some(unfinished) = state.unfinished(owner) {
                finish(requests, &unfinished).await?;
                is_free = false;
            }
        }
        let begin = |owner, other: &Owner, name| {
            changing(requests, owner, &format!("{name} = :o"), IS_FREE, vec![(":o", text(other.as_str()))])
        };
        let both = vec![begin(&source, &target, LEAVING_TO)?, begin(&target, &source, RECEIVING)?];
        if is_free && requests.writing().transact(both).await? {
            finish(requests, &source).await?;
            return Ok(Linked { renamed: renamed(requests, &target).await?, moved_from: Some(source), target });
        }
    }
    Err(Failure::Busy)
}

/// Brings the link of an owner to its end, wherever it was interrupted; does nothing if there is none.
pub(super) async fn finish(requests: Requests<'_>, source: &Owner) -> Result<(), Failure> {
    if let Some(target) = state(requests, source).await?.leaving_to {
        freeze(requests, source, &target).await?;
        bring(requests, source, &target).await?;
        let change = Change {
            update: format!("SET {LINKED_TO} = :t REMOVE {LEAVING_TO}"),
            condition: "lv = :t",
            values: vec![(":t", text(target.as_str()))],
        };
        // Here it happens. Somebody else may have been faster.
        requests.writing().update(source.as_str(), SORT_KEY, change).await?;
    }
    let Some(target) = state(requests, source).await?.linked_to else { return Ok(()) };
    if state(requests, &target).await?.receiving.as_ref() != Some(source) {
        return Ok(());
    }
    devices::bring(requests, source, &target).await?;
    clean_up(requests, source, &target).await?;
    let change = Change {
        update: format!("REMOVE {RECEIVING}"),
        condition: "rc = :s",
        values: vec![(":s", text(source.as_str()))],
    };
    requests.update(target.as_str(), SORT_KEY, change).await.map(drop)
}

/// Marks each dataset of an owner, so that nobody writes it any more. None can be added, since the owner is leaving.
async fn freeze(requests: Requests<'_>, source: &Owner, target: &Owner) -> Result<(), Failure> {
    let mark = Mark::Leaving { target: target.clone() };
    for (name, mut kept) in all(requests, source).await? {
        let dataset = DatasetAddress { owner: source.clone(), name };
        for _ in 0..ROUNDS_MAX {
            if kept.mark.is_some() {
                break;
            }
            let next = Kept { mark: Some(mark.clone()), ..kept.next() };
            if requests.writing().put(next.encode(&dataset).item, Some(kept.unchanged())).await? {
                break;
            }
            // A commit was faster, or somebody else who freezes it.
            let Some(found) = read::find(requests, &dataset).await? else { break };
            kept = found;
        }
    }
    Ok(())
}

/// Puts copies of the source's heads beside those of the target, under names that are free there.
async fn bring(requests: Requests<'_>, source: &Owner, target: &Owner) -> Result<(), Failure> {
    for (name, kept) in all(requests, source).await? {
        if !matches!(kept.mark, Some(Mark::Leaving { .. })) {
            // It was not frozen, because it was written all the time.
            return Err(Failure::Busy);
        }
        let mark = Mark::Arriving { source: source.clone(), name: name.clone() };
        let mut is_there = false;
        for _ in 0..ROUNDS_MAX {
            let at_target: BTreeMap<DatasetName, Kept> = all(requests, target).await?.into_iter().collect();
            is_there = at_target.values().any(|there| there.mark.as_ref() == Some(&mark));
            if is_there {
                break;
            }
            let is_taken = |name: &DatasetName| at_target.contains_key(name);
            let to = if is_taken(&name) { name_beside(&name, source, is_taken) } else { name.clone() };
            let former_name = kept.former_name.clone().or_else(|| (to != name).then(|| name.clone()));
            let dataset = DatasetAddress { owner: target.clone(), name: to };
            let copy = Kept { mark: Some(mark.clone()), former_name, ..kept.moved() }.encode(&dataset);
            for item in copy.line {
                requests.put(item, None).await?;
            }
            let is_new = Expression::of("attribute_not_exists(pk)", Vec::new());
            // If it is there already, it is either the same from another hand, or another one of that name.
            requests.writing().put(copy.item, Some(is_new)).await?;
        }
        if !is_there {
            return Err(Failure::Busy);
        }
    }
    Ok(())
}

/// Takes the marks from the target's datasets, and the frozen heads away.
async fn clean_up(requests: Requests<'_>, source: &Owner, target: &Owner) -> Result<(), Failure> {
    let is_marked = |kept: &Kept| matches!(&kept.mark, Some(Mark::Arriving { source: from, .. }) if from == source);
    for _ in 0..ROUNDS_MAX {
        let mut marked = all(requests, target).await?;
        marked.retain(|(_, kept)| is_marked(kept));
        if marked.is_empty() {
            break;
        }
        for (name, kept) in marked {
            let dataset = DatasetAddress { owner: target.clone(), name };
            let pointing = vec![requests.putting(pointer(&kept.home, &dataset), None)?];
            if !while_receiving(requests, source, target, pointing).await? {
                return Ok(());
            }
            let change = Change {
                update: format!("SET w = :next REMOVE {MARK}"),
                condition: Kept::UNCHANGED,
                values: vec![(":next", bytes(head::draw())), (":seen", bytes(kept.version))],
            };
            // If it was changed meanwhile, it is found again.
            requests.update(target.as_str(), &head::sort_key(&dataset.name), change).await?;
        }
    }
    let frozen = requests.query_all(&head::query_of(source, None)).await?;
    for item in frozen {
        let sort = text_of(&item, SORT)?;
        requests.delete(source.as_str(), sort, None).await?;
    }
    Ok(())
}

/// All datasets of an owner as they are kept, with those on the way.
async fn all(requests: Requests<'_>, owner: &Owner) -> Result<Vec<(DatasetName, Kept)>, Failure> {
    let mut items = requests.query_all(&head::query_of(owner, None)).await?;
    read::heads(requests, owner, &mut items, true).await
}

async fn renamed(requests: Requests<'_>, owner: &Owner) -> Result<Vec<Renamed>, Failure> {
    let mut renamed = Vec::new();
    let mut sources = BTreeSet::new();
    for (name, kept) in all(requests, owner).await? {
        if let Some(Mark::Arriving { source, .. }) = &kept.mark
            && !sources.contains(source)
            && !is_here(requests, owner, &Mark::Arriving { source: source.clone(), name: name.clone() }).await?
        {
            sources.insert(source.clone());
        }
        let is_here = !matches!(&kept.mark, Some(Mark::Arriving { source, .. }) if sources.contains(source));
        if let Some(from) = kept.former_name.filter(|_| is_here && kept.head.exists()) {
            renamed.push(Renamed { from, to: name });
        }
    }
    Ok(renamed)
}

/// Says what a dataset was called before a link.
pub(super) async fn set_former_name(
    requests: Requests<'_>,
    dataset: &DatasetAddress,
    former_name: &DatasetName,
) -> Result<(), Failure> {
    requests.table.lease.check(requests).await?;
    for _ in 0..ROUNDS_MAX {
        let Some(kept) = read::settled(requests, dataset, read::Purpose::Write).await? else { return Ok(()) };
        let next = Kept { former_name: Some(former_name.clone()), ..kept.next() };
        let encoded = next.encode(dataset);
        for item in encoded.line {
            requests.put(item, None).await?;
        }
        if requests.writing().put(encoded.item, Some(kept.unchanged())).await? {
            return Ok(());
        }
    }
    Err(Failure::Busy)
}
