//! An issuer for trying things out: it signs a token for whoever asks. Its key and its name live in the data folder.

use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use p256::pkcs8::{EncodePrivateKey as _, LineEnding};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sync_core::model::Timestamp;

use crate::auth::rules::TokenRules;
use crate::clock::RandomSource;
use crate::config::ServiceClaim;
use crate::data_folder::{DataFolder, DataFolderError};
use crate::hex::hex;

/// The dev issuer of one data folder.
pub struct DevIssuer {
    issuer: String,
    key_id: String,
    key: EncodingKey,
    keys: JwkSet,
}

/// Why there is no dev issuer.
#[derive(Debug, thiserror::Error)]
pub enum DevIssuerError {
    /// Its file cannot be read or made.
    #[error(transparent)]
    Folder(#[from] DataFolderError),
    /// Its file is not what we wrote.
    #[error("{FILE} in the data folder is damaged; without it (delete it), all dev users become others")]
    Damaged(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What is in the file.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// `iss` of all tokens. It is random and has nothing to do with the server's address, so that identities survive a
    /// change of port, and tokens of one data folder are nothing on another.
    issuer: String,
    key_id: String,
    /// PKCS #8.
    private_key: String,
}

/// The file in the data folder.
const FILE: &str = "dev-issuer.json";
/// The `aud` of its tokens.
const AUDIENCE: &str = "syncline-dev";
/// The claim that says what its callers are, if not users.
const ROLE: &str = "syncline:role";
/// The role of back-end jobs.
const SERVICE: &str = "service";

impl DevIssuer {
    /// Opens the issuer of a data folder, and makes it if there is none.
    ///
    /// # Errors
    /// If its file cannot be read or made, or is damaged.
    pub fn open(folder: &DataFolder, random: &dyn RandomSource) -> Result<Self, DevIssuerError> {
        let json = folder.read_or_create(FILE, || {
            serde_json::to_string_pretty(&Stored::new(random)).expect("it has no unencodable parts")
        })?;
        let stored: Stored = serde_json::from_str(&json).map_err(|error| DevIssuerError::Damaged(error.into()))?;
        stored.open().map_err(|error| DevIssuerError::Damaged(error.into()))
    }

    /// Signs an ID token of a user.
    ///
    /// # Errors
    /// If the key in the file cannot sign.
    pub fn token(&self, user: &str, now: Timestamp, expires_at: Timestamp) -> Result<String, DevIssuerError> {
        self.sign(&self.claims(user, now, expires_at))
    }

    /// Signs a token of a back-end job.
    ///
    /// # Errors
    /// If the key in the file cannot sign.
    pub fn service_token(&self, name: &str, now: Timestamp, expires_at: Timestamp) -> Result<String, DevIssuerError> {
        let mut claims = self.claims(name, now, expires_at);
        claims[ROLE] = json!(SERVICE);
        self.sign(&claims)
    }

    fn claims(&self, subject: &str, now: Timestamp, expires_at: Timestamp) -> Value {
        json!({
            "iss": self.issuer, "sub": subject, "aud": AUDIENCE, "token_use": "id",
            "iat": now.0.div_euclid(1000), "exp": seconds(expires_at),
        })
    }

    fn sign(&self, claims: &Value) -> Result<String, DevIssuerError> {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.key).map_err(|error| DevIssuerError::Damaged(error.into()))
    }

    /// What a server takes: tokens of this issuer, by this clock.
    pub fn rules(&self) -> TokenRules {
        TokenRules {
            issuer: self.issuer.clone(),
            audiences: vec![AUDIENCE.to_owned()],
            access_token_clients: Vec::new(),
            leeway_ms: 0,
            service: Some(ServiceClaim { claim: ROLE.to_owned(), value: SERVICE.to_owned() }),
        }
    }

    /// The public keys.
    pub const fn keys(&self) -> &JwkSet {
        &self.keys
    }

    /// The discovery document of OpenID Connect, as it is served at `base`.
    pub fn discovery(&self, base: &str) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{base}/.well-known/jwks.json"),
            "id_token_signing_alg_values_supported": ["ES256"],
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
        })
    }
}

impl Stored {
    fn new(random: &dyn RandomSource) -> Self {
        let mut id = [0; 16];
        random.fill(&mut id);
        let mut bytes = [0; 32];
        let key = loop {
            random.fill(&mut bytes);
            // All but a few in 2^32 are keys.
            if let Ok(key) = p256::SecretKey::from_slice(&bytes) {
                break key;
            }
        };
        let private_key = key.to_pkcs8_pem(LineEnding::LF).expect("a key of this kind has a PEM form");
        Self {
            issuer: format!("https://dev-{}.invalid", hex(&id[..12])),
            key_id: hex(&id[12..]),
            private_key: private_key.to_string(),
        }
    }

    fn open(self) -> Result<DevIssuer, jsonwebtoken::errors::Error> {
        let Self { issuer, key_id, private_key } = self;
        let key = EncodingKey::from_ec_pem(private_key.as_bytes())?;
        let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256)?;
        public.common.key_id = Some(key_id.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(DevIssuer { issuer, key_id, key, keys: JwkSet { keys: vec![public] } })
    }
}

/// Whole seconds where they are, so that other programs find what they expect.
fn seconds(time: Timestamp) -> Value {
    if time.0 % 1000 == 0 { json!(time.0 / 1000) } else { json!(time.0 as f64 / 1000.0) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::identity::IdentityPool;
    use crate::auth::jwks::StaticJwks;
    use crate::auth::jwt::Verifier;
    use crate::auth::policy::Caller;
    use crate::auth::rules::SignedIn;
    use crate::clock::SystemRandom;

    #[tokio::test]
    async fn tokens_outlive_the_issuer_that_signed_them_but_not_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let issuer = || DevIssuer::open(&DataFolder::open(folder.path()).unwrap(), &SystemRandom).unwrap();
        let token = issuer().token("ada", Timestamp(0), Timestamp(1_500)).unwrap();
        let verify = async |issuer: &DevIssuer, now| {
            let pool = IdentityPool::parse("local", "default").unwrap();
            let keys = Arc::new(StaticJwks::new(issuer.keys()).unwrap());
            let verifier = Verifier::new(pool).with_issuer(issuer.rules(), keys);
            verifier.verify(Some(&token), Timestamp(now)).await.map_err(|error| error.to_string())
        };
        let again = issuer();
        assert_eq!(verify(&again, 1_499).await, verify(&again, 0).await);
        assert!(verify(&again, 0).await.is_ok());
        assert_eq!(verify(&again, 1_500).await.unwrap_err(), "sign in again: the token has expired");
        let elsewhere = tempfile::tempdir().unwrap();
        let other = DevIssuer::open(&DataFolder::open(elsewhere.path()).unwrap(), &SystemRandom).unwrap();
        assert!(verify(&other, 0).await.is_err());
    }

    #[tokio::test]
    async fn a_back_end_job_and_a_user_of_the_same_name_are_not_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let issuer = DevIssuer::open(&DataFolder::open(folder.path()).unwrap(), &SystemRandom).unwrap();
        let pool = IdentityPool::parse("local", "default").unwrap();
        let keys = Arc::new(StaticJwks::new(issuer.keys()).unwrap());
        let verifier = Verifier::new(pool.clone()).with_issuer(issuer.rules(), keys);
        let user = issuer.token("reports", Timestamp(0), Timestamp(1_000)).unwrap();
        let job = issuer.service_token("reports", Timestamp(0), Timestamp(1_000)).unwrap();
        for (token, caller) in [
            (user, Caller::Identity(pool.identity(&issuer.issuer, "reports"))),
            (job, Caller::Service { name: "reports".to_owned() }),
        ] {
            let signed_in = verifier.verify(Some(&token), Timestamp(0)).await.unwrap();
            assert_eq!(signed_in, SignedIn { caller, expires_at: Some(Timestamp(1_000)) });
        }
    }

    #[test]
    fn a_damaged_file_is_said_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "{}").unwrap();
        let opened = DevIssuer::open(&DataFolder::open(folder.path()).unwrap(), &SystemRandom);
        assert!(matches!(opened, Err(DevIssuerError::Damaged(_))));
        assert_eq!(std::fs::read_to_string(folder.path().join(FILE)).unwrap(), "{}");
    }
}
