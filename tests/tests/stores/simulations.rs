//! Scenarios of the simulator over a real store, which has to say the same as the memory store.

use std::sync::Arc;

use syncline_server::store::Store;
use tests::sim::{Mix, run_over};
use tokio::runtime::Runtime;

/// Runs as many seeds of each mix as are not about putting stores back, each over an empty store, which comes with what
/// must live as long as it.
#[track_caller]
pub(crate) fn go_as_over_the_memory_store<G>(
    runtime: &Runtime,
    seeds_of_each: usize,
    open: impl Fn() -> (Arc<dyn Store>, G),
) {
    let mixes = [Mix::Plain, Mix::Ledger, Mix::Deleted, Mix::DeviceRestored, Mix::Claimed];
    for (seed, mix) in (1..).zip(mixes.into_iter().cycle().take(seeds_of_each * mixes.len())) {
        let (store, _guard) = open();
        let report = run_over(store, runtime.handle(), seed, mix);
        assert_eq!(report.violation, None, "seed {seed}, {mix:?}");
        assert!(report.counts["writes"] >= 40, "little happened: {:?}", report.counts);
    }
}
