//! Messages as MessagePack (named fields) and as JSON, and the checks that come before decoding.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::limits::{MESSAGE_BYTES_MAX, MESSAGE_DEPTH_MAX, MESSAGE_VALUES_MAX};
use crate::model::value::InvalidValue;
#[cfg(feature = "json")]
use crate::model::value::json_integers_fit;
use crate::protocol::columns::{self, Cost};

/// How a message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// MessagePack, the default.
    MessagePack,
    /// JSON, for people and for browsers' tools. With the feature `json`.
    #[cfg(feature = "json")]
    Json,
}

impl Format {
    /// The media type for `Content-Type` and `Accept`.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::MessagePack => "application/msgpack",
            #[cfg(feature = "json")]
            Self::Json => "application/json",
        }
    }

    /// The format of a media type, parameters ignored.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        match media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack" => Some(Self::MessagePack),
            #[cfg(feature = "json")]
            "application/json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMessage {
    /// The bytes end too early, go on too long, or are not of the format.
    #[error("the message is not well-formed: {0}")]
    Malformed(String),
    /// Deeper than any message needs.
    #[error("the message is nested more than {MESSAGE_DEPTH_MAX} deep")]
    TooDeep,
    /// More values than memory is set aside for.
    #[error("the message has more than {MESSAGE_VALUES_MAX} values")]
    TooManyValues,
    /// More bytes of keys and texts than memory is set aside for.
    #[error("the message has more than {MESSAGE_BYTES_MAX} bytes of keys, names and texts")]
    TooLarge,
}

/// Writes a message.
pub fn encode<T: Serialize>(message: &T, format: Format) -> Vec<u8> {
    match format {
        Format::MessagePack => rmp_serde::to_vec_named(message).expect("messages have no unencodable parts"),
        #[cfg(feature = "json")]
        Format::Json => serde_json::to_vec(message).expect("messages have no unencodable parts"),
    }
}

/// Reads a message. Nesting and the number of values are checked first, so that no hostile bytes cost more memory than
/// the limits allow.
///
/// # Errors
/// Says what is wrong with the bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], format: Format) -> Result<T, InvalidMessage> {
    match format {
        Format::MessagePack => {
            scan_message_pack(bytes)?;
            rmp_serde::from_slice(bytes).map_err(|error| malformed(&error))
        }
        #[cfg(feature = "json")]
        Format::Json => {
            let text = std::str::from_utf8(bytes).map_err(|error| malformed(&error))?;
            scan_json(text)?;
            json_integers_fit(text).map_err(|error| malformed(&error))?;
            serde_json::from_str(text).map_err(|error| malformed(&error))
        }
    }
}

fn malformed(error: &dyn std::fmt::Display) -> InvalidMessage {
    InvalidMessage::Malformed(error.to_string())
}

/// Walks over MessagePack without building anything: exactly one value, not too deep, not too many.
fn scan_message_pack(bytes: &[u8]) -> Result<(), InvalidMessage> {
    let short = || InvalidMessage::Malformed("the bytes end too early".into());
    let mut rest = bytes;
    // How many values are still to come on each level.
    let mut open: Vec<u64> = vec![1];
    let (mut values, mut bytes_unfolded) = (0_usize, 0_usize);
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        values += 1;
        let (&marker, after) = rest.split_first().ok_or_else(short)?;
        rest = after;
        let mut length = |size: usize| -> Result<u64, InvalidMessage> {
            let (number, after) = rest.split_at_checked(size).ok_or_else(short)?;
            rest = after;
            Ok(number.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
        };
        let (skip, children) = match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => (0, 0),
            0x80..=0x8f => (0, 2 * u64::from(marker & 0x0f)),
            0x90..=0x9f => (0, u64::from(marker & 0x0f)),
            0xa0..=0xbf => (u64::from(marker & 0x1f), 0),
            0xc1 => return Err(InvalidMessage::Malformed("0xc1 is no marker".into())),
            0xc4 | 0xd9 => (length(1)?, 0),
            0xc5 | 0xda => (length(2)?, 0),
            0xc6 | 0xdb => (length(4)?, 0),
            0xc7 => (length(1)? + 1, 0),
            0xc8 => (length(2)? + 1, 0),
            0xc9 => (length(4)? + 1, 0),
            0xcc | 0xd0 => (1, 0),
            0xcd | 0xd1 => (2, 0),
            0xca | 0xce | 0xd2 => (4, 0),
            0xcb | 0xcf | 0xd3 => (8, 0),
            0xd4 => (2, 0),
            0xd5 => (3, 0),
            0xd6 => (5, 0),
            0xd7 => (9, 0),
            0xd8 => (17, 0),
            0xdc => (0, length(2)?),
            0xdd => (0, length(4)?),
            0xde => (0, 2 * length(2)?),
            0xdf => (0, 2 * length(4)?),
        };
        let skip = usize::try_from(skip).map_err(|_| short())?;
        let (skipped, after) = rest.split_at_checked(skip).ok_or_else(short)?;
        rest = after;
        let Cost { values: more, bytes: unfolded } = columns::cost(marker, skipped);
        values = values.saturating_add(more);
        bytes_unfolded = bytes_unfolded.saturating_add(unfolded);
        if bytes_unfolded > MESSAGE_BYTES_MAX {
            return Err(InvalidMessage::TooLarge);
        }
        // The decoder would take such a text for bytes.
        if matches!(marker, 0xa0..=0xbf | 0xd9..=0xdb) && std::str::from_utf8(skipped).is_err() {
            return Err(InvalidMessage::Malformed("a text is not UTF-8".into()));
        }
        // JSON has none of these either, and whatever was read can be written again.
        if marker == 0xcf && skipped.first().is_some_and(|byte| *byte >= 0x80) {
            return Err(malformed(&InvalidValue::IntegerRange));
        }
        if children > rest.len() as u64 {
            return Err(short());
        }
        if values > MESSAGE_VALUES_MAX {
            return Err(InvalidMessage::TooManyValues);
        }
        if children > 0 {
            open.push(children);
            if open.len() > MESSAGE_DEPTH_MAX {
                return Err(InvalidMessage::TooDeep);
            }
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(InvalidMessage::Malformed("there are bytes after the message".into())) }
}

/// Counts brackets and commas outside of strings; the JSON reader finds everything else.
#[cfg(feature = "json")]
fn scan_json(text: &str) -> Result<(), InvalidMessage> {
    let (mut depth, mut values) = (0_usize, 1_usize);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            b'[' | b'{' => {
                depth += 1;
                values += 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' | b':' => values += 1,
            _ => {}
        }
        if depth > MESSAGE_DEPTH_MAX {
            return Err(InvalidMessage::TooDeep);
        }
        if values > MESSAGE_VALUES_MAX {
            return Err(InvalidMessage::TooManyValues);
        }
    }
    Ok(())
}

#[cfg(all(test, feature = "json"))]
mod tests {
    use super::*;
    use crate::protocol::{GroupStatus, SyncRequest, SyncResponse};

    #[test]
    fn hostile_bytes_are_refused_before_they_cost_memory() {
        let refuse = |bytes: &[u8]| decode::<SyncRequest>(bytes, Format::MessagePack).unwrap_err();
        assert_eq!(refuse(&[0x91; 100]), InvalidMessage::TooDeep);
        let mut nils = vec![0xdd, 0x00, 0x7a, 0x12, 0x00];
        nils.resize(8_000_005, 0xc0);
        assert_eq!(refuse(&nils), InvalidMessage::TooManyValues);
        for bytes in [&[][..], &[0xdd, 0xff, 0xff, 0xff, 0xff], &[0xc1], &[0xc0, 0xc0], &[0xdb, 0xff, 0xff, 0xff, 0xff]]
        {
            assert!(matches!(refuse(bytes), InvalidMessage::Malformed(_)), "{bytes:x?}");
        }
    }

    #[test]
    fn integers_beyond_64_bits_are_refused_in_both_formats() {
        for (ms, is_read) in [(i64::MAX as u64, true), (1 << 63, false), (u64::MAX, false)] {
            let response = SyncResponse { retry_after_ms: Some(ms), ..SyncResponse::default() };
            for format in [Format::MessagePack, Format::Json] {
                let read = decode::<SyncResponse>(&encode(&response, format), format);
                assert_eq!(read.is_ok(), is_read, "{format:?} of {ms}");
            }
        }
    }

    #[test]
    fn unknown_fields_and_verdicts_of_newer_servers_are_read() {
        let json = r#"{"version":9,"server_time":5,"new":{"a":[1]},"datasets":[{"name":"d","push":{"sequence":1,
            "groups":[{"status":"postponed","until":7}]}}]}"#;
        let response: SyncResponse = decode(json.as_bytes(), Format::Json).unwrap();
        let groups = &response.datasets[0].push.as_ref().unwrap().groups;
        assert_eq!(groups[0].status, GroupStatus::Unknown);
        let again: SyncResponse = decode(&encode(&response, Format::MessagePack), Format::MessagePack).unwrap();
        assert_eq!(again, response);
    }
}
