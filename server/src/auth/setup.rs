//! From the configuration to a verifier.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use sync_core::model::InvalidName;

use crate::auth::dev_issuer::DevIssuer;
use crate::auth::identity::IdentityPool;
use crate::auth::jwks::fetch::{FetchError, HttpFetch};
use crate::auth::jwks::remote::{Place, RemoteJwks};
use crate::auth::jwks::{JwksError, JwksSource, Keys, StaticJwks};
use crate::auth::jwt::Verifier;
use crate::auth::rules::TokenRules;
use crate::config::{AuthConfig, IssuerConfig, KeysAt};

/// Why nobody can sign in as configured.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No identity can be written with the region.
    #[error("auth.region")]
    Region(#[from] InvalidName),
    /// A file cannot be read.
    #[error("auth.issuers: `jwks_file` {}", .path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A file has no keys.
    #[error("auth.issuers: `jwks_file` {}", .path.display())]
    NoKeys {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: JwksError,
    },
    /// The keys that come with `--dev` are not usable.
    #[error("the dev issuer's keys")]
    DevKeys(#[source] JwksError),
    /// No key can be fetched.
    #[error("keys cannot be fetched")]
    Http(#[from] FetchError),
}

/// The verifier of all configured issuers, and of the dev issuer where there is one. It fetches nothing yet.
///
/// # Errors
/// If a file with keys cannot be read, or the region is none.
pub fn verifier(config: &AuthConfig, dev_issuer: Option<&DevIssuer>) -> Result<Verifier, SetupError> {
    let mut verifier = Verifier::new(IdentityPool::parse(&*config.region, &*config.pool)?);
    if let Some(issuer) = dev_issuer {
        let keys = StaticJwks::new(issuer.keys()).map_err(SetupError::DevKeys)?;
        verifier = verifier.with_issuer(issuer.rules(), Arc::new(keys));
    }
    if let Some(key) = &config.service_key {
        verifier = verifier.with_service_key(key);
    }
    let fetch = Arc::new(HttpFetch::new()?);
    for IssuerConfig { issuer, audiences, access_token_clients, keys, leeway, service } in config.issuers.clone() {
        let remote = |place| -> Arc<dyn JwksSource> {
            Arc::new(RemoteJwks::new(place, config.unknown_key_interval.ms(), Arc::clone(&fetch) as _))
        };
        let keys: Arc<dyn JwksSource> = match keys {
            KeysAt::Discovery(url) => remote(Place::Discovery { url, issuer: issuer.clone() }),
            KeysAt::Url(url) => remote(Place::Keys(url)),
            KeysAt::File(path) => Arc::new(StaticJwks(read(path)?)),
        };
        let rules = TokenRules { issuer, audiences, access_token_clients, leeway_ms: leeway.ms(), service };
        verifier = verifier.with_issuer(rules, keys);
    }
    Ok(verifier)
}

fn read(path: PathBuf) -> Result<Keys, SetupError> {
    match fs::read(&path) {
        Ok(json) => Keys::parse(&json).map_err(|source| SetupError::NoKeys { path, source }),
        Err(source) => Err(SetupError::Unreadable { path, source }),
    }
}
