//! How long to wait before the next try.

use crate::model::Random;

/// The first delay at most, in milliseconds.
const FIRST_MS: u64 = 250;
/// Any delay at most, in milliseconds.
const LONGEST_MS: u64 = 30_000;

/// Delays that double, each drawn at random between nothing and its bound, so that many devices do not come back at
/// once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next delay in milliseconds; never shorter than the server asked for.
    pub fn next_ms(&mut self, at_least_ms: u64, random: &mut dyn Random) -> u64 {
        let bound = FIRST_MS.saturating_mul(1 << self.failures.min(20)).min(LONGEST_MS);
        self.failures += 1;
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        // The server may ask for any time, up to for ever.
        at_least_ms.saturating_add(u64::from_be_bytes(bytes) % (bound + 1))
    }

    /// Begins again after a success.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}
