//! `messages.json`: messages of the protocol in both encodings.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::protocol::{Format, InvalidMessage, SyncRequest, SyncResponse, decode, encode};
use crate::vectors::layout::layout;
use crate::vectors::{InvalidVector, hex, read, unhex};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    messages: Vec<Message>,
    /// MessagePack that no device writes, and every device reads.
    read: Vec<Read>,
    refused: Vec<Refused>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Request,
    Response,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    about: String,
    kind: Kind,
    json: Box<RawValue>,
    /// The JSON that is written; left out if it is the one above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<Box<RawValue>>,
    #[serde(default)]
    message_pack: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    about: String,
    kind: Kind,
    message_pack: String,
    #[serde(default)]
    json: Option<Box<RawValue>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    about: String,
    kind: Kind,
    /// As text, because it may not be JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    json: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message_pack: Option<String>,
    #[serde(default)]
    error: String,
}

/// Replays `messages.json`.
///
/// # Errors
/// If the file is not of its form, or a message does not survive its own encoding.
pub fn messages(text: &str) -> Result<String, InvalidVector> {
    let mut file: File = read(text)?;
    for message in &mut file.messages {
        let (json, bytes) = match message.kind {
            Kind::Request => both::<SyncRequest>(message.json.get().as_bytes(), Format::Json),
            Kind::Response => both::<SyncResponse>(message.json.get().as_bytes(), Format::Json),
        }
        .map_err(|error| InvalidVector::new(format!("{}: {error}", message.about)))?;
        message.written = (layout(&message.json) != layout(&json)).then_some(json);
        message.message_pack = hex(&bytes);
    }
    for message in &mut file.read {
        let bytes = unhex(&message.message_pack)?;
        let (json, _) = match message.kind {
            Kind::Request => both::<SyncRequest>(&bytes, Format::MessagePack),
            Kind::Response => both::<SyncResponse>(&bytes, Format::MessagePack),
        }
        .map_err(|error| InvalidVector::new(format!("{}: {error}", message.about)))?;
        message.json = Some(json);
    }
    for message in &mut file.refused {
        let (bytes, format) = match (&message.json, &message.message_pack) {
            (Some(json), None) => (json.clone().into_bytes(), Format::Json),
            (None, Some(hex)) => (unhex(hex)?, Format::MessagePack),
            _ => return Err(InvalidVector::new(format!("{}: one of json, message_pack", message.about))),
        };
        let decoded = match message.kind {
            Kind::Request => decode::<SyncRequest>(&bytes, format).map(drop),
            Kind::Response => decode::<SyncResponse>(&bytes, format).map(drop),
        };
        message.error = match decoded {
            Ok(()) => return Err(InvalidVector::new(format!("{}: it is not refused", message.about))),
            Err(InvalidMessage::Malformed(_)) => "malformed",
            Err(InvalidMessage::TooDeep) => "too_deep",
            Err(InvalidMessage::TooManyValues) => "too_many_values",
            Err(InvalidMessage::TooLarge) => "too_large",
        }
        .to_owned();
    }
    Ok(layout(&file))
}

/// A message in both encodings, after each was read again.
fn both<T: Serialize + DeserializeOwned + PartialEq>(
    bytes: &[u8],
    format: Format,
) -> Result<(Box<RawValue>, Vec<u8>), InvalidVector> {
    let message: T = decode(bytes, format).map_err(InvalidVector::new)?;
    let [json, message_pack] = [Format::Json, Format::MessagePack].map(|format| encode(&message, format));
    let survives = |bytes, format| decode::<T>(bytes, format).is_ok_and(|again| again == message);
    if !survives(&json, Format::Json) || !survives(&message_pack, Format::MessagePack) {
        return Err(InvalidVector::new("it does not survive its own encoding"));
    }
    let json = String::from_utf8(json).map_err(InvalidVector::new)?;
    Ok((RawValue::from_string(json).map_err(InvalidVector::new)?, message_pack))
}
