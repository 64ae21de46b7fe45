//! Claims that make somebody, and those that do not.

use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp(1_000_000_000);

fn pool() -> IdentityPool {
    IdentityPool::parse("local", "default").unwrap()
}

fn rules() -> TokenRules {
    TokenRules {
        issuer: "https://issuer.example".to_owned(),
        audiences: vec!["app".to_owned(), "other app".to_owned()],
        access_token_clients: vec!["job".to_owned(), "app".to_owned()],
        leeway_ms: 0,
        service: None,
    }
}

/// Judges good claims, with some changed; null takes one out. `user` and `service NAME` are who calls.
fn judge(rules: &TokenRules, kind: Option<&str>, changed: &Value) -> String {
    let mut claims = json!({"iss": "https://issuer.example", "sub": "ada", "aud": "app", "exp": 1_000_001});
    for (name, value) in changed.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let Value::Object(mut claims) = claims else { panic!("{claims}") };
    claims.retain(|_, value| !value.is_null());
    match rules.judge(Token { kind: kind.map(str::to_owned), claims }, &pool(), NOW) {
        Ok(SignedIn { caller: Caller::Service { name }, .. }) => format!("service {name}"),
        Ok(SignedIn { caller: Caller::Identity(identity), .. }) => {
            assert_eq!(identity, pool().identity("https://issuer.example", "ada"));
            "user".to_owned()
        }
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn check(rules: &TokenRules, kind: Option<&str>, changed: Value, expected: &str) {
    let found = judge(rules, kind, &changed);
    assert!(found.contains(expected), "{kind:?} {changed}: {found}");
}

#[test]
fn an_id_token_is_for_an_app_of_ours() {
    let check = |changed, expected| check(&rules(), Some("JWT"), changed, expected);
    check(json!({}), "user");
    check(json!({"aud": ["other app"]}), "user");
    check(json!({"aud": "App"}), "it is for another audience");
    check(json!({"aud": ["x"]}), "it is for another audience");
    check(json!({"aud": []}), "it is for another audience");
    check(json!({"aud": null}), "it is for another audience");
    check(json!({"aud": 7}), "or they are malformed");
    // For others too: then it was issued to one of ours.
    check(json!({"aud": ["x", "app"]}), "it is for several audiences");
    check(json!({"aud": ["x", "app"], "azp": "x"}), "it is for several audiences");
    check(json!({"aud": ["x", "app"], "azp": "app"}), "user");
    // One audience, and the app of another platform that asked for it, as Google's issuer does.
    check(json!({"aud": "app", "azp": "android app"}), "user");
    // Cognito.
    check(json!({"token_use": "id", "cognito:groups": ["readers"]}), "user");
    check(json!({"token_use": "id", "aud": "x"}), "it is for another audience");
    check(json!({"token_use": "refresh"}), "neither an ID token nor an access token");
    check(json!({"token_use": 7}), "or they are malformed");
}

#[test]
fn an_access_token_is_taken_where_its_client_is_configured() {
    let cognito = json!({"token_use": "access", "aud": null, "client_id": "job", "scope": "openid"});
    let with = |changed: Value| {
        let mut all = cognito.clone();
        all.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        all
    };
    let not_taken = "not of a client whose access tokens are taken";
    check(&rules(), None, cognito.clone(), "user");
    check(&rules(), None, with(json!({"client_id": "x"})), not_taken);
    check(&rules(), None, with(json!({"client_id": null})), not_taken);
    check(&rules(), None, with(json!({"client_id": null, "azp": "job"})), "user");
    check(&rules(), None, with(json!({"client_id": "x", "azp": "job"})), not_taken);
    // An audience of ours does not make it an ID token.
    check(&rules(), None, with(json!({"client_id": "x", "aud": "app"})), not_taken);
    let none = TokenRules { access_token_clients: Vec::new(), ..rules() };
    check(&none, None, cognito.clone(), not_taken);

    // Other issuers: by the header of RFC 9068, or because it has what only access tokens have.
    let other = json!({"aud": "https://api.example", "client_id": "job"});
    for kind in [None, Some("JWT"), Some("at+jwt"), Some("application/at+JWT")] {
        check(&rules(), kind, other.clone(), "user");
        check(&none, kind, other.clone(), not_taken);
    }
    check(&rules(), Some("at+jwt"), json!({"client_id": "x"}), not_taken);
    check(&rules(), Some("at+jwt"), json!({"token_use": "id"}), "neither an ID token nor an access token");
    check(&rules(), None, json!({"aud": "account", "azp": "job", "scope": "openid"}), "user");
    // Somebody else's ID token that one of ours asked for.
    check(&rules(), None, json!({"aud": "x", "azp": "job"}), "it is for another audience");
}

#[test]
fn what_is_not_for_signing_in_is_refused() {
    let events = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    check(&rules(), None, json!({"events": events}), "it tells of an event");
    for kind in ["logout+jwt", "dpop+jwt", "secevent+jwt", ""] {
        check(&rules(), Some(kind), json!({}), "neither an ID token nor an access token");
    }
}

#[test]
fn a_claim_makes_a_service_caller_where_it_is_configured() {
    let with = |claim: &str, value: &str| {
        let service = Some(ServiceClaim { claim: claim.to_owned(), value: value.to_owned() });
        TokenRules { service, ..rules() }
    };
    let job = |scope: &str| json!({"token_use": "access", "aud": null, "client_id": "job", "scope": scope});
    let scope = with("scope", "syncline/act-for-owners");
    check(&rules(), None, job("syncline/act-for-owners"), "user");
    check(&scope, None, job("syncline/act-for-owners"), "service job");
    check(&scope, None, job("openid syncline/act-for-owners"), "service job");
    check(&scope, None, job("syncline/act-for-owners-not"), "user");
    check(&scope, None, job("syncline / act-for-owners"), "user");
    check(&scope, None, json!({}), "user");
    // The claim does not make up for anything else.
    let foreign = json!({"client_id": "x", "token_use": "access", "scope": "syncline/act-for-owners"});
    check(&scope, None, foreign, "not of a client whose access tokens are taken");
    check(&scope, None, json!({"scope": "syncline/act-for-owners", "exp": 1}), "expired");

    let group = with("cognito:groups", "back-end");
    check(&group, None, json!({"cognito:groups": ["readers", "back-end"]}), "service ada");
    check(&group, None, json!({"cognito:groups": ["readers", "back-end-not"]}), "user");
    check(&group, None, json!({"cognito:groups": [["back-end"]]}), "user");
    check(&group, None, json!({"cognito:groups": "back-end"}), "service ada");
    check(&group, None, json!({"cognito:groups": {"back-end": true}}), "user");

    // What users choose themselves may have blanks.
    check(&with("nickname", "job"), None, json!({"nickname": "a job"}), "user");
    check(&with("nickname", "job"), None, json!({"nickname": "job"}), "service ada");
}

#[test]
fn clocks_may_differ_by_the_leeway() {
    let rules = TokenRules { leeway_ms: 60_000, ..rules() };
    for (changed, expected) in [
        (json!({"exp": 999_941}), "user"),
        (json!({"exp": 999_940}), "expired"),
        (json!({"nbf": 1_000_060}), "user"),
        (json!({"nbf": 1_000_061}), "it is not valid yet"),
        (json!({"nbf": 1e300}), "it is not valid yet"),
    ] {
        check(&rules, None, changed, expected);
    }
    let claims = json!({"iss": rules.issuer, "sub": "ada", "aud": "app", "exp": 1_000_001.5});
    let Value::Object(claims) = claims else { panic!("{claims}") };
    let signed_in = rules.judge(Token { kind: None, claims }, &pool(), NOW).unwrap();
    assert_eq!(signed_in.expires_at, Some(Timestamp(1_000_061_500)));
}
