//! What the apps of a run do: write, answer questions, discard and retry what is parked.

use std::collections::BTreeSet;

use sync_core::conflict::{Parked, Question, Resolution};
use sync_core::merge::stack::Context;
use sync_core::merge::write::{WriteError, plan_discard, plan_resolve, plan_retry, plan_write, questions};
use sync_core::model::{RecordKey, Value};

use super::{Checked, World};
use crate::sim::app::{self, Group, merged_answer};
use crate::sim::options::Mix;
use crate::sim::tokens::{INCREMENTS_MAX, KeptAside, digits, tokens};

/// An answer to a question that the app gives later than it was shown.
pub(super) struct LateAnswer {
    place: usize,
    question: Question,
    resolution: Resolution,
}

impl World {
    pub(super) fn app_writes(&mut self, place: usize) -> Checked {
        let guest = self.options.mix == Mix::Claimed && self.dice.per_mille(400);
        let replica = if guest { &self.devices[place].guest } else { &self.devices[place].replica };
        let live = replica.visible();
        let see = |name: &str| live.get(&app::key(name)).cloned();
        let ledger = match self.options.mix {
            Mix::Ledger => 800,
            _ => 250,
        };
        let group = if self.dice.per_mille(ledger) {
            self.writers.ledger(&see, &mut self.dice)
        } else if self.dice.per_mille(400) {
            self.writers.increment_beside(&see, &mut self.dice)
        } else {
            self.writers.plain(&see, &mut self.dice)
        };
        self.write(place, guest, group)
    }

    fn write(&mut self, place: usize, guest: bool, group: Group) -> Checked {
        let now = self.now_of(place);
        let device = &mut self.devices[place];
        let limits = device.limits();
        let mut context = Context { now, random: &mut self.dice };
        let replica = if guest { &mut device.guest } else { &mut device.replica };
        let before = replica.visible();
        let told = sentence(&group);
        match plan_write(&*replica, &limits, group.clone(), &mut context) {
            Ok(plan) => drop(replica.execute(&plan)),
            Err(WriteError::Limit(_)) => {
                for (key, value) in group {
                    // Refused before it was written: it never was.
                    self.forget(&key, before.get(&key), value.as_ref());
                }
                return Ok(());
            }
            Err(error) => return Err(format!("{}: {error}", device.name)),
        }
        let after = replica.visible();
        for (key, value) in &group {
            if after.get(key) != value.as_ref() && !is_set(key) {
                return Err(format!("{} does not see what it wrote under {key}", device.name));
            }
            self.ledger.write(&device.name, now, key, before.get(key), value.as_ref());
        }
        let name = self.devices[place].name.clone();
        self.trace.tell(&name, format!("{}writes {told}", if guest { "(guest) " } else { "" }));
        self.trace.count("writes");
        Ok(())
    }

    /// A write that did not happen: its increment is not missed.
    fn forget(&mut self, key: &RecordKey, before: Option<&Value>, value: Option<&Value>) {
        if key.as_str().starts_with('c') {
            let (before, after) = (digits(before), digits(value));
            self.ledger.increments_gone.extend((0..INCREMENTS_MAX).filter(|at| after[*at] > before[*at]));
        }
    }

    pub(super) fn app_answers(&mut self, place: usize, all: bool) -> Checked {
        for late in std::mem::take(&mut self.late_answers) {
            self.resolve(late)?;
        }
        let asked = questions(&self.devices[place].replica).map_err(|error| error.to_string())?;
        for question in asked {
            let is_ledger = question.key.as_str().starts_with('L');
            let resolution = match self.dice.below(10) {
                0..3 => Resolution::KeepRemote,
                3..6 if !is_ledger => Resolution::KeepLocal,
                _ if is_ledger => Resolution::Value(Some(merged_answer(
                    question.remote.as_ref(),
                    question.base.as_ref(),
                    question.local.as_ref(),
                ))),
                _ => Resolution::Value(question.local.clone()),
            };
            let answer = LateAnswer { place, question, resolution };
            if !all && self.dice.per_mille(400) {
                self.late_answers.push(answer);
            } else {
                self.resolve(answer)?;
            }
        }
        let parked: Vec<_> = self.devices[place].replica.parked_units().keys().copied().collect();
        for id in parked {
            if all || self.dice.per_mille(150) {
                self.discard(place, id)?;
            } else if self.dice.per_mille(400) && self.may_retry(place, id) {
                self.retry(place, id)?;
            }
        }
        Ok(())
    }

    fn resolve(&mut self, answer: LateAnswer) -> Checked {
        let LateAnswer { place, question, resolution } = answer;
        let now = self.now_of(place);
        let device = &mut self.devices[place];
        let limits = device.limits();
        let mut context = Context { now, random: &mut self.dice };
        self.trace
            .tell(&device.name, format!("answers the question about {}: {}", question.key, resolved(&resolution)));
        let chosen = match &resolution {
            Resolution::KeepRemote => None,
            Resolution::KeepLocal => question.local.as_ref(),
            Resolution::Value(value) => value.as_ref(),
        };
        let (chosen, remote) = (tokens(chosen), tokens(question.remote.as_ref()));
        let is_older = |token: &String| remote.iter().any(|newer| self.ledger.has_seen(newer, token));
        // Who answers has seen both.
        let brought_back: Vec<_> = chosen.into_iter().filter(is_older).collect();
        let stands = questions(&device.replica).is_ok_and(|open| open.iter().any(|open| is_shown(open, &question)));
        match plan_resolve(&device.replica, &question, resolution, &limits, &mut context) {
            Ok(_) if !stands => return Err(format!("{} took an answer about what it did not show", device.name)),
            Ok(plan) => {
                device.execute(&plan);
                self.ledger.may_return.extend(brought_back);
            }
            Err(WriteError::Stale | WriteError::NotFound(_)) => self.trace.count("late answers"),
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    fn discard(&mut self, place: usize, id: u64) -> Checked {
        let device = &mut self.devices[place];
        let mut kept = KeptAside::default();
        device.replica.parked_units().get(&id).into_iter().for_each(|parked| kept.add_parked(parked));
        self.ledger.gone.extend(kept.tokens);
        self.ledger.increments_gone.extend(kept.increments);
        for token in kept.removals {
            self.ledger.removed.remove(&token);
        }
        let plan = plan_discard(&device.replica, id).map_err(|error| error.to_string())?;
        self.trace.tell(&device.name, format!("discards the parked unit {id}"));
        device.execute(&plan);
        Ok(())
    }

    fn retry(&mut self, place: usize, id: u64) -> Checked {
        let now = self.now_of(place);
        let device = &mut self.devices[place];
        let limits = device.limits();
        let mut kept = KeptAside::default();
        device.replica.parked_units().get(&id).into_iter().for_each(|parked| kept.add_parked(parked));
        let mut context = Context { now, random: &mut self.dice };
        match plan_retry(&device.replica, device.id, id, &limits, &mut context) {
            Ok(plan) => device.execute(&plan),
            Err(WriteError::Limit(_)) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        }
        self.trace.tell(&device.name, format!("retries the parked unit {id}"));
        for token in kept.tokens {
            self.ledger.deleted.remove(&token);
        }
        Ok(())
    }

    /// Not a unit with items of the ledger: of these, one that was written since would stay behind alone. Nor one that
    /// does not fit into one group: it comes back as several. Nor one that may be built on another: that comes first.
    fn may_retry(&self, place: usize, id: u64) -> bool {
        let units = self.devices[place].replica.parked_units();
        let keys = |parked: &Parked| parked.patches.iter().map(|patch| patch.key.clone()).collect::<BTreeSet<_>>();
        let own = units.get(&id).map(keys).unwrap_or_default();
        let stands_alone = units.range(..id).all(|(_, earlier)| keys(earlier).is_disjoint(&own));
        let is_ledger = own.iter().any(|key| key.as_str().starts_with('L'));
        stands_alone && !is_ledger && own.len() <= self.options.group_patches
    }
}

/// Whether a question is still the one that was shown.
fn is_shown(open: &Question, shown: &Question) -> bool {
    open.key == shown.key && open.remote_count == shown.remote_count && open.local == shown.local
}

fn is_set(key: &RecordKey) -> bool {
    ["s", "Ls", "Lt", "f"].iter().any(|prefix| key.as_str().starts_with(prefix))
}

fn sentence(group: &Group) -> String {
    let one = |(key, value): &(RecordKey, Option<Value>)| match value {
        Some(value) => {
            let json: String = value.to_json().chars().take(60).collect();
            format!("{key}={json}")
        }
        None => format!("{key} removed"),
    };
    group.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn resolved(resolution: &Resolution) -> String {
    match resolution {
        Resolution::KeepLocal => "local".to_owned(),
        Resolution::KeepRemote => "remote".to_owned(),
        Resolution::Value(Some(value)) => value.to_json(),
        Resolution::Value(None) => "removed".to_owned(),
    }
}
