//! The command-line device: a file on which each call opens, works and ends, and a driver of the core's sync session
//! over HTTP.
//!
//! **Architecture invariant:** nothing in here decides about sync counts, merging or retries; it parses, calls the
//! device's store or executes what the session says, and prints.

mod args;
mod exit;
mod input;
mod output;
mod records;
mod sync;
mod token;
mod upkeep;

pub use output::count;

use std::path::Path;

use sync_core::device::{Address, DeviceDb, DeviceError, Login};
use sync_core::merge::write::WriteError;
use sync_core::model::{DatasetName, InvalidName, Owner, RecordKey};

use crate::causes::with_causes;
use crate::cli::args::Command;
use crate::cli::exit::{CliError, FileProblem};
use crate::cli::output::Output;
use crate::cli::token::TokenSource;
use crate::clock::{Clock as _, Draw, SystemClock, SystemRandom};

pub use args::DeviceArgs;
pub use exit::Exit;

/// Runs one command of the command-line device, and prints what it did or why it did not, as sentences or as JSON.
pub fn run(args: DeviceArgs, json: bool) -> Exit {
    let output = Output::new(json);
    match device(args, &output) {
        Ok(exit) => exit,
        Err(error) => {
            output.error(&error);
            error.exit()
        }
    }
}

fn device(args: DeviceArgs, output: &Output) -> Result<Exit, CliError> {
    let DeviceArgs { db, server, token, token_file, command } = args;
    let db = db.ok_or_else(|| CliError::Usage("which device? pass --db FILE or set SYNCLINE_DB".into()))?;
    let token = TokenSource::new(token, token_file);
    work(&db, server, token, command, output).map_err(|error| match error {
        CliError::File { problem, what } => CliError::File { problem, what: format!("{}: {what}", db.display()) },
        error => error,
    })
}

fn work(
    db: &Path,
    server: Option<String>,
    token: TokenSource,
    command: Command,
    output: &Output,
) -> Result<Exit, CliError> {
    let mut db = DeviceDb::open(db, &mut Draw(&SystemRandom))?;
    let login = token.login()?;
    let owner = match &login {
        Some(login) if db.owner()? == login.owner() => login.owner(),
        Some(login) => db.sign_in(login)?,
        None => db.owner()?,
    };
    let mut device = Device { db, owner, login };
    match command {
        Command::Put { at, value } => records::put(&mut device, output, &at, &value),
        Command::Get(at) => records::get(&mut device, &at),
        Command::Rm(at) => records::remove(&mut device, output, &at),
        Command::List { dataset, prefix, limit } => records::list(&mut device, output, &dataset, &prefix, limit),
        Command::Import { dataset, file, key } => records::import(&mut device, output, &dataset, &file, &key),
        Command::Export { dataset } => records::export(&mut device, &dataset),
        Command::Apply { dataset, file } => records::apply(&mut device, output, &dataset, &file),
        Command::Policy { dataset, policy, prefix, field, on_delete } => {
            let declaration = upkeep::Declaration { policy, prefix, field, on_delete };
            upkeep::policy(&mut device, output, &dataset, declaration)
        }
        Command::Sync { datasets, give_up_after, watch } => {
            sync::sync(&mut device, output, sync::Way { server, token, give_up_after, watch }, &datasets)
        }
        Command::Status => upkeep::status(&mut device, output),
        Command::Conflicts { dataset, clear: false } => upkeep::conflicts(&mut device, output, &dataset),
        Command::Conflicts { dataset, clear: true } => upkeep::clear_conflicts(&mut device, output, &dataset),
        Command::Restore { dataset, id } => upkeep::restore(&mut device, output, &dataset, id),
        Command::Resolve { dataset, key, answer } => match key.zip(answer) {
            Some((key, answer)) => upkeep::resolve(&mut device, output, &dataset, &key, &answer),
            None => upkeep::questions(&mut device, output, &dataset),
        },
        Command::Parked { dataset } => upkeep::parked(&mut device, output, dataset.as_deref()),
        Command::Retry { dataset, id } => upkeep::retry(&mut device, output, dataset.as_deref(), id),
        Command::Discard { dataset, id } => upkeep::discard(&mut device, output, dataset.as_deref(), id),
        Command::Datasets => upkeep::datasets(&mut device, output),
        Command::Delete { dataset } => upkeep::delete(&mut device, output, &dataset),
        Command::Claim => upkeep::claim(&mut device, output),
        Command::Check => upkeep::check(&mut device, output),
    }
}

/// An open device, and whose datasets the command is about.
struct Device {
    db: DeviceDb,
    owner: Owner,
    login: Option<Login>,
}

impl Device {
    fn address(&self, dataset: &str) -> Result<Address, CliError> {
        Ok(self.address_of(DatasetName::parse(dataset)?))
    }

    fn address_of(&self, dataset: DatasetName) -> Address {
        Address { owner: self.owner.clone(), dataset }
    }
}

/// The clock and the random bytes of this machine, as the core's planners take them.
macro_rules! context {
    () => {
        &mut sync_core::merge::write::Context {
            now: $crate::cli::now(),
            random: &mut $crate::clock::Draw(&$crate::clock::SystemRandom),
        }
    };
}
use context;

fn now() -> sync_core::model::Timestamp {
    SystemClock.now()
}

fn parse_key(key: &str) -> Result<RecordKey, CliError> {
    Ok(RecordKey::parse(key)?)
}

impl From<InvalidName> for CliError {
    fn from(error: InvalidName) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<DeviceError> for CliError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Write(WriteError::Limit(message)) => Self::LimitExceeded(message),
            DeviceError::Write(WriteError::Invalid(message)) => Self::Usage(message),
            DeviceError::Write(WriteError::NotFound(message)) => Self::NotFound(message),
            error => {
                let (problem, help) = match error {
                    DeviceError::Full(_) => (FileProblem::Full, "; make room"),
                    DeviceError::Corrupt(_) => (FileProblem::Damaged, BEGIN_ANEW),
                    DeviceError::Foreign => (FileProblem::Foreign, ", or its beginning is damaged"),
                    DeviceError::ReadOnly(_) => {
                        (FileProblem::Unwritable, "; see that its folder is there and may be written")
                    }
                    _ => (FileProblem::Unusable, ""),
                };
                Self::File { problem, what: format!("{}{help}", with_causes(&error)) }
            }
        }
    }
}

/// What helps if the file is damaged.
const BEGIN_ANEW: &str = "; move it away and `sync` into a new file, which brings back all that was synced before";
