//! Datasets in one table of DynamoDB, for any number of servers.
//!
//! The moment of a commit is one conditional write of the dataset's head. What the commit writes besides travels in the
//! head, or is staged before, and is put into place after that, by its writer or by whoever comes next. So a push needs no
//! transaction, which would cost twice, and nobody ever sees half of one. `server/DYNAMODB.md` says what is in the table,
//! and what it costs.

mod devices;
mod directory;
mod failure;
mod head;
mod items;
mod lease;
mod listing;
mod pack;
mod read;
mod redo;
mod schema;
mod settings;
mod table;
mod todo;
mod transfer;
mod write;

use std::time::Duration;

use async_trait::async_trait;
use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Region;
use sync_core::merge::push::{Commit, View};
use sync_core::model::{DatasetName, DeviceId, Owner, Position, SyncCount, Timestamp};

pub use settings::{DynamoDbSettings, InvalidSettings};

use crate::metrics::{StoreOperation, StoreUnits};
use crate::store::devices::Registration;
use crate::store::directory::{Directory, Linked};
use crate::store::dynamodb::table::{Operation, Table};
use crate::store::transfer::Transfer;
use crate::store::{
    CommitOutcome, DatasetAddress, RecordsAfter, RecordsFrom, RecordsRead, Store, StoreError, TablesVersion, Touched,
};

/// Datasets in a table of DynamoDB.
pub struct DynamoDbStore {
    table: Table,
}

/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(2);

impl DynamoDbStore {
    /// Opens a table, which must be there. Credentials are looked for where every program looks that uses AWS: in the
    /// environment, in profiles, in the role of a container or machine. What is used is counted in `units`.
    ///
    /// # Errors
    /// If it cannot be reached or used, is missing, outdated, or from a newer version.
    pub async fn open(settings: &DynamoDbSettings, units: StoreUnits) -> Result<Self, StoreError> {
        let table = Table::new(client(settings).await, settings.table.clone(), units);
        schema::check_current(&table).await?;
        Ok(Self { table })
    }

    /// The same, with a client that is there already.
    ///
    /// # Errors
    /// As [`DynamoDbStore::open`].
    pub async fn open_with(client: Client, table: &str, units: StoreUnits) -> Result<Self, StoreError> {
        let table = Table::new(client, table.to_owned(), units);
        schema::check_current(&table).await?;
        Ok(Self { table })
    }

    /// Makes the table, or looks whether the one that is there is as it has to be. Safe to run at any time, and from
    /// several places at once; says which version was found.
    ///
    /// # Errors
    /// If it cannot be reached or used, differs, or is from a newer version.
    pub async fn migrate(settings: &DynamoDbSettings) -> Result<TablesVersion, StoreError> {
        Self::migrate_with(client(settings).await, &settings.table).await
    }

    /// The same, with a client that is there already.
    ///
    /// # Errors
    /// As [`DynamoDbStore::migrate`].
    pub async fn migrate_with(client: Client, table: &str) -> Result<TablesVersion, StoreError> {
        schema::migrate(&Table::new(client, table.to_owned(), StoreUnits::default())).await
    }

    /// The version of the layout.
    ///
    /// # Errors
    /// If the table cannot be reached or used, or is from a newer version.
    pub async fn version(settings: &DynamoDbSettings) -> Result<TablesVersion, StoreError> {
        schema::version(&Table::new(client(settings).await, settings.table.clone(), StoreUnits::default())).await
    }

    /// How requests have to be sent: tried again by the store, and given up after a while.
    #[must_use]
    pub fn configured(config: aws_sdk_dynamodb::config::Builder) -> aws_sdk_dynamodb::config::Builder {
        let timeouts =
            TimeoutConfig::builder().connect_timeout(CONNECT_MAX).operation_attempt_timeout(lease::REQUEST_MAX);
        config.retry_config(RetryConfig::disabled()).timeout_config(timeouts.build())
    }

    /// Cleans up what commits have left for more than that many milliseconds: records of datasets that were deleted, what
    /// is forgotten, parts of commits that were interrupted. It is done whenever old tombstones are looked for, too.
    ///
    /// # Errors
    /// If the store cannot be reached.
    pub async fn sweep(&self, older_than_ms: i64) -> Result<(), StoreError> {
        Ok(todo::sweep(self.table.on(StoreOperation::OldTombstones).requests(), older_than_ms).await?)
    }

    /// What is left to be cleaned up.
    ///
    /// # Errors
    /// If the store cannot be reached.
    pub async fn leftovers(&self) -> Result<Vec<String>, StoreError> {
        Ok(todo::entries(self.table.on(StoreOperation::OldTombstones).requests()).await?)
    }

    fn on(&self, operation: StoreOperation) -> Operation<'_> {
        self.table.on(operation)
    }
}

async fn client(settings: &DynamoDbSettings) -> Client {
    let mut loader = aws_config::defaults(BehaviorVersion::latest());
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    let shared = loader.load().await;
    let mut config = DynamoDbStore::configured(aws_sdk_dynamodb::config::Builder::from(&shared));
    if let Some(endpoint) = &settings.endpoint {
        config = config.endpoint_url(endpoint);
    }
    Client::from_conf(config.build())
}

#[async_trait]
impl Store for DynamoDbStore {
    async fn view(&self, dataset: &DatasetAddress, touched: &Touched) -> Result<View, StoreError> {
        Ok(read::view(self.on(StoreOperation::View).requests(), dataset, touched).await?)
    }

    async fn records_after(&self, dataset: &DatasetAddress, range: &RecordsAfter) -> Result<RecordsRead, StoreError> {
        Ok(read::records_after(self.on(StoreOperation::RecordsAfter).requests(), dataset, range).await?)
    }

    async fn records_from(&self, dataset: &DatasetAddress, range: &RecordsFrom) -> Result<RecordsRead, StoreError> {
        Ok(read::records_from(self.on(StoreOperation::RecordsFrom).requests(), dataset, range).await?)
    }

    async fn commit(&self, dataset: &DatasetAddress, commit: Commit) -> Result<CommitOutcome, StoreError> {
        Ok(write::commit(self.on(StoreOperation::Commit).requests(), dataset, &commit).await?)
    }

    async fn datasets(
        &self,
        owner: &Owner,
        after: Option<&DatasetName>,
        names_max: usize,
    ) -> Result<Vec<DatasetName>, StoreError> {
        Ok(read::datasets(self.on(StoreOperation::Datasets).requests(), owner, after, names_max).await?)
    }

    async fn positions(
        &self,
        owner: &Owner,
        after: Option<&DatasetName>,
        positions_max: usize,
    ) -> Result<Vec<(DatasetName, Position)>, StoreError> {
        Ok(read::positions(self.on(StoreOperation::Positions).requests(), owner, after, positions_max).await?)
    }

    async fn addresses(
        &self,
        after: Option<&DatasetAddress>,
        addresses_max: usize,
    ) -> Result<Vec<DatasetAddress>, StoreError> {
        Ok(listing::addresses(self.on(StoreOperation::Addresses).requests(), after, addresses_max).await?)
    }

    async fn old_tombstones(
        &self,
        before: Timestamp,
        tombstones_max: usize,
    ) -> Result<Vec<(DatasetAddress, SyncCount)>, StoreError> {
        let operation = self.on(StoreOperation::OldTombstones);
        let requests = operation.requests();
        todo::sweep(requests, todo::INTERRUPTED_MS).await?;
        Ok(listing::old_tombstones(requests, before, tombstones_max).await?)
    }

    fn directory(&self) -> &dyn Directory {
        self
    }

    fn transfer(&self) -> &dyn Transfer {
        self
    }
}

#[async_trait]
impl Directory for DynamoDbStore {
    async fn resolve(&self, owner: &Owner) -> Result<Owner, StoreError> {
        Ok(directory::resolve(self.on(StoreOperation::Resolve).requests(), owner).await?)
    }

    async fn link(&self, source: &Owner, target: &Owner) -> Result<Linked, StoreError> {
        Ok(directory::link(self.on(StoreOperation::Link).requests(), source, target).await?)
    }

    async fn devices(&self, owner: &Owner) -> Result<Vec<Registration>, StoreError> {
        Ok(devices::read(self.on(StoreOperation::Devices).requests(), owner).await?)
    }

    async fn register(&self, owner: &Owner, registration: Registration) -> Result<bool, StoreError> {
        Ok(devices::register(self.on(StoreOperation::Register).requests(), owner, &registration).await?)
    }

    async fn unregister(&self, owner: &Owner, device: DeviceId) -> Result<bool, StoreError> {
        Ok(devices::unregister(self.on(StoreOperation::Unregister).requests(), owner, device).await?)
    }
}
