//! What a server makes of a push.

use sync_core::merge::push::{Head, Outcome, Planned, PushContext, PushPlan, Review, Submission, View, plan_push};
use sync_core::model::{Digest, EpochReason, Limits, Lineage, Overwritten, SyncCount, Timestamp, Value};

use crate::notation::{Counter, device, epoch, groups, key, record, show, tag};

/// A dataset at count 5 with these records.
fn view(stored: &[&str]) -> View {
    let records: Vec<_> = stored.iter().map(|text| record(text)).collect();
    let mut lineage = Lineage::default();
    lineage.open(epoch(1), EpochReason::Created);
    for count in 1..=5 {
        lineage.advance(tag(count));
    }
    let mut head = Head { lineage, modified_at: Timestamp(900), ..Head::default() };
    for record in &records {
        head.digest = head.digest.plus(record);
        if let Some(value) = record.value() {
            head.records += 1;
            head.bytes += (record.key.as_str().len() + value.encoded_len()) as u64;
        }
    }
    View { head, records: records.into_iter().map(|it| (it.key.clone(), it)).collect(), ..View::default() }
}

struct Pushing {
    view: View,
    planned: Planned,
    random: Counter,
    limits: Limits,
    reviews: Vec<Review>,
}

impl Pushing {
    fn on(stored: &[&str]) -> Self {
        Self {
            view: view(stored),
            planned: Planned::default(),
            random: Counter(100),
            limits: Limits::default(),
            reviews: Vec::new(),
        }
    }

    /// Pushes at the moment 1000; checks digest and totals; shows the outcomes and what was written.
    #[track_caller]
    fn push(&mut self, by: u8, sequence: u64, pushed: &str, first: u8) -> String {
        let mut context = PushContext { now: Timestamp(1000), random: &mut self.random, limits: &self.limits };
        let groups = groups(pushed, first);
        let plan = {
            let submission =
                Submission { device: device(by), sequence: Some(sequence), groups: &groups, reviews: &self.reviews };
            plan_push(&mut self.view, &mut self.planned, &submission, &mut context)
        };
        self.check_totals();
        let (answer, word) = match plan {
            PushPlan::Accept(answer) => (answer, ""),
            PushPlan::Repeat(answer) => (answer, "again: "),
            PushPlan::Copied => return "copied".to_owned(),
        };
        let outcomes: Vec<_> = answer.outcomes.iter().map(show_outcome).collect();
        format!("{word}{}", outcomes.join(" | "))
    }

    #[track_caller]
    fn check_totals(&self) {
        let live = || self.view.records.values().filter(|record| record.value().is_some());
        let size = |value: &Value| value.encoded_len() as u64;
        let bytes: u64 = live().map(|record| record.key.as_str().len() as u64 + record.value().map_or(0, size)).sum();
        let digest = live().fold(Digest::default(), |digest, record| digest.plus(record));
        let Head { digest: kept, records, bytes: counted, .. } = &self.view.head;
        assert_eq!((*kept, *records, *counted), (digest, live().count() as u64, bytes));
    }

    fn written(&self) -> String {
        let written: Vec<_> = self.planned.written.iter().map(|key| show(&self.view.records[key])).collect();
        written.join(" ")
    }
}

fn show_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Applied { merged, overwritten } => {
            let mut text = if *merged { "merged" } else { "applied" }.to_owned();
            for Overwritten { key, path, value } in overwritten {
                text += &format!(
                    " over {key}{}={}",
                    path.iter().map(|name| format!("/{name}")).collect::<String>(),
                    value.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_json)
                );
            }
            text
        }
        Outcome::Rewritten { keys, .. } => {
            keys.iter().fold("rewritten".to_owned(), |text, key| format!("{text} {key}"))
        }
        Outcome::Conflict { keys } => keys.iter().fold("conflict".to_owned(), |text, key| format!("{text} {key}")),
        Outcome::Refused(refusal) => format!("refused: {refusal}"),
    }
}

/// Records of a dataset at count 5, a push, what became of its groups, and what was written.
#[track_caller]
fn check(stored: &[&str], pushed: &str, outcomes: &str, written: &str) {
    let mut pushing = Pushing::on(stored);
    assert_eq!(pushing.push(1, 1, pushed, 1), outcomes);
    assert_eq!(pushing.written(), written);
    let count = if written.is_empty() { 5 } else { 6 };
    assert_eq!(pushing.view.head.lineage.count, SyncCount(count), "one count for all of it, none for nothing");
}

#[track_caller]
fn check_limit(change: impl Fn(&mut Limits), stored: &[&str], pushed: &str, outcomes: &str) {
    let mut pushing = Pushing::on(stored);
    change(&mut pushing.limits);
    assert_eq!(pushing.push(1, 1, pushed, 1), outcomes);
}

#[test]
fn a_group_that_is_refused_by_review_is_not_written_and_one_that_is_rewritten_writes_what_the_review_says() {
    let mut pushing = Pushing::on(&["a@3=1"]);
    let refusal = Review::Refuse { code: "Profanity".to_owned(), message: "mind your language".to_owned() };
    let other = groups("set a@3=7; set z=8", 1).remove(0).patches;
    pushing.reviews = vec![refusal, Review::Rewrite(other), Review::Accept];
    let outcomes = pushing.push(1, 1, "set b=1 | set a@3=2; set c=3 | set d=4", 1);
    assert_eq!(outcomes, "refused: mind your language | rewritten a z | applied");
    assert_eq!(pushing.written(), "a@6=7 c@6=3 d@6=4", "and a group keeps to what it touches");
    pushing.reviews.clear();
    let again = pushing.push(1, 1, "set b=1 | set a@3=2; set c=3 | set d=4", 1);
    assert_eq!(again, "again: refused: mind your language | rewritten a z | applied", "the answer stays the same");
}

#[test]
fn what_is_not_numbered_is_not_remembered_as_a_push_but_its_changes_are() {
    let mut pushing = Pushing::on(&["a@3=1"]);
    let submit = |pushing: &mut Pushing| {
        let mut context = PushContext { now: Timestamp(1000), random: &mut pushing.random, limits: &pushing.limits };
        let groups = groups("merge a={\"add\":5}", 1);
        let submission = Submission { device: device(1), sequence: None, groups: &groups, reviews: &[] };
        plan_push(&mut pushing.view, &mut pushing.planned, &submission, &mut context);
    };
    submit(&mut pushing);
    submit(&mut pushing);
    assert_eq!(pushing.written(), "a@6=6");
    assert!(pushing.planned.pushes.is_empty() && !pushing.planned.is_empty());
}

#[test]
fn a_patch_on_the_seen_count_is_written() {
    check(&["a@3=1"], "put a@3=2", "applied", "a@6=2");
    check(&["a@3=1"], "put a@3-", "applied", "a@6-");
    check(&["a@3=1"], "edit a@3=2", "applied", "a@6=2");
    check(&["a@3=1"], "set a@3=2", "applied", "a@6=2");
    check(&[], "put a=1 | put b=2", "applied | applied", "a@6=1 b@6=2");
}

#[test]
fn a_patch_on_another_count_is_a_conflict_if_it_is_compared_by_base() {
    check(&["a@3=1"], "put a@2=2", "conflict a", "");
    check(&["a@3=1"], "put a=2", "conflict a", "");
    check(&["a@3=1"], "put a@2-", "conflict a", "");
    check(&["a@3=1"], "put a@9007199254740991=2", "conflict a", "");
    check(&[], "put a@2=2", "conflict a", "");
}

#[test]
fn a_patch_that_is_compared_by_nothing_overwrites_and_says_what() {
    check(&["a@3=1"], "set a@2=2", "merged over a=1", "a@6=2");
    check(&["a@3=1"], "set a@2-", "merged over a=1", "a@6-");
    check(&["a@3=1"], "set a@2=1", "merged", "a@6=1");
    check(&["a@3-"], "set a@2=1", "merged over a=nothing", "a@6=1");
}

#[test]
fn base_zero_is_absent_or_removed() {
    check(&["a@3-"], "put a=1", "applied", "a@6=1");
    check(&["a@3-"], "put a@3=1", "conflict a", "");
    check(&["a@3-"], "edit a=1", "applied", "a@6=1");
    check(&["a@3-"], r#"merge a={"add":1}"#, "applied", "a@6=1");
}

#[test]
fn a_removal_of_nothing_writes_nothing() {
    check(&["a@3-"], "put a@2-", "applied", "");
    check(&[], "set a@2-", "applied", "");
    check(&["b@1=1"], "put a@2-; put b@1=2", "applied", "b@6=2");
}

#[test]
fn the_later_edit_wins_but_never_over_the_servers_clock() {
    check(&["a@3~500=1"], "edit a@2~499=2", "conflict a", "");
    check(&["a@3~500=1"], "edit a@2~500=2", "merged over a=1", "a@6=2");
    check(&["a@3~500-"], "edit a@2~499=2", "conflict a", "");
    check(&["a@3~1000=1"], "edit a@2~9999=2", "merged over a=1", "a@6=2");
    check(&["a@3~1001=1"], "edit a@2~9999=2", "conflict a", "");
    check(&["a@3~500=1"], "edit a@2~501-", "merged over a=1", "a@6-");
}

#[test]
fn a_patch_on_the_current_base_wins_whatever_its_clock_says_and_the_stored_time_stays() {
    for (stored, pushed, time) in [
        ("a@3~500=1", "edit a@3~10=2", 500),
        ("a@3~500=1", "put a@3~10=2", 500),
        ("a@3~500=1", "set a@2~10=2", 500),
        ("a@3~500=1", r#"merge a@3~10={"add":1}"#, 500),
        ("a@3~500=1", "edit a@3~600=2", 600),
        ("a@3~500=1", "edit a@3~9999=2", 1000),
    ] {
        let mut pushing = Pushing::on(&[stored]);
        pushing.push(1, 1, pushed, 1);
        assert_eq!(pushing.view.records[&key("a")].device_time, Timestamp(time), "{stored} {pushed}");
    }
}

#[test]
fn a_difference_is_merged_into_whatever_is_there() {
    check(&["a@3=10"], r#"merge a@2={"add":5}"#, "merged", "a@6=15");
    check(&["a@3=10"], r#"merge a@3={"add":5}"#, "applied", "a@6=15");
    check(&[r#"a@3=["x","y"]"#], r#"merge a@1={"set":{"insert":["z"],"remove":["x"]}}"#, "merged", r#"a@6=["y","z"]"#);
    check(&["a@3=10"], r#"merge a@2={"max":7}"#, "merged", "a@6=10");
    check(&["a@3=10"], r#"merge a@2={"min":7}"#, "merged over a=10", "a@6=7");
    check(&[], r#"merge a={"add":5}"#, "applied", "a@6=5");
}

#[test]
fn fields_say_what_they_overwrote_unseen() {
    let delta = r#"{"fields":{"x":{"set":9},"y":"remove","z":{"set":3}}}"#;
    check(
        &[r#"a@3={"x":1,"y":2,"z":3}"#],
        &format!("merge a@2={delta}"),
        "merged over a/x=1 over a/y=2",
        r#"a@6={"x":9,"z":3}"#,
    );
    check(&[r#"a@3={"x":1,"y":2,"z":3}"#], &format!("merge a@3={delta}"), "applied", r#"a@6={"x":9,"z":3}"#);
}

#[test]
fn a_difference_that_does_not_fit_is_a_conflict() {
    check(&[r#"a@3="text""#], r#"merge a@3={"add":5}"#, "conflict a", "");
    check(&["a@3-"], r#"merge a={"fields":{"x":{"set":1}}}"#, "conflict a", "");
    check(&[r#"a@3={"n":"text"}"#], r#"merge a@3={"fields":{"n":{"merge":{"add":1}}}}"#, "conflict a", "");
}

#[test]
fn an_overflow_is_refused_and_never_replaced() {
    let full = "a@3=9223372036854775807";
    check(&[full], r#"merge a@3={"add":1}"#, "refused: the counter in `a` would overflow 64 bits", "");
    check(&[full], r#"merge a@3={"add":-1}"#, "applied", r#"a@6={"$int":"9223372036854775806"}"#);
}

#[test]
fn a_group_is_all_or_nothing_and_holds_up_no_other() {
    check(&["a@3=1"], "put b=1; put a@2=2 | put c=3", "conflict a | applied", "c@6=3");
    check(&["a@3=1", "b@4=1"], "put b@3=1; put a@2=2; put c=1", "conflict b a", "");
    check(&[], "put a=1; put a=2", "refused: a group has at most one patch for each record", "");
}

#[test]
fn groups_are_decided_in_order_each_on_what_the_ones_before_it_wrote() {
    check(&["a@3=1"], r#"merge a@3={"add":1} | merge a@3={"add":10}"#, "applied | merged", "a@6=12");
    check(&["a@3=1"], "put a@3=2 | put a@3=3", "applied | conflict a", "a@6=2");
    check(&["a@3=1"], "put a@3- | put a=3", "applied | applied", "a@6=3");
}

#[test]
fn a_repeated_push_gets_the_same_answer() {
    let mut pushing = Pushing::on(&["a@3=1"]);
    let pushed = r#"merge a@3={"add":1} | put a@2=0"#;
    assert_eq!(pushing.push(1, 4, pushed, 1), "applied | conflict a");
    assert_eq!(pushing.push(1, 4, pushed, 1), "again: applied | conflict a");
    // Bases may be renewed after a restore.
    assert_eq!(pushing.push(1, 4, r#"merge a@6={"add":1} | put a@0=0"#, 1), "again: applied | conflict a");
    assert_eq!((pushing.written().as_str(), pushing.view.head.lineage.count), ("a@6=2", SyncCount(6)));
}

#[test]
fn another_push_of_the_same_number_or_an_older_number_was_copied() {
    let mut pushing = Pushing::on(&[]);
    assert_eq!(pushing.push(1, 4, "put a=1", 1), "applied");
    assert_eq!(pushing.push(1, 4, "put a=2", 1), "copied");
    assert_eq!(pushing.push(1, 4, "put a=1", 2), "copied");
    assert_eq!(pushing.push(1, 3, "put b=1", 3), "copied");
    assert_eq!(pushing.push(2, 3, "put b=1", 3), "applied");
    assert_eq!(pushing.push(1, 9, "put c=1", 4), "applied");
    assert_eq!(pushing.written(), "a@6=1 b@7=1 c@8=1");
}

#[test]
fn only_so_many_pushes_are_remembered() {
    let mut pushing = Pushing::on(&[]);
    for sequence in 1..=65 {
        assert_eq!(
            pushing.push(1, sequence, "set a=1", sequence as u8),
            if sequence == 1 { "applied" } else { "merged" }
        );
    }
    assert_eq!(pushing.view.pushes[&device(1)].len(), 64);
    assert_eq!(pushing.push(1, 1, "set a=1", 1), "copied");
    assert_eq!(pushing.push(1, 2, "set a=1", 2), "again: merged");
}

#[test]
fn a_change_id_counts_once_whoever_sends_it() {
    let mut pushing = Pushing::on(&["a@3=1"]);
    assert_eq!(pushing.push(1, 1, r#"merge a@3={"add":1}"#, 1), "applied");
    assert_eq!(pushing.push(2, 1, r#"merge a@3={"add":1} | set b=2"#, 1), "applied | applied");
    assert_eq!(pushing.written(), "a@6=2 b@7=2");
    assert_eq!(pushing.push(3, 1, r#"merge a@3={"add":1}"#, 1), "applied");
    assert_eq!(pushing.view.head.lineage.count, SyncCount(7));
}

#[test]
fn the_change_id_of_a_rejected_group_is_not_spent() {
    let mut pushing = Pushing::on(&["a@3=1"]);
    assert_eq!(pushing.push(1, 1, "put a@2=2", 1), "conflict a");
    assert_eq!(pushing.push(1, 2, "put a@3=2", 1), "applied");
}

#[test]
fn limits_are_refused_with_a_reason() {
    let few = |limits: &mut Limits| limits.group_patches_max = 1;
    check_limit(few, &[], "put a=1; put b=1 | put a=1", "refused: a group has at most 1 patches | applied");
    let short = |limits: &mut Limits| limits.value_bytes_max = 2;
    let text = "refused: the value of `a` has 3 bytes, and at most 2 are allowed";
    check_limit(short, &[], r#"put a="xx" | put a="x""#, &format!("{text} | applied"));
    check_limit(short, &["a@3=200"], r#"merge a@3={"add":100}"#, text);
    let small = |limits: &mut Limits| limits.group_bytes_max = 4;
    let text = "refused: the group has 6 bytes of keys and values, and at most 4 are allowed";
    check_limit(small, &[], "put a=1; put b=1; put c=1 | put a=1; put b=1", &format!("{text} | applied"));
}

#[test]
fn a_full_dataset_takes_changes_and_removals_but_no_more_records() {
    let full = |limits: &mut Limits| limits.records_max = 2;
    let stored = &["a@3=1", "b@3=1", "c@3-"];
    let text = "refused: a dataset has at most 2 records";
    check_limit(full, stored, "put c=1", text);
    check_limit(full, stored, "put a@3=2; put b@3-", "applied");
    check_limit(full, stored, "put b@3- | put c=1", "applied | applied");
    check_limit(full, stored, "put b@3-; put c=1", "applied");
}

#[test]
fn the_first_commit_of_a_day_opens_an_epoch() {
    let mut pushing = Pushing::on(&[]);
    pushing.view.head.modified_at = Timestamp(-1);
    pushing.push(1, 1, "put a=1", 1);
    let line = &pushing.view.head.lineage;
    assert_eq!(line.entries.last().map(|entry| (entry.start, entry.why)), Some((SyncCount(5), EpochReason::Day)));
    let mut new = Pushing::on(&[]);
    new.view = View::default();
    new.push(1, 1, "put a=1", 1);
    let line = &new.view.head.lineage;
    assert_eq!(line.entries.last().map(|entry| (entry.start, entry.why)), Some((SyncCount(0), EpochReason::Created)));
}
