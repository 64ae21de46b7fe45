//! A Redis. Debian keeps it in the package of its tools, which starts no service; there it has another name, and is
//! itself by the name that it is called.

use std::env;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::harness::Folder;
use crate::harness::kept::Kept;

/// A Redis on 127.0.0.1 that keeps nothing. It ends with its value or with this process.
#[derive(Debug)]
pub struct Redis {
    server: Kept,
    options: Vec<String>,
    port: u16,
    // Dropped last.
    folder: Folder,
}

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
        let (server, port) = Kept::start_at_a_port(&folder, |port| launch(&folder, &options, port), answers);
        Self { server, options, port, folder }
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
        self.server.kill();
    }

    /// Starts it again at the same port.
    ///
    /// # Panics
    /// If it does not come again.
    pub fn start_again(&mut self) {
        self.server = launch(&self.folder, &self.options, self.port);
        assert!(self.server.comes_to_answer(|| answers(self.port)), "Redis does not come again");
    }

    /// Lets it stand still (`STOP`) or go on (`CONT`).
    ///
    /// # Panics
    /// If it has ended.
    pub fn signal(&self, name: &str) {
        self.server.signal(name);
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

fn launch(folder: &Folder, options: &[String], port: u16) -> Kept {
    let port = port.to_string();
    let mut arguments = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"].map(str::to_owned).to_vec();
    if !options.iter().any(|option| option == "PORT") {
        arguments.extend(["--port".to_owned(), port.clone()]);
    }
    arguments.extend(options.iter().map(|option| if option == "PORT" { &port } else { option }.clone()));
    Kept::start(folder, program(folder), &arguments)
}

fn answers(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}
