//! What is copied of the tables if another store takes their place.

use async_trait::async_trait;
use sqlx::mysql::MySqlPool;
use sqlx::{Executor as _, Row as _};
use sync_core::model::{ChangeId, DatasetName, DeviceId, Owner, limits};

use crate::store::attempts::Attempts;
use crate::store::mysql::failure::Failure;
use crate::store::mysql::transaction::end;
use crate::store::mysql::{MysqlStore, devices, owners, retried, rows, schema};
use crate::store::sql;
use crate::store::transfer::{DatasetMemory, KnownOwner, Transfer};
use crate::store::{DatasetAddress, StoreError};

#[async_trait]
impl Transfer for MysqlStore {
    async fn memory(&self, dataset: &DatasetAddress) -> Result<DatasetMemory, StoreError> {
        retried!(memory(&self.readers, dataset))
    }

    async fn set_former_name(&self, dataset: &DatasetAddress, former_name: &DatasetName) -> Result<(), StoreError> {
        retried!(set_former_name(&self.writers, dataset, former_name))
    }

    async fn owners(&self, after: Option<&Owner>, owners_max: usize) -> Result<Vec<KnownOwner>, StoreError> {
        retried!(owners(&self.readers, after, owners_max))
    }

    async fn is_read_only(&self) -> Result<bool, StoreError> {
        retried!(is_read_only(&self.readers))
    }

    async fn set_read_only(&self, is_read_only: bool) -> Result<(), StoreError> {
        retried!(set_read_only(&self.writers, is_read_only))
    }
}

async fn memory(pool: &MySqlPool, dataset: &DatasetAddress) -> Result<DatasetMemory, Failure> {
    let mut connection = pool.acquire().await?;
    let text = "SELECT id, next_change, former_name FROM syncline_dataset WHERE owner = ? AND name = ?";
    let query = sqlx::query(text).bind(dataset.owner.as_str().as_bytes()).bind(dataset.name.as_str().as_bytes());
    let Some(row) = query.fetch_optional(&mut *connection).await? else {
        owners::check(&mut connection, &dataset.owner).await?;
        return Ok(DatasetMemory::default());
    };
    let (id, next_change): (i64, i64) = (rows::column(&row, 0)?, rows::column(&row, 1)?);
    // Of each device the latest, as views have them.
    let text = "SELECT sequence, hash, answer, device FROM (
            SELECT sequence, hash, answer, device, ROW_NUMBER() OVER (PARTITION BY device ORDER BY sequence DESC) AS place
            FROM syncline_push WHERE dataset = ?
        ) AS numbered WHERE place <= ? ORDER BY device, sequence";
    let query = sqlx::query(text).bind(id).bind(limits::PUSHES_REMEMBERED_MAX as i64);
    let pushes = query.fetch_all(&mut *connection).await?;
    let push = |row| Ok((DeviceId::from_bytes(rows::array(row, 3)?), rows::push(row)?));
    let text = "SELECT change_id, sync_count FROM syncline_change WHERE dataset = ? AND number >= ? ORDER BY number";
    let query = sqlx::query(text).bind(id).bind(next_change - limits::CHANGES_REMEMBERED_MAX as i64);
    let changes = query.fetch_all(&mut *connection).await?;
    let change = |row| Ok((ChangeId::from_bytes(rows::array(row, 0)?), rows::count(row, 1)?));
    Ok(DatasetMemory {
        pushes: pushes.iter().map(push).collect::<Result<_, Failure>>()?,
        changes: changes.iter().map(change).collect::<Result<_, Failure>>()?,
        former_name: rows::name_if_any(&row, 2)?,
    })
}

async fn set_former_name(pool: &MySqlPool, dataset: &DatasetAddress, former_name: &DatasetName) -> Result<(), Failure> {
    let mut connection = pool.acquire().await?;
    connection.execute("START TRANSACTION").await?;
    let set = async {
        schema::check_writable(&mut connection).await?;
        let query = sqlx::query("UPDATE syncline_dataset SET former_name = ? WHERE owner = ? AND name = ?");
        let query = query.bind(former_name.as_str().as_bytes()).bind(dataset.owner.as_str().as_bytes());
        query.bind(dataset.name.as_str().as_bytes()).execute(&mut *connection).await?;
        Ok(())
    };
    let set = set.await;
    end(connection, set).await
}

async fn owners(pool: &MySqlPool, after: Option<&Owner>, owners_max: usize) -> Result<Vec<KnownOwner>, Failure> {
    let mut connection = pool.acquire().await?;
    let text = "SELECT o.owner, o.linked_to FROM syncline_owner AS o WHERE o.owner > ? AND (o.linked_to IS NOT NULL
            OR EXISTS (SELECT 1 FROM syncline_device AS d WHERE d.owner = o.owner))
        ORDER BY o.owner LIMIT ?";
    let query = sqlx::query(text).bind(after.map_or("", Owner::as_str).as_bytes()).bind(sql::signed(owners_max as u64));
    let mut owners = Vec::new();
    for row in query.fetch_all(&mut *connection).await? {
        let owner = rows::owner(&row, 0)?;
        let devices = devices::all(&mut connection, &owner).await?;
        owners.push(KnownOwner { linked_to: rows::owner_if_any(&row, 1)?, owner, devices });
    }
    Ok(owners)
}

async fn is_read_only(pool: &MySqlPool) -> Result<bool, Failure> {
    let text = "SELECT CAST(is_read_only AS SIGNED) FROM syncline_store WHERE id = 1";
    let is_read_only: i64 = sqlx::query(text).fetch_one(pool).await?.try_get(0)?;
    Ok(is_read_only != 0)
}

/// Waits for the transactions that are open, and comes before those that are not.
async fn set_read_only(pool: &MySqlPool, is_read_only: bool) -> Result<(), Failure> {
    sqlx::query("UPDATE syncline_store SET is_read_only = ? WHERE id = 1").bind(is_read_only).execute(pool).await?;
    Ok(())
}
