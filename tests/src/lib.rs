//! What needs more than one crate: the simulator, the rules that are broken under it, the targets of fuzzing, and the
//! harness of the end-to-end tests.

pub mod breaks;
mod dice;
pub mod fuzz;
pub mod harness;
pub mod sim;
pub mod soak;
