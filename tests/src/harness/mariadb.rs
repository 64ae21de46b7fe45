//! A database server: MariaDB as Debian packages it, or the one that `SYNCLINE_MYSQL` names.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::Folder;

/// A database server, on 127.0.0.1.
#[derive(Debug)]
pub struct MariaDb {
    /// `mysql://USER:PASSWORD@HOST:PORT`.
    url: String,
    started: Option<Started>,
}

/// What was started here, and ends with its value or with this process.
#[derive(Debug)]
struct Started {
    /// A shell that kills the server when its input ends: also if this process is killed.
    keeper: Child,
    server: String,
    // Dropped last.
    folder: Folder,
    port: u16,
}

/// How long a server may take until it answers.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// Ports that are tried: one that was free may be somebody else's when the server wants it.
const PORTS_MAX: usize = 5;
/// A small log, so that a new server is there quickly.
const LOG_SIZE: &str = "--innodb-log-file-size=32M";

impl MariaDb {
    /// One for all tests of this process; it ends with the process.
    ///
    /// # Panics
    /// If it does not start.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<MariaDb> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("SYNCLINE_MYSQL") {
            Ok(url) => Self { url: url.trim_end_matches('/').to_owned(), started: None },
            Err(_) => Self::start(),
        })
    }

    /// Starts one that may be killed.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start() -> Self {
        let folder = Folder::new();
        let data = folder.path("data");
        let mut command = Command::new("mariadb-install-db");
        command.args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        command.arg(LOG_SIZE).arg(format!("--datadir={}", data.display())).env("TMPDIR", folder.path(""));
        let output = command.output().expect("mariadb-install-db is there: run `./dev install`");
        assert!(output.status.success(), "no database: {}", String::from_utf8_lossy(&output.stderr));
        for _ in 0..PORTS_MAX {
            let port = free_port();
            let (mut keeper, server) = launch(&folder, port);
            if answers(port) {
                let url = format!("mysql://root@127.0.0.1:{port}");
                return Self { url, started: Some(Started { keeper, server, folder, port }) };
            }
            end(&mut keeper);
        }
        panic!("the database server does not start: {}", std::fs::read_to_string(log(&folder)).unwrap_or_default());
    }

    /// Makes a database, and says its address.
    ///
    /// # Panics
    /// If it is not made.
    pub fn database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let url = format!("{}/syncline_test_{}_{number}", self.url, std::process::id());
        let name = url.rsplit('/').next().unwrap_or_default();
        sql(&self.url, &format!("DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name}"));
        url
    }

    /// Kills it with `kill -9`, and starts it again over the same files.
    ///
    /// # Panics
    /// If it does not come again.
    pub fn kill_and_start(&mut self) {
        let started = self.started.as_mut().expect("only what was started here is killed");
        let killed = Command::new("kill").args(["-9", &started.server]).status().expect("`kill` starts");
        assert!(killed.success(), "the database server was gone");
        end(&mut started.keeper);
        (started.keeper, started.server) = launch(&started.folder, started.port);
        assert!(answers(started.port), "the database server does not come again");
    }
}

/// What a statement prints in a database, with tabs between columns.
///
/// # Panics
/// If it fails.
pub fn sql(url: &str, statement: &str) -> String {
    let place = url.strip_prefix("mysql://").expect("the address of a database");
    let (authority, name) = place.split_once('/').unwrap_or((place, ""));
    let (login, host) = authority.rsplit_once('@').expect("a user");
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (host, port) = host.rsplit_once(':').expect("a port");
    let mut command = Command::new("mariadb");
    command.args(["--no-defaults", "--batch", "--skip-column-names", "--raw", "--default-character-set=utf8mb4"]);
    command.args(["-h", host, "-P", port, "-u", user, "-e", statement]).arg(name).env("MYSQL_PWD", password);
    if name.is_empty() {
        command.args(["--database", "information_schema"]);
    }
    let output = command.output().expect("the client `mariadb` is there: run `./dev install`");
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("the port is known").port()
}

/// Starts a server, and says its process.
fn launch(folder: &Folder, port: u16) -> (Child, String) {
    let log = File::options().create(true).append(true).open(log(folder)).expect("the log can be written");
    let keep = "mariadbd \"$@\" >&2 & echo $!; read -r _; kill -9 $!; wait";
    let mut command = Command::new("sh");
    command.args(["-c", keep, "sh", "--no-defaults", "--user=root", "--bind-address=127.0.0.1", LOG_SIZE]);
    command.args(["--character-set-server=utf8mb4", "--max-allowed-packet=64M", "--max-connections=500"]);
    command.arg(format!("--datadir={}", folder.path("data").display())).arg(format!("--port={port}"));
    command.arg(format!("--socket={}", folder.path("socket").display()));
    // One that starts deletes what others have there.
    command.env("TMPDIR", folder.path(""));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    let mut keeper = command.spawn().expect("a shell starts");
    let mut server = String::new();
    BufReader::new(keeper.stdout.take().expect("the output is a pipe")).read_line(&mut server).expect("a process id");
    (keeper, server.trim().to_owned())
}

fn log(folder: &Folder) -> PathBuf {
    folder.path("mariadb.log")
}

/// Waits until a server answers there. Not, if it does not.
fn answers(port: u16) -> bool {
    let until = Instant::now() + ANSWERS_WITHIN;
    while Instant::now() < until {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "-h", "127.0.0.1", "-u", "root", "-e", "SELECT 1", "-P"]).arg(port.to_string());
        let output = command.output().expect("the client `mariadb` is there: run `./dev install`");
        if output.status.success() {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

/// Ends a keeper, and with it its server.
fn end(keeper: &mut Child) {
    drop(keeper.stdin.take());
    let _ended = keeper.wait();
}

impl Drop for Started {
    fn drop(&mut self) {
        end(&mut self.keeper);
    }
}
