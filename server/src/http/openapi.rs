//! `/openapi.json`, made from the handlers, and `/docs`, the same for people.

mod examples;
mod page;

use axum::Router;
use axum::body::Bytes;
use axum::http::header;
use axum::response::Html;
use axum::routing::get;
use serde_json::Value;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem, Paths};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{RefOr, Required, SecurityRequirement};
use utoipa::{IntoParams, IntoResponses, OpenApi, ToSchema};

use crate::http::App;

/// The one shape of an error, on the whole API.
#[derive(ToSchema)]
#[schema(as = Error)]
#[expect(dead_code, reason = "it describes `sync_core::protocol::ErrorBody` for the OpenAPI document")]
pub(super) struct ErrorBody {
    /// A stable code, such as `NotAuthorized`.
    #[schema(example = "InvalidParameter")]
    code: String,
    /// What the caller can do, in words.
    #[schema(example = "the record key is not valid: it has 1 to 1000 bytes of UTF-8")]
    message: String,
}

/// Which dataset.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it describes the path for the OpenAPI document; `ForDataset` reads it")]
pub(super) struct DatasetParam {
    /// The dataset: 1 to 128 letters, digits, `_`, `.`, `:` or `-`.
    #[param(example = "groceries", min_length = 1, max_length = 128, pattern = "^[a-zA-Z0-9_.:-]+$")]
    dataset: String,
}

/// What every request may be answered with.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes answers for the OpenAPI document; `http/error.rs` makes them")]
pub(super) enum Failures {
    /// The request is wrong; `message` says how.
    #[response(status = 400)]
    Invalid(ErrorBody),
    /// Sign in, or sign in again.
    #[response(status = 401)]
    NotAuthorized(ErrorBody),
    /// You may not do this.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// Too many requests: come again after `Retry-After` seconds.
    #[response(status = 429)]
    TooMany(ErrorBody),
    /// The server failed; its log says why.
    #[response(status = 500)]
    Failed(ErrorBody),
    /// It cannot be done right now, as the store or the issuer does not answer: come again after `Retry-After` seconds.
    #[response(status = 503)]
    Unavailable(ErrorBody),
    /// The server has no room to write; reading goes on. Come again after `Retry-After` seconds.
    #[response(status = 507)]
    StorageFull(ErrorBody),
}

/// What a request with a body may be answered with besides.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes answers for the OpenAPI document; `http/error.rs` makes them")]
pub(super) enum BodyFailures {
    /// The body came too slowly.
    #[response(status = 408)]
    TooSlow(ErrorBody),
    /// More than a limit allows.
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The body is of another media type.
    #[response(status = 415)]
    UnsupportedMediaType(ErrorBody),
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Syncline",
        description = "Records of datasets over plain HTTP, for back-end jobs, PHP and curl. Apps sync with \
            `POST /v1/sync` by one of the client libraries.\n\nSign in with the header `Authorization: Bearer TOKEN`: an \
            ID token of a configured issuer, or the credentials of a back-end job. A user reaches their own datasets; a \
            back-end job names the owner, `/v1/owners/{owner}/…`.\n\nEvery error is `{\"code\", \"message\"}` with a stable \
            code and a message that says what to do. Paths that there are not are answered with 404, methods that a path \
            does not have with 405 and the header `Allow`."
    ),
    tags(
        (name = "records", description = "Single records, atomic batches, listings and the feed of changes."),
        (name = "datasets", description = "Datasets as a whole."),
        (name = "events", description = "Live hints."),
        (name = "devices", description = "Devices that are registered to be woken."),
        (name = "identities", description = "Who is who."),
    )
)]
struct Document;

/// The document of the described routes, without them.
pub(super) fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    let components = document.components.get_or_insert_default();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An ID token, or the credentials of a back-end job."));
    components.add_security_scheme("token", SecurityScheme::Http(bearer.build()));
    document.security = Some(vec![SecurityRequirement::new("token", [] as [&str; 0])]);
    document
}

/// Says what the handlers do not say one by one.
pub(super) fn complete(document: &mut utoipa::openapi::OpenApi) {
    without_null(&mut document.paths);
    examples::add(&mut document.paths);
}

fn operations(paths: &mut Paths) -> impl Iterator<Item = &mut Operation> {
    paths.paths.values_mut().flat_map(operations_of)
}

fn operations_of(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

/// Takes null out of what a path, query or header may be: it is text there, or it is missing.
fn without_null(paths: &mut Paths) {
    for parameter in operations(paths).flat_map(|operation| operation.parameters.iter_mut().flatten()) {
        let RefOr::T(parameter) = parameter else { continue };
        let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema else { continue };
        let SchemaType::Array(types) = &object.schema_type else { continue };
        if let Some(only) = types.iter().find(|kind| **kind != Type::Null) {
            object.schema_type = SchemaType::Type(only.clone());
        }
    }
}

/// Says that every path is also to be had for an owner.
pub(super) fn add_owners(document: &mut utoipa::openapi::OpenApi) {
    let own = std::mem::take(&mut document.paths.paths);
    for (path, item) in own {
        let Some(rest) = path.strip_prefix("/v1") else { continue };
        document.paths.paths.insert(format!("/v1/owners/{{owner}}{rest}"), for_owner(item.clone()));
        document.paths.paths.insert(path, item);
    }
}

fn for_owner(mut item: PathItem) -> PathItem {
    for operation in operations_of(&mut item) {
        operation.operation_id = operation.operation_id.as_ref().map(|id| format!("{id}_of_owner"));
        operation.summary = operation.summary.as_ref().map(|summary| format!("{summary}, of an owner"));
        operation.parameters.get_or_insert_default().insert(0, RefOr::T(owner()));
    }
    item
}

fn owner() -> Parameter {
    let text = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).max_length(Some(128));
    ParameterBuilder::new()
        .name("owner")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("Whose: an identity, REGION:UUID."))
        .schema(Some(text.pattern(Some("^[a-zA-Z0-9_-]+:[a-zA-Z0-9_-]+$"))))
        .example(Some(Value::from("local:27f9c741-a704-8336-9b18-d7944eb9ff45")))
        .build()
}

/// The routes that serve the document.
pub(super) fn router(document: utoipa::openapi::OpenApi) -> Router<App> {
    // Answers share these bytes, since anybody may ask.
    let page = Bytes::from(page::page(&document).into_string());
    let json = Bytes::from(document.to_json().expect("the document has no unencodable parts"));
    Router::new()
        .route("/openapi.json", get(async move || ([(header::CONTENT_TYPE, "application/json")], json.clone())))
        .route("/docs", get(async move || Html(page.clone())))
}
