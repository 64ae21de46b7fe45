//! The simulator: the real core and the real service over the memory store, a network that loses, repeats and reorders,
//! and devices and servers that crash, are copied and are put back from backups. All of it follows from one seed.

mod app;
mod checks;
mod device;
mod history;
mod hook;
mod mirror;
mod options;
mod server;
mod tokens;
mod trace;
mod world;

pub use options::{Mix, Options};
pub use trace::Trace;

use std::sync::Arc;

use mirror::Other;
use syncline_server::store::Store;
use tokio::runtime::Handle;
use world::World;

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What the seed chose.
    pub options: Options,
    /// What was wrong; nothing: all checks held.
    pub violation: Option<String>,
    /// What happened, in sentences.
    pub story: Vec<String>,
    /// A number that is the same for the same story.
    pub fingerprint: u64,
    /// How often what happened.
    pub counts: std::collections::BTreeMap<&'static str, u64>,
}

/// Runs one seed. `mix` overrides what the seed would choose.
pub fn run(seed: u64, mix: Option<Mix>) -> Report {
    play(seed, Options::of_seed(seed, mix), None)
}

/// Runs one seed, in which an empty store, whose futures need a runtime, is asked the same as the memory store.
///
/// # Panics
/// If it says something else. If the mix puts servers back from a backup, which a real store does in its own way.
pub fn run_over(store: Arc<dyn Store>, runtime: &Handle, seed: u64, mix: Mix) -> Report {
    assert!(mix != Mix::ServerRestored, "a store is not put back");
    play(seed, Options::of_seed(seed, Some(mix)), Some(Other { store, runtime: runtime.clone() }))
}

fn play(seed: u64, options: Options, other: Option<Other>) -> Report {
    let mut world = World::new(seed, options.clone(), other);
    let violation = world.run().err();
    let trace = world.into_trace();
    let (fingerprint, counts, story) = trace.into_parts();
    Report { seed, options, violation, story, fingerprint, counts }
}
