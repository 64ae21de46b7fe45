//! What the server held, commit by commit. Some promises are only seen to be broken in what a record becomes next.

use std::collections::{BTreeMap, BTreeSet};

use sync_core::merge::push::{Commit, Outcome};
use sync_core::model::{DeviceId, Record, RecordKey, Timestamp, Value};

use crate::sim::checks::Ledger;
use crate::sim::tokens::tokens;

/// The server's records after its last commit, and what they were before.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// Records and tombstones.
    records: BTreeMap<RecordKey, Record>,
    /// Tokens that a commit has replaced, by record.
    replaced: BTreeMap<RecordKey, BTreeSet<String>>,
    /// When each token was edited, as it was first stored. A clock that is ahead is cut to the server's: what a server that
    /// was put back is sent again seems later.
    edited: BTreeMap<String, Timestamp>,
    /// See [`History::expect_the_old`].
    expects_old: bool,
    /// See [`History::expect_twins`].
    expects_twins: bool,
    /// The latest push of each device, and what became of it.
    pushes: BTreeMap<DeviceId, (u64, Vec<Outcome>)>,
}

impl History {
    /// Begins anew with what a server holds that was put back.
    pub(super) fn put_back(&mut self, records: Vec<Record>) {
        let records = records.into_iter().map(|record| (record.key.clone(), record)).collect();
        *self = Self { records, edited: std::mem::take(&mut self.edited), expects_old: true, ..Self::default() };
    }

    /// A device has an old state: what was overwritten may come again.
    pub(super) const fn expect_the_old(&mut self) {
        self.expects_old = true;
    }

    /// A device's file was copied: one copy may write over what the other has not pushed yet.
    pub(super) const fn expect_twins(&mut self) {
        self.expects_twins = true;
    }

    /// The server has lost a record without anybody's doing.
    pub(super) fn lose(&mut self, key: &RecordKey) {
        self.records.remove(key);
    }

    /// Takes a commit in, and checks what its records were before. On the devices `removals_win`, a removal of a map beats
    /// an edit.
    pub(super) fn commit(
        &mut self,
        commit: &Commit,
        ledger: &Ledger,
        removals_win: &BTreeSet<DeviceId>,
    ) -> Result<(), String> {
        for (device, push) in &commit.pushes {
            let (newest, answered) = self.pushes.entry(*device).or_default();
            let outcomes = &push.answer.outcomes;
            // Nothing tells one process of what another has decided if that wrote nothing.
            let is_repeat = push.sequence == *newest && outcomes == answered;
            let is_harmless = is_repeat || !writes(outcomes) && !writes(answered);
            if !self.expects_twins && push.sequence <= *newest && !is_harmless {
                return Err(format!("push {} of a device is decided after {newest}", push.sequence));
            }
            if push.sequence >= *newest {
                (*newest, *answered) = (push.sequence, outcomes.clone());
            }
        }
        if commit.clear {
            (self.records, self.replaced) = Default::default();
        }
        let is_one_push = commit.expected.is_none_or(|before| before.count.next() == commit.head.lineage.count);
        for record in &commit.records {
            for token in tokens(record.value()) {
                self.edited.entry(token).or_insert(record.device_time);
            }
            let before = self.records.insert(record.key.clone(), record.clone());
            let replaced = self.replaced.entry(record.key.clone()).or_default();
            let Some(before) = before else { continue };
            times_rise(&before, record)?;
            let (Some(old), new) = (before.value(), record.value()) else {
                let comes_back = compared(&record.key, record.value());
                let is_strict = record.modified_by.is_some_and(|device| removals_win.contains(&device));
                if let Some(token) =
                    comes_back.intersection(replaced).find(|_| is_strict && !self.expects_old && !self.expects_twins)
                {
                    return Err(format!("{token} under {} has come back, though removals win", record.key));
                }
                // An edit that beats a removal brings all back that it stood on.
                replaced.retain(|token| !comes_back.contains(token));
                continue;
            };
            never_steps_back(&record.key, old, new)?;
            // Of several, one may have removed what another one has seen.
            if is_one_push {
                seen_or_later(&before, record, ledger, &self.edited)?;
            }
            removal_has_seen(&record.key, old, new, ledger, removals_win.is_empty())?;
            let (old, new) = (compared(&record.key, Some(old)), compared(&record.key, new));
            let is_back = |token: &&String| {
                let is_single = is_single(&record.key) && !self.expects_twins;
                let was_under = |other: &String| is_single && ledger.has_seen(other, token);
                let may_return = self.expects_old || ledger.may_return.contains(*token);
                !may_return && (replaced.contains(*token) || old.iter().any(was_under))
            };
            if let Some(token) = new.difference(&old).find(is_back) {
                return Err(format!("{token} under {} has come back after it was overwritten", record.key));
            }
            replaced.extend(old.difference(&new).cloned());
        }
        if commit.purge {
            let floor = commit.head.floor;
            self.records.retain(|_, record| record.value().is_some() || record.sync_count > floor);
        }
        Ok(())
    }
}

fn writes(outcomes: &[Outcome]) -> bool {
    outcomes.iter().any(|outcome| matches!(outcome, Outcome::Applied { .. } | Outcome::Rewritten { .. }))
}

/// A record's time never goes down, and is never later than the server's clock.
fn times_rise(before: &Record, after: &Record) -> Result<(), String> {
    let key = &after.key;
    if after.device_time > after.modified_at {
        return Err(format!("{key} was edited later than it was written: a device's clock decides"));
    }
    if after.device_time < before.device_time {
        return Err(format!("the time of {key} went down from {:?} to {:?}", before.device_time, after.device_time));
    }
    Ok(())
}

/// Under the policy `max`.
fn never_steps_back(key: &RecordKey, old: &Value, new: Option<&Value>) -> Result<(), String> {
    match (old, new) {
        (Value::Int(old), Some(Value::Int(new))) if key.as_str().starts_with('m') && new < old => {
            Err(format!("{key} is to be the largest, and went from {old} down to {new}"))
        }
        _ => Ok(()),
    }
}

/// Who replaces a value has seen it. Under `keep_remote` always; under `latest_edit_wins` unless the edit is later.
fn seen_or_later(
    before: &Record,
    after: &Record,
    ledger: &Ledger,
    edited: &BTreeMap<String, Timestamp>,
) -> Result<(), String> {
    let key = after.key.as_str();
    let (old, new) = (tokens(before.value()), tokens(after.value()));
    for token in new.difference(&old).filter(|token| !ledger.may_return.contains(*token)) {
        let seen = old.is_empty() || old.iter().any(|old| ledger.has_seen(token, old));
        let theirs = old.iter().filter_map(|old| edited.get(old)).max().copied().unwrap_or(before.device_time);
        let is_later = || ledger.edited_at(token).is_none_or(|at| at.min(after.modified_at) >= theirs);
        if key.starts_with(['r', 'e']) && !seen && !(key.starts_with('e') && is_later()) {
            return Err(format!("{token} under {key} has replaced {old:?}, which is later or was not seen"));
        }
    }
    Ok(())
}

/// An edit that was not seen beats a removal, and under `keep_remote` a value does.
fn removal_has_seen(
    key: &RecordKey,
    old: &Value,
    new: Option<&Value>,
    ledger: &Ledger,
    edit_wins: bool,
) -> Result<(), String> {
    let protected = key.as_str().starts_with(['r', 's', 'x']) || (edit_wins && key.as_str().starts_with('f'));
    if new.is_some() || !protected {
        return Ok(());
    }
    match tokens(Some(old)).iter().find(|token| !ledger.gone.contains(*token)) {
        Some(token) => Err(format!("{key} was removed by who had not seen {token}")),
        None => Ok(()),
    }
}

/// Whether a token stands alone in its record or field, so that who writes another one over it replaces it.
fn is_single(key: &RecordKey) -> bool {
    key.as_str().starts_with(['l', 'k', 'r', 'a', 'e', 'p', 'f'])
}

/// The tokens that never come back once they were replaced. Lines of a text may, and what is in a field that is a map on
/// one side and a text on the other: there both sides are kept.
fn compared(key: &RecordKey, value: Option<&Value>) -> BTreeSet<String> {
    match (key.as_str().trim_start_matches('L').as_bytes()[0], value) {
        (b'x', _) => BTreeSet::new(),
        (b'f', Some(Value::Map(fields))) => ["x", "y"].iter().flat_map(|name| tokens(fields.get(*name))).collect(),
        (_, value) => tokens(value),
    }
}
