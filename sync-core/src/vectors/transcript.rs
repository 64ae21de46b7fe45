//! `transcripts/*.json`: devices and a server, step by step.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::client::exchange::Absorbed;
use crate::conflict::{LogEntry, Parked, Question, Resolution};
use crate::merge::stack::Context;
use crate::merge::write::WriteError;
use crate::model::{DatasetName, DeviceId, Limits, RecordKey, Timestamp, Value};
use crate::policy::Policies;
use crate::protocol::{DatasetRequest, DatasetResponse};
use crate::vectors::layout::layout;
use crate::vectors::random::CountingRandom;
use crate::vectors::step::{
    AbsorbedForm, CopyStep, QuestionForm, RequestStep, ResolutionForm, ResponseStep, ServerEvent, Step, WriteStep,
};
use crate::vectors::{InvalidVector, is_default, read, unhex};

/// Keeps the replicas of a transcript: in memory, or in a store that is under test. Replicas are known by name; those
/// with the same device id live in one file.
///
/// What fails, other than by a refusal, is a panic: this is for tests.
pub trait Host {
    /// Makes an empty replica of a dataset on a device.
    fn open(&mut self, name: &str, device: DeviceId, dataset: &DatasetName, limits: &Limits);
    /// Declares policies.
    fn set_policies(&mut self, on: &str, policies: Policies);
    /// Writes one group.
    ///
    /// # Errors
    /// If it is refused.
    fn write(&mut self, on: &str, writes: Vec<(RecordKey, Option<Value>)>, context: &mut Context<'_>) -> Refused;
    /// Answers a question.
    ///
    /// # Errors
    /// If it is refused.
    fn resolve(&mut self, on: &str, question: &Question, with: Resolution, context: &mut Context<'_>) -> Refused;
    /// Brings a parked unit back, by its place in the list.
    ///
    /// # Errors
    /// If it is refused.
    fn retry(&mut self, on: &str, at: usize, context: &mut Context<'_>) -> Refused;
    /// Forgets a parked unit, by its place in the list.
    fn discard(&mut self, on: &str, at: usize);
    /// Writes the values of a log entry again, by its place in the list.
    ///
    /// # Errors
    /// If it is refused.
    fn restore(&mut self, on: &str, at: usize, context: &mut Context<'_>) -> Refused;
    /// Deletes the dataset.
    fn delete(&mut self, on: &str);
    /// Makes a guest's replica, on the same device, part of this one; the guest's is gone.
    fn claim(&mut self, on: &str, guest: &str, context: &mut Context<'_>);
    /// Copies the device's file, which has one replica.
    fn copy(&mut self, from: &str, to: &str);
    /// Plans a request and makes it durable.
    fn request(&mut self, on: &str, first: bool) -> Option<DatasetRequest>;
    /// Takes in an answer.
    fn absorb(
        &mut self,
        on: &str,
        request: &DatasetRequest,
        response: Option<DatasetResponse>,
        server_time: Timestamp,
        context: &mut Context<'_>,
    ) -> Absorbed;
    /// What there is to see.
    fn see(&mut self, on: &str) -> Seen;
}

/// What came of a call of an app.
pub type Refused = Result<(), WriteError>;

/// What there is to see of a replica.
#[derive(Debug)]
pub struct Seen {
    /// What the app sees.
    pub visible: BTreeMap<RecordKey, Value>,
    /// The conflict log, oldest first.
    pub log: Vec<LogEntry>,
    /// What is parked, oldest first.
    pub parked: Vec<Parked>,
    /// The open questions, by key.
    pub questions: Vec<Question>,
    /// How many groups are pending.
    pub pending: usize,
    /// The device's id.
    pub device: DeviceId,
}

/// A server that gives the answers, to see that it still gives those of the file.
pub trait Server {
    /// Answers a request about one dataset.
    fn sync(&mut self, device: DeviceId, request: &DatasetRequest, now: Timestamp) -> Option<DatasetResponse>;
    /// Something happens to it.
    fn happens(&mut self, event: ServerEvent, now: Timestamp);
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    dataset: DatasetName,
    /// The devices' limits, where they are not the defaults.
    #[serde(default, skip_serializing_if = "is_default")]
    limits: Limits,
    replicas: BTreeMap<String, ReplicaForm>,
    /// The clock at the beginning.
    now: Timestamp,
    steps: Vec<Step>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplicaForm {
    /// The id of its device.
    device: DeviceId,
}

/// Replays a transcript. With a server, its answers are those of the server; without, those of the file.
///
/// # Errors
/// If the file is not of its form.
pub fn transcript(text: &str, host: &mut dyn Host, server: Option<&mut dyn Server>) -> Result<String, InvalidVector> {
    let mut file: File = read(text)?;
    let mut run =
        Run { host, server, sources: BTreeMap::new(), homes: BTreeMap::new(), asked: BTreeMap::new(), now: file.now };
    for (name, replica) in &file.replicas {
        let home = replica.device.to_string();
        run.sources.insert(home.clone(), CountingRandom::of(replica.device));
        run.homes.insert(name.clone(), home);
        run.host.open(name, replica.device, &file.dataset, &file.limits);
    }
    let mut answers: Vec<Option<Exchange>> = Vec::new();
    for (at, step) in file.steps.iter_mut().enumerate() {
        let answer = run.step(step, &answers);
        answers.push(answer.map_err(|error| InvalidVector::new(format!("step {at}: {error}")))?);
    }
    Ok(layout(&file))
}

/// A request, and what was answered.
#[derive(Clone)]
struct Exchange {
    request: DatasetRequest,
    answer: Option<Box<DatasetResponse>>,
    server_time: Timestamp,
}

struct Run<'a, 'b> {
    host: &'a mut dyn Host,
    server: Option<&'b mut dyn Server>,
    /// One for each device.
    sources: BTreeMap<String, CountingRandom>,
    /// The device of each replica.
    homes: BTreeMap<String, String>,
    asked: BTreeMap<String, DatasetRequest>,
    now: Timestamp,
}

impl Run<'_, '_> {
    fn step(&mut self, step: &mut Step, answers: &[Option<Exchange>]) -> Result<Option<Exchange>, InvalidVector> {
        self.now = step.now.unwrap_or(self.now);
        if let Some(event) = &step.server {
            if let Some(server) = &mut self.server {
                server.happens(event.clone(), self.now);
            }
            return Ok(None);
        }
        let on = step.on.clone().ok_or_else(|| InvalidVector::new("it does not say on which replica"))?;
        if let Some(CopyStep { to, random }) = &step.copy {
            let prefix = unhex(random)?.try_into().map_err(|_| InvalidVector::new("a prefix has four bytes"))?;
            self.sources.insert(to.clone(), CountingRandom::new(prefix));
            self.homes.insert(to.clone(), to.clone());
            self.host.copy(&on, to);
            if let Some(asked) = self.asked.get(&on).cloned() {
                self.asked.insert(to.clone(), asked);
            }
        }
        if let Some(request) = &mut step.request {
            self.request(&on, request);
        }
        let answer = match &mut step.response {
            Some(response) => Some(self.response(&on, response, answers)?),
            None => None,
        };
        self.app(&on, step)?;
        self.look(&on, step);
        Ok(answer)
    }

    fn request(&mut self, on: &str, step: &mut RequestStep) {
        let mut request = self.host.request(on, step.first);
        if let Some(request) = &mut request {
            request.pull_limit = step.pull_limit;
            self.asked.insert(on.to_owned(), request.clone());
        }
        step.asks = request.map(Box::new);
    }

    fn response(
        &mut self,
        on: &str,
        step: &mut ResponseStep,
        answers: &[Option<Exchange>],
    ) -> Result<Exchange, InvalidVector> {
        let exchange = match step.again {
            Some(at) => {
                let earlier = answers.get(at).cloned().flatten();
                earlier.ok_or_else(|| InvalidVector::new(format!("step {at} is no response")))?
            }
            None => {
                let request = self.asked.get(on).cloned();
                let request = request.ok_or_else(|| InvalidVector::new("nothing was asked"))?;
                let device = self.host.see(on).device;
                if let Some(server) = &mut self.server {
                    step.answer = server.sync(device, &request, self.now).map(Box::new);
                    step.server_time = self.now;
                }
                Exchange { request, answer: step.answer.clone(), server_time: step.server_time }
            }
        };
        if !step.lost {
            let answer = exchange.answer.clone().map(|answer| *answer);
            let (host, mut context) = self.context(on)?;
            let absorbed = host.absorb(on, &exchange.request, answer, exchange.server_time, &mut context);
            step.absorbed = AbsorbedForm::from(absorbed);
        }
        if step.again.is_some() {
            step.answer.clone_from(&exchange.answer);
            step.server_time = exchange.server_time;
        }
        Ok(exchange)
    }

    fn app(&mut self, on: &str, step: &mut Step) -> Result<(), InvalidVector> {
        let mut refused = Ok(());
        if let Some(policies) = step.policies.clone() {
            self.host.set_policies(on, policies);
        }
        if step.delete {
            self.host.delete(on);
        }
        if let Some(at) = step.discard {
            self.host.discard(on, at);
        }
        let question =
            step.resolve.as_ref().map(|resolve| self.host.see(on).questions.into_iter().nth(resolve.question));
        let (host, mut context) = self.context(on)?;
        if let Some(guest) = &step.claim {
            host.claim(on, guest, &mut context);
        }
        if let Some(WriteStep { put, remove }) = &step.write {
            let puts = put.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
            let writes = puts.chain(remove.iter().map(|key| (key.clone(), None))).collect();
            refused = host.write(on, writes, &mut context);
        }
        if let (Some(resolve), Some(question)) = (&step.resolve, question) {
            let question = question.ok_or_else(|| InvalidVector::new("there is no such question"))?;
            let with = match &resolve.with {
                ResolutionForm::KeepLocal => Resolution::KeepLocal,
                ResolutionForm::KeepRemote => Resolution::KeepRemote,
                ResolutionForm::Value(value) => Resolution::Value(Some(value.clone())),
                ResolutionForm::Remove => Resolution::Value(None),
            };
            refused = host.resolve(on, &question, with, &mut context);
        }
        if let Some(at) = step.retry {
            refused = host.retry(on, at, &mut context);
        }
        if let Some(at) = step.restore {
            refused = host.restore(on, at, &mut context);
        }
        step.refused = match refused {
            Ok(()) => None,
            Err(WriteError::Limit(_)) => Some("limit".to_owned()),
            Err(WriteError::Invalid(_)) => Some("invalid".to_owned()),
            Err(WriteError::NotFound(_)) => Some("not_found".to_owned()),
            Err(WriteError::Stale) => Some("stale".to_owned()),
            Err(WriteError::Replica(error)) => return Err(InvalidVector::new(error)),
        };
        Ok(())
    }

    fn look(&mut self, on: &str, step: &mut Step) {
        let Seen { visible, log, parked, questions, pending, device } = self.host.see(on);
        step.visible = step.visible.take().map(|_| visible);
        step.log = step.log.take().map(|_| log);
        step.parked = step.parked.take().map(|_| parked);
        step.questions = step.questions.take().map(|_| questions.into_iter().map(QuestionForm::from).collect());
        step.pending = step.pending.map(|_| pending);
        step.device = step.device.map(|_| device);
    }

    fn context(&mut self, on: &str) -> Result<(&mut dyn Host, Context<'_>), InvalidVector> {
        let source = self.homes.get(on).and_then(|home| self.sources.get_mut(home));
        let random = source.ok_or_else(|| InvalidVector::new(format!("there is no replica `{on}`")))?;
        Ok((self.host, Context { now: self.now, random }))
    }
}
