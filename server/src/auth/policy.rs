//! What a caller may do with a dataset: one pure function.

use sync_core::model::{DatasetName, Owner};

/// Who calls: verified, for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// An end user.
    Identity(Owner),
    /// A back-end job with credentials of its own, which may act for every owner.
    Service {
        /// What it calls itself, for the log.
        name: String,
    },
}

impl Caller {
    /// The owner that is meant where a request names none. A service has no datasets of its own.
    pub const fn default_owner(&self) -> Option<&Owner> {
        match self {
            Self::Identity(identity) => Some(identity),
            Self::Service { .. } => None,
        }
    }
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

/// What the caller may do with a dataset of an owner: identities everything with their own and nothing with others',
/// services everything.
pub fn access(caller: &Caller, owner: &Owner, _dataset: &DatasetName) -> Access {
    match caller {
        Caller::Identity(identity) if identity == owner => Access::Write,
        Caller::Identity(_) => Access::None,
        Caller::Service { .. } => Access::Write,
    }
}

/// Whether the caller may see which datasets an owner has, and hear how they move on.
pub fn may_see(caller: &Caller, owner: &Owner) -> bool {
    match caller {
        Caller::Identity(identity) => identity == owner,
        Caller::Service { .. } => true,
    }
}

/// Whether the caller may do this.
pub fn authorize(caller: &Caller, owner: &Owner, dataset: &DatasetName, action: Action) -> bool {
    access(caller, owner, dataset).allows(action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_may_do_everything_with_its_own_datasets_and_a_service_with_all() {
        let owner = |name| Owner::parse(name).unwrap();
        let dataset = DatasetName::parse("notes").unwrap();
        let ada = Caller::Identity(owner("local:ada"));
        let job = Caller::Service { name: "reports".to_owned() };
        for (caller, of, allowed) in [
            (&ada, "local:ada", true),
            (&ada, "local:bob", false),
            (&job, "local:ada", true),
            (&job, "local:bob", true),
        ] {
            assert_eq!(may_see(caller, &owner(of)), allowed, "{caller:?} {of}");
            for action in [Action::Read, Action::Write] {
                assert_eq!(authorize(caller, &owner(of), &dataset, action), allowed, "{caller:?} {of}");
            }
        }
    }
}
