//! What a store knows of owners besides their datasets: which of them were linked to one, and which devices they have.

use async_trait::async_trait;
use sync_core::model::{DatasetName, DeviceId, Owner, limits};

use crate::store::StoreError;
use crate::store::devices::Registration;

/// A dataset that has another name since its owner was linked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renamed {
    /// Its name at the owner for whom it was written first.
    pub from: DatasetName,
    /// Its name now.
    pub to: DatasetName,
}

/// What is so after a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// Whom everything belongs to now.
    pub target: Owner,
    /// Whose datasets have moved there; nothing: it was so before.
    pub moved_from: Option<Owner>,
    /// The target's datasets that exist and have another name since a link, in the order of their names now.
    pub renamed: Vec<Renamed>,
}

/// A directory of owners, in the same place as their datasets.
///
/// An owner that was linked to another owns nothing any more, and stays so. What is asked about it all the same is
/// answered [`StoreError::Moved`], and never as if there were none: whoever asks began before the link, and comes
/// again under the new owner.
#[async_trait]
pub trait Directory: Send + Sync {
    /// The owner that this one was linked to; itself, if it was not. One step is enough: no link leads to an owner that
    /// was linked away.
    async fn resolve(&self, owner: &Owner) -> Result<Owner, StoreError>;

    /// Links an owner, and all that were linked to it, to another. Both are resolved first; if they are one, nothing
    /// happens.
    ///
    /// Everything ever written for the source is the target's afterwards, deleted datasets too, each with its epoch line,
    /// records, push memory and change ids. Where the target has ever had a dataset of that name, it is called as
    /// [`name_beside`] says. Registered devices come along, as if all of them had registered with the target in the order
    /// in which they did.
    ///
    /// It is durable, and happens at one moment: nobody sees a dataset at both owners or at neither, and no commit for
    /// the source comes after it. A store that cannot move a dataset at one moment keeps it where it is and moves its
    /// address.
    async fn link(&self, source: &Owner, target: &Owner) -> Result<Linked, StoreError>;

    /// The registered devices of an owner, the latest registration first.
    async fn devices(&self, owner: &Owner) -> Result<Vec<Registration>, StoreError>;

    /// Registers a device with an owner, durably; says whether it is new. Of what is registered then,
    /// [`first_of_each`](crate::store::devices::first_of_each) stays, the new registration being first.
    async fn register(&self, owner: &Owner, registration: Registration) -> Result<bool, StoreError>;

    /// Forgets a device of an owner, durably; says whether it was registered.
    async fn unregister(&self, owner: &Owner, device: DeviceId) -> Result<bool, StoreError>;
}

/// What a dataset of `source` is called where its name is taken: `name.ID`, or else `name.ID.2` and so on, by the id of
/// the source. A name that would get too long is cut off before that.
pub fn name_beside(name: &DatasetName, source: &Owner, is_taken: impl Fn(&DatasetName) -> bool) -> DatasetName {
    let id = source.as_str().split_once(':').map_or("", |(_, id)| id);
    let id = &id[..id.len().min(ID_BYTES_MAX)];
    let mut number = 1_u64;
    loop {
        let end = if number == 1 { format!(".{id}") } else { format!(".{id}.{number}") };
        let kept = name.as_str().len().min(limits::DATASET_NAME_BYTES_MAX - end.len());
        let beside = DatasetName::parse(format!("{}{end}", &name.as_str()[..kept]));
        let beside = beside.expect("names and ids are of ASCII that names may have, and it is not too long");
        if !is_taken(&beside) {
            return beside;
        }
        number += 1;
    }
}

/// So much of an id goes into a name: a whole UUID.
const ID_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_gets_the_id_of_the_owner_and_if_need_be_a_number_within_the_limit() {
        let owner = |id: &str| Owner::parse(format!("local:{id}")).unwrap();
        let long = "n".repeat(128);
        let longest_id = "i".repeat(122);
        for (name, id, taken, expected) in [
            ("notes", "ada", "", "notes.ada".to_owned()),
            ("notes", "ada", "notes.ada", "notes.ada.2".to_owned()),
            ("notes", "ada", "notes.ada notes.ada.2", "notes.ada.3".to_owned()),
            (&long, "ada", "", format!("{}.ada", &long[..124])),
            (&long, "ada", &format!("{}.ada", &long[..124]), format!("{}.ada.2", &long[..122])),
            ("notes", &longest_id, "", format!("notes.{}", &longest_id[..64])),
        ] {
            let name = DatasetName::parse(name).unwrap();
            let found = name_beside(&name, &owner(id), |name| taken.split(' ').any(|taken| taken == name.as_str()));
            assert_eq!(found.as_str(), expected);
        }
    }
}
