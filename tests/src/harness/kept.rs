//! Programs that listen on a port of 127.0.0.1, and end with the value that holds them and with this process, however
//! that ends.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::Folder;

/// A program that runs.
#[derive(Debug)]
pub(super) struct Kept {
    /// A shell that kills the program when its input ends: also if this process is killed.
    keeper: Child,
    id: String,
}

/// Starts the program, says its process, and kills it when the input ends.
const KEEP: &str = "\"$0\" \"$@\" >&2 & echo $!; read -r _; kill -9 $!; wait";
/// How long a program may take until it answers.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// Ports that are tried: one that was free may be somebody else's when the program wants it.
const PORTS_MAX: usize = 5;

impl Kept {
    /// Starts a program in a folder, which has its log and temporary files.
    pub(super) fn start<S: AsRef<OsStr>>(folder: &Folder, program: impl AsRef<OsStr>, arguments: &[S]) -> Self {
        let log = File::options().create(true).append(true).open(folder.path(LOG)).expect("the log can be written");
        let mut command = Command::new("sh");
        command.args(["-c", KEEP]).arg(program).args(arguments).current_dir(folder.path(""));
        // A database that starts deletes what others have there.
        command.env("TMPDIR", folder.path("")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut keeper = command.spawn().expect("a shell starts");
        let mut id = String::new();
        let output = keeper.stdout.take().expect("the output is a pipe");
        BufReader::new(output).read_line(&mut id).expect("a process id");
        Self { keeper, id: id.trim().to_owned() }
    }

    /// Starts a program at a free port, and waits until it answers there.
    ///
    /// # Panics
    /// If it does not.
    pub(super) fn start_at_a_port(
        folder: &Folder,
        start: impl Fn(u16) -> Self,
        answers: impl Fn(u16) -> bool,
    ) -> (Self, u16) {
        for _ in 0..PORTS_MAX {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
            let port = listener.local_addr().expect("the port is known").port();
            drop(listener);
            let started = start(port);
            if started.comes_to_answer(|| answers(port)) {
                return (started, port);
            }
        }
        panic!("a program does not start: {}", std::fs::read_to_string(folder.path(LOG)).unwrap_or_default());
    }

    /// Waits until it answers. Not, if it ends or takes too long.
    pub(super) fn comes_to_answer(&self, answers: impl Fn() -> bool) -> bool {
        let until = Instant::now() + ANSWERS_WITHIN;
        while Instant::now() < until && self.runs() {
            if answers() {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Whether it has not ended.
    fn runs(&self) -> bool {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", self.id)).unwrap_or_default();
        state.rsplit_once(')').is_some_and(|(_, state)| !state.trim_start().starts_with('Z'))
    }

    /// Sends it a signal, such as `STOP`.
    ///
    /// # Panics
    /// If it has ended.
    pub(super) fn signal(&self, name: &str) {
        let signalled = Command::new("kill").args(["-s", name, &self.id]).status().expect("`kill` starts");
        assert!(signalled.success(), "the program was gone");
    }

    /// Kills it with `kill -9`. Nothing happens if it has ended.
    pub(super) fn kill(&mut self) {
        drop(self.keeper.stdin.take());
        let _ended = self.keeper.wait();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.kill();
    }
}

const LOG: &str = "program.log";
