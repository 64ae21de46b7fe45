//! What a stream of events costs while nothing happens.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use tests::harness::{Folder, Server, allow_open_files};

use crate::report::{Aim, Report};

/// Streams that are open at once.
const STREAMS: usize = 10_000;
/// Users who listen, with the same number of streams each.
const USERS: usize = 1_000;

pub(crate) fn measure(report: &mut Report) {
    allow_open_files(STREAMS as u64 + 100);
    let folder = Folder::new();
    let settings = format!("[server]\nstreams_max = {STREAMS}\nconnections_max = {}\n", STREAMS + 100);
    let server = Server::start_configured(&folder.path("server"), &folder.write("syncline.toml", &settings));
    let tokens = server.tokens((0..USERS).map(|user| format!("user-{user}")));
    let host = server.url().strip_prefix("http://").expect("it is plain").to_owned();
    let listen = |token: &String| {
        let mut stream = TcpStream::connect(&host).expect("it listens");
        write!(stream, "GET /v1/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n")
            .expect("it reads");
        let mut answer = Vec::new();
        while !answer.windows(12).any(|window| window == b"event: ready") {
            let mut bytes = [0; 1_024];
            let read = stream.read(&mut bytes).expect("it answers");
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&bytes[..read]);
        }
        stream
    };
    // The first ones bring about what all share.
    let _first: Vec<_> = tokens.iter().take(100).map(listen).collect();
    let before = server.memory();
    let streams: Vec<_> = tokens.iter().cycle().skip(100).take(STREAMS - 100).map(listen).collect();
    let each = server.memory().saturating_sub(before) as f64 / streams.len() as f64;
    report.figure(
        format!("server: memory of one of {STREAMS} idle event streams"),
        "KB",
        each / 1e3,
        Some(Aim::AtMost(25.0)),
    );
}
