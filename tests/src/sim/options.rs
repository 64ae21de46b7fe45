//! What a seed chooses before the run begins.

use crate::dice::Dice;

/// Which faults a run has, besides those that every run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Lost, repeated and reordered messages, crashes, clock jumps, purges.
    Plain,
    /// And transactions over a ledger: at every moment, a total equals its items.
    Ledger,
    /// And datasets that are deleted.
    Deleted,
    /// And servers that are put back from a backup, with and without a fence.
    ServerRestored,
    /// And devices that are copied, or put back from a backup.
    DeviceRestored,
    /// And guests whose datasets are claimed.
    Claimed,
}

impl Mix {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Plain, Self::Ledger, Self::Deleted, Self::ServerRestored, Self::DeviceRestored, Self::Claimed];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Ledger => "ledger",
            Self::Deleted => "deleted",
            Self::ServerRestored => "server-restored",
            Self::DeviceRestored => "device-restored",
            Self::Claimed => "claimed",
        }
    }

    /// Whether an answer, or what a device made of it, may be lost for good.
    pub const fn loses_answers(self) -> bool {
        matches!(self, Self::Deleted | Self::ServerRestored | Self::DeviceRestored)
    }

    /// The mix of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mix| mix.name() == name)
    }
}

/// What a seed chooses.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which faults.
    pub mix: Mix,
    /// How many steps before everything is healed.
    pub steps: usize,
    /// How many devices.
    pub devices: usize,
    /// Records in a page of a pull.
    pub page_records: u32,
    /// Patches in a group, on devices.
    pub group_patches: usize,
    /// Whether a restored server is fenced.
    pub fenced: bool,
    /// Whether an edit of a map loses against a removal, on every other device.
    pub delete_wins: bool,
    /// Whether messages are JSON.
    pub json: bool,
}

impl Options {
    /// What this seed chooses.
    pub fn of_seed(seed: u64, mix: Option<Mix>) -> Self {
        let mut dice = Dice::new(seed ^ 0x6f70_7469_6f6e_7321);
        let by_seed = Mix::ALL[(seed % Mix::ALL.len() as u64) as usize];
        Self {
            mix: mix.unwrap_or(by_seed),
            steps: 400,
            devices: 2 + dice.below(3),
            page_records: *dice.pick(&[1, 2, 3, 50]),
            group_patches: *dice.pick(&[4, 6, 1024]),
            fenced: dice.per_mille(500),
            delete_wins: dice.per_mille(400),
            json: dice.per_mille(300),
        }
    }
}
