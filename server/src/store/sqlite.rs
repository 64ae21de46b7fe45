//! The default store: one SQLite file. One thread writes, and commits everything that waits in one transaction; a few
//! threads read.

mod devices;
mod directory;
mod owners;
mod read;
mod rows;
mod schema;
mod threads;
mod transfer;
mod upkeep;
mod write;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use rusqlite::Connection;
use sync_core::merge::push::{Commit, View};
use sync_core::model::{DatasetName, DeviceId, Owner, Position, SyncCount, Timestamp};

use crate::store::devices::Registration;
use crate::store::directory::{Directory, Linked};
use crate::store::sqlite::schema::Failure;
use crate::store::sqlite::threads::{Readers, Writer};
use crate::store::sqlite::write::EncodedCommit;
use crate::store::transfer::Transfer;
use crate::store::{
    CommitOutcome, DatasetAddress, RecordsAfter, RecordsFrom, RecordsRead, Store, StoreError, TablesVersion, Touched,
};

/// Datasets in one SQLite file. What is on its way is written before the store is gone.
pub struct SqliteStore {
    // Before the writer, because the last connection that closes tidies up the file.
    readers: Readers,
    writer: Writer,
    /// As it is in the file, which only this process writes.
    is_read_only: Arc<AtomicBool>,
}

/// Connections that read.
const READERS: usize = 4;

impl SqliteStore {
    /// The newest version of a file.
    pub const KNOWN_VERSION: usize = schema::MIGRATIONS.len();

    /// Opens the file, or makes it, and brings it up to date. Blocks.
    ///
    /// # Errors
    /// If another process holds the file, if it is damaged or from a newer version, or cannot be written.
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        let mut connection = schema::open(file)?;
        schema::migrate(file, &mut connection)?;
        let is_read_only = transfer::is_read_only(&connection).map_err(|error| schema::failed(&error))?;
        let reader = || schema::open_reader(file);
        let readers = Readers::start((0..READERS).map(|_| reader()).collect::<Result<_, _>>()?)?;
        let writer = Writer::start(connection)?;
        Ok(Self { readers, writer, is_read_only: Arc::new(AtomicBool::new(is_read_only)) })
    }

    /// Copies a file as it is at one moment, also while a server writes to it. `copy` is an empty file, or none yet.
    /// Blocks.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged, or the copy cannot be written.
    pub fn copy(file: &Path, copy: &Path) -> Result<(), StoreError> {
        upkeep::copy(file, copy)
    }

    /// Looks whether a file is sound, which takes as long as to read it. Blocks.
    ///
    /// # Errors
    /// If it cannot be read, is damaged or from a newer version.
    pub fn check(file: &Path) -> Result<TablesVersion, StoreError> {
        upkeep::check(file)
    }

    /// The version of a file. Blocks.
    ///
    /// # Errors
    /// If it cannot be read, or is from a newer version.
    pub fn version(file: &Path) -> Result<TablesVersion, StoreError> {
        upkeep::version(file)
    }

    /// Does the work in a transaction with others', unless the store is read-only.
    async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let is_read_only = Arc::clone(&self.is_read_only);
        let work = move |connection: &Connection| match is_read_only.load(Ordering::SeqCst) {
            true => Err(Failure::ReadOnly),
            false => work(connection),
        };
        self.writer.write(work).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn view(&self, dataset: &DatasetAddress, touched: &Touched) -> Result<View, StoreError> {
        let (dataset, touched) = (dataset.clone(), touched.clone());
        self.readers.read(move |connection| read::view(connection, &dataset, touched)).await
    }

    async fn records_after(&self, dataset: &DatasetAddress, range: &RecordsAfter) -> Result<RecordsRead, StoreError> {
        let (dataset, range) = (dataset.clone(), range.clone());
        self.readers.read_many(move |connection| read::records_after(connection, &dataset, &range)).await
    }

    async fn records_from(&self, dataset: &DatasetAddress, range: &RecordsFrom) -> Result<RecordsRead, StoreError> {
        let (dataset, range) = (dataset.clone(), range.clone());
        self.readers.read_many(move |connection| read::records_from(connection, &dataset, &range)).await
    }

    async fn commit(&self, dataset: &DatasetAddress, commit: Commit) -> Result<CommitOutcome, StoreError> {
        let commit = EncodedCommit::new(dataset.clone(), commit);
        self.write(move |connection| commit.write(connection)).await
    }

    async fn datasets(
        &self,
        owner: &Owner,
        after: Option<&DatasetName>,
        names_max: usize,
    ) -> Result<Vec<DatasetName>, StoreError> {
        let (owner, after) = (owner.clone(), after.cloned());
        self.readers.read(move |connection| read::datasets(connection, &owner, after.as_ref(), names_max)).await
    }

    async fn positions(
        &self,
        owner: &Owner,
        after: Option<&DatasetName>,
        positions_max: usize,
    ) -> Result<Vec<(DatasetName, Position)>, StoreError> {
        let (owner, after) = (owner.clone(), after.cloned());
        self.readers.read(move |connection| read::positions(connection, &owner, after.as_ref(), positions_max)).await
    }

    async fn addresses(
        &self,
        after: Option<&DatasetAddress>,
        addresses_max: usize,
    ) -> Result<Vec<DatasetAddress>, StoreError> {
        let after = after.cloned();
        self.readers.read(move |connection| read::addresses(connection, after.as_ref(), addresses_max)).await
    }

    async fn old_tombstones(
        &self,
        before: Timestamp,
        tombstones_max: usize,
    ) -> Result<Vec<(DatasetAddress, SyncCount)>, StoreError> {
        self.readers.read(move |connection| read::old_tombstones(connection, before, tombstones_max)).await
    }

    fn directory(&self) -> &dyn Directory {
        self
    }

    fn transfer(&self) -> &dyn Transfer {
        self
    }
}

#[async_trait]
impl Directory for SqliteStore {
    async fn resolve(&self, owner: &Owner) -> Result<Owner, StoreError> {
        let owner = owner.clone();
        self.readers.read(move |connection| owners::resolve(connection, &owner)).await
    }

    async fn link(&self, source: &Owner, target: &Owner) -> Result<Linked, StoreError> {
        let (source, target) = (source.clone(), target.clone());
        self.write(move |connection| directory::link(connection, &source, &target)).await
    }

    async fn devices(&self, owner: &Owner) -> Result<Vec<Registration>, StoreError> {
        let owner = owner.clone();
        self.readers.read(move |connection| devices::all(connection, &owner)).await
    }

    async fn register(&self, owner: &Owner, registration: Registration) -> Result<bool, StoreError> {
        let owner = owner.clone();
        self.write(move |connection| devices::register(connection, &owner, &registration)).await
    }

    async fn unregister(&self, owner: &Owner, device: DeviceId) -> Result<bool, StoreError> {
        let owner = owner.clone();
        self.write(move |connection| devices::unregister(connection, &owner, device)).await
    }
}

#[cfg(test)]
mod tests;
