//! The memory that large bodies share, of requests and of answers.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::auth::policy::Caller;
use crate::error::ServiceError;
use crate::http::crowd::{Crowd, Place, all_taken};

/// A body of up to this length takes up nothing of what larger ones share.
pub(super) const SMALL_BODY_BYTES: usize = 64 << 10;

/// One identity has this part of the memory.
const PART_OF_EACH: usize = 4;

/// What an answer with records takes up while it is made: what was read, and what is written from it.
const ANSWER_BYTES: usize = 4 << 20;

/// What large bodies may take up together.
pub(super) struct Memory {
    /// A permit for each byte.
    free: Arc<Semaphore>,
    of_identities: Crowd,
    /// A permit for each answer that is made at once.
    turns: Semaphore,
}

/// What the bodies of a request take up of it. When it is dropped, that is free.
pub(super) struct Room {
    free: Arc<Semaphore>,
    among_all: Option<OwnedSemaphorePermit>,
    of_identity: Place,
}

impl Memory {
    /// So many bytes in all. One identity has a part of them, which is at least what its largest body needs. As much again
    /// is for answers while they are made.
    pub(super) fn new(bytes_max: usize, largest_body: usize) -> Self {
        let bytes_max = bytes_max.min(Semaphore::MAX_PERMITS);
        let each_max = (bytes_max / PART_OF_EACH).max(largest_body);
        let turns = Semaphore::new((bytes_max / ANSWER_BYTES).max(1));
        Self { free: Arc::new(Semaphore::new(bytes_max)), of_identities: Crowd::new(each_max), turns }
    }

    /// For a request of this caller's, which takes up nothing yet.
    pub(super) fn room(&self, caller: &Caller) -> Room {
        let of_identity = self.of_identities.stand_by(caller);
        Room { free: Arc::clone(&self.free), among_all: None, of_identity }
    }

    /// A turn to read records and make an answer of them, without waiting for others.
    pub(super) fn turn_now(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.try_acquire().ok()
    }

    /// Waits for a turn. Whoever has one waits for the store, but for no client.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }
}

impl Room {
    /// The largest body for which there is room now.
    pub(super) fn left(&self) -> usize {
        SMALL_BODY_BYTES + self.taken() + self.free.available_permits().min(self.of_identity.left())
    }

    /// Takes up what so many bytes need, no more and no less.
    ///
    /// # Errors
    /// If there is not so much left, for all or for the identity. Then it is as before.
    pub(super) fn fit(&mut self, bytes: usize) -> Result<(), ServiceError> {
        let wanted = bytes.saturating_sub(SMALL_BODY_BYTES);
        let taken = self.taken();
        if wanted > taken {
            let more = wanted - taken;
            let permits = u32::try_from(more).map_err(|_| all_taken())?;
            let permit = Arc::clone(&self.free).try_acquire_many_owned(permits).map_err(|_| all_taken())?;
            self.of_identity.take(more)?;
            match &mut self.among_all {
                Some(taken) => taken.merge(permit),
                None => self.among_all = Some(permit),
            }
        } else if let Some(all) = &mut self.among_all {
            drop(all.split(taken - wanted));
            self.of_identity.leave(taken - wanted);
        }
        Ok(())
    }

    fn taken(&self) -> usize {
        self.among_all.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }
}

#[cfg(test)]
mod tests {
    use sync_core::model::Owner;

    use super::*;

    const LARGE: usize = SMALL_BODY_BYTES + 100;

    fn identity(name: &str) -> Caller {
        Caller::Identity(Owner::parse(format!("local:{name}")).unwrap())
    }

    #[test]
    fn large_bodies_share_the_memory_and_keep_no_small_ones_out() {
        let memory = Memory::new(250, 100);
        let make = |name: &str, bytes: usize| {
            let mut room = memory.room(&identity(name));
            room.fit(bytes).map(|()| room)
        };
        let first = make("ada", LARGE).unwrap();
        let mut second = make("bob", LARGE - 50).unwrap();
        second.fit(LARGE).unwrap();
        assert!(make("eve", LARGE).is_err());
        assert!(make("eve", LARGE - 50).is_ok() && make("eve", SMALL_BODY_BYTES).is_ok());
        drop(first);
        assert!(make("eve", LARGE).is_ok());
        second.fit(LARGE - 80).unwrap();
        assert_eq!(memory.free.available_permits(), 230);
        second.fit(1).unwrap();
        assert_eq!(memory.free.available_permits(), 250);
    }

    #[test]
    fn what_is_left_is_what_fits() {
        let memory = Memory::new(400, 100);
        let [mut first, mut second, mut other] = ["ada", "ada", "bob"].map(|name| memory.room(&identity(name)));
        let mut job = memory.room(&Caller::Service { name: "job".to_owned() });
        first.fit(LARGE - 40).unwrap();
        for (room, left) in [(&mut first, 100), (&mut second, 40), (&mut other, 100), (&mut job, 340)] {
            assert_eq!(room.left(), SMALL_BODY_BYTES + left);
            room.fit(room.left() + 1).unwrap_err();
            let before = room.taken();
            room.fit(room.left()).unwrap();
            room.fit(SMALL_BODY_BYTES + before).unwrap();
        }
    }

    #[test]
    fn one_identity_does_not_take_the_memory_of_all_and_a_service_may() {
        let memory = Memory::new(800, 100);
        let [mut first, mut second, mut others] = ["ada", "ada", "bob"].map(|name| memory.room(&identity(name)));
        first.fit(LARGE + 50).unwrap();
        assert!(second.fit(LARGE).is_err());
        others.fit(LARGE).unwrap();
        drop(first);
        second.fit(LARGE).unwrap();
        memory.room(&Caller::Service { name: "job".to_owned() }).fit(LARGE + 500).unwrap();
    }
}
