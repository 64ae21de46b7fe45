//! `POST /v1/sync`.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::post;
use sync_core::protocol::SyncRequest;

use crate::auth::rules::SignedIn;
use crate::http::App;
use crate::http::error::HttpError;
use crate::http::message;

pub(super) fn router() -> Router<App> {
    Router::new().route("/v1/sync", post(sync))
}

async fn sync(
    State(app): State<App>,
    SignedIn { caller, expires_at: _ }: SignedIn,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, HttpError> {
    let formats = message::formats(&headers)?;
    let received = message::read(&app, body).await?;
    let request: SyncRequest = message::parse(&app, &headers, received, formats.request).await?;
    let response = app.deps.service.sync(&caller, request).await?;
    Ok(message::respond(&response, formats.response))
}
