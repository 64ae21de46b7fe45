//! Whether the file is what this code wrote.

use rusqlite::Connection;

use crate::device::{DeviceError, bytes};

/// Looks whether SQLite can read all of it, and whether its tables agree: a page that is another valid one may hide rows.
pub(super) fn structure(connection: &Connection) -> Result<(), DeviceError> {
    // Not the quick one, which does not look for what is in a table and not in its indexes.
    let found: String = connection.query_one("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(DeviceError::Corrupt(found));
    }
    for (what, select) in DISAGREEMENTS {
        if connection.query_one(&format!("SELECT EXISTS ({select})"), [], |row| row.get(0))? {
            return Err(DeviceError::Corrupt(what.to_owned()));
        }
    }
    Ok(())
}

/// Looks whether each value is as it was written.
pub(super) fn values(connection: &Connection) -> Result<(), DeviceError> {
    for select in ["SELECT key, value FROM base", "SELECT key, under FROM patch", "SELECT key, value FROM patch"] {
        let mut select = connection.prepare(select)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(value) = row.get_ref(1)?.as_blob_or_null().map_err(bytes::corrupt)? {
                bytes::value(&bytes::key(row.get(0)?)?, value)?;
            }
        }
    }
    Ok(())
}

/// Rows that no transaction leaves behind.
const DISAGREEMENTS: [(&str, &str); 4] = [
    (
        "records are missing, or are too many",
        "SELECT 1 FROM replica WHERE records <> (SELECT count(*) FROM base WHERE replica_id = replica.id)",
    ),
    ("records belong to no dataset", "SELECT 1 FROM base WHERE replica_id NOT IN (SELECT id FROM replica)"),
    (
        "pending changes belong to no group",
        "SELECT 1 FROM patch AS p WHERE NOT EXISTS
            (SELECT 1 FROM pending_group AS g WHERE g.replica_id = p.replica_id AND g.group_id = p.group_id)",
    ),
    (
        "pending changes are missing, or are too many",
        "SELECT 1 FROM pending_group AS g WHERE patches <>
            (SELECT count(*) FROM patch AS p WHERE p.replica_id = g.replica_id AND p.group_id = g.group_id)",
    ),
];
