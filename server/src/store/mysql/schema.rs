//! Connecting to the database, and its tables.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions, MySqlRow};
use sqlx::{Connection as _, Error, Executor as _, MySqlConnection, Row as _};

use crate::store::mysql::failure::Failure;
use crate::store::{StoreError, TablesVersion};

/// What each version of the tables adds to the one before.
static MIGRATIONS: Migrator = sqlx::migrate!("migrations/mysql");
/// The table that says which versions the tables have come through.
const MIGRATED: &str = "_syncline_migrations";
/// Whoever changes tables holds the lock of this name, and others wait for so long.
const MIGRATION_LOCK: &str = "syncline_migrate";
const MIGRATION_WAIT_S: i64 = 60;

/// How long a request waits for a connection.
const ACQUIRE_MAX: Duration = Duration::from_secs(5);
/// How long a statement waits for a lock.
const LOCK_WAIT_S: u32 = 5;
/// The largest packet must take a record of the largest value, as bytes and as JSON.
const PACKET_BYTES_MIN: u64 = 16 << 20;

/// How connections are used.
#[derive(Clone, Copy, Debug)]
pub(super) enum Use {
    /// To read at one moment.
    Read,
    /// To write: what was committed meanwhile is seen.
    Write,
}

/// What may stand behind the `?` of an address.
const SETTINGS: [&str; 6] = ["ssl-mode", "ssl-ca", "ssl-cert", "ssl-key", "charset", "socket"];

/// Reads an address such as `mysql://user:password@host/database`.
pub(super) fn options(url: &str) -> Result<MySqlConnectOptions, StoreError> {
    // What sqlx says of an address that it cannot read may contain parts of it.
    let options = MySqlConnectOptions::from_str(url).map_err(|_| wrong_address())?;
    let query = url.split_once('?').map_or("", |(_, query)| query);
    for setting in query.split('&').filter(|setting| !setting.is_empty()) {
        let name = setting.split('=').next().unwrap_or(setting);
        if !SETTINGS.contains(&name) {
            let text =
                format!("the address of the database has the setting `{name}`; known are {}", SETTINGS.join(", "));
            return Err(StoreError::Unavailable(text.into()));
        }
    }
    if options.get_database().is_none_or(str::is_empty) {
        return Err(StoreError::Unavailable(
            "the address of the database names no database; write mysql://USER:PASSWORD@HOST/DATABASE".into(),
        ));
    }
    Ok(options)
}

fn wrong_address() -> StoreError {
    StoreError::Unavailable(
        "the address of the database is not written mysql://USER:PASSWORD@HOST:PORT/DATABASE, with special characters \
         of user and password percent-encoded"
            .into(),
    )
}

/// Connections for one use, made when they are needed.
pub(super) fn pool(options: &MySqlConnectOptions, purpose: Use, connections_max: u32) -> MySqlPool {
    let level = match purpose {
        Use::Read => "REPEATABLE READ",
        Use::Write => "READ COMMITTED",
    };
    MySqlPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_MAX)
        .test_before_acquire(false)
        .before_acquire(|connection, used| {
            Box::pin(async move {
                // One that was not used for a while may be closed at the other end.
                if used.idle_for >= Duration::from_secs(1) {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(move |connection, _| {
            Box::pin(async move {
                let level = format!("SET SESSION TRANSACTION ISOLATION LEVEL {level}");
                connection.execute(sqlx::AssertSqlSafe(level)).await?;
                let wait = format!("SET SESSION innodb_lock_wait_timeout = {LOCK_WAIT_S}");
                connection.execute(sqlx::AssertSqlSafe(wait)).await?;
                Ok(())
            })
        })
        .connect_lazy_with(options.clone())
}

/// Connects once, and looks whether the database can be used at all.
pub(super) async fn connect(options: &MySqlConnectOptions) -> Result<MySqlConnection, StoreError> {
    let connected = tokio::time::timeout(ACQUIRE_MAX, MySqlConnection::connect_with(options)).await;
    let place = format!("the database at {}:{}", options.get_host(), options.get_port());
    let mut connection = match connected {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(StoreError::Unavailable(format!("{place}: {}", plain(&error)).into())),
        Err(_) => return Err(StoreError::Unavailable(format!("{place} does not answer").into())),
    };
    let row = connection.fetch_one("SELECT CAST(@@max_allowed_packet AS SIGNED)").await;
    let packet: i64 = row.and_then(|row| row.try_get(0)).map_err(|error| failed(&place, &error))?;
    if (packet as u64) < PACKET_BYTES_MIN {
        let text = format!("{place} takes {packet} bytes at once; set its max_allowed_packet to 16M or more");
        return Err(StoreError::Unavailable(text.into()));
    }
    Ok(connection)
}

/// Brings the tables up to date. Whoever does so at the same time waits.
pub(super) async fn migrate(options: &MySqlConnectOptions) -> Result<TablesVersion, StoreError> {
    let mut connection = connect(options).await?;
    let place = options.get_database().unwrap_or_default().to_owned();
    let lock = format!("{MIGRATION_LOCK}.{place}");
    let lock = &lock[..lock.len().min(64)];
    let locked = sqlx::query("SELECT GET_LOCK(?, ?)").bind(lock).bind(MIGRATION_WAIT_S).fetch_one(&mut connection);
    let locked: Option<i64> = locked.await.and_then(|row| row.try_get(0)).map_err(|error| failed(&place, &error))?;
    if locked != Some(1) {
        let text = format!("somebody else has been bringing {place} up to date for {MIGRATION_WAIT_S} s");
        return Err(StoreError::Unavailable(text.into()));
    }
    let before = version(&mut connection).await?;
    if before.found < before.known {
        let mut migrator = Migrator::with_migrations(MIGRATIONS.iter().cloned().collect());
        // MariaDB does not know locks that are waited for without an end, which sqlx asks for.
        migrator.set_locking(false);
        migrator.dangerous_set_table_name(MIGRATED);
        let migrated = migrator.run_direct(None, &mut connection, false).await;
        migrated
            .map_err(|error| StoreError::Unavailable(format!("{place} was not brought up to date: {error}").into()))?;
    }
    // The lock ends with the connection. If that fails to end well, it has ended all the same.
    drop(connection.close().await);
    Ok(TablesVersion { found: before.found, known: before.known })
}

/// The version of the tables. Fails if they are from a newer version of the program.
pub(super) async fn version(connection: &mut MySqlConnection) -> Result<TablesVersion, StoreError> {
    let known = MIGRATIONS.iter().count();
    let text = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?";
    let tables = sqlx::query(text).bind(MIGRATED).fetch_one(&mut *connection).await;
    let tables: i64 = tables.and_then(|row: MySqlRow| row.try_get(0)).map_err(|error| failed("its tables", &error))?;
    if tables == 0 {
        return Ok(TablesVersion { found: 0, known });
    }
    let text =
        format!("SELECT CAST(COUNT(*) AS SIGNED), CAST(COALESCE(SUM(NOT success), 0) AS SIGNED) FROM {MIGRATED}");
    let row = connection.fetch_one(sqlx::AssertSqlSafe(text)).await.map_err(|error| failed("its tables", &error))?;
    let column = |at| row.try_get::<i64, _>(at).map_err(|error| failed("its tables", &error));
    let (found, halves) = (column(0)? as usize, column(1)?);
    if halves > 0 {
        let text = "a migration of the tables was interrupted, and MySQL cannot take back a part of one: put back a \
             backup from before, or, if there was nothing yet, drop the tables that begin with syncline, and \
             _syncline_migrations; then run `syncline migrate` again";
        return Err(StoreError::Corrupt(text.to_owned()));
    }
    if found > known {
        let text = format!(
            "its tables were made by a newer version of Syncline (theirs is {found}, and this one knows up to {known}); \
             start that version, or put back a backup from before"
        );
        return Err(StoreError::Unavailable(text.into()));
    }
    Ok(TablesVersion { found, known })
}

/// Fails unless the tables are those that this program knows.
pub(super) fn check_current(version: TablesVersion) -> Result<(), StoreError> {
    let TablesVersion { found, known } = version;
    match found {
        _ if found == known => Ok(()),
        0 => Err(StoreError::Unavailable("the database has no tables of Syncline yet; run `syncline migrate`".into())),
        _ => {
            let text = format!("its tables have version {found}, and this one needs {known}; run `syncline migrate`");
            Err(StoreError::Unavailable(text.into()))
        }
    }
}

fn failed(place: &str, error: &Error) -> StoreError {
    StoreError::Unavailable(format!("{place}: {}", plain(error)).into())
}

/// An error in words for whoever starts the server. None of it contains the password.
fn plain(error: &Error) -> String {
    match error {
        Error::Io(error) => format!("cannot be reached: {error}"),
        Error::Tls(error) => format!("no encrypted connection: {error}"),
        other => other.to_string(),
    }
}

/// Fails if the store takes no writes; holds it writable until the transaction ends.
pub(super) async fn check_writable(connection: &mut MySqlConnection) -> Result<(), Failure> {
    let text = "SELECT CAST(is_read_only AS SIGNED) FROM syncline_store WHERE id = 1 LOCK IN SHARE MODE";
    let is_read_only: i64 = sqlx::query(text).fetch_one(connection).await?.try_get(0)?;
    if is_read_only == 0 { Ok(()) } else { Err(Failure::ReadOnly) }
}
