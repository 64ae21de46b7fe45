//! Records over plain HTTP: `…/datasets/{dataset}/records` and `…/batch`.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sync_core::model::{Delta, Record, RecordKey, Value};
use sync_core::protocol::{Format, decode};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::caller::{ForDataset, ForRecord};
use crate::http::error::HttpError;
use crate::http::etag::{Wanted, condition, parse_condition, quoted, read_condition};
use crate::http::openapi::{BodyFailures, DatasetParam, ErrorBody, Failures};
use crate::http::places::Places;
use crate::http::query::Query;
use crate::http::{App, NO_STORE, message, rfc3339};
use crate::service::records::{Change, Feed, FeedPlace, Listed, Once, Operation, PageMax, Version, Versioned, Written};

/// The media type of a JSON Merge Patch (RFC 7396).
const MERGE_PATCH: &str = "application/merge-patch+json";
/// The media type of a difference, such as `{"add": 1}`.
const DELTA: &str = "application/vnd.syncline.delta+json";
/// The length of an idempotency key, in bytes.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Records that are listed unless the request says how many.
const LIMIT_DEFAULT: usize = 100;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(read, put, patch, remove)).routes(routes!(batch))
}

/// A record in a listing.
#[derive(Serialize, ToSchema)]
struct RecordBody {
    /// The key.
    #[schema(example = "milk")]
    key: RecordKeyText,
    /// The value. It is missing if the record was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>, example = json!({"amount": 2, "done": false}))]
    value: Option<Value>,
    /// Whether the record was removed. Only a listing with `since` tells of removals.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    removed: bool,
    /// The version, as in the header `ETag`.
    #[schema(example = "\"5f0c1d4be5a04e0c9f0a3f6d2b1c7e88-12\"")]
    etag: String,
    /// The count of the push that last wrote the record.
    #[schema(example = 12)]
    sync_count: u64,
    /// When that was, by the server's clock.
    #[schema(example = "2026-11-25T10:00:00.000Z")]
    modified_at: String,
    /// The device that wrote it, or what stands for a caller that is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "7c1f0a9e5b3d4286a0c4e8f1d2b39a57")]
    modified_by: Option<String>,
}

/// 1 to 1,000 bytes of UTF-8.
type RecordKeyText = String;

/// Records, and where the listing goes on.
#[derive(Serialize, ToSchema)]
struct RecordsBody {
    /// The records.
    records: Vec<RecordBody>,
    /// Where it goes on: `after` of the next request, or its `since` in the feed of changes. Without `since` it is
    /// missing on the last page; the feed always has one, to ask with later.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// Whether there is more right now.
    has_more: bool,
}

/// What a write did.
#[derive(Serialize, ToSchema)]
struct WrittenBody {
    /// The version of what was written, as in the header `ETag`. It is missing if there was nothing to write.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "\"5f0c1d4be5a04e0c9f0a3f6d2b1c7e88-13\"")]
    etag: Option<String>,
    /// The count of the write.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 13)]
    sync_count: Option<u64>,
    /// Keys of which a hook of the server wrote something else than asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rewritten: Vec<String>,
}

/// Which records are listed.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only keys that begin with it. Not together with `since`.
    prefix: Option<String>,
    /// Only keys behind this place: `next` of an earlier answer.
    after: Option<String>,
    /// The feed of changes: what was written since this place, removals too, in the order of writing. Empty: from the
    /// beginning. Then `next` of an earlier answer.
    since: Option<String>,
    /// At most so many records.
    #[param(minimum = 1, maximum = 2000, default = 100)]
    limit: Option<u32>,
}

/// One operation of a batch.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum OperationBody {
    /// Writes a whole value.
    Put {
        /// The record.
        #[schema(value_type = String, min_length = 1, max_length = 1000)]
        key: RecordKey,
        /// Its new value.
        #[schema(value_type = serde_json::Value)]
        value: Value,
        /// Only if the record is of this version; `*`: only if it exists.
        #[schema(pattern = r#"^(\*|(W/)?"[^"]*"(, ?(W/)?"[^"]*")*)$"#)]
        if_match: Option<String>,
        /// `*`: only if the record does not exist.
        #[schema(pattern = r"^\*$")]
        if_none_match: Option<String>,
    },
    /// Removes a record. If it is not there, nothing happens.
    Remove {
        /// The record.
        #[schema(value_type = String, min_length = 1, max_length = 1000)]
        key: RecordKey,
        /// Only if the record is of this version; `*`: only if it exists.
        #[schema(pattern = r#"^(\*|(W/)?"[^"]*"(, ?(W/)?"[^"]*")*)$"#)]
        if_match: Option<String>,
    },
    /// Changes fields, as JSON Merge Patch does.
    Patch {
        /// The record.
        #[schema(value_type = String, min_length = 1, max_length = 1000)]
        key: RecordKey,
        /// The fields to set; null takes one out. What is no object becomes the value.
        #[schema(value_type = serde_json::Value)]
        patch: Value,
        /// Only if the record is of this version; `*`: only if it exists.
        #[schema(pattern = r#"^(\*|(W/)?"[^"]*"(, ?(W/)?"[^"]*")*)$"#)]
        if_match: Option<String>,
    },
    /// Merges a difference.
    Merge {
        /// The record.
        #[schema(value_type = String, min_length = 1, max_length = 1000)]
        key: RecordKey,
        /// Such as `{"add": 1}` or `{"set": {"insert": ["x"]}}`.
        #[schema(value_type = Object, example = json!({"add": 1}))]
        delta: Delta,
        /// Only if the record is of this version; `*`: only if it exists.
        #[schema(pattern = r#"^(\*|(W/)?"[^"]*"(, ?(W/)?"[^"]*")*)$"#)]
        if_match: Option<String>,
    },
}

/// Operations that are written together or not at all.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BatchBody {
    /// At most one for each record.
    #[schema(min_items = 1, max_items = 1024)]
    operations: Vec<OperationBody>,
}

/// List records, or follow changes
///
/// Without `since`: the live records in the order of their keys. With `since`: what was written since an earlier answer,
/// removals included. A reader that begins with an empty `since` gets all live records first, page by page.
#[utoipa::path(get, path = "/datasets/{dataset}/records", operation_id = "list_records", tag = "records", params(DatasetParam, ListQuery),
    responses((status = 200, body = RecordsBody, description = "Records."), Failures,
        (status = 410, body = ErrorBody, description = "The feed cannot go on from `since`: begin again.")))]
async fn list(
    State(app): State<App>,
    ForDataset { caller, dataset }: ForDataset,
    places: Places,
    Query(ListQuery { prefix, after, since, limit }): Query<ListQuery>,
) -> Result<Response, HttpError> {
    let limit = match limit {
        None => LIMIT_DEFAULT,
        Some(limit @ 1..=2_000) => limit as usize,
        Some(_) => return Err(HttpError::invalid("`limit` is 1 to 2000")),
    };
    let _turn = app.memory.turn().await;
    let most = PageMax { records: limit, bytes: places.records_bytes_max() };
    let bytes: usize;
    let body = match since {
        Some(_) if prefix.is_some() || after.is_some() => {
            return Err(HttpError::invalid("`since` goes with neither `prefix` nor `after`"));
        }
        Some(since) => {
            let place = if since.is_empty() { FeedPlace::default() } else { read_token(&since)? };
            let Feed { records, next, has_more } = app.deps.service.feed(&caller, &dataset, place, most).await?;
            bytes = records.iter().map(|(record, _)| record.bytes()).sum();
            let records = records.into_iter().map(|(record, version)| RecordBody::new(record, version));
            RecordsBody { records: records.collect(), next: Some(token(&next)), has_more }
        }
        None => {
            let after = after.map(|after| read_token(&after)).transpose()?;
            let prefix = prefix.unwrap_or_default();
            let Listed { records, next } = app.deps.service.list(&caller, &dataset, &prefix, after, most).await?;
            bytes = records.iter().map(|versioned| versioned.record.bytes()).sum();
            let records = records.into_iter().map(|Versioned { record, version }| RecordBody::new(record, version));
            RecordsBody { records: records.collect(), has_more: next.is_some(), next: next.map(|next| token(&next)) }
        }
    };
    message::respond(&app, body, bytes, Format::Json).await
}

/// Read a record
///
/// The body is the bare value.
#[utoipa::path(get, path = "/datasets/{dataset}/records/{key}", operation_id = "read_record", tag = "records",
    params(RecordParams, ("If-None-Match" = Option<String>, Header, pattern = r#"^(\*|(W/)?"[^"]*"(, ?(W/)?"[^"]*")*)$"#,
        description = "Answer 304 if the record is of one of these versions; `*`: if it exists.")),
    responses((status = 200, body = serde_json::Value, description = "The value.", headers(("ETag" = String, description = "The version.")),
            example = json!({"amount": 2, "done": false})),
        (status = 304, description = "The record is of the version in `If-None-Match`."), Failures,
        (status = 404, body = ErrorBody, description = "There is no such record.")))]
async fn read(
    State(app): State<App>,
    ForRecord { caller, dataset, key }: ForRecord,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let _turn = app.memory.turn().await;
    let Versioned { record, version } = app.deps.service.record(&caller, &dataset, &key).await?;
    let etag = [(header::ETAG, quoted(version))];
    let fresh = match read_condition(&headers, &header::IF_NONE_MATCH)? {
        Some(Wanted::Anything) => true,
        Some(Wanted::Versions(versions)) => versions.contains(&version),
        None => false,
    };
    if fresh {
        return Ok((StatusCode::NOT_MODIFIED, NO_STORE, etag).into_response());
    }
    let modified = [(header::LAST_MODIFIED, http_date(&record))];
    let value = record.value().map(Value::to_json).unwrap_or_default();
    let json = [(header::CONTENT_TYPE, "application/json")];
    Ok((NO_STORE, etag, modified, json, value).into_response())
}

/// Write a record
///
/// The body is the bare value. Devices merge it as any other remote change.
#[utoipa::path(put, path = "/datasets/{dataset}/records/{key}", operation_id = "put_record", tag = "records", params(RecordParams, Conditions),
    request_body(content = serde_json::Value, content_type = "application/json", description = "The value.",
        example = json!({"amount": 2, "done": false})),
    responses((status = 200, body = WrittenBody, description = "The record was replaced.", headers(("ETag" = String, description = "The new version."))),
        (status = 201, body = WrittenBody, description = "The record was created.", headers(("ETag" = String, description = "The new version."))),
        Failures, BodyFailures, WriteFailures))]
async fn put(
    State(app): State<App>,
    record: ForRecord,
    places: Places,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, HttpError> {
    let formats = message::formats(&headers)?;
    let received = message::read(&app, places, body).await?;
    let value: Value = message::parse(&app, &headers, received, formats.request).await?;
    write_one(&app, record, &headers, Change::Put(value)).await
}

/// Change a record
///
/// As `application/merge-patch+json`, the fields in the body are set and those that are null are taken out (RFC 7396).
/// As `application/vnd.syncline.delta+json`, the body is a difference that is merged whatever the value is by then:
/// `{"add": 1}`, `{"set": {"insert": ["x"], "remove": []}}`, `{"max": 5}`, `{"min": 5}`,
/// `{"fields": {"title": {"set": "New"}, "tags": {"merge": {"set": {"insert": ["x"]}}}, "old": "remove"}}`.
#[utoipa::path(patch, path = "/datasets/{dataset}/records/{key}", operation_id = "patch_record", tag = "records", params(RecordParams, Conditions),
    request_body(content((serde_json::Value = "application/merge-patch+json", example = json!({"done": true})),
        (Object = "application/vnd.syncline.delta+json", example = json!({"add": 1})))),
    responses((status = 200, body = WrittenBody, description = "The record was changed.", headers(("ETag" = String, description = "The new version."))),
        (status = 201, body = WrittenBody, description = "The record was created.", headers(("ETag" = String, description = "The new version."))),
        Failures, BodyFailures, WriteFailures, MergeFailures))]
async fn patch(
    State(app): State<App>,
    record: ForRecord,
    places: Places,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, HttpError> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let received = message::read(&app, places, body).await?;
    let change = match &*media_type {
        MERGE_PATCH => Change::MergePatch(message::parse(&app, &headers, received, Format::Json).await?),
        DELTA => Change::Merge(message::parse(&app, &headers, received, Format::Json).await?),
        _ => {
            return Err(HttpError::UnsupportedMediaType(
                "the body's Content-Type must be application/merge-patch+json or application/vnd.syncline.delta+json",
            ));
        }
    };
    write_one(&app, record, &headers, change).await
}

/// Remove a record
#[utoipa::path(delete, path = "/datasets/{dataset}/records/{key}", operation_id = "remove_record", tag = "records", params(RecordParams, Conditions),
    responses((status = 204, description = "The record is removed."), Failures, WriteFailures,
        (status = 404, body = ErrorBody, description = "There is no such record.")))]
async fn remove(State(app): State<App>, record: ForRecord, headers: HeaderMap) -> Result<Response, HttpError> {
    let removed = write_one(&app, record, &headers, Change::RemoveExisting).await;
    removed.map(|_| (StatusCode::NO_CONTENT, NO_STORE).into_response())
}

/// Write several records at once
///
/// All operations are written, or none. Devices see them together.
#[utoipa::path(post, path = "/datasets/{dataset}/batch", operation_id = "write_batch", tag = "records",
    params(DatasetParam, ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = r"^[\t -~]+$",
        description = "Names the batch: sent again, it is not written again. The latest 16,384 groups of a dataset are remembered.")),
    request_body(content = BatchBody, example = json!({"operations": [{"op": "put", "key": "milk", "value": {"amount": 2}}, {"op": "merge", "key": "total", "delta": {"add": 2}}]})),
    responses((status = 200, body = WrittenBody, description = "All of it is written.", headers(("ETag" = Option<String>, description = "The version of what was written."))),
        Failures, BodyFailures, WriteFailures, MergeFailures))]
async fn batch(
    State(app): State<App>,
    ForDataset { caller, dataset }: ForDataset,
    places: Places,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, HttpError> {
    let once_key = headers.get("idempotency-key").map(|key| {
        let text = key.to_str().ok().filter(|text| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len()));
        text.map(ToOwned::to_owned).ok_or_else(|| HttpError::invalid("`Idempotency-Key` has 1 to 255 letters"))
    });
    let once_key = once_key.transpose()?;
    let formats = message::formats(&headers)?;
    let received = message::read(&app, places, body).await?;
    let once = once_key.map(|key| Once { key, content: Sha256::digest(received.bytes()).into() });
    let BatchBody { operations } = message::parse(&app, &headers, received, formats.request).await?;
    let operations: Vec<_> = operations.into_iter().map(operation).collect::<Result<_, _>>()?;
    let written = app.deps.service.write(&caller, &dataset, &operations, once.as_ref()).await?;
    Ok(answer(StatusCode::OK, written))
}

/// Which record.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it describes the path for the OpenAPI document; `ForRecord` reads it")]
struct RecordParams {
    /// The dataset: 1 to 128 letters, digits, `_`, `.`, `:` or `-`.
    #[param(example = "groceries", min_length = 1, max_length = 128, pattern = "^[a-zA-Z0-9_.:-]+$")]
    dataset: String,
    /// The record's key: 1 to 1,000 bytes of UTF-8, percent-encoded.
    #[param(example = "milk", min_length = 1, max_length = 1000)]
    key: String,
}

/// On what condition a record is written.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it describes headers for the OpenAPI document; `condition` reads them")]
struct Conditions {
    /// Only if the record is of one of these versions; `*`: only if it exists.
    #[param(rename = "If-Match", pattern = r#"^(\*|(W/)?"[^"]*"(, ?(W/)?"[^"]*")*)$"#)]
    if_match: Option<String>,
    /// `*`: only if the record does not exist.
    #[param(rename = "If-None-Match", pattern = r"^\*$")]
    if_none_match: Option<String>,
}

/// What a write may be answered with besides.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it describes answers for the OpenAPI document; `http/error.rs` makes them")]
enum WriteFailures {
    /// A record is not as the condition requires.
    #[response(status = 412)]
    PreconditionFailed(ErrorBody),
    /// A hook of this server refuses it; `code` and `message` are the hook's.
    #[response(status = 422)]
    Refused(ErrorBody),
}

/// What a write that may merge a difference may be answered with besides.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it describes answers for the OpenAPI document; `http/error.rs` makes them")]
enum MergeFailures {
    /// The difference does not fit the value that is there.
    #[response(status = 409)]
    Conflict(ErrorBody),
}

impl RecordBody {
    fn new(record: Record, version: Version) -> Self {
        Self {
            removed: record.value().is_none(),
            value: record.value().cloned(),
            etag: quoted(version),
            sync_count: record.sync_count.0,
            modified_at: rfc3339(record.modified_at),
            modified_by: record.modified_by.map(|device| device.to_string()),
            key: record.key.as_str().to_owned(),
        }
    }
}

async fn write_one(app: &App, record: ForRecord, headers: &HeaderMap, change: Change) -> Result<Response, HttpError> {
    let ForRecord { caller, dataset, key } = record;
    let text = |name: &header::HeaderName| read_condition(headers, name);
    let condition = condition(text(&header::IF_MATCH)?, text(&header::IF_NONE_MATCH)?)?;
    let operation = Operation { key, change, condition };
    let written = app.deps.service.write(&caller, &dataset, &[operation], None).await?;
    Ok(answer(if written.created > 0 { StatusCode::CREATED } else { StatusCode::OK }, written))
}

fn answer(status: StatusCode, written: Written) -> Response {
    let Written { version, created: _, rewritten } = written;
    let body = WrittenBody {
        etag: version.map(quoted),
        sync_count: version.map(|version| version.count.0),
        rewritten: rewritten.iter().map(|key| key.as_str().to_owned()).collect(),
    };
    let etag = version.map(|version| [(header::ETAG, quoted(version))]);
    match etag {
        Some(etag) => (status, NO_STORE, etag, Json(body)).into_response(),
        None => (status, NO_STORE, Json(body)).into_response(),
    }
}

fn operation(body: OperationBody) -> Result<Operation, HttpError> {
    let (key, change, if_match, if_none_match) = match body {
        OperationBody::Put { key, value, if_match, if_none_match } => {
            (key, Change::Put(value), if_match, if_none_match)
        }
        OperationBody::Remove { key, if_match } => (key, Change::Remove, if_match, None),
        OperationBody::Patch { key, patch, if_match } => (key, Change::MergePatch(patch), if_match, None),
        OperationBody::Merge { key, delta, if_match } => (key, Change::Merge(delta), if_match, None),
    };
    let wanted = |text: Option<String>| text.map(|text| parse_condition(&text)).transpose();
    Ok(Operation { key, change, condition: condition(wanted(if_match)?, wanted(if_none_match)?)? })
}

fn http_date(record: &Record) -> String {
    let ms = u64::try_from(record.modified_at.0).unwrap_or_default();
    httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms))
}

/// A place in a listing, as clients hand it back.
fn token<T: Serialize>(place: &T) -> String {
    URL_SAFE_NO_PAD.encode(rmp_serde::to_vec(place).expect("places have no unencodable parts"))
}

fn read_token<T: serde::de::DeserializeOwned>(token: &str) -> Result<T, HttpError> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let place = bytes.and_then(|bytes| decode(&bytes, Format::MessagePack).ok());
    place.ok_or_else(|| HttpError::invalid("this is no `next` of an earlier answer"))
}
