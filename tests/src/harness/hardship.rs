//! Hardships of processes: a disk without room, files that cannot be written, few or many open files. They are real:
//! the operating system makes them, for the administrator as for everybody else.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a process has to bear.
#[derive(Clone, Debug, Default)]
pub struct Hardship(Vec<String>);

impl Hardship {
    /// No file of the process may become longer. What SQLite is told is what a quota tells it.
    pub fn files_up_to(bytes: u64) -> Self {
        // The limit comes with a signal that would end the process. A server that serves takes it, and does not end.
        let before = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh", "prlimit", &format!("--fsize={bytes}:")];
        Self(before.map(str::to_owned).to_vec())
    }

    /// Permissions count, also for the administrator.
    pub fn permissions_count() -> Self {
        let whose = output(Command::new("id").arg("-u")).stdout;
        let is_root = String::from_utf8_lossy(&whose).trim() == "0";
        let before: &[&str] = if is_root { &["setpriv", "--bounding-set=-dac_override,-dac_read_search"] } else { &[] };
        Self(before.iter().copied().map(str::to_owned).collect())
    }

    /// Begins a command that has to bear it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some((first, rest)) = self.0.split_first() else { return Command::new(program) };
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        command
    }
}

/// No file of a process may become longer from now on, or again as long as it likes.
pub(crate) fn bound_files(process: u32, bytes: Option<u64>) {
    let bound = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
    output(Command::new("prlimit").arg(format!("--pid={process}")).arg(format!("--fsize={bound}:")));
}

/// Lets this process have so many open files.
///
/// # Panics
/// If the system does not allow it.
pub fn allow_open_files(files: u64) {
    let limits = fs::read_to_string("/proc/self/limits").expect("the system tells the limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("it tells this one");
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [soft, hard] = numbers[..] else { return }; // A limit that is no number is none.
    assert!(hard >= files, "this test needs {files} open files, and the system allows {hard}: raise `ulimit -Hn`");
    if soft < files {
        output(Command::new("prlimit").arg(format!("--pid={}", std::process::id())).arg(format!("--nofile={hard}:")));
    }
}

/// A folder or file that nobody may write, until this is dropped, with all that is in it.
#[derive(Debug)]
pub struct ReadOnly(Vec<(PathBuf, Permissions)>);

impl ReadOnly {
    /// Takes the permission to write away.
    ///
    /// # Panics
    /// If it is not ours to take.
    pub fn make(path: &Path) -> Self {
        let mut before = Vec::new();
        let mut left = vec![path.to_owned()];
        while let Some(path) = left.pop() {
            let permissions = fs::metadata(&path).expect("it is there").permissions();
            if path.is_dir() {
                left.extend(fs::read_dir(&path).expect("it can be read").map(|entry| entry.expect("it can").path()));
            }
            let mode = permissions.mode();
            fs::set_permissions(&path, Permissions::from_mode(mode & !0o222)).expect("it is ours");
            before.push((path, permissions));
        }
        Self(before)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        for (path, permissions) in self.0.drain(..) {
            let _gone = fs::set_permissions(path, permissions);
        }
    }
}

fn output(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
