//! What becomes of one pending patch when the value below it changes.

use crate::conflict::{Cause, Loss, Side};
use crate::delta::{self, DoesNotFit};
use crate::merge::replica::{OpenQuestion, PendingPatch};
use crate::merge::text::merge_lines;
use crate::model::{Delta, Record, RecordKey, SyncCount, Timestamp, Value};
use crate::policy::{OnDelete, Policies, Policy};

/// What is decided about a patch.
#[derive(Debug, PartialEq, Eq)]
pub enum Rebased {
    /// It stays, on the new value. What it will overwrite is in the losses.
    Stays,
    /// The other side wins; the whole group leaves to the conflict log.
    Loses(Cause),
    /// A counter would overflow; the group is parked.
    Overflows,
}

/// What a decision looks at, besides the patch and the value below.
pub struct Surroundings<'a> {
    /// The declared policies.
    pub policies: &'a Policies,
    /// The record.
    pub key: &'a RecordKey,
    /// The record in the base.
    pub base: Option<&'a Record>,
    /// The server's clock if it is known, otherwise the device's.
    pub now: Timestamp,
}

/// Carries a change of the value below into an unsent patch.
pub fn rebase(
    patch: &mut PendingPatch,
    below: Option<Value>,
    around: &Surroundings<'_>,
    losses: &mut Vec<(Cause, Loss)>,
) -> Rebased {
    let policy = around.policies.of_record(around.key.as_str(), patch.under.as_ref(), patch.value.as_ref());
    let mut lose = |side, path: Vec<String>, under: Option<Value>, value: Option<Value>| {
        let loss = Loss { key: around.key.clone(), path, side, under, value };
        losses.push((Cause::Policy(policy), loss));
    };
    if patch.claimed && below.is_some() {
        return rebase_claimed(patch, below, policy, around, losses);
    }
    if policy.is_mergeable() {
        return match rebase_mergeable(patch, below, policy, around.policies, &mut lose) {
            Ok(true) => Rebased::Stays,
            Ok(false) => Rebased::Loses(Cause::Policy(policy)),
            Err(_overflow) => Rebased::Overflows,
        };
    }
    if below == patch.value {
        patch.under = below;
        patch.question = None;
        return Rebased::Stays;
    }
    match policy {
        Policy::KeepRemote => return Rebased::Loses(Cause::Policy(policy)),
        Policy::LatestEditWins => {
            let theirs = around.base.map_or_else(Timestamp::default, |record| record.device_time);
            if patch.device_time.min(around.now) < theirs {
                return Rebased::Loses(Cause::Policy(policy));
            }
            lose_all(patch.under.as_ref(), below.as_ref(), &mut lose);
        }
        Policy::Ask => {
            let base = patch.question.take().map_or_else(|| patch.under.clone(), |asked| asked.base);
            let remote_count = around.base.map_or(SyncCount::ZERO, |record| record.sync_count);
            patch.question = Some(OpenQuestion { remote_count, base });
        }
        Policy::Text => match (&patch.under, &patch.value, &below) {
            (under, Some(Value::Text(local)), Some(Value::Text(remote))) => {
                let base = match under {
                    Some(Value::Text(base)) => base.as_str(),
                    _ => "",
                };
                patch.value = Some(Value::Text(merge_lines(base, local, remote)));
            }
            // As for maps, an edit beats a removal.
            (_, None, Some(_)) => return Rebased::Loses(Cause::Policy(policy)),
            _ => lose_all(patch.under.as_ref(), below.as_ref(), &mut lose),
        },
        _ => lose_all(patch.under.as_ref(), below.as_ref(), &mut lose),
    }
    patch.under = below;
    Rebased::Stays
}

/// Takes what a loss is: whose, the field (empty: the whole value), what was removed, the value (nothing: a removal).
type Lose<'a> = dyn FnMut(Side, Vec<String>, Option<Value>, Option<Value>) + 'a;

/// The other side loses, with a value or with a removal of what was there.
fn lose_all(under: Option<&Value>, below: Option<&Value>, lose: &mut Lose<'_>) {
    if under != below {
        // A removal is logged with what was removed, so that one sees what it was about.
        let removed = under.filter(|_| below.is_none());
        lose(Side::Remote, Vec::new(), removed.cloned(), below.cloned());
    }
}

/// Whether the patch stays; fails where a counter would overflow.
fn rebase_mergeable(
    patch: &mut PendingPatch,
    below: Option<Value>,
    policy: Policy,
    policies: &Policies,
    lose: &mut Lose<'_>,
) -> Result<bool, DoesNotFit> {
    let fields = policy == Policy::Fields;
    let delete_wins = fields && policies.on_delete == OnDelete::DeleteWins;
    let Some(local) = &patch.value else {
        // A removal meets an edit: by default the edit wins.
        let stays = below.is_none() || delete_wins;
        if stays {
            lose_all(patch.under.as_ref(), below.as_ref(), lose);
            patch.under = below;
        }
        return Ok(stays);
    };
    let Some(remote) = below else {
        if delete_wins {
            return Ok(false);
        }
        if !patch.whole {
            lose_all(patch.under.as_ref(), None, lose);
        }
        if fields {
            // The record comes back whole. The last live base stays the merge base, in case it comes back first.
            patch.whole = true;
            return Ok(true);
        }
        if !patch.whole
            && let Some(delta) = delta::diff(policies, policy, patch.under.as_ref(), local)
        {
            patch.value = Some(delta::apply(&delta, None)?);
        }
        patch.under = None;
        return Ok(true);
    };
    // A map that was made anew on both sides is merged field by field.
    let empty = Value::Map(Default::default());
    let from = if fields { Some(patch.under.as_ref().unwrap_or(&empty)) } else { patch.under.as_ref() };
    let delta = delta::diff(policies, policy, from, local);
    match delta {
        Some(delta) if !patch.whole => match delta::apply(&delta, Some(&remote)) {
            Ok(merged) => {
                log_overwritten(&delta, patch.under.as_ref(), &remote, lose);
                for (path, value) in delta::outdone(&delta, Some(&merged)) {
                    lose(Side::Local, path, None, Some(value));
                }
                patch.value = Some(merged);
            }
            Err(DoesNotFit::Overflow) => return Err(DoesNotFit::Overflow),
            Err(DoesNotFit::Type) => {
                lose(Side::Remote, Vec::new(), None, Some(remote.clone()));
                patch.value = Some(delta::refit(&delta, &remote, local)?);
                patch.whole = true;
            }
        },
        Some(delta) if fields && matches!(remote, Value::Map(_)) => {
            log_overwritten(&delta, patch.under.as_ref(), &remote, lose);
            patch.value = Some(delta::refit(&delta, &remote, local)?);
            patch.whole = false;
        }
        _ => lose(Side::Remote, Vec::new(), None, Some(remote.clone())),
    }
    patch.under = Some(remote);
    Ok(true)
}

/// Logs the fields that a difference replaces and that the other side had changed.
fn log_overwritten(delta: &Delta, under: Option<&Value>, remote: &Value, lose: &mut Lose<'_>) {
    for (path, value) in delta::overwritten(delta, remote) {
        if under.and_then(|under| delta::value_at(under, &path)) != Some(&value) {
            lose(Side::Remote, path, None, Some(value));
        }
    }
}

/// A guest's patch meets a value of the identity: what merges is merged, and of two plain values the identity's wins.
fn rebase_claimed(
    patch: &mut PendingPatch,
    below: Option<Value>,
    policy: Policy,
    around: &Surroundings<'_>,
    losses: &mut Vec<(Cause, Loss)>,
) -> Rebased {
    let (Some(theirs), Some(guests)) = (&below, &patch.value) else {
        return Rebased::Loses(Cause::Claimed);
    };
    let mut lose = |path: &[&str], value: &Value| {
        let loss = Loss {
            key: around.key.clone(),
            path: path.iter().map(|name| (*name).to_owned()).collect(),
            side: Side::Local,
            under: None,
            value: Some(value.clone()),
        };
        losses.push((Cause::Claimed, loss));
    };
    if policy == Policy::Text
        && let (Value::Text(theirs), Value::Text(guests)) = (theirs, guests)
    {
        let base = match &patch.under {
            Some(Value::Text(base)) => base.as_str(),
            _ => "",
        };
        patch.value = Some(Value::Text(merge_lines(base, guests, theirs)));
    } else if theirs != guests || policy.is_mergeable() {
        let adopted = adopt(around.policies, policy, &mut Vec::new(), patch.under.as_ref(), guests, theirs, &mut lose);
        match adopted {
            Ok(Some(merged)) => patch.value = Some(merged),
            Ok(None) => return Rebased::Loses(Cause::Claimed),
            Err(_overflow) => return Rebased::Overflows,
        }
    }
    // From here on it is a change of the identity's value like any other.
    patch.claimed = false;
    patch.under = below;
    Rebased::Stays
}

/// The guest's value in the identity's; nothing if both are plain.
fn adopt<'a>(
    policies: &Policies,
    policy: Policy,
    path: &mut Vec<&'a str>,
    under: Option<&'a Value>,
    guests: &'a Value,
    theirs: &Value,
    lose: &mut dyn FnMut(&[&str], &Value),
) -> Result<Option<Value>, DoesNotFit> {
    if let (Policy::Fields, Value::Map(guests), Value::Map(theirs)) = (policy, guests, theirs) {
        let mut merged = theirs.clone();
        let under = match under {
            Some(Value::Map(under)) => Some(under),
            _ => None,
        };
        let before = |name: &String| under.and_then(|under| under.get(name));
        for (name, guest) in guests.iter().filter(|(name, guest)| before(name) != Some(guest)) {
            path.push(name);
            let value = match theirs.get(name) {
                None => Some(guest.clone()),
                Some(their) => {
                    let policy = policies.of_field(path, guest);
                    let adopted = adopt(policies, policy, path, before(name), guest, their, lose)?;
                    if adopted.is_none() && guest != their {
                        lose(path, guest);
                    }
                    adopted
                }
            };
            path.pop();
            merged.extend(value.map(|value| (name.clone(), value)));
        }
        let removed = under.into_iter().flatten().filter(|(name, _)| !guests.contains_key(*name));
        for (name, _) in removed.filter(|(name, under)| theirs.get(*name) == Some(under)) {
            merged.remove(name);
        }
        return Ok(Some(Value::Map(merged)));
    }
    if !policy.is_mergeable() {
        return Ok(None);
    }
    match delta::diff(policies, policy, under, guests).map(|delta| delta::apply(&delta, Some(theirs))) {
        Some(Ok(merged)) => Ok(Some(merged)),
        Some(Err(DoesNotFit::Overflow)) => Err(DoesNotFit::Overflow),
        Some(Err(DoesNotFit::Type)) | None => Ok(None),
    }
}
