//! A device: a file, and calls of the command line on it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use serde_json::Value;

use crate::harness::{Folder, Hardship, syncline};

/// The exit codes that `syncline device --help` promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Exit {
    Success = 0,
    Failure = 1,
    Usage = 2,
    Unresolved = 3,
    Rejected = 4,
    Offline = 5,
    NotSignedIn = 6,
    NotFound = 7,
}

/// How a call ended and what it printed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The output.
    pub stdout: String,
    /// Errors.
    pub stderr: String,
}

/// A device's file, with the server and the token that calls on it name.
#[derive(Clone, Debug)]
pub struct Device {
    db: PathBuf,
    server: Option<String>,
    token: Option<Token>,
    trusts: Option<PathBuf>,
    hardship: Hardship,
}

#[derive(Clone, Debug)]
enum Token {
    Text(String),
    File(PathBuf),
}

impl Device {
    /// A device that has never seen a server.
    pub fn new(folder: &Folder, name: &str) -> Self {
        let db = folder.path(&format!("{name}.db"));
        Self { db, server: None, token: None, trusts: None, hardship: Hardship::default() }
    }

    /// The same file, with a server's address.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        Self { server: Some(url.to_owned()), ..self.clone() }
    }

    /// The same file, with a token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(Token::Text(token.to_owned())), ..self.clone() }
    }

    /// The same file, with a token that is read from a file.
    #[must_use]
    pub fn with_token_file(&self, file: &Path) -> Self {
        Self { token: Some(Token::File(file.to_owned())), ..self.clone() }
    }

    /// The same file, on a system that trusts one certificate and no other.
    #[must_use]
    pub fn trusting(&self, certificate: &Path) -> Self {
        Self { trusts: Some(certificate.to_owned()), ..self.clone() }
    }

    /// The same file, used by processes that have to bear something.
    #[must_use]
    pub fn under(&self, hardship: &Hardship) -> Self {
        Self { hardship: hardship.clone(), ..self.clone() }
    }

    /// A byte for byte copy of the file, as somebody makes who moves to a new phone.
    ///
    /// # Panics
    /// If the file cannot be copied.
    #[must_use]
    pub fn copy(&self, folder: &Folder, name: &str) -> Self {
        let copy = Self { db: folder.path(&format!("{name}.db")), ..self.clone() };
        for ending in ["", "-wal", "-shm"] {
            let (from, to) = (with_ending(&self.db, ending), with_ending(&copy.db, ending));
            if ending.is_empty() || from.exists() {
                fs::copy(&from, &to).unwrap_or_else(|error| panic!("{} is not copied: {error}", from.display()));
            }
        }
        copy
    }

    /// Where its file is.
    pub fn file(&self) -> &Path {
        &self.db
    }

    /// Calls a command.
    ///
    /// # Panics
    /// If the binary does not start.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        self.run_with_input(arguments, "")
    }

    /// Calls a command that reads its standard input.
    ///
    /// # Panics
    /// If the binary does not start.
    pub fn run_with_input(&self, arguments: &[&str], input: &str) -> Outcome {
        outcome(&self.spawn_with_input(arguments, input).wait_with_output().expect("the process can be waited for"))
    }

    /// Starts a command that reads its standard input, without waiting for its end.
    ///
    /// # Panics
    /// If the binary does not start.
    pub fn spawn_with_input(&self, arguments: &[&str], input: &str) -> Child {
        let mut process = self.spawn(arguments);
        let mut pipe = process.stdin.take().expect("the input is a pipe");
        // A command that fails early does not read on.
        let _read_or_not = pipe.write_all(input.as_bytes());
        process
    }

    /// Starts a command without waiting for its end.
    ///
    /// # Panics
    /// If the binary does not start.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.hardship.command(syncline());
        command.args(["device", "--db"]).arg(&self.db).args(arguments);
        for name in ["SYNCLINE_DB", "SYNCLINE_SERVER", "SYNCLINE_TOKEN"] {
            command.env_remove(name);
        }
        if let Some(server) = &self.server {
            command.env("SYNCLINE_SERVER", server);
        }
        match &self.token {
            Some(Token::Text(token)) => drop(command.env("SYNCLINE_TOKEN", token)),
            Some(Token::File(file)) => drop(command.arg("--token-file").arg(file)),
            None => {}
        }
        if let Some(certificate) = &self.trusts {
            command.env("SSL_CERT_FILE", certificate).env_remove("SSL_CERT_DIR");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the binary starts")
    }

    /// Calls a command that succeeds; gives its output.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.ends(Exit::Success, arguments).stdout
    }

    /// Calls a command that succeeds and prints JSON.
    ///
    /// # Panics
    /// If it fails, or prints something else.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&output).unwrap_or_else(|error| panic!("{arguments:?} printed {output:?}: {error}"))
    }

    /// Calls a command that ends with this code.
    ///
    /// # Panics
    /// If it ends with another.
    #[track_caller]
    pub fn ends(&self, exit: Exit, arguments: &[&str]) -> Outcome {
        check(self.run(arguments), exit, arguments)
    }

    /// Calls a command that reads its standard input and succeeds.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn ok_with_input(&self, arguments: &[&str], input: &str) -> String {
        check(self.run_with_input(arguments, input), Exit::Success, arguments).stdout
    }

    /// Syncs everything; all is well afterwards.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn sync(&self) -> Value {
        self.json(&["sync"])
    }

    /// The value of a record.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn value(&self, dataset: &str, key: &str) -> Value {
        let output = self.ok(&["get", dataset, key]);
        serde_json::from_str(&output).unwrap_or_else(|error| panic!("{key} is {output:?}: {error}"))
    }

    /// What lost, newest last: pairs of key and value (null: a removal), entry by entry.
    ///
    /// # Panics
    /// If the log cannot be listed.
    #[track_caller]
    pub fn losses(&self, dataset: &str) -> Vec<(String, Value)> {
        let entries = self.json(&["conflicts", dataset]);
        let losses = list(&entries).iter().flat_map(|entry| list(&entry["losses"]));
        losses.map(|loss| (text(&loss["key"]).to_owned(), loss["value"].clone())).collect()
    }
}

/// The elements of a JSON array.
///
/// # Panics
/// If it is none.
#[track_caller]
pub(crate) fn list(json: &Value) -> &Vec<Value> {
    json.as_array().unwrap_or_else(|| panic!("{json} is no array"))
}

/// A JSON string.
///
/// # Panics
/// If it is none.
#[track_caller]
pub(crate) fn text(json: &Value) -> &str {
    json.as_str().unwrap_or_else(|| panic!("{json} is no text"))
}

#[track_caller]
fn check(outcome: Outcome, exit: Exit, arguments: &[&str]) -> Outcome {
    let Outcome { code, stdout, stderr } = &outcome;
    assert_eq!(*code, Some(exit as i32), "{arguments:?} ended otherwise\nstdout: {stdout}\nstderr: {stderr}");
    outcome
}

fn outcome(output: &Output) -> Outcome {
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
