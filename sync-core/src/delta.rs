//! Differences: how they are made on a device, and applied wherever they arrive.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::model::{Delta, FieldDelta, Value};
use crate::policy::{Policies, Policy};

/// Why a difference cannot be applied to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DoesNotFit {
    /// The value is of another type, or there is none where one is needed.
    #[error("the change does not fit the type of the value")]
    Type,
    /// The sum is beyond 64 bits.
    #[error("the counter would overflow 64 bits")]
    Overflow,
}

/// The difference from `from` to `to`, if the policy can express it as one; otherwise the value travels whole.
pub fn diff(policies: &Policies, policy: Policy, from: Option<&Value>, to: &Value) -> Option<Delta> {
    diff_at(policies, policy, &mut Vec::new(), from, to)
}

fn diff_at<'a>(
    policies: &Policies,
    policy: Policy,
    path: &mut Vec<&'a str>,
    from: Option<&'a Value>,
    to: &'a Value,
) -> Option<Delta> {
    match (policy, from, to) {
        (Policy::Counter, None, Value::Int(to)) => Some(Delta::Add(*to)),
        (Policy::Counter, Some(Value::Int(from)), Value::Int(to)) => to.checked_sub(*from).map(Delta::Add),
        (Policy::Set, None, Value::List(to)) => Some(diff_set(&[], to)),
        (Policy::Set, Some(Value::List(from)), Value::List(to)) => Some(diff_set(from, to)),
        (Policy::Max, from, to) if policy.fits(to) && from.is_none_or(|from| policy.fits(from)) => {
            Some(Delta::Max(to.clone()))
        }
        (Policy::Min, from, to) if policy.fits(to) && from.is_none_or(|from| policy.fits(from)) => {
            Some(Delta::Min(to.clone()))
        }
        (Policy::Fields, Some(Value::Map(from)), Value::Map(to)) => {
            let mut fields = BTreeMap::new();
            for name in from.keys().filter(|name| !to.contains_key(*name)) {
                fields.insert(name.clone(), FieldDelta::Remove);
            }
            for (name, value) in to {
                let before = from.get(name);
                if before == Some(value) {
                    continue;
                }
                path.push(name);
                let policy = policies.of_field(path, value);
                // A new map is set as a whole: a difference would not fit where the field is absent.
                let whole = policy == Policy::Fields && before.is_none();
                let delta = if whole { None } else { diff_at(policies, policy, path, before, value) };
                path.pop();
                fields.insert(name.clone(), delta.map_or_else(|| FieldDelta::Set(value.clone()), FieldDelta::Merge));
            }
            Some(Delta::Fields(fields))
        }
        _ => None,
    }
}

fn diff_set(from: &[Value], to: &[Value]) -> Delta {
    let (from, to) = (elements(from), elements(to));
    let without = |a: &BTreeMap<Vec<u8>, Value>, b: &BTreeMap<Vec<u8>, Value>| {
        a.iter().filter(|(bytes, _)| !b.contains_key(*bytes)).map(|(_, value)| value.clone()).collect()
    };
    Delta::Set { insert: without(&to, &from), remove: without(&from, &to) }
}

fn elements(list: &[Value]) -> BTreeMap<Vec<u8>, Value> {
    list.iter().map(|value| (value.to_bytes(), value.clone())).collect()
}

/// The value with the difference in it; `None` is absent or removed.
///
/// # Errors
/// [`DoesNotFit`]; nothing is ever applied to a value that only looks right.
pub fn apply(delta: &Delta, value: Option<&Value>) -> Result<Value, DoesNotFit> {
    match (delta, value) {
        (Delta::Add(by), None) => Ok(Value::Int(*by)),
        (Delta::Add(by), Some(Value::Int(int))) => int.checked_add(*by).map(Value::Int).ok_or(DoesNotFit::Overflow),
        (Delta::Set { insert, remove }, None | Some(Value::List(_))) => {
            let mut set = match value {
                Some(Value::List(list)) => elements(list),
                _ => BTreeMap::new(),
            };
            for gone in remove {
                set.remove(&gone.to_bytes());
            }
            set.extend(elements(insert));
            Ok(Value::List(set.into_values().collect()))
        }
        (Delta::Max(new) | Delta::Min(new), None) => Ok(new.clone()),
        (Delta::Max(new), Some(old)) => larger(old, new, Ordering::Greater),
        (Delta::Min(new), Some(old)) => larger(old, new, Ordering::Less),
        (Delta::Fields(fields), Some(Value::Map(map))) => {
            let mut map = map.clone();
            for (name, field) in fields {
                match field {
                    FieldDelta::Set(value) => drop(map.insert(name.clone(), value.clone())),
                    FieldDelta::Remove => drop(map.remove(name)),
                    FieldDelta::Merge(delta) => {
                        let merged = apply(delta, map.get(name))?;
                        map.insert(name.clone(), merged);
                    }
                }
            }
            Ok(Value::Map(map))
        }
        _ => Err(DoesNotFit::Type),
    }
}

fn larger(old: &Value, new: &Value, wanted: Ordering) -> Result<Value, DoesNotFit> {
    let order = compare(new, old).ok_or(DoesNotFit::Type)?;
    Ok(if order == wanted { new.clone() } else { old.clone() })
}

/// The order of two values for `max` and `min`: numbers exactly and not by way of floats, equal ones integer first;
/// text and bytes by bytes. Nothing if they cannot be compared.
pub fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Int(a), Value::Float(b)) => Some(compare_int_float(*a, *b)),
        (Value::Float(a), Value::Int(b)) => Some(compare_int_float(*b, *a).reverse()),
        (Value::Text(a), Value::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn compare_int_float(int: i64, float: f64) -> Ordering {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if float >= BEYOND {
        return Ordering::Less;
    }
    if float < -BEYOND {
        return Ordering::Greater;
    }
    let whole = float.trunc();
    int.cmp(&(whole as i64)).then_with(|| whole.total_cmp(&float)).then(Ordering::Less)
}

/// A `fields` difference re-made on a value that it does not fit: what fits is merged, what does not is set to the
/// local value. Fails only where a counter would overflow.
///
/// # Errors
/// [`DoesNotFit::Overflow`].
pub fn refit(delta: &Delta, onto: &Value, local: &Value) -> Result<Value, DoesNotFit> {
    let (Delta::Fields(fields), Value::Map(onto), Value::Map(local)) = (delta, onto, local) else {
        return Ok(local.clone());
    };
    let mut map = onto.clone();
    for (name, field) in fields {
        let FieldDelta::Merge(inner) = field else {
            match field {
                FieldDelta::Set(value) => drop(map.insert(name.clone(), value.clone())),
                _ => drop(map.remove(name)),
            }
            continue;
        };
        let merged = match (apply(inner, map.get(name)), local.get(name)) {
            (Ok(merged), _) => merged,
            (Err(DoesNotFit::Overflow), _) => return Err(DoesNotFit::Overflow),
            (Err(DoesNotFit::Type), Some(local)) => match map.get(name) {
                Some(onto) => refit(inner, onto, local)?,
                None => local.clone(),
            },
            (Err(DoesNotFit::Type), None) => continue,
        };
        map.insert(name.clone(), merged);
    }
    Ok(Value::Map(map))
}

/// What a difference adds to counters: to which field, and how much. The empty path is the value itself.
pub fn additions(delta: &Delta) -> BTreeMap<Vec<String>, i64> {
    fn at(delta: &Delta, path: &mut Vec<String>, found: &mut BTreeMap<Vec<String>, i64>) {
        match delta {
            Delta::Add(by) => drop(found.insert(path.clone(), *by)),
            Delta::Fields(fields) => {
                for (name, field) in fields {
                    if let FieldDelta::Merge(inner) = field {
                        path.push(name.clone());
                        at(inner, path, found);
                        path.pop();
                    }
                }
            }
            Delta::Set { .. } | Delta::Max(_) | Delta::Min(_) => {}
        }
    }
    let mut found = BTreeMap::new();
    at(delta, &mut Vec::new(), &mut found);
    found
}

/// Lets a difference add less to the counter at a path. Where it does not add, nothing changes.
///
/// # Errors
/// [`DoesNotFit::Overflow`].
pub fn add_less(delta: &mut Delta, path: &[String], by: i64) -> Result<(), DoesNotFit> {
    match (delta, path) {
        (Delta::Add(added), []) => *added = added.checked_sub(by).ok_or(DoesNotFit::Overflow)?,
        (Delta::Fields(fields), [name, rest @ ..]) => {
            if let Some(FieldDelta::Merge(inner)) = fields.get_mut(name) {
                add_less(inner, rest, by)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether the upper difference touches what the lower one changed, so that it cannot stand without it. Counters never
/// do; sets by element, maps by field.
pub fn touches(lower: &Delta, upper: &Delta) -> bool {
    match (lower, upper) {
        (Delta::Add(_), Delta::Add(_)) | (Delta::Max(_), Delta::Max(_)) | (Delta::Min(_), Delta::Min(_)) => false,
        (Delta::Set { insert: i1, remove: r1 }, Delta::Set { insert: i2, remove: r2 }) => {
            let upper: Vec<_> = i2.iter().chain(r2).collect();
            i1.iter().chain(r1).any(|element| upper.contains(&element))
        }
        (Delta::Fields(lower), Delta::Fields(upper)) => lower.iter().any(|(name, below)| {
            upper.get(name).is_some_and(|above| match (below, above) {
                (FieldDelta::Merge(below), FieldDelta::Merge(above)) => touches(below, above),
                _ => true,
            })
        }),
        _ => true,
    }
}

/// What a difference replaces: fields that it sets or removes although they hold something else, values that it outdoes
/// as the larger or the smaller one, and values that it does not fit, which [`refit`] sets. Path and what is there.
pub fn overwritten(delta: &Delta, value: &Value) -> Vec<(Vec<String>, Value)> {
    fn at(delta: &Delta, value: &Value, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, Value)>) {
        let (fields, map) = match (delta, value) {
            (Delta::Fields(fields), Value::Map(map)) => (fields, map),
            (_, old) => {
                let replaces = match apply(delta, Some(old)) {
                    Ok(new) => matches!(delta, Delta::Max(_) | Delta::Min(_)) && new != *old,
                    Err(error) => error == DoesNotFit::Type,
                };
                if replaces {
                    found.push((path.clone(), old.clone()));
                }
                return;
            }
        };
        for (name, field) in fields {
            let Some(old) = map.get(name) else { continue };
            path.push(name.clone());
            match field {
                FieldDelta::Set(new) if new == old => {}
                FieldDelta::Set(_) | FieldDelta::Remove => found.push((path.clone(), old.clone())),
                FieldDelta::Merge(inner) => at(inner, old, path, found),
            }
            path.pop();
        }
    }
    let mut found = Vec::new();
    at(delta, value, &mut Vec::new(), &mut found);
    found
}

/// The values of a difference that were to be the largest or the smallest, and are not what is there now: path and value.
pub fn outdone(delta: &Delta, now: Option<&Value>) -> Vec<(Vec<String>, Value)> {
    fn at(delta: &Delta, now: Option<&Value>, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, Value)>) {
        match delta {
            Delta::Max(value) | Delta::Min(value) if now.is_some_and(|now| now != value) => {
                found.push((path.clone(), value.clone()));
            }
            Delta::Fields(fields) => {
                for (name, field) in fields {
                    if let FieldDelta::Merge(inner) = field {
                        path.push(name.clone());
                        let now = now.and_then(|now| value_at(now, std::slice::from_ref(name)));
                        at(inner, now, path, found);
                        path.pop();
                    }
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    at(delta, now, &mut Vec::new(), &mut found);
    found
}

/// What is at a path of fields; the value itself for the empty path.
pub fn value_at<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| match value {
        Value::Map(fields) => fields.get(name),
        _ => None,
    })
}

/// Brings lists that are sets by policy into their one order, without repeats.
pub fn normalise(policies: &Policies, policy: Policy, value: &mut Value) {
    fn at(policies: &Policies, policy: Policy, path: &[&str], value: &mut Value) {
        match value {
            Value::List(list) if policy == Policy::Set => {
                *list = elements(list).into_values().collect();
            }
            Value::Map(fields) if policy == Policy::Fields && !policies.fields.is_empty() => {
                for (name, field) in fields {
                    let path: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
                    let policy = policies.of_field(&path, field);
                    at(policies, policy, &path, field);
                }
            }
            _ => {}
        }
    }
    at(policies, policy, &[], value);
}
