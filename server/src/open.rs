//! Opens the store that an address names. Nothing else names a store of a certain kind.

use std::path::Path;
use std::sync::Arc;

use crate::config::StoreUrl;
use crate::data_folder::{DataFolder, DataFolderError, FolderLock};
use crate::metrics::StoreUnits;
use crate::store::dynamodb::{DynamoDbStore, InvalidSettings};
use crate::store::mysql::MysqlStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError, TablesVersion};

/// The database in a data folder.
pub const DATABASE: &str = "syncline.db";

/// A store, and what must live as long as it.
pub struct OpenStore {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Of a store in a data folder, that nobody else uses.
    _lock: Option<FolderLock>,
    folder: Option<DataFolder>,
    /// What it is charged by, if somebody charges for it.
    units: Option<StoreUnits>,
}

/// Why a store is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its folder cannot be used.
    #[error(transparent)]
    Folder(#[from] DataFolderError),
    /// Its address cannot be read.
    #[error(transparent)]
    Address(#[from] InvalidSettings),
    /// It cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Opens a store. One in a data folder is made, if it is not there, and brought up to date; of others the tables must be
/// there.
///
/// # Errors
/// Says what is wrong, and what helps, without passwords.
pub async fn open(url: &StoreUrl) -> Result<OpenStore, OpenError> {
    let shared = |store: Arc<dyn Store>| OpenStore { store, _lock: None, folder: None, units: None };
    match url {
        StoreUrl::Sqlite(path) => {
            let folder = DataFolder::open(path)?;
            let lock = folder.lock()?;
            Ok(OpenStore { _lock: Some(lock), ..open_unlocked(&folder)? })
        }
        StoreUrl::Mysql(url) => Ok(shared(Arc::new(MysqlStore::open(url).await?))),
        StoreUrl::DynamoDb(url) => {
            let units = StoreUnits::default();
            let store = DynamoDbStore::open(&url.parse()?, units.clone()).await?;
            Ok(OpenStore { units: Some(units), ..shared(Arc::new(store)) })
        }
    }
}

/// Opens the store in a data folder that nobody else can be using: a draft, or one that is locked.
///
/// # Errors
/// As [`open`].
pub fn open_unlocked(folder: &DataFolder) -> Result<OpenStore, OpenError> {
    let store = Arc::new(SqliteStore::open(&folder.private_file(DATABASE)?)?);
    Ok(OpenStore { store, _lock: None, folder: Some(folder.clone()), units: None })
}

/// Makes the tables of a store, or brings them up to date; says which version was found.
///
/// # Errors
/// As [`open`].
pub async fn migrate(url: &StoreUrl) -> Result<TablesVersion, OpenError> {
    match url {
        StoreUrl::Sqlite(path) => {
            let before = version(url).await?;
            let folder = DataFolder::open(path)?;
            let _lock = folder.lock()?;
            drop(SqliteStore::open(&folder.private_file(DATABASE)?)?);
            Ok(before)
        }
        StoreUrl::Mysql(url) => Ok(MysqlStore::migrate(url).await?),
        StoreUrl::DynamoDb(url) => Ok(DynamoDbStore::migrate(&url.parse()?).await?),
    }
}

/// The version of the tables of a store. Connects to it, and changes nothing.
///
/// # Errors
/// As [`open`].
pub async fn version(url: &StoreUrl) -> Result<TablesVersion, OpenError> {
    match url {
        StoreUrl::Sqlite(path) => {
            let file = path.join(DATABASE);
            if !file.exists() {
                return Ok(TablesVersion { found: 0, known: SqliteStore::KNOWN_VERSION });
            }
            Ok(SqliteStore::version(&file)?)
        }
        StoreUrl::Mysql(url) => Ok(MysqlStore::version(url).await?),
        StoreUrl::DynamoDb(url) => Ok(DynamoDbStore::version(&url.parse()?).await?),
    }
}

impl OpenStore {
    /// How large a store in a data folder is, asked again at each call; of others, their operators know.
    pub fn bytes(&self) -> impl Fn() -> Option<u64> + Send + Sync + 'static {
        let folder = self.folder.clone();
        move || folder.as_ref()?.bytes_of(DATABASE)
    }

    /// What the store is charged by, if somebody charges for it.
    pub const fn units(&self) -> Option<&StoreUnits> {
        self.units.as_ref()
    }
}

/// Copies a database file; see [`SqliteStore::copy`].
///
/// # Errors
/// As there.
pub fn copy_file(file: &Path, copy: &Path) -> Result<(), StoreError> {
    SqliteStore::copy(file, copy)
}

/// Looks whether a database file is sound.
///
/// # Errors
/// Says what is wrong.
pub fn check_file(file: &Path) -> Result<(), StoreError> {
    SqliteStore::check(file).map(drop)
}
