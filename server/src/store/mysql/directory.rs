//! Linking owners to others.

use std::collections::BTreeSet;

use sqlx::mysql::MySqlPool;
use sqlx::{Executor as _, MySqlConnection};
use sync_core::model::{DatasetName, Owner};

use crate::store::directory::{Linked, Renamed, name_beside};
use crate::store::mysql::failure::Failure;
use crate::store::mysql::transaction::end;
use crate::store::mysql::{devices, owners, rows, schema};

/// Links in a transaction of its own.
pub(super) async fn link(pool: &MySqlPool, source: &Owner, target: &Owner) -> Result<Linked, Failure> {
    let mut connection = pool.acquire().await?;
    connection.execute("START TRANSACTION").await?;
    let linked = link_in(&mut connection, source, target).await;
    end(connection, linked).await
}

async fn link_in(connection: &mut MySqlConnection, source: &Owner, target: &Owner) -> Result<Linked, Failure> {
    schema::check_writable(connection).await?;
    let (source, target) = loop {
        let mut ends = Vec::new();
        for owner in [source, target] {
            ends.push(owners::linked_to(connection, owner).await?.unwrap_or_else(|| owner.clone()));
        }
        let ends: [Owner; 2] = ends.try_into().expect("there are two");
        // Once both are locked and not linked away, nobody can link them.
        if owners::lock(connection, &BTreeSet::from(ends.clone())).await?.is_empty() {
            break ends.into();
        }
    };
    let moves = source != target;
    if moves {
        move_datasets(connection, &source, &target).await?;
        devices::move_all(connection, &source, &target).await?;
        let text = "UPDATE syncline_owner SET linked_to = ? WHERE linked_to = ? OR owner = ?";
        let (source, target) = (source.as_str().as_bytes(), target.as_str().as_bytes());
        sqlx::query(text).bind(target).bind(source).bind(source).execute(&mut *connection).await?;
    }
    let renamed = renamed(connection, &target).await?;
    Ok(Linked { renamed, moved_from: moves.then_some(source), target })
}

/// All else of a dataset goes by its number, and need not be touched.
async fn move_datasets(connection: &mut MySqlConnection, source: &Owner, target: &Owner) -> Result<(), Failure> {
    let mut taken = names(connection, target).await?;
    let text = "UPDATE syncline_dataset SET former_name = IF(name = ?, former_name, COALESCE(former_name, name)),
            owner = ?, name = ? WHERE owner = ? AND name = ?";
    for name in names(connection, source).await? {
        let is_taken = |name: &DatasetName| taken.contains(name);
        let to = if is_taken(&name) { name_beside(&name, source, is_taken) } else { name.clone() };
        let [source, target] = [source, target].map(|owner| owner.as_str().as_bytes());
        let query = sqlx::query(text).bind(to.as_str().as_bytes()).bind(target).bind(to.as_str().as_bytes());
        query.bind(source).bind(name.as_str().as_bytes()).execute(&mut *connection).await?;
        taken.insert(to);
    }
    Ok(())
}

async fn names(connection: &mut MySqlConnection, owner: &Owner) -> Result<BTreeSet<DatasetName>, Failure> {
    let text = "SELECT name FROM syncline_dataset WHERE owner = ? FOR UPDATE";
    let found = sqlx::query(text).bind(owner.as_str().as_bytes()).fetch_all(connection).await?;
    found.iter().map(|row| rows::name(row, 0)).collect()
}

async fn renamed(connection: &mut MySqlConnection, owner: &Owner) -> Result<Vec<Renamed>, Failure> {
    let text = "SELECT former_name, name FROM syncline_dataset
        WHERE owner = ? AND is_live AND former_name IS NOT NULL ORDER BY name";
    let found = sqlx::query(text).bind(owner.as_str().as_bytes()).fetch_all(connection).await?;
    found.iter().map(|row| Ok(Renamed { from: rows::name(row, 0)?, to: rows::name(row, 1)? })).collect()
}
