//! Why an operation on the device's file failed.

use crate::device::ReplicaError;
use crate::merge::write::WriteError;

/// Why an operation failed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// Another process holds the file for long: try again.
    #[error("the device's file is in use by another process")]
    Busy(#[source] rusqlite::Error),
    /// The disk is full: make room.
    #[error("there is no room left for the device's file; nothing was written")]
    Full(#[source] rusqlite::Error),
    /// The file, or its folder, may not be written, or the folder is not there.
    #[error("the device's file cannot be written")]
    ReadOnly(#[source] rusqlite::Error),
    /// The file cannot be opened or read at the moment.
    #[error("the device's file cannot be used")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The file holds what no version of this code writes. Needs a person, or a new file and a pull.
    #[error("the device's file is corrupt: {0}")]
    Corrupt(String),
    /// The file belongs to something else.
    #[error("the file is not a device's file")]
    Foreign,
    /// The file was written by a newer version: update.
    #[error("the device's file has version {found}, and this code knows versions up to {known}")]
    Newer {
        /// The version of the file.
        found: i64,
        /// The newest version that this code knows.
        known: i64,
    },
    /// The planner refused what was asked for.
    #[error(transparent)]
    Write(WriteError),
}

impl From<rusqlite::Error> for DeviceError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy(error),
            Some(ErrorCode::DiskFull) => Self::Full(error),
            // A quota, a limit of the process, a file system that became read-only: SQLite does not tell them apart.
            Some(ErrorCode::SystemIoFailure) if takes_nothing(&error) => Self::Full(error),
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => Self::ReadOnly(error),
            // Unknown: a table or a column that every file of this version has is not there.
            Some(
                ErrorCode::DatabaseCorrupt
                | ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::Unknown,
            ) => Self::Corrupt(error.to_string()),
            Some(ErrorCode::NotADatabase) => Self::Foreign,
            Some(_) => Self::Unavailable(Box::new(error)),
            // The same of a row, or it is of another type.
            None => Self::Corrupt(error.to_string()),
        }
    }
}

/// Whether the disk took nothing of what was to be written.
fn takes_nothing(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_IOERR_SHMOPEN, SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_WRITE};
    let extended = error.sqlite_error().map(|error| error.extended_code);
    extended.is_some_and(|code| [SQLITE_IOERR_WRITE, SQLITE_IOERR_SHMOPEN, SQLITE_IOERR_SHMSIZE].contains(&code))
}

impl From<ReplicaError> for DeviceError {
    fn from(error: ReplicaError) -> Self {
        match error {
            ReplicaError::Unavailable(source) => match source.downcast::<Self>() {
                Ok(error) => *error,
                Err(source) => Self::Unavailable(source),
            },
            ReplicaError::Corrupt(what) => Self::Corrupt(what),
        }
    }
}

impl From<WriteError> for DeviceError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Replica(error) => error.into(),
            refused => Self::Write(refused),
        }
    }
}

/// What a planner is told when this store fails; [`DeviceError`] comes out again on the other side.
pub(super) fn replica_error(error: impl Into<DeviceError>) -> ReplicaError {
    match error.into() {
        DeviceError::Corrupt(what) => ReplicaError::Corrupt(what),
        error => ReplicaError::Unavailable(Box::new(error)),
    }
}
