//! Crash loops: the real binary over real files and databases, killed at random moments, behind a network that drops, delays,
//! truncates and repeats. Afterwards every acknowledged write is there, counted once, in whole groups, and no device
//! had to begin anew.

mod fleet;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::harness::{Device, Exit, Folder};
use crate::soak::fleet::Fleet;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Killed {
    /// A server, which is started again; if there are several, it is one of them, and every other time it is stopped.
    Servers,
    /// The devices' processes, in the middle of what they do.
    Devices,
    /// The server of the database.
    Database,
}

/// Where the servers keep data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    /// A file of SQLite.
    #[default]
    Sqlite,
    /// A database of MariaDB.
    Mysql,
    /// A table of an emulator of DynamoDB, which has it in memory and is not killed.
    Dynamodb,
}

/// Lets devices write for a while, kills, and then looks whether everything is there.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Who is killed.
    pub killed: Killed,
    /// Where the servers keep data.
    pub store: StoreKind,
    /// How many servers there are; the devices are spread over them.
    pub servers: usize,
    /// How long devices write.
    pub lasting: Duration,
    /// What is written, and when is killed. Processes make each round different all the same.
    pub seed: u64,
}

/// What happened in a round.
#[derive(Debug, Default)]
pub struct Tally {
    /// Increments that a device said were written.
    pub increments: u64,
    /// Groups that a device said were written.
    pub groups: u64,
    /// Processes that were killed.
    pub kills: usize,
    /// Answers of the servers that came by the network.
    pub answers: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { increments, groups, kills, answers } = self;
        write!(formatter, "{increments} increments, {groups} groups, {kills} kills, {answers} answers")
    }
}

/// How many devices of one user write at the same time.
const DEVICES: usize = 4;
/// How long a device tries to sync while its only server, or the database, may be gone.
const GIVE_UP: &str = "2s";
/// How long it tries while there is always a server: it must succeed.
const GIVE_UP_NEVER: &str = "60s";
/// How long what was written may take to a device that only listens: it waits up to 30 s after failures in a row, and a
/// server that has no fan-out tells it with the next poll.
const HEARD_WITHIN: Duration = Duration::from_secs(90);

impl Round {
    /// Plays it.
    ///
    /// # Panics
    /// If not everything is there, saying what is wrong.
    pub fn play(&self) -> Tally {
        let Self { killed, store, servers, lasting, seed } = *self;
        let folder = Folder::new();
        let mut fleet = Fleet::start(&folder, store, servers, seed);
        let token = fleet.token("ada");
        let kills = Arc::new(AtomicUsize::new(0));
        let over = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..DEVICES)
            .map(|number| Writer {
                name: format!("d{number}"),
                device: Device::new(&folder, &format!("d{number}")).at(&fleet.bad_way(number)).with_token(&token),
                dice: Dice::new(seed.wrapping_add(1 + number as u64)),
                killed: killed == Killed::Devices,
                has_server: servers > 1 && killed == Killed::Servers,
                kills: Arc::clone(&kills),
                written: Written::default(),
            })
            .collect();
        let devices: Vec<_> = writers.iter().map(|writer| writer.device.clone()).collect();
        let listeners = Listeners::start(&folder, &fleet, servers, &token);
        let threads: Vec<_> = writers
            .into_iter()
            .map(|writer| {
                let over = Arc::clone(&over);
                thread::spawn(move || writer.work(&over))
            })
            .collect();

        let ends = Instant::now() + lasting;
        let mut dice = Dice::new(seed);
        while Instant::now() < ends {
            // Who listens comes again within seconds, so servers that share the work live for some.
            let pause = if servers > 1 { 1_000 + dice.below(3_000) } else { 100 + dice.below(700) };
            thread::sleep(Duration::from_millis(pause as u64));
            match killed {
                Killed::Devices => continue,
                Killed::Servers => fleet.restart_one(&mut dice),
                Killed::Database => fleet.kill_database(),
            }
            kills.fetch_add(1, Ordering::Relaxed);
        }
        over.store(true, Ordering::Relaxed);
        let written: Vec<_> =
            threads.into_iter().map(|thread| thread.join().expect("a writer found something")).collect();

        for _ in 0..2 {
            for (number, device) in devices.iter().enumerate() {
                check_synced(&device.at(fleet.good_way(number)).sync());
            }
        }
        check(&devices, &written);
        listeners.hear(&devices[0]);
        Tally {
            increments: written.iter().map(|written| written.increments).sum(),
            groups: written.iter().map(|written| written.groups).sum(),
            kills: kills.load(Ordering::Relaxed),
            answers: fleet.answered(),
        }
    }
}

/// Devices that write nothing and listen, one at each server.
struct Listeners(Vec<(Device, Child)>);

impl Listeners {
    fn start(folder: &Folder, fleet: &Fleet, servers: usize, token: &str) -> Self {
        let listener = |number: usize| {
            let device = Device::new(folder, &format!("l{number}")).at(&fleet.listening_way(number)).with_token(token);
            device.ok(&["policy", "votes", "counter"]);
            let mut process = device.spawn(&["sync", "--watch"]);
            // It waits if nobody reads what it prints.
            let (printed, told) = (process.stdout.take(), process.stderr.take());
            thread::spawn(move || printed.map(|mut pipe| io::copy(&mut pipe, &mut io::sink())));
            thread::spawn(move || told.map(|mut pipe| io::copy(&mut pipe, &mut io::sink())));
            (device, process)
        };
        Self((0..servers).map(listener).collect())
    }

    /// Waits until all have what this device has.
    fn hear(mut self, from: &Device) {
        let until = Instant::now() + HEARD_WITHIN;
        for dataset in ["votes", "pairs"] {
            let expected = from.ok(&["export", dataset]);
            for (device, process) in &mut self.0 {
                while device.run(&["export", dataset]).stdout != expected {
                    let ended = process.try_wait().expect("it can be asked");
                    assert!(ended.is_none(), "a device that listens ended: {ended:?}");
                    assert!(Instant::now() < until, "a device that listens has not heard of {dataset}");
                    thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for (_, process) in &mut self.0 {
            let _gone = process.kill();
            let _ended = process.wait();
        }
    }
}

/// What a device said that it has written.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    increments: u64,
    groups: u64,
}

/// One device, and what it does.
struct Writer {
    name: String,
    device: Device,
    dice: Dice,
    /// Whether its processes are killed.
    killed: bool,
    /// Whether there is always a server that can be reached.
    has_server: bool,
    kills: Arc<AtomicUsize>,
    written: Written,
}

impl Writer {
    fn work(mut self, over: &AtomicBool) -> Written {
        self.device.ok(&["policy", "votes", "counter"]);
        while !over.load(Ordering::Relaxed) {
            match self.dice.below(10) {
                0..4 => self.increment(),
                4..8 => self.write_group(),
                _ => self.sync(),
            }
        }
        self.written
    }

    /// One more vote, of all devices for the same.
    fn increment(&mut self) {
        let before = self.votes();
        let votes = (before + 1).to_string();
        if self.call(&["put", "votes", "tea", &votes], "").is_none() {
            // Nobody said whether it was written. It is whole or not there; nobody else writes to this file.
            self.written.increments += self.votes() - before;
            return;
        }
        self.written.increments += 1;
    }

    fn votes(&self) -> u64 {
        let got = self.device.run(&["get", "votes", "tea"]);
        if got.code == Some(Exit::NotFound as i32) { 0 } else { got.stdout.trim().parse().expect("votes are a number") }
    }

    /// Two records that are always equal, and one that counts such groups.
    fn write_group(&mut self) {
        let number = self.written.groups + 1;
        let put = |key: &str, value: Value| json!({"op": "put", "key": format!("{}/{key}", self.name), "value": value});
        let token = self.dice.next().to_string();
        let lines = [put("left", json!(token)), put("right", json!(token)), put("count", json!(number))];
        let lines = lines.map(|line| format!("{line}\n")).concat();
        if self.call(&["apply", "pairs", "-"], &lines).is_some() {
            self.written.groups = number;
        } else {
            let count = self.device.run(&["get", "pairs", &format!("{}/count", self.name)]);
            self.written.groups = count.stdout.trim().parse().unwrap_or(0);
            assert!(self.written.groups + 1 >= number, "a group that was acknowledged is gone");
        }
    }

    fn sync(&mut self) {
        let give_up = if self.has_server { GIVE_UP_NEVER } else { GIVE_UP };
        if let Some(synced) = self.call(&["sync", "--json", "--give-up-after", give_up], "") {
            check_synced(&serde_json::from_str(&synced).expect("it is JSON"));
        }
    }

    /// Calls a command, and kills it if it is time; gives what it printed if it succeeded.
    fn call(&mut self, arguments: &[&str], input: &str) -> Option<String> {
        if !self.killed || self.dice.below(3) > 0 {
            let outcome = self.device.run_with_input(arguments, input);
            let may_be_offline = arguments[0] == "sync" && !self.has_server;
            let expected = outcome.code == Some(0) || may_be_offline && outcome.code == Some(Exit::Offline as i32);
            assert!(expected, "{} {arguments:?} failed: {}", self.name, outcome.stderr);
            return (outcome.code == Some(0)).then_some(outcome.stdout);
        }
        let mut process = self.device.spawn_with_input(arguments, input);
        let patience = if arguments[0] == "sync" { 60_000 } else { 15_000 };
        thread::sleep(Duration::from_micros(self.dice.below(patience) as u64));
        kill(&mut process);
        self.kills.fetch_add(1, Ordering::Relaxed);
        None
    }
}

fn kill(process: &mut Child) {
    process.kill().expect("a process that was not waited for can be killed");
    let _ended = process.wait();
}

/// A device and the server have one past, and the same records.
fn check_synced(synced: &Value) {
    assert_eq!(synced["resets"], json!({}), "a device had to begin anew");
    assert_eq!(synced["repaired"], json!([]), "a device differed from the server");
    assert_eq!(synced["damaged"], json!([]), "the server's records do not add up to its digest");
}

/// All devices have the same, and it is what was acknowledged.
fn check(devices: &[Device], written: &[Written]) {
    let exports = |dataset: &str| devices.iter().map(|device| device.ok(&["export", dataset])).collect::<Vec<_>>();
    let (votes, pairs) = (exports("votes"), exports("pairs"));
    for all in [&votes, &pairs] {
        assert!(all.windows(2).all(|two| two[0] == two[1]), "the devices differ: {all:?}");
    }
    let records = |export: &str| -> BTreeMap<String, Value> {
        let record = |line: &str| {
            let mut record: Value = serde_json::from_str(line).expect("an export is lines of JSON");
            (record["key"].as_str().expect("a key is text").to_owned(), record["value"].take())
        };
        export.lines().map(record).collect()
    };
    let increments: u64 = written.iter().map(|written| written.increments).sum();
    let votes = records(&votes[0]).get("tea").and_then(Value::as_u64).unwrap_or(0);
    assert_eq!(votes, increments, "increments are lost, or count twice");
    let pairs = records(&pairs[0]);
    for (number, written) in written.iter().enumerate() {
        let part = |part: &str| pairs.get(&format!("d{number}/{part}"));
        assert_eq!(part("left"), part("right"), "half of a group is there");
        let count = part("count").and_then(Value::as_u64).unwrap_or(0);
        assert_eq!(count, written.groups, "a group of device {number} is lost");
    }
}

/// Rounds of all kinds until the time is over; tells of each.
///
/// # Panics
/// As [`Round::play`] does.
pub fn soak(first: Round, lasting: Duration, mut tell: impl FnMut(&Round, &Tally)) {
    let ends = Instant::now() + lasting;
    let kinds = [Killed::Servers, Killed::Devices, Killed::Database];
    let kinds = &kinds[..if first.store == StoreKind::Mysql { 3 } else { 2 }];
    for seed in first.seed.. {
        for killed in kinds {
            let round = Round { killed: *killed, seed, ..first };
            tell(&round, &round.play());
        }
        if Instant::now() >= ends {
            return;
        }
    }
}
