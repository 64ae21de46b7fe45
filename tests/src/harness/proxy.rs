//! A proxy that loses answers.

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
    upstream: Arc<Mutex<String>>,
    answered: Arc<AtomicUsize>,
    closed: Arc<AtomicBool>,
}

type Choose = Arc<Mutex<dyn FnMut(usize) -> Fault + Send>>;

impl Proxy {
    /// Starts a proxy. `choose` is called for each answer, from number 1, while the device still waits for it; so it may
    /// also do something at this moment.
    ///
    /// # Panics
    /// If no port is free.
    pub fn start(upstream: &str, choose: impl FnMut(usize) -> Fault + Send + 'static) -> Self {
        let upstream = Arc::new(Mutex::new(host(upstream)));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("the port is known");
        let answered = Arc::new(AtomicUsize::new(0));
        let closed = Arc::new(AtomicBool::new(false));
        let proxy = Self {
            address,
            upstream: Arc::clone(&upstream),
            answered: Arc::clone(&answered),
            closed: Arc::clone(&closed),
        };
        let choose: Choose = Arc::new(Mutex::new(choose));
        std::thread::spawn(move || {
            for device in listener.incoming().flatten() {
                if closed.load(Ordering::Relaxed) {
                    return;
                }
                let (upstream, answered, choose) =
                    (lock(&upstream).clone(), Arc::clone(&answered), Arc::clone(&choose));
                // A connection that fails is what the tests are about.
                std::thread::spawn(move || forward(device, &upstream, &answered, &choose));
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
        *lock(&self.upstream) = host(upstream);
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many answers the server gave by way of it.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        let _wakes_the_listener = TcpStream::connect(self.address);
    }
}

/// Forwards one request and what `choose` leaves of its answer.
fn forward(device: TcpStream, upstream: &str, answered: &AtomicUsize, choose: &Choose) -> io::Result<()> {
    let mut from_device = BufReader::new(device);
    let request = read_request(&mut from_device)?;
    let mut answer = ask(upstream, &request)?;
    let number = answered.fetch_add(1, Ordering::SeqCst) + 1;
    let fault = lock(choose)(number);
    if fault == Fault::Repeat {
        answer = ask(upstream, &request)?;
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
fn read_request(device: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
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
