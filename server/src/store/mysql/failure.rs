//! Why something is not read or written, and whether it is worth another try.

use sqlx::Error;
use sqlx::mysql::MySqlDatabaseError;

use crate::store::StoreError;
use crate::store::attempts::MayPass;

/// Why something is not read or written.
#[derive(Debug)]
pub(super) enum Failure {
    /// The database did not do it; nothing is written.
    Database(Error),
    /// It was not heard what became of the end of a transaction: all of it is written, or nothing.
    Ending(Error),
    /// The owner was linked to another one.
    Moved,
    /// The store is copied to another one, or was.
    ReadOnly,
    /// What is stored is not what was written.
    Corrupt(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

/// What the server of the database says.
mod code {
    /// The transaction was chosen to end a dead-lock.
    pub(super) const DEADLOCK: u16 = 1213;
    /// A lock was not to be had in time.
    pub(super) const LOCK_WAIT: u16 = 1205;
    /// The server is stopping.
    pub(super) const STOPPING: u16 = 1053;
    /// The connection was ended by somebody.
    pub(super) const KILLED: [u16; 2] = [1317, 1927];
    /// Too many connections.
    pub(super) const CONNECTIONS: [u16; 2] = [1040, 1203];
    /// There is no room: the disk, the table space, a temporary file.
    pub(super) const FULL: [u16; 3] = [1021, 1114, 1026];
    /// The record of a statement changed while it was read (MariaDB from 11 on, with snapshot isolation).
    pub(super) const CHANGED: u16 = 1020;
}

impl MayPass for Failure {
    /// Nothing is written, and another try may do it.
    fn may_pass(&self) -> bool {
        self.passes()
    }
}

impl Failure {
    fn passes(&self) -> bool {
        let Self::Database(error) = self else { return false };
        match error {
            Error::Io(_) | Error::Protocol(_) | Error::WorkerCrashed => true,
            Error::Database(error) => {
                let number = error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number);
                number.is_some_and(|number| {
                    [code::DEADLOCK, code::LOCK_WAIT, code::STOPPING, code::CHANGED].contains(&number)
                        || code::KILLED.contains(&number)
                        || code::CONNECTIONS.contains(&number)
                })
            }
            _ => false,
        }
    }

    /// Whether it is about what one of several writes holds, and the others could be written without it.
    pub(super) fn is_of_one(&self) -> bool {
        match self {
            Self::Database(Error::Database(_)) => !self.passes() && !self.is_full(),
            Self::Database(Error::Encode(_)) | Self::Corrupt(_) => true,
            Self::Database(_) | Self::Ending(_) | Self::Moved | Self::ReadOnly => false,
        }
    }

    fn is_full(&self) -> bool {
        let Self::Database(Error::Database(error)) = self else { return false };
        let number = error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number);
        number.is_some_and(|number| code::FULL.contains(&number))
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        let is_full = failure.is_full();
        match failure {
            Failure::Moved => Self::Moved,
            Failure::ReadOnly => Self::ReadOnly,
            Failure::Corrupt(text) => Self::Corrupt(text),
            Failure::Database(error) if is_full => Self::Full(for_the_log(error)),
            Failure::Database(error) | Failure::Ending(error) => Self::Unavailable(for_the_log(error)),
        }
    }
}

/// The error without what was written: of what a database has against data only the number is told, because its message
/// quotes them.
fn for_the_log(error: Error) -> Box<dyn std::error::Error + Send + Sync> {
    match &error {
        Error::Database(refused) if refused.code().is_some_and(|state| is_about_data(&state)) => {
            let number = refused.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number);
            format!("the database refused what was written with its error {number}").into()
        }
        _ => error.into(),
    }
}

/// The classes of SQLSTATE for values that do not fit and keys that are there already (ISO 9075).
fn is_about_data(state: &str) -> bool {
    state.starts_with("22") || state.starts_with("23")
}
