//! `deltas.json`: how differences are made, applied, and stand on each other.

use serde::{Deserialize, Serialize};

use crate::delta::{DoesNotFit, apply, diff, touches};
use crate::model::value::present;
use crate::model::{Delta, Value};
use crate::policy::{Policies, Policy};
use crate::vectors::layout::layout;
use crate::vectors::{InvalidVector, read};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    /// Holds for all differences.
    policies: Policies,
    made: Vec<Made>,
    applied: Vec<Applied>,
    touches: Vec<Touches>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Made {
    policy: Policy,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    from: Option<Value>,
    to: Value,
    /// Nothing: the value travels whole.
    #[serde(default)]
    delta: Option<Delta>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Applied {
    delta: Delta,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    current: Option<Value>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    does_not_fit: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Touches {
    lower: Delta,
    upper: Delta,
    #[serde(default)]
    touches: bool,
}

/// Replays `deltas.json`.
///
/// # Errors
/// If the file is not of its form.
pub fn deltas(text: &str) -> Result<String, InvalidVector> {
    let mut file: File = read(text)?;
    for case in &mut file.made {
        case.delta = diff(&file.policies, case.policy, case.from.as_ref(), &case.to);
    }
    for case in &mut file.applied {
        (case.result, case.does_not_fit) = match apply(&case.delta, case.current.as_ref()) {
            Ok(value) => (Some(value), None),
            Err(DoesNotFit::Type) => (None, Some("type".to_owned())),
            Err(DoesNotFit::Overflow) => (None, Some("overflow".to_owned())),
        };
    }
    for case in &mut file.touches {
        case.touches = touches(&case.lower, &case.upper);
    }
    Ok(layout(&file))
}
