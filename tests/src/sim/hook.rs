//! The hook of the simulated server: it refuses some of what devices push, and writes something else instead of some.

use async_trait::async_trait;
use sync_core::merge::push::Review;
use sync_core::model::{Group, PatchOp, RecordPatch, Value};
use syncline_server::error::ServiceError;
use syncline_server::service::hook::{PushHook, PushedGroups};

use crate::sim::tokens::tokens;

/// Looks at one record alone, and decides by its token, so that a repeat is decided the same.
pub(super) struct Hook;

/// The record.
const LOOKED_AT: &str = "l0";

#[async_trait]
impl PushHook for Hook {
    async fn review(&self, push: PushedGroups<'_>) -> Result<Vec<Review>, ServiceError> {
        Ok(push.groups.iter().map(review).collect())
    }
}

fn review(group: &Group) -> Review {
    let Some(patch) = group.patches.iter().find(|patch| patch.key.as_str() == LOOKED_AT) else {
        return Review::Accept;
    };
    let PatchOp::Replace(value, compare) = &patch.op else { return Review::Accept };
    let number = tokens(Some(value)).iter().find_map(|token| token[1..].parse().ok()).unwrap_or(1_u32);
    match number % 10 {
        0 => Review::Refuse { code: "Unwanted".to_owned(), message: format!("{LOOKED_AT} is not to be {number}") },
        1..4 => {
            let op = PatchOp::Replace(Value::Text("by the hook".to_owned()), *compare);
            Review::Rewrite(vec![RecordPatch { op, ..patch.clone() }])
        }
        _ => Review::Accept,
    }
}
