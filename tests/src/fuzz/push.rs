//! Pushes to a dataset, one after the other, on a model of its records.

use std::collections::{BTreeMap, BTreeSet};

use sync_core::merge::push::{
    Answer, Commit, Outcome, Planned, PushContext, PushPlan, Review, Submission, View, plan_delete, plan_epoch,
    plan_purge, plan_push,
};
use sync_core::model::{
    DeviceId, EpochReason, Group, Limits, Position, Record, RecordKey, SyncCount, Timestamp, Value,
};
use sync_core::protocol::{Format, decode, encode};

use crate::dice::Dice;
use crate::fuzz::draw;
use crate::fuzz::input::Input;

/// What was pushed once, and what came of it.
struct Pushed {
    device: DeviceId,
    sequence: u64,
    groups: Vec<Group>,
    answer: Answer,
}

struct World {
    view: View,
    /// What commits alone have made of it.
    stored: BTreeMap<RecordKey, Record>,
    pushed: Vec<Pushed>,
    sequence: u64,
    limits: Limits,
    now: Timestamp,
    random: Dice,
}

/// The bytes say what is pushed, and what an operator does.
pub fn push(data: &[u8]) {
    let mut input = Input::new(data);
    let limits = Limits {
        value_bytes_max: *input.pick(&[1 << 20, 12]),
        group_patches_max: *input.pick(&[1_024, 3]),
        group_bytes_max: *input.pick(&[1 << 20, 40]),
        records_max: *input.pick(&[1_000, 5]),
        ..Limits::default()
    };
    let mut world = World {
        view: View::default(),
        stored: BTreeMap::new(),
        pushed: Vec::new(),
        sequence: 0,
        limits,
        now: Timestamp(1_000_000),
        random: Dice::new(1),
    };
    while !input.is_empty() {
        world.step(&mut input);
        world.check();
    }
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        self.now = self.now.plus_ms(1);
        let Self { view, limits, now, random, .. } = self;
        let head = &view.head;
        let mut context = PushContext { now: *now, random, limits };
        let commit = match input.below(16) {
            0 => return self.now = self.now.plus_ms(24 * 60 * 60 * 1_000),
            1 if head.exists() => plan_delete(head, None, &mut context),
            2 => plan_purge(head, SyncCount(head.lineage.count.0.saturating_sub(input.byte().into()))),
            3 if head.exists() => {
                let why = *input.pick(&[EpochReason::Fenced, EpochReason::Ahead, EpochReason::RolledBack]);
                plan_epoch(head, why, &mut context)
            }
            4 | 5 if !self.pushed.is_empty() => return self.repeat(input),
            _ => return self.push(input),
        };
        self.commit(commit);
    }

    fn push(&mut self, input: &mut Input<'_>) {
        let expected = self.view.head.lineage.position();
        let mut planned = Planned::default();
        for _ in 0..=input.below(6).saturating_sub(3) {
            let count = self.view.head.lineage.count;
            let groups: Vec<_> = (0..input.below(4)).map(|_| draw::group(input, count, self.now)).collect();
            let reviews = if input.one_in(6) { reviews(input, &groups, self.now) } else { Vec::new() };
            let device = draw::device(input);
            self.sequence += 1;
            let sequence = (!input.one_in(8)).then_some(self.sequence);
            let submission = Submission { device, sequence, groups: &groups, reviews: &reviews };
            let before = self.view.clone();
            let PushPlan::Accept(answer) = self.plan(&mut planned, &submission) else { panic!("it was taken for old") };
            self.check_answer(&before, &submission, &answer);
            if let Some(sequence) = sequence {
                self.pushed.push(Pushed { device, sequence, groups, answer });
            }
        }
        if !planned.is_empty() {
            let commit = planned.into_commit(expected, &self.view);
            self.store(&commit);
        }
    }

    fn plan(&mut self, planned: &mut Planned, submission: &Submission<'_>) -> PushPlan {
        let Self { view, limits, now, random, .. } = self;
        plan_push(view, planned, submission, &mut PushContext { now: *now, random, limits })
    }

    /// An earlier push comes again, as it was or with something else in it.
    fn repeat(&mut self, input: &mut Input<'_>) {
        let at = input.below(self.pushed.len().min(256));
        let at = self.pushed.len() - 1 - at;
        let Pushed { device, sequence, mut groups, answer } = {
            let Pushed { device, sequence, groups, answer } = &self.pushed[at];
            Pushed { device: *device, sequence: *sequence, groups: groups.clone(), answer: answer.clone() }
        };
        let is_same = !input.flag();
        if !is_same {
            groups.push(draw::group(input, self.view.head.lineage.count, self.now));
        } else if let Some(patch) = groups.iter_mut().flat_map(|group| &mut group.patches).next() {
            // Bases may be renewed.
            patch.base = SyncCount::NEVER;
        }
        let remembered = self.view.pushes.get(&device).is_some_and(|all| all.iter().any(|it| it.sequence == sequence));
        let before = self.view.clone();
        let mut planned = Planned::default();
        let submission = Submission { device, sequence: Some(sequence), groups: &groups, reviews: &[] };
        let expected = if is_same && remembered { PushPlan::Repeat(answer) } else { PushPlan::Copied };
        assert_eq!(self.plan(&mut planned, &submission), expected);
        assert!(planned.is_empty() && same(&before, &self.view), "a repeat changed something");
    }

    fn commit(&mut self, commit: Commit) {
        self.store(&commit);
        let Commit { head, clear, purge, .. } = commit;
        if clear {
            self.view.records.clear();
        }
        if purge {
            self.view.records.retain(|_, record| record.value().is_some() || record.sync_count > head.floor);
        }
        self.view.head = head;
    }

    fn store(&mut self, commit: &Commit) {
        if commit.clear {
            self.stored.clear();
        }
        self.stored.extend(commit.records.iter().map(|record| (record.key.clone(), record.clone())));
        if commit.purge {
            self.stored.retain(|_, record| record.value().is_some() || record.sync_count > commit.head.floor);
        }
    }

    /// What holds at any time.
    fn check(&self) {
        let head = &self.view.head;
        let live = || self.view.records.values().filter_map(|record| Some((record, record.value()?)));
        let bytes: usize = live().map(|(record, value)| record.key.as_str().len() + value.encoded_len()).sum();
        assert_eq!(head.digest, draw::digest(self.view.records.values()));
        assert_eq!((head.records, head.bytes), (live().count() as u64, bytes as u64));
        assert!(head.records <= self.limits.records_max);
        assert_eq!(self.stored, self.view.records, "what was committed is what was planned");
        for (record, value) in live() {
            assert!(record.sync_count <= head.lineage.count);
            assert_eq!(Value::from_bytes(&value.to_bytes()).as_ref(), Ok(value));
            assert!(value.encoded_len() <= self.limits.value_bytes_max);
        }
    }

    fn check_answer(&self, before: &View, submission: &Submission<'_>, answer: &Answer) {
        let Submission { device, groups, .. } = *submission;
        let next = before.head.lineage.count.next();
        assert_eq!(answer.outcomes.len(), groups.len());
        assert_eq!(decode::<Answer>(&encode(answer, Format::MessagePack), Format::MessagePack).as_ref(), Ok(answer));
        let accepted = groups.iter().zip(&answer.outcomes).filter(|(_, outcome)| is_accepted(outcome));
        let touched: BTreeSet<_> =
            accepted.flat_map(|(group, _)| group.patches.iter().map(|patch| &patch.key)).collect();
        let mut is_written = false;
        for (key, record) in &self.view.records {
            let earlier = before.records.get(key);
            if earlier == Some(record) {
                continue;
            }
            is_written = true;
            assert!(touched.contains(key), "{key} is of no group that was accepted");
            assert_eq!((record.sync_count, record.modified_by), (next, Some(device)));
            assert!(record.device_time <= self.now, "an edit is later than the server's clock");
            assert!(earlier.is_none_or(|earlier| earlier.device_time <= record.device_time), "a time fell");
        }
        let count = if is_written { next } else { before.head.lineage.count };
        assert_eq!(self.view.head.lineage.count, count);
        assert!(before.records.keys().all(|key| self.view.records.contains_key(key)), "a record is gone");
        let position = self.view.head.lineage.position();
        assert_eq!(answer.ack, position);
        assert!(position.is_none_or(|position: Position| self.view.head.lineage.contains(position)));
        for (group, outcome) in groups.iter().zip(&answer.outcomes) {
            assert!(!is_accepted(outcome) || self.view.changes.contains_key(&group.change_id), "it is forgotten");
            if let Outcome::Conflict { keys } = outcome {
                assert!(keys.iter().all(|key| group.patches.iter().any(|patch| patch.key == *key)));
            }
        }
    }
}

fn same(before: &View, after: &View) -> bool {
    let pushes = |view: &View| view.pushes.values().filter(|all| !all.is_empty()).cloned().collect::<Vec<_>>();
    (&before.head, &before.records, &before.changes) == (&after.head, &after.records, &after.changes)
        && pushes(before) == pushes(after)
}

const fn is_accepted(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Applied { .. } | Outcome::Rewritten { .. })
}

/// What a hook says.
fn reviews(input: &mut Input<'_>, groups: &[Group], now: Timestamp) -> Vec<Review> {
    let review = |_: &Group| match input.below(3) {
        0 => Review::Accept,
        1 => Review::Refuse { code: "Unwanted".to_owned(), message: String::new() },
        _ => Review::Rewrite((0..input.below(3)).map(|_| draw::patch(input, SyncCount::ZERO, now)).collect()),
    };
    groups.iter().map(review).collect()
}
