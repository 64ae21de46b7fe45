//! Names and random ids. Ids are bytes in MessagePack and lower-case hex in JSON.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::model::limits;
use crate::model::time::Random;

/// Why a name was refused; the text says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not valid: {rule}")]
pub struct InvalidName {
    /// Which name it was.
    pub what: &'static str,
    /// What a valid one looks like.
    pub rule: String,
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Draws a new id.
            pub fn random(random: &mut dyn Random) -> Self {
                let mut bytes = [0; $len];
                random.fill(&mut bytes);
                Self(bytes)
            }

            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The id with these bytes.
            ///
            /// # Errors
            /// If it is not exactly as long as an id.
            pub fn parse_bytes(bytes: &[u8]) -> Result<Self, InvalidName> {
                let bytes = bytes.try_into().map_err(|_| InvalidName {
                    what: stringify!($name),
                    rule: format!("it has {} bytes", $len),
                })?;
                Ok(Self(bytes))
            }

            /// Reads the hex form.
            ///
            /// # Errors
            /// If it is not exactly as long as an id, or not hex.
            pub fn parse(hex: &str) -> Result<Self, InvalidName> {
                let wrong = || InvalidName {
                    what: stringify!($name),
                    rule: format!("it has {} hex digits", $len * 2),
                };
                if hex.len() != $len * 2 || !hex.is_ascii() {
                    return Err(wrong());
                }
                let mut bytes = [0; $len];
                for (at, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).map_err(|_| wrong())?;
                }
                Ok(Self(bytes))
            }

            /// The bytes of the id.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, formatter)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $name;

                    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(formatter, "{} bytes, in hex where the format is text", $len)
                    }

                    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<$name, E> {
                        $name::parse_bytes(bytes).map_err(E::custom)
                    }

                    fn visit_str<E: de::Error>(self, hex: &str) -> Result<$name, E> {
                        $name::parse(hex).map_err(E::custom)
                    }
                }
                if deserializer.is_human_readable() {
                    deserializer.deserialize_str(Visitor)
                } else {
                    deserializer.deserialize_bytes(Visitor)
                }
            }
        }
    };
}

random_id!(
    /// A span of a dataset's sync counts; see [`Lineage`](crate::model::Lineage).
    EpochId,
    16
);
random_id!(
    /// Drawn by each commit; tells two histories apart that count alike.
    CommitTag,
    8
);
random_id!(
    /// One installation that syncs.
    DeviceId,
    16
);
random_id!(
    /// The content of one group, redrawn at each write to it, so that it is applied once whoever sends it.
    ChangeId,
    16
);

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Parses a name.
            ///
            /// # Errors
            /// Says which form a valid one has.
            pub fn parse(raw: impl Into<String>) -> Result<Self, InvalidName> {
                let raw = raw.into();
                let check: fn(&str) -> Result<(), String> = $check;
                match check(&raw) {
                    Ok(()) => Ok(Self(raw)),
                    Err(rule) => Err(InvalidName { what: $what, rule }),
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    };
}

name!(
    /// The key of a record: 1 to 1,000 bytes of UTF-8, compared by bytes.
    RecordKey,
    "the record key",
    |raw| match raw.len() {
        1..=limits::KEY_BYTES_MAX => Ok(()),
        _ => Err(format!("it has 1 to {} bytes of UTF-8", limits::KEY_BYTES_MAX)),
    }
);
name!(
    /// The name of a dataset, by Cognito's pattern: 1 to 128 of letters, digits and `_ . : -`.
    DatasetName,
    "the dataset name",
    |raw| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
        if matches!(raw.len(), 1..=limits::DATASET_NAME_BYTES_MAX) && raw.bytes().all(allowed) {
            Ok(())
        } else {
            Err(format!(
                "it has 1 to {} letters, digits, `_`, `.`, `:` or `-`",
                limits::DATASET_NAME_BYTES_MAX
            ))
        }
    }
);
name!(
    /// Whom a dataset belongs to. On a server an identity (`REGION:UUID`, as Cognito writes it); on a device
    /// `local:<uuid>` before sign-in and `login:<hash>` afterwards, because the login is known offline and the
    /// identity is not.
    Owner,
    "the owner",
    |raw| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        match raw.split_once(':') {
            Some((scope, id))
                if !scope.is_empty()
                    && !id.is_empty()
                    && raw.len() <= limits::OWNER_BYTES_MAX
                    && scope.bytes().all(allowed)
                    && id.bytes().all(allowed) =>
            {
                Ok(())
            }
            _ => Err(format!(
                "it is written `scope:id`, at most {} letters, digits, `_` or `-`",
                limits::OWNER_BYTES_MAX
            )),
        }
    }
);
