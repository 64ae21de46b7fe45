//! The command line against a real server over real HTTP: one test for each promise of the issue.
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod copies;
mod crowds;
mod disks;
mod events;
mod faults;
mod groups;
mod growing;
mod hook;
mod hostile;
mod identities;
mod openapi;
mod operations;
mod pages;
mod policies;
mod real_data;
mod rest_page;
mod sign_in;

use tests::harness::{Device, Folder, Server};

/// A server, and devices that are signed in to it.
struct World {
    // Fields are dropped in this order: the server stops before its folder goes.
    server: Server,
    folder: Folder,
}

impl World {
    fn start() -> Self {
        let folder = Folder::new();
        Self { server: Server::start(&folder.path("data")), folder }
    }

    fn device(&self, user: &str, name: &str) -> Device {
        Device::new(&self.folder, name).at(self.server.url()).with_token(&self.server.token(user))
    }

    fn devices(&self) -> [Device; 2] {
        [self.device("ada", "phone"), self.device("ada", "tablet")]
    }
}

/// Fails with the first difference, because a whole export would not be read.
#[track_caller]
fn assert_same_lines(left: &str, right: &str) {
    if let Some((number, (left, right))) = left.lines().zip(right.lines()).enumerate().find(|(_, (l, r))| l != r) {
        panic!("line {} differs:\n{left}\n{right}", number + 1);
    }
    assert!(left == right, "{} lines against {}", left.lines().count(), right.lines().count());
}
