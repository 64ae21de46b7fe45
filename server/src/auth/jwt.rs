//! ID tokens: whether a signature, an issuer, an audience and a time are right.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use sync_core::model::Timestamp;

use crate::auth::identity::IdentityPool;
use crate::auth::jwks::{JwksError, JwksSource};
use crate::auth::policy::Caller;
use crate::error::ServiceError;

/// Whose tokens are taken.
#[derive(Clone, Debug)]
pub struct TokenRules {
    /// The issuer, exactly as tokens name it.
    pub issuer: String,
    /// The apps for which a token may have been issued.
    pub audiences: Vec<String>,
    /// How far clocks may differ, in milliseconds.
    pub leeway_ms: i64,
}

/// Why a token is not taken.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("sign in: the request has no token")]
    Missing,
    /// It was good once.
    #[error("sign in again: the token has expired")]
    Expired,
    /// It never was good, or is not yet.
    #[error("the token is not valid: {0}")]
    Invalid(&'static str),
    /// It cannot be told now.
    #[error("the issuer's keys are not available")]
    Unavailable(#[source] JwksError),
}

impl From<TokenError> for ServiceError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Unavailable(source) => Self::Internal(Arc::new(source)),
            TokenError::Missing | TokenError::Expired | TokenError::Invalid(_) => {
                Self::NotAuthorized(error.to_string())
            }
        }
    }
}

/// Turns tokens into callers.
pub struct Verifier {
    rules: TokenRules,
    pool: IdentityPool,
    keys: Arc<dyn JwksSource>,
    verified: Mutex<BTreeMap<[u8; 32], Verified>>,
}

/// A token that was verified, so that the next request with it need not.
#[derive(Clone)]
struct Verified {
    caller: Caller,
    expires_at: Timestamp,
    /// Until then, even if the token lives longer: its key may be withdrawn.
    forget_at: Timestamp,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    /// Seconds since 1970, possibly with a fraction.
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    token_use: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// A token's length in bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// The length of a subject, in bytes: OpenID Connect's.
const SUBJECT_BYTES_MAX: usize = 255;
/// Verified tokens that are remembered.
const VERIFIED_MAX: usize = 10_000;
/// How long a verified token is remembered, in milliseconds.
const VERIFIED_MS_MAX: i64 = 5 * 60 * 1000;

impl Verifier {
    /// A verifier of one issuer's tokens.
    pub fn new(rules: TokenRules, pool: IdentityPool, keys: Arc<dyn JwksSource>) -> Self {
        Self { rules, pool, keys, verified: Mutex::default() }
    }

    /// Who calls, by the value of the header `Authorization`: a token, bare or behind `Bearer`.
    ///
    /// # Errors
    /// Says why the token is not taken.
    pub async fn verify(&self, authorization: Option<&str>, now: Timestamp) -> Result<Caller, TokenError> {
        let token = bare(authorization.unwrap_or_default());
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid("it is too long"));
        }
        let hash: [u8; 32] = Sha256::digest(token).into();
        if let Some(verified) = self.remembered(&hash, now) {
            return Ok(verified.caller);
        }
        let verified = self.verify_token(token, now).await?;
        let mut all = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= VERIFIED_MAX {
            all.clear();
        }
        all.insert(hash, verified.clone());
        Ok(verified.caller)
    }

    fn remembered(&self, hash: &[u8; 32], now: Timestamp) -> Option<Verified> {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()?;
        (now < verified.forget_at && now < verified.expires_at).then_some(verified)
    }

    async fn verify_token(&self, token: &str, now: Timestamp) -> Result<Verified, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid("it is not a signed token"))?;
        if header.crit.is_some() {
            return Err(TokenError::Invalid("it asks for an extension that this server does not have"));
        }
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
            return Err(TokenError::Invalid("it is signed with neither RS256 nor ES256"));
        }
        // Where else keys could be (`jku`, `jwk`, `x5u`) is not looked at: the token does not choose who vouches for it.
        let id = header.kid.ok_or(TokenError::Invalid("it does not say with which key it is signed"))?;
        let key = self.keys.key(&id).await.map_err(TokenError::Unavailable)?;
        let key = key.ok_or(TokenError::Invalid("it is signed with an unknown key"))?;
        if key.algorithm != header.alg {
            return Err(TokenError::Invalid("it is signed with another algorithm than its key is for"));
        }
        let decoded = jsonwebtoken::decode::<Claims>(token, &key.key, &signature_only(header.alg));
        let claims = decoded.map_err(|error| {
            TokenError::Invalid(match error.kind() {
                jsonwebtoken::errors::ErrorKind::InvalidSignature => "its signature is wrong",
                _ => "it is not an ID token",
            })
        })?;
        self.check(claims.claims, now)
    }

    fn check(&self, claims: Claims, now: Timestamp) -> Result<Verified, TokenError> {
        let Claims { iss, sub, aud, exp, nbf, token_use } = claims;
        if iss != self.rules.issuer {
            return Err(TokenError::Invalid("it is from another issuer"));
        }
        let ours = |audience: &String| self.rules.audiences.contains(audience);
        let for_us = match &aud {
            Audience::One(audience) => ours(audience),
            Audience::Several(audiences) => audiences.iter().any(ours),
        };
        if !for_us {
            return Err(TokenError::Invalid("it is for another audience"));
        }
        if token_use.is_some_and(|it| it != "id") {
            return Err(TokenError::Invalid("it is not an ID token"));
        }
        if sub.is_empty() || sub.len() > SUBJECT_BYTES_MAX {
            return Err(TokenError::Invalid("its subject is empty or too long"));
        }
        let leeway = self.rules.leeway_ms;
        let expires_at = timestamp(exp).plus_ms(leeway);
        if now >= expires_at {
            return Err(TokenError::Expired);
        }
        if nbf.is_some_and(|nbf| now.plus_ms(leeway) < timestamp(nbf)) {
            return Err(TokenError::Invalid("it is not valid yet"));
        }
        let caller = Caller::Identity(self.pool.identity(&iss, &sub));
        Ok(Verified { caller, expires_at, forget_at: now.plus_ms(VERIFIED_MS_MAX) })
    }
}

/// The token without `Bearer`, as RFC 9110 writes it: in any case, before blanks.
fn bare(authorization: &str) -> &str {
    let authorization = authorization.trim();
    match authorization.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
        _ => authorization,
    }
}

/// The signature and its algorithm; the claims are checked by [`Verifier::check`], by the server's clock.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

/// A time in a token. What is out of range, or no number, is long ago.
fn timestamp(seconds: f64) -> Timestamp {
    let ms = seconds * 1000.0;
    Timestamp(if ms.is_finite() && ms.abs() < 1e17 { ms as i64 } else { i64::MIN })
}

#[cfg(test)]
mod tests;
