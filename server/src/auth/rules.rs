//! Which claims make whom: one pure function for each token of an issuer.

use serde::Deserialize;
use serde_json::{Map, Value};
use sync_core::model::Timestamp;

use crate::auth::identity::IdentityPool;
use crate::auth::policy::Caller;
use crate::auth::token_error::TokenError;
use crate::config::ServiceClaim;

/// Whose tokens are taken, and which.
#[derive(Clone, Debug)]
pub struct TokenRules {
    /// The issuer, exactly as tokens name it.
    pub issuer: String,
    /// The apps for which an ID token may have been issued.
    pub audiences: Vec<String>,
    /// The apps whose access tokens are taken.
    pub access_token_clients: Vec<String>,
    /// How far clocks may differ, in milliseconds.
    pub leeway_ms: i64,
    /// Which tokens are those of service callers.
    pub service: Option<ServiceClaim>,
}

/// Who calls, and for how long that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// Who it is.
    pub caller: Caller,
    /// From when on that must be shown again, if ever.
    pub expires_at: Option<Timestamp>,
}

/// What a token with a good signature says.
pub(super) struct Token {
    /// What its header calls it.
    pub(super) kind: Option<String>,
    pub(super) claims: Map<String, Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    #[serde(default)]
    aud: Audience,
    /// Seconds since 1970, possibly with a fraction.
    exp: f64,
    nbf: Option<f64>,
    /// Cognito says by it which kind of token it is.
    token_use: Option<String>,
    client_id: Option<String>,
    azp: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

/// The length of a subject and of a client's id, in bytes: OpenID Connect's.
const SUBJECT_BYTES_MAX: usize = 255;

impl TokenRules {
    /// Who calls with a token whose signature is good.
    pub(super) fn judge(&self, token: Token, pool: &IdentityPool, now: Timestamp) -> Result<SignedIn, TokenError> {
        let Token { kind, claims: all } = token;
        let is_service = self.service.as_ref().is_some_and(|service| has(&all, service));
        let is_event = all.contains_key("events");
        let says_scope = all.contains_key("scope");
        let claims: Claims = serde_json::from_value(Value::Object(all))
            .map_err(|_| TokenError::Invalid("it lacks claims, or they are malformed"))?;
        if claims.iss != self.issuer {
            return Err(TokenError::Invalid("it is from another issuer"));
        }
        let says_access = match kind.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("jwt") => false,
            Some("at+jwt" | "application/at+jwt") => true,
            Some(_) => return Err(TokenError::Invalid("it is neither an ID token nor an access token")),
        };
        let is_access = match claims.token_use.as_deref() {
            Some("id") if !says_access => false,
            Some("access") => true,
            Some(_) => return Err(TokenError::Invalid("it is neither an ID token nor an access token")),
            // An ID token has neither; where a token of an API has, it is one of an audience that is ours.
            None => says_access || (!self.is_for_us(&claims.aud) && (says_scope || claims.client_id.is_some())),
        };
        if is_event {
            return Err(TokenError::Invalid("it tells of an event, and is not for signing in"));
        }
        if is_access {
            self.check_client(&claims)?
        } else {
            self.check_audience(&claims)?
        }
        self.check_time(&claims, now)?;
        let Claims { iss, sub, exp, client_id, .. } = claims;
        if sub.is_empty() || sub.len() > SUBJECT_BYTES_MAX {
            return Err(TokenError::Invalid("its subject is empty or too long"));
        }
        let caller = if is_service {
            Caller::Service { name: client_id.unwrap_or(sub) }
        } else {
            Caller::Identity(pool.identity(&iss, &sub))
        };
        Ok(SignedIn { caller, expires_at: Some(self.end(exp)) })
    }

    fn is_for_us(&self, audience: &Audience) -> bool {
        let ours = |audience: &String| self.audiences.contains(audience);
        match audience {
            Audience::One(audience) => ours(audience),
            Audience::Several(audiences) => audiences.iter().any(ours),
        }
    }

    /// Whether an ID token was issued for an app of ours. If for others too, it must have been to one of ours.
    fn check_audience(&self, claims: &Claims) -> Result<(), TokenError> {
        if !self.is_for_us(&claims.aud) {
            return Err(TokenError::Invalid("it is for another audience"));
        }
        let several = matches!(&claims.aud, Audience::Several(audiences) if audiences.len() > 1);
        let to_us = claims.azp.as_ref().is_some_and(|azp| self.audiences.contains(azp) || self.is_client(azp));
        if several && !to_us {
            return Err(TokenError::Invalid("it is for several audiences, and was not issued to one of ours"));
        }
        Ok(())
    }

    /// Whether an access token was issued to an app whose access tokens are taken.
    fn check_client(&self, claims: &Claims) -> Result<(), TokenError> {
        let client = claims.client_id.as_ref().or(claims.azp.as_ref());
        if !client.is_some_and(|client| client.len() <= SUBJECT_BYTES_MAX && self.is_client(client)) {
            return Err(TokenError::Invalid(
                "it is an access token, and not of a client whose access tokens are taken",
            ));
        }
        Ok(())
    }

    fn is_client(&self, name: &String) -> bool {
        self.access_token_clients.contains(name)
    }

    fn check_time(&self, claims: &Claims, now: Timestamp) -> Result<(), TokenError> {
        if now >= self.end(claims.exp) {
            return Err(TokenError::Expired);
        }
        if claims.nbf.is_some_and(|nbf| timestamp(nbf).is_none_or(|nbf| now.plus_ms(self.leeway_ms) < nbf)) {
            return Err(TokenError::Invalid("it is not valid yet"));
        }
        Ok(())
    }

    fn end(&self, exp: f64) -> Timestamp {
        timestamp(exp).map_or(Timestamp(i64::MIN), |exp| exp.plus_ms(self.leeway_ms))
    }
}

/// Whether the claim is there: as it is, in an array, or as a word of a scope.
fn has(claims: &Map<String, Value>, service: &ServiceClaim) -> bool {
    let ServiceClaim { claim, value } = service;
    match claims.get(claim) {
        Some(Value::String(text)) if matches!(&**claim, "scope" | "scp") => {
            text == value || text.split(' ').any(|word| word == value)
        }
        Some(Value::String(text)) => text == value,
        Some(Value::Array(texts)) => texts.iter().any(|text| text == value),
        _ => false,
    }
}

/// A time in a token, if it is in range.
fn timestamp(seconds: f64) -> Option<Timestamp> {
    let ms = seconds * 1000.0;
    (ms.is_finite() && ms.abs() < 1e17).then_some(Timestamp(ms as i64))
}

#[cfg(test)]
mod tests;
