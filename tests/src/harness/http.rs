//! Requests as a back-end job makes them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

/// Sends one request on a connection of its own; gives the status and the body, which is null unless it is JSON.
///
/// # Panics
/// If nobody answers.
#[track_caller]
pub fn http(method: &str, url: &str, token: &str, body: &Value) -> (u16, Value) {
    let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("{url} is not one of plain HTTP"));
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = body.len();
    let request = format!(
        "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(host)?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = answer().unwrap_or_else(|error| panic!("{method} {url}: {error}"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("{method} {url} was answered {answer:?}"));
    (status, serde_json::from_str(body).unwrap_or_default())
}
