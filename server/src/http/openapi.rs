//! `/openapi.json`, made from the handlers, and `/docs`, the same for people.

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::response::Html;
use axum::routing::get;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
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
    /// You may not do this with this dataset.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// Too many requests: come again after `Retry-After` seconds.
    #[response(status = 429)]
    TooMany(ErrorBody),
    /// It cannot be told now whose the token is: come again after `Retry-After` seconds.
    #[response(status = 503)]
    Unavailable(ErrorBody),
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
            back-end job names the owner, `/v1/owners/{owner}/…`."
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

/// Takes null out of what a path, query or header may be: it is text there, or it is missing.
pub(super) fn without_null(document: &mut utoipa::openapi::OpenApi) {
    let operations =
        document.paths.paths.values_mut().flat_map(|PathItem { get, put, post, delete, patch, .. }| {
            [get, put, post, delete, patch].into_iter().flatten()
        });
    for parameter in operations.flat_map(|operation| operation.parameters.iter_mut().flatten()) {
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
    let PathItem { get, put, post, delete, patch, .. } = &mut item;
    for operation in [get, put, post, delete, patch].into_iter().flatten() {
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
        .description(Some("Whose datasets: an identity, REGION:UUID."))
        .schema(Some(text.pattern(Some("^[a-zA-Z0-9_-]+:[a-zA-Z0-9_-]+$"))))
        .example(Some(Value::from("local:27f9c741-a704-8336-9b18-d7944eb9ff45")))
        .build()
}

/// The routes that serve the document.
pub(super) fn router(document: utoipa::openapi::OpenApi) -> Router<App> {
    let page: Arc<str> = page(&document).into_string().into();
    let json: Arc<str> = document.to_json().expect("the document has no unencodable parts").into();
    Router::new()
        .route("/openapi.json", get(async move || ([(header::CONTENT_TYPE, "application/json")], json.to_string())))
        .route("/docs", get(async move || Html(page.to_string())))
}

/// The document as a page. It asks nobody for anything: no scripts, fonts or pictures.
fn page(document: &utoipa::openapi::OpenApi) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (document.info.title) " API" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (document.info.title) }
                    p.version { "version " (document.info.version) " · " a href="openapi.json" { "openapi.json" } }
                    (paragraphs(document.info.description.as_deref()))
                }
                nav {
                    @for (path, method, operation) in operations(document) {
                        a href=(format!("#{}", anchor(operation))) { span.method.(method) { (method) } " " (path) }
                    }
                }
                main {
                    @for (path, method, operation) in operations(document) { (section(path, method, operation)) }
                }
            }
        }
    }
}

fn section(path: &str, method: &str, operation: &Operation) -> Markup {
    html! {
        section id=(anchor(operation)) {
            h2 { (operation.summary.as_deref().unwrap_or(path)) }
            p.path { span.method.(method) { (method) } " " code { (path) } }
            (paragraphs(operation.description.as_deref()))
            @if let Some(parameters) = &operation.parameters {
                table {
                    @for parameter in parameters.iter().filter_map(written_out) {
                        tr {
                            td { code { (parameter.name) } }
                            td { (place(&parameter.parameter_in)) @if parameter.required == Required::True { ", required" } }
                            td { (parameter.description.as_deref().unwrap_or_default()) }
                        }
                    }
                }
            }
            @if let Some(body) = operation.request_body.as_ref().and_then(written_out) {
                @for (media_type, content) in &body.content {
                    p { "Body: " code { (media_type) } }
                    @if let Some(example) = written_out(content).and_then(|content| content.example.as_ref()) { pre { (pretty(example)) } }
                }
            }
            table.answers {
                @for (status, response) in &operation.responses.responses {
                    @if let Some(response) = written_out(response) {
                        tr { td { code { (status) } } td { (response.description) } }
                    }
                }
            }
        }
    }
}

fn operations(document: &utoipa::openapi::OpenApi) -> impl Iterator<Item = (&str, &'static str, &Operation)> {
    document.paths.paths.iter().flat_map(|(path, item)| {
        let all = [
            ("get", &item.get),
            ("put", &item.put),
            ("patch", &item.patch),
            ("post", &item.post),
            ("delete", &item.delete),
        ];
        all.into_iter().filter_map(move |(method, operation)| Some((path.as_str(), method, operation.as_ref()?)))
    })
}

/// What the handlers describe is written out where it stands; utoipa makes no references to it.
fn written_out<T>(part: &RefOr<T>) -> Option<&T> {
    match part {
        RefOr::T(part) => Some(part),
        RefOr::Ref(_) => None,
    }
}

fn anchor(operation: &Operation) -> &str {
    operation.operation_id.as_deref().unwrap_or_default()
}

fn place(place: &ParameterIn) -> &'static str {
    match place {
        ParameterIn::Query | ParameterIn::QueryString => "in the query",
        ParameterIn::Path => "in the path",
        ParameterIn::Header => "header",
        ParameterIn::Cookie => "cookie",
    }
}

/// Text with `code` in it.
fn paragraphs(text: Option<&str>) -> Markup {
    html! {
        @for paragraph in text.unwrap_or_default().split("\n\n").filter(|text| !text.is_empty()) {
            p {
                @for (at, part) in paragraph.split('`').enumerate() {
                    @if at % 2 == 1 { code { (part) } } @else { (part) }
                }
            }
        }
    }
}

fn pretty(example: &Value) -> String {
    serde_json::to_string_pretty(example).unwrap_or_default()
}

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 58rem; margin: 0 auto; padding: 1.5rem; }
h1 { margin: 0; } h2 { margin: 0 0 .25rem; font-size: 1.2rem; }
.version { margin: 0 0 1rem; opacity: .7; }
nav { columns: 22rem; margin: 1.5rem 0; padding: 1rem; background: var(--soft); border-radius: .5rem; }
nav a { display: block; text-decoration: none; color: inherit; font: 13px/1.9 ui-monospace, monospace; overflow-wrap: anywhere; }
nav a:hover { text-decoration: underline; }
section { border-top: 1px solid var(--line); padding: 1.25rem 0; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
pre { background: var(--soft); padding: .75rem; border-radius: .5rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
td { border-top: 1px solid var(--line); padding: .3rem .75rem .3rem 0; vertical-align: top; }
td:first-child { white-space: nowrap; }
.answers td:first-child { width: 4rem; }
.method { display: inline-block; min-width: 4.2em; font: 600 12px ui-monospace, monospace; text-transform: uppercase; }
.get { color: #2b7a4b; } .put, .patch { color: #a06a00; } .post { color: #2f62c8; } .delete { color: #b3372f; }
";
