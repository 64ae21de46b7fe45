//! Whether owners were linked to others.

use rusqlite::{Connection, OptionalExtension as _};
use sync_core::model::Owner;

use crate::store::sqlite::rows;
use crate::store::sqlite::schema::Failure;

/// The owner to whom this one was linked; itself, if it was not.
pub(super) fn resolve(connection: &Connection, owner: &Owner) -> Result<Owner, Failure> {
    let mut select = connection.prepare_cached("SELECT target FROM identity_link WHERE source = ?1")?;
    let target = select.query_row([owner.as_str()], |row| rows::owner(row, 0)).optional()?;
    Ok(target.unwrap_or_else(|| owner.clone()))
}

/// Fails if the owner was linked away. It is asked when nothing of the owner's was found, and not before: then no link
/// can come in between.
pub(super) fn check(connection: &Connection, owner: &Owner) -> Result<(), Failure> {
    let mut select = connection.prepare_cached("SELECT 1 FROM identity_link WHERE source = ?1")?;
    if select.exists([owner.as_str()])? { Err(Failure::Moved) } else { Ok(()) }
}
