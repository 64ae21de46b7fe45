//! Pushing: whoever comes first leads, and takes all pushes along that wait for the same dataset.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sync_core::merge::push::{
    Answer, Outcome, Planned, PushContext, PushPlan, Refusal, Review, Submission, View, plan_push,
};
use sync_core::model::{ChangeId, DeviceId, Group, Limits, Position, Timestamp};
use sync_core::protocol::{GroupAnswer, GroupStatus, PushAnswer, code};
use tokio::sync::oneshot;

use crate::error::ServiceError;
use crate::metrics::PushOutcome;
use crate::service::Service;
use crate::service::line::{LineVerdict, Standing};
use crate::store::{CommitOutcome, DatasetAddress, RecordsRead, Touched};

/// What became of a push.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Pushed {
    /// It was looked at. Where the device's cursor was the dataset's position, all that it has to pull is what was
    /// written just now.
    Answered { answer: Answer, unread: Option<Arc<RecordsRead>> },
    /// Another push had its id: the device's file was copied or put back.
    Copied,
    /// It was not looked at, because its device does not stand on the line; the pull says so.
    OffLine,
}

/// A push, and what its device stands on.
#[derive(Clone, Debug)]
pub(crate) struct PushRequest {
    pub(crate) standing: Standing,
    pub(crate) device: DeviceId,
    /// Nothing: it comes from somebody who does not number pushes.
    pub(crate) sequence: Option<u64>,
    pub(crate) groups: Vec<Group>,
    /// What a hook says about each group; empty: there is none.
    pub(crate) reviews: Vec<Review>,
    /// Remembered with the changes of the push, which go by it: if it is known and they are not, the push is refused.
    pub(crate) once: Option<ChangeId>,
}

type PushResult = Result<Pushed, ServiceError>;

struct Waiting {
    request: Arc<PushRequest>,
    since: Timestamp,
    answer: oneshot::Sender<PushResult>,
}

/// The pushes to one dataset.
#[derive(Default)]
struct Queue {
    waiting: Mutex<VecDeque<Waiting>>,
    /// Held by the one that leads.
    turn: tokio::sync::Mutex<()>,
}

/// The pushes to all datasets that are being pushed to.
#[derive(Default)]
pub(crate) struct PushQueues(Mutex<BTreeMap<DatasetAddress, Arc<Queue>>>);

/// A queue that goes with the last one who needs it, even if its future is dropped.
struct OpenQueue<'a> {
    queues: &'a PushQueues,
    dataset: &'a DatasetAddress,
    queue: Arc<Queue>,
}

/// What is said to who sends something else under the same name.
pub(crate) const OTHER_CONTENT: &str =
    "this idempotency key was used with other content; a new request takes a new key";
/// Patches that are planned together at most, unless a single push has more.
const PATCHES_TOGETHER_MAX: usize = 10_000;
/// Pushes that are planned together at most.
const PUSHES_TOGETHER_MAX: usize = 256;

impl Service {
    /// Pushes. If the future is dropped, the push may or may not have been written; a repeat is recognised.
    pub(crate) async fn push(&self, dataset: &DatasetAddress, request: PushRequest) -> PushResult {
        let request = Arc::new(request);
        let open = self.queues.open(dataset);
        loop {
            let (answer, mut answered) = oneshot::channel();
            lock(&open.queue.waiting).push_back(Waiting {
                request: Arc::clone(&request),
                since: self.parts.clock.now(),
                answer,
            });
            let result = tokio::select! {
                biased;
                result = &mut answered => result,
                turn = open.queue.turn.lock() => {
                    let result = self.lead_until(dataset, &open.queue, answered).await;
                    drop(turn);
                    result
                }
            };
            // An error: the request that led was given up by its client. Push again; what was written is recognised.
            if let Ok(result) = result {
                let (outcome, conflicts) = outcome(&result);
                self.parts.metrics.pushed(outcome, conflicts);
                return result;
            }
        }
    }

    async fn lead_until(
        &self,
        dataset: &DatasetAddress,
        queue: &Queue,
        mut own: oneshot::Receiver<PushResult>,
    ) -> Result<PushResult, oneshot::error::RecvError> {
        loop {
            match own.try_recv() {
                Ok(result) => return Ok(result),
                Err(oneshot::error::TryRecvError::Closed) => return own.await,
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            let batch = queue.take();
            let now = self.parts.clock.now();
            batch.iter().for_each(|waiting| self.parts.metrics.push_waited(now.0 - waiting.since.0));
            let requests: Vec<&PushRequest> = batch.iter().map(|waiting| &*waiting.request).collect();
            let results = self.push_together(dataset, &requests).await;
            for (at, waiting) in batch.into_iter().enumerate() {
                let result = match &results {
                    Ok(results) => Ok(results[at].clone()),
                    Err(error) => Err(error.clone()),
                };
                // Nobody waits any more: the client went away, and will push again.
                drop(waiting.answer.send(result));
            }
        }
    }

    /// Plans pushes in turn on one view and commits them together; again on a new view if another commit came between.
    async fn push_together(
        &self,
        dataset: &DatasetAddress,
        requests: &[&PushRequest],
    ) -> Result<Vec<Pushed>, ServiceError> {
        let touched = touched(requests);
        for attempt in 0..self.settings.push_attempts_max {
            let mut view = self.parts.store.view(dataset, &touched).await?;
            let creation = if view.head.exists() { None } else { Some(self.begin_creation(&dataset.owner).await?) };
            let expected = view.head.lineage.position();
            let mut planned = Planned::default();
            let full = creation.as_ref().is_some_and(Option::is_none);
            let mut results = self.plan_together(&mut view, &mut planned, requests, full);
            add_unread(&mut results, requests, expected, &planned, &view);
            // Where nothing was ever written, a push of which nothing is written leaves no trace either.
            if planned.is_empty() || view.head.lineage.position().is_none() {
                return Ok(results);
            }
            let count = view.head.lineage.count;
            match self.parts.store.commit(dataset, planned.into_commit(expected, &view)).await? {
                CommitOutcome::Written => {
                    tracing::debug!(dataset.name = %dataset.name, sync_count = count.0, pushes = requests.len(),
                        "accepted pushes to dataset `{}`", dataset.name);
                    if Some(count) != expected.map(|position| position.count) {
                        self.hints.publish(dataset, view.head.lineage.position());
                    }
                    return Ok(results);
                }
                CommitOutcome::Stale => self.parts.sleep.sleep(self.jitter_ms(attempt)).await,
            }
        }
        Err(self.come_again())
    }

    fn plan_together(
        &self,
        view: &mut View,
        planned: &mut Planned,
        requests: &[&PushRequest],
        full: bool,
    ) -> Vec<Pushed> {
        let mut one = |request: &&PushRequest, context: &mut PushContext<'_>| {
            let PushRequest { standing, device, sequence, groups, reviews, once } = request;
            if standing.check_line(&view.head) != LineVerdict::On {
                return Pushed::OffLine;
            }
            let refuse = |view: &View, refusal: Refusal| {
                let outcomes = groups.iter().map(|_| Outcome::Refused(refusal.clone())).collect();
                answered(Answer { ack: view.head.lineage.position(), outcomes })
            };
            if full {
                // Not remembered: there may be room when it is sent again.
                return refuse(view, Refusal::Limit(too_many_datasets(context.limits)));
            }
            let known = |change: &ChangeId| view.changes.contains_key(change);
            if once.as_ref().is_some_and(known) && !groups.iter().all(|group| known(&group.change_id)) {
                return refuse(view, Refusal::Invalid(OTHER_CONTENT.to_owned()));
            }
            let submission = Submission { device: *device, sequence: *sequence, groups, reviews };
            let changes = planned.changes.len();
            let accepted = match plan_push(view, planned, &submission, context) {
                PushPlan::Accept(accepted) | PushPlan::Repeat(accepted) => accepted,
                PushPlan::Copied => return Pushed::Copied,
            };
            if let (Some(once), Some((_, count))) = (once, planned.changes.get(changes).copied()) {
                view.changes.insert(*once, count);
                planned.changes.push((*once, count));
            }
            answered(accepted)
        };
        self.plan(|context| requests.iter().map(|request| one(request, context)).collect())
    }

    /// How long to wait before planning again: more each time, and never the same for two.
    pub(crate) fn jitter_ms(&self, attempt: u32) -> u64 {
        let mut byte = [0];
        self.parts.random.fill(&mut byte);
        1 + (u64::from(byte[0]) << attempt.min(4)) / 64
    }

    /// What a device is told whose push was overtaken again and again.
    pub(crate) fn come_again(&self) -> ServiceError {
        ServiceError::TooManyRequests { retry_after_ms: 100 + self.jitter_ms(4) * 10 }
    }
}

impl PushQueues {
    fn open<'a>(&'a self, dataset: &'a DatasetAddress) -> OpenQueue<'a> {
        let queue = Arc::clone(lock(&self.0).entry(dataset.clone()).or_default());
        OpenQueue { queues: self, dataset, queue }
    }
}

impl Drop for OpenQueue<'_> {
    fn drop(&mut self) {
        let mut queues = lock(&self.queues.0);
        // The map's and this one.
        if Arc::strong_count(&self.queue) == 2 {
            queues.remove(self.dataset);
        }
    }
}

impl Queue {
    /// Takes the pushes that are planned next, without those that nobody waits for any more.
    fn take(&self) -> Vec<Waiting> {
        let mut waiting = lock(&self.waiting);
        let mut batch = Vec::new();
        let mut patches = 0;
        while let Some(next) = waiting.pop_front() {
            if next.answer.is_closed() {
                continue;
            }
            patches += next.request.groups.iter().map(Group::weight).sum::<usize>();
            if !batch.is_empty() && (patches > PATCHES_TOGETHER_MAX || batch.len() >= PUSHES_TOGETHER_MAX) {
                waiting.push_front(next);
                break;
            }
            batch.push(next);
        }
        batch
    }
}

const fn answered(answer: Answer) -> Pushed {
    Pushed::Answered { answer, unread: None }
}

/// Spares the devices that were in sync a read: behind their cursors is what these pushes have written, and no more.
fn add_unread(
    results: &mut [Pushed],
    requests: &[&PushRequest],
    expected: Option<Position>,
    planned: &Planned,
    view: &View,
) {
    let mut read = None;
    for (result, request) in results.iter_mut().zip(requests) {
        let Pushed::Answered { answer: _, unread } = result else { continue };
        if expected.is_some() && request.standing.cursor == expected {
            *unread = Some(Arc::clone(read.get_or_insert_with(|| {
                let written = planned.written.iter().filter_map(|key| view.records.get(key));
                let mut records: Vec<_> = written.cloned().collect();
                records.sort_by(|one, other| (one.sync_count, &one.key).cmp(&(other.sync_count, &other.key)));
                Arc::new(RecordsRead { head: view.head.clone(), records, has_more: false })
            })));
        }
    }
}

fn touched(requests: &[&PushRequest]) -> Touched {
    let mut touched = Touched::default();
    for request in requests {
        if let Some(sequence) = request.sequence {
            touched.pushes.entry(request.device).or_default().insert(sequence);
        }
        touched.changes.extend(request.once);
        for group in &request.groups {
            touched.changes.insert(group.change_id);
            touched.changes.extend(group.earlier.iter().map(|step| step.change_id));
            touched.keys.extend(group.patches.iter().map(|patch| patch.key.clone()));
        }
    }
    touched
}

fn too_many_datasets(limits: &Limits) -> String {
    format!("an identity has at most {} datasets", limits.datasets_max)
}

/// What is counted of a push: its outcome, and how many of its groups were conflicts.
fn outcome(result: &PushResult) -> (PushOutcome, usize) {
    let answer = match result {
        Err(_) => return (PushOutcome::Failed, 0),
        Ok(Pushed::OffLine) => return (PushOutcome::OffLine, 0),
        Ok(Pushed::Copied) => return (PushOutcome::Copied, 0),
        Ok(Pushed::Answered { answer, unread: _ }) => answer,
    };
    let conflicts = answer.outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Conflict { .. })).count();
    let refused = answer.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Refused(_)));
    match (conflicts, refused) {
        (0, false) => (PushOutcome::Accepted, 0),
        (0, true) => (PushOutcome::Refused, 0),
        (conflicts, _) => (PushOutcome::Conflict, conflicts),
    }
}

/// The answer in the words of the protocol.
pub(crate) fn push_answer(sequence: u64, pushed: Answer) -> PushAnswer {
    let Answer { ack, outcomes } = pushed;
    PushAnswer { sequence, copied: false, ack, groups: outcomes.into_iter().map(group_answer).collect() }
}

fn group_answer(outcome: Outcome) -> GroupAnswer {
    let verdict =
        |status| GroupAnswer { status, code: None, message: None, overwritten: Vec::new(), rewritten: Vec::new() };
    match outcome {
        Outcome::Applied { merged: false, overwritten: _ } => verdict(GroupStatus::Applied),
        Outcome::Applied { merged: true, overwritten } => GroupAnswer { overwritten, ..verdict(GroupStatus::Merged) },
        Outcome::Rewritten { keys, overwritten } => {
            GroupAnswer { overwritten, rewritten: keys, ..verdict(GroupStatus::Rewritten) }
        }
        Outcome::Conflict { keys: _ } => verdict(GroupStatus::Conflict),
        Outcome::Refused(refusal) => GroupAnswer {
            code: Some(refusal_code(&refusal).to_owned()),
            message: Some(refusal.to_string()),
            ..verdict(GroupStatus::Refused)
        },
    }
}

/// The stable code of a refusal.
pub(crate) fn refusal_code(refusal: &Refusal) -> &str {
    match refusal {
        Refusal::Limit(_) => code::LIMIT_EXCEEDED,
        Refusal::Invalid(_) => code::INVALID_PARAMETER,
        Refusal::Hook { code, message: _ } => code,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
