//! Issuers that are not ours: Cognito user pools as moto emulates them, and a certified OpenID provider.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::Value;

use crate::harness::tools::installed;

/// How long a program may take to say its next line, before it has failed.
const LINE_WITHIN: Duration = Duration::from_secs(60);

/// A running emulator of Cognito user pools on a free port of 127.0.0.1.
#[derive(Debug)]
pub struct UserPools {
    process: Child,
    url: String,
}

impl UserPools {
    /// Starts the emulator, with codes of authenticator apps checked.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start() -> Self {
        let mut command = Command::new(moto("moto_server"));
        command.args(["-H", "127.0.0.1", "-p", "0"]).env("MOTO_COGNITO_IDP_USER_POOL_ENABLE_TOTP", "true");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("moto_server starts");
        let lines = lines(process.stderr.take().expect("its errors are a pipe"));
        let url = loop {
            let line = next(&lines, "moto_server");
            if let Some(at) = line.find("http://127.0.0.1:") {
                break line[at..].split_whitespace().next().unwrap_or_default().to_owned();
            }
        };
        Self { process, url }
    }

    /// Makes a pool with users who sign in with a password and a code. `tests/sign_in/user_pool.py` says what it gives.
    ///
    /// # Panics
    /// If somebody cannot sign in.
    pub fn sign_in(&self) -> Value {
        let script = script("user_pool.py");
        let output = Command::new(moto("python")).arg(script).arg(&self.url).stderr(Stdio::inherit()).output();
        let output = output.expect("python starts");
        assert!(output.status.success(), "nobody could sign in");
        serde_json::from_slice(&output.stdout).expect("the script prints JSON")
    }
}

impl Drop for UserPools {
    fn drop(&mut self) {
        stop(&mut self.process);
    }
}

/// A running OpenID provider on a free port of 127.0.0.1.
#[derive(Debug)]
pub struct Provider {
    process: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    issuer: String,
    client: String,
    redirect: String,
}

impl Provider {
    /// Starts a provider.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start() -> Self {
        let package = installed("SYNCLINE_OIDC_PROVIDER", "oidc-provider-").join("node_modules/oidc-provider");
        let mut command = Command::new("node");
        command.arg(script("provider.mjs")).arg(package);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("node starts");
        let lines = lines(process.stdout.take().expect("the output is a pipe"));
        let line = loop {
            // It also prints warnings.
            let line = next(&lines, "the provider");
            if line.starts_with('{') {
                break line;
            }
        };
        let said: Value = serde_json::from_str(&line).expect("the provider prints JSON");
        let part = |name: &str| said[name].as_str().expect("the provider says it").to_owned();
        let input = process.stdin.take().expect("the input is a pipe");
        Self { issuer: part("issuer"), client: part("client"), redirect: part("redirect"), process, input, lines }
    }

    /// Its `iss`, which is where it is.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The app that users sign in to.
    pub fn client(&self) -> &str {
        &self.client
    }

    /// Signs users in by the authorization code flow with PKCE; gives their ID tokens.
    ///
    /// # Panics
    /// If somebody cannot sign in.
    pub fn sign_in<S: AsRef<str>>(&self, users: &[S]) -> Vec<String> {
        let mut command = Command::new("node");
        command.arg(script("sign_in.mjs")).args([&self.issuer, &self.client, &self.redirect]);
        command.args(users.iter().map(AsRef::as_ref)).stderr(Stdio::inherit());
        let output = command.output().expect("node starts");
        assert!(output.status.success(), "nobody could sign in");
        let tokens = String::from_utf8(output.stdout).expect("tokens are ASCII");
        tokens.lines().map(str::to_owned).collect()
    }

    /// From now on it signs with a new key, and still publishes the old ones.
    ///
    /// # Panics
    /// If it is gone.
    pub fn rotate(&mut self) {
        self.tell("rotate");
    }

    /// From now on it publishes its newest key only.
    ///
    /// # Panics
    /// If it is gone.
    pub fn retire(&mut self) {
        self.tell("retire");
    }

    fn tell(&mut self, what: &str) {
        writeln!(self.input, "{what}").expect("the provider reads");
        while next(&self.lines, "the provider") != "done" {}
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        stop(&mut self.process);
    }
}

fn moto(program: &str) -> std::path::PathBuf {
    installed("SYNCLINE_MOTO", "moto-").join("bin").join(program)
}

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sign_in").join(name)
}

/// What a program prints, line by line; it is read to its end, so that the program never waits.
fn lines(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _nobody_may_listen = sender.send(line);
        }
    });
    lines
}

fn next(lines: &Receiver<String>, program: &str) -> String {
    lines.recv_timeout(LINE_WITHIN).unwrap_or_else(|error| panic!("{program} says nothing: {error}"))
}

fn stop(process: &mut Child) {
    let _stopped = process.kill();
    let _ended = process.wait();
}
