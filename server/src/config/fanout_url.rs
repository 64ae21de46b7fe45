//! Where servers over one store tell each other what has happened.

use std::fmt;
use std::str::FromStr;

/// The address of a server of Redis or Valkey, and the channel there. It may have a password in it, and shows none.
#[derive(Clone, PartialEq, Eq)]
pub struct FanoutUrl {
    server: String,
    channel: String,
}

/// A text is not such an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is not the address of a Redis: redis://USER:PASSWORD@HOST:PORT, or rediss:// for TLS, with ?channel=NAME if \
     several deployments share it"
)]
pub struct InvalidFanoutUrl;

const SCHEMES: [&str; 2] = ["redis://", "rediss://"];
const CHANNEL: &str = "syncline";
const CHANNEL_BYTES_MAX: usize = 100;

impl FanoutUrl {
    /// The address of the server, with its password.
    pub fn reveal(&self) -> &str {
        &self.server
    }

    /// The name of the channel.
    pub fn channel(&self) -> &str {
        &self.channel
    }
}

impl FromStr for FanoutUrl {
    type Err = InvalidFanoutUrl;

    fn from_str(text: &str) -> Result<Self, InvalidFanoutUrl> {
        let (server, options) = text.split_once('?').unwrap_or((text, ""));
        let rest = SCHEMES.into_iter().find_map(|scheme| server.strip_prefix(scheme)).ok_or(InvalidFanoutUrl)?;
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if place.is_empty() || place.starts_with([':', '/']) || !printable {
            return Err(InvalidFanoutUrl);
        }
        let channel = match options.split_once('=') {
            None if options.is_empty() => CHANNEL,
            Some(("channel", name)) if !name.contains(['&', '=', '%']) => name,
            _ => return Err(InvalidFanoutUrl),
        };
        if !matches!(channel.len(), 1..=CHANNEL_BYTES_MAX) {
            return Err(InvalidFanoutUrl);
        }
        Ok(Self { server: server.to_owned(), channel: channel.to_owned() })
    }
}

impl fmt::Display for FanoutUrl {
    /// Without user, password and channel.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.server.split_at(self.server.find("://").map_or(0, |at| at + 3));
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        write!(formatter, "{scheme}{place}")
    }
}

impl fmt::Debug for FanoutUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_redis_and_a_channel_and_shows_no_password() {
        for (text, shown, server, channel) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379", "redis://127.0.0.1:6379", "syncline"),
            ("rediss://cache.example", "rediss://cache.example", "rediss://cache.example", "syncline"),
            ("redis://sync:p@ss@[::1]:1/0?channel=app:a", "redis://[::1]:1/0", "redis://sync:p@ss@[::1]:1/0", "app:a"),
        ] {
            let url: FanoutUrl = text.parse().unwrap();
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
            assert_eq!((url.reveal(), url.channel()), (server, channel));
        }
        let endless = format!("redis://host?channel={}", "c".repeat(CHANNEL_BYTES_MAX + 1));
        for bad in [
            "",
            "redis",
            "redis://",
            "redis://:6379",
            "redis://user:password@/0",
            "ftp://host",
            "mysql://host/app",
            "redis://host?channel=",
            "redis://host?chanel=a",
            "redis://host?channel=a&protocol=resp3",
            "rediss://host#insecure",
            "redis://ho st",
            &endless,
        ] {
            assert_eq!(bad.parse::<FanoutUrl>(), Err(InvalidFanoutUrl), "{bad}");
        }
    }
}
