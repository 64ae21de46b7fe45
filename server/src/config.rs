//! The configuration: read once, passed down. `config.default.toml` has every key with its default.

mod duration;
mod fanout_url;
mod http_url;
mod issuer;
mod secret;
mod store_url;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use sync_core::model::Limits;
use toml::{Table, Value};

pub use duration::{Duration, InvalidDuration};
pub use fanout_url::{FanoutUrl, InvalidFanoutUrl};
pub use http_url::{HttpUrl, InvalidHttpUrl};
pub use issuer::{IssuerConfig, KeysAt, ServiceClaim};
pub use secret::{InvalidSecret, SECRET_CHARS_MIN, Secret};
pub use store_url::{InvalidStoreUrl, StoreUrl};

/// The default configuration, with comments.
pub const DEFAULT: &str = include_str!("../config.default.toml");

/// Begins the names of variables that override a key: `SYNCLINE__SECTION__KEY`.
pub const ENVIRONMENT_PREFIX: &str = "SYNCLINE__";

/// More often, the store would do little else.
const POLL_INTERVAL_MS_MIN: i64 = 10;

/// All settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Section `server`.
    pub server: ServerConfig,
    /// Section `store`.
    pub store: StoreConfig,
    /// Section `fanout`.
    pub fanout: FanoutConfig,
    /// Section `auth`.
    pub auth: AuthConfig,
    /// Section `rates`.
    pub rates: RatesConfig,
    /// Section `limits`.
    pub limits: Limits,
    /// Section `hook`.
    pub hook: HookConfig,
    /// Section `retention`.
    pub retention: RetentionConfig,
    /// Section `log`.
    pub log: LogConfig,
}

/// How the server is reached.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The data folder.
    pub data: PathBuf,
    /// Connections at once.
    pub connections_max: usize,
    /// Requests at once.
    pub requests_max: usize,
    /// Bytes of large bodies at once, of requests and answers.
    pub bodies_bytes_max: usize,
    /// Streams of live events at once.
    pub streams_max: usize,
    /// How often a stream without events says that it is alive.
    pub heartbeat: Duration,
    /// For the head of a request.
    pub head_timeout: Duration,
    /// For its body.
    pub body_timeout: Duration,
    /// For taking an answer.
    pub answer_timeout: Duration,
    /// For load balancers to notice the end.
    pub stop_delay: Duration,
    /// For open requests at the end.
    pub stop_timeout: Duration,
    /// Where metrics are printed.
    #[serde(deserialize_with = "unless_empty")]
    pub metrics_listen: Option<SocketAddr>,
    /// Web pages of which origins may ask.
    pub cors_origins: Vec<String>,
    /// The file with the certificate.
    #[serde(deserialize_with = "unless_empty")]
    pub tls_certificate: Option<PathBuf>,
    /// The file with its key.
    #[serde(deserialize_with = "unless_empty")]
    pub tls_key: Option<PathBuf>,
}

/// Where data are kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// Which store; nothing: the database in the data folder.
    #[serde(deserialize_with = "secret_unless_empty")]
    pub url: Option<StoreUrl>,
}

/// How several servers over one store tell each other what has happened.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FanoutConfig {
    /// By way of which Redis; nothing: by way of the store alone.
    #[serde(deserialize_with = "secret_unless_empty")]
    pub url: Option<FanoutUrl>,
    /// How often the store is asked otherwise.
    pub poll_interval: Duration,
}

impl StoreConfig {
    /// Whether several servers may use it at the same time.
    pub const fn is_shared(&self) -> bool {
        matches!(self.url, Some(StoreUrl::Mysql(_) | StoreUrl::DynamoDb(_)))
    }
}

impl ServerConfig {
    /// Whether metrics are printed at the address of everything else. Two free ports are not the same.
    pub fn metrics_here(&self) -> bool {
        self.listen.port() != 0 && self.metrics_listen == Some(self.listen)
    }
}

/// How often each identity may call.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RatesConfig {
    /// In the long run; 0: there is no limit.
    pub requests_per_second: u32,
    /// At once, after a pause.
    pub burst: u32,
    /// Requests that are open at once; 0: there is no limit.
    pub at_once: usize,
    /// The same for streams of events.
    pub streams_at_once: usize,
}

/// Whose tokens are taken.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// The identity pool.
    pub pool: String,
    /// The region of its identities.
    pub region: String,
    /// How often the keys of issuers are fetched anew.
    pub keys_refresh: Duration,
    /// How often an unknown key may make the server fetch an issuer's keys.
    pub unknown_key_interval: Duration,
    /// What a back-end job may sign in with instead of a token.
    #[serde(deserialize_with = "secret_unless_empty")]
    pub service_key: Option<Secret>,
    /// Whose tokens are taken.
    pub issuers: Vec<IssuerConfig>,
}

/// Who looks at pushes before they are written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookConfig {
    /// Where it is asked; nothing: there is no hook.
    #[serde(deserialize_with = "unless_empty")]
    pub url: Option<HttpUrl>,
    /// What requests to it are signed with.
    #[serde(deserialize_with = "secret_unless_empty")]
    pub secret: Option<Secret>,
    /// How long it may take.
    pub timeout: Duration,
    /// What becomes of a push if it does not answer as it should.
    pub on_failure: HookFailure,
}

/// What becomes of a push whose hook failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookFailure {
    /// It has to wait, and its device comes again.
    Wait,
    /// It is written without.
    Accept,
}

/// How long what is gone is remembered.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// Tombstones.
    pub tombstones: Duration,
}

/// What is logged.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// How much.
    pub level: String,
    /// In which form.
    pub format: LogFormat,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {} cannot be read", .path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// It cannot be understood.
    #[error("{origin}: {problem}")]
    Invalid {
        /// Where it stands.
        origin: String,
        /// What is wrong.
        problem: String,
    },
}

impl Config {
    /// Reads the defaults, over them the file, and over that the environment.
    ///
    /// # Errors
    /// If the file cannot be read, or says something that there is no setting for.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut table = defaults();
        if let Some(path) = file {
            let text = fs::read_to_string(path);
            let text = text.map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
            override_with_file(&mut table, &path.display().to_string(), &text)?;
        }
        for (name, value) in environment {
            if let Some(key) = name.to_str().and_then(|name| name.strip_prefix(ENVIRONMENT_PREFIX)) {
                override_with_variable(&mut table, key, &value)?;
            }
        }
        let config: Self = table.try_into().map_err(|error| invalid("the configuration", error))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let Limits {
            value_bytes_max,
            group_patches_max,
            group_bytes_max,
            request_patches_max,
            request_bytes_max,
            records_max,
            datasets_max,
        } = self.limits;
        let most = Limits::default();
        for (name, limit, most) in [
            ("value_bytes_max", value_bytes_max as u64, most.value_bytes_max as u64),
            ("group_patches_max", group_patches_max as u64, most.group_patches_max as u64),
            ("group_bytes_max", group_bytes_max as u64, most.group_bytes_max as u64),
            ("request_patches_max", request_patches_max as u64, most.request_patches_max as u64),
            ("request_bytes_max", request_bytes_max as u64, most.request_bytes_max as u64),
            ("records_max", records_max, most.records_max),
            ("datasets_max", datasets_max as u64, most.datasets_max as u64),
        ] {
            if limit == 0 || limit > most {
                return Err(invalid("limits", format!("`{name}` is {limit}, and may be 1 to {most}")));
            }
        }
        if self.server.connections_max == 0 || self.server.requests_max == 0 {
            return Err(invalid("server", "`connections_max` and `requests_max` are at least 1"));
        }
        if self.server.bodies_bytes_max / 2 < request_bytes_max {
            let text = format!(
                "`bodies_bytes_max` is at least {}: twice `request_bytes_max`, for a body and what is compressed in it",
                request_bytes_max * 2
            );
            return Err(invalid("server", text));
        }
        if self.fanout.url.is_some() && !self.store.is_shared() {
            let text = "`url` is for several servers over one store, and a data folder has one server: set `store.url` \
                        too, or leave it out";
            return Err(invalid("fanout", text));
        }
        if self.fanout.poll_interval.ms() < POLL_INTERVAL_MS_MIN {
            return Err(invalid("fanout", format!("`poll_interval` is at least {POLL_INTERVAL_MS_MIN}ms")));
        }
        if self.hook.url.is_some() && self.hook.secret.is_none() {
            return Err(invalid("hook", "with `url` goes a `secret`"));
        }
        if self.server.tls_certificate.is_some() != self.server.tls_key.is_some() {
            return Err(invalid("server", "`tls_certificate` and `tls_key` go together"));
        }
        if let Some(origin) = self.server.cors_origins.iter().find(|origin| !is_origin(origin)) {
            let text =
                format!("`cors_origins` has `{origin}`, and an origin is written https://HOST, with :PORT if need be");
            return Err(invalid("server", text));
        }
        if self.rates.requests_per_second > 0 && self.rates.burst == 0 {
            return Err(invalid("rates", "with `requests_per_second` goes a `burst` of at least 1"));
        }
        self.auth.check()
    }
}

impl AuthConfig {
    /// Whether nobody can sign in.
    pub const fn lets_nobody_in(&self) -> bool {
        self.issuers.is_empty() && self.service_key.is_none()
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.keys_refresh.ms() == 0 || self.unknown_key_interval.ms() == 0 {
            return Err(invalid("auth", "`keys_refresh` and `unknown_key_interval` are longer than 0s"));
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = self.issuers.iter().find(|it| !names.insert(&it.issuer)) {
            return Err(invalid("auth.issuers", format!("issuer `{}` is there twice", twice.issuer)));
        }
        Ok(())
    }
}

fn defaults() -> Table {
    DEFAULT.parse().expect("the default configuration is valid: a test reads it")
}

fn override_with_file(table: &mut Table, origin: &str, text: &str) -> Result<(), ConfigError> {
    let file: Table = text.parse().map_err(|error| invalid(origin, error))?;
    for (section, keys) in file {
        let Value::Table(keys) = keys else {
            return Err(invalid(origin, format!("`{section}` stands outside of a section such as [server]")));
        };
        for (key, value) in keys {
            *entry(table, origin, &section, &key)? = value;
        }
    }
    Ok(())
}

fn override_with_variable(table: &mut Table, key: &str, value: &OsString) -> Result<(), ConfigError> {
    let origin = format!("the variable {ENVIRONMENT_PREFIX}{key}");
    let value = value.to_str().ok_or_else(|| invalid(&origin, "its value is not UTF-8"))?;
    let path = key.to_ascii_lowercase();
    let (section, key) =
        path.split_once("__").ok_or_else(|| invalid(&origin, "it is written SYNCLINE__SECTION__KEY"))?;
    let entry = entry(table, &origin, section, key)?;
    *entry = match entry {
        Value::String(_) => Value::String(value.to_owned()),
        _ => {
            let parsed: Result<Table, _> = format!("value = {value}").parse();
            let mut parsed = parsed.map_err(|_| invalid(&origin, "its value is not one of TOML"))?;
            parsed.remove("value").ok_or_else(|| invalid(&origin, "it has no value"))?
        }
    };
    Ok(())
}

/// The place of a key. All keys are there, because the defaults have them all.
fn entry<'a>(table: &'a mut Table, origin: &str, section: &str, key: &str) -> Result<&'a mut Value, ConfigError> {
    let names = |table: &Table| table.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    let sections = names(table);
    let Some(Value::Table(keys)) = table.get_mut(section) else {
        return Err(invalid(origin, format!("there is no section `{section}`, only {sections}")));
    };
    let known = names(keys);
    let unknown = || invalid(origin, format!("there is no setting `{key}` in the section `{section}`, only {known}"));
    keys.get_mut(key).ok_or_else(unknown)
}

fn invalid(origin: &str, problem: impl std::fmt::Display) -> ConfigError {
    ConfigError::Invalid { origin: origin.to_owned(), problem: problem.to_string().trim_end().to_owned() }
}

/// As browsers send it: without a path, not even `/`. `*` stands for all.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    text == "*" || host.is_some_and(|host| !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && b != b'/'))
}

fn unless_empty<'de, D: serde::Deserializer<'de>, T: FromStr<Err: std::fmt::Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { parsed(&text).map(Some) }
}

/// As [`unless_empty`], and an error does not repeat what was written: it may be a secret, or have a password in it.
fn secret_unless_empty<'de, D: serde::Deserializer<'de>, T: FromStr<Err: std::fmt::Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(serde::de::Error::custom) }
}

fn parsed<T: FromStr<Err: std::fmt::Display>, E: serde::de::Error>(text: &str) -> Result<T, E> {
    text.parse().map_err(|error| E::custom(format!("`{text}`: {error}")))
}

#[cfg(test)]
mod tests;
