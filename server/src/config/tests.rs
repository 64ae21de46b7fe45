//! What a configuration may say.

use super::*;

fn load(file: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("syncline.toml");
    fs::write(&path, file).unwrap();
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Config::load(Some(&path), variables)
        .map_err(|error| error.to_string().replace(&folder.path().display().to_string(), ""))
}

#[test]
fn the_defaults_are_the_limits_of_the_core() {
    let config = Config::load(None, std::iter::empty()).unwrap();
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.retention.tombstones.ms(), sync_core::model::limits::TOMBSTONE_AGE_MS);
    assert!(config.auth.issuers.is_empty());
    assert_eq!(config.auth.service_key, None);
}

#[test]
fn by_default_there_are_no_metrics_no_foreign_pages_and_no_tls() {
    let server = Config::load(None, std::iter::empty()).unwrap().server;
    assert_eq!((server.metrics_listen, server.metrics_here(), server.tls_certificate), (None, false, None));
    assert!(server.cors_origins.is_empty());
    let file = "[server]\nlisten = \"127.0.0.1:1\"\nmetrics_listen = \"127.0.0.1:1\"\n\
        cors_origins = [\"*\", \"https://app.example:8443\"]\n";
    let server = load(file, &[]).unwrap().server;
    assert!(server.metrics_here());
    let apart = load(file, &[("SYNCLINE__SERVER__METRICS_LISTEN", "127.0.0.1:2")]).unwrap().server;
    assert!(!apart.metrics_here() && apart.metrics_listen.is_some());
}

#[test]
fn the_environment_overrides_the_file_and_the_file_the_defaults() {
    let file = "[server]\nlisten = \"127.0.0.1:1\"\nrequests_max = 5\n";
    let variables = [
        ("SYNCLINE__SERVER__LISTEN", "127.0.0.1:2"),
        ("SYNCLINE__LIMITS__RECORDS_MAX", "7"),
        ("SYNCLINE__AUTH__KEYS_REFRESH", "1h"),
        ("OTHER", "x"),
    ];
    let config = load(file, &variables).unwrap();
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!(config.server.requests_max, 5);
    assert_eq!(config.limits.records_max, 7);
    assert_eq!(config.auth.keys_refresh.ms(), 60 * 60 * 1000);
}

#[test]
fn a_fan_out_goes_with_a_store_that_several_servers_share() {
    let fanout = "[fanout]\nurl = \"redis://sync:hunter2@cache.example:6379\"\n";
    for store in ["", "[store]\nurl = \"sqlite:data\"\n"] {
        let error = load(&format!("{fanout}{store}"), &[]).unwrap_err();
        assert!(error.contains("set `store.url` too"), "{error}");
    }
    let file = format!("{fanout}[store]\nurl = \"mysql://sync:hunter2@db.example/sync\"\n");
    let config = load(&file, &[]).unwrap();
    assert!(config.store.is_shared() && !format!("{config:?}").contains("hunter2"));
    let error = load(&file, &[("SYNCLINE__FANOUT__URL", "redis:/sync:hunter2@cache.example")]).unwrap_err();
    assert!(error.contains("the address of a Redis") && !error.contains("hunter2"), "{error}");
    let error = load(&file, &[("SYNCLINE__FANOUT__POLL_INTERVAL", "1ms")]).unwrap_err();
    assert!(error.contains("`poll_interval` is at least 10ms"), "{error}");
}

#[test]
fn what_is_not_a_setting_is_refused_with_what_is() {
    let check = |file: &str, variables: &[(&str, &str)], expected: &str| {
        let error = load(file, variables).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    check("[server]\nlissten = \"x\"\n", &[], "there is no setting `lissten` in the section `server`, only ");
    check("[sever]\nlisten = \"x\"\n", &[], "there is no section `sever`, only `auth`, ");
    check("listen = \"x\"\n", &[], "`listen` stands outside of a section such as [server]");
    check("[limits]\nvalue_bytes_max = 2000000\n", &[], "`value_bytes_max` is 2000000, and may be 1 to 1048576");
    check("[server]\nbodies_bytes_max = 16777215\n", &[], "`bodies_bytes_max` is at least 16777216: twice");
    check("[limits]\nrecords_max = 0\n", &[], "`records_max` is 0");
    check("[limits]\nrecords_max = -1\n", &[], "invalid value");
    check("[retention]\ntombstones = \"90 days\"\n", &[], "a duration is a whole number with a unit");
    check("[auth]\nissuer = \"https://issuer.example\"\n", &[], "there is no setting `issuer` in the section `auth`");
    check("[auth]\nkeys_refresh = \"0s\"\n", &[], "`keys_refresh` and `unknown_key_interval` are longer than 0s");
    check("[server]\ntls_key = \"key.pem\"\n", &[], "`tls_certificate` and `tls_key` go together");
    check("[server]\nmetrics_listen = \"9090\"\n", &[], "`9090`: invalid socket address");
    for origin in ["https://app.example/", "app.example", "https://", "null"] {
        check(&format!("[server]\ncors_origins = [\"{origin}\"]\n"), &[], &format!("`cors_origins` has `{origin}`"));
    }
    check("[hook]\nurl = \"ftp://hook.example\"\n", &[], "`ftp://hook.example`: it is not a URL");
    check("[hook]\nurl = \"https://hook.example\"\n", &[], "with `url` goes a `secret`");
    check("[rates]\nburst = 0\n", &[], "a `burst` of at least 1");
    check("", &[("SYNCLINE__SERVER", "x")], "it is written SYNCLINE__SECTION__KEY");
    check("", &[("SYNCLINE__SERVER__PORT", "1")], "there is no setting `port`");
    check("", &[("SYNCLINE__LIMITS__RECORDS_MAX", "many")], "its value is not one of TOML");
}

const COGNITO: &str = r#"
[[auth.issuers]]
issuer = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Example"
audiences = ["a", "b"]
access_token_clients = ["b"]
service = { claim = "cognito:groups", value = "back-end" }

[[auth.issuers]]
issuer = "https://login.example.com/"
audiences = ["notes-app"]
jwks_url = "http://127.0.0.1:9/keys"
leeway = "5s"
"#;

#[test]
fn several_issuers_are_configured_by_a_file_or_by_the_environment() {
    let config = load(COGNITO, &[("SYNCLINE__AUTH__SERVICE_KEY", &"k".repeat(32))]).unwrap();
    let [pool, login] = &config.auth.issuers[..] else { panic!("{:?}", config.auth.issuers) };
    let discovery = format!("{}/.well-known/openid-configuration", pool.issuer);
    assert_eq!(pool.keys, KeysAt::Discovery(discovery.parse().unwrap()));
    assert_eq!(pool.leeway.ms(), 60_000);
    assert_eq!(pool.access_token_clients, ["b"]);
    assert_eq!(pool.service.as_ref().map(|service| &*service.value), Some("back-end"));
    assert_eq!(login.keys, KeysAt::Url("http://127.0.0.1:9/keys".parse().unwrap()));
    assert_eq!(login.leeway.ms(), 5_000);
    assert_eq!(config.auth.service_key.as_ref().map(|key| key.reveal().len()), Some(32));

    let variable = r#"[{ issuer = "https://other.example/", audiences = ["c"] }]"#;
    let config = load(COGNITO, &[("SYNCLINE__AUTH__ISSUERS", variable)]).unwrap();
    let [other] = &config.auth.issuers[..] else { panic!("{:?}", config.auth.issuers) };
    let discovery = "https://other.example/.well-known/openid-configuration";
    assert_eq!(other.keys, KeysAt::Discovery(discovery.parse().unwrap()));
}

#[test]
fn a_wrong_issuer_is_refused_with_what_is_wrong() {
    let check = |entry: &str, expected: &[&str]| {
        let error = load(&format!("[[auth.issuers]]\n{entry}"), &[]).unwrap_err();
        for expected in expected {
            assert!(error.contains(expected), "{entry}: {error}");
        }
        assert!(error.contains("issuers"), "{entry}: {error}");
    };
    let with = |line: &str| format!("issuer = \"https://a.example\"\naudiences = [\"app\"]\n{line}\n");
    check("", &["missing field `issuer`"]);
    check("issuer = \"\"\naudiences = [\"a\"]", &["`issuer` is empty"]);
    check("issuer = \"https://a.example\"", &["issuer `https://a.example`", "`audiences`", "`access_token_clients`"]);
    check("issuer = \"https://a.example\"\naudiences = [\"\"]", &["`audiences` has an empty text"]);
    check("issuer = \"my issuer\"\naudiences = [\"a\"]", &["issuer `my issuer`", "set `discovery_url`"]);
    check(&with("audience = [\"b\"]"), &["unknown field `audience`", "`audiences`"]);
    check(&with("jwks_url = \"https://a.example/k\"\njwks_file = \"k\""), &["only one of"]);
    check(&with("jwks_url = \"file:///k\""), &["`file:///k`: it is not a URL", "jwks_url"]);
    check(&with("leeway = \"soon\""), &["a duration is a whole number", "leeway"]);
    check(&with("service = { claim = \"scope\" }"), &["missing field `value`"]);
    check(&with("service = { claim = \"scope\", value = \"\" }"), &["`service` has an empty text"]);
    check(&with("service = { claim = \"scope\", is = \"x\" }"), &["unknown field `is`"]);
    let twice = with("");
    check(&format!("{twice}[[auth.issuers]]\n{twice}"), &["issuer `https://a.example` is there twice"]);
}

#[test]
fn a_secret_is_long_and_not_shown_and_may_be_left_out() {
    for (section, setting) in [("auth", "service_key"), ("hook", "secret")] {
        let with = |secret: &str| load(&format!("[{section}]\n{setting} = \"{secret}\"\n"), &[]);
        let secret = "k".repeat(SECRET_CHARS_MIN);
        assert!(with("").is_ok());
        assert!(!format!("{:?}", with(&secret).unwrap()).contains(&secret));
        for secret in ["k".repeat(SECRET_CHARS_MIN - 1), format!("{secret} {secret}"), "ü".repeat(SECRET_CHARS_MIN)] {
            let problem = with(&secret).unwrap_err();
            assert!(problem.contains("a secret has at least 32 characters"), "{problem}");
            assert!(problem.contains(setting) && !problem.contains(&secret), "{problem}");
        }
    }
}
