//! Moments of a dataset, and how they travel.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::model::id::{CommitTag, EpochId};
use crate::model::record::SyncCount;

/// One moment of a dataset: cursors, acknowledgements and `commit(expected)` carry it.
///
/// In MessagePack it is one binary: epoch, tag, and the big-endian bytes of the count without leading zeros. A check of
/// datasets that are in sync consists of little else. Positions with named fields, as in JSON, are read too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The epoch.
    pub epoch: EpochId,
    /// The sync count.
    pub count: SyncCount,
    /// The tag of the commit with that count.
    pub tag: CommitTag,
}

/// The form with named fields.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Position")]
struct Fields {
    epoch: EpochId,
    count: SyncCount,
    tag: CommitTag,
}

/// Bytes of epoch and tag.
const FIXED_LEN: usize = 16 + 8;

impl Position {
    fn to_bytes(self) -> Vec<u8> {
        let count = self.count.0.to_be_bytes();
        let zeros = count.iter().take_while(|byte| **byte == 0).count();
        [self.epoch.as_bytes().as_slice(), self.tag.as_bytes(), &count[zeros..]].concat()
    }

    fn parse_bytes(bytes: &[u8]) -> Option<Self> {
        let (fixed, count) = bytes.split_at_checked(FIXED_LEN)?;
        let (epoch, tag) = fixed.split_at(FIXED_LEN - 8);
        if count.len() > 8 || count.first() == Some(&0) {
            return None;
        }
        Some(Self {
            epoch: EpochId::parse_bytes(epoch).ok()?,
            tag: CommitTag::parse_bytes(tag).ok()?,
            count: SyncCount(count.iter().fold(0, |count, byte| count << 8 | u64::from(*byte))),
        })
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            let Self { epoch, count, tag } = *self;
            Fields { epoch, count, tag }.serialize(serializer)
        } else {
            serializer.serialize_bytes(&self.to_bytes())
        }
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Position;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("epoch, count and tag")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Position, E> {
                Position::parse_bytes(bytes).ok_or_else(|| E::invalid_value(de::Unexpected::Bytes(bytes), &self))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Position, A::Error> {
                let Fields { epoch, count, tag } = Fields::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Position { epoch, count, tag })
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_map(Visitor)
        } else {
            deserializer.deserialize_any(Visitor)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_short_in_messagepack_has_names_in_json_and_is_read_from_both() {
        for (count, length) in [(0, 26), (1, 27), (255, 27), (256, 28), (u64::MAX, 34)] {
            let (epoch, tag) = (EpochId::from_bytes([7; 16]), CommitTag::from_bytes([9; 8]));
            let position = Position { epoch, count: SyncCount(count), tag };
            let bytes = rmp_serde::to_vec_named(&position).unwrap();
            assert_eq!(bytes.len(), length);
            assert_eq!(rmp_serde::from_slice::<Position>(&bytes).unwrap(), position);
            let json = serde_json::to_string(&position).unwrap();
            let hex = "07".repeat(16);
            assert_eq!(json, format!(r#"{{"epoch":"{hex}","count":{count},"tag":"{}"}}"#, "09".repeat(8)));
            assert_eq!(serde_json::from_str::<Position>(&json).unwrap(), position);
            let named = rmp_serde::to_vec_named(&Fields { epoch, count: SyncCount(count), tag }).unwrap();
            assert_eq!(rmp_serde::from_slice::<Position>(&named).unwrap(), position);
        }
        for wrong in [&[7; 23][..], &[0; 25], &[7; 33]] {
            let mut bytes = vec![0xc4, wrong.len() as u8];
            bytes.extend(wrong);
            assert!(rmp_serde::from_slice::<Position>(&bytes).is_err(), "{wrong:?}");
        }
    }
}
