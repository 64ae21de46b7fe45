//! Live events: who is woken, how fast, and what becomes of a stream that is cut.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::Client;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use tests::harness::{Device, Events, Folder, Server, Tunnel};

async fn put(client: &Client, url: &str, token: &str, dataset: &str, value: &str) {
    let request = client.put(format!("{url}/v1/datasets/{dataset}/records/a")).header(AUTHORIZATION, token);
    let sent = request.header(CONTENT_TYPE, "application/json").body(value.to_owned()).send().await.unwrap();
    assert!(sent.status().is_success(), "{}", sent.status());
}

/// A thousand devices of one identity, and a thousand identities: a push wakes exactly those concerned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "how long it took is for people, and nothing that a test decides")]
async fn a_push_wakes_exactly_those_whom_it_concerns() {
    const MANY: usize = 1_000;
    let folder = Folder::new();
    let server = Server::start(&folder.path("server"));
    let url = server.url().to_owned();
    let client = Client::new();
    let ada = server.token("ada");
    let users = server.tokens((0..MANY).map(|at| format!("user{at}")));
    let woken = Arc::new(AtomicUsize::new(0));
    let wrongly = Arc::new(AtomicUsize::new(0));
    let mut listeners = tokio::task::JoinSet::new();
    for at in 0..2 * MANY {
        let is_ada = at < MANY;
        let token = if is_ada { ada.clone() } else { users[at - MANY].clone() };
        let mut events = Events::open(&client, &url, &token, None).await;
        assert_eq!(events.next().await.unwrap().name, "ready");
        let (woken, wrongly) = (Arc::clone(&woken), Arc::clone(&wrongly));
        listeners.spawn(async move {
            while let Some(event) = events.next().await {
                assert_eq!(event.name, "changed");
                if is_ada && event.data.contains("\"groceries\"") { &woken } else { &wrongly }
                    .fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let start = Instant::now();
    put(&client, &url, &ada, "groceries", "1").await;
    while woken.load(Ordering::SeqCst) < MANY {
        assert!(start.elapsed() < Duration::from_secs(20), "{} were woken", woken.load(Ordering::SeqCst));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("{MANY} of {} streams were woken within {:?}", 2 * MANY, start.elapsed());
    // Another one's push reaches that one alone, and by then all else would have come.
    let mut bob = Events::open(&client, &url, &users[7], None).await;
    assert_eq!(bob.next().await.unwrap().name, "ready");
    put(&client, &url, &users[7], "other", "1").await;
    assert!(bob.next().await.unwrap().data.contains("\"other\""));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(woken.load(Ordering::SeqCst), MANY, "once each");
    assert_eq!(wrongly.load(Ordering::SeqCst), 1, "the same user's other stream, and nobody else");
    listeners.abort_all();
}

/// However a stream is cut, what its reader hears afterwards makes up for what it missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_cut_at_any_byte_is_resumed_without_a_gap() {
    let folder = Folder::new();
    let server = Server::start(&folder.path("server"));
    let client = Client::new();
    let token = server.token("ada");
    // One run to see what comes: head and three events.
    let length = {
        let mut events = Events::open(&client, server.url(), &token, None).await;
        let mut bytes = 0;
        for name in ["one", "two", "three"] {
            put(&client, server.url(), &token, name, "0").await;
        }
        while bytes < 400 {
            bytes += events.skip_chunk().await.unwrap();
        }
        bytes
    };
    // The head of the answer counts too, so this ends within the third event.
    for cut in (0..length).step_by(11) {
        let tunnel = Tunnel::to(server.url());
        let client = Client::new();
        tunnel.cut_after(cut);
        let mut first = Events::try_open(&client, &tunnel.url(), &token, None).await;
        for name in ["one", "two", "three"] {
            put(&client, server.url(), &token, name, &cut.to_string()).await;
        }
        let mut missing = BTreeSet::from(["one", "two", "three"]);
        let mut last_id = None;
        while let Some(first) = &mut first {
            let Some(event) = first.next().await else { break };
            missing.retain(|name| !event.data.contains(&format!("\"{name}\"")));
            last_id = event.last_id;
        }
        let mut second = Events::open(&client, &tunnel.url(), &token, last_id.as_deref()).await;
        assert_eq!(second.next().await.unwrap().name, "ready");
        // Who was never told where to go on pulls everything anyway.
        while last_id.is_some() && !missing.is_empty() {
            let event = tokio::time::timeout(Duration::from_secs(10), second.next()).await;
            let event = event.unwrap_or_else(|_| panic!("cut after {cut} bytes, {missing:?} never came")).unwrap();
            if event.name == "behind" {
                break;
            }
            missing.retain(|name| !event.data.contains(&format!("\"{name}\"")));
        }
    }
}

#[test]
fn a_watching_device_hears_of_others_and_goes_on_after_a_restart_of_the_server() {
    let folder = Folder::new();
    let data = folder.path("server");
    let server = Server::start(&data);
    let token = server.token("ada");
    // The address stays, whatever server is behind it.
    let tunnel = Tunnel::to(server.url());
    let watching = Device::new(&folder, "watching").at(&tunnel.url()).with_token(&token);
    let mut watch = watching.spawn(&["sync", "--watch"]);
    let other = |server: &Server, value: &str| {
        let other = Device::new(&folder, "other").at(server.url()).with_token(&token);
        other.ok(&["put", "notes", "a", value]);
        other.sync();
    };
    let arrives = |value: &str| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while watching.run(&["get", "notes", "a"]).stdout.trim() != value {
            assert!(Instant::now() < deadline, "{value} did not arrive");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    other(&server, "1");
    arrives("1");
    server.stop();
    let server = Server::start(&data);
    tunnel.move_to(server.url());
    other(&server, "2");
    arrives("2");
    // What the device itself writes goes out too.
    watching.ok(&["put", "notes", "b", "3"]);
    let deadline = Instant::now() + Duration::from_secs(30);
    let reader = Device::new(&folder, "reader").at(server.url()).with_token(&token);
    loop {
        reader.sync();
        if reader.run(&["get", "notes", "b"]).stdout.trim() == "3" {
            break;
        }
        assert!(Instant::now() < deadline, "3 was not pushed");
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
}

/// A stream has no end of its own, so a server that stops must not wait for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_when_their_server_stops() {
    let folder = Folder::new();
    let data = folder.path("server");
    let server = Server::start(&data);
    let mut events = Events::open(&Client::new(), server.url(), &server.token("ada"), None).await;
    assert_eq!(events.next().await.unwrap().name, "ready");
    tokio::task::spawn_blocking(|| server.stop()).await.unwrap();
    assert_eq!(events.next().await, None);
    let log = std::fs::read_to_string(data.with_extension("log")).unwrap();
    assert!(log.contains("stopped") && !log.contains("stopped while requests were open"), "{log}");
}
