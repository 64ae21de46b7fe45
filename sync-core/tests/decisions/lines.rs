//! Epoch lines, as properties: what devices and servers share after restores.

use proptest::collection::vec;
use proptest::prelude::*;
use sync_core::model::{CommitTag, Divergence, EpochId, EpochReason, Lineage, Position, SyncCount};

use crate::arbitrary::config;
use crate::notation::Counter;

#[derive(Clone, Debug)]
enum Happens {
    Commit,
    /// The first commit of a day.
    Day,
    Backup,
    /// Put back; fenced, or found out.
    Restore,
    /// Put back, and nobody notices.
    Unfenced,
    /// A device pulls.
    Pull,
}

fn happens(unfenced: bool) -> impl Strategy<Value = Happens> {
    prop_oneof![
        8 => Just(Happens::Commit),
        2 => Just(Happens::Day),
        2 => Just(Happens::Backup),
        1 => Just(if unfenced { Happens::Unfenced } else { Happens::Restore }),
        3 => Just(Happens::Pull),
    ]
}

/// A server's line, and what really happened on it.
#[derive(Clone)]
struct Line {
    line: Lineage,
    really: Vec<CommitTag>,
}

impl Line {
    fn shared(&self, other: &Self) -> SyncCount {
        let same = self.really.iter().zip(&other.really).take_while(|(a, b)| a == b).count();
        SyncCount(same as u64)
    }
}

/// The server at last, and the pulls on the way.
fn play(story: Vec<Happens>) -> (Line, Vec<Line>) {
    let mut random = Counter(0);
    let mut server = Line { line: Lineage::default(), really: Vec::new() };
    server.line.open(EpochId::random(&mut random), EpochReason::Created);
    let (mut backup, mut pulls) = (server.clone(), Vec::new());
    for it in story {
        match it {
            Happens::Commit | Happens::Day => {
                if matches!(it, Happens::Day) {
                    server.line.open(EpochId::random(&mut random), EpochReason::Day);
                }
                let tag = CommitTag::random(&mut random);
                server.line.advance(tag);
                server.really.push(tag);
            }
            Happens::Backup => backup = server.clone(),
            Happens::Restore => {
                server = backup.clone();
                server.line.open(EpochId::random(&mut random), EpochReason::Fenced);
            }
            Happens::Unfenced => server = backup.clone(),
            Happens::Pull => pulls.push(server.clone()),
        }
    }
    (server, pulls)
}

/// `noticed`: the restores are, by a fence or because the tags are remembered.
fn check(story: Vec<Happens>, noticed: bool) -> Result<(), TestCaseError> {
    let (server, pulls) = play(story);
    for pull in pulls {
        let Some(cursor) = pull.line.position() else { continue };
        let shared = server.shared(&pull);
        if server.line.contains(cursor) {
            if noticed {
                prop_assert_eq!(shared, cursor.count, "a cursor on the line is of a prefix");
                prop_assert_eq!(server.line.ended(cursor), None);
            }
            continue;
        }
        // An epoch that was opened and lost again without a commit is not known any more: that costs a snapshot.
        let known = server.line.entries.iter().any(|entry| entry.epoch == cursor.epoch);
        prop_assert!(shared < cursor.count || !known, "a prefix is on the line");
        match server.line.diverge(&pull.line, cursor, SyncCount::ZERO) {
            Divergence::Restored { fork } => prop_assert!(fork <= shared, "{fork} is above {shared}"),
            other => prop_assert!(false, "{other:?}"),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_fork_is_never_above_the_real_one_after_fenced_restores(story in vec(happens(false), 0..300)) {
        check(story, true)?;
    }

    // While the tags are remembered, nobody needs to say that the server was put back.
    #[test]
    fn the_fork_is_never_above_the_real_one_after_restores_that_nobody_noticed(story in vec(happens(true), 0..60)) {
        check(story, true)?;
    }

    #[test]
    fn the_fork_is_never_above_the_real_one_where_the_tags_are_forgotten(story in vec(happens(true), 0..600)) {
        check(story, false)?;
    }

    #[test]
    fn every_position_of_a_line_is_on_it_after_many_commits(days in vec(1..90_u64, 1..6)) {
        let mut random = Counter(0);
        let mut line = Lineage::default();
        let mut positions = Vec::new();
        for commits in days {
            line.open(EpochId::random(&mut random), EpochReason::Day);
            for _ in 0..commits {
                line.advance(CommitTag::random(&mut random));
                positions.extend(line.position());
            }
        }
        for position in &positions {
            prop_assert!(line.contains(*position));
            let ahead = Position { count: SyncCount(line.count.0 + 1), ..*position };
            prop_assert!(!line.contains(ahead));
        }
        let newest = positions[positions.len() - 1];
        let ahead = Position { count: line.count.next(), ..newest };
        prop_assert!(line.is_behind(ahead));
        prop_assert!(!line.is_behind(newest));
    }
}
