//! Single records and atomic batches, for callers that keep no replica: they read what is there now, and write on the
//! condition that it still is.

use std::collections::BTreeMap;
use std::fmt;

use sync_core::delta::{self, DoesNotFit};
use sync_core::merge::push::{Answer, Head, Outcome, Refusal, View};
use sync_core::model::{
    ChangeId, Compare, Delta, DeviceId, EpochId, Group, NextPage, PatchOp, Position, Record, RecordKey, RecordPatch,
    SyncCount, Value, limits,
};
use sync_core::policy::{Policies, Policy};
use sync_core::protocol::DatasetRequest;

use crate::auth::policy::{Action, Caller};
use crate::clock::Draw;
use crate::error::ServiceError;
use crate::fingerprint::fingerprint;
use crate::service::Service;
use crate::service::line::Standing;
use crate::service::pull::Pulled;
use crate::service::push::{OTHER_CONTENT, PushRequest, Pushed};
use crate::store::{DatasetAddress, RecordsFrom, Touched};

/// Which version of a record, or of a dataset: its count, and the epoch that the count is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The epoch.
    pub epoch: EpochId,
    /// The count.
    pub count: SyncCount,
}

/// A live record and its version.
#[derive(Clone, Debug, PartialEq)]
pub struct Versioned {
    /// The record.
    pub record: Record,
    /// Its version.
    pub version: Version,
}

/// What a record, or a dataset, must be for a write to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Whatever it is.
    Any,
    /// It does not exist.
    Absent,
    /// It exists.
    Present,
    /// It is of one of these versions.
    Versions(Vec<Version>),
}

/// What is to become of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It gets this value.
    Put(Value),
    /// It goes. If it is not there, nothing happens.
    Remove,
    /// It goes. If it is not there, that is an error.
    RemoveExisting,
    /// It is changed as RFC 7396 says: fields are set, and taken out where the patch says null.
    MergePatch(Value),
    /// A difference is merged into it.
    Merge(Delta),
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// The record.
    pub key: RecordKey,
    /// What becomes of it.
    pub change: Change,
    /// If what.
    pub condition: Condition,
}

/// Names a batch, so that it is written once however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// The name that the caller gave it.
    pub key: String,
    /// A hash of what was sent.
    pub content: [u8; 32],
}

/// What a batch did.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The version of everything that was written; nothing, if there was nothing to write in a dataset never written.
    pub version: Option<Version>,
    /// How many of its keys had no record before.
    pub created: usize,
    /// Keys of which a hook wrote something else.
    pub rewritten: Vec<RecordKey>,
}

/// Records of a dataset in the order of their keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Live records.
    pub records: Vec<Versioned>,
    /// The key behind which it goes on; nothing: that is all.
    pub next: Option<RecordKey>,
}

/// How much of a dataset is read at once: at least one record, and never more than a page.
#[derive(Clone, Copy, Debug)]
pub struct PageMax {
    /// Records.
    pub records: usize,
    /// Bytes of keys and values.
    pub bytes: usize,
}

/// A place in a dataset's feed of changes.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct FeedPlace {
    cursor: Option<Position>,
    page: Option<NextPage>,
}

/// A part of a dataset's feed of changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Feed {
    /// Records and tombstones, in the order in which they were last written.
    pub records: Vec<(Record, Version)>,
    /// Where the feed goes on, now or later.
    pub next: FeedPlace,
    /// Whether there is more already.
    pub has_more: bool,
}

impl Version {
    /// The version of what was written at a count.
    pub(crate) fn at(head: &Head, count: SyncCount) -> Option<Self> {
        head.lineage.epoch_at(count).map(|epoch| Self { epoch, count })
    }

    /// Where a dataset is now.
    pub(crate) fn of_dataset(head: &Head) -> Option<Self> {
        head.lineage.position().map(|position| Self { epoch: position.epoch, count: position.count })
    }

    /// Reads what is written as `EPOCH-COUNT`.
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, count) = text.split_once('-')?;
        Some(Self { epoch: EpochId::parse(epoch).ok()?, count: SyncCount(count.parse().ok()?) })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.epoch, self.count)
    }
}

impl Condition {
    pub(crate) fn holds(&self, version: Option<Version>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => version.is_none(),
            Self::Present => version.is_some(),
            Self::Versions(wanted) => version.is_some_and(|version| wanted.contains(&version)),
        }
    }
}

impl Service {
    /// One record.
    ///
    /// # Errors
    /// If the caller may not read it, if there is none, or if the store fails.
    pub async fn record(
        &self,
        caller: &Caller,
        dataset: &DatasetAddress,
        key: &RecordKey,
    ) -> Result<Versioned, ServiceError> {
        self.allow(caller, dataset, Action::Read)?;
        let touched = Touched { keys: [key.clone()].into(), ..Touched::default() };
        let View { head, mut records, .. } = self.parts.store.view(dataset, &touched).await?;
        let record = records.remove(key).filter(|record| record.value().is_some());
        record
            .and_then(|record| Some(Versioned { version: Version::at(&head, record.sync_count)?, record }))
            .ok_or_else(|| no_record(key))
    }

    /// The records whose keys begin with a prefix, in the order of keys, behind one of them.
    ///
    /// # Errors
    /// If the caller may not read them, or the store fails.
    pub async fn list(
        &self,
        caller: &Caller,
        dataset: &DatasetAddress,
        prefix: &str,
        after: Option<RecordKey>,
        most: PageMax,
    ) -> Result<Listed, ServiceError> {
        self.allow(caller, dataset, Action::Read)?;
        let range = RecordsFrom {
            prefix: prefix.to_owned(),
            after,
            records_max: most.records.clamp(1, limits::PAGE_RECORDS_MAX),
            bytes_max: most.bytes.min(limits::PAGE_BYTES_MAX),
        };
        let read = self.parts.store.records_from(dataset, &range).await?;
        let next = read.records.last().filter(|_| read.has_more).map(|record| record.key.clone());
        let versioned =
            |record: Record| Some(Versioned { version: Version::at(&read.head, record.sync_count)?, record });
        Ok(Listed { records: read.records.into_iter().filter_map(versioned).collect(), next })
    }

    /// What was written since a place in the feed of changes. A new reader gets all live records first.
    ///
    /// # Errors
    /// `Gone` if the feed cannot go on from this place; otherwise as [`Service::list`].
    pub async fn feed(
        &self,
        caller: &Caller,
        dataset: &DatasetAddress,
        place: FeedPlace,
        most: PageMax,
    ) -> Result<Feed, ServiceError> {
        self.allow(caller, dataset, Action::Read)?;
        let request = DatasetRequest {
            owner: None,
            name: dataset.name.clone(),
            cursor: place.cursor,
            snapshot: false,
            page: place.page.clone(),
            push: None,
            delete: false,
            pull_limit: Some(u32::try_from(most.records).unwrap_or(u32::MAX)),
        };
        match self.pull(dataset, &request, None, None, most.bytes).await? {
            Pulled::Unchanged => Ok(Feed { records: Vec::new(), next: place, has_more: false }),
            Pulled::Page(page, head) => {
                let versioned = |record: Record| Version::at(&head, record.sync_count).map(|version| (record, version));
                let has_more = page.next.is_some();
                let next = match page.next {
                    Some(next) => FeedPlace { cursor: place.cursor, page: Some(next) },
                    None => FeedPlace { cursor: page.position, page: None },
                };
                Ok(Feed { records: page.records.into_iter().filter_map(versioned).collect(), next, has_more })
            }
            Pulled::Restart(_) | Pulled::Reset(_) => Err(ServiceError::Gone(FEED_ENDED.to_owned())),
        }
    }

    /// Writes a batch, all of it or nothing.
    ///
    /// # Errors
    /// `PreconditionFailed` if a condition does not hold, `Conflict` if a difference does not fit its record,
    /// `NotFound` if a record is to go that has to be there and is not, `Refused` if a hook says so; or the caller may not
    /// write, the batch is too large, or the store fails.
    pub async fn write(
        &self,
        caller: &Caller,
        dataset: &DatasetAddress,
        operations: &[Operation],
        once: Option<&Once>,
    ) -> Result<Written, ServiceError> {
        self.allow(caller, dataset, Action::Write)?;
        let mut touched = Touched::default();
        for operation in operations {
            if !touched.keys.insert(operation.key.clone()) {
                let text = format!("the batch has two operations for `{}`", operation.key);
                return Err(ServiceError::InvalidParameter(text));
            }
        }
        let patches_max = self.settings.limits.group_patches_max;
        let how_many = || format!("a batch has 1 to {patches_max} operations");
        if operations.is_empty() {
            return Err(ServiceError::InvalidParameter(how_many()));
        }
        if operations.len() > patches_max {
            return Err(ServiceError::LimitExceeded(how_many()));
        }
        let names = once.map(|once| change_ids(caller, once));
        let change_id = match names {
            Some((_, content)) => content,
            None => ChangeId::random(&mut Draw(&*self.parts.random)),
        };
        touched.changes.extend(names.into_iter().flat_map(|(once, content)| [once, content]));
        for attempt in 0..self.settings.push_attempts_max {
            let view = self.parts.store.view(dataset, &touched).await?;
            if let Some((once, content)) = names {
                if let Some(count) = view.changes.get(&content) {
                    let version = Version::at(&view.head, *count);
                    return Ok(Written { version, created: 0, rewritten: Vec::new() });
                }
                if view.changes.contains_key(&once) {
                    return Err(ServiceError::InvalidParameter(OTHER_CONTENT.to_owned()));
                }
            }
            let patches: Result<Vec<_>, _> = operations.iter().map(|operation| self.patch(operation, &view)).collect();
            let groups = vec![Group::new(change_id, patches?)];
            let request = PushRequest {
                standing: Standing { cursor: None, page: None, snapshot: false },
                device: device_of(caller),
                sequence: None,
                reviews: self.review(caller, dataset, &groups).await?,
                groups,
                once: names.map(|(once, _)| once),
            };
            let Pushed::Answered { answer, unread: _ } = self.push(dataset, request).await? else {
                return Err(self.come_again());
            };
            let Answer { ack, mut outcomes } = answer;
            let rewritten = match outcomes.pop() {
                Some(Outcome::Applied { .. }) => Vec::new(),
                Some(Outcome::Rewritten { keys, .. }) => keys,
                Some(Outcome::Refused(refusal)) => return Err(refused(refusal)),
                // Somebody else was quicker: look again.
                Some(Outcome::Conflict { .. }) | None => {
                    self.parts.sleep.sleep(self.jitter_ms(attempt)).await;
                    continue;
                }
            };
            self.audit(caller, dataset, ack);
            let version = ack.map(|Position { epoch, count, tag: _ }| Version { epoch, count });
            let created = operations.iter().filter(|operation| live(&view, &operation.key).is_none()).count();
            return Ok(Written { version, created, rewritten });
        }
        Err(self.come_again())
    }

    /// The patch of an operation, on what the record is in this view.
    fn patch(&self, operation: &Operation, view: &View) -> Result<RecordPatch, ServiceError> {
        let Operation { key, change, condition } = operation;
        let current = live(view, key);
        let version = current.and_then(|record| Version::at(&view.head, record.sync_count));
        if !condition.holds(version) {
            return Err(ServiceError::PreconditionFailed(match version {
                Some(version) => format!("the record `{key}` is of the version \"{version}\""),
                None => format!("the record `{key}` does not exist"),
            }));
        }
        let compare = if *condition == Condition::Any { Compare::Nothing } else { Compare::Base };
        let value = current.and_then(Record::value);
        let op = match change {
            Change::Put(value) => PatchOp::Replace(value.clone(), compare),
            Change::RemoveExisting if current.is_none() => return Err(no_record(key)),
            Change::Remove | Change::RemoveExisting => PatchOp::Remove(compare),
            Change::MergePatch(patch) => {
                let merged = merge_patch(value, patch);
                let delta = delta::diff(&Policies::default(), Policy::Fields, value, &merged);
                match delta.filter(|_| compare == Compare::Nothing) {
                    Some(delta) => PatchOp::Merge(delta),
                    None => PatchOp::Replace(merged, Compare::Base),
                }
            }
            Change::Merge(delta) => {
                let merged = delta::apply(delta, value).map_err(|error| does_not_fit(key, error))?;
                if compare == Compare::Base { PatchOp::Replace(merged, compare) } else { PatchOp::Merge(delta.clone()) }
            }
        };
        let base = view.records.get(key).map_or(SyncCount::ZERO, Record::base);
        Ok(RecordPatch { key: key.clone(), op, base, device_time: self.parts.clock.now() })
    }

    /// Notes what a back-end job has written.
    pub(crate) fn audit(&self, caller: &Caller, dataset: &DatasetAddress, ack: Option<Position>) {
        if let (Caller::Service { name }, Some(ack)) = (caller, ack) {
            tracing::info!(service = name, owner = %dataset.owner, dataset.name = %dataset.name,
                sync_count = ack.count.0, "service `{name}` wrote to dataset `{}`", dataset.name);
        }
    }
}

/// The record, unless it is a tombstone.
fn live<'a>(view: &'a View, key: &RecordKey) -> Option<&'a Record> {
    view.records.get(key).filter(|record| record.value().is_some())
}

fn no_record(key: &RecordKey) -> ServiceError {
    ServiceError::NotFound(format!("there is no record `{key}`"))
}

fn does_not_fit(key: &RecordKey, error: DoesNotFit) -> ServiceError {
    ServiceError::Conflict(format!("the record `{key}`: {error}"))
}

fn refused(refusal: Refusal) -> ServiceError {
    match refusal {
        Refusal::Limit(text) => ServiceError::LimitExceeded(text),
        Refusal::Invalid(text) => ServiceError::InvalidParameter(text),
        Refusal::Hook { code, message } => ServiceError::Refused { code, message },
    }
}

/// RFC 7396.
fn merge_patch(target: Option<&Value>, patch: &Value) -> Value {
    let Value::Map(changes) = patch else { return patch.clone() };
    let mut fields = match target {
        Some(Value::Map(fields)) => fields.clone(),
        _ => BTreeMap::new(),
    };
    for (name, change) in changes {
        match change {
            Value::Null => {
                fields.remove(name);
            }
            change => {
                let merged = merge_patch(fields.get(name), change);
                fields.insert(name.clone(), merged);
            }
        }
    }
    Value::Map(fields)
}

/// What stands for a caller as the device that wrote.
pub(crate) fn device_of(caller: &Caller) -> DeviceId {
    let (kind, name): (&[u8], _) = match caller {
        Caller::Identity(identity) => (b"identity", identity.as_str()),
        Caller::Service { name } => (b"service", name.as_str()),
    };
    DeviceId::from_bytes(fingerprint(&[kind, name.as_bytes()]))
}

/// The change ids by which a batch is known again: by its name alone, and by name and content. A dataset remembers its own,
/// wherever it moves.
fn change_ids(caller: &Caller, once: &Once) -> (ChangeId, ChangeId) {
    let caller = device_of(caller);
    let name: [&[u8]; 2] = [caller.as_bytes(), once.key.as_bytes()];
    let content = [&name[..], &[&once.content[..]]].concat();
    (ChangeId::from_bytes(fingerprint(&name)), ChangeId::from_bytes(fingerprint(&content)))
}

const FEED_ENDED: &str = "the dataset was deleted, put back from a backup, or changed for too long since this place in \
    its feed; begin again without `since`, and take what comes for all there is";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_does_what_its_standard_says() {
        // The examples of RFC 7396, appendix A.
        for (target, patch, merged) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            let value = |json: &str| serde_json::from_str::<Value>(json).unwrap();
            assert_eq!(merge_patch(Some(&value(target)), &value(patch)), value(merged), "{target} {patch}");
        }
    }

    #[test]
    fn a_version_reads_back_what_it_wrote() {
        let version = Version { epoch: EpochId::from_bytes([0xab; 16]), count: SyncCount(7) };
        assert_eq!(version.to_string(), "abababababababababababababababab-7");
        assert_eq!(Version::parse(&version.to_string()), Some(version));
        for text in ["", "-", "7", "ab-7", "abababababababababababababababab-x"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
