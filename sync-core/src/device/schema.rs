//! The tables of the device's file, and how a file comes to have them.

use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::device::DeviceError;
use crate::device::owner;
use crate::model::{DeviceId, Random};

/// Makes a connection ready: a new file gets its tables, an older one is migrated, any other one is refused untouched.
pub(super) fn prepare(connection: &mut Connection, random: &mut dyn Random) -> Result<(), DeviceError> {
    connection.busy_timeout(Duration::from_millis(BUSY_MS_MAX))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Otherwise SQLite prepares statements anew when their values change, in case the plan depends on them.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    let version = version(connection)?;
    use_wal(connection)?;
    connection.execute_batch(PRAGMAS)?;
    if version < VERSION {
        migrate(connection, random)?;
    }
    Ok(())
}

/// Turns the write-ahead log on. SQLite does not wait for others by itself here, but it does to begin a write.
fn use_wal(connection: &mut Connection) -> Result<(), DeviceError> {
    for _ in 0..WAL_TRIES_MAX {
        match connection.query_one("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?.commit()?;
            }
            mode => return mode.map(drop).map_err(DeviceError::from),
        }
    }
    Ok(())
}

/// The version of the file; zero if it is new.
fn version(connection: &Connection) -> Result<i64, DeviceError> {
    let (application, version, tables, has_steps): (i64, i64, i64, bool) = connection.query_one(
        "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
            (SELECT count(*) FROM sqlite_schema),
            EXISTS (SELECT 1 FROM pragma_table_info('pending_group') WHERE name = 'steps')",
        [],
        |row| row.try_into(),
    )?;
    match (application, version, tables) {
        (0, 0, 0) => Ok(0),
        (APPLICATION_ID, 1..=VERSION, _) if has_steps == (version > 1) => Ok(version),
        (APPLICATION_ID, 1..=VERSION, _) => {
            Err(DeviceError::Corrupt(format!("it says version {version}, and its tables are of another")))
        }
        (APPLICATION_ID, found, _) if found > VERSION => Err(DeviceError::Newer { found, known: VERSION }),
        _ => Err(DeviceError::Foreign),
    }
}

fn migrate(connection: &mut Connection, random: &mut dyn Random) -> Result<(), DeviceError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster.
    let found = version(&transaction)?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(usize::MAX)) {
        transaction.execute_batch(migration)?;
    }
    if found == 0 {
        let device = DeviceId::random(random);
        let guest = owner::guest(random)?;
        let insert = "INSERT INTO device (id, device_id, guest, owner) VALUES (1, ?1, ?2, ?2)";
        transaction.execute(insert, (device.as_bytes(), guest.as_str()))?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(())
}

/// `Sync`.
const APPLICATION_ID: i64 = 0x5379_6e63;

/// What each version of the file adds to the one before. What stands here stays as it is: files were made by it.
const MIGRATIONS: [&str; 3] = [
    TABLES,
    "ALTER TABLE pending_group ADD COLUMN steps BLOB",
    "-- Blobs are sealed; those of earlier versions are read as they are.",
];

/// The version that this code writes.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// How long an operation waits for other processes.
const BUSY_MS_MAX: u64 = 30_000;

/// Each try waits for somebody else who opens the file; without the log everything works, and slower.
const WAL_TRIES_MAX: usize = 100;

const STATEMENTS_MAX: usize = 64;

/// An operation is on the disk when it returns. A large transaction does not leave its length to the log for ever.
const PRAGMAS: &str = "
    PRAGMA synchronous = FULL;
    PRAGMA checkpoint_fullfsync = ON;
    PRAGMA cache_size = -8192;
    PRAGMA cell_size_check = ON;
    PRAGMA journal_size_limit = 16777216;
";

/// The first version. Keys are blobs, because they are compared by bytes. Values are canonical bytes, sealed; no value is
/// a removal.
const TABLES: &str = "
    CREATE TABLE device (
        id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
        device_id BLOB NOT NULL,
        guest TEXT NOT NULL,
        owner TEXT NOT NULL,
        limits BLOB,
        limits_version INTEGER
    ) STRICT;

    CREATE TABLE login (
        owner TEXT NOT NULL PRIMARY KEY,
        issuer TEXT NOT NULL,
        audience TEXT NOT NULL,
        subject TEXT NOT NULL,
        identity TEXT
    ) STRICT, WITHOUT ROWID;

    -- An id is never used twice, so that rows that are being dropped cannot come up in another replica.
    -- records: how many the base has.
    CREATE TABLE replica (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        owner TEXT NOT NULL,
        dataset TEXT NOT NULL,
        state BLOB,
        policies BLOB,
        records INTEGER NOT NULL DEFAULT 0,
        last_synced INTEGER,
        UNIQUE (owner, dataset)
    ) STRICT;

    CREATE TABLE base (
        replica_id INTEGER NOT NULL,
        key BLOB NOT NULL,
        count INTEGER NOT NULL,
        value BLOB NOT NULL,
        modified_by BLOB,
        modified_at INTEGER NOT NULL,
        device_time INTEGER NOT NULL,
        PRIMARY KEY (replica_id, key)
    ) STRICT, WITHOUT ROWID;

    -- Like the base, and tombstones. Pages of a pull come in another order than that of keys, so they are appended.
    CREATE TABLE stage (
        id INTEGER PRIMARY KEY,
        replica_id INTEGER NOT NULL,
        key BLOB NOT NULL,
        count INTEGER NOT NULL,
        value BLOB,
        removed TEXT,
        modified_by BLOB,
        modified_at INTEGER NOT NULL,
        device_time INTEGER NOT NULL,
        UNIQUE (replica_id, key)
    ) STRICT;

    -- A group's header.
    CREATE TABLE pending_group (
        replica_id INTEGER NOT NULL,
        group_id INTEGER NOT NULL,
        state BLOB NOT NULL,
        change_id BLOB NOT NULL,
        patches INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (replica_id, group_id)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE patch (
        replica_id INTEGER NOT NULL,
        key BLOB NOT NULL,
        group_id INTEGER NOT NULL,
        under BLOB,
        value BLOB,
        device_time INTEGER NOT NULL,
        whole INTEGER NOT NULL,
        claimed INTEGER NOT NULL,
        question BLOB,
        sent BLOB,
        PRIMARY KEY (replica_id, key, group_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX patch_by_group ON patch (replica_id, group_id);

    CREATE TABLE conflict (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        replica_id INTEGER NOT NULL,
        entry BLOB NOT NULL
    ) STRICT;
    CREATE INDEX conflict_by_replica ON conflict (replica_id);

    CREATE TABLE parked (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        replica_id INTEGER NOT NULL,
        unit BLOB NOT NULL
    ) STRICT;
    CREATE INDEX parked_by_replica ON parked (replica_id);
";
