//! What `syncline check-config` says of the fan-out.

use std::net::TcpListener;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;
use tests::harness::{Folder, Redis, syncline};

/// Whether all is well, and what is said.
fn check(url: &str, trusted: Option<&str>) -> (bool, String) {
    let mut command = Command::new(syncline());
    command.args(["check-config", "--dev", "--json", "--listen", "127.0.0.1:0"]).env("SYNCLINE__FANOUT__URL", url);
    // There is no database there, which is said on another line.
    command.env("SYNCLINE__STORE__URL", "mysql://nobody@127.0.0.1:1/none");
    if let Some(file) = trusted {
        command.env("SSL_CERT_FILE", file);
    }
    let folder = Folder::new();
    command.arg("--data").arg(folder.path("data"));
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    let all: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text} {}", String::from_utf8_lossy(&output.stderr));
    });
    let checks = all["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["check"] == "fanout").unwrap_or_else(|| panic!("{all}"));
    (found["ok"].as_bool().unwrap(), found["message"].as_str().unwrap().to_owned())
}

#[track_caller]
fn is_wrong(url: &str, says: &str) {
    let (ok, message) = check(url, None);
    assert!(!ok && message.contains(says), "{url}: {message}");
}

#[test]
fn it_is_said_in_plain_words_what_is_wrong_with_redis() {
    let redis = Redis::start_with(&["--requirepass", "hunter2"]);
    let place = format!("127.0.0.1:{}", redis.port());
    let (ok, message) = check(&format!("redis://:hunter2@{place}?channel=app"), None);
    assert!(ok && message == format!("redis://{place} tells other servers on the channel `app`"), "{message}");
    for login in ["", ":hunter22@", "nobody:hunter2@"] {
        is_wrong(&format!("redis://{login}{place}"), "it does not take the user or the password, or asks for one");
    }
    // Somebody who speaks no TLS or not at all, and nobody.
    is_wrong(&format!("rediss://{place}"), "it does not answer in time (with `rediss` it has to speak TLS)");
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf = format!("redis://{}", unused.local_addr().unwrap());
    is_wrong(&deaf, "it does not answer in time");
    drop(unused);
    is_wrong(&deaf, "it cannot be reached");
    is_wrong("redis://nowhere.invalid", "it cannot be reached");
}

#[test]
fn a_user_who_may_not_use_the_channel_is_told_which_rights_are_missing() {
    let redis = Redis::start();
    for (user, rights) in [
        ("all", "+@all &app"),
        ("least", "-@all +publish +subscribe &app"),
        ("hears", "+@all -publish &app"),
        ("tells", "+@all -subscribe &app"),
        ("other", "+@all &b"),
    ] {
        let mut words: Vec<&[u8]> = vec![b"ACL", b"SETUSER", user.as_bytes(), b"on", b">hunter2", b"resetchannels"];
        words.extend(rights.split(' ').map(str::as_bytes));
        assert_eq!(redis.command(&words), "+OK\r\n");
        let url = format!("redis://{user}:hunter2@127.0.0.1:{}?channel=app", redis.port());
        if matches!(user, "all" | "least") {
            let (ok, message) = check(&url, None);
            assert!(ok, "{message}");
        } else {
            is_wrong(&url, "may not publish to the channel `app` and subscribe to it (&app +publish +subscribe)");
        }
    }
}

#[test]
fn tls_is_checked_against_the_certificates_that_the_system_trusts() {
    let folder = Folder::new();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let file = |name: &str, pem: &str| folder.write(name, pem).display().to_string();
    let (certificate, key) = (file("certificate.pem", &certificate.pem()), file("key.pem", &key.serialize_pem()));
    let trusted = file("authority.pem", &authority.pem());
    let tls = ["--port", "0", "--tls-port", "PORT", "--tls-auth-clients", "no"];
    let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &trusted];
    let redis = Redis::start_with(&[&tls[..], &files].concat());
    let url = format!("rediss://127.0.0.1:{}", redis.port());
    let (ok, message) = check(&url, Some(&trusted));
    assert!(ok, "{message}");
    is_wrong(&url, "it cannot be reached: ");
    // Without TLS it is no Redis.
    is_wrong(&url.replace("rediss", "redis"), "it cannot be reached");
}

#[test]
fn where_there_is_nothing_to_set_up_that_is_said() {
    assert_eq!(
        check("", None),
        (true, "off: the store is asked every 5s for what other servers have written".to_owned())
    );
}
