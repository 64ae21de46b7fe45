//! An order-independent hash of a dataset's live records.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::model::record::{Record, SyncCount};
use crate::model::value::Value;

/// The sum, modulo 2^128, of a hash of each live record's key, count and value. It is kept up to date by adding and
/// subtracting single records, on the server and on each device, and tells whether they hold the same.
///
/// It guards against mistakes, not against an attacker: whoever may write a dataset may make it anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u128);

impl Digest {
    /// The digest with a record taken in; tombstones count for nothing.
    #[must_use]
    pub fn plus(self, record: &Record) -> Self {
        Self(self.0.wrapping_add(hash(record)))
    }

    /// The digest with a record taken out.
    #[must_use]
    pub fn minus(self, record: &Record) -> Self {
        Self(self.0.wrapping_sub(hash(record)))
    }

    /// The digest of one live record.
    pub fn of(key: &str, sync_count: SyncCount, value: &Value) -> Self {
        let mut hasher = Sha256::new();
        hasher.update((key.len() as u32).to_be_bytes());
        hasher.update(key.as_bytes());
        hasher.update(sync_count.0.to_be_bytes());
        hasher.update(value.to_bytes());
        let bytes: [u8; 32] = hasher.finalize().into();
        let mut head = [0; 16];
        head.copy_from_slice(&bytes[..16]);
        Self(u128::from_be_bytes(head))
    }

    /// The 16 bytes of the digest.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The digest with these 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

fn hash(record: &Record) -> u128 {
    record.value().map_or(0, |value| Digest::of(record.key.as_str(), record.sync_count, value).0)
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

/// Travels like a random id: bytes, or hex where the format is text.
impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        crate::model::id::EpochId::from_bytes(self.to_bytes()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::model::id::EpochId::deserialize(deserializer).map(|it| Self::from_bytes(*it.as_bytes()))
    }
}
