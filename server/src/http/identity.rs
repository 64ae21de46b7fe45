//! Who one is, or who somebody is whom a back-end job acts for; and several logins that lead to one identity.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::policy::Caller;
use crate::auth::rules::SignedIn;
use crate::auth::token_error::TokenError;
use crate::error::ServiceError;
use crate::http::error::HttpError;
use crate::http::openapi::{BodyFailures, ErrorBody, Failures};
use crate::http::places::Places;
use crate::http::query::Query;
use crate::http::{App, NO_STORE, message};
use crate::store::directory::{Linked, Renamed};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(identity)).routes(routes!(link))
}

/// An identity.
#[derive(Serialize, ToSchema)]
struct IdentityBody {
    /// The owner in paths: REGION:UUID.
    #[schema(example = "local:27f9c741-a704-8336-9b18-d7944eb9ff45")]
    identity: String,
}

/// Whose identity a back-end job asks for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LoginQuery {
    /// `iss` of the user's ID tokens. For back-end jobs.
    issuer: Option<String>,
    /// `sub` of the user's ID tokens. For back-end jobs.
    subject: Option<String>,
}

/// Say who one is
///
/// A user learns their own identity. A back-end job names the login of a user, whether or not they ever came by.
#[utoipa::path(get, path = "/identity", tag = "identities", params(LoginQuery),
    responses((status = 200, body = IdentityBody, description = "The identity."), Failures,
        (status = 403, body = ErrorBody, description = "A user asks for another one.",
            example = json!({"code": "NotAuthorized", "message": "only back-end jobs may ask who others are"}))))]
async fn identity(
    State(app): State<App>,
    SignedIn { caller, .. }: SignedIn,
    Query(LoginQuery { issuer, subject }): Query<LoginQuery>,
) -> Result<Response, HttpError> {
    let identity = match (caller, issuer, subject) {
        (Caller::Identity(identity), None, None) => identity,
        (Caller::Service { .. }, Some(issuer), Some(subject)) => {
            app.deps.service.resolve(&app.deps.verifier.identity(&issuer, &subject)).await?
        }
        (Caller::Service { .. }, ..) => {
            return Err(HttpError::invalid("a service has no identity: name `issuer` and `subject` of a user"));
        }
        (Caller::Identity(_), ..) => {
            return Err(ServiceError::Forbidden("only back-end jobs may ask who others are".to_owned()).into());
        }
    };
    Ok((NO_STORE, Json(IdentityBody { identity: identity.as_str().to_owned() })).into_response())
}

/// The other login.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LinkBody {
    /// An ID token of it, valid now.
    #[schema(max_length = 16384)]
    token: String,
}

/// What is so after a link.
#[derive(Serialize, ToSchema)]
struct LinkedBody {
    /// The identity to which both logins lead.
    #[schema(example = "local:27f9c741-a704-8336-9b18-d7944eb9ff45")]
    identity: String,
    /// Its datasets that have another name since a link, because the name was taken.
    renamed: Vec<RenamedBody>,
}

/// A dataset that has another name since a link.
#[derive(Serialize, ToSchema)]
struct RenamedBody {
    /// Its name before.
    #[schema(example = "notes")]
    from: String,
    /// Its name now: with the id of its former identity behind it.
    #[schema(example = "notes.0b4f8c1e-52a7-8d3e-a1c6-9f2e7d105b34")]
    to: String,
}

/// Link another login
///
/// Afterwards the other login leads to the caller's identity, too, and so do all that led to its own. Everything that its
/// identity has owned moves to the caller's, where devices of the other login go on without loss. A dataset whose name
/// is taken there gets another one; nothing is merged. It cannot be taken back. Linking again changes nothing.
#[utoipa::path(post, path = "/identity/link", operation_id = "link", tag = "identities",
    request_body(content = LinkBody, description = "The other login.", example = json!({"token": "eyJhbGciOiJSUzI1NiIsImtpZCI6…"})),
    responses((status = 200, body = LinkedBody, description = "Both logins lead to one identity."), Failures, BodyFailures,
        (status = 403, body = ErrorBody, description = "One of both is a back-end job, not a user.",
            example = json!({"code": "NotAuthorized", "message": "only logins of users can be linked"}))))]
async fn link(
    State(app): State<App>,
    SignedIn { caller, .. }: SignedIn,
    places: Places,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, HttpError> {
    let LinkBody { token } = message::read_all(&app, places, &headers, body).await?;
    let other = app.deps.verifier.verify(Some(&token), app.deps.clock.now()).await.map_err(of_other)?;
    let Linked { target, moved_from: _, renamed } = app.deps.service.link(&caller, &other.caller).await?;
    let renamed = renamed.iter().map(|Renamed { from, to }| RenamedBody { from: from.to_string(), to: to.to_string() });
    let body = LinkedBody { identity: target.to_string(), renamed: renamed.collect() };
    Ok((NO_STORE, Json(body)).into_response())
}

/// The caller is signed in; it is the request that is wrong, if the other login is not.
fn of_other(error: TokenError) -> HttpError {
    match error {
        TokenError::Unavailable(_) => error.into(),
        TokenError::Missing | TokenError::Expired | TokenError::Invalid(_) => {
            HttpError::invalid(format!("the other login: {error}"))
        }
    }
}
