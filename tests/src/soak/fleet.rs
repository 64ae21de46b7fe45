//! The servers of a round, what they keep data in, and the ways to them.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::dice::Dice;
use crate::harness::{DynamoDb, Fault, Folder, MariaDb, Proxy, Server, Tunnel, migrate};
use crate::soak::StoreKind;

/// Servers over one store. While one of several is gone, the ways to it lead to another one.
pub(super) struct Fleet {
    members: Vec<Member>,
    data: PathBuf,
    config: PathBuf,
    // The servers end before it.
    database: Database,
}

/// What the servers need for their data, besides a folder.
enum Database {
    None,
    MariaDb(MariaDb),
    DynamoDb(DynamoDb),
}

struct Member {
    /// Nothing while it is being restarted.
    server: Option<Server>,
    proxy: Proxy,
    tunnel: Tunnel,
}

impl Fleet {
    pub(super) fn start(folder: &Folder, store: StoreKind, servers: usize, seed: u64) -> Self {
        let database = match store {
            StoreKind::Sqlite => Database::None,
            StoreKind::Mysql => Database::MariaDb(MariaDb::start()),
            StoreKind::Dynamodb => Database::DynamoDb(DynamoDb::start()),
        };
        let url = match &database {
            Database::None => String::new(),
            Database::MariaDb(server) => server.database(),
            Database::DynamoDb(emulator) => emulator.address(),
        };
        let config = folder.write("syncline.toml", &format!("[store]\nurl = \"{url}\"\n"));
        let data = folder.path("server");
        if !url.is_empty() {
            migrate(&config);
        }
        let member = |number: usize| {
            let server = Server::start_configured(&data, &config);
            let proxy = bad_network(server.url(), seed.wrapping_add(1_000 * number as u64));
            Member { proxy, tunnel: Tunnel::to(server.url()), server: Some(server) }
        };
        let members = (0..servers).map(member).collect();
        Self { members, data, config, database }
    }

    pub(super) fn token(&self, user: &str) -> String {
        self.server(0).token(user)
    }

    /// A way on which much is lost.
    pub(super) fn bad_way(&self, device: usize) -> String {
        self.member(device).proxy.url()
    }

    /// A way on which streams live as long as their server.
    pub(super) fn listening_way(&self, device: usize) -> String {
        self.member(device).tunnel.url()
    }

    /// The server itself.
    pub(super) fn good_way(&self, device: usize) -> &str {
        self.server(device).url()
    }

    pub(super) fn answered(&self) -> usize {
        self.members.iter().map(|member| member.proxy.answered()).sum()
    }

    /// Kills a server, or stops it, and starts it again.
    pub(super) fn restart_one(&mut self, dice: &mut Dice) {
        let at = dice.below(self.members.len());
        if self.members.len() > 1 {
            let other = self.server(at + 1).url().to_owned();
            self.members[at].lead_to(&other);
        }
        let server = self.members[at].server.take().expect("it was started");
        if self.members.len() > 1 && dice.below(2) == 0 {
            server.stop()
        } else {
            drop(server)
        }
        let server = Server::start_configured(&self.data, &self.config);
        self.members[at].lead_to(server.url());
        self.members[at].server = Some(server);
    }

    pub(super) fn kill_database(&mut self) {
        match &mut self.database {
            Database::MariaDb(server) => server.kill_and_start(),
            Database::None | Database::DynamoDb(_) => panic!("it has its data in a file of the servers or in memory"),
        }
    }

    fn member(&self, device: usize) -> &Member {
        &self.members[device % self.members.len()]
    }

    fn server(&self, device: usize) -> &Server {
        self.member(device).server.as_ref().expect("it was started")
    }
}

impl Member {
    fn lead_to(&self, url: &str) {
        self.proxy.lead_to(url);
        self.tunnel.move_to(url);
    }
}

/// Half of the answers arrive as they are.
fn bad_network(upstream: &str, seed: u64) -> Proxy {
    let mut dice = Dice::new(seed ^ 0x006e_6574);
    Proxy::start(upstream, move |_| match dice.below(10) {
        0 => Fault::Drop,
        1 => Fault::Truncate,
        2 | 3 => Fault::Repeat,
        4 => {
            thread::sleep(Duration::from_millis(dice.below(300) as u64));
            Fault::Pass
        }
        _ => Fault::Pass,
    })
}
