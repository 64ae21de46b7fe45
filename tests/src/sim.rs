//! The simulator: the real core and the real service over the memory store, a network that loses, repeats and reorders,
//! and devices and servers that crash, are copied and are put back from backups. All of it follows from one seed.

mod app;
mod checks;
mod device;
mod history;
mod hook;
mod options;
mod server;
mod tokens;
mod trace;
mod world;

pub use options::{Mix, Options};
pub use trace::Trace;

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
    let options = Options::of_seed(seed, mix);
    let mut world = World::new(seed, options.clone());
    let violation = world.run().err();
    let trace = world.into_trace();
    let (fingerprint, counts, story) = trace.into_parts();
    Report { seed, options, violation, story, fingerprint, counts }
}
