//! Devices that are registered to be woken.

use rusqlite::{Connection, params};
use sync_core::model::{DeviceId, Owner};

use crate::store::devices::{Registration, first_of_each, sort_latest_first};
use crate::store::sqlite::schema::Failure;
use crate::store::sqlite::{owners, rows};

/// The devices of an owner, the latest registration first.
pub(super) fn all(connection: &Connection, owner: &Owner) -> Result<Vec<Registration>, Failure> {
    let sql = format!("SELECT {} FROM device WHERE owner = ?1 ORDER BY registered_at DESC, device", rows::REGISTRATION);
    let mut select = connection.prepare_cached(&sql)?;
    let all: Vec<_> = select.query_map([owner.as_str()], rows::registration)?.collect::<Result<_, _>>()?;
    if all.is_empty() {
        owners::check(connection, owner)?;
    }
    Ok(all)
}

/// Registers a device inside the transaction that is open; says whether it is new.
pub(super) fn register(connection: &Connection, owner: &Owner, new: &Registration) -> Result<bool, Failure> {
    let before = all(connection, owner)?;
    let is_new = before.iter().all(|registration| registration.device != new.device);
    replace(connection, owner, &first_of_each([new.clone()].into_iter().chain(before)))?;
    Ok(is_new)
}

/// Forgets a device inside the transaction that is open; says whether it was there.
pub(super) fn unregister(connection: &Connection, owner: &Owner, device: DeviceId) -> Result<bool, Failure> {
    let mut delete = connection.prepare_cached("DELETE FROM device WHERE owner = ?1 AND device = ?2")?;
    let was_there = delete.execute(params![owner.as_str(), device.as_bytes()])? > 0;
    if !was_there {
        owners::check(connection, owner)?;
    }
    Ok(was_there)
}

/// Gives the devices of one owner to another.
pub(super) fn move_all(connection: &Connection, source: &Owner, target: &Owner) -> Result<(), Failure> {
    let mut both = [all(connection, target)?, all(connection, source)?].concat();
    sort_latest_first(&mut both);
    replace(connection, source, &[])?;
    replace(connection, target, &first_of_each(both))
}

fn replace(connection: &Connection, owner: &Owner, registrations: &[Registration]) -> Result<(), Failure> {
    connection.prepare_cached("DELETE FROM device WHERE owner = ?1")?.execute([owner.as_str()])?;
    let sql =
        "INSERT INTO device (owner, device, platform, token, name, registered_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut insert = connection.prepare_cached(sql)?;
    for Registration { device, platform, token, name, registered_at } in registrations {
        let name = name.as_ref().map(|name| name.as_str());
        let values = (platform.as_str(), token.reveal(), name, registered_at.0);
        insert.execute(params![owner.as_str(), device.as_bytes(), values.0, values.1, values.2, values.3])?;
    }
    Ok(())
}
