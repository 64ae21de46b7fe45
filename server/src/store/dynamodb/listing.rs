//! What is listed of all owners together, by the index over all partitions. The index follows the table after a moment.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use sync_core::model::{Owner, SyncCount, Timestamp};

use crate::clock::{Clock as _, SystemClock};
use crate::store::DatasetAddress;
use crate::store::dynamodb::failure::Failure;
use crate::store::dynamodb::head::{self, Kept, MARK, Mark};
use crate::store::dynamodb::items::{Home, SHARDS, partition_of, sortable};
use crate::store::dynamodb::table::{BY_KIND, Index, Item, Query, Requests, SORT, text_if_any, text_of};
use crate::store::dynamodb::{directory, read, todo};

/// A text behind everything that the index is ordered by.
const BEHIND: &str = "~";
/// What is asked for of each partition of the index at once at least.
const ITEMS_MIN: usize = 16;

/// Items of a kind, in order, behind `after` and up to `to`: at least one, unless there is none, and at most so many.
pub(super) async fn of_kind(
    requests: Requests<'_>,
    kind: char,
    after: &str,
    to: &str,
    most: usize,
) -> Result<Vec<Item>, Failure> {
    let limit = (most / SHARDS as usize * 2).max(ITEMS_MIN);
    let partitions: Vec<String> = (0..SHARDS).map(|shard| format!("{kind}{shard:x}")).collect();
    let pages = partitions.iter().map(|partition| async move {
        let query = Query::between(partition, format!("{after}\0"), to);
        requests.query(&Query { index: Some(Index::ByKind), limit: Some(limit), ..query }, None).await
    });
    let pages = try_join_all(pages).await?;
    // Behind the end of a page that is not the last one, something may be missing.
    let ends = pages.iter().filter(|page| page.next.is_some()).filter_map(|page| page.items.last());
    let end = ends.filter_map(|item| text_if_any(item, BY_KIND)).min().map(str::to_owned);
    let mut items = Vec::new();
    for item in pages.into_iter().flat_map(|page| page.items) {
        let place = text_of(&item, BY_KIND)?.to_owned();
        if end.as_ref().is_none_or(|end| place <= *end) {
            items.push((place, item));
        }
    }
    items.sort_by(|(one, _), (other, _)| one.cmp(other));
    items.truncate(most);
    Ok(items.into_iter().map(|(_, item)| item).collect())
}

pub(super) async fn addresses(
    requests: Requests<'_>,
    after: Option<&DatasetAddress>,
    addresses_max: usize,
) -> Result<Vec<DatasetAddress>, Failure> {
    let mut behind = after.map(head::listed).unwrap_or_default();
    let mut addresses = Vec::new();
    while addresses.len() < addresses_max {
        let items = of_kind(requests, 'A', &behind, BEHIND, addresses_max - addresses.len()).await?;
        let Some(last) = items.last() else { break };
        text_of(last, BY_KIND)?.clone_into(&mut behind);
        for item in &items {
            let owner = Owner::parse(partition_of(item)?).map_err(Failure::corrupt)?;
            let Some(name) = head::name_of(text_of(item, SORT)?)? else { continue };
            let is_here = match text_if_any(item, MARK).map(Mark::parse).transpose()? {
                Some(mark) => match directory::is_here(requests, &owner, &mark).await {
                    Err(Failure::Moved) => false,
                    is_here => is_here?,
                },
                None => true,
            };
            if is_here {
                addresses.push(DatasetAddress { owner, name });
            }
        }
    }
    Ok(addresses)
}

/// Datasets with old tombstones. Those that were purged a while ago are deleted on the way.
pub(super) async fn old_tombstones(
    requests: Requests<'_>,
    before: Timestamp,
    tombstones_max: usize,
) -> Result<Vec<(DatasetAddress, SyncCount)>, Failure> {
    let to = sortable(before);
    let mut behind = String::new();
    let mut floors: BTreeMap<DatasetAddress, SyncCount> = BTreeMap::new();
    let mut left = tombstones_max;
    while left > 0 {
        let items = of_kind(requests, 'T', &behind, &to, left).await?;
        let Some(last) = items.last() else { break };
        text_of(last, BY_KIND)?.clone_into(&mut behind);
        let mut homes = BTreeSet::new();
        for item in &items {
            let (home, _) = Home::of_partition(partition_of(item)?)?;
            homes.insert(home);
        }
        let datasets = found(requests, homes).await?;
        for item in &items {
            let (home, part) = Home::of_partition(partition_of(item)?)?;
            let count = count_of(text_of(item, BY_KIND)?)?;
            let Some((address, kept)) = datasets.get(&home) else { continue };
            if part != format!("r{}", kept.generation) {
                continue;
            }
            if count > kept.head.floor {
                let floor = floors.entry(address.clone()).or_insert(count);
                *floor = count.max(*floor);
                left -= 1;
            } else if SystemClock.now().0 - kept.purged_at.0 > todo::GRACE_MS {
                todo::delete_purged(requests, &home, kept.generation, text_of(item, SORT)?, count).await?;
            }
        }
    }
    Ok(floors.into_iter().collect())
}

fn count_of(place: &str) -> Result<SyncCount, Failure> {
    let count = place.split('|').nth(1).unwrap_or_default();
    u64::from_str_radix(count, 16).map(SyncCount).map_err(Failure::corrupt)
}

/// The datasets that live in these homes, each with its address.
async fn found(
    requests: Requests<'_>,
    homes: BTreeSet<Home>,
) -> Result<BTreeMap<Home, (DatasetAddress, Kept)>, Failure> {
    let mut found = BTreeMap::new();
    for home in homes {
        let Some(address) = directory::address_of(requests, &home).await? else { continue };
        if let Some(kept) = read::find(requests, &address).await?
            && kept.home == home
        {
            found.insert(home, (address, kept));
        }
    }
    Ok(found)
}
