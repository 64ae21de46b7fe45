//! The native protocol, version 1: what devices and servers say to each other, and how it is encoded.
//!
//! Unknown fields are ignored and answers leave room for kinds that are not known yet, so old clients survive new
//! servers. Compression is the host's business.

pub mod codec;
mod columns;
pub mod messages;

pub use codec::{Format, InvalidMessage, decode, encode};
pub use messages::*;

/// The newest version that this core speaks. A server refuses clients older than it can serve with `UpgradeRequired`.
pub const PROTOCOL_VERSION: u32 = 1;
