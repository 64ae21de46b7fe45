//! Folders with files that stand for databases.

use std::collections::BTreeMap;

use super::*;

const DATABASE: &str = "data.db";

/// The files of a folder, and the folders in it, with their contents.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for name in entries(folder).unwrap() {
        let path = folder.join(&name);
        if path.is_dir() {
            all.extend(files(&path).into_iter().map(|(inner, text)| (format!("{name}/{inner}"), text)));
        } else {
            all.insert(name, fs::read_to_string(path).unwrap());
        }
    }
    all
}

fn made(folder: &Path, contents: &[(&str, &str)]) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    contents.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
    folder.to_owned()
}

fn expect(contents: &[(&str, &str)]) -> BTreeMap<String, String> {
    contents.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn copy_as_database(from: &Path, to: &Path) -> Result<(), StoreError> {
    let text = format!("copy of {}", fs::read_to_string(from).unwrap());
    fs::write(to, text).map_err(|error| StoreError::Unavailable(error.into()))
}

const DATA: &[(&str, &str)] = &[
    ("data.db", "d"),
    ("data.db-wal", "w"),
    ("data.db-shm", "s"),
    ("dev-issuer.json", "{}"),
    ("lock", ""),
    ("key.1.draft", "half"),
];

#[test]
fn a_backup_has_what_matters_and_only_its_owner_reads_it() {
    let parent = tempfile::tempdir().unwrap();
    let data = made(&parent.path().join("data"), DATA);
    made(&data.join("replaced-1"), &[("data.db", "older")]);
    let target = parent.path().join("backups/monday");
    assert_eq!(back_up(&data, &target, DATABASE, copy_as_database).unwrap(), 11);
    assert_eq!(files(&target), expect(&[("data.db", "copy of d"), ("dev-issuer.json", "{}")]));
    assert_eq!(entries(target.parent().unwrap()).unwrap(), ["monday"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&target), mode(&target.join("data.db"))), (0o700, 0o600));
    }
    fs::create_dir(parent.path().join("empty")).unwrap();
    back_up(&data, &parent.path().join("empty"), DATABASE, copy_as_database).unwrap();
}

#[test]
fn a_backup_goes_over_nothing_and_leaves_nothing_if_it_fails() {
    let parent = tempfile::tempdir().unwrap();
    let data = made(&parent.path().join("data"), DATA);
    let before = files(parent.path());
    let refused = |target: &Path| back_up(&data, target, DATABASE, copy_as_database).unwrap_err();
    assert!(matches!(refused(&data.join("backup")), BackupError::Inside(_)));
    assert!(matches!(refused(&data), BackupError::Occupied(_)));
    assert!(matches!(refused(&data.join("lock")), BackupError::Occupied(_)));
    let nothing = parent.path().join("nothing");
    let error = back_up(&nothing, &parent.path().join("b"), DATABASE, copy_as_database).unwrap_err();
    assert!(matches!(error, BackupError::NoDatabase(_)) && error.is_usage());
    let broken = |_: &Path, _: &Path| Err(StoreError::Corrupt("it is".to_owned()));
    let error = back_up(&data, &parent.path().join("b"), DATABASE, broken).unwrap_err();
    assert!(matches!(error, BackupError::Store(_)) && !error.is_usage());
    assert_eq!(files(parent.path()), before);
}

fn restored(backup: &Path, data: &Path, replace: bool) -> Result<Option<PathBuf>, BackupError> {
    let folder = DataFolder::open(data).unwrap();
    let fence = |draft: &DataFolder| {
        fs::write(draft.path().join("data.db"), "fenced").unwrap();
        Ok(())
    };
    restore(backup, &folder, DATABASE, replace, fence).map(|((), aside)| aside)
}

#[test]
fn a_restore_moves_aside_what_was_there_and_deletes_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let backup = made(&parent.path().join("backup"), &[("data.db", "b"), ("dev-issuer.json", "{}")]);
    let data = parent.path().join("data");
    assert_eq!(restored(&backup, &data, false).unwrap(), None);
    let fresh = expect(&[("data.db", "fenced"), ("dev-issuer.json", "{}"), ("lock", "")]);
    assert_eq!(files(&data), fresh);
    assert!(matches!(restored(&backup, &data, false), Err(BackupError::HoldsData(_))));
    assert_eq!(files(&data), fresh);
    made(&data, &[("data.db", "newer"), ("data.db-wal", "newest")]);
    for number in 1..=2 {
        let aside = data.join(format!("replaced-{number}"));
        assert_eq!(restored(&backup, &data, true).unwrap(), Some(aside));
    }
    let mut expected = fresh;
    expected.extend(expect(&[
        ("replaced-1/data.db", "newer"),
        ("replaced-1/data.db-wal", "newest"),
        ("replaced-1/dev-issuer.json", "{}"),
        ("replaced-2/data.db", "fenced"),
        ("replaced-2/dev-issuer.json", "{}"),
    ]));
    assert_eq!(files(&data), expected);
    assert_eq!(files(&backup), expect(&[("data.db", "b"), ("dev-issuer.json", "{}")]));
    DataFolder::open(&data).unwrap().lock().unwrap();
}

#[test]
fn a_backup_that_does_not_pass_changes_nothing_and_neither_does_a_running_server() {
    let parent = tempfile::tempdir().unwrap();
    let backup = made(&parent.path().join("backup"), &[("data.db", "b")]);
    let data = made(&parent.path().join("data"), DATA);
    let before = files(&data);
    let folder = DataFolder::open(&data).unwrap();
    let damaged = |_: &DataFolder| Err::<(), _>(BackupError::Store(StoreError::Corrupt("it is".to_owned())));
    assert!(restore(&backup, &folder, DATABASE, true, damaged).is_err());
    let _server = folder.lock().unwrap();
    assert!(matches!(restored(&backup, &data, true), Err(BackupError::Folder(DataFolderError::InUse(_)))));
    let other = parent.path().join("nothing");
    assert!(matches!(restored(&other, &data, true), Err(BackupError::NoDatabase(_))));
    assert_eq!(files(&data), before);
}

#[test]
fn no_server_starts_on_half_of_a_backup() {
    let parent = tempfile::tempdir().unwrap();
    let backup = made(&parent.path().join("backup"), &[("data.db", "b")]);
    let data = made(&parent.path().join("data"), &[("restore-unfinished", ""), ("dev-issuer.json", "{}")]);
    let folder = DataFolder::open(&data).unwrap();
    assert!(matches!(folder.lock(), Err(DataFolderError::Unfinished(_))));
    restored(&backup, &data, true).unwrap();
    folder.lock().unwrap();
}
