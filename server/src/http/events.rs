//! `GET /v1/events`: a stream of server-sent events that says which datasets have moved on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, StreamExt as _, stream};
use serde::Serialize;
use sync_core::model::Owner;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::ServiceError;
use crate::http::App;
use crate::http::caller::ForOwner;
use crate::http::error::HttpError;
use crate::http::openapi::{ErrorBody, Failures};
use crate::http::places::Places;
use crate::service::hints::{Heard, Hint, HintId, Subscription};

/// When to come again if too many are listening.
const RETRY_AFTER_MS: u64 = 10_000;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(events))
}

/// The data of the event `changed`.
#[derive(Serialize, ToSchema)]
struct HintBody {
    /// Whose dataset.
    owner: String,
    /// Which dataset.
    dataset: String,
    /// The epoch that it is in.
    epoch: String,
    /// The count that it has reached.
    sync_count: u64,
}

/// Listen for changes
///
/// Server-sent events. `ready` comes first: what was written before it is to be had by a sync. `changed` names a dataset
/// that has moved on, `{"owner", "dataset", "epoch", "sync_count"}`. `behind` means that hints were missed: sync all
/// datasets. A stream is resumed with `Last-Event-ID`; hints are not kept for ever, and then `behind` comes. A comment
/// comes now and then, so that a dead connection is noticed. The stream ends when the token expires.
#[utoipa::path(get, path = "/events", operation_id = "listen", tag = "events",
    params(("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was heard.")),
    responses((status = 200, body = HintBody, content_type = "text/event-stream", description = "The stream.",
            example = "event: changed\nid: 9b1c5ad0f3e27745-12\ndata: {\"owner\":\"local:27f9c741-a704-8336-9b18-d7944eb9ff45\",\"dataset\":\"groceries\",\"epoch\":\"5f0c1d4be5a04e0c9f0a3f6d2b1c7e88\",\"sync_count\":12}\n\n"), Failures,
        (status = 503, body = ErrorBody, description = "The server is stopping, or cannot tell now whose the token is.")))]
async fn events(
    State(app): State<App>,
    ForOwner { caller, owner, expires_at }: ForOwner,
    places: Places,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    app.deps.service.allow_to_see(&caller, &owner)?;
    let too_many = |_| ServiceError::TooManyRequests { retry_after_ms: RETRY_AFTER_MS };
    let among_all = Arc::clone(&app.streams).try_acquire_owned().map_err(too_many)?;
    let of_identity = app.listeners.enter(&caller)?;
    // A stream has its place among streams, and none among requests any more.
    places.keep(among_all, of_identity, app.memory.room(&caller));
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    // An id that is not one of ours is of a run that is not known: then everything is to be pulled.
    let last = last.map(|id| HintId::parse(id).unwrap_or(HintId::UNKNOWN));
    let subscription = app.deps.service.hints().subscribe(&owner, last);
    let left = expires_at.map_or(u64::MAX >> 16, |at| at.ms_since(app.deps.clock.now()));
    let ready = Event::default().event("ready").id(subscription.id().to_string()).data("{}");
    let first = stream::iter([Ok(ready)]);
    let rest = hints(subscription).take_until(tokio::time::sleep(Duration::from_millis(left)));
    let heartbeat = KeepAlive::new().interval(app.deps.server.heartbeat.get());
    Ok(Sse::new(first.chain(rest)).keep_alive(heartbeat).into_response())
}

fn hints(subscription: Subscription) -> impl Stream<Item = Result<Event, Infallible>> {
    let next = async |mut subscription: Subscription| {
        let heard = subscription.next().await?;
        let id = subscription.id().to_string();
        let events = match heard {
            Heard::Behind => vec![Event::default().event("behind").id(id).data("{}")],
            Heard::Hints(hints) => {
                let last = hints.len() - 1;
                let event = |(at, hint)| {
                    let event = changed(subscription.owner(), hint);
                    // Cut off in between, the stream is resumed before all of them.
                    if at == last { event.id(id.clone()) } else { event }
                };
                hints.into_iter().enumerate().map(event).collect()
            }
        };
        Some((stream::iter(events.into_iter().map(Ok)), subscription))
    };
    stream::unfold(subscription, next).flatten()
}

fn changed(owner: &Owner, hint: Hint) -> Event {
    let Hint { dataset, epoch, sync_count } = hint;
    let body = HintBody {
        owner: owner.as_str().to_owned(),
        dataset: dataset.as_str().to_owned(),
        epoch: epoch.to_string(),
        sync_count: sync_count.0,
    };
    let json = serde_json::to_string(&body).expect("hints have no unencodable parts");
    Event::default().event("changed").data(json)
}
