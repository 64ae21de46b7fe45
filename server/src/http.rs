//! HTTP: thin handlers that extract, call the service, and map.

mod caller;
mod connections;
mod cors;
mod crowd;
#[expect(unused_qualifications, reason = "utoipa writes them")]
mod datasets;
mod dev;
#[expect(unused_qualifications, reason = "utoipa writes them")]
mod devices;
mod error;
mod etag;
mod events;
mod health;
#[expect(unused_qualifications, reason = "utoipa writes them")]
mod identity;
mod memory;
mod message;
mod observe;
mod openapi;
mod places;
mod query;
mod rates;
#[expect(unused_qualifications, reason = "utoipa writes them")]
mod records;
mod sync;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, Method, StatusCode, Uri};
use axum::middleware;
use axum::response::IntoResponse as _;
use sync_core::model::Timestamp;
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use utoipa_axum::router::OpenApiRouter;

pub use connections::{Entrance, serve};

use crate::deps::Deps;
use crate::http::crowd::Crowd;
use crate::http::error::HttpError;
use crate::http::memory::Memory;
use crate::http::rates::Rates;

/// What handlers share.
#[derive(Clone)]
struct App {
    deps: Deps,
    /// One permit a request that is being served.
    requests: Arc<Semaphore>,
    /// For bodies that are large.
    memory: Arc<Memory>,
    /// One permit a large body that is read or written.
    processors: Arc<Semaphore>,
    /// One permit a stream of events.
    streams: Arc<Semaphore>,
    /// How often each identity may call.
    rates: Arc<Rates>,
    /// Requests of each identity.
    crowd: Arc<Crowd>,
    /// Streams of each identity.
    listeners: Arc<Crowd>,
    /// Where this server is reached: `http://HOST:PORT`.
    base: Arc<str>,
}

/// All routes, to be reached at `base` (`http://HOST:PORT`).
pub fn router(deps: Deps, base: &str) -> Router {
    let app = App::new(deps, base);
    let observed = Arc::clone(app.deps.service.metrics());
    let cors = cors::layer(&app.deps.server.cors_origins);
    let (rest, document) = rest();
    let routes =
        Router::new().merge(sync::router()).merge(health::router()).merge(rest).merge(openapi::router(document));
    let routes = if app.deps.dev_issuer.is_some() { routes.merge(dev::router()) } else { routes };
    let routes = if app.deps.server.metrics_here() { routes.merge(health::metrics_router()) } else { routes };
    let routes = routes
        .fallback(async |uri: Uri| HttpError::NotFound(uri.path().to_owned()))
        .method_not_allowed_fallback(async |method: Method| HttpError::MethodNotAllowed(method))
        .layer(middleware::from_fn(places::keep_answers))
        .with_state(app)
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            // The panic's own message went to standard error.
            tracing::error!("a request panicked");
            HttpError::Panicked.into_response()
        }));
    let routes = if let Some(cors) = cors { routes.layer(cors) } else { routes };
    routes.layer(middleware::from_fn_with_state(observed, observe::observe)).layer(CompressionLayer::new())
}

/// Records, datasets, events and devices, for the caller and for an owner whom the path names, and their description.
fn rest() -> (Router<App>, utoipa::openapi::OpenApi) {
    let routes = || {
        let records = OpenApiRouter::new().merge(records::router()).merge(datasets::router());
        records.merge(events::router()).merge(devices::router())
    };
    let own = OpenApiRouter::with_openapi(openapi::document()).nest("/v1", routes());
    let (own, mut document) = own.split_for_parts();
    openapi::add_owners(&mut document);
    let (identity, described) = OpenApiRouter::new().nest("/v1", identity::router()).split_for_parts();
    document.merge(described);
    openapi::complete(&mut document);
    let (of_owners, _) = OpenApiRouter::new().nest("/v1/owners/{owner}", routes()).split_for_parts();
    (own.merge(of_owners).merge(identity), document)
}

/// What is served on the address for metrics: numbers and health, for whoever runs the server.
pub fn metrics_router(deps: Deps) -> Router {
    Router::new().merge(health::router()).merge(health::metrics_router()).with_state(App::new(deps, ""))
}

impl App {
    fn new(deps: Deps, base: &str) -> Self {
        let requests = Arc::new(Semaphore::new(deps.server.requests_max));
        let largest_body = deps.service.settings().limits.request_bytes_max * 2;
        let memory = Arc::new(Memory::new(deps.server.bodies_bytes_max, largest_body));
        // There is a worker for each processor.
        let processors = Handle::try_current().map_or(1, |handle| handle.metrics().num_workers());
        let processors = Arc::new(Semaphore::new(processors));
        let streams = Arc::new(Semaphore::new(deps.server.streams_max));
        let rates = Arc::new(Rates::new(&deps.rates));
        let crowd = Arc::new(Crowd::new(deps.rates.at_once));
        let listeners = Arc::new(Crowd::new(deps.rates.streams_at_once));
        Self { deps, requests, memory, processors, streams, rates, crowd, listeners, base: base.into() }
    }
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

/// Where devices sync. A request may be sent again: what it pushes is known by its ids.
const SYNC_PATH: &str = "/v1/sync";

/// The status of an answer without errors.
const OK: StatusCode = StatusCode::OK;
