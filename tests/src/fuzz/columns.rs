//! Blocks of columns: whatever unfolds folds again, and takes no more memory than it says.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sync_core::protocol::{Format, Page, Push, decode, encode};

use crate::fuzz::memory::peak;

/// The first byte says of what the rest is a block.
pub fn columns(data: &[u8]) {
    let Some((kind, block)) = data.split_first() else { return };
    if kind % 2 == 0 {
        check::<Page>(&[0x81, 0xa7], b"records", block);
    } else {
        let push = [&[0x83, 0xa6][..], b"device", &[0xc4, 16], &[7; 16], &[0xa8], b"sequence", &[1, 0xa6]].concat();
        check::<Push>(&push, b"groups", block);
    }
}

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(before: &[u8], name: &[u8], block: &[u8]) {
    let Some(said) = cost(block) else { return };
    if said.0 > VALUES_MAX || said.1 > BYTES_MAX {
        return; // It may take as much as it says, which only makes this slow.
    }
    let length = (block.len() as u32).to_be_bytes();
    let message = [before, name, &[0xc9], &length, &[EXTENSION], block].concat();
    let (rows, taken) = peak(|| decode::<T>(&message, Format::MessagePack));
    let allowed = said.0 * VALUE_BYTES + said.1 * 3 + message.len() * 32 + 4_096;
    assert!(taken <= allowed, "a block of {} bytes that says {said:?} took {taken} bytes", block.len());
    let Ok(rows) = rows else { return };
    let written = encode(&rows, Format::MessagePack);
    let read: T = decode(&written, Format::MessagePack).unwrap_or_else(|error| panic!("of {rows:?}: {error}"));
    assert_eq!(read, rows);
    assert_eq!(encode(&read, Format::MessagePack), written, "a block is written in one way");
    if let Some(at) = written.windows(name.len()).position(|window| window == name) {
        let again = &written[at + name.len()..];
        assert_eq!(cost(content(again)), Some(said), "a block says what it unfolds to: {rows:?}");
    }
}

/// What is in an extension value.
fn content(extension: &[u8]) -> &[u8] {
    let (at, length) = match extension[0] {
        0xd4..=0xd8 => (2, 1 << (extension[0] - 0xd4)),
        0xc7 => (3, usize::from(extension[1])),
        0xc8 => (4, usize::from(u16::from_be_bytes([extension[1], extension[2]]))),
        _ => (6, u32::from_be_bytes([extension[1], extension[2], extension[3], extension[4]]) as usize),
    };
    &extension[at..at + length]
}

/// How many values and bytes a block says that it unfolds to.
fn cost(block: &[u8]) -> Option<(usize, usize)> {
    let mut rest = block;
    let mut number = || {
        let mut number = 0_usize;
        for shift in (0..63).step_by(7) {
            let (byte, after) = rest.split_first()?;
            rest = after;
            number |= usize::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Some(number);
            }
        }
        None
    };
    number()?;
    Some((number()?, number()?))
}

const EXTENSION: u8 = 0x43;
const VALUES_MAX: usize = 20_000;
const BYTES_MAX: usize = 1 << 20;
/// What one value, record or patch takes at most while it is read.
const VALUE_BYTES: usize = 128;
