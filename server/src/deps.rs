//! What the HTTP handlers work with: wired together once, in `main`.

use std::sync::Arc;

use crate::auth::dev_issuer::DevIssuer;
use crate::auth::jwt::Verifier;
use crate::clock::Clock;
use crate::config::ServerConfig;
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
}
