//! What operators do: backups and restores, TLS, metrics, rates, logs.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::harness::{Device, Exit, Folder, Server, syncline};

use crate::assert_same_lines;

/// How long something may take that comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

fn run(arguments: &[&str], paths: &[&Path]) -> Output {
    Command::new(syncline()).args(arguments).args(paths).output().unwrap()
}

/// Runs a command that succeeds and prints JSON.
#[track_caller]
fn json_of(arguments: &[&str], paths: &[&Path]) -> Value {
    let output = run(arguments, paths);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The body of what a server answers.
fn get(url: &str, path: &str, headers: &str) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// All numbers, by name and labels.
fn numbers(url: &str) -> BTreeMap<String, f64> {
    let answer = get(url, "/metrics", "");
    let lines = answer.lines().skip_while(|line| !line.starts_with('#')).filter(|line| line.starts_with("syncline_"));
    lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(name, it)| (name.to_owned(), it.parse().unwrap())).collect()
}

#[test]
fn a_backup_under_load_has_what_was_acknowledged_and_devices_notice_that_it_was_put_back() {
    let folder = Folder::new();
    let (data, backup) = (folder.path("data"), folder.path("backups/one"));
    let server = Server::start(&data);
    let token = server.token("ada");
    let devices = ["phone", "tablet"].map(|name| Device::new(&folder, name).with_token(&token).at(server.url()));
    let acknowledged = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let done = AtomicBool::new(false);
    let counts = || acknowledged.each_ref().map(|count| count.load(Ordering::SeqCst));
    let key = |device: usize, number: usize| format!("{device}/{number}");
    let before = std::thread::scope(|scope| {
        for (at, device) in devices.iter().enumerate() {
            let (acknowledged, done) = (&acknowledged[at], &done);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    let number = acknowledged.load(Ordering::SeqCst);
                    device.ok(&["put", "notes", &key(at, number), &number.to_string()]);
                    device.sync();
                    acknowledged.store(number + 1, Ordering::SeqCst);
                }
            });
        }
        wait_for("the load", || counts().iter().all(|count| *count >= 10));
        let before = counts();
        let made = json_of(&["backup", "--json", "--data"], &[&data, &backup]);
        assert!(made["bytes"].as_u64().unwrap() > 0);
        let after = counts();
        wait_for("more load", || counts().iter().zip(after).all(|(count, after)| *count >= after + 5));
        done.store(true, Ordering::SeqCst);
        before
    });
    assert_eq!(run(&["backup", "--data"], &[&data, &backup]).status.code(), Some(2), "a backup goes over nothing");
    let running = run(&["restore", "--replace", "--data"], &[&data, &backup]);
    assert!(String::from_utf8_lossy(&running.stderr).contains("in use by a running server"));
    assert_eq!(running.status.code(), Some(1));
    server.stop();

    for (at, device) in devices.iter().enumerate() {
        device.ok(&["put", "notes", &format!("pending/{at}"), "1"]);
    }
    assert_eq!(run(&["restore", "--data"], &[&data, &backup]).status.code(), Some(2), "it holds data");
    let restored = json_of(&["restore", "--replace", "--json", "--data"], &[&data, &backup]);
    assert_eq!((&restored["datasets"], &restored["why"]), (&json!(1), &json!("fenced")));
    assert!(Path::new(restored["replaced"].as_str().unwrap()).join("syncline.db").is_file());

    let server = Server::start(&data);
    let laptop = Device::new(&folder, "laptop").with_token(&token).at(server.url());
    laptop.sync();
    for (at, before) in before.into_iter().enumerate() {
        for number in 0..before {
            assert_eq!(laptop.value("notes", &key(at, number)), json!(number));
        }
    }
    let devices = devices.map(|device| device.at(server.url()));
    for device in devices.iter().chain(&devices) {
        device.sync();
    }
    laptop.sync();
    let logs = devices.each_ref().map(|device| device.losses("notes"));
    let kept = laptop.ok(&["export", "notes"]);
    for (at, count) in counts().into_iter().enumerate() {
        for number in 0..count {
            let key = key(at, number);
            let logged = logs.iter().flatten().any(|(lost, value)| *lost == key && *value == json!(number));
            assert!(logged || kept.contains(&format!("\"{key}\"")), "`{key}` is neither there nor in a log");
        }
        assert_eq!(laptop.value("notes", &format!("pending/{at}")), json!(1));
    }
    assert!(logs.iter().any(|log| !log.is_empty()), "what came after the backup was lost, and is in a log");
    for device in &devices {
        assert_same_lines(&device.ok(&["export", "notes"]), &kept);
    }
}

#[test]
fn a_backup_needs_no_server_and_restores_into_a_folder_that_is_not_there() {
    let folder = Folder::new();
    let (data, backup, other) = (folder.path("data"), folder.path("backup"), folder.path("other"));
    let server = Server::start(&data);
    let phone = Device::new(&folder, "phone").with_token(&server.token("ada"));
    phone.ok(&["put", "notes", "a", "1"]);
    phone.at(server.url()).sync();
    server.stop();
    json_of(&["backup", "--json", "--data"], &[&data, &backup]);
    let restored = json_of(&["restore", "--json", "--discard", "--data"], &[&other, &backup]);
    assert_eq!(restored, json!({"datasets": 1, "why": "rolled_back", "replaced": null}));
    // The dev issuer came along: tokens of the old folder are still good.
    let server = Server::start(&other);
    let tablet = Device::new(&folder, "tablet").with_token(&server.token("ada")).at(server.url());
    tablet.sync();
    assert_eq!(tablet.value("notes", "a"), json!(1));
    phone.at(server.url()).sync();
}

#[test]
fn devices_sync_over_tls_with_a_certificate_that_is_renewed_meanwhile() {
    let folder = Folder::new();
    let issue = |name: &str| {
        let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        folder.write("key.pem", &issued.signing_key.serialize_pem());
        folder.write("certificate.pem", &issued.cert.pem());
        folder.write(name, &issued.cert.pem())
    };
    let first = issue("first.pem");
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| folder.path(name));
    let config = format!("[server]\ntls_certificate = {certificate:?}\ntls_key = {key:?}\n");
    let server = Server::start_configured(&folder.path("data"), &folder.write("server.toml", &config));
    assert!(server.url().starts_with("https://"), "{}", server.url());
    let device = |name: &str| Device::new(&folder, name).with_token(&server.token("ada")).at(server.url());
    let [phone, tablet] = ["phone", "tablet"].map(device);
    phone.ok(&["put", "notes", "a", "1"]);
    phone.trusting(&first).sync();
    tablet.trusting(&first).sync();
    assert_eq!(tablet.value("notes", "a"), json!(1));

    let renewed = issue("renewed.pem");
    server.signal("HUP");
    wait_for("the new certificate", || server.log().contains("read the certificate and its key again"));
    phone.trusting(&renewed).sync();
    phone.trusting(&first).ends(Exit::Offline, &["sync", "--give-up-after", "300ms"]);
    server.stop();
}

#[test]
fn metrics_count_what_devices_did_and_a_device_that_is_told_to_slow_down_comes_again() {
    let folder = Folder::new();
    let config = "[server]\nmetrics_listen = \"127.0.0.1:0\"\n\
        [rates]\nrequests_per_second = 1\nburst = 2\n";
    let server = Server::start_configured(&folder.path("data"), &folder.write("server.toml", config));
    let log = server.log();
    let at = log.split("metrics at ").nth(1).and_then(|rest| rest.split("/metrics").next()).unwrap();
    let phone = Device::new(&folder, "phone").with_token(&server.token("ada")).at(server.url());
    for number in 0..4 {
        phone.ok(&["put", "notes", "a", &number.to_string()]);
        phone.sync();
    }
    let numbers = numbers(at);
    let number = |name: &str| numbers.get(name).copied().unwrap_or_default();
    assert_eq!(number("syncline_pushes_total{outcome=\"accepted\"}"), 4.0, "{numbers:#?}");
    assert_eq!(number("syncline_records_pulled_total"), 4.0);
    assert_eq!(number("syncline_conflicts_total"), 0.0);
    let requests = |status| {
        number(&format!("syncline_http_requests_total{{method=\"POST\",route=\"/v1/sync\",status=\"{status}\"}}"))
    };
    assert!(requests(200) >= 4.0 && requests(429) >= 1.0, "{numbers:#?}");
    assert!(number("syncline_store_operation_seconds_count{operation=\"commit\"}") >= 4.0);
    assert!(number("syncline_store_bytes") > 4096.0);
    assert!(get(at, "/readyz", "").contains(r#"{"status":"ready"}"#));
    assert!(get(server.url(), "/metrics", "").starts_with("HTTP/1.1 404"));
}

#[test]
fn a_server_that_is_told_to_stop_says_so_while_it_goes_on_for_a_moment() {
    let folder = Folder::new();
    let config = folder.write("server.toml", "[server]\nstop_delay = \"3s\"\n");
    let server = Server::start_configured(&folder.path("data"), &config);
    let phone = Device::new(&folder, "phone").with_token(&server.token("ada")).at(server.url());
    assert!(get(server.url(), "/readyz", "").starts_with("HTTP/1.1 200"));
    server.signal("TERM");
    wait_for("the news", || get(server.url(), "/readyz", "").contains("the server is stopping"));
    phone.ok(&["put", "notes", "a", "1"]);
    phone.sync();
    server.stop();
}

#[test]
fn log_lines_name_request_and_trace_and_nothing_secret() {
    let folder = Folder::new();
    let config = "[log]\nlevel = \"debug\"\nformat = \"json\"\n";
    let server = Server::start_configured(&folder.path("data"), &folder.write("server.toml", config));
    let token = server.token("ada");
    let phone = Device::new(&folder, "phone").with_token(&token).at(server.url());
    phone.ok(&["put", "notes", "secret-key", r#""secret-value""#]);
    phone.sync();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let headers = format!(
        "X-Request-Id: request-of-the-test\r\ntraceparent: 00-{trace}-00f067aa0ba902b7-01\r\n\
         Authorization: Bearer {token}\r\n"
    );
    let answer = get(server.url(), "/v1/datasets/notes/records/secret-key", &headers);
    assert!(answer.contains("x-request-id: request-of-the-test\r\n"), "{answer}");
    let find = |log: &str| {
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut of_request = lines.filter(|line| line["spans"][0]["request.id"] == "request-of-the-test");
        of_request.find(|line| line["message"] == "answered a request")
    };
    wait_for("the line", || find(&server.log()).is_some());
    let log = server.log();
    let line = find(&log).unwrap();
    assert_eq!(line["spans"][0]["trace.id"], trace);
    assert_eq!(line["spans"][0]["http.method"], "GET");
    for secret in ["secret-key", "secret-value", &token] {
        assert!(!log.contains(secret), "the log has `{secret}`");
    }
}

#[test]
fn check_config_says_what_is_wrong_line_by_line() {
    let folder = Folder::new();
    let check = |arguments: &[&str], config: &str| {
        let config = folder.write("server.toml", config);
        let data = folder.path("data");
        let output = Command::new(syncline())
            .args(["check-config", "--json", "--config"])
            .arg(config)
            .arg("--data")
            .arg(data)
            .args(arguments)
            .output()
            .unwrap();
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        let wrong = printed["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false);
        let wrong: Vec<_> = wrong.map(|check| check["check"].as_str().unwrap().to_owned()).collect();
        assert_eq!(printed["ok"], json!(wrong.is_empty()));
        assert_eq!(output.status.code(), Some(if wrong.is_empty() { 0 } else { 2 }));
        wrong
    };
    let nothing: [&str; 0] = [];
    assert_eq!(check(&["--dev", "--listen", "127.0.0.1:0"], ""), nothing);
    assert!(!folder.path("data").exists(), "a check leaves nothing behind");
    assert_eq!(check(&["--listen", "127.0.0.1:0"], ""), ["issuer"]);
    assert_eq!(check(&["--dev"], "[server]\nlissten = \"x\"\n"), ["configuration"]);
    let wrong = "[server]\ntls_certificate = \"nothing.pem\"\ntls_key = \"nothing.pem\"\n[log]\nlevel = \"a=b=c\"\n";
    assert_eq!(check(&["--dev", "--listen", "127.0.0.1:0"], wrong), ["log", "tls"]);

    let server = Server::start(&folder.path("data"));
    let taken = server.url().strip_prefix("http://").unwrap().to_owned();
    assert_eq!(check(&["--dev", "--listen", &taken], ""), ["listen"]);
    assert_eq!(check(&["--dev", "--listen", "127.0.0.1:0"], ""), nothing, "a running server is not in the way");
}
