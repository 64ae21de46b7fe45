//! The real service over the memory store, for the answers of the transcripts.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use sync_core::merge::push::Commit;
use sync_core::model::{
    DeviceId, EpochReason, Limits, Owner, Random as _, Record, RecordKey, RecordState, Timestamp, Value,
};
use sync_core::protocol::{DatasetRequest, DatasetResponse, PROTOCOL_VERSION, SyncRequest};
use sync_core::vectors::{CountingRandom, Server, ServerEvent};
use syncline_server::auth::policy::Caller;
use syncline_server::clock::{Clock, RandomSource, Sleep};
use syncline_server::service::{Service, ServiceParts, ServiceSettings};
use syncline_server::store::memory::{MemorySnapshot, MemoryStore};
use syncline_server::store::{DatasetAddress, Store as _};

/// A server with a clock that stands still and the documented random source.
pub(crate) struct RealServer {
    store: MemoryStore,
    parts: ServiceParts,
    clock: Arc<AtomicI64>,
    service: Service,
    backup: MemorySnapshot,
    /// What was last asked for.
    dataset: Option<DatasetAddress>,
}

/// The prefix of the server's random source.
const PREFIX: [u8; 4] = [0x5e, 0x12, 0x5e, 0x12];

impl RealServer {
    pub(crate) fn new() -> Self {
        let store = MemoryStore::new();
        let clock = Arc::new(AtomicI64::new(0));
        let parts = ServiceParts {
            store: Arc::new(store.clone()),
            clock: Arc::new(StoppedClock(Arc::clone(&clock))),
            random: Arc::new(Counting(Mutex::new(CountingRandom::new(PREFIX)))),
            sleep: Arc::new(NoSleep),
            hook: None,
            metrics: Arc::default(),
        };
        let service = Service::new(parts.clone(), ServiceSettings::default());
        let backup = store.snapshot();
        Self { store, parts, clock, service, backup, dataset: None }
    }

    fn fence(&self, why: EpochReason) {
        now_or_never(self.service.fence(why)).expect("the memory store does not fail");
    }

    /// Writes as a disk does that changes what it holds: the head stays as it is.
    fn damage(&self, key: &RecordKey) {
        let dataset = self.dataset.as_ref().expect("something was synced");
        let record = self.store.live_records(dataset).into_iter().find(|record| record.key == *key);
        let record = Record { state: RecordState::Value(Value::Null), ..record.expect("the server has it") };
        let commit = Commit { records: vec![record], ..Commit::on(&self.store.head(dataset)) };
        now_or_never(self.store.commit(dataset, commit)).expect("the memory store does not fail");
    }
}

impl Server for RealServer {
    fn sync(&mut self, device: DeviceId, request: &DatasetRequest, now: Timestamp) -> Option<DatasetResponse> {
        self.clock.store(now.0, Ordering::Relaxed);
        let owner = Owner::parse("vectors:identity").expect("it is a valid owner");
        self.dataset = Some(DatasetAddress { owner: owner.clone(), name: request.name.clone() });
        let caller = Caller::Identity(owner);
        let request = SyncRequest {
            version: PROTOCOL_VERSION,
            device,
            app: None,
            limits_version: None,
            list: false,
            datasets: vec![request.clone()],
        };
        let answer = now_or_never(self.service.sync(&caller, request)).expect("the request is valid");
        answer.datasets.into_iter().next()
    }

    fn happens(&mut self, event: ServerEvent, now: Timestamp) {
        self.clock.store(now.0, Ordering::Relaxed);
        match event {
            ServerEvent::Backup => self.backup = self.store.snapshot(),
            ServerEvent::Restore => {
                self.store.restore(self.backup.clone());
                self.fence(EpochReason::Fenced);
            }
            ServerEvent::RollBack => {
                self.store.restore(self.backup.clone());
                self.fence(EpochReason::RolledBack);
            }
            ServerEvent::RestoreUnfenced => self.store.restore(self.backup.clone()),
            ServerEvent::ValueBytesMax(value_bytes_max) => {
                let limits = Limits { value_bytes_max, ..Limits::default() };
                let settings = ServiceSettings { limits, ..ServiceSettings::default() };
                self.service = Service::new(self.parts.clone(), settings);
            }
            ServerEvent::Damage(key) => self.damage(&key),
        }
    }
}

/// Runs to its end what never has to wait.
fn now_or_never<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("over the memory store, and alone, nothing has to wait"),
    }
}

struct StoppedClock(Arc<AtomicI64>);

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

struct Counting(Mutex<CountingRandom>);

impl RandomSource for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
    }
}

struct NoSleep;

#[async_trait]
impl Sleep for NoSleep {
    async fn sleep(&self, _ms: u64) {}
}
