//! The sync session: a machine that is told what happened and says what to do next. It has no socket, no store and no
//! clock; a driver executes its outputs and feeds its inputs, in any language, and decides nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::client::backoff::Backoff;
use crate::client::exchange::Absorbed;
use crate::model::limits::REQUEST_DATASETS_MAX;
use crate::model::{DatasetName, DeviceId, Group, Limits, Owner, Random, Timestamp};
use crate::protocol::{
    DatasetRequest, DatasetResponse, ErrorBody, Format, PROTOCOL_VERSION, SyncRequest, SyncResponse, code, encode,
};

/// Names one request of a session. An answer to a request that is no longer open changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What a session is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionConfig {
    /// The device.
    pub device: DeviceId,
    /// Which datasets; empty: all of the identity, also those that this device has never seen.
    pub datasets: Vec<DatasetName>,
    /// The datasets that the device has.
    pub known: Vec<DatasetName>,
    /// The server's limits, as far as known.
    pub limits: Limits,
    /// Names these limits.
    pub limits_version: Option<u32>,
    /// How long to go on trying without any success, in milliseconds.
    pub give_up_after_ms: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The dataset was prepared, durably; nothing: it has nothing to say.
    Prepared {
        /// Which.
        dataset: DatasetName,
        /// What it asks for.
        request: Option<Box<DatasetRequest>>,
    },
    /// An answer came.
    Received {
        /// To which request.
        id: RequestId,
        /// The answer.
        response: SyncResponse,
    },
    /// No usable answer came.
    Failed {
        /// To which request.
        id: RequestId,
        /// Why.
        failure: Failure,
    },
    /// An answer was absorbed, durably.
    Absorbed {
        /// Which dataset.
        dataset: DatasetName,
        /// What it did.
        absorbed: Box<Absorbed>,
    },
    /// The time of the last [`Output::WakeAt`] has come.
    Woken,
}

/// Why no usable answer came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection, a time-out, an answer that is cut off: try again.
    Unreachable,
    /// The server answered with an error.
    Status {
        /// The HTTP status.
        status: u16,
        /// The body, if it was of the protocol's shape.
        error: Option<ErrorBody>,
        /// When to come again, in milliseconds, if the server said so.
        retry_after_ms: Option<u64>,
    },
}

/// What the driver does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Plan the dataset's request, make the plan durable, and say [`Input::Prepared`].
    Prepare {
        /// Which.
        dataset: DatasetName,
        /// Ask even if there is nothing to push.
        first: bool,
    },
    /// Send a request, with the token that is current then. Until its answer is there, what else is to be done is done:
    /// the next page of a pull is on its way while the one before is absorbed.
    Send {
        /// Which request this is.
        id: RequestId,
        /// The request.
        request: Box<SyncRequest>,
    },
    /// Plan the answer, make the plan durable, and say [`Input::Absorbed`].
    Absorb {
        /// What was asked.
        request: Box<DatasetRequest>,
        /// What was answered; nothing: unchanged.
        response: Option<Box<DatasetResponse>>,
        /// The server's clock.
        server_time: Timestamp,
    },
    /// Remember what the server said about itself and the caller. There is no input for it.
    Learn {
        /// The caller's identity.
        identity: Option<Owner>,
        /// The server's limits and their version.
        limits: Option<(Limits, u32)>,
    },
    /// Say [`Input::Woken`] then.
    WakeAt(Timestamp),
    /// The session is over.
    Done(SessionEnd),
}

/// How a session ended. Whatever it is, nothing that was pending is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// All is pushed and pulled that can be.
    Complete,
    /// The server could not be reached for too long; or it answered, and could not serve for too long: its last error.
    Offline(Option<ErrorBody>),
    /// The token is missing, expired or refused: sign in, and sync again.
    NotSignedIn(ErrorBody),
    /// The server does not take the request; trying again does not help.
    Rejected(ErrorBody),
    /// The app is too old for this server.
    UpgradeRequired(ErrorBody),
}

#[derive(Clone, Debug)]
enum State {
    /// Datasets are being prepared for the next request.
    Preparing,
    /// A request is open.
    Waiting {
        id: RequestId,
        request: Box<SyncRequest>,
    },
    /// Answers are being absorbed.
    Absorbing,
    /// Until the time that was asked for; then the same request goes out again, if there is one.
    Sleeping {
        request: Option<Box<SyncRequest>>,
    },
    Ended,
}

/// What came back in one round, over all datasets.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    /// Something was accepted, or pulled without a conflict.
    progressed: bool,
    /// Something was in conflict, or had no room.
    turned_away: bool,
}

/// A sync session.
#[derive(Clone, Debug)]
pub struct Session {
    config: SessionConfig,
    state: State,
    outputs: VecDeque<Output>,
    requests: u64,
    backoff: Backoff,
    last_progress: Timestamp,
    /// Whether the names of all datasets are still to be asked for.
    list: bool,
    /// Datasets to prepare, and whether they have been asked for before.
    to_prepare: BTreeMap<DatasetName, bool>,
    preparing: BTreeSet<DatasetName>,
    ready: VecDeque<Box<DatasetRequest>>,
    absorbing: BTreeSet<DatasetName>,
    /// A request for the next page, which was sent before the dataset was prepared for it.
    ahead: Option<(RequestId, Box<SyncRequest>)>,
    /// Its answer, if that came sooner too.
    early: Option<Input>,
    errors: BTreeMap<DatasetName, ErrorBody>,
    /// Why the server could not serve when it was last asked, if it said so.
    busy: Option<ErrorBody>,
    /// Rounds in which nothing but conflicts came back.
    fruitless: u32,
    /// When the first of them ended.
    fruitless_since: Option<Timestamp>,
    round: Round,
    /// The server asked not to be asked again sooner.
    pause_ms: u64,
}

impl Session {
    /// Begins a session.
    pub fn new(config: SessionConfig, now: Timestamp) -> Self {
        let list = config.datasets.is_empty();
        let names = if list { config.known.clone() } else { config.datasets.clone() };
        let mut session = Self {
            config,
            state: State::Preparing,
            outputs: VecDeque::new(),
            requests: 0,
            backoff: Backoff::default(),
            last_progress: now,
            list,
            to_prepare: names.into_iter().map(|name| (name, true)).collect(),
            preparing: BTreeSet::new(),
            ready: VecDeque::new(),
            absorbing: BTreeSet::new(),
            ahead: None,
            early: None,
            errors: BTreeMap::new(),
            busy: None,
            fruitless: 0,
            fruitless_since: None,
            round: Round::default(),
            pause_ms: 0,
        };
        session.prepare();
        session
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Datasets that could not be synced, and why.
    pub const fn errors(&self) -> &BTreeMap<DatasetName, ErrorBody> {
        &self.errors
    }

    /// Takes what happened. What is late, repeated or not expected changes nothing.
    pub fn handle(&mut self, input: Input, now: Timestamp, random: &mut dyn Random) {
        match (&mut self.state, input) {
            (State::Preparing, Input::Prepared { dataset, request }) if self.preparing.remove(&dataset) => {
                self.last_progress = now;
                self.ready.extend(request);
                self.send_when_ready();
            }
            (State::Waiting { id: open, request }, Input::Received { id, response }) if *open == id => {
                let asked = std::mem::take(&mut request.datasets);
                self.received(asked, response, now, random);
            }
            (State::Waiting { id: open, .. }, Input::Failed { id, failure }) if *open == id => {
                self.failed(failure, now, random);
            }
            (
                State::Preparing | State::Absorbing | State::Sleeping { .. },
                early @ (Input::Received { id, .. } | Input::Failed { id, .. }),
            ) if self.early.is_none() && self.ahead.as_ref().is_some_and(|(ahead, _)| *ahead == id) => {
                self.early = Some(early);
            }
            (State::Absorbing, Input::Absorbed { dataset, absorbed }) if self.absorbing.remove(&dataset) => {
                // The device's own work takes time too, and none of that which the server has to answer.
                self.last_progress = now;
                self.absorbed(dataset, *absorbed, now, random);
            }
            (State::Sleeping { request }, Input::Woken) => match request.take() {
                Some(request) => self.send(request),
                None => self.prepare(),
            },
            (
                State::Preparing | State::Waiting { .. } | State::Absorbing | State::Sleeping { .. } | State::Ended,
                _,
            ) => {}
        }
        if matches!(self.state, State::Waiting { .. })
            && let Some(early) = self.early.take()
        {
            self.handle(early, now, random);
        }
    }

    fn end(&mut self, end: SessionEnd) {
        self.state = State::Ended;
        self.outputs.push_back(Output::Done(end));
    }

    fn give_up(&mut self) {
        let why = self.busy.take();
        self.end(SessionEnd::Offline(why));
    }

    /// Prepares every dataset that may have something to say.
    fn prepare(&mut self) {
        self.state = State::Preparing;
        for (dataset, first) in std::mem::take(&mut self.to_prepare) {
            self.preparing.insert(dataset.clone());
            self.outputs.push_back(Output::Prepare { dataset, first });
        }
        self.send_when_ready();
    }

    fn send_when_ready(&mut self) {
        if !self.preparing.is_empty() {
            return;
        }
        if self.ready.is_empty() && !self.list {
            return self.end(SessionEnd::Complete);
        }
        let mut datasets: Vec<DatasetRequest> = Vec::new();
        let (mut bytes, mut patches) = (0, 0);
        while let Some(next) = self.ready.front() {
            let length = encode(next.as_ref(), Format::MessagePack).len();
            let groups = next.push.iter().flat_map(|push| &push.groups);
            let count: usize = groups.map(Group::weight).sum();
            let limits = &self.config.limits;
            let full = bytes + length > limits.request_bytes_max
                || patches + count > limits.request_patches_max
                || datasets.len() >= REQUEST_DATASETS_MAX;
            if full && !datasets.is_empty() {
                break;
            }
            bytes += length;
            patches += count;
            datasets.extend(self.ready.pop_front().map(|next| *next));
        }
        let request = self.request_for(datasets);
        match self.ahead.take() {
            Some((id, ahead)) if ahead == request => self.state = State::Waiting { id, request },
            _ => self.send(request),
        }
    }

    fn request_for(&self, datasets: Vec<DatasetRequest>) -> Box<SyncRequest> {
        Box::new(SyncRequest {
            version: PROTOCOL_VERSION,
            device: self.config.device,
            app: None,
            limits_version: self.config.limits_version,
            list: self.list,
            datasets,
        })
    }

    fn send(&mut self, request: Box<SyncRequest>) {
        let id = self.open(request.clone());
        self.state = State::Waiting { id, request };
    }

    fn open(&mut self, request: Box<SyncRequest>) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.outputs.push_back(Output::Send { id, request });
        id
    }

    /// Asks for the next page of a pull while this one is absorbed, if nothing else is to be asked. Should the device then
    /// want something else, such as to begin anew, that is sent, and the answer to this is late.
    fn ask_ahead(&mut self, asked: &[DatasetRequest], answers: &BTreeMap<DatasetName, Box<DatasetResponse>>) {
        let [asked] = asked else { return };
        let page = answers.get(&asked.name).and_then(|answer| answer.page.as_ref());
        let is_alone = self.ready.is_empty() && self.to_prepare.is_empty() && !self.list && self.pause_ms == 0;
        if let Some(next) = page.and_then(|page| page.next.as_ref()).filter(|_| is_alone) {
            let snapshot = asked.snapshot || asked.cursor.is_none();
            let cursor = asked.cursor.filter(|_| !snapshot);
            let ahead = DatasetRequest { cursor, snapshot, page: Some(next.clone()), push: None, ..asked.clone() };
            let request = self.request_for(vec![ahead]);
            self.ahead = Some((self.open(request.clone()), request));
        }
    }

    fn received(
        &mut self,
        asked: Vec<DatasetRequest>,
        response: SyncResponse,
        now: Timestamp,
        random: &mut dyn Random,
    ) {
        self.last_progress = now;
        self.busy = None;
        self.pause_ms = response.retry_after_ms.unwrap_or(0);
        let limits = response.limits.zip(response.limits_version);
        if let Some((limits, version)) = &limits {
            self.config.limits = limits.clone();
            self.config.limits_version = Some(*version);
        }
        if limits.is_some() || response.identity.is_some() {
            self.outputs.push_back(Output::Learn { identity: response.identity, limits });
        }
        if self.list
            && let Some(names) = response.names
        {
            self.list = false;
            let new = names.into_iter().filter(|name| !self.config.known.contains(name));
            self.to_prepare.extend(new.map(|name| (name, true)));
        }
        let server_time = response.server_time;
        let mut answers: BTreeMap<_, _> =
            response.datasets.into_iter().map(|answer| (answer.name.clone(), Box::new(answer))).collect();
        self.ask_ahead(&asked, &answers);
        self.state = State::Absorbing;
        for request in asked {
            self.absorbing.insert(request.name.clone());
            let response = answers.remove(&request.name);
            self.outputs.push_back(Output::Absorb { request: Box::new(request), response, server_time });
        }
        self.go_on(now, random);
    }

    fn absorbed(&mut self, dataset: DatasetName, absorbed: Absorbed, now: Timestamp, random: &mut dyn Random) {
        self.round.progressed |= absorbed.accepted > 0 || (absorbed.conflicts == 0 && absorbed.pulled > 0);
        self.round.turned_away |= absorbed.conflicts > 0;
        match absorbed.error {
            // The answer had no room for it, or others were faster.
            Some(error) if error.code == code::TOO_MANY_REQUESTS => {
                self.round.turned_away = true;
                self.busy = Some(error);
                self.to_prepare.insert(dataset, true);
            }
            Some(error) => drop(self.errors.insert(dataset, error)),
            None => drop(self.to_prepare.insert(dataset, false)),
        }
        self.go_on(now, random);
    }

    /// Once all answers of a round are absorbed: what is still ready is sent, and then datasets are prepared again.
    fn go_on(&mut self, now: Timestamp, random: &mut dyn Random) {
        if !self.absorbing.is_empty() {
            return;
        }
        if !self.ready.is_empty() {
            return self.send_when_ready();
        }
        let Round { progressed, turned_away } = std::mem::take(&mut self.round);
        if turned_away && !progressed {
            self.fruitless += 1;
            let since = *self.fruitless_since.get_or_insert(now);
            if now.ms_since(since) >= self.config.give_up_after_ms {
                return self.give_up();
            }
        } else {
            self.fruitless = 0;
            self.fruitless_since = None;
            self.backoff.reset();
        }
        let pause = std::mem::take(&mut self.pause_ms);
        if self.fruitless >= FRUITLESS_ROUNDS || pause > 0 {
            // Others write the same records: come back at another moment than they do.
            let delay = self.backoff.next_ms(pause, random);
            self.sleep(None, now, delay);
        } else {
            self.prepare();
        }
    }

    fn sleep(&mut self, request: Option<Box<SyncRequest>>, now: Timestamp, delay_ms: u64) {
        let delay_ms = i64::try_from(delay_ms).unwrap_or(i64::MAX);
        self.state = State::Sleeping { request };
        self.outputs.push_back(Output::WakeAt(now.plus_ms(delay_ms)));
    }

    fn failed(&mut self, failure: Failure, now: Timestamp, random: &mut dyn Random) {
        let State::Waiting { request, .. } = std::mem::replace(&mut self.state, State::Ended) else { return };
        let (status, error, retry_after_ms) = match failure {
            Failure::Unreachable => (503, None, None),
            Failure::Status { status, error, retry_after_ms } => (status, error, retry_after_ms),
        };
        let or = |error: Option<ErrorBody>, code: &str, message: &str| {
            error.unwrap_or_else(|| ErrorBody { code: code.to_owned(), message: message.to_owned() })
        };
        match status {
            401 => self.end(SessionEnd::NotSignedIn(or(error, code::NOT_AUTHORIZED, "sign in"))),
            426 => self.end(SessionEnd::UpgradeRequired(or(error, code::UPGRADE_REQUIRED, "update the app"))),
            400..=499 if status != 408 && status != 429 => {
                self.end(SessionEnd::Rejected(or(error, code::INVALID_PARAMETER, "the server refused the request")));
            }
            _ => {
                let left = self.config.give_up_after_ms.saturating_sub(now.ms_since(self.last_progress));
                let at_least = retry_after_ms.unwrap_or(0);
                self.busy = error;
                if left == 0 || at_least > left {
                    return self.give_up();
                }
                let delay = self.backoff.next_ms(at_least, random).min(left);
                self.sleep(Some(request), now, delay);
            }
        }
    }
}

/// After so many rounds in which nothing but conflicts came back, the session pauses.
const FRUITLESS_ROUNDS: u32 = 3;
