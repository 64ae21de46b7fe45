//! Time, randomness and sleep as arguments, so that the simulator can hand in its own.

use async_trait::async_trait;
use sync_core::model::{Random, Timestamp};

/// A source of the current time.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// A source of random bytes that may be shared, unlike the core's [`Random`].
pub trait RandomSource: Send + Sync {
    /// Fills `bytes` with unpredictable bytes (predictable ones in the simulator).
    fn fill(&self, bytes: &mut [u8]);
}

/// A way to wait.
#[async_trait]
pub trait Sleep: Send + Sync {
    /// Returns after that many milliseconds.
    async fn sleep(&self, ms: u64);
}

/// A shared source of random bytes, as the core wants it.
pub struct Draw<'a>(pub &'a dyn RandomSource);

impl Random for Draw<'_> {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The random bytes of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl RandomSource for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system has random bytes once it has booted");
    }
}

/// The timer of the tokio runtime.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemSleep;

#[async_trait]
impl Sleep for SystemSleep {
    async fn sleep(&self, ms: u64) {
        tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
    }
}
