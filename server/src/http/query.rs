//! What a request asks for, behind the `?` of its path.

use axum::extract::{self, FromRequestParts};
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use crate::http::App;
use crate::http::error::HttpError;

/// The query, read as a handler expects it.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<App> for Query<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, HttpError> {
        // axum would put another character in the place of what is none.
        if percent_decode_str(parts.uri.query().unwrap_or_default()).decode_utf8().is_err() {
            return Err(HttpError::invalid("the query is not UTF-8 in percent encoding"));
        }
        let read = extract::Query::try_from_uri(&parts.uri);
        read.map(|extract::Query(query)| Self(query)).map_err(|error| HttpError::invalid(error.body_text()))
    }
}
