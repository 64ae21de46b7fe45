//! Servers over one store in memory, in this process, each with sockets of its own.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Client;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use sync_core::client::events::Event;
use syncline_server::auth::dev_issuer::DevIssuer;
use syncline_server::auth::identity::IdentityPool;
use syncline_server::auth::jwks::StaticJwks;
use syncline_server::auth::jwt::Verifier;
use syncline_server::clock::{Clock as _, SystemClock, SystemRandom, SystemSleep};
use syncline_server::config::Config;
use syncline_server::data_folder::DataFolder;
use syncline_server::deps::{Deps, Stopping};
use syncline_server::fanout::{self, Running};
use syncline_server::http::{self, Entrance};
use syncline_server::metrics::Metrics;
use syncline_server::service::{Service, ServiceParts, ServiceSettings};
use syncline_server::store::memory::MemoryStore;
use tests::harness::{Events, Folder};
use tokio::net::TcpListener;

/// How long anything may take that is waited for.
pub(super) const WITHIN: Duration = Duration::from_secs(20);

/// Two servers.
pub(super) struct Apps {
    pub(super) here: App,
    pub(super) there: App,
    issuer: DevIssuer,
    store: MemoryStore,
    pub(super) client: Client,
    _folder: Folder,
}

/// One of them.
pub(super) struct App {
    pub(super) url: String,
    metrics: Arc<Metrics>,
    pub(super) fanout: Running,
}

impl Apps {
    /// Two servers that tell each other what happens by way of this Redis, or of the store alone, and wait until they can.
    pub(super) async fn start(redis: Option<&str>, poll_interval: &str) -> Self {
        let folder = Folder::new();
        let issuer = DevIssuer::open(&DataFolder::open(&folder.path("data")).unwrap(), &SystemRandom).unwrap();
        let store = MemoryStore::new();
        let here = App::start(&issuer, &store, redis, poll_interval).await;
        let there = App::start(&issuer, &store, redis, poll_interval).await;
        let apps = Self { here, there, issuer, store, client: Client::new(), _folder: folder };
        if redis.is_some() {
            apps.connected(1).await;
        }
        apps
    }

    /// One more server over the same store, which tells nobody anything.
    pub(super) async fn silent(&self) -> App {
        App::start(&self.issuer, &self.store, None, "1h").await
    }

    /// Waits until both servers are connected, or neither is.
    pub(super) async fn connected(&self, connected: u64) {
        for app in [&self.here, &self.there] {
            until("the servers are connected", || app.number("fanout_connected") == Some(connected)).await;
        }
    }

    pub(super) fn token(&self, user: &str) -> String {
        let now = SystemClock.now();
        self.issuer.token(user, now, now.plus_ms(600_000)).unwrap()
    }

    /// Listens at a server, from now on.
    pub(super) async fn listen(&self, app: &App, user: &str) -> Events {
        let mut events = Events::open(&self.client, &app.url, &self.token(user), None).await;
        assert_eq!(events.next().await.unwrap().name, "ready");
        events
    }

    /// Writes a record of a dataset.
    pub(super) async fn put(&self, app: &App, user: &str, dataset: &str) {
        let request = self.client.put(format!("{}/v1/datasets/{dataset}/records/a", app.url));
        let request = request.header(AUTHORIZATION, self.token(user)).header(CONTENT_TYPE, "application/json");
        let sent = request.body(SystemClock.now().0.to_string()).send().await.unwrap();
        assert!(sent.status().is_success(), "{}", sent.status());
    }

    /// Makes the login of a user lead to the identity of another.
    pub(super) async fn link(&self, app: &App, source: &str, target: &str) {
        let request = self.client.post(format!("{}/v1/identity/link", app.url));
        let request = request.header(AUTHORIZATION, self.token(target)).header(CONTENT_TYPE, "application/json");
        let sent = request.body(format!("{{\"token\":\"{}\"}}", self.token(source))).send().await.unwrap();
        assert!(sent.status().is_success(), "{}", sent.status());
    }
}

impl App {
    async fn start(issuer: &DevIssuer, store: &MemoryStore, redis: Option<&str>, poll_interval: &str) -> Self {
        let mut config = Config::load(None, std::iter::empty()).unwrap();
        config.fanout.url = redis.map(|url| url.parse().unwrap());
        config.fanout.poll_interval = poll_interval.parse().unwrap();
        config.rates.requests_per_second = 0;
        let metrics = Arc::new(Metrics::default());
        let parts = ServiceParts {
            store: Arc::new(store.clone()),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            sleep: Arc::new(SystemSleep),
            hook: None,
            metrics: Arc::clone(&metrics),
        };
        let service = Arc::new(Service::new(parts, ServiceSettings::default()));
        let fanout = fanout::start(&config.fanout, &service, &SystemRandom);
        let keys = Arc::new(StaticJwks::new(issuer.keys()).unwrap());
        let pool = IdentityPool::parse("local", "default").unwrap();
        let deps = Deps {
            service,
            verifier: Arc::new(Verifier::new(pool).with_issuer(issuer.rules(), keys)),
            clock: Arc::new(SystemClock),
            dev_issuer: None,
            server: config.server.clone(),
            rates: config.rates,
            stopping: Stopping::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = http::router(deps, &url);
        let entrance = Entrance { listener, tls: None, metrics: Arc::default() };
        tokio::spawn(async move { http::serve(entrance, router, &config.server, std::future::pending()).await });
        Self { url, metrics, fanout }
    }

    /// A number of its metrics, without the name of the program. Nothing: it does not tell it.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        let text = self.metrics.to_text();
        let line = text.lines().find_map(|line| line.strip_prefix("syncline_")?.strip_prefix(name)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    /// How many messages came to this.
    pub(super) fn messages(&self, outcome: &str) -> u64 {
        self.number(&format!("fanout_messages_total{{outcome=\"{outcome}\"}}")).unwrap_or_default()
    }
}

/// What comes next: `dataset@count`, the name of the event, or `end`.
pub(super) async fn next(events: &mut Events) -> String {
    shown(within("an event", events.next()).await)
}

/// Waits until this dataset is said to be there.
pub(super) async fn hear(events: &mut Events, wanted: &str) {
    let wait = async { while shown(events.next().await) != wanted {} };
    within(wanted, wait).await;
}

fn shown(event: Option<Event>) -> String {
    let Some(event) = event else { return "end".to_owned() };
    if event.name != "changed" {
        return event.name;
    }
    let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
    format!("{}@{}", data["dataset"].as_str().unwrap(), data["sync_count"])
}

pub(super) async fn within<T>(what: impl Debug, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(WITHIN, wait).await.unwrap_or_else(|_| panic!("{what:?} does not come"))
}

pub(super) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !is_so() {
        assert!(Instant::now() < deadline, "it does not come to this: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
