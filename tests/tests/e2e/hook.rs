//! The push hook: a service that refuses, rewrites, hangs, dies or answers garbage.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::harness::{Device, Exit, Folder, Server};

/// What the hook does with a request.
#[derive(Clone)]
enum Does {
    Answers(Value),
    /// Says this instead of an answer.
    Says(&'static str),
    Hangs,
    Dies,
}

/// A hook on a free port of 127.0.0.1.
struct Hook {
    url: String,
    does: Arc<Mutex<Does>>,
    asked: Receiver<(Vec<String>, Value)>,
}

impl Hook {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/review", listener.local_addr().unwrap());
        let does = Arc::new(Mutex::new(Does::Answers(json!({"groups": [{"verdict": "accept"}]}))));
        let (tell, asked) = channel();
        let now = Arc::clone(&does);
        std::thread::spawn(move || {
            for server in listener.incoming().flatten() {
                let (does, tell) = (now.lock().unwrap_or_else(PoisonError::into_inner).clone(), tell.clone());
                std::thread::spawn(move || serve(server, does, |head, body| drop(tell.send((head, body)))));
            }
        });
        Self { url, does, asked }
    }

    fn does(&self, does: Does) {
        *self.does.lock().unwrap_or_else(PoisonError::into_inner) = does;
    }
}

fn serve(mut server: TcpStream, does: Does, tell: impl FnOnce(Vec<String>, Value)) -> Option<()> {
    let mut reader = BufReader::new(server.try_clone().ok()?);
    let head: Vec<String> = reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let length =
        head.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    tell(head, serde_json::from_slice(&body).ok()?);
    let said = match does {
        Does::Answers(answer) => {
            let body = answer.to_string();
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        }
        Does::Says(text) => text.to_owned(),
        Does::Hangs => {
            std::thread::sleep(Duration::from_secs(30));
            return None;
        }
        Does::Dies => return None,
    };
    server.write_all(said.as_bytes()).ok()
}

fn server(folder: &Folder, hook: &Hook, on_failure: &str) -> Server {
    let settings = format!(
        "[hook]\nurl = \"{}\"\nsecret = \"{}\"\ntimeout = \"300ms\"\non_failure = \"{on_failure}\"\n",
        hook.url,
        "s".repeat(32)
    );
    Server::start_configured(&folder.path("server"), &folder.write("syncline.toml", &settings))
}

fn device(folder: &Folder, server: &Server, name: &str) -> Device {
    Device::new(folder, name).at(server.url()).with_token(&server.token("ada"))
}

#[test]
fn a_refused_group_is_parked_with_the_hooks_words_and_a_rewritten_one_arrives_rewritten() {
    let folder = Folder::new();
    let hook = Hook::start();
    let server = server(&folder, &hook, "wait");
    let phone = device(&folder, &server, "phone");
    phone.ok(&["put", "groceries", "milk", r#"{"amount":99}"#]);
    hook.does(Does::Answers(json!({"groups": [
        {"verdict": "refuse", "code": "TooMuchMilk", "message": "At most 10 bottles can be ordered."}
    ]})));
    phone.ends(Exit::Rejected, &["sync"]);
    let parked = phone.json(&["parked"]).to_string();
    assert!(parked.contains("TooMuchMilk") && parked.contains("At most 10 bottles"), "{parked}");
    let (head, asked) = hook.asked.recv().unwrap();
    assert!(head.iter().any(|line| line.to_ascii_lowercase().starts_with("syncline-signature: v1=")), "{head:?}");
    assert_eq!(asked["dataset"], "groceries");
    assert_eq!(asked["groups"][0]["patches"][0]["key"], "milk");

    phone.ok(&["discard", "groceries"]);
    phone.ok(&["put", "groceries", "milk", r#"{"amount":50}"#]);
    hook.does(Does::Answers(json!({"groups": [
        {"verdict": "rewrite", "records": [{"key": "milk", "value": {"amount": 10}}]}
    ]})));
    phone.sync();
    assert_eq!(phone.value("groceries", "milk"), json!({"amount": 10}));
    let other = device(&folder, &server, "other");
    other.sync();
    assert_eq!(other.value("groceries", "milk"), json!({"amount": 10}));
    assert_eq!(phone.losses("groceries").len(), 1, "what the user wrote is kept");
    let log = phone.ok(&["conflicts", "groceries"]);
    assert!(log.contains("rewritten") && log.contains("50"), "{log}");
}

#[test]
fn a_hook_that_fails_lets_pushes_wait_or_go_on_as_configured() {
    for (on_failure, goes_on) in [("wait", false), ("accept", true)] {
        for does in [
            Does::Hangs,
            Does::Dies,
            Does::Says("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"),
            Does::Says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
            Does::Says("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
            Does::Says("garbage\r\n\r\n"),
            Does::Answers(json!({"groups": []})),
            Does::Answers(json!({"groups": [{"verdict": "perhaps"}]})),
            Does::Answers(json!({"groups": [{"verdict": "rewrite", "records": [{"key": "other"}]}]})),
        ] {
            let folder = Folder::new();
            let hook = Hook::start();
            let server = server(&folder, &hook, on_failure);
            hook.does(does);
            let phone = device(&folder, &server, "phone");
            phone.ok(&["put", "groceries", "milk", "1"]);
            if goes_on {
                phone.sync();
            } else {
                let told = phone.ends(Exit::Offline, &["sync", "--give-up-after", "1s"]).stderr;
                assert!(told.contains("cannot serve now"), "{told}");
                assert!(phone.ok(&["parked"]).contains("nothing is parked"));
                hook.does(Does::Answers(json!({"groups": [{"verdict": "accept"}]})));
                phone.sync();
            }
            let other = device(&folder, &server, "other");
            other.sync();
            assert_eq!(other.value("groceries", "milk"), json!(1));
        }
    }
}

#[test]
fn nothing_else_waits_for_a_hook_that_hangs() {
    let folder = Folder::new();
    let hook = Hook::start();
    let settings = format!("[hook]\nurl = \"{}\"\nsecret = \"{}\"\ntimeout = \"20s\"\n", hook.url, "s".repeat(32));
    let server = Server::start_configured(&folder.path("server"), &folder.write("syncline.toml", &settings));
    let slow = device(&folder, &server, "slow");
    slow.ok(&["put", "groceries", "milk", "1"]);
    hook.does(Does::Hangs);
    let mut waiting = slow.spawn(&["sync"]);
    hook.asked.recv().unwrap();
    hook.does(Does::Answers(json!({"groups": [{"verdict": "accept"}]})));
    let start = Instant::now();
    let quick = device(&folder, &server, "quick");
    // Another dataset, and the same one too.
    for dataset in ["other", "groceries"] {
        quick.ok(&["put", dataset, "bread", "2"]);
    }
    quick.ok(&["sync", "other"]);
    quick.ok(&["sync", "groceries"]);
    assert!(start.elapsed() < Duration::from_secs(20), "they did not wait for the hook's time to be over");
    waiting.kill().unwrap();
    waiting.wait().unwrap();
}
