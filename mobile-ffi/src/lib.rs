//! The facade of Syncline for Kotlin and Swift. Empty until the mobile bindings arrive; it exists so that the
//! workspace keeps its shape and the core keeps compiling as a dependency of it.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub use sync_core::protocol::PROTOCOL_VERSION;
