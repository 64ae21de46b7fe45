//! `./dev soak --minutes N`: crash loops over the real binary and real files; see `tests::soak`.
#![expect(clippy::print_stdout, reason = "it is a command that prints")]

use std::time::Duration;

use clap::Parser;
use tests::soak::{Killed, Round, StoreKind, soak};

/// Kills servers and devices while they work, and looks whether anything was lost, doubled or torn.
#[derive(Parser)]
#[command(name = "soak")]
struct Arguments {
    /// How long; a seed that has begun is finished, with a round for each kind of kill.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// How long each round writes and kills.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The first seed. Processes make each run different; the seed says what is written and when is killed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the servers keep data.
    #[arg(long, value_enum, default_value_t)]
    store: StoreKind,
    /// How many servers there are; several need a database that they share.
    #[arg(long, default_value_t = 1)]
    servers: usize,
}

fn main() {
    let Arguments { minutes, seconds, seed, store, servers } = Arguments::parse();
    assert!(servers == 1 || store != StoreKind::Sqlite, "one server has the file of SQLite");
    let first = Round { killed: Killed::Servers, store, servers, lasting: Duration::from_secs(seconds), seed };
    soak(first, Duration::from_secs(minutes * 60), |round, tally| {
        println!("seed {}, {:?} killed: {tally}; all is there", round.seed, round.killed);
    });
}
