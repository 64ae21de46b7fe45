//! What was looked at before a server starts, line by line.

use std::fmt::Display;

use serde_json::{Value, json};

/// Things that were checked, in order.
#[derive(Clone, Debug, Default)]
pub struct Checks(Vec<Checked>);

#[derive(Clone, Debug)]
struct Checked {
    what: &'static str,
    found: Result<String, String>,
}

impl Checks {
    /// Notes what was found.
    pub fn note(&mut self, what: &'static str, found: Result<String, impl Display>) {
        self.0.push(Checked { what, found: found.map_err(|problem| problem.to_string()) });
    }

    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.0.iter().all(|checked| checked.found.is_ok())
    }

    /// A line for each.
    pub fn to_text(&self) -> String {
        let line = |Checked { what, found }: &Checked| match found {
            Ok(text) => format!("ok     {what}: {text}"),
            Err(text) => format!("WRONG  {what}: {text}"),
        };
        self.0.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// `{"ok", "checks": [{"check", "ok", "message"}]}`.
    pub fn to_json(&self) -> Value {
        let one = |Checked { what, found }: &Checked| {
            let (Ok(message) | Err(message)) = found;
            json!({"check": what, "ok": found.is_ok(), "message": message})
        };
        json!({"ok": self.is_ok(), "checks": self.0.iter().map(one).collect::<Vec<_>>()})
    }
}
