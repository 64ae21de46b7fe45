//! What other servers over the same store are to hear, until somebody takes it to them.
//!
//! Whoever commits never waits for that: of each dataset only the latest word is kept, and where there are too many, all
//! of them give way to the one that something was missed.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sync_core::model::{EpochId, Owner, SyncCount};
use tokio::sync::watch;

use crate::store::DatasetAddress;

/// What servers over one store tell each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A dataset has moved on.
    Moved {
        /// Which.
        dataset: DatasetAddress,
        /// The epoch that it is in.
        epoch: EpochId,
        /// The count that it has reached.
        sync_count: SyncCount,
    },
    /// An owner was linked to another.
    Linked {
        /// The one that is gone.
        source: Owner,
        /// The one that stays.
        target: Owner,
    },
    /// There was more to say than found room: any dataset may have moved on.
    Missed,
}

/// The messages that wait. Clones are one.
#[derive(Clone, Debug)]
pub struct Outbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing is kept before somebody takes it.
    is_open: bool,
    /// Something was dropped since the last batch.
    has_missed: bool,
    links: VecDeque<(Owner, Owner)>,
    /// The highest count of each epoch of a dataset: which of two epochs is newer cannot be told here.
    moved: HashMap<Moved, SyncCount>,
    /// The keys of `moved`, in the order in which they came.
    order: VecDeque<Moved>,
    /// Batches that were taken, and of which it is not known yet whether they arrived.
    on_the_way: usize,
}

type Moved = (DatasetAddress, EpochId);

/// Messages on their way. They go back if it is dropped before they have arrived.
#[derive(Debug)]
pub struct Batch {
    outbox: Outbox,
    messages: Vec<Message>,
}

/// Datasets that wait at most.
const DATASETS_MAX: usize = 10_000;
/// Links that wait at most.
const LINKS_MAX: usize = 1_000;
/// Messages that travel together at most.
const BATCH_MESSAGES_MAX: usize = 500;

impl Default for Outbox {
    fn default() -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), changed: watch::Sender::new(()) }))
    }
}

impl Outbox {
    /// From now on messages are kept for whoever calls [`Self::next`].
    pub fn open(&self) {
        self.lock().is_open = true;
    }

    /// Keeps a message. Never waits.
    pub(crate) fn put(&self, message: Message) {
        let mut state = self.lock();
        if state.is_open {
            state.put(message);
            drop(state);
            self.0.changed.send_replace(());
        }
    }

    /// Waits for messages, and takes as many as travel together.
    pub async fn next(&self) -> Batch {
        let mut changed = self.0.changed.subscribe();
        loop {
            let messages = self.lock().take();
            if !messages.is_empty() {
                return Batch { outbox: self.clone(), messages };
            }
            changed.changed().await.expect("the sender lives as long as this outbox");
        }
    }

    /// Waits until all that was kept has arrived.
    pub async fn drained(&self) {
        let mut changed = self.0.changed.subscribe();
        while !self.lock().is_drained() {
            changed.changed().await.expect("the sender lives as long as this outbox");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batch {
    /// What is to be told.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// It has arrived.
    pub fn arrived(mut self) {
        self.messages.clear();
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let mut state = self.outbox.lock();
        state.on_the_way -= 1;
        mem::take(&mut self.messages).into_iter().for_each(|message| state.put(message));
        drop(state);
        self.outbox.0.changed.send_replace(());
    }
}

impl State {
    fn put(&mut self, message: Message) {
        match message {
            Message::Missed => self.has_missed = true,
            Message::Linked { source, target } => self.links.push_back((source, target)),
            Message::Moved { dataset, epoch, sync_count } => {
                let key = (dataset, epoch);
                if let Some(known) = self.moved.get_mut(&key) {
                    *known = sync_count.max(*known);
                } else {
                    self.order.push_back(key.clone());
                    self.moved.insert(key, sync_count);
                }
            }
        }
        if self.moved.len() > DATASETS_MAX || self.links.len() > LINKS_MAX {
            // Links stay, as far as there is room: a stream that they end is not one of those that are looked after.
            self.has_missed = true;
            self.moved.clear();
            self.order.clear();
            self.links.truncate(LINKS_MAX);
        }
    }

    /// Takes as many messages as travel together.
    fn take(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        if mem::take(&mut self.has_missed) {
            messages.push(Message::Missed);
        }
        let links = self.links.drain(..self.links.len().min(BATCH_MESSAGES_MAX));
        messages.extend(links.map(|(source, target)| Message::Linked { source, target }));
        while messages.len() < BATCH_MESSAGES_MAX
            && let Some(key) = self.order.pop_front()
        {
            if let Some(sync_count) = self.moved.remove(&key) {
                let (dataset, epoch) = key;
                messages.push(Message::Moved { dataset, epoch, sync_count });
            }
        }
        self.on_the_way += usize::from(!messages.is_empty());
        messages
    }

    fn is_drained(&self) -> bool {
        self.on_the_way == 0 && !self.has_missed && self.links.is_empty() && self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use sync_core::model::DatasetName;

    use super::*;

    fn moved(name: &str, epoch: u8, count: u64) -> Message {
        let owner = Owner::parse("x:ada").unwrap();
        let dataset = DatasetAddress { owner, name: DatasetName::parse(name).unwrap() };
        Message::Moved { dataset, epoch: EpochId::from_bytes([epoch; 16]), sync_count: SyncCount(count) }
    }

    fn linked(source: &str) -> Message {
        Message::Linked { source: Owner::parse(source).unwrap(), target: Owner::parse("x:ada").unwrap() }
    }

    fn opened() -> Outbox {
        let outbox = Outbox::default();
        outbox.open();
        outbox
    }

    /// What is taken now, as if it arrived.
    fn taken(outbox: &Outbox) -> Vec<Message> {
        let Some(batch) = outbox.next().now_or_never() else { return Vec::new() };
        let messages = batch.messages().to_vec();
        batch.arrived();
        messages
    }

    #[test]
    fn nothing_is_kept_before_somebody_takes_it() {
        let outbox = Outbox::default();
        outbox.put(moved("a", 1, 1));
        outbox.open();
        assert_eq!(taken(&outbox), []);
        outbox.put(moved("a", 1, 2));
        assert_eq!(taken(&outbox), [moved("a", 1, 2)]);
    }

    #[test]
    fn of_each_dataset_the_highest_count_of_each_epoch_is_kept_in_the_order_in_which_they_came() {
        let outbox = opened();
        for count in 1..=10_000 {
            outbox.put(moved("flood", 1, count));
        }
        for message in [moved("a", 1, 5), moved("a", 2, 6), moved("a", 1, 4), linked("x:bob")] {
            outbox.put(message);
        }
        assert_eq!(taken(&outbox), [linked("x:bob"), moved("flood", 1, 10_000), moved("a", 1, 5), moved("a", 2, 6)]);
        assert_eq!(taken(&outbox), []);
    }

    #[test]
    fn a_batch_that_does_not_arrive_is_taken_again_with_what_came_meanwhile() {
        let outbox = opened();
        outbox.put(moved("a", 1, 1));
        outbox.put(moved("b", 1, 1));
        let batch = outbox.next().now_or_never().unwrap();
        outbox.put(moved("a", 1, 2));
        assert!(outbox.drained().now_or_never().is_none());
        drop(batch);
        assert!(outbox.drained().now_or_never().is_none());
        assert_eq!(taken(&outbox), [moved("a", 1, 2), moved("b", 1, 1)]);
        assert!(outbox.drained().now_or_never().is_some());
    }

    #[test]
    fn too_much_gives_way_to_the_word_that_something_was_missed() {
        let outbox = opened();
        outbox.put(linked("x:bob"));
        for at in 0..=DATASETS_MAX {
            outbox.put(moved(&format!("d{at}"), 1, 1));
        }
        outbox.put(moved("later", 1, 1));
        assert_eq!(taken(&outbox), [Message::Missed, linked("x:bob"), moved("later", 1, 1)]);
        for at in 0..=LINKS_MAX {
            outbox.put(linked(&format!("x:{at}")));
        }
        let all: Vec<_> = std::iter::from_fn(|| Some(taken(&outbox)).filter(|taken| !taken.is_empty())).collect();
        let kept: Vec<_> = all.concat();
        assert_eq!((&kept[0], kept.len()), (&Message::Missed, 1 + LINKS_MAX));
        assert!(all.iter().all(|batch| batch.len() <= BATCH_MESSAGES_MAX + 1));
    }
}
