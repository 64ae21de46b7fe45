//! What is left to do after commits, and may be done at any time: records of datasets that were deleted, what is
//! forgotten, what interrupted writers have left. It is on a list, and is done when old tombstones are looked for.

use std::collections::BTreeMap;

use sync_core::model::{DeviceId, SyncCount, limits};

use crate::causes::with_causes;
use crate::clock::{Clock as _, SystemClock};
use crate::store::StoreError;
use crate::store::dynamodb::failure::Failure;
use crate::store::dynamodb::head::{Kept, Pending};
use crate::store::dynamodb::items::{APART, APART_BEFORE, CommitId, Home, place, push_prefix};
use crate::store::dynamodb::redo::{self, PART_OF};
use crate::store::dynamodb::table::{
    Expression, Item, Query, Requests, SORT, hex, key, number, number_of, text, text_if_any, text_of,
};
use crate::store::dynamodb::{directory, read};

/// The partition of the list.
pub(super) const PARTITION: &str = "!todo";
/// Since when something is on it, in milliseconds.
const SINCE: &str = "t";
/// What was purged is there for so long at least: whoever reads takes less, or looks again.
pub(super) const GRACE_MS: i64 = 10_000;
/// Writers that take longer than this were interrupted, and readers that read what is deleted.
pub(super) const INTERRUPTED_MS: i64 = 10 * 60 * 1_000;
/// Entries of the list that are looked at together.
const ENTRIES_MAX: usize = 100;
/// Items that are deleted together at most; the rest is left to the next time.
const DELETES_MAX: usize = 20_000;
/// Pushes of a device that are kept beyond those remembered: so many may come while somebody reads.
const PUSHES_SPARE: usize = 32;

/// The entry for the records of a dataset before a deletion.
pub(super) fn generation(home: &Home, generation: u64) -> String {
    format!("G|{home}|{generation}")
}

/// The entry for pushes of a device beyond those remembered.
pub(super) fn pushes(home: &Home, device: DeviceId) -> String {
    format!("F|{home}|{device}")
}

/// The entry for change ids beyond those remembered.
pub(super) fn changes(home: &Home) -> String {
    format!("H|{home}|")
}

/// The entry for what a commit writes beside its head.
pub(super) fn leftover(home: &Home, commit: CommitId) -> String {
    format!("W|{home}|{}", hex(&commit))
}

/// Puts an entry on the list.
pub(super) async fn add(requests: Requests<'_>, entry: &str) -> Result<(), Failure> {
    let mut item = key(PARTITION, entry);
    item.insert(SINCE.to_owned(), number(SystemClock.now().0));
    requests.put(item, None).await.map(drop)
}

/// Takes an entry from the list.
pub(super) async fn done(requests: Requests<'_>, entry: &str) -> Result<(), Failure> {
    requests.delete(PARTITION, entry, None).await
}

/// Does what has been on the list for long. What fails stays there.
pub(super) async fn sweep(requests: Requests<'_>, older_than_ms: i64) -> Result<(), Failure> {
    let query = Query { is_relaxed: true, limit: Some(ENTRIES_MAX), ..Query::beginning(PARTITION, "A") };
    let query = Query { to: "~".to_owned(), ..query };
    let now = SystemClock.now().0;
    let mut start = None;
    loop {
        let page = requests.query(&query, start).await?;
        for item in &page.items {
            let (entry, since) = (text_of(item, SORT)?, number_of::<i64>(item, SINCE)?);
            if now - since < older_than_ms {
                continue;
            }
            match act(requests, entry).await {
                // It may have come onto the list again meanwhile.
                Ok(true) => {
                    let same = Expression::of("t = :t", vec![(":t", number(since))]);
                    requests.delete(PARTITION, entry, Some(same)).await?;
                }
                Ok(false) => {}
                Err(failure) => {
                    let error = StoreError::from(failure);
                    tracing::warn!(error = with_causes(&error), "failed to clean up what is left of a dataset");
                }
            }
        }
        start = page.next;
        if start.is_none() {
            return Ok(());
        }
    }
}

/// Does one thing; says whether it is done.
async fn act(requests: Requests<'_>, entry: &str) -> Result<bool, Failure> {
    let wrong = || Failure::corrupt("an entry of the list of things to do is none");
    let (kind, rest) = entry.split_once('|').ok_or_else(wrong)?;
    let (home, what) = Home::of_partition(rest)?;
    let address = directory::address_of(requests, &home).await?;
    let kept = match &address {
        Some(address) => read::find(requests, address).await?,
        None => None,
    };
    let kept = kept.filter(|kept| kept.home == home);
    match (kind, &kept) {
        // A link is moving it.
        ("G" | "F" | "H", None) if address.is_some() => Ok(false),
        ("G", Some(kept)) => {
            let generation = what.parse().map_err(Failure::corrupt)?;
            // Otherwise the deletion did not come about.
            if kept.generation > generation { delete_records(requests, &home, generation).await } else { Ok(true) }
        }
        ("F", Some(_)) => forget_pushes(requests, &home, DeviceId::parse(what).map_err(Failure::corrupt)?).await,
        ("H", Some(kept)) => forget_changes(requests, kept).await,
        ("W", kept) => {
            let commit = u64::from_str_radix(what, 16).map_err(Failure::corrupt)?.to_be_bytes();
            if let (Some(address), Some(kept)) = (&address, kept) {
                match kept.pending {
                    Pending::Staged { .. } => redo::finish(requests, address, kept).await?,
                    Pending::Here(_) | Pending::Nothing => redo::see_in_place(requests, kept).await?,
                }
            }
            delete_unreferenced(requests, &home, commit).await
        }
        _ => Ok(true),
    }
}

/// Deletes items, with what they keep apart.
async fn delete(requests: Requests<'_>, home: &Home, partition: &str, items: &[Item]) -> Result<(), Failure> {
    let delete = |item: &Item| {
        let (sort, item) = (text_of(item, SORT).map(str::to_owned), item.clone());
        async move {
            for name in [APART, APART_BEFORE] {
                redo::delete_named(requests, home, &item, name).await?;
            }
            requests.delete(partition, &sort?, None).await
        }
    };
    redo::together(items.iter().map(delete).collect()).await
}

/// The records of a dataset before a deletion.
async fn delete_records(requests: Requests<'_>, home: &Home, generation: u64) -> Result<bool, Failure> {
    let partition = home.records(generation);
    let all = Query::between(&partition, "\0", "\u{10ffff}".repeat(256));
    let query = Query { only: Some("sk, b, p"), is_relaxed: true, ..all };
    let (mut deleted, mut start) = (0, None);
    while deleted < DELETES_MAX {
        let page = requests.query(&query, start).await?;
        delete(requests, home, &partition, &page.items).await?;
        deleted += page.items.len();
        start = page.next;
        if start.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Pushes of a device beyond those remembered.
async fn forget_pushes(requests: Requests<'_>, home: &Home, device: DeviceId) -> Result<bool, Failure> {
    let memory = home.memory();
    let all = Query::beginning(&memory, &push_prefix(device));
    let query = Query { only: Some("sk, b"), is_backward: true, is_relaxed: true, ..all };
    let pushes = requests.query_all(&query).await?;
    let old = pushes.get(limits::PUSHES_REMEMBERED_MAX + PUSHES_SPARE..).unwrap_or_default();
    delete(requests, home, &memory, old).await?;
    Ok(true)
}

/// Change ids beyond those remembered, and as many again, in case that somebody reads.
async fn forget_changes(requests: Requests<'_>, kept: &Kept) -> Result<bool, Failure> {
    let first = kept.next_change.saturating_sub(2 * limits::CHANGES_REMEMBERED_MAX as u64);
    let memory = kept.home.memory();
    let query = Query { only: Some("sk, n"), is_relaxed: true, ..Query::beginning(&memory, "C|") };
    let mut start = None;
    loop {
        let page = requests.query(&query, start).await?;
        let mut old = Vec::new();
        for item in page.items {
            if number_of::<u64>(&item, "n")? < first {
                old.push(item);
            }
        }
        delete(requests, &kept.home, &memory, &old).await?;
        start = page.next;
        if start.is_none() {
            return Ok(true);
        }
    }
}

/// Parts that a commit wrote, and nobody refers to: it did not come about. Staged pieces go by themselves.
async fn delete_unreferenced(requests: Requests<'_>, home: &Home, commit: CommitId) -> Result<bool, Failure> {
    let partition = home.commit(commit);
    let query = Query { only: Some("sk, op, os"), ..Query::beginning(&partition, "V|") };
    let parts = requests.query_all(&query).await?;
    let mut owners: BTreeMap<(&str, &str), Option<Item>> = BTreeMap::new();
    for part in &parts {
        let owner = (text_of(part, PART_OF.0)?, text_of(part, PART_OF.1)?);
        if let std::collections::btree_map::Entry::Vacant(vacant) = owners.entry(owner) {
            vacant.insert(requests.get(owner.0, owner.1).await?);
        }
        let sort = text_of(part, SORT)?;
        let refers = owners[&owner].as_ref().map(|item| redo::refers_to(item, commit, sort)).transpose()?;
        if refers != Some(true) {
            requests.delete(&partition, sort, None).await?;
        }
    }
    Ok(true)
}

/// Deletes a tombstone that was purged, unless something else is there now.
pub(super) async fn delete_purged(
    requests: Requests<'_>,
    home: &Home,
    generation: u64,
    record: &str,
    count: SyncCount,
) -> Result<(), Failure> {
    let same = Expression::of("ix = :ix AND attribute_exists(g)", vec![(":ix", text(place(count, record)))]);
    requests.delete(&home.records(generation), record, Some(same)).await
}

/// Whether anything is on the list, for tests.
pub(super) async fn entries(requests: Requests<'_>) -> Result<Vec<String>, Failure> {
    let query = Query { to: "~".to_owned(), ..Query::beginning(PARTITION, "A") };
    let items = requests.query_all(&query).await?;
    Ok(items.iter().filter_map(|item| text_if_any(item, SORT)).map(str::to_owned).collect())
}
