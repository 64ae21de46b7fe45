//! Places: how much a request may take up besides others, until its answer is taken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sync_core::model::Owner;
use tokio::sync::OwnedSemaphorePermit;

use crate::auth::policy::Caller;
use crate::error::ServiceError;

/// What a request takes up. Clones are one; when the last is gone, its places are free.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<Option<Taken>>>);

struct Taken {
    _among_all: OwnedSemaphorePermit,
    _of_identity: Option<Place>,
}

/// How many places each identity has.
pub(super) struct Crowd {
    /// Nothing: as many as it likes.
    each_max: Option<usize>,
    taken: Arc<Mutex<HashMap<Owner, usize>>>,
}

/// One of an identity's places.
pub(super) struct Place {
    identity: Owner,
    taken: Arc<Mutex<HashMap<Owner, usize>>>,
}

/// When to come again if all places are taken.
pub(super) const RETRY_AFTER_MS: u64 = 1_000;

impl Places {
    /// Keeps these places for this request, instead of those that it had.
    pub(super) fn keep(&self, among_all: OwnedSemaphorePermit, of_identity: Option<Place>) {
        let taken = Some(Taken { _among_all: among_all, _of_identity: of_identity });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = taken;
    }
}

impl Crowd {
    /// Zero: there is no limit.
    pub(super) fn new(each_max: usize) -> Self {
        Self { each_max: (each_max > 0).then_some(each_max), taken: Arc::default() }
    }

    /// Takes a place, if there is a limit. Services have none.
    ///
    /// # Errors
    /// If the identity has no place left.
    pub(super) fn enter(&self, caller: &Caller) -> Result<Option<Place>, ServiceError> {
        let (Some(each_max), Caller::Identity(identity)) = (self.each_max, caller) else { return Ok(None) };
        let mut all = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = all.entry(identity.clone()).or_default();
        if *taken >= each_max {
            return Err(ServiceError::TooManyRequests { retry_after_ms: RETRY_AFTER_MS });
        }
        *taken += 1;
        Ok(Some(Place { identity: identity.clone(), taken: Arc::clone(&self.taken) }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(taken) = all.get_mut(&self.identity) else { return };
        *taken -= 1;
        if *taken == 0 {
            all.remove(&self.identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_so_many_places_and_gets_them_back() {
        let crowd = Crowd::new(2);
        let [ada, bob] = ["ada", "bob"].map(|name| Caller::Identity(Owner::parse(format!("local:{name}")).unwrap()));
        let first = crowd.enter(&ada).unwrap();
        let second = crowd.enter(&ada).unwrap();
        assert!(crowd.enter(&ada).is_err());
        assert!(crowd.enter(&bob).is_ok());
        drop(first);
        assert!(crowd.enter(&ada).is_ok());
        drop(second);
        assert_eq!(crowd.taken.lock().unwrap().len(), 0);
        assert!(Crowd::new(0).enter(&ada).unwrap().is_none());
    }
}
