//! Devices that are registered to be woken.

use std::collections::BTreeSet;

use sqlx::mysql::MySqlPool;
use sqlx::{Executor as _, MySqlConnection, QueryBuilder};
use sync_core::model::{DeviceId, Owner};

use crate::store::devices::{Registration, first_of_each, sort_latest_first};
use crate::store::mysql::failure::Failure;
use crate::store::mysql::transaction::end;
use crate::store::mysql::{owners, rows, schema};

/// The devices of an owner, the latest registration first.
pub(super) async fn read(pool: &MySqlPool, owner: &Owner) -> Result<Vec<Registration>, Failure> {
    let mut connection = pool.acquire().await?;
    let all = all(&mut connection, owner).await?;
    if all.is_empty() {
        owners::check(&mut connection, owner).await?;
    }
    Ok(all)
}

/// Registers a device; says whether it is new.
pub(super) async fn register(pool: &MySqlPool, owner: &Owner, new: &Registration) -> Result<bool, Failure> {
    let mut connection = pool.acquire().await?;
    connection.execute("START TRANSACTION").await?;
    let is_new = register_in(&mut connection, owner, new).await;
    end(connection, is_new).await
}

async fn register_in(connection: &mut MySqlConnection, owner: &Owner, new: &Registration) -> Result<bool, Failure> {
    lock(connection, owner).await?;
    let before = all(connection, owner).await?;
    let is_new = before.iter().all(|registration| registration.device != new.device);
    replace(connection, owner, &first_of_each([new.clone()].into_iter().chain(before))).await?;
    Ok(is_new)
}

/// Forgets a device; says whether it was there.
pub(super) async fn unregister(pool: &MySqlPool, owner: &Owner, device: DeviceId) -> Result<bool, Failure> {
    let mut connection = pool.acquire().await?;
    connection.execute("START TRANSACTION").await?;
    let was_there = unregister_in(&mut connection, owner, device).await;
    end(connection, was_there).await
}

async fn unregister_in(connection: &mut MySqlConnection, owner: &Owner, device: DeviceId) -> Result<bool, Failure> {
    lock(connection, owner).await?;
    let query = sqlx::query("DELETE FROM syncline_device WHERE owner = ? AND device = ?");
    let query = query.bind(owner.as_str().as_bytes()).bind(device.as_bytes().as_slice());
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

/// One after the other for an owner, and none for one that was linked away.
async fn lock(connection: &mut MySqlConnection, owner: &Owner) -> Result<(), Failure> {
    schema::check_writable(connection).await?;
    let moved = owners::lock(connection, &BTreeSet::from([owner.clone()])).await?;
    if moved.is_empty() { Ok(()) } else { Err(Failure::Moved) }
}

/// Gives the devices of one owner to another; both are locked.
pub(super) async fn move_all(connection: &mut MySqlConnection, source: &Owner, target: &Owner) -> Result<(), Failure> {
    let mut both = [all(connection, target).await?, all(connection, source).await?].concat();
    sort_latest_first(&mut both);
    replace(connection, source, &[]).await?;
    replace(connection, target, &first_of_each(both)).await
}

pub(super) async fn all(connection: &mut MySqlConnection, owner: &Owner) -> Result<Vec<Registration>, Failure> {
    let sql = format!(
        "SELECT {} FROM syncline_device WHERE owner = ? ORDER BY registered_at DESC, device",
        rows::REGISTRATION
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(owner.as_str().as_bytes());
    query.fetch_all(connection).await?.iter().map(rows::registration).collect()
}

async fn replace(
    connection: &mut MySqlConnection,
    owner: &Owner,
    registrations: &[Registration],
) -> Result<(), Failure> {
    let query = sqlx::query("DELETE FROM syncline_device WHERE owner = ?").bind(owner.as_str().as_bytes());
    query.execute(&mut *connection).await?;
    if registrations.is_empty() {
        return Ok(());
    }
    let mut query =
        QueryBuilder::new("INSERT INTO syncline_device (owner, device, platform, token, name, registered_at) ");
    query.push_values(registrations, |mut row, Registration { device, platform, token, name, registered_at }| {
        row.push_bind(owner.as_str().as_bytes()).push_bind(device.as_bytes().as_slice());
        row.push_bind(platform.as_str().as_bytes()).push_bind(token.reveal().as_bytes());
        row.push_bind(name.as_ref().map(|name| name.as_str().as_bytes())).push_bind(registered_at.0);
    });
    query.build().persistent(false).execute(connection).await?;
    Ok(())
}
