//! The golden vectors of `tests/vectors`: the code does what the files say. `UPDATE_VECTORS=1` rewrites what they expect.

mod server;
mod stored;

use std::path::{Path, PathBuf};
use std::{env, fs};

use server::RealServer;
use stored::StoredHost;
use sync_core::vectors::{InvalidVector, MemoryHost, deltas, messages, policies, session, transcript, values};

#[test]
fn values_have_one_encoding() {
    check_file(&folder().join("values.json"), values);
}

#[test]
fn differences_are_made_and_applied_everywhere_alike() {
    check_file(&folder().join("deltas.json"), deltas);
}

#[test]
fn policies_decide_everywhere_alike() {
    check_file(&folder().join("policies.json"), policies);
}

#[test]
fn messages_have_two_encodings() {
    check_file(&folder().join("messages.json"), messages);
}

#[test]
fn sessions_ask_for_the_same_in_every_language() {
    check_folder("sessions", session);
}

/// The server's answers are expected too, so what each replay says must be the same.
#[test]
fn transcripts_hold_in_memory_and_in_device_files_with_a_server_and_without() {
    check_folder("transcripts", |text| transcript(text, &mut MemoryHost::default(), Some(&mut RealServer::new())));
    check_folder("transcripts", |text| transcript(text, &mut MemoryHost::default(), None));
    check_folder("transcripts", |text| transcript(text, &mut StoredHost::new(), None));
}

type Replay = fn(&str) -> Result<String, InvalidVector>;

fn check_folder(name: &str, replay: Replay) {
    let entries = fs::read_dir(folder().join(name)).expect("the folder can be read").flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    assert!(!files.is_empty(), "tests/vectors/{name} has no files");
    let problems: Vec<String> = files.iter().filter_map(|path| problem(path, replay)).collect();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn check_file(path: &Path, replay: Replay) {
    let problem = problem(path, replay);
    assert!(problem.is_none(), "\n{}\n", problem.unwrap_or_default());
}

/// What is wrong with a file, if anything is; or the file is rewritten.
fn problem(path: &Path, replay: Replay) -> Option<String> {
    let text = fs::read_to_string(path).expect("the file can be read");
    let name = path.strip_prefix(folder()).expect("a file of the folder").display();
    let now = match replay(&text) {
        Ok(now) => now,
        Err(error) => return Some(format!("{name}: {error}")),
    };
    if now == text {
        return None;
    }
    if env::var_os("UPDATE_VECTORS").is_some() && env::var_os("CI").is_none_or(|set| set.is_empty()) {
        fs::write(path, now).expect("the file can be written");
        return None;
    }
    let (at, (expected, found)) = text
        .lines()
        .zip(now.lines())
        .enumerate()
        .find(|(_, (expected, found))| expected != found)
        .unwrap_or((0, ("another number of lines", "")));
    Some(format!("{name}:{}\n  expected {expected}\n  found    {found}", at + 1))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}
