//! What a command prints: sentences for people, or JSON.

use std::io::{self, BufWriter, StdoutLock, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value as Json, json};
use sync_core::model::{RecordKey, Timestamp, Value};

use crate::cli::exit::CliError;
use crate::cli::now;

/// Standard output, in one of its two forms.
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) const fn new(json: bool) -> Self {
        Self { json }
    }

    pub(super) const fn is_json(&self) -> bool {
        self.json
    }

    /// Prints the one answer of a command.
    pub(super) fn answer(&self, sentences: &str, json: &Json) -> Result<(), CliError> {
        let mut out = Self::stream();
        if self.json {
            writeln!(out, "{json}")?;
        } else if !sentences.is_empty() {
            writeln!(out, "{sentences}")?;
        }
        Ok(out.flush()?)
    }

    /// For many lines: flush it at the end.
    pub(super) fn stream() -> BufWriter<StdoutLock<'static>> {
        BufWriter::with_capacity(1 << 16, io::stdout().lock())
    }

    pub(super) fn error(&self, error: &CliError) {
        if matches!(error, CliError::OutputClosed) {
            return;
        }
        let line = if self.json { error.to_json() } else { format!("syncline: {error}") };
        // There is nobody to tell if this fails too.
        let _written = writeln!(io::stderr(), "{line}");
    }

    /// Shows how far something is that takes long; nothing unless a person watches.
    pub(super) fn progress(&self, total: Option<u64>, what: &'static str) -> ProgressBar {
        if self.json {
            return ProgressBar::hidden();
        }
        let (bar, template) = match total {
            Some(total) => (ProgressBar::new(total), "{msg} {bar:30} {human_pos} of {human_len}"),
            None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = bar.with_style(style).with_message(what);
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }
}

/// `1 record`, `3,201 records`.
pub fn count(number: u64, what: &str) -> String {
    format!("{} {what}{}", digits(number), if number == 1 { "" } else { "s" })
}

fn digits(number: u64) -> String {
    let plain = number.to_string();
    let mut grouped = String::with_capacity(plain.len() + plain.len() / 3);
    for (at, digit) in plain.chars().enumerate() {
        if at > 0 && (plain.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `just now`, `5 minutes ago`.
pub(super) fn ago(then: Timestamp) -> String {
    let seconds = now().ms_since(then) / 1_000;
    let (number, unit) = match seconds {
        0..60 => return "just now".to_owned(),
        60..3_600 => (seconds / 60, "minute"),
        3_600..86_400 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{} ago", count(number, unit))
}

/// A key, quoted if it would not be seen as it is.
pub(super) fn shown(key: &RecordKey) -> String {
    let plain = |character: char| !character.is_control() && character != '"';
    let key = key.as_str();
    if key.chars().all(plain) && key.trim() == key { key.to_owned() } else { Json::from(key).to_string() }
}

/// A value for a person: one line, cut off when it is long.
pub(super) fn short(value: Option<&Value>) -> String {
    let Some(value) = value else { return "removed".to_owned() };
    let json = value.to_json();
    match json.char_indices().nth(SHORT_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &json[..end]),
        None => json,
    }
}

const SHORT_CHARACTERS_MAX: usize = 100;

/// A record as `list` and `export` print it.
pub(super) fn record_json(key: &RecordKey, value: &Value) -> String {
    format!("{{\"key\":{},\"value\":{}}}", json!(key.as_str()), value.to_json())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_nouns_agree() {
        let counted = [0, 1, 999, 1_000, 1_234_567].map(|number| count(number, "record"));
        assert_eq!(counted, ["0 records", "1 record", "999 records", "1,000 records", "1,234,567 records"]);
    }

    #[test]
    fn keys_are_quoted_only_when_they_must_be() {
        for (key, expected) in [("a b/ü", "a b/ü"), (" a", "\" a\""), ("a\tb", "\"a\\tb\""), ("\"", "\"\\\"\"")] {
            assert_eq!(shown(&RecordKey::parse(key).unwrap()), expected);
        }
    }
}
