//! What operators see of the server over real sockets: metrics, readiness, rates, foreign pages, ids, TLS.
#![expect(clippy::unwrap_used, reason = "helpers of tests are not in test functions")]

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Version};
use serde_json::{Value, json};
use sync_core::merge::push::{Commit, View};
use sync_core::model::{DatasetName, Owner, Position, SyncCount, Timestamp};
use syncline_server::auth::dev_issuer::DevIssuer;
use syncline_server::auth::identity::IdentityPool;
use syncline_server::auth::jwks::StaticJwks;
use syncline_server::auth::jwt::Verifier;
use syncline_server::clock::{Clock as _, SystemClock, SystemRandom, SystemSleep};
use syncline_server::config::Config;
use syncline_server::data_folder::DataFolder;
use syncline_server::deps::{Deps, Stopping};
use syncline_server::hook::HttpHook;
use syncline_server::http::{self, Entrance};
use syncline_server::metrics::Metrics;
use syncline_server::service::hook::PushHook;
use syncline_server::service::{Service, ServiceParts, ServiceSettings};
use syncline_server::store::directory::Directory;
use syncline_server::store::memory::MemoryStore;
use syncline_server::store::metered::MeteredStore;
use syncline_server::store::transfer::Transfer;
use syncline_server::store::{
    CommitOutcome, DatasetAddress, RecordsAfter, RecordsFrom, RecordsRead, Store, StoreError, Touched,
};
use syncline_server::tls::Tls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A server that ends with the test's runtime.
struct Server {
    base: String,
    /// Where metrics are apart from everything else.
    metrics: String,
    issuer: Arc<DevIssuer>,
    stopping: Stopping,
    client: Client,
    _folder: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        Self::start_with(Arc::new(MemoryStore::new()), None, |_| {}).await
    }

    async fn configured(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_with(Arc::new(MemoryStore::new()), None, change).await
    }

    async fn start_with(store: Arc<dyn Store>, tls: Option<Arc<Tls>>, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let issuer = Arc::new(DevIssuer::open(&DataFolder::open(folder.path()).unwrap(), &SystemRandom).unwrap());
        let pool = IdentityPool::parse("local", "default").unwrap();
        let keys = Arc::new(StaticJwks::new(issuer.keys()).unwrap());
        let mut config = Config::load(None, std::iter::empty()).unwrap();
        change(&mut config);
        let metrics = Arc::new(Metrics::default());
        let parts = ServiceParts {
            store: Arc::new(MeteredStore::new(store, Arc::clone(&metrics))),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            sleep: Arc::new(SystemSleep),
            hook: HttpHook::new(&config.hook).unwrap().map(|hook| Arc::new(hook) as Arc<dyn PushHook>),
            metrics: Arc::clone(&metrics),
        };
        let stopping = Stopping::default();
        let deps = Deps {
            service: Arc::new(Service::new(parts, ServiceSettings::default())),
            verifier: Arc::new(Verifier::new(pool).with_issuer(issuer.rules(), keys)),
            clock: Arc::new(SystemClock),
            dev_issuer: Some(Arc::clone(&issuer)),
            server: config.server.clone(),
            rates: config.rates,
            stopping: stopping.clone(),
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let bind = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (listener, apart) = (bind().await, bind().await);
        let base = format!("{scheme}://{}", listener.local_addr().unwrap());
        let apart_base = format!("http://{}", apart.local_addr().unwrap());
        let (router, metrics_router) = (http::router(deps.clone(), &base), http::metrics_router(deps));
        for (entrance, router) in [
            (Entrance { listener, tls, metrics }, router),
            (Entrance { listener: apart, tls: None, metrics: Arc::default() }, metrics_router),
        ] {
            let config = config.server.clone();
            tokio::spawn(async move { http::serve(entrance, router, &config, std::future::pending()).await });
        }
        Self { base, metrics: apart_base, issuer, stopping, client: Client::new(), _folder: folder }
    }

    fn token(&self, user: &str) -> String {
        let now = SystemClock.now();
        self.issuer.token(user, now, now.plus_ms(60_000)).unwrap()
    }

    fn sync(&self, user: &str, body: &Value) -> RequestBuilder {
        let sent = self.client.post(format!("{}/v1/sync", self.base)).header("Content-Type", "application/json");
        sent.bearer_auth(self.token(user)).body(body.to_string())
    }

    async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.base)).send().await.unwrap()
    }

    /// All numbers, by name and labels.
    async fn numbers(&self) -> BTreeMap<String, f64> {
        let response = self.client.get(format!("{}/metrics", self.metrics)).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        let text = response.text().await.unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(name, value)| (name.into(), value.parse().unwrap()))
            .collect()
    }
}

fn nothing() -> Value {
    json!({"version": 1, "device": "0".repeat(32), "list": true})
}

/// Writes `a` if it is absent, as some device.
fn push(device: &str, change: &str) -> Value {
    let patch = json!({"key": "a", "op": {"replace": [device, "base"]}, "time": 1_795_579_073_000_i64});
    let group = json!({"change_id": change.repeat(32), "patches": [patch]});
    let push = json!({"device": device.repeat(32), "sequence": 1, "groups": [group]});
    json!({"version": 1, "device": device.repeat(32), "datasets": [{"name": "notes", "push": push}]})
}

#[tokio::test]
async fn metrics_count_what_happened_and_name_no_user() {
    let server = Server::start().await;
    for (device, change) in [("1", "a"), ("2", "b")] {
        assert_eq!(server.sync("ada", &push(device, change)).send().await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(server.get("/v1/sync").await.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(server.get("/v1/secret-of-ada").await.status(), StatusCode::NOT_FOUND);
    let numbers = server.numbers().await;
    for (name, expected) in [
        ("syncline_pushes_total{outcome=\"accepted\"}", 1.0),
        ("syncline_pushes_total{outcome=\"conflict\"}", 1.0),
        ("syncline_conflicts_total", 1.0),
        ("syncline_pulls_total{outcome=\"page\"}", 2.0),
        ("syncline_records_pulled_total", 2.0),
        ("syncline_push_wait_seconds_count", 2.0),
        ("syncline_store_operation_seconds_count{operation=\"commit\"}", 2.0),
        ("syncline_store_commits_waiting", 0.0),
        ("syncline_http_requests_total{method=\"POST\",route=\"/v1/sync\",status=\"200\"}", 2.0),
        ("syncline_http_requests_total{method=\"GET\",route=\"/v1/sync\",status=\"405\"}", 1.0),
        ("syncline_http_requests_total{method=\"GET\",route=\"none\",status=\"404\"}", 1.0),
        ("syncline_http_request_seconds_count{method=\"POST\",route=\"/v1/sync\"}", 2.0),
    ] {
        assert_eq!(numbers.get(name), Some(&expected), "{name} in {numbers:#?}");
    }
    assert!(numbers["syncline_open_connections"] >= 1.0);
    assert!(numbers.keys().all(|name| !name.contains("ada") && !name.contains("notes")));
}

#[tokio::test]
async fn metrics_are_where_everything_else_is_only_if_that_was_configured() {
    let server = Server::start().await;
    assert_eq!(server.get("/metrics").await.status(), StatusCode::NOT_FOUND);
    let server = Server::configured(|config| config.server.metrics_listen = Some(config.server.listen)).await;
    let response = server.get("/metrics").await;
    assert!(response.text().await.unwrap().contains("syncline_build_info{version="));
}

/// A store that has lost its disk.
#[derive(Default)]
struct Broken {
    /// Nobody gets to ask for it.
    owners: MemoryStore,
}

#[async_trait]
impl Store for Broken {
    async fn view(&self, _: &DatasetAddress, _: &Touched) -> Result<View, StoreError> {
        Err(gone())
    }

    async fn records_after(&self, _: &DatasetAddress, _: &RecordsAfter) -> Result<RecordsRead, StoreError> {
        Err(gone())
    }

    async fn records_from(&self, _: &DatasetAddress, _: &RecordsFrom) -> Result<RecordsRead, StoreError> {
        Err(gone())
    }

    async fn commit(&self, _: &DatasetAddress, _: Commit) -> Result<CommitOutcome, StoreError> {
        Err(gone())
    }

    async fn datasets(&self, _: &Owner, _: Option<&DatasetName>, _: usize) -> Result<Vec<DatasetName>, StoreError> {
        Err(gone())
    }

    async fn positions(
        &self,
        _: &Owner,
        _: Option<&DatasetName>,
        _: usize,
    ) -> Result<Vec<(DatasetName, Position)>, StoreError> {
        Err(gone())
    }

    async fn addresses(&self, _: Option<&DatasetAddress>, _: usize) -> Result<Vec<DatasetAddress>, StoreError> {
        Err(gone())
    }

    async fn old_tombstones(&self, _: Timestamp, _: usize) -> Result<Vec<(DatasetAddress, SyncCount)>, StoreError> {
        Err(gone())
    }

    fn directory(&self) -> &dyn Directory {
        &self.owners
    }

    fn transfer(&self) -> &dyn Transfer {
        &self.owners
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable("the disk is gone".into())
}

#[tokio::test]
async fn a_server_is_ready_while_its_store_answers_and_it_is_not_stopping() {
    let check = async |server: &Server, status: StatusCode, body: &str| {
        for base in [&server.base, &server.metrics] {
            let response = server.client.get(format!("{base}/readyz")).send().await.unwrap();
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()["cache-control"], "no-store");
            assert_eq!(response.text().await.unwrap(), body);
        }
        assert_eq!(server.get("/healthz").await.status(), StatusCode::OK);
    };
    let server = Server::start().await;
    check(&server, StatusCode::OK, r#"{"status":"ready"}"#).await;
    server.stopping.begin();
    let stopping = r#"{"reason":"the server is stopping","status":"not ready"}"#;
    check(&server, StatusCode::SERVICE_UNAVAILABLE, stopping).await;

    let server = Server::start_with(Arc::new(Broken::default()), None, |_| {}).await;
    let broken = r#"{"reason":"the store fails","status":"not ready"}"#;
    check(&server, StatusCode::SERVICE_UNAVAILABLE, broken).await;
    let errors = server.numbers().await["syncline_store_errors_total{operation=\"addresses\"}"];
    assert!(errors >= 2.0);
}

#[tokio::test]
async fn an_identity_that_calls_too_often_is_told_when_to_come_again_and_others_are_served() {
    let server = Server::configured(|config| (config.rates.requests_per_second, config.rates.burst) = (1, 2)).await;
    for _ in 0..2 {
        assert_eq!(server.sync("ada", &nothing()).send().await.unwrap().status(), StatusCode::OK);
    }
    let refused = server.sync("ada", &nothing()).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "1");
    let body: Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
    assert_eq!(body["code"], "TooManyRequests");
    assert_eq!(server.sync("bob", &nothing()).send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn pages_of_configured_origins_may_ask_without_a_token_whether_they_may() {
    let server = Server::configured(|config| config.server.cors_origins = vec!["https://app.example".to_owned()]).await;
    let preflight = async |server: &Server, origin: &str| {
        let asked = server.client.request(Method::OPTIONS, format!("{}/v1/sync", server.base)).header("Origin", origin);
        let asked = asked.header("Access-Control-Request-Method", "POST");
        asked.header("Access-Control-Request-Headers", "authorization,content-type").send().await.unwrap()
    };
    let allowed = preflight(&server, "https://app.example").await;
    assert_eq!(allowed.status(), StatusCode::OK);
    let header = |name: &str| allowed.headers()[name].to_str().unwrap().to_ascii_lowercase();
    assert_eq!(header("access-control-allow-origin"), "https://app.example");
    assert_eq!(header("access-control-max-age"), "3600");
    for method in ["get", "post", "put", "patch", "delete"] {
        assert!(header("access-control-allow-methods").split(',').any(|found| found == method), "{method}");
    }
    for name in ["authorization", "if-match", "if-none-match", "idempotency-key", "last-event-id", "content-encoding"] {
        assert!(header("access-control-allow-headers").split(',').any(|found| found == name), "{name}");
    }
    let other = preflight(&server, "https://evil.example").await;
    assert_eq!(other.headers().get("access-control-allow-origin"), None);

    // Errors too can be read by the page.
    let asked = server.client.post(format!("{}/v1/sync", server.base)).header("Origin", "https://app.example");
    let refused = asked.send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()["access-control-allow-origin"], "https://app.example");
    let exposed = refused.headers()["access-control-expose-headers"].to_str().unwrap().to_ascii_lowercase();
    assert_eq!(exposed, "etag,retry-after,x-request-id");

    let closed = preflight(&Server::start().await, "https://app.example").await;
    assert_eq!(closed.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(closed.headers().get("access-control-allow-origin"), None);
}

#[tokio::test]
async fn every_answer_names_its_request() {
    let server = Server::start().await;
    let ask = async |id: Option<&str>| {
        let mut asked = server.client.get(format!("{}/v1/nothing", server.base));
        if let Some(id) = id {
            asked = asked.header("X-Request-Id", id);
        }
        asked.send().await.unwrap().headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(ask(Some("from-the-client")).await, "from-the-client");
    let (one, other) = (ask(None).await, ask(Some("not a word")).await);
    assert!(one != other && [&one, &other].iter().all(|id| id.len() == 32), "{one} {other}");
}

#[tokio::test]
async fn the_trace_of_a_push_is_passed_on_to_its_hook() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            stream.read_buf(&mut head).await.unwrap();
        }
        stream.write_all(b"HTTP/1.1 500 Failed\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        String::from_utf8_lossy(&head).into_owned()
    });
    let server = Server::configured(|config| {
        config.hook.url = Some(url.parse().unwrap());
        config.hook.secret = Some("s".repeat(32).parse().unwrap());
    })
    .await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let pushed = server.sync("ada", &push("1", "a")).header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    pushed.header("tracestate", "vendor=1").send().await.unwrap();
    let head = asked.await.unwrap();
    assert!(head.contains(&format!("\r\ntraceparent: 00-{trace}-")), "{head}");
    assert!(!head.contains("00f067aa0ba902b7"), "the span is ours: {head}");
    assert!(head.contains("\r\ntracestate: vendor=1\r\n"), "{head}");
}

#[tokio::test]
async fn tls_speaks_both_versions_of_http_and_takes_a_renewed_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| folder.path().join(name));
    let issue = || {
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        std::fs::write(&certificate, issued.cert.pem()).unwrap();
        std::fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
        let trusted = reqwest::Certificate::from_pem(issued.cert.pem().as_bytes()).unwrap();
        move || Client::builder().tls_certs_only([trusted.clone()])
    };
    let first = issue();
    let tls = Arc::new(Tls::load(&certificate, &key).unwrap());
    let server = Server::start_with(Arc::new(MemoryStore::new()), Some(Arc::clone(&tls)), |_| {}).await;
    let ask = async |client: Client| client.get(format!("{}/healthz", server.base)).send().await;
    assert_eq!(ask(first().build().unwrap()).await.unwrap().version(), Version::HTTP_2);
    assert_eq!(ask(first().http1_only().build().unwrap()).await.unwrap().version(), Version::HTTP_11);
    assert!(ask(Client::new()).await.is_err(), "nobody vouches for the certificate");
    let plain = server.base.replace("https://", "http://");
    assert!(server.client.get(plain).send().await.is_err());

    let renewed = issue();
    assert!(ask(renewed().build().unwrap()).await.is_err());
    tls.reload().unwrap();
    assert!(ask(renewed().build().unwrap()).await.is_ok());
}
