//! `./dev soak --minutes N`: crash loops over the real binary and real files; see `tests::soak`.
#![expect(clippy::print_stdout, reason = "it is a command that prints")]

use std::time::Duration;

use clap::Parser;
use tests::soak::soak;

/// Kills servers and devices while they work, and looks whether anything was lost, doubled or torn.
#[derive(Parser)]
#[command(name = "soak")]
struct Arguments {
    /// How long; a round that has begun is finished.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// How long each round writes and kills.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The first seed. Processes make each run different; the seed says what is written and when is killed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() {
    let Arguments { minutes, seconds, seed } = Arguments::parse();
    let minutes = Duration::from_secs(minutes * 60);
    soak(minutes, Duration::from_secs(seconds), seed, |seed, killed, tally| {
        println!("seed {seed}, {killed:?} killed: {tally}; all is there");
    });
}
