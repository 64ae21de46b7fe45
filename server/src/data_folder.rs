//! The folder that a server keeps everything in: private, and used by one server at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A folder that only its owner can read.
#[derive(Clone, Debug)]
pub struct DataFolder {
    path: PathBuf,
}

/// Keeps other servers, and `syncline fence`, off a data folder.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataFolderError {
    /// Another process has it.
    #[error("the data folder {} is in use by a running server", .0.display())]
    InUse(PathBuf),
    /// What is in it is half of a backup.
    #[error("a restore into the data folder {} was interrupted; run it again, with --replace", .0.display())]
    Unfinished(PathBuf),
    /// It cannot be read or written.
    #[error("the data folder {}: {source}", .path.display())]
    Unusable {
        /// Which folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// The file that is locked.
pub(crate) const LOCK: &str = "lock";
/// The file that is there while a backup is moved into the folder.
pub(crate) const UNFINISHED: &str = "restore-unfinished";
/// How the names of what is not complete end.
pub(crate) const DRAFT: &str = ".draft";

impl DataFolder {
    /// Makes the folder if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(path: &Path) -> Result<Self, DataFolderError> {
        let folder = Self { path: path.to_owned() };
        private_folder().recursive(true).create(path).map_err(|source| folder.unusable(source))?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a server could use a folder that may not be there yet; leaves nothing behind. Says whether it is there.
    ///
    /// # Errors
    /// If it could not.
    pub fn try_out(path: &Path) -> Result<bool, DataFolderError> {
        let folder = Self { path: path.to_owned() };
        let try_out = |path: &Path| {
            let draft = path.join(format!("check.{}{DRAFT}", std::process::id()));
            private().create_new(true).open(&draft).and_then(|_| fs::remove_file(&draft))
        };
        let there = path.try_exists().map_err(|source| folder.unusable(source))?;
        let existing = path.ancestors().find(|path| path.as_os_str().is_empty() || path.exists());
        let existing = existing.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        try_out(existing).map_err(|source| folder.unusable(source))?;
        Ok(there)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A file in the folder that only its owner can read. It is made, empty, if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn private_file(&self, name: &str) -> Result<PathBuf, DataFolderError> {
        let mut options = private();
        options.create(true).truncate(false);
        options.open(self.file(name)).map_err(|source| self.unusable(source))?;
        Ok(self.file(name))
    }

    /// The size of a database in the folder, with what is not in its file yet. Nothing: it cannot be told.
    pub fn bytes_of(&self, database: &str) -> Option<u64> {
        let bytes = |name: &str| fs::metadata(self.file(name)).map(|found| found.len());
        Some(bytes(database).ok()? + bytes(&format!("{database}-wal")).unwrap_or_default())
    }

    /// Takes the folder for this process alone, until the lock is dropped.
    ///
    /// # Errors
    /// If another process has it, or a restore into it was interrupted.
    pub fn lock(&self) -> Result<FolderLock, DataFolderError> {
        let lock = self.lock_to_restore()?;
        if self.file(UNFINISHED).exists() {
            return Err(DataFolderError::Unfinished(self.path.clone()));
        }
        Ok(lock)
    }

    /// The same for who puts a backup into it.
    ///
    /// # Errors
    /// If another process has it.
    pub fn lock_to_restore(&self) -> Result<FolderLock, DataFolderError> {
        let opened = private().open(self.private_file(LOCK)?);
        let file = opened.map_err(|source| self.unusable(source))?;
        match file.try_lock() {
            Ok(()) => Ok(FolderLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(DataFolderError::InUse(self.path.clone())),
            Err(TryLockError::Error(source)) => Err(self.unusable(source)),
        }
    }

    /// Reads a private file; makes it first if it is not there. Several processes that start at once get the same one.
    ///
    /// # Errors
    /// If it can be neither read nor made.
    pub fn read_or_create(&self, name: &str, content: impl FnOnce() -> String) -> Result<String, DataFolderError> {
        self.try_read_or_create(name, content).map_err(|source| self.unusable(source))
    }

    fn try_read_or_create(&self, name: &str, content: impl FnOnce() -> String) -> io::Result<String> {
        let file = self.file(name);
        match fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        let draft = self.file(&format!("{name}.{}.{:?}{DRAFT}", std::process::id(), std::thread::current().id()));
        let mut writer = private().create_new(true).open(&draft)?;
        let linked = writer
            .write_all(content().as_bytes())
            .and_then(|()| writer.sync_all())
            // Whole and never over another process's file, unlike a rename.
            .and_then(|()| fs::hard_link(&draft, &file));
        fs::remove_file(&draft)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => fs::read_to_string(&file),
        }
    }

    fn unusable(&self, source: io::Error) -> DataFolderError {
        DataFolderError::Unusable { path: self.path.clone(), source }
    }
}

/// Makes folders that only their owner can read.
pub(crate) fn private_folder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_private_and_has_one_user_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(&parent.path().join("a/b")).unwrap();
        let lock = folder.lock().unwrap();
        assert!(matches!(folder.lock(), Err(DataFolderError::InUse(_))));
        drop(lock);
        folder.lock().unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&parent.path().join("a/b")), 0o700);
            assert_eq!(mode(&folder.file("lock")), 0o600);
        }
    }

    #[test]
    fn threads_that_start_at_once_get_the_same_file() {
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(parent.path()).unwrap();
        let contents: Vec<String> = std::thread::scope(|scope| {
            let start = |at: usize| {
                let folder = &folder;
                scope.spawn(move || folder.read_or_create("key", || format!("key {at}")).unwrap())
            };
            let threads: Vec<_> = (0..8).map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(contents.iter().all(|content| *content == contents[0]), "{contents:?}");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}
