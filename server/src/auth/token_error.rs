//! Why tokens are not taken.

use crate::auth::jwks::JwksError;
use crate::error::ServiceError;

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

/// When to come again if an issuer's keys are not available.
pub(super) const RETRY_AFTER_MS: u64 = 5_000;

impl From<TokenError> for ServiceError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Unavailable(_) => Self::Unavailable { retry_after_ms: RETRY_AFTER_MS },
            TokenError::Missing | TokenError::Expired | TokenError::Invalid(_) => {
                Self::NotAuthorized(error.to_string())
            }
        }
    }
}
