//! The keys that issuers sign with.

use std::collections::BTreeMap;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};

/// A key that verifies signatures, and of which kind.
#[derive(Clone)]
pub struct VerifyingKey {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// Why keys are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// Try again later.
    #[error("the issuer's keys are not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Needs a person.
    #[error("this is no JSON Web Key Set with a usable key: {0}")]
    Invalid(String),
}

/// Where an issuer's keys come from.
#[async_trait]
pub trait JwksSource: Send + Sync {
    /// The key of that id. Nothing: the issuer has no such key, or none that we take.
    async fn key(&self, id: &str) -> Result<Option<VerifyingKey>, JwksError>;
}

/// Keys that are known beforehand.
pub struct StaticJwks(BTreeMap<String, VerifyingKey>);

impl StaticJwks {
    /// Takes the usable keys of a set: RS256 with at least 2,048 bits, and ES256.
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
    pub fn parse(json: &str) -> Result<Self, JwksError> {
        Self::new(&serde_json::from_str(json).map_err(|error| JwksError::Invalid(error.to_string()))?)
    }
}

#[async_trait]
impl JwksSource for StaticJwks {
    async fn key(&self, id: &str) -> Result<Option<VerifyingKey>, JwksError> {
        Ok(self.0.get(id).cloned())
    }
}

/// The key, if it is of a kind that we take.
fn verifying_key(jwk: &Jwk) -> Option<VerifyingKey> {
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) if URL_SAFE_NO_PAD.decode(&rsa.n).ok()?.len() >= 256 => {
            (Algorithm::RS256, KeyAlgorithm::RS256)
        }
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
