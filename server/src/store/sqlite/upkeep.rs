//! What an operator does with the file: copies it while it is in use, and looks whether it is sound.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, Row};
use sync_core::model::Digest;

use crate::store::sqlite::rows;
use crate::store::sqlite::schema::{self, opening};
use crate::store::{StoreError, TablesVersion};

/// Copies the file as it is at one moment, also while a server writes to it, which waits for nothing. `copy` is an
/// empty file, or none yet. The file is looked at before, and the copy afterwards: a copy is made table by table, so that
/// it is sound even if the tables and indexes of the file do not agree.
///
/// # Errors
/// If the file cannot be read, or the copy cannot be written.
pub(super) fn copy(file: &Path, copy: &Path) -> Result<(), StoreError> {
    let name = copy.to_str().ok_or_else(|| StoreError::Unavailable("the path of a copy is written in UTF-8".into()))?;
    let connection = open(file)?;
    check_structure(file, &connection)?;
    // One read transaction, however long it takes; unlike a copy page by page, which commits of others send back to the
    // start.
    connection.execute("VACUUM INTO ?1", [name]).map_err(|error| opening(copy, &error))?;
    drop(connection);
    check(copy).map(drop)
}

/// Looks whether the file is sound, and not from a newer version.
///
/// # Errors
/// Says what is wrong.
pub(super) fn check(file: &Path) -> Result<TablesVersion, StoreError> {
    let connection = open(file)?;
    let version = version_of(file, &connection)?;
    check_structure(file, &connection)?;
    if version.found == version.known {
        match wrong_rows(&connection) {
            Ok(None) => {}
            Ok(Some(what)) => return Err(damaged(file, &what)),
            // What stands in a column is not what was written.
            Err(error) if error.sqlite_error().is_none() => return Err(damaged(file, &error.to_string())),
            Err(error) => return Err(opening(file, &error)),
        }
    }
    Ok(version)
}

fn check_structure(file: &Path, connection: &Connection) -> Result<(), StoreError> {
    // Not the quick one, which does not look for what is in a table and not in its indexes, as pulls read them.
    let found = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
    let found: String = found.map_err(|error| opening(file, &error))?;
    if found == "ok" { Ok(()) } else { Err(damaged(file, &found)) }
}

/// What is wrong with the rows, if something is: all records are as they were written, and the rest can be read and belongs
/// to something. SQLite would not notice if only bytes of a value had changed.
fn wrong_rows(connection: &Connection) -> Result<Option<String>, rusqlite::Error> {
    let mut datasets =
        connection.prepare(&format!("SELECT {}, epoch, sync_count, tag, is_live FROM dataset", rows::HEAD))?;
    let mut records =
        connection.prepare(&format!("SELECT {} FROM record WHERE dataset = ?1 AND removal IS NULL", rows::RECORD))?;
    let at = rows::HEAD_COLUMNS;
    let dataset = |row: &Row<'_>| {
        let columns = (rows::position(row, at)?, rows::count(row, at + 1)?, row.get(at + 3)?);
        Ok((rows::head(row)?, columns))
    };
    for dataset in datasets.query_map([], dataset)? {
        let ((id, head), columns) = dataset?;
        let (mut digest, mut count, mut bytes) = (Digest::default(), 0, 0);
        for record in records.query_map([id], rows::record)? {
            let record = record?;
            digest = digest.plus(&record);
            count += 1;
            bytes += record.bytes();
        }
        if (digest, count, bytes as u64) != (head.digest, head.records, head.bytes) {
            return Ok(Some(format!("the records of dataset {id} are not those that were written")));
        }
        if columns != (head.lineage.position(), head.lineage.count, head.exists()) {
            return Ok(Some(format!("the row of dataset {id} contradicts itself")));
        }
    }
    let unnumbered = "SELECT EXISTS (SELECT 1 FROM change AS c JOIN dataset AS d ON d.id = c.dataset
        WHERE c.number >= d.next_change)";
    if connection.query_row(unnumbered, [], |row| row.get(0))? {
        return Ok(Some("a remembered change has a number that is still to be given".to_owned()));
    }
    for table in ["record", "push", "change"] {
        let select = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE dataset NOT IN (SELECT id FROM dataset))");
        if connection.query_row(&select, [], |row| row.get(0))? {
            return Ok(Some(format!("a row of the table `{table}` belongs to no dataset")));
        }
    }
    let mut pushes = connection.prepare("SELECT sequence, hash, answer FROM push")?;
    pushes.query_map([], rows::push)?.try_for_each(|push| push.map(drop))?;
    let mut devices = connection.prepare(&format!("SELECT {} FROM device", rows::REGISTRATION))?;
    devices.query_map([], rows::registration)?.try_for_each(|device| device.map(drop))?;
    connection.query_row("SELECT is_read_only FROM store_state", [], |row| row.get::<_, bool>(0))?;
    Ok(None)
}

fn damaged(file: &Path, what: &str) -> StoreError {
    StoreError::Corrupt(format!("{} is damaged: {what}", file.display()))
}

/// The version of the file.
///
/// # Errors
/// If the file cannot be read, or is from a newer version.
pub(super) fn version(file: &Path) -> Result<TablesVersion, StoreError> {
    version_of(file, &open(file)?)
}

fn version_of(file: &Path, connection: &Connection) -> Result<TablesVersion, StoreError> {
    let (found, known) = schema::version(file, connection)?;
    Ok(TablesVersion { found, known })
}

/// Opens a file that is there. Others may use it at the same time.
fn open(file: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(schema::BUSY_MAX)?;
        Ok(connection)
    };
    open().map_err(|error| opening(file, &error))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::sqlite::SqliteStore;

    #[test]
    fn a_copy_is_sound_and_one_that_is_not_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let store = SqliteStore::open(&path("a.db")).unwrap();
        SqliteStore::copy(&path("a.db"), &path("b.db")).unwrap();
        drop(store);
        let TablesVersion { found, known } = SqliteStore::check(&path("b.db")).unwrap();
        assert_eq!(found, known);
        assert!(SqliteStore::open(&path("b.db")).is_ok());

        let error = |name: &str| SqliteStore::check(&path(name)).unwrap_err().to_string();
        assert!(error("missing.db").contains("the store is unavailable"));
        fs::write(path("text.db"), "x".repeat(10_000)).unwrap();
        assert!(error("text.db").contains("is not a database of Syncline"), "{}", error("text.db"));
        let connection = Connection::open(path("b.db")).unwrap();
        connection.pragma_update(None, "user_version", known as i64 + 1).unwrap();
        drop(connection);
        assert!(SqliteStore::version(&path("b.db")).is_err());

        let mut bytes = fs::read(path("a.db")).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..].fill(0x55);
        fs::write(path("a.db"), bytes).unwrap();
        assert!(error("a.db").contains("damaged"), "{}", error("a.db"));
    }
}
