//! Clients that are many, slow, deaf or greedy: those who behave are served all the same.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::harness::{Device, Folder, Server, allow_open_files, http};

/// How long something may take that comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with these settings.
fn start(folder: &Folder, config: &str) -> Server {
    Server::start_configured(&folder.path("data"), &folder.write("syncline.toml", config))
}

fn host(server: &Server) -> &str {
    server.url().split_once("://").unwrap().1
}

/// A connection on which these bytes were sent.
fn connect(server: &Server, sent: &str) -> TcpStream {
    let mut stream = TcpStream::connect(host(server)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(sent.as_bytes()).unwrap();
    stream
}

/// What the server still says before it ends the connection.
#[track_caller]
fn last_words(stream: &mut TcpStream) -> String {
    let mut words = Vec::new();
    match stream.read_to_end(&mut words) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the connection was not ended"),
        // Ended, in one way or the other.
        _ => String::from_utf8_lossy(&words).into_owned(),
    }
}

/// Two devices of a user sync with each other.
#[track_caller]
fn assert_devices_sync(folder: &Folder, server: &Server, user: &str) {
    let token = server.token(user);
    let [one, other] =
        ["one", "other"].map(|name| Device::new(folder, &format!("{user}-{name}")).at(server.url()).with_token(&token));
    one.ok(&["put", "notes", "a", "1"]);
    one.sync();
    other.sync();
    assert_eq!(other.value("notes", "a"), json!(1));
}

#[test]
fn ten_thousand_open_connections_cost_little_and_devices_sync_beside_them() {
    const CONNECTIONS: u64 = 10_000;
    /// Much more than what one costs, and much less than what a request may.
    const BYTES_MAX: u64 = 25_000;
    allow_open_files(CONNECTIONS + 500);
    let folder = Folder::new();
    let server = start(&folder, "[server]\nconnections_max = 10100\nhead_timeout = \"15s\"\n");
    assert_devices_sync(&folder, &server, "ada");
    let before = server.memory();
    // Who says nothing, who begins to, and who was served and stays.
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", host(&server));
    let sent = ["", "GET /v1/datasets HTTP/1.1\r\nHost: ", &request];
    let mut connections: Vec<_> = (0..CONNECTIONS as usize).map(|at| connect(&server, sent[at % sent.len()])).collect();
    for served in connections.iter_mut().skip(2).step_by(sent.len()) {
        let mut answer = [0; 12];
        served.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    assert_devices_sync(&folder, &server, "bob");
    let each = server.memory_peak().saturating_sub(before) / CONNECTIONS;
    assert!(each < BYTES_MAX, "each connection takes {each} bytes");
    // All of them are ended in time.
    for connection in &mut connections {
        last_words(connection);
    }
    assert_devices_sync(&folder, &server, "eve");
    server.stop();
}

#[test]
fn an_idle_stream_of_events_takes_at_most_25_kilobytes() {
    const STREAMS: usize = 2_000;
    allow_open_files(STREAMS as u64 + 500);
    let folder = Folder::new();
    let server = Server::start(&folder.path("data"));
    let tokens = server.tokens((0..STREAMS / 50).map(|user| format!("user-{user}")));
    let listen = |token: &String| {
        let head =
            format!("GET /v1/events HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\r\n", host(&server));
        let mut stream = connect(&server, &head);
        let mut answer = String::new();
        while !answer.contains("event: ready") {
            let mut bytes = [0; 1_024];
            let read = stream.read(&mut bytes).unwrap();
            assert!(read > 0, "{answer}");
            answer.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
        stream
    };
    // The first ones bring about what all share.
    let _first: Vec<_> = tokens.iter().map(listen).collect();
    let before = server.memory();
    let streams: Vec<_> = tokens.iter().cycle().take(STREAMS).map(listen).collect();
    let each = server.memory().saturating_sub(before) / streams.len() as u64;
    assert!(each <= 25_000, "each stream takes {each} bytes");
}

#[test]
fn clients_that_are_slow_lose_their_places_to_those_who_wait() {
    const PLACES: usize = 12;
    let folder = Folder::new();
    let config = format!("[server]\nconnections_max = {PLACES}\nhead_timeout = \"1s\"\nbody_timeout = \"1s\"\n");
    let server = start(&folder, &config);
    let token = server.token("mallory");
    let body = format!(
        "PUT /v1/datasets/notes/records/a HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n",
        host(&server)
    );
    // What is sent at once, what then comes byte by byte, and what the server says to it.
    let cases: [(&str, &str, &str); 5] = [
        ("", "", ""),
        ("", "GET / HTTP/1.1\r\nHost: a-very-long-name", ""),
        // It might become HTTP/2.
        ("PRI * HT", "", ""),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "", ""),
        (&body, "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", "HTTP/1.1 408"),
    ];
    for (at_once, slowly, answered) in cases {
        let begun = Instant::now();
        let slow: Vec<TcpStream> = (0..PLACES).map(|_| connect(&server, at_once)).collect();
        let served = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for byte in slowly.bytes().cycle().take_while(|_| !served.load(Ordering::Relaxed)) {
                    for mut stream in &slow {
                        let _ended_or_not = stream.write_all(&[byte]);
                    }
                    thread::sleep(Duration::from_millis(100));
                }
            });
            let user = format!("user-{}-{}", at_once.len(), slowly.len());
            assert_devices_sync(&folder, &server, &user);
            served.store(true, Ordering::Relaxed);
        });
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(10), "{at_once:?} {slowly:?} held others up for {took:?}");
        for mut stream in slow {
            let words = last_words(&mut stream);
            assert!(words.starts_with(answered), "{at_once:?} {slowly:?}: {words:?}");
        }
    }
}

#[test]
fn large_bodies_that_stall_take_bounded_memory_and_devices_sync_beside_them() {
    const USERS: usize = 16;
    const EACH: usize = 4;
    const BODY_BYTES: usize = 8_000_000;
    /// What bodies may take, and as much again while their buffers grow; all of them would take 500 MB.
    const MEMORY_MAX: u64 = 100_000_000;
    let folder = Folder::new();
    let server = start(&folder, "[server]\nbodies_bytes_max = 33554432\n");
    assert_devices_sync(&folder, &server, "ada");
    let before = server.memory();
    let stall = |token: &String| {
        let head = format!(
            "POST /v1/sync HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {BODY_BYTES}\r\n\r\n",
            host(&server)
        );
        let mut stream = connect(&server, &head);
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        // The server ends it in the middle, or waits for the last byte.
        let is_taken = stream.write_all(&vec![b' '; BODY_BYTES - 1]).is_ok();
        (stream, is_taken)
    };
    let tokens = server.tokens((0..USERS).map(|user| format!("mallory-{user}")));
    let stalled: Vec<_> = tokens.iter().cycle().take(USERS * EACH).map(stall).collect();
    assert!(stalled.iter().any(|(_, is_taken)| *is_taken), "those that there is room for are waited for");
    assert_devices_sync(&folder, &server, "bob");
    let taken = server.memory_peak().saturating_sub(before);
    assert!(taken < MEMORY_MAX, "they took {taken} bytes");
    drop(stalled);
    assert_devices_sync(&folder, &server, "eve");
}

#[test]
fn over_tls_too_who_says_nothing_is_not_waited_for() {
    let folder = Folder::new();
    let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let certificate = folder.write("certificate.pem", &issued.cert.pem());
    let key = folder.write("key.pem", &issued.signing_key.serialize_pem());
    let config = format!(
        "[server]\nconnections_max = 4\nhead_timeout = \"1s\"\ntls_certificate = {certificate:?}\ntls_key = {key:?}\n"
    );
    let server = start(&folder, &config);
    let hello = "\u{16}\u{3}\u{1}\u{2}";
    for sent in ["", hello] {
        let mut silent: Vec<_> = (0..4).map(|_| connect(&server, sent)).collect();
        let phone = Device::new(&folder, "phone").at(server.url()).with_token(&server.token("ada"));
        phone.ok(&["put", "notes", "a", "1"]);
        phone.trusting(&certificate).sync();
        silent.iter_mut().for_each(|stream| drop(last_words(stream)));
    }
}

/// How often to ask on one connection for more than what the systems on both sides keep of the answers.
const OFTEN: usize = 50;

/// Pushes a user's dataset of 2 MB, which cannot be made fewer, and returns a request for all of it.
fn large_answer(folder: &Folder, server: &Server, user: &str) -> String {
    let token = server.token(user);
    let mut noise = 88_172_645_463_325_252_u64;
    let mut hex = || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        format!("{noise:016x}")
    };
    let lines: String = (0..40)
        .map(|at| {
            let value: String = (0..3_000).map(|_| hex()).collect();
            json!({"op": "put", "key": format!("k{at}"), "value": value}).to_string() + "\n"
        })
        .collect();
    let phone = Device::new(folder, user).at(server.url()).with_token(&token);
    phone.ok_with_input(&["apply", "notes", "-"], &lines);
    phone.sync();
    format!(
        "GET /v1/datasets/notes/records?limit=1000 HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\r\n",
        host(server)
    )
}

#[test]
fn answers_that_are_taken_slowly_come_whole() {
    let folder = Folder::new();
    let server = start(&folder, "[server]\nhead_timeout = \"1s\"\n");
    let request = large_answer(&folder, &server, "ada");
    let mut slow = connect(&server, &request.repeat(OFTEN));
    thread::sleep(Duration::from_secs(3));
    let answers = last_words(&mut slow);
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), OFTEN);
    let [first, .., last] = answers.split("HTTP/1.1 200 OK").skip(1).collect::<Vec<_>>()[..] else {
        panic!("no answers")
    };
    assert_eq!(first.len(), last.len());
}

#[test]
fn who_does_not_take_an_answer_keeps_its_place_until_the_connection_is_given_up() {
    const REQUESTS: usize = 2;
    let folder = Folder::new();
    let config =
        format!("[server]\nrequests_max = {REQUESTS}\nanswer_timeout = \"5s\"\n[rates]\nrequests_per_second = 0\n");
    let server = start(&folder, &config);
    let requests = large_answer(&folder, &server, "mallory").repeat(OFTEN);
    let bob = server.token("bob");
    let busy = || http("GET", &format!("{}/v1/datasets", server.url()), &bob, &Value::Null).0;
    let deaf = [(); REQUESTS].map(|()| connect(&server, &requests));
    wait_for("all places to be taken", || busy() == 429);
    // They take what the systems in between keep for them, and then no more.
    let held = || {
        thread::sleep(Duration::from_millis(50));
        busy() == 429
    };
    wait_for("all places to be held", || (0..20).all(|_| held()));
    wait_for("a place to be free", || busy() == 200);
    assert_devices_sync(&folder, &server, "ada");
    drop(deaf);
    server.stop();
}

#[test]
fn answers_that_are_not_taken_take_bounded_memory_and_devices_sync_beside_them() {
    const USERS: usize = 8;
    const EACH: usize = 8;
    /// What answers may take, and as much again while they are made; all of them would take 128 MB.
    const MEMORY_MAX: u64 = 64_000_000;
    let folder = Folder::new();
    let config = "[server]\nbodies_bytes_max = 16777216\nanswer_timeout = \"5s\"\n[rates]\nrequests_per_second = 0\n";
    let server = start(&folder, config);
    let requests: Vec<_> =
        (0..USERS).map(|user| large_answer(&folder, &server, &format!("mallory-{user}")).repeat(OFTEN)).collect();
    let before = server.memory();
    let deaf: Vec<_> = requests.iter().cycle().take(USERS * EACH).map(|requests| connect(&server, requests)).collect();
    assert_devices_sync(&folder, &server, "ada");
    thread::sleep(Duration::from_secs(2));
    // While there is little room, pages are small.
    let records = format!("{}/v1/datasets/notes/records?limit=1000", server.url());
    let (status, page) = http("GET", &records, &server.token("mallory-0"), &Value::Null);
    let got = page["records"].as_array().map_or(0, Vec::len);
    assert!(status == 200 && got < 40 && page["has_more"] == json!(true), "{status}, {got} records");
    assert_devices_sync(&folder, &server, "bob");
    let taken = server.memory_peak().saturating_sub(before);
    assert!(taken < MEMORY_MAX, "they took {taken} bytes");
    // Who comes again is served once they are given up.
    let other = Device::new(&folder, "other").at(server.url()).with_token(&server.token("mallory-0"));
    other.sync();
    assert_eq!(other.value("notes", "k39"), Device::new(&folder, "mallory-0").value("notes", "k39"));
    drop(deaf);
    server.stop();
}

#[track_caller]
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what} did not come");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn one_identity_has_a_rate_a_crowd_and_sizes_of_its_own_and_others_do_not_notice() {
    let folder = Folder::new();
    let config = "[rates]\nrequests_per_second = 5\nburst = 20\nat_once = 8\n[limits]\nrequest_bytes_max = 100000\n";
    let server = start(&folder, config);
    let token = server.token("mallory");
    let ask = |head: &str| format!("{head} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n", host(&server));
    // Bodies that do not come take all places of the one.
    let body = ask("PUT /v1/datasets/notes/records/a") + "Content-Type: application/json\r\nContent-Length: 9\r\n\r\n";
    let begun: Vec<_> = (0..8).map(|_| connect(&server, &body)).collect();
    let once = ask("GET /v1/datasets") + "Connection: close\r\n\r\n";
    let told = |answer: &str| answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: ");
    wait_for("its places to be taken", || told(&last_words(&mut connect(&server, &once))));
    assert_devices_sync(&folder, &server, "ada");
    drop(begun);
    wait_for("its places to be free", || last_words(&mut connect(&server, &once)).starts_with("HTTP/1.1 200"));
    // Many requests in a row.
    let answers: Vec<_> = (0..40).map(|_| last_words(&mut connect(&server, &once))).collect();
    let refused = answers.iter().filter(|answer| told(answer)).count();
    assert!(refused > 10 && answers.iter().all(|it| told(it) || it.starts_with("HTTP/1.1 200")), "{answers:?}");
    assert!(answers.iter().any(|answer| answer.contains("\"code\":\"TooManyRequests\"")));
    assert_devices_sync(&folder, &server, "bob");
    // More than a request may have.
    let (status, answer) = http(
        "PUT",
        &format!("{}/v1/datasets/notes/records/a", server.url()),
        &server.token("eve"),
        &json!("x".repeat(200_000)),
    );
    assert_eq!((status, &answer["code"]), (413, &json!("LimitExceeded")));
}

#[test]
fn a_flood_of_tokens_with_unknown_keys_asks_the_issuer_once_in_an_interval() {
    const TOKENS: usize = 3_000;
    const INTERVAL: Duration = Duration::from_secs(2);
    let folder = Folder::new();
    let fetched = Arc::new(AtomicUsize::new(0));
    let keys = TcpListener::bind("127.0.0.1:0").unwrap();
    let keys_at = keys.local_addr().unwrap();
    let counted = Arc::clone(&fetched);
    thread::spawn(move || {
        for stream in keys.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4_096];
            let _request = stream.read(&mut head);
            counted.fetch_add(1, Ordering::SeqCst);
            let body = r#"{"keys":[]}"#;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
            let _answered = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    let config = format!(
        "[auth]\nunknown_key_interval = \"{}s\"\n[[auth.issuers]]\nissuer = \"https://login.example.com\"\n\
         audiences = [\"notes\"]\njwks_url = \"http://{keys_at}/keys\"\n",
        INTERVAL.as_secs()
    );
    let server = start(&folder, &config);
    let begun = Instant::now();
    let before = server.memory();
    thread::scope(|scope| {
        for thread in 0..8 {
            let server = &server;
            scope.spawn(move || {
                for number in (thread..TOKENS).step_by(8) {
                    let token = unknown_key(number);
                    let (status, answer) = http("GET", &format!("{}/v1/datasets", server.url()), &token, &Value::Null);
                    assert!([401, 503].contains(&status), "{status} {answer}");
                }
            });
        }
        // Who has a key that is known is not held up.
        assert_devices_sync(&folder, &server, "ada");
    });
    let intervals = (begun.elapsed().as_secs_f64() / INTERVAL.as_secs_f64()).ceil() as usize;
    let fetched = fetched.load(Ordering::SeqCst);
    // One at the start, and one in each interval that began.
    assert!(fetched <= 2 + intervals, "{fetched} times in {intervals} intervals");
    let grown = server.memory_peak().saturating_sub(before) >> 20;
    assert!(grown < 50, "the server took {grown} MiB more");
}

/// A token as the issuer might have made it, with a key that it does not have.
fn unknown_key(number: usize) -> String {
    use base64::Engine as _;
    let part = |json: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string());
    let header = part(json!({"alg": "RS256", "typ": "JWT", "kid": format!("key-{number}")}));
    let claims =
        part(json!({"iss": "https://login.example.com", "aud": "notes", "sub": "ada", "exp": 4_000_000_000_u64}));
    format!("{header}.{claims}.{}", "A".repeat(342))
}
