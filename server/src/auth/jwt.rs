//! Tokens: whose they are, and whether their signature is right.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use sync_core::model::{Owner, Timestamp};

use crate::auth::identity::IdentityPool;
use crate::auth::jwks::{JwksError, JwksSource};
use crate::auth::policy::Caller;
use crate::auth::rules::{SignedIn, Token, TokenRules};
use crate::auth::token_error::TokenError;
use crate::config::Secret;

/// Turns tokens into callers. It begins without an issuer.
pub struct Verifier {
    pool: IdentityPool,
    issuers: BTreeMap<String, Issuer>,
    service_key: Option<Hash>,
    verified: Mutex<BTreeMap<Hash, Verified>>,
}

struct Issuer {
    rules: TokenRules,
    keys: Arc<dyn JwksSource>,
}

/// Of a token. Comparing hashes tells nobody by its duration how much of a secret was right.
type Hash = [u8; 32];

/// A token that was verified, so that the next request with it need not.
#[derive(Clone)]
struct Verified {
    signed_in: SignedIn,
    /// Until then, even if the token lives longer: its key may be withdrawn.
    forget_at: Timestamp,
}

/// What is read of a token before its signature is known to be good: by whose rules and keys it is to be judged.
#[derive(Deserialize)]
struct Unverified {
    iss: String,
}

/// What the service key's caller is called.
const SERVICE_KEY_NAME: &str = "service-key";
/// A token's length in bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Verified tokens that are remembered.
const VERIFIED_MAX: usize = 10_000;
/// How long a verified token is remembered, in milliseconds.
const VERIFIED_MS_MAX: i64 = 5 * 60 * 1000;

impl Verifier {
    /// A verifier that takes no token yet.
    pub const fn new(pool: IdentityPool) -> Self {
        Self { pool, issuers: BTreeMap::new(), service_key: None, verified: Mutex::new(BTreeMap::new()) }
    }

    /// Takes tokens of this issuer too.
    #[must_use]
    pub fn with_issuer(mut self, rules: TokenRules, keys: Arc<dyn JwksSource>) -> Self {
        self.issuers.insert(rules.issuer.clone(), Issuer { rules, keys });
        self
    }

    /// Takes a key instead of a token; who has it is a service caller.
    #[must_use]
    pub fn with_service_key(mut self, key: &Secret) -> Self {
        self.service_key = Some(Sha256::digest(key.reveal()).into());
        self
    }

    /// Fetches the keys of issuers anew, where they may change.
    pub async fn refresh_keys(&self, now: Timestamp) {
        join_all(self.issuers.values().map(|issuer| issuer.keys.refresh(now))).await;
    }

    /// The identity of a login.
    pub fn identity(&self, issuer: &str, subject: &str) -> Owner {
        self.pool.identity(issuer, subject)
    }

    /// Whether each issuer's keys are to be had.
    pub async fn try_keys(&self, now: Timestamp) -> Vec<(String, Result<(), JwksError>)> {
        let tried = self.issuers.iter().map(async |(issuer, configured)| {
            // There is no key without a name, so this says nothing but whether there are keys.
            (issuer.clone(), configured.keys.key("", now).await.map(drop))
        });
        join_all(tried).await
    }

    /// Who calls, by the value of the header `Authorization`: a token, bare or behind `Bearer`.
    ///
    /// # Errors
    /// Says why the token is not taken.
    pub async fn verify(&self, authorization: Option<&str>, now: Timestamp) -> Result<SignedIn, TokenError> {
        let token = bare(authorization.unwrap_or_default());
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid("it is too long"));
        }
        let hash: Hash = Sha256::digest(token).into();
        if self.service_key.as_ref().is_some_and(|key| key.ct_eq(&hash).into()) {
            let caller = Caller::Service { name: SERVICE_KEY_NAME.to_owned() };
            return Ok(SignedIn { caller, expires_at: None });
        }
        if let Some(verified) = self.remembered(&hash, now) {
            return Ok(verified.signed_in);
        }
        let signed_in = self.verify_token(token, now).await?;
        let mut all = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= VERIFIED_MAX {
            all.clear();
        }
        all.insert(hash, Verified { signed_in: signed_in.clone(), forget_at: now.plus_ms(VERIFIED_MS_MAX) });
        Ok(signed_in)
    }

    fn remembered(&self, hash: &Hash, now: Timestamp) -> Option<Verified> {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()?;
        let is_expired = verified.signed_in.expires_at.is_some_and(|at| now >= at);
        (now < verified.forget_at && !is_expired).then_some(verified)
    }

    async fn verify_token(&self, token: &str, now: Timestamp) -> Result<SignedIn, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid("it is not a signed token"))?;
        if header.crit.is_some() {
            return Err(TokenError::Invalid("it asks for an extension that this server does not have"));
        }
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
            return Err(TokenError::Invalid("it is signed with neither RS256 nor ES256"));
        }
        let unverified = jsonwebtoken::dangerous::insecure_decode_claims::<Unverified>(token);
        let Unverified { iss } = unverified.map_err(|_| TokenError::Invalid("it does not say who issued it"))?;
        let Issuer { rules, keys } = self.issuers.get(&iss).ok_or(TokenError::Invalid("it is from another issuer"))?;
        // Where else keys could be (`jku`, `jwk`, `x5u`) is not looked at: the token does not choose who vouches for it.
        let id = header.kid.ok_or(TokenError::Invalid("it does not say with which key it is signed"))?;
        let key = keys.key(&id, now).await.map_err(TokenError::Unavailable)?;
        let key = key.ok_or(TokenError::Invalid("it is signed with an unknown key"))?;
        if key.algorithm != header.alg {
            return Err(TokenError::Invalid("it is signed with another algorithm than its key is for"));
        }
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &signature_only(header.alg));
        let decoded = decoded.map_err(|error| {
            TokenError::Invalid(match error.kind() {
                jsonwebtoken::errors::ErrorKind::InvalidSignature => "its signature is wrong",
                _ => "it lacks claims, or they are malformed",
            })
        })?;
        rules.judge(Token { kind: header.typ, claims: decoded.claims }, &self.pool, now)
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

/// The signature and its algorithm; the claims are judged by [`TokenRules`], by the server's clock.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

#[cfg(test)]
mod tests;
