//! A service with devices around it, for tests.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use sync_core::merge::push::{Commit, View};
use sync_core::model::{
    ChangeId, Compare, DatasetName, Delta, DeviceId, Group, Owner, PatchOp, Position, RecordKey, RecordPatch,
    SyncCount, Timestamp, Value,
};
use sync_core::protocol::{DatasetRequest, DatasetResponse, Page, Push, SyncRequest, SyncResponse};
use tokio::sync::Semaphore;

use crate::auth::policy::Caller;
use crate::clock::{Clock, RandomSource, Sleep};
use crate::error::ServiceError;
use crate::service::{Service, ServiceParts, ServiceSettings};
use crate::store::directory::Directory;
use crate::store::memory::MemoryStore;
use crate::store::transfer::Transfer;
use crate::store::{CommitOutcome, DatasetAddress, RecordsAfter, RecordsFrom, RecordsRead, Store, StoreError, Touched};

/// A memory store that does not always do as it is told.
#[derive(Default)]
pub(super) struct ScriptedStore {
    pub(super) inner: MemoryStore,
    pub(super) commits: AtomicUsize,
    /// So many commits are stale.
    pub(super) stale: AtomicUsize,
    /// All calls fail.
    pub(super) fails: AtomicBool,
    /// Commits wait for a permit, if there is a gate.
    pub(super) gate: Option<Semaphore>,
}

impl ScriptedStore {
    fn check(&self) -> Result<(), StoreError> {
        let fails = self.fails.load(Ordering::SeqCst);
        if fails { Err(StoreError::Unavailable("the disk is on fire".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for ScriptedStore {
    async fn view(&self, dataset: &DatasetAddress, touched: &Touched) -> Result<View, StoreError> {
        self.check()?;
        self.inner.view(dataset, touched).await
    }

    async fn records_after(&self, dataset: &DatasetAddress, range: &RecordsAfter) -> Result<RecordsRead, StoreError> {
        self.check()?;
        self.inner.records_after(dataset, range).await
    }

    async fn records_from(&self, dataset: &DatasetAddress, range: &RecordsFrom) -> Result<RecordsRead, StoreError> {
        self.check()?;
        self.inner.records_from(dataset, range).await
    }

    async fn commit(&self, dataset: &DatasetAddress, commit: Commit) -> Result<CommitOutcome, StoreError> {
        self.check()?;
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        self.commits.fetch_add(1, Ordering::SeqCst);
        if self.stale.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Ok(CommitOutcome::Stale);
        }
        self.inner.commit(dataset, commit).await
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
        self.check()?;
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
        &self.inner
    }

    fn transfer(&self) -> &dyn Transfer {
        &self.inner
    }
}

#[derive(Default)]
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[derive(Default)]
struct TestRandom(AtomicU64);

impl RandomSource for TestRandom {
    fn fill(&self, bytes: &mut [u8]) {
        let drawn = self.0.fetch_add(1, Ordering::SeqCst).to_le_bytes();
        bytes.iter_mut().zip(drawn).for_each(|(byte, drawn)| *byte = drawn);
    }
}

struct TestSleep;

#[async_trait]
impl Sleep for TestSleep {
    async fn sleep(&self, _ms: u64) {
        tokio::task::yield_now().await;
    }
}

/// The server and its surroundings.
pub(super) struct World {
    pub(super) store: Arc<ScriptedStore>,
    pub(super) service: Arc<Service>,
    clock: Arc<TestClock>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(ScriptedStore::default(), ServiceSettings::default())
    }

    pub(super) fn with(store: ScriptedStore, settings: ServiceSettings) -> Self {
        let store = Arc::new(store);
        let clock = Arc::new(TestClock::default());
        let parts = ServiceParts {
            store: Arc::clone(&store) as Arc<dyn Store>,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            random: Arc::new(TestRandom::default()),
            sleep: Arc::new(TestSleep),
            hook: None,
            metrics: Arc::default(),
        };
        Self { store, service: Arc::new(Service::new(parts, settings)), clock }
    }

    pub(super) fn pass_ms(&self, ms: i64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sends a request of Ada.
    pub(super) fn send(
        &self,
        datasets: Vec<DatasetRequest>,
    ) -> impl Future<Output = Result<SyncResponse, ServiceError>> + Send + use<> {
        let service = Arc::clone(&self.service);
        async move { service.sync(&ada(), request(datasets)).await }
    }

    /// Sends a request about one dataset. Nothing: it is left out of the answer.
    pub(super) async fn ask(&self, dataset: DatasetRequest) -> Option<DatasetResponse> {
        self.send(vec![dataset]).await.unwrap().datasets.pop()
    }

    /// Pushes from a device that has pulled everything, and pulls.
    pub(super) async fn push(&self, device: u8, sequence: u64, changes: &str) -> DatasetResponse {
        let cursor = self.cursor();
        self.ask(DatasetRequest { cursor, push: Some(push(device, sequence, changes)), ..notes() }).await.unwrap()
    }

    /// Where the dataset is.
    pub(super) fn cursor(&self) -> Option<Position> {
        self.store.inner.head(&address()).lineage.position()
    }

    /// `key=value` of all live records.
    pub(super) fn shown(&self) -> String {
        let records = self.store.inner.live_records(&address());
        let shown = records.iter().map(|record| format!("{}={}", record.key, record.value().unwrap().to_json()));
        shown.collect::<Vec<_>>().join(" ")
    }
}

pub(super) fn ada() -> Caller {
    Caller::Identity(Owner::parse("local:ada").unwrap())
}

pub(super) fn name(name: &str) -> DatasetName {
    DatasetName::parse(name).unwrap()
}

/// The dataset of most tests.
pub(super) fn address() -> DatasetAddress {
    DatasetAddress { owner: ada().default_owner().unwrap().clone(), name: name("notes") }
}

/// A request for the whole dataset.
pub(super) fn notes() -> DatasetRequest {
    DatasetRequest {
        owner: None,
        name: name("notes"),
        cursor: None,
        snapshot: false,
        page: None,
        push: None,
        delete: false,
        pull_limit: None,
    }
}

pub(super) fn device(number: u8) -> DeviceId {
    DeviceId::from_bytes([number; 16])
}

pub(super) fn request(datasets: Vec<DatasetRequest>) -> SyncRequest {
    SyncRequest { version: 1, device: device(1), app: None, limits_version: None, list: false, datasets }
}

/// Groups between blanks, patches of one group between commas: `a=1` replaces, `a?1@3` compares with base 3, `a+1` adds,
/// `-a` removes.
pub(super) fn push(device_number: u8, sequence: u64, changes: &str) -> Push {
    let group = |(at, patches): (usize, &str)| {
        let mut id = [device_number; 16];
        id[..8].copy_from_slice(&sequence.to_le_bytes());
        id[8] = at as u8;
        Group::new(ChangeId::from_bytes(id), patches.split(',').map(patch).collect())
    };
    let groups = changes.split(' ').filter(|group| !group.is_empty()).enumerate().map(group).collect();
    Push { device: device(device_number), sequence, groups }
}

fn patch(text: &str) -> RecordPatch {
    let value = |text: &str| Value::parse_json(text).unwrap();
    let (key, op, base) = if let Some(key) = text.strip_prefix('-') {
        (key, PatchOp::Remove(Compare::Nothing), 0)
    } else if let Some((key, new)) = text.split_once('?') {
        let (new, base) = new.split_once('@').unwrap();
        (key, PatchOp::Replace(value(new), Compare::Base), base.parse().unwrap())
    } else if let Some((key, sum)) = text.split_once('+') {
        (key, PatchOp::Merge(Delta::Add(sum.parse().unwrap())), 0)
    } else {
        let (key, new) = text.split_once('=').unwrap();
        (key, PatchOp::Replace(value(new), Compare::Nothing), 0)
    };
    RecordPatch { key: RecordKey::parse(key).unwrap(), op, base: SyncCount(base), device_time: Timestamp(0) }
}

/// `key=value@count`, `-key@count`, and `…` where a next page is named.
pub(super) fn show(page: &Page) -> String {
    let record = |record: &sync_core::model::Record| match record.value() {
        Some(value) => format!("{}={}@{}", record.key, value.to_json(), record.sync_count),
        None => format!("-{}@{}", record.key, record.sync_count),
    };
    let more = page.next.iter().map(|_| "…".to_owned());
    page.records.iter().map(record).chain(more).collect::<Vec<_>>().join(" ")
}

/// One word a group.
pub(super) fn verdicts(response: &DatasetResponse) -> String {
    let push = response.push.as_ref().unwrap();
    let words = push.groups.iter().map(|group| format!("{:?}", group.status).to_lowercase());
    words.collect::<Vec<_>>().join(" ")
}
