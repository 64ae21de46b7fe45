//! Every write of the simulated apps carries a token of its own, so that a lost one is lost by name. Increments of
//! counters are powers of four: a lost one leaves the digit 0, a doubled one the digit 2.

use std::collections::BTreeSet;

use sync_core::conflict::{LogEntry, Loss, Parked};
use sync_core::model::{RecordKey, Value};

/// Increments that fit into 64 bits.
pub(super) const INCREMENTS_MAX: usize = 31;

/// The tokens in a value.
pub(super) fn tokens(value: Option<&Value>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    fn walk(value: &Value, found: &mut BTreeSet<String>) {
        let mut word = |text: &str| {
            let is_token = |word: &&str| word.strip_prefix('w').is_some_and(|rest| rest.parse::<u32>().is_ok());
            found.extend(text.split_whitespace().filter(is_token).map(str::to_owned));
        };
        match value {
            Value::Text(text) => word(text),
            Value::List(items) => items.iter().for_each(|item| walk(item, found)),
            Value::Map(fields) => {
                for (name, field) in fields {
                    walk(&Value::Text(name.clone()), found);
                    walk(field, found);
                }
            }
            _ => {}
        }
    }
    if let Some(value) = value {
        walk(value, &mut found);
    }
    found
}

/// How often each increment is in a counter.
pub(super) fn digits(value: Option<&Value>) -> [u8; INCREMENTS_MAX] {
    let mut digits = [0; INCREMENTS_MAX];
    if let Some(Value::Int(int)) = value {
        let mut rest = *int;
        for digit in &mut digits {
            *digit = (rest & 3) as u8;
            rest >>= 2;
        }
    }
    digits
}

/// What is kept aside on a device: tokens, and increments as digits that are not 0.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptAside {
    pub(super) tokens: BTreeSet<String>,
    pub(super) increments: BTreeSet<usize>,
    /// Tokens whose removal or replacement is kept aside, and so did not happen.
    pub(super) removals: BTreeSet<String>,
}

impl KeptAside {
    pub(super) fn add_log(&mut self, entry: &LogEntry) {
        for Loss { key, under, value, .. } in &entry.losses {
            self.add(key, under.as_ref(), value.as_ref());
        }
    }

    pub(super) fn add_parked(&mut self, parked: &Parked) {
        for patch in &parked.patches {
            self.add(&patch.key, patch.under.as_ref(), patch.value.as_ref());
        }
    }

    pub(super) fn add(&mut self, key: &RecordKey, under: Option<&Value>, value: Option<&Value>) {
        let (before, after) = (tokens(under), tokens(value));
        self.removals.extend(before.difference(&after).cloned());
        self.tokens.extend(after);
        if key.as_str().starts_with('c') {
            let (under, value) = (digits(under), digits(value));
            self.increments.extend((0..INCREMENTS_MAX).filter(|at| value[*at] > under[*at]));
        }
    }
}
