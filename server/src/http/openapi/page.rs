//! The document as a page. It asks nobody for anything: no scripts, fonts or pictures.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::{OpenApi, RefOr, Required};

/// The page. A path that is also to be had for an owner is shown once, with both.
pub(super) fn page(document: &OpenApi) -> Markup {
    let of_owner = |path: &str| document.paths.paths.keys().find(|other| is_of_owner(other, path));
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
                        a href=(format!("#{}", anchor(operation))) { (method_and_path(method, path)) }
                    }
                }
                main {
                    @for (path, method, operation) in operations(document) {
                        (section(&[Some(path), of_owner(path).map(|path| &**path)], method, operation))
                    }
                }
            }
        }
    }
}

fn section(paths: &[Option<&str>], method: &str, operation: &Operation) -> Markup {
    html! {
        section id=(anchor(operation)) {
            h2 { (operation.summary.as_deref().unwrap_or_default()) }
            @for path in paths.iter().flatten() {
                p.path { (method_and_path(method, path)) }
            }
            (paragraphs(operation.description.as_deref()))
            @if let Some(parameters) = &operation.parameters {
                table.parameters {
                    @for parameter in parameters.iter().filter_map(written_out) { (row(parameter)) }
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
                        tr { td { code { (status) } } td { (with_code(&response.description)) } }
                    }
                }
            }
        }
    }
}

fn row(parameter: &Parameter) -> Markup {
    html! {
        tr {
            td { code { (parameter.name) } }
            td.place { (place(&parameter.parameter_in)) @if parameter.required == Required::True { ", required" } }
            td { (with_code(parameter.description.as_deref().unwrap_or_default())) }
        }
    }
}

fn method_and_path(method: &str, path: &str) -> Markup {
    html! { span.method.(method) { (method) } code { (path) } }
}

/// All but those that are there a second time, for an owner.
fn operations(document: &OpenApi) -> impl Iterator<Item = (&str, &'static str, &Operation)> {
    let all = document.paths.paths.iter().filter(|(path, _)| !path.starts_with(OF_OWNER));
    all.flat_map(|(path, item)| {
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

/// What the paths begin with that name an owner.
const OF_OWNER: &str = "/v1/owners/{owner}/";

fn is_of_owner(other: &str, path: &str) -> bool {
    other.strip_prefix(OF_OWNER).is_some_and(|rest| path.strip_prefix("/v1/") == Some(rest))
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

fn paragraphs(text: Option<&str>) -> Markup {
    html! {
        @for paragraph in text.unwrap_or_default().split("\n\n").filter(|text| !text.is_empty()) {
            p { (with_code(paragraph)) }
        }
    }
}

/// Text with `code` in it.
fn with_code(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn pretty(example: &Value) -> String {
    serde_json::to_string_pretty(example).unwrap_or_default()
}

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --link: #2f62c8;
    --get: #2b7a4b; --put: #8f5f00; --post: #2f62c8; --delete: #b3372f; }
@media (prefers-color-scheme: dark) {
    :root { --link: #8ab0ff; --get: #6fcf97; --put: #e5b567; --post: #8ab0ff; --delete: #ff8a80; }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 58rem; margin: 0 auto; padding: 1.5rem; }
h1 { margin: 0; } h2 { margin: 0 0 .25rem; font-size: 1.2rem; }
a { color: var(--link); }
.version { margin: 0 0 1rem; opacity: .7; }
nav { columns: 22rem; margin: 1.5rem 0; padding: 1rem; background: var(--soft); border-radius: .5rem; }
nav a { color: inherit; font-size: 14px; line-height: 1.9; text-decoration: none; break-inside: avoid; }
nav a:hover { text-decoration: underline; }
nav a, .path { display: flex; align-items: baseline; gap: .5em; }
.path { margin: .25rem 0; }
section { border-top: 1px solid var(--line); padding: 1.25rem 0; scroll-margin-top: .5rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
pre { background: var(--soft); padding: .75rem; border-radius: .5rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .75rem 0; }
td { border-top: 1px solid var(--line); padding: .3rem .75rem .3rem 0; vertical-align: top; }
td:first-child { white-space: nowrap; width: 4rem; }
.parameters td:first-child { width: 9rem; } .parameters .place { width: 11.5rem; opacity: .7; }
.method { flex: none; width: 4.5em; font: 600 12px ui-monospace, monospace; text-transform: uppercase; }
.get { color: var(--get); } .put, .patch { color: var(--put); } .post { color: var(--post); } .delete { color: var(--delete); }
@media (max-width: 40rem) {
    body { padding: 1rem; }
    nav { padding: .75rem; } nav a { font-size: 13px; }
    .parameters tr { display: block; border-top: 1px solid var(--line); padding: .3rem 0; }
    .parameters td { display: inline; border: 0; padding: 0 .5rem 0 0; }
    .parameters td:last-child { display: block; }
}
";
