//! What is fuzzed: each target is a function of bytes, which panics if something that must hold does not.
//!
//! `./dev fuzz` searches for such bytes with the programs in `tests/fuzz`; every test run replays what was found before
//! (`tests/tests/fuzz.rs`).

mod codec;
mod columns;
mod device;
mod draw;
mod input;
mod memory;
mod pull;
mod push;
mod token;

pub use codec::codec;
pub use columns::columns;
pub use device::device;
pub use memory::Counting;
pub use pull::pull;
pub use push::push;
pub use token::token;

/// What is fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What its program and its folder in `tests/fuzz/corpus` are called.
    pub name: &'static str,
    /// Runs it.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 6] = [
    Target { name: "codec", run: codec },
    Target { name: "columns", run: columns },
    Target { name: "push", run: push },
    Target { name: "pull", run: pull },
    Target { name: "device", run: device },
    Target { name: "token", run: token },
];
