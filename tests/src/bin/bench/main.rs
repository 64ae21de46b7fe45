//! `./dev bench`: figures beside the limit of what is below them, measured in the same run.
//!
//! Each figure is measured several times, in turn with its limit, and the median of both is told. The machine is
//! noisy: the ratio is what counts.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program for people")]

mod data;
mod device;
mod dynamodb;
mod million;
mod mysql;
mod plan;
mod pulls;
mod pushes;
mod reads;
mod report;
mod streams;
mod wire;

use clap::Parser;

use report::Report;

/// Measures what Syncline costs beside what is below it.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Only figures of these groups: put, plan, push, mysql, dynamodb, pull, wire, million,
    /// read, streams.
    groups: Vec<String>,
    /// Of pushes, only figures whose names contain this, such as "64 devices push 100".
    #[arg(long)]
    only: Option<String>,
    /// Write all figures to this file as well, as JSON.
    #[arg(long)]
    json: Option<std::path::PathBuf>,
}

/// Measures the figures of a group.
type Measure = fn(&mut Report);

const GROUPS: [(&str, Measure); 10] = [
    ("put", device::measure),
    ("plan", plan::measure),
    ("push", pushes::measure),
    ("mysql", mysql::measure),
    ("dynamodb", dynamodb::measure),
    ("pull", pulls::measure),
    ("wire", wire::measure),
    ("million", million::measure),
    ("read", reads::measure),
    ("streams", streams::measure),
];

fn main() {
    let Arguments { groups, only, json } = Arguments::parse();
    let mut report = Report::only(only);
    for (name, measure) in GROUPS {
        if groups.is_empty() || groups.iter().any(|group| group == name) {
            measure(&mut report);
        }
    }
    println!("\n{report}");
    if let Some(file) = json {
        std::fs::write(&file, report.to_json().to_string())
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}
