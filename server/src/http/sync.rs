//! `POST /v1/sync`.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::post;
use sync_core::model::Record;
use sync_core::protocol::SyncRequest;

use crate::auth::rules::SignedIn;
use crate::http::error::HttpError;
use crate::http::places::Places;
use crate::http::{App, SYNC_PATH, message};

pub(super) fn router() -> Router<App> {
    Router::new().route(SYNC_PATH, post(sync))
}

async fn sync(
    State(app): State<App>,
    SignedIn { caller, expires_at: _ }: SignedIn,
    places: Places,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, HttpError> {
    let formats = message::formats(&headers)?;
    let received = message::read(&app, places.clone(), body).await?;
    let request: SyncRequest = message::parse(&app, &headers, received, formats.request).await?;
    let mut begun = app.deps.service.begin_sync(&caller, request).await?;
    let _turn = match app.memory.turn_now() {
        Some(turn) => Some(turn),
        None => {
            begun.forget_reads();
            app.memory.turn().await
        }
    };
    let response = app.deps.service.finish_sync(begun, places.records_bytes_max()).await?;
    let pages = response.datasets.iter().filter_map(|dataset| dataset.page.as_ref());
    let bytes = pages.flat_map(|page| &page.records).map(Record::bytes).sum();
    message::respond(&app, response, bytes, formats.response).await
}
