//! A replica in memory: the reference for every host's store, and the device of the simulator.

use std::collections::{BTreeMap, BTreeSet};

use crate::conflict::{Cause, LogEntry, Loss, Parked, Side};
use crate::merge::replica::{GroupHeader, GroupId, PendingPatch, Plan, Replica, ReplicaError, ReplicaState, Write};
use crate::model::{DeviceId, Record, RecordKey, SyncCount, Timestamp, Value};
use crate::policy::Policies;

/// One dataset of a device, in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryReplica {
    state: ReplicaState,
    policies: Policies,
    base: BTreeMap<RecordKey, Record>,
    stage: BTreeMap<RecordKey, Record>,
    groups: BTreeMap<GroupId, GroupHeader>,
    patches: BTreeMap<(RecordKey, GroupId), PendingPatch>,
    log: BTreeMap<u64, LogEntry>,
    parked: BTreeMap<u64, Parked>,
    last_id: u64,
}

impl MemoryReplica {
    /// Executes a plan. Returns the new device id, if the plan asks for one.
    pub fn execute(&mut self, plan: &Plan) -> Option<DeviceId> {
        plan.writes.iter().filter_map(|write| self.write(write)).last()
    }

    fn write(&mut self, write: &Write) -> Option<DeviceId> {
        match write {
            Write::State(state) => self.state = (**state).clone(),
            Write::Policies(policies) => self.policies = policies.clone(),
            Write::Group(header) => drop(self.groups.insert(header.id, header.clone())),
            Write::DropGroup(id) => {
                self.groups.remove(id);
                self.patches.retain(|(_, group), _| group != id);
            }
            Write::Patch { group, key, patch } => {
                self.patches.insert((key.clone(), *group), (**patch).clone());
            }
            Write::MovePatches { from, to } => {
                self.groups.remove(from);
                let moved: Vec<_> = self.patches.keys().filter(|(_, group)| group == from).cloned().collect();
                for at in moved {
                    if let Some(patch) = self.patches.remove(&at) {
                        self.patches.insert((at.0, *to), patch);
                    }
                }
            }
            Write::Stage(records) => {
                self.stage.extend(records.iter().map(|record| (record.key.clone(), record.clone())));
            }
            Write::ClearStage => self.stage.clear(),
            Write::LogLost { cause, above, until, at } => self.log_lost(*cause, *above, *until, *at),
            Write::MergeStage { snapshot } => {
                if *snapshot {
                    self.base.clear();
                }
                for (key, record) in std::mem::take(&mut self.stage) {
                    match record.value() {
                        Some(_) => drop(self.base.insert(key, record)),
                        None => drop(self.base.remove(&key)),
                    }
                }
            }
            Write::ClearBase => self.base.clear(),
            Write::Log(entry) => self.append(entry.clone()),
            Write::DropLog(id) => drop(self.log.remove(id)),
            Write::Park(parked) => {
                self.last_id += 1;
                self.parked.insert(self.last_id, parked.clone());
            }
            Write::Unpark(id) => drop(self.parked.remove(id)),
            Write::Device(device) => return Some(*device),
        }
        None
    }

    fn append(&mut self, entry: LogEntry) {
        self.last_id += 1;
        self.log.insert(self.last_id, entry);
    }

    fn log_lost(&mut self, cause: Cause, above: SyncCount, until: Option<SyncCount>, at: Timestamp) {
        let lost = |record: &&Record| {
            let staged = self.stage.get(&record.key);
            let explained = staged.is_some_and(|staged| {
                staged.value() == record.value() || until.is_some_and(|until| staged.sync_count > until)
            });
            record.sync_count > above && !explained
        };
        let loss = |record: &Record| Loss {
            key: record.key.clone(),
            path: Vec::new(),
            side: Side::Remote,
            under: None,
            value: record.value().cloned(),
        };
        let losses: Vec<_> = self.base.values().filter(lost).map(loss).collect();
        if !losses.is_empty() {
            self.append(LogEntry { at, cause, losses });
        }
    }

    /// What the app sees, in order of keys.
    pub fn visible(&self) -> BTreeMap<RecordKey, Value> {
        let keys: BTreeSet<_> = self.base.keys().chain(self.patches.keys().map(|(key, _)| key)).collect();
        let see = |key: &RecordKey| crate::merge::stack::visible(self, key).ok().flatten();
        keys.into_iter().filter_map(|key| Some((key.clone(), see(key)?))).collect()
    }

    /// The base, in order of keys.
    pub const fn base_records(&self) -> &BTreeMap<RecordKey, Record> {
        &self.base
    }

    /// The conflict log, oldest first.
    pub const fn log(&self) -> &BTreeMap<u64, LogEntry> {
        &self.log
    }

    /// What is parked, oldest first.
    pub const fn parked_units(&self) -> &BTreeMap<u64, Parked> {
        &self.parked
    }

    /// The pending groups with their patches, lowest first.
    pub fn pending(&self) -> Vec<(GroupHeader, Vec<(RecordKey, PendingPatch)>)> {
        let patches = |id: GroupId| self.patches_of(id).collect();
        self.groups.values().map(|header| (header.clone(), patches(header.id))).collect()
    }

    fn patches_of(&self, id: GroupId) -> impl Iterator<Item = (RecordKey, PendingPatch)> {
        let of_group = move |((_, group), _): &(&(RecordKey, GroupId), &PendingPatch)| *group == id;
        self.patches.iter().filter(of_group).map(|((key, _), patch)| (key.clone(), patch.clone()))
    }
}

impl Replica for MemoryReplica {
    fn state(&self) -> Result<ReplicaState, ReplicaError> {
        Ok(self.state.clone())
    }

    fn policies(&self) -> Result<Policies, ReplicaError> {
        Ok(self.policies.clone())
    }

    fn base(&self, key: &RecordKey) -> Result<Option<Record>, ReplicaError> {
        Ok(self.base.get(key).cloned())
    }

    fn staged(&self, key: &RecordKey) -> Result<Option<Record>, ReplicaError> {
        Ok(self.stage.get(key).cloned())
    }

    fn patches(&self, key: &RecordKey) -> Result<Vec<(GroupId, PendingPatch)>, ReplicaError> {
        let range = (key.clone(), GroupId(0))..=(key.clone(), GroupId(u64::MAX));
        Ok(self.patches.range(range).map(|((_, group), patch)| (*group, patch.clone())).collect())
    }

    fn groups(&self) -> Result<Vec<GroupHeader>, ReplicaError> {
        Ok(self.groups.values().cloned().collect())
    }

    fn group(&self, id: GroupId) -> Result<Option<GroupHeader>, ReplicaError> {
        Ok(self.groups.get(&id).cloned())
    }

    fn group_patches(&self, id: GroupId) -> Result<Vec<(RecordKey, PendingPatch)>, ReplicaError> {
        Ok(self.patches_of(id).collect())
    }

    fn last_group(&self) -> Result<GroupId, ReplicaError> {
        Ok(self.groups.keys().last().copied().unwrap_or(GroupId(0)))
    }

    fn pending_keys(&self, all: bool) -> Result<Vec<RecordKey>, ReplicaError> {
        let keys: BTreeSet<_> = self.patches.keys().map(|(key, _)| key).collect();
        Ok(keys.into_iter().filter(|key| all || self.stage.contains_key(*key)).cloned().collect())
    }

    fn parked(&self, id: u64) -> Result<Option<Parked>, ReplicaError> {
        Ok(self.parked.get(&id).cloned())
    }

    fn log_entry(&self, id: u64) -> Result<Option<LogEntry>, ReplicaError> {
        Ok(self.log.get(&id).cloned())
    }
}
