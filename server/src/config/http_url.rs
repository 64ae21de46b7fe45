//! Addresses of other servers.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// A URL of HTTP or HTTPS with a host, and without a password in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl(String);

/// A text is not such a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not a URL such as https://service.example/path")]
pub struct InvalidHttpUrl;

impl HttpUrl {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether what is fetched from there cannot be changed on its way.
    pub fn is_https(&self) -> bool {
        self.0.starts_with(HTTPS)
    }
}

const HTTP: &str = "http://";
const HTTPS: &str = "https://";

impl FromStr for HttpUrl {
    type Err = InvalidHttpUrl;

    fn from_str(text: &str) -> Result<Self, InvalidHttpUrl> {
        let rest = text.strip_prefix(HTTPS).or_else(|| text.strip_prefix(HTTP)).ok_or(InvalidHttpUrl)?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if authority.is_empty() || authority.starts_with(':') || authority.contains('@') || !printable {
            return Err(InvalidHttpUrl);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HttpUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::parsed(&String::deserialize(deserializer)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme_of_http_and_a_host() {
        for good in ["http://127.0.0.1:8080/pool/jwks.json", "https://issuer.example", "https://[::1]/?a=b"] {
            assert_eq!(good.parse::<HttpUrl>().map(|url| url.to_string()), Ok(good.to_owned()));
        }
        for bad in
            ["", "issuer.example", "file:///keys", "ftp://issuer.example", "https://", "https:///keys", "http://:80/"]
        {
            assert!(bad.parse::<HttpUrl>().is_err(), "{bad}");
        }
        for bad in ["https://issuer.example/a b", "https://example:password@issuer.example/"] {
            assert!(bad.parse::<HttpUrl>().is_err(), "{bad}");
        }
    }
}
