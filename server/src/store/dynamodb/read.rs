//! What the store reads, each function at one moment: the head first, and then what is as it says. Who finds something
//! newer than the head reads anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sync_core::merge::push::{Head, RememberedPush, View};
use sync_core::model::{ChangeId, DatasetName, DeviceId, Owner, Position, Record, RecordKey, SyncCount, limits};

use crate::store::dynamodb::directory;
use crate::store::dynamodb::failure::Failure;
use crate::store::dynamodb::head::{self, Kept, Mark, Pending};
use crate::store::dynamodb::items::{
    self, Apart, Body, Home, StoredChange, StoredPush, StoredRecord, StoredState, change_key, push_prefix,
};
use crate::store::dynamodb::redo::{self, Redo};
use crate::store::dynamodb::table::{Index, Item, Query, Requests, SORT, text_of};
use crate::store::{DatasetAddress, RecordsAfter, RecordsFrom, RecordsRead, Room, Touched};

/// What a dataset is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Read,
    Write,
}

/// A dataset as it was at a moment.
struct Moment {
    began: Instant,
    kept: Kept,
}

/// How often something is read anew, because it changed while it was read.
const READS_MAX: usize = 24;
/// How long others wait for a writer to put a large commit into place, before they help.
const PLACING: Duration = Duration::from_millis(100);
const PLACING_MAX: usize = 20;
/// Reading that takes longer looks again whether the head is the same: what was purged or deleted is there for a while
/// longer than that; see [`todo`](crate::store::dynamodb::todo).
const MOMENT_MAX: Duration = Duration::from_secs(4);
/// Records that are asked for at once at least.
const ITEMS_MIN: usize = 16;
/// A text behind every place of a record: a place begins with a hex digit.
const BEHIND_PLACES: &str = "g";

/// The head of a dataset, if it was ever written, with its large commit in place. To be written, it is not on the way to
/// another owner.
pub(super) async fn settled(
    requests: Requests<'_>,
    dataset: &DatasetAddress,
    purpose: Purpose,
) -> Result<Option<Kept>, Failure> {
    let mut waited = 0;
    for _ in 0..READS_MAX + PLACING_MAX {
        let Some(kept) = find(requests, dataset).await? else {
            directory::check(requests, &dataset.owner).await?;
            return Ok(None);
        };
        if let Some(mark) = &kept.mark {
            let is_here = directory::is_here(requests, &dataset.owner, mark).await?;
            if purpose == Purpose::Write {
                let source = match mark {
                    Mark::Leaving { .. } => &dataset.owner,
                    Mark::Arriving { source, .. } => source,
                };
                directory::finish(requests, source).await?;
                continue;
            }
            if !is_here {
                return Ok(None);
            }
        }
        if matches!(kept.pending, Pending::Staged { .. }) {
            if waited < PLACING_MAX {
                waited += 1;
                tokio::time::sleep(PLACING).await;
            } else {
                redo::finish(requests, dataset, &kept).await?;
            }
            continue;
        }
        return Ok(Some(kept));
    }
    Err(Failure::Busy)
}

/// The head of a dataset, as it is.
pub(super) async fn find(requests: Requests<'_>, dataset: &DatasetAddress) -> Result<Option<Kept>, Failure> {
    for _ in 0..READS_MAX {
        let items = requests.query_all(&head::query(dataset)).await?;
        let Some((head, beside)) = items.split_first() else { return Ok(None) };
        if text_of(head, SORT)? != head::sort_key(&dataset.name) {
            // Something is beside a head that is gone.
            return Ok(None);
        }
        match Kept::parse(&dataset.owner, head, beside) {
            // What belongs to it was replaced while it was read.
            Err(Failure::Busy) => {}
            parsed => return parsed.map(Some),
        }
    }
    Err(Failure::Busy)
}

impl Moment {
    async fn of(requests: Requests<'_>, dataset: &DatasetAddress) -> Result<Option<Self>, Failure> {
        let began = Instant::now();
        Ok(settled(requests, dataset, Purpose::Read).await?.map(|kept| Self { began, kept }))
    }

    /// Whether what was read after the head is as it was then: nothing may have been cleaned away since.
    async fn holds(&self, requests: Requests<'_>, dataset: &DatasetAddress) -> Result<bool, Failure> {
        if self.began.elapsed() < MOMENT_MAX {
            return Ok(true);
        }
        Ok(find(requests, dataset).await?.is_some_and(|now| now.version == self.kept.version))
    }

    /// The count of the last commit. Of a dataset that is copied here, records come before it does.
    fn count(&self) -> SyncCount {
        self.kept.head.lineage.position().map_or(SyncCount(u64::MAX), |position| position.count)
    }

    fn redo(&self) -> &Redo {
        const NOTHING: &Redo =
            &Redo { count: SyncCount::ZERO, records: Vec::new(), pushes: Vec::new(), changes: Vec::new() };
        match &self.kept.pending {
            Pending::Here(redo) => redo,
            Pending::Nothing | Pending::Staged { .. } => NOTHING,
        }
    }

    /// Whether a record was purged: then it may be there or not.
    fn is_purged(&self, record: &StoredRecord) -> bool {
        record.is_removed() && record.count <= self.kept.head.floor
    }
}

pub(super) async fn view(requests: Requests<'_>, dataset: &DatasetAddress, touched: &Touched) -> Result<View, Failure> {
    for _ in 0..READS_MAX {
        let Some(moment) = Moment::of(requests, dataset).await? else { return Ok(View::default()) };
        if let Some(view) = view_at(requests, &moment, touched).await?
            && moment.holds(requests, dataset).await?
        {
            return Ok(view);
        }
    }
    Err(Failure::Busy)
}

/// What is touched; nothing, if something is newer than the head.
async fn view_at(requests: Requests<'_>, moment: &Moment, touched: &Touched) -> Result<Option<View>, Failure> {
    let Touched { keys, pushes: wanted, changes } = touched;
    let Some(records) = records(requests, moment, keys).await? else { return Ok(None) };
    let mut pushes = BTreeMap::new();
    for (device, sequences) in wanted {
        let Some(remembered) = remembered_pushes(requests, moment, *device, sequences).await? else { return Ok(None) };
        if !remembered.is_empty() {
            pushes.insert(*device, remembered);
        }
    }
    let Some(changes) = known_changes(requests, moment, changes).await? else { return Ok(None) };
    let records = records.into_iter().map(|record| (record.key.clone(), record)).collect();
    Ok(Some(View { head: moment.kept.head.clone(), records, pushes, changes }))
}

async fn records(
    requests: Requests<'_>,
    moment: &Moment,
    keys: &BTreeSet<RecordKey>,
) -> Result<Option<Vec<Record>>, Failure> {
    let mut found: BTreeMap<&RecordKey, StoredRecord> = moment
        .redo()
        .records
        .iter()
        .filter(|record| keys.contains(&record.key))
        .map(|record| (&record.key, record.clone()))
        .collect();
    // What the head has needs not be read, unless the dataset is copied here.
    let is_whole = moment.kept.head.lineage.position().is_some();
    let to_read = keys.iter().filter(|key| !is_whole || !found.contains_key(key));
    let partition = moment.kept.home.records(moment.kept.generation);
    let to_read = to_read.map(|key| (partition.clone(), key.as_str().to_owned())).collect();
    for item in requests.get_all(to_read).await? {
        let record = StoredRecord::parse(&item)?;
        if record.count > moment.count() {
            return Ok(None);
        }
        if let Some(key) = keys.get(&record.key) {
            found.entry(key).or_insert(record);
        }
    }
    let present = found.into_values().filter(|record| !moment.is_purged(record)).collect();
    whole(requests, &moment.kept.home, present).await
}

/// Records with the bytes of their values; nothing, if some of these are gone.
async fn whole(
    requests: Requests<'_>,
    home: &Home,
    records: Vec<StoredRecord>,
) -> Result<Option<Vec<Record>>, Failure> {
    let apart = |record: &StoredRecord| match &record.state {
        StoredState::Value(Body::Apart(apart)) => Some(apart.clone()),
        _ => None,
    };
    let wanted: Vec<Apart> = records.iter().filter_map(apart).collect();
    let wanted: Vec<&Apart> = wanted.iter().collect();
    let Some(bytes) = redo::read_apart(requests, home, &wanted).await? else { return Ok(None) };
    let record = |record: StoredRecord| {
        let value = apart(&record).and_then(|apart| bytes.get(&(apart.commit, apart.index)));
        record.into_record(value.map(Vec::as_slice))
    };
    records.into_iter().map(record).collect::<Result<_, _>>().map(Some)
}

/// The wanted pushes of a device and its newest one, oldest first. Of what is there only the latest count.
async fn remembered_pushes(
    requests: Requests<'_>,
    moment: &Moment,
    device: DeviceId,
    wanted: &BTreeSet<u64>,
) -> Result<Option<Vec<RememberedPush>>, Failure> {
    let of_device = moment.redo().pushes.iter().filter(|push| push.device == device);
    let mut latest: BTreeMap<u64, StoredPush> = of_device.map(|push| (push.sequence, push.clone())).collect();
    // A push is newer than those before it, unless it is a repeat. So most of the time one is enough.
    let Some(newest) = stored_pushes(requests, moment, device, 1).await? else { return Ok(None) };
    let newest = newest.into_iter().next();
    let is_enough = newest.as_ref().is_none_or(|newest| wanted.iter().all(|wanted| *wanted >= newest.sequence));
    let rest = if is_enough {
        newest.into_iter().collect()
    } else {
        match stored_pushes(requests, moment, device, limits::PUSHES_REMEMBERED_MAX).await? {
            Some(rest) => rest,
            None => return Ok(None),
        }
    };
    for push in rest {
        latest.entry(push.sequence).or_insert(push);
    }
    let surplus = latest.len().saturating_sub(limits::PUSHES_REMEMBERED_MAX);
    let newest = latest.last_key_value().map(|(sequence, _)| *sequence);
    let is_meant = |push: &StoredPush| Some(push.sequence) == newest || wanted.contains(&push.sequence);
    answered(requests, &moment.kept.home, latest.into_values().skip(surplus).filter(is_meant).collect()).await
}

/// The newest pushes of a device, newest first; nothing, if there is a newer one than the head knows.
async fn stored_pushes(
    requests: Requests<'_>,
    moment: &Moment,
    device: DeviceId,
    most: usize,
) -> Result<Option<Vec<StoredPush>>, Failure> {
    let memory = moment.kept.home.memory();
    let query = Query { limit: Some(most), is_backward: true, ..Query::beginning(&memory, &push_prefix(device)) };
    let (mut pushes, mut start) = (Vec::new(), None);
    loop {
        let page = requests.query(&query, start).await?;
        for item in &page.items {
            let push = StoredPush::parse(item)?;
            if push.count > moment.count() {
                return Ok(None);
            }
            pushes.push(push);
        }
        start = page.next;
        if start.is_none() || pushes.len() >= most {
            return Ok(Some(pushes));
        }
    }
}

/// Pushes with the bytes of their answers; nothing, if some of these are gone.
pub(super) async fn answered(
    requests: Requests<'_>,
    home: &Home,
    pushes: Vec<StoredPush>,
) -> Result<Option<Vec<RememberedPush>>, Failure> {
    let apart = |push: &StoredPush| match &push.answer {
        Body::Apart(apart) => Some(apart.clone()),
        Body::Here(_) => None,
    };
    let wanted: Vec<Apart> = pushes.iter().filter_map(apart).collect();
    let wanted: Vec<&Apart> = wanted.iter().collect();
    let Some(bytes) = redo::read_apart(requests, home, &wanted).await? else { return Ok(None) };
    let push = |push: StoredPush| {
        let answer = apart(&push).and_then(|apart| bytes.get(&(apart.commit, apart.index)));
        push.into_push(answer.map(Vec::as_slice))
    };
    pushes.into_iter().map(push).collect::<Result<_, _>>().map(Some)
}

/// Which of these changes are known. Of what is there only the latest count.
async fn known_changes(
    requests: Requests<'_>,
    moment: &Moment,
    wanted: &BTreeSet<ChangeId>,
) -> Result<Option<BTreeMap<ChangeId, SyncCount>>, Failure> {
    let memory = moment.kept.home.memory();
    let first = moment.kept.next_change.saturating_sub(limits::CHANGES_REMEMBERED_MAX as u64);
    let mut known = BTreeMap::new();
    let keys = wanted.iter().map(|id| (memory.clone(), change_key(*id))).collect();
    for item in requests.get_all(keys).await? {
        let change = StoredChange::parse(&item)?;
        if change.count > moment.count() {
            return Ok(None);
        }
        if change.number >= first {
            known.insert(change.id, change.count);
        }
    }
    for change in moment.redo().changes.iter().filter(|change| wanted.contains(&change.id)) {
        known.entry(change.id).or_insert(change.count);
    }
    Ok(Some(known))
}

pub(super) async fn records_after(
    requests: Requests<'_>,
    dataset: &DatasetAddress,
    range: &RecordsAfter,
) -> Result<RecordsRead, Failure> {
    for _ in 0..READS_MAX {
        let Some(moment) = Moment::of(requests, dataset).await? else { return Ok(RecordsRead::default()) };
        let since = range.since.0.checked_add(1).map(|since| items::place(SyncCount(since), ""));
        let after = range.after.as_ref().map(|(count, key)| items::place(*count, key.as_str()) + "\0");
        let Some(from) = since.map(|since| after.unwrap_or_default().max(since)) else {
            return Ok(RecordsRead { head: moment.kept.head, ..RecordsRead::default() });
        };
        let partition = moment.kept.home.records(moment.kept.generation);
        let query = Query { index: Some(Index::ByCount), ..Query::between(&partition, from, BEHIND_PLACES) };
        // What is newer than the commit before is in the head.
        let is_in_head =
            from_count(&query.from) > moment.count().0.saturating_sub(u64::from(moment.redo().count == moment.count()));
        let mut reading = Reading::new(&moment, range.records_max, range.bytes_max);
        let is_wanted = |record: &StoredRecord| {
            let is_skipped = record.is_removed() && record.count <= range.skip_tombstones_to;
            record.place() >= query.from && !is_skipped
        };
        let read = reading.read(requests, (!is_in_head).then_some(&query), StoredRecord::place, is_wanted).await?;
        if read
            && let Some(read) = reading.whole(requests).await?
            && moment.holds(requests, dataset).await?
        {
            return Ok(read);
        }
    }
    Err(Failure::Busy)
}

fn from_count(place: &str) -> u64 {
    place.get(..16).and_then(|count| u64::from_str_radix(count, 16).ok()).unwrap_or_default()
}

pub(super) async fn records_from(
    requests: Requests<'_>,
    dataset: &DatasetAddress,
    range: &RecordsFrom,
) -> Result<RecordsRead, Failure> {
    for _ in 0..READS_MAX {
        let Some(moment) = Moment::of(requests, dataset).await? else { return Ok(RecordsRead::default()) };
        if range.prefix.len() > limits::KEY_BYTES_MAX {
            return Ok(RecordsRead { head: moment.kept.head, ..RecordsRead::default() });
        }
        let behind = range.after.as_ref().map(|after| format!("{after}\0")).unwrap_or_default();
        // No key is empty.
        let from = behind.max(range.prefix.clone()).max("\0".to_owned());
        let to = range.prefix.clone() + &"\u{10ffff}".repeat((SORT_BYTES_MAX - range.prefix.len()) / 4);
        let partition = moment.kept.home.records(moment.kept.generation);
        let query = Query::between(&partition, from, to);
        let mut reading = Reading::new(&moment, range.records_max, range.bytes_max);
        let is_wanted = |record: &StoredRecord| {
            let key = record.key.as_str();
            !record.is_removed() && key.starts_with(&range.prefix) && key >= query.from.as_str()
        };
        let order = |record: &StoredRecord| record.key.as_str().to_owned();
        let read = reading.read(requests, Some(&query), order, is_wanted).await?;
        if read
            && let Some(read) = reading.whole(requests).await?
            && moment.holds(requests, dataset).await?
        {
            return Ok(read);
        }
    }
    Err(Failure::Busy)
}

/// Bytes of a sort key at most.
const SORT_BYTES_MAX: usize = 1_024;

/// Records that are read in pages, up to the limits; with those of the last commit, which may not be in place.
struct Reading<'m> {
    moment: &'m Moment,
    records: Vec<StoredRecord>,
    has_more: bool,
    room: Room,
    items_max: usize,
}

impl<'m> Reading<'m> {
    fn new(moment: &'m Moment, records_max: usize, bytes_max: usize) -> Self {
        let head = &moment.kept.head;
        let record_bytes = usize::try_from(head.bytes / head.records.max(1)).unwrap_or(usize::MAX).max(1);
        let items_max = (2 * bytes_max / record_bytes).clamp(ITEMS_MIN, 4_096).min(records_max.saturating_add(1));
        let room = Room { records: records_max, bytes: bytes_max };
        Self { moment, records: Vec::new(), has_more: false, room, items_max }
    }

    /// Reads what a query finds, and says whether all of it is as the head says. Without a query, all is in the head.
    async fn read(
        &mut self,
        requests: Requests<'_>,
        query: Option<&Query<'_>>,
        order: impl Fn(&StoredRecord) -> String,
        is_wanted: impl Fn(&StoredRecord) -> bool,
    ) -> Result<bool, Failure> {
        let moment = self.moment;
        let is_wanted = |record: &StoredRecord| is_wanted(record) && !moment.is_purged(record);
        let overlaid: BTreeSet<&RecordKey> = moment.redo().records.iter().map(|record| &record.key).collect();
        let mut last: Vec<(String, &StoredRecord)> =
            moment.redo().records.iter().map(|record| (order(record), record)).collect();
        last.sort_by(|(one, _), (other, _)| one.cmp(other));
        last.retain(|(_, record)| is_wanted(record));
        let mut last = last.into_iter().peekable();
        let (mut start, mut is_complete) = (None, query.is_none());
        while let Some(query) = query.filter(|_| !is_complete) {
            let query = Query { limit: Some(self.items_max), ..query.clone() };
            let page = requests.query(&query, start).await?;
            for item in &page.items {
                let record = StoredRecord::parse(item)?;
                if record.count > moment.count() {
                    return Ok(false);
                }
                if overlaid.contains(&record.key) || !is_wanted(&record) {
                    continue;
                }
                let place = order(&record);
                while let Some((_, earlier)) = last.next_if(|(earlier, _)| *earlier < place) {
                    if !self.admit(earlier.clone()) {
                        return Ok(true);
                    }
                }
                if !self.admit(record) {
                    return Ok(true);
                }
            }
            start = page.next;
            is_complete = start.is_none();
        }
        for (_, record) in last {
            if !self.admit(record.clone()) {
                break;
            }
        }
        Ok(true)
    }

    /// Takes a record if there is room for it, or if it is the first; otherwise says that there are more.
    fn admit(&mut self, record: StoredRecord) -> bool {
        let bytes = record.bytes();
        let fits = self.room.records > 0 && bytes <= self.room.bytes;
        self.has_more = !fits && !self.records.is_empty();
        if !self.has_more {
            self.room.records = self.room.records.saturating_sub(1);
            self.room.bytes = self.room.bytes.saturating_sub(bytes);
            self.records.push(record);
        }
        !self.has_more
    }

    async fn whole(self, requests: Requests<'_>) -> Result<Option<RecordsRead>, Failure> {
        let head = self.moment.kept.head.clone();
        let records = whole(requests, &self.moment.kept.home, self.records).await?;
        Ok(records.map(|records| RecordsRead { head, records, has_more: self.has_more }))
    }
}

pub(super) async fn datasets(
    requests: Requests<'_>,
    owner: &Owner,
    after: Option<&DatasetName>,
    names_max: usize,
) -> Result<Vec<DatasetName>, Failure> {
    let exists = |name: &DatasetName, head: &Head| head.exists().then(|| name.clone());
    named(requests, owner, after, names_max, exists).await
}

pub(super) async fn positions(
    requests: Requests<'_>,
    owner: &Owner,
    after: Option<&DatasetName>,
    positions_max: usize,
) -> Result<Vec<(DatasetName, Position)>, Failure> {
    let position = |name: &DatasetName, head: &Head| Some((name.clone(), head.lineage.position()?));
    named(requests, owner, after, positions_max, position).await
}

/// What is wanted of an owner's datasets, in order of their names.
async fn named<T>(
    requests: Requests<'_>,
    owner: &Owner,
    after: Option<&DatasetName>,
    most: usize,
    pick: impl Fn(&DatasetName, &Head) -> Option<T>,
) -> Result<Vec<T>, Failure> {
    let query = Query { limit: Some(most.saturating_mul(2).max(ITEMS_MIN)), ..head::query_of(owner, after) };
    let (mut picked, mut rest, mut start) = (Vec::new(), Vec::new(), None);
    loop {
        let page = requests.query(&query, start).await?;
        start = page.next;
        rest.extend(page.items);
        let found = heads(requests, owner, &mut rest, start.is_none()).await?;
        for (name, kept) in &found {
            let is_here = match &kept.mark {
                Some(mark) => directory::is_here(requests, owner, mark).await?,
                None => true,
            };
            picked.extend(is_here.then(|| pick(name, &kept.head)).flatten());
        }
        if start.is_none() || picked.len() >= most {
            break;
        }
    }
    if picked.is_empty() {
        directory::check(requests, owner).await?;
    }
    picked.truncate(most);
    Ok(picked)
}

/// Takes the heads out of items of an owner, each with what is beside it. The last one may be incomplete, unless these
/// are the last items.
pub(super) async fn heads(
    requests: Requests<'_>,
    owner: &Owner,
    items: &mut Vec<Item>,
    is_end: bool,
) -> Result<Vec<(DatasetName, Kept)>, Failure> {
    let mut begins = Vec::new();
    for (at, item) in items.iter().enumerate() {
        if let Some(name) = head::name_of(text_of(item, SORT)?)? {
            begins.push((at, name));
        }
    }
    let ends: Vec<usize> = begins.iter().skip(1).map(|(at, _)| *at).chain([items.len()]).collect();
    let mut rest_from = items.len();
    let mut found = Vec::new();
    for (index, ((begin, name), end)) in begins.iter().zip(ends).enumerate() {
        if !is_end && index + 1 == begins.len() {
            rest_from = *begin;
            break;
        }
        match Kept::parse(owner, &items[*begin], &items[begin + 1..end]) {
            Ok(kept) => found.push((name.clone(), kept)),
            // It was written anew meanwhile.
            Err(Failure::Busy) => {
                let dataset = DatasetAddress { owner: owner.clone(), name: name.clone() };
                found.extend(find(requests, &dataset).await?.map(|kept| (name.clone(), kept)));
            }
            Err(failure) => return Err(failure),
        }
    }
    items.drain(..rest_from);
    Ok(found)
}
