//! HTTP: thin handlers that extract, call the service, and map.

mod connections;
mod dev;
mod error;
mod health;
mod message;
mod sync;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;

pub use connections::serve;

use crate::deps::Deps;
use crate::http::error::HttpError;

/// What handlers share.
#[derive(Clone)]
struct App {
    deps: Deps,
    /// One permit a request that is being served.
    requests: Arc<Semaphore>,
    /// Where this server is reached: `http://HOST:PORT`.
    base: Arc<str>,
}

/// All routes, to be reached at `base` (`http://HOST:PORT`).
pub fn router(deps: Deps, base: &str) -> Router {
    let requests = Arc::new(Semaphore::new(deps.server.requests_max));
    let app = App { deps, requests, base: base.into() };
    let routes = Router::new().merge(sync::router()).merge(health::router());
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

/// One line a request.
async fn log(request: axum::extract::Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    tracing::debug!(http.method = %method, http.path = path, http.status = response.status().as_u16(), "answered a request");
    response
}

/// Says that an answer is for this request only.
const NO_STORE: [(HeaderName, &str); 1] = [(axum::http::header::CACHE_CONTROL, "no-store")];

/// The status of an answer without errors.
const OK: StatusCode = StatusCode::OK;
