//! The decisions: state in, plan out. Nothing in here reads or writes anything by itself.

pub mod claim;
pub mod freeze;
pub mod pull;
pub mod push;
pub mod rebase;
pub mod replica;
pub mod stack;
pub mod text;
pub mod write;
