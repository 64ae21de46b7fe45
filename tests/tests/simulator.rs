//! The simulator in every test run: seeds that failed once, some that are new each time the code changes, and the
//! promise that a seed always tells the same story.

use tests::sim::{Mix, run};

/// Seeds that failed while the rules were built, and what was wrong then.
const REGRESSIONS: [(u64, &str); 17] = [
    (29, "a claim put a guest's sealed group over an open one, which was then joined above it"),
    (157, "a retried group overwrote what others had written meanwhile, instead of being decided by policy"),
    (237, "after a restore a renewed base hid from the server that a field had never been seen"),
    (294, "a question about a later layer showed the server's value instead of the layer below"),
    (391, "the same, with the answer given late"),
    (491, "a claimed map brought fields of a group that had left"),
    (806, "a dataset deleted while a device pulled all of it anew took in what was pending from before"),
    (1406, "the same, after a deletion of its own that came too late"),
    (1447, "an answer to a question dropped what the app had written after it was shown"),
    (1993, "the same, under a transaction over two items"),
    (2794, "an acknowledgement in a pruned epoch was taken for a lost one, and pushed again for ever"),
    (3372, "the same, without a restore"),
    (3487, "an answer to a question dropped what the app had written after it was shown"),
    (3602, "groups over a first push stayed although the dataset had been deleted under it"),
    (3720, "an acknowledgement in a pruned epoch, on another device"),
    (3889, "a late answer to a question"),
    (5954, "groups over a first push stayed although the dataset had been deleted under it"),
];

/// Fresh seeds in each run; `./dev sim --runs N` runs as many as one likes.
const SEEDS: u64 = 1_200;

#[test]
fn seeds_that_failed_once_hold() {
    for (seed, was_wrong) in REGRESSIONS {
        let report = run(seed, None);
        assert_eq!(report.violation, None, "seed {seed}; once: {was_wrong}");
    }
}

#[test]
fn every_mix_of_faults_holds() {
    for seed in 0..SEEDS {
        let report = run(seed, None);
        assert_eq!(report.violation, None, "`./dev sim --seed {seed}` tells the story");
    }
}

#[test]
fn a_seed_always_tells_the_same_story() {
    for seed in 0..12 {
        assert_eq!(run(seed, None).story, run(seed, None).story, "seed {seed}");
    }
}

#[test]
fn every_mix_reaches_what_it_is_for() {
    for (mix, reached) in [
        (Mix::Ledger, "parked"),
        (Mix::Deleted, "deletions"),
        (Mix::Deleted, "deletions by others"),
        (Mix::ServerRestored, "server restores"),
        (Mix::ServerRestored, "bursts by others"),
        (Mix::DeviceRestored, "copies noticed"),
        (Mix::Claimed, "claims"),
    ] {
        let times: u64 = (0..60).map(|seed| run(seed, Some(mix)).counts.get(reached).copied().unwrap_or(0)).sum();
        assert!(times > 0, "the mix {} never came to: {reached}", mix.name());
    }
}
