//! Whose datasets the device holds, and what it remembers of the server.

use rusqlite::{Connection, OptionalExtension as _};
use sha2::{Digest as _, Sha256};

use crate::device::{DeviceDb, DeviceError, bytes};
use crate::model::limits::REQUEST_BYTES_FIRST;
use crate::model::{Limits, Owner, Random};

/// Who signed in, as an ID token says it. Known offline, expired or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The token's issuer.
    pub issuer: String,
    /// The token's audience.
    pub audience: String,
    /// The token's subject.
    pub subject: String,
}

impl Login {
    /// The owner of this login's datasets on every device.
    pub fn owner(&self) -> Owner {
        let Self { issuer, audience, subject } = self;
        let mut hasher = Sha256::new();
        for part in [issuer, audience, subject] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let hash: [u8; 32] = hasher.finalize().into();
        Owner::parse(format!("login:{}", hex(&hash[..16]))).expect("hex digits are allowed in owners")
    }
}

impl DeviceDb {
    /// The owner whose datasets the app uses: of the last sign-in, or the guest.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn owner(&mut self) -> Result<Owner, DeviceError> {
        self.read(|connection| device_owner(connection, "SELECT owner FROM device"))
    }

    /// The owner before any sign-in.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn guest_owner(&mut self) -> Result<Owner, DeviceError> {
        self.read(|connection| device_owner(connection, "SELECT guest FROM device"))
    }

    /// Remembers a login and makes its owner the current one.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn sign_in(&mut self, login: &Login) -> Result<Owner, DeviceError> {
        let owner = login.owner();
        let Login { issuer, audience, subject } = login;
        self.change(|connection| {
            connection.execute(
                "INSERT INTO login (owner, issuer, audience, subject) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                (owner.as_str(), issuer, audience, subject),
            )?;
            connection.execute("UPDATE device SET owner = ?1", [owner.as_str()])?;
            Ok(())
        })?;
        Ok(owner)
    }

    /// Makes the guest the current owner. The datasets of the login stay; [`wipe`](Self::wipe) removes them.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn sign_out(&mut self) -> Result<Owner, DeviceError> {
        self.change(|connection| {
            connection.execute("UPDATE device SET owner = guest", [])?;
            device_owner(connection, "SELECT guest FROM device")
        })
    }

    /// The login that an owner stands for; nothing for the guest.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn login(&mut self, owner: &Owner) -> Result<Option<Login>, DeviceError> {
        self.read(|connection| {
            let select = "SELECT issuer, audience, subject FROM login WHERE owner = ?1";
            let found = connection.query_row(select, [owner.as_str()], |row| {
                Ok(Login { issuer: row.get(0)?, audience: row.get(1)?, subject: row.get(2)? })
            });
            Ok(found.optional()?)
        })
    }

    /// The identity of a login, as far as the server told it.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn identity(&mut self, owner: &Owner) -> Result<Option<Owner>, DeviceError> {
        self.read(|connection| {
            let select = "SELECT identity FROM login WHERE owner = ?1";
            let found: Option<Option<String>> =
                connection.query_row(select, [owner.as_str()], |row| row.get(0)).optional()?;
            Ok(found.flatten().map(Owner::parse).transpose().map_err(bytes::corrupt)?)
        })
    }

    /// Remembers the identity of a login.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set_identity(&mut self, owner: &Owner, identity: &Owner) -> Result<(), DeviceError> {
        self.change(|connection| {
            let update = "UPDATE login SET identity = ?2 WHERE owner = ?1";
            connection.execute(update, [owner.as_str(), identity.as_str()])?;
            Ok(())
        })
    }

    /// The server's limits and the version that names them. Until it has told them: the defaults, with small requests.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn limits(&mut self) -> Result<(Limits, Option<u32>), DeviceError> {
        self.read(|connection| {
            let select = "SELECT limits_version FROM device";
            let version: Option<i64> = connection.query_one(select, [], |row| row.get(0))?;
            Ok((limits(connection)?, version.map(bytes::unsigned).transpose()?))
        })
    }

    /// Remembers the server's limits.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set_limits(&mut self, limits: &Limits, version: Option<u32>) -> Result<(), DeviceError> {
        self.change(|connection| {
            let update = "UPDATE device SET limits = ?1, limits_version = ?2";
            connection.execute(update, (bytes::encode(limits), version))?;
            Ok(())
        })
    }
}

/// The limits that a write has to keep.
pub(super) fn limits(connection: &Connection) -> Result<Limits, DeviceError> {
    let mut select = connection.prepare_cached("SELECT limits FROM device")?;
    let limits: Option<Vec<u8>> = select.query_one([], |row| row.get(0))?;
    let Some(limits) = limits else {
        return Ok(Limits { request_bytes_max: REQUEST_BYTES_FIRST, ..Limits::default() });
    };
    Ok(bytes::decode(&limits)?)
}

/// Draws the owner for the time before sign-in: a random UUID.
pub(super) fn guest(random: &mut dyn Random) -> Result<Owner, DeviceError> {
    let mut uuid = [0; 16];
    random.fill(&mut uuid);
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    let hex = hex(&uuid);
    let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    Ok(Owner::parse(format!("local:{a}-{b}-{c}-{d}-{e}")).map_err(bytes::corrupt)?)
}

fn device_owner(connection: &Connection, select: &str) -> Result<Owner, DeviceError> {
    let owner: String = connection.prepare_cached(select)?.query_one([], |row| row.get(0))?;
    Ok(Owner::parse(owner).map_err(bytes::corrupt)?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
