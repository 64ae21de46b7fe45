//! What apps and sync sessions do: owners, listings, staged pulls, the conflict log, claims.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::conflict::{Cause, LogEntry, Loss, Parked, ParkedPatch, Side};
use crate::device::execute::LOSSES_MAX;
use crate::device::scan::SELECT;
use crate::device::{Login, Which};
use crate::merge::replica::{Replica as _, ReplicaState};
use crate::model::{CommitTag, Digest, EpochEntry, EpochId, EpochReason, Limits, NextPage, Position};
use crate::protocol::{DatasetRequest, DatasetResponse, Page};

#[test]
fn a_login_has_the_same_owner_on_every_device_and_is_remembered() {
    let login = Login { issuer: "https://issuer.example".into(), audience: "app".into(), subject: "anna".into() };
    let mut db = memory();
    let guest = db.owner().unwrap();
    let owner = db.sign_in(&login).unwrap();
    assert_eq!(owner.as_str(), "login:8d97b6ac93a73c73349950cf2b3d8faf");
    assert_eq!(db.owner().unwrap(), owner);
    assert_eq!(db.login(&owner).unwrap(), Some(login.clone()));
    assert_eq!(db.login(&guest).unwrap(), None);
    assert_eq!(db.identity(&owner).unwrap(), None);
    let identity = Owner::parse("eu-west-1:6e0a1c7e-0000-4000-8000-000000000001").unwrap();
    db.set_identity(&owner, &identity).unwrap();
    assert_eq!(db.sign_in(&login).unwrap(), owner);
    assert_eq!(db.identity(&owner).unwrap(), Some(identity));
    assert_ne!(Login { audience: "appa".into(), subject: "nna".into(), ..login }.owner(), owner);
    assert_eq!(db.sign_out().unwrap(), guest);
    assert_eq!(db.owner().unwrap(), guest);
}

#[test]
fn owners_and_datasets_are_apart_and_can_be_wiped() {
    let mut db = memory();
    let guest = address(&mut db);
    let login = Login { issuer: "i".into(), audience: "a".into(), subject: "s".into() };
    let anna = Address { owner: db.sign_in(&login).unwrap(), ..guest.clone() };
    let other = Address { dataset: DatasetName::parse("Notes").unwrap(), ..guest.clone() };
    for (at, value) in [(&guest, "1"), (&anna, "2"), (&other, "3")] {
        put(&mut db, at, "a", value);
    }
    assert_eq!(listed(&mut db, &guest, ""), ["a=1"]);
    assert_eq!(listed(&mut db, &anna, ""), ["a=2"]);
    assert_eq!(listed(&mut db, &other, ""), ["a=3"]);
    let names: Vec<_> = db.datasets(&guest.owner).unwrap().into_iter().map(|it| it.name.to_string()).collect();
    assert_eq!(names, ["Notes", "notes"]);
    db.wipe(&anna.owner).unwrap();
    assert_eq!(db.owner().unwrap(), guest.owner);
    assert_eq!(listed(&mut db, &anna, ""), [""; 0]);
    assert_eq!(db.login(&anna.owner).unwrap(), None);
    assert_eq!(listed(&mut db, &guest, ""), ["a=1"]);
}

#[test]
fn a_local_only_dataset_asks_for_nothing_until_it_is_synced_again() {
    let mut db = memory();
    let at = address(&mut db);
    put(&mut db, &at, "a", "1");
    for (local_only, pushes) in [(true, false), (false, true)] {
        db.set_local_only(&at, local_only).unwrap();
        let request = db.prepare(&at, &Limits::default(), true).unwrap().request;
        assert_eq!(request.is_some_and(|request| request.push.is_some()), pushes);
    }
}

#[test]
fn keys_are_compared_by_their_bytes() {
    let long = "k".repeat(1_000);
    let mut names = vec![
        "a",
        "A",
        "a ",
        "a  ",
        "a\0",
        "a\0b",
        "\0",
        "b",
        "é",
        "e\u{301}",
        "ß",
        "\u{10ffff}",
        "\u{ffff}",
        "a/b",
        "a%",
        "a_",
        "ab",
        "'; DROP TABLE base",
        &long,
    ];
    let mut db = memory();
    let at = address(&mut db);
    for (number, name) in names.iter().enumerate() {
        if number % 2 == 0 {
            run(&mut db, &at, &[Write::Stage(vec![record(&format!("x@1={number}"))]), Write::ClearStage]);
            let staged = Record { key: key(name), ..record(&format!("x@1={number}")) };
            run(&mut db, &at, &[Write::Stage(vec![staged]), Write::MergeStage { snapshot: false }]);
        } else {
            put(&mut db, &at, name, &number.to_string());
        }
    }
    for (number, name) in names.iter().enumerate() {
        assert_eq!(db.get(&at, &key(name)).unwrap(), Some(Value::Int(number as i64)), "{name:?}");
    }
    let found: Vec<_> = db.list(&at, "", None, 100).unwrap().into_iter().map(|(key, _)| key.to_string()).collect();
    names.sort_unstable();
    assert_eq!(found, names);
    for prefix in ["", "a", "a\0", "a ", "e", "é", "\u{10ffff}", "k", &long, "zz"] {
        let wanted: Vec<_> = names.iter().filter(|name| name.starts_with(prefix)).collect();
        let mut found: Vec<RecordKey> = Vec::new();
        // Page by page.
        loop {
            let page = db.list(&at, prefix, found.last(), 2).unwrap();
            let full = page.len() == 2;
            found.extend(page.into_iter().map(|(key, _)| key));
            if !full {
                break;
            }
        }
        assert_eq!(
            found.iter().map(RecordKey::as_str).collect::<Vec<_>>(),
            wanted.into_iter().copied().collect::<Vec<_>>()
        );
    }
    assert!(db.list(&at, "", None, 0).unwrap().is_empty());
    assert!(db.list(&at, "a", Some(&key("b")), 9).unwrap().is_empty());
}

#[test]
fn listings_show_the_layers_over_the_base() {
    let mut db = memory();
    let at = address(&mut db);
    run(
        &mut db,
        &at,
        &[
            Write::Stage(records("a@1=1 b@1=2 c@2=3 d@2=null f@3=5")),
            Write::MergeStage { snapshot: false },
            group(1),
            patch(1, "b", Some("20")),
            patch(1, "c", None),
            patch(1, "e", Some("50")),
            patch(1, "g", None),
            group(2),
            patch(2, "b", None),
            patch(2, "c", Some("null")),
            patch(2, "e", Some("51")),
        ],
    );
    assert_eq!(listed(&mut db, &at, ""), ["a=1", "c=null", "d=null", "e=51", "f=5"]);
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let seen = db.get(&at, &key(name)).unwrap();
        let listed = db.list(&at, name, None, 9).unwrap().pop();
        assert_eq!(listed, seen.map(|value| (key(name), value)), "{name}");
    }
    let status = &db.datasets(&at.owner).unwrap()[0];
    assert_eq!((status.records, status.pending_groups, status.pending_records), (5, 2, 4));
    let stopped = Cell::new(0);
    let result = db.for_each(&at, "", |_, _| {
        stopped.set(stopped.get() + 1);
        if stopped.get() == 2 { Err(DeviceError::Foreign) } else { Ok(()) }
    });
    assert!(matches!(result, Err(DeviceError::Foreign)) && stopped.get() == 2);
}

#[test]
fn listings_are_merged_as_they_go() {
    let db = memory();
    let mut explain = db.connection.prepare(&format!("EXPLAIN QUERY PLAN {SELECT}")).unwrap();
    let steps = explain.query_map((1, [0_u8], [0_u8]), |row| row.get::<_, String>(3)).unwrap();
    let steps: Vec<_> = steps.map(Result::unwrap).collect();
    assert!(steps.iter().all(|step| !step.contains("TEMP B-TREE") && !step.contains("SCAN")), "{steps:#?}");
}

#[test]
fn a_pull_of_several_pages_goes_on_after_a_restart() {
    let folder = Folder::new();
    let mut db = open(&folder.file()).unwrap();
    let at = address(&mut db);
    let position =
        Position { epoch: EpochId::from_bytes([1; 16]), count: SyncCount(2), tag: CommitTag::from_bytes([2; 8]) };
    let all = records("b@1=1 a@2={} c@2=[]");
    let digest = all.iter().fold(Digest::default(), Digest::plus);
    let next = NextPage { since: SyncCount(0), at: position, after_count: SyncCount(1), after_key: key("b") };
    let page = |records: &[Record], next: Option<&NextPage>| Page {
        floor: SyncCount::ZERO,
        records: records.to_vec(),
        position: Some(position),
        next: next.cloned(),
        line: Some(vec![EpochEntry { epoch: position.epoch, start: SyncCount(0), why: EpochReason::Created }]),
        tags: vec![(position.count, position.tag)],
        digest: next.is_none().then_some(digest),
        total: 3,
    };
    let absorb = |db: &mut DeviceDb, request: &DatasetRequest, page: Page| {
        let mut random = Seed(4);
        let mut context = Context { now: Timestamp(77), random: &mut random };
        let response = DatasetResponse { page: Some(page), ..DatasetResponse::empty(None, at.dataset.clone()) };
        db.absorb(&at, request, Some(response), Timestamp(78), &mut context).unwrap()
    };
    let limits = Limits::default();
    let first = db.prepare(&at, &limits, true).unwrap().request.unwrap();
    absorb(&mut db, &first, page(&all[..1], Some(&next)));
    let status = db.datasets(&at.owner).unwrap().pop().unwrap();
    assert_eq!((status.pulling, status.records, status.last_synced), (true, 0, None));
    drop(db);

    let mut db = open(&folder.file()).unwrap();
    assert_eq!(listed(&mut db, &at, ""), [""; 0]);
    let second = db.prepare(&at, &limits, false).unwrap().request.unwrap();
    assert_eq!(second.page.as_ref(), Some(&next));
    let (changes, _) = absorb(&mut db, &second, page(&all[1..], None));
    assert!(changes.many || changes.keys.len() == 3);
    assert_eq!(listed(&mut db, &at, ""), ["a={}", "b=1", "c=[]"]);
    let status = db.datasets(&at.owner).unwrap().pop().unwrap();
    assert_eq!((status.pulling, status.records, status.last_synced), (false, 3, Some(Timestamp(77))));
    assert_eq!(status.cursor, Some(position));
    // In sync: nothing to ask, and an answer that leaves the dataset out says just that.
    assert_eq!(db.prepare(&at, &limits, false).unwrap().request, None);
    let asked = db.prepare(&at, &limits, true).unwrap().request.unwrap();
    let mut random = Seed(4);
    let mut context = Context { now: Timestamp(90), random: &mut random };
    db.absorb(&at, &asked, None, Timestamp(90), &mut context).unwrap();
    assert_eq!(db.datasets(&at.owner).unwrap()[0].last_synced, Some(Timestamp(90)));
    let synchronous: i64 = db.connection.query_one("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
    assert_eq!(synchronous, 2);
}

#[test]
fn many_groups_are_written_at_once_or_not_at_all() {
    let mut db = memory();
    let at = address(&mut db);
    let mut random = Seed(5);
    let mut context = Context { now: Timestamp(1), random: &mut random };
    let groups = (0..300).map(|n| vec![(key(&format!("k{n:03}")), Some(Value::Int(n)))]);
    let changes = db.write_many(&at, groups, &mut context).unwrap();
    assert_eq!(changes.keys.len(), 300);
    let status = &db.datasets(&at.owner).unwrap()[0];
    assert_eq!((status.records, status.pending_groups), (300, 300));
    let twice = vec![(key("x"), None), (key("x"), None)];
    let refused = [vec![(key("new"), Some(Value::Null))], twice];
    assert!(matches!(db.write_many(&at, refused, &mut context), Err(DeviceError::Write(_))));
    assert_eq!(db.get(&at, &key("new")).unwrap(), None);
}

#[test]
fn the_conflict_log_is_paged_and_cleared() {
    let mut db = memory();
    let at = address(&mut db);
    let entry = |n: i64, value: Option<Value>| {
        let loss = Loss { key: key("a"), path: vec!["f".into()], side: Side::Remote, under: Some(Value::Null), value };
        LogEntry { at: Timestamp(n), cause: Cause::Restored, losses: vec![loss] }
    };
    let entries = [entry(1, None), entry(2, Some(Value::Null)), entry(3, Some(json(r#"{"$bytes":"AP8="}"#)))];
    assert!(db.conflicts(&at, None, 9).unwrap().is_empty());
    run(&mut db, &at, &entries.clone().map(Write::Log));
    let logged = db.conflicts(&at, None, 9).unwrap();
    assert_eq!(logged.iter().map(|(_, entry)| entry.clone()).collect::<Vec<_>>(), entries);
    let page = db.conflicts(&at, Some(logged[0].0), 1).unwrap();
    assert_eq!(page, logged[1..2]);
    db.clear_conflict(&at, logged[1].0).unwrap();
    db.clear_conflict(&at, 99).unwrap();
    assert_eq!(db.conflicts(&at, None, 9).unwrap(), [logged[0].clone(), logged[2].clone()]);
    assert_eq!(db.datasets(&at.owner).unwrap()[0].conflicts, 2);
    db.clear_conflicts(&at).unwrap();
    assert!(db.conflicts(&at, None, 9).unwrap().is_empty());
    // An id is not used again, so that an app that holds one cannot restore another entry.
    run(&mut db, &at, &[Write::Log(entries[0].clone())]);
    assert!(db.conflicts(&at, None, 9).unwrap()[0].0 > logged[2].0);
}

#[test]
fn lost_records_are_logged_in_entries_of_bounded_size() {
    let mut db = memory();
    let at = address(&mut db);
    let count = LOSSES_MAX * 2 + 3;
    let many = (0..count).map(|n| record(&format!("k{n:05}@2={n}"))).chain([record("kept@1=0")]).collect();
    run(&mut db, &at, &[Write::Stage(many), Write::MergeStage { snapshot: true }]);
    let lost = Write::LogLost { cause: Cause::Foreign, above: SyncCount(1), until: None, at: Timestamp(3) };
    run(&mut db, &at, &[lost]);
    let sizes: Vec<_> = db.conflicts(&at, None, 9).unwrap().iter().map(|(_, it)| it.losses.len()).collect();
    assert_eq!(sizes, [LOSSES_MAX, LOSSES_MAX, 3]);
    let keys: Vec<_> = db.conflicts(&at, None, 9).unwrap().into_iter().flat_map(|(_, it)| it.losses).collect();
    assert!(keys.windows(2).all(|pair| pair[0].key < pair[1].key) && keys.len() == count);
}

#[test]
fn parked_units_are_listed_retried_and_discarded() {
    let mut db = memory();
    let at = address(&mut db);
    let unit = |n: i64| Parked {
        at: Timestamp(n),
        code: "LimitExceeded".into(),
        message: "no".into(),
        patches: vec![ParkedPatch {
            key: key(&format!("p{n}")),
            under: None,
            value: Some(Value::Null),
            device_time: Timestamp(n),
        }],
        steps: Vec::new(),
    };
    run(&mut db, &at, &[1, 2, 3].map(|n| Write::Park(unit(n))));
    let parked = db.parked(&at, None, 9).unwrap();
    assert_eq!(parked.iter().map(|(_, unit)| unit.clone()).collect::<Vec<_>>(), [unit(1), unit(2), unit(3)]);
    let mut random = Seed(6);
    let mut context = Context { now: Timestamp(50), random: &mut random };
    db.retry(&at, Which::One(parked[1].0), &mut context).unwrap();
    assert_eq!(listed(&mut db, &at, ""), ["p2=null"]);
    assert!(matches!(db.retry(&at, Which::One(parked[1].0), &mut context), Err(DeviceError::Write(_))));
    db.discard(&at, Which::One(parked[0].0)).unwrap();
    assert!(matches!(db.discard(&at, Which::One(parked[0].0)), Err(DeviceError::Write(_))));
    db.retry(&at, Which::All, &mut context).unwrap();
    assert_eq!(listed(&mut db, &at, ""), ["p2=null", "p3=null"]);
    assert!(db.parked(&at, None, 9).unwrap().is_empty());
    db.discard(&at, Which::All).unwrap();
}

#[test]
fn a_claim_takes_everything_of_the_guest_along() {
    let mut db = memory();
    let guest = address(&mut db);
    let login = Login { issuer: "i".into(), audience: "a".into(), subject: "s".into() };
    let anna = Address { owner: db.sign_in(&login).unwrap(), ..guest.clone() };
    let second = Address { dataset: DatasetName::parse("second").unwrap(), ..guest.clone() };
    put(&mut db, &guest, "a", "1");
    put(&mut db, &guest, "b", "2");
    put(&mut db, &second, "c", "3");
    put(&mut db, &anna, "a", "10");
    let entry = LogEntry { at: Timestamp(1), cause: Cause::Resolved, losses: Vec::new() };
    let unit =
        Parked { at: Timestamp(1), code: "c".into(), message: "m".into(), patches: Vec::new(), steps: Vec::new() };
    run(&mut db, &guest, &[Write::Log(entry.clone()), Write::Park(unit.clone())]);
    let mut random = Seed(7);
    let mut context = Context { now: Timestamp(60), random: &mut random };
    let claimed = db.claim(&guest.owner, &anna.owner, &mut context).unwrap();
    let names: Vec<_> = claimed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["notes", "second"]);
    assert_eq!(listed(&mut db, &anna, ""), ["a=10", "b=2"]);
    assert_eq!(listed(&mut db, &Address { owner: anna.owner.clone(), ..second }, ""), ["c=3"]);
    assert_eq!(db.conflicts(&anna, None, 9).unwrap()[0].1, entry);
    assert_eq!(db.parked(&anna, None, 9).unwrap()[0].1, unit);
    assert!(db.datasets(&guest.owner).unwrap().is_empty());
    assert_eq!(listed(&mut db, &guest, ""), [""; 0]);
    let left: i64 = db
        .connection
        .query_one("SELECT count(*) FROM patch WHERE replica_id NOT IN (SELECT id FROM replica)", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0);
    assert!(db.claim(&anna.owner, &anna.owner, &mut context).unwrap().is_empty());
}

#[test]
fn a_deleted_dataset_is_empty_and_a_new_device_id_stays() {
    let mut db = memory();
    let at = address(&mut db);
    run(&mut db, &at, &[Write::Stage(records("a@1=1")), Write::MergeStage { snapshot: true }]);
    put(&mut db, &at, "b", "2");
    assert!(db.delete_dataset(&at).unwrap().many);
    assert_eq!(listed(&mut db, &at, ""), [""; 0]);
    assert!(db.datasets(&at.owner).unwrap().is_empty(), "nothing of it is left, here or on a server");
    let id = DeviceId::from_bytes([9; 16]);
    run(&mut db, &at, &[Write::Device(id)]);
    assert_eq!(db.device_id().unwrap(), id);
}

#[test]
fn an_untouched_dataset_is_empty_and_reading_does_not_create_it() {
    let mut db = memory();
    let at = address(&mut db);
    assert_eq!(db.get(&at, &key("a")).unwrap(), None);
    assert!(db.list(&at, "", None, 9).unwrap().is_empty());
    assert_eq!(db.policies(&at).unwrap(), Default::default());
    assert!(db.questions(&at).unwrap().is_empty());
    assert!(db.parked(&at, None, 9).unwrap().is_empty());
    db.clear_conflicts(&at).unwrap();
    db.clear_conflict(&at, 1).unwrap();
    read(&mut db, &at, |replica| {
        assert_eq!(replica.state().unwrap(), ReplicaState::default());
        assert_eq!(replica.last_group().unwrap(), GroupId(0));
        assert!(replica.groups().unwrap().is_empty() && replica.pending_keys(true).unwrap().is_empty());
    });
    assert!(db.datasets(&at.owner).unwrap().is_empty());
}

/// The steps of SQLite's machine in a pull of one record into a dataset of so many: at least one for each row.
fn steps_of_one_record(records: u64) -> u64 {
    const TOGETHER: u64 = 1_000;
    let mut db = memory();
    let at = address(&mut db);
    let taken = Arc::new(AtomicU64::new(0));
    let mut pull = |count: u64, keys: Range<u64>| {
        let position = Position {
            epoch: EpochId::from_bytes([1; 16]),
            count: SyncCount(count),
            tag: CommitTag::from_bytes([2; 8]),
        };
        let page = Page {
            records: keys.map(|number| record(&format!("record/{number:07}@{count}={count}"))).collect(),
            position: Some(position),
            next: None,
            line: Some(vec![EpochEntry { epoch: position.epoch, start: SyncCount(0), why: EpochReason::Created }]),
            tags: Vec::new(),
            floor: SyncCount::ZERO,
            digest: None,
            total: records,
        };
        let request = db.prepare(&at, &Limits::default(), true).unwrap().request.unwrap();
        let response = DatasetResponse { page: Some(page), ..DatasetResponse::empty(None, at.dataset.clone()) };
        let counter = Arc::clone(&taken);
        let step = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            false
        };
        taken.store(0, Ordering::Relaxed);
        db.connection.progress_handler(1, Some(step)).unwrap();
        let mut random = Seed(4);
        let mut context = Context { now: Timestamp(77), random: &mut random };
        db.absorb(&at, &request, Some(response), Timestamp(78), &mut context).unwrap();
        db.connection.progress_handler(0, None::<fn() -> bool>).unwrap();
        taken.load(Ordering::Relaxed)
    };
    let pages = records / TOGETHER;
    for page in 0..pages {
        pull(page + 1, page * TOGETHER..(page + 1) * TOGETHER);
    }
    // What is counted is done once before: the first time, statements are prepared.
    pull(pages + 1, 500..501);
    pull(pages + 2, 501..502)
}

#[test]
fn one_record_takes_as_many_steps_in_a_large_dataset_as_in_a_small_one() {
    let [small, large] = [1_000, 200_000].map(steps_of_one_record);
    assert_eq!(small, large);
    assert!((10..2_000).contains(&small), "{small}");
}
