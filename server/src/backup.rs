//! Backups: copies of a data folder that are whole or not there, and putting them back.
//!
//! A backup is a folder with the same files as a data folder. What is copied is at rest afterwards, so a backup may be
//! moved and packed as one likes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::data_folder::{DRAFT, DataFolder, DataFolderError, LOCK, UNFINISHED, private_folder};
use crate::store::StoreError;

/// Copy the data folder while the server goes on
///
/// DIR becomes a folder with everything that was acknowledged before the backup began: the database as it is at one
/// moment, checked, and the other files. It is there when all of it is, and only its owner can read it. It must not be
/// there before, or be empty.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = BACKUP_HELP)]
pub struct BackupArgs {
    /// The backup to be made
    #[arg(value_name = "DIR")]
    pub target: PathBuf,
    /// The data folder [default: syncline-data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Put a backup back into a data folder
///
/// The server must be stopped. The backup is copied and checked, and all its datasets are fenced as `syncline fence`
/// does it: devices find out what the server lost and keep what they know of it. Run it as the user that the server
/// runs as, who must be able to read the files.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = RESTORE_HELP)]
pub struct RestoreArgs {
    /// The backup
    #[arg(value_name = "DIR")]
    pub backup: PathBuf,
    /// The data folder to be filled
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Move what is in the data folder aside, into `replaced-1` in the folder. Without it, the folder must be empty
    #[arg(long)]
    pub replace: bool,
    /// The backup is put back to undo what came after it: devices do not offer that again
    #[arg(long)]
    pub discard: bool,
}

/// Why there is no backup, or why it is not put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It is something else.
    #[error("there is no database in {}", .0.display())]
    NoDatabase(PathBuf),
    /// A backup goes over nothing.
    #[error("{} is there already, and is not an empty folder", .0.display())]
    Occupied(PathBuf),
    /// A backup that is part of what it is a backup of.
    #[error("{} is in the data folder; a backup goes elsewhere", .0.display())]
    Inside(PathBuf),
    /// A restore goes over nothing, unless it is told so.
    #[error("there are data in {}; with --replace they are moved aside", .0.display())]
    HoldsData(PathBuf),
    /// The data folder cannot be used.
    #[error(transparent)]
    Folder(#[from] DataFolderError),
    /// A database cannot be copied.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be read or written.
    #[error("{}", .path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

impl BackupError {
    /// Whether the command asked for what cannot be, rather than that something failed.
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::NoDatabase(_) | Self::Occupied(_) | Self::Inside(_) | Self::HoldsData(_))
    }
}

/// A folder that is removed unless it is kept.
struct Draft {
    folder: DataFolder,
    kept: bool,
}

const BACKUP_HELP: &str = "\
Every night, in a folder named after the day:
  syncline backup --data /var/lib/syncline /var/backups/syncline-$(date +%F)";

const RESTORE_HELP: &str = "\
After a disk was lost:
  syncline restore --data /var/lib/syncline /var/backups/syncline-2026-11-25
To undo what happened since the backup, on all devices too:
  syncline restore --data /var/lib/syncline --replace --discard /var/backups/syncline-2026-11-25";

/// How files end that are databases.
const DATABASES: &str = ".db";
/// How files end that belong to a database in use.
const BESIDE_DATABASES: [&str; 3] = ["-wal", "-shm", "-journal"];
/// How names of folders begin to which data were moved aside.
const REPLACED: &str = "replaced-";

/// Makes a backup of a data folder that has this database. `copy_database` copies one that is in use to an empty file.
/// Says how many bytes the backup has.
///
/// # Errors
/// If there is no backup now.
pub fn back_up(
    source: &Path,
    target: &Path,
    database: &str,
    copy_database: impl Fn(&Path, &Path) -> Result<(), StoreError>,
) -> Result<u64, BackupError> {
    if !source.join(database).is_file() {
        return Err(BackupError::NoDatabase(source.to_owned()));
    }
    if target.exists() && !(target.is_dir() && entries(target)?.is_empty()) {
        return Err(BackupError::Occupied(target.to_owned()));
    }
    let parent = target.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(parent).map_err(|source| unusable(parent, source))?;
    let real = |path: &Path| path.canonicalize().map_err(|source| unusable(path, source));
    if real(parent)?.starts_with(real(source)?) {
        return Err(BackupError::Inside(target.to_owned()));
    }
    let mut draft_name = target.file_name().unwrap_or_default().to_owned();
    draft_name.push(format!(".{}{DRAFT}", std::process::id()));
    let mut draft = Draft::make(&parent.join(draft_name))?;
    let mut bytes = 0;
    for name in entries(source)? {
        let file = source.join(&name);
        if !file.is_file() || is_passing(&name) || BESIDE_DATABASES.iter().any(|ending| name.ends_with(ending)) {
            continue;
        }
        let copy = draft.folder.private_file(&name)?;
        if name.ends_with(DATABASES) {
            copy_database(&file, &copy)?;
        } else {
            copy_file(&file, &copy)?;
        }
        bytes += sync(&copy)?;
    }
    sync(draft.folder.path())?;
    fs::rename(draft.folder.path(), target).map_err(|source| unusable(target, source))?;
    draft.kept = true;
    sync(parent)?;
    Ok(bytes)
}

/// Puts a backup into a data folder. `prepare` checks and fences a copy of it, before anything in the folder is touched.
/// Says what `prepare` said, and where to the data that were there have gone.
///
/// # Errors
/// If the backup is not put back: then the folder is as it was, or no server starts on it.
pub fn restore<T, E: From<BackupError>>(
    backup: &Path,
    folder: &DataFolder,
    database: &str,
    replace: bool,
    prepare: impl FnOnce(&DataFolder) -> Result<T, E>,
) -> Result<(T, Option<PathBuf>), E> {
    if !backup.join(database).is_file() {
        return Err(BackupError::NoDatabase(backup.to_owned()).into());
    }
    let _lock = folder.lock_to_restore().map_err(BackupError::from)?;
    let old = held(folder)?;
    if !old.is_empty() && !replace {
        return Err(BackupError::HoldsData(folder.path().to_owned()).into());
    }
    let mut draft = Draft::make(&folder.path().join(format!("restore.{}{DRAFT}", std::process::id())))?;
    for name in entries(backup)? {
        let file = backup.join(&name);
        // A copy of a folder whose server had ended badly has its last commits beside the database.
        let is_derived = BESIDE_DATABASES[1..].iter().any(|ending| name.ends_with(ending));
        if !file.is_file() || is_passing(&name) || is_derived {
            continue;
        }
        let copy = draft.folder.private_file(&name).map_err(BackupError::from)?;
        copy_file(&file, &copy)?;
        sync(&copy)?;
    }
    let prepared = prepare(&draft.folder)?;
    let aside = move_in(&draft.folder, folder, &old)?;
    draft.kept = true;
    Ok((prepared, aside))
}

/// Changes what is in the folder. A server that finds it in the middle of this does not start.
fn move_in(draft: &DataFolder, folder: &DataFolder, old: &[String]) -> Result<Option<PathBuf>, BackupError> {
    let move_to = |from: &Path, to: &Path, name: &str| {
        fs::rename(from.join(name), to.join(name)).map_err(|source| unusable(&from.join(name), source))
    };
    sync(&folder.private_file(UNFINISHED)?)?;
    sync(folder.path())?;
    let aside = if old.is_empty() { None } else { Some(make_aside(folder)?) };
    if let Some(aside) = &aside {
        old.iter().try_for_each(|name| move_to(folder.path(), aside, name))?;
        sync(aside)?;
    }
    for name in entries(draft.path())? {
        move_to(draft.path(), folder.path(), &name)?;
    }
    fs::remove_dir(draft.path()).map_err(|source| unusable(draft.path(), source))?;
    sync(folder.path())?;
    let unfinished = folder.path().join(UNFINISHED);
    fs::remove_file(&unfinished).map_err(|source| unusable(&unfinished, source))?;
    sync(folder.path())?;
    Ok(aside)
}

/// What is in a data folder, apart from what comes with restoring.
fn held(folder: &DataFolder) -> Result<Vec<String>, BackupError> {
    let mut names = entries(folder.path())?;
    names.retain(|name| name != LOCK && name != UNFINISHED && !name.starts_with(REPLACED));
    Ok(names)
}

/// Makes a folder for data that are moved aside: the first number that is free.
fn make_aside(folder: &DataFolder) -> Result<PathBuf, BackupError> {
    let mut number = 1;
    loop {
        let path = folder.path().join(format!("{REPLACED}{number}"));
        match private_folder().create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(source) => return Err(unusable(&path, source)),
        }
    }
}

/// Files that mean nothing to anybody but the process that made them.
fn is_passing(name: &str) -> bool {
    name == LOCK || name == UNFINISHED || name.ends_with(DRAFT)
}

/// The names in a folder, in order.
fn entries(folder: &Path) -> Result<Vec<String>, BackupError> {
    let read = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name().into_string();
            names.push(name.map_err(|name| io::Error::other(format!("{} is not UTF-8", name.display())))?);
        }
        names.sort();
        Ok(names)
    };
    read().map_err(|source| unusable(folder, source))
}

/// Copies into a file that is there, with its permissions.
fn copy_file(from: &Path, to: &Path) -> Result<(), BackupError> {
    let mut reader = File::open(from).map_err(|source| unusable(from, source))?;
    let mut writer = OpenOptions::new().write(true).open(to).map_err(|source| unusable(to, source))?;
    io::copy(&mut reader, &mut writer).map_err(|source| unusable(to, source))?;
    Ok(())
}

/// Makes a file or folder durable; says how long it is.
fn sync(path: &Path) -> Result<u64, BackupError> {
    let sync = || {
        let file = File::open(path)?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    };
    sync().map_err(|source| unusable(path, source))
}

fn unusable(path: &Path, source: io::Error) -> BackupError {
    BackupError::Unusable { path: path.to_owned(), source }
}

impl Draft {
    fn make(path: &Path) -> Result<Self, BackupError> {
        private_folder().create(path).map_err(|source| unusable(path, source))?;
        Ok(Self { folder: DataFolder::open(path)?, kept: false })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            // The next one has another name.
            drop(fs::remove_dir_all(self.folder.path()));
        }
    }
}

#[cfg(test)]
mod tests;
