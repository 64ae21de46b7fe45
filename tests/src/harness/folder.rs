//! Folders of tests, and the data that they read.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::harness::tools::installed;

/// A folder of its own for one test, removed afterwards.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes an empty folder.
    ///
    /// # Panics
    /// If it cannot be made.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("syncline-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{} cannot be made: {error}", path.display()));
        Self(path)
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file into the folder.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("{} cannot be written: {error}", path.display()));
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "whoever looks into the failure wants to know")]
            {
                eprintln!("the files of the failed test are in {}", self.0.display());
            }
        } else {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }
}

/// Copies a folder of files and folders; what was at the target is removed.
///
/// # Panics
/// If something cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) {
    let copy = || -> std::io::Result<()> {
        if to.exists() {
            fs::remove_dir_all(to)?;
        }
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let target = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                copy_folder(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target)?;
            }
        }
        Ok(())
    };
    copy().unwrap_or_else(|error| panic!("{} cannot be copied to {}: {error}", from.display(), to.display()));
}

/// The text of movies.json of the package vega-datasets.
///
/// # Panics
/// If `./dev install` has not brought it.
pub fn movies() -> String {
    let path = installed("SYNCLINE_MOVIES", "vega-datasets-");
    let path = if path.is_dir() { path.join("movies.json") } else { path };
    fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{} cannot be read ({error}): run `./dev install`", path.display()))
}
