//! What end-to-end tests are made of: the real binary, servers and devices in folders of their own, and a proxy that
//! loses answers. Everything that is started here is stopped when its value goes, also when a test panics.

mod binary;
mod device;
mod dynamodb;
mod dynamodb_faults;
mod events;
mod folder;
mod hardship;
mod http;
mod issuers;
mod kept;
mod mariadb;
mod proxy;
mod redis;
mod server;
mod tools;
mod tunnel;

pub use binary::{migrate, syncline};
pub use device::{Device, Exit, Outcome};
pub use dynamodb::DynamoDb;
pub use dynamodb_faults::{DynamoDbFault, DynamoDbProxy};
pub use events::Events;
pub use folder::{Folder, copy_folder, movies};
pub use hardship::{Hardship, ReadOnly, allow_open_files};
pub use http::http;
pub use issuers::{Provider, UserPools};
pub use mariadb::{MariaDb, sql};
pub use proxy::{Bytes, Fault, Proxy};
pub use redis::Redis;
pub use server::{CREDENTIALS, Server};
pub use tools::installed;
pub use tunnel::Tunnel;
