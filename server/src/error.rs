//! What a use case says when it cannot do what was asked. `http` turns it into an answer, in one place.

use std::error::Error;
use std::sync::Arc;

use sync_core::protocol::{ErrorBody, code};

/// Why a request, or its part for one dataset, is not served. The variants say what the caller can do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ServiceError {
    /// Sign in, or sign in again.
    #[error("{0}")]
    NotAuthorized(String),
    /// This caller may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// The request is wrong; sending it again does not help.
    #[error("{0}")]
    InvalidParameter(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It is not as the request requires; read it again.
    #[error("{0}")]
    PreconditionFailed(String),
    /// The change does not fit what is there.
    #[error("{0}")]
    Conflict(String),
    /// It cannot be gone on with; begin again.
    #[error("{0}")]
    Gone(String),
    /// A hook of this server does not want it; the message is for the user.
    #[error("{message}")]
    Refused {
        /// A stable code, of the hook's choice.
        code: String,
        /// Why.
        message: String,
    },
    /// More than a limit allows; send less.
    #[error("{0}")]
    LimitExceeded(String),
    /// Come again after that many milliseconds.
    #[error("too many requests at once; come again later")]
    TooManyRequests {
        /// How long to wait.
        retry_after_ms: u64,
    },
    /// Something that the server needs does not answer; come again after that many milliseconds.
    #[error("the server cannot do this right now; come again later")]
    Unavailable {
        /// How long to wait.
        retry_after_ms: u64,
    },
    /// As above, because of the store. What was written may be sent again; the cause is logged.
    #[error("the server cannot do this right now; come again later")]
    StoreUnavailable {
        /// How long to wait.
        retry_after_ms: u64,
        /// What happened.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// Reading goes on. What was written may be sent again, after that many milliseconds; the cause is logged.
    #[error("the server has no room to write; come again later")]
    StorageFull {
        /// How long to wait.
        retry_after_ms: u64,
        /// What happened.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The client is too old for this server.
    #[error("this server does not speak protocol version {version} any more; update the app")]
    UpgradeRequired {
        /// What the client speaks.
        version: u32,
    },
    /// The server's fault. What happened is logged, not told.
    #[error("the server failed")]
    Internal(#[source] Arc<dyn Error + Send + Sync>),
}

impl ServiceError {
    /// The stable code on the wire.
    pub fn code(&self) -> &str {
        match self {
            Self::NotAuthorized(_) | Self::Forbidden(_) => code::NOT_AUTHORIZED,
            Self::InvalidParameter(_) => code::INVALID_PARAMETER,
            Self::NotFound(_) => code::RESOURCE_NOT_FOUND,
            Self::PreconditionFailed(_) | Self::Conflict(_) | Self::Gone(_) => code::RESOURCE_CONFLICT,
            Self::Refused { code, message: _ } => code,
            Self::LimitExceeded(_) => code::LIMIT_EXCEEDED,
            Self::TooManyRequests { .. } | Self::Unavailable { .. } | Self::StoreUnavailable { .. } => {
                code::TOO_MANY_REQUESTS
            }
            Self::StorageFull { .. } => code::STORAGE_FULL,
            Self::UpgradeRequired { .. } => code::UPGRADE_REQUIRED,
            Self::Internal(_) => code::INTERNAL_ERROR,
        }
    }

    /// What is told to nobody, and logged instead.
    pub fn untold(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Internal(source) | Self::StoreUnavailable { source, .. } | Self::StorageFull { source, .. } => {
                Some(source.as_ref())
            }
            _ => None,
        }
    }

    /// The error as it is told to the client.
    pub fn body(&self) -> ErrorBody {
        ErrorBody { code: self.code().to_owned(), message: self.to_string() }
    }
}
