//! A server process.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use syncline_server::auth::dev_issuer::DevIssuer;
use syncline_server::clock::{Clock as _, SystemClock, SystemRandom};
use syncline_server::data_folder::DataFolder;

use crate::harness::hardship::bound_files;
use crate::harness::{Hardship, syncline};

/// What emulators of AWS take: never those of whoever runs the tests.
pub const CREDENTIALS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];

/// A running `syncline serve --dev` over a data folder, on a free port of 127.0.0.1.
#[derive(Debug)]
pub struct Server {
    process: Child,
    url: String,
    data: PathBuf,
}

impl Server {
    /// Starts a server and waits until it listens.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &[], &Hardship::default())
    }

    /// Starts a server with a file of configuration.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_configured(data: &Path, config: &Path) -> Self {
        Self::start_with(data, &["--config", config.to_str().expect("a path in UTF-8")], &Hardship::default())
    }

    /// Starts a server that has to bear something.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_under(data: &Path, hardship: &Hardship) -> Self {
        Self::start_with(data, &[], hardship)
    }

    /// Starts a server that may fail to start; then what it has logged.
    ///
    /// # Errors
    /// What it has logged.
    pub fn try_start(data: &Path) -> Result<Self, String> {
        Self::launch(data, &[], &Hardship::default())
    }

    fn start_with(data: &Path, options: &[&str], hardship: &Hardship) -> Self {
        Self::launch(data, options, hardship).unwrap_or_else(|log| panic!("the server did not start: {log}"))
    }

    fn launch(data: &Path, options: &[&str], hardship: &Hardship) -> Result<Self, String> {
        let log = data.with_extension("log");
        let log_file = File::options().create(true).append(true).open(&log).expect("the log can be written");
        let mut command = hardship.command(syncline());
        command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data"]).arg(data).args(options);
        // Tests ask more often than a device does; those about rates say so in their configuration.
        let sets_rates = |file: &str| std::fs::read_to_string(file).is_ok_and(|text| text.contains("[rates]"));
        if !options.iter().any(|option| sets_rates(option)) {
            command.env("SYNCLINE__RATES__REQUESTS_PER_SECOND", "0");
        }
        command
            .envs(CREDENTIALS)
            .env_remove("SYNCLINE_DB")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file);
        let mut process = command.spawn().expect("the server starts");
        let mut output = BufReader::new(process.stdout.take().expect("the output is a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("the server prints UTF-8");
        let Some(url) =
            line.split_whitespace().find(|word| word.starts_with("http://") || word.starts_with("https://"))
        else {
            let _stopped = process.kill();
            let _ended = process.wait();
            return Err(std::fs::read_to_string(log).unwrap_or_default());
        };
        let url = url.trim_end_matches('/').to_owned();
        // Whatever else it prints is read, so that it never waits for a full pipe.
        std::thread::spawn(move || output.read_to_end(&mut Vec::new()));
        Ok(Self { process, url, data: data.to_owned() })
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it has logged so far, and those before it over the same folder.
    ///
    /// # Panics
    /// If the log cannot be read.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).expect("the log can be read")
    }

    /// A token of its dev issuer, good for an hour.
    ///
    /// # Panics
    /// If none is issued.
    pub fn token(&self, user: &str) -> String {
        self.token_for("--user", user, "1h")
    }

    /// A token of its dev issuer for a back-end job, good for an hour.
    ///
    /// # Panics
    /// If none is issued.
    pub fn service_token(&self, name: &str) -> String {
        self.token_for("--service", name, "1h")
    }

    /// A token that has already expired.
    ///
    /// # Panics
    /// If none is issued.
    pub fn expired_token(&self, user: &str) -> String {
        self.token_for("--user", user, "0s")
    }

    /// Tokens of several users.
    ///
    /// # Panics
    /// If none are issued.
    pub fn tokens(&self, users: impl IntoIterator<Item = String>) -> Vec<String> {
        let folder = DataFolder::open(&self.data).expect("the server's folder is there");
        let issuer = DevIssuer::open(&folder, &SystemRandom).expect("it has an issuer");
        let now = SystemClock.now();
        let token = |user: String| issuer.token(&user, now, now.plus_ms(3_600_000)).expect("it signs");
        users.into_iter().map(token).collect()
    }

    fn token_for(&self, whose: &str, name: &str, expires: &str) -> String {
        let mut command = Command::new(syncline());
        command.args(["token", whose, name, "--expires", expires, "--data"]).arg(&self.data);
        let output = command.output().expect("the binary starts");
        assert!(output.status.success(), "no token: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a token is ASCII").trim().to_owned()
    }

    /// The most memory that it has had so far, in bytes.
    ///
    /// # Panics
    /// If the system does not tell.
    pub fn memory_peak(&self) -> u64 {
        self.memory_of("VmHWM:")
    }

    fn memory_of(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let found = status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
        1024 * found.and_then(|found| found.parse::<u64>().ok()).expect("the system tells")
    }

    /// The memory that it has now, in bytes.
    ///
    /// # Panics
    /// If the system does not tell.
    pub fn memory(&self) -> u64 {
        self.memory_of("VmRSS:")
    }

    /// No file of its may become longer, or again as long as it likes.
    ///
    /// # Panics
    /// If it has ended.
    pub fn bound_files(&self, bytes: Option<u64>) {
        bound_files(self.process.id(), bytes);
    }

    /// Sends it a signal, such as `HUP`.
    ///
    /// # Panics
    /// If it has ended.
    pub fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        let signalled = Command::new("kill").args(["-s", name, &id]).status().expect("`kill` starts");
        assert!(signalled.success(), "the server was gone");
    }

    /// Stops it as an operator would, so that its data folder can be copied.
    ///
    /// # Panics
    /// If it does not stop cleanly.
    pub fn stop(mut self) {
        self.signal("TERM");
        let status = self.process.wait().expect("the server can be waited for");
        assert!(status.success(), "the server ended with {status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _stopped = self.process.kill();
        let _ended = self.process.wait();
    }
}
