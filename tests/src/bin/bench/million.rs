//! A dataset of a million records: what a change of one costs beside a small dataset, and what a first pull takes of
//! memory.

use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::harness::{Device, Folder, Server};

use crate::data::{Xorshift, put_lines};
use crate::report::{Aim, Report, median};

const MANY: usize = 1_000_000;
const FEW: usize = 1_000;
/// Records that are written together.
const TRANSACTION: usize = 1_000;
/// Changes of one record that are measured in each dataset, in turn.
const ROUNDS: usize = 30;
const MEGABYTE: f64 = 1e6;

pub(crate) fn measure(report: &mut Report) {
    let folder = Folder::new();
    let server = Server::start(&folder.path("server"));
    let writer = Device::new(&folder, "writer").at(server.url()).with_token(&server.token("ada"));
    writer.ok(&["sync", "nothing"]);
    let idle = server.memory_peak();
    for (dataset, records) in [("few", FEW), ("many", MANY)] {
        let mut random = Xorshift(7);
        for first in (0..records).step_by(TRANSACTION) {
            let lines: Vec<_> = (first..first + TRANSACTION).map(|number| record(number, &mut random)).collect();
            writer.ok_with_input(&["apply", dataset, "-"], &put_lines(&lines));
            if (first / TRANSACTION) % 10 == 9 {
                writer.ok(&["sync", dataset]);
            }
        }
        writer.ok(&["sync", dataset]);
    }
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
    reader.ok(&["sync", "few"]);
    // It is stopped in the middle, and goes on from there.
    let stopped = peak(reader.spawn(&["sync", "many"]), Duration::from_secs(2));
    let begun = Instant::now();
    let rest = reader.json(&["sync", "many"])["pulled"].as_u64().expect("it says how many");
    assert!(rest > 0 && rest < MANY as u64, "{rest} of {MANY} were pulled after the stop");
    println!("a first pull that was killed after 2 s went on with the last {rest} records, in {:?}", begun.elapsed());
    let whole = peak(device("second").spawn(&["sync", "many"]), Duration::MAX);
    let name = format!("device's memory in a first pull of {MANY} records, above idle");
    report.figure(name, "MB", above(whole.max(stopped), idle_device), Some(Aim::AtMost(64.0)));
    let name = "server's memory during it, above idle";
    report.figure(name, "MB", above(server.memory_peak(), idle), Some(Aim::AtMost(64.0)));

    let mut times = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for (dataset, times) in ["few", "many"].into_iter().zip(&mut times) {
            writer.ok(&["put", dataset, &key(round * 7), &json!({ "round": round }).to_string()]);
            writer.ok(&["sync", dataset]);
            let begun = Instant::now();
            assert_eq!(reader.json(&["sync", dataset])["pulled"], json!(1));
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    let [few, many] = times.map(median);
    report.beside(format!("one record of {MANY}, beside {FEW}"), "ms", many, few, Aim::TimesAtMost(1.2));
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
