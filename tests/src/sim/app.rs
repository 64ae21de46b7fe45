//! What the apps of the simulation write.

use std::collections::BTreeMap;

use sync_core::model::{RecordKey, Value};
use sync_core::policy::{OnDelete, Policies, Policy};

use crate::dice::Dice;
use crate::sim::tokens::{INCREMENTS_MAX, tokens};

/// Keys of records that stand alone; the first letter says the policy.
pub(super) const PLAIN: [&str; 9] = ["l0", "k0", "r0", "a0", "e0", "s0", "m0", "f0", "x0"];
/// The map among them: it has the most rules.
const MAP: &str = "f0";
/// Two records that are always written together.
pub(super) const PAIR: [&str; 2] = ["p0", "p1"];
/// Counters, and their total.
pub(super) const COUNTERS: [&str; 2] = ["c0", "c1"];
pub(super) const COUNTERS_TOTAL: &str = "ct";
/// Items of the ledger, and its total: a set of all tokens.
pub(super) const ITEMS: [&str; 6] = ["Ls0", "Ls1", "Lr0", "La0", "Lf0", "Lx0"];
pub(super) const ITEMS_TOTAL: &str = "Lt";

pub(super) fn policies(delete_wins: bool) -> Policies {
    let prefixes = [
        ("l", Policy::LastSyncWins),
        ("k", Policy::KeepLocal),
        ("r", Policy::KeepRemote),
        ("a", Policy::Ask),
        ("e", Policy::LatestEditWins),
        ("s", Policy::Set),
        ("m", Policy::Max),
        ("f", Policy::Fields),
        ("x", Policy::Text),
        ("p", Policy::LastSyncWins),
        ("c", Policy::Counter),
        ("Ls", Policy::Set),
        ("Lt", Policy::Set),
        ("Lr", Policy::KeepRemote),
        ("La", Policy::Ask),
        ("Lf", Policy::Fields),
        ("Lx", Policy::Text),
    ];
    Policies {
        dataset: None,
        prefixes: prefixes.into_iter().map(|(prefix, policy)| (prefix.to_owned(), policy)).collect(),
        fields: BTreeMap::from([("t".to_owned(), Policy::Set)]),
        on_delete: if delete_wins { OnDelete::DeleteWins } else { OnDelete::EditWins },
    }
}

pub(super) fn key(key: &str) -> RecordKey {
    RecordKey::parse(key).expect("it is a valid key")
}

/// The tokens and increments that the apps have used up.
#[derive(Clone, Debug)]
pub(super) struct Writers {
    tokens: u32,
    pub(super) increments: usize,
    /// Plain records that most writes go to, so that devices get into each other's way.
    often: [&'static str; 2],
}

pub(super) type Group = Vec<(RecordKey, Option<Value>)>;

impl Writers {
    pub(super) fn new(dice: &mut Dice) -> Self {
        let often = if dice.per_mille(300) { [MAP; 2] } else { [(); 2].map(|()| *dice.pick(&PLAIN)) };
        Self { tokens: 0, increments: 0, often }
    }

    fn token(&mut self) -> String {
        self.tokens += 1;
        format!("w{}", self.tokens)
    }

    /// A write of one or two records that stand alone, sometimes with the pair.
    pub(super) fn plain(&mut self, see: &dyn Fn(&str) -> Option<Value>, dice: &mut Dice) -> Group {
        let mut group = BTreeMap::new();
        let roll = dice.below(100);
        if !(80..95).contains(&roll) {
            let token = Value::Text(self.token());
            if !(15..97).contains(&roll) {
                group.extend(PAIR.map(|name| (key(name), Some(token.clone()))));
            }
        }
        let records = if (80..90).contains(&roll) { 2 } else { usize::from(roll >= 15) };
        for _ in 0..records {
            let name = if dice.per_mille(800) { *dice.pick(&self.often) } else { *dice.pick(&PLAIN) };
            group.insert(key(name), self.change(name, see(name), dice));
        }
        group.into_iter().collect()
    }

    fn change(&mut self, name: &str, seen: Option<Value>, dice: &mut Dice) -> Option<Value> {
        let removal = if name == MAP { 250 } else { 150 };
        if dice.per_mille(removal) && seen.is_some() && !name.starts_with('m') {
            return None;
        }
        let token = self.token();
        Some(match (name.as_bytes()[0], seen) {
            (b's', seen) => {
                let mut list = match seen {
                    Some(Value::List(list)) => list,
                    _ => Vec::new(),
                };
                if !list.is_empty() && dice.per_mille(400) {
                    list.remove(dice.below(list.len()));
                } else {
                    list.push(Value::Text(token));
                }
                Value::List(list)
            }
            (b'm', seen) => Value::Int(match seen {
                Some(Value::Int(seen)) => seen + 1 + dice.below(3) as i64,
                _ => i64::from(self.tokens),
            }),
            (b'f', seen) => {
                let mut fields = match seen {
                    Some(Value::Map(fields)) => fields,
                    _ => BTreeMap::from([("_id".to_owned(), Value::Int(1))]),
                };
                let text = Value::Text(token);
                match dice.below(10) {
                    0..=2 => drop(fields.insert("x".to_owned(), text)),
                    3 | 4 => drop(fields.insert("y".to_owned(), text)),
                    5 | 6 => {
                        let mut inner = match fields.remove("n") {
                            Some(Value::Map(inner)) => inner,
                            _ => BTreeMap::from([("_id".to_owned(), Value::Int(1))]),
                        };
                        inner.insert((*dice.pick(&["a", "b"])).to_owned(), text);
                        fields.insert("n".to_owned(), Value::Map(inner));
                    }
                    7 => drop(fields.insert("n".to_owned(), text)),
                    8 => {
                        let mut set = match fields.remove("t") {
                            Some(Value::List(set)) => set,
                            _ => Vec::new(),
                        };
                        set.push(text);
                        fields.insert("t".to_owned(), Value::List(set));
                    }
                    _ => drop(fields.remove("x")),
                }
                Value::Map(fields)
            }
            (b'x', Some(Value::Text(text))) => {
                let mut lines: Vec<&str> = text.split('\n').collect();
                let at = dice.below(lines.len() + 1);
                if dice.per_mille(250) && at < lines.len() && lines.len() > 1 {
                    lines.remove(at);
                    Value::Text(lines.join("\n"))
                } else {
                    lines.insert(at, &token);
                    Value::Text(lines.join("\n"))
                }
            }
            _ if dice.per_mille(60) => too_long(&token),
            _ => Value::Text(token),
        })
    }

    /// A transaction over the ledger: a token goes to an item and to the total, or an increment to a counter and to
    /// theirs.
    pub(super) fn ledger(&mut self, see: &dyn Fn(&str) -> Option<Value>, dice: &mut Dice) -> Group {
        let mut group = BTreeMap::new();
        if self.increments < INCREMENTS_MAX && dice.per_mille(400) {
            group.extend(self.increment(see, dice));
        }
        for _ in 0..1 + dice.below(6) / 4 {
            let name = *dice.pick(&ITEMS);
            if group.contains_key(&key(name)) {
                continue;
            }
            let token = self.token();
            let total = match group.remove(&key(ITEMS_TOTAL)).unwrap_or_else(|| see(ITEMS_TOTAL)) {
                Some(Value::List(mut list)) => {
                    list.push(Value::Text(token.clone()));
                    list
                }
                _ => vec![Value::Text(token.clone())],
            };
            group.insert(key(name), Some(add(name, see(name), &token, dice)));
            group.insert(key(ITEMS_TOTAL), Some(Value::List(total)));
        }
        if dice.per_mille(60) {
            group.insert(key("l0"), Some(too_long(&self.token())));
        }
        group.into_iter().collect()
    }

    /// One increment, sometimes in one transaction with a record that may be in conflict.
    pub(super) fn increment_beside(&mut self, see: &dyn Fn(&str) -> Option<Value>, dice: &mut Dice) -> Group {
        let mut group = self.increment(see, dice);
        if dice.per_mille(400) {
            let name = *dice.pick(&["k0", "r0", "e0"]);
            let change =
                if dice.per_mille(400) { Some(too_long(&self.token())) } else { self.change(name, see(name), dice) };
            group.push((key(name), change));
        }
        group
    }

    /// One increment of a counter and of the total of all counters.
    pub(super) fn increment(&mut self, see: &dyn Fn(&str) -> Option<Value>, dice: &mut Dice) -> Group {
        if self.increments >= INCREMENTS_MAX {
            return Vec::new();
        }
        let by = 1_i64 << (2 * self.increments);
        self.increments += 1;
        let plus = |name: &str| match see(name) {
            Some(Value::Int(int)) => Some(Value::Int(int.wrapping_add(by))),
            _ => Some(Value::Int(by)),
        };
        let name = *dice.pick(&COUNTERS);
        vec![(key(name), plus(name)), (key(COUNTERS_TOTAL), plus(COUNTERS_TOTAL))]
    }
}

/// A text that is longer than the server takes.
fn too_long(token: &str) -> Value {
    Value::Text(format!("{token} {}", "-".repeat(700)))
}

/// An item of the ledger with one more token.
fn add(name: &str, seen: Option<Value>, token: &str, dice: &mut Dice) -> Value {
    match (name.as_bytes()[1], seen) {
        (b'f', Some(Value::Map(mut fields))) => {
            fields.insert(token.to_owned(), Value::Int(1));
            Value::Map(fields)
        }
        (b'f', _) => Value::Map(BTreeMap::from([(token.to_owned(), Value::Int(1))])),
        (b'x', Some(Value::Text(text))) => {
            let mut lines: Vec<&str> = text.split('\n').collect();
            lines.insert(dice.below(lines.len() + 1), token);
            Value::Text(lines.join("\n"))
        }
        (b'x', _) => Value::Text(token.to_owned()),
        (_, Some(Value::List(mut list))) => {
            list.push(Value::Text(token.to_owned()));
            Value::List(list)
        }
        (_, _) => Value::List(vec![Value::Text(token.to_owned())]),
    }
}

/// The answer to a question about an item of the ledger: the remote's tokens and those of this device's group.
pub(super) fn merged_answer(remote: Option<&Value>, base: Option<&Value>, local: Option<&Value>) -> Value {
    let own: Vec<_> = tokens(local).difference(&tokens(base)).cloned().collect();
    let mut all = tokens(remote);
    all.extend(own);
    Value::List(all.into_iter().map(Value::Text).collect())
}
