//! What errors look like, for the document. They are made where errors are made, so that they are true.

use std::sync::Arc;

use axum::http::HeaderName;
use serde_json::{Value, json};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Paths;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Response};

use crate::auth::token_error::TokenError;
use crate::error::ServiceError;
use crate::http::error::HttpError;
use crate::http::openapi::operations;

/// An error as a client sees it.
struct Example {
    status: String,
    body: Value,
    header: Option<HeaderName>,
}

/// Adds an example to each error that has none of its own, and the header that comes with it.
pub(super) fn add(paths: &mut Paths) {
    let examples: Vec<_> = errors().into_iter().map(Example::of).collect();
    for (status, response) in operations(paths).flat_map(|operation| &mut operation.responses.responses) {
        let example = examples.iter().find(|example| example.status == *status);
        if let (Some(example), RefOr::T(response)) = (example, response) {
            example.add_to(response);
        }
    }
}

/// One for each status.
fn errors() -> Vec<HttpError> {
    let of_service = [
        ServiceError::Forbidden("you may not do this with dataset `groceries` of this owner".to_owned()),
        ServiceError::NotFound("there is no record `caviar`".to_owned()),
        ServiceError::Conflict("the record `milk`: the change does not fit the type of the value".to_owned()),
        ServiceError::Gone("the dataset was deleted since this place in its feed; begin again".to_owned()),
        ServiceError::PreconditionFailed("the record `milk` does not exist".to_owned()),
        ServiceError::Refused {
            code: "TooMuchMilk".to_owned(),
            message: "At most 10 bottles can be ordered.".to_owned(),
        },
        ServiceError::TooManyRequests { retry_after_ms: 1_000 },
        ServiceError::Unavailable { retry_after_ms: 5_000 },
        ServiceError::StorageFull { retry_after_ms: 30_000, source: Arc::from(Box::from("an example")) },
    ];
    let of_http = [
        HttpError::invalid("`limit` is 1 to 2000"),
        HttpError::from(TokenError::Expired),
        HttpError::TooSlow,
        HttpError::TooLarge { bytes_max: 8 << 20 },
        HttpError::UnsupportedMediaType("the body's Content-Type must be application/msgpack or application/json"),
        HttpError::Panicked,
    ];
    of_service.into_iter().map(HttpError::from).chain(of_http).collect()
}

impl Example {
    fn of(error: HttpError) -> Self {
        let (status, body, header) = error.parts();
        let body = json!({"code": body.code, "message": body.message});
        Self { status: status.as_str().to_owned(), body, header: header.map(|(name, _)| name) }
    }

    fn add_to(&self, response: &mut Response) {
        for content in response.content.values_mut() {
            if let RefOr::T(content) = content {
                content.example.get_or_insert_with(|| self.body.clone());
            }
        }
        let Some(name) = &self.header else { return };
        let (kind, says) = match name.as_str() {
            "retry-after" => (Type::Integer, "When to come again, in seconds."),
            _ => (Type::String, "How to sign in."),
        };
        let schema = ObjectBuilder::new().schema_type(kind).build();
        let header = HeaderBuilder::new().schema(Some(schema)).description(Some(says)).build();
        response.headers.insert(name.as_str().to_owned(), RefOr::T(header));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_status_has_one_example() {
        let statuses: Vec<_> = errors().into_iter().map(|error| Example::of(error).status).collect();
        let different: BTreeSet<_> = statuses.iter().collect();
        assert_eq!(different.len(), statuses.len(), "{statuses:?}");
    }
}
