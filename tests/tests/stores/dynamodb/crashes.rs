//! Servers that are killed at each of their requests, before it is done or after.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::join_all;
use sync_core::model::{DeviceId, SyncCount, Timestamp, Value};
use syncline_server::metrics::StoreUnits;
use syncline_server::store::devices::{Platform, PushToken, Registration};
use syncline_server::store::dynamodb::DynamoDbStore;
use syncline_server::store::{CommitOutcome, DatasetAddress, Store, Touched};
use tests::harness::{DynamoDb, DynamoDbFault, DynamoDbProxy};
use tokio::sync::Notify;

use crate::dynamodb::draft::{above, dataset, device, head, key, next, owner, show, text, write};

/// Where a server is killed.
#[derive(Clone, Copy, Debug)]
struct Kill {
    /// At which request.
    at: usize,
    /// Whether it is done before.
    is_done: bool,
}

/// Kills that are tried at once.
const TOGETHER: usize = 12;
/// More requests than anything here takes.
const REQUESTS_MAX: usize = 200;

/// Lets a server work until it is killed; says whether it was.
async fn killed<W>(emulator: &DynamoDb, kill: Kill, work: impl FnOnce(DynamoDbStore) -> W) -> bool
where
    W: Future<Output = ()> + Send + 'static,
{
    let (armed, reached) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
    let proxy = {
        let (armed, reached, asked) = (Arc::clone(&armed), Arc::clone(&reached), AtomicUsize::new(0));
        DynamoDbProxy::start(&emulator.url(), move |_, _| {
            if !armed.load(Ordering::SeqCst) {
                return DynamoDbFault::Pass;
            }
            let number = asked.fetch_add(1, Ordering::SeqCst);
            if number == kill.at {
                reached.notify_one();
            }
            match number.cmp(&kill.at) {
                std::cmp::Ordering::Less => DynamoDbFault::Pass,
                std::cmp::Ordering::Equal if kill.is_done => DynamoDbFault::KeepAnswer,
                // Also what is under way at the same time.
                _ => DynamoDbFault::KeepRequest,
            }
        })
    };
    let store = DynamoDb::store_at(&proxy.url(), StoreUnits::default()).await;
    armed.store(true, Ordering::SeqCst);
    let mut work = tokio::spawn(work(store));
    tokio::select! {
        done = &mut work => { done.unwrap(); false }
        () = reached.notified() => {
            // What is to be done before is done by then.
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            work.abort();
            true
        }
    }
}

/// Tries all places where something can be killed, until it comes to its end.
async fn at_each_request<C>(check: impl Fn(Kill) -> C)
where
    C: Future<Output = bool>,
{
    let all: Vec<Kill> = (0..REQUESTS_MAX).flat_map(|at| [false, true].map(|is_done| Kill { at, is_done })).collect();
    for (index, kills) in all.chunks(TOGETHER).enumerate() {
        let killed = join_all(kills.iter().map(|kill| check(*kill))).await;
        if killed.contains(&false) {
            assert!(index > 0, "nothing was killed");
            return;
        }
    }
    panic!("it does not come to its end");
}

/// What is in the dataset before, so that each kind of thing is replaced: small and large values, and a tombstone.
async fn before(store: &dyn Store, notes: &DatasetAddress) {
    let put = [("large", 500_000), ("small", 10), ("other", 10)].map(|(name, bytes)| (name.to_owned(), text(bytes)));
    write(store, notes, &put, &["gone"]).await;
}

const BEFORE: &str = "gone@1:- large@1:500005 other@1:11 small@1:11";

/// The write that is interrupted: staged, if it has many records.
fn put(records: usize) -> Vec<(String, Value)> {
    let mut put = vec![("large".to_owned(), text(450_000)), ("gone".to_owned(), text(20))];
    put.extend((0..records).map(|at| (format!("n{at:02}"), text(400))));
    put
}

/// Writes in a server that is killed, and looks at what others find then.
async fn interrupted_commit(kill: Kill, records: usize) -> bool {
    let emulator = DynamoDb::start();
    let direct = emulator.store().await;
    let notes = dataset("ada", "notes");
    before(&direct, &notes).await;
    let old = head(&direct, &notes).await;
    let commit = next(&old, &put(records), &["small"]);
    let new = commit.head.clone();
    let (address, change) = (notes.clone(), commit.changes[0].0);
    let was_killed = killed(&emulator, kill, |store| async move {
        assert_eq!(store.commit(&address, commit).await.unwrap(), CommitOutcome::Written)
    })
    .await;

    let other = DynamoDb::store_at(&emulator.url(), StoreUnits::default()).await;
    let numbered: String = (0..records).map(|at| format!(" n{at:02}@2:403")).collect();
    let all_new = format!("other@1:11 gone@2:21 large@2:450005{numbered} small@2:-");
    let read = other.records_after(&notes, &above(0)).await.unwrap();
    let is_new = read.head == new;
    assert!(is_new || read.head == old, "{kill:?}");
    assert_eq!(show(&read), if is_new { all_new.as_str() } else { BEFORE }, "{kill:?}");
    assert!(is_new || was_killed, "{kill:?}");
    let keys = ["large", "gone", "small", "other"].map(key).into();
    let touched = Touched { keys, pushes: [(device(), [2].into())].into(), changes: [change].into() };
    let view = other.view(&notes, &touched).await.unwrap();
    assert_eq!((view.head == new, view.changes.len()), (is_new, usize::from(is_new)), "{kill:?}");
    let newest = view.pushes[&device()].last().unwrap().sequence;
    assert_eq!(newest, if is_new { 2 } else { 1 }, "{kill:?}");

    // It goes on, as if nothing had happened.
    write(&other, &notes, &[("small".to_owned(), text(30))], &[]).await;
    other.sweep(0).await.unwrap();
    assert_eq!(other.leftovers().await.unwrap(), [""; 0], "{kill:?}");
    let count = if is_new { 3 } else { 2 };
    let read = other.records_after(&notes, &above(0)).await.unwrap();
    let old_part = "gone@1:- large@1:500005 other@1:11";
    let new_part = format!("other@1:11 gone@2:21 large@2:450005{numbered}");
    let rest = if is_new { new_part.as_str() } else { old_part };
    assert_eq!(show(&read), format!("{rest} small@{count}:31"), "{kill:?}");
    assert_eq!(read.head.lineage.count, SyncCount(count));
    // Of the large value, and of no other one, there are two parts.
    assert_eq!(items(&emulator).await.get("V").copied(), Some(2), "{kill:?}");
    was_killed
}

/// How many items there are, by the letter that their key begins with; of records none.
pub(super) async fn items(emulator: &DynamoDb) -> BTreeMap<String, usize> {
    let client = DynamoDb::client(&emulator.url());
    let mut found = BTreeMap::new();
    let mut start = None;
    loop {
        let scan = client.scan().table_name(emulator.table()).set_exclusive_start_key(start).send().await.unwrap();
        for item in scan.items() {
            let [partition, sort] = ["pk", "sk"].map(|name| item[name].as_s().unwrap().as_str());
            let is_record = partition.rsplit('|').next().is_some_and(|part| part.starts_with('r'));
            let is_tombstone = item.get("g").map(AttributeValue::as_s).is_some();
            let letter = match (is_record, is_tombstone) {
                (true, true) => "tombstone",
                (true, false) => "record",
                (false, _) => sort.split('|').next().unwrap(),
            };
            *found.entry(letter.to_owned()).or_default() += 1;
        }
        start = scan.last_evaluated_key;
        if start.is_none() {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_is_killed_has_written_all_or_nothing() {
    at_each_request(|kill| interrupted_commit(kill, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_is_killed_with_a_large_group_has_written_all_or_nothing() {
    at_each_request(|kill| interrupted_commit(kill, 12)).await;
}

/// The first commit of a dataset, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dataset_whose_first_writer_is_killed_is_there_or_not() {
    let check = |kill| async move {
        let emulator = DynamoDb::start();
        let direct = emulator.store().await;
        let notes = dataset("ada", "notes");
        let commit = next(&Default::default(), &put(12), &[]);
        let address = notes.clone();
        let was_killed = killed(&emulator, kill, |store| async move {
            assert_eq!(store.commit(&address, commit).await.unwrap(), CommitOutcome::Written)
        })
        .await;
        let read = direct.records_after(&notes, &above(0)).await.unwrap();
        assert!([0, 14].contains(&read.records.len()), "{kill:?}: {}", show(&read));
        let is_there = !read.records.is_empty();
        assert!(is_there || was_killed);
        assert_eq!(direct.addresses(None, 10).await.unwrap().len(), usize::from(is_there), "{kill:?}");
        write(&direct, &notes, &[("a".to_owned(), text(1))], &[]).await;
        direct.sweep(0).await.unwrap();
        assert_eq!(items(&emulator).await.get("V").copied(), is_there.then_some(2), "{kill:?}");
        was_killed
    };
    at_each_request(check).await;
}

fn registration(number: u8) -> Registration {
    Registration {
        device: DeviceId::from_bytes([number; 16]),
        platform: Platform::Fcm,
        token: PushToken::parse(format!("t{number}")).unwrap(),
        name: None,
        registered_at: Timestamp(i64::from(number)),
    }
}

/// The datasets and devices of two owners, each of them at one, or told to have moved.
async fn seen(store: &dyn Store) -> String {
    let mut seen = Vec::new();
    for id in ["ada", "bob"] {
        let names = match store.datasets(&owner(id), None, 10).await {
            Ok(names) => names.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            Err(error) => error.to_string(),
        };
        let devices = match store.directory().devices(&owner(id)).await {
            Ok(devices) => devices.iter().map(|found| found.token.reveal().to_owned()).collect::<Vec<_>>().join(","),
            Err(_) => String::new(),
        };
        seen.push(format!("{id}: {names} {devices}"));
    }
    let addresses = store.addresses(None, 10).await.unwrap();
    let shown = addresses.iter().map(|address| format!("{}/{}", address.owner, address.name)).collect::<Vec<_>>();
    format!("{}; {}", seen.join("; "), shown.join(" "))
}

const APART: &str = "ada: gone,notes t3,t1; bob: notes,todos t4,t2; \
     local:ada/gone local:ada/notes local:bob/notes local:bob/todos";
const LINKED: &str = "ada: gone,notes,notes.bob,todos t4,t3,t2,t1; bob: the owner was linked to another one ; \
     local:ada/gone local:ada/notes local:ada/notes.bob local:ada/todos";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_interrupted_has_happened_or_not_and_comes_to_its_end() {
    let check = |kill| async move {
        let emulator = DynamoDb::start();
        let direct = emulator.store().await;
        for (id, name) in [("ada", "gone"), ("ada", "notes"), ("bob", "notes"), ("bob", "todos")] {
            write(&direct, &dataset(id, name), &[(id.to_owned(), text(10))], &[]).await;
        }
        for (id, number) in [("ada", 1), ("bob", 2), ("ada", 3), ("bob", 4)] {
            direct.directory().register(&owner(id), registration(number)).await.unwrap();
        }
        assert_eq!(seen(&direct).await, APART);
        let was_killed = killed(&emulator, kill, |store| async move {
            drop(store.directory().link(&owner("bob"), &owner("ada")).await.unwrap());
        })
        .await;
        let other = DynamoDb::store_at(&emulator.url(), StoreUnits::default()).await;
        let found = seen(&other).await;
        let is_linked = found == LINKED;
        assert!(is_linked || was_killed && found == APART, "{kill:?}: {found}");
        assert_eq!(other.directory().resolve(&owner("bob")).await.unwrap() == owner("ada"), is_linked);
        // Whoever writes for either of them brings it to its end, and is not in the way of it.
        if kill.at % 2 == 0 && !is_linked {
            let notes = dataset("bob", "notes");
            let commit = next(&head(&other, &notes).await, &[("more".to_owned(), text(5))], &[]);
            drop(other.commit(&notes, commit).await);
        } else {
            write(&other, &dataset("ada", "notes"), &[("more".to_owned(), text(5))], &[]).await;
        }
        let linked = other.directory().link(&owner("bob"), &owner("ada")).await.unwrap();
        assert_eq!(linked.target, owner("ada"));
        assert_eq!(linked.renamed.len(), 1, "{kill:?}");
        assert_eq!(seen(&other).await, LINKED, "{kill:?}");
        for (name, whose) in [("notes", "ada"), ("notes.bob", "bob"), ("todos", "bob")] {
            let read = other.records_after(&dataset("ada", name), &above(0)).await.unwrap();
            assert!(show(&read).starts_with(whose), "{kill:?}: {name}: {}", show(&read));
        }
        write(&other, &dataset("ada", "notes.bob"), &[("end".to_owned(), text(5))], &[]).await;
        was_killed
    };
    at_each_request(check).await;
}

/// A server that was held up in the middle of a link changes nothing any more, once another one has brought it to its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_held_up_in_a_link_does_not_bring_back_what_went_since() {
    let emulator = DynamoDb::start();
    let direct = emulator.store().await;
    for (id, number) in [("ada", 1), ("bob", 2)] {
        write(&direct, &dataset(id, "notes"), &[(id.to_owned(), text(10))], &[]).await;
        direct.directory().register(&owner(id), registration(number)).await.unwrap();
    }
    let (is_held, held) = std::sync::mpsc::channel();
    let (goes_on, go_on) = std::sync::mpsc::channel();
    // The first transaction begins the link, the second one brings the devices.
    let mut transactions = 0;
    let proxy = DynamoDbProxy::start(&emulator.url(), move |operation, _| {
        transactions += usize::from(operation == "TransactWriteItems");
        if operation == "TransactWriteItems" && transactions == 2 {
            is_held.send(()).unwrap();
            go_on.recv().unwrap();
        }
        DynamoDbFault::Pass
    });
    let late = DynamoDb::store_at(&proxy.url(), StoreUnits::default()).await;
    let linking = tokio::spawn(async move { late.directory().link(&owner("bob"), &owner("ada")).await });
    tokio::task::spawn_blocking(move || held.recv().unwrap()).await.unwrap();
    assert!(direct.directory().unregister(&owner("ada"), registration(2).device).await.unwrap());
    goes_on.send(()).unwrap();
    assert_eq!(linking.await.unwrap().unwrap().renamed.len(), 1);
    assert_eq!(direct.directory().devices(&owner("ada")).await.unwrap(), [registration(1)]);
}
