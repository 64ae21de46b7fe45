//! A proxy in front of an emulator of DynamoDB, which does what the emulator never does: it refuses, loses and keeps.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DynamoDbFault {
    /// It is done and answered.
    Pass,
    /// It is refused, since there are too many.
    Throttle,
    /// It is refused, since a transaction is writing the same item.
    Conflict,
    /// The service fails.
    Fail,
    /// The connection ends before it is done.
    LoseRequest,
    /// The connection ends after it was done.
    LoseAnswer,
    /// It is not done, and nothing is answered as long as the proxy is there.
    KeepRequest,
    /// It is done, and nothing is answered as long as the proxy is there.
    KeepAnswer,
}

/// A proxy on a free port of 127.0.0.1.
#[derive(Debug)]
pub struct DynamoDbProxy {
    address: SocketAddr,
    state: Arc<State>,
}

type Choose = dyn FnMut(&str, &str) -> DynamoDbFault + Send;

struct State {
    upstream: String,
    choose: Mutex<Box<Choose>>,
    closed: AtomicBool,
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("State").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

impl DynamoDbProxy {
    /// Starts a proxy. `choose` is called for each request with its operation, such as `PutItem`, and its body.
    ///
    /// # Panics
    /// If no port is free.
    pub fn start(upstream: &str, choose: impl FnMut(&str, &str) -> DynamoDbFault + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("the port is known");
        let state = Arc::new(State {
            upstream: upstream.trim_start_matches("http://").to_owned(),
            choose: Mutex::new(Box::new(choose)),
            closed: AtomicBool::new(false),
        });
        let proxy = Self { address, state: Arc::clone(&state) };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if state.closed.load(Ordering::Relaxed) {
                    return;
                }
                let state = Arc::clone(&state);
                // A connection that fails is what the tests are about.
                std::thread::spawn(move || forward(client, &state));
            }
        });
        proxy
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for DynamoDbProxy {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::Relaxed);
        let _wakes_the_listener = TcpStream::connect(self.address);
    }
}

/// A request: its operation, and all of it.
struct Request {
    operation: String,
    body: String,
    bytes: Vec<u8>,
}

/// Forwards the requests of a connection, one after the other, until it ends.
fn forward(client: TcpStream, state: &State) -> io::Result<()> {
    let mut answers = client.try_clone()?;
    let mut from_client = BufReader::new(client);
    let mut server: Option<BufReader<TcpStream>> = None;
    loop {
        let Some(request) = read_request(&mut from_client)? else { return Ok(()) };
        let fault = {
            let mut choose = state.choose.lock().unwrap_or_else(PoisonError::into_inner);
            choose(&request.operation, &request.body)
        };
        let upstream = |server: &mut Option<BufReader<TcpStream>>| ask(state, server, &request.bytes);
        match fault {
            DynamoDbFault::Pass => answers.write_all(&upstream(&mut server)?)?,
            DynamoDbFault::Throttle => answers.write_all(&refusal("ProvisionedThroughputExceededException", ""))?,
            DynamoDbFault::Conflict => answers.write_all(&conflict(&request))?,
            DynamoDbFault::Fail => answers.write_all(&failure())?,
            DynamoDbFault::LoseRequest => return answers.shutdown(Shutdown::Both),
            DynamoDbFault::LoseAnswer => {
                upstream(&mut server)?;
                return answers.shutdown(Shutdown::Both);
            }
            DynamoDbFault::KeepRequest => return keep(state),
            DynamoDbFault::KeepAnswer => {
                upstream(&mut server)?;
                return keep(state);
            }
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it ends a connection like the others")]
fn keep(state: &State) -> io::Result<()> {
    while !state.closed.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Sends a request on, and reads its answer.
fn ask(state: &State, server: &mut Option<BufReader<TcpStream>>, request: &[u8]) -> io::Result<Vec<u8>> {
    let server = match server {
        Some(server) => server,
        None => server.insert(BufReader::new(TcpStream::connect(&state.upstream)?)),
    };
    server.get_mut().write_all(request)?;
    read_message(server)?.map(|(_, message)| message).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn read_request(client: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let Some((head_len, bytes)) = read_message(client)? else { return Ok(None) };
    let (head, body) = bytes.split_at(head_len);
    let head = String::from_utf8_lossy(head).into_owned();
    let target = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("x-amz-target").then(|| value.trim())
    });
    let operation = target.and_then(|target| target.rsplit('.').next()).unwrap_or_default().to_owned();
    Ok(Some(Request { operation, body: String::from_utf8_lossy(body).into_owned(), bytes }))
}

/// Reads a message whose length is in its head; says how long the head is.
fn read_message(stream: &mut BufReader<TcpStream>) -> io::Result<Option<(usize, Vec<u8>)>> {
    let (mut message, mut body_len) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return if message.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        message.extend_from_slice(line.as_bytes());
        if line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            body_len = value.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
        }
    }
    let head_len = message.len();
    message.resize(head_len + body_len, 0);
    stream.read_exact(&mut message[head_len..])?;
    Ok(Some((head_len, message)))
}

fn refusal(exception: &str, rest: &str) -> Vec<u8> {
    answer(
        "400 Bad Request",
        &format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{exception}","message":"injected"{rest}}}"#),
    )
}

fn failure() -> Vec<u8> {
    let body = r#"{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError","message":"injected"}"#;
    answer("500 Internal Server Error", body)
}

/// What DynamoDB says if a transaction writes the same item.
fn conflict(request: &Request) -> Vec<u8> {
    if request.operation != "TransactWriteItems" {
        return refusal("TransactionConflictException", "");
    }
    let reasons = r#","CancellationReasons":[{"Code":"None"},{"Code":"TransactionConflict","Message":"injected"}]"#;
    refusal("TransactionCanceledException", reasons)
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {length}\r\n\r\n");
    (head + body).into_bytes()
}
