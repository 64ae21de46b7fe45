//! The world of one run: devices, a server and the network between them, and what goes wrong.

mod apps;
mod faults;

use std::collections::{BTreeMap, BTreeSet};

use sync_core::client::exchange::Absorbed;
use sync_core::client::memory::MemoryReplica;
use sync_core::client::session::Failure;
use sync_core::conflict::{Cause, LogEntry, Loss, Side};
use sync_core::merge::push::Outcome;
use sync_core::merge::replica::{GroupHeader, Plan, Replica as _, Write};
use sync_core::model::{ChangeId, CommitTag, DeviceId, Lineage, Record, RecordKey, SyncCount, Timestamp, Value};
use sync_core::policy::{OnDelete, Policy};
use sync_core::protocol::{ErrorBody, Format, SyncResponse, code, decode, encode};
use syncline_server::store::memory::MemorySnapshot;

use crate::dice::Dice;
use crate::sim::app::{self, Writers};
use crate::sim::checks::{
    Ledger, Live, Seen, base_and_pending, compared_first, headers_count_patches, loses_by_policy, nothing_lost,
    whole_groups,
};
use crate::sim::device::{Device, Sent, Step};
use crate::sim::history::History;
use crate::sim::mirror::Other;
use crate::sim::options::{Mix, Options};
use crate::sim::server::Server;
use crate::sim::tokens::{KeptAside, tokens};
use crate::sim::trace::Trace;
use crate::sim::world::apps::LateAnswer;

#[derive(Clone)]
enum Message {
    Request { from: usize, number: u64, bytes: Vec<u8> },
    Answer { to: usize, number: u64, answer: Result<Vec<u8>, Failure> },
}

pub(super) struct World {
    options: Options,
    dice: Dice,
    server: Server,
    /// What the server held after the last commit.
    server_live: Live,
    history: History,
    devices: Vec<Device>,
    network: Vec<Message>,
    /// Repeats that are still to arrive, long after their time.
    old_messages: Vec<Message>,
    writers: Writers,
    ledger: Ledger,
    /// Which increments each device saw last.
    seen: BTreeMap<usize, Seen>,
    /// Groups that were pending when a device's file was copied: both copies have them under one change id.
    twins: BTreeMap<ChangeId, KeptAside>,
    late_answers: Vec<LateAnswer>,
    /// And what it was backed up at.
    server_backup: Option<(SyncCount, MemorySnapshot)>,
    device_backup: Option<Device>,
    restores: usize,
    /// How often others wrote many times.
    bursts: usize,
    /// Some device's file was copied, or put back.
    copied: bool,
    /// What the server's disk did.
    disk_fault: Option<DiskFault>,
    /// The devices that were told of damage: they hold what the server holds.
    damage_told: BTreeSet<usize>,
    /// When commits were made, by day.
    days: BTreeMap<CommitTag, i64>,
    /// Commits that were lost, of a day on which the server that was put back had none: by their epoch it is known that
    /// they are lost.
    lost_with_their_day: BTreeSet<CommitTag>,
    /// Since the server was put back it was told so, by a fence or by a device that was ahead of it.
    known_restored: bool,
    /// Requests that tell it so, if they are answered.
    telling: BTreeSet<(usize, u64)>,
    trace: Trace,
}

/// What a server's disk does by itself.
enum DiskFault {
    /// It loses a record, and its digest with it.
    Lost(Record),
    /// It has another value under a key, or none, of which not even the digest knows.
    Damaged(RecordKey),
}

type Checked = Result<(), String>;

impl World {
    pub(super) fn new(seed: u64, options: Options, other: Option<Other>) -> Self {
        let mut dice = Dice::new(seed);
        let skews = [0, -40_000, 1_000_000_000, 5_000];
        let device = |place: usize| {
            let id = DeviceId::random(&mut dice);
            let mut device = Device::new(place, format!("D{place}"), id, skews[place % 4], options.group_patches);
            let policies = app::policies(options.delete_wins && place % 2 == 1);
            let plan = Plan { writes: vec![Write::Policies(policies)], ..Plan::default() };
            device.execute(&plan);
            device.guest.execute(&plan);
            device
        };
        let devices = (0..options.devices).map(device).collect();
        let writers = Writers::new(&mut dice);
        let server = Server::new(seed, matches!(options.mix, Mix::Plain | Mix::Ledger), other);
        Self {
            options,
            dice,
            server,
            server_live: Live::new(),
            history: History::default(),
            devices,
            network: Vec::new(),
            old_messages: Vec::new(),
            writers,
            ledger: Ledger::default(),
            seen: BTreeMap::new(),
            twins: BTreeMap::new(),
            late_answers: Vec::new(),
            server_backup: None,
            device_backup: None,
            restores: 0,
            bursts: 0,
            copied: false,
            disk_fault: None,
            damage_told: BTreeSet::new(),
            days: BTreeMap::new(),
            lost_with_their_day: BTreeSet::new(),
            known_restored: true,
            telling: BTreeSet::new(),
            trace: Trace::default(),
        }
    }

    pub(super) fn into_trace(self) -> Trace {
        self.trace
    }

    const fn format(&self) -> Format {
        if self.options.json { Format::Json } else { Format::MessagePack }
    }

    pub(super) fn run(&mut self) -> Checked {
        for _ in 0..self.options.steps {
            self.server.advance(self.dice.below(2_000) as i64);
            let place = self.dice.below(self.devices.len());
            let named = self.named_groups();
            match self.dice.below(1000) {
                0..160 => self.app_writes(place)?,
                160..200 => self.app_answers(place, false)?,
                200..300 => self.begin(place),
                300..600 => self.step_device(place)?,
                600..940 => self.step_network()?,
                _ => self.fault(place)?,
            }
            self.notice_renamed(named);
        }
        self.heal()
    }

    fn now_of(&self, place: usize) -> Timestamp {
        self.server.now().plus_ms(self.devices[place].skew)
    }

    fn ledger_holds(&self) -> bool {
        // A restored server knows re-created whole values that its totals do not: offers will heal that.
        self.options.mix != Mix::ServerRestored
    }

    /// Which pending group has which change id, on every device, while there are twins.
    fn named_groups(&self) -> Vec<(usize, GroupHeader)> {
        if self.twins.is_empty() {
            return Vec::new();
        }
        let groups = |replica: &MemoryReplica| replica.groups().expect("memory does not fail");
        let of_device = |device: &Device| {
            let all = [&device.replica, &device.guest].into_iter().flat_map(groups);
            all.map(|group| (device.place, group)).collect::<Vec<_>>()
        };
        self.devices.iter().flat_map(of_device).collect()
    }

    /// A copy wrote to a group, or had to decide it again: from now on the copies' groups have two names, and the server
    /// cannot know that they are the same.
    fn notice_renamed(&mut self, before: Vec<(usize, GroupHeader)>) {
        for (place, group) in before {
            let device = &self.devices[place];
            if device.has_pending(group.change_id) {
                continue;
            }
            // What was in flight and is gone has settled.
            let is_there = device.replica.group(group.id).expect("memory does not fail").is_some();
            let renamed = is_there || !group.state.is_in_flight();
            if let Some(twin) = renamed.then(|| self.twins.remove(&group.change_id)).flatten() {
                self.ledger.may_return.extend(twin.tokens);
            }
        }
    }

    // Syncing

    fn begin(&mut self, place: usize) {
        let now = self.server.now();
        let dataset = self.server.dataset.name.clone();
        let device = &mut self.devices[place];
        if !device.is_syncing() {
            self.trace.tell(&device.name, "begins to sync");
            device.begin(&dataset, now);
        }
    }

    fn step_device(&mut self, place: usize) -> Checked {
        let (now, format) = (self.server.now(), self.format());
        let device = &mut self.devices[place];
        let parked: Vec<_> = device.replica.parked_units().keys().copied().collect();
        let pulls_all = device.pulls_all();
        match device.step(now, self.options.page_records, format, &mut self.dice) {
            Step::Idle | Step::Worked => {}
            Step::Sent(Sent { id, bytes }) => {
                let groups = device.in_flight();
                self.trace.tell(&device.name, format!("sends request {id:x} ({} bytes){groups}", bytes.len()));
                self.network.push(Message::Request { from: place, number: id, bytes });
            }
            Step::Absorbed(absorbed) => {
                self.trace.tell(&device.name, format!("absorbs an answer: {}", summary(&absorbed)));
                if absorbed.copied && !self.copied {
                    return Err(format!("{} takes its file for a copy, and it is none", device.name));
                }
                for (id, unit) in device.replica.parked_units().iter().filter(|(id, _)| !parked.contains(id)) {
                    let keys: Vec<_> = unit.patches.iter().map(|patch| patch.key.as_str()).collect();
                    self.trace.tell(&device.name, format!("parks {} as unit {id}: {}", keys.join(" "), unit.message));
                }
                for (happened, what) in [
                    (absorbed.conflicts > 0, "conflicts"),
                    (absorbed.parked > 0, "parked"),
                    (absorbed.reset.is_some(), "resets"),
                    (absorbed.copied, "copies noticed"),
                    (absorbed.late, "late answers ignored"),
                ] {
                    if happened {
                        self.trace.count(what);
                    }
                }
                if let Some(error) = absorbed.error.as_ref().filter(|error| error.code != code::TOO_MANY_REQUESTS) {
                    return Err(format!("{} was told {}: {}", device.name, error.code, error.message));
                }
                self.check_digests(place, pulls_all, &absorbed)?;
                self.check_device(place)?;
            }
            Step::Ended(end) => self.trace.tell(&device.name, format!("ends its session: {end:?}")),
        }
        Ok(())
    }

    /// Digests differ if the server's disk did something, and each device is told once of what that did to a value, as
    /// long as it does not pull all of it anew.
    fn check_digests(&mut self, place: usize, pulls_all: bool, absorbed: &Absorbed) -> Checked {
        let name = &self.devices[place].name;
        if absorbed.diverged {
            self.trace.count("digest mismatches");
            if self.disk_fault.is_none() || (self.damage_told.contains(&place) && !pulls_all) {
                return Err(format!("{name} holds something else than the server"));
            }
        }
        if absorbed.damaged {
            self.trace.count("damage told");
            if self.damaged().is_none() {
                return Err(format!("{name} is told of damage, and there is none"));
            }
            self.damage_told.insert(place);
        }
        Ok(())
    }

    /// The record that has another value on the server's disk than somebody wrote.
    const fn damaged(&self) -> Option<&RecordKey> {
        match &self.disk_fault {
            Some(DiskFault::Damaged(key)) => Some(key),
            _ => None,
        }
    }

    fn check_device(&mut self, place: usize) -> Checked {
        self.read_log(place)?;
        let device = &self.devices[place];
        let base = device.replica.base_records().iter();
        let base: Live = base.filter_map(|(key, record)| Some((key.clone(), record.value()?.clone()))).collect();
        let ledger = self.ledger_holds();
        whole_groups(&format!("the base of {}", device.name), &base, ledger)?;
        let settled = device.replica.pending().is_empty();
        let visible = device.replica.visible();
        whole_groups(&device.name, &visible, ledger && settled)?;
        let pending = device.pending_aside().into_values().flat_map(|kept| kept.increments).collect();
        base_and_pending(&device.name, &visible, &base, &pending)?;
        headers_count_patches(&device.name, &device.replica)?;
        let floor = self.server.store().head(&self.server.dataset).floor;
        let state = device.replica.state().expect("memory does not fail");
        if let Some(DiskFault::Lost(lost)) = &self.disk_fault
            && state.pull.is_some_and(|pull| pull.snapshot)
            && state.cursor.is_none_or(|cursor| cursor.count < floor)
        {
            // It may have been away for too long: then what it holds is not compared.
            self.ledger.gone.extend(tokens(lost.value()));
        }
        if self.options.mix.loses_answers() {
            return Ok(());
        }
        let mut kept = KeptAside::default();
        device.replica.log().values().for_each(|entry| kept.add_log(entry));
        device.replica.parked_units().values().for_each(|parked| kept.add_parked(parked));
        self.seen.entry(place).or_default().again(&device.name, &visible, &kept)
    }

    fn read_log(&mut self, place: usize) -> Checked {
        let device = &mut self.devices[place];
        for entry in device.read_log() {
            self.trace.tell(&device.name, format!("logs as {}: {}", entry.cause.name(), losses(&entry)));
            loses_by_policy(&entry)?;
            if matches!(entry.cause, Cause::Restored | Cause::Foreign) {
                // What it had removed before it knew of the loss may come again from who wrote it.
                let lost: BTreeSet<_> = entry.losses.iter().flat_map(|loss| tokens(loss.value.as_ref())).collect();
                self.ledger.excuse_removals(&device.name, &lost);
            }
            // Who removes a map afterwards has seen it without this.
            let of_map = entry.cause == Cause::Policy(Policy::Fields);
            let is_field = |loss: &&Loss| !loss.path.is_empty() || (of_map && loss.side == Side::Remote);
            let fields = entry.losses.iter().filter(is_field);
            self.ledger.gone.extend(fields.flat_map(|loss| tokens(loss.value.as_ref())));
        }
        Ok(())
    }

    fn step_network(&mut self) -> Checked {
        if self.server.is_busy() && (self.network.is_empty() || self.dice.per_mille(600)) {
            return self.step_server();
        }
        if self.network.is_empty() {
            return Ok(());
        }
        let at = self.dice.below(self.network.len());
        let message = self.network.swap_remove(at);
        if self.dice.per_mille(120) {
            self.trace.tell("network", format!("loses {}", self.about(&message)));
            return Ok(());
        }
        if self.dice.per_mille(80) {
            self.trace.tell("network", format!("repeats {}", self.about(&message)));
            if self.dice.per_mille(500) {
                self.old_messages.push(message.clone());
            } else {
                self.network.push(message.clone());
            }
        }
        if self.dice.per_mille(20)
            && let Message::Request { from, number, .. } = message
        {
            let error =
                ErrorBody { code: code::NOT_AUTHORIZED.to_owned(), message: "the token has expired".to_owned() };
            let failure = Failure::Status { status: 401, error: Some(error), retry_after_ms: None };
            self.network.push(Message::Answer { to: from, number, answer: Err(failure) });
            return Ok(());
        }
        self.deliver(message)
    }

    fn about(&self, message: &Message) -> String {
        match message {
            Message::Request { from, number, .. } => format!("request {number:x} of {}", self.devices[*from].name),
            Message::Answer { to, number, .. } => format!("the answer to {number:x} of {}", self.devices[*to].name),
        }
    }

    fn deliver(&mut self, message: Message) -> Checked {
        let format = self.format();
        match message {
            Message::Request { from, number, bytes } => {
                if self.server.accept(from, number, &bytes, format) {
                    self.telling.insert((from, number));
                }
                Ok(())
            }
            Message::Answer { to, number, answer } => {
                let now = self.server.now();
                let answer = answer.map(|bytes| decode::<SyncResponse>(&bytes, format));
                let answer = match answer {
                    Ok(Ok(response)) => Ok(response),
                    Ok(Err(error)) => return Err(format!("a device could not read an answer: {error}")),
                    Err(failure) => Err(failure),
                };
                let pulls_all = self.devices[to].pulls_all();
                if let Some(absorbed) = self.devices[to].receive(number, answer, now, &mut self.dice) {
                    let told = absorbed.iter().map(summary).collect::<Vec<_>>().join("; ");
                    self.trace.tell(
                        &self.devices[to].name,
                        format!("hears the answer to {number:x} after its session: {told}"),
                    );
                    absorbed.iter().try_for_each(|absorbed| self.check_digests(to, pulls_all, absorbed))?;
                }
                self.check_device(to)
            }
        }
    }

    fn step_server(&mut self) -> Checked {
        let finished = self.server.step(&mut self.dice);
        self.check_server()?;
        if let Some((from, number, answer)) = finished {
            self.trace.tell("server", format!("answers {number:x} of {}", self.devices[from].name));
            self.known_restored |= self.telling.contains(&(from, number));
            let format = self.format();
            let answer = answer.map(|response| encode(&response, format)).map_err(|error| {
                self.trace.tell("server", format!("cannot serve it: {error}"));
                Failure::Status { status: 503, error: Some(error.body()), retry_after_ms: Some(10) }
            });
            self.network.push(Message::Answer { to: from, number, answer });
        }
        Ok(())
    }

    fn check_server(&mut self) -> Checked {
        let commits = self.server.take_commits();
        if commits.is_empty() {
            return Ok(());
        }
        for commit in commits {
            let before = commit.expected.map_or(SyncCount::ZERO, |position| position.count);
            let after = commit.head.lineage.count;
            let keys: Vec<_> = commit.records.iter().map(|record| record.key.as_str()).collect();
            self.trace.tell("server", format!("commits {before} -> {after}: {}", keys.join(" ")));
            if after < before || (after == before && !commit.records.is_empty()) {
                return Err(format!("the sync count went from {before} to {after}"));
            }
            let answers = commit.pushes.iter().flat_map(|(_, push)| &push.answer.outcomes);
            let overwritten = answers.filter_map(|outcome| match outcome {
                Outcome::Applied { overwritten, .. } | Outcome::Rewritten { overwritten, .. } => Some(overwritten),
                Outcome::Conflict { .. } | Outcome::Refused(_) => None,
            });
            let overwritten: Vec<_> = overwritten.flatten().filter(|it| Some(&it.key) != self.damaged()).collect();
            compared_first(&overwritten)?;
            if self.options.mix.loses_answers() || self.copied {
                // Who overwrote something unseen learns of it by the answer, and either side may lose that.
                self.ledger.gone.extend(overwritten.iter().flat_map(|it| tokens(it.value.as_ref())));
            }
            if commit.clear {
                self.trace.tell("server", "deletes the dataset");
                self.excuse_live();
                self.note_deletion(commit.head.lineage.clone());
            }
            if let Some(DiskFault::Lost(lost)) = &self.disk_fault
                && commit.records.iter().any(|it| it.key == lost.key)
            {
                // Overwritten by who may not have seen it.
                self.ledger.gone.extend(tokens(lost.value()));
            }
            let tag = commit.head.lineage.position().map(|position| position.tag);
            self.days.extend(tag.map(|tag| (tag, commit.head.modified_at.day())));
            self.history.commit(&commit, &self.ledger, &self.removals_win())?;
        }
        self.server_live = self.live();
        whole_groups("the server", &self.server_live, self.ledger_holds())
    }

    /// The devices on which a removal of a map beats an edit.
    fn removals_win(&self) -> BTreeSet<DeviceId> {
        let wins = |device: &&Device| device.replica.policies().is_ok_and(|it| it.on_delete == OnDelete::DeleteWins);
        self.devices.iter().filter(wins).map(|device| device.id).collect()
    }

    /// What the server holds.
    fn live(&self) -> Live {
        let records = self.server.store().live_records(&self.server.dataset).into_iter();
        records.filter_map(|record| Some((record.key.clone(), record.value()?.clone()))).collect()
    }

    /// What the server holds is meant to go.
    fn excuse_live(&mut self) {
        let mut kept = KeptAside::default();
        self.server_live.iter().for_each(|(key, value)| kept.add(key, None, Some(value)));
        self.ledger.gone.extend(kept.tokens);
        self.ledger.increments_gone.extend(kept.increments);
    }

    /// What is pending on devices that knew the deleted dataset must not be written to a new one by itself.
    fn note_deletion(&mut self, mut line: Lineage) {
        line.entries.pop();
        for device in &self.devices {
            let Ok(state) = device.replica.state() else { continue };
            // What is written after a deletion of its own is meant for the next one, and a push on its way may be from
            // before the device had a cursor.
            if !state.deleting
                && state.in_flight.is_none()
                && state.cursor.is_some_and(|cursor| line.ended(cursor).is_none())
            {
                let pending = device.pending_aside().into_values().flat_map(|kept| kept.tokens);
                self.ledger.deleted.extend(pending.map(|token| (token, device.name.clone())));
            }
        }
    }

    // The end

    /// No more faults: then everything must converge.
    fn heal(&mut self) -> Checked {
        self.trace.tell("world", "is healed");
        self.network.clear();
        self.server.crash();
        // A page tells of what a disk has lost, and there is one with the next write; a snapshot alone does not tell. Nobody
        // has to wait for it.
        let mut tells = if self.disk_fault.is_some() { 2 } else { 0 };
        for place in 0..self.devices.len() {
            self.devices[place].crash();
            if self.options.mix == Mix::Claimed {
                self.claim(place)?;
            }
        }
        for _ in 0..60 {
            if tells > 0 && self.all_settled() {
                tells -= 1;
                match &self.disk_fault {
                    // It shows where it goes.
                    Some(DiskFault::Damaged(key)) => {
                        self.ledger.gone.extend(tokens(self.server_live.get(key)));
                        self.history.lose(key);
                        self.server.replace(key, &mut self.dice);
                    }
                    _ => self.server.write_many(1, &mut self.dice),
                }
            }
            for place in 0..self.devices.len() {
                let named = self.named_groups();
                self.app_answers(place, true)?;
                self.notice_renamed(named);
                self.sync_to_end(place)?;
            }
            if tells == 0 && self.all_settled() {
                return self.check_end();
            }
        }
        let waiting: Vec<_> = self.devices.iter().filter(|device| !device.is_settled()).map(|it| &it.name).collect();
        Err(format!("it does not come to rest: {waiting:?} still have something pending"))
    }

    fn sync_to_end(&mut self, place: usize) -> Checked {
        self.begin(place);
        for _ in 0..5_000 {
            if !self.devices[place].is_syncing() {
                return Ok(());
            }
            self.server.advance(1);
            let named = self.named_groups();
            self.step_device(place)?;
            self.notice_renamed(named);
            while let Some(message) = self.network.pop() {
                self.deliver(message)?;
            }
            while self.server.is_busy() {
                self.step_server()?;
            }
        }
        let device = &self.devices[place];
        self.trace.tell(&device.name, format!("stands at {:?}", device.replica.state()));
        self.trace.tell("server", format!("stands at {:?}", self.server.store().head(&self.server.dataset)));
        Err(format!("the session of {} does not end", device.name))
    }

    fn all_settled(&self) -> bool {
        let position = self.server.store().head(&self.server.dataset).lineage.position();
        let at_end = |device: &Device| device.replica.state().is_ok_and(|state| state.cursor == position);
        self.devices.iter().all(|device| device.is_settled() && at_end(device))
    }

    fn check_end(&mut self) -> Checked {
        self.check_server()?;
        if self.damaged().is_some() && self.damage_told.is_empty() {
            return Err("the server's disk has changed a value, and no device was told".to_owned());
        }
        let live = self.server_live.clone();
        let mut kept = KeptAside::default();
        for device in &self.devices {
            let visible = device.replica.visible();
            if visible != live {
                return Err(format!("{} differs from the server: {}", device.name, difference(&visible, &live)));
            }
            for replica in [&device.replica, &device.guest] {
                replica.log().values().for_each(|entry| kept.add_log(entry));
                replica.parked_units().values().for_each(|parked| kept.add_parked(parked));
            }
        }
        whole_groups("the server", &live, self.ledger_holds())?;
        nothing_lost(&live, &kept, &self.ledger, self.writers.increments)
    }
}

fn summary(absorbed: &Absorbed) -> String {
    let mut parts = Vec::new();
    for (count, what) in [
        (absorbed.accepted, "accepted"),
        (absorbed.conflicts, "in conflict"),
        (absorbed.refused, "refused"),
        (absorbed.parked, "parked"),
        (absorbed.pulled, "records pulled"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    parts.extend(absorbed.reset.map(|reset| format!("reset: {reset:?}")));
    parts.extend(absorbed.late.then(|| "too late, ignored".to_owned()));
    parts.extend(absorbed.copied.then(|| "this file was copied, it takes a new id".to_owned()));
    if parts.is_empty() { "nothing new".to_owned() } else { parts.join(", ") }
}

fn losses(entry: &LogEntry) -> String {
    let one = |loss: &Loss| {
        let json = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_json);
        format!(
            "{}{} of {:?} ({} -> {})",
            loss.key,
            loss.path.join("/"),
            loss.side,
            json(&loss.under),
            json(&loss.value)
        )
    };
    entry.losses.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn difference(here: &Live, there: &Live) -> String {
    let keys: BTreeSet<_> = here.keys().chain(there.keys()).collect();
    let differing = keys.into_iter().filter(|key| here.get(*key) != there.get(*key));
    let json = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_json);
    differing
        .map(|key| format!("{key}: {} / {}", json(here.get(key)), json(there.get(key))))
        .collect::<Vec<_>>()
        .join("; ")
}
