//! The server over real sockets.
#![expect(clippy::unwrap_used, reason = "helpers of tests are not in test functions")]

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use sync_core::model::{DeviceId, Limits};
use sync_core::protocol::{Format, SyncRequest, SyncResponse, decode, encode};
use syncline_server::auth::dev_issuer::DevIssuer;
use syncline_server::auth::identity::IdentityPool;
use syncline_server::auth::jwks::StaticJwks;
use syncline_server::auth::jwt::Verifier;
use syncline_server::clock::{Clock as _, SystemClock, SystemRandom, SystemSleep};
use syncline_server::config::{Config, ServerConfig};
use syncline_server::data_folder::DataFolder;
use syncline_server::deps::{Deps, Stopping};
use syncline_server::http::{self, Entrance};
use syncline_server::service::{Service, ServiceParts, ServiceSettings};
use syncline_server::store::memory::MemoryStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const JSON: &str = "application/json";
const MESSAGE_PACK: &str = "application/msgpack";

struct Server {
    base: String,
    issuer: Arc<DevIssuer>,
    client: Client,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let issuer = DevIssuer::open(&DataFolder::open(folder.path()).unwrap(), &SystemRandom).unwrap();
        let pool = IdentityPool::parse("local", "default").unwrap();
        let keys = Arc::new(StaticJwks::new(issuer.keys()).unwrap());
        let all = Config::load(None, std::iter::empty()).unwrap();
        let mut config = all.server;
        change(&mut config);
        let parts = ServiceParts {
            store: Arc::new(MemoryStore::new()),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            sleep: Arc::new(SystemSleep),
            hook: None,
            metrics: Arc::default(),
        };
        let limits = Limits { request_bytes_max: 100_000, ..Limits::default() };
        let settings = ServiceSettings { limits, ..ServiceSettings::default() };
        let issuer = Arc::new(issuer);
        let deps = Deps {
            service: Arc::new(Service::new(parts, settings)),
            verifier: Arc::new(Verifier::new(pool).with_issuer(issuer.rules(), keys)),
            clock: Arc::new(SystemClock),
            dev_issuer: Some(Arc::clone(&issuer)),
            server: config.clone(),
            rates: all.rates,
            stopping: Stopping::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = http::router(deps, &base);
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(async move {
            let entrance = Entrance { listener, tls: None, metrics: Arc::default() };
            http::serve(entrance, router, &config, async { drop(stopped.await) }).await;
        });
        let client = Client::builder().no_gzip().no_zstd().build().unwrap();
        Self { base, issuer, client, stop: Some(stop), served, _folder: folder }
    }

    fn token(&self, expires_ms: i64) -> String {
        let now = SystemClock.now();
        self.issuer.token("ada", now.plus_ms(-60_000), now.plus_ms(expires_ms)).unwrap()
    }

    /// A request of Ada, without type or body.
    fn post(&self) -> RequestBuilder {
        self.client.post(format!("{}/v1/sync", self.base)).header("Authorization", self.token(60_000))
    }

    /// A request of Ada about her dataset `notes`, or something in it.
    fn ada(&self, method: Method, part: &str) -> RequestBuilder {
        let url = format!("{}/v1/datasets/notes/{part}", self.base);
        let request = self.client.request(method, url.trim_end_matches('/'));
        request.header("Authorization", self.token(60_000)).header("Content-Type", JSON)
    }

    fn sync<B: Into<reqwest::Body>>(&self, content_type: &str, body: B) -> impl Future<Output = Response> + use<B> {
        let sent = self.post().header("Content-Type", content_type).body(body).send();
        async { sent.await.unwrap() }
    }
}

fn request() -> Value {
    json!({"version": 1, "device": "0".repeat(32), "list": true})
}

/// Status, code and message of an error; all have the same shape.
async fn error(response: Response) -> String {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], JSON);
    assert_eq!(response.headers()["cache-control"], "no-store");
    let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    let [code, message] = ["code", "message"].map(|field| body[field].as_str().unwrap());
    assert_eq!(body.as_object().unwrap().len(), 2);
    format!("{status} {code}: {message}")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn both_formats_are_answered_in_kind_or_as_accepted() {
    let server = Server::start().await;
    let message = SyncRequest {
        version: 1,
        device: DeviceId::from_bytes([1; 16]),
        app: None,
        limits_version: None,
        list: true,
        datasets: vec![],
    };
    for (format, accept, answered) in [
        (Format::Json, None, Format::Json),
        (Format::MessagePack, None, Format::MessagePack),
        (Format::MessagePack, Some("application/json"), Format::Json),
        (Format::Json, Some("text/html, application/msgpack;q=0.9"), Format::MessagePack),
        (Format::Json, Some("*/*"), Format::Json),
    ] {
        let mut sent = server.post().header("Content-Type", format!("{}; charset=utf-8", format.media_type()));
        if let Some(accept) = accept {
            sent = sent.header("Accept", accept);
        }
        let response = sent.body(encode(&message, format)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], answered.media_type());
        let response: SyncResponse = decode(&response.bytes().await.unwrap(), answered).unwrap();
        assert_eq!(response.names, Some(vec![]));
    }
}

#[tokio::test]
async fn hostile_bodies_are_errors_of_the_client() {
    let server = Server::start().await;
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for (content_type, body, expected) in [
        (JSON, "".as_bytes(), "400 InvalidParameter: the message is not well-formed: "),
        (JSON, b"{", "400 InvalidParameter: the message is not well-formed: "),
        (JSON, b"{}", "400 InvalidParameter: the message is not well-formed: missing field"),
        (JSON, b"\xff\xfe", "400 InvalidParameter: the message is not well-formed: invalid utf-8"),
        (JSON, deep.as_bytes(), "400 InvalidParameter: the message is nested more than 64 deep"),
        (MESSAGE_PACK, &[0x91; 1_000], "400 InvalidParameter: the message is nested more than 64 deep"),
        (MESSAGE_PACK, &[0xdd, 0xff, 0xff, 0xff, 0xff], "400 InvalidParameter: the message is not well-formed: "),
        (MESSAGE_PACK, b"{}", "400 InvalidParameter: the message is not well-formed: "),
        ("text/plain", b"{}", "415 InvalidParameter: the body's Content-Type must be "),
        ("", b"{}", "415 InvalidParameter: the body's Content-Type must be "),
        (JSON, &[b' '; 100_001], "413 LimitExceeded: a request has at most 100000 bytes, decompressed"),
        (JSON, &[b' '; 399_999], "413 LimitExceeded: a request has at most 100000 bytes, decompressed"),
        (JSON, br#"{"version":0,"device":"00000000000000000000000000000000"}"#, "426 UpgradeRequired: "),
        (JSON, br#"{"version":1,"device":"00"}"#, "400 InvalidParameter: the message is not well-formed: "),
        (
            JSON,
            br#"{"version":1,"device":"00000000000000000000000000000000","datasets":[{"name":"a"},{"name":"a"}]}"#,
            "400 InvalidParameter: the request names dataset `a` twice",
        ),
        (
            JSON,
            br#"{"version":1,"device":"00000000000000000000000000000000","datasets":[{"name":"a/b"}]}"#,
            "400 InvalidParameter: the message is not well-formed: the dataset name is not valid",
        ),
    ] {
        let found = error(server.sync(content_type, body.to_vec()).await).await;
        assert!(found.starts_with(expected), "{found}\nexpected {expected}");
    }
    assert_eq!(server.sync(JSON, request().to_string()).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn who_does_not_sign_in_is_told_so_and_not_read() {
    let server = Server::start().await;
    let ask = async |authorization: Option<String>| {
        let mut sent = server.client.post(format!("{}/v1/sync", server.base)).body(vec![0; 200_000]);
        if let Some(authorization) = authorization {
            sent = sent.header("Authorization", authorization);
        }
        let response = sent.send().await.unwrap();
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        error(response).await
    };
    assert_eq!(ask(None).await, "401 NotAuthorized: sign in: the request has no token");
    let expired = server.token(-1);
    assert_eq!(ask(Some(expired)).await, "401 NotAuthorized: sign in again: the token has expired");
    let forged = format!("Bearer {}x", server.token(60_000));
    assert!(ask(Some(forged)).await.starts_with("401 NotAuthorized: the token is not valid: "));
    let other = Server::start().await;
    let found = ask(Some(other.token(60_000))).await;
    assert_eq!(found, "401 NotAuthorized: the token is not valid: it is from another issuer");
    let bearer = server.client.post(format!("{}/v1/sync", server.base)).header("Content-Type", JSON);
    let bearer = bearer.header("Authorization", format!("Bearer {}", server.token(60_000)));
    assert_eq!(bearer.body(request().to_string()).send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn requests_come_gzipped_or_not_and_bombs_are_bounded() {
    let server = Server::start().await;
    let send = async |encoding: &str, body: Vec<u8>| {
        let sent = server.post().header("Content-Type", JSON).header("Content-Encoding", encoding).body(body);
        sent.send().await.unwrap()
    };
    let text = request().to_string();
    assert_eq!(send("gzip", gzip(text.as_bytes())).await.status(), StatusCode::OK);
    assert_eq!(send("GZIP", gzip(text.as_bytes())).await.status(), StatusCode::OK);
    assert_eq!(send("identity", text.clone().into_bytes()).await.status(), StatusCode::OK);
    let bomb = gzip(&vec![b' '; 50_000_000]);
    assert!(bomb.len() > 100_000);
    let too_large = "413 LimitExceeded: a request has at most 100000 bytes, decompressed";
    assert_eq!(error(send("gzip", bomb).await).await, too_large);
    let bomb = gzip(&vec![b' '; 10_000_000]);
    assert!(bomb.len() < 100_000);
    assert_eq!(error(send("gzip", bomb).await).await, too_large);
    let half = &gzip(text.as_bytes())[..20];
    let broken = "400 InvalidParameter: the body is not what gzip writes";
    assert_eq!(error(send("gzip", half.to_vec()).await).await, broken);
    assert_eq!(error(send("gzip", text.clone().into_bytes()).await).await, broken);
    let unknown = "415 InvalidParameter: the body's Content-Encoding is gzip, or there is none";
    assert_eq!(error(send("br", text.into_bytes()).await).await, unknown);
}

#[tokio::test]
async fn answers_are_compressed_as_the_client_accepts() {
    let server = Server::start().await;
    let text = request().to_string();
    let plain = server.sync(JSON, text.clone()).await;
    assert_eq!(plain.headers().get("content-encoding"), None);
    for encoding in ["gzip", "zstd"] {
        let sent = server.post().header("Content-Type", JSON).header("Accept-Encoding", encoding).body(text.clone());
        let response = sent.send().await.unwrap();
        assert_eq!(response.headers()["content-encoding"], encoding);
        let bytes = response.bytes().await.unwrap();
        if encoding == "gzip" {
            let mut decoded = String::new();
            flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut decoded).unwrap();
            assert!(decoded.starts_with("{\"version\":1,"));
        }
    }
}

#[tokio::test]
async fn other_paths_and_methods_are_errors_of_the_same_shape() {
    let server = Server::start().await;
    let get = async |path: &str| server.client.get(format!("{}{path}", server.base)).send().await.unwrap();
    assert_eq!(error(get("/v1/nothing").await).await, "404 ResourceNotFound: there is nothing at /v1/nothing");
    let wrong_method = get("/v1/sync").await;
    assert_eq!(wrong_method.headers()["allow"], "POST");
    assert_eq!(error(wrong_method).await, "405 InvalidParameter: GET cannot be used here");
    assert_eq!(get("/healthz").await.text().await.unwrap(), r#"{"status":"ok"}"#);
}

#[tokio::test]
async fn the_dev_issuer_serves_its_public_documents_and_nothing_secret() {
    let server = Server::start().await;
    let get = async |url: &str| {
        let response = server.client.get(url).send().await.unwrap();
        serde_json::from_slice::<Value>(&response.bytes().await.unwrap()).unwrap()
    };
    let discovery = get(&format!("{}/.well-known/openid-configuration", server.base)).await;
    assert_eq!(discovery["issuer"], server.issuer.rules().issuer);
    let keys = get(discovery["jwks_uri"].as_str().unwrap()).await;
    let names: Vec<_> = keys["keys"][0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
}

#[tokio::test]
async fn more_requests_than_are_served_at_once_are_told_to_come_again() {
    let server = Server::start_with(|config| config.requests_max = 1).await;
    let open = OpenRequest::start(&server).await;
    let refused = server.sync(JSON, request().to_string()).await;
    assert_eq!(refused.headers()["retry-after"], "1");
    assert!(error(refused).await.starts_with("429 TooManyRequests: "));
    assert!(open.finish().await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(server.sync(JSON, request().to_string()).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_not_waited_for() {
    let server = Server::start_with(|config| config.body_timeout = "50ms".parse().unwrap()).await;
    let answer = OpenRequest::start(&server).await.read().await;
    assert!(answer.starts_with("HTTP/1.1 408 Request Timeout"), "{answer}");
    assert!(answer.ends_with(r#"{"code":"InvalidParameter","message":"the request came too slowly"}"#), "{answer}");
}

#[tokio::test]
async fn a_body_that_is_announced_to_be_far_too_large_is_not_waited_for() {
    let server = Server::start().await;
    let answer = OpenRequest::announce(&server, 99_999_999_999).await.read().await;
    assert!(answer.starts_with("HTTP/1.1 413 Payload Too Large"), "{answer}");
}

#[tokio::test]
async fn a_head_that_comes_too_slowly_is_not_waited_for() {
    let server = Server::start_with(|config| config.head_timeout = "50ms".parse().unwrap()).await;
    let mut stream = TcpStream::connect(server.base.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn a_stop_finishes_what_is_open_and_takes_nothing_new() {
    let mut server = Server::start().await;
    let open = OpenRequest::start(&server).await;
    server.stop.take().unwrap().send(()).unwrap();
    while TcpStream::connect(server.base.strip_prefix("http://").unwrap()).await.is_ok() {}
    assert!(!server.served.is_finished());
    assert!(open.finish().await.starts_with("HTTP/1.1 200 OK"));
    server.served.await.unwrap();
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let mut server = Server::start_with(|config| config.stop_timeout = "50ms".parse().unwrap()).await;
    let open = OpenRequest::start(&server).await;
    server.stop.take().unwrap().send(()).unwrap();
    server.served.await.unwrap();
    assert_eq!(open.read().await, "");
}

/// A request whose head the server has read, and whose body it waits for.
struct OpenRequest {
    stream: TcpStream,
    body: String,
}

impl OpenRequest {
    /// The server waits for the body.
    async fn start(server: &Server) -> Self {
        let mut open = Self::announce(server, request().to_string().len()).await;
        let mut go_on = [0; 25];
        open.stream.read_exact(&mut go_on).await.unwrap();
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
        open
    }

    async fn announce(server: &Server, bytes: usize) -> Self {
        let mut stream = TcpStream::connect(server.base.strip_prefix("http://").unwrap()).await.unwrap();
        let token = server.token(60_000);
        let head = format!(
            "POST /v1/sync HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\nContent-Type: {JSON}\r\n\
             Content-Length: {bytes}\r\nConnection: close\r\nExpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        Self { stream, body: request().to_string() }
    }

    async fn finish(mut self) -> String {
        self.stream.write_all(self.body.as_bytes()).await.unwrap();
        self.read().await
    }

    async fn read(mut self) -> String {
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test]
async fn what_is_decompressed_counts_as_memory_of_bodies() {
    let large = request().to_string() + &" ".repeat(90_000);
    let server = Server::start_with(|config| config.bodies_bytes_max = 20_000).await;
    let sent = server.post().header("Content-Type", JSON).header("Content-Encoding", "gzip");
    let answer = sent.body(gzip(large.as_bytes())).send().await.unwrap();
    assert!(error(answer).await.starts_with("429 TooManyRequests: "));
}

#[tokio::test]
async fn a_batch_that_removes_what_is_not_there_does_nothing_and_a_delete_says_so() {
    let server = Server::start().await;
    let removes = json!({"operations": [{"op": "remove", "key": "milk"}]});
    let answer = server.ada(Method::POST, "batch").body(removes.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer = server.ada(Method::DELETE, "records/milk").send().await.unwrap();
    assert_eq!(error(answer).await, "404 ResourceNotFound: there is no record `milk`");
}

#[tokio::test]
async fn requests_that_the_document_does_not_allow_are_errors_of_the_client() {
    let server = Server::start().await;
    let empty = server.ada(Method::POST, "batch").body(r#"{"operations": []}"#);
    assert_eq!(error(empty.send().await.unwrap()).await, "400 InvalidParameter: a batch has 1 to 1024 operations");
    let written = server.ada(Method::PUT, "records/milk").body("1").send().await.unwrap();
    assert_eq!(written.status(), 201);
    let listed = server.ada(Method::GET, "records?since=").send().await.unwrap();
    let listed: Value = serde_json::from_slice(&listed.bytes().await.unwrap()).unwrap();
    let next = listed["next"].as_str().unwrap();
    let [no_utf8, no_place] = ["the query is not UTF-8 in percent encoding", "this is no `next` of an earlier answer"];
    for (query, wrong) in [
        ("prefix=%FF".to_owned(), no_utf8),
        ("after=AAAA".to_owned(), no_place),
        (format!("since={next}AAAA"), no_place),
    ] {
        let found = error(server.ada(Method::GET, &format!("records?{query}")).send().await.unwrap()).await;
        assert_eq!(found, format!("400 InvalidParameter: {wrong}"), "{query}");
    }
    for tag in ["", ",", "1-2", "\"1\"2\"", "\""] {
        let read = server.ada(Method::GET, "records/milk").header("If-None-Match", tag);
        let put = server.ada(Method::PUT, "records/milk").body("2").header("If-Match", tag);
        let delete = server.ada(Method::DELETE, "").header("If-Match", tag);
        for request in [read, put, delete] {
            let expected = "400 InvalidParameter: a version is written in quotes, as in `ETag`";
            assert_eq!(error(request.send().await.unwrap()).await, expected, "{tag:?}");
        }
    }
}

#[tokio::test]
async fn a_dataset_is_deleted_on_the_same_conditions_as_a_record() {
    let server = Server::start().await;
    let written = server.ada(Method::PUT, "records/milk").body("1").send().await.unwrap();
    let etag = written.headers()["etag"].to_str().unwrap().to_owned();
    let delete = async |tags: &str| {
        let answer = server.ada(Method::DELETE, "").header("If-Match", tags).send().await.unwrap();
        answer.status().as_u16()
    };
    assert_eq!(delete("\"not one of ours\"").await, 412);
    assert_eq!(delete(&format!("\"0-1\", {etag}")).await, 204);
    assert_eq!(delete(&etag).await, 404);
}

#[tokio::test]
async fn a_patch_comes_gzipped_or_not_as_other_bodies_do() {
    let server = Server::start().await;
    let url = format!("{}/v1/datasets/notes/records/milk", server.base);
    let patch = async |media_type: &str, encoding: &str, body: Vec<u8>| {
        let request = server.client.patch(&url).header("Authorization", server.token(60_000)).body(body);
        request.header("Content-Type", media_type).header("Content-Encoding", encoding).send().await.unwrap()
    };
    let merge_patch = "application/merge-patch+json";
    assert_eq!(patch(merge_patch, "gzip", gzip(br#"{"amount":1}"#)).await.status(), 201);
    let add = br#"{"fields":{"amount":{"merge":{"add":1}}}}"#;
    assert_eq!(patch("application/vnd.syncline.delta+json", "gzip", gzip(add)).await.status(), 200);
    let read = server.ada(Method::GET, "records/milk").send().await.unwrap();
    assert_eq!(read.text().await.unwrap(), r#"{"amount":2}"#);
    let bomb = patch(merge_patch, "gzip", gzip(&[b' '; 200_000])).await;
    assert_eq!(error(bomb).await, "413 LimitExceeded: a request has at most 100000 bytes, decompressed");
    let unknown = patch(merge_patch, "br", b"{}".to_vec()).await;
    assert_eq!(error(unknown).await, "415 InvalidParameter: the body's Content-Encoding is gzip, or there is none");
}

#[tokio::test]
async fn logins_are_linked_by_who_holds_tokens_of_both() {
    let server = Server::start().await;
    let now = SystemClock.now();
    let user = |name: &str, ms| server.issuer.token(name, now.plus_ms(-60_000), now.plus_ms(ms)).unwrap();
    let job = server.issuer.service_token("job", now, now.plus_ms(60_000)).unwrap();
    let (ada, bob) = (user("ada", 60_000), user("bob", 60_000));
    let link = async |token: &str, body: Value| {
        let request = server.client.post(format!("{}/v1/identity/link", server.base)).header("Authorization", token);
        request.header("Content-Type", JSON).body(body.to_string()).send().await.unwrap()
    };
    for (token, body, expected) in [
        ("", json!({"token": bob}), "401 NotAuthorized: sign in: the request has no token"),
        (&*job, json!({"token": bob}), "403 NotAuthorized: only logins of users can be linked"),
        (&ada, json!({"token": job}), "403 NotAuthorized: only logins of users can be linked"),
        (&ada, json!({"token": user("bob", -1)}), "400 InvalidParameter: the other login: sign in again: "),
        (&ada, json!({"token": "x"}), "400 InvalidParameter: the other login: the token is not valid: "),
        (&ada, json!({"token": ""}), "400 InvalidParameter: the other login: sign in: "),
        (&ada, json!({}), "400 InvalidParameter: the message is not well-formed: missing field"),
        (&ada, json!({"token": bob, "x": 1}), "400 InvalidParameter: the message is not well-formed: unknown field"),
    ] {
        let found = error(link(token, body.clone()).await).await;
        assert!(found.starts_with(expected), "{found}\nexpected {expected}");
    }
    let who = async |token: &str| {
        let request = server.client.get(format!("{}/v1/identity", server.base)).header("Authorization", token);
        request.send().await.unwrap().text().await.unwrap()
    };
    let (of_ada, of_bob) = (who(&ada).await, who(&bob).await);
    assert_ne!(of_ada, of_bob);
    for other in [&ada, &bob, &bob] {
        let answer = link(&ada, json!({"token": other})).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.text().await.unwrap(), of_ada.replace('}', r#","renamed":[]}"#));
    }
    assert_eq!(who(&bob).await, of_ada);
    // Ids that others have noted down still lead there, and for strangers to nobody.
    let old: Value = serde_json::from_str(&of_bob).unwrap();
    let datasets = format!("{}/v1/owners/{}/datasets", server.base, old["identity"].as_str().unwrap());
    for (token, status) in [(&ada, 200), (&bob, 200), (&job, 200), (&user("eve", 60_000), 403)] {
        let request = server.client.get(&datasets).header("Authorization", token);
        assert_eq!(request.send().await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn devices_are_registered_listed_without_their_tokens_and_forgotten() {
    let server = Server::start().await;
    let url = |part: &str| format!("{}/v1/{part}", server.base);
    let ask = async |method: Method, part: &str, body: Value| {
        let request = server.client.request(method, url(part)).header("Authorization", server.token(60_000));
        request.header("Content-Type", JSON).body(body.to_string()).send().await.unwrap()
    };
    let device = format!("devices/{}", "0a".repeat(16));
    let body = json!({"platform": "apns", "token": "secret", "name": "Ada's phone"});
    for (part, body, expected) in [
        ("devices/0a", &body, "400 InvalidParameter: the device is written in 32 hexadecimal digits"),
        (
            &*device,
            &json!({"platform": "pigeon", "token": "x"}),
            "400 InvalidParameter: the message is not well-formed: ",
        ),
        (&device, &json!({"platform": "fcm", "token": "a b"}), "400 InvalidParameter: the token is not valid: "),
        (
            &device,
            &json!({"platform": "fcm", "token": "x", "name": ""}),
            "400 InvalidParameter: the device's name is not ",
        ),
        ("owners/local:bob/devices/0a", &body, "400 "),
        (&format!("owners/local:bob/{device}"), &body, "403 NotAuthorized: you may not see the datasets of this owner"),
    ] {
        let found = error(ask(Method::PUT, part, body.clone()).await).await;
        assert!(found.starts_with(expected), "{found}\nexpected {expected}");
    }
    for status in [201, 200] {
        let answer = ask(Method::PUT, &device, body.clone()).await;
        assert_eq!(answer.status(), status);
        let told: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!((&told["device"], &told["token"]), (&json!("0a".repeat(16)), &Value::Null));
    }
    let listed = ask(Method::GET, "devices", Value::Null).await.text().await.unwrap();
    assert!(listed.contains(r#""platform":"apns","name":"Ada's phone""#) && !listed.contains("secret"), "{listed}");
    // A back-end job names the owner.
    let identity: Value =
        serde_json::from_str(&ask(Method::GET, "identity", Value::Null).await.text().await.unwrap()).unwrap();
    let now = SystemClock.now();
    let job = server.issuer.service_token("job", now, now.plus_ms(60_000)).unwrap();
    let of_ada = url(&format!("owners/{}/devices", identity["identity"].as_str().unwrap()));
    let seen = server.client.get(of_ada).header("Authorization", job).send().await.unwrap();
    assert_eq!(seen.text().await.unwrap(), listed);
    assert_eq!(ask(Method::DELETE, &device, Value::Null).await.status(), 204);
    let gone = format!("404 ResourceNotFound: the device `{}` is not registered", "0a".repeat(16));
    assert_eq!(error(ask(Method::DELETE, &device, Value::Null).await).await, gone);
    assert_eq!(ask(Method::GET, "devices", Value::Null).await.text().await.unwrap(), r#"{"devices":[]}"#);
}
