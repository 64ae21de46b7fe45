//! DynamoDB, as dynoxide emulates it.

use std::net::TcpStream;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Builder, Credentials, Region};
use syncline_server::metrics::StoreUnits;
use syncline_server::store::dynamodb::DynamoDbStore;

use crate::harness::kept::Kept;
use crate::harness::{Folder, installed};

/// A running emulator on a free port of 127.0.0.1, with everything in memory. It ends with this value, and with the
/// process that started it.
#[derive(Debug)]
pub struct DynamoDb {
    _emulator: Kept,
    port: u16,
    // Dropped last.
    _folder: Folder,
}

/// The table that tests use.
const TABLE: &str = "syncline-test";
impl DynamoDb {
    /// Starts an emulator.
    ///
    /// # Panics
    /// If it is missing or does not start.
    pub fn start() -> Self {
        let program = installed("SYNCLINE_DYNAMODB", "dynoxide-rs-").join("bin/dynoxide");
        let folder = Folder::new();
        let serve = |port: u16| {
            let port = port.to_string();
            Kept::start(&folder, &program, &["serve", "--host", "127.0.0.1", "--port", &port, "--log", "quiet"])
        };
        let answers = |port| TcpStream::connect(("127.0.0.1", port)).is_ok();
        let (emulator, port) = Kept::start_at_a_port(&folder, serve, answers);
        Self { _emulator: emulator, port, _folder: folder }
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
