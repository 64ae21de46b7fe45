//! Whether owners were linked to others.

use std::collections::BTreeSet;

use sqlx::mysql::MySqlPool;
use sqlx::{MySqlConnection, QueryBuilder};
use sync_core::model::Owner;

use crate::store::mysql::failure::Failure;
use crate::store::mysql::lists::in_powers_of_two;
use crate::store::mysql::rows;

/// The owner to whom this one was linked; itself, if it was not.
pub(super) async fn resolve(pool: &MySqlPool, owner: &Owner) -> Result<Owner, Failure> {
    let target = linked_to(&mut *pool.acquire().await?, owner).await?;
    Ok(target.unwrap_or_else(|| owner.clone()))
}

/// Fails if the owner was linked away. It is asked when nothing of the owner's was found, and not before: then no link
/// can come in between.
pub(super) async fn check(connection: &mut MySqlConnection, owner: &Owner) -> Result<(), Failure> {
    if linked_to(connection, owner).await?.is_some() { Err(Failure::Moved) } else { Ok(()) }
}

/// To whom this one was linked.
pub(super) async fn linked_to(connection: &mut MySqlConnection, owner: &Owner) -> Result<Option<Owner>, Failure> {
    let query = sqlx::query("SELECT linked_to FROM syncline_owner WHERE owner = ?").bind(owner.as_str().as_bytes());
    let row = query.fetch_optional(connection).await?;
    row.map_or(Ok(None), |row| rows::owner_if_any(&row, 0))
}

/// Locks owners until the transaction ends, and says which of them were linked away.
pub(super) async fn lock(
    connection: &mut MySqlConnection,
    owners: &BTreeSet<Owner>,
) -> Result<BTreeSet<Owner>, Failure> {
    let owners: Vec<&Owner> = owners.iter().collect();
    let mut moved = BTreeSet::new();
    for owners in in_powers_of_two(&owners) {
        let mut query = QueryBuilder::new("INSERT INTO syncline_owner (owner) ");
        query.push_values(owners, |mut row, owner| {
            row.push_bind(owner.as_str().as_bytes());
        });
        query.push(" ON DUPLICATE KEY UPDATE owner = VALUES(owner)");
        query.build().execute(&mut *connection).await?;
        let mut query =
            QueryBuilder::new("SELECT owner FROM syncline_owner WHERE linked_to IS NOT NULL AND owner IN (");
        let mut list = query.separated(", ");
        for owner in owners {
            list.push_bind(owner.as_str().as_bytes());
        }
        query.push(") FOR UPDATE");
        for row in query.build().fetch_all(&mut *connection).await? {
            moved.insert(rows::owner(&row, 0)?);
        }
    }
    Ok(moved)
}
