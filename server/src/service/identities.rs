//! Identities to which several logins lead.
//!
//! Who calls is resolved once, where the caller is verified. If a link is made while a request is served, the store
//! answers that its owner has moved, and the caller is told to come again: so nothing is written where nobody looks, and
//! what is remembered here may be old.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sync_core::model::{Owner, Timestamp};

use crate::auth::policy::Caller;
use crate::error::ServiceError;
use crate::service::Service;
use crate::store::directory::Linked;

/// Where owners lead, as the store said it lately, and until when that is believed.
#[derive(Default)]
pub(crate) struct Resolved(Mutex<HashMap<Owner, (Owner, Timestamp)>>);

/// For so long it may stay unnoticed that another server linked an owner, in milliseconds. Then its callers are told to
/// come again until then.
const BELIEVED_MS: i64 = 5_000;
/// Owners that are remembered.
const OWNERS_MAX: usize = 10_000;

impl Service {
    /// The owner that this one was linked to; itself, if it was not.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn resolve(&self, owner: &Owner) -> Result<Owner, ServiceError> {
        let now = self.parts.clock.now();
        if let Some(known) = self.resolved.find(owner, now) {
            return Ok(known);
        }
        let found = self.parts.store.directory().resolve(owner).await?;
        self.resolved.remember(owner.clone(), found.clone(), now.plus_ms(BELIEVED_MS));
        Ok(found)
    }

    /// The caller whom a login leads to.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn resolve_caller(&self, login: Caller) -> Result<Caller, ServiceError> {
        match login {
            Caller::Identity(identity) => Ok(Caller::Identity(self.resolve(&identity).await?)),
            Caller::Service { .. } => Ok(login),
        }
    }

    /// Makes another login of the caller's lead to the caller's identity, which everything moves to that the other's has
    /// owned. It cannot be taken back. Done again, it changes nothing and says the same.
    ///
    /// Who listens for either identity hears that everything is to be pulled.
    ///
    /// # Errors
    /// `Forbidden` unless both are identities; or the store fails.
    pub async fn link(&self, caller: &Caller, other: &Caller) -> Result<Linked, ServiceError> {
        let (Caller::Identity(target), Caller::Identity(source)) = (caller, other) else {
            return Err(ServiceError::Forbidden("only logins of users can be linked".to_owned()));
        };
        let linked = self.parts.store.directory().link(source, target).await?;
        if let Linked { target, moved_from: Some(source), renamed } = &linked {
            self.resolved.forget();
            self.hints.link(source, target);
            // Not `target`, which is where the log says who logs.
            tracing::info!(%source, identity = %target, renamed = renamed.len(), "linked identity `{source}` to `{target}`");
        }
        Ok(linked)
    }
}

impl Resolved {
    /// Owners were linked: what is remembered may be old.
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }

    fn find(&self, owner: &Owner, now: Timestamp) -> Option<Owner> {
        let all = self.lock();
        let (found, until) = all.get(owner)?;
        (now < *until).then(|| found.clone())
    }

    fn remember(&self, owner: Owner, found: Owner, until: Timestamp) {
        let mut all = self.lock();
        if all.len() >= OWNERS_MAX {
            all.clear();
        }
        all.insert(owner, (found, until));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Owner, (Owner, Timestamp)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
