//! A device's side of the conversation: what it asks for, what it makes of the answers, and when it tries again.

pub mod backoff;
pub mod events;
pub mod exchange;
pub mod memory;
pub mod session;
pub mod watch;
