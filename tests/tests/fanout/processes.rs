//! Processes over a real database, which are restarted one after the other while a device watches.

use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use tests::harness::{Device, Folder, MariaDb, Redis, Server, Tunnel, migrate};

use crate::apps::WITHIN;

/// A process that ends with its value.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}

#[track_caller]
fn arrives(device: &Device, value: u32) {
    let deadline = Instant::now() + WITHIN;
    while device.run(&["get", "notes", "a"]).stdout.trim() != value.to_string() {
        assert!(Instant::now() < deadline, "{value} did not arrive");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_rolling_restart_fails_no_device_and_loses_no_wake_up() {
    let folder = Folder::new();
    let redis = Redis::start();
    let store = MariaDb::shared().database();
    let settings = format!("[store]\nurl = \"{store}\"\n[fanout]\nurl = \"{}\"\npoll_interval = \"1h\"\n", redis.url());
    let config = folder.write("syncline.toml", &settings);
    migrate(&config);
    let data = folder.path("data");
    let start = || Server::start_configured(&data, &config);
    let mut servers = [start(), start()];
    let token = servers[0].token("ada");
    // What stands in front of them leads a device to either.
    let tunnels = [0, 1].map(|at| Tunnel::to(servers[at].url()));
    let devices =
        [0, 1].map(|at: usize| Device::new(&folder, &format!("device{at}")).at(&tunnels[at].url()).with_token(&token));
    let _watching = devices.each_ref().map(|device| Watching(device.spawn(&["sync", "--watch"])));
    let mut writer = 0;
    let mut write = |server: &Server| {
        writer += 1;
        let device = Device::new(&folder, "writer").at(server.url()).with_token(&token);
        device.ok(&["put", "notes", "a", &writer.to_string()]);
        device.sync();
        writer
    };
    for round in 0..4 {
        let [at, other] = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        let value = write(&servers[at]);
        devices.iter().for_each(|device| arrives(device, value));
        // Its last word, and then it is gone; devices are led to the other one meanwhile.
        let value = write(&servers[at]);
        tunnels[at].move_to(servers[other].url());
        let stopping = std::mem::replace(&mut servers[at], start());
        stopping.stop();
        devices.iter().for_each(|device| arrives(device, value));
        let value = write(&servers[other]);
        devices.iter().for_each(|device| arrives(device, value));
        tunnels[at].move_to(servers[at].url());
        let value = write(&servers[at]);
        devices.iter().for_each(|device| arrives(device, value));
    }
    let log = servers[0].log();
    assert!(log.contains("tells the other servers what happens here") && !log.contains("\"ERROR\""), "{log}");
}
