//! Log lines on standard error: a sentence and fields; never values, tokens or keys.

use std::io::{self, IsTerminal as _};

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt, registry};

use crate::config::{LogConfig, LogFormat};

/// The level says nothing that the log understands.
#[derive(Debug, thiserror::Error)]
#[error("the log level `{level}` is neither error, warn, info, debug or trace, nor a list of modules and levels")]
pub struct InvalidLevel {
    level: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Modules of others who say in detail what they send and receive: keys, values and tokens.
const INDISCREET: [&str; 2] = ["aws_", "sqlx"];

/// Looks whether logging could start.
///
/// # Errors
/// If the level is none.
pub fn check(config: &LogConfig) -> Result<(), InvalidLevel> {
    filter(config).map(drop)
}

fn filter(config: &LogConfig) -> Result<EnvFilter, InvalidLevel> {
    let filter = EnvFilter::try_new(&config.level);
    filter.map_err(|source| InvalidLevel { level: config.level.clone(), source })
}

/// Whether it may be logged, whatever the level is.
fn is_discreet(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || !INDISCREET.iter().any(|module| metadata.target().starts_with(module))
}

/// Starts logging. To be called once.
///
/// # Errors
/// If the level is none.
pub fn start(config: &LogConfig) -> Result<(), InvalidLevel> {
    let filter = filter(config)?.and(filter_fn(is_discreet));
    let lines = fmt::layer().with_writer(io::stderr);
    let is_terminal = io::stderr().is_terminal();
    let as_text = match config.format {
        LogFormat::Auto => is_terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    // Already started: then this is not the first call, and the first one counts.
    let lines = if as_text {
        lines.with_ansi(is_terminal).boxed()
    } else {
        lines.json().flatten_event(true).with_current_span(false).boxed()
    };
    drop(registry().with(lines.with_filter(filter)).try_init());
    Ok(())
}
