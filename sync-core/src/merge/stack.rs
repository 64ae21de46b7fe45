//! The layers of a replica while a plan is made: read on demand, changed in memory, and written out as a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::conflict::{Cause, LogEntry, Loss, Parked, Side};
use crate::delta;
use crate::merge::rebase::{Rebased, Surroundings, rebase};
use crate::merge::replica::{Changes, GroupHeader, GroupId, PendingPatch, Replica, ReplicaError, Write};
use crate::model::{Added, ChangeId, GroupStep, PatchOp, Random, Record, RecordKey, Timestamp, Value};
use crate::policy::{Policies, Policy};

/// What a planner is given besides the state.
pub struct Context<'a> {
    /// The device's clock.
    pub now: Timestamp,
    /// For change ids and device ids.
    pub random: &'a mut dyn Random,
}

/// The value of a record as the app sees it; nothing if it is absent or removed.
///
/// # Errors
/// If the replica cannot be read.
pub fn visible(replica: &dyn Replica, key: &RecordKey) -> Result<Option<Value>, ReplicaError> {
    let layers =
        Layers { base: replica.base(key)?, patches: replica.patches(key)?.into_iter().collect(), before: None };
    Ok(layers.below(GroupId(u64::MAX)))
}

/// The base and the layers of one record.
#[derive(Debug)]
pub(super) struct Layers {
    /// The record in the base, as it will be.
    pub(super) base: Option<Record>,
    /// The pending patches, lowest first.
    pub(super) patches: BTreeMap<GroupId, PendingPatch>,
    /// What the app saw before.
    before: Option<Value>,
}

impl Layers {
    /// The value below a layer.
    pub(super) fn below(&self, id: GroupId) -> Option<Value> {
        let base = self.base.as_ref().and_then(Record::value).cloned();
        self.patches.range(..id).fold(base, |below, (_, patch)| match &patch.sent {
            None => patch.value.clone(),
            // A frozen difference is shown over a base that may move.
            Some(sent) => match &sent.op {
                PatchOp::Merge(delta) => delta::apply(delta, below.as_ref()).ok().or_else(|| patch.value.clone()),
                PatchOp::Replace(..) | PatchOp::Remove(_) => patch.value.clone(),
            },
        })
    }

    fn visible(&self) -> Option<Value> {
        self.below(GroupId(u64::MAX))
    }
}

/// What went as one unit.
#[derive(Default)]
struct Gone {
    patches: Vec<(RecordKey, PendingPatch)>,
    steps: Vec<GroupStep>,
}

/// Where the base of a record is read.
enum Source {
    /// The base as it is.
    Base,
    /// What a pull makes of it: this last page, what was staged before, and the old base unless all is new.
    Pulled { snapshot: bool, page: BTreeMap<RecordKey, Record> },
}

/// What a pull says of a record.
pub(super) enum Pulled {
    /// It brings the record, or its tombstone.
    Record(Record),
    /// It brings all records, and this is not among them.
    Absent,
}

/// The layers while a plan is made.
pub(super) struct Stack<'a> {
    replica: &'a dyn Replica,
    pub(super) policies: Rc<Policies>,
    source: Source,
    /// The server's clock, where it is known: no edit counts as later than that.
    server_time: Option<Timestamp>,
    keys: BTreeMap<RecordKey, Layers>,
    groups: BTreeMap<GroupId, GroupHeader>,
    changed_groups: BTreeSet<GroupId>,
    changed_patches: BTreeSet<(GroupId, RecordKey)>,
    dropped: BTreeSet<GroupId>,
    moved: Vec<(GroupId, GroupId)>,
    /// The highest group that the replica has; those above were made by this plan.
    stored: GroupId,
    last: GroupId,
    log: Vec<LogEntry>,
    parked: Vec<Parked>,
}

impl<'a> Stack<'a> {
    /// The layers over the base as it is.
    pub(super) fn over_base(replica: &'a dyn Replica) -> Result<Self, ReplicaError> {
        Self::new(replica, Source::Base)
    }

    /// The layers over what a pull makes of the base.
    pub(super) fn over_pull(
        replica: &'a dyn Replica,
        snapshot: bool,
        page: &[Record],
        server_time: Timestamp,
    ) -> Result<Self, ReplicaError> {
        let page = page.iter().map(|record| (record.key.clone(), record.clone())).collect();
        let stack = Self::new(replica, Source::Pulled { snapshot, page })?;
        Ok(Self { server_time: Some(server_time), ..stack })
    }

    fn new(replica: &'a dyn Replica, source: Source) -> Result<Self, ReplicaError> {
        Ok(Self {
            replica,
            policies: Rc::new(replica.policies()?),
            source,
            server_time: None,
            keys: BTreeMap::new(),
            groups: BTreeMap::new(),
            changed_groups: BTreeSet::new(),
            changed_patches: BTreeSet::new(),
            dropped: BTreeSet::new(),
            moved: Vec::new(),
            stored: replica.last_group()?,
            last: replica.last_group()?,
            log: Vec::new(),
            parked: Vec::new(),
        })
    }

    /// The layers of a record.
    pub(super) fn layers(&mut self, key: &RecordKey) -> Result<&mut Layers, ReplicaError> {
        if !self.keys.contains_key(key) {
            let base = self.replica.base(key)?;
            let patches = self.replica.patches(key)?.into_iter().filter(|(id, _)| !self.dropped.contains(id)).collect();
            let mut layers = Layers { base, patches, before: None };
            layers.before = layers.visible();
            match self.pulled(key)? {
                Some(Pulled::Record(record)) => layers.base = Some(record).filter(|record| record.value().is_some()),
                Some(Pulled::Absent) => layers.base = None,
                None => {}
            }
            self.keys.insert(key.clone(), layers);
        }
        Ok(self.keys.get_mut(key).expect("it was inserted above"))
    }

    /// What the pull says of a record; nothing if it does not speak of it.
    pub(super) fn pulled(&self, key: &RecordKey) -> Result<Option<Pulled>, ReplicaError> {
        let Source::Pulled { snapshot, page } = &self.source else { return Ok(None) };
        let staged = match page.get(key) {
            Some(record) => Some(record.clone()),
            None => self.replica.staged(key)?,
        };
        Ok(staged.map(Pulled::Record).or_else(|| snapshot.then_some(Pulled::Absent)))
    }

    /// What the app sees under a key, as planned so far.
    pub(super) fn visible(&mut self, key: &RecordKey) -> Result<Option<Value>, ReplicaError> {
        Ok(self.layers(key)?.visible())
    }

    /// A group's header.
    pub(super) fn header(&mut self, id: GroupId) -> Result<&mut GroupHeader, ReplicaError> {
        if !self.groups.contains_key(&id) {
            let header = self.replica.group(id)?;
            let header = header.ok_or_else(|| ReplicaError::Corrupt(format!("group {} has no header", id.0)))?;
            self.groups.insert(id, header);
        }
        Ok(self.groups.get_mut(&id).expect("it was inserted above"))
    }

    /// Whether a group is still there.
    pub(super) fn has(&self, id: GroupId) -> bool {
        !self.dropped.contains(&id)
    }

    /// A group's header, to be changed.
    pub(super) fn change_header(&mut self, id: GroupId) -> Result<&mut GroupHeader, ReplicaError> {
        self.changed_groups.insert(id);
        self.header(id)
    }

    /// The keys of a group.
    pub(super) fn keys_of(&mut self, id: GroupId) -> Result<Vec<RecordKey>, ReplicaError> {
        if id > self.stored {
            let holds = |(key, layers): (&RecordKey, &Layers)| layers.patches.contains_key(&id).then(|| key.clone());
            return Ok(self.keys.iter().filter_map(holds).collect());
        }
        let keys: Vec<_> = self.replica.group_patches(id)?.into_iter().map(|(key, _)| key).collect();
        for key in &keys {
            self.layers(key)?;
        }
        Ok(keys)
    }

    /// Puts a new group on top.
    pub(super) fn push_group(&mut self, header: impl FnOnce(GroupId) -> GroupHeader) -> GroupId {
        self.last = GroupId(self.last.0 + 1);
        self.groups.insert(self.last, header(self.last));
        self.changed_groups.insert(self.last);
        self.last
    }

    /// Inserts or replaces a patch, and keeps the header's totals true.
    pub(super) fn set_patch(&mut self, id: GroupId, key: &RecordKey, patch: PendingPatch) -> Result<(), ReplicaError> {
        let size = |patch: &PendingPatch| key.as_str().len() + patch.value.as_ref().map_or(0, Value::encoded_len);
        let added = size(&patch);
        let old = self.layers(key)?.patches.insert(id, patch);
        let header = self.change_header(id)?;
        header.patches += usize::from(old.is_none());
        header.bytes = (header.bytes + added).saturating_sub(old.as_ref().map_or(0, size));
        self.changed_patches.insert((id, key.clone()));
        Ok(())
    }

    /// Moves all patches of an open group into another.
    pub(super) fn join(&mut self, from: GroupId, to: GroupId) -> Result<(), ReplicaError> {
        let GroupHeader { patches, bytes, steps, .. } = self.header(from)?.clone();
        self.groups.remove(&from);
        self.changed_groups.remove(&from);
        let header = self.change_header(to)?;
        header.patches += patches;
        header.bytes += bytes;
        header.steps.extend(steps);
        for layers in self.keys.values_mut() {
            if let Some(patch) = layers.patches.remove(&from) {
                layers.patches.insert(to, patch);
            }
        }
        let changed: Vec<_> = self.changed_patches.iter().filter(|(id, _)| *id == from).cloned().collect();
        for (id, key) in changed {
            self.changed_patches.remove(&(id, key.clone()));
            self.changed_patches.insert((to, key));
        }
        self.moved.push((from, to));
        Ok(())
    }

    /// Takes a group away; returns its patches.
    pub(super) fn drop_group(&mut self, id: GroupId) -> Result<Vec<(RecordKey, PendingPatch)>, ReplicaError> {
        let keys = self.keys_of(id)?;
        if id <= self.stored {
            self.dropped.insert(id);
        }
        self.changed_groups.remove(&id);
        let mut patches = Vec::new();
        for key in keys {
            if let Some(patch) = self.layers(&key)?.patches.remove(&id) {
                self.changed_patches.remove(&(id, key.clone()));
                patches.push((key, patch));
            }
        }
        Ok(patches)
    }

    /// Appends to the conflict log.
    pub(super) fn log(&mut self, at: Timestamp, cause: Cause, losses: Vec<Loss>) {
        if !losses.is_empty() {
            self.log.push(LogEntry { at, cause, losses });
        }
    }

    /// Takes a group away with the unsent groups that were written over what it changed, as one unit.
    fn leave(&mut self, id: GroupId) -> Result<Gone, ReplicaError> {
        let mut gone = vec![id];
        let mut candidates = self.above(id)?;
        while let Some(candidate) = candidates.pop_first() {
            if self.stands_on(candidate, &gone)? {
                candidates.extend(self.above(candidate)?);
                gone.push(candidate);
            }
        }
        let mut unit = Gone::default();
        for id in gone {
            unit.steps.extend(self.header(id)?.steps.iter().cloned());
            unit.patches.extend(self.drop_group(id)?);
        }
        Ok(unit)
    }

    /// Unsent groups above one that share a key with it.
    fn above(&mut self, id: GroupId) -> Result<BTreeSet<GroupId>, ReplicaError> {
        let mut found = BTreeSet::new();
        for key in self.keys_of(id)? {
            let patches = self.layers(&key)?.patches.range(GroupId(id.0 + 1)..);
            found.extend(patches.filter(|(_, patch)| patch.sent.is_none()).map(|(id, _)| *id));
        }
        Ok(found)
    }

    /// Whether a group cannot stand without one of those below it.
    fn stands_on(&mut self, id: GroupId, below: &[GroupId]) -> Result<bool, ReplicaError> {
        for key in self.keys_of(id)? {
            let policies = Rc::clone(&self.policies);
            let layers = self.layers(&key)?;
            let Some(upper) = layers.patches.get(&id) else { continue };
            for lower in below.iter().filter_map(|id| layers.patches.get(id)) {
                if touches(&policies, &key, lower, upper) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Parks a group, with what was written over it.
    pub(super) fn park(
        &mut self,
        id: GroupId,
        at: Timestamp,
        code: &str,
        message: &str,
    ) -> Result<Vec<RecordKey>, ReplicaError> {
        let Gone { patches, steps } = self.leave(id)?;
        let keys = patches.iter().map(|(key, _)| key.clone()).collect();
        let patches = patches.into_iter().map(|(key, patch)| patch.parked(key)).collect();
        self.parked.push(Parked { at, code: code.to_owned(), message: message.to_owned(), patches, steps });
        Ok(keys)
    }

    /// Sends a group to the conflict log, with what was written over it.
    pub(super) fn lose(&mut self, id: GroupId, at: Timestamp, cause: Cause) -> Result<Vec<RecordKey>, ReplicaError> {
        let Gone { patches, steps: _ } = self.leave(id)?;
        let keys = patches.iter().map(|(key, _)| key.clone()).collect();
        let loss = |(key, patch): (RecordKey, PendingPatch)| {
            let PendingPatch { under, value, .. } = patch;
            Loss { key, path: Vec::new(), side: Side::Local, under, value }
        };
        self.log(at, cause, patches.into_iter().map(loss).collect());
        Ok(keys)
    }

    /// Carries changes below these records up through their unsent layers, lowest first.
    pub(super) fn restack(
        &mut self,
        keys: impl IntoIterator<Item = RecordKey>,
        now: Timestamp,
    ) -> Result<(), ReplicaError> {
        let mut work = BTreeSet::new();
        for key in keys {
            let ids: Vec<_> = self.layers(&key)?.patches.keys().copied().collect();
            work.extend(ids.into_iter().map(|id| (id, key.clone())));
        }
        while let Some((id, key)) = work.pop_first() {
            let policies = Rc::clone(&self.policies);
            let clock = self.server_time.unwrap_or(now);
            let layers = self.layers(&key)?;
            let below = layers.below(id);
            let Some(mut patch) = layers.patches.get(&id).cloned() else { continue };
            if patch.sent.is_some() || below == patch.under {
                continue;
            }
            let around = Surroundings { policies: &policies, key: &key, base: layers.base.as_ref(), now: clock };
            let mut losses = Vec::new();
            let rebased = rebase(&mut patch, below, &around, &mut losses);
            for (cause, loss) in losses {
                self.log(now, cause, vec![loss]);
            }
            let gone = match rebased {
                Rebased::Stays => {
                    self.set_patch(id, &key, patch)?;
                    continue;
                }
                Rebased::Loses(cause) => self.lose(id, now, cause)?,
                Rebased::Overflows => {
                    let message = format!("the counter in `{key}` would overflow 64 bits");
                    self.park(id, now, "LimitExceeded", &message)?
                }
            };
            for key in gone {
                let above: Vec<_> = self.layers(&key)?.patches.range(id..).map(|(id, _)| *id).collect();
                work.extend(above.into_iter().map(|id| (id, key.clone())));
            }
        }
        Ok(())
    }

    /// Redraws a group's change id, after a write that added this to counters.
    pub(super) fn redraw(
        &mut self,
        id: GroupId,
        added: Vec<Added>,
        random: &mut dyn Random,
    ) -> Result<(), ReplicaError> {
        let change_id = ChangeId::random(random);
        let header = self.change_header(id)?;
        header.change_id = change_id;
        if !added.is_empty() {
            header.steps.push(GroupStep { change_id, added });
        }
        Ok(())
    }

    /// The writes that bring the replica to what was planned, and what the app sees of it.
    pub(super) fn into_writes(self) -> (Vec<Write>, Changes) {
        let mut writes: Vec<_> = self.moved.into_iter().map(|(from, to)| Write::MovePatches { from, to }).collect();
        let mut groups = self.groups;
        writes.extend(self.changed_groups.iter().filter_map(|id| groups.remove(id)).map(Write::Group));
        for (group, key) in self.changed_patches {
            let patch = self.keys.get(&key).and_then(|layers| layers.patches.get(&group)).cloned();
            writes.extend(patch.map(|patch| Write::Patch { group, key, patch: Box::new(patch) }));
        }
        writes.extend(self.dropped.into_iter().map(Write::DropGroup));
        writes.extend(self.log.into_iter().map(Write::Log));
        writes.extend(self.parked.into_iter().map(Write::Park));
        let seen = self.keys.into_iter().filter(|(_, layers)| layers.visible() != layers.before);
        (writes, Changes { keys: seen.map(|(key, _)| key).collect(), many: false })
    }
}

/// Whether a patch was written over what another one changed.
fn touches(policies: &Policies, key: &RecordKey, lower: &PendingPatch, upper: &PendingPatch) -> bool {
    let difference = |patch: &PendingPatch| {
        let policy = policies.of_record(key.as_str(), patch.under.as_ref(), patch.value.as_ref());
        let mergeable = policy.is_mergeable() && !patch.whole && (patch.under.is_some() || policy != Policy::Fields);
        let value = patch.value.as_ref().filter(|_| mergeable)?;
        delta::diff(policies, policy, patch.under.as_ref(), value)
    };
    match (difference(lower), difference(upper)) {
        (Some(lower), Some(upper)) => delta::touches(&lower, &upper),
        _ => true,
    }
}
