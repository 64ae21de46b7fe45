//! The file: created, opened again and by several, and refused where it is not one of ours.

use std::fs;
use std::time::Duration;

use super::*;
use crate::conflict::{Cause, LogEntry, Loss, Parked, ParkedPatch, Side};
use crate::device::Login;
use crate::device::schema::VERSION;
use crate::merge::replica::{ReplicaState, SentPatch};
use crate::model::limits::REQUEST_BYTES_FIRST;
use crate::model::{Compare, GroupStep, Limits, PatchOp};
use crate::policy::{Policies, Policy};

#[test]
fn a_new_file_gets_ids_that_stay() {
    let folder = Folder::new();
    let (id, guest) = {
        let mut db = DeviceDb::open(folder.file(), &mut Seed(1)).unwrap();
        (db.device_id().unwrap(), db.guest_owner().unwrap())
    };
    let mut again = DeviceDb::open(folder.file(), &mut Seed(2)).unwrap();
    assert_eq!((again.device_id().unwrap(), again.guest_owner().unwrap()), (id, guest.clone()));
    assert_eq!(again.owner().unwrap(), guest);
    assert!(guest.as_str().starts_with("local:") && guest.as_str().len() == 42, "{guest}");
    let mut other = DeviceDb::open_in_memory(&mut Seed(2)).unwrap();
    assert_ne!(other.device_id().unwrap(), id);
    assert_ne!(other.guest_owner().unwrap(), guest);
}

#[test]
fn commits_are_durable_and_values_stay() {
    let folder = Folder::new();
    let mut db = open(&folder.file()).unwrap();
    let pragma = |db: &DeviceDb, name: &str| -> String {
        let text = format!("SELECT cast({name} AS TEXT) FROM pragma_{name}");
        db.connection.query_one(&text, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(pragma(&db, "journal_mode"), "wal");
    assert_eq!(pragma(&db, "synchronous"), "2");
    let at = address(&mut db);
    put(&mut db, &at, "a", r#"{"x":[1,null,1.5]}"#);
    drop(db);
    let mut again = open(&folder.file()).unwrap();
    assert_eq!(again.get(&at, &key("a")).unwrap(), Some(json(r#"{"x":[1,null,1.5]}"#)));
}

#[test]
fn a_file_of_an_older_version_is_brought_up_to_date_with_what_is_in_it() {
    let folder = Folder::new();
    let mut db = open(&folder.file()).unwrap();
    let at = address(&mut db);
    put(&mut db, &at, "a", "1");
    // Neither marks nor checks.
    db.connection
        .execute_batch(
            "ALTER TABLE pending_group DROP COLUMN steps; PRAGMA user_version = 1;
            UPDATE patch SET value = substr(value, 2, length(value) - 5);
            UPDATE pending_group SET state = substr(state, 2, length(state) - 5);
            UPDATE replica SET state = substr(state, 2, length(state) - 5)",
        )
        .unwrap();
    drop(db);
    let mut again = open(&folder.file()).unwrap();
    put(&mut again, &at, "b", "2");
    assert_eq!(again.datasets(&at.owner).unwrap()[0].pending_groups, 2);
    assert_eq!(again.get(&at, &key("a")).unwrap(), Some(json("1")));
}

#[test]
fn a_newer_file_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    let db = open(&folder.file()).unwrap();
    db.connection.pragma_update(None, "user_version", VERSION + 1).unwrap();
    drop(db);
    let before = fs::read(folder.file()).unwrap();
    let error = open(&folder.file()).unwrap_err();
    assert!(matches!(error, DeviceError::Newer { found, known } if found == VERSION + 1 && known == VERSION));
    assert!(error.to_string().contains(&format!("version {}", VERSION + 1)), "{error}");
    assert_eq!(fs::read(folder.file()).unwrap(), before);
}

#[test]
fn files_of_something_else_are_refused_and_left_as_they_are() {
    let folder = Folder::new();
    let whole = {
        let mut db = open(&folder.file()).unwrap();
        let at = address(&mut db);
        put(&mut db, &at, "a", "1");
        drop(db);
        fs::read(folder.file()).unwrap()
    };
    let other = folder.0.join("other.db");
    let connection = rusqlite::Connection::open(&other).unwrap();
    connection.execute_batch("CREATE TABLE t (x)").unwrap();
    drop(connection);
    assert!(matches!(open(&other).unwrap_err(), DeviceError::Foreign));

    let broken = folder.0.join("broken.db");
    let text = b"This is a diary, and by no means a database.\n".repeat(500);
    for content in [&text[..], &text[..10], &whole[..2], &whole[..16], &whole[..99], &whole[..512], &whole[..4096]] {
        fs::write(&broken, content).unwrap();
        let error = open(&broken).map(drop).expect_err(&content.len().to_string());
        assert!(matches!(error, DeviceError::Foreign | DeviceError::Corrupt(_)), "{}: {error}", content.len());
        assert_eq!(fs::read(&broken).unwrap(), content);
    }
    assert!(matches!(open(&folder.0).unwrap_err(), DeviceError::ReadOnly(_)));
    assert!(matches!(open(&folder.0.join("missing/device.db")).unwrap_err(), DeviceError::ReadOnly(_)));
}

#[test]
fn a_file_with_tables_of_another_version_or_other_columns_is_damaged() {
    let folder = Folder::new();
    let mut db = open(&folder.file()).unwrap();
    let at = address(&mut db);
    put(&mut db, &at, "a", "1");
    drop(db);
    let raw = rusqlite::Connection::open(folder.file()).unwrap();
    raw.pragma_update(None, "user_version", 1).unwrap();
    assert!(matches!(open(&folder.file()).unwrap_err(), DeviceError::Corrupt(_)));
    raw.pragma_update(None, "user_version", VERSION).unwrap();
    raw.execute_batch("ALTER TABLE patch RENAME COLUMN under TO udner").unwrap();
    let mut renamed = open(&folder.file()).unwrap();
    assert!(matches!(renamed.get(&at, &key("a")).unwrap_err(), DeviceError::Corrupt(_)));
}

#[test]
fn rows_that_make_no_sense_are_errors() {
    let mut db = memory();
    let at = address(&mut db);
    for damage in ["value = x'c1'", "value = x''", "sent = x'00'", "question = x'ff'", "key = x'fe'", "key = x''"] {
        let mut copy = memory();
        put(&mut copy, &at, "a", "1");
        copy.connection.execute(&format!("UPDATE patch SET {damage}"), []).unwrap();
        let error = copy.list(&at, "", None, 10).unwrap_err();
        assert!(matches!(error, DeviceError::Corrupt(_)), "{damage}: {error}");
    }
    put(&mut db, &at, "a", "1");
    db.connection.execute("UPDATE replica SET state = x'c1', policies = x'a1'", []).unwrap();
    assert!(matches!(db.datasets(&at.owner).unwrap_err(), DeviceError::Corrupt(_)));
    assert!(matches!(db.policies(&at).unwrap_err(), DeviceError::Corrupt(_)));
    db.connection.execute("DELETE FROM device", []).unwrap();
    assert!(matches!(db.owner().unwrap_err(), DeviceError::Corrupt(_)));
}

#[test]
fn a_file_whose_tables_do_not_agree_is_refused_when_it_is_opened() {
    for (damage, expected) in [
        ("DELETE FROM base WHERE key = x'61'", "records are missing"),
        ("DELETE FROM replica", "records belong to no dataset"),
        ("DELETE FROM pending_group", "pending changes belong to no group"),
        ("DELETE FROM patch WHERE key = x'63'", "pending changes are missing"),
        ("DELETE FROM login", "the one who is signed in is not known"),
        ("UPDATE device SET owner = 'local:eve'", "the one who is signed in is not known"),
    ] {
        let folder = Folder::new();
        let mut db = open(&folder.file()).unwrap();
        let login = Login { issuer: "https://issuer.example".into(), audience: "app".into(), subject: "anna".into() };
        db.sign_in(&login).unwrap();
        let at = address(&mut db);
        run(&mut db, &at, &[Write::Stage(records("a@1=1 b@1=2")), Write::MergeStage { snapshot: true }]);
        put(&mut db, &at, "c", "3");
        db.check().unwrap();
        db.connection.execute(damage, []).unwrap();
        let error = open(&folder.file()).unwrap_err().to_string();
        assert!(error.contains(expected), "{damage}: {error}");
    }
}

#[test]
fn a_damaged_value_is_found_by_a_check_and_keeps_no_other_from_being_read() {
    let folder = Folder::new();
    let mut db = open(&folder.file()).unwrap();
    let at = address(&mut db);
    run(&mut db, &at, &[Write::Stage(records("a@1=1 b@1=2")), Write::MergeStage { snapshot: true }]);
    db.connection.execute("UPDATE base SET value = x'02ffffffff' WHERE key = x'61'", []).unwrap();
    let mut again = open(&folder.file()).unwrap();
    assert_eq!(again.get(&at, &key("b")).unwrap(), Some(json("2")));
    assert!(matches!(again.get(&at, &key("a")).unwrap_err(), DeviceError::Corrupt(_)));
    assert!(matches!(again.check().unwrap_err(), DeviceError::Corrupt(_)));
}

#[test]
fn a_check_finds_what_cannot_be_read_beside_values() {
    for damage in [
        "UPDATE pending_group SET state = x'a46f70646e'",
        "UPDATE replica SET policies = x'c1'",
        "UPDATE patch SET question = x'c1'",
        "INSERT INTO conflict (replica_id, entry) SELECT id, x'80' FROM replica",
        "INSERT INTO parked (replica_id, unit) SELECT id, x'80' FROM replica",
        "INSERT INTO stage (replica_id, key, count, value, modified_at, device_time) VALUES (1, x'61', 1, x'c1', 0, 0)",
    ] {
        let folder = Folder::new();
        let mut db = open(&folder.file()).unwrap();
        let at = address(&mut db);
        put(&mut db, &at, "c", "3");
        db.check().unwrap();
        assert!(db.connection.execute(damage, []).unwrap() > 0);
        assert!(matches!(db.check(), Err(DeviceError::Corrupt(_))), "{damage}");
    }
}

/// What the core keeps in blobs of its own.
const BLOBS: [(&str, &str); 8] = [
    ("device", "limits"),
    ("replica", "state"),
    ("replica", "policies"),
    ("pending_group", "state"),
    ("pending_group", "steps"),
    ("patch", "sent"),
    ("conflict", "entry"),
    ("parked", "unit"),
];

#[test]
fn a_flipped_bit_in_what_is_kept_is_found() {
    let mut db = memory();
    let at = address(&mut db);
    db.set_limits(&Limits::default(), Some(3)).unwrap();
    db.set_policies(&at, Policies { dataset: Some(Policy::Counter), ..Policies::default() }).unwrap();
    let step = GroupStep { change_id: ChangeId::from_bytes([7; 16]), added: Vec::new() };
    let header = GroupHeader::new(GroupId(1), GroupState::Sent, step.change_id);
    let sent = SentPatch { op: PatchOp::Replace(json("1"), Compare::Nothing), base: SyncCount(3) };
    let loss = Loss { key: key("a"), path: Vec::new(), side: Side::Local, under: None, value: Some(json("1")) };
    let unit = ParkedPatch { key: key("a"), under: None, value: Some(json("1")), device_time: Timestamp(1) };
    run(
        &mut db,
        &at,
        &[
            Write::Group(GroupHeader { patches: 1, steps: vec![step], ..header }),
            Write::Patch {
                group: GroupId(1),
                key: key("a"),
                patch: Box::new(PendingPatch { sent: Some(sent), ..pending(Some("1")) }),
            },
            Write::Log(LogEntry { at: Timestamp(1), cause: Cause::Digest, losses: vec![loss] }),
            Write::Park(Parked {
                at: Timestamp(1),
                code: "no".into(),
                message: "no".into(),
                patches: vec![unit],
                steps: Vec::new(),
            }),
            Write::State(Box::new(ReplicaState { sequence: 3, ..ReplicaState::default() })),
        ],
    );
    db.check().unwrap();
    for (table, column) in BLOBS {
        let select = format!("SELECT {column} FROM {table} WHERE {column} IS NOT NULL");
        let whole: Vec<u8> = db.connection.query_one(&select, [], |row| row.get(0)).unwrap();
        for bit in 0..8 * whole.len() {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let update = format!("UPDATE {table} SET {column} = ?1 WHERE {column} IS NOT NULL");
            db.connection.execute(&update, [&flipped]).unwrap();
            assert!(matches!(db.check(), Err(DeviceError::Corrupt(_))), "bit {bit} of {column} in {table}");
            db.connection.execute(&update, [&whole]).unwrap();
        }
    }
    db.check().unwrap();
}

#[test]
fn a_full_disk_changes_nothing() {
    let folder = Folder::new();
    let mut db = open(&folder.file()).unwrap();
    let at = address(&mut db);
    put(&mut db, &at, "a", "1");
    let pages: i64 = db.connection.query_one("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    let _: i64 = db.connection.query_one(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get(0)).unwrap();
    let mut random = Seed(3);
    let mut context = Context { now: Timestamp(11), random: &mut random };
    let large = Value::Text("x".repeat(100_000));
    let writes = vec![(key("a"), Some(json("2"))), (key("b"), Some(large))];
    let error = db.write(&at, writes, &mut context).unwrap_err();
    assert!(matches!(error, DeviceError::Full(_)), "{error}");
    assert_eq!(listed(&mut db, &at, ""), ["a=1"]);
}

#[test]
fn a_file_in_use_is_busy_and_readers_do_not_wait() {
    let folder = Folder::new();
    let mut first = open(&folder.file()).unwrap();
    let mut second = open(&folder.file()).unwrap();
    let at = address(&mut first);
    put(&mut first, &at, "a", "1");
    second.connection.busy_timeout(Duration::ZERO).unwrap();
    first
        .change(|connection| {
            execute(connection, &at, &[patch(1, "a", Some("2"))])?;
            let error = second.set_policies(&at, Default::default()).unwrap_err();
            assert!(matches!(error, DeviceError::Busy(_)), "{error}");
            assert_eq!(second.get(&at, &key("a"))?, Some(json("1")));
            Ok(())
        })
        .unwrap();
    assert_eq!(second.get(&at, &key("a")).unwrap(), Some(json("2")));
}

#[test]
fn several_create_and_write_one_file_at_once() {
    for _ in 0..5 {
        let folder = Folder::new();
        let path = folder.file();
        let (threads, puts) = (8, 5);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let path = &path;
                scope.spawn(move || {
                    let mut random = Seed(100 + thread);
                    let mut db = DeviceDb::open(path, &mut random).unwrap();
                    let at = address(&mut db);
                    for _ in 0..puts {
                        let mut context = Context { now: Timestamp(10), random: &mut random };
                        // Reads what it writes over: a plan that was made on an older moment would lose a put.
                        let increment = |db: &mut DeviceDb, context: &mut Context<'_>| {
                            db.change(|connection| {
                                let stored = StoredReplica::find(connection, &at)?;
                                let before = crate::merge::stack::visible(&stored, &key("n"))?;
                                let next = match before {
                                    Some(Value::Int(it)) => it + 1,
                                    _ => 1,
                                };
                                let writes = vec![(key("n"), Some(Value::Int(next)))];
                                let limits = Limits::default();
                                let plan = crate::merge::write::plan_write(&stored, &limits, writes, context)?;
                                execute(connection, &at, &plan.writes)
                            })
                        };
                        increment(&mut db, &mut context).unwrap();
                    }
                });
            }
        });
        let mut db = open(&path).unwrap();
        let at = address(&mut db);
        assert_eq!(db.get(&at, &key("n")).unwrap(), Some(Value::Int((threads * puts) as i64)));
        assert_eq!(db.datasets(&at.owner).unwrap().len(), 1);
    }
}

#[test]
fn limits_are_remembered() {
    let folder = Folder::new();
    let mut db = open(&folder.file()).unwrap();
    let first = Limits { request_bytes_max: REQUEST_BYTES_FIRST, ..Limits::default() };
    assert_eq!(db.limits().unwrap(), (first, None));
    let told = Limits { value_bytes_max: 10, ..Limits::default() };
    db.set_limits(&told, Some(u32::MAX)).unwrap();
    drop(db);
    let mut db = open(&folder.file()).unwrap();
    assert_eq!(db.limits().unwrap(), (told, Some(u32::MAX)));
    let at = address(&mut db);
    let mut random = Seed(3);
    let mut context = Context { now: Timestamp(11), random: &mut random };
    let error = db.write(&at, vec![(key("a"), Some(json("\"longer than ten\"")))], &mut context).unwrap_err();
    assert!(matches!(error, DeviceError::Write(_)), "{error}");
}
