//! Datasets in a database of MySQL (8 or newer) or MariaDB (10.6 or newer), for any number of servers.
//!
//! Readers see one moment (`REPEATABLE READ`). A few lanes read for pushes, each all that waits for it at one moment, and a
//! few write, each all that waits for it in one transaction (`READ COMMITTED`, with locks on the heads that it writes): a
//! dataset has its lane, so one server does not stand in its own way. The canonical bytes of a value are what counts; beside them is its JSON, for SQL.

mod devices;
mod directory;
mod failure;
mod lanes;
mod lists;
mod owners;
mod read;
mod rows;
mod schema;
mod transaction;
mod transfer;
mod view;
mod write;

use async_trait::async_trait;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool};
use sync_core::merge::push::{Commit, View};
use sync_core::model::{DatasetName, DeviceId, Owner, Position, SyncCount, Timestamp};

use crate::store::attempts::Attempts;
use crate::store::devices::Registration;
use crate::store::directory::{Directory, Linked};
use crate::store::mysql::lanes::Lanes;
use crate::store::mysql::schema::Use;
use crate::store::mysql::view::WantedView;
use crate::store::mysql::write::EncodedCommit;
use crate::store::transfer::Transfer;
use crate::store::{
    CommitOutcome, DatasetAddress, RecordsAfter, RecordsFrom, RecordsRead, Store, StoreError, TablesVersion, Touched,
};

/// Datasets in a database of MySQL or MariaDB.
pub struct MysqlStore {
    readers: MySqlPool,
    writers: MySqlPool,
    views: Lanes<WantedView>,
    commits: Lanes<EncodedCommit>,
}

/// Connections that read. With those that write, a server has 12.
const READERS: u32 = 8;
/// Transactions that read for pushes at once, and that write them.
const LANES: usize = 2;
/// Connections that write: the lanes, and what is not a push.
const WRITERS: u32 = LANES as u32 + 2;

/// Tries an operation again while that is worth it.
macro_rules! retried {
    ($work:expr) => {{
        let mut attempts = Attempts::default();
        loop {
            match $work.await {
                Ok(done) => break Ok(done),
                Err(failure) => attempts.after(failure).await?,
            }
        }
    }};
}
pub(in crate::store::mysql) use retried;

impl MysqlStore {
    /// Connects to the database that `mysql://user:password@host/database` names, whose tables must be there.
    ///
    /// # Errors
    /// If it cannot be reached or used, or its tables are missing, outdated or from a newer version.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let options = schema::options(url)?;
        schema::check_current(Self::version_at(&options).await?)?;
        let (readers, writers) =
            (schema::pool(&options, Use::Read, READERS), schema::pool(&options, Use::Write, WRITERS));
        let (views, commits) = (Lanes::start(&readers, LANES), Lanes::start(&writers, LANES));
        Ok(Self { readers, writers, views, commits })
    }

    /// Makes the tables, or brings them up to date. Safe to run at any time, and from several places at once; says which
    /// version was found.
    ///
    /// # Errors
    /// If the database cannot be reached or used, or its tables are from a newer version.
    pub async fn migrate(url: &str) -> Result<TablesVersion, StoreError> {
        schema::migrate(&schema::options(url)?).await
    }

    /// The version of the tables.
    ///
    /// # Errors
    /// If the database cannot be reached or used, or its tables are from a newer version.
    pub async fn version(url: &str) -> Result<TablesVersion, StoreError> {
        Self::version_at(&schema::options(url)?).await
    }

    async fn version_at(options: &MySqlConnectOptions) -> Result<TablesVersion, StoreError> {
        let mut connection = schema::connect(options).await?;
        schema::version(&mut connection).await
    }
}

#[async_trait]
impl Store for MysqlStore {
    async fn view(&self, dataset: &DatasetAddress, touched: &Touched) -> Result<View, StoreError> {
        if touched.pushes.is_empty() && touched.changes.is_empty() && touched.keys.len() <= 1 {
            return retried!(read::view_of_one(&self.readers, dataset, touched.keys.first()));
        }
        self.views.do_it(WantedView { dataset: dataset.clone(), touched: touched.clone() }).await
    }

    async fn records_after(&self, dataset: &DatasetAddress, range: &RecordsAfter) -> Result<RecordsRead, StoreError> {
        retried!(read::records_after(&self.readers, dataset, range))
    }

    async fn records_from(&self, dataset: &DatasetAddress, range: &RecordsFrom) -> Result<RecordsRead, StoreError> {
        retried!(read::records_from(&self.readers, dataset, range))
    }

    async fn commit(&self, dataset: &DatasetAddress, commit: Commit) -> Result<CommitOutcome, StoreError> {
        self.commits.do_it(EncodedCommit::new(dataset.clone(), commit)).await
    }

    async fn datasets(
        &self,
        owner: &Owner,
        after: Option<&DatasetName>,
        names_max: usize,
    ) -> Result<Vec<DatasetName>, StoreError> {
        retried!(read::datasets(&self.readers, owner, after, names_max))
    }

    async fn positions(
        &self,
        owner: &Owner,
        after: Option<&DatasetName>,
        positions_max: usize,
    ) -> Result<Vec<(DatasetName, Position)>, StoreError> {
        retried!(read::positions(&self.readers, owner, after, positions_max))
    }

    async fn addresses(
        &self,
        after: Option<&DatasetAddress>,
        addresses_max: usize,
    ) -> Result<Vec<DatasetAddress>, StoreError> {
        retried!(read::addresses(&self.readers, after, addresses_max))
    }

    async fn old_tombstones(
        &self,
        before: Timestamp,
        tombstones_max: usize,
    ) -> Result<Vec<(DatasetAddress, SyncCount)>, StoreError> {
        retried!(read::old_tombstones(&self.readers, before, tombstones_max))
    }

    fn directory(&self) -> &dyn Directory {
        self
    }

    fn transfer(&self) -> &dyn Transfer {
        self
    }
}

#[async_trait]
impl Directory for MysqlStore {
    async fn resolve(&self, owner: &Owner) -> Result<Owner, StoreError> {
        retried!(owners::resolve(&self.readers, owner))
    }

    async fn link(&self, source: &Owner, target: &Owner) -> Result<Linked, StoreError> {
        retried!(directory::link(&self.writers, source, target))
    }

    async fn devices(&self, owner: &Owner) -> Result<Vec<Registration>, StoreError> {
        retried!(devices::read(&self.readers, owner))
    }

    async fn register(&self, owner: &Owner, registration: Registration) -> Result<bool, StoreError> {
        retried!(devices::register(&self.writers, owner, &registration))
    }

    async fn unregister(&self, owner: &Owner, device: DeviceId) -> Result<bool, StoreError> {
        retried!(devices::unregister(&self.writers, owner, device))
    }
}
