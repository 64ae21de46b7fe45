//! What can be said on the command line of a device.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sync_core::policy::Policy;

use crate::config::Duration;

/// Read and write records in a device's file, offline or not, and sync them
///
/// All commands but `sync` work without a server, without a network and with an expired token.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES, subcommand_help_heading = "Commands")]
pub struct DeviceArgs {
    /// The device's file; it is made when it is missing
    #[arg(long, value_name = "FILE", global = true, env = "SYNCLINE_DB")]
    pub(super) db: Option<PathBuf>,
    /// The server to sync with, such as http://127.0.0.1:8650; it may be another one in each call
    #[arg(long, value_name = "URL", global = true, env = "SYNCLINE_SERVER")]
    pub(super) server: Option<String>,
    /// Who is signed in
    #[arg(long, value_name = "TOKEN", global = true, env = "SYNCLINE_TOKEN", hide_env_values = true)]
    pub(super) token: Option<String>,
    /// A file with the token, read again for each request; wins over --token
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) token_file: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a record
    Put {
        #[command(flatten)]
        at: Address,
        /// The value as JSON; `-` reads it from standard input
        #[arg(value_name = "JSON", allow_negative_numbers = true)]
        value: String,
    },
    /// Print a record's value as JSON
    Get(Address),
    /// Remove a record
    Rm(Address),
    /// List records by key
    List {
        dataset: String,
        /// Only keys that begin so
        #[arg(long, value_name = "TEXT", default_value = "")]
        prefix: String,
        /// At most so many
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Write the records of a file: a JSON array or JSON lines
    Import {
        dataset: String,
        /// The file; `-` reads standard input
        file: PathBuf,
        /// The field that holds the key: text, or a number. It stays in the value
        #[arg(long, value_name = "FIELD")]
        key: String,
    },
    /// Print all records as JSON lines, by key: equal data gives equal bytes
    Export { dataset: String },
    /// Write a file of changes as one group, pushed whole or not at all
    ///
    /// Each line is {"op":"put","key":…,"value":…} or {"op":"remove","key":…}.
    Apply {
        dataset: String,
        /// The file; `-` reads standard input
        file: PathBuf,
    },
    /// Declare how concurrent changes are merged, or print what is declared
    Policy {
        dataset: String,
        /// `default` takes a declaration back
        #[arg(value_parser = parse_policy)]
        policy: Option<PolicyChoice>,
        /// For the records whose key begins so
        #[arg(long, value_name = "TEXT", conflicts_with = "field", requires = "policy")]
        prefix: Option<String>,
        /// For one field of all records; `address/city` is a field of a field
        #[arg(long, value_name = "PATH", requires = "policy")]
        field: Option<String>,
        /// When one side edits a record and the other removes it
        #[arg(long, value_name = "WHICH")]
        on_delete: Option<OnDeleteChoice>,
    },
    /// Push and pull until nothing is left to do
    Sync {
        /// Which datasets; none: all of the identity, also those never seen here
        datasets: Vec<String>,
        /// How long to try while the server does not answer, such as 500ms, 30s or 5m
        #[arg(long, value_name = "TIME", default_value = "30s")]
        give_up_after: Duration,
        /// Go on until stopped: sync whenever the server says that something has changed, or this file has
        #[arg(long)]
        watch: bool,
    },
    /// Say who is signed in and what waits for the next sync
    Status,
    /// List what lost in merges, resets and resolutions
    Conflicts {
        dataset: String,
        /// Forget them
        #[arg(long)]
        clear: bool,
    },
    /// Write back what an entry of the conflict log lost
    Restore {
        dataset: String,
        /// The entry's number in `conflicts`
        id: u64,
    },
    /// Answer a question of the policy `ask`, or list the open ones
    Resolve {
        dataset: String,
        #[arg(requires = "answer")]
        key: Option<String>,
        /// `local`, `remote`, `remove` or a new value as JSON
        #[arg(allow_negative_numbers = true)]
        answer: Option<String>,
    },
    /// List changes that the server refused, and why
    Parked { dataset: Option<String> },
    /// Send parked changes again
    Retry {
        /// Nothing: those of all datasets
        dataset: Option<String>,
        /// The number in `parked`; nothing: all of the dataset
        id: Option<u64>,
    },
    /// Give parked changes up
    Discard {
        /// Nothing: those of all datasets
        dataset: Option<String>,
        /// The number in `parked`; nothing: all of the dataset
        id: Option<u64>,
    },
    /// List the datasets of this file
    Datasets,
    /// Delete a dataset here, and with the next sync everywhere
    Delete { dataset: String },
    /// Take over what was written before signing in
    Claim,
    /// Read the whole file and say whether it is sound
    ///
    /// The other commands do so themselves in files of up to 16 MiB, but look only at the values that they read.
    Check,
}

#[derive(Debug, Args)]
pub(super) struct Address {
    pub(super) dataset: String,
    pub(super) key: String,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum PolicyChoice {
    Default,
    Is(Policy),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum OnDeleteChoice {
    /// The record comes back with the edit (the default)
    EditWins,
    /// The record stays removed; the edit goes to the conflict log
    DeleteWins,
}

fn parse_policy(name: &str) -> Result<PolicyChoice, String> {
    if name == "default" {
        return Ok(PolicyChoice::Default);
    }
    let names = || Policy::ALL.map(Policy::name).join(", ");
    Policy::parse(name).map(PolicyChoice::Is).ok_or_else(|| format!("it is one of default, {}", names()))
}

const EXAMPLES: &str = r#"Examples:
  A first record, and a second device that gets it:
    export SYNCLINE_SERVER=http://127.0.0.1:8650
    export SYNCLINE_TOKEN=$(syncline token --user ada)
    syncline device --db phone.db put notes today '{"text":"milk","done":false}'
    syncline device --db phone.db sync
    syncline device --db tablet.db sync
    syncline device --db tablet.db get notes today

  Thousands of records, and back:
    syncline device --db phone.db import movies movies.json --key id
    syncline device --db phone.db export movies >movies.jsonl

  A counter that several devices may change at once:
    syncline device --db phone.db policy votes counter
    syncline device --db phone.db put votes tea 1

  What lost when two devices changed the same thing, and how to get it back:
    syncline device --db phone.db conflicts notes
    syncline device --db phone.db restore notes 1

Policies (how concurrent changes are merged):
  fields            each changed field on its own (the default for maps)
  last_sync_wins    the one that is synced last (the default for everything else)
  latest_edit_wins  the one that was written last, by the devices' clocks
  keep_remote       what the server has
  keep_local        what this device has
  counter           both differences are added
  set               both sides' insertions and removals
  max, min          the larger, the smaller
  text              line by line; both are kept where they overlap
  ask               it waits for `resolve`
  Fields take only fields, last_sync_wins, counter, set, max and min.

Exit codes:
  0  done
  1  failed
  2  the command or its input is wrong, or over a limit that this device knows
  3  synced; a question waits for `resolve`
  4  synced; the server refused changes, see `parked`
  5  the server could not be reached, or could not serve, in time; all changes are kept for the next sync
  6  not signed in: no token, or the server does not take it; all changes are kept
  7  there is no such record, dataset or entry
"#;
