//! Runs the simulator: `sim --runs N` for many seeds, `sim --seed N` for one with its story.
#![expect(clippy::print_stdout, reason = "it is a command that prints")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use tests::sim::{Mix, Options, run};

/// Runs the simulator. A failing seed prints its story; the same seed always does the same.
#[derive(Parser)]
#[command(name = "sim")]
struct Arguments {
    /// Run one seed and print its story.
    #[arg(long)]
    seed: Option<u64>,
    /// Run so many seeds.
    #[arg(long, default_value_t = 1_000)]
    runs: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Only this mix of faults: plain, ledger, deleted, server-restored, device-restored or claimed. By default the
    /// seed chooses.
    #[arg(long, value_parser = |name: &str| Mix::parse(name).ok_or("there is no such mix"))]
    mix: Option<Mix>,
    /// Stop at the first seed that fails.
    #[arg(long)]
    first: bool,
}

/// After so many seeds it is said how far it is.
const TOLD_EVERY: u64 = 10_000;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.seed {
        Some(seed) => one(seed, arguments.mix),
        None => many(&arguments),
    }
}

fn one(seed: u64, mix: Option<Mix>) -> ExitCode {
    let report = run(seed, mix);
    println!("seed {seed}: {:?}", report.options);
    report.story.iter().for_each(|line| println!("{line}"));
    if run(seed, mix).fingerprint != report.fingerprint {
        println!("NOT DETERMINISTIC: a second run of seed {seed} did something else");
        return ExitCode::FAILURE;
    }
    match report.violation {
        Some(violation) => {
            println!("\nVIOLATION: {violation}");
            ExitCode::FAILURE
        }
        None => {
            println!("\nAll checks held.");
            ExitCode::SUCCESS
        }
    }
}

fn many(arguments: &Arguments) -> ExitCode {
    let seeds = arguments.start..arguments.start + arguments.runs;
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let (mix, start) = (arguments.mix, arguments.start);
    // Later seeds need not run.
    let enough = AtomicU64::new(u64::MAX);
    // A run of hours that is interrupted has said what it found.
    let done = AtomicU64::new(0);
    let reports = std::thread::scope(|scope| {
        let worker = |worker: u64| {
            let seeds = seeds.clone().filter(move |seed| (seed - start) % workers == worker);
            let (enough, done) = (&enough, &done);
            scope.spawn(move || {
                let mut counts = BTreeMap::new();
                let mut failed = Vec::new();
                for seed in seeds.take_while(|seed| *seed <= enough.load(Ordering::Relaxed)) {
                    let caught = std::panic::catch_unwind(|| run(seed, mix));
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if done.is_multiple_of(TOLD_EVERY) {
                        println!("{done} seeds so far");
                    }
                    match caught {
                        Ok(report) => {
                            for (what, count) in report.counts {
                                *counts.entry(what).or_insert(0) += count;
                            }
                            if let Some(violation) = report.violation {
                                println!("seed {seed}: {violation}");
                                failed.push((seed, report.options.mix, violation));
                            }
                        }
                        Err(_) => failed.push((seed, Options::of_seed(seed, mix).mix, "it panicked".to_owned())),
                    }
                    if arguments.first && !failed.is_empty() {
                        enough.fetch_min(seed, Ordering::Relaxed);
                    }
                }
                (counts, failed)
            })
        };
        let running: Vec<_> = (0..workers).map(worker).collect();
        running.into_iter().map(|running| running.join().expect("panics are caught above")).collect::<Vec<_>>()
    });
    let mut counts = BTreeMap::new();
    let mut failed = Vec::new();
    for (some, more) in reports {
        for (what, count) in some {
            *counts.entry(what).or_insert(0) += count;
        }
        failed.extend(more);
    }
    failed.sort_by_key(|(seed, ..)| *seed);
    if arguments.first {
        return first(&failed);
    }
    println!("{} seeds, {} failed", arguments.runs, failed.len());
    counts.iter().for_each(|(what, count)| println!("  {count:>9} {what}"));
    for (seed, mix, violation) in failed.iter().take(20) {
        println!("  seed {seed} ({}): {}", mix.name(), short(violation));
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("Run `./dev sim --seed {}` for the story of the first.", failed[0].0);
    ExitCode::FAILURE
}

fn first(failed: &[(u64, Mix, String)]) -> ExitCode {
    let Some((seed, mix, violation)) = failed.first() else { return ExitCode::SUCCESS };
    println!("seed {seed} ({}): {}", mix.name(), short(violation));
    ExitCode::FAILURE
}

/// The beginning of a violation, on one line.
fn short(violation: &str) -> String {
    violation.chars().take(200).map(|char| if char.is_control() { ' ' } else { char }).collect()
}
