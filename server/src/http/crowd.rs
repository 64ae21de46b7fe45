//! A crowd: how much of something each identity takes besides others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sync_core::model::Owner;

use crate::auth::policy::Caller;
use crate::error::ServiceError;

/// How many places each identity has.
pub(super) struct Crowd {
    /// Nothing: as many as it likes.
    each_max: Option<usize>,
    taken: Arc<Mutex<HashMap<Owner, usize>>>,
}

/// Some of an identity's places. When they are dropped, they are free.
pub(super) struct Place {
    /// Nothing: they are not counted.
    identity: Option<Owner>,
    each_max: usize,
    count: usize,
    taken: Arc<Mutex<HashMap<Owner, usize>>>,
}

/// When to come again if all places are taken.
const RETRY_AFTER_MS: u64 = 1_000;

/// All places are taken.
pub(super) const fn all_taken() -> ServiceError {
    ServiceError::TooManyRequests { retry_after_ms: RETRY_AFTER_MS }
}

impl Crowd {
    /// Zero: there is no limit.
    pub(super) fn new(each_max: usize) -> Self {
        Self { each_max: (each_max > 0).then_some(each_max), taken: Arc::default() }
    }

    /// Takes a place. Services have no limit.
    ///
    /// # Errors
    /// If the identity has no place left.
    pub(super) fn enter(&self, caller: &Caller) -> Result<Place, ServiceError> {
        let mut place = self.stand_by(caller);
        place.take(1)?;
        Ok(place)
    }

    /// Takes no place yet.
    pub(super) fn stand_by(&self, caller: &Caller) -> Place {
        let identity = caller.default_owner().filter(|_| self.each_max.is_some()).cloned();
        Place { identity, each_max: self.each_max.unwrap_or(usize::MAX), count: 0, taken: Arc::clone(&self.taken) }
    }
}

impl Place {
    /// Takes so many more.
    ///
    /// # Errors
    /// If the identity has fewer left. Then nothing is taken.
    pub(super) fn take(&mut self, more: usize) -> Result<(), ServiceError> {
        let Some(identity) = &self.identity else { return Ok(()) };
        let mut all = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = all.get(identity).copied().unwrap_or_default();
        if more > self.each_max.saturating_sub(taken) {
            return Err(all_taken());
        }
        all.insert(identity.clone(), taken + more);
        self.count += more;
        Ok(())
    }

    /// How many more the identity has left.
    pub(super) fn left(&self) -> usize {
        let Some(identity) = &self.identity else { return usize::MAX };
        let all = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        self.each_max.saturating_sub(all.get(identity).copied().unwrap_or_default())
    }

    /// Leaves so many of them.
    pub(super) fn leave(&mut self, fewer: usize) {
        let fewer = fewer.min(self.count);
        let Some(identity) = self.identity.as_ref().filter(|_| fewer > 0) else { return };
        let mut all = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(taken) = all.get_mut(identity) else { return };
        self.count -= fewer;
        *taken -= fewer;
        if *taken == 0 {
            all.remove(identity);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave(self.count);
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
        let mut second = crowd.enter(&ada).unwrap();
        assert!(crowd.enter(&ada).is_err());
        assert!(crowd.enter(&bob).is_ok());
        drop(first);
        assert!(second.take(2).is_err());
        second.take(1).unwrap();
        assert!(crowd.enter(&ada).is_err());
        second.leave(1);
        assert!(crowd.enter(&ada).is_ok());
        drop(second);
        assert_eq!(crowd.taken.lock().unwrap().len(), 0);
    }

    #[test]
    fn without_a_limit_and_for_services_places_are_not_counted() {
        let ada = Caller::Identity(Owner::parse("local:ada".to_owned()).unwrap());
        let job = Caller::Service { name: "job".to_owned() };
        for (each_max, caller) in [(0, ada), (1, job)] {
            let crowd = Crowd::new(each_max);
            let _many = [(); 9].map(|()| crowd.enter(&caller).unwrap());
            assert_eq!(crowd.taken.lock().unwrap().len(), 0);
        }
    }
}
