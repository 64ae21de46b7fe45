//! Who one is, or who somebody is whom a back-end job acts for.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::policy::Caller;
use crate::auth::rules::SignedIn;
use crate::error::ServiceError;
use crate::http::error::HttpError;
use crate::http::openapi::Failures;
use crate::http::{App, NO_STORE};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(identity))
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
    responses((status = 200, body = IdentityBody, description = "The identity."), Failures))]
async fn identity(
    State(app): State<App>,
    SignedIn { caller, .. }: SignedIn,
    query: Result<Query<LoginQuery>, QueryRejection>,
) -> Result<Response, HttpError> {
    let Query(LoginQuery { issuer, subject }) = query?;
    let identity = match (caller, issuer, subject) {
        (Caller::Identity(identity), None, None) => identity,
        (Caller::Service { .. }, Some(issuer), Some(subject)) => app.deps.verifier.identity(&issuer, &subject),
        (Caller::Service { .. }, ..) => {
            return Err(HttpError::invalid("a service has no identity: name `issuer` and `subject` of a user"));
        }
        (Caller::Identity(_), ..) => {
            return Err(ServiceError::Forbidden("only back-end jobs may ask who others are".to_owned()).into());
        }
    };
    Ok((NO_STORE, Json(IdentityBody { identity: identity.as_str().to_owned() })).into_response())
}
