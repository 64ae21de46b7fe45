//! The Syncline server: stores, use cases, sign-in and HTTP.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod auth;
pub mod clock;
pub mod error;
pub mod service;
pub mod store;
