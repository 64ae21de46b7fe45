//! For whoever runs the server: `GET /healthz`, whether the process answers; `GET /readyz`, whether requests should be
//! sent to it; `GET /metrics`, its numbers.

use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::causes::with_causes;
use crate::http::{App, NO_STORE};
use crate::metrics;

/// How long the store has to answer.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/healthz", get(async || (NO_STORE, Json(json!({"status": "ok"})))))
        .route("/readyz", get(ready))
}

pub(super) fn metrics_router() -> Router<App> {
    Router::new().route("/metrics", get(print))
}

async fn ready(State(app): State<App>) -> Response {
    if app.deps.stopping.has_begun() {
        return not_ready("the server is stopping");
    }
    match tokio::time::timeout(STORE_TIMEOUT, app.deps.service.check_store()).await {
        Ok(Ok(())) => (NO_STORE, Json(json!({"status": "ready"}))).into_response(),
        Ok(Err(error)) => {
            tracing::warn!(error = with_causes(&error), "not ready: the store fails");
            not_ready("the store fails")
        }
        Err(_) => not_ready("the store does not answer"),
    }
}

fn not_ready(reason: &str) -> Response {
    let body = Json(json!({"status": "not ready", "reason": reason}));
    (StatusCode::SERVICE_UNAVAILABLE, NO_STORE, body).into_response()
}

async fn print(State(app): State<App>) -> Response {
    let content_type = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    (NO_STORE, content_type, app.deps.service.metrics().to_text()).into_response()
}
