//! The device's store: one SQLite file with the replicas of all owners, which reads for planners and executes plans.
//!
//! Every operation is one transaction, so that a plan is made and executed on one moment, also when several processes
//! use one file. Operations return what observers are to be told, and by then it is durable.
//!
//! **Architecture invariant:** nothing in here decides anything. What a write, a pull or a claim means is in the
//! plans.

mod bytes;
mod check;
mod dataset;
mod error;
mod execute;
mod owner;
mod replica;
mod scan;
mod schema;
mod status;

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::merge::replica::ReplicaError;
use crate::model::{DatasetName, DeviceId, Owner, Random, Timestamp};

pub use dataset::{Prepared, Which};
pub use error::DeviceError;
pub use owner::Login;
pub use status::DatasetStatus;

/// The longest file, in bytes, that is checked whenever it is opened: some 50 ms on a small server, from the system's
/// cache.
pub const CHECKED_BYTES_MAX: i64 = 16 << 20;

/// Names a dataset on a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Whose dataset.
    pub owner: Owner,
    /// Which dataset.
    pub dataset: DatasetName,
}

/// The file of one device. Blocking; several may be open on one file, also in several processes.
///
/// Operations need it exclusively, so that none can begin inside another's transaction.
#[derive(Debug)]
pub struct DeviceDb {
    connection: Connection,
    /// Changes with every write of another connection.
    seen_version: i64,
    /// Datasets that were found to be in sync, and when: that alone writes nothing.
    in_sync: BTreeMap<Address, Timestamp>,
}

impl DeviceDb {
    /// Opens the file, and creates it if there is none. The random bytes become the ids of a new device.
    ///
    /// A file of up to [`CHECKED_BYTES_MAX`] bytes is read whole and its structure checked first: otherwise a damaged page
    /// could hide records, or changes that are still to be pushed. A larger one is for [`check`](Self::check). A damaged
    /// value is an error where it is read, so that all others can be.
    ///
    /// # Errors
    /// [`DeviceError::Foreign`] and [`DeviceError::Newer`] if it is a file of something else, which is left as it is;
    /// [`DeviceError::Corrupt`] if it is damaged.
    pub fn open(path: impl AsRef<Path>, random: &mut dyn Random) -> Result<Self, DeviceError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Self::with_connection(Connection::open_with_flags(path, flags)?, random)?;
        if db.bytes()? <= CHECKED_BYTES_MAX {
            db.read(check::structure)?;
        }
        Ok(db)
    }

    /// Reads the whole file and looks whether its structure and all values are sound: about half a second for each
    /// 100 MB, and reading them.
    ///
    /// # Errors
    /// [`DeviceError::Corrupt`] says what is wrong.
    pub fn check(&mut self) -> Result<(), DeviceError> {
        self.read(|connection| {
            check::structure(connection)?;
            check::contents(connection)
        })
    }

    fn bytes(&self) -> Result<i64, DeviceError> {
        let bytes = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
        Ok(self.connection.query_one(bytes, [], |row| row.get(0))?)
    }

    /// Opens a new device that is gone when it is dropped.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn open_in_memory(random: &mut dyn Random) -> Result<Self, DeviceError> {
        Self::with_connection(Connection::open_in_memory()?, random)
    }

    /// The device's id. It changes when the server finds that the file was copied.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn device_id(&mut self) -> Result<DeviceId, DeviceError> {
        self.read(device_id)
    }

    fn with_connection(mut connection: Connection, random: &mut dyn Random) -> Result<Self, DeviceError> {
        schema::prepare(&mut connection, random)?;
        let seen_version = data_version(&connection)?;
        Ok(Self { connection, seen_version, in_sync: BTreeMap::new() })
    }

    /// Whether others have written to the file since this was last asked. Cheap: it reads no data.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn is_changed_by_others(&mut self) -> Result<bool, DeviceError> {
        let version = data_version(&self.connection)?;
        Ok(std::mem::replace(&mut self.seen_version, version) != version)
    }

    /// Reads at one moment.
    fn read<T, E: From<DeviceError>>(&mut self, work: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        let transaction = self.connection.transaction().map_err(DeviceError::from)?;
        work(&transaction)
    }

    /// Reads and writes at one moment: all of it becomes durable, or nothing.
    fn change<T>(&mut self, work: impl FnOnce(&Connection) -> Result<T, DeviceError>) -> Result<T, DeviceError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = work(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }

    /// Like [`change`](Self::change), but a loss of power may undo it, and nothing that came before it.
    fn change_without_waiting<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        self.connection.pragma_update(None, "synchronous", "NORMAL")?;
        let result = self.change(work);
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        result
    }
}

fn data_version(connection: &Connection) -> Result<i64, DeviceError> {
    Ok(connection.pragma_query_value(None, "data_version", |row| row.get(0))?)
}

fn device_id(connection: &Connection) -> Result<DeviceId, DeviceError> {
    let mut select = connection.prepare_cached("SELECT device_id FROM device")?;
    let id: Vec<u8> = select.query_one([], |row| row.get(0))?;
    Ok(DeviceId::parse_bytes(&id).map_err(bytes::corrupt)?)
}

#[cfg(test)]
mod tests;
