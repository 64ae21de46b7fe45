//! How many requests an identity may make: a bucket each that fills steadily.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use sync_core::model::Owner;

use crate::auth::policy::Caller;
use crate::config::RatesConfig;
use crate::error::ServiceError;

/// The buckets of all identities that called lately.
pub(super) struct Rates<C: Clock = DefaultClock> {
    /// Nothing: there is no limit.
    buckets: Option<Buckets<C>>,
    clock: C,
    checks: AtomicU32,
}

type Buckets<C> = RateLimiter<Owner, HashMapStateStore<Owner>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// How often full buckets are forgotten: after so many requests. So there are never more than so many of them besides
/// those that are in use.
const CHECKS_PER_TIDYING: u32 = 1_024;

impl Rates {
    pub(super) fn new(config: &RatesConfig) -> Self {
        Self::with_clock(config, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Rates<C> {
    fn with_clock(config: &RatesConfig, clock: C) -> Self {
        let RatesConfig { requests_per_second, burst, at_once: _, streams_at_once: _ } = *config;
        let quota = NonZeroU32::new(requests_per_second).map(|rate| {
            let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
            Quota::per_second(rate).allow_burst(burst)
        });
        let buckets = quota.map(|quota| RateLimiter::hashmap_with_clock(quota, clock.clone()));
        Self { buckets, clock, checks: AtomicU32::new(0) }
    }

    /// Takes one from the caller's bucket. Services have none: whom an operator configured may do as much as there is.
    ///
    /// # Errors
    /// If the bucket is empty; says when there will be something in it.
    pub(super) fn check(&self, caller: &Caller) -> Result<(), ServiceError> {
        let (Some(buckets), Caller::Identity(identity)) = (&self.buckets, caller) else { return Ok(()) };
        if self.checks.fetch_add(1, Ordering::Relaxed) % CHECKS_PER_TIDYING == CHECKS_PER_TIDYING - 1 {
            buckets.retain_recent();
            buckets.shrink_to_fit();
        }
        buckets.check_key(identity).map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            ServiceError::TooManyRequests { retry_after_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::*;

    fn identity(name: &str) -> Caller {
        Caller::Identity(Owner::parse(format!("local:{name}")).unwrap())
    }

    #[test]
    fn an_identity_has_a_burst_and_then_a_steady_rate_of_its_own() {
        let clock = FakeRelativeClock::default();
        let rates = Rates::with_clock(
            &RatesConfig { requests_per_second: 2, burst: 3, at_once: 0, streams_at_once: 0 },
            clock.clone(),
        );
        let (ada, bob) = (identity("ada"), identity("bob"));
        for _ in 0..3 {
            rates.check(&ada).unwrap();
        }
        let Err(ServiceError::TooManyRequests { retry_after_ms }) = rates.check(&ada) else { panic!("it was served") };
        assert_eq!(retry_after_ms, 500);
        rates.check(&bob).unwrap();
        clock.advance(Duration::from_millis(500));
        rates.check(&ada).unwrap();
        assert!(rates.check(&ada).is_err());
        let job = Caller::Service { name: "reports".to_owned() };
        (0..100).for_each(|_| rates.check(&job).unwrap());
    }

    #[test]
    fn zero_is_no_limit() {
        let rates = Rates::new(&RatesConfig { requests_per_second: 0, burst: 0, at_once: 0, streams_at_once: 0 });
        (0..1_000).for_each(|_| rates.check(&identity("ada")).unwrap());
    }

    #[test]
    fn identities_that_are_away_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let rates = Rates::with_clock(
            &RatesConfig { requests_per_second: 10, burst: 10, at_once: 0, streams_at_once: 0 },
            clock.clone(),
        );
        for number in 0..10 * CHECKS_PER_TIDYING {
            rates.check(&identity(&number.to_string())).unwrap();
            clock.advance(Duration::from_millis(1));
        }
        let buckets = rates.buckets.as_ref().unwrap().len();
        assert!(buckets < 2 * CHECKS_PER_TIDYING as usize, "{buckets}");
    }
}
