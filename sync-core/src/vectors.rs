//! Reads and replays the golden vectors of `tests/vectors`, whose README documents their format for all languages.
//!
//! Each function takes the text of a file, does what it says, and returns the text as it should be: with every expected
//! part as this code has it. A test compares the two; with `UPDATE_VECTORS=1` it writes the file instead. So nothing in
//! here touches a disk.

mod deltas;
mod layout;
mod memory;
mod messages;
mod policies;
mod random;
mod session;
mod step;
mod transcript;
mod values;

pub use deltas::deltas;
pub use memory::MemoryHost;
pub use messages::messages;
pub use policies::policies;
pub use random::CountingRandom;
pub use session::session;
pub use step::ServerEvent;
pub use transcript::{Host, Refused, Seen, Server, transcript};
pub use values::values;

/// Why a file could not be replayed, other than by another outcome than it expects.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidVector(String);

impl InvalidVector {
    fn new(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// Reads a file.
fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, InvalidVector> {
    serde_json::from_str(text).map_err(InvalidVector::new)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(hex: &str) -> Result<Vec<u8>, InvalidVector> {
    let digit = |at| u8::from_str_radix(hex.get(at..at + 2).unwrap_or("?"), 16);
    (0..hex.len()).step_by(2).map(|at| digit(at).map_err(|_| InvalidVector::new(format!("not hex: {hex}")))).collect()
}

/// For expected parts that are left out where they have nothing to say.
fn is_default<T: Default + PartialEq>(it: &T) -> bool {
    *it == T::default()
}
