//! Hostile clients: whatever the OpenAPI document names is tried with what nobody should send. Each answer is an error of
//! the client's, in the one shape; nothing changes by it, and the server's memory stays bounded.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tests::harness::{Folder, Server};

/// What the server may take of memory while it is tried, in MiB. A request unfolds to 8 MiB at most.
const MEMORY_MAX: u64 = 400;

/// One operation of the API.
#[derive(Clone, Debug)]
struct Operation {
    method: Method,
    path: String,
    /// The media type of the body that it takes.
    takes: Option<String>,
    parameters: Vec<String>,
}

/// A server, and who asks it.
struct Attack {
    server: Server,
    client: Client,
    token: String,
    operations: Vec<Operation>,
    _folder: Folder,
}

impl Attack {
    async fn begin() -> Self {
        let folder = Folder::new();
        let server = Server::start(&folder.path("server"));
        let (client, token) = (Client::new(), server.token("ada"));
        let document =
            client.get(format!("{}/openapi.json", server.url())).send().await.unwrap().bytes().await.unwrap();
        let document: Value = serde_json::from_slice(&document).unwrap();
        let mut operations = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let media_types = operation["requestBody"]["content"].as_object();
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                let in_query = parameters.filter(|parameter| parameter["in"] == "query");
                operations.push(Operation {
                    method: method.to_uppercase().parse().unwrap(),
                    path: path.clone(),
                    takes: media_types.and_then(|types| types.keys().next()).cloned(),
                    parameters: in_query.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect(),
                });
            }
        }
        assert!(operations.len() > 20, "the document names few operations: {operations:?}");
        let sync = "/v1/sync".to_owned();
        operations.push(Operation {
            method: Method::POST,
            path: sync,
            takes: Some("application/json".to_owned()),
            parameters: Vec::new(),
        });
        Self { server, client, token, operations, _folder: folder }
    }

    fn url(&self, operation: &Operation, owner: &str) -> String {
        let named = [
            ("{dataset}", "notes"),
            ("{key}", "milk"),
            ("{owner}", owner),
            ("{device}", "00112233445566778899aabbccddeeff"),
        ];
        let path = named.iter().fold(operation.path.clone(), |path, (name, value)| path.replace(name, value));
        format!("{}{path}", self.server.url())
    }

    fn ask(&self, operation: &Operation, url: &str) -> RequestBuilder {
        self.client.request(operation.method.clone(), url)
    }

    fn ask_as_ada(&self, operation: &Operation, url: &str) -> RequestBuilder {
        self.ask(operation, url).bearer_auth(&self.token)
    }

    /// Operations of a user on what is their own.
    fn own(&self) -> impl Iterator<Item = &Operation> {
        self.operations.iter().filter(|operation| !operation.path.contains("{owner}"))
    }

    fn with_body(&self) -> impl Iterator<Item = (&Operation, &str)> {
        self.own().filter_map(|operation| Some((operation, operation.takes.as_deref()?)))
    }
}

/// Sends a request; the answer must be an error of one of these statuses, in the one shape.
async fn refused(request: RequestBuilder, statuses: &[u16], what: &str) {
    let answer = request.send().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    let (status, body) = (answer.status().as_u16(), answer.bytes().await.unwrap());
    let text = String::from_utf8_lossy(&body).into_owned();
    assert!(statuses.contains(&status), "{what}: {status}, not one of {statuses:?}: {text}");
    let error: Value = serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{what}: {status} {text:?}"));
    assert!(error["code"].is_string() && error["message"].is_string(), "{what}: {text}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn nobody_gets_in_by_a_token_that_no_issuer_made() {
    let attack = Attack::begin().await;
    let [header, claims, signature] = attack.token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"; // {"alg":"none","typ":"JWT"}
    let hs256 = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"; // {"alg":"HS256","typ":"JWT"}
    let tokens = [
        String::new(),
        "x".to_owned(),
        "..".to_owned(),
        format!("{none}.{claims}."),
        format!("{none}.{claims}.{signature}"),
        format!("{hs256}.{claims}.{signature}"),
        format!("{header}.{claims}"),
        format!("{header}.{claims}.{}", signature.chars().rev().collect::<String>()),
        format!("{header}.{}.{signature}", claims.to_lowercase()),
        attack.server.expired_token("ada"),
        "é".repeat(100),
        "a".repeat(7_000),
    ];
    for operation in &attack.operations {
        let url = attack.url(operation, "local:27f9c741-a704-8336-9b18-d7944eb9ff45");
        refused(attack.ask(operation, &url), &[401], &format!("{operation:?} without a token")).await;
        for token in &tokens {
            let what = format!("{operation:?} with {token}");
            let asked = attack.ask(operation, &url).header("Authorization", format!("Bearer {token}").into_bytes());
            refused(asked, &[401], &what).await;
        }
    }
}

#[tokio::test]
async fn nobody_reaches_what_is_somebody_elses() {
    let attack = Attack::begin().await;
    for operation in attack.operations.iter().filter(|operation| operation.path.contains("{owner}")) {
        let url = attack.url(operation, "local:00000000-0000-8000-8000-000000000000");
        let mut asked = attack.ask_as_ada(operation, &url);
        if let Some(media_type) = &operation.takes {
            asked = asked.header("Content-Type", media_type).body("{}");
        }
        // Whether the body is one is seen first for some.
        refused(asked, &[403, 400], &format!("{operation:?}")).await;
    }
}

#[tokio::test]
async fn bodies_that_are_none_are_refused_before_they_cost_anything() {
    let attack = Attack::begin().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let wide = format!("[{}1]", "1,".repeat(1_500_000));
    let bomb = gzip(&vec![b'['; 200 << 20]);
    let bodies: [(&str, &[u8]); 9] = [
        ("nothing", b""),
        ("half of an object", b"{\"a\":"),
        ("no UTF-8", b"\"\xff\xfe\""),
        ("no JSON", b"\x93\x01\x02"),
        ("a number beyond all", b"99999999999999999999999999"),
        ("two values", b"1 2"),
        ("a repeated name", b"{\"a\":1,\"a\":2}"),
        ("deep nesting", deep.as_bytes()),
        ("too many values", wide.as_bytes()),
    ];
    for (operation, media_type) in attack.with_body() {
        let url = attack.url(operation, "");
        for (name, body) in bodies {
            let asked = attack.ask_as_ada(operation, &url).header("Content-Type", media_type).body(body.to_vec());
            refused(asked, &[400, 413], &format!("{operation:?} with {name}")).await;
        }
        let asked = || attack.ask_as_ada(operation, &url);
        let packed = asked().header("Content-Type", media_type).header("Content-Encoding", "gzip").body(bomb.clone());
        refused(packed, &[413], &format!("{operation:?} with a bomb")).await;
        let unpacked = asked().header("Content-Type", media_type).header("Content-Encoding", "gzip").body("{}");
        refused(unpacked, &[400], &format!("{operation:?} with a gzip that is none")).await;
        let encoded = asked().header("Content-Type", media_type).header("Content-Encoding", "br").body("{}");
        refused(encoded, &[415], &format!("{operation:?} in another encoding")).await;
        let typed = asked().header("Content-Type", "text/html").body("{}");
        refused(typed, &[415], &format!("{operation:?} as a page")).await;
    }
    let memory = attack.server.memory_peak() >> 20;
    assert!(memory < MEMORY_MAX, "the server took {memory} MiB");
}

#[tokio::test]
async fn paths_and_queries_that_are_none_are_refused() {
    let attack = Attack::begin().await;
    let names = ["%ff", "%00", "a%20b", "%2e%2e%2f", &"x".repeat(2_000), "%F0%9F%92%A9"];
    for operation in attack.own().filter(|operation| operation.path.contains("{dataset}")) {
        for name in names {
            let url = attack.url(operation, "").replace("/notes", &format!("/{name}"));
            let mut asked = attack.ask_as_ada(operation, &url);
            if let Some(media_type) = &operation.takes {
                asked = asked.header("Content-Type", media_type).body("{}");
            }
            refused(asked, &[400, 404, 405], &format!("{operation:?} of {name}")).await;
        }
    }
    let values = ["", "-1", "99999999999999999999", "AAAA", "%ff", "null", "1%2e5"];
    for operation in attack.own() {
        let numbers = operation.parameters.iter().filter(|name| ["limit", "since", "after"].contains(&&***name));
        for (name, value) in numbers.flat_map(|name| values.map(|value| (name, value))) {
            let url = format!("{}?{name}={value}", attack.url(operation, ""));
            let answer = attack.ask_as_ada(operation, &url).send().await.unwrap();
            assert!(!answer.status().is_server_error(), "{operation:?} with {name}={value}: {}", answer.status());
            let taken = answer.status() == StatusCode::OK;
            assert!(!taken || value.is_empty() || name == "after", "{operation:?} takes {name}={value}");
        }
        let url = format!("{}?surprise=1", attack.url(operation, ""));
        if operation.method == Method::GET && !operation.parameters.is_empty() {
            refused(attack.ask_as_ada(operation, &url), &[400], &format!("{operation:?} with a surprise")).await;
        }
    }
}
