//! The Syncline server: stores, use cases, sign-in and HTTP.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod auth;
pub mod backup;
pub mod causes;
pub mod checks;
pub mod cli;
pub mod clock;
pub mod config;
pub mod copy;
pub mod data_folder;
pub mod deps;
pub mod error;
pub mod fanout;
mod fingerprint;
mod hex;
pub mod hook;
pub mod http;
pub mod metrics;
pub mod open;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod trace;
