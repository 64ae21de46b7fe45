//! Places: how much a request may take up besides others, until its answer is taken.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::HttpBody as _;
use axum::extract::{FromRequestParts, Request};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::OwnedSemaphorePermit;

use crate::error::ServiceError;
use crate::http::SYNC_PATH;
use crate::http::crowd::Place;
use crate::http::error::HttpError;
use crate::http::memory::{Room, SMALL_BODY_BYTES};

/// Records written as JSON take up to so many times their bytes, unless they consist of quotation marks.
const WRITTEN_IN: usize = 2;

/// What a request takes up. Clones are one; when the last is gone, its places are free.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<Option<Taken>>>);

struct Taken {
    _among_all: OwnedSemaphorePermit,
    _of_identity: Place,
    /// For the bodies of the request and of its answer.
    room: Room,
}

impl Places {
    /// Keeps these for this request, instead of those that it had.
    pub(super) fn keep(&self, among_all: OwnedSemaphorePermit, of_identity: Place, room: Room) {
        *self.lock() = Some(Taken { _among_all: among_all, _of_identity: of_identity, room });
    }

    /// Takes the room for so many bytes of bodies. Who has not signed in has none, and sends and gets nothing large.
    ///
    /// # Errors
    /// If there is not so much left. Then it is as before.
    pub(super) fn fit_room(&self, bytes: usize) -> Result<(), ServiceError> {
        self.lock().as_mut().map_or(Ok(()), |taken| taken.room.fit(bytes))
    }

    /// How many bytes of records an answer should have, so that there is room for it: some in any case.
    pub(super) fn records_bytes_max(&self) -> usize {
        self.lock().as_ref().map_or(SMALL_BODY_BYTES, |taken| taken.room.left()) / WRITTEN_IN
    }

    fn lock(&self) -> MutexGuard<'_, Option<Taken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Sync> FromRequestParts<S> for Places {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

/// Keeps room for a large answer, instead of the one for its request, until it is taken. Without room, the client is told to
/// come again.
///
/// Only where that does no harm: what has been written and cannot be sent again is answered, large or not.
pub(super) async fn keep_answers(places: Places, request: Request, next: Next) -> Response {
    let may_come_again = request.method() == Method::GET || request.uri().path() == SYNC_PATH;
    let response = next.run(request).await;
    // Streams of events have no size, and are small.
    let bytes = response.body().size_hint().exact().unwrap_or_default();
    match places.fit_room(usize::try_from(bytes).unwrap_or(usize::MAX)) {
        Err(error) if may_come_again => HttpError::from(error).into_response(),
        _ => response,
    }
}
