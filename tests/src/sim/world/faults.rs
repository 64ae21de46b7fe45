//! What goes wrong in a run, besides the network: crashes, clocks, restores, copies, deletions, claims.

use sync_core::merge::claim::plan_claim;
use sync_core::merge::replica::{Plan, Replica as _, Write};
use sync_core::merge::stack::Context;
use sync_core::merge::write::plan_delete;
use sync_core::model::{Position, SyncCount};

use super::{Checked, Message, World};
use crate::sim::device::Device;
use crate::sim::options::Mix;
use crate::sim::tokens::KeptAside;

impl World {
    pub(super) fn fault(&mut self, place: usize) -> Checked {
        match self.dice.below(100) {
            0..20 => {
                self.trace.tell(&self.devices[place].name.clone(), "crashes");
                self.devices[place].crash();
            }
            20..45 => {
                let now = self.server.now();
                self.devices[place].time_out(now, &mut self.dice);
            }
            45..52 => {
                self.trace.tell("server", "crashes and starts again");
                self.server.crash();
            }
            52..58 => self.server.abandon_one(&mut self.dice),
            58..63 => {
                self.trace.tell("server", "purges old tombstones");
                self.server.purge();
                self.check_server()?;
            }
            63..66 => self.server.advance(24 * 60 * 60 * 1000),
            _ => self.fault_of_mix(place)?,
        }
        Ok(())
    }

    fn fault_of_mix(&mut self, place: usize) -> Checked {
        let roll = self.dice.below(100);
        match self.options.mix {
            Mix::Plain | Mix::Ledger => {}
            Mix::Deleted if roll < 25 => self.delete_dataset(place),
            Mix::Deleted if roll < 40 => {
                self.trace.count("deletions by others");
                self.server.delete();
                self.check_server()?;
            }
            Mix::ServerRestored if roll < 35 => {
                self.trace.tell("server", format!("is backed up at {}", self.count()));
                self.server_backup = Some(self.server.backup());
            }
            Mix::ServerRestored if roll < 60 && self.restores < 2 => self.restore_server()?,
            Mix::ServerRestored if roll < 66 && self.may_outrun_tags() => {
                self.trace.tell("others", "write many times");
                self.trace.count("bursts by others");
                self.server.write_many(&mut self.dice);
                self.check_server()?;
            }
            Mix::DeviceRestored if roll < 30 => {
                self.trace.tell(&self.devices[place].name.clone(), "is backed up");
                self.device_backup = Some(self.devices[place].clone());
            }
            Mix::DeviceRestored if roll < 50 && self.restores < 2 => self.restore_device(),
            Mix::DeviceRestored if roll < 65 && self.devices.len() < self.options.devices + 1 => {
                self.copy_device(place)
            }
            Mix::Claimed if roll < 60 => self.claim(place)?,
            Mix::Deleted | Mix::ServerRestored | Mix::DeviceRestored | Mix::Claimed => {}
        }
        Ok(())
    }

    /// Whether no device depends on a tag to learn that it is off the line. If one did, and the tag were forgotten, its
    /// loss would be part of the fault.
    fn may_outrun_tags(&self) -> bool {
        let line = self.server.store().head(&self.server.dataset).lineage;
        let counts = |position: &Position| match line.tags.get(&position.count) {
            Some(tag) => *tag == position.tag,
            None => self.known_restored || position.count <= line.count,
        };
        let all_count = |device: &Device| {
            device.replica.state().is_ok_and(|state| {
                let acked = state.in_flight.and_then(|in_flight| in_flight.ack);
                let page = state.pull.and_then(|pull| pull.next).map(|page| page.at);
                [state.cursor, acked, page].iter().flatten().all(counts)
            })
        };
        !self.server.is_busy() && self.network.is_empty() && self.devices.iter().all(all_count)
    }

    pub(super) fn count(&self) -> SyncCount {
        self.server.store().head(&self.server.dataset).lineage.count
    }

    fn delete_dataset(&mut self, place: usize) {
        let device = &mut self.devices[place];
        self.trace.tell(&device.name, "deletes the dataset");
        self.trace.count("deletions");
        let mut kept = pending_aside(device);
        if device.replica.state().is_ok_and(|state| state.in_flight.is_some()) {
            // What a push that it forgets has overwritten will be in nobody's log.
            self.ledger.gone.extend(self.ledger.written.keys().cloned());
        }
        // What it had not pushed goes too.
        self.ledger.gone.append(&mut kept.tokens);
        self.ledger.increments_gone.append(&mut kept.increments);
        for token in kept.removals {
            self.ledger.removed.remove(&token);
        }
        let plan = plan_delete(&device.replica).expect("memory does not fail");
        device.execute(&plan);
    }

    fn restore_server(&mut self) -> Checked {
        let Some(backup) = self.server_backup.clone() else { return Ok(()) };
        self.restores += 1;
        self.known_restored = self.options.fenced;
        let lost = self.count();
        self.server.restore(backup, self.options.fenced);
        self.network.retain(|message| matches!(message, Message::Answer { .. }));
        let fence = if self.options.fenced { "with" } else { "without" };
        self.trace.tell("server", format!("is put back from {lost} to {}, {fence} a fence", self.count()));
        self.trace.count("server restores");
        self.server_live = self.live();
        self.check_server()?;
        // What was removed after the backup is there again; offers will heal that.
        self.ledger.removed.clear();
        Ok(())
    }

    fn restore_device(&mut self) {
        let Some(backup) = self.device_backup.take() else { return };
        self.restores += 1;
        let place = backup.place;
        let current = &self.devices[place];
        let (now, then) = (all_aside(current), all_aside(&backup));
        // What was only in the file that is gone now.
        self.ledger.gone.extend(now.tokens.difference(&then.tokens).cloned());
        self.ledger.increments_gone.extend(now.increments.difference(&then.increments));
        let pending = pending_aside(&backup);
        self.ledger.may_return.extend(pending.tokens);
        self.ledger.removed.clear();
        self.trace.tell(&backup.name, "is put back from its backup");
        self.trace.count("device restores");
        let mut restored = backup.copy(place, backup.name.clone());
        restored.number_requests_after(&self.devices[place]);
        self.devices[place] = restored;
    }

    fn copy_device(&mut self, place: usize) {
        let original = &self.devices[place];
        let name = format!("{}'", original.name);
        let copy = original.copy(self.devices.len(), name.clone());
        self.twins.extend(original.pending_aside());
        self.ledger.removed.clear();
        self.trace.tell(&original.name.clone(), format!("is copied: {name}"));
        self.trace.count("copies");
        self.devices.push(copy);
    }

    pub(super) fn claim(&mut self, place: usize) -> Checked {
        let now = self.now_of(place);
        let device = &mut self.devices[place];
        if device.guest.pending().is_empty() {
            return Ok(());
        }
        let mut context = Context { now, random: &mut self.dice };
        let plan = plan_claim(&device.guest, &device.replica, &mut context).map_err(|error| error.to_string())?;
        device.execute(&plan);
        let policies = device.guest.policies().expect("memory does not fail");
        device.guest = Default::default();
        device.guest.execute(&Plan { writes: vec![Write::Policies(policies)], ..Plan::default() });
        self.trace.tell(&device.name, "claims what its guest wrote");
        self.trace.count("claims");
        Ok(())
    }
}

/// What is pending on a device: it is nowhere else.
fn pending_aside(device: &Device) -> KeptAside {
    let mut all = KeptAside::default();
    for mut kept in device.pending_aside().into_values() {
        all.tokens.append(&mut kept.tokens);
        all.increments.append(&mut kept.increments);
        all.removals.append(&mut kept.removals);
    }
    all
}

/// What is pending, parked or logged on a device.
fn all_aside(device: &Device) -> KeptAside {
    let mut kept = pending_aside(device);
    device.replica.log().values().for_each(|entry| kept.add_log(entry));
    device.replica.parked_units().values().for_each(|parked| kept.add_parked(parked));
    kept
}
