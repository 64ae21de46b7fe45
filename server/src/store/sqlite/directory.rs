//! Linking owners to others.

use std::collections::BTreeSet;

use rusqlite::{Connection, params};
use sync_core::model::{DatasetName, Owner};

use crate::store::directory::{Linked, Renamed, name_beside};
use crate::store::sqlite::schema::Failure;
use crate::store::sqlite::{devices, owners, rows};

/// Links inside the transaction that is open.
pub(super) fn link(connection: &Connection, source: &Owner, target: &Owner) -> Result<Linked, Failure> {
    let (source, target) = (owners::resolve(connection, source)?, owners::resolve(connection, target)?);
    let moves = source != target;
    if moves {
        move_datasets(connection, &source, &target)?;
        devices::move_all(connection, &source, &target)?;
        let owners = [target.as_str(), source.as_str()];
        connection.execute("UPDATE identity_link SET target = ?1 WHERE target = ?2", owners)?;
        connection.execute("INSERT INTO identity_link (target, source) VALUES (?1, ?2)", owners)?;
    }
    let renamed = renamed(connection, &target)?;
    Ok(Linked { renamed, moved_from: moves.then_some(source), target })
}

/// All else of a dataset goes by its id, and need not be touched.
fn move_datasets(connection: &Connection, source: &Owner, target: &Owner) -> Result<(), Failure> {
    let mut taken = names(connection, target)?;
    let mut update = connection.prepare_cached(
        "UPDATE dataset SET owner = ?3, name = ?4, former_name = CASE WHEN ?4 = name THEN former_name
            ELSE COALESCE(former_name, name) END
        WHERE owner = ?1 AND name = ?2",
    )?;
    for name in names(connection, source)? {
        let is_taken = |name: &DatasetName| taken.contains(name);
        let to = if is_taken(&name) { name_beside(&name, source, is_taken) } else { name.clone() };
        update.execute(params![source.as_str(), name.as_str(), target.as_str(), to.as_str()])?;
        taken.insert(to);
    }
    Ok(())
}

fn names(connection: &Connection, owner: &Owner) -> Result<BTreeSet<DatasetName>, Failure> {
    let mut select = connection.prepare_cached("SELECT name FROM dataset WHERE owner = ?1")?;
    let names = select.query_map([owner.as_str()], |row| rows::name(row, 0))?.collect::<Result<_, _>>()?;
    Ok(names)
}

fn renamed(connection: &Connection, owner: &Owner) -> Result<Vec<Renamed>, Failure> {
    let mut select = connection.prepare_cached(
        "SELECT former_name, name FROM dataset WHERE owner = ?1 AND is_live AND former_name IS NOT NULL ORDER BY name",
    )?;
    let renamed = |row: &rusqlite::Row<'_>| Ok(Renamed { from: rows::name(row, 0)?, to: rows::name(row, 1)? });
    let all = select.query_map([owner.as_str()], renamed)?.collect::<Result<_, _>>()?;
    Ok(all)
}
