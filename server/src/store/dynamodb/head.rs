//! The item that says what a dataset is. With it travels the last commit: who finds it puts it into place.

use std::collections::BTreeMap;

use sync_core::merge::push::Head;
use sync_core::model::{
    CommitTag, DatasetName, DeviceId, Digest, EpochEntry, EpochId, EpochReason, Lineage, Owner, SyncCount, Timestamp,
};

use crate::clock::{RandomSource as _, SystemRandom};
use crate::store::DatasetAddress;
use crate::store::dynamodb::failure::Failure;
use crate::store::dynamodb::items::{CommitId, Home, shard};
use crate::store::dynamodb::pack::{Pack, Unpack};
use crate::store::dynamodb::redo::Redo;
use crate::store::dynamodb::table::{
    BY_KIND, Expression, Item, KIND, Query, SORT, bytes, bytes_if_any, bytes_of, hex, key, text, text_if_any, text_of,
};

/// A dataset as it is kept.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) home: Home,
    /// How often the dataset was deleted: the records of each time are in a partition of their own.
    pub(super) generation: u64,
    pub(super) head: Head,
    /// The number of the next change id.
    pub(super) next_change: u64,
    /// The name that it had, if a link gave it another one.
    pub(super) former_name: Option<DatasetName>,
    /// When tombstones were purged last.
    pub(super) purged_at: Timestamp,
    /// The last commit.
    pub(super) pending: Pending,
    /// Whether a link is moving it.
    pub(super) mark: Option<Mark>,
    /// Drawn at each write.
    pub(super) version: CommitId,
    /// The epochs that are beside it.
    pub(super) line: Line,
    /// Items of epochs that nobody refers to any more.
    pub(super) leftovers: Vec<String>,
}

/// The last commit, as long as nobody has said that it is in place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pending {
    /// It is.
    Nothing,
    /// This is it, and it may or may not be in place.
    Here(Redo),
    /// It is too large for the head, in so many pieces, and perhaps not yet in place.
    Staged { commit: CommitId, pieces: u64 },
}

/// What a link does with a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It will be at another owner. It is read here until then, and not written.
    Leaving { target: Owner },
    /// It is still at another owner, under this name, and not seen here before it has left.
    Arriving { source: Owner, name: DatasetName },
}

/// Epochs that are not in the head itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    /// Which items they are in.
    id: [u8; 4],
    parts: u64,
    entries: Vec<EpochEntry>,
}

/// A dataset in the form of its items.
pub(super) struct EncodedHead {
    pub(super) item: Item,
    /// To be written before.
    pub(super) line: Vec<Item>,
    /// To be deleted after.
    pub(super) leftovers: Vec<String>,
}

/// Attributes of a head: its version, itself, the last commit, what a link does with it.
const VERSION: &str = "w";
const HEAD: &str = "h";
const LAST: &str = "q";
pub(super) const MARK: &str = "ln";

/// How the keys of heads begin.
pub(super) const PREFIX: &str = "D|";
/// The first byte of a packed head.
const FORMAT: u64 = 1;
/// Epochs that stay in the head. One begins each day.
const ENTRIES_MAX: usize = 8;
/// Bytes of epochs in one item.
const LINE_BYTES: usize = 380 << 10;
/// Bytes of a head with its last commit: a push after it costs three units for it, and reading it one.
const ITEM_BYTES_MAX: usize = 3_000;

impl Kept {
    /// A dataset that is not there yet.
    pub(super) fn new(owner: &Owner) -> Self {
        Self {
            home: Home::draw(owner),
            generation: 0,
            head: Head::default(),
            next_change: 0,
            former_name: None,
            purged_at: Timestamp(0),
            pending: Pending::Nothing,
            mark: None,
            version: [0; 8],
            line: Line::default(),
            leftovers: Vec::new(),
        }
    }

    /// Another version of it, to be written.
    pub(super) fn next(&self) -> Self {
        Self { version: draw(), ..self.clone() }
    }

    /// The same, to be written under another address.
    pub(super) fn moved(&self) -> Self {
        Self { line: Line::default(), leftovers: Vec::new(), ..self.next() }
    }

    /// The condition that it is as it was read.
    pub(super) fn unchanged(&self) -> Expression {
        Expression::of("w = :seen", vec![(":seen", bytes(self.version))])
    }

    /// The same, for updates, whose value is added by whoever makes them.
    pub(super) const UNCHANGED: &'static str = "w = :seen";

    /// Whether there is room for its last commit in the head.
    pub(super) fn fits(&self, dataset: &DatasetAddress) -> bool {
        let size = |item: &Item| item.iter().map(|(name, value)| name.len() + size(value)).sum::<usize>();
        size(&self.clone().encode(dataset).item) <= ITEM_BYTES_MAX
    }

    /// Its items.
    pub(super) fn encode(mut self, dataset: &DatasetAddress) -> EncodedHead {
        let entries = &self.head.lineage.entries;
        let mut leftovers = std::mem::take(&mut self.leftovers);
        let mut items = Vec::new();
        let is_kept = entries.starts_with(&self.line.entries) && entries.len() <= self.line.entries.len() + ENTRIES_MAX;
        if !is_kept {
            leftovers.extend(self.line.keys(&dataset.name));
            self.line = Line::default();
            if entries.len() > ENTRIES_MAX {
                let mut pack = Pack::default();
                pack_entries(&mut pack, entries);
                let packed = pack.into_bytes();
                let mut id = [0; 4];
                SystemRandom.fill(&mut id);
                self.line = Line { id, parts: packed.len().div_ceil(LINE_BYTES) as u64, entries: entries.clone() };
                for (key_of_part, part) in self.line.keys(&dataset.name).zip(packed.chunks(LINE_BYTES)) {
                    let mut item = key(dataset.owner.as_str(), &key_of_part);
                    item.insert(HEAD.to_owned(), bytes(part));
                    items.push(item);
                }
            }
        }
        EncodedHead { item: self.item(dataset), line: items, leftovers }
    }

    fn item(&self, dataset: &DatasetAddress) -> Item {
        let Self { home, generation, head, next_change, former_name, purged_at, pending, mark, version, line, .. } =
            self;
        let Head { lineage, floor, digest, records, bytes: size, modified_at, modified_by } = head;
        let (owner, id) = home.parts().expect("homes are made of an owner and an id");
        let mut pack = Pack::default();
        pack.number(FORMAT).fixed(&id);
        pack.optional((owner != dataset.owner.as_str()).then_some(owner), |pack, owner| pack.bytes(owner.as_bytes()));
        pack.number(*generation).number(floor.0).fixed(&digest.to_bytes()).number(*records).number(*size);
        pack.signed(modified_at.0).signed(purged_at.0).number(*next_change);
        pack.optional(modified_by.as_ref(), |pack, device| pack.fixed(device.as_bytes()));
        pack.optional(former_name.as_ref(), |pack, name| pack.bytes(name.as_str().as_bytes()));
        pack.number(line.parts).fixed(&line.id);
        pack_entries(&mut pack, &lineage.entries[line.entries.len()..]);
        pack.number(lineage.count.0);
        pack_tags(&mut pack, &lineage.tags);
        let mut item = key(dataset.owner.as_str(), &sort_key(&dataset.name));
        match pending {
            Pending::Nothing => pack.number(0),
            Pending::Here(redo) => {
                item.insert(LAST.to_owned(), bytes(redo.pack()));
                pack.number(1)
            }
            Pending::Staged { commit, pieces } => pack.number(2).fixed(commit).number(*pieces),
        };
        item.insert(HEAD.to_owned(), bytes(pack.into_bytes()));
        item.insert(VERSION.to_owned(), bytes(*version));
        if let Some(mark) = mark {
            item.insert(MARK.to_owned(), text(mark.to_text()));
        }
        let listed = listed(dataset);
        item.insert(KIND.to_owned(), text(shard('A', &listed)));
        item.insert(BY_KIND.to_owned(), text(listed));
        item
    }

    /// The dataset of these items: its head, and what is beside it.
    pub(super) fn parse(owner: &Owner, item: &Item, beside: &[Item]) -> Result<Self, Failure> {
        let mut unpack = Unpack::new(bytes_of(item, HEAD)?);
        if unpack.number()? != FORMAT {
            return Err(Failure::corrupt("a head is of a newer version"));
        }
        let id = unpack.array()?;
        let home = match unpack.optional(Unpack::text)? {
            Some(owner) => Home::of(owner, id),
            None => Home::of(owner.as_str(), id),
        };
        let (generation, floor) = (unpack.number()?, SyncCount(unpack.number()?));
        let digest = Digest::from_bytes(unpack.array()?);
        let (records, size) = (unpack.number()?, unpack.number()?);
        let (modified_at, purged_at) = (Timestamp(unpack.signed()?), Timestamp(unpack.signed()?));
        let next_change = unpack.number()?;
        let modified_by = unpack.optional(Unpack::array)?.map(DeviceId::from_bytes);
        let former_name =
            unpack.optional(Unpack::text)?.map(DatasetName::parse).transpose().map_err(Failure::corrupt)?;
        let (parts, line_id) = (unpack.number()?, unpack.array()?);
        let (line, leftovers) = Line::parse(item, beside, line_id, parts)?;
        let mut entries = line.entries.clone();
        entries.extend(unpack.all(unpack_entry)?);
        let count = SyncCount(unpack.number()?);
        let tags = unpack_tags(&mut unpack)?;
        let pending = match unpack.number()? {
            0 => Pending::Nothing,
            1 => Pending::Here(Redo::unpack(bytes_of(item, LAST)?)?),
            _ => Pending::Staged { commit: unpack.array()?, pieces: unpack.number()? },
        };
        let lineage = Lineage { entries, count, tags };
        Ok(Self {
            home,
            generation,
            head: Head { lineage, floor, digest, records, bytes: size, modified_at, modified_by },
            next_change,
            former_name,
            purged_at,
            pending,
            mark: text_if_any(item, MARK).map(Mark::parse).transpose()?,
            version: bytes_of(item, VERSION)?.try_into().map_err(Failure::corrupt)?,
            line,
            leftovers,
        })
    }
}

impl Line {
    fn keys(&self, name: &DatasetName) -> impl Iterator<Item = String> + use<> {
        let prefix = format!("{}!{}!", sort_key(name), hex(&self.id));
        (0..self.parts).map(move |part| format!("{prefix}{part:04}"))
    }

    /// The epochs that a head refers to, and the keys of what it does not refer to. If they are not there, the head was
    /// written anew meanwhile, and is read again.
    fn parse(head: &Item, beside: &[Item], id: [u8; 4], parts: u64) -> Result<(Self, Vec<String>), Failure> {
        let prefix = format!("{}!{}!", text_of(head, SORT)?, hex(&id));
        let (mut packed, mut found, mut leftovers) = (Vec::new(), 0, Vec::new());
        for item in beside {
            let key = text_of(item, SORT)?;
            if parts > 0 && key.starts_with(&prefix) {
                found += 1;
                packed.extend_from_slice(bytes_if_any(item, HEAD).unwrap_or_default());
            } else {
                leftovers.push(key.to_owned());
            }
        }
        if found != parts {
            return Err(Failure::Busy);
        }
        let entries = if parts == 0 { Vec::new() } else { Unpack::new(&packed).all(unpack_entry)? };
        Ok((Self { id, parts, entries }, leftovers))
    }
}

impl Mark {
    fn to_text(&self) -> String {
        match self {
            Self::Leaving { target } => format!("L|{target}"),
            Self::Arriving { source, name } => format!("A|{source}|{name}"),
        }
    }

    /// Reads what [`Mark::to_text`] has written.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let owner = |text: &str| Owner::parse(text).map_err(Failure::corrupt);
        match text.split('|').collect::<Vec<_>>()[..] {
            ["L", target] => Ok(Self::Leaving { target: owner(target)? }),
            ["A", source, name] => {
                Ok(Self::Arriving { source: owner(source)?, name: DatasetName::parse(name).map_err(Failure::corrupt)? })
            }
            _ => Err(Failure::corrupt("a mark of a link is not one")),
        }
    }
}

/// The key of a head, in the partition of its owner.
pub(super) fn sort_key(name: &DatasetName) -> String {
    format!("{PREFIX}{name}")
}

/// The name of a dataset by the key of its head; nothing: it is the key of what is beside one.
pub(super) fn name_of(sort_key: &str) -> Result<Option<DatasetName>, Failure> {
    let name = sort_key.strip_prefix(PREFIX).ok_or_else(|| Failure::corrupt("a head has the key of something else"))?;
    // No name has a `!` in it.
    if name.contains('!') { Ok(None) } else { DatasetName::parse(name).map(Some).map_err(Failure::corrupt) }
}

/// The head of a dataset and what is beside it.
pub(super) fn query(dataset: &DatasetAddress) -> Query<'_> {
    let key = sort_key(&dataset.name);
    // `!` comes before everything that a name is made of.
    Query::between(dataset.owner.as_str(), key.clone(), format!("{key}!~"))
}

/// Heads of an owner, in order of their names, with what is beside them.
pub(super) fn query_of<'o>(owner: &'o Owner, after: Option<&DatasetName>) -> Query<'o> {
    let from = after.map_or_else(|| PREFIX.to_owned(), |after| format!("{}!~", sort_key(after)));
    Query::between(owner.as_str(), from, format!("{PREFIX}~"))
}

/// Where a dataset stands in the order of all.
pub(super) fn listed(dataset: &DatasetAddress) -> String {
    // `!` comes before everything that an owner is made of.
    format!("{}!{}", dataset.owner, dataset.name)
}

/// Draws a version.
pub(super) fn draw() -> CommitId {
    let mut version = [0; 8];
    SystemRandom.fill(&mut version);
    version
}

fn size(value: &aws_sdk_dynamodb::types::AttributeValue) -> usize {
    value.as_b().map(|bytes| bytes.as_ref().len()).or_else(|_| value.as_s().map(String::len)).unwrap_or_default()
}

fn pack_entries(pack: &mut Pack, entries: &[EpochEntry]) {
    pack.all(entries, |pack, EpochEntry { epoch, start, why }| {
        pack.fixed(epoch.as_bytes()).number(start.0).number(reason(*why))
    });
}

fn unpack_entry(unpack: &mut Unpack<'_>) -> Result<EpochEntry, Failure> {
    Ok(EpochEntry {
        epoch: EpochId::from_bytes(unpack.array()?),
        start: SyncCount(unpack.number()?),
        why: parse_reason(unpack.number()?),
    })
}

/// Tags of counts that follow each other are packed together.
fn pack_tags(pack: &mut Pack, tags: &BTreeMap<SyncCount, CommitTag>) {
    let mut runs: Vec<(u64, Vec<CommitTag>)> = Vec::new();
    for (count, tag) in tags {
        match runs.last_mut() {
            Some((start, run)) if *start + run.len() as u64 == count.0 => run.push(*tag),
            _ => runs.push((count.0, vec![*tag])),
        }
    }
    pack.all(&runs, |pack, (start, run)| pack.number(*start).all(run, |pack, tag| pack.fixed(tag.as_bytes())));
}

fn unpack_tags(unpack: &mut Unpack<'_>) -> Result<BTreeMap<SyncCount, CommitTag>, Failure> {
    let runs = unpack.all(|unpack| {
        let start = unpack.number()?;
        Ok((start, unpack.all(|unpack| Ok(CommitTag::from_bytes(unpack.array()?)))?))
    })?;
    let each = runs.into_iter().flat_map(|(start, run)| (start..).map(SyncCount).zip(run));
    Ok(each.collect())
}

const fn reason(why: EpochReason) -> u64 {
    match why {
        EpochReason::Created => 1,
        EpochReason::Day => 2,
        EpochReason::Ahead => 3,
        EpochReason::Fenced => 4,
        EpochReason::RolledBack => 5,
        EpochReason::Deleted => 6,
        EpochReason::Erased => 7,
        _ => 0,
    }
}

const fn parse_reason(number: u64) -> EpochReason {
    match number {
        1 => EpochReason::Created,
        2 => EpochReason::Day,
        3 => EpochReason::Ahead,
        4 => EpochReason::Fenced,
        5 => EpochReason::RolledBack,
        6 => EpochReason::Deleted,
        7 => EpochReason::Erased,
        _ => EpochReason::Unknown,
    }
}
