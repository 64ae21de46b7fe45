//! The keys that issuers sign with.

pub mod fetch;
pub mod remote;

use std::collections::BTreeMap;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use sync_core::model::Timestamp;

/// A key that verifies signatures, and of which kind.
#[derive(Clone)]
pub struct VerifyingKey {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// Why keys are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// Try again later. Who tried in vain to fetch them has logged why.
    #[error("the issuer's keys are not available")]
    Unavailable,
    /// Needs a person.
    #[error("this is no JSON Web Key Set with a usable key: {0}")]
    Invalid(String),
}

/// Where an issuer's keys come from.
#[async_trait]
pub trait JwksSource: Send + Sync {
    /// The key of that id. Nothing: the issuer has no such key, or none that we take.
    ///
    /// # Errors
    /// If no keys are known yet.
    async fn key(&self, id: &str, now: Timestamp) -> Result<Option<VerifyingKey>, JwksError>;

    /// Fetches the keys anew, where they may change.
    async fn refresh(&self, now: Timestamp);
}

/// The usable keys of a set, by their ids: RS256 with at least 2,048 bits, and ES256.
pub struct Keys(BTreeMap<String, VerifyingKey>);

/// A set, of which some keys may be of kinds that nobody here has heard of.
#[derive(Deserialize)]
struct LooseSet {
    keys: Vec<Value>,
}

impl Keys {
    /// Takes the usable keys of a set.
    ///
    /// # Errors
    /// If there is none.
    pub fn new(set: &JwkSet) -> Result<Self, JwksError> {
        let named = |jwk: &Jwk| Some((jwk.common.key_id.clone()?, verifying_key(jwk)?));
        let keys: BTreeMap<_, _> = set.keys.iter().filter_map(named).collect();
        if keys.is_empty() {
            return Err(JwksError::Invalid("it has no RS256 or ES256 key with an id".to_owned()));
        }
        Ok(Self(keys))
    }

    /// Reads a set in JSON.
    ///
    /// # Errors
    /// If it is none, or has no usable key.
    pub fn parse(json: &[u8]) -> Result<Self, JwksError> {
        let set: LooseSet = serde_json::from_slice(json).map_err(|error| JwksError::Invalid(error.to_string()))?;
        let keys = set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect();
        Self::new(&JwkSet { keys })
    }

    fn find(&self, id: &str) -> Option<VerifyingKey> {
        self.0.get(id).cloned()
    }
}

/// Keys that are known beforehand.
pub struct StaticJwks(pub Keys);

impl StaticJwks {
    /// Takes the usable keys of a set.
    ///
    /// # Errors
    /// If there is none.
    pub fn new(set: &JwkSet) -> Result<Self, JwksError> {
        Keys::new(set).map(Self)
    }
}

#[async_trait]
impl JwksSource for StaticJwks {
    async fn key(&self, id: &str, _now: Timestamp) -> Result<Option<VerifyingKey>, JwksError> {
        Ok(self.0.find(id))
    }

    async fn refresh(&self, _now: Timestamp) {}
}

/// The bits of an RSA key.
const RSA_BITS_MIN: usize = 2048;

/// The key, if it is of a kind that we take.
fn verifying_key(jwk: &Jwk) -> Option<VerifyingKey> {
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) if bits(&rsa.n)? >= RSA_BITS_MIN => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        _ => return None,
    };
    let for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    if !for_signatures || jwk.common.key_algorithm.is_some_and(|says| says != name) {
        return None;
    }
    Some(VerifyingKey { algorithm, key: DecodingKey::from_jwk(jwk).ok()? })
}

/// How long a number is, without zeros before it.
fn bits(number: &str) -> Option<usize> {
    let bytes = URL_SAFE_NO_PAD.decode(number).ok()?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    Some((bytes.len() - first) * 8 - bytes[first].leading_zeros() as usize)
}
