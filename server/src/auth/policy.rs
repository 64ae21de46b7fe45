//! What a caller may do with a dataset: one pure function.

use sync_core::model::{DatasetName, Owner};

/// The verified identity of one request.
///
/// A service caller, with credentials for back-end jobs, will be another kind of caller and act for owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The identity that signed in.
    pub identity: Owner,
}

/// What a caller wants to do with a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Pull it.
    Read,
    /// Push to it, or delete it.
    Write,
}

/// What a caller may do with a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Nothing.
    None,
    /// Pull.
    Read,
    /// Pull, push and delete.
    Write,
}

impl Access {
    /// Whether this access is enough for an action.
    pub const fn allows(self, action: Action) -> bool {
        match action {
            Action::Read => matches!(self, Self::Read | Self::Write),
            Action::Write => matches!(self, Self::Write),
        }
    }
}

/// What the caller may do with a dataset of an owner: everything with their own, nothing with others'.
pub fn access(caller: &Caller, owner: &Owner, _dataset: &DatasetName) -> Access {
    if caller.identity == *owner { Access::Write } else { Access::None }
}

/// Whether the caller may do this.
pub fn authorize(caller: &Caller, owner: &Owner, dataset: &DatasetName, action: Action) -> bool {
    access(caller, owner, dataset).allows(action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_may_do_everything_with_their_own_datasets_and_nothing_with_others() {
        let caller = Caller { identity: Owner::parse("local:a").unwrap() };
        let dataset = DatasetName::parse("notes").unwrap();
        for (owner, allowed) in [("local:a", true), ("local:b", false)] {
            let owner = Owner::parse(owner).unwrap();
            assert_eq!(authorize(&caller, &owner, &dataset, Action::Read), allowed);
            assert_eq!(authorize(&caller, &owner, &dataset, Action::Write), allowed);
        }
    }
}
