//! What is copied of the file if another store takes its place.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use sync_core::model::{ChangeId, DatasetName, DeviceId, Owner};

use crate::store::sql;
use crate::store::sqlite::schema::Failure;
use crate::store::sqlite::{SqliteStore, devices, owners, rows};
use crate::store::transfer::{DatasetMemory, KnownOwner, Transfer};
use crate::store::{DatasetAddress, StoreError};

#[async_trait]
impl Transfer for SqliteStore {
    async fn memory(&self, dataset: &DatasetAddress) -> Result<DatasetMemory, StoreError> {
        let dataset = dataset.clone();
        self.readers.read(move |connection| memory(connection, &dataset)).await
    }

    async fn set_former_name(&self, dataset: &DatasetAddress, former_name: &DatasetName) -> Result<(), StoreError> {
        let (dataset, former_name) = (dataset.clone(), former_name.clone());
        let sql = "UPDATE dataset SET former_name = ?3 WHERE owner = ?1 AND name = ?2";
        let set = move |connection: &Connection| {
            let values = params![dataset.owner.as_str(), dataset.name.as_str(), former_name.as_str()];
            connection.execute(sql, values)?;
            Ok(())
        };
        self.write(set).await
    }

    async fn owners(&self, after: Option<&Owner>, owners_max: usize) -> Result<Vec<KnownOwner>, StoreError> {
        let after = after.cloned();
        self.readers.read(move |connection| owners(connection, after.as_ref(), owners_max)).await
    }

    async fn is_read_only(&self) -> Result<bool, StoreError> {
        Ok(self.is_read_only.load(Ordering::SeqCst))
    }

    async fn set_read_only(&self, is_read_only: bool) -> Result<(), StoreError> {
        let set = move |connection: &Connection| {
            connection.execute("UPDATE store_state SET is_read_only = ?1", [is_read_only])?;
            Ok(())
        };
        self.writer.write(set).await?;
        self.is_read_only.store(is_read_only, Ordering::SeqCst);
        Ok(())
    }
}

/// Whether the file says that nothing is written to it.
pub(super) fn is_read_only(connection: &Connection) -> Result<bool, Failure> {
    Ok(connection.query_row("SELECT is_read_only FROM store_state", [], |row| row.get(0))?)
}

fn memory(connection: &Connection, dataset: &DatasetAddress) -> Result<DatasetMemory, Failure> {
    let found = connection
        .query_row(
            "SELECT id, former_name FROM dataset WHERE owner = ?1 AND name = ?2",
            params![dataset.owner.as_str(), dataset.name.as_str()],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?.map(|_| rows::name(row, 1)))),
        )
        .optional()?;
    let Some((id, former_name)) = found else {
        owners::check(connection, &dataset.owner)?;
        return Ok(DatasetMemory::default());
    };
    let push = |row: &Row<'_>| Ok((DeviceId::from_bytes(row.get(3)?), rows::push(row)?));
    let mut pushes = connection
        .prepare("SELECT sequence, hash, answer, device FROM push WHERE dataset = ?1 ORDER BY device, sequence")?;
    let change = |row: &Row<'_>| Ok((ChangeId::from_bytes(row.get(0)?), rows::count(row, 1)?));
    let mut changes =
        connection.prepare("SELECT change_id, sync_count FROM change WHERE dataset = ?1 ORDER BY number")?;
    Ok(DatasetMemory {
        pushes: pushes.query_map([id], push)?.collect::<Result<_, _>>()?,
        changes: changes.query_map([id], change)?.collect::<Result<_, _>>()?,
        former_name: former_name.transpose()?,
    })
}

fn owners(connection: &Connection, after: Option<&Owner>, owners_max: usize) -> Result<Vec<KnownOwner>, Failure> {
    let sql = "SELECT source, target FROM identity_link WHERE source > ?1
        UNION SELECT owner, NULL FROM device WHERE owner > ?1 ORDER BY 1 LIMIT ?2";
    let values = params![after.map_or("", Owner::as_str), sql::signed(owners_max as u64)];
    let row = |row: &Row<'_>| {
        let linked_to = row.get::<_, Option<String>>(1)?.map(|_| rows::owner(row, 1)).transpose()?;
        Ok((rows::owner(row, 0)?, linked_to))
    };
    let mut select = connection.prepare(sql)?;
    let mut owners = Vec::new();
    for found in select.query_map(values, row)? {
        let (owner, linked_to) = found?;
        // Who was linked away has none any more.
        let devices = if linked_to.is_none() { devices::all(connection, &owner)? } else { Vec::new() };
        owners.push(KnownOwner { owner, linked_to, devices });
    }
    Ok(owners)
}
