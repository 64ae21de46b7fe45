//! Items to types and back: records, remembered pushes, change ids. What a table holds is checked like everything that
//! comes from outside.

use std::fmt;

use sync_core::merge::push::RememberedPush;
use sync_core::model::{
    ChangeId, DeviceId, Owner, Record, RecordKey, RecordState, RemovalReason, SyncCount, Timestamp, Value,
};

use crate::clock::{RandomSource as _, SystemRandom};
use crate::store::dynamodb::failure::Failure;
use crate::store::dynamodb::pack::{Pack, Unpack};
use crate::store::dynamodb::table::{
    BY_COUNT, BY_KIND, Change, Item, KIND, PARTITION, SORT, bytes, bytes_if_any, bytes_of, hex, key, number, number_of,
    text, text_of,
};

/// Where the items of a dataset are, wherever a link has moved its address: `OWNER|ID`, by its first owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Home(String);

/// What one commit wrote beside its head: drawn anew for each.
pub(super) type CommitId = [u8; 8];

/// A value or an answer that is too large for its item. Its parts are in the partition of the commit that wrote it, and
/// nobody ever writes over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Apart {
    pub(super) commit: CommitId,
    pub(super) index: u64,
    pub(super) parts: u64,
    pub(super) bytes: u64,
}

/// Bytes, or where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Here(Vec<u8>),
    Apart(Apart),
}

/// A record as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredRecord {
    pub(super) key: RecordKey,
    pub(super) count: SyncCount,
    modified_by: Option<DeviceId>,
    pub(super) modified_at: Timestamp,
    device_time: Timestamp,
    pub(super) state: StoredState,
}

/// What is kept under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoredState {
    Value(Body),
    Removed(RemovalReason),
}

/// A remembered push as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredPush {
    pub(super) device: DeviceId,
    pub(super) sequence: u64,
    pub(super) count: SyncCount,
    hash: [u8; 32],
    pub(super) answer: Body,
}

/// A change id as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredChange {
    pub(super) id: ChangeId,
    pub(super) count: SyncCount,
    /// Change ids of a dataset are numbered; the latest ones count.
    pub(super) number: u64,
}

/// Bytes of a value, or of an answer, that stay in the item. Records are kept twice, in the table and in its index, and
/// an index confines all records of a dataset to 10 GB: so large values stay apart.
pub(super) const BODY_BYTES_MAX: usize = 3_500;
/// Bytes of a part of what is apart: an item has 400 KB at most.
pub(super) const PART_BYTES: usize = 380 << 10;

/// Attributes of records: who, when and why; the value, or where it is; where the value before it was.
const META: &str = "m";
const VALUE: &str = "v";
pub(super) const APART: &str = "b";
pub(super) const APART_BEFORE: &str = "p";
/// Attributes of pushes and change ids.
pub(super) const COUNT: &str = "c";
const NUMBER: &str = "n";
/// What a record has whose value before was not apart.
const NOTHING: &[u8] = &[0];

impl Home {
    /// A home for a new dataset.
    pub(super) fn draw(owner: &Owner) -> Self {
        let mut id = [0; 6];
        SystemRandom.fill(&mut id);
        Self::of(owner.as_str(), id)
    }

    pub(super) fn of(owner: &str, id: [u8; 6]) -> Self {
        Self(format!("{owner}|{}", hex(&id)))
    }

    /// The home of a partition such as `OWNER|ID|r0`, and what stands behind.
    pub(super) fn of_partition(partition: &str) -> Result<(Self, &str), Failure> {
        let (home, part) = partition.rsplit_once('|').ok_or_else(|| Failure::corrupt("a partition has no home"))?;
        Ok((Self(home.to_owned()), part))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Its first owner and its id there.
    pub(super) fn parts(&self) -> Result<(&str, [u8; 6]), Failure> {
        let wrong = || Failure::corrupt("a home has no id");
        let (owner, id) = self.0.rsplit_once('|').ok_or_else(wrong)?;
        let id = u64::from_str_radix(id, 16).map_err(Failure::corrupt)?.to_be_bytes();
        Ok((owner, id[2..].try_into().map_err(Failure::corrupt)?))
    }

    /// The partition of the records. Each deletion of the dataset begins another one.
    pub(super) fn records(&self, generation: u64) -> String {
        format!("{}|r{generation}", self.0)
    }

    /// The partition of pushes and change ids.
    pub(super) fn memory(&self) -> String {
        format!("{}|m", self.0)
    }

    /// The partition of what a commit wrote beside.
    pub(super) fn commit(&self, commit: CommitId) -> String {
        format!("{}|c{}", self.0, hex(&commit))
    }
}

impl fmt::Display for Home {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Apart {
    /// The keys of its parts.
    pub(super) fn keys(&self, home: &Home) -> impl Iterator<Item = (String, String)> {
        let (partition, index) = (home.commit(self.commit), self.index);
        (0..self.parts).map(move |part| (partition.clone(), part_key(index, part)))
    }

    pub(super) fn pack(&self) -> Vec<u8> {
        let mut pack = Pack::default();
        self.pack_into(&mut pack);
        pack.into_bytes()
    }

    fn pack_into<'p>(&self, pack: &'p mut Pack) -> &'p mut Pack {
        pack.fixed(&self.commit).number(self.index).number(self.parts).number(self.bytes)
    }

    /// What an attribute says, if it says anything.
    pub(super) fn unpack(bytes: &[u8]) -> Result<Option<Self>, Failure> {
        if bytes == NOTHING { Ok(None) } else { Self::unpack_from(&mut Unpack::new(bytes)).map(Some) }
    }

    fn unpack_from(unpack: &mut Unpack<'_>) -> Result<Self, Failure> {
        Ok(Self { commit: unpack.array()?, index: unpack.number()?, parts: unpack.number()?, bytes: unpack.number()? })
    }
}

/// The key of a part of what is apart.
pub(super) fn part_key(index: u64, part: u64) -> String {
    format!("V|{index:06}|{part:02}")
}

impl Body {
    /// How many bytes it has, wherever they are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Here(bytes) => bytes.len(),
            Self::Apart(apart) => usize::try_from(apart.bytes).unwrap_or(usize::MAX),
        }
    }

    fn pack_into<'p>(&self, pack: &'p mut Pack) -> &'p mut Pack {
        match self {
            Self::Here(bytes) => pack.number(0).bytes(bytes),
            Self::Apart(apart) => apart.pack_into(pack.number(1)),
        }
    }

    fn unpack_from(unpack: &mut Unpack<'_>) -> Result<Self, Failure> {
        match unpack.number()? {
            0 => Ok(Self::Here(unpack.bytes()?.to_vec())),
            _ => Ok(Self::Apart(Apart::unpack_from(unpack)?)),
        }
    }
}

impl StoredRecord {
    /// A record, with the body of its value.
    pub(super) fn new(record: &Record, body: Option<Body>) -> Self {
        let state = match (&record.state, body) {
            (RecordState::Removed(reason), _) => StoredState::Removed(*reason),
            (RecordState::Value(_), Some(body)) => StoredState::Value(body),
            (RecordState::Value(value), None) => StoredState::Value(Body::Here(value.to_bytes())),
        };
        Self {
            key: record.key.clone(),
            count: record.sync_count,
            modified_by: record.modified_by,
            modified_at: record.modified_at,
            device_time: record.device_time,
            state,
        }
    }

    /// The record, once the bytes of its value are there.
    pub(super) fn into_record(self, value: Option<&[u8]>) -> Result<Record, Failure> {
        let Self { key, count, modified_by, modified_at, device_time, state } = self;
        let state = match (state, value) {
            (StoredState::Removed(reason), _) => RecordState::Removed(reason),
            (_, Some(bytes)) => RecordState::Value(Value::from_bytes(bytes).map_err(Failure::corrupt)?),
            (StoredState::Value(Body::Here(bytes)), None) => {
                RecordState::Value(Value::from_bytes(&bytes).map_err(Failure::corrupt)?)
            }
            (StoredState::Value(Body::Apart(_)), None) => {
                return Err(Failure::corrupt("the bytes of a value are missing"));
            }
        };
        Ok(Record { key, state, sync_count: count, modified_by, modified_at, device_time })
    }

    /// Bytes of key and value.
    pub(super) fn bytes(&self) -> usize {
        let value = match &self.state {
            StoredState::Value(body) => body.len(),
            StoredState::Removed(_) => 0,
        };
        self.key.as_str().len() + value
    }

    pub(super) const fn is_removed(&self) -> bool {
        matches!(self.state, StoredState::Removed(_))
    }

    /// Where it stands in the order of count and key.
    pub(super) fn place(&self) -> String {
        place(self.count, self.key.as_str())
    }

    /// Puts it into place, unless there is something newer.
    pub(super) fn change(&self, home: &Home) -> Change {
        let Self { count, modified_by, modified_at, device_time, state, .. } = self;
        let mut meta = Pack::default();
        meta.optional(modified_by.as_ref(), |pack, device| pack.fixed(device.as_bytes()));
        meta.signed(modified_at.0).signed(device_time.0);
        let mut values = vec![(":ix", text(self.place())), (":none", bytes(NOTHING))];
        let mut update = format!("SET {BY_COUNT} = :ix, {META} = :m, {APART_BEFORE} = if_not_exists({APART}, :none)");
        match state {
            StoredState::Value(body) => {
                let (name, other, value) = match body {
                    Body::Here(value) => (VALUE, APART, bytes(value.as_slice())),
                    Body::Apart(apart) => (APART, VALUE, bytes(apart.pack())),
                };
                update += &format!(", {name} = :v REMOVE {other}, {KIND}, {BY_KIND}");
                values.push((":v", value));
            }
            StoredState::Removed(reason) => {
                meta.number(removal(*reason));
                update += &format!(", {KIND} = :g, {BY_KIND} = :gs REMOVE {VALUE}, {APART}");
                let age = sortable(*modified_at);
                values.push((":g", text(shard('T', home.as_str()))));
                values.push((":gs", text(format!("{age}|{:016x}|{home}", count.0))));
            }
        }
        values.push((":m", bytes(meta.into_bytes())));
        Change { update, condition: "attribute_not_exists(ix) OR ix < :ix", values }
    }

    /// The record in an item.
    pub(super) fn parse(item: &Item) -> Result<Self, Failure> {
        let mut meta = Unpack::new(bytes_of(item, META)?);
        let modified_by = meta.optional(Unpack::array)?.map(DeviceId::from_bytes);
        let (modified_at, device_time) = (Timestamp(meta.signed()?), Timestamp(meta.signed()?));
        let body = match (bytes_if_any(item, VALUE), bytes_if_any(item, APART)) {
            (Some(value), _) => Some(Body::Here(value.to_vec())),
            (None, Some(apart)) => Apart::unpack(apart)?.map(Body::Apart),
            (None, None) => None,
        };
        let state = match body {
            Some(body) => StoredState::Value(body),
            None => StoredState::Removed(parse_removal(meta.number()?)),
        };
        Ok(Self {
            key: RecordKey::parse(text_of(item, SORT)?).map_err(Failure::corrupt)?,
            count: count_of_place(text_of(item, BY_COUNT)?)?,
            modified_by,
            modified_at,
            device_time,
            state,
        })
    }

    pub(super) fn pack_into<'p>(&self, pack: &'p mut Pack) -> &'p mut Pack {
        let Self { key, count, modified_by, modified_at, device_time, state } = self;
        pack.bytes(key.as_str().as_bytes()).number(count.0);
        pack.optional(modified_by.as_ref(), |pack, device| pack.fixed(device.as_bytes()));
        pack.signed(modified_at.0).signed(device_time.0);
        match state {
            StoredState::Value(body) => body.pack_into(pack.number(0)),
            StoredState::Removed(reason) => pack.number(1 + removal(*reason)),
        }
    }

    pub(super) fn unpack_from(unpack: &mut Unpack<'_>) -> Result<Self, Failure> {
        Ok(Self {
            key: RecordKey::parse(unpack.text()?).map_err(Failure::corrupt)?,
            count: SyncCount(unpack.number()?),
            modified_by: unpack.optional(Unpack::array)?.map(DeviceId::from_bytes),
            modified_at: Timestamp(unpack.signed()?),
            device_time: Timestamp(unpack.signed()?),
            state: match unpack.number()? {
                0 => StoredState::Value(Body::unpack_from(unpack)?),
                reason => StoredState::Removed(parse_removal(reason - 1)),
            },
        })
    }
}

impl StoredPush {
    /// A push, with the body of its answer.
    pub(super) fn new(device: DeviceId, push: &RememberedPush, count: SyncCount, answer: Body) -> Self {
        Self { device, sequence: push.sequence, count, hash: push.hash, answer }
    }

    /// The push, once the bytes of its answer are there.
    pub(super) fn into_push(self, answer: Option<&[u8]>) -> Result<RememberedPush, Failure> {
        let answer = match (&self.answer, answer) {
            (_, Some(bytes)) => bytes,
            (Body::Here(bytes), None) => bytes,
            (Body::Apart(_), None) => return Err(Failure::corrupt("the bytes of an answer are missing")),
        };
        let answer = rmp_serde::from_slice(answer).map_err(Failure::corrupt)?;
        Ok(RememberedPush { sequence: self.sequence, hash: self.hash, answer })
    }

    /// Its key, in the partition of the memory.
    pub(super) fn sort_key(&self) -> String {
        format!("{}{:016x}", push_prefix(self.device), self.sequence)
    }

    pub(super) fn item(&self, home: &Home) -> Item {
        let mut item = key(&home.memory(), &self.sort_key());
        item.insert(COUNT.to_owned(), number(self.count.0));
        item.insert(META.to_owned(), bytes(self.hash));
        match &self.answer {
            Body::Here(answer) => item.insert(VALUE.to_owned(), bytes(answer.as_slice())),
            Body::Apart(apart) => item.insert(APART.to_owned(), bytes(apart.pack())),
        };
        item
    }

    /// The push in an item.
    pub(super) fn parse(item: &Item) -> Result<Self, Failure> {
        let wrong = || Failure::corrupt("the key of a push is not one");
        let mut parts = text_of(item, SORT)?.split('|').skip(1);
        let (device, sequence) = (parts.next().ok_or_else(wrong)?, parts.next().ok_or_else(wrong)?);
        let answer = match (bytes_if_any(item, VALUE), bytes_if_any(item, APART)) {
            (Some(value), _) => Body::Here(value.to_vec()),
            (None, Some(apart)) => Body::Apart(Apart::unpack(apart)?.ok_or_else(wrong)?),
            (None, None) => return Err(wrong()),
        };
        Ok(Self {
            device: DeviceId::parse(device).map_err(Failure::corrupt)?,
            sequence: u64::from_str_radix(sequence, 16).map_err(Failure::corrupt)?,
            count: SyncCount(number_of(item, COUNT)?),
            hash: bytes_of(item, META)?.try_into().map_err(Failure::corrupt)?,
            answer,
        })
    }

    pub(super) fn pack_into<'p>(&self, pack: &'p mut Pack) -> &'p mut Pack {
        pack.fixed(self.device.as_bytes()).number(self.sequence).number(self.count.0).fixed(&self.hash);
        self.answer.pack_into(pack)
    }

    pub(super) fn unpack_from(unpack: &mut Unpack<'_>) -> Result<Self, Failure> {
        Ok(Self {
            device: DeviceId::from_bytes(unpack.array()?),
            sequence: unpack.number()?,
            count: SyncCount(unpack.number()?),
            hash: unpack.array()?,
            answer: Body::unpack_from(unpack)?,
        })
    }
}

/// How the keys of a device's pushes begin.
pub(super) fn push_prefix(device: DeviceId) -> String {
    format!("P|{device}|")
}

/// The key of a change id, in the partition of the memory.
pub(super) fn change_key(id: ChangeId) -> String {
    format!("C|{id}")
}

impl StoredChange {
    pub(super) fn item(&self, home: &Home) -> Item {
        let mut item = key(&home.memory(), &change_key(self.id));
        item.insert(COUNT.to_owned(), number(self.count.0));
        item.insert(NUMBER.to_owned(), number(self.number));
        item
    }

    /// The change id in an item.
    pub(super) fn parse(item: &Item) -> Result<Self, Failure> {
        let id = text_of(item, SORT)?.strip_prefix("C|").unwrap_or_default();
        Ok(Self {
            id: ChangeId::parse(id).map_err(Failure::corrupt)?,
            count: SyncCount(number_of(item, COUNT)?),
            number: number_of(item, NUMBER)?,
        })
    }

    pub(super) fn pack_into<'p>(&self, pack: &'p mut Pack) -> &'p mut Pack {
        pack.fixed(self.id.as_bytes()).number(self.count.0).number(self.number)
    }

    pub(super) fn unpack_from(unpack: &mut Unpack<'_>) -> Result<Self, Failure> {
        Ok(Self {
            id: ChangeId::from_bytes(unpack.array()?),
            count: SyncCount(unpack.number()?),
            number: unpack.number()?,
        })
    }
}

/// Where a record stands in the order of count and key.
pub(super) fn place(count: SyncCount, key: &str) -> String {
    format!("{:016x}{key}", count.0)
}

fn count_of_place(place: &str) -> Result<SyncCount, Failure> {
    let count = place.get(..16).ok_or_else(|| Failure::corrupt("a place has no count"))?;
    u64::from_str_radix(count, 16).map(SyncCount).map_err(Failure::corrupt)
}

/// A time as text that sorts.
pub(super) fn sortable(time: Timestamp) -> String {
    format!("{:016x}", time.0 as u64 ^ 1 << 63)
}

/// In how many partitions of the index the items of one kind are.
pub(super) const SHARDS: u64 = 16;

/// The partition of the index for an item of a kind.
pub(super) fn shard(kind: char, name: &str) -> String {
    // FNV-1a: it only has to spread.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{kind}{:x}", (hash >> 32) % SHARDS)
}

/// The partition of a key.
pub(super) fn partition_of(item: &Item) -> Result<&str, Failure> {
    text_of(item, PARTITION)
}

const fn removal(reason: RemovalReason) -> u64 {
    match reason {
        RemovalReason::Removed => 0,
        RemovalReason::Left => 1,
        _ => 2,
    }
}

const fn parse_removal(number: u64) -> RemovalReason {
    match number {
        0 => RemovalReason::Removed,
        1 => RemovalReason::Left,
        _ => RemovalReason::Unknown,
    }
}
