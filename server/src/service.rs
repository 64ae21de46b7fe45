//! The use cases: what the server does, whatever asks for it and wherever data are kept.
//!
//! **Architecture invariant:** nothing in here knows HTTP, a database, an async runtime, the time or chance. The
//! simulator polls these futures by itself.

pub mod datasets;
pub mod devices;
pub mod fanout;
pub mod hints;
pub mod hook;
pub mod identities;
mod line;
pub mod outbox;
mod pull;
mod push;
pub mod records;
mod sync;

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use sync_core::merge::push::PushContext;
use sync_core::model::{Limits, Owner, limits};

use crate::auth::policy::{Action, Caller, authorize, may_see};
use crate::clock::{Clock, Draw, RandomSource, Sleep};
use crate::error::ServiceError;
use crate::metrics::Metrics;
use crate::service::datasets::Creations;
use crate::service::hints::Hints;
use crate::service::hook::PushHook;
use crate::service::identities::Resolved;
use crate::service::push::PushQueues;
use crate::store::{DatasetAddress, Store};

/// What the service works with.
#[derive(Clone)]
pub struct ServiceParts {
    /// Where data are kept.
    pub store: Arc<dyn Store>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where random bytes come from.
    pub random: Arc<dyn RandomSource>,
    /// How to wait.
    pub sleep: Arc<dyn Sleep>,
    /// Who looks at pushes before they are decided.
    pub hook: Option<Arc<dyn PushHook>>,
    /// Where it is counted what happens.
    pub metrics: Arc<Metrics>,
}

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct ServiceSettings {
    /// The limits of this server.
    pub limits: Limits,
    /// How long a tombstone is kept, in milliseconds.
    pub tombstone_age_ms: i64,
    /// How often a push is planned that other commits overtake, before its device is asked to come again.
    pub push_attempts_max: u32,
    /// Keys and values in one answer, in bytes. Datasets that find no room are asked for again.
    pub response_bytes_max: usize,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            tombstone_age_ms: limits::TOMBSTONE_AGE_MS,
            push_attempts_max: 8,
            response_bytes_max: 8 << 20,
        }
    }
}

/// The use cases over one store.
pub struct Service {
    parts: ServiceParts,
    settings: ServiceSettings,
    limits_version: u32,
    queues: PushQueues,
    creations: Creations,
    resolved: Resolved,
    hints: Hints,
}

impl Service {
    /// The service over these parts.
    pub fn new(parts: ServiceParts, settings: ServiceSettings) -> Self {
        let limits_version = limits_version(&settings.limits);
        let hints = Hints::new(Arc::clone(&parts.random));
        let (queues, creations, resolved) = (PushQueues::default(), Creations::default(), Resolved::default());
        Self { parts, settings, limits_version, queues, creations, resolved, hints }
    }

    /// What an operator chose.
    pub const fn settings(&self) -> &ServiceSettings {
        &self.settings
    }

    /// Where one hears of commits.
    pub const fn hints(&self) -> &Hints {
        &self.hints
    }

    /// What has been counted so far.
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.parts.metrics
    }

    /// Whether the store answers.
    ///
    /// # Errors
    /// If it does not.
    pub async fn check_store(&self) -> Result<(), ServiceError> {
        self.parts.store.addresses(None, 1).await?;
        Ok(())
    }

    /// Says whether the caller may do this with the dataset, as an error if not, which does not tell to whom an owner was
    /// linked.
    fn allow(&self, caller: &Caller, dataset: &DatasetAddress, action: Action) -> Result<(), ServiceError> {
        if authorize(caller, &dataset.owner, &dataset.name, action) {
            return Ok(());
        }
        let text = format!("you may not do this with dataset `{}` of this owner", dataset.name);
        Err(ServiceError::Forbidden(text))
    }

    /// Says whether the caller may see which datasets the owner has, as an error if not.
    pub(crate) fn allow_to_see(&self, caller: &Caller, owner: &Owner) -> Result<(), ServiceError> {
        if may_see(caller, owner) {
            return Ok(());
        }
        Err(ServiceError::Forbidden("you may not see the datasets of this owner".to_owned()))
    }

    /// Decides something with what a host adds to decisions.
    fn plan<T>(&self, decide: impl FnOnce(&mut PushContext<'_>) -> T) -> T {
        let mut random = Draw(&*self.parts.random);
        let now = self.parts.clock.now();
        decide(&mut PushContext { now, random: &mut random, limits: &self.settings.limits })
    }
}

/// Names limits: the same ones have the same number on every server.
fn limits_version(limits: &Limits) -> u32 {
    let bytes = rmp_serde::to_vec_named(limits).expect("limits have no unencodable parts");
    let hash = Sha256::digest(bytes);
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

#[cfg(test)]
mod tests;
