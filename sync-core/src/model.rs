//! Parsed types. A value of one of these types is valid; whatever comes from outside is parsed into them once.
//!
//! **Architecture invariant:** nothing in here decides anything about merging, and nothing imports from the rest of
//! the crate.

pub mod digest;
pub mod id;
pub mod limits;
pub mod lineage;
pub mod page;
pub mod patch;
pub mod position;
pub mod record;
pub mod time;
pub mod value;

pub use digest::Digest;
pub use id::{ChangeId, CommitTag, DatasetName, DeviceId, EpochId, InvalidName, Owner, RecordKey};
pub use limits::Limits;
pub use lineage::{Divergence, EpochEntry, EpochReason, Lineage};
pub use page::NextPage;
pub use patch::{Added, Compare, Delta, FieldDelta, Group, GroupStep, Overwritten, PatchOp, RecordPatch};
pub use position::Position;
pub use record::{Record, RecordState, RemovalReason, SyncCount};
pub use time::{Random, Timestamp};
pub use value::{InvalidValue, Value};
