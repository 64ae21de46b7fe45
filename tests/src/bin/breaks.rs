//! Breaks each rule of `tests/breaks.toml` in a copy of the workspace, and prints which check of the simulator caught it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a command that prints")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs, io};

use clap::Parser;
use tests::breaks::{Break, Breaks, VARIABLE};

/// Breaks one rule after the other, and says which check of the simulator caught it, and in which seed.
#[derive(Parser)]
#[command(name = "breaks")]
struct Arguments {
    /// Only breaks whose name contains this.
    name: Option<String>,
    /// How many seeds must suffice.
    #[arg(long, default_value_t = 300)]
    runs: u64,
}

/// The name of the simulator in the copy, so that the copy's does not take the place of the real one.
const BROKEN_SIM: &str = "sim-with-breaks";
/// How many times as many seeds are searched for one that catches a break.
const SEARCH: u64 = 5;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let breaks = Breaks::listed();
    println!("Building a copy in which each of {} rules can be broken …", breaks.breaks.len());
    let sim = match build(&breaks) {
        Ok(sim) => sim,
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            return ExitCode::FAILURE;
        }
    };
    let all = ["--runs".to_owned(), arguments.runs.to_string()];
    if let Some(Failure { said, .. }) = first_failure(&sim, None, &all) {
        println!("Without any break, {said}");
        return ExitCode::FAILURE;
    }
    println!("Without any break, {} seeds hold.", arguments.runs);
    let chosen = |it: &&Break| arguments.name.as_ref().is_none_or(|name| it.name.contains(name));
    let mut missed = 0;
    for it in breaks.breaks.iter().filter(chosen) {
        let caught = caught(&sim, it, arguments.runs);
        missed += usize::from(caught.is_err());
        println!("{}\n    {}", it.name, caught.unwrap_or_else(|missed| missed));
    }
    println!("{missed} of {} breaks were not caught.", breaks.breaks.iter().filter(chosen).count());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the simulator says of the first seed that fails under a break and holds without it. If it is not among those that
/// must suffice, some more are tried, so that one sees how rare it is.
fn caught(sim: &Path, it: &Break, runs: u64) -> Result<String, String> {
    let mix = it.mix.iter().flat_map(|mix| ["--mix".to_owned(), mix.clone()]);
    let seeds = |start: u64, runs: u64| {
        let range = ["--start".to_owned(), start.to_string(), "--runs".to_owned(), runs.to_string()];
        range.into_iter().chain(mix.clone()).collect::<Vec<_>>()
    };
    let broken = |start, runs| first_failure(sim, Some(&it.name), &seeds(start, runs));
    let Some(failure) = broken(it.from, runs) else {
        let later = broken(it.from + runs, SEARCH * runs);
        let where_then =
            later.map_or_else(|| "nor by many more".to_owned(), |failure| format!("but: {}", failure.said));
        return Err(format!("NOT CAUGHT by {runs} seeds from {}, {where_then}", it.from));
    };
    match first_failure(sim, None, &seeds(failure.seed, 1)) {
        None => Ok(failure.said),
        Some(Failure { said, .. }) => Err(format!("NOT CAUGHT: also without the break, {said}")),
    }
}

struct Failure {
    seed: u64,
    said: String,
}

/// Runs the broken simulator until a seed fails.
fn first_failure(sim: &Path, broken: Option<&str>, seeds: &[String]) -> Option<Failure> {
    let mut command = Command::new(sim);
    command.arg("--first").args(seeds).env_remove(VARIABLE);
    if let Some(name) = broken {
        command.env(VARIABLE, name);
    }
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} did not start: {error}"));
    let printed = String::from_utf8_lossy(&output.stdout);
    let failure = printed.lines().find_map(|line| {
        let seed = line.strip_prefix("seed ")?.split(' ').next()?.parse().ok()?;
        Some(Failure { seed, said: line.to_owned() })
    });
    assert_eq!(output.status.success(), failure.is_none(), "{command:?} says why it fails:\n{printed}");
    failure
}

/// Builds the simulator over a copy of the workspace that has all breaks in it.
fn build(breaks: &Breaks) -> Result<PathBuf, Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate has a workspace around it");
    let broken = breaks.apply(|file| fs::read_to_string(root.join(file)).ok())?;
    let own = env::current_exe().expect("a process knows its program");
    let target = own.ancestors().nth(2).expect("cargo puts programs into a folder of the target folder");
    let copy = target.join("breaks");
    let mut files = BTreeSet::new();
    for file in tracked_files(root) {
        let to = copy.join(file.replace("src/bin/sim.rs", &format!("src/bin/{BROKEN_SIM}.rs")));
        let text = match broken.get(&file) {
            Some(text) => text.clone().into_bytes(),
            None => fs::read(root.join(&file)).unwrap_or_else(|error| panic!("{file} cannot be read: {error}")),
        };
        let text = if file == "Cargo.toml" { with_other_version(&text) } else { text };
        write_if_changed(&to, &text).unwrap_or_else(|error| panic!("{} cannot be written: {error}", to.display()));
        files.insert(to);
    }
    remove_others(&copy, &files).unwrap_or_else(|error| panic!("{} cannot be tidied: {error}", copy.display()));
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--offline", "--package", "tests", "--bin", BROKEN_SIM]);
    // The dependencies are those of the workspace, and built already.
    let status = command.current_dir(&copy).env("CARGO_TARGET_DIR", target).status();
    match status {
        Ok(status) if status.success() => Ok(target.join("debug").join(BROKEN_SIM)),
        _ => Err(vec![format!("the copy in {} does not build: a replacement must be valid code", copy.display())]),
    }
}

/// The workspace's manifest with another version: to cargo, crates of the same version in two copies of a workspace are
/// the same, and what is built of one would be taken for the other.
fn with_other_version(manifest: &[u8]) -> Vec<u8> {
    let manifest = String::from_utf8_lossy(manifest);
    let line = |line: &str| if line.starts_with("version = ") { "version = \"0.0.0\"" } else { line }.to_owned() + "\n";
    manifest.lines().map(line).collect::<String>().into_bytes()
}

/// What git tracks, or would after `git add`.
fn tracked_files(root: &Path) -> Vec<String> {
    let mut command = Command::new("git");
    command.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root);
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} did not start: {error}"));
    let listed = String::from_utf8_lossy(&output.stdout);
    listed.lines().filter(|file| root.join(file).is_file()).map(str::to_owned).collect()
}

/// Leaves a file alone that is as it should be, so that cargo builds only what is new.
fn write_if_changed(file: &Path, text: &[u8]) -> io::Result<()> {
    if fs::read(file).is_ok_and(|found| found == text) {
        return Ok(());
    }
    fs::create_dir_all(file.parent().expect("a file is in a folder"))?;
    fs::write(file, text)
}

/// Removes what is left of files that the workspace has no more.
fn remove_others(folder: &Path, files: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, files)?;
        } else if !files.contains(&path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
