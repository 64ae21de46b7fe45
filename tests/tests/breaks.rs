//! The list of breaks is kept true: each fits the code, and they cover the rules of ARCHITECTURE.md. What the simulator
//! says to them, `./dev breaks` runs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tests::breaks::Breaks;
use tests::sim::Mix;

fn read(file: &str) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate has a workspace around it");
    fs::read_to_string(root.join(file)).ok()
}

/// The left column of the table of rules.
fn rules() -> Vec<String> {
    let text = read("ARCHITECTURE.md").expect("it is there");
    let (_, section) = text.split_once("## Rules that keep it correct").expect("it has the section");
    let rows = section.lines().skip_while(|line| !line.starts_with("| rule |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| row.split('|').nth(1)).map(|rule| rule.trim().to_owned()).collect()
}

#[test]
fn each_break_fits_the_code_exactly_once() {
    if let Err(problems) = Breaks::listed().apply(read) {
        panic!("tests/breaks.toml:\n{}", problems.join("\n"));
    }
}

#[test]
fn each_break_has_a_name_of_its_own_and_a_mix_that_exists() {
    let mut names = BTreeSet::new();
    for it in Breaks::listed().breaks {
        assert!(it.mix.iter().all(|mix| Mix::parse(mix).is_some()), "`{}`: there is no such mix", it.name);
        assert!(names.insert(it.name.clone()), "two breaks are called `{}`", it.name);
    }
}

#[test]
fn each_rule_has_a_break_or_says_why_not() {
    let Breaks { breaks, unguarded } = Breaks::listed();
    let quoted: Vec<String> =
        breaks.into_iter().map(|it| it.rule).chain(unguarded.into_iter().map(|it| it.rule)).collect();
    let rules = rules();
    for quote in &quoted {
        let times = rules.iter().filter(|rule| rule.contains(quote)).count();
        assert_eq!(times, 1, "ARCHITECTURE.md has one rule that says: {quote}");
    }
    for rule in &rules {
        assert!(quoted.iter().any(|quote| rule.contains(quote)), "tests/breaks.toml has no break of: {rule}");
    }
}
