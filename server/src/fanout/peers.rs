//! The servers that are heard, and whether something they said was lost.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often a server that has nothing to say says that it is there.
pub(super) const BEAT_EVERY: Duration = Duration::from_secs(3);
/// A server that is not heard for so long is gone, or cannot be heard.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(12);
/// Servers that are told apart.
const PEERS_MAX: usize = 1_000;

/// All that have been heard since the connection was made.
#[derive(Debug)]
pub(super) struct Peers {
    own_run: u64,
    own_heard_at: Instant,
    others: HashMap<u64, Peer>,
}

#[derive(Debug)]
struct Peer {
    /// The number of the latest thing that it said.
    number: u64,
    heard_at: Instant,
}

/// Who said something, and whether it is what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// This server itself.
    Own,
    /// Another server, and nothing is missing in between, as far as is known.
    Next,
    /// Another server, and something before it was lost.
    AfterGap,
}

impl Peers {
    pub(super) fn new(own_run: u64, now: Instant) -> Self {
        Self { own_run, own_heard_at: now, others: HashMap::new() }
    }

    /// A server said something.
    pub(super) fn hear(&mut self, run: u64, number: u64, now: Instant) -> Heard {
        if run == self.own_run {
            self.own_heard_at = now;
            return Heard::Own;
        }
        let Some(peer) = self.others.get_mut(&run) else {
            if self.others.len() >= PEERS_MAX {
                return Heard::AfterGap;
            }
            self.others.insert(run, Peer { number, heard_at: now });
            return Heard::Next;
        };
        // What comes twice or late leaves no gap.
        let is_next = number <= peer.number.saturating_add(1);
        peer.number = number.max(peer.number);
        peer.heard_at = now;
        if is_next { Heard::Next } else { Heard::AfterGap }
    }

    /// A server has said that it stops, and has said everything.
    pub(super) fn leave(&mut self, run: u64) {
        self.others.remove(&run);
    }

    /// Forgets servers that fell silent; says whether there were any. What they wanted to say is lost.
    pub(super) fn forget_silent(&mut self, now: Instant) -> bool {
        let before = self.others.len();
        self.others.retain(|_, peer| now.duration_since(peer.heard_at) < SILENT_AFTER);
        self.others.len() < before
    }

    /// Whether this server does not hear itself any more, and so perhaps nobody.
    pub(super) fn is_deaf(&self, now: Instant) -> bool {
        now.duration_since(self.own_heard_at) >= SILENT_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_left_out_is_noticed() {
        let now = Instant::now();
        let mut peers = Peers::new(1, now);
        for (run, number, heard) in [
            (1, 1, Heard::Own),
            (1, 9, Heard::Own),
            // It may have been there for long.
            (2, 7, Heard::Next),
            (2, 8, Heard::Next),
            (2, 10, Heard::AfterGap),
            (2, 9, Heard::Next),
            (2, 10, Heard::Next),
            (2, 11, Heard::Next),
            (3, 1, Heard::Next),
            (2, u64::MAX, Heard::AfterGap),
            (2, u64::MAX, Heard::Next),
        ] {
            assert_eq!(peers.hear(run, number, now), heard, "{run} {number}");
        }
    }

    #[test]
    fn who_falls_silent_is_noticed_once_and_who_leaves_is_not() {
        let now = Instant::now();
        let mut peers = Peers::new(1, now);
        peers.hear(2, 1, now);
        peers.hear(3, 1, now);
        peers.leave(3);
        let later = now + SILENT_AFTER / 2;
        assert!(!peers.forget_silent(later) && !peers.is_deaf(later));
        peers.hear(1, 1, later);
        let latest = now + SILENT_AFTER;
        assert!(peers.forget_silent(latest) && !peers.is_deaf(latest));
        assert!(!peers.forget_silent(latest));
        assert!(peers.is_deaf(later + SILENT_AFTER));
    }

    #[test]
    fn a_crowd_of_strangers_finds_no_room() {
        let now = Instant::now();
        let mut peers = Peers::new(1, now);
        let heard: Vec<_> = (2..).take(PEERS_MAX + 1).map(|run| peers.hear(run, 1, now)).collect();
        assert_eq!((heard[PEERS_MAX - 1], heard[PEERS_MAX]), (Heard::Next, Heard::AfterGap));
        assert_eq!(peers.others.len(), PEERS_MAX);
    }
}
