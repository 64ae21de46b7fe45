//! Stores that other programs are part of: the conformance suite over each, and what is its own.
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod dynamodb;
mod mysql;
mod simulations;
