//! What is copied of the table if another store takes its place.

use async_trait::async_trait;
use sync_core::model::{DatasetName, Owner, limits};

use crate::metrics::StoreOperation;
use crate::store::dynamodb::failure::Failure;
use crate::store::dynamodb::head::Pending;
use crate::store::dynamodb::items::{StoredChange, StoredPush, partition_of};
use crate::store::dynamodb::read::{self, Purpose};
use crate::store::dynamodb::table::{BY_KIND, Query, Requests, text_of};
use crate::store::dynamodb::{DynamoDbStore, devices, directory, lease, listing, redo};
use crate::store::transfer::{DatasetMemory, KnownOwner, Transfer};
use crate::store::{DatasetAddress, StoreError};

/// How often a memory is read anew, because the dataset was written meanwhile.
const READS_MAX: usize = 8;

/// No server asks for these, so no operation of a server is charged with them but the one that is like them.
#[async_trait]
impl Transfer for DynamoDbStore {
    async fn memory(&self, dataset: &DatasetAddress) -> Result<DatasetMemory, StoreError> {
        Ok(memory(self.table.on(StoreOperation::View).requests(), dataset).await?)
    }

    async fn set_former_name(&self, dataset: &DatasetAddress, former_name: &DatasetName) -> Result<(), StoreError> {
        Ok(directory::set_former_name(self.table.on(StoreOperation::Commit).requests(), dataset, former_name).await?)
    }

    async fn owners(&self, after: Option<&Owner>, owners_max: usize) -> Result<Vec<KnownOwner>, StoreError> {
        Ok(owners(self.table.on(StoreOperation::Devices).requests(), after, owners_max).await?)
    }

    async fn is_read_only(&self) -> Result<bool, StoreError> {
        Ok(lease::read_only_since(self.table.on(StoreOperation::Resolve).requests()).await?.is_some())
    }

    async fn set_read_only(&self, is_read_only: bool) -> Result<(), StoreError> {
        Ok(lease::set_read_only(self.table.on(StoreOperation::Resolve).requests(), is_read_only).await?)
    }
}

async fn memory(requests: Requests<'_>, dataset: &DatasetAddress) -> Result<DatasetMemory, Failure> {
    for _ in 0..READS_MAX {
        let Some(kept) = read::settled(requests, dataset, Purpose::Read).await? else {
            return Ok(DatasetMemory::default());
        };
        redo::see_in_place(requests, &kept).await?;
        let partition = kept.home.memory();
        let items = requests.query_all(&Query::beginning(&partition, "P|")).await?;
        let pushes = items.iter().map(StoredPush::parse).collect::<Result<Vec<_>, _>>()?;
        // Of each device the latest, as views have them.
        let mut latest = Vec::new();
        for of_device in pushes.chunk_by(|one, next| one.device == next.device) {
            let surplus = of_device.len().saturating_sub(limits::PUSHES_REMEMBERED_MAX);
            latest.extend_from_slice(&of_device[surplus..]);
        }
        let devices: Vec<_> = latest.iter().map(|push| push.device).collect();
        let Some(pushes) = read::answered(requests, &kept.home, latest).await? else { continue };
        let items = requests.query_all(&Query::beginning(&partition, "C|")).await?;
        let mut changes = items.iter().map(StoredChange::parse).collect::<Result<Vec<_>, _>>()?;
        let first = kept.next_change.saturating_sub(limits::CHANGES_REMEMBERED_MAX as u64);
        changes.retain(|change| change.number >= first);
        changes.sort_by_key(|change| change.number);
        let now = read::find(requests, dataset).await?;
        // A commit may have come into the head, and not yet into place.
        if now.is_some_and(|now| now.version == kept.version && !matches!(now.pending, Pending::Staged { .. })) {
            return Ok(DatasetMemory {
                pushes: devices.into_iter().zip(pushes).collect(),
                changes: changes.into_iter().map(|change| (change.id, change.count)).collect(),
                former_name: kept.former_name,
            });
        }
    }
    Err(Failure::Busy)
}

async fn owners(requests: Requests<'_>, after: Option<&Owner>, owners_max: usize) -> Result<Vec<KnownOwner>, Failure> {
    let mut behind = after.map_or(String::new(), |after| after.as_str().to_owned());
    let mut owners = Vec::new();
    while owners.len() < owners_max {
        let items = listing::of_kind(requests, 'O', &behind, "~", owners_max - owners.len()).await?;
        let Some(last) = items.last() else { break };
        text_of(last, BY_KIND)?.clone_into(&mut behind);
        for item in &items {
            let owner = Owner::parse(partition_of(item)?).map_err(Failure::corrupt)?;
            let target = directory::resolve(requests, &owner).await?;
            let (linked_to, devices) = if target == owner {
                (None, devices::read(requests, &owner).await?)
            } else {
                (Some(target), Vec::new())
            };
            if linked_to.is_some() || !devices.is_empty() {
                owners.push(KnownOwner { owner, linked_to, devices });
            }
        }
    }
    Ok(owners)
}
