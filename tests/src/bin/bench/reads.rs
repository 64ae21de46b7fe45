//! Reads over REST beside an axum handler that reads the same row by rusqlite directly, as JSON text.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use tests::harness::{Device, Folder, Server};

use crate::report::{Aim, Report, median};

/// How often both are measured, in turn.
const ROUNDS: usize = 3;
/// Connections of the load.
const CONNECTIONS: &str = "32";
/// How long one measurement takes.
const DURATION: &str = "4s";

pub(crate) fn measure(report: &mut Report) {
    let folder = Folder::new();
    let data = folder.path("server");
    let settings = folder.write("syncline.toml", "[rates]\nrequests_per_second = 0\n");
    let server = Server::start_configured(&data, &settings);
    let token = server.token("ada");
    let device = Device::new(&folder, "device").at(server.url()).with_token(&token);
    let lines: String = (0..1_000)
        .map(|at| format!("{{\"op\":\"put\",\"key\":\"k{at}\",\"value\":{{\"title\":\"Record {at}\",\"n\":{at},\"done\":false}}}}\n"))
        .collect();
    device.ok_with_input(&["apply", "notes", "-"], &lines);
    device.sync();
    let raw = serve_raw(data.join("syncline.db"));
    let rest = format!("{}/v1/datasets/notes/records/k500", server.url());
    let raw = format!("http://{raw}/k500");
    let token = format!("Authorization: Bearer {token}");
    let (mut ours, mut below) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        below.push(load(&raw, &token));
        ours.push(load(&rest, &token));
    }
    let name = format!("REST reads, {CONNECTIONS} connections, beside rusqlite behind axum");
    report.beside(name, "1/s", median(ours), median(below), Aim::ShareAtLeast(0.6));
}

/// Requests per second.
fn load(url: &str, header: &str) -> f64 {
    let output = Command::new("wrk").args(["-t", "1", "-c", CONNECTIONS, "-d", DURATION, "-H", header, url]).output();
    let output = output.expect("wrk is installed: `./dev install`");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("Non-2xx"), "requests failed:\n{text}");
    let line = text.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    line.and_then(|rate| rate.trim().parse().ok()).unwrap_or_else(|| panic!("wrk said:\n{text}"))
}

/// A pool of connections for the handler that is compared with.
type Pool = Arc<Mutex<Vec<Connection>>>;

fn serve_raw(database: PathBuf) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("threads start");
        runtime.block_on(async {
            let connections: Vec<_> = (0..64).map(|_| open(&database)).collect();
            let router = Router::new().route("/{key}", get(read)).with_state(Arc::new(Mutex::new(connections)));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
            tell.send(listener.local_addr().expect("the port is known")).expect("somebody waits");
            axum::serve(listener, router).await.expect("it serves");
        });
    });
    told.recv().expect("the server starts")
}

fn open(database: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(database, flags).expect("the database opens")
}

async fn read(State(pool): State<Pool>, UrlPath(key): UrlPath<String>) -> Response {
    let value = tokio::task::spawn_blocking(move || {
        let connection = pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = connection.expect("there are as many connections as are used at once");
        let mut select = connection.prepare_cached("SELECT value FROM record WHERE dataset = 1 AND key = ?1")?;
        let value = select.query_row([key], |row| row.get::<_, Vec<u8>>(0)).optional();
        drop(select);
        pool.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        value
    });
    match value.await.expect("it does not panic") {
        Ok(Some(bytes)) => {
            let value = sync_core::model::Value::from_bytes(&bytes).expect("the store holds values");
            ([(header::CONTENT_TYPE, "application/json")], value.to_json()).into_response()
        }
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
