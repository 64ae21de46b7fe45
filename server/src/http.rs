//! HTTP: thin handlers that extract, call the service, and map.

mod caller;
mod connections;
#[expect(unused_qualifications, reason = "utoipa writes them")]
mod datasets;
mod dev;
mod error;
mod events;
mod health;
mod message;
mod openapi;
#[expect(unused_qualifications, reason = "utoipa writes them")]
mod records;
mod sync;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use sync_core::model::Timestamp;
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use utoipa_axum::router::OpenApiRouter;

pub use connections::serve;

use crate::deps::Deps;
use crate::http::error::HttpError;

/// What handlers share.
#[derive(Clone)]
struct App {
    deps: Deps,
    /// One permit a request that is being served.
    requests: Arc<Semaphore>,
    /// One permit a stream of events.
    streams: Arc<Semaphore>,
    /// Where this server is reached: `http://HOST:PORT`.
    base: Arc<str>,
}

/// All routes, to be reached at `base` (`http://HOST:PORT`).
pub fn router(deps: Deps, base: &str) -> Router {
    let requests = Arc::new(Semaphore::new(deps.server.requests_max));
    let streams = Arc::new(Semaphore::new(deps.server.streams_max));
    let app = App { deps, requests, streams, base: base.into() };
    let (rest, document) = rest();
    let routes =
        Router::new().merge(sync::router()).merge(health::router()).merge(rest).merge(openapi::router(document));
    let routes = if app.deps.dev_issuer.is_some() { routes.merge(dev::router()) } else { routes };
    routes
        .fallback(async |uri: Uri| HttpError::NotFound(uri.path().to_owned()))
        .method_not_allowed_fallback(async |method: Method| HttpError::MethodNotAllowed(method))
        .with_state(app)
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            // The panic's own message went to standard error.
            tracing::error!("a request panicked");
            HttpError::Panicked.into_response()
        }))
        .layer(middleware::from_fn(log))
        .layer(CompressionLayer::new())
}

/// Records, datasets and events, for the caller and for an owner whom the path names, and their description.
fn rest() -> (Router<App>, utoipa::openapi::OpenApi) {
    let routes = || OpenApiRouter::new().merge(records::router()).merge(datasets::router()).merge(events::router());
    let (own, mut document) = OpenApiRouter::with_openapi(openapi::document()).nest("/v1", routes()).split_for_parts();
    openapi::add_owners(&mut document);
    let (of_owners, _) = OpenApiRouter::new().nest("/v1/owners/{owner}", routes()).split_for_parts();
    (own.merge(of_owners), document)
}

/// One line a request.
async fn log(request: axum::extract::Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    tracing::debug!(http.method = %method, http.path = path, http.status = response.status().as_u16(), "answered a request");
    response
}

/// A time as RFC 3339 writes it, in UTC, to the millisecond.
fn rfc3339(at: Timestamp) -> String {
    let nanos = i128::from(at.0) * 1_000_000;
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"))
        .unwrap_or_default()
}

/// Says that an answer is for this request only.
const NO_STORE: [(HeaderName, &str); 1] = [(axum::http::header::CACHE_CONTROL, "no-store")];

/// The status of an answer without errors.
const OK: StatusCode = StatusCode::OK;
