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
    assert_eq!(config.auth.issuer, None);
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
        ("SYNCLINE__AUTH__AUDIENCES", "[\"a\"]"),
        ("OTHER", "x"),
    ];
    let config = load(file, &variables).unwrap();
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!(config.server.requests_max, 5);
    assert_eq!(config.limits.records_max, 7);
    assert_eq!(config.auth.audiences, ["a"]);
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
    check("[limits]\nrecords_max = 0\n", &[], "`records_max` is 0");
    check("[limits]\nrecords_max = -1\n", &[], "invalid value");
    check("[retention]\ntombstones = \"90 days\"\n", &[], "a duration is a whole number with a unit");
    check("[auth]\nissuer = \"https://issuer.example\"\n", &[], "with `issuer` go `audiences`");
    check("[server]\ntls_key = \"key.pem\"\n", &[], "`tls_certificate` and `tls_key` go together");
    check("[server]\nmetrics_listen = \"9090\"\n", &[], "`9090`: invalid socket address");
    for origin in ["https://app.example/", "app.example", "https://", "null"] {
        check(&format!("[server]\ncors_origins = [\"{origin}\"]\n"), &[], &format!("`cors_origins` has `{origin}`"));
    }
    check("[rates]\nburst = 0\n", &[], "a `burst` of at least 1");
    check("", &[("SYNCLINE__SERVER", "x")], "it is written SYNCLINE__SECTION__KEY");
    check("", &[("SYNCLINE__SERVER__PORT", "1")], "there is no setting `port`");
    check("", &[("SYNCLINE__LIMITS__RECORDS_MAX", "many")], "its value is not one of TOML");
}
