//! A proxy that loses answers.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What happens to an answer, after the server has done what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It arrives.
    Pass,
    /// The connection ends instead.
    Drop,
    /// Half of it arrives.
    Truncate,
    /// The request arrives twice, and the second answer is what the device gets.
    Repeat,
}

/// A reverse proxy on a free port of 127.0.0.1, in front of one server.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

/// Bytes of bodies, as they travelled.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes {
    /// Of requests.
    pub requests: u64,
    /// Of answers.
    pub answers: u64,
}

/// What the proxy and its connections share.
struct State {
    upstream: Mutex<String>,
    /// The only encoding of answers that the server is told of; nothing: what the device says.
    encoding: Mutex<Option<&'static str>>,
    choose: Mutex<Box<dyn FnMut(usize) -> Fault + Send>>,
    answered: AtomicUsize,
    bytes: Mutex<Bytes>,
    closed: AtomicBool,
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("State").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Starts a proxy. `choose` is called for each answer, from number 1, while the device still waits for it; so it may
    /// also do something at this moment.
    ///
    /// # Panics
    /// If no port is free.
    pub fn start(upstream: &str, choose: impl FnMut(usize) -> Fault + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("the port is known");
        let state = Arc::new(State {
            upstream: Mutex::new(host(upstream)),
            encoding: Mutex::default(),
            choose: Mutex::new(Box::new(choose)),
            answered: AtomicUsize::new(0),
            bytes: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let proxy = Self { address, state: Arc::clone(&state) };
        std::thread::spawn(move || {
            for device in listener.incoming().flatten() {
                if state.closed.load(Ordering::Relaxed) {
                    return;
                }
                let state = Arc::clone(&state);
                // A connection that fails is what the tests are about.
                std::thread::spawn(move || forward(device, &state));
            }
        });
        proxy
    }

    /// A proxy that loses one answer in three: the second, the fifth…, half of them in the middle.
    ///
    /// # Panics
    /// If no port is free.
    pub fn losing(upstream: &str) -> Self {
        Self::start(upstream, |number| match number % 6 {
            2 => Fault::Drop,
            5 => Fault::Truncate,
            _ => Fault::Pass,
        })
    }

    /// From now on it stands in front of another server.
    pub fn lead_to(&self, upstream: &str) {
        *lock(&self.state.upstream) = host(upstream);
    }

    /// From now on the server hears of one encoding only, or of those that the device takes.
    pub fn accept_only(&self, encoding: Option<&'static str>) {
        *lock(&self.state.encoding) = encoding;
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many answers the server gave by way of it.
    pub fn answered(&self) -> usize {
        self.state.answered.load(Ordering::SeqCst)
    }

    /// Bytes of bodies that came by, as they travelled: compressed, and in the chunks that they came in.
    pub fn bytes(&self) -> Bytes {
        *lock(&self.state.bytes)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::Relaxed);
        let _wakes_the_listener = TcpStream::connect(self.address);
    }
}

/// Forwards one request and what `choose` leaves of its answer.
fn forward(device: TcpStream, state: &State) -> io::Result<()> {
    let upstream = lock(&state.upstream).clone();
    let mut from_device = BufReader::new(device);
    let request = read_request(&mut from_device, *lock(&state.encoding))?;
    let mut answer = ask(&upstream, &request)?;
    {
        let mut bytes = lock(&state.bytes);
        bytes.requests += body_len(&request);
        bytes.answers += body_len(&answer);
    }
    let number = state.answered.fetch_add(1, Ordering::SeqCst) + 1;
    let fault = lock(&state.choose)(number);
    if fault == Fault::Repeat {
        answer = ask(&upstream, &request)?;
    }
    let arrives = match fault {
        Fault::Pass | Fault::Repeat => answer.as_slice(),
        Fault::Drop => &[],
        Fault::Truncate => &answer[..answer.len() / 2],
    };
    let mut device = from_device.into_inner();
    device.write_all(arrives)?;
    device.shutdown(Shutdown::Both)
}

/// How much there is behind the head of a message.
fn body_len(message: &[u8]) -> u64 {
    const END: &[u8] = b"\r\n\r\n";
    let head = message.windows(END.len()).position(|four| four == END);
    head.map_or(0, |head| (message.len() - head - END.len()) as u64)
}

/// Sends a request, and reads the answer to the end of its connection.
fn ask(upstream: &str, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream)?;
    server.write_all(request)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    Ok(answer)
}

/// What stands in a URL behind the scheme.
fn host(url: &str) -> String {
    url.strip_prefix("http://").unwrap_or(url).to_owned()
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads one request, and asks for an answer that ends with its connection.
fn read_request(device: &mut BufReader<TcpStream>, encoding: Option<&str>) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut body_len = 0;
    loop {
        let mut line = String::new();
        if device.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        match name.to_ascii_lowercase().as_str() {
            "connection" => continue,
            "accept-encoding" => {
                if let Some(encoding) = encoding {
                    line = format!("Accept-Encoding: {encoding}\r\n");
                }
            }
            "content-length" => body_len = value.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?,
            _ => {}
        }
        if line == "\r\n" {
            request.extend_from_slice(b"Connection: close\r\n\r\n");
            break;
        }
        request.extend_from_slice(line.as_bytes());
    }
    let head_len = request.len();
    request.resize(head_len + body_len, 0);
    device.read_exact(&mut request[head_len..])?;
    Ok(request)
}
