//! What an app and a sync session do with a dataset: each reads, has a plan made, and executes it, in one transaction.

use std::ops::ControlFlow;

use rusqlite::Connection;

use crate::client::exchange::{Absorbed, plan_answer, plan_request, plan_response};
use crate::conflict::{LogEntry, Parked, Question, Resolution};
use crate::device::execute::{create_replica, drop_replica, execute};
use crate::device::owner::limits;
use crate::device::replica::{StoredReplica, replica_id};
use crate::device::scan::scan;
use crate::device::{Address, DeviceDb, DeviceError, bytes, device_id};
use crate::merge::claim::plan_claim;
use crate::merge::replica::{Changes, Plan, Replica as _, Write};
use crate::merge::stack::{Context, visible};
use crate::merge::write::{
    plan_delete, plan_discard, plan_local_only, plan_resolve, plan_restore, plan_retry, plan_write, questions,
};
use crate::model::{DatasetName, Limits, Owner, RecordKey, Timestamp, Value};
use crate::policy::Policies;
use crate::protocol::{DatasetRequest, DatasetResponse};

/// One parked unit, or all of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one with this id.
    One(u64),
    /// All there are.
    All,
}

/// What a dataset asks of the server. It is durable that it was asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// What to send; nothing: there is nothing to ask.
    pub request: Option<DatasetRequest>,
    /// What observers are told.
    pub changes: Changes,
}

impl DeviceDb {
    /// The value of a record; nothing if it is absent or removed.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn get(&mut self, address: &Address, key: &RecordKey) -> Result<Option<Value>, DeviceError> {
        self.read(|connection| Ok(visible(&StoredReplica::find(connection, address)?, key)?))
    }

    /// At most `limit` records whose keys begin with `prefix` and come after `after`, in order of their keys' bytes.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn list(
        &mut self,
        address: &Address,
        prefix: &str,
        after: Option<&RecordKey>,
        limit: usize,
    ) -> Result<Vec<(RecordKey, Value)>, DeviceError> {
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        self.read(|connection| {
            let Some(id) = replica_id(connection, address)? else { return Ok(()) };
            scan(connection, id, prefix, after, |key, value| {
                found.push((key, value));
                let more = found.len() < limit;
                Ok::<_, DeviceError>(if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })
        })?;
        Ok(found)
    }

    /// Calls `each` with every record whose key begins with `prefix`, in order of their keys' bytes, all of one moment
    /// and without loading the dataset.
    ///
    /// # Errors
    /// If the file cannot be read; and the first error of `each`, which ends it.
    pub fn for_each<E: From<DeviceError>>(
        &mut self,
        address: &Address,
        prefix: &str,
        mut each: impl FnMut(RecordKey, Value) -> Result<(), E>,
    ) -> Result<(), E> {
        self.read(|connection| {
            let Some(id) = replica_id(connection, address)? else { return Ok(()) };
            scan(connection, id, prefix, None, |key, value| {
                each(key, value)?;
                Ok(ControlFlow::Continue(()))
            })
        })
    }

    /// Puts (`Some`) and removes (`None`) records as one group. The server's limits hold, as far as they are known.
    ///
    /// # Errors
    /// [`DeviceError::Write`] if it is refused.
    pub fn write(
        &mut self,
        address: &Address,
        writes: Vec<(RecordKey, Option<Value>)>,
        context: &mut Context<'_>,
    ) -> Result<Changes, DeviceError> {
        self.write_many(address, [writes], context)
    }

    /// Writes many groups and makes them durable at once. If one is refused, none is written.
    ///
    /// # Errors
    /// [`DeviceError::Write`] if one is refused.
    pub fn write_many(
        &mut self,
        address: &Address,
        groups: impl IntoIterator<Item = Vec<(RecordKey, Option<Value>)>>,
        context: &mut Context<'_>,
    ) -> Result<Changes, DeviceError> {
        self.change(|connection| {
            let limits = limits(connection)?;
            let mut all = Changes::default();
            for writes in groups {
                let replica = StoredReplica::find(connection, address)?;
                let plan = plan_write(&replica, &limits, writes, context)?;
                add(&mut all, run(connection, address, plan)?);
            }
            Ok(all)
        })
    }

    /// The declared policies.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn policies(&mut self, address: &Address) -> Result<Policies, DeviceError> {
        self.read(|connection| Ok(StoredReplica::find(connection, address)?.policies()?))
    }

    /// Declares the policies for what is merged from now on.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set_policies(&mut self, address: &Address, policies: Policies) -> Result<(), DeviceError> {
        self.change(|connection| execute(connection, address, &[Write::Policies(policies)]))
    }

    /// Declares that a dataset is never synced, or that it is again.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set_local_only(&mut self, address: &Address, local_only: bool) -> Result<(), DeviceError> {
        self.change(|connection| {
            let plan = plan_local_only(&StoredReplica::find(connection, address)?, local_only)?;
            execute(connection, address, &plan.writes)
        })
    }

    /// The open questions.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn questions(&mut self, address: &Address) -> Result<Vec<Question>, DeviceError> {
        self.read(|connection| Ok(questions(&StoredReplica::find(connection, address)?)?))
    }

    /// Answers a question, as it was shown to the app.
    ///
    /// # Errors
    /// [`DeviceError::Write`] if there is none, or if the record has moved on.
    pub fn resolve(
        &mut self,
        address: &Address,
        question: &Question,
        resolution: Resolution,
        context: &mut Context<'_>,
    ) -> Result<Changes, DeviceError> {
        self.change(|connection| {
            let limits = limits(connection)?;
            let replica = StoredReplica::find(connection, address)?;
            let plan = plan_resolve(&replica, question, resolution, &limits, context)?;
            run(connection, address, plan)
        })
    }

    /// At most `limit` entries of the conflict log with ids above `after`, newest last.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn conflicts(
        &mut self,
        address: &Address,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, LogEntry)>, DeviceError> {
        let select = "SELECT id, entry FROM conflict WHERE replica_id = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
        self.read(|connection| entries(connection, address, select, after, limit))
    }

    /// Writes the values of an entry of the conflict log again. The entry stays.
    ///
    /// # Errors
    /// [`DeviceError::Write`] if there is no such entry, or if it is refused.
    pub fn restore(&mut self, address: &Address, id: u64, context: &mut Context<'_>) -> Result<Changes, DeviceError> {
        self.change(|connection| {
            let limits = limits(connection)?;
            let plan = plan_restore(&StoredReplica::find(connection, address)?, id, &limits, context)?;
            run(connection, address, plan)
        })
    }

    /// Removes an entry of the conflict log, if it is there.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn clear_conflict(&mut self, address: &Address, id: u64) -> Result<(), DeviceError> {
        self.change(|connection| match replica_id(connection, address)? {
            Some(_) => execute(connection, address, &[Write::DropLog(id)]),
            None => Ok(()),
        })
    }

    /// Empties the conflict log of a dataset.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn clear_conflicts(&mut self, address: &Address) -> Result<(), DeviceError> {
        self.change(|connection| {
            let delete = "DELETE FROM conflict WHERE replica_id = ?1";
            connection.prepare_cached(delete)?.execute([replica_id(connection, address)?])?;
            Ok(())
        })
    }

    /// At most `limit` parked units with ids above `after`, newest last.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn parked(
        &mut self,
        address: &Address,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, Parked)>, DeviceError> {
        let select = "SELECT id, unit FROM parked WHERE replica_id = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
        self.read(|connection| entries(connection, address, select, after, limit))
    }

    /// Brings parked units back as pending changes, all or none.
    ///
    /// # Errors
    /// [`DeviceError::Write`] if there is no such unit, or if one is refused.
    pub fn retry(
        &mut self,
        address: &Address,
        which: Which,
        context: &mut Context<'_>,
    ) -> Result<Changes, DeviceError> {
        self.change(|connection| {
            let limits = limits(connection)?;
            let mut all = Changes::default();
            for id in parked_ids(connection, address, which)? {
                let device = device_id(connection)?;
                let replica = StoredReplica::find(connection, address)?;
                let plan = plan_retry(&replica, device, id, &limits, context)?;
                add(&mut all, run(connection, address, plan)?);
            }
            Ok(all)
        })
    }

    /// Forgets parked units.
    ///
    /// # Errors
    /// [`DeviceError::Write`] if there is no such unit.
    pub fn discard(&mut self, address: &Address, which: Which) -> Result<(), DeviceError> {
        self.change(|connection| {
            for id in parked_ids(connection, address, which)? {
                let plan = plan_discard(&StoredReplica::find(connection, address)?, id)?;
                run(connection, address, plan)?;
            }
            Ok(())
        })
    }

    /// Deletes the dataset here, and on the server with the next sync.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn delete_dataset(&mut self, address: &Address) -> Result<Changes, DeviceError> {
        self.change(|connection| {
            let plan = plan_delete(&StoredReplica::find(connection, address)?)?;
            run(connection, address, plan)
        })
    }

    /// Makes all datasets of a guest those of an identity. The guest's replicas are gone afterwards; their conflict logs
    /// and parked units go with them to the identity.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn claim(
        &mut self,
        guest: &Owner,
        identity: &Owner,
        context: &mut Context<'_>,
    ) -> Result<Vec<(DatasetName, Changes)>, DeviceError> {
        if guest == identity {
            return Ok(Vec::new());
        }
        self.change(|connection| {
            let mut claimed = Vec::new();
            for (id, dataset) in replicas(connection, guest)? {
                let address = Address { owner: identity.clone(), dataset };
                let from = StoredReplica::with_id(connection, Some(id));
                let plan = plan_claim(&from, &StoredReplica::find(connection, &address)?, context)?;
                let target = create_replica(connection, &address)?;
                for table in ["conflict", "parked"] {
                    let update = format!("UPDATE {table} SET replica_id = ?2 WHERE replica_id = ?1");
                    connection.execute(&update, (id, target))?;
                }
                let changes = run(connection, &address, plan)?;
                drop_replica(connection, id)?;
                claimed.push((address.dataset, changes));
            }
            Ok(claimed)
        })
    }

    /// Removes all that the device holds of an owner, pending changes included, and forgets the login.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn wipe(&mut self, owner: &Owner) -> Result<(), DeviceError> {
        self.in_sync.retain(|address, _| address.owner != *owner);
        self.change(|connection| {
            for (id, _) in replicas(connection, owner)? {
                drop_replica(connection, id)?;
            }
            connection.execute("DELETE FROM login WHERE owner = ?1", [owner.as_str()])?;
            connection.execute("UPDATE device SET owner = guest WHERE owner = ?1", [owner.as_str()])?;
            Ok(())
        })
    }

    /// What the dataset asks of the server. `first` asks in any case.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn prepare(&mut self, address: &Address, limits: &Limits, first: bool) -> Result<Prepared, DeviceError> {
        self.change(|connection| {
            let device = device_id(connection)?;
            let replica = StoredReplica::find(connection, address)?;
            let (plan, request) = plan_request(&replica, &address.dataset, device, limits, first)?;
            Ok(Prepared { request, changes: run(connection, address, plan)? })
        })
    }

    /// Takes in what the server answered. A dataset that the answer leaves out is unchanged.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn absorb(
        &mut self,
        address: &Address,
        request: &DatasetRequest,
        response: Option<DatasetResponse>,
        server_time: Timestamp,
        context: &mut Context<'_>,
    ) -> Result<(Changes, Absorbed), DeviceError> {
        let now = context.now;
        // A page with more to come is staged. If a loss of power undoes that, the pull goes on where it was before.
        let page = response.as_ref().filter(|response| response.push.is_none()).and_then(|it| it.page.as_ref());
        let only_staged = page.is_some_and(|page| page.next.is_some());
        let take_in = |connection: &Connection| {
            let replica = StoredReplica::find(connection, address)?;
            let (plan, answered) = plan_answer(&replica, request, response.as_ref(), context)?;
            let mut unchanged = plan.writes.is_empty();
            let mut changes = run(connection, address, plan)?;
            let replica = StoredReplica::find(connection, address)?;
            let (plan, absorbed) = plan_response(&replica, request, response, server_time, context)?;
            unchanged &= plan.writes.is_empty();
            add(&mut changes, run(connection, address, plan)?);
            let absorbed = answered.and(absorbed);
            let pulling = StoredReplica::find(connection, address)?.state()?.pull.is_some();
            let complete = !absorbed.late && absorbed.error.is_none() && !pulling;
            if complete && !unchanged {
                mark_synced(connection, address, now)?;
            }
            Ok((changes, absorbed, complete && unchanged))
        };
        let taken = if only_staged { self.change_without_waiting(take_in) } else { self.change(take_in) };
        let (changes, absorbed, only_complete) = taken?;
        if only_complete {
            self.in_sync.insert(address.clone(), now);
        }
        Ok((changes, absorbed))
    }
}

fn mark_synced(connection: &Connection, address: &Address, now: Timestamp) -> Result<(), DeviceError> {
    let update = "UPDATE replica SET last_synced = ?3 WHERE owner = ?1 AND dataset = ?2";
    let params = (address.owner.as_str(), address.dataset.as_str(), now.0);
    connection.prepare_cached(update)?.execute(params)?;
    Ok(())
}

/// Executes a plan and hands on what observers are told.
fn run(connection: &Connection, address: &Address, plan: Plan) -> Result<Changes, DeviceError> {
    let Plan { writes, changes } = plan;
    execute(connection, address, &writes)?;
    Ok(changes)
}

/// Adds what one of several plans changed.
fn add(all: &mut Changes, more: Changes) {
    all.many |= more.many;
    all.keys.extend(more.keys);
    all.many |= all.keys.len() > CHANGED_KEYS_MAX;
    if all.many {
        all.keys.clear();
    }
}

/// Changed keys that observers are told one by one when several plans are executed at once.
const CHANGED_KEYS_MAX: usize = 10_000;

/// All replicas of an owner, by name.
pub(super) fn replicas(connection: &Connection, owner: &Owner) -> Result<Vec<(i64, DatasetName)>, DeviceError> {
    let select = "SELECT id, dataset FROM replica WHERE owner = ?1 ORDER BY dataset";
    let mut select = connection.prepare_cached(select)?;
    let mut rows = select.query([owner.as_str()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(1)?;
        found.push((row.get(0)?, DatasetName::parse(name).map_err(bytes::corrupt)?));
    }
    Ok(found)
}

fn parked_ids(connection: &Connection, address: &Address, which: Which) -> Result<Vec<u64>, DeviceError> {
    if let Which::One(id) = which {
        return Ok(vec![id]);
    }
    let mut select = connection.prepare_cached("SELECT id FROM parked WHERE replica_id = ?1 ORDER BY id")?;
    let ids = select.query_map([replica_id(connection, address)?], |row| row.get(0))?;
    ids.map(|id| bytes::unsigned(id?)).collect()
}

fn entries<T: serde::de::DeserializeOwned>(
    connection: &Connection,
    address: &Address,
    select: &str,
    after: Option<u64>,
    limit: usize,
) -> Result<Vec<(u64, T)>, DeviceError> {
    let mut select = connection.prepare_cached(select)?;
    let id = replica_id(connection, address)?;
    let mut rows = select.query((id, bytes::integer(after.unwrap_or(0)), bytes::length(limit)))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let entry = row.get_ref(1)?.as_blob().map_err(bytes::corrupt)?;
        found.push((bytes::unsigned(row.get(0)?)?, bytes::decode(entry)?));
    }
    Ok(found)
}
