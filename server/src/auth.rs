//! Who calls, and what they may do.

pub mod dev_issuer;
pub mod identity;
pub mod jwks;
pub mod jwt;
pub mod policy;
pub mod rules;
pub mod setup;
pub mod token_error;
