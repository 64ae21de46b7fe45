//! Breaks: rules of the engine that are switched off on purpose, to see that the simulator notices.
//!
//! `tests/breaks.toml` lists them. All are applied at once to a copy of the workspace, each behind a condition, so that
//! one build serves them all and an environment variable says which rule is broken.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;

/// One rule switched off, as a replacement of text in one file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Break {
    /// What is wrong then, in a few words.
    pub name: String,
    /// The rule, as ARCHITECTURE.md has it.
    pub rule: String,
    /// The file, from the root of the workspace.
    pub file: String,
    /// Text that is in the file exactly once.
    pub find: String,
    /// The mix of faults whose seeds are run. By default each seed chooses its own.
    pub mix: Option<String>,
    /// The first of the seeds. Most rules need none: they are caught among any.
    #[serde(default)]
    pub from: u64,
    /// What takes its place. `BROKEN` stands for a condition: whether it is this rule that is broken.
    pub replace: String,
}

/// A rule that no break guards.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unguarded {
    /// The rule, as ARCHITECTURE.md has it.
    pub rule: String,
    /// Why the simulator cannot miss it, or what holds it instead.
    pub why: String,
}

/// What `tests/breaks.toml` says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Breaks {
    /// The breaks, in the order of the rules.
    #[serde(rename = "break")]
    pub breaks: Vec<Break>,
    /// Rules without one.
    #[serde(default)]
    pub unguarded: Vec<Unguarded>,
}

/// The environment variable that names the rule to be broken.
pub const VARIABLE: &str = "SYNCLINE_BREAK";
/// The file that gets the condition.
pub const CONDITION_FILE: &str = "sync-core/src/lib.rs";

/// The condition, added to the copy's `sync-core`. The code itself has no such thing, and reads no environment.
const CONDITION: &str = r#"
/// Whether it is this rule that is broken.
pub fn broken(name: &str) -> bool {
    static NAME: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    NAME.get_or_init(|| std::env::var("SYNCLINE_BREAK").ok()).as_deref() == Some(name)
}
"#;

impl Breaks {
    /// Reads the list.
    ///
    /// # Panics
    /// If it is not what it should be; it is part of the code.
    pub fn listed() -> Self {
        toml::from_str(include_str!("../breaks.toml")).expect("tests/breaks.toml lists breaks")
    }

    /// The files that breaks change, with all breaks in them.
    ///
    /// # Errors
    /// What does not fit: a text that is not there, or there more than once, or changed by two breaks.
    pub fn apply(&self, read: impl Fn(&str) -> Option<String>) -> Result<BTreeMap<String, String>, Vec<String>> {
        let mut problems = Vec::new();
        let mut places: BTreeMap<&str, Vec<(Range<usize>, &Break)>> = BTreeMap::new();
        let mut files = BTreeMap::from([(CONDITION_FILE, read(CONDITION_FILE).unwrap_or_default())]);
        for it in &self.breaks {
            let text = files.entry(&it.file).or_insert_with(|| read(&it.file).unwrap_or_default());
            let found: Vec<_> = text.match_indices(&it.find).map(|(at, _)| at).collect();
            let [at] = found[..] else {
                problems.push(format!("`{}`: its text is {} times in {}, not once", it.name, found.len(), it.file));
                continue;
            };
            if !it.replace.contains("BROKEN") {
                problems.push(format!("`{}`: its replacement does not say BROKEN", it.name));
            }
            places.entry(&it.file).or_default().push((at..at + it.find.len(), it));
        }
        for (file, places) in &mut places {
            places.sort_by_key(|(range, _)| range.start);
            for pair in places.windows(2).filter(|pair| pair[0].0.end > pair[1].0.start) {
                problems.push(format!("`{}` and `{}` change the same text of {file}", pair[0].1.name, pair[1].1.name));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        for (file, places) in places {
            let text = files.get_mut(file).expect("it was read above");
            for (range, it) in places.into_iter().rev() {
                text.replace_range(range, &it.replacement());
            }
        }
        files.entry(CONDITION_FILE).or_default().push_str(CONDITION);
        Ok(files.into_iter().map(|(file, text)| (file.to_owned(), text)).collect())
    }
}

impl Break {
    fn replacement(&self) -> String {
        let of_crate = if self.file.starts_with("sync-core/") { "crate" } else { "sync_core" };
        self.replace.replace("BROKEN", &format!("{of_crate}::broken({:?})", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::{Break, Breaks};

    fn breaks(replacements: &[(&str, &str)]) -> Breaks {
        let one = |(at, (find, replace)): (usize, &(&str, &str))| Break {
            name: format!("break {at}"),
            rule: String::new(),
            mix: None,
            from: 0,
            file: "server/a.rs".to_owned(),
            find: (*find).to_owned(),
            replace: (*replace).to_owned(),
        };
        Breaks { breaks: replacements.iter().enumerate().map(one).collect(), unguarded: Vec::new() }
    }

    fn read(file: &str) -> Option<String> {
        (file == "server/a.rs").then(|| "if a && b { c }".to_owned())
    }

    #[test]
    fn all_breaks_of_a_file_are_applied_at_once() {
        let files = breaks(&[("b {", "(b || BROKEN) {"), ("if a", "if a && !BROKEN")]).apply(read).unwrap();
        let broken = r#"if a && !sync_core::broken("break 1") && (b || sync_core::broken("break 0")) { c }"#;
        assert_eq!(files["server/a.rs"], broken);
        assert!(files["sync-core/src/lib.rs"].contains("pub fn broken"));
    }

    #[test]
    fn a_break_that_does_not_fit_is_named() {
        for (replacements, problem) in [
            (&[("d", "BROKEN")][..], "`break 0`: its text is 0 times in server/a.rs, not once"),
            (&[(" ", "BROKEN")], "`break 0`: its text is 6 times in server/a.rs, not once"),
            (&[("c", "d")], "`break 0`: its replacement does not say BROKEN"),
            (&[("a && b", "BROKEN"), ("b {", "BROKEN")], "`break 0` and `break 1` change the same text of server/a.rs"),
        ] {
            assert_eq!(breaks(replacements).apply(read).unwrap_err(), [problem]);
        }
    }
}
