//! The one place that turns errors into HTTP.

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sync_core::model::InvalidName;
use sync_core::protocol::{ErrorBody, InvalidMessage, code};

use crate::auth::token_error::TokenError;
use crate::causes::with_causes;
use crate::error::ServiceError;

/// Why a request is not answered as it wishes.
#[derive(Debug)]
pub(super) enum HttpError {
    Service(ServiceError),
    /// There is nothing at this path.
    NotFound(String),
    MethodNotAllowed(Method),
    /// What the body is, and what it may be.
    UnsupportedMediaType(&'static str),
    TooLarge {
        bytes_max: usize,
    },
    TooSlow,
    /// The body breaks off, or cannot be decompressed.
    InvalidBody(&'static str),
    InvalidMessage(InvalidMessage),
    Panicked,
}

impl From<ServiceError> for HttpError {
    fn from(error: ServiceError) -> Self {
        Self::Service(error)
    }
}

impl From<TokenError> for HttpError {
    fn from(error: TokenError) -> Self {
        Self::Service(error.into())
    }
}

impl From<InvalidName> for HttpError {
    fn from(error: InvalidName) -> Self {
        Self::invalid(error.to_string())
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        if let Self::Service(error) = &self
            && let Some(error) = error.untold()
        {
            tracing::error!(error = with_causes(error), "failed to answer a request");
        }
        let (status, body, header) = self.parts();
        let mut response = (status, Json(body)).into_response();
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

pub(super) type Header = Option<(header::HeaderName, HeaderValue)>;

impl HttpError {
    /// Path, query or headers are wrong.
    pub(super) fn invalid(text: impl Into<String>) -> Self {
        Self::Service(ServiceError::InvalidParameter(text.into()))
    }

    /// The status, the body, and a header besides.
    pub(super) fn parts(self) -> (StatusCode, ErrorBody, Header) {
        let body = |code: &str, message: String| ErrorBody { code: code.to_owned(), message };
        let invalid = |message: String| body(code::INVALID_PARAMETER, message);
        match self {
            Self::Service(error) => {
                let (status, header) = of_service(&error);
                (status, error.body(), header)
            }
            Self::NotFound(path) => {
                (StatusCode::NOT_FOUND, body(code::RESOURCE_NOT_FOUND, format!("there is nothing at {path}")), None)
            }
            Self::MethodNotAllowed(method) => {
                (StatusCode::METHOD_NOT_ALLOWED, invalid(format!("{method} cannot be used here")), None)
            }
            Self::UnsupportedMediaType(what) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, invalid(what.to_owned()), None),
            Self::TooLarge { bytes_max } => {
                let text = format!("a request has at most {bytes_max} bytes, decompressed");
                (StatusCode::PAYLOAD_TOO_LARGE, body(code::LIMIT_EXCEEDED, text), None)
            }
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, invalid("the request came too slowly".to_owned()), None),
            Self::InvalidBody(what) => (StatusCode::BAD_REQUEST, invalid(what.to_owned()), None),
            Self::InvalidMessage(error @ (InvalidMessage::TooManyValues | InvalidMessage::TooLarge)) => {
                (StatusCode::PAYLOAD_TOO_LARGE, body(code::LIMIT_EXCEEDED, error.to_string()), None)
            }
            Self::InvalidMessage(error) => (StatusCode::BAD_REQUEST, invalid(error.to_string()), None),
            Self::Panicked => {
                let text = "the server failed".to_owned();
                (StatusCode::INTERNAL_SERVER_ERROR, body(code::INTERNAL_ERROR, text), None)
            }
        }
    }
}

/// Status and header of a service error.
fn of_service(error: &ServiceError) -> (StatusCode, Header) {
    match error {
        ServiceError::NotAuthorized(_) => {
            (StatusCode::UNAUTHORIZED, Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))))
        }
        ServiceError::Forbidden(_) => (StatusCode::FORBIDDEN, None),
        ServiceError::InvalidParameter(_) => (StatusCode::BAD_REQUEST, None),
        ServiceError::NotFound(_) => (StatusCode::NOT_FOUND, None),
        ServiceError::PreconditionFailed(_) => (StatusCode::PRECONDITION_FAILED, None),
        ServiceError::Conflict(_) => (StatusCode::CONFLICT, None),
        ServiceError::Gone(_) => (StatusCode::GONE, None),
        ServiceError::Refused { .. } => (StatusCode::UNPROCESSABLE_ENTITY, None),
        ServiceError::LimitExceeded(_) => (StatusCode::PAYLOAD_TOO_LARGE, None),
        ServiceError::TooManyRequests { retry_after_ms } => {
            (StatusCode::TOO_MANY_REQUESTS, Some((header::RETRY_AFTER, seconds(*retry_after_ms))))
        }
        ServiceError::Unavailable { retry_after_ms } | ServiceError::StoreUnavailable { retry_after_ms, source: _ } => {
            (StatusCode::SERVICE_UNAVAILABLE, Some((header::RETRY_AFTER, seconds(*retry_after_ms))))
        }
        ServiceError::UpgradeRequired { .. } => (StatusCode::UPGRADE_REQUIRED, None),
        ServiceError::StorageFull { retry_after_ms, source: _ } => {
            (StatusCode::INSUFFICIENT_STORAGE, Some((header::RETRY_AFTER, seconds(*retry_after_ms))))
        }
        ServiceError::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, None),
    }
}

/// Whole seconds, and at least one.
fn seconds(ms: u64) -> HeaderValue {
    HeaderValue::from(ms.div_ceil(1000).max(1))
}
