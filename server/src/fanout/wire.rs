//! What servers tell each other, in bytes: one for the version, then MessagePack.
//!
//! During an update servers of two versions run side by side. Who does not understand another asks the store instead, so
//! a later version may say anything behind another first byte, or under another name.

use serde::{Deserialize, Serialize};
use sync_core::model::{DatasetName, EpochId, Owner, SyncCount};

use crate::service::outbox::Message;
use crate::store::DatasetAddress;

/// What a server says at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    /// Names the run of the server.
    pub(super) run: u64,
    /// Counts up what it has said.
    pub(super) number: u64,
    /// What it says; nothing: it is there.
    pub(super) messages: Vec<Message>,
    /// It stops, and this is the last that it says.
    pub(super) is_last: bool,
}

/// Bytes are of another version, or of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not understood")]
pub(super) struct NotUnderstood;

const VERSION: u8 = 1;
/// More than a server says at once.
const BYTES_MAX: usize = 1 << 20;

/// Without names of fields: they would be most of it.
#[derive(Serialize, Deserialize)]
struct Written(u64, u64, Vec<Said>);

#[derive(Serialize, Deserialize)]
enum Said {
    #[serde(rename = "m")]
    Moved(Owner, DatasetName, EpochId, SyncCount),
    #[serde(rename = "l")]
    Linked(Owner, Owner),
    #[serde(rename = "x")]
    Missed,
    #[serde(rename = "z")]
    Stops,
}

pub(super) fn encode(envelope: Envelope) -> Vec<u8> {
    let Envelope { run, number, messages, is_last } = envelope;
    let said = messages.into_iter().map(|message| match message {
        Message::Moved { dataset: DatasetAddress { owner, name }, epoch, sync_count } => {
            Said::Moved(owner, name, epoch, sync_count)
        }
        Message::Linked { source, target } => Said::Linked(source, target),
        Message::Missed => Said::Missed,
    });
    let mut bytes = vec![VERSION];
    let written = Written(run, number, said.chain(is_last.then_some(Said::Stops)).collect());
    rmp_serde::encode::write(&mut bytes, &written).expect("messages have no unencodable parts");
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<Envelope, NotUnderstood> {
    let Some((&VERSION, rest)) = bytes.split_first().filter(|_| bytes.len() <= BYTES_MAX) else {
        return Err(NotUnderstood);
    };
    let Written(run, number, said) = rmp_serde::from_slice(rest).map_err(|_| NotUnderstood)?;
    let mut envelope = Envelope { run, number, messages: Vec::with_capacity(said.len()), is_last: false };
    for said in said {
        envelope.messages.push(match said {
            Said::Moved(owner, name, epoch, sync_count) => {
                Message::Moved { dataset: DatasetAddress { owner, name }, epoch, sync_count }
            }
            Said::Linked(source, target) => Message::Linked { source, target },
            Said::Missed => Message::Missed,
            Said::Stops => {
                envelope.is_last = true;
                continue;
            }
        });
    }
    Ok(envelope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex::hex;

    fn envelope() -> Envelope {
        let owner = |text: &str| Owner::parse(text).unwrap();
        let dataset = DatasetAddress { owner: owner("x:ada"), name: DatasetName::parse("notes").unwrap() };
        let moved = Message::Moved { dataset, epoch: EpochId::from_bytes([0xee; 16]), sync_count: SyncCount(300) };
        let linked = Message::Linked { source: owner("x:bob"), target: owner("x:ada") };
        Envelope { run: u64::MAX, number: 7, messages: vec![moved, linked, Message::Missed], is_last: true }
    }

    /// Servers of the version before read this during an update.
    #[test]
    fn the_form_on_the_wire_does_not_change_by_accident() {
        let bytes = encode(envelope());
        let expected = "0193cfffffffffffffffff079481a16d94a5783a616461a56e6f746573c410eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeecd\
                        012c81a16c92a5783a626f62a5783a616461a178a17a";
        assert_eq!(hex(&bytes), expected);
        assert_eq!(decode(&bytes), Ok(envelope()));
        let beat = Envelope { messages: Vec::new(), is_last: false, ..envelope() };
        assert_eq!(decode(&encode(beat.clone())), Ok(beat));
    }

    #[test]
    fn what_is_cut_off_changed_or_of_another_version_is_not_understood_or_something_else() {
        let bytes = encode(envelope());
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]), Err(NotUnderstood), "{length}");
        }
        for at in 0..bytes.len() {
            for byte in [0, 0x7f, 0xc1, 0xdf, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = byte;
                // No panic, and no huge allocation for a length that is only claimed.
                let _understood_or_not = decode(&changed);
            }
        }
        assert_eq!(decode(&[&[VERSION + 1], &bytes[1..]].concat()), Err(NotUnderstood));
        assert_eq!(decode(&vec![VERSION; BYTES_MAX + 1]), Err(NotUnderstood));
    }
}
