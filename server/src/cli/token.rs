//! The token of the command line: who it says is signed in, and what goes to the server.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use sync_core::device::Login;

use crate::cli::exit::CliError;

/// Where the token comes from.
#[derive(Clone, Debug)]
pub(super) enum TokenSource {
    Nowhere,
    Argument(String),
    /// Read again each time, because somebody may renew it meanwhile.
    File(PathBuf),
}

impl TokenSource {
    pub(super) fn new(token: Option<String>, file: Option<PathBuf>) -> Self {
        match (file, token) {
            (Some(file), _) => Self::File(file),
            (None, Some(token)) if !token.trim().is_empty() => Self::Argument(token),
            (None, _) => Self::Nowhere,
        }
    }

    /// The token as it is now, without `Bearer`.
    pub(super) fn read(&self) -> Result<Option<String>, CliError> {
        let text = match self {
            Self::Nowhere => return Ok(None),
            Self::Argument(token) => token.clone(),
            Self::File(path) => fs::read_to_string(path).map_err(|error| {
                CliError::NotSignedIn(format!("the token file {} cannot be read: {error}", path.display()))
            })?,
        };
        let text = text.trim();
        let bare = text.strip_prefix("Bearer ").unwrap_or(text).trim_start();
        if bare.is_empty() { Ok(None) } else { Ok(Some(bare.to_owned())) }
    }

    /// Whom the token names. Nothing is verified, and an expired token will do: a device knows offline whose data it
    /// holds, and the server verifies what it is sent.
    pub(super) fn login(&self) -> Result<Option<Login>, CliError> {
        self.read()?.map(|token| parse_login(&token)).transpose()
    }
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Option<Audience>,
    client_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

fn parse_login(token: &str) -> Result<Login, CliError> {
    let wrong = || CliError::NotSignedIn("the token is not a JSON Web Token with `iss`, `sub` and `aud`".into());
    let payload = token.split('.').nth(1).ok_or_else(wrong)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| wrong())?;
    let claims: Claims = serde_json::from_slice(&payload).map_err(|_| wrong())?;
    let audience = match claims.aud {
        Some(Audience::One(audience)) => Some(audience),
        Some(Audience::Many(audiences)) => audiences.into_iter().next(),
        None => claims.client_id,
    };
    Ok(Login { issuer: claims.iss, audience: audience.ok_or_else(wrong)?, subject: claims.sub })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(claims: &str, audience: Option<&str>) {
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let login = parse_login(&token).ok();
        let expected = audience.map(|it| Login {
            issuer: "https://issuer.example".into(),
            audience: it.into(),
            subject: "ada".into(),
        });
        assert_eq!(login, expected, "{claims}");
    }

    #[test]
    fn a_login_is_read_without_verification() {
        check(r#"{"iss":"https://issuer.example","sub":"ada","aud":"app","exp":1}"#, Some("app"));
        check(r#"{"iss":"https://issuer.example","sub":"ada","aud":["app","other"]}"#, Some("app"));
        check(r#"{"iss":"https://issuer.example","sub":"ada","client_id":"app"}"#, Some("app"));
        check(r#"{"iss":"https://issuer.example","sub":"ada"}"#, None);
        check(r#"{"sub":"ada","aud":"app"}"#, None);
        check("nonsense", None);
        assert!(parse_login("nonsense").is_err());
    }

    #[test]
    fn bearer_and_blanks_around_a_token_are_ignored_and_a_file_wins() {
        let read = |token: &str| TokenSource::new(Some(token.into()), None).read().unwrap();
        assert_eq!(read(" Bearer a.b.c\n").as_deref(), Some("a.b.c"));
        assert_eq!(read("  "), None);
        assert!(TokenSource::new(Some("a.b.c".into()), Some("no/such/file".into())).read().is_err());
    }
}
