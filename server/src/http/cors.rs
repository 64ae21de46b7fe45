//! Which web pages may ask: those of the configured origins.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::trace::{REQUEST_ID, TRACEPARENT, TRACESTATE};

/// How long a browser need not ask again whether it may.
const PREFLIGHT_SECONDS: u64 = 60 * 60;

const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

const REQUEST_HEADERS: [HeaderName; 11] = [
    header::ACCEPT,
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static(REQUEST_ID),
    HeaderName::from_static(TRACEPARENT),
    HeaderName::from_static(TRACESTATE),
];

const RESPONSE_HEADERS: [HeaderName; 3] = [header::ETAG, header::RETRY_AFTER, HeaderName::from_static(REQUEST_ID)];

/// Answers preflights, without a token, and says in answers who may read them. Nothing: no page may, and browsers are
/// told nothing. Credentials of the browser's own, such as cookies, are never asked for: tokens travel in a header.
pub(super) fn layer(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let layer = CorsLayer::new()
        .allow_methods(METHODS)
        .allow_headers(REQUEST_HEADERS)
        .expose_headers(RESPONSE_HEADERS)
        .max_age(Duration::from_secs(PREFLIGHT_SECONDS));
    if origins.iter().any(|origin| origin == "*") {
        return Some(layer.allow_origin(Any));
    }
    // The configuration was checked: all of them are origins.
    let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    Some(layer.allow_origin(AllowOrigin::list(origins)))
}
