//! What the HTTP handlers work with: wired together once, in `main`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::auth::dev_issuer::DevIssuer;
use crate::auth::jwt::Verifier;
use crate::clock::Clock;
use crate::config::{RatesConfig, ServerConfig};
use crate::service::Service;

/// The parts of a running server.
#[derive(Clone)]
pub struct Deps {
    /// The use cases.
    pub service: Arc<Service>,
    /// Turns tokens into callers.
    pub verifier: Arc<Verifier>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// With `--dev`: the embedded issuer, whose public documents are served.
    pub dev_issuer: Option<Arc<DevIssuer>>,
    /// How the server is reached.
    pub server: ServerConfig,
    /// How often identities may call.
    pub rates: RatesConfig,
    /// Whether the process is about to end.
    pub stopping: Stopping,
}

/// Whether the process is about to end, so that no new requests should be sent to it. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Stopping(Arc<AtomicBool>);

impl Stopping {
    /// The process is about to end.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is.
    pub fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
