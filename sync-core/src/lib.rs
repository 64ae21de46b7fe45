//! The one brain of Syncline.
//!
//! This crate decides and never acts: it has no clock, no socket, no disk, no environment, no randomness, no threads
//! and no async. Time, random bytes and loaded state come in as arguments; a plan goes out, which a host executes in
//! one transaction of its own store. The one outer ring is the feature `device`: a SQLite store that executes plans.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod client;
pub mod conflict;
pub mod delta;
#[cfg(feature = "device")]
pub mod device;
pub mod merge;
pub mod model;
pub mod policy;
pub mod protocol;
#[cfg(feature = "vectors")]
pub mod vectors;
