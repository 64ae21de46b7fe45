//! Whether the file is what this code wrote.

use rusqlite::Connection;
use serde::de::DeserializeOwned;

use crate::conflict::{LogEntry, Parked};
use crate::device::replica::StoredReplica;
use crate::device::{DeviceError, bytes, owner, status};
use crate::merge::replica::Replica as _;
use crate::model::DatasetName;

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

/// Looks whether each value is as it was written, and all else can be read.
pub(super) fn contents(connection: &Connection) -> Result<(), DeviceError> {
    for select in ["SELECT key, value FROM base", "SELECT key, value FROM stage"] {
        let mut select = connection.prepare(select)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(value) = row.get_ref(1)?.as_blob_or_null().map_err(bytes::corrupt)? {
                bytes::value(&bytes::key(row.get(0)?)?, value)?;
            }
        }
    }
    owner::limits(connection)?;
    let mut replicas = connection.prepare("SELECT id, dataset FROM replica")?;
    let replicas = replicas.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
    for replica in replicas {
        let (id, name) = replica?;
        status::status(connection, id, DatasetName::parse(name).map_err(bytes::corrupt)?)?;
        let replica = StoredReplica::with_id(connection, Some(id));
        replica.policies()?;
        for group in replica.groups()? {
            replica.group_patches(group.id)?;
        }
    }
    decode::<LogEntry>(connection, "SELECT entry FROM conflict")?;
    decode::<Parked>(connection, "SELECT unit FROM parked")
}

fn decode<T: DeserializeOwned>(connection: &Connection, select: &str) -> Result<(), DeviceError> {
    let mut select = connection.prepare(select)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        bytes::decode::<T>(row.get_ref(0)?.as_blob().map_err(bytes::corrupt)?)?;
    }
    Ok(())
}

/// Rows that no transaction leaves behind.
const DISAGREEMENTS: [(&str, &str); 5] = [
    (
        "the one who is signed in is not known",
        "SELECT 1 FROM device WHERE owner <> guest AND owner NOT IN (SELECT owner FROM login)",
    ),
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
