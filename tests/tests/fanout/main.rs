//! Several servers over one store: who listens at one of them hears what was written at another, with a real Redis
//! between them, while it is gone, and without one.
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod apps;
mod check;
mod processes;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use apps::{App, Apps, hear, next, until, within};
use tests::harness::{Events, Redis};

/// So long that nothing in these tests comes by asking the store.
const NEVER: &str = "1h";
/// So short that it comes at once.
const OFTEN: &str = "50ms";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_at_one_server_is_heard_at_the_other_and_each_commit_once() {
    let redis = Redis::start();
    let apps = Apps::start(Some(&redis.url()), NEVER).await;
    let mut ada = apps.listen(&apps.there, "ada").await;
    let mut bob = apps.listen(&apps.there, "bob").await;
    for (count, dataset) in [(1, "notes"), (1, "todos"), (2, "notes")] {
        apps.put(&apps.here, "ada", dataset).await;
        assert_eq!(next(&mut ada).await, format!("{dataset}@{count}"));
    }
    // Its own words come back to a server, and it does not say them twice.
    apps.put(&apps.there, "ada", "notes").await;
    assert_eq!(next(&mut ada).await, "notes@3");
    until("its own words came back", || apps.here.messages("received") == 1).await;
    apps.put(&apps.here, "ada", "notes").await;
    assert_eq!(next(&mut ada).await, "notes@4");
    // Nobody else was woken.
    apps.put(&apps.here, "bob", "last").await;
    assert_eq!(next(&mut bob).await, "last@1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_keep_deployments_apart_that_share_a_redis() {
    let redis = Redis::start();
    let one = Apps::start(Some(&format!("{}?channel=one", redis.url())), NEVER).await;
    let other = Apps::start(Some(&format!("{}/0?channel=other", redis.url())), NEVER).await;
    let mut listener = other.listen(&other.there, "ada").await;
    let mut own = one.listen(&one.there, "ada").await;
    one.put(&one.here, "ada", "theirs").await;
    assert_eq!(next(&mut own).await, "theirs@1");
    other.put(&other.here, "ada", "ours").await;
    assert_eq!(next(&mut listener).await, "ours@1");
}

/// By Redis, and by asking the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_at_one_server_ends_streams_at_the_other_and_leads_them_to_the_target() {
    let redis = Redis::start();
    for (url, poll_interval) in [(Some(redis.url()), NEVER), (None, OFTEN)] {
        let apps = Apps::start(url.as_deref(), poll_interval).await;
        apps.put(&apps.here, "bob", "his").await;
        apps.put(&apps.here, "ada", "hers").await;
        let mut of_ada = apps.listen(&apps.there, "ada").await;
        let mut of_bob = apps.listen(&apps.there, "bob").await;
        apps.link(&apps.here, "bob", "ada").await;
        hear(&mut of_bob, "end").await;
        hear(&mut of_ada, "behind").await;
        let mut of_bob = apps.listen(&apps.there, "bob").await;
        apps.put(&apps.here, "ada", "hers").await;
        hear(&mut of_bob, "hers@2").await;
        hear(&mut of_ada, "hers@2").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_the_store_says_what_the_other_server_wrote() {
    let apps = Apps::start(None, OFTEN).await;
    let mut ada = apps.listen(&apps.there, "ada").await;
    for count in 1..=3 {
        apps.put(&apps.here, "ada", "notes").await;
        assert_eq!(next(&mut ada).await, format!("notes@{count}"));
    }
    assert_eq!(apps.there.number("fanout_connected"), None);
    assert!(apps.there.number("fanout_looks_total{outcome=\"succeeded\"}").unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_gone_the_store_is_asked_and_when_it_is_there_again_nothing_was_missed() {
    let mut redis = Redis::start();
    let apps = Apps::start(Some(&redis.url()), OFTEN).await;
    let mut ada = apps.listen(&apps.there, "ada").await;
    apps.put(&apps.here, "ada", "notes").await;
    hear(&mut ada, "notes@1").await;
    redis.kill();
    for count in 2..=4 {
        apps.put(&apps.here, "ada", "notes").await;
        hear(&mut ada, &format!("notes@{count}")).await;
    }
    apps.connected(0).await;
    let ready = reqwest::get(format!("{}/readyz", apps.there.url)).await.unwrap();
    assert!(ready.status().is_success(), "a server is ready without Redis");
    redis.start_again();
    apps.put(&apps.here, "ada", "notes").await;
    apps.connected(1).await;
    hear(&mut ada, "notes@5").await;
    // Once everybody was looked after, it is Redis again that tells.
    let before = looks_at_rest(&apps.there).await;
    let received = apps.there.messages("received");
    apps.put(&apps.here, "ada", "notes").await;
    hear(&mut ada, "notes@6").await;
    assert_eq!((looks(&apps.there), apps.there.messages("received")), (before, received + 1));
}

/// Redis tells only who is there. What it told meanwhile is made up for, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_loses_nothing() {
    let redis = Redis::start();
    let apps = Apps::start(Some(&redis.url()), OFTEN).await;
    let mut ada = apps.listen(&apps.there, "ada").await;
    for count in 1..=20 {
        let kind: &[u8] = if count % 2 == 0 { b"pubsub" } else { b"normal" };
        redis.command(&[b"CLIENT", b"KILL", b"TYPE", kind, b"SKIPME", b"yes"]);
        apps.put(&apps.here, "ada", "notes").await;
        hear(&mut ada, &format!("notes@{count}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_start_before_redis_find_it() {
    let mut redis = Redis::start();
    redis.kill();
    let url = redis.url();
    let starting = Apps::start(Some(&url), NEVER);
    let again = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        redis.start_again();
    };
    let (apps, ()) = tokio::join!(starting, again);
    let mut ada = apps.listen(&apps.there, "ada").await;
    apps.put(&apps.here, "ada", "notes").await;
    assert_eq!(next(&mut ada).await, "notes@1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_say_on_the_channel_does_no_harm() {
    let redis = Redis::start();
    let apps = Apps::start(Some(&redis.url()), OFTEN).await;
    let mut ada = apps.listen(&apps.there, "ada").await;
    let mut bob = apps.listen(&apps.there, "bob").await;
    apps.put(&apps.here, "ada", "notes").await;
    hear(&mut ada, "notes@1").await;
    let owner = identity(&apps, "ada").await;
    let text = |text: &str| [&[0xa0 | text.len() as u8], text.as_bytes()].concat();
    let long = |text: &str| [&[0xd9, text.len() as u8], text.as_bytes()].concat();
    let said = |run: u8, number: u8, said: &[u8]| [&[1, 0x93, run, number, 0x91], said].concat();
    let linked = [&[0x81][..], &text("l"), &[0x92], &long(&owner), &long(&identity(&apps, "bob").await)].concat();
    let epoch = [0xc4, 16, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7];
    let moved = [&[0x81][..], &text("m"), &[0x94], &long(&owner), &text("notes"), &epoch, &[0x7f]].concat();
    let mut poison = vec![
        Vec::new(),
        b"hello".to_vec(),
        vec![0xff; 100_000],
        // A later version, a later message, lengths that are only claimed.
        vec![2, 0x93, 5, 5, 0x90],
        said(5, 1, &text("q")),
        vec![1, 0x93, 5, 5, 0xdd, 0xff, 0xff, 0xff, 0xff],
        vec![1, 0x93, 5, 5, 0x91, 0x81, 0xa1, b'l', 0x92, 0xdb, 0xff, 0xff, 0xff, 0xff],
        // A link that nobody made, and a dataset that is nowhere near.
        said(6, 1, &linked),
        said(6, 2, &moved),
        // A number that leaves all others out.
        [&[1, 0x93, 6, 0xcf][..], &[0xff; 8], &[0x90]].concat(),
    ];
    // A crowd of servers that fall silent at once.
    poison.extend((0..200).map(|run| said(run / 2, run % 2 * 9, &text("x"))));
    for bytes in &poison {
        assert!(redis.command(&[b"PUBLISH", b"syncline", bytes]).starts_with(":2"), "both servers hear it");
    }
    until("all of it was heard", || apps.there.messages("failed") >= 7).await;
    apps.put(&apps.here, "ada", "notes").await;
    hear(&mut ada, "notes@2").await;
    apps.put(&apps.here, "bob", "his").await;
    hear(&mut bob, "his@1").await;
    assert_eq!(apps.there.number("fanout_connected"), Some(1));
}

/// What is not heard is made up for by asking the store, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_words_of_another_server_are_missing_the_store_is_asked() {
    let redis = Redis::start();
    let apps = Apps::start(Some(&redis.url()), OFTEN).await;
    let silent = apps.silent().await;
    let mut ada = apps.listen(&apps.there, "ada").await;
    let beat = |number: u8| vec![1, 0x93, 7, number, 0x90];
    let publish = |bytes: &[u8]| redis.command(&[b"PUBLISH", b"syncline", bytes]);
    // Its first word, so that the next numbers are known.
    publish(&beat(1));
    let missed = vec![1, 0x93, 7, 4, 0x91, 0xa1, b'x'];
    for (count, word) in [(1, beat(3)), (2, missed), (3, vec![2]), (4, beat(9))] {
        apps.put(&silent, "ada", "notes").await;
        publish(&word);
        assert_eq!(next(&mut ada).await, format!("notes@{count}"));
    }
    let before = looks_at_rest(&apps.there).await;
    // Nothing is missing now, so nobody asks.
    publish(&beat(10));
    apps.put(&apps.here, "ada", "notes").await;
    assert_eq!((next(&mut ada).await, looks(&apps.there)), ("notes@5".to_owned(), before));
}

/// How often a server has asked the store.
fn looks(app: &App) -> Option<u64> {
    app.number("fanout_looks_total{outcome=\"succeeded\"}")
}

/// The same, once it asks no more.
async fn looks_at_rest(app: &App) -> Option<u64> {
    let mut before = None;
    while before.is_none() || before != looks(app) {
        before = looks(app);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    before
}

async fn identity(apps: &Apps, user: &str) -> String {
    let request = apps.client.get(format!("{}/v1/identity", apps.here.url)).bearer_auth(apps.token(user));
    let body: serde_json::Value = serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
    body["identity"].as_str().unwrap().to_owned()
}

/// Redis that stands still holds up nobody, and of what waits for it only the latest is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_waits_for_redis_in_one_message_and_no_push_waits_with_it() {
    const PUSHES: u64 = 300;
    let redis = Redis::start();
    let apps = Apps::start(Some(&redis.url()), NEVER).await;
    let mut ada = apps.listen(&apps.there, "ada").await;
    apps.put(&apps.here, "ada", "notes").await;
    hear(&mut ada, "notes@1").await;
    let before = apps.here.messages("published");
    redis.signal("STOP");
    let began = Instant::now();
    for _ in 0..PUSHES {
        apps.put(&apps.here, "ada", "notes").await;
    }
    let took = began.elapsed();
    redis.signal("CONT");
    hear(&mut ada, &format!("notes@{}", PUSHES + 1)).await;
    until("all of it was told", || apps.here.messages("published") > before).await;
    // The first was on its way already.
    assert!(apps.here.messages("published") - before <= 3, "{}", apps.here.messages("published") - before);
    assert!(took < Duration::from_secs(10), "{PUSHES} pushes took {took:?}");
}

/// A stopping server says what was written last, and the others need not ask the store because it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_tells_everything_first() {
    let redis = Redis::start();
    let apps = Apps::start(Some(&redis.url()), NEVER).await;
    let mut ada = apps.listen(&apps.there, "ada").await;
    for at in 0..80 {
        apps.put(&apps.here, "ada", &format!("d{at}")).await;
    }
    within("the end", apps.here.fanout.stop()).await;
    let mut missing: BTreeSet<String> = (0..80).map(|at| format!("d{at}@1")).collect();
    while !missing.is_empty() {
        let heard = next(&mut ada).await;
        assert!(missing.remove(&heard), "{heard}");
    }
}

/// A stream of one server that goes on at another has missed something, for all that is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_goes_on_at_another_server_is_told_to_pull_everything() {
    let apps = Apps::start(None, NEVER).await;
    let token = apps.token("ada");
    let mut here = Events::open(&apps.client, &apps.here.url, &token, None).await;
    let id = here.next().await.unwrap().last_id;
    let mut there = Events::open(&apps.client, &apps.there.url, &token, id.as_deref()).await;
    assert_eq!((next(&mut there).await, next(&mut there).await), ("ready".to_owned(), "behind".to_owned()));
}
