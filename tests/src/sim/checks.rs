//! What must hold: at every moment, and after everything is healed.

use std::collections::{BTreeMap, BTreeSet};

use sync_core::client::memory::MemoryReplica;
use sync_core::conflict::{Cause, LogEntry, Side};
use sync_core::merge::replica::Replica as _;
use sync_core::model::{Overwritten, RecordKey, Timestamp, Value};
use sync_core::policy::Policy;

use crate::sim::app::{COUNTERS, COUNTERS_TOTAL, ITEMS, ITEMS_TOTAL, PAIR, key};
use crate::sim::tokens::{INCREMENTS_MAX, KeptAside, digits, tokens};

/// The live records of a server or device.
pub(super) type Live = BTreeMap<RecordKey, Value>;

/// What the checks know about all writes so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    /// Tokens that were written, and by whom, under which key.
    pub(super) written: BTreeMap<String, String>,
    /// Tokens that somebody saw and overwrote or removed, or whose loss is part of the fault.
    pub(super) gone: BTreeSet<String>,
    /// Increments whose loss is part of the fault.
    pub(super) increments_gone: BTreeSet<usize>,
    /// Tokens of plain records that somebody saw and removed.
    pub(super) removed: BTreeMap<String, String>,
    /// Tokens that were pending on a device which knew the dataset when it was deleted, and on which.
    pub(super) deleted: BTreeMap<String, String>,
    /// Tokens that were pending when a device's file was copied, and may be written more than once.
    pub(super) may_return: BTreeSet<String>,
    /// The writes behind the tokens.
    edits: BTreeMap<String, Edit>,
    /// What a device saw when it removed a record: if it writes where nothing is, it has seen that, too.
    under_removals: BTreeMap<(String, RecordKey), BTreeSet<String>>,
}

/// A write as the app made it.
#[derive(Clone, Debug)]
struct Edit {
    /// When, by the device's clock.
    at: Timestamp,
    /// The tokens that the app saw there.
    over: BTreeSet<String>,
}

impl Ledger {
    /// Remembers a write: what was seen before, and what is there now.
    pub(super) fn write(
        &mut self,
        who: &str,
        at: Timestamp,
        name: &RecordKey,
        before: Option<&Value>,
        after: Option<&Value>,
    ) {
        // A copy knows what the original knew.
        let device = (who.trim_end_matches('\'').to_owned(), name.clone());
        let is_set = name.as_str().starts_with('s');
        let removes = is_set || after.is_none() && name.as_str().starts_with(['l', 'k', 'r', 'e']);
        if after.is_some() && !is_set {
            // A removal that was still pending is not one any more.
            let under = format!("under {name}");
            self.removed.retain(|_, remover| !remover.ends_with(&under));
        }
        let (before, after) = (tokens(before), tokens(after));
        if removes {
            let removed = before.difference(&after);
            self.removed.extend(removed.map(|token| (token.clone(), format!("{who} under {name}"))));
        }
        self.gone.extend(before.difference(&after).cloned());
        for token in after.difference(&before) {
            self.written.entry(token.clone()).or_insert_with(|| format!("{who} under {name}"));
            let over = if before.is_empty() { self.under_removals.get(&device) } else { Some(&before) };
            let edit = Edit { at, over: over.cloned().unwrap_or_default() };
            self.edits.entry(token.clone()).or_insert(edit);
        }
        if after.is_empty() {
            self.under_removals.entry(device).or_default().extend(before);
        }
    }

    /// Remembers a claim: a guest's value where the identity has none comes after what was removed there.
    pub(super) fn claim(&mut self, who: &str, before: &Live, after: &Live) {
        let who = who.trim_end_matches('\'');
        for (name, value) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
            let Some(removed) = self.under_removals.get(&(who.to_owned(), name.clone())) else { continue };
            for token in tokens(Some(value)) {
                self.edits.entry(token).and_modify(|edit| edit.over.extend(removed.iter().cloned()));
            }
        }
    }

    /// What a device removed of these tokens may come back.
    pub(super) fn excuse_removals(&mut self, who: &str, tokens: &BTreeSet<String>) {
        let by_them = format!("{who} under ");
        self.removed.retain(|token, remover| !tokens.contains(token) || !remover.starts_with(&by_them));
    }

    /// Whether the app that wrote a token saw another one there, or one that was written over it.
    pub(super) fn has_seen(&self, token: &str, other: &str) -> bool {
        let mut over: Vec<&str> = vec![token];
        let mut known = BTreeSet::new();
        while let Some(token) = over.pop() {
            if token == other {
                return true;
            }
            if known.insert(token) {
                over.extend(self.edits.get(token).into_iter().flat_map(|edit| &edit.over).map(String::as_str));
            }
        }
        false
    }

    /// When a token was written, by the device's clock.
    pub(super) fn edited_at(&self, token: &str) -> Option<Timestamp> {
        self.edits.get(token).map(|edit| edit.at)
    }
}

/// No half of a group is seen: the pair is equal, and the totals are those of the items.
pub(super) fn whole_groups(who: &str, live: &Live, ledger: bool) -> Result<(), String> {
    let [first, second] = PAIR.map(|name| live.get(&key(name)));
    if first != second {
        return Err(format!("{who} sees half of a pair: {first:?} {second:?}"));
    }
    if let Some(partial) = live.iter().find(|(name, value)| is_partial(name, value)) {
        return Err(format!("{who} sees a map that was made of a difference: {partial:?}"));
    }
    if !ledger {
        return Ok(());
    }
    let total = tokens(live.get(&key(ITEMS_TOTAL)));
    let items: BTreeSet<_> = ITEMS.iter().flat_map(|name| tokens(live.get(&key(name)))).collect();
    if total != items {
        let missing: Vec<_> = items.difference(&total).collect();
        let extra: Vec<_> = total.difference(&items).collect();
        return Err(format!("{who}: the total lacks {missing:?} and has {extra:?} besides the items"));
    }
    let sum = |names: &[&str]| -> i64 {
        let int = |name: &&str| match live.get(&key(name)) {
            Some(Value::Int(int)) => *int,
            _ => 0,
        };
        names.iter().map(int).fold(0, i64::wrapping_add)
    };
    let (total, counters) = (sum(&[COUNTERS_TOTAL]), sum(&COUNTERS));
    if total != counters {
        return Err(format!("{who}: the counters' total is {total:x} and their sum {counters:x}"));
    }
    Ok(())
}

/// What a push replaced unseen has a policy that does not compare: with all others that would have been a conflict.
pub(super) fn compared_first(overwritten: &[&Overwritten]) -> Result<(), String> {
    let compares =
        |name: &RecordKey| name.as_str().trim_start_matches('L').starts_with(['k', 'r', 'a', 's', 'f', 'x', 'c']);
    match overwritten.iter().find(|it| it.path.is_empty() && it.value.is_some() && compares(&it.key)) {
        Some(Overwritten { key: name, value, .. }) => Err(format!("{name} was replaced by who had not seen {value:?}")),
        None => Ok(()),
    }
}

/// Who never loses by a policy: the local side under `keep_local` and `last_sync_wins`, the other under `keep_remote`.
pub(super) fn loses_by_policy(entry: &LogEntry) -> Result<(), String> {
    let never = match entry.cause {
        Cause::Policy(Policy::KeepLocal | Policy::LastSyncWins) => Side::Local,
        Cause::Policy(Policy::KeepRemote) => Side::Remote,
        _ => return Ok(()),
    };
    match entry.losses.iter().find(|loss| loss.side == never) {
        Some(loss) => Err(format!("{} lost as the {never:?} side, by {}", loss.key, entry.cause.name())),
        None => Ok(()),
    }
}

/// A claim changes no plain value of the identity, but one that the guest had and went on from: a copy of its file has
/// been claimed before.
pub(super) fn identity_wins(who: &str, before: &Live, after: &Live, ledger: &Ledger) -> Result<(), String> {
    let plain = |name: &RecordKey| name.as_str().starts_with(['l', 'k', 'r', 'a', 'e', 'p']);
    let goes_on = |value: &Value, after: Option<&Value>| {
        let after = tokens(after);
        tokens(Some(value)).iter().all(|token| after.iter().any(|new| ledger.has_seen(new, token)))
    };
    let changed = |name: &RecordKey, value| after.get(name) != Some(value) && !goes_on(value, after.get(name));
    match before.iter().find(|(name, value)| plain(name) && changed(name, value)) {
        Some((name, value)) => Err(format!("{who} claims a guest's {name} over the identity's {value:?}")),
        None => Ok(()),
    }
}

/// Each pending group has as many patches as its header says; a device's file is taken for damaged otherwise.
pub(super) fn headers_count_patches(who: &str, replica: &MemoryReplica) -> Result<(), String> {
    for header in replica.groups().expect("memory does not fail") {
        let found = replica.group_patches(header.id).expect("memory does not fail").len();
        if found != header.patches {
            return Err(format!(
                "{who} has {found} patches in group {}, and its header says {}",
                header.id.0, header.patches
            ));
        }
    }
    Ok(())
}

/// What a device sees of counters is what its base holds, and what is pending on it.
pub(super) fn base_and_pending(who: &str, live: &Live, base: &Live, pending: &BTreeSet<usize>) -> Result<(), String> {
    for name in COUNTERS.into_iter().chain([COUNTERS_TOTAL]) {
        let (live, base) = (digits(live.get(&key(name))), digits(base.get(&key(name))));
        for at in 0..INCREMENTS_MAX {
            match (live[at] > 0, base[at] > 0) {
                (false, true) => return Err(format!("{who} has increment {at} of {name} in its base, and hides it")),
                (true, false) if !pending.contains(&at) => {
                    return Err(format!("{who} shows increment {at} in {name}, which is not pending any more"));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// The increments that a device sees, of each counter.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(BTreeSet<(&'static str, usize)>);

impl Seen {
    /// Looks again: what was seen once is still there, unless it was set aside.
    pub(super) fn again(&mut self, who: &str, live: &Live, kept: &KeptAside) -> Result<(), String> {
        let names = COUNTERS.into_iter().chain([COUNTERS_TOTAL]);
        let in_counter = |name| {
            let digits = digits(live.get(&key(name)));
            (0..INCREMENTS_MAX).filter(move |at| digits[*at] > 0).map(move |at| (name, at))
        };
        let before = std::mem::replace(&mut self.0, names.flat_map(in_counter).collect());
        match before.difference(&self.0).find(|(_, at)| !kept.increments.contains(at)) {
            Some((name, at)) => Err(format!("{who} saw increment {at} in {name}, and does not see it any more")),
            None => Ok(()),
        }
    }
}

fn is_partial(name: &RecordKey, value: &Value) -> bool {
    let whole = |fields: &BTreeMap<String, Value>| fields.contains_key("_id");
    match value {
        Value::Map(fields) if name.as_str().starts_with('f') => {
            !whole(fields) || matches!(fields.get("n"), Some(Value::Map(inner)) if !whole(inner))
        }
        _ => false,
    }
}

/// After healing: every token is there, or was seen and overwritten, or is kept aside on a device; every increment
/// counts once, or is kept aside.
pub(super) fn nothing_lost(live: &Live, kept: &KeptAside, ledger: &Ledger, increments: usize) -> Result<(), String> {
    let found: BTreeSet<_> = live.values().flat_map(|value| tokens(Some(value))).collect();
    for (token, who) in &ledger.written {
        if !found.contains(token) && !ledger.gone.contains(token) && !kept.tokens.contains(token) {
            return Err(format!("{token}, written by {who}, is lost and in no conflict log"));
        }
    }
    for (token, who) in &ledger.removed {
        if found.contains(token) && !kept.removals.contains(token) && !ledger.may_return.contains(token) {
            return Err(format!("{token}, removed by {who}, has come back"));
        }
    }
    for (token, who) in &ledger.deleted {
        if found.contains(token) {
            return Err(format!("{token}, pending on {who} when the dataset was deleted, came into the next one"));
        }
    }
    let counters = COUNTERS.map(|name| digits(live.get(&key(name))));
    for at in 0..increments.min(INCREMENTS_MAX) {
        let times: u8 = counters.iter().map(|digits| digits[at]).sum();
        let excused = kept.increments.contains(&at) || ledger.increments_gone.contains(&at);
        if times == 0 && !excused {
            return Err(format!("increment {at} is lost and in no conflict log"));
        }
        if times > 1 {
            return Err(format!("increment {at} counts {times} times"));
        }
    }
    Ok(())
}
