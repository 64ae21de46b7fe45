//! Live hints: who listens for an owner is told which datasets have moved on. A hint may be lost and does no harm then:
//! a pull brings everything. So for each dataset only the latest one is kept, and a slow reader never has a backlog.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sync_core::model::{DatasetName, EpochId, Owner, Position, SyncCount};
use tokio::sync::watch;

use crate::clock::RandomSource;
use crate::service::outbox::{Message, Outbox};
use crate::store::DatasetAddress;

/// A dataset has moved on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Which dataset of the owner.
    pub dataset: DatasetName,
    /// The epoch that it is in.
    pub epoch: EpochId,
    /// The count that it has reached.
    pub sync_count: SyncCount,
}

/// Names a moment in the stream of hints, so that it can be resumed after it. It holds for one run of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HintId {
    run: u64,
    number: u64,
}

/// What a subscriber hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// These datasets have moved on.
    Hints(Vec<Hint>),
    /// It is not known what has, or too much to say: everything is to be pulled.
    Behind,
}

/// The hints of one run of the server. Clones are the same.
#[derive(Clone)]
pub struct Hints {
    random: Arc<dyn RandomSource>,
    state: Arc<Mutex<State>>,
    /// What is said here and other servers are to hear.
    outbox: Outbox,
}

#[derive(Default)]
struct State {
    /// Names this run; drawn when somebody listens for the first time.
    run: Option<u64>,
    /// The number of the latest hint.
    number: u64,
    owners: HashMap<Owner, Said>,
    /// Owners whose last listener has left, the longest ago first. One that came again may be in it still.
    left: VecDeque<Owner>,
    is_closed: bool,
}

/// What was said lately about the datasets of one owner.
struct Said {
    /// All that was said after it is in `latest`.
    since: u64,
    /// The latest hint of each dataset, and its number.
    latest: BTreeMap<DatasetName, (u64, Hint)>,
    listeners: usize,
    wake: watch::Sender<()>,
    /// Nothing will be said any more: the owner was linked to another.
    is_over: bool,
}

/// Somebody who listens for one owner.
pub struct Subscription {
    hints: Hints,
    owner: Owner,
    wake: watch::Receiver<()>,
    run: u64,
    seen: u64,
    is_behind: bool,
}

/// Hints that are said at once; more are not worth more than pulling everything.
const HINTS_MAX: usize = 100;
/// Owners of whom it is remembered what was said, although nobody listens, so that a stream can be resumed.
const OWNERS_LEFT_MAX: usize = 10_000;

impl Hints {
    /// The hints of a run that begins.
    pub fn new(random: Arc<dyn RandomSource>) -> Self {
        Self { random, state: Arc::default(), outbox: Outbox::default() }
    }

    /// What is said here, for other servers.
    pub const fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Says that a dataset has moved on, also to other servers.
    pub(crate) fn publish(&self, dataset: &DatasetAddress, position: Option<Position>) {
        let Some(Position { epoch, count: sync_count, tag: _ }) = position else { return };
        self.outbox.put(Message::Moved { dataset: dataset.clone(), epoch, sync_count });
        self.moved(dataset, epoch, sync_count);
    }

    /// Says here that a dataset has moved on, here or on another server.
    pub(crate) fn moved(&self, dataset: &DatasetAddress, epoch: EpochId, sync_count: SyncCount) {
        let mut state = self.lock();
        state.number += 1;
        let number = state.number;
        if let Some(said) = state.owners.get_mut(&dataset.owner) {
            said.take_in(number, Hint { dataset: dataset.name.clone(), epoch, sync_count });
        }
    }

    /// Says which of these datasets of an owner are not where they were said to be. They were read from the store after
    /// the hint `began`.
    pub(crate) fn found(&self, owner: &Owner, began: u64, positions: Vec<(DatasetName, Position)>) {
        let mut state = self.lock();
        state.number += 1;
        let number = state.number;
        let Some(said) = state.owners.get_mut(owner) else { return };
        for (dataset, Position { epoch, count: sync_count, tag: _ }) in positions {
            // What was said before is outdated if the store says otherwise; what was said meanwhile may be newer.
            let hint = Hint { dataset, epoch, sync_count };
            if said.latest.get(&hint.dataset).is_some_and(|(at, known)| *at <= began && *known != hint) {
                said.latest.remove(&hint.dataset);
            }
            said.take_in(number, hint);
        }
    }

    /// The number of the latest hint, for [`Self::found`].
    pub(crate) fn number(&self) -> u64 {
        self.lock().number
    }

    /// Owners for whom somebody listens.
    pub fn listened_to(&self) -> Vec<Owner> {
        let state = self.lock();
        let listened = state.owners.iter().filter(|(_, said)| said.listeners > 0 && !said.is_over);
        listened.map(|(owner, _)| owner.clone()).collect()
    }

    /// Listens for an owner from now on, or from where an earlier stream broke off.
    pub fn subscribe(&self, owner: &Owner, after: Option<HintId>) -> Subscription {
        let mut state = self.lock();
        let (number, run) = (state.number, self.run(&mut state));
        let said = state.owners.entry(owner.clone()).or_insert_with(|| Said::since(number));
        said.listeners += 1;
        let resumes = |id: &HintId| id.run == run && (said.since..=number).contains(&id.number);
        let seen = after.filter(resumes).map(|id| id.number);
        Subscription {
            hints: self.clone(),
            owner: owner.clone(),
            wake: said.wake.subscribe(),
            run,
            seen: seen.unwrap_or(number),
            is_behind: after.is_some() && seen.is_none(),
        }
    }

    /// Ends what is listened to for `source`, because it was linked to `target`: who listened comes again, and listens for
    /// the target. Who listens for the target or comes to it with an earlier id pulls everything, as datasets have come
    /// from the source. Other servers hear of it too.
    pub(crate) fn link(&self, source: &Owner, target: &Owner) {
        self.outbox.put(Message::Linked { source: source.clone(), target: target.clone() });
        self.linked(source, target);
    }

    /// Whether it is known that an owner was linked to another.
    pub(crate) fn is_over(&self, owner: &Owner) -> bool {
        self.lock().owners.get(owner).is_some_and(|said| said.is_over)
    }

    /// The same as [`Self::link`] for a link that was made on another server.
    pub(crate) fn linked(&self, source: &Owner, target: &Owner) {
        let mut state = self.lock();
        state.number += 1;
        let number = state.number;
        if let Some(said) = state.owners.get_mut(target) {
            said.leave_behind(number);
        }
        // Also if nobody listens: somebody may be about to.
        let over = state.owners.entry(source.clone()).or_insert_with(|| Said::since(number));
        over.is_over = true;
        over.wake.send_replace(());
        if over.listeners == 0 {
            state.leave(source.clone());
        }
    }

    /// Ends all subscriptions, because the server stops.
    pub fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        for said in state.owners.values() {
            said.wake.send_replace(());
        }
    }

    fn run(&self, state: &mut State) -> u64 {
        *state.run.get_or_insert_with(|| {
            let mut run = [0; 8];
            self.random.fill(&mut run);
            u64::from_be_bytes(run)
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscription {
    /// For whom it listens.
    pub const fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Names what has been heard so far.
    pub const fn id(&self) -> HintId {
        HintId { run: self.run, number: self.seen }
    }

    /// Waits for something new. Nothing: the server stops, or the owner was linked to another.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            if let Some(heard) = self.take()? {
                return Some(heard);
            }
            self.wake.changed().await.ok()?;
        }
    }

    /// What is new: inside, if there is anything; outside, unless there will be nothing any more.
    #[expect(clippy::option_option, reason = "the outer one ends the stream, as in `next`")]
    fn take(&mut self) -> Option<Option<Heard>> {
        let state = self.hints.lock();
        if state.is_closed {
            return None;
        }
        let said = state.owners.get(&self.owner).filter(|said| !said.is_over)?;
        self.is_behind |= self.seen < said.since;
        let new = || said.latest.values().filter(|(number, _)| *number > self.seen);
        let heard = if std::mem::take(&mut self.is_behind) || new().count() > HINTS_MAX {
            Some(Heard::Behind)
        } else {
            let hints: Vec<_> = new().map(|(_, hint)| hint.clone()).collect();
            (!hints.is_empty()).then_some(Heard::Hints(hints))
        };
        self.seen = state.number;
        Some(heard)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.hints.lock();
        let Some(said) = state.owners.get_mut(&self.owner) else { return };
        said.listeners -= 1;
        if said.listeners > 0 {
            return;
        }
        state.leave(self.owner.clone());
    }
}

impl State {
    /// Nobody listens for this owner any more. Forgets who has left long ago.
    fn leave(&mut self, owner: Owner) {
        self.left.push_back(owner);
        if self.left.len() > OWNERS_LEFT_MAX
            && let Some(owner) = self.left.pop_front()
            && self.owners.get(&owner).is_some_and(|said| said.listeners == 0)
        {
            self.owners.remove(&owner);
        }
    }
}

impl Said {
    /// Nothing yet, after this number.
    fn since(number: u64) -> Self {
        Self { since: number, latest: BTreeMap::new(), listeners: 0, wake: watch::Sender::new(()), is_over: false }
    }

    /// Takes a hint in, unless it was said before. Of two servers the words may overtake each other.
    fn take_in(&mut self, number: u64, hint: Hint) {
        match self.latest.get_mut(&hint.dataset) {
            Some((_, known)) if *known == hint => return,
            // The newer one is said again: who has heard it does nothing.
            Some((at, known)) if known.epoch == hint.epoch && known.sync_count > hint.sync_count => *at = number,
            // Counts rise unless a backup was put back, so which of the two epochs is newer cannot be told.
            Some((_, known)) if known.epoch != hint.epoch && known.sync_count > hint.sync_count => {
                self.leave_behind(number);
            }
            _ => {
                self.latest.insert(hint.dataset.clone(), (number, hint));
            }
        }
        self.wake.send_replace(());
    }

    /// Everything is to be pulled by who has heard only what was said before.
    fn leave_behind(&mut self, number: u64) {
        self.since = number;
        self.latest.clear();
        self.wake.send_replace(());
    }
}

impl fmt::Display for HintId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}-{}", self.run, self.number)
    }
}

impl HintId {
    /// A moment of no run that is known.
    pub const UNKNOWN: Self = Self { run: 0, number: u64::MAX };

    /// Reads what was written. Nothing: it is not one of ours, and so of no run that is known.
    pub fn parse(text: &str) -> Option<Self> {
        let (run, number) = text.split_once('-')?;
        Some(Self { run: u64::from_str_radix(run, 16).ok()?, number: number.parse().ok()? })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use futures_util::FutureExt as _;
    use sync_core::model::CommitTag;

    use super::*;
    use crate::clock::SystemRandom;

    /// What is heard now: names and counts, `behind`, `end`, or nothing.
    pub(in crate::service) fn hear(subscription: &mut Subscription) -> String {
        match subscription.next().now_or_never() {
            None => String::new(),
            Some(None) => "end".to_owned(),
            Some(Some(Heard::Behind)) => "behind".to_owned(),
            Some(Some(Heard::Hints(hints))) => {
                let told: Vec<_> = hints.iter().map(|hint| format!("{}@{}", hint.dataset, hint.sync_count)).collect();
                told.join(" ")
            }
        }
    }

    fn address(owner: &str, name: &str) -> DatasetAddress {
        DatasetAddress { owner: Owner::parse(owner).unwrap(), name: DatasetName::parse(name).unwrap() }
    }

    fn publish(hints: &Hints, owner: &str, name: &str, count: u64) {
        let (epoch, tag) = (EpochId::from_bytes([1; 16]), CommitTag::from_bytes([1; 8]));
        hints.publish(&address(owner, name), Some(Position { epoch, count: SyncCount(count), tag }));
    }

    #[test]
    fn a_listener_hears_of_its_owner_alone_and_of_each_dataset_the_latest() {
        let hints = Hints::new(Arc::new(SystemRandom));
        let mut ada = hints.subscribe(&Owner::parse("x:ada").unwrap(), None);
        assert_eq!(hear(&mut ada), "");
        publish(&hints, "x:bob", "notes", 1);
        assert_eq!(hear(&mut ada), "");
        for count in 1..=3 {
            publish(&hints, "x:ada", "notes", count);
        }
        publish(&hints, "x:ada", "todos", 1);
        assert_eq!(hear(&mut ada), "notes@3 todos@1");
        assert_eq!(hear(&mut ada), "");
        hints.close();
        assert_eq!(hear(&mut ada), "end");
    }

    #[test]
    fn a_stream_is_resumed_where_it_broke_off_if_that_is_still_known() {
        let hints = Hints::new(Arc::new(SystemRandom));
        let owner = Owner::parse("x:ada").unwrap();
        let mut first = hints.subscribe(&owner, None);
        publish(&hints, "x:ada", "notes", 1);
        assert_eq!(hear(&mut first), "notes@1");
        let id = HintId::parse(&first.id().to_string()).unwrap();
        drop(first);
        publish(&hints, "x:ada", "todos", 5);
        assert_eq!(hear(&mut hints.subscribe(&owner, Some(id))), "todos@5");
        // Of another run, from the future, or from before anybody listened.
        publish(&hints, "x:eve", "notes", 1);
        let eve = Owner::parse("x:eve").unwrap();
        let strange = [HintId { run: id.run ^ 1, ..id }, HintId { number: 99, ..id }];
        for (owner, id) in strange.into_iter().map(|id| (&owner, id)).chain([(&eve, id)]) {
            assert_eq!(hear(&mut hints.subscribe(owner, Some(id))), "behind", "{owner} {id}");
        }
        for text in ["", "-", "x-1", "1-x", "1"] {
            assert_eq!(HintId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_reader_that_is_far_behind_is_told_so() {
        let hints = Hints::new(Arc::new(SystemRandom));
        let mut slow = hints.subscribe(&Owner::parse("x:ada").unwrap(), None);
        for at in 0..=HINTS_MAX {
            publish(&hints, "x:ada", &format!("d{at}"), 1);
        }
        assert_eq!(hear(&mut slow), "behind");
        publish(&hints, "x:ada", "d0", 2);
        assert_eq!(hear(&mut slow), "d0@2");
    }

    #[test]
    fn a_link_ends_the_streams_of_the_one_and_tells_those_of_the_other_to_pull_everything() {
        let hints = Hints::new(Arc::new(SystemRandom));
        let [ada, bob] = ["x:ada", "x:bob"].map(|owner| Owner::parse(owner).unwrap());
        let (mut of_ada, mut of_bob) = (hints.subscribe(&ada, None), hints.subscribe(&bob, None));
        let ids = [of_ada.id(), of_bob.id()];
        publish(&hints, "x:bob", "notes", 1);
        hints.link(&bob, &ada);
        assert_eq!(hear(&mut of_ada), "behind");
        assert_eq!(hear(&mut of_ada), "");
        // Also whoever was on the way to listen.
        assert_eq!((hear(&mut of_bob), hear(&mut hints.subscribe(&bob, None))), ("end".to_owned(), "end".to_owned()));
        for id in ids {
            assert_eq!(hear(&mut hints.subscribe(&ada, Some(id))), "behind");
        }
        publish(&hints, "x:ada", "notes", 2);
        assert_eq!(hear(&mut of_ada), "notes@2");
    }

    fn epoch(byte: u8) -> EpochId {
        EpochId::from_bytes([byte; 16])
    }

    #[test]
    fn words_of_servers_that_overtake_each_other_hide_nothing() {
        // Epoch and count, as they arrive, and what somebody hears who listens after each.
        for (arriving, heard) in [
            ([(1, 5), (1, 6)], ["n@5", "n@6"]),
            ([(1, 5), (1, 5)], ["n@5", ""]),
            ([(1, 6), (1, 5)], ["n@6", "n@6"]),
            ([(1, 5), (2, 6)], ["n@5", "n@6"]),
            ([(1, 5), (2, 5)], ["n@5", "n@5"]),
            ([(2, 6), (1, 5)], ["n@6", "behind"]),
        ] {
            let hints = Hints::new(Arc::new(SystemRandom));
            let mut listener = hints.subscribe(&Owner::parse("x:ada").unwrap(), None);
            // Slow, it hears both together.
            let mut slow = hints.subscribe(&Owner::parse("x:ada").unwrap(), None);
            for ((byte, count), heard) in arriving.into_iter().zip(heard) {
                hints.moved(&address("x:ada", "n"), epoch(byte), SyncCount(count));
                assert_eq!(hear(&mut listener), heard, "{arriving:?}");
            }
            assert_eq!(hear(&mut slow), heard.into_iter().rfind(|heard| !heard.is_empty()).unwrap(), "{arriving:?}");
        }
    }

    #[test]
    fn what_the_store_says_corrects_what_was_said_before_and_not_what_was_said_meanwhile() {
        let hints = Hints::new(Arc::new(SystemRandom));
        let ada = Owner::parse("x:ada").unwrap();
        let mut listener = hints.subscribe(&ada, None);
        let position = |byte: u8, count: u64| {
            let tag = CommitTag::from_bytes([1; 8]);
            (DatasetName::parse("n").unwrap(), Position { epoch: epoch(byte), count: SyncCount(count), tag })
        };
        let mut found = |began, byte, count| {
            hints.found(&ada, began, vec![position(byte, count)]);
            hear(&mut listener)
        };
        // Of a listener that has just come it is not known what it has.
        assert_eq!(found(hints.number(), 1, 5), "n@5");
        assert_eq!(found(hints.number(), 1, 5), "", "nothing new");
        assert_eq!(found(hints.number(), 1, 7), "n@7");
        let began = hints.number();
        publish(&hints, "x:ada", "n", 9);
        assert_eq!(found(began, 1, 8), "n@9");
        // Somebody else's words for a dataset of the same name, or a backup that was put back.
        assert_eq!(found(hints.number(), 1, 8), "n@8");
        assert_eq!(found(hints.number(), 2, 3), "n@3");
        assert_eq!(found(hints.number(), 2, 3), "");
    }

    #[test]
    fn what_other_servers_say_is_not_told_to_them() {
        let hints = Hints::new(Arc::new(SystemRandom));
        hints.outbox().open();
        hints.moved(&address("x:ada", "n"), epoch(1), SyncCount(1));
        hints.linked(&Owner::parse("x:ada").unwrap(), &Owner::parse("x:bob").unwrap());
        assert!(hints.outbox().next().now_or_never().is_none());
        publish(&hints, "x:ada", "n", 2);
        assert_eq!(hints.outbox().next().now_or_never().unwrap().messages().len(), 1);
    }

    #[test]
    fn what_nobody_listens_to_is_forgotten_after_a_while() {
        let hints = Hints::new(Arc::new(SystemRandom));
        for at in 0..OWNERS_LEFT_MAX + 10 {
            drop(hints.subscribe(&Owner::parse(format!("x:{at}")).unwrap(), None));
        }
        assert_eq!(hints.lock().owners.len(), OWNERS_LEFT_MAX);
    }
}
