//! A dataset of a million records: what a change of one costs beside a small dataset, and what a first pull takes of
//! memory.

use std::process::Child;
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::json;
use sync_core::client::exchange::Absorbed;
use sync_core::device::{Address, DeviceDb};
use sync_core::merge::stack::Context;
use sync_core::model::{DatasetName, DeviceId, Limits, RecordKey, Timestamp, Value};
use syncline_server::clock::{Draw, SystemRandom};
use tests::harness::{Device, Folder, Server};
use tokio::runtime::Runtime;

use crate::data::{Xorshift, put_lines};
use crate::pushes::{Load, about, ask};
use crate::report::{Aim, Report, median};

const MANY: usize = 1_000_000;
const FEW: usize = 1_000;
const DATASET: &str = "records";
/// Records that are written together.
const TRANSACTION: usize = 1_000;
/// Changes of one record that are measured in each dataset, in turn.
const ROUNDS: usize = 100;
const MEGABYTE: f64 = 1e6;

pub(crate) fn measure(report: &mut Report) {
    let folder = Folder::new();
    let server = Server::start(&folder.path("server"));
    let writer = Device::new(&folder, "writer").at(server.url()).with_token(&server.token("ada"));
    writer.ok(&["sync", "nothing"]);
    let idle = server.memory_peak();
    fill(&writer, MANY);
    let pushed = server.memory_peak();
    let above = |peak: u64, idle: u64| peak.saturating_sub(idle) as f64 / MEGABYTE;
    let name = format!("server's memory while {MANY} records are pushed, above idle");
    report.figure(name, "MB", above(pushed, idle), Some(Aim::AtMost(64.0)));

    // A process tells only the most memory that it ever took.
    server.stop();
    let server = Server::start(&folder.path("server"));
    let token = server.token("ada");
    let device = |name: &str| Device::new(&folder, name).at(server.url()).with_token(&token);
    let [writer, reader] = ["writer", "reader"].map(device);
    let idle_device = peak(reader.spawn(&["sync", "nothing"]), Duration::MAX);
    let idle = server.memory_peak();
    // It is stopped in the middle, and goes on from there.
    let stopped = peak(reader.spawn(&["sync", DATASET]), Duration::from_secs(2));
    let begun = Instant::now();
    let rest = reader.json(&["sync", DATASET])["pulled"].as_u64().expect("it says how many");
    assert!(rest > 0 && rest < MANY as u64, "{rest} of {MANY} were pulled after the stop");
    println!("a first pull that was killed after 2 s went on with the last {rest} records, in {:?}", begun.elapsed());
    let whole = peak(device("second").spawn(&["sync", DATASET]), Duration::MAX);
    let name = format!("device's memory in a first pull of {MANY} records, above idle");
    report.figure(name, "MB", above(whole.max(stopped), idle_device), Some(Aim::AtMost(64.0)));
    let name = "server's memory during it, above idle";
    report.figure(name, "MB", above(server.memory_peak(), idle), Some(Aim::AtMost(64.0)));

    let small = Server::start(&folder.path("small"));
    let device = |name: &str| Device::new(&folder, name).at(small.url()).with_token(&small.token("ada"));
    let [small_writer, small_reader] = ["small-writer", "small-reader"].map(device);
    fill(&small_writer, FEW);
    small_reader.ok(&["sync", DATASET]);
    let runtime = Runtime::new().expect("threads start");
    let mut random = Draw(&SystemRandom);
    let (few, many) = ((&small, small_writer, small_reader), (&server, writer, reader));
    let mut sides = [few, many].map(|(server, writer, reader)| {
        [writer, reader].map(|device| Syncing::new(server, server.token("ada"), &device, &mut random))
    });
    let mut times: [[Vec<f64>; 2]; 2] = Default::default();
    for round in 0..ROUNDS {
        for ([writer, reader], [push, pull]) in sides.iter_mut().zip(&mut times) {
            writer.put(round * 7, round, &mut random);
            let (took, absorbed) = writer.sync(&runtime, &mut random);
            assert_eq!((absorbed.accepted, absorbed.pulled), (1, 1));
            push.push(took);
            let (took, absorbed) = reader.sync(&runtime, &mut random);
            assert_eq!(absorbed.pulled, 1);
            pull.push(took);
        }
    }
    let [few, many] = times.map(|side| side.map(median));
    for (what, few, many) in [("push", few[0], many[0]), ("pull", few[1], many[1])] {
        let name = format!("{what} of one record among {MANY}, beside {FEW}");
        report.beside(name, "ms", many, few, Aim::TimesAtMost(1.2));
    }
}

/// Writes records, and pushes them now and then.
fn fill(writer: &Device, records: usize) {
    let mut random = Xorshift(7);
    for first in (0..records).step_by(TRANSACTION) {
        let lines: Vec<_> = (first..first + TRANSACTION).map(|number| record(number, &mut random)).collect();
        writer.ok_with_input(&["apply", DATASET, "-"], &put_lines(&lines));
        if (first / TRANSACTION) % 10 == 9 {
            writer.ok(&["sync", DATASET]);
        }
    }
    writer.ok(&["sync", DATASET]);
}

/// A device's file whose round trips are made in this process: only they are measured.
struct Syncing {
    db: DeviceDb,
    id: DeviceId,
    address: Address,
    load: Load,
    token: String,
}

impl Syncing {
    fn new(server: &Server, token: String, device: &Device, random: &mut Draw<'_>) -> Self {
        let mut db = DeviceDb::open(device.file(), random).expect("it is a device's file");
        let id = db.device_id().expect("it has one");
        let dataset = DatasetName::parse(DATASET).expect("a name");
        let address = Address { owner: db.owner().expect("it has one"), dataset };
        let client = Client::builder().no_gzip().no_zstd().build().expect("a client can be made");
        let sync = format!("{}/v1/sync", server.url());
        Self { db, id, address, load: Load { client, sync, dataset: DATASET.to_owned(), size: 1 }, token }
    }

    fn put(&mut self, number: usize, round: usize, random: &mut Draw<'_>) {
        let value = Value::parse_json(&json!({ "round": round }).to_string()).expect("a value");
        let write = vec![(RecordKey::parse(key(number)).expect("a key"), Some(value))];
        self.db.write(&self.address, write, &mut Context { now: Timestamp(1), random }).expect("it can be written");
    }

    /// One round trip, from the plan to what is durable, and its milliseconds.
    fn sync(&mut self, runtime: &Runtime, random: &mut Draw<'_>) -> (f64, Absorbed) {
        let begun = Instant::now();
        let prepared = self.db.prepare(&self.address, &Limits::default(), true).expect("it can be planned");
        let request = prepared.request.expect("it asks");
        let answer = runtime.block_on(ask(&self.load, &self.token, about(self.id, request.clone())));
        let (dataset, now) = (answer.datasets.into_iter().next(), answer.server_time);
        let absorbed = self.db.absorb(&self.address, &request, dataset, now, &mut Context { now, random });
        (begun.elapsed().as_secs_f64() * 1e3, absorbed.expect("it is absorbed").1)
    }
}

fn key(number: usize) -> String {
    format!("record/{number:07}")
}

/// A record with a value of about 200 bytes.
fn record(number: usize, random: &mut Xorshift) -> (String, serde_json::Value) {
    let text: String = (0..10).map(|_| format!("{:016x} ", random.next())).collect();
    (key(number), json!({ "n": number, "text": text }))
}

/// The most memory that a process takes until it ends or is killed.
fn peak(mut process: Child, kill_after: Duration) -> u64 {
    let begun = Instant::now();
    let mut peak = 0;
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        peak = line.and_then(|kilobytes| kilobytes.parse::<u64>().ok()).map_or(peak, |kilobytes| 1024 * kilobytes);
        if begun.elapsed() > kill_after {
            process.kill().expect("it can be killed");
            process.wait().expect("it has ended");
            return peak;
        }
        if let Some(status) = process.try_wait().expect("it can be asked") {
            assert!(status.success(), "it failed: {status}");
            return peak;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
