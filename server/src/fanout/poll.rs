//! Asks the store where the datasets are of those who are listened to.

use std::collections::BTreeSet;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use sync_core::model::Owner;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::causes::with_causes;
use crate::service::Service;

/// Looks after owners: all who are listened to, again and again or once, and single ones.
pub(super) struct Polling {
    service: Arc<Service>,
    /// How long it takes to look after everybody once.
    interval: Duration,
    due: Mutex<Due>,
    changed: watch::Sender<()>,
}

/// What is to be done.
#[derive(Debug, Default)]
struct Due {
    /// Everybody, again and again.
    goes_on: bool,
    /// Everybody, once.
    once: bool,
    /// Only these.
    owners: BTreeSet<Owner>,
}

/// What the store is asked at once.
const AT_ONCE: usize = 16;
/// Single owners that wait at most; more are not worth more than everybody.
const OWNERS_MAX: usize = 1_000;

impl Polling {
    pub(super) fn new(service: Arc<Service>, interval: Duration) -> Self {
        Self { service, interval, due: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// Whether everybody is looked after again and again.
    pub(super) fn go_on(&self, goes_on: bool) {
        self.lock().goes_on = goes_on;
        self.changed.send_replace(());
    }

    /// Something was missed: everybody is looked after once more. Asked for in the middle of that, it is begun anew
    /// afterwards.
    pub(super) fn catch_up(&self) {
        self.lock().once = true;
        self.changed.send_replace(());
    }

    /// Looks after this owner, also if nobody listens.
    pub(super) fn look_after(&self, owner: Owner) {
        let mut due = self.lock();
        if due.owners.len() < OWNERS_MAX {
            due.owners.insert(owner);
        } else {
            due.once = true;
        }
        drop(due);
        self.changed.send_replace(());
    }

    /// Does what is due; never ends.
    pub(super) async fn run(&self) {
        tokio::join!(self.look_after_everybody(), self.look_after_single_ones());
    }

    async fn look_after_everybody(&self) {
        loop {
            self.due(|due| (due.goes_on || mem::take(&mut due.once)).then(|| due.once = false)).await;
            let began = Instant::now();
            let owners = self.service.hints().listened_to();
            let each_after = self.interval / u32::try_from(owners.len().max(1)).unwrap_or(u32::MAX);
            let looks = owners.into_iter().enumerate().map(|(at, owner)| async move {
                // Spread, so that the store is not asked everything at the same moment.
                sleep_until(began + each_after * u32::try_from(at).unwrap_or(u32::MAX)).await;
                self.look(&owner).await
            });
            let failed = stream::iter(looks).buffer_unordered(AT_ONCE).filter(|done| std::future::ready(!done)).count();
            if failed.await > 0 {
                self.catch_up();
            }
            sleep_until(began + self.interval).await;
        }
    }

    async fn look_after_single_ones(&self) {
        loop {
            let owners = self.due(|due| Some(mem::take(&mut due.owners)).filter(|owners| !owners.is_empty())).await;
            let looks = owners.into_iter().map(|owner| async move {
                if !self.look(&owner).await {
                    self.catch_up();
                }
            });
            stream::iter(looks).buffer_unordered(AT_ONCE).collect::<()>().await;
        }
    }

    /// Says whether the store answered.
    async fn look(&self, owner: &Owner) -> bool {
        let looked = self.service.look_after(owner).await;
        self.service.metrics().looked(looked.is_ok());
        if let Err(error) = &looked {
            tracing::debug!(error = with_causes(error), "could not ask the store what other servers have written");
        }
        looked.is_ok()
    }

    /// Waits until something is due.
    async fn due<T>(&self, take: impl Fn(&mut Due) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(taken) = take(&mut self.lock()) {
                return taken;
            }
            changed.changed().await.expect("the sender lives as long as this");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
