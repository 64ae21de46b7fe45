//! What needs more than one crate: the simulator, and the harness of the end-to-end tests.

mod dice;
pub mod harness;
pub mod sim;
pub mod soak;
