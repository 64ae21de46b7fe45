//! Versions as HTTP writes them: entity tags, and conditions on them.

use axum::http::{HeaderMap, header};

use crate::http::error::HttpError;
use crate::service::records::{Condition, Version};

/// What a header asks a version to be.
pub(super) enum Wanted {
    Anything,
    Versions(Vec<Version>),
}

/// The condition in words of the service.
pub(super) fn condition(if_match: Option<Wanted>, if_none_match: Option<Wanted>) -> Result<Condition, HttpError> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Condition::Any),
        (Some(Wanted::Anything), None) => Ok(Condition::Present),
        (Some(Wanted::Versions(versions)), None) => Ok(Condition::Versions(versions)),
        (None, Some(Wanted::Anything)) => Ok(Condition::Absent),
        (None, Some(Wanted::Versions(_))) => Err(HttpError::invalid("a write takes `If-None-Match: *` and no version")),
        (Some(_), Some(_)) => Err(HttpError::invalid("a write takes `If-Match` or `If-None-Match`, not both")),
    }
}

pub(super) fn read_condition(headers: &HeaderMap, name: &header::HeaderName) -> Result<Option<Wanted>, HttpError> {
    let mut all = Vec::new();
    for value in headers.get_all(name) {
        all.push(value.to_str().map_err(|_| HttpError::invalid(format!("`{name}` is not a version")))?);
    }
    if all.is_empty() { Ok(None) } else { parse_condition(&all.join(",")).map(Some) }
}

/// A list of entity tags, or `*`. A tag that is not one of ours matches nothing.
pub(super) fn parse_condition(text: &str) -> Result<Wanted, HttpError> {
    if text.trim() == "*" {
        return Ok(Wanted::Anything);
    }
    let not_quoted = || HttpError::invalid("a version is written in quotes, as in `ETag`");
    let tags: Vec<_> = text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).collect();
    if tags.is_empty() {
        return Err(not_quoted());
    }
    let version = |tag: &str| {
        let strong = tag.strip_prefix("W/").unwrap_or(tag);
        unquoted(strong).ok_or_else(not_quoted).map(Version::parse)
    };
    let versions: Result<Vec<_>, _> = tags.into_iter().map(version).collect();
    Ok(Wanted::Versions(versions?.into_iter().flatten().collect()))
}

/// What stands between the quotes of an entity tag.
fn unquoted(tag: &str) -> Option<&str> {
    let inner = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    inner.filter(|inner| !inner.contains('"'))
}

pub(super) fn quoted(version: Version) -> String {
    format!("\"{version}\"")
}
