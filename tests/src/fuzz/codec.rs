//! Messages: whatever decodes can be written again, in both formats, and says the same.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sync_core::model::Value;
use sync_core::protocol::{Format, SyncRequest, SyncResponse, decode, encode};

use crate::fuzz::memory::peak;

/// The first byte says what the rest is to be.
pub fn codec(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 5 {
        0 => message::<SyncRequest>(bytes, Format::MessagePack),
        1 => message::<SyncResponse>(bytes, Format::MessagePack),
        2 => message::<SyncRequest>(bytes, Format::Json),
        3 => message::<SyncResponse>(bytes, Format::Json),
        _ => value(bytes),
    }
}

fn message<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8], format: Format) {
    let (message, taken) = peak(|| decode::<T>(bytes, format));
    assert!(taken <= MEMORY_MAX, "decoding {} bytes took {taken} bytes of memory", bytes.len());
    let Ok(message) = message else { return };
    for format in [Format::MessagePack, Format::Json] {
        let written = encode(&message, format);
        let read: T = decode(&written, format).unwrap_or_else(|error| panic!("{format:?} of {message:?}: {error}"));
        assert_eq!(read, message, "{format:?}");
        assert_eq!(encode(&read, format), written, "{format:?} is written in one way");
    }
}

fn value(bytes: &[u8]) {
    let of_bytes = Value::from_bytes(bytes).ok();
    let of_json = std::str::from_utf8(bytes).ok().and_then(|json| Value::parse_json(json).ok());
    for value in of_bytes.into_iter().chain(of_json) {
        let bytes = value.to_bytes();
        assert_eq!(bytes.len(), value.encoded_len(), "{value:?}");
        assert_eq!(Value::from_bytes(&bytes).as_ref(), Ok(&value));
        assert_eq!(Value::parse_json(&value.to_json()).as_ref(), Ok(&value));
    }
}

/// A million values of 32 bytes, in collections that grow by doubling, and the texts in them.
const MEMORY_MAX: usize = 512 << 20;
