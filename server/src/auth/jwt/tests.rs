//! Tokens that are taken, and all the others.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm};
use jsonwebtoken::{EncodingKey, Header};
use rsa::pkcs1::EncodeRsaPrivateKey as _;
use serde_json::{Value, json};
use std::sync::LazyLock;

use super::*;
use crate::auth::jwks::{Keys as UsableKeys, StaticJwks, VerifyingKey};
use crate::auth::token_error::RETRY_AFTER_MS;
use crate::clock::SystemRandom;
use crate::error::ServiceError;

const NOW: Timestamp = Timestamp(1_000_000_000);

/// The two kinds of keys that are taken.
struct Keys {
    rsa: EncodingKey,
    ec: EncodingKey,
    set: JwkSet,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap();
    let rsa = EncodingKey::from_rsa_der(key.to_pkcs1_der().unwrap().as_bytes());
    let folder = tempfile::tempdir().unwrap();
    let folder = crate::data_folder::DataFolder::open(folder.path()).unwrap();
    crate::auth::dev_issuer::DevIssuer::open(&folder, &SystemRandom).unwrap();
    let stored = folder.read_or_create("dev-issuer.json", String::new).unwrap();
    let stored: Value = serde_json::from_str(&stored).unwrap();
    let ec = EncodingKey::from_ec_pem(stored["private_key"].as_str().unwrap().as_bytes()).unwrap();
    let named = |key: &EncodingKey, algorithm, id: &str| {
        let mut jwk = Jwk::from_encoding_key(key, algorithm).unwrap();
        jwk.common.key_id = Some(id.to_owned());
        jwk
    };
    let keys = vec![named(&rsa, Algorithm::RS256, "rsa"), named(&ec, Algorithm::ES256, "ec")];
    Keys { rsa, ec, set: JwkSet { keys } }
});

fn verifier() -> Verifier {
    let rules = TokenRules {
        issuer: "https://issuer.example".to_owned(),
        audiences: vec!["app".to_owned(), "other app".to_owned()],
        access_token_clients: Vec::new(),
        leeway_ms: 0,
        service: None,
    };
    let pool = IdentityPool::parse("local", "default").unwrap();
    Verifier::new(pool).with_issuer(rules, Arc::new(StaticJwks::new(&KEYS.set).unwrap()))
}

/// Good claims, with some changed; null takes one out.
fn claims(changed: Value) -> Value {
    let mut claims = json!({"iss": "https://issuer.example", "sub": "ada", "aud": "app", "exp": 1_000_001});
    for (name, value) in changed.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

fn sign(algorithm: Algorithm, key_id: &str, claims: &Value) -> String {
    let key = if algorithm == Algorithm::ES256 { &KEYS.ec } else { &KEYS.rsa };
    let header = Header { kid: Some(key_id.to_owned()), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

async fn verdict(token: &str) -> String {
    match verifier().verify(Some(token), NOW).await {
        Ok(signed_in) => signed_in.caller.default_owner().map(ToString::to_string).unwrap_or_default(),
        Err(error) => error.to_string(),
    }
}

async fn check(changed: Value, expected: &str) {
    let found = verdict(&sign(Algorithm::ES256, "ec", &claims(changed.clone()))).await;
    assert!(found.contains(expected), "{changed}: {found}");
}

const ADA: &str = "local:27f9c741-a704-8336-9b18-d7944eb9ff45";

#[tokio::test]
async fn both_algorithms_are_taken_bare_and_as_bearer() {
    for token in [sign(Algorithm::RS256, "rsa", &claims(json!({}))), sign(Algorithm::ES256, "ec", &claims(json!({})))] {
        for authorization in [token.clone(), format!("Bearer {token}"), format!("bearer   {token} ")] {
            assert_eq!(verdict(&authorization).await, ADA);
        }
    }
    assert_eq!(verifier().verify(None, NOW).await.unwrap_err().to_string(), "sign in: the request has no token");
    assert_eq!(verdict("Bearer ").await, "the token is not valid: it is not a signed token");
}

#[tokio::test]
async fn claims_are_checked_by_the_servers_clock() {
    check(json!({}), ADA).await;
    check(json!({"exp": 1_000_000.001}), ADA).await;
    check(json!({"exp": 1_000_000}), "the token has expired").await;
    check(json!({"exp": -1}), "the token has expired").await;
    check(json!({"exp": 1e300}), "the token has expired").await;
    check(json!({"exp": null}), "it lacks claims").await;
    check(json!({"exp": "1000001"}), "or they are malformed").await;
    check(json!({"nbf": 1_000_000}), ADA).await;
    check(json!({"nbf": 1_000_001}), "it is not valid yet").await;
    check(json!({"iss": "https://issuer.example/"}), "it is from another issuer").await;
    check(json!({"iss": null}), "it does not say who issued it").await;
    check(json!({"sub": ""}), "its subject is empty or too long").await;
    check(json!({"sub": "x".repeat(256)}), "its subject is empty or too long").await;
    check(json!({"sub": null}), "it lacks claims").await;
}

#[tokio::test]
async fn a_verified_token_ends_when_it_says() {
    let verifier = verifier();
    let token = sign(Algorithm::ES256, "ec", &claims(json!({})));
    for (now, good) in [(NOW, true), (NOW.plus_ms(999), true), (NOW.plus_ms(1_000), false)] {
        assert_eq!(verifier.verify(Some(&token), now).await.is_ok(), good, "{now:?}");
    }
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let good = sign(Algorithm::ES256, "ec", &claims(json!({})));
    let parts: Vec<&str> = good.split('.').collect();
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let with_header = |header: Value| format!("{}.{}.{}", encode(header), parts[1], parts[2]);
    let hs256 = |secret: &[u8]| {
        let header = Header { kid: Some("ec".to_owned()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims(json!({})), &EncodingKey::from_secret(secret)).unwrap()
    };
    let public_key = serde_json::to_string(&KEYS.set.keys[1]).unwrap();
    let jku = Header {
        kid: Some("mine".to_owned()),
        jku: Some("https://attacker.example/jwks.json".to_owned()),
        jwk: Some(KEYS.set.keys[1].clone()),
        ..Header::new(Algorithm::ES256)
    };
    let flipped = format!("{}{}", &good[..good.len() - 4], if good.ends_with("AAAA") { "BBBB" } else { "AAAA" });
    let other_claims = encode(claims(json!({"sub": "bob"})));
    for (token, expected) in [
        ("nonsense".to_owned(), "it is not a signed token"),
        ("a.b.c".to_owned(), "it is not a signed token"),
        ("x".repeat(20_000), "it is too long"),
        (with_header(json!({"alg": "none", "kid": "ec"})), "it is not a signed token"),
        (format!("{}.{}.", encode(json!({"alg": "none"})), parts[1]), "it is not a signed token"),
        (hs256(public_key.as_bytes()), "it is signed with neither RS256 nor ES256"),
        (hs256(b""), "it is signed with neither RS256 nor ES256"),
        (with_header(json!({"alg": "ES256", "kid": "ec", "crit": ["exp"]})), "it asks for an extension"),
        (with_header(json!({"alg": "ES256"})), "it does not say with which key it is signed"),
        (with_header(json!({"alg": "ES256", "kid": "gone"})), "it is signed with an unknown key"),
        (with_header(json!({"alg": "RS256", "kid": "ec"})), "another algorithm than its key is for"),
        (with_header(json!({"alg": "ES256", "kid": "rsa"})), "another algorithm than its key is for"),
        (with_header(json!({"alg": "ES256", "kid": "ec", "typ": "x"})), "its signature is wrong"),
        (jsonwebtoken::encode(&jku, &claims(json!({})), &KEYS.ec).unwrap(), "it is signed with an unknown key"),
        (format!("{}.{other_claims}.{}", parts[0], parts[2]), "its signature is wrong"),
        (flipped, "its signature is wrong"),
        (format!("{}.{}.", parts[0], parts[1]), "its signature is wrong"),
    ] {
        let found = verdict(&token).await;
        assert!(found.contains(expected), "{token}: {found}");
    }
}

#[test]
fn keys_that_are_too_weak_or_for_something_else_are_not_taken() {
    let usable = |change: &dyn Fn(&mut Jwk)| {
        let mut set = KEYS.set.clone();
        set.keys.iter_mut().for_each(change);
        StaticJwks::new(&set).is_ok()
    };
    assert!(usable(&|_| {}));
    assert!(!usable(&|key| key.common.key_id = None));
    assert!(!usable(&|key| key.common.public_key_use = Some(jsonwebtoken::jwk::PublicKeyUse::Encryption)));
    assert!(!usable(&|key| key.common.key_algorithm = Some(KeyAlgorithm::RS512)));
    let weak = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 1024).unwrap();
    let weak = EncodingKey::from_rsa_der(weak.to_pkcs1_der().unwrap().as_bytes());
    let mut weak = Jwk::from_encoding_key(&weak, Algorithm::RS256).unwrap();
    weak.common.key_id = Some("weak".to_owned());
    assert!(StaticJwks::new(&JwkSet { keys: vec![weak.clone()] }).is_err());
    let padded = |mut jwk: Jwk| {
        if let jsonwebtoken::jwk::AlgorithmParameters::RSA(rsa) = &mut jwk.algorithm {
            let number = URL_SAFE_NO_PAD.decode(&rsa.n).unwrap();
            rsa.n = URL_SAFE_NO_PAD.encode([vec![0; 128], number].concat());
        }
        jwk
    };
    assert!(StaticJwks::new(&JwkSet { keys: vec![padded(weak)] }).is_err());
    assert!(StaticJwks::new(&JwkSet { keys: vec![padded(KEYS.set.keys[0].clone())] }).is_ok());
    assert!(UsableKeys::parse(b"{}").is_err());
    assert!(UsableKeys::parse(&serde_json::to_vec(&KEYS.set).unwrap()).is_ok());
}

#[tokio::test]
async fn each_issuer_is_judged_by_its_own_rules_and_keys() {
    let rules = |issuer: &str, audience: &str| TokenRules {
        issuer: issuer.to_owned(),
        audiences: vec![audience.to_owned()],
        access_token_clients: Vec::new(),
        leeway_ms: 0,
        service: None,
    };
    let only = |id: usize| Arc::new(StaticJwks::new(&JwkSet { keys: vec![KEYS.set.keys[id].clone()] }).unwrap());
    let verifier = Verifier::new(IdentityPool::parse("local", "default").unwrap())
        .with_issuer(rules("https://rsa.example", "a"), only(0))
        .with_issuer(rules("https://ec.example", "b"), only(1));
    let ask = async |issuer: &str, audience: &str, algorithm, key_id| {
        let token = sign(algorithm, key_id, &claims(json!({"iss": issuer, "aud": audience})));
        verifier.verify(Some(&token), NOW).await.map_err(|error| error.to_string())
    };
    let from_rsa = ask("https://rsa.example", "a", Algorithm::RS256, "rsa").await.unwrap();
    let from_ec = ask("https://ec.example", "b", Algorithm::ES256, "ec").await.unwrap();
    assert_ne!(from_rsa.caller, from_ec.caller, "the same subject of two issuers is two identities");
    for (issuer, audience, algorithm, key_id, expected) in [
        ("https://rsa.example", "b", Algorithm::RS256, "rsa", "another audience"),
        ("https://rsa.example", "a", Algorithm::ES256, "ec", "an unknown key"),
        ("https://ec.example", "b", Algorithm::RS256, "rsa", "an unknown key"),
        ("https://third.example", "a", Algorithm::RS256, "rsa", "another issuer"),
    ] {
        let refused = ask(issuer, audience, algorithm, key_id).await.unwrap_err();
        assert!(refused.contains(expected), "{issuer} {audience} {key_id}: {refused}");
    }
}

#[tokio::test]
async fn the_service_key_signs_a_job_in_for_good_and_nothing_like_it_does() {
    let key = "0123456789abcdef0123456789abcdef";
    let variables = [("SYNCLINE__AUTH__SERVICE_KEY".into(), key.into())];
    let config = crate::config::Config::load(None, variables.into_iter()).unwrap();
    let with_key = verifier().with_service_key(config.auth.service_key.as_ref().unwrap());
    let signed_in = with_key.verify(Some(&format!("Bearer {key}")), NOW).await.unwrap();
    let caller = Caller::Service { name: "service-key".to_owned() };
    assert_eq!(signed_in, SignedIn { caller, expires_at: None });
    for (verifier, text) in [(&with_key, &key[1..]), (&with_key, &key.to_uppercase()), (&verifier(), key)] {
        assert!(verifier.verify(Some(text), NOW).await.is_err(), "{text}");
    }
    let token = sign(Algorithm::ES256, "ec", &claims(json!({})));
    assert_eq!(with_key.verify(Some(&token), NOW).await.unwrap().expires_at, Some(Timestamp(1_000_001_000)));
}

/// Keys that never come.
struct Nowhere;

#[async_trait::async_trait]
impl JwksSource for Nowhere {
    async fn key(&self, _id: &str, _now: Timestamp) -> Result<Option<VerifyingKey>, JwksError> {
        Err(JwksError::Unavailable)
    }

    async fn refresh(&self, _now: Timestamp) {}
}

#[tokio::test]
async fn whose_keys_are_not_to_be_had_is_asked_to_come_again_and_not_to_sign_in_again() {
    let Issuer { rules, .. } = verifier().issuers.into_values().next().unwrap();
    let verifier =
        Verifier::new(IdentityPool::parse("local", "default").unwrap()).with_issuer(rules, Arc::new(Nowhere));
    let token = sign(Algorithm::ES256, "ec", &claims(json!({})));
    let error = verifier.verify(Some(&token), NOW).await.unwrap_err();
    assert!(matches!(ServiceError::from(error), ServiceError::Unavailable { retry_after_ms: RETRY_AFTER_MS }));
}
