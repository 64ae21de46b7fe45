//! Sign-in by issuers that are not ours, and what back-end jobs may do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tests::harness::{Device, Exit, Folder, Provider, Server, UserPools, http};

/// A server that takes tokens of the issuers in this configuration, besides those of its dev issuer.
fn start(folder: &Folder, config: &str) -> Server {
    Server::start_configured(&folder.path("data"), &folder.write("syncline.toml", config))
}

/// Who calls, as the server sees it: an identity, or the status of the refusal.
fn identity(server: &Server, token: &str) -> Result<String, u16> {
    let request = json!({"version": 1, "device": "00000000000000000000000000000001", "list": true});
    let (status, answer) = http("POST", &format!("{}/v1/sync", server.url()), token, &request);
    if status == 200 { Ok(answer["identity"].as_str().unwrap().to_owned()) } else { Err(status) }
}

/// Writes a record for an owner; gives the status.
fn write_for(server: &Server, token: &str, owner: &str, dataset: &str) -> u16 {
    let url = format!("{}/v1/owners/{owner}/datasets/{dataset}/records/report", server.url());
    http("PUT", &url, token, &json!({"pages": 3})).0
}

#[test]
fn users_of_a_pool_sign_in_with_a_password_and_a_code_of_their_authenticator() {
    let folder = Folder::new();
    let pools = UserPools::start();
    let pool = pools.sign_in();
    let token = |user: &str, kind: &str| pool[user][kind].as_str().unwrap().to_owned();
    let (issuer, app, job) = (&pool["issuer"], &pool["app"], &pool["job"]);
    // The issuer is AWS's, and the keys are at the emulator: two settings.
    let config = format!(
        "[[auth.issuers]]\nissuer = {issuer}\naudiences = [{app}, \"another app\"]\njwks_url = {}\n\
         service = {{ claim = \"cognito:groups\", value = \"back-end\" }}\n",
        pool["jwks_url"]
    );

    let server = start(&folder, &config);
    let phone = Device::new(&folder, "phone").at(server.url()).with_token(&token("ada", "id"));
    phone.ok(&["put", "notes", "title", r#""milk""#]);
    phone.sync();
    let bobs = Device::new(&folder, "bobs").at(server.url()).with_token(&token("bob", "id"));
    bobs.sync();
    bobs.ends(Exit::NotFound, &["get", "notes", "title"]);
    let ada = identity(&server, &token("ada", "id")).unwrap();

    // Another app of the pool, access tokens, and a forged token are not taken.
    for (user, kind) in [("ada_by_job", "id"), ("ada", "access"), ("ada_by_job", "access")] {
        let stranger = Device::new(&folder, "stranger").at(server.url()).with_token(&token(user, kind));
        stranger.ends(Exit::NotSignedIn, &["sync"]);
        assert_eq!(identity(&server, &token(user, kind)), Err(401), "{user} {kind}");
    }
    let (signed, _) = pool["bob"]["id"].as_str().unwrap().rsplit_once('.').unwrap();
    let (_, signature) = pool["ada"]["id"].as_str().unwrap().rsplit_once('.').unwrap();
    assert_eq!(identity(&server, &format!("{signed}.{signature}")), Err(401));

    // Who is in the group acts for others; who is not, does not.
    assert_eq!(write_for(&server, &token("bob", "id"), &ada, "reports"), 403);
    assert_eq!(write_for(&server, &token("reporter", "id"), &ada, "reports"), 201);
    phone.sync();
    assert_eq!(phone.value("reports", "report"), json!({"pages": 3}));
    server.stop();

    let server = start(&folder, &format!("{config}access_token_clients = [{job}]\n"));
    let tablet = Device::new(&folder, "tablet").at(server.url()).with_token(&token("ada_by_job", "access"));
    tablet.sync();
    assert_eq!(tablet.value("notes", "title"), json!("milk"));
    assert_eq!(identity(&server, &token("ada_by_job", "access")), Ok(ada.clone()));
    assert_eq!(identity(&server, &token("ada", "access")), Err(401), "this client is not configured");
    assert_eq!(identity(&server, &token("ada", "id")), Ok(ada));
}

#[test]
fn users_of_an_openid_provider_sign_in_by_code_and_pkce() {
    let folder = Folder::new();
    let provider = Provider::start();
    let server = start(&folder, &trusting(&provider, "10s"));
    let tokens = provider.sign_in(&["ada", "ada", "bob"]);
    let [first, second, bobs] = &tokens[..] else { panic!("{tokens:?}") };
    let phone = Device::new(&folder, "phone").at(server.url()).with_token(first);
    let tablet = Device::new(&folder, "tablet").at(server.url()).with_token(second);
    phone.ok(&["put", "notes", "title", r#""milk""#]);
    phone.sync();
    tablet.sync();
    assert_eq!(tablet.value("notes", "title"), json!("milk"));

    // The same name with another issuer is somebody else.
    let (ada, bob) = (identity(&server, first).unwrap(), identity(&server, bobs).unwrap());
    let dev_ada = identity(&server, &server.token("ada")).unwrap();
    assert!(ada != bob && ada != dev_ada && bob != dev_ada, "{ada} {bob} {dev_ada}");
    assert_eq!(identity(&server, second), Ok(ada));
}

#[test]
fn keys_are_rotated_under_load_without_a_lost_request() {
    const ROUNDS: usize = 3;
    const USERS: usize = 4;
    const REQUESTS: usize = 40;
    let folder = Folder::new();
    let mut provider = Provider::start();
    let interval = Duration::from_secs(1);
    let server = start(&folder, &trusting(&provider, "1s"));
    let old = provider.sign_in(&["ada"]).remove(0);
    let ada = identity(&server, &old).unwrap();
    let done = AtomicBool::new(false);
    let background = thread::scope(|scope| {
        // Whoever signed in before goes on.
        let background = scope.spawn(|| {
            let mut served = 0;
            while !done.load(Ordering::Relaxed) {
                assert_eq!(identity(&server, &old), Ok(ada.clone()));
                served += 1;
            }
            served
        });
        for round in 0..ROUNDS {
            provider.rotate();
            let users: Vec<String> = (0..USERS).map(|user| format!("user {round} {user}")).collect();
            let tokens = provider.sign_in(&users);
            // A key may be missed once in this time; signing in has taken some of it already.
            thread::sleep(interval);
            thread::scope(|scope| {
                for number in 0..2 * USERS {
                    let (server, token) = (&server, &tokens[number % USERS]);
                    scope.spawn(move || {
                        for request in 0..REQUESTS {
                            let found = identity(server, token);
                            assert!(found.is_ok(), "round {round}, request {request}: {found:?}");
                        }
                    });
                }
            });
        }
        done.store(true, Ordering::Relaxed);
        background.join().unwrap()
    });
    assert!(background > 0, "the load was on all the time");

    // Withdrawn keys are forgotten with the next fetch, which a token with a new one brings about.
    let withdrawn = provider.sign_in(&["withdrawn"]).remove(0);
    provider.rotate();
    provider.retire();
    let new = provider.sign_in(&["ada"]).remove(0);
    thread::sleep(interval);
    assert_eq!(identity(&server, &new), Ok(ada.clone()));
    assert_eq!(identity(&server, &withdrawn), Err(401));
    // Without their issuer, its last keys hold.
    let late = provider.sign_in(&["ada"]).remove(0);
    drop(provider);
    assert_eq!(identity(&server, &late), Ok(ada));
}

#[test]
fn a_back_end_job_signs_in_with_a_token_or_a_key_and_what_it_writes_is_noted() {
    let key = "only-for-development-0123456789abcdef";
    let folder = Folder::new();
    let server = start(&folder, &format!("[auth]\nservice_key = \"{key}\"\n[log]\nformat = \"json\"\n"));
    let ada = identity(&server, &server.token("ada")).unwrap();
    let job = server.service_token("nightly");
    assert_eq!(write_for(&server, &server.token("nightly"), &ada, "reports"), 403);
    assert_eq!(write_for(&server, &key.to_uppercase(), &ada, "reports"), 401);
    for (token, status) in [(&*job, 201), (key, 200)] {
        assert_eq!(write_for(&server, token, &ada, "reports"), status);
        assert_eq!(identity(&server, token), Err(400), "a job has no datasets of its own");
    }
    let push = json!({"version": 1, "device": "00000000000000000000000000000002", "datasets": [{
        "owner": ada, "name": "synced", "push": {"device": "00000000000000000000000000000002", "sequence": 1, "groups": [
            {"change_id": "00000000000000000000000000000003", "patches": [
                {"key": "secret-name", "op": {"replace": ["secret value", "nothing"]}, "time": 1}]}]}}]});
    let (status, answer) = http("POST", &format!("{}/v1/sync", server.url()), &job, &push);
    assert_eq!((status, &answer["datasets"][0]["push"]["groups"][0]["status"]), (200, &json!("applied")), "{answer}");

    let log = server.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let noted: Vec<Value> = lines.filter(|line| !line["service"].is_null()).collect();
    let fields =
        |line: &Value| json!([line["level"], line["service"], line["owner"], line["dataset.name"], line["sync_count"]]);
    assert_eq!(
        noted.iter().map(fields).collect::<Vec<_>>(),
        [
            json!(["INFO", "nightly", ada, "reports", 1]),
            json!(["INFO", "service-key", ada, "reports", 2]),
            json!(["INFO", "nightly", ada, "synced", 1]),
        ]
    );
    for secret in ["secret-name", "secret value", "pages", key] {
        assert!(!log.contains(secret), "the log has {secret:?}");
    }
}

/// Where its keys are is found out by discovery.
fn trusting(provider: &Provider, unknown_key_interval: &str) -> String {
    format!(
        "[auth]\nunknown_key_interval = \"{unknown_key_interval}\"\n\
         [[auth.issuers]]\nissuer = \"{}\"\naudiences = [\"{}\"]\n",
        provider.issuer(),
        provider.client()
    )
}
