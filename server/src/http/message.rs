//! Messages in requests and answers: formats, compression, limits.

use std::io::Read as _;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use flate2::read::MultiGzDecoder;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sync_core::protocol::{Format, decode, encode};

use crate::http::error::HttpError;
use crate::http::{App, NO_STORE, OK};

/// The formats of a request and of its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Formats {
    pub(super) request: Format,
    pub(super) response: Format,
}

/// From here on decoding is work for a thread of its own, so that other requests go on meanwhile.
const DECODE_BYTES_INLINE: usize = 64 << 10;

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

/// Reads the body, within a time and a size.
pub(super) async fn read(app: &App, body: Body) -> Result<Bytes, HttpError> {
    let bytes_max = bytes_max(app);
    let timeout = app.deps.server.body_timeout.get();
    let collected = tokio::time::timeout(timeout, Limited::new(body, bytes_max).collect()).await;
    match collected.map_err(|_| HttpError::TooSlow)? {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(HttpError::TooLarge { bytes_max }),
        Err(_) => Err(HttpError::InvalidBody("the body breaks off")),
    }
}

/// A whole body, by its `Content-Type`.
pub(super) async fn read_all<T: DeserializeOwned + Send + 'static>(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, HttpError> {
    let formats = formats(headers)?;
    let bytes = read(app, body).await?;
    parse(app, headers, bytes, formats.request).await
}

/// Decompresses and decodes a body.
pub(super) async fn parse<T: DeserializeOwned + Send + 'static>(
    app: &App,
    headers: &HeaderMap,
    bytes: Bytes,
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
    let is_small = !is_gzip && bytes.len() <= DECODE_BYTES_INLINE;
    let parse = move || {
        let bytes = if is_gzip { decompress(&bytes, bytes_max)?.into() } else { bytes };
        decode(&bytes, format).map_err(HttpError::InvalidMessage)
    };
    if is_small {
        return parse();
    }
    tokio::task::spawn_blocking(parse).await.unwrap_or(Err(HttpError::Panicked))
}

/// Writes a message.
pub(super) fn respond<T: Serialize>(message: &T, format: Format) -> Response {
    let content_type = [(header::CONTENT_TYPE, format.media_type())];
    (OK, NO_STORE, content_type, encode(message, format)).into_response()
}

fn bytes_max(app: &App) -> usize {
    app.deps.service.settings().limits.request_bytes_max
}

/// Stops at the limit, however much more there would be.
fn decompress(bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, HttpError> {
    let mut decompressed = Vec::new();
    let limit = (bytes_max as u64).saturating_add(1);
    let read = MultiGzDecoder::new(bytes).take(limit).read_to_end(&mut decompressed);
    read.map_err(|_| HttpError::InvalidBody("the body is not what gzip writes"))?;
    if decompressed.len() > bytes_max {
        return Err(HttpError::TooLarge { bytes_max });
    }
    Ok(decompressed)
}
