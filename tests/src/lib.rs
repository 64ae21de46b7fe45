//! What needs more than one crate: the simulator, the rules that are broken under it, and the harness of the end-to-end
//! tests.

pub mod breaks;
mod dice;
pub mod harness;
pub mod sim;
pub mod soak;
