//! The keys of an issuer that publishes them: fetched now and then, and at once when an unknown key turns up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde::Deserialize;
use sync_core::model::Timestamp;

use super::fetch::{Fetch, FetchError};
use super::{JwksError, JwksSource, Keys, VerifyingKey};
use crate::causes::with_causes;
use crate::config::HttpUrl;

/// Where an issuer publishes its keys.
#[derive(Clone, Debug)]
pub enum Place {
    /// Where the discovery document says that is at this address.
    Discovery {
        /// Of the document.
        url: HttpUrl,
        /// What the document must name, so that no other issuer's keys are taken for its own.
        issuer: String,
    },
    /// At this address.
    Keys(HttpUrl),
}

impl Place {
    const fn url(&self) -> &HttpUrl {
        match self {
            Self::Discovery { url, issuer: _ } | Self::Keys(url) => url,
        }
    }
}

/// Keys that are fetched. Whoever asks for a known one never waits; the last keys hold until others have been fetched.
pub struct RemoteJwks {
    shared: Arc<Shared>,
    /// Held while keys are fetched, so that all who miss the same key wait for one fetch.
    turn: Arc<tokio::sync::Mutex<()>>,
}

struct Shared {
    place: Place,
    unknown_key_interval_ms: i64,
    fetch: Arc<dyn Fetch>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The keys that were fetched last.
    keys: Option<Arc<Keys>>,
    /// When a missing key last caused a fetch.
    missed_at: Option<Timestamp>,
    /// Whether the last fetch failed, which is logged once.
    is_failing: bool,
}

/// Why keys could not be fetched.
#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error("{url} cannot be fetched")]
    Fetch { url: HttpUrl, source: FetchError },
    #[error("{0} is no discovery document")]
    NotDiscovery(HttpUrl, #[source] serde_json::Error),
    #[error("{url} is the discovery document of `{found}`")]
    OtherIssuer { url: HttpUrl, found: String },
    #[error("{url} says that its keys are at `{jwks_uri}`, which cannot be trusted")]
    UntrustedAddress { url: HttpUrl, jwks_uri: String },
    #[error("{url} has no keys")]
    NoKeys { url: HttpUrl, source: JwksError },
}

/// What matters of a discovery document.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl RemoteJwks {
    /// The keys at a place. A key that is unknown causes a fetch at most once in an interval, in milliseconds.
    pub fn new(place: Place, unknown_key_interval_ms: i64, fetch: Arc<dyn Fetch>) -> Self {
        let shared = Shared { place, unknown_key_interval_ms, fetch, state: Mutex::default() };
        Self { shared: Arc::new(shared), turn: Arc::default() }
    }
}

#[async_trait]
impl JwksSource for RemoteJwks {
    async fn key(&self, id: &str, now: Timestamp) -> Result<Option<VerifyingKey>, JwksError> {
        if let Ok(Some(key)) = self.shared.find(id) {
            return Ok(Some(key));
        }
        let turn = Arc::clone(&self.turn).lock_owned().await;
        match self.shared.find(id) {
            // Whoever had the turn before has fetched it.
            Ok(Some(key)) => Ok(Some(key)),
            found if !self.shared.begin_for_missing(now) => found,
            _ => {
                let shared = Arc::clone(&self.shared);
                // A task of its own: the fetch goes on for the others if this request is given up.
                let fetched = tokio::spawn(async move {
                    shared.refresh().await;
                    drop(turn);
                });
                fetched.await.map_err(|_| JwksError::Unavailable)?;
                self.shared.find(id)
            }
        }
    }

    async fn refresh(&self, _now: Timestamp) {
        let _turn = self.turn.lock().await;
        self.shared.refresh().await;
    }
}

impl Shared {
    fn find(&self, id: &str) -> Result<Option<VerifyingKey>, JwksError> {
        self.state().keys.as_ref().map(|keys| keys.find(id)).ok_or(JwksError::Unavailable)
    }

    /// Whether a missing key may cause a fetch now; then it has.
    fn begin_for_missing(&self, now: Timestamp) -> bool {
        let mut state = self.state();
        // Also after a clock has been put back by more than the interval.
        let is_due = |at: Timestamp| now.0.abs_diff(at.0) >= self.unknown_key_interval_ms.unsigned_abs();
        let may = state.missed_at.is_none_or(is_due);
        if may {
            state.missed_at = Some(now);
        }
        may
    }

    /// Fetches the keys; if that fails, the old ones stay.
    async fn refresh(&self) {
        let fetched = self.fetch().await;
        let mut state = self.state();
        match fetched {
            Ok(keys) => {
                if state.is_failing {
                    let url = self.place.url().as_str();
                    tracing::info!(url, "an issuer's keys are fetched again");
                }
                state.keys = Some(Arc::new(keys));
                state.is_failing = false;
            }
            Err(error) => {
                if !state.is_failing {
                    let has_keys = state.keys.is_some();
                    let error = with_causes(&error);
                    tracing::warn!(error, has_keys, "failed to fetch an issuer's keys");
                }
                state.is_failing = true;
            }
        }
    }

    async fn fetch(&self) -> Result<Keys, RefreshError> {
        let url = match &self.place {
            Place::Keys(url) => url.clone(),
            Place::Discovery { url, issuer } => {
                let document = self.document(url).await?;
                let discovery: Discovery = serde_json::from_slice(&document)
                    .map_err(|source| RefreshError::NotDiscovery(url.clone(), source))?;
                keys_url(url, issuer, discovery)?
            }
        };
        let document = self.document(&url).await?;
        Keys::parse(&document).map_err(|source| RefreshError::NoKeys { url, source })
    }

    async fn document(&self, url: &HttpUrl) -> Result<Vec<u8>, RefreshError> {
        self.fetch.fetch(url).await.map_err(|source| RefreshError::Fetch { url: url.clone(), source })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a discovery document says that the keys of its issuer are.
fn keys_url(url: &HttpUrl, issuer: &str, discovery: Discovery) -> Result<HttpUrl, RefreshError> {
    let Discovery { issuer: found, jwks_uri } = discovery;
    if found != issuer {
        return Err(RefreshError::OtherIssuer { url: url.clone(), found });
    }
    match jwks_uri.parse::<HttpUrl>() {
        Ok(keys) if keys.is_https() || !url.is_https() => Ok(keys),
        _ => Err(RefreshError::UntrustedAddress { url: url.clone(), jwks_uri }),
    }
}

#[cfg(test)]
mod tests;
