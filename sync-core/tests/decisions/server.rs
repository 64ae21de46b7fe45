//! A tiny server over `plan_push`: one dataset, in memory, without time.

use std::collections::BTreeMap;

use sync_core::merge::push::{Head, Outcome, Planned, PushContext, PushPlan, Submission, View, plan_delete, plan_push};
use sync_core::model::{Limits, NextPage, Record, RecordKey, SyncCount, Timestamp};
use sync_core::protocol::{DatasetRequest, DatasetResponse, GroupAnswer, GroupStatus, Page, Push, PushAnswer, Reset};

use crate::notation::{Counter, key};

#[derive(Clone, Debug)]
pub(crate) struct TinyServer {
    /// All there is.
    view: View,
    random: Counter,
    pub(crate) limits: Limits,
    pub(crate) now: Timestamp,
}

impl TinyServer {
    pub(crate) fn new() -> Self {
        let random = Counter(0x5e_0000_0000_0000);
        Self { view: View::default(), random, limits: Limits::default(), now: Timestamp(1000) }
    }

    /// The server is put back from a backup; what it draws is never the same again.
    pub(crate) fn put_back(&mut self, backup: &Self) {
        let random = self.random.clone();
        *self = Self { random, ..backup.clone() };
    }

    /// Somebody deletes the dataset.
    pub(crate) fn delete(&mut self) {
        let Self { view, random, limits, now } = self;
        view.head = plan_delete(&view.head, None, &mut PushContext { now: *now, random, limits }).head;
        view.records.clear();
    }

    /// Its disk loses a record, and it does not know.
    pub(crate) fn lose(&mut self, name: &str) {
        self.view.records.remove(&key(name)).expect("it has the record");
    }

    pub(crate) const fn records(&self) -> &BTreeMap<RecordKey, Record> {
        &self.view.records
    }

    pub(crate) const fn head(&self) -> &Head {
        &self.view.head
    }

    pub(crate) fn sync(&mut self, request: &DatasetRequest) -> DatasetResponse {
        let mut response = DatasetResponse::empty(None, request.name.clone());
        let line = &self.view.head.lineage;
        let at = [request.cursor, request.page.as_ref().map(|page| page.at)];
        if at.into_iter().flatten().any(|position| !line.contains(position) || line.ended(position).is_some()) {
            response.reset = Some(Reset { lineage: line.clone(), floor: self.view.head.floor });
            return response;
        }
        response.push = request.push.as_ref().map(|push| self.push(push));
        response.page = self.page(request);
        response
    }

    fn push(&mut self, push: &Push) -> PushAnswer {
        let Self { view, random, limits, now } = self;
        let mut context = PushContext { now: *now, random, limits };
        let Push { device, sequence, groups } = push;
        let submission = Submission { device: *device, sequence: Some(*sequence), groups, reviews: &[] };
        match plan_push(view, &mut Planned::default(), &submission, &mut context) {
            PushPlan::Copied => PushAnswer { sequence: *sequence, copied: true, ack: None, groups: Vec::new() },
            PushPlan::Accept(answer) | PushPlan::Repeat(answer) => PushAnswer {
                sequence: *sequence,
                copied: false,
                ack: answer.ack,
                groups: answer.outcomes.into_iter().map(group_answer).collect(),
            },
        }
    }

    /// Records after the cursor, in order of count and key; nothing if there are none.
    fn page(&self, request: &DatasetRequest) -> Option<Page> {
        let head = &self.view.head;
        let position = head.lineage.position();
        if position == request.cursor && request.page.is_none() && !request.snapshot {
            return None;
        }
        let since = request.cursor.map_or(SyncCount::ZERO, |cursor| cursor.count);
        let after = request.page.as_ref().map(|page| (page.after_count, page.after_key.clone()));
        let mut records: Vec<_> = self.view.records.values().filter(|record| record.sync_count > since).collect();
        records.sort_by_key(|record| (record.sync_count, record.key.clone()));
        records.retain(|record| after.as_ref().is_none_or(|after| (record.sync_count, record.key.clone()) > *after));
        let limit = request.pull_limit.map_or(usize::MAX, |limit| limit as usize);
        let last = records.get(limit.wrapping_sub(1)).filter(|_| records.len() > limit);
        let next = last.zip(position).map(|(last, at)| NextPage {
            since: request.page.as_ref().map_or(since, |page| page.since),
            at,
            after_count: last.sync_count,
            after_key: last.key.clone(),
        });
        let digest = next.is_none().then_some(head.digest);
        records.truncate(limit);
        Some(Page {
            records: records.into_iter().cloned().collect(),
            position,
            next,
            line: Some(head.lineage.entries.clone()),
            tags: head.lineage.tags.iter().map(|(count, tag)| (*count, *tag)).collect(),
            floor: head.floor,
            digest,
            total: head.records,
        })
    }
}

fn group_answer(outcome: Outcome) -> GroupAnswer {
    let says =
        |status| GroupAnswer { status, code: None, message: None, overwritten: Vec::new(), rewritten: Vec::new() };
    match outcome {
        Outcome::Applied { merged, overwritten } => {
            GroupAnswer { overwritten, ..says(if merged { GroupStatus::Merged } else { GroupStatus::Applied }) }
        }
        Outcome::Rewritten { keys, .. } => GroupAnswer { rewritten: keys, ..says(GroupStatus::Rewritten) },
        Outcome::Conflict { .. } => says(GroupStatus::Conflict),
        Outcome::Refused(refusal) => GroupAnswer {
            code: Some("LimitExceeded".into()),
            message: Some(refusal.to_string()),
            ..says(GroupStatus::Refused)
        },
    }
}
