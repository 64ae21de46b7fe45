//! Watching: a machine that keeps a device in sync for as long as it runs. It listens to the server's hints, and says
//! when to sync what. Like the session it acts through a driver.
//!
//! A hint may be late, repeated or lost; then a sync is late or finds nothing, and no more.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::client::backoff::Backoff;
use crate::client::events::Event;
use crate::client::session::{Failure, SessionEnd};
use crate::model::{DatasetName, EpochId, Position, Random, SyncCount, Timestamp};
use crate::protocol::ErrorBody;

/// What the driver does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchOutput {
    /// Open the stream of events, resumed after this id, with the token that is current then. Say
    /// [`Watch::hear`] for each event, and [`Watch::closed`] when it ends or cannot be opened. An older stream is over.
    Listen {
        /// Goes into `Last-Event-ID`.
        last_id: Option<String>,
    },
    /// Run a session over these datasets (empty: all of the identity), and say [`Watch::synced`].
    Sync(Vec<DatasetName>),
    /// Say [`Watch::woken`] then, if nothing else has happened before.
    WakeAt(Timestamp),
    /// It is over.
    Done(WatchEnd),
}

/// Why there is nothing more to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEnd {
    /// Sign in, or sign in again; then watch again.
    NotSignedIn(ErrorBody),
    /// The server has no events, or does not let this caller listen.
    Rejected(ErrorBody),
    /// A sync ended for good.
    Sync(SessionEnd),
}

/// The machine.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Only these; empty: all of the identity.
    only: BTreeSet<DatasetName>,
    backoff: Backoff,
    /// When to try again.
    wake_at: Option<Timestamp>,
    last_id: Option<String>,
    stream: Stream,
    /// What is to be synced.
    dirty: Dirty,
    is_syncing: bool,
    end: Option<WatchEnd>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stream {
    /// To be opened.
    #[default]
    Closed,
    /// The driver opens it, or has opened it.
    Open,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Dirty {
    All,
    Some(BTreeSet<DatasetName>),
}

impl Default for Dirty {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

/// The data of the event `changed`. More fields may come.
#[derive(Deserialize)]
struct Changed {
    dataset: DatasetName,
    epoch: EpochId,
    sync_count: SyncCount,
}

impl Watch {
    /// A machine that has not begun, for these datasets; none: all of the identity, also those never seen here.
    pub fn new(datasets: impl IntoIterator<Item = DatasetName>) -> Self {
        Self { only: datasets.into_iter().collect(), ..Self::default() }
    }

    /// What to do next; nothing: wait for what was begun.
    pub fn poll_output(&mut self) -> Option<WatchOutput> {
        if let Some(end) = &self.end {
            return Some(WatchOutput::Done(end.clone()));
        }
        if self.is_syncing {
            return None;
        }
        if let Some(wake_at) = self.wake_at {
            return Some(WatchOutput::WakeAt(wake_at));
        }
        if self.stream == Stream::Closed {
            self.stream = Stream::Open;
            return Some(WatchOutput::Listen { last_id: self.last_id.clone() });
        }
        let datasets = match std::mem::take(&mut self.dirty) {
            Dirty::All => self.only.iter().cloned().collect(),
            Dirty::Some(names) if names.is_empty() => return None,
            Dirty::Some(names) => names.into_iter().collect(),
        };
        self.is_syncing = true;
        Some(WatchOutput::Sync(datasets))
    }

    /// An event of the stream. `cursor` says up to where the device has pulled a dataset.
    pub fn hear(&mut self, event: &Event, cursor: impl FnOnce(&DatasetName) -> Option<Position>) {
        match &*event.name {
            // From here on hints come; what was before is to be pulled, unless the stream goes on where it broke off.
            "ready" if self.last_id.is_none() => self.dirty = Dirty::All,
            "behind" => self.dirty = Dirty::All,
            "changed" => {
                if let Ok(Changed { dataset, epoch, sync_count }) = serde_json::from_str(&event.data) {
                    let known = cursor(&dataset);
                    let is_news = known.is_none_or(|known| known.epoch != epoch || known.count < sync_count);
                    if is_news {
                        self.add([dataset]);
                    }
                }
            }
            _ => {}
        }
        self.backoff.reset();
        self.last_id.clone_from(&event.last_id);
    }

    /// The stream has ended, or could not be opened.
    pub fn closed(&mut self, failure: &Failure, now: Timestamp, random: &mut dyn Random) {
        if self.stream == Stream::Closed {
            return;
        }
        self.stream = Stream::Closed;
        let error = |error: &Option<ErrorBody>, code: &str| {
            error.clone().unwrap_or_else(|| ErrorBody { code: code.to_owned(), message: String::new() })
        };
        match failure {
            Failure::Status { status: 401, error: body, .. } => {
                self.end = Some(WatchEnd::NotSignedIn(error(body, "NotAuthorized")));
            }
            Failure::Status { status: 400 | 403 | 404 | 405 | 406, error: body, .. } => {
                self.end = Some(WatchEnd::Rejected(error(body, "ResourceNotFound")));
            }
            Failure::Status { retry_after_ms, .. } => self.wait(retry_after_ms.unwrap_or_default(), now, random),
            Failure::Unreachable => self.wait(0, now, random),
        }
    }

    /// The app has written to these datasets, so that they have something to push.
    pub fn written(&mut self, datasets: impl IntoIterator<Item = DatasetName>) {
        self.add(datasets);
    }

    /// A session is over.
    pub fn synced(&mut self, datasets: Vec<DatasetName>, end: SessionEnd, now: Timestamp, random: &mut dyn Random) {
        self.is_syncing = false;
        match end {
            SessionEnd::Complete => self.backoff.reset(),
            SessionEnd::Offline(_) => {
                if datasets.is_empty() {
                    self.dirty = Dirty::All;
                } else {
                    self.add(datasets);
                }
                self.wait(0, now, random);
            }
            end => self.end = Some(WatchEnd::Sync(end)),
        }
    }

    /// The time of the last [`WatchOutput::WakeAt`] has come.
    pub fn woken(&mut self, now: Timestamp) {
        self.wake_at = self.wake_at.filter(|wake_at| *wake_at > now);
    }

    fn wait(&mut self, at_least_ms: u64, now: Timestamp, random: &mut dyn Random) {
        let wait_ms = self.backoff.next_ms(at_least_ms, random);
        self.wake_at = Some(now.plus_ms(i64::try_from(wait_ms).unwrap_or(i64::MAX)));
    }

    fn add(&mut self, datasets: impl IntoIterator<Item = DatasetName>) {
        let Self { only, dirty: Dirty::Some(names), .. } = self else { return };
        names.extend(datasets.into_iter().filter(|name| only.is_empty() || only.contains(name)));
    }
}
