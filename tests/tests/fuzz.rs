//! What fuzzing has found is replayed: a small corpus for each target, and every input that once made it fail.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use tests::fuzz::{Counting, TARGETS};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A larger corpus belongs to the tools, not into the clone.
const FILES_MAX: usize = 100;
const FILE_BYTES_MAX: usize = 4_096;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[test]
fn every_target_holds_for_what_was_found() {
    let mut failed = Vec::new();
    for target in TARGETS {
        for kind in ["corpus", "crashes"] {
            let folder = folder(kind).join(target.name);
            for name in names(&folder) {
                let bytes = fs::read(folder.join(&name)).unwrap();
                if catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes))).is_err() {
                    failed.push(format!("tests/fuzz/{kind}/{}/{name}", target.name));
                }
            }
        }
    }
    assert!(failed.is_empty(), "the panics above are of these inputs: {failed:#?}");
}

#[test]
fn every_target_has_a_program_and_a_small_corpus() {
    let expected: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let programs: BTreeSet<_> = expected.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&folder("src/bin")), programs);
    assert_eq!(names(&folder("corpus")), expected);
    for name in expected {
        let folder = folder("corpus").join(name);
        let files = names(&folder);
        assert!(files.len() <= FILES_MAX, "{} has {} files", folder.display(), files.len());
        for file in files {
            assert!(fs::metadata(folder.join(&file)).unwrap().len() <= FILE_BYTES_MAX as u64, "{file} is long");
        }
    }
}
