//! The server: the real service over the memory store, on a deterministic executor. Every call of the store may be
//! overtaken by other requests.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use sync_core::merge::push::{Commit, View};
use sync_core::model::{
    ChangeId, Compare, DatasetName, DeviceId, Group, Limits, Owner, PatchOp, Position, Random as _, Record, RecordKey,
    RecordPatch, RecordState, RemovalReason, SyncCount, Timestamp, Value,
};
use sync_core::protocol::{DatasetRequest, Format, PROTOCOL_VERSION, Push, SyncRequest, SyncResponse, decode};
use syncline_server::auth::policy::Caller;
use syncline_server::clock::{Clock, RandomSource, Sleep};
use syncline_server::error::ServiceError;
use syncline_server::service::hook::PushHook;
use syncline_server::service::{Service, ServiceParts, ServiceSettings};
use syncline_server::store::directory::Directory;
use syncline_server::store::memory::{MemorySnapshot, MemoryStore};
use syncline_server::store::transfer::Transfer;
use syncline_server::store::{
    CommitOutcome, DatasetAddress, RecordsAfter, RecordsFrom, RecordsRead, Store, StoreError, Touched,
};

use crate::dice::Dice;
use crate::sim::app::key;
use crate::sim::hook::Hook;
use crate::sim::mirror::{Mirror, Other};

/// Gives others a turn, once.
struct Turn(bool);

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        // Combinators poll only what has been woken.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A store, with a turn for others before each call, and a list of what was committed.
struct TurnStore {
    inner: Arc<dyn Store>,
    commits: Arc<Mutex<Vec<Commit>>>,
}

#[async_trait]
impl Store for TurnStore {
    async fn view(&self, dataset: &DatasetAddress, touched: &Touched) -> Result<View, StoreError> {
        Turn(false).await;
        self.inner.view(dataset, touched).await
    }

    async fn records_after(&self, dataset: &DatasetAddress, range: &RecordsAfter) -> Result<RecordsRead, StoreError> {
        Turn(false).await;
        self.inner.records_after(dataset, range).await
    }

    async fn records_from(&self, dataset: &DatasetAddress, range: &RecordsFrom) -> Result<RecordsRead, StoreError> {
        Turn(false).await;
        self.inner.records_from(dataset, range).await
    }

    async fn commit(&self, dataset: &DatasetAddress, commit: Commit) -> Result<CommitOutcome, StoreError> {
        Turn(false).await;
        let outcome = self.inner.commit(dataset, commit.clone()).await?;
        if outcome == CommitOutcome::Written {
            self.commits.lock().unwrap_or_else(PoisonError::into_inner).push(commit);
        }
        Ok(outcome)
    }

    async fn datasets(
        &self,
        owner: &Owner,
        after: Option<&DatasetName>,
        names_max: usize,
    ) -> Result<Vec<DatasetName>, StoreError> {
        self.inner.datasets(owner, after, names_max).await
    }

    async fn positions(
        &self,
        owner: &Owner,
        after: Option<&DatasetName>,
        positions_max: usize,
    ) -> Result<Vec<(DatasetName, Position)>, StoreError> {
        self.inner.positions(owner, after, positions_max).await
    }

    async fn addresses(
        &self,
        after: Option<&DatasetAddress>,
        addresses_max: usize,
    ) -> Result<Vec<DatasetAddress>, StoreError> {
        self.inner.addresses(after, addresses_max).await
    }

    async fn old_tombstones(
        &self,
        before: Timestamp,
        tombstones_max: usize,
    ) -> Result<Vec<(DatasetAddress, SyncCount)>, StoreError> {
        self.inner.old_tombstones(before, tombstones_max).await
    }

    fn directory(&self) -> &dyn Directory {
        self.inner.directory()
    }

    fn transfer(&self) -> &dyn Transfer {
        self.inner.transfer()
    }
}

struct SimClock(Arc<AtomicI64>);

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

struct SimRandom(Mutex<Dice>);

impl RandomSource for SimRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
    }
}

struct SimSleep;

#[async_trait]
impl Sleep for SimSleep {
    async fn sleep(&self, _ms: u64) {
        Turn(false).await;
    }
}

fn processes(parts: &ServiceParts, settings: &ServiceSettings) -> [Arc<Service>; 3] {
    [(); 3].map(|()| Arc::new(Service::new(parts.clone(), settings.clone())))
}

type Answer = Result<SyncResponse, ServiceError>;

/// A request that the server is working on.
struct Task {
    from: usize,
    id: u64,
    future: Pin<Box<dyn Future<Output = Answer> + Send>>,
}

/// The server of the simulation.
pub(super) struct Server {
    store: MemoryStore,
    /// The same and its mirror, if it has one.
    whole: Arc<dyn Store>,
    /// Another store does the same besides.
    is_mirrored: bool,
    /// Processes over one store: two for the devices, one for others.
    services: [Arc<Service>; 3],
    parts: ServiceParts,
    settings: ServiceSettings,
    tasks: Vec<Task>,
    commits: Arc<Mutex<Vec<Commit>>>,
    clock: Arc<AtomicI64>,
    pub(super) dataset: DatasetAddress,
}

/// Values longer than this are refused by the server alone.
pub(super) const VALUE_BYTES_MAX: usize = 600;

/// How long the server keeps tombstones.
const TOMBSTONE_AGE_MS: i64 = 60_000;
/// The record that others than the devices write.
const OTHERS: &str = "j0";
/// Pushes of each device that are remembered: few, so that a device that was put back finds its older ones forgotten.
const PUSHES_REMEMBERED: usize = 2;

impl Server {
    /// A server over the memory store, which `other` mirrors, if there is one. That remembers as much as it always does.
    pub(super) fn new(seed: u64, hooked: bool, other: Option<Other>) -> Self {
        let is_mirrored = other.is_some();
        let (store, whole): (_, Arc<dyn Store>) = match other {
            None => {
                let store = MemoryStore::forgetful(PUSHES_REMEMBERED);
                (store.clone(), Arc::new(store))
            }
            Some(other) => {
                let reference = MemoryStore::new();
                (reference.clone(), Arc::new(Mirror { reference, other }))
            }
        };
        let commits = Arc::new(Mutex::new(Vec::new()));
        let clock = Arc::new(AtomicI64::new(1_700_000_000_000));
        let parts = ServiceParts {
            store: Arc::new(TurnStore { inner: Arc::clone(&whole), commits: Arc::clone(&commits) }),
            clock: Arc::new(SimClock(Arc::clone(&clock))),
            random: Arc::new(SimRandom(Mutex::new(Dice::new(seed ^ 0x7365_7276_6572)))),
            sleep: Arc::new(SimSleep),
            hook: hooked.then(|| Arc::new(Hook) as Arc<dyn PushHook>),
            metrics: Arc::default(),
        };
        let limits = Limits { value_bytes_max: VALUE_BYTES_MAX, ..Limits::default() };
        let settings = ServiceSettings { limits, tombstone_age_ms: TOMBSTONE_AGE_MS, ..ServiceSettings::default() };
        let services = processes(&parts, &settings);
        let owner = Owner::parse("sim:one").expect("it is a valid owner");
        let name = DatasetName::parse("ledger").expect("it is a valid name");
        let dataset = DatasetAddress { owner, name };
        Self { store, whole, is_mirrored, services, parts, settings, tasks: Vec::new(), commits, clock, dataset }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp(self.clock.load(Ordering::Relaxed))
    }

    pub(super) fn advance(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) const fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// Takes a request as it came from the network. Says whether it is ahead of the server, in its newest epoch.
    pub(super) fn accept(&mut self, from: usize, id: u64, bytes: &[u8], format: Format) -> bool {
        let request: SyncRequest = match decode(bytes, format) {
            Ok(request) => request,
            Err(error) => panic!("the server could not read what a device wrote: {error}"),
        };
        let line = self.store.head(&self.dataset).lineage;
        let is_ahead = |cursor: Position| line.epoch() == Some(cursor.epoch) && cursor.count > line.count;
        let is_ahead = request.datasets.iter().filter_map(|dataset| dataset.cursor).any(is_ahead);
        let service = Arc::clone(&self.services[id as usize % 2]);
        let caller = Caller::Identity(self.dataset.owner.clone());
        let future = Box::pin(async move { service.sync(&caller, request).await });
        self.tasks.push(Task { from, id, future });
        is_ahead
    }

    /// Whether its disk can do what no commit does: another store need not take a record without a new count.
    pub(super) const fn can_be_damaged(&self) -> bool {
        !self.is_mirrored
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Lets one request go on by one step; returns its answer if that was the last one.
    pub(super) fn step(&mut self, dice: &mut Dice) -> Option<(usize, u64, Answer)> {
        let at = dice.below(self.tasks.len());
        let mut context = Context::from_waker(Waker::noop());
        match self.tasks[at].future.as_mut().poll(&mut context) {
            Poll::Pending => None,
            Poll::Ready(answer) => {
                let Task { from, id, .. } = self.tasks.swap_remove(at);
                Some((from, id, answer))
            }
        }
    }

    /// A client goes away while the server works for it.
    pub(super) fn abandon_one(&mut self, dice: &mut Dice) {
        if !self.tasks.is_empty() {
            let at = dice.below(self.tasks.len());
            drop(self.tasks.swap_remove(at));
        }
    }

    /// What was committed since the last call.
    pub(super) fn take_commits(&self) -> Vec<Commit> {
        std::mem::take(&mut *self.commits.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The processes end and start again: what was not committed is gone.
    pub(super) fn crash(&mut self) {
        self.tasks.clear();
        self.services = processes(&self.parts, &self.settings);
    }

    pub(super) fn backup(&self) -> MemorySnapshot {
        self.store.snapshot()
    }

    /// The store is put back from a backup, under the running process or with a new one.
    pub(super) fn restore(&mut self, backup: MemorySnapshot, fence: bool, restart: bool) {
        if restart {
            self.crash();
        }
        self.store.restore(backup);
        if fence {
            self.run_to_end(|service| {
                Box::pin(async move { service.fence(sync_core::model::EpochReason::Fenced).await.map(drop) })
            });
        }
    }

    /// Purges tombstones that are old by the server's clock.
    pub(super) fn purge(&self) {
        self.run_to_end(|service| Box::pin(async move { service.purge().await.map(drop) }));
    }

    /// The dataset is deleted where it stands, by somebody who is not one of the devices.
    pub(super) fn delete(&self) {
        let request = DatasetRequest { cursor: self.position(), delete: true, ..self.request() };
        self.sync_by_others(request);
    }

    /// Writes by somebody who is not one of the devices.
    pub(super) fn write_many(&self, times: u64, dice: &mut Dice) {
        self.write_for_days(times, u64::MAX, dice);
    }

    /// Puts another value under a key, by somebody who is not one of the devices.
    pub(super) fn replace(&self, key: &RecordKey, dice: &mut Dice) {
        self.write(key.clone(), PatchOp::Replace(Value::Int(1), Compare::Nothing), dice);
    }

    /// Removes what these others wrote, and lets the tombstone become old.
    pub(super) fn remove_by_others(&self, dice: &mut Dice) {
        self.write(key(OTHERS), PatchOp::Remove(Compare::Nothing), dice);
        self.advance(2 * TOMBSTONE_AGE_MS);
    }

    /// Others write, so many times a day.
    pub(super) fn write_for_days(&self, times: u64, times_a_day: u64, dice: &mut Dice) {
        for sequence in 1..=times {
            if sequence % times_a_day == 0 {
                self.advance(24 * 60 * 60 * 1000);
            }
            let value = Value::Int(i64::try_from(sequence).unwrap_or_default());
            self.write(key(OTHERS), PatchOp::Replace(value, Compare::Nothing), dice);
        }
    }

    fn write(&self, key: RecordKey, op: PatchOp, dice: &mut Dice) {
        let patch = RecordPatch { key, op, base: SyncCount::ZERO, device_time: self.now() };
        let group = Group::new(ChangeId::random(dice), vec![patch]);
        // Each time another device, whose first push it is.
        let push = Push { device: DeviceId::random(dice), sequence: 1, groups: vec![group] };
        self.sync_by_others(DatasetRequest { push: Some(push), ..self.request() });
    }

    /// The disk makes a value another one: not even the digest says so.
    pub(super) fn damage(&self, record: &Record) {
        let mut commit = Commit::on(&self.store.head(&self.dataset));
        commit.records = vec![Record { state: RecordState::Value(Value::Text("damaged".into())), ..record.clone() }];
        self.commit_unseen(commit);
    }

    /// The disk loses a record: no commit says so. Its digest knows, or not.
    pub(super) fn lose(&self, record: &Record, is_known: bool) {
        let mut commit = Commit::on(&self.store.head(&self.dataset));
        if is_known {
            commit.head.digest = commit.head.digest.minus(record);
        }
        commit.records = vec![Record { state: RecordState::Removed(RemovalReason::Removed), ..record.clone() }];
        self.commit_unseen(commit);
    }

    fn commit_unseen(&self, commit: Commit) {
        let (store, dataset) = (Arc::clone(&self.whole), self.dataset.clone());
        self.run_to_end(|_| Box::pin(async move { Ok(store.commit(&dataset, commit).await.map(|_| ())?) }));
    }

    fn position(&self) -> Option<Position> {
        self.store.head(&self.dataset).lineage.position()
    }

    fn request(&self) -> DatasetRequest {
        DatasetRequest {
            owner: None,
            name: self.dataset.name.clone(),
            cursor: None,
            snapshot: false,
            page: None,
            push: None,
            delete: false,
            pull_limit: Some(1),
        }
    }

    fn sync_by_others(&self, request: DatasetRequest) {
        let caller = Caller::Identity(self.dataset.owner.clone());
        let request = SyncRequest {
            version: PROTOCOL_VERSION,
            device: DeviceId::from_bytes([0xff; 16]),
            app: None,
            limits_version: None,
            list: false,
            datasets: vec![request],
        };
        self.run_to_end(|service| Box::pin(async move { service.sync(&caller, request).await.map(drop) }));
    }

    fn run_to_end(
        &self,
        work: impl FnOnce(Arc<Service>) -> Pin<Box<dyn Future<Output = Result<(), ServiceError>> + Send>>,
    ) {
        let mut work = work(Arc::clone(&self.services[2]));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..10_000 {
            if let Poll::Ready(outcome) = work.as_mut().poll(&mut context) {
                outcome.expect("the memory store does not fail");
                return;
            }
        }
        panic!("the service did not come to an end");
    }
}
