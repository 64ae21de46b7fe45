//! A database server: MariaDB as Debian packages it, or the one that `SYNCLINE_MYSQL` names.

use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::harness::Folder;
use crate::harness::kept::Kept;

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
    server: Kept,
    port: u16,
    // Dropped last.
    folder: Folder,
}

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
        let (server, port) = Kept::start_at_a_port(&folder, |port| launch(&folder, port), answers);
        let url = format!("mysql://root@127.0.0.1:{port}");
        Self { url, started: Some(Started { server, port, folder }) }
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
        started.server.kill();
        started.server = launch(&started.folder, started.port);
        assert!(started.server.comes_to_answer(|| answers(started.port)), "the database server does not come again");
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

fn launch(folder: &Folder, port: u16) -> Kept {
    let own = |name: &str, path: &str| format!("--{name}={}", folder.path(path).display());
    let fixed = ["--no-defaults", "--user=root", "--bind-address=127.0.0.1", LOG_SIZE];
    let sizes = ["--character-set-server=utf8mb4", "--max-allowed-packet=64M", "--max-connections=500"];
    let places = [own("datadir", "data"), own("socket", "socket"), format!("--port={port}")];
    let arguments: Vec<String> = fixed.into_iter().chain(sizes).map(str::to_owned).chain(places).collect();
    Kept::start(folder, "mariadbd", &arguments)
}

fn answers(port: u16) -> bool {
    let mut command = Command::new("mariadb");
    command.args(["--no-defaults", "-h", "127.0.0.1", "-u", "root", "-e", "SELECT 1", "-P"]).arg(port.to_string());
    let output = command.output().expect("the client `mariadb` is there: run `./dev install`");
    output.status.success()
}
