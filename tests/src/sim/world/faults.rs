//! What goes wrong in a run, besides the network: crashes, clocks, restores, copies, deletions, claims.

use sync_core::conflict::Cause;
use sync_core::merge::claim::plan_claim;
use sync_core::merge::replica::{Plan, Replica as _, Write};
use sync_core::merge::stack::Context;
use sync_core::merge::write::plan_delete;
use sync_core::model::{CommitTag, Lineage, Position, Record, SyncCount, limits};

use super::{Checked, DiskFault, Message, World};
use crate::sim::checks::identity_wins;
use crate::sim::device::Device;
use crate::sim::options::Mix;
use crate::sim::tokens::KeptAside;

impl World {
    pub(super) fn fault(&mut self, place: usize) -> Checked {
        match self.dice.below(100) {
            0..14 => {
                self.trace.tell(&self.devices[place].name.clone(), "crashes");
                self.devices[place].crash();
            }
            14..32 => {
                let now = self.server.now();
                self.devices[place].time_out(now, &mut self.dice);
            }
            32..38 => {
                self.trace.tell("server", "crashes and starts again");
                self.server.crash();
            }
            38..43 => self.server.abandon_one(&mut self.dice),
            43..48 if self.all_on_line() => {
                self.trace.tell("server", "purges old tombstones");
                self.server.purge();
                self.check_server()?;
            }
            48..52 => self.server.advance(24 * 60 * 60 * 1000),
            52..62 if !self.old_messages.is_empty() => {
                let at = self.dice.below(self.old_messages.len());
                let message = self.old_messages.swap_remove(at);
                self.trace.tell("network", format!("brings {} again, long after its time", self.about(&message)));
                self.trace.count("old messages");
                self.deliver(message)?;
            }
            _ => self.fault_of_mix(place)?,
        }
        Ok(())
    }

    fn fault_of_mix(&mut self, place: usize) -> Checked {
        let roll = self.dice.below(100);
        match self.options.mix {
            Mix::Plain if roll < 40 => self.lose_from_disk(),
            Mix::Plain if roll < 50 && self.bursts == 0 => self.write_for_days()?,
            Mix::Plain | Mix::Ledger => {}
            Mix::Deleted if roll < 25 => self.delete_dataset(place),
            Mix::Deleted if roll < 50 && self.bursts == 0 => self.write_for_days()?,
            Mix::Deleted if roll < 65 => {
                self.trace.count("deletions by others");
                self.server.delete();
                self.check_server()?;
            }
            Mix::ServerRestored if roll < 35 => {
                self.trace.tell("server", format!("is backed up at {}", self.count()));
                self.server_backup = Some((self.count(), self.server.backup()));
            }
            Mix::ServerRestored if roll < 60 && self.restores < 2 => self.restore_server()?,
            Mix::ServerRestored if roll < 78 && self.restores > 0 && self.bursts == 0 => {
                self.go_offline();
                if self.may_outrun_tags() {
                    self.write_for_days()?;
                }
            }
            Mix::ServerRestored if roll < 84 => {
                let times = 1 + self.dice.below(8) as u64;
                self.others_write(times)?;
            }
            Mix::DeviceRestored if roll < 30 => {
                self.trace.tell(&self.devices[place].name.clone(), "is backed up");
                self.device_backup = Some(self.devices[place].clone());
            }
            Mix::DeviceRestored if roll < 50 && self.restores < 2 => self.restore_device(),
            Mix::DeviceRestored if roll < 80 => self.copy_device(place),
            Mix::Claimed if roll < 40 => self.claim(place)?,
            Mix::Claimed if roll < 70 => self.copy_device(place),
            Mix::Deleted | Mix::ServerRestored | Mix::DeviceRestored | Mix::Claimed => {}
        }
        Ok(())
    }

    /// Whether no device depends on a tag to learn that it is off the line. If one did, and the tag were forgotten, its
    /// loss would be part of the fault.
    fn may_outrun_tags(&self) -> bool {
        let line = self.server.store().head(&self.server.dataset).lineage;
        let counts = |position: &Position| match line.tags.get(&position.count) {
            _ if self.lost_with_their_day.contains(&position.tag) => true,
            Some(tag) => *tag == position.tag,
            None => self.known_restored || position.count <= line.count,
        };
        let all_count = |device: &Device| {
            !device.has_answer()
                && device.replica.state().is_ok_and(|state| {
                    let acked = state.in_flight.and_then(|in_flight| in_flight.ack);
                    let page = state.pull.and_then(|pull| pull.next).map(|page| page.at);
                    [state.cursor, acked, page].iter().flatten().all(counts)
                })
        };
        !self.server.is_busy() && self.network.is_empty() && self.devices.iter().all(all_count)
    }

    /// Whether every device knows of the last restore: one that is away until tombstones are old is not told what it lost.
    fn all_on_line(&self) -> bool {
        let line = self.server.store().head(&self.server.dataset).lineage;
        let is_on = |device: &Device| {
            let state = device.replica.state().expect("memory does not fail");
            let acked = state.in_flight.and_then(|in_flight| in_flight.ack);
            [state.cursor, acked].into_iter().flatten().all(|position| line.contains(position))
        };
        self.options.mix != Mix::ServerRestored || self.devices.iter().all(is_on)
    }

    /// Everybody is offline for a while, and what was on its way is lost, also what would have come long after its time.
    fn go_offline(&mut self) {
        self.trace.tell("world", "is offline");
        self.server.crash();
        self.network.clear();
        self.old_messages.clear();
        self.devices.iter_mut().for_each(Device::crash);
    }

    /// Others write so often and for so long that tags are forgotten, and old epochs pruned.
    fn write_for_days(&mut self) -> Checked {
        self.trace.tell("others", "write many times");
        self.trace.count("bursts by others");
        self.bursts += 1;
        let a_day = *self.dice.pick(&[20, u64::MAX]);
        self.server.write_for_days(limits::TAGS_REMEMBERED_MAX as u64 + 40, a_day, &mut self.dice);
        // A restored server's loss is forgotten with the devices that were away for too long.
        if self.options.mix != Mix::ServerRestored {
            self.server.remove_by_others(&mut self.dice);
            self.server.purge();
        }
        self.check_server()
    }

    fn others_write(&mut self, times: u64) -> Checked {
        self.trace.tell("others", format!("write {times} times"));
        self.server.write_many(times, &mut self.dice);
        self.check_server()
    }

    /// The file that is copied: best one with something parked or pending that could count twice.
    fn worth_a_copy(&mut self, place: usize) -> Option<usize> {
        let is_parked = |device: &&Device| device.replica.parked_units().values().any(|it| !it.steps.is_empty());
        let is_pending = |device: &&Device| {
            let pending = [&device.guest, &device.replica].into_iter().flat_map(|replica| replica.pending());
            pending.into_iter().any(|(group, _)| !group.steps.is_empty())
        };
        let best = self.devices.iter().find(is_parked).or_else(|| self.devices.iter().find(is_pending));
        match best {
            _ if self.devices.len() > self.options.devices => None,
            Some(device) => Some(device.place),
            None => self.dice.per_mille(200).then_some(place),
        }
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
        // What was written over these is gone here, and may be on the server: whoever brings them back has the last word.
        self.ledger.may_return.extend(parked_aside(device).tokens);
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
        let Some((backed_up, backup)) = self.server_backup.clone() else { return Ok(()) };
        let is_remembered = self.count().0.saturating_sub(backed_up.0) < limits::TAGS_REMEMBERED_MAX as u64;
        if !self.options.fenced && !is_remembered {
            // Nothing tells how much is lost: that is what a fence is for.
            return Ok(());
        }
        self.restores += 1;
        self.known_restored = self.options.fenced;
        self.telling.clear();
        let lost = self.count();
        let before = self.server.store().head(&self.server.dataset).lineage;
        let restart = self.dice.per_mille(400);
        self.server.restore(backup, self.options.fenced, restart);
        self.network.retain(|message| matches!(message, Message::Answer { .. }));
        self.old_messages.retain(|message| matches!(message, Message::Answer { .. }));
        let fence = if self.options.fenced { "with" } else { "without" };
        self.trace.tell("server", format!("is put back from {lost} to {}, {fence} a fence", self.count()));
        self.trace.count("server restores");
        self.server_live = self.live();
        self.history.put_back(self.server.store().live_records(&self.server.dataset));
        self.note_lost_days(&before);
        self.check_server()?;
        // What was removed after the backup is there again; offers will heal that.
        self.ledger.removed.clear();
        let same_count = lost.0.saturating_sub(self.count().0);
        if (1..20).contains(&same_count) && self.dice.per_mille(500) {
            self.others_write(same_count)?;
        }
        Ok(())
    }

    fn note_lost_days(&mut self, before: &Lineage) {
        let head = self.server.store().head(&self.server.dataset);
        let is_lost = |(count, tag): &(&SyncCount, &CommitTag)| head.lineage.tags.get(count) != Some(*tag);
        let of_other_day = |tag: &CommitTag| self.days.get(tag).is_some_and(|day| *day != head.modified_at.day());
        let lost = before.tags.iter().filter(is_lost).map(|(_, tag)| *tag).filter(of_other_day);
        self.lost_with_their_day.extend(lost);
    }

    /// The server's disk loses a record that a device holds and does not change, or that it has just pushed; or it changes
    /// the value. The digest may know of the loss of what devices hold, or not.
    fn lose_from_disk(&mut self) {
        if self.disk_fault.is_some() || self.server.is_busy() || !self.server.can_be_damaged() {
            return;
        }
        let held = |record: &Record| self.devices.iter().any(|device| device.holds(record));
        let pushed = |record: &Record| self.devices.iter().any(|device| device.has_just_pushed(record));
        let records = self.server.store().live_records(&self.server.dataset);
        let mut plain = records.into_iter().filter(|record| record.key.as_str().starts_with(['l', 'k', 'r', 'a', 'e']));
        let Some(record) = plain.find(|record| held(record) || pushed(record)) else { return };
        // Who has not seen a record cannot know that it is missing if the digest agrees.
        let (faults, what) =
            if held(&record) { (4, "held records on a bad disk") } else { (3, "pushed records on a bad disk") };
        self.trace.count(what);
        self.history.lose(&record.key);
        self.disk_fault = Some(match self.dice.below(faults) {
            0..2 => {
                self.trace.tell("server", format!("has another value of {} on its disk", record.key));
                self.trace.count("records damaged on disk");
                self.server.damage(&record);
                DiskFault::Damaged(record.key)
            }
            2 => {
                self.trace.tell("server", format!("loses {} from its disk, and does not know", record.key));
                self.trace.count("records lost unnoticed");
                self.server.lose(&record, false);
                DiskFault::Damaged(record.key)
            }
            _ => {
                self.trace.tell("server", format!("loses {} from its disk", record.key));
                self.trace.count("records lost from disk");
                self.server.lose(&record, true);
                DiskFault::Lost(record)
            }
        });
        self.server_live = self.live();
    }

    fn restore_device(&mut self) {
        let Some(backup) = self.device_backup.take() else { return };
        self.copied = true;
        self.history.expect_the_old();
        self.restores += 1;
        let place = backup.place;
        let current = &self.devices[place];
        let (now, then) = (all_aside(current), all_aside(&backup));
        // What was only in the file that is gone now.
        self.ledger.gone.extend(now.tokens.difference(&then.tokens).cloned());
        self.ledger.increments_gone.extend(now.increments.difference(&then.increments));
        // A group that was retried there without what had been superseded is known to the server by its steps. The old
        // one is taken for a copy of it, and what was superseded is in the log of that file alone.
        self.ledger.gone.extend(superseded_aside(current).tokens);
        let pending = pending_aside(&backup);
        self.ledger.may_return.extend(pending.tokens);
        self.ledger.may_return.extend(parked_aside(&backup).tokens);
        self.ledger.removed.clear();
        self.trace.tell(&backup.name, "is put back from its backup");
        self.trace.count("device restores");
        let mut restored = backup.copy(place, backup.name.clone());
        restored.number_requests_after(&self.devices[place]);
        self.devices[place] = restored;
    }

    fn copy_device(&mut self, place: usize) {
        let Some(place) = self.worth_a_copy(place) else { return };
        let original = &self.devices[place];
        let name = format!("{}'", original.name);
        let copy = original.copy(self.devices.len(), name.clone());
        self.copied = true;
        self.history.expect_twins();
        self.twins.extend(original.all_pending_aside());
        self.ledger.may_return.extend(parked_aside(original).tokens);
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
        let before = device.replica.visible();
        let mut context = Context { now, random: &mut self.dice };
        let plan = plan_claim(&device.guest, &device.replica, &mut context).map_err(|error| error.to_string())?;
        device.execute(&plan);
        let after = device.replica.visible();
        identity_wins(&device.name, &before, &after, &self.ledger)?;
        self.ledger.claim(&device.name, &before, &after);
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

/// What is parked on a device.
fn parked_aside(device: &Device) -> KeptAside {
    let mut kept = KeptAside::default();
    device.replica.parked_units().values().for_each(|parked| kept.add_parked(parked));
    kept
}

/// What a retry set aside, because something was written since.
fn superseded_aside(device: &Device) -> KeptAside {
    let mut kept = KeptAside::default();
    let superseded = device.replica.log().values().filter(|entry| entry.cause == Cause::Superseded);
    superseded.for_each(|entry| kept.add_log(entry));
    kept
}

/// What is pending, parked or logged on a device.
fn all_aside(device: &Device) -> KeptAside {
    let mut kept = pending_aside(device);
    device.replica.log().values().for_each(|entry| kept.add_log(entry));
    device.replica.parked_units().values().for_each(|parked| kept.add_parked(parked));
    kept
}
