//! Records: order, pages, tombstones, and what keys and values may hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use sync_core::merge::push::{Commit, plan_purge};
use sync_core::model::{SyncCount, Timestamp, Value, limits};

use crate::store::conformance::draft::{Draft, dataset, head, key, live, range, write};
use crate::store::{CommitOutcome, RecordsAfter, RecordsRead, Store};

/// `key@count`, `-key@count` for tombstones, and `…` where there is more.
fn show(read: &RecordsRead) -> String {
    let mut shown = Vec::new();
    for record in &read.records {
        let sign = if record.value().is_none() { "-" } else { "" };
        shown.push(format!("{sign}{}@{}", record.key, record.sync_count));
    }
    if read.has_more {
        shown.push("…".to_owned());
    }
    shown.join(" ")
}

async fn check(store: &dyn Store, range: RecordsAfter, expected: &str) {
    let read = store.records_after(&dataset("notes"), &range).await.unwrap();
    assert_eq!(show(&read), expected, "{range:?}");
    assert_eq!(read.head, head(store, &dataset("notes")).await);
}

/// Writes one commit: keys between blanks, tombstones with a minus.
async fn commit(store: &dyn Store, draft: &mut Draft, keys: &str) {
    let mut commit = draft.next(&head(store, &dataset("notes")).await);
    for name in keys.split(' ') {
        match name.strip_prefix('-') {
            Some(name) => draft.remove(&mut commit, name),
            None => draft.put(&mut commit, name, Value::Text("12345678".to_owned())),
        }
    }
    write(store, &dataset("notes"), commit).await;
}

/// Records come by count, then by the bytes of their key; each with its latest count only.
pub async fn pages_come_in_order_of_count_and_key(store: Arc<dyn Store>) {
    let mut draft = Draft::new();
    for keys in ["c a B", "d", "a e -d", "f"] {
        commit(&*store, &mut draft, keys).await;
    }
    check(&*store, range(), "B@1 c@1 a@3 -d@3 e@3 f@4").await;
    check(&*store, RecordsAfter { since: SyncCount(1), ..range() }, "a@3 -d@3 e@3 f@4").await;
    check(&*store, RecordsAfter { since: SyncCount(4), ..range() }, "").await;
    check(&*store, RecordsAfter { since: SyncCount(u64::MAX), ..range() }, "").await;
    let after = |count, name| Some((SyncCount(count), key(name)));
    check(&*store, RecordsAfter { after: after(1, "a"), ..range() }, "c@1 a@3 -d@3 e@3 f@4").await;
    check(&*store, RecordsAfter { after: after(3, "d"), ..range() }, "e@3 f@4").await;
    // What is after a record that has moved meanwhile, or was never there.
    check(&*store, RecordsAfter { after: after(2, "d"), ..range() }, "a@3 -d@3 e@3 f@4").await;
    check(&*store, RecordsAfter { after: after(1, "a"), since: SyncCount(3), ..range() }, "f@4").await;
    check(&*store, RecordsAfter { after: after(u64::MAX, "a"), ..range() }, "").await;
}

/// A page ends before the record that would pass a limit, but is never empty while there is more.
pub async fn a_page_ends_at_its_limits_and_has_a_record(store: Arc<dyn Store>) {
    let mut draft = Draft::new();
    commit(&*store, &mut draft, "a b c -d").await;
    for (records_max, expected) in
        [(1, "a@1 …"), (2, "a@1 b@1 …"), (3, "a@1 b@1 c@1 …"), (4, "a@1 b@1 c@1 -d@1"), (5, "a@1 b@1 c@1 -d@1")]
    {
        check(&*store, RecordsAfter { records_max, ..range() }, expected).await;
    }
    // A key of one byte and a value of nine; the tombstone has its key only.
    for (bytes_max, expected) in
        [(0, "a@1 …"), (10, "a@1 …"), (19, "a@1 …"), (20, "a@1 b@1 …"), (30, "a@1 b@1 c@1 …"), (31, "a@1 b@1 c@1 -d@1")]
    {
        check(&*store, RecordsAfter { bytes_max, ..range() }, expected).await;
    }
}

/// Whoever goes on page by page meets each record that is written meanwhile.
pub async fn a_page_holds_what_was_written_while_pulling(store: Arc<dyn Store>) {
    let mut draft = Draft::new();
    commit(&*store, &mut draft, "a b c d").await;
    let mut pulled = BTreeMap::new();
    let mut range = RecordsAfter { records_max: 2, ..range() };
    for meanwhile in ["a e", "-b", "c", "f"] {
        let read = store.records_after(&dataset("notes"), &range).await.unwrap();
        let last = read.records.last().unwrap();
        range.after = Some((last.sync_count, last.key.clone()));
        pulled.extend(read.records.into_iter().map(|record| (record.key.clone(), record)));
        commit(&*store, &mut draft, meanwhile).await;
    }
    range.records_max = 100;
    let rest = store.records_after(&dataset("notes"), &range).await.unwrap();
    pulled.extend(rest.records.into_iter().map(|record| (record.key.clone(), record)));
    let everything = store.view(&dataset("notes"), &live("a b c d e f")).await.unwrap();
    assert_eq!(pulled, everything.records);
}

/// A snapshot needs no tombstones from before it began; they do not count for its limits either.
pub async fn tombstones_are_skipped_up_to_a_count(store: Arc<dyn Store>) {
    let mut draft = Draft::new();
    for keys in ["a -b -c", "-d e", "-f"] {
        commit(&*store, &mut draft, keys).await;
    }
    let skip = |count| RecordsAfter { skip_tombstones_to: SyncCount(count), ..range() };
    check(&*store, skip(1), "a@1 -d@2 e@2 -f@3").await;
    check(&*store, skip(2), "a@1 e@2 -f@3").await;
    check(&*store, RecordsAfter { records_max: 2, ..skip(u64::MAX) }, "a@1 e@2").await;
}

/// Tombstones up to the floor go, records stay.
pub async fn a_purge_removes_tombstones_up_to_the_floor(store: Arc<dyn Store>) {
    let mut draft = Draft::new();
    for keys in ["a -b", "-c d", "-e", "-b"] {
        commit(&*store, &mut draft, keys).await;
    }
    let before = head(&*store, &dataset("notes")).await;
    write(&*store, &dataset("notes"), plan_purge(&before, SyncCount(2))).await;
    check(&*store, range(), "a@1 d@2 -e@3 -b@4").await;
    let after = head(&*store, &dataset("notes")).await;
    assert_eq!((after.floor, after.lineage.position()), (SyncCount(2), before.lineage.position()));
}

/// A push planned before a purge is written, and does not take the floor back.
pub async fn the_floor_never_goes_down(store: Arc<dyn Store>) {
    let mut draft = Draft::new();
    commit(&*store, &mut draft, "a -b").await;
    let seen = head(&*store, &dataset("notes")).await;
    write(&*store, &dataset("notes"), plan_purge(&seen, SyncCount(1))).await;
    let mut push = draft.next(&seen);
    draft.put(&mut push, "c", Value::Null);
    write(&*store, &dataset("notes"), push).await;
    assert_eq!(head(&*store, &dataset("notes")).await.floor, SyncCount(1));
    let overtaken: Commit = plan_purge(&seen, SyncCount(1));
    assert_eq!(store.commit(&dataset("notes"), overtaken).await.unwrap(), CommitOutcome::Stale);
}

/// Purging finds the datasets that have old tombstones, and takes a bounded number of these at once.
pub async fn old_tombstones_are_found_oldest_first(store: Arc<dyn Store>) {
    let mut draft = Draft::new();
    for keys in ["a -b", "-c", "d", "-e"] {
        commit(&*store, &mut draft, keys).await;
    }
    let mut other = draft.next(&Default::default());
    draft.remove(&mut other, "x");
    write(&*store, &dataset("other"), other).await;
    // The commit of count n was at n seconds.
    let old = async |before, most| {
        let old = store.old_tombstones(Timestamp(before), most).await.unwrap();
        old.iter().map(|(dataset, floor)| format!("{}@{floor}", dataset.name)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(old(1_000, 10).await, "");
    assert_eq!(old(1_001, 10).await, "notes@1 other@1");
    assert_eq!(old(4_000, 10).await, "notes@2 other@1");
    assert_eq!(old(9_000, 10).await, "notes@4 other@1");
    assert_eq!(old(9_000, 3).await, "notes@2 other@1");
    let before = head(&*store, &dataset("notes")).await;
    write(&*store, &dataset("notes"), plan_purge(&before, SyncCount(2))).await;
    assert_eq!(old(9_000, 10).await, "notes@4 other@1");
    assert_eq!(old(4_000, 10).await, "other@1");
}

/// Keys are the same if their bytes are: no case, no trailing blank, no Unicode form is made equal.
pub async fn keys_are_compared_by_bytes(store: Arc<dyn Store>) {
    let names =
        ["key", "Key", "key ", "caf\u{e9}", "cafe\u{301}", "a\0b", "a", "😀", "a/b", "%", "_", "'", "\u{feff}a"];
    let mut draft = Draft::new();
    let mut commit = draft.next(&Default::default());
    for (at, name) in names.iter().enumerate() {
        draft.put(&mut commit, name, Value::Int(at as i64));
    }
    write(&*store, &dataset("notes"), commit).await;
    for (at, name) in names.iter().enumerate() {
        let touched = crate::store::Touched { keys: [key(name)].into(), ..Default::default() };
        let view = store.view(&dataset("notes"), &touched).await.unwrap();
        assert_eq!(view.records[&key(name)].value(), Some(&Value::Int(at as i64)), "{name:?}");
    }
    let read = store.records_after(&dataset("notes"), &range()).await.unwrap();
    let mut sorted = names.map(key);
    sorted.sort();
    assert_eq!(read.records.iter().map(|record| record.key.clone()).collect::<Vec<_>>(), sorted);
}

/// Limits are limits: what is just within fits.
pub async fn the_longest_key_and_the_largest_value_fit(store: Arc<dyn Store>) {
    let long = "\u{ffff}".repeat(limits::KEY_BYTES_MAX / 3) + "x";
    assert_eq!(long.len(), limits::KEY_BYTES_MAX);
    let large = Value::Bytes((0..limits::VALUE_BYTES_MAX - 5).map(|at| at as u8).collect());
    assert_eq!(large.encoded_len(), limits::VALUE_BYTES_MAX);
    let mut draft = Draft::new();
    let mut commit = draft.next(&Default::default());
    draft.put(&mut commit, &long, large.clone());
    draft.put(&mut commit, &long[3..], Value::Null);
    write(&*store, &dataset("notes"), commit).await;
    let view = store.view(&dataset("notes"), &live(&long)).await.unwrap();
    assert_eq!(view.records[&key(&long)].value(), Some(&large));
    let read = store.records_after(&dataset("notes"), &RecordsAfter { bytes_max: 1 << 21, ..range() }).await.unwrap();
    let lengths: Vec<_> = read.records.iter().map(|record| record.key.as_str().len()).collect();
    assert_eq!((lengths, read.has_more), (vec![long.len() - 3, long.len()], false));
}

/// Numbers keep their kind and every bit, texts and bytes every byte, unknown kinds what they are.
pub async fn every_kind_of_value_comes_back_as_it_was(store: Arc<dyn Store>) {
    let map = |name: &str, value: Value| Value::Map([(name.to_owned(), value)].into());
    let mut deep = Value::Null;
    for level in 0..Value::DEPTH_MAX {
        deep = if level % 2 == 0 { Value::List(vec![deep]) } else { map("", deep) };
    }
    let values = [
        Value::Null,
        Value::Bool(false),
        Value::Int(i64::MIN),
        Value::Int(i64::MAX),
        Value::Int((1 << 53) + 1),
        Value::Float(0.1),
        Value::Float(f64::MAX),
        Value::Float(5e-324),
        Value::Text("NUL \0, emoji 😀, \u{2028}".to_owned()),
        Value::Text(String::new()),
        Value::Bytes(vec![0, 255]),
        Value::List(vec![]),
        map("$bytes", Value::Text("no bytes".to_owned())),
        Value::Unknown { kind: 42, bytes: vec![1, 2, 3] },
        deep,
    ];
    let mut draft = Draft::new();
    let mut commit = draft.next(&Default::default());
    for (at, value) in values.iter().enumerate() {
        draft.put(&mut commit, &format!("{at:02}"), value.clone());
    }
    write(&*store, &dataset("notes"), commit).await;
    let read = store.records_after(&dataset("notes"), &range()).await.unwrap();
    let found: Vec<_> = read.records.iter().filter_map(|record| record.value().cloned()).collect();
    assert_eq!(found, values);
}
