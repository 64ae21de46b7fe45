//! What a commit writes beside its head, and how it comes into place.
//!
//! The write of the head is the moment of a commit. What it writes besides is in the head, or staged in items that the
//! head names, and is put into place after that: by its writer, or by whoever finds that it is not. Each write into place
//! has a condition, so that it may come late and twice.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use sync_core::merge::push::Commit;
use sync_core::model::{Record, RecordKey, SyncCount, Value, limits};

use crate::clock::{Clock as _, SystemClock};
use crate::store::DatasetAddress;
use crate::store::dynamodb::failure::Failure;
use crate::store::dynamodb::head::{Kept, Pending};
use crate::store::dynamodb::items::{
    APART, APART_BEFORE, Apart, BODY_BYTES_MAX, Body, CommitId, Home, PART_BYTES, StoredChange, StoredPush,
    StoredRecord, change_key, part_key,
};
use crate::store::dynamodb::pack::{Pack, Unpack};
use crate::store::dynamodb::table::{
    Expression, Item, PARTITION, Query, Requests, SORT, bytes, bytes_if_any, bytes_of, key, number, text, text_of,
};
use crate::store::dynamodb::todo;

/// What a commit writes beside its head.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Redo {
    /// The count of the commit; zero: it did not move the dataset, and says nothing of what was written last.
    pub(super) count: SyncCount,
    pub(super) records: Vec<StoredRecord>,
    pub(super) pushes: Vec<StoredPush>,
    pub(super) changes: Vec<StoredChange>,
}

/// A part of something that is too large for its item, to be written before the head.
pub(super) struct Part {
    index: u64,
    part: u64,
    bytes: Vec<u8>,
    /// What it belongs to: the partition and key of a record or push.
    owner: (String, String),
}

/// Requests that are under way at once for one commit.
const TOGETHER: usize = 32;
/// How long staged pieces are kept: until a finished commit's are thrown away, without cost.
const STAGED_S: i64 = 30 * 24 * 60 * 60;
/// The attribute by which DynamoDB throws items away.
pub(super) const EXPIRES_AT: &str = "expires_at";
/// What a part belongs to.
pub(super) const PART_OF: (&str, &str) = ("op", "os");
/// The bytes of a piece or part.
pub(super) const BYTES: &str = "v";
/// How the keys of staged pieces begin.
const PIECE: &str = "S|";

impl Redo {
    /// What `commit` writes beside its head, and what of it has to be written before.
    pub(super) fn of(commit: &Commit, kept: &Kept, id: CommitId) -> (Self, Vec<Part>) {
        let moves = commit.head.lineage.position().is_some_and(|position| Some(position) != commit.expected);
        let count = if moves { commit.head.lineage.count } else { SyncCount::ZERO };
        let mut parts = Parts { id, index: 0, parts: Vec::new() };
        let records_at = kept.home.records(kept.generation);
        let record = |record: &Record| {
            let owner = |key: &RecordKey| (records_at.clone(), key.as_str().to_owned());
            let body = |value: &Value| parts.body(value.to_bytes(), || owner(&record.key));
            StoredRecord::new(record, record.value().map(body))
        };
        // Of a key that is there twice, the last one counts.
        let latest: BTreeMap<_, _> = commit.records.iter().map(|record| (&record.key, record)).collect();
        let records = latest.into_values().map(record).collect();
        let pushes = commit.pushes.iter().map(|(device, push)| {
            let answer = rmp_serde::to_vec_named(&push.answer).expect("answers have no unencodable parts");
            let bare = StoredPush::new(*device, push, commit.head.lineage.count, Body::Here(Vec::new()));
            let owner = || (kept.home.memory(), bare.sort_key());
            StoredPush::new(*device, push, commit.head.lineage.count, parts.body(answer, owner))
        });
        let pushes = pushes.collect();
        let numbered = commit.changes.iter().zip(kept.next_change..);
        let changes = numbered.map(|((id, count), number)| StoredChange { id: *id, count: *count, number }).collect();
        (Self { count, records, pushes, changes }, parts.parts)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.records.is_empty() && self.pushes.is_empty() && self.changes.is_empty()
    }

    pub(super) fn pack(&self) -> Vec<u8> {
        let mut pack = Pack::default();
        pack.number(self.count.0);
        pack.all(&self.records, |pack, record| record.pack_into(pack));
        pack.all(&self.pushes, |pack, push| push.pack_into(pack));
        pack.all(&self.changes, |pack, change| change.pack_into(pack));
        pack.into_bytes()
    }

    pub(super) fn unpack(packed: &[u8]) -> Result<Self, Failure> {
        let mut unpack = Unpack::new(packed);
        let redo = Self {
            count: SyncCount(unpack.number()?),
            records: unpack.all(StoredRecord::unpack_from)?,
            pushes: unpack.all(StoredPush::unpack_from)?,
            changes: unpack.all(StoredChange::unpack_from)?,
        };
        if unpack.is_empty() { Ok(redo) } else { Err(Failure::corrupt("a packed commit goes on too long")) }
    }

    /// Where its items are.
    fn keys(&self, home: &Home, generation: u64) -> Vec<(String, String)> {
        let (records_at, memory) = (home.records(generation), home.memory());
        let records = self.records.iter().map(|record| (records_at.clone(), record.key.as_str().to_owned()));
        let pushes = self.pushes.iter().map(|push| (memory.clone(), push.sort_key()));
        let changes = self.changes.iter().map(|change| (memory.clone(), change_key(change.id)));
        records.chain(pushes).chain(changes).collect()
    }
}

/// Collects what stays apart.
struct Parts {
    id: CommitId,
    index: u64,
    parts: Vec<Part>,
}

impl Parts {
    fn body(&mut self, bytes: Vec<u8>, owner: impl Fn() -> (String, String)) -> Body {
        if bytes.len() <= BODY_BYTES_MAX {
            return Body::Here(bytes);
        }
        let index = self.index;
        self.index += 1;
        let before = self.parts.len();
        let parts = bytes.chunks(PART_BYTES).zip(0..);
        self.parts.extend(parts.map(|(part, number)| Part {
            index,
            part: number,
            bytes: part.to_vec(),
            owner: owner(),
        }));
        let parts = (self.parts.len() - before) as u64;
        Body::Apart(Apart { commit: self.id, index, parts, bytes: bytes.len() as u64 })
    }
}

/// Writes what stays apart, before the head refers to it.
pub(super) async fn write_parts(
    requests: Requests<'_>,
    home: &Home,
    id: CommitId,
    parts: Vec<Part>,
) -> Result<(), Failure> {
    let partition = home.commit(id);
    let put = |part: Part| {
        let mut item = key(&partition, &part_key(part.index, part.part));
        item.insert(BYTES.to_owned(), bytes(part.bytes));
        item.insert(PART_OF.0.to_owned(), text(part.owner.0));
        item.insert(PART_OF.1.to_owned(), text(part.owner.1));
        async move { requests.put(item, None).await.map(drop) }
    };
    together(parts.into_iter().map(put).collect()).await
}

/// Writes the pieces of a commit that is too large for its head; says how many.
pub(super) async fn stage(requests: Requests<'_>, home: &Home, id: CommitId, redo: &Redo) -> Result<u64, Failure> {
    let partition = home.commit(id);
    let expires_at = SystemClock.now().0 / 1_000 + STAGED_S;
    let packed = redo.pack();
    let put = |(piece, at): (&[u8], u64)| {
        let mut item = key(&partition, &format!("{PIECE}{at:06}"));
        item.insert(BYTES.to_owned(), bytes(piece));
        item.insert(EXPIRES_AT.to_owned(), number(expires_at));
        async move { requests.put(item, None).await.map(drop) }
    };
    together(packed.chunks(PART_BYTES).zip(0..).map(put).collect()).await?;
    Ok(packed.len().div_ceil(PART_BYTES) as u64)
}

/// Reads the pieces of a commit.
pub(super) async fn staged(requests: Requests<'_>, home: &Home, id: CommitId, pieces: u64) -> Result<Redo, Failure> {
    let partition = home.commit(id);
    let found = requests.query_all(&Query::beginning(&partition, PIECE)).await?;
    if found.len() as u64 != pieces {
        return Err(Failure::Corrupt(format!("of a commit's {pieces} pieces {} are there", found.len())));
    }
    let mut packed = Vec::new();
    for item in &found {
        packed.extend_from_slice(bytes_of(item, BYTES)?);
    }
    Redo::unpack(&packed)
}

/// Puts a commit into place. What is there already, or newer, stays.
pub(super) async fn place(requests: Requests<'_>, home: &Home, generation: u64, redo: &Redo) -> Result<(), Failure> {
    let records_at = home.records(generation);
    let records = redo.records.iter().map(|record| {
        let records_at = &records_at;
        async move {
            let key = record.key.as_str();
            match requests.update(records_at, key, record.change(home)).await? {
                Some(before) => delete_named(requests, home, &before, APART).await,
                // Whoever put it there may not have come to delete what it replaced.
                None => match requests.get(records_at, key).await? {
                    Some(there) if StoredRecord::parse(&there)?.count == record.count => {
                        delete_named(requests, home, &there, APART_BEFORE).await
                    }
                    _ => Ok(()),
                },
            }
        }
    });
    together(records.collect()).await?;
    let pushes = redo.pushes.iter().map(|push| async move {
        let condition = Expression::of("attribute_not_exists(sk) OR c <= :c", vec![(":c", number(push.count.0))]);
        requests.put(push.item(home), Some(condition)).await.map(drop)
    });
    let changes = redo.changes.iter().map(|change| async move {
        // What is known stays as it is, unless it is forgotten.
        let first = (change.number + 1).saturating_sub(limits::CHANGES_REMEMBERED_MAX as u64);
        let condition = Expression::of("attribute_not_exists(sk) OR n < :n", vec![(":n", number(first))]);
        requests.put(change.item(home), Some(condition)).await.map(drop)
    });
    together(pushes.collect()).await?;
    together(changes.collect()).await
}

/// Waits for all, of which some are under way at once.
pub(super) async fn together(all: Vec<impl Future<Output = Result<(), Failure>>>) -> Result<(), Failure> {
    stream::iter(all).buffer_unordered(TOGETHER).try_collect().await
}

/// Deletes what an attribute of a record says to be apart.
pub(super) async fn delete_named(
    requests: Requests<'_>,
    home: &Home,
    item: &Item,
    attribute: &str,
) -> Result<(), Failure> {
    match bytes_if_any(item, attribute).map(Apart::unpack).transpose()?.flatten() {
        Some(apart) => delete_apart(requests, home, &apart).await,
        None => Ok(()),
    }
}

/// Deletes what was apart and is replaced. Who reads it just now finds that it is gone, and reads anew.
async fn delete_apart(requests: Requests<'_>, home: &Home, apart: &Apart) -> Result<(), Failure> {
    for (partition, sort) in apart.keys(home) {
        requests.delete(&partition, &sort, None).await?;
    }
    Ok(())
}

/// Sees to it that the last commit of a head is in place, so that the head may be written over. Of a staged one, that was
/// seen to when the head was read.
pub(super) async fn see_in_place(requests: Requests<'_>, kept: &Kept) -> Result<(), Failure> {
    let Pending::Here(redo) = &kept.pending else { return Ok(()) };
    let placed = &requests.table.placed;
    if redo.is_empty() || placed.is(kept.home.as_str(), kept.version) {
        return Ok(());
    }
    let missing = missing(requests, kept, redo).await?;
    place(requests, &kept.home, kept.generation, &missing).await?;
    placed.set(kept.home.as_str(), kept.version);
    Ok(())
}

/// What of a commit is not in place. What the rest replaced is deleted.
async fn missing(requests: Requests<'_>, kept: &Kept, redo: &Redo) -> Result<Redo, Failure> {
    let found = requests.get_all(redo.keys(&kept.home, kept.generation)).await?;
    let mut there = BTreeMap::new();
    for item in &found {
        there.insert((text_of(item, PARTITION)?, text_of(item, SORT)?), item);
    }
    let (records_at, memory) = (kept.home.records(kept.generation), kept.home.memory());
    let mut missing = Redo { count: redo.count, ..Redo::default() };
    for record in &redo.records {
        let is_purged = record.is_removed() && record.count <= kept.head.floor;
        let place = there.get(&(records_at.as_str(), record.key.as_str()));
        let found = place.map(|item| StoredRecord::parse(item)).transpose()?;
        match found {
            Some(found) if found.count >= record.count => {
                // As in `place`.
                if let Some(item) = place {
                    delete_named(requests, &kept.home, item, APART_BEFORE).await?;
                }
            }
            _ if is_purged => {}
            _ => missing.records.push(record.clone()),
        }
    }
    let is_there = |sort: &str| there.contains_key(&(memory.as_str(), sort));
    missing.pushes = redo.pushes.iter().filter(|push| !is_there(&push.sort_key())).cloned().collect();
    missing.changes = redo.changes.iter().filter(|change| !is_there(&change_key(change.id))).copied().collect();
    Ok(missing)
}

/// Puts a staged commit into place, and says so in the head.
pub(super) async fn finish(requests: Requests<'_>, dataset: &DatasetAddress, kept: &Kept) -> Result<(), Failure> {
    let Pending::Staged { commit, pieces } = kept.pending else { return Ok(()) };
    let redo = staged(requests, &kept.home, commit, pieces).await?;
    let missing = missing(requests, kept, &redo).await?;
    place(requests, &kept.home, kept.generation, &missing).await?;
    settle(requests, dataset, kept).await?;
    requests.delete(todo::PARTITION, &todo::leftover(&kept.home, commit), None).await
}

/// Says in a head that its staged commit is in place, if it is the head still.
pub(super) async fn settle(requests: Requests<'_>, dataset: &DatasetAddress, kept: &Kept) -> Result<(), Failure> {
    let next = Kept { pending: Pending::Nothing, ..kept.next() };
    requests.put(next.encode(dataset).item, Some(kept.unchanged())).await.map(drop)
}

/// The bytes of what is apart, by commit and index. Nothing if some are gone: then what referred to them is outdated.
pub(super) async fn read_apart(
    requests: Requests<'_>,
    home: &Home,
    wanted: &[&Apart],
) -> Result<Option<BTreeMap<(CommitId, u64), Vec<u8>>>, Failure> {
    let keys: BTreeSet<_> = wanted.iter().flat_map(|apart| apart.keys(home)).collect();
    // A batch has 16 MB at most, and leaves the rest to the next.
    let found = requests.get_all(keys.into_iter().collect()).await?;
    let mut by_key = BTreeMap::new();
    for item in found {
        let key = (text_of(&item, PARTITION)?.to_owned(), text_of(&item, SORT)?.to_owned());
        by_key.insert(key, item);
    }
    let mut read = BTreeMap::new();
    for apart in wanted {
        let mut whole = Vec::new();
        for key in apart.keys(home) {
            let Some(item) = by_key.get(&key) else { return Ok(None) };
            whole.extend_from_slice(bytes_of(item, BYTES)?);
        }
        read.insert((apart.commit, apart.index), whole);
    }
    Ok(Some(read))
}

/// Whether an item of a record or push refers to a part.
pub(super) fn refers_to(item: &Item, commit: CommitId, part_key_: &str) -> Result<bool, Failure> {
    let Some(apart) = bytes_if_any(item, APART).map(Apart::unpack).transpose()?.flatten() else { return Ok(false) };
    Ok(apart.commit == commit && (0..apart.parts).any(|part| part_key(apart.index, part) == part_key_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_core::model::{DatasetName, DeviceId, Owner, RecordState, Timestamp};

    #[test]
    fn a_packed_commit_comes_out_again_with_its_large_values_apart() {
        let owner = Owner::parse("local:ada").unwrap();
        let kept = Kept::new(&owner);
        let record = |key: &str, state| Record {
            key: RecordKey::parse(key).unwrap(),
            state,
            sync_count: SyncCount(300),
            modified_by: Some(DeviceId::from_bytes([3; 16])),
            modified_at: Timestamp(-7),
            device_time: Timestamp(1 << 40),
        };
        let mut commit = Commit::on(&kept.head);
        commit.records = vec![
            record("small", RecordState::Value(Value::Int(1))),
            record("large", RecordState::Value(Value::Bytes(vec![7; PART_BYTES + 1]))),
            record("gone", RecordState::Removed(sync_core::model::RemovalReason::Left)),
        ];
        let (redo, parts) = Redo::of(&commit, &kept, [1; 8]);
        assert_eq!(parts.iter().map(|part| (part.index, part.part)).collect::<Vec<_>>(), [(0, 0), (0, 1)]);
        let packed = redo.pack();
        assert!(packed.len() < 300, "{}", packed.len());
        assert_eq!(Redo::unpack(&packed).unwrap(), redo);
        for length in 0..packed.len() {
            assert!(Redo::unpack(&packed[..length]).is_err(), "{length}");
        }
        let dataset = DatasetAddress { owner: owner.clone(), name: DatasetName::parse("notes").unwrap() };
        let kept = Kept { pending: Pending::Here(redo), ..kept };
        assert!(kept.fits(&dataset));
        let encoded = kept.clone().encode(&dataset);
        let parsed = Kept::parse(&owner, &encoded.item, &encoded.line).unwrap();
        assert_eq!((&parsed.home, &parsed.head, &parsed.pending), (&kept.home, &kept.head, &kept.pending));
    }
}
