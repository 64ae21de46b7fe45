//! Opening the file and bringing it up to date.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Error, ErrorCode, OpenFlags, TransactionBehavior, ffi};

use crate::store::StoreError;

/// What each version of the file adds to the one before. `user_version` counts them.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/sqlite/0001_initial.sql"),
    include_str!("../../../migrations/sqlite/0002_identity_link.sql"),
    include_str!("../../../migrations/sqlite/0003_device.sql"),
    include_str!("../../../migrations/sqlite/0004_store_state.sql"),
];

/// How long a connection waits for another process.
pub(super) const BUSY_MAX: Duration = Duration::from_secs(5);
/// Statements that a connection keeps prepared.
const STATEMENTS_MAX: usize = 64;

/// Opens the connection that writes.
pub(super) fn open(file: &Path) -> Result<Connection, StoreError> {
    let open = || {
        let connection = Connection::open(file)?;
        connection.busy_timeout(BUSY_MAX)?;
        prepare_once(&connection)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // An answered push survives a power cut.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
        connection.pragma_update(None, "cache_size", -16_384)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        Ok(connection)
    };
    open().map_err(|error| opening(file, &error))
}

/// Opens a connection that only reads.
pub(super) fn open_reader(file: &Path) -> Result<Connection, StoreError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(BUSY_MAX)?;
        prepare_once(&connection)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cache_size", -4_096)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        Ok(connection)
    };
    open().map_err(|error| opening(file, &error))
}

/// Statements stay prepared. Without the setting, SQLite prepares one anew whenever its values change, in case the plan
/// depends on them: a third of what a read costs.
fn prepare_once(connection: &Connection) -> Result<(), Error> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// Brings the file up to date, each version in a transaction of its own.
pub(super) fn migrate(file: &Path, connection: &mut Connection) -> Result<(), StoreError> {
    let (found, _) = version(file, connection)?;
    for (at, migration) in MIGRATIONS.iter().enumerate().skip(found) {
        let step = |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(migration)?;
            transaction.pragma_update(None, "user_version", at as i64 + 1)?;
            transaction.commit()
        };
        step(connection).map_err(|error| opening(file, &error))?;
    }
    Ok(())
}

/// The version of the file, and the newest one. Fails if the file is from a newer version of the program, or has not
/// the tables and indexes that its version says.
pub(super) fn version(file: &Path, connection: &Connection) -> Result<(usize, usize), StoreError> {
    let found: Result<i64, _> = connection.query_row("PRAGMA user_version", [], |row| row.get(0));
    let found = found.map_err(|error| opening(file, &error))?;
    let known = MIGRATIONS.len();
    if found > known as i64 {
        let text = format!(
            "{} was written by a newer version of Syncline (its version is {found}, and this one knows up to {known}); \
             start that version, or put back a backup from before",
            file.display()
        );
        return Err(StoreError::Unavailable(text.into()));
    }
    let there = objects(connection).map_err(|error| opening(file, &error))?;
    match usize::try_from(found) {
        Ok(version) if fits(&there, version).map_err(|error| opening(file, &error))? => Ok((version, known)),
        _ => {
            let file = file.display();
            let text =
                format!("{file} is not a database of Syncline, or it is damaged: it says version {found}; {PUT_BACK}");
            Err(StoreError::Corrupt(text))
        }
    }
}

/// Whether a file has all that the migrations up to a version make, and nothing of the later ones. What somebody added
/// may stay, but a new file is empty.
fn fits(there: &BTreeSet<String>, version: usize) -> Result<bool, Error> {
    let made = |migrations: &[&str]| {
        let connection = Connection::open_in_memory()?;
        migrations.iter().try_for_each(|migration| connection.execute_batch(migration))?;
        objects(&connection)
    };
    let (ours, all) = (made(&MIGRATIONS[..version])?, made(MIGRATIONS)?);
    Ok(ours.is_subset(there)
        && all.difference(&ours).all(|later| !there.contains(later))
        && (version > 0 || there.is_empty()))
}

/// Tables, indexes, triggers and views: kind, name, and as what they were made.
fn objects(connection: &Connection) -> Result<BTreeSet<String>, Error> {
    let mut select = connection.prepare("SELECT concat_ws(' ', type, name, sql) FROM sqlite_schema")?;
    select.query_map([], |row| row.get(0))?.collect()
}

/// An error while a file is opened, in words for whoever starts the server.
pub(super) fn opening(file: &Path, error: &Error) -> StoreError {
    let file = file.display();
    let text = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => format!("{file} is in use by another process"),
        Some(ErrorCode::NotADatabase) => return StoreError::Corrupt(format!("{file} is not a database of Syncline")),
        Some(ErrorCode::DatabaseCorrupt) => return StoreError::Corrupt(format!("{file} is damaged; {PUT_BACK}")),
        Some(ErrorCode::ReadOnly) => format!("{file} cannot be written"),
        Some(ErrorCode::CannotOpen) => format!("{file} cannot be opened: {error}"),
        _ if is_full(error) => {
            return StoreError::Full(format!("{file} cannot be written: {error}; make room on its disk").into());
        }
        _ => format!("{file}: {error}"),
    };
    StoreError::Unavailable(text.into())
}

/// Whether there is no room, or the disk takes nothing for a reason that the operating system does not tell apart from
/// it: a quota, a limit of the process, a file system that became read-only.
fn is_full(error: &Error) -> bool {
    let extended = error.sqlite_error().map(|error| error.extended_code);
    matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::ReadOnly))
        || extended.is_some_and(|code| WRITE_FAILURES.contains(&code))
}

/// What SQLite says if a disk takes nothing: of its database or log, and of what its processes share.
const WRITE_FAILURES: [i32; 3] = [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMOPEN, ffi::SQLITE_IOERR_SHMSIZE];

/// What helps if a file is damaged.
pub(super) const PUT_BACK: &str = "stop the server, and put back a backup with `syncline restore --replace`";

/// Why something is not read or written.
#[derive(Debug)]
pub(super) enum Failure {
    /// A statement failed.
    Statement(Error),
    /// The owner was linked to another one.
    Moved,
    /// The store is copied to another one, or was.
    ReadOnly,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Statement(error)
    }
}

/// A failure, as whoever asked is told of it.
pub(super) fn failed(failure: &Failure) -> StoreError {
    let error = match failure {
        Failure::Moved => return StoreError::Moved,
        Failure::ReadOnly => return StoreError::ReadOnly,
        Failure::Statement(error) => error,
    };
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(error),
        Some(_) if is_full(error) => StoreError::Full(error.to_string().into()),
        Some(_) => StoreError::Unavailable(error.to_string().into()),
        // Not from SQLite itself: a column does not hold what we put there.
        None => damaged(error),
    }
}

fn damaged(error: &Error) -> StoreError {
    StoreError::Corrupt(format!("{error}; {PUT_BACK}"))
}
