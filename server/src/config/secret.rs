//! Secrets, which no log may show.

use std::fmt;
use std::str::FromStr;

/// A text that proves who somebody is, long enough not to be guessed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A text is too easily guessed, or cannot be sent everywhere. It is not told again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret has at least {SECRET_CHARS_MIN} characters of printable ASCII without blanks")]
pub struct InvalidSecret;

/// A secret's least number of characters.
pub const SECRET_CHARS_MIN: usize = 32;

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        if text.len() < SECRET_CHARS_MIN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidSecret);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a secret")
    }
}
