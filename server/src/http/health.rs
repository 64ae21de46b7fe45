//! `GET /healthz`: whether the process answers.

use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::http::{App, NO_STORE};

pub(super) fn router() -> Router<App> {
    Router::new().route("/healthz", get(async || (NO_STORE, Json(json!({"status": "ok"})))))
}
