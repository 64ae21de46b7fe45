//! The public documents of the dev issuer.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;

use crate::http::App;

pub(super) fn router() -> Router<App> {
    Router::new().route("/.well-known/openid-configuration", get(discovery)).route("/.well-known/jwks.json", get(keys))
}

async fn discovery(State(app): State<App>) -> Json<Option<Value>> {
    Json(app.deps.dev_issuer.map(|issuer| issuer.discovery(&app.base)))
}

async fn keys(State(app): State<App>) -> Json<Option<Value>> {
    Json(app.deps.dev_issuer.and_then(|issuer| serde_json::to_value(issuer.keys()).ok()))
}
