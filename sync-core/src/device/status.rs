//! What the device holds of each dataset, in numbers.

use rusqlite::Connection;

use crate::device::dataset::replicas;
use crate::device::replica::StoredReplica;
use crate::device::{Address, DeviceDb, DeviceError, bytes};
use crate::merge::replica::Replica as _;
use crate::model::{DatasetName, Owner, Position, Timestamp};

/// A dataset on this device, in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetStatus {
    /// Its name.
    pub name: DatasetName,
    /// Records that the app sees.
    pub records: u64,
    /// Groups that are not yet part of the base, in flight or not.
    pub pending_groups: u64,
    /// Records that these groups change.
    pub pending_records: u64,
    /// Parked units.
    pub parked: u64,
    /// Open questions.
    pub questions: u64,
    /// Entries of the conflict log.
    pub conflicts: u64,
    /// Up to where it was pulled.
    pub cursor: Option<Position>,
    /// When a pull was last complete, by this device's clock. That there was nothing new is not written to the file: only
    /// who has found it so knows.
    pub last_synced: Option<Timestamp>,
    /// It was deleted here, and the server does not know yet.
    pub deleting: bool,
    /// A push is in flight, or waits for the pull that contains it.
    pub in_flight: bool,
    /// A pull has begun and is not complete.
    pub pulling: bool,
    /// It is never synced.
    pub local_only: bool,
}

impl DatasetStatus {
    /// Whether the next sync has something to push.
    pub const fn wants_to_push(&self) -> bool {
        (self.pending_groups > 0 || self.deleting) && !self.local_only
    }

    /// Whether nothing was ever written or pulled: it was only asked for.
    const fn is_untouched(&self) -> bool {
        let kept = self.pending_records + self.records + self.parked + self.conflicts;
        kept == 0 && self.cursor.is_none() && !self.deleting && !self.pulling && !self.local_only
    }
}

impl DeviceDb {
    /// The datasets of an owner, by name.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn datasets(&mut self, owner: &Owner) -> Result<Vec<DatasetStatus>, DeviceError> {
        let mut all: Vec<_> = self.read(|connection| {
            let replicas = replicas(connection, owner)?;
            let all = replicas.into_iter().map(|(id, name)| status(connection, id, name));
            let all = all.filter(|status| !status.as_ref().is_ok_and(DatasetStatus::is_untouched));
            all.collect::<Result<_, DeviceError>>()
        })?;
        for status in &mut all {
            let address = Address { owner: owner.clone(), dataset: status.name.clone() };
            status.last_synced = status.last_synced.max(self.in_sync.get(&address).copied());
        }
        Ok(all)
    }
}

/// Reads the status of one replica.
pub(super) fn status(connection: &Connection, id: i64, name: DatasetName) -> Result<DatasetStatus, DeviceError> {
    let state = StoredReplica::with_id(connection, Some(id)).state()?;
    let mut select = connection.prepare_cached(SELECT)?;
    let mut rows = select.query([id])?;
    let row = rows.next()?.ok_or_else(|| DeviceError::Corrupt(format!("replica {id} is not there")))?;
    let count = |column: usize| bytes::unsigned(row.get(column)?);
    Ok(DatasetStatus {
        name,
        records: count(0)?,
        pending_groups: count(1)?,
        pending_records: count(2)?,
        parked: count(3)?,
        questions: count(4)?,
        conflicts: count(5)?,
        cursor: state.cursor,
        last_synced: row.get::<_, Option<i64>>(6)?.map(Timestamp),
        deleting: state.deleting,
        in_flight: state.in_flight.is_some(),
        pulling: state.pull.is_some(),
        local_only: state.local_only,
    })
}

/// The top layer tells whether a record is there; SQLite takes `value` from the row with the largest group.
const SELECT: &str = "
    WITH top AS MATERIALIZED (
        SELECT (value IS NOT NULL) - (EXISTS (SELECT 1 FROM base WHERE replica_id = ?1 AND base.key = patch.key)) AS more,
            max(group_id), count(question) AS questions
        FROM patch WHERE replica_id = ?1 GROUP BY key
    )
    SELECT
        records + (SELECT coalesce(sum(more), 0) FROM top),
        (SELECT count(*) FROM pending_group WHERE replica_id = ?1),
        (SELECT count(*) FROM top),
        (SELECT count(*) FROM parked WHERE replica_id = ?1),
        (SELECT coalesce(sum(questions), 0) FROM top),
        (SELECT count(*) FROM conflict WHERE replica_id = ?1),
        last_synced
    FROM replica WHERE id = ?1
";
