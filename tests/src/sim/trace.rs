//! What happened, in sentences that a person can read.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

/// The story of a run.
#[derive(Debug, Default)]
pub struct Trace {
    story: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
}

impl Trace {
    /// Tells what happened.
    pub(super) fn tell(&mut self, who: &str, what: impl AsRef<str>) {
        self.story.push(format!("{:>5}  {who:<7} {}", self.story.len(), what.as_ref()));
    }

    /// Counts that it happened.
    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn into_parts(self) -> (u64, BTreeMap<&'static str, u64>, Vec<String>) {
        let mut hasher = DefaultHasher::new();
        self.story.hash(&mut hasher);
        (hasher.finish(), self.counts, self.story)
    }
}
