//! Secrets, which no log may show.

use std::fmt;

use serde::Deserialize;

/// A text that proves who somebody is, long enough not to be guessed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A secret's least number of characters.
pub const SECRET_CHARS_MIN: usize = 32;

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a secret")
    }
}

/// Reads a secret; an empty text is none.
pub(super) fn unless_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    if text.chars().count() < SECRET_CHARS_MIN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let problem = format!("a secret has at least {SECRET_CHARS_MIN} characters of printable ASCII without blanks");
        return Err(serde::de::Error::custom(problem));
    }
    Ok(Some(Secret(text)))
}
