//! Log lines on standard error: a sentence and fields; never values, tokens or keys.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// The level says nothing that the log understands.
#[derive(Debug, thiserror::Error)]
#[error("the log level `{level}` is neither error, warn, info, debug or trace, nor a list of modules and levels")]
pub struct InvalidLevel {
    level: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Of others, who would log what they send and receive: keys, values and tokens.
const UNTOLD: [&str; 5] =
    ["aws_smithy_runtime=info", "aws_smithy_runtime_api=info", "aws_sdk_dynamodb=info", "aws_config=info", "sqlx=info"];

/// Looks whether logging could start.
///
/// # Errors
/// If the level is none.
pub fn check(config: &LogConfig) -> Result<(), InvalidLevel> {
    filter(config).map(drop)
}

fn filter(config: &LogConfig) -> Result<EnvFilter, InvalidLevel> {
    let filter = EnvFilter::try_new(&config.level);
    let filter = filter.map_err(|source| InvalidLevel { level: config.level.clone(), source })?;
    Ok(UNTOLD.iter().filter_map(|less| less.parse().ok()).fold(filter, EnvFilter::add_directive))
}

/// Starts logging. To be called once.
///
/// # Errors
/// If the level is none.
pub fn start(config: &LogConfig) -> Result<(), InvalidLevel> {
    let lines = tracing_subscriber::fmt().with_env_filter(filter(config)?).with_writer(io::stderr);
    let is_terminal = io::stderr().is_terminal();
    let as_text = match config.format {
        LogFormat::Auto => is_terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    // Already started: then this is not the first call, and the first one counts.
    drop(if as_text {
        lines.with_ansi(is_terminal).try_init()
    } else {
        lines.json().flatten_event(true).with_current_span(false).try_init()
    });
    Ok(())
}
