//! A device's file that something else has written to: whatever is in it, opening and using it ends, and never panics.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::Value as Cell;
use sync_core::conflict::Resolution;
use sync_core::device::{Address, DeviceDb, DeviceError, Login, Which};
use sync_core::merge::stack::Context;
use sync_core::model::{DatasetName, Limits, Position, SyncCount, Timestamp, Value};
use sync_core::protocol::DatasetRequest;

use crate::dice::Dice;
use crate::fuzz::input::Input;
use crate::fuzz::{draw, pull};
use crate::harness::Folder;

/// The bytes say what is changed in a good file, and then what the app and the server do.
pub fn device(data: &[u8]) {
    let mut input = Input::new(data);
    PLACE.with_borrow_mut(|place| {
        let Place { folder, good } = place.get_or_insert_with(Place::new);
        let path = folder.path("device.db");
        damage(&path, good, &mut input);
        drop(use_file(&path, &mut input));
        for file in ["device.db", "device.db-wal", "device.db-shm", "device.db-journal"] {
            drop(fs::remove_file(folder.path(file)));
        }
    });
}

thread_local! {
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

struct Place {
    folder: Folder,
    /// A file with something in each table.
    good: Vec<u8>,
}

const NOW: Timestamp = Timestamp(1_000_000);

impl Place {
    fn new() -> Self {
        let folder = Folder::new();
        let path = folder.path("good.db");
        write_good_file(&path).expect("a good file can be written");
        let good = fs::read(&path).expect("it was written");
        Self { folder, good }
    }
}

/// What the app and the server do to a good file follows from a fixed seed.
fn write_good_file(path: &Path) -> Result<(), DeviceError> {
    let mut dice = Dice::new(3);
    let mut db = DeviceDb::open(path, &mut Dice::new(4))?;
    db.set_limits(&Limits::default(), Some(7))?;
    let guest = db.guest_owner()?;
    let login = Login { issuer: "i".to_owned(), audience: "a".to_owned(), subject: "s".to_owned() };
    let owner = db.sign_in(&login)?;
    for (owner, name) in [(&owner, "notes"), (&owner, "other"), (&guest, "notes")] {
        let address = Address { owner: owner.clone(), dataset: name_of(name) };
        let drawn: Vec<u8> = (0..4_000).map(|_| dice.next() as u8).collect();
        let mut input = Input::new(&drawn);
        db.set_policies(&address, draw::policies(&mut input))?;
        let mut asked = Vec::new();
        while !input.is_empty() {
            drop(step(&mut db, &address, &mut asked, &mut input));
        }
    }
    Ok(())
}

/// Changes bytes of the file, and cells of its tables.
fn damage(path: &Path, good: &[u8], input: &mut Input<'_>) {
    let mut file = good.to_vec();
    for _ in 0..input.below(8).saturating_sub(3) {
        let at = u32::from_be_bytes(input.array()) as usize % file.len();
        let bytes = input.bytes();
        let end = (at + bytes.len()).min(file.len());
        file[at..end].copy_from_slice(&bytes[..end - at]);
    }
    if input.one_in(16) {
        file.truncate(u32::from_be_bytes(input.array()) as usize % file.len());
    }
    fs::write(path, file).expect("the folder of the test can be written");
    let cells = input.below(8).saturating_sub(2);
    if cells > 0
        && let Ok(connection) = Connection::open(path)
    {
        drop(connection.pragma_update(None, "synchronous", "OFF"));
        for _ in 0..cells {
            // A file that is damaged already may not have the cell.
            drop(change_cell(&connection, input));
        }
    }
}

/// Changes all cells of a column that are like one of them.
fn change_cell(connection: &Connection, input: &mut Input<'_>) -> rusqlite::Result<()> {
    let column = input.below(COLUMNS.iter().map(|(_, columns)| columns.len()).sum());
    let mut columns = COLUMNS.iter().flat_map(|(table, columns)| columns.iter().map(move |column| (table, column)));
    let (table, column) = columns.nth(column).expect("it is below their number");
    let nth = input.below(64);
    if input.one_in(16) {
        connection.execute(&format!("DELETE FROM {table} WHERE {column} > ?1"), [input.integer()])?;
    }
    let old: Cell = connection.query_one(
        &format!("SELECT {column} FROM {table} LIMIT 1 OFFSET ?1 % (SELECT max(1, count(*)) FROM {table})"),
        [nth as i64],
        |row| row.get(0),
    )?;
    let new = changed(&old, input);
    connection.execute(&format!("UPDATE {table} SET {column} = ?1 WHERE {column} IS ?2"), (new, old))?;
    Ok(())
}

fn changed(old: &Cell, input: &mut Input<'_>) -> Cell {
    let splice = |old: &[u8], input: &mut Input<'_>| {
        let at = input.below(256) % (old.len() + 1);
        let bytes = input.bytes();
        let end = if input.flag() { (at + bytes.len()).min(old.len()) } else { at };
        [&old[..at], bytes, &old[end..]].concat()
    };
    match (input.below(8), old) {
        (0, _) => Cell::Null,
        (1, Cell::Blob(_)) => Cell::Blob(draw::value(input).to_bytes()),
        // Earlier versions of the file did not seal it.
        (2, Cell::Blob(old)) => Cell::Blob(splice(unsealed(old), input)),
        (_, Cell::Blob(old)) => Cell::Blob(splice(old, input)),
        (_, Cell::Text(old)) => Cell::Text(String::from_utf8_lossy(&splice(old.as_bytes(), input)).into_owned()),
        (_, Cell::Integer(old)) if input.flag() => Cell::Integer(old.wrapping_add(input.integer())),
        _ => Cell::Integer(input.integer()),
    }
}

/// What the core keeps in a blob is between a mark and a check.
fn unsealed(blob: &[u8]) -> &[u8] {
    blob.get(1..blob.len().saturating_sub(4)).unwrap_or_default()
}

const COLUMNS: [(&str, &[&str]); 9] = [
    ("device", &["device_id", "guest", "owner", "limits", "limits_version"]),
    ("login", &["owner", "issuer", "identity"]),
    ("replica", &["id", "owner", "dataset", "state", "state", "state", "policies", "records", "last_synced"]),
    ("base", &["replica_id", "key", "count", "value", "modified_by", "modified_at", "device_time"]),
    ("stage", &["id", "replica_id", "key", "count", "value", "removed", "modified_by", "modified_at", "device_time"]),
    ("pending_group", &["replica_id", "group_id", "state", "change_id", "patches", "bytes", "steps"]),
    (
        "patch",
        &["replica_id", "key", "group_id", "under", "value", "device_time", "whole", "claimed", "question", "sent"],
    ),
    ("conflict", &["id", "replica_id", "entry"]),
    ("parked", &["id", "replica_id", "unit"]),
];

fn use_file(path: &Path, input: &mut Input<'_>) -> Result<(), DeviceError> {
    let mut db = DeviceDb::open(path, &mut Dice::new(5))?;
    let (owner, guest) = (db.owner(), db.guest_owner());
    drop((db.device_id(), db.limits()));
    let owner = owner.or(guest)?;
    drop((db.login(&owner), db.identity(&owner), db.datasets(&owner)));
    let address = Address { owner, dataset: name_of(if input.one_in(4) { "other" } else { "notes" }) };
    read(&mut db, &address);
    let mut asked = Vec::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        drop(step(&mut db, &address, &mut asked, input));
    }
    read(&mut db, &address);
    Ok(())
}

fn read(db: &mut DeviceDb, address: &Address) {
    drop(db.for_each(address, "", |_, _| Ok::<_, DeviceError>(())));
    drop((db.questions(address), db.conflicts(address, None, 9), db.parked(address, None, 9), db.policies(address)));
}

/// What the app, a session or a server does.
fn step(
    db: &mut DeviceDb,
    address: &Address,
    asked: &mut Vec<DatasetRequest>,
    input: &mut Input<'_>,
) -> Result<(), DeviceError> {
    let mut random = Dice::new(6);
    let mut context = Context { now: NOW, random: &mut random };
    match input.below(24) {
        0 => drop(db.delete_dataset(address)?),
        1 => db.set_local_only(address, input.one_in(4))?,
        2 => db.discard(address, Which::All)?,
        3 => drop(db.retry(address, Which::All, &mut context)?),
        4 => {
            for (id, _) in db.conflicts(address, None, 3)? {
                db.restore(address, id, &mut context)?;
            }
        }
        5 => {
            for question in db.questions(address)? {
                let with = if input.flag() { Resolution::KeepLocal } else { Resolution::KeepRemote };
                db.resolve(address, &question, with, &mut context)?;
            }
        }
        6 if input.one_in(4) => {
            let guest = db.guest_owner()?;
            db.claim(&guest, &address.owner, &mut context)?;
        }
        7 if input.one_in(4) => db.wipe(&address.owner)?,
        8 => drop(db.list(address, "a", None, input.below(4))?),
        9..14 => asked.extend(db.prepare(address, &Limits::default(), true)?.request),
        14..19 => {
            let Some(request) = asked.last() else { return Ok(()) };
            let near = request.cursor.map_or(SyncCount::ZERO, |Position { count, .. }| count);
            let response = (!input.one_in(12)).then(|| draw::response(input, request, near, NOW));
            let request = request.clone();
            db.absorb(address, &request, response, NOW, &mut context)?;
        }
        _ => {
            let writes: Vec<(_, Option<Value>)> = pull::writes(input);
            db.write(address, writes, &mut context)?;
        }
    }
    Ok(())
}

fn name_of(name: &str) -> DatasetName {
    DatasetName::parse(name).expect("it is a valid name")
}

const STEPS_MAX: usize = 24;
