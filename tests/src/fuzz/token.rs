//! Tokens: only what our key has signed, and what says what it must, signs anybody in.

use std::future::Future as _;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Map, Value, json};
use sync_core::model::Timestamp;
use syncline_server::auth::identity::IdentityPool;
use syncline_server::auth::jwks::{Keys, StaticJwks};
use syncline_server::auth::jwt::Verifier;
use syncline_server::auth::policy::Caller;
use syncline_server::auth::rules::{SignedIn, TokenRules};
use syncline_server::config::ServiceClaim;

use crate::fuzz::input::Input;

/// The first byte says whether the rest is a set of keys, a token as it is, or what a token is made of.
pub fn token(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(4) {
        0 => drop(Keys::parse(input.rest())),
        1 => {
            let text = String::from_utf8_lossy(input.rest()).into_owned();
            assert!(verify(&text).is_none(), "nobody has signed {text}");
        }
        _ => made(&mut input),
    }
}

/// How a token is signed.
#[derive(Clone, Copy, PartialEq)]
enum Signature {
    Ours,
    /// Of the right form, by another key.
    Theirs,
    /// Ours, of something else.
    Moved,
    Damaged,
    Text,
}

fn made(input: &mut Input<'_>) {
    let mut header = json!({"alg": "ES256", "kid": "ours", "typ": input.pick(&["JWT", "JWT", "at+jwt"])});
    let mut claims = match input.below(4) {
        0 => json!({"iss": ISSUER, "sub": "ada", "exp": 1_001, "aud": "app"}),
        1 => json!({"iss": ISSUER, "sub": "ada", "exp": 1_001, "aud": "app", "token_use": "id"}),
        2 => json!({"iss": ISSUER, "sub": "ada", "exp": 1_001, "aud": ["app", "other"], "azp": "tool"}),
        _ => json!({"iss": ISSUER, "sub": "ada", "exp": 1_001, "client_id": "tool", "scope": "all", "role": ["a job"]}),
    };
    change(header.as_object_mut().expect("it is an object"), &["alg", "kid", "typ", "crit", "jwk", "jku"], input);
    let names = ["iss", "sub", "aud", "exp", "nbf", "token_use", "client_id", "azp", "scope", "role", "events", "iat"];
    change(claims.as_object_mut().expect("it is an object"), &names, input);
    let signatures = [Signature::Theirs, Signature::Moved, Signature::Damaged, Signature::Text];
    let how = if input.one_in(3) { *input.pick(&signatures) } else { Signature::Ours };
    let [header_text, claims_text] = [&header, &claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let signed = format!("{header_text}.{claims_text}");
    let sign = |text: &str, key| jsonwebtoken::crypto::sign(text.as_bytes(), key, Algorithm::ES256).expect("it signs");
    let signature = match how {
        Signature::Ours => sign(&signed, &KEYS.ours),
        Signature::Theirs => sign(&signed, &KEYS.theirs),
        Signature::Moved => sign(&format!("{header_text}.e30"), &KEYS.ours),
        Signature::Damaged => {
            let mut signature = sign(&signed, &KEYS.ours).into_bytes();
            let at = input.below(signature.len());
            let by = *input.pick(b"AZaz09-_=.");
            if signature[at] == by || at + 1 == signature.len() {
                return; // The last digit has bits that say nothing.
            }
            signature[at] = by;
            String::from_utf8(signature).expect("it is text")
        }
        Signature::Text => input.text(),
    };
    let token = format!("{}{signed}.{signature}", input.pick(&["", "Bearer ", "bearer  "]));
    let found = verify(&token);
    let expected = (how == Signature::Ours).then(|| expected(&header, &claims)).flatten();
    let found = found.map(|signed_in| signed_in.caller);
    // Members of a header that say where keys are must be well-formed, and are not looked at otherwise.
    let is_plain = header.get("jwk").is_none() && header.get("jku").is_none();
    assert!(found == expected || found.is_none() && !is_plain, "{found:?}, not {expected:?}: {header} {claims}");
}

/// Changes or removes some members of an object.
fn change(object: &mut Map<String, Value>, names: &[&str], input: &mut Input<'_>) {
    for _ in 0..input.below(6) {
        let name = *input.pick(names);
        match input.below(4) {
            0 => drop(object.remove(name)),
            _ => drop(object.insert(name.to_owned(), member(input))),
        }
    }
}

fn member(input: &mut Input<'_>) -> Value {
    let texts = [
        "",
        "app",
        "other",
        "tool",
        "ada",
        "id",
        "access",
        "jwt",
        "at+jwt",
        "application/at+jwt",
        "none",
        "HS256",
        "RS256",
        "ES256",
        "ES384",
        "ours",
        "rsa",
        "theirs",
        "a job",
        ISSUER,
    ];
    match input.below(8) {
        0 => Value::Null,
        1 => json!(input.flag()),
        2 => json!(input.integer()),
        3 => json!(f64::from_be_bytes(input.array())),
        4 => Value::from(input.text().repeat(input.below(4))),
        5 => json!([input.pick(&texts), input.pick(&texts)]),
        6 => json!(950 + i64::from(input.byte())),
        _ => json!(input.pick(&texts)),
    }
}

/// Whom the rules let in with a good signature, said in another way than the rules say it.
fn expected(header: &Value, claims: &Value) -> Option<Caller> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let kind = match &header["typ"] {
        Value::Null => "jwt".to_owned(),
        kind => text(kind)?.to_ascii_lowercase(),
    };
    let says_access = match &*kind {
        "jwt" => false,
        "at+jwt" | "application/at+jwt" => true,
        _ => return None,
    };
    let is_ours = header["alg"] == "ES256" && header["kid"] == "ours" && header["crit"].is_null();
    if !is_ours || claims["iss"] != ISSUER || claims.get("events").is_some() {
        return None;
    }
    let optional = |name: &str| match &claims[name] {
        Value::Null => Some(None),
        value => text(value).map(Some),
    };
    let (token_use, client, azp) = (optional("token_use")?, optional("client_id")?, optional("azp")?);
    let audiences: Vec<String> = match claims.get("aud") {
        None => Vec::new(),
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(several)) => several.iter().map(text).collect::<Option<_>>()?,
        Some(_) => return None,
    };
    let for_us = audiences.iter().any(|audience| audience == "app");
    let is_access = match token_use.as_deref() {
        Some("id") if says_access => return None,
        Some("id") => false,
        Some("access") => true,
        Some(_) => return None,
        None => says_access || !for_us && (claims.get("scope").is_some() || client.is_some()),
    };
    if is_access {
        (client.as_ref().or(azp.as_ref())? == "tool").then_some(())?;
    } else {
        let to_us = azp.as_deref().is_some_and(|azp| azp == "app" || azp == "tool");
        (for_us && (audiences.len() == 1 || to_us)).then_some(())?;
    }
    let ms = |seconds: f64| Some(seconds * 1_000.0).filter(|ms| ms.abs() < 1e17);
    let expires = claims["exp"].as_f64()?;
    (ms(expires)?.trunc() > NOW.0 as f64 - LEEWAY_MS as f64).then_some(())?;
    if !claims["nbf"].is_null() {
        let begins = claims["nbf"].as_f64()?;
        // One that is out of range is refused, also if it is long ago.
        (ms(begins)?.trunc() <= (NOW.0 + LEEWAY_MS) as f64).then_some(())?;
    }
    let subject = text(&claims["sub"]).filter(|subject| (1..=255).contains(&subject.len()))?;
    let is_job = match &claims["role"] {
        Value::String(role) => role == "a job",
        Value::Array(roles) => roles.iter().any(|role| role == "a job"),
        _ => false,
    };
    Some(if is_job {
        Caller::Service { name: client.unwrap_or(subject) }
    } else {
        Caller::Identity(pool().identity(ISSUER, &subject))
    })
}

fn verify(authorization: &str) -> Option<SignedIn> {
    let verifier = verifier();
    let mut verified = pin!(verifier.verify(Some(authorization), NOW));
    match verified.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(verified) => verified.ok(),
        Poll::Pending => panic!("keys that are known are not waited for"),
    }
}

fn verifier() -> Verifier {
    let rules = TokenRules {
        issuer: ISSUER.to_owned(),
        audiences: vec!["app".to_owned()],
        access_token_clients: vec!["tool".to_owned()],
        leeway_ms: LEEWAY_MS,
        service: Some(ServiceClaim { claim: "role".to_owned(), value: "a job".to_owned() }),
    };
    let keys = StaticJwks::new(&KEYS.set).expect("the key can be used");
    Verifier::new(pool()).with_issuer(rules, Arc::new(keys))
}

fn pool() -> IdentityPool {
    IdentityPool::parse("local", "default").expect("it is a valid region")
}

struct SigningKeys {
    ours: EncodingKey,
    theirs: EncodingKey,
    set: JwkSet,
}

static KEYS: LazyLock<SigningKeys> = LazyLock::new(|| {
    let [ours, theirs] = [0x11, 0x22].map(|byte| EncodingKey::from_ec_der(&[&P256[..], &[byte; 32]].concat()));
    let mut jwk = Jwk::from_encoding_key(&ours, Algorithm::ES256).expect("it has a public key");
    jwk.common.key_id = Some("ours".to_owned());
    SigningKeys { ours, theirs, set: JwkSet { keys: vec![jwk] } }
});

/// What stands before the number of a P-256 key in PKCS #8.
const P256: [u8; 35] = [
    0x30, 0x41, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x27, 0x30, 0x25, 0x02, 0x01, 0x01, 0x04, 0x20,
];

const ISSUER: &str = "https://issuer.example";
const NOW: Timestamp = Timestamp(1_000_000);
const LEEWAY_MS: i64 = 5_000;
