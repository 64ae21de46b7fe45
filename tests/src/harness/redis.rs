//! A Redis. Debian keeps it in the package of its tools, which starts no service; there it has another name, and is
//! itself by the name that it is called.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use crate::harness::Folder;

/// A Redis on 127.0.0.1 that keeps nothing. It ends with its value or with this process.
#[derive(Debug)]
pub struct Redis {
    /// A shell that kills the server when its input ends: also if this process is killed.
    keeper: Child,
    options: Vec<String>,
    port: u16,
    // Dropped last.
    folder: Folder,
}

/// How long a server may take until it answers.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// Ports that are tried: one that was free may be somebody else's when the server wants it.
const PORTS_MAX: usize = 5;
const PROGRAM: &str = "redis-check-rdb";

impl Redis {
    /// Starts one.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with options of its command line; where they have `PORT`, it takes that.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_with(options: &[&str]) -> Self {
        let folder = Folder::new();
        let path = env::var_os("PATH").unwrap_or_default();
        let found = env::split_paths(&path).map(|folder| folder.join(PROGRAM)).find(|program| program.is_file());
        let found = found.unwrap_or_else(|| panic!("{PROGRAM} is missing: run `./dev install`"));
        symlink(found, program(&folder)).expect("a link can be made");
        let options: Vec<String> = options.iter().copied().map(str::to_owned).collect();
        for _ in 0..PORTS_MAX {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
            let port = listener.local_addr().expect("the port is known").port();
            drop(listener);
            let mut keeper = launch(&folder, &options, port);
            if answers(&mut keeper, port) {
                return Self { keeper, options, port, folder };
            }
            end(&mut keeper);
        }
        panic!("Redis does not start: {}", fs::read_to_string(log(&folder)).unwrap_or_default());
    }

    /// Its port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it with `kill -9`.
    pub fn kill(&mut self) {
        end(&mut self.keeper);
    }

    /// Starts it again at the same port.
    ///
    /// # Panics
    /// If it does not come again.
    pub fn start_again(&mut self) {
        self.keeper = launch(&self.folder, &self.options, self.port);
        assert!(answers(&mut self.keeper, self.port), "Redis does not come again");
    }

    /// Lets it stand still (`STOP`) or go on (`CONT`).
    ///
    /// # Panics
    /// If it has ended.
    pub fn signal(&self, name: &str) {
        let id = fs::read_to_string(self.folder.path("redis.pid")).expect("it says its process");
        let signalled = Command::new("kill").args(["-s", name, id.trim()]).status().expect("`kill` starts");
        assert!(signalled.success(), "Redis was gone");
    }

    /// Has it do something, and gives what it answers.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn command(&self, words: &[&[u8]]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            command.extend_from_slice(word);
            command.extend_from_slice(b"\r\n");
        }
        stream.write_all(&command).expect("it takes a command");
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer).expect("it answers");
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }
}

fn program(folder: &Folder) -> PathBuf {
    folder.path("redis-server")
}

fn log(folder: &Folder) -> PathBuf {
    folder.path("redis.log")
}

fn launch(folder: &Folder, options: &[String], port: u16) -> Child {
    let log = File::options().create(true).append(true).open(log(folder)).expect("the log can be written");
    let keep = "\"$0\" \"$@\" >&2 & echo $! > redis.pid; read -r _; kill -9 $!; wait";
    let mut command = Command::new("sh");
    command.args(["-c", keep]).arg(program(folder)).args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    let port = port.to_string();
    if !options.iter().any(|option| option == "PORT") {
        command.args(["--port", &port]);
    }
    command.args(options.iter().map(|option| if option == "PORT" { &port } else { option }));
    command.current_dir(folder.path("")).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("a shell starts")
}

/// Waits until a server answers there. Not, if it does not.
fn answers(keeper: &mut Child, port: u16) -> bool {
    let until = Instant::now() + ANSWERS_WITHIN;
    while Instant::now() < until && !matches!(keeper.try_wait(), Ok(Some(_))) {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

/// Ends a keeper, and with it its server.
fn end(keeper: &mut Child) {
    drop(keeper.stdin.take());
    let _ended = keeper.wait();
}

impl Drop for Redis {
    fn drop(&mut self) {
        end(&mut self.keeper);
    }
}
