//! Decisions of the core, as tables and as properties: what a server makes of a push, and a device of writes and pulls.
#![expect(clippy::unwrap_used, reason = "these are tests")]

mod arbitrary;
mod codec;
mod columns;
mod convergence;
mod copies;
mod deltas;
mod device;
mod freeze;
mod lines;
mod notation;
mod pull;
mod push;
mod rebase;
mod server;
mod wire;
mod write;
