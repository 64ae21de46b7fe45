//! Ids that follow from what they name.

use sha2::{Digest as _, Sha256};

/// Half a SHA-256 of these parts. Each goes in with its length, so that what ends one cannot begin the next.
pub(crate) fn fingerprint(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let all: [u8; 32] = hasher.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&all[..16]);
    half
}
