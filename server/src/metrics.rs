//! What is counted and measured, for Prometheus. Plain numbers: whoever acts says what happened, and `http` prints them.
//!
//! No label tells users or datasets apart: their number has no bound, and a name is nobody's business.

use std::fmt::{self, Debug};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, prometheus_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// The numbers of one server.
pub struct Metrics {
    registry: Registry,
    pushes: Family<OutcomeOf, Counter>,
    conflicts: Counter,
    push_wait: Histogram,
    pulls: Family<OutcomeOf, Counter>,
    records_pulled: Counter,
    store_operations: Family<OperationOf, Histogram, fn() -> Histogram>,
    store_errors: Family<OperationOf, Counter>,
    commits_waiting: Gauge,
    http_requests: Family<RequestOf, Counter>,
    http_seconds: Family<RouteOf, Histogram, fn() -> Histogram>,
    open_connections: Gauge,
    fanout_messages: Family<OutcomeOf, Counter>,
    fanout_looks: Family<OutcomeOf, Counter>,
    fanout_connected: FanoutConnected,
}

/// What a store is charged by: DynamoDB's units of reading and writing. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct StoreUnits {
    read: Family<OperationOf, Units>,
    written: Family<OperationOf, Units>,
}

/// Units come in halves.
type Units = Counter<f64, AtomicU64>;

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    /// Every group was applied or merged.
    Accepted,
    /// At least one group was a conflict.
    Conflict,
    /// At least one group was refused, and none was a conflict.
    Refused,
    /// The device's file is a copy, and takes a new device id.
    Copied,
    /// The device does not stand on the dataset's line.
    OffLine,
    /// The server could not do it.
    Failed,
}

/// What was answered to a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullOutcome {
    /// Records.
    Page,
    /// There is nothing new.
    Unchanged,
    /// The pull begins again.
    Restart,
    /// The device's cursor is off the line, for instance after a restore.
    Reset,
    /// The server could not do it.
    Failed,
}

/// What became of a message of one server to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageOutcome {
    /// It was told to the others.
    Published,
    /// It came from another.
    Received,
    /// It was not told, or not understood.
    Failed,
}

/// What a store is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the methods of a store")]
pub enum StoreOperation {
    View,
    RecordsAfter,
    RecordsFrom,
    Commit,
    Datasets,
    Positions,
    Addresses,
    OldTombstones,
    Resolve,
    Link,
    Devices,
    Register,
    Unregister,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeOf {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationOf {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestOf {
    method: String,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteOf {
    method: String,
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildOf {
    version: &'static str,
}

/// Counts as one in a gauge until it is dropped.
#[derive(Debug)]
pub struct Counted(Gauge);

/// The size of what is stored, asked anew each time that somebody looks.
struct StoreBytes<F>(F);

/// Whether the other servers can be told. Nothing: there is nothing to tell them by.
#[derive(Clone, Debug, Default)]
struct FanoutConnected(Arc<Mutex<Option<bool>>>);

/// What Prometheus is told about the form of the text.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// Upper bounds of the histograms, in seconds: from a read in memory to a request that somebody gives up.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

impl Default for Metrics {
    /// For a store whose size nobody asks for.
    fn default() -> Self {
        Self::new(|| None)
    }
}

impl Metrics {
    /// All at zero. `store_bytes` is called each time that the numbers are printed.
    pub fn new(store_bytes: impl Fn() -> Option<u64> + Send + Sync + 'static) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("syncline"),
            pushes: Family::default(),
            conflicts: Counter::default(),
            push_wait: seconds(),
            pulls: Family::default(),
            records_pulled: Counter::default(),
            store_operations: Family::new_with_constructor(seconds),
            store_errors: Family::default(),
            commits_waiting: Gauge::default(),
            http_requests: Family::default(),
            http_seconds: Family::new_with_constructor(seconds),
            open_connections: Gauge::default(),
            fanout_messages: Family::default(),
            fanout_looks: Family::default(),
            fanout_connected: FanoutConnected::default(),
        };
        let registry = &mut metrics.registry;
        let build = Family::<BuildOf, Gauge>::default();
        build.get_or_create(&BuildOf { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "Which version this is", build);
        registry.register("pushes", "Pushes to datasets, by what became of them", metrics.pushes.clone());
        registry.register("conflicts", "Groups that lost against what others wrote", metrics.conflicts.clone());
        registry.register_with_unit(
            "push_wait",
            "How long pushes wait for those to the same dataset before them",
            Unit::Seconds,
            metrics.push_wait.clone(),
        );
        registry.register("pulls", "Pulls of datasets, by what was answered", metrics.pulls.clone());
        registry.register("records_pulled", "Records sent to devices", metrics.records_pulled.clone());
        registry.register_with_unit(
            "store_operation",
            "How long the store takes, by operation; commits include the wait for the writer",
            Unit::Seconds,
            metrics.store_operations.clone(),
        );
        registry.register("store_errors", "Operations that the store failed at", metrics.store_errors.clone());
        registry.register("store_commits_waiting", "Commits that are not durable yet", metrics.commits_waiting.clone());
        registry.register("http_requests", "Requests, by route and status", metrics.http_requests.clone());
        registry.register_with_unit(
            "http_request",
            "How long it takes until an answer begins, by route",
            Unit::Seconds,
            metrics.http_seconds.clone(),
        );
        registry.register("open_connections", "Connections that are open", metrics.open_connections.clone());
        registry.register(
            "fanout_messages",
            "What servers tell each other, by what became of it",
            metrics.fanout_messages.clone(),
        );
        registry.register(
            "fanout_looks",
            "How often the store was asked where an owner's datasets are",
            metrics.fanout_looks.clone(),
        );
        registry.register_collector(Box::new(metrics.fanout_connected.clone()));
        registry.register_collector(Box::new(StoreBytes(store_bytes)));
        metrics
    }

    /// Prints besides what a store is charged by.
    pub fn print_units(&mut self, units: &StoreUnits) {
        let registry = &mut self.registry;
        registry.register("store_read_units", "Units of reading that the store charges", units.read.clone());
        registry.register("store_write_units", "Units of writing that the store charges", units.written.clone());
    }

    /// The numbers in the text format of Prometheus.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry).expect("nothing fails that writes to memory");
        text
    }

    /// A push was answered.
    pub fn pushed(&self, outcome: PushOutcome, conflicts: usize) {
        self.pushes.get_or_create(&OutcomeOf { outcome: outcome.label() }).inc();
        self.conflicts.inc_by(conflicts as u64);
    }

    /// A push's turn came, after that many milliseconds.
    pub fn push_waited(&self, ms: i64) {
        self.push_wait.observe(ms.max(0) as f64 / 1000.0);
    }

    /// A pull was answered.
    pub fn pulled(&self, outcome: PullOutcome, records: usize) {
        self.pulls.get_or_create(&OutcomeOf { outcome: outcome.label() }).inc();
        self.records_pulled.inc_by(records as u64);
    }

    /// The store has done, or failed at, what it was asked.
    pub fn stored(&self, operation: StoreOperation, took: Duration, succeeded: bool) {
        let operation = OperationOf { operation: operation.label() };
        self.store_operations.get_or_create(&operation).observe(took.as_secs_f64());
        if !succeeded {
            self.store_errors.get_or_create(&operation).inc();
        }
    }

    /// A commit is on its way.
    pub fn commit_waits(&self) -> Counted {
        Counted::new(&self.commits_waiting)
    }

    /// A request was answered. `method` and `route` are few: the known methods, and patterns instead of paths.
    pub fn answered(&self, method: &str, route: &str, status: u16, took: Duration) {
        let (method, route) = (method.to_owned(), route.to_owned());
        self.http_seconds
            .get_or_create(&RouteOf { method: method.clone(), route: route.clone() })
            .observe(took.as_secs_f64());
        self.http_requests.get_or_create(&RequestOf { method, route, status }).inc();
    }

    /// Something became of so many messages of one server to the others.
    pub fn told(&self, outcome: MessageOutcome, messages: usize) {
        self.fanout_messages.get_or_create(&OutcomeOf { outcome: outcome.label() }).inc_by(messages as u64);
    }

    /// The store was asked where an owner's datasets are.
    pub fn looked(&self, succeeded: bool) {
        let outcome = if succeeded { "succeeded" } else { "failed" };
        self.fanout_looks.get_or_create(&OutcomeOf { outcome }).inc();
    }

    /// The other servers can be told what happens here, or not any more.
    pub fn fanout_connected(&self, is_connected: bool) {
        *self.fanout_connected.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(is_connected);
    }

    /// A connection is open.
    pub fn connection(&self) -> Counted {
        Counted::new(&self.open_connections)
    }
}

impl StoreUnits {
    /// An operation was charged with so many units.
    pub fn used(&self, operation: StoreOperation, read: f64, written: f64) {
        let operation = OperationOf { operation: operation.label() };
        for (units, family) in [(read, &self.read), (written, &self.written)] {
            if units > 0.0 {
                family.get_or_create(&operation).inc_by(units);
            }
        }
    }

    /// What an operation was charged with so far: units of reading and of writing.
    pub fn of(&self, operation: StoreOperation) -> (f64, f64) {
        let operation = OperationOf { operation: operation.label() };
        (self.read.get_or_create(&operation).get(), self.written.get_or_create(&operation).get())
    }
}

impl PushOutcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Conflict => "conflict",
            Self::Refused => "refused",
            Self::Copied => "copied",
            Self::OffLine => "off_line",
            Self::Failed => "failed",
        }
    }
}

impl PullOutcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Unchanged => "unchanged",
            Self::Restart => "restart",
            Self::Reset => "reset",
            Self::Failed => "failed",
        }
    }
}

impl MessageOutcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Received => "received",
            Self::Failed => "failed",
        }
    }
}

impl StoreOperation {
    /// Its name in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::RecordsAfter => "records_after",
            Self::RecordsFrom => "records_from",
            Self::Commit => "commit",
            Self::Datasets => "datasets",
            Self::Positions => "positions",
            Self::Addresses => "addresses",
            Self::OldTombstones => "old_tombstones",
            Self::Resolve => "resolve",
            Self::Link => "link",
            Self::Devices => "devices",
            Self::Register => "register",
            Self::Unregister => "unregister",
        }
    }
}

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl<F> Debug for StoreBytes<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreBytes")
    }
}

impl<F: Fn() -> Option<u64> + Send + Sync + 'static> Collector for StoreBytes<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(bytes) = (self.0)() else { return Ok(()) };
        let gauge = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
        let help = "The size of the database, with its log.";
        gauge.encode(encoder.encode_descriptor("store", help, Some(&Unit::Bytes), gauge.metric_type())?)
    }
}

impl Collector for FanoutConnected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let connected = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(connected) = connected else { return Ok(()) };
        let gauge = ConstGauge::new(i64::from(connected));
        let help = "Whether the other servers can be told what happens here.";
        gauge.encode(encoder.encode_descriptor("fanout_connected", help, None, gauge.metric_type())?)
    }
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_those_that_operators_know() {
        let mut metrics = Metrics::new(|| Some(4096));
        let units = StoreUnits::default();
        metrics.print_units(&units);
        units.used(StoreOperation::View, 0.5, 0.0);
        units.used(StoreOperation::View, 1.0, 7.0);
        metrics.pushed(PushOutcome::OffLine, 0);
        metrics.pushed(PushOutcome::Conflict, 2);
        metrics.push_waited(20);
        metrics.pulled(PullOutcome::Page, 7);
        metrics.stored(StoreOperation::RecordsAfter, Duration::from_millis(3), false);
        metrics.answered("POST", "/v1/sync", 200, Duration::from_millis(3));
        let open = metrics.connection();
        assert!(!metrics.to_text().contains("fanout_connected"), "without a fan-out there is nothing to alert on");
        metrics.fanout_connected(true);
        metrics.told(MessageOutcome::Published, 3);
        metrics.looked(false);
        let text = metrics.to_text();
        for line in [
            "# TYPE syncline_pushes_total counter",
            "syncline_pushes_total{outcome=\"off_line\"} 1",
            "syncline_pushes_total{outcome=\"conflict\"} 1",
            "syncline_conflicts_total 2",
            "syncline_push_wait_seconds_bucket{le=\"0.025\"} 1",
            "syncline_push_wait_seconds_bucket{le=\"0.01\"} 0",
            "syncline_pulls_total{outcome=\"page\"} 1",
            "syncline_records_pulled_total 7",
            "# TYPE syncline_store_operation_seconds histogram",
            "syncline_store_operation_seconds_count{operation=\"records_after\"} 1",
            "syncline_store_errors_total{operation=\"records_after\"} 1",
            "syncline_http_requests_total{method=\"POST\",route=\"/v1/sync\",status=\"200\"} 1",
            "syncline_http_request_seconds_count{method=\"POST\",route=\"/v1/sync\"} 1",
            "syncline_store_read_units_total{operation=\"view\"} 1.5",
            "syncline_store_write_units_total{operation=\"view\"} 7.0",
            "syncline_open_connections 1",
            "syncline_fanout_connected 1",
            "syncline_fanout_messages_total{outcome=\"published\"} 3",
            "syncline_fanout_looks_total{outcome=\"failed\"} 1",
            "# TYPE syncline_store_bytes gauge",
            "syncline_store_bytes 4096",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert!(text.contains("syncline_build_info{version=\""), "{text}");
        drop(open);
        assert!(metrics.to_text().contains("syncline_open_connections 0\n"));
        assert!(!Metrics::default().to_text().contains("store_bytes"));
    }
}
