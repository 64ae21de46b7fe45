//! What is noted of each request: its id and trace in every log line, its route and time in the metrics.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;

use crate::clock::SystemRandom;
use crate::metrics::Metrics;
use crate::trace::{self, REQUEST_ID, RequestId, TRACEPARENT, TRACESTATE, TraceContext};

/// The route of what was not found, in logs and metrics. Paths are never noted: they may name records.
const NO_ROUTE: &str = "none";

/// Serves a request under its id and trace.
pub(super) async fn observe(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = known(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let id = RequestId::choose(text(request.headers(), REQUEST_ID), &SystemRandom);
    let (parent, state) = (text(request.headers(), TRACEPARENT), text(request.headers(), TRACESTATE));
    let context = TraceContext::begin(parent, state, &SystemRandom);
    // Of the highest level, so that the ids are there whatever is logged.
    let span = tracing::error_span!("request", request.id = %id, trace.id = context.trace_id(),
        http.method = method, http.route = route);
    let serve = async {
        let mut response = trace::within(context, next.run(request)).await;
        let status = response.status().as_u16();
        tracing::debug!(http.status = status, "answered a request");
        metrics.answered(method, route, status, started.elapsed());
        if let Ok(id) = HeaderValue::from_str(id.as_str()) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        response
    };
    serve.instrument(span).await
}

/// The one value of a header. Several are none: nobody knows which one counts.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none());
    value.and_then(|value| value.to_str().ok())
}

/// The method, one of few.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
