//! Whether the store takes writes. Asking with each write would make every push of every server meet at one item, so a
//! server asks once in a while, and whoever makes the store read-only waits until all have asked again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;

use crate::clock::{Clock as _, SystemClock};
use crate::store::dynamodb::failure::Failure;
use crate::store::dynamodb::table::{Change, Requests, number, number_of};

/// Until when a server may write without asking again.
#[derive(Default)]
pub(super) struct Lease(Mutex<Option<Instant>>);

/// The item that says what is so of the whole table.
pub(super) const STORE: (&str, &str) = ("!store", "!");
/// Attributes of it: since when it is read-only, in milliseconds.
const READ_ONLY_SINCE: &str = "since";

/// How long the answer holds that the store takes writes, from when it was asked for.
const LEASE: Duration = Duration::from_secs(2);
/// How long one request may take; then it is given up.
pub(super) const REQUEST_MAX: Duration = Duration::from_secs(3);
/// How long it takes until no server writes any more. A second is for requests that were given up on the way.
const QUIET: Duration = LEASE.saturating_add(REQUEST_MAX).saturating_add(Duration::from_secs(1));

impl Lease {
    /// Fails if the store is read-only.
    pub(super) async fn check(&self, requests: Requests<'_>) -> Result<(), Failure> {
        let asked = Instant::now();
        if self.until().is_some_and(|until| asked < until) {
            return Ok(());
        }
        if read_only_since(requests).await?.is_some() {
            return Err(Failure::ReadOnly);
        }
        self.set(Some(asked + LEASE));
        Ok(())
    }

    fn until(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// Since when the store takes no writes.
pub(super) async fn read_only_since(requests: Requests<'_>) -> Result<Option<i64>, Failure> {
    let item = requests.get(STORE.0, STORE.1).await?.unwrap_or_default();
    item.contains_key(READ_ONLY_SINCE).then(|| number_of(&item, READ_ONLY_SINCE)).transpose()
}

/// Makes the store read-only, and waits until no server writes any more; or lets it take writes again.
pub(super) async fn set_read_only(requests: Requests<'_>, is_read_only: bool) -> Result<(), Failure> {
    let change = |update: &str, values| Change { update: update.to_owned(), condition: "", values };
    if !is_read_only {
        // There has to be a value, if there are values.
        let update = format!("REMOVE {READ_ONLY_SINCE} SET changed = :now");
        let now: AttributeValue = number(SystemClock.now().0);
        requests.update(STORE.0, STORE.1, change(&update, vec![(":now", now)])).await?;
        return Ok(());
    }
    let now = SystemClock.now().0;
    let update = format!("SET {READ_ONLY_SINCE} = if_not_exists({READ_ONLY_SINCE}, :now)");
    requests.update(STORE.0, STORE.1, change(&update, vec![(":now", number(now))])).await?;
    requests.table.lease.set(None);
    let since = read_only_since(requests).await?.unwrap_or(now);
    // If it is so for long already, nobody has to wait; clocks of servers may differ by as much again.
    let passed = Duration::from_millis(u64::try_from(SystemClock.now().0 - since).unwrap_or(0));
    if passed < 2 * QUIET {
        tokio::time::sleep(QUIET).await;
    }
    Ok(())
}
