//! How a command ends.

use std::io;

use serde_json::json;

/// The exit codes of `syncline device`; `--help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done. Conflicts that policies resolved are no failure.
    Success = 0,
    /// Failed, for a reason that no other code names.
    Failure = 1,
    /// The command or its input is wrong, or over a limit that this device knows.
    Usage = 2,
    /// Synced, and a question of the policy `ask` waits for an answer.
    Unresolved = 3,
    /// Synced, and the server refused changes, which are parked.
    Rejected = 4,
    /// The server could not be reached, or could not serve, in time; all changes are kept.
    Offline = 5,
    /// No token, or the server does not take it; all changes are kept.
    NotSignedIn = 6,
    /// There is no such record, dataset or entry.
    NotFound = 7,
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// Say it differently.
    #[error("{0}")]
    Usage(String),
    /// Write less.
    #[error("{0}")]
    LimitExceeded(String),
    /// Sign in, or sign in again.
    #[error("{0}")]
    NotSignedIn(String),
    /// Try again later.
    #[error("{0}")]
    Offline(String),
    /// Look at what there is.
    #[error("{0}")]
    NotFound(String),
    /// The server will not take requests of this version: upgrade.
    #[error("{0}")]
    UpgradeRequired(String),
    /// The server refuses, for a reason that it names.
    #[error("{what}")]
    Refused {
        /// The server's code.
        code: String,
        /// The same in words, with what helps.
        what: String,
    },
    /// The device's file does not do.
    #[error("{what}")]
    File {
        /// Why.
        problem: FileProblem,
        /// The same in words, with what helps.
        what: String,
    },
    /// Needs a person.
    #[error("{0}")]
    Failed(String),
    /// Whoever reads our output has stopped.
    #[error("the output was closed")]
    OutputClosed,
}

/// What is wrong with a device's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileProblem {
    /// There is no room for it.
    Full,
    /// It holds what nobody has written.
    Damaged,
    /// It is something else's.
    Foreign,
    /// It may not be written.
    Unwritable,
    /// It cannot be used now, or by this version.
    Unusable,
}

impl CliError {
    pub(super) const fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::LimitExceeded(_) | Self::File { problem: FileProblem::Foreign, .. } => Exit::Usage,
            Self::NotSignedIn(_) => Exit::NotSignedIn,
            Self::Offline(_) => Exit::Offline,
            Self::NotFound(_) => Exit::NotFound,
            Self::UpgradeRequired(_) | Self::Refused { .. } | Self::File { .. } | Self::Failed(_) => Exit::Failure,
            Self::OutputClosed => Exit::Success,
        }
    }

    /// A stable code, with the names of the wire where it has one.
    fn code(&self) -> &str {
        match self {
            Self::Refused { code, what: _ } => code,
            Self::Usage(_) | Self::File { problem: FileProblem::Foreign, .. } => "InvalidParameter",
            Self::LimitExceeded(_) => "LimitExceeded",
            Self::NotSignedIn(_) => "NotAuthorized",
            Self::Offline(_) => "Offline",
            Self::NotFound(_) => "ResourceNotFound",
            Self::UpgradeRequired(_) => "UpgradeRequired",
            Self::File { problem: FileProblem::Full, .. } => "StorageFull",
            Self::File { problem: FileProblem::Damaged, .. } => "FileDamaged",
            Self::File { problem: FileProblem::Unwritable, .. } => "FileUnwritable",
            Self::File { problem: FileProblem::Unusable, .. } | Self::Failed(_) | Self::OutputClosed => "InternalError",
        }
    }

    /// The error as `--json` prints it.
    pub(super) fn to_json(&self) -> String {
        json!({"error": {"code": self.code(), "message": self.to_string()}}).to_string()
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::OutputClosed;
        }
        Self::Failed(format!("reading or writing failed: {error}"))
    }
}
