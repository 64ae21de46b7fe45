//! Whose tokens are taken: one entry of `auth.issuers`.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Duration, HttpUrl};

/// An issuer, which of its tokens are taken, and where its keys are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Entry")]
pub struct IssuerConfig {
    /// `iss`, exactly as in its tokens.
    pub issuer: String,
    /// `aud` of the ID tokens that are taken.
    pub audiences: Vec<String>,
    /// Whose access tokens are taken, by `client_id` or `azp`.
    pub access_token_clients: Vec<String>,
    /// Where its keys are.
    pub keys: KeysAt,
    /// How far its clock may differ.
    pub leeway: Duration,
    /// Which of its tokens make a service caller.
    pub service: Option<ServiceClaim>,
}

/// Where an issuer's public keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysAt {
    /// The discovery document at this address names it.
    Discovery(HttpUrl),
    /// At this address.
    Url(HttpUrl),
    /// In a file, which is read once.
    File(PathBuf),
}

/// A claim that only tokens of back-end jobs have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceClaim {
    /// Its name.
    pub claim: String,
    /// What it is, or one of what it lists.
    pub value: String,
}

/// An entry as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    issuer: String,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    access_token_clients: Vec<String>,
    discovery_url: Option<HttpUrl>,
    jwks_url: Option<HttpUrl>,
    jwks_file: Option<PathBuf>,
    leeway: Option<Duration>,
    service: Option<ServiceClaim>,
}

/// What is wrong with an entry.
#[derive(Debug, thiserror::Error)]
enum InvalidEntry {
    #[error("`issuer` is empty")]
    NoIssuer,
    #[error(
        "issuer `{0}`: no token can be taken; name the `audiences` of ID tokens, or the `access_token_clients`, or both"
    )]
    NothingTaken(String),
    #[error("issuer `{issuer}`: `{setting}` has an empty text in it")]
    Empty { issuer: String, setting: &'static str },
    #[error("issuer `{0}`: set only one of `discovery_url`, `jwks_url` and `jwks_file`")]
    SeveralKeys(String),
    #[error("issuer `{0}`: it is no URL, so set `discovery_url`, `jwks_url` or `jwks_file`")]
    NoKeys(String),
}

/// Where OpenID Connect puts the discovery document, behind the issuer.
const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";
/// The leeway where none is set.
const LEEWAY_DEFAULT: &str = "60s";

impl TryFrom<Entry> for IssuerConfig {
    type Error = InvalidEntry;

    fn try_from(entry: Entry) -> Result<Self, InvalidEntry> {
        let Entry { issuer, audiences, access_token_clients, discovery_url, jwks_url, jwks_file, leeway, service } =
            entry;
        if issuer.is_empty() {
            return Err(InvalidEntry::NoIssuer);
        }
        if audiences.is_empty() && access_token_clients.is_empty() {
            return Err(InvalidEntry::NothingTaken(issuer));
        }
        let claim = service.as_ref().map_or("-", |service| &service.claim);
        let value = service.as_ref().map_or("-", |service| &service.value);
        for (setting, is_empty) in [
            ("audiences", audiences.iter().any(String::is_empty)),
            ("access_token_clients", access_token_clients.iter().any(String::is_empty)),
            ("service", claim.is_empty() || value.is_empty()),
        ] {
            if is_empty {
                return Err(InvalidEntry::Empty { issuer, setting });
            }
        }
        let keys = match (discovery_url, jwks_url, jwks_file) {
            (Some(url), None, None) => KeysAt::Discovery(url),
            (None, Some(url), None) => KeysAt::Url(url),
            (None, None, Some(file)) => KeysAt::File(file),
            (None, None, None) => {
                let url = format!("{}{DISCOVERY_PATH}", issuer.trim_end_matches('/'));
                KeysAt::Discovery(url.parse().map_err(|_| InvalidEntry::NoKeys(issuer.clone()))?)
            }
            _ => return Err(InvalidEntry::SeveralKeys(issuer)),
        };
        let leeway = leeway.unwrap_or_else(|| LEEWAY_DEFAULT.parse().expect("it is a duration"));
        Ok(Self { issuer, audiences, access_token_clients, keys, leeway, service })
    }
}
