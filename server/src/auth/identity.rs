//! From a login to the identity that owns datasets.

use sync_core::model::{InvalidName, Owner};

use crate::fingerprint::fingerprint;
use crate::hex::hex;

/// One app: its name, and the region that its identities are written with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityPool {
    region: String,
    name: String,
}

impl IdentityPool {
    /// Parses a pool.
    ///
    /// # Errors
    /// If no identity can be written with this region.
    pub fn parse(region: impl Into<String>, name: impl Into<String>) -> Result<Self, InvalidName> {
        let pool = Self { region: region.into(), name: name.into() };
        Owner::parse(format!("{}:{}", pool.region, uuid([0; 16])))?;
        Ok(pool)
    }

    /// The identity of a login, written `REGION:UUID` as Cognito does. It follows from the login alone, so that a
    /// server that was put back from a backup knows everybody again.
    pub fn identity(&self, issuer: &str, subject: &str) -> Owner {
        let id = fingerprint(&[self.name.as_bytes(), issuer.as_bytes(), subject.as_bytes()]);
        Owner::parse(format!("{}:{}", self.region, uuid(id))).expect("the region was checked with the pool")
    }
}

/// A UUID of version 8, whose bits are ours to choose.
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_has_the_same_identity_for_ever() {
        let pool = IdentityPool::parse("local", "default").unwrap();
        let identity = pool.identity("https://issuer.example", "ada");
        assert_eq!(identity.as_str(), "local:27f9c741-a704-8336-9b18-d7944eb9ff45");
        assert_ne!(identity, pool.identity("https://issuer.example/", "ada"));
        assert_ne!(identity, pool.identity("https://issuer.example/a", "da"));
        assert_ne!(identity, IdentityPool::parse("local", "other").unwrap().identity("https://issuer.example", "ada"));
    }

    #[test]
    fn a_region_that_no_identity_can_be_written_with_is_refused() {
        for region in ["", "a b", "a:b", &"x".repeat(100)] {
            assert!(IdentityPool::parse(region, "default").is_err(), "{region}");
        }
    }
}
