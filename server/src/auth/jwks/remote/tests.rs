//! Keys that change, and issuers that do not answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;

const ISSUER: &str = "https://issuer.example";
const DISCOVERY: &str = "https://issuer.example/.well-known/openid-configuration";
const KEYS: &str = "https://keys.example/jwks.json";
const INTERVAL_MS: i64 = 10_000;
/// A point on P-256.
const X: &str = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
const Y: &str = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";

/// An issuer in memory.
#[derive(Default)]
struct Issuer {
    documents: Mutex<BTreeMap<String, Vec<u8>>>,
    fetches_of_keys: AtomicUsize,
    /// When it hangs, it answers after being notified.
    hang: Mutex<Option<Arc<Notify>>>,
}

impl Issuer {
    /// It publishes keys of these names.
    fn with_keys(ids: &[&str]) -> Arc<Self> {
        let issuer = Arc::<Self>::default();
        issuer.publish(DISCOVERY, json!({"issuer": ISSUER, "jwks_uri": KEYS}));
        issuer.publish(KEYS, set(ids));
        issuer
    }

    fn publish(&self, url: &str, document: Value) {
        self.answer(url, document.to_string().into_bytes());
    }

    fn answer(&self, url: &str, document: Vec<u8>) {
        self.documents.lock().unwrap().insert(url.to_owned(), document);
    }

    fn fail(&self, url: &str) {
        self.documents.lock().unwrap().remove(url);
    }

    fn fetches(&self) -> usize {
        self.fetches_of_keys.load(Ordering::SeqCst)
    }

    fn jwks(self: &Arc<Self>) -> RemoteJwks {
        let place = Place::Discovery { url: DISCOVERY.parse().unwrap(), issuer: ISSUER.to_owned() };
        RemoteJwks::new(place, INTERVAL_MS, Arc::clone(self) as _)
    }
}

#[async_trait]
impl Fetch for Issuer {
    async fn fetch(&self, url: &HttpUrl) -> Result<Vec<u8>, FetchError> {
        if url.as_str() != DISCOVERY {
            self.fetches_of_keys.fetch_add(1, Ordering::SeqCst);
        }
        let hang = self.hang.lock().unwrap().clone();
        if let Some(hang) = hang {
            hang.notified().await;
        }
        let document = self.documents.lock().unwrap().get(url.as_str()).cloned();
        document.ok_or(FetchError::Status(reqwest::StatusCode::SERVICE_UNAVAILABLE))
    }
}

fn set(ids: &[&str]) -> Value {
    let key = |id: &&str| json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y, "kid": id, "use": "sig"});
    json!({"keys": ids.iter().map(key).collect::<Vec<_>>()})
}

/// Whether a key is known: `Err` if that cannot be told.
async fn knows(jwks: &RemoteJwks, id: &str, at_ms: i64) -> Result<bool, String> {
    jwks.key(id, Timestamp(at_ms)).await.map(|key| key.is_some()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_new_key_is_fetched_when_it_is_first_seen_and_an_old_one_goes_with_the_next_fetch() {
    let issuer = Issuer::with_keys(&["first"]);
    let jwks = issuer.jwks();
    jwks.refresh(Timestamp(0)).await;
    assert_eq!((knows(&jwks, "first", 0).await, issuer.fetches()), (Ok(true), 1));

    issuer.publish(KEYS, set(&["second", "first"]));
    assert_eq!((knows(&jwks, "second", 1).await, issuer.fetches()), (Ok(true), 2));
    assert_eq!((knows(&jwks, "first", 1).await, issuer.fetches()), (Ok(true), 2));

    issuer.publish(KEYS, set(&["second"]));
    assert_eq!(knows(&jwks, "first", 2).await, Ok(true), "nobody has looked since");
    jwks.refresh(Timestamp(3)).await;
    assert_eq!((knows(&jwks, "first", 3).await, issuer.fetches()), (Ok(false), 3));
    assert_eq!((knows(&jwks, "second", 3).await, issuer.fetches()), (Ok(true), 3));
}

#[tokio::test]
async fn unknown_keys_cost_one_fetch_in_an_interval_however_many_there_are() {
    let issuer = Issuer::with_keys(&["known"]);
    let jwks = issuer.jwks();
    jwks.refresh(Timestamp(0)).await;
    for (at_ms, fetches) in
        [(0, 2), (1, 2), (INTERVAL_MS - 1, 2), (INTERVAL_MS, 3), (INTERVAL_MS + 1, 3), (2 * INTERVAL_MS, 4), (1, 5)]
    {
        for number in 0..100 {
            assert_eq!(knows(&jwks, &format!("forged {number}"), at_ms).await, Ok(false));
        }
        assert_eq!(knows(&jwks, "known", at_ms).await, Ok(true));
        assert_eq!(issuer.fetches(), fetches, "at {at_ms}");
    }
}

#[tokio::test]
async fn all_who_miss_a_key_at_once_wait_for_one_fetch_and_those_with_a_known_key_do_not_wait() {
    let issuer = Issuer::with_keys(&["old"]);
    let jwks = Arc::new(issuer.jwks());
    jwks.refresh(Timestamp(0)).await;
    let hang = Arc::new(Notify::new());
    *issuer.hang.lock().unwrap() = Some(Arc::clone(&hang));
    issuer.publish(KEYS, set(&["old", "new"]));
    let ask = |id: &'static str| {
        let jwks = Arc::clone(&jwks);
        tokio::spawn(async move { knows(&jwks, id, 1).await })
    };
    let waiting: Vec<_> = (0..200).map(|number| ask(if number % 2 == 0 { "new" } else { "forged" })).collect();
    tokio::task::yield_now().await;
    // The request that began the fetch is given up: the others get its keys all the same.
    waiting[0].abort();
    assert_eq!(knows(&jwks, "old", 1).await, Ok(true));
    *issuer.hang.lock().unwrap() = None;
    hang.notify_one();
    for (number, waiting) in waiting.into_iter().enumerate().skip(1) {
        assert_eq!(waiting.await.unwrap(), Ok(number % 2 == 0), "{number}");
    }
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test]
async fn while_an_issuer_fails_its_last_keys_hold_and_without_any_it_cannot_be_told() {
    let issuer = Issuer::with_keys(&["known"]);
    issuer.fail(KEYS);
    let jwks = issuer.jwks();
    jwks.refresh(Timestamp(0)).await;
    let unavailable = Err("the issuer's keys are not available".to_owned());
    assert_eq!((knows(&jwks, "known", 0).await, issuer.fetches()), (unavailable.clone(), 2));
    assert_eq!((knows(&jwks, "known", 1).await, issuer.fetches()), (unavailable, 2));
    issuer.publish(KEYS, set(&["known"]));
    assert_eq!((knows(&jwks, "known", INTERVAL_MS).await, issuer.fetches()), (Ok(true), 3));

    for (what, url, document) in [
        ("garbage instead of keys", KEYS, b"<html>".to_vec()),
        ("a set without keys", KEYS, br#"{"keys": []}"#.to_vec()),
        ("a set of useless keys", KEYS, br#"{"keys": [{"kty": "oct", "kid": "known", "k": "AA"}]}"#.to_vec()),
        ("garbage instead of discovery", DISCOVERY, b"\xff\xfe".to_vec()),
        ("discovery without keys", DISCOVERY, json!({"issuer": ISSUER}).to_string().into_bytes()),
    ] {
        let before = issuer.documents.lock().unwrap().clone();
        issuer.answer(url, document);
        jwks.refresh(Timestamp(0)).await;
        assert_eq!(knows(&jwks, "known", INTERVAL_MS).await, Ok(true), "{what}");
        *issuer.documents.lock().unwrap() = before;
    }
}

#[tokio::test]
async fn a_discovery_document_names_its_own_issuer_and_keys_that_cannot_be_changed_on_their_way() {
    for (document, trusted) in [
        (json!({"issuer": ISSUER, "jwks_uri": KEYS}), true),
        (json!({"issuer": "https://issuer.example/", "jwks_uri": KEYS}), false),
        (json!({"issuer": "https://other.example", "jwks_uri": KEYS}), false),
        (json!({"issuer": ISSUER, "jwks_uri": "http://keys.example/jwks.json"}), false),
        (json!({"issuer": ISSUER, "jwks_uri": "file:///jwks.json"}), false),
        (json!({"issuer": ISSUER, "jwks_uri": 7}), false),
    ] {
        let issuer = Issuer::with_keys(&["known"]);
        issuer.publish("http://keys.example/jwks.json", set(&["known"]));
        issuer.publish(DISCOVERY, document.clone());
        assert_eq!(knows(&issuer.jwks(), "known", 0).await == Ok(true), trusted, "{document}");
        assert_eq!(issuer.fetches(), usize::from(trusted), "{document}");
    }
}

#[tokio::test]
async fn the_address_of_keys_may_be_given_without_a_discovery_document() {
    let issuer = Issuer::with_keys(&["known"]);
    issuer.fail(DISCOVERY);
    let jwks = RemoteJwks::new(Place::Keys(KEYS.parse().unwrap()), INTERVAL_MS, Arc::clone(&issuer) as _);
    assert_eq!(knows(&jwks, "known", 0).await, Ok(true));
}

#[test]
fn keys_of_unknown_kinds_do_not_spoil_a_set() {
    let mut document = set(&["known"]);
    let keys = document["keys"].as_array_mut().unwrap();
    keys.insert(0, json!({"kty": "AKP", "alg": "ML-DSA-44", "kid": "later", "pub": "AA"}));
    keys.insert(0, json!("nonsense"));
    keys.push(json!({"kty": "OKP", "crv": "X25519", "x": X, "kid": "exchange"}));
    let keys = Keys::parse(document.to_string().as_bytes()).unwrap();
    assert!(keys.find("known").is_some());
    assert!(keys.find("later").is_none() && keys.find("exchange").is_none());
}
