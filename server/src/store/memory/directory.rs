//! Owners that were linked to others, and their devices.

use std::collections::{BTreeMap, BTreeSet};

use sync_core::model::{DatasetName, DeviceId, Owner};

use crate::store::devices::{Registration, first_of_each, sort_latest_first};
use crate::store::directory::{Linked, Renamed, name_beside};
use crate::store::memory::Dataset;
use crate::store::transfer::KnownOwner;
use crate::store::{DatasetAddress, StoreError};

/// What the store knows of owners.
#[derive(Clone, Debug, Default)]
pub(super) struct MemoryDirectory {
    /// From owners that were linked away; never to one of these.
    links: BTreeMap<Owner, Owner>,
    /// The latest registration first.
    devices: BTreeMap<Owner, Vec<Registration>>,
}

impl MemoryDirectory {
    /// Fails if the owner was linked away.
    pub(super) fn check(&self, owner: &Owner) -> Result<(), StoreError> {
        if self.links.contains_key(owner) { Err(StoreError::Moved) } else { Ok(()) }
    }

    pub(super) fn resolve(&self, owner: &Owner) -> Owner {
        self.links.get(owner).unwrap_or(owner).clone()
    }

    pub(super) fn link(
        &mut self,
        source: &Owner,
        target: &Owner,
        datasets: &mut BTreeMap<DatasetAddress, Dataset>,
    ) -> Linked {
        let (source, target) = (self.resolve(source), self.resolve(target));
        let moves = source != target;
        if moves {
            for name in names(datasets, &source) {
                move_one(datasets, DatasetAddress { owner: source.clone(), name }, &target);
            }
            let of_source = self.devices.remove(&source).unwrap_or_default();
            let of_target = self.devices.remove(&target).unwrap_or_default();
            let mut both = [of_target, of_source].concat();
            sort_latest_first(&mut both);
            self.keep(&target, both);
            self.links.values_mut().filter(|owner| **owner == source).for_each(|owner| *owner = target.clone());
            self.links.insert(source.clone(), target.clone());
        }
        let of_target = datasets.iter().filter(|(address, dataset)| address.owner == target && dataset.head.exists());
        let renamed = of_target.filter_map(|(address, dataset)| {
            Some(Renamed { from: dataset.former_name.clone()?, to: address.name.clone() })
        });
        Linked { renamed: renamed.collect(), moved_from: moves.then_some(source), target }
    }

    pub(super) fn devices(&self, owner: &Owner) -> Result<Vec<Registration>, StoreError> {
        self.check(owner)?;
        Ok(self.devices.get(owner).cloned().unwrap_or_default())
    }

    pub(super) fn register(&mut self, owner: &Owner, new: Registration) -> Result<bool, StoreError> {
        let before = self.devices(owner)?;
        let is_new = before.iter().all(|registration| registration.device != new.device);
        self.keep(owner, [vec![new], before].concat());
        Ok(is_new)
    }

    pub(super) fn unregister(&mut self, owner: &Owner, device: DeviceId) -> Result<bool, StoreError> {
        let mut registrations = self.devices(owner)?;
        let before = registrations.len();
        registrations.retain(|registration| registration.device != device);
        let was_there = registrations.len() < before;
        self.devices.insert(owner.clone(), registrations);
        Ok(was_there)
    }

    /// Owners that were linked away or have devices, in order, behind `after`.
    pub(super) fn owners(&self, after: Option<&Owner>, owners_max: usize) -> Vec<KnownOwner> {
        let of_devices = self.devices.iter().filter(|(_, devices)| !devices.is_empty()).map(|(owner, _)| owner);
        let all: BTreeSet<&Owner> = self.links.keys().chain(of_devices).collect();
        let behind = all.into_iter().filter(|owner| after.is_none_or(|after| *owner > after)).take(owners_max);
        let known = |owner: &Owner| KnownOwner {
            owner: owner.clone(),
            linked_to: self.links.get(owner).cloned(),
            devices: self.devices.get(owner).cloned().unwrap_or_default(),
        };
        behind.map(known).collect()
    }

    /// Keeps those of an owner's registrations that stay, in the order in which they count.
    fn keep(&mut self, owner: &Owner, registrations: Vec<Registration>) {
        let mut kept = first_of_each(registrations);
        sort_latest_first(&mut kept);
        self.devices.insert(owner.clone(), kept);
    }
}

fn names(datasets: &BTreeMap<DatasetAddress, Dataset>, owner: &Owner) -> Vec<DatasetName> {
    datasets.keys().filter(|address| address.owner == *owner).map(|address| address.name.clone()).collect()
}

fn move_one(datasets: &mut BTreeMap<DatasetAddress, Dataset>, from: DatasetAddress, target: &Owner) {
    let Some(mut dataset) = datasets.remove(&from) else { return };
    let DatasetAddress { owner: source, name } = from;
    let at_target = |name: &DatasetName| DatasetAddress { owner: target.clone(), name: name.clone() };
    let is_taken = |name: &DatasetName| datasets.contains_key(&at_target(name));
    let to = if is_taken(&name) { name_beside(&name, &source, is_taken) } else { name.clone() };
    if to != name {
        dataset.former_name.get_or_insert(name);
    }
    datasets.insert(at_target(&to), dataset);
}
