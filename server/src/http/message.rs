//! Messages in requests and answers: formats, compression, limits.

use std::io::Read as _;
use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sync_core::protocol::{Format, decode, encode};

use crate::http::error::HttpError;
use crate::http::memory::SMALL_BODY_BYTES;
use crate::http::places::Places;
use crate::http::{App, NO_STORE, OK};

/// The formats of a request and of its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Formats {
    pub(super) request: Format,
    pub(super) response: Format,
}

/// A body that was read, and where it takes up room.
pub(super) struct Received {
    bytes: Vec<u8>,
    places: Places,
}

/// By `Content-Type` and `Accept`.
pub(super) fn formats(headers: &HeaderMap) -> Result<Formats, HttpError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let request = text(header::CONTENT_TYPE).and_then(Format::from_media_type);
    let request = request.ok_or(HttpError::UnsupportedMediaType(
        "the body's Content-Type must be application/msgpack or application/json",
    ))?;
    let accepted = text(header::ACCEPT).unwrap_or_default().split(',').find_map(Format::from_media_type);
    Ok(Formats { request, response: accepted.unwrap_or(request) })
}

/// Reads the body, within a time, a size, and what all bodies may take up together.
pub(super) async fn read(app: &App, places: Places, body: Body) -> Result<Received, HttpError> {
    let timeout = app.deps.server.body_timeout.get();
    tokio::time::timeout(timeout, read_into(places, body, bytes_max(app))).await.map_err(|_| HttpError::TooSlow)?
}

async fn read_into(places: Places, mut body: Body, bytes_max: usize) -> Result<Received, HttpError> {
    let mut bytes = Vec::new();
    let mut received = 0_usize;
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    while announced.max(received) <= bytes_max.saturating_mul(TAKEN_UNREAD)
        && let Some(frame) = body.frame().await
    {
        let Ok(data) = frame.map_err(|_| HttpError::InvalidBody("the body breaks off"))?.into_data() else { continue };
        received = received.saturating_add(data.len());
        if received > bytes_max {
            bytes = Vec::new();
        } else {
            places.fit_room(received)?;
            bytes.extend_from_slice(&data);
        }
    }
    if announced.max(received) > bytes_max {
        Err(HttpError::TooLarge { bytes_max })
    } else {
        Ok(Received { bytes, places })
    }
}

/// Clients send all of a body before they look at the answer, and one that cannot does not learn why. So a body that is
/// too large is taken nevertheless, up to so many times the limit, and thrown away.
const TAKEN_UNREAD: usize = 4;

/// A whole body, by its `Content-Type`.
pub(super) async fn read_all<T: DeserializeOwned + Send + 'static>(
    app: &App,
    places: Places,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, HttpError> {
    let formats = formats(headers)?;
    let received = read(app, places, body).await?;
    parse(app, headers, received, formats.request).await
}

/// Decompresses and decodes a body.
pub(super) async fn parse<T: DeserializeOwned + Send + 'static>(
    app: &App,
    headers: &HeaderMap,
    received: Received,
    format: Format,
) -> Result<T, HttpError> {
    let bytes_max = bytes_max(app);
    let is_gzip = match headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase()) {
        None => false,
        Some(encoding) => match &*encoding {
            b"identity" => false,
            b"gzip" | b"x-gzip" => true,
            _ => return Err(HttpError::UnsupportedMediaType("the body's Content-Encoding is gzip, or there is none")),
        },
    };
    let is_small = !is_gzip && received.bytes.len() <= SMALL_BODY_BYTES;
    let parse = move || {
        let received = if is_gzip { decompress(received, bytes_max)? } else { received };
        decode(&received.bytes, format).map_err(HttpError::InvalidMessage)
    };
    if is_small { parse() } else { aside(app, parse).await? }
}

/// Writes a message about so many bytes of records.
pub(super) async fn respond<T: Serialize + Send + 'static>(
    app: &App,
    message: T,
    bytes: usize,
    format: Format,
) -> Result<Response, HttpError> {
    let encode = move || encode(&message, format);
    let body = if bytes <= SMALL_BODY_BYTES { encode() } else { aside(app, encode).await? };
    Ok((OK, NO_STORE, [(header::CONTENT_TYPE, format.media_type())], body).into_response())
}

/// Does what takes a processor for milliseconds: not on the threads that serve everybody, and only as much at once as
/// there are processors.
async fn aside<T: Send + 'static>(app: &App, work: impl FnOnce() -> T + Send + 'static) -> Result<T, HttpError> {
    let processor = Arc::clone(&app.processors).acquire_owned().await;
    let work = move || {
        // Kept to the end of the work, also if the client goes and nobody waits for it any more.
        let _processor = processor;
        work()
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| HttpError::Panicked)
}

fn bytes_max(app: &App) -> usize {
    app.deps.service.settings().limits.request_bytes_max
}

/// Stops at the limit, however much more there would be.
fn decompress(received: Received, bytes_max: usize) -> Result<Received, HttpError> {
    let Received { bytes: compressed, places } = received;
    let mut reader = MultiGzDecoder::new(&*compressed);
    let mut bytes = Vec::new();
    loop {
        let read = reader.by_ref().take(SMALL_BODY_BYTES as u64).read_to_end(&mut bytes);
        if read.map_err(|_| HttpError::InvalidBody("the body is not what gzip writes"))? == 0 {
            return Ok(Received { bytes, places });
        }
        if bytes.len() > bytes_max {
            return Err(HttpError::TooLarge { bytes_max });
        }
        places.fit_room(compressed.len() + bytes.len())?;
    }
}

impl Received {
    /// As it came.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use sync_core::model::Owner;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::auth::policy::Caller;
    use crate::error::ServiceError;
    use crate::http::crowd::Crowd;
    use crate::http::memory::Memory;

    #[tokio::test]
    async fn large_bodies_share_their_memory_until_they_are_answered_and_keep_no_small_ones_out() {
        const LARGE: usize = SMALL_BODY_BYTES + 100;
        let caller = Caller::Identity(Owner::parse("local:ada").unwrap());
        let (memory, crowd, requests) = (Memory::new(250, 250), Crowd::new(0), Arc::new(Semaphore::new(9)));
        let read = async |bytes: usize| {
            let places = Places::default();
            let among_all = Arc::clone(&requests).try_acquire_owned().unwrap();
            places.keep(among_all, crowd.enter(&caller).unwrap(), memory.room(&caller));
            read_into(places, Body::from(vec![b' '; bytes]), LARGE).await
        };
        let refused = |result| matches!(result, Err(HttpError::Service(ServiceError::TooManyRequests { .. })));
        let first = read(LARGE).await.unwrap();
        let second = read(LARGE).await.unwrap();
        assert!(refused(read(LARGE).await));
        assert!(read(LARGE - 50).await.is_ok() && read(SMALL_BODY_BYTES).await.is_ok());
        assert!(matches!(read(LARGE + 1).await, Err(HttpError::TooLarge { .. })));
        drop(first);
        assert!(read(LARGE).await.is_ok());
        drop(second);
        // All of it is free again.
        assert!(memory.room(&caller).fit(SMALL_BODY_BYTES + 250).is_ok());
    }
}
