//! The push hook over HTTP: a service of the team's looks at what is pushed, and refuses or rewrites it.
//!
//! It gets a signed `POST` and answers with one verdict for each group; `server/HOOKS.md` tells its author the rest.

use std::time::Duration;

use async_trait::async_trait;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use sync_core::merge::push::Review;
use sync_core::model::{Compare, Group, Owner, PatchOp, RecordKey, RecordPatch, Value};

use crate::causes::with_causes;
use crate::clock::{Clock, SystemClock};
use crate::config::{HookConfig, HookFailure, Secret};
use crate::error::ServiceError;
use crate::hex::hex;
use crate::service::hook::{PushHook, PushedGroups};
use crate::trace::{self, TRACEPARENT, TRACESTATE};

/// A hook that is reached over HTTP.
pub struct HttpHook {
    client: Client,
    url: Url,
    secret: Secret,
    timeout: Duration,
    on_failure: HookFailure,
}

/// Why a hook cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum InvalidHook {
    /// It cannot be called there.
    #[error("hook.url is not an address")]
    Url,
    /// No client can be made.
    #[error("no HTTP client can be made for the hook")]
    Client(#[source] reqwest::Error),
}

/// Why a hook did not say what is to be done.
#[derive(Debug, thiserror::Error)]
enum HookError {
    #[error("it does not answer in time")]
    Slow,
    #[error("it cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("it answers with the status {0}")]
    Status(u16),
    #[error("its answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    #[error("its answer is not understood: {0}")]
    Garbage(String),
}

#[derive(Serialize)]
struct Asked<'a> {
    identity: Option<&'a Owner>,
    owner: &'a Owner,
    dataset: &'a str,
    groups: &'a [Group],
}

#[derive(Deserialize)]
struct Answered {
    groups: Vec<Verdict>,
}

#[derive(Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
enum Verdict {
    Accept,
    Refuse {
        #[serde(default = "refused")]
        code: String,
        message: String,
    },
    Rewrite {
        records: Vec<Rewritten>,
    },
}

/// What is to be written under a key; without a value the record is removed.
#[derive(Deserialize)]
struct Rewritten {
    key: RecordKey,
    #[serde(default, deserialize_with = "present")]
    value: Option<Value>,
}

/// An answer's length in bytes: as long as what it may rewrite.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// A code and a message of the hook, in bytes: they go to every device.
const CODE_BYTES_MAX: usize = 64;
const MESSAGE_BYTES_MAX: usize = 1_000;
/// When a device is to come again if the hook cannot be asked.
const RETRY_AFTER_MS: u64 = 5_000;

impl HttpHook {
    /// The hook of a configuration; nothing: there is none.
    ///
    /// # Errors
    /// If it cannot be called as configured.
    pub fn new(config: &HookConfig) -> Result<Option<Self>, InvalidHook> {
        let HookConfig { url, secret, timeout, on_failure } = config;
        let (Some(url), Some(secret)) = (url, secret) else { return Ok(None) };
        let url = Url::parse(url.as_str()).map_err(|_| InvalidHook::Url)?;
        // Who redirects a hook is not the one that was configured.
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build();
        let client = client.map_err(InvalidHook::Client)?;
        Ok(Some(Self { client, url, secret: secret.clone(), timeout: timeout.get(), on_failure: *on_failure }))
    }

    async fn ask(&self, push: PushedGroups<'_>) -> Result<Vec<Review>, HookError> {
        let PushedGroups { identity, dataset, groups } = push;
        let asked = Asked { identity, owner: &dataset.owner, dataset: dataset.name.as_str(), groups };
        let body = serde_json::to_vec(&asked).expect("groups have no unencodable parts");
        let timestamp = SystemClock.now().0.div_euclid(1000).to_string();
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .header("Syncline-Timestamp", &timestamp)
            .header("Syncline-Signature", format!("v1={}", sign(self.secret.reveal(), &timestamp, &body)))
            .body(body);
        let answer = tokio::time::timeout(self.timeout, read(request)).await.map_err(|_| HookError::Slow)??;
        let Answered { groups: verdicts } =
            serde_json::from_slice(&answer).map_err(|error| HookError::Garbage(error.to_string()))?;
        if verdicts.len() != groups.len() {
            let text = format!("it has {} verdicts for {} groups", verdicts.len(), groups.len());
            return Err(HookError::Garbage(text));
        }
        verdicts.into_iter().zip(groups).map(|(verdict, group)| review(verdict, group)).collect()
    }
}

#[async_trait]
impl PushHook for HttpHook {
    async fn review(&self, push: PushedGroups<'_>) -> Result<Vec<Review>, ServiceError> {
        match self.ask(push).await {
            Ok(reviews) => Ok(reviews),
            Err(error) => {
                let error = with_causes(&error);
                match self.on_failure {
                    HookFailure::Accept => {
                        tracing::warn!(error, "the push hook failed; the push goes on without it");
                        Ok(Vec::new())
                    }
                    HookFailure::Wait => {
                        tracing::warn!(error, "the push hook failed; the push has to wait");
                        Err(ServiceError::Unavailable { retry_after_ms: RETRY_AFTER_MS })
                    }
                }
            }
        }
    }
}

/// The hexadecimal HMAC-SHA256 of `TIMESTAMP.BODY`.
fn sign(secret: &str, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length is taken");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    hex(&mac.finalize().into_bytes())
}

/// The same request, as part of the trace of the push.
fn traced(request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    let Some(context) = trace::current() else { return request };
    let request = request.header(TRACEPARENT, context.traceparent());
    match context.tracestate() {
        Some(state) => request.header(TRACESTATE, state),
        None => request,
    }
}

async fn read(request: reqwest::RequestBuilder) -> Result<Vec<u8>, HookError> {
    let mut response = traced(request).send().await.map_err(HookError::Unreachable)?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(HookError::Status(response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(HookError::Unreachable)? {
        if body.len() + bytes.len() > ANSWER_BYTES_MAX {
            return Err(HookError::TooLong);
        }
        body.extend_from_slice(&bytes);
    }
    Ok(body)
}

/// The verdict in words of the core.
fn review(verdict: Verdict, group: &Group) -> Result<Review, HookError> {
    match verdict {
        Verdict::Accept => Ok(Review::Accept),
        Verdict::Refuse { code, message } => {
            if code.is_empty() || code.len() > CODE_BYTES_MAX || message.len() > MESSAGE_BYTES_MAX {
                let text = format!("a code has 1 to {CODE_BYTES_MAX} bytes and a message at most {MESSAGE_BYTES_MAX}");
                return Err(HookError::Garbage(text));
            }
            Ok(Review::Refuse { code, message })
        }
        Verdict::Rewrite { records } => {
            records.into_iter().map(|record| rewrite(record, group)).collect::<Result<_, _>>().map(Review::Rewrite)
        }
    }
}

/// The patch that writes what the hook says, compared as the one that it replaces.
fn rewrite(record: Rewritten, group: &Group) -> Result<RecordPatch, HookError> {
    let Rewritten { key, value } = record;
    let asked = group.patches.iter().find(|patch| patch.key == key);
    let asked = asked.ok_or_else(|| HookError::Garbage(format!("the group has no record `{key}`")))?;
    let compare = match asked.op {
        PatchOp::Replace(_, compare) | PatchOp::Remove(compare) => compare,
        PatchOp::Merge(_) => Compare::Nothing,
    };
    let op = match value {
        Some(value) => PatchOp::Replace(value, compare),
        None => PatchOp::Remove(compare),
    };
    Ok(RecordPatch { op, ..asked.clone() })
}

fn refused() -> String {
    "Refused".to_owned()
}

/// A value that is there, even if it is null.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use sync_core::model::{ChangeId, Delta, SyncCount, Timestamp};

    use super::*;

    #[test]
    fn a_signature_is_what_any_other_language_computes() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac secret
        let expected = "b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163";
        assert_eq!(sign("secret", "1700000000", b"{}"), expected);
    }

    fn group() -> Group {
        let patch = |key: &str, op| RecordPatch {
            key: RecordKey::parse(key).unwrap(),
            op,
            base: SyncCount(3),
            device_time: Timestamp(5),
        };
        let patches = vec![
            patch("a", PatchOp::Replace(Value::Int(1), Compare::Base)),
            patch("n", PatchOp::Merge(Delta::Add(1))),
            patch("z", PatchOp::Remove(Compare::EditTime)),
        ];
        Group::new(ChangeId::from_bytes([1; 16]), patches)
    }

    /// The review of a verdict: its patches, or the refusal, or what is wrong with it.
    fn check(verdict: &str, expected: &str) {
        let verdict: Result<Verdict, _> = serde_json::from_str(verdict);
        let told = match verdict.map(|verdict| review(verdict, &group())) {
            Err(error) => format!("wrong: {error}"),
            Ok(Err(error)) => format!("wrong: {error}"),
            Ok(Ok(Review::Accept)) => "accepted".to_owned(),
            Ok(Ok(Review::Refuse { code, message })) => format!("{code}: {message}"),
            Ok(Ok(Review::Rewrite(patches))) => {
                let told = patches.iter().map(|patch| format!("{}@{} {:?}", patch.key, patch.base, patch.op));
                told.collect::<Vec<_>>().join("; ")
            }
        };
        assert!(told.starts_with(expected), "{told}");
    }

    #[test]
    fn a_verdict_accepts_refuses_or_rewrites_what_was_asked_about() {
        check(r#"{"verdict":"accept"}"#, "accepted");
        check(r#"{"verdict":"refuse","message":"no"}"#, "Refused: no");
        check(r#"{"verdict":"refuse","code":"Profanity","message":"no","more":1}"#, "Profanity: no");
        check(r#"{"verdict":"rewrite","records":[{"key":"a","value":2}]}"#, "a@3 Replace(Int(2), Base)");
        check(r#"{"verdict":"rewrite","records":[{"key":"n","value":null}]}"#, "n@3 Replace(Null, Nothing)");
        check(r#"{"verdict":"rewrite","records":[{"key":"z"}]}"#, "z@3 Remove(EditTime)");
        check(
            r#"{"verdict":"rewrite","records":[{"key":"b"}]}"#,
            "wrong: its answer is not understood: the group has no",
        );
        check(r#"{"verdict":"perhaps"}"#, "wrong: unknown variant");
        check(r#"{"verdict":"refuse"}"#, "wrong: missing field");
        check(r#"{"verdict":"refuse","code":"","message":""}"#, "wrong: its answer is not understood: a code has");
    }
}
