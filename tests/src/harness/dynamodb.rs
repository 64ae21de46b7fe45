//! DynamoDB, as dynoxide emulates it.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Builder, Credentials, Region};
use syncline_server::metrics::StoreUnits;
use syncline_server::store::dynamodb::DynamoDbStore;

use crate::harness::installed;

/// A running emulator on a free port of 127.0.0.1, with everything in memory. It ends with this value, and with the
/// process that started it.
#[derive(Debug)]
pub struct DynamoDb {
    process: Child,
    port: u16,
}

/// The table that tests use.
const TABLE: &str = "syncline-test";
/// Starts the program, and ends it when the input ends: when it is closed, or whoever holds it is killed.
const SCRIPT: &str = r#""$0" serve --host 127.0.0.1 --port "$1" --log quiet & cat; kill $!; wait $!"#;
/// How long it may take until it listens.
const START_MAX: Duration = Duration::from_secs(20);

impl DynamoDb {
    /// Starts an emulator.
    ///
    /// # Panics
    /// If it is missing or does not start.
    pub fn start() -> Self {
        let program = installed("SYNCLINE_DYNAMODB", "dynoxide-rs-").join("bin/dynoxide");
        // Whoever is faster takes a free port away; then there is another one.
        for _ in 0..5 {
            let port =
                TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port is free").port();
            let mut command = Command::new("sh");
            command.args(["-c", SCRIPT]).arg(&program).arg(port.to_string());
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut started = Self { process: command.spawn().expect("a shell starts"), port };
            let began = Instant::now();
            while began.elapsed() < START_MAX && started.process.try_wait().is_ok_and(|ended| ended.is_none()) {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return started;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        panic!("{} does not start", program.display());
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The table that tests use, as an address for servers.
    pub fn address(&self) -> String {
        format!("dynamodb://{TABLE}?region=eu-central-1&endpoint={}", self.url())
    }

    /// A client, of it or of a proxy in front of it.
    pub fn client(url: &str) -> Client {
        let config = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
            .endpoint_url(url);
        Client::from_conf(DynamoDbStore::configured(config).build())
    }

    /// Makes the table, and opens a store on it.
    ///
    /// # Panics
    /// If that fails.
    pub async fn store(&self) -> DynamoDbStore {
        let migrated = DynamoDbStore::migrate_with(Self::client(&self.url()), TABLE).await;
        migrated.expect("the table is made");
        Self::store_at(&self.url(), StoreUnits::default()).await
    }

    /// Another store on the table, for instance by way of a proxy.
    ///
    /// # Panics
    /// If that fails.
    pub async fn store_at(url: &str, units: StoreUnits) -> DynamoDbStore {
        DynamoDbStore::open_with(Self::client(url), TABLE, units).await.expect("the table is there")
    }

    /// The name of the table.
    pub const fn table(&self) -> &'static str {
        TABLE
    }
}

impl Drop for DynamoDb {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ended = self.process.wait();
    }
}
