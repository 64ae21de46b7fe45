//! Pages and pushes by column: how records and groups travel in MessagePack.
//!
//! What stands in one column is alike, so it is written as differences, dictionaries and runs, and what is left
//! compresses well. A block is one extension value of MessagePack; in JSON, records and groups stay rows, for people.
//!
//! ```text
//! block    = version, values, bytes, body
//! column   = runs of kinds, integers, floats, texts, bytes, lists, maps, unknown kinds
//! integers = 0, each | 1, each as the difference from the one before
//! floats   = 0, eight bytes each | 1 + digits, the integers that they are with so many decimal digits
//! texts    = 0, lengths, bytes | 1, distinct texts in order of first use, which of them each is
//!          | 2, half as long, for hexadecimal digits | 3, 16 bytes each, for UUIDs
//! lists    = lengths, column of all elements
//! maps     = 0, names in order, for each: who has it, column of their fields | 1, lengths, names, column
//! keys     = 0, how much each shares with the one before, lengths, bytes of the rest | 3, 16 bytes each, for UUIDs
//!          | 4, what all begin with, how many digits all end with, and the integers that these are
//! ```
//!
//! Numbers are LEB128, signed ones in zigzag. A block says how many values and bytes of text it unfolds to, and unfolds
//! to exactly that, so that what it will cost is known before it is read: [`cost`]. Writing is a function of the
//! content alone; of the two ways to write something, the shorter one is taken, and the first if both are equal.

mod groups;
mod packed;
mod reader;
mod records;
mod values;
mod writer;

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::protocol::columns::reader::Reader;
use crate::protocol::columns::writer::Writer;

/// The extension type of a block.
const EXTENSION: i8 = 0x43;

/// The one way to write a block so far.
const VERSION: u64 = 1;

/// Why bytes are not a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidBlock {
    #[error("a block of columns ends too early")]
    Short,
    #[error("a block of columns has {0}")]
    Wrong(&'static str),
    #[error("a block of columns is of version {0}")]
    Version(u64),
}

/// What travels by column.
pub(crate) trait Columns: Sized {
    fn write(rows: &[Self], to: &mut Writer);
    fn read(from: &mut Reader<'_>) -> Result<Vec<Self>, InvalidBlock>;
}

/// What a block unfolds to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Records, patches, and values in them.
    pub(crate) values: usize,
    /// Bytes of keys, names, texts and byte strings.
    pub(crate) bytes: usize,
}

/// What a value of MessagePack says that it unfolds to, given its marker and what is behind that. Reading a block costs
/// no more; what is none, or cannot be read as one, costs nothing.
pub(crate) fn cost(marker: u8, content: &[u8]) -> Cost {
    let is_extension = matches!(marker, 0xc7..=0xc9 | 0xd4..=0xd8);
    let block = content.split_first().filter(|(kind, _)| is_extension && **kind == EXTENSION as u8);
    block.and_then(|(_, block)| Reader::open(block).ok()).map(|block| block.left()).unwrap_or_default()
}

fn to_block<T: Columns>(rows: &[T]) -> Vec<u8> {
    let mut writer = Writer::default();
    T::write(rows, &mut writer);
    writer.into_block()
}

fn from_block<T: Columns>(block: &[u8]) -> Result<Vec<T>, InvalidBlock> {
    let mut reader = Reader::open(block)?;
    let rows = T::read(&mut reader)?;
    reader.finish()?;
    Ok(rows)
}

/// For serde: rows for people, and a block for machines.
pub(crate) fn serialize<T: Columns + Serialize, S: Serializer>(rows: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        return rows.serialize(serializer);
    }
    let block = to_block(rows);
    serializer.serialize_newtype_struct(rmp_serde::MSGPACK_EXT_STRUCT_NAME, &(EXTENSION, Raw(&block)))
}

/// For serde, the other way.
pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Columns + Deserialize<'de>,
    D: Deserializer<'de>,
{
    if deserializer.is_human_readable() {
        return Vec::deserialize(deserializer);
    }
    deserializer.deserialize_newtype_struct(rmp_serde::MSGPACK_EXT_STRUCT_NAME, Block(PhantomData))
}

struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

struct Block<T>(PhantomData<T>);

impl<'de, T: Columns> Visitor<'de> for Block<T> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a block of columns: MessagePack's extension type {EXTENSION}")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_tuple(2, self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Vec<T>, A::Error> {
        let unexpected = || de::Error::custom("expected a block of columns");
        let kind: i8 = parts.next_element()?.ok_or_else(unexpected)?;
        if kind != EXTENSION {
            return Err(unexpected());
        }
        parts.next_element_seed(Content(self.0))?.ok_or_else(unexpected)
    }
}

struct Content<T>(PhantomData<T>);

impl<'de, T: Columns> de::DeserializeSeed<'de> for Content<T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<T: Columns> Visitor<'_> for Content<T> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the bytes of a block")
    }

    fn visit_bytes<E: de::Error>(self, block: &[u8]) -> Result<Vec<T>, E> {
        from_block(block).map_err(E::custom)
    }
}
