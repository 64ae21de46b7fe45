//! Tries of one operation at a database that others use too.

use std::time::Duration;

use crate::clock::{RandomSource as _, SystemRandom};

/// Why something was not done, if it may be done at another try.
pub(in crate::store) trait MayPass {
    /// Whether another try may do it, and does no harm.
    fn may_pass(&self) -> bool;
}

/// Tries of one operation. Waits between them, longer each time, and not as long as others.
#[derive(Debug)]
pub(in crate::store) struct Attempts {
    made: u32,
    most: u32,
}

/// Tries at most, where nothing else is said.
const ATTEMPTS_MAX: u32 = 6;
/// The wait after the first try is up to twice this; after each further one twice as long.
const FIRST_WAIT_MS: u64 = 20;

impl Default for Attempts {
    fn default() -> Self {
        Self::up_to(ATTEMPTS_MAX)
    }
}

impl Attempts {
    /// So many tries at most.
    pub(in crate::store) const fn up_to(most: u32) -> Self {
        Self { made: 0, most }
    }

    /// Waits if it is worth another try.
    ///
    /// # Errors
    /// The failure, if it is not.
    pub(in crate::store) async fn after<F: MayPass>(&mut self, failure: F) -> Result<(), F> {
        self.made += 1;
        if self.made >= self.most || !failure.may_pass() {
            return Err(failure);
        }
        let most = FIRST_WAIT_MS << self.made;
        let mut random = [0; 8];
        SystemRandom.fill(&mut random);
        tokio::time::sleep(Duration::from_millis(u64::from_le_bytes(random) % most)).await;
        Ok(())
    }
}
