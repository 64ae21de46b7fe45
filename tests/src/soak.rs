//! Crash loops: the real binary over real files, killed at random moments, behind a network that drops, delays,
//! truncates and repeats. Afterwards every acknowledged write is there, counted once, in whole groups, and no device
//! had to begin anew.

use std::collections::BTreeMap;
use std::fmt;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::dice::Dice;
use crate::harness::{Device, Exit, Fault, Folder, Proxy, Server};

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Killed {
    /// The server, which is started again over its data folder.
    Server,
    /// The devices' processes, in the middle of what they do.
    Devices,
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
    /// Answers of the server that came by the network.
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
/// How long a device tries to sync while it is being tested.
const GIVE_UP: &str = "2s";

/// Lets devices write for a while, kills, and then looks whether everything is there.
///
/// # Panics
/// If it is not, saying what is wrong.
pub fn round(killed: Killed, lasting: Duration, seed: u64) -> Tally {
    let folder = Folder::new();
    let data = folder.path("server");
    let mut server = Server::start(&data);
    let token = server.token("ada");
    let proxy = bad_network(server.url(), seed);
    let kills = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..DEVICES)
        .map(|number| Writer {
            name: format!("d{number}"),
            device: Device::new(&folder, &format!("d{number}")).at(&proxy.url()).with_token(&token),
            dice: Dice::new(seed.wrapping_add(1 + number as u64)),
            killed: killed == Killed::Devices,
            kills: Arc::clone(&kills),
            written: Written::default(),
        })
        .collect();
    let devices: Vec<_> = writers.iter().map(|writer| writer.device.clone()).collect();
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
        thread::sleep(Duration::from_millis(100 + dice.below(700) as u64));
        if killed == Killed::Server {
            drop(server);
            kills.fetch_add(1, Ordering::Relaxed);
            server = Server::start(&data);
            proxy.lead_to(server.url());
        }
    }
    over.store(true, Ordering::Relaxed);
    let written: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("a writer found something")).collect();

    for _ in 0..2 {
        for device in &devices {
            let synced = device.at(server.url()).sync();
            assert_eq!(synced["resets"], json!({}), "a device had to begin anew");
            assert_eq!(synced["repaired"], json!([]), "a device differed from the server");
        }
    }
    check(&devices, &written);
    Tally {
        increments: written.iter().map(|written| written.increments).sum(),
        groups: written.iter().map(|written| written.groups).sum(),
        kills: kills.load(Ordering::Relaxed),
        answers: proxy.answered(),
    }
}

/// Half of the answers arrive as they are.
fn bad_network(upstream: &str, seed: u64) -> Proxy {
    let mut dice = Dice::new(seed ^ 0x006e_6574);
    Proxy::start(upstream, move |_| match dice.below(10) {
        0 => Fault::Drop,
        1 => Fault::Truncate,
        2 | 3 => Fault::Repeat,
        4 => {
            thread::sleep(Duration::from_millis(dice.below(300) as u64));
            Fault::Pass
        }
        _ => Fault::Pass,
    })
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
        if !self.call(&["put", "votes", "tea", &votes], "") {
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
        if self.call(&["apply", "pairs", "-"], &lines) {
            self.written.groups = number;
        } else {
            let count = self.device.run(&["get", "pairs", &format!("{}/count", self.name)]);
            self.written.groups = count.stdout.trim().parse().unwrap_or(0);
            assert!(self.written.groups + 1 >= number, "a group that was acknowledged is gone");
        }
    }

    fn sync(&mut self) {
        let _offline_or_not = self.call(&["sync", "--give-up-after", GIVE_UP], "");
    }

    /// Calls a command, and kills it if it is time; says whether it succeeded.
    fn call(&mut self, arguments: &[&str], input: &str) -> bool {
        if !self.killed || self.dice.below(3) > 0 {
            let outcome = self.device.run_with_input(arguments, input);
            let expected =
                outcome.code == Some(0) || arguments[0] == "sync" && outcome.code == Some(Exit::Offline as i32);
            assert!(expected, "{} {arguments:?} failed: {}", self.name, outcome.stderr);
            return outcome.code == Some(0);
        }
        let mut process = self.device.spawn_with_input(arguments, input);
        let patience = if arguments[0] == "sync" { 60_000 } else { 15_000 };
        thread::sleep(Duration::from_micros(self.dice.below(patience) as u64));
        kill(&mut process);
        self.kills.fetch_add(1, Ordering::Relaxed);
        false
    }
}

fn kill(process: &mut Child) {
    process.kill().expect("a process that was not waited for can be killed");
    let _ended = process.wait();
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

/// Rounds of both kinds until the time is over; tells of each.
///
/// # Panics
/// As [`round`] does.
pub fn soak(lasting: Duration, each: Duration, first_seed: u64, mut tell: impl FnMut(u64, Killed, &Tally)) {
    let ends = Instant::now() + lasting;
    for seed in first_seed.. {
        for killed in [Killed::Server, Killed::Devices] {
            tell(seed, killed, &round(killed, each, seed));
        }
        if Instant::now() >= ends {
            return;
        }
    }
}
