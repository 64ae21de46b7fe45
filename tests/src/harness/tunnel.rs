//! A way to a server that passes bytes both ways, can be moved to another server, and can be cut.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A tunnel from a free port of 127.0.0.1, whose address stays.
#[derive(Debug)]
pub struct Tunnel {
    address: SocketAddr,
    target: Arc<Mutex<String>>,
    /// The next connection is cut after so many bytes of the server's.
    cut: Arc<Mutex<Option<usize>>>,
    /// The clients' ends of connections; those that have ended are gone.
    open: Arc<Mutex<Vec<Weak<TcpStream>>>>,
    closed: Arc<AtomicBool>,
}

impl Tunnel {
    /// Opens a tunnel to a server.
    ///
    /// # Panics
    /// If no port is free.
    pub fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("the port is known");
        let tunnel = Self {
            address,
            target: Arc::new(Mutex::new(host(url))),
            cut: Arc::default(),
            open: Arc::default(),
            closed: Arc::default(),
        };
        let (target, cut, closed) = (Arc::clone(&tunnel.target), Arc::clone(&tunnel.cut), Arc::clone(&tunnel.closed));
        let open = Arc::clone(&tunnel.open);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if closed.load(Ordering::Relaxed) {
                    return;
                }
                let target = target.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let cut = cut.lock().unwrap_or_else(PoisonError::into_inner).take();
                // A server that is not there: the client sees its connection end.
                let Ok(server) = TcpStream::connect(target) else { continue };
                let (client, server) = (Arc::new(client), Arc::new(server));
                let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                open.retain(|one| one.strong_count() > 0);
                open.push(Arc::downgrade(&client));
                let (from_client, to_server) = (Arc::clone(&client), Arc::clone(&server));
                std::thread::spawn(move || pass(&from_client, &to_server, None));
                std::thread::spawn(move || pass(&server, &client, cut));
            }
        });
        tunnel
    }

    /// Where it begins.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// New connections go to another server.
    pub fn move_to(&self, url: &str) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = host(url);
    }

    /// All connections end now, in the middle of whatever they carry.
    pub fn cut(&self) {
        for one in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _it_may_have_ended = one.upgrade().map(|one| one.shutdown(Shutdown::Both));
        }
    }

    /// The next connection ends after so many bytes from the server.
    pub fn cut_after(&self, bytes: usize) {
        *self.cut.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        let _wakes_the_listener = TcpStream::connect(self.address);
    }
}

fn host(url: &str) -> String {
    url.strip_prefix("http://").unwrap_or(url).to_owned()
}

/// Passes bytes on until one side ends, or so many have passed; then both sides end.
fn pass(mut from: &TcpStream, mut to: &TcpStream, cut: Option<usize>) {
    let mut left = cut.unwrap_or(usize::MAX);
    let mut buffer = [0; 16 << 10];
    while left > 0 {
        let Ok(read @ 1..) = from.read(&mut buffer) else { break };
        let passed = read.min(left);
        if to.write_all(&buffer[..passed]).is_err() {
            break;
        }
        left -= passed;
    }
    // Whoever is gone already needs no telling.
    let _both = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
