//! What the stores of SQL put into columns alike.

use sync_core::merge::push::RememberedPush;
use sync_core::model::{DeviceId, RemovalReason};

/// A remembered push in the form of its row.
pub(super) struct EncodedPush {
    pub(super) device: DeviceId,
    pub(super) sequence: u64,
    pub(super) hash: [u8; 32],
    /// MessagePack.
    pub(super) answer: Vec<u8>,
}

impl EncodedPush {
    pub(super) fn new((device, push): (DeviceId, RememberedPush)) -> Self {
        let RememberedPush { sequence, hash, answer } = push;
        let answer = rmp_serde::to_vec_named(&answer).expect("answers have no unencodable parts");
        Self { device, sequence, hash, answer }
    }
}

/// A number for a column. Counts and sequences stay below 2^53; what a client makes up beyond is beyond everything.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Why a record was removed, for a column.
pub(super) const fn removal(reason: RemovalReason) -> &'static str {
    match reason {
        RemovalReason::Removed => "removed",
        RemovalReason::Left => "left",
        _ => "unknown",
    }
}

/// Why a record was removed, as a column says.
pub(super) fn parse_removal(text: &str) -> RemovalReason {
    match text {
        "removed" => RemovalReason::Removed,
        "left" => RemovalReason::Left,
        _ => RemovalReason::Unknown,
    }
}
