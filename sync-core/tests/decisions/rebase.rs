//! What becomes of a pending patch when the value below it changes.

use sync_core::conflict::{Cause, Side};
use sync_core::merge::rebase::{Rebased, Surroundings, rebase};
use sync_core::merge::replica::PendingPatch;
use sync_core::model::{Timestamp, Value};
use sync_core::policy::{OnDelete, Policies, Policy};

use crate::notation::{json, key, record};

/// A policy; base, local and remote (`-`: absent; `X then Y`: one after the other); and what becomes of it: the value,
/// `loses` or `overflows`, and after it what is logged.
#[track_caller]
fn check(policy: Policy, [base, local, remote]: [&str; 3], outcome: &str) {
    let policies = Policies { dataset: Some(policy), ..Policies::default() };
    check_with(&policies, [base, local, remote], outcome);
}

#[track_caller]
fn check_with(policies: &Policies, [base, local, remote]: [&str; 3], outcome: &str) {
    let parse = |text: &str| (text != "-").then(|| json(text));
    let mut patch = PendingPatch {
        under: parse(base),
        value: parse(local),
        device_time: Timestamp(100),
        whole: false,
        claimed: false,
        question: None,
        sent: None,
    };
    let mut losses = Vec::new();
    let show = |value: &Option<Value>| value.as_ref().map_or_else(|| "-".to_owned(), Value::to_json);
    let mut found = String::new();
    for remote in remote.split(" then ") {
        let below = parse(remote);
        let text = below.as_ref().map_or_else(|| "r@2~200-".to_owned(), |value| format!("r@2~200={}", value.to_json()));
        let record = record(&text);
        let base = record.value().is_some().then_some(&record);
        let around = Surroundings { policies, key: &key("r"), base, now: Timestamp(1000) };
        found = match rebase(&mut patch, below, &around, &mut losses) {
            Rebased::Stays => show(&patch.value),
            Rebased::Loses(Cause::Policy(_)) => "loses".to_owned(),
            Rebased::Loses(cause) => format!("loses: {}", cause.name()),
            Rebased::Overflows => "overflows".to_owned(),
        };
    }
    for (_, loss) in &losses {
        found += &format!(
            " {} {}{}",
            if loss.side == Side::Remote { "over" } else { "under" },
            loss.path.iter().map(|name| format!("{name}=")).collect::<String>(),
            show(&loss.value)
        );
    }
    if patch.whole {
        found += " whole";
    }
    if patch.question.is_some() {
        found += " ?";
    }
    assert_eq!(found, outcome);
}

#[test]
fn fields_are_merged_one_by_one() {
    check(Policy::Fields, [r#"{"x":1,"y":1}"#, r#"{"x":2,"y":1}"#, r#"{"x":1,"y":3}"#], r#"{"x":2,"y":3}"#);
    check(Policy::Fields, [r#"{"x":1}"#, r#"{"x":2}"#, r#"{"x":3}"#], r#"{"x":2} over x=3"#);
    check(Policy::Fields, ["-", r#"{"x":1}"#, r#"{"y":2}"#], r#"{"x":1,"y":2}"#);
    check(Policy::Fields, [r#"{"x":1}"#, r#"{"x":2}"#, "-"], r#"{"x":2} over - whole"#);
    check(Policy::Fields, [r#"{"x":1}"#, "-", r#"{"x":3}"#], "loses");
    check(Policy::Fields, [r#"{"x":1}"#, r#"{"x":2}"#, "5"], r#"{"x":2} over 5 whole"#);
}

#[test]
fn a_map_that_was_removed_and_made_anew_is_merged_and_what_does_not_fit_is_logged() {
    let [base, local] = [r#"{"n":{"b":1}}"#, r#"{"n":{"a":2,"b":1},"y":1}"#];
    for (again, outcome) in [
        (r#"{"n":{"c":3}}"#, r#"{"n":{"a":2,"c":3},"y":1} over -"#),
        (r#"{"n":"text","y":2}"#, r#"{"n":{"a":2,"b":1},"y":1} over - over n="text" over y=2"#),
        (r#"{"n":{"a":{"d":4}}}"#, r#"{"n":{"a":2},"y":1} over - over n=a={"d":4}"#),
    ] {
        check(Policy::Fields, [base, local, &format!("- then {again}")], outcome);
    }
}

#[test]
fn under_delete_wins_the_removal_stays() {
    let policies = Policies { on_delete: OnDelete::DeleteWins, ..Policies::default() };
    check_with(&policies, [r#"{"x":1}"#, r#"{"x":2}"#, "-"], "loses");
    check_with(
        &Policies { dataset: Some(Policy::Fields), ..policies },
        [r#"{"x":1}"#, "-", r#"{"x":3}"#],
        r#"- over {"x":3}"#,
    );
}

#[test]
fn last_sync_wins_and_keep_local_overwrite() {
    for policy in [Policy::LastSyncWins, Policy::KeepLocal] {
        check(policy, ["1", "2", "3"], "2 over 3");
        check(policy, ["1", "2", "-"], "2 over -");
        check(policy, ["1", "-", "3"], "- over 3");
        check(policy, ["1", "2", "2"], "2");
    }
}

#[test]
fn keep_remote_loses_unless_both_say_the_same() {
    check(Policy::KeepRemote, ["1", "2", "3"], "loses");
    check(Policy::KeepRemote, ["1", "2", "-"], "loses");
    check(Policy::KeepRemote, ["1", "-", "3"], "loses");
    check(Policy::KeepRemote, ["1", "2", "2"], "2");
    check(Policy::KeepRemote, ["1", "-", "-"], "-");
}

#[test]
fn latest_edit_wins_by_time_and_a_removal_on_the_server_has_none() {
    check(Policy::LatestEditWins, ["1", "2", "3"], "loses");
    check(Policy::LatestEditWins, ["1", "-", "3"], "loses");
    check(Policy::LatestEditWins, ["1", "2", "-"], "2 over -");
}

#[test]
fn counters_add_up() {
    check(Policy::Counter, ["10", "13", "15"], "18");
    check(Policy::Counter, ["10", "13", "-"], "3 over -");
    check(Policy::Counter, ["10", "-", "15"], "loses");
    check(Policy::Counter, ["0", "1", "9223372036854775807"], "overflows");
    check(Policy::Counter, ["1", "2", r#""x""#], r#"2 over "x" whole"#);
}

#[test]
fn sets_keep_what_both_inserted_and_removed() {
    check(Policy::Set, [r#"["a","b"]"#, r#"["b","l"]"#, r#"["a","b","r"]"#], r#"["b","l","r"]"#);
    check(Policy::Set, [r#"["a"]"#, r#"["a","l"]"#, "-"], r#"["l"] over -"#);
    check(Policy::Set, [r#"["a"]"#, "-", r#"["a","r"]"#], "loses");
}

#[test]
fn the_larger_and_the_smaller_win() {
    check(Policy::Max, ["1", "5", "4"], "5 over 4");
    check(Policy::Max, ["1", "4", "5"], "5 under 4");
    check(Policy::Max, ["1", "4", "-"], "4 over -");
    check(Policy::Max, ["1", "-", "5"], "loses");
    check(Policy::Min, ["9", "4", "5"], "4 over 5");
    check(Policy::Min, ["9", "4", "-"], "4 over -");
    check(Policy::Min, ["9", "-", "5"], "loses");
}

#[test]
fn lines_of_text_are_merged_and_an_edit_beats_a_removal() {
    check(Policy::Text, [r#""1\n2""#, r#""0\n1\n2""#, r#""1\n2\n3""#], r#""0\n1\n2\n3""#);
    check(Policy::Text, [r#""1""#, r#""2""#, "-"], r#""2" over -"#);
    check(Policy::Text, [r#""1""#, "-", r#""2""#], "loses");
    check(Policy::Text, [r#""1""#, r#""2""#, "5"], r#""2" over 5"#);
}

#[test]
fn ask_asks_unless_both_say_the_same() {
    check(Policy::Ask, ["1", "2", "3"], "2 ?");
    check(Policy::Ask, ["1", "2", "-"], "2 ?");
    check(Policy::Ask, ["1", "-", "3"], "- ?");
    check(Policy::Ask, ["1", "2", "2"], "2");
}
