//! The documented source of random bytes.

use crate::model::{DeviceId, Random};

/// Random bytes that every language can make: blocks of eight, each four bytes of a prefix and a number that counts the
/// blocks from 1, big-endian. What is drawn begins with a new block, and cuts the last one off.
#[derive(Clone, Debug)]
pub struct CountingRandom {
    prefix: [u8; 4],
    blocks: u32,
}

impl CountingRandom {
    /// The source with a prefix.
    pub const fn new(prefix: [u8; 4]) -> Self {
        Self { prefix, blocks: 0 }
    }

    /// The source of a device: its prefix are the first bytes of the device's first id.
    pub fn of(device: DeviceId) -> Self {
        let [a, b, c, d, ..] = *device.as_bytes();
        Self::new([a, b, c, d])
    }
}

impl Random for CountingRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.blocks += 1;
            let mut block = [0; 8];
            block[..4].copy_from_slice(&self.prefix);
            block[4..].copy_from_slice(&self.blocks.to_be_bytes());
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
    }
}
