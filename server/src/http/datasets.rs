//! Datasets as a whole: listed, described, deleted.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use sync_core::model::DatasetName;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::caller::{ForDataset, ForOwner};
use crate::http::error::HttpError;
use crate::http::etag::{condition, quoted, read_condition};
use crate::http::openapi::{DatasetParam, ErrorBody, Failures};
use crate::http::query::Query;
use crate::http::{App, NO_STORE, rfc3339};
use crate::service::datasets::Described;

/// Datasets in one answer.
const LIMIT: usize = 100;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(describe, delete))
}

/// A dataset as a whole.
#[derive(Serialize, ToSchema)]
struct DatasetBody {
    /// Its name.
    #[schema(example = "groceries")]
    name: String,
    /// Its version, as in the header `ETag`.
    #[schema(example = "\"5f0c1d4be5a04e0c9f0a3f6d2b1c7e88-12\"")]
    etag: String,
    /// How many commits it has had.
    #[schema(example = 12)]
    sync_count: u64,
    /// Live records.
    #[schema(example = 7)]
    records: u64,
    /// Keys and values of the live records, in bytes.
    #[schema(example = 214)]
    bytes: u64,
    /// When it last changed, by the server's clock.
    #[schema(example = "2026-11-25T10:00:00.000Z")]
    modified_at: String,
}

/// Datasets, and where the listing goes on.
#[derive(Serialize, ToSchema)]
struct DatasetsBody {
    /// Datasets in the order of their names.
    datasets: Vec<DatasetBody>,
    /// `after` of the next request; missing on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Which datasets are listed.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only names behind it: `next` of an earlier answer.
    #[param(min_length = 1, max_length = 128, pattern = "^[a-zA-Z0-9_.:-]+$")]
    after: Option<String>,
}

/// List datasets
#[utoipa::path(get, path = "/datasets", operation_id = "list_datasets", tag = "datasets", params(ListQuery),
    responses((status = 200, body = DatasetsBody, description = "Datasets."), Failures))]
async fn list(
    State(app): State<App>,
    ForOwner { caller, owner, .. }: ForOwner,
    Query(ListQuery { after }): Query<ListQuery>,
) -> Result<Response, HttpError> {
    let after = after.map(DatasetName::parse).transpose()?;
    let datasets = app.deps.service.describe_all(&caller, &owner, after.as_ref(), LIMIT).await?;
    let next = datasets.get(LIMIT - 1).map(|last| last.name.as_str().to_owned());
    Ok((NO_STORE, Json(DatasetsBody { datasets: datasets.into_iter().map(body).collect(), next })).into_response())
}

/// Describe a dataset
#[utoipa::path(get, path = "/datasets/{dataset}", operation_id = "describe_dataset", tag = "datasets", params(DatasetParam),
    responses((status = 200, body = DatasetBody, description = "The dataset.", headers(("ETag" = String, description = "Its version."))), Failures,
        (status = 404, body = ErrorBody, description = "There is no such dataset.",
            example = json!({"code": "ResourceNotFound", "message": "there is no dataset `groceries`"}))))]
async fn describe(State(app): State<App>, ForDataset { caller, dataset }: ForDataset) -> Result<Response, HttpError> {
    let body = body(app.deps.service.describe(&caller, &dataset).await?);
    Ok((NO_STORE, [(header::ETAG, body.etag.clone())], Json(body)).into_response())
}

/// Delete a dataset
///
/// Devices learn of it with their next sync; what they had not pushed yet is parked there.
#[utoipa::path(delete, path = "/datasets/{dataset}", operation_id = "delete_dataset", tag = "datasets",
    params(DatasetParam, ("If-Match" = Option<String>, Header, pattern = r#"^(\*|(W/)?"[^"]*"(, ?(W/)?"[^"]*")*)$"#,
        description = "Only if the dataset is of one of these versions; `*`: only if it exists.")),
    responses((status = 204, description = "The dataset is deleted."), Failures,
        (status = 404, body = ErrorBody, description = "There is no such dataset.",
            example = json!({"code": "ResourceNotFound", "message": "there is no dataset `groceries`"})),
        (status = 412, body = ErrorBody, description = "The dataset is not of the version in `If-Match`.",
            example = json!({"code": "ResourceConflict", "message": "the dataset `groceries` is of the version \"5f0c1d4be5a04e0c9f0a3f6d2b1c7e88-12\""}))))]
async fn delete(
    State(app): State<App>,
    ForDataset { caller, dataset }: ForDataset,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let condition = condition(read_condition(&headers, &header::IF_MATCH)?, None)?;
    app.deps.service.delete_dataset(&caller, &dataset, &condition).await?;
    Ok((StatusCode::NO_CONTENT, NO_STORE).into_response())
}

fn body(described: Described) -> DatasetBody {
    let Described { name, version, records, bytes, modified_at } = described;
    DatasetBody {
        name: name.as_str().to_owned(),
        etag: quoted(version),
        sync_count: version.count.0,
        records,
        bytes,
        modified_at: rfc3339(modified_at),
    }
}
