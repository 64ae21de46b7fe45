//! The driver of the core's sync session: it executes outputs and feeds inputs, over HTTP.

mod watch;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use indicatif::ProgressBar;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, Url};
use serde_json::json;
use sync_core::client::exchange::Absorbed;
use sync_core::client::session::{Failure, Input, Output as Step, Session, SessionConfig, SessionEnd};
use sync_core::device::{DatasetStatus, Login};
use sync_core::model::{DatasetName, Divergence};
use sync_core::protocol::{ErrorBody, Format, SyncRequest, SyncResponse, code, decode, encode};
use tokio::task::JoinSet;

use crate::causes::with_causes;
use crate::cli::exit::{CliError, Exit};
use crate::cli::output::{Output, count};
use crate::cli::token::TokenSource;
use crate::cli::{Device, context, now};
use crate::clock::{Draw, SystemRandom};
use crate::config;

/// How to reach the server.
pub(super) struct Way {
    pub(super) server: Option<String>,
    pub(super) token: TokenSource,
    pub(super) give_up_after: config::Duration,
    /// Whether to go on until stopped.
    pub(super) watch: bool,
}

pub(super) fn sync(device: &mut Device, output: &Output, way: Way, datasets: &[String]) -> Result<Exit, CliError> {
    let Way { server, token, give_up_after, watch } = way;
    let give_up_after = give_up_after.get();
    let names = datasets.iter().map(DatasetName::parse).collect::<Result<Vec<_>, _>>()?;
    let login = device.login.clone().ok_or_else(|| {
        CliError::NotSignedIn("sign in to sync: pass --token or --token-file; all changes are kept".into())
    })?;
    let server = Arc::new(Server::new(server.as_deref(), token, login, give_up_after)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    if watch {
        return runtime.block_on(watch::watch(device, output, &server, names));
    }
    let Synced { end, errors, summary } = runtime.block_on(sync_once(device, output, &server, &names))?;
    refuse_unless_complete(end, &server, &summary)?;
    if let Some((dataset, error)) = errors.first_key_value() {
        return Err(not_synced(dataset, error));
    }
    output.answer(&summary.sentences(), &summary.to_json())?;
    Ok(summary.exit())
}

/// What came of one session.
struct Synced {
    end: SessionEnd,
    errors: BTreeMap<DatasetName, ErrorBody>,
    summary: Summary,
}

/// Runs one session over these datasets; none: all of the identity.
async fn sync_once(
    device: &mut Device,
    output: &Output,
    server: &Arc<Server>,
    names: &[DatasetName],
) -> Result<Synced, CliError> {
    let before = statuses(device)?;
    let (limits, limits_version) = device.db.limits()?;
    let config = SessionConfig {
        device: device.db.device_id()?,
        datasets: names.to_vec(),
        known: before.keys().cloned().collect(),
        limits,
        limits_version,
        give_up_after_ms: u64::try_from(server.give_up_after.as_millis()).unwrap_or(u64::MAX),
    };
    let progress = output.progress(None, "connecting");
    let mut summary = Summary::default();
    let end = drive(device, server, Session::new(config, now()), &progress, &mut summary).await;
    progress.finish_and_clear();
    let (end, errors) = end?;
    summary.add_statuses(&before, &statuses(device)?, names);
    Ok(Synced { end, errors, summary })
}

fn not_synced(dataset: &DatasetName, error: &ErrorBody) -> CliError {
    let ErrorBody { code, message } = error;
    let what = format!("`{dataset}` was not synced: {message} ({code}); its changes are kept");
    CliError::Refused { code: code.clone(), what }
}

/// Executes what the session says until it is over.
async fn drive(
    device: &mut Device,
    server: &Arc<Server>,
    mut session: Session,
    progress: &ProgressBar,
    summary: &mut Summary,
) -> Result<(SessionEnd, BTreeMap<DatasetName, ErrorBody>), CliError> {
    let mut limits = device.db.limits()?.0;
    // On another thread, as this one waits for the disk. What is open when the session ends is given up.
    let mut requests = JoinSet::new();
    loop {
        let Some(step) = session.poll_output() else {
            let Some(answered) = requests.join_next().await else { break };
            let (id, answer) =
                answered.map_err(|error| CliError::Failed(format!("no request can be sent: {error}")))?;
            let input = match answer {
                Ok(response) => Input::Received { id, response },
                Err(failure) => Input::Failed { id, failure },
            };
            session.handle(input, now(), &mut Draw(&SystemRandom));
            continue;
        };
        let input = match step {
            Step::Prepare { dataset, first } => {
                let address = device.address_of(dataset.clone());
                let prepared = device.db.prepare(&address, &limits, first)?;
                Input::Prepared { dataset, request: prepared.request.map(Box::new) }
            }
            Step::Send { id, request } => {
                let server = Arc::clone(server);
                requests.spawn(async move { (id, server.send(&request).await) });
                continue;
            }
            Step::Absorb { request, response, server_time } => {
                let address = device.address_of(request.name.clone());
                let response = response.map(|response| *response);
                let (_, absorbed) = device.db.absorb(&address, &request, response, server_time, context!())?;
                summary.add(&request.name, &absorbed);
                progress.set_message(summary.progress());
                Input::Absorbed { dataset: request.name, absorbed: Box::new(absorbed) }
            }
            Step::Learn { identity, limits: learnt } => {
                if let Some(identity) = identity {
                    device.db.set_identity(&device.owner, &identity)?;
                }
                if let Some((learnt, version)) = learnt {
                    device.db.set_limits(&learnt, Some(version))?;
                    limits = learnt;
                }
                continue;
            }
            Step::WakeAt(then) => {
                tokio::time::sleep(Duration::from_millis(then.ms_since(now()))).await;
                Input::Woken
            }
            Step::Done(end) => return Ok((end, session.errors().clone())),
        };
        session.handle(input, now(), &mut Draw(&SystemRandom));
    }
    Err(CliError::Failed("the sync session stopped without an end; please report it".into()))
}

fn statuses(device: &mut Device) -> Result<BTreeMap<DatasetName, DatasetStatus>, CliError> {
    let statuses = device.db.datasets(&device.owner)?;
    Ok(statuses.into_iter().map(|status| (status.name.clone(), status)).collect())
}

fn refuse_unless_complete(end: SessionEnd, server: &Server, summary: &Summary) -> Result<(), CliError> {
    let kept = || match summary.pending {
        0 => "nothing is waiting to be pushed".to_owned(),
        pending => format!("{} kept for the next `sync`", count(pending, "change")),
    };
    Err(match end {
        SessionEnd::Complete => return Ok(()),
        SessionEnd::Offline(None) => CliError::Offline(format!("{} does not answer; {}", server.url, kept())),
        SessionEnd::Offline(Some(error)) => CliError::Offline(format!(
            "{} cannot serve now: {} ({}); {}",
            server.url,
            error.message,
            error.code,
            kept()
        )),
        SessionEnd::NotSignedIn(error) => {
            CliError::NotSignedIn(format!("{}; get a new token and sync again; {}", error.message, kept()))
        }
        SessionEnd::UpgradeRequired(error) => CliError::UpgradeRequired(format!("{}; {}", error.message, kept())),
        SessionEnd::Rejected(error) => {
            let what = format!("the server refused the request: {} ({}); {}", error.message, error.code, kept());
            CliError::Refused { code: error.code, what }
        }
    })
}

/// The server of one call.
struct Server {
    /// Where it is synced with.
    url: Url,
    /// Where it says what has changed.
    events: Url,
    client: Client,
    give_up_after: Duration,
    token: TokenSource,
    login: Login,
}

impl Server {
    fn new(server: Option<&str>, token: TokenSource, login: Login, give_up_after: Duration) -> Result<Self, CliError> {
        let server =
            server.ok_or_else(|| CliError::Usage("which server? pass --server URL or set SYNCLINE_SERVER".into()))?;
        let wrong = |why: &str| CliError::Usage(format!("`{server}` is not the URL of a server: {why}"));
        let of = |path| {
            let url = Url::parse(&format!("{}{path}", server.trim_end_matches('/')));
            let url = url.map_err(|error| wrong(&error.to_string()))?;
            if ["http", "https"].contains(&url.scheme()) { Ok(url) } else { Err(wrong("it begins with http or https")) }
        };
        let (url, events) = (of("/v1/sync")?, of("/v1/events")?);
        let timeout = give_up_after.clamp(TIMEOUT_SHORTEST, TIMEOUT_LONGEST);
        let client = Client::builder().connect_timeout(timeout.min(CONNECT_TIMEOUT)).build();
        let client =
            client.map_err(|error| CliError::Failed(format!("no HTTP client can be made: {}", with_causes(&error))))?;
        Ok(Self { url, events, client, give_up_after, token, login })
    }

    async fn send(&self, request: &SyncRequest) -> Result<SyncResponse, Failure> {
        let token = self.current_token()?;
        let sent = self
            .client
            .post(self.url.clone())
            .timeout(self.give_up_after.clamp(TIMEOUT_SHORTEST, TIMEOUT_LONGEST))
            .header(CONTENT_TYPE, FORMAT.media_type())
            .header(ACCEPT, FORMAT.media_type())
            .header(AUTHORIZATION, format!("Bearer {token}"));
        let body = encode(request, FORMAT);
        let sent = match compressed(&body) {
            Some(smaller) => sent.header(CONTENT_ENCODING, "gzip").body(smaller),
            None => sent.body(body),
        };
        let response = sent.send().await.map_err(|_| Failure::Unreachable)?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let bytes = response.bytes().await.map_err(|_| Failure::Unreachable)?;
        decode(&bytes, FORMAT).map_err(|_| Failure::Unreachable)
    }

    /// Opens the stream of events, resumed after an id.
    async fn listen(&self, last_id: Option<&str>) -> Result<Response, Failure> {
        let token = self.current_token()?;
        let request = self.client.get(self.events.clone()).header(AUTHORIZATION, format!("Bearer {token}"));
        let request = request.header(ACCEPT, "text/event-stream");
        let request = last_id.into_iter().fold(request, |request, id| request.header("Last-Event-ID", id));
        let response = tokio::time::timeout(TIMEOUT_LONGEST, request.send()).await;
        let response = response.map_err(|_| Failure::Unreachable)?.map_err(|_| Failure::Unreachable)?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }

    /// The token as it is now. That of another login is no token for this session: its changes belong to the one that
    /// wrote them.
    fn current_token(&self) -> Result<String, Failure> {
        let refuse = |message: &str| Failure::Status {
            status: 401,
            error: Some(ErrorBody { code: code::NOT_AUTHORIZED.into(), message: message.into() }),
            retry_after_ms: None,
        };
        let token = self.token.read().map_err(|error| refuse(&error.to_string()))?;
        let token = token.ok_or_else(|| refuse("the token is gone"))?;
        match TokenSource::Argument(token.clone()).login() {
            Ok(Some(login)) if login == self.login => Ok(token),
            Ok(_) => Err(refuse("the token now belongs to somebody else")),
            Err(error) => Err(refuse(&error.to_string())),
        }
    }
}

/// Bodies shorter than this are not worth it.
const COMPRESSED_LEN_MIN: usize = 256;

/// The body as gzip writes it, if that is shorter.
fn compressed(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() < COMPRESSED_LEN_MIN {
        return None;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).ok()?;
    encoder.finish().ok().filter(|smaller| smaller.len() < body.len())
}

const FORMAT: Format = Format::MessagePack;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT_SHORTEST: Duration = Duration::from_secs(1);
const TIMEOUT_LONGEST: Duration = Duration::from_secs(120);

async fn refusal(response: Response) -> Failure {
    let status = response.status().as_u16();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let retry_after_ms =
        header(RETRY_AFTER).and_then(|text| text.parse::<u64>().ok()).map(|it| it.saturating_mul(1_000));
    let format = header(CONTENT_TYPE).and_then(Format::from_media_type);
    let body = response.bytes().await.unwrap_or_default();
    let error = format.and_then(|format| decode(&body, format).ok());
    Failure::Status { status, error, retry_after_ms }
}

/// What a sync did.
#[derive(Default)]
struct Summary {
    pushed: u64,
    pulled: u64,
    total: BTreeMap<DatasetName, u64>,
    resets: BTreeMap<DatasetName, &'static str>,
    repaired: Vec<DatasetName>,
    damaged: Vec<DatasetName>,
    not_deleted: Vec<DatasetName>,
    /// Datasets that were asked for, and that neither this device nor the server has.
    missing: Vec<DatasetName>,
    copied: bool,
    datasets: u64,
    pending: u64,
    /// New entries of conflict logs, by dataset; likewise newly parked groups and open questions.
    conflicts: BTreeMap<DatasetName, u64>,
    parked: BTreeMap<DatasetName, u64>,
    questions: BTreeMap<DatasetName, u64>,
}

impl Summary {
    fn add(&mut self, dataset: &DatasetName, absorbed: &Absorbed) {
        self.pushed += absorbed.pushed as u64;
        self.pulled += absorbed.pulled as u64;
        self.copied |= absorbed.copied;
        if let Some(total) = absorbed.total {
            self.total.insert(dataset.clone(), total);
        }
        if let Some(divergence) = absorbed.reset {
            self.resets.insert(dataset.clone(), reset_name(divergence));
        }
        if absorbed.diverged {
            self.repaired.push(dataset.clone());
        }
        if absorbed.damaged {
            // It was pulled again, and that did not repair it.
            self.repaired.retain(|repaired| repaired != dataset);
            self.damaged.push(dataset.clone());
        }
        if absorbed.deletion_refused {
            self.not_deleted.push(dataset.clone());
        }
    }

    fn add_statuses(
        &mut self,
        before: &BTreeMap<DatasetName, DatasetStatus>,
        after: &BTreeMap<DatasetName, DatasetStatus>,
        asked: &[DatasetName],
    ) {
        let is_missing = |name: &&DatasetName| !before.contains_key(name) && !after.contains_key(name);
        self.missing.extend(asked.iter().filter(is_missing).cloned());
        for (name, status) in after.iter().filter(|(name, _)| asked.is_empty() || asked.contains(name)) {
            let was = |of: fn(&DatasetStatus) -> u64| before.get(name).map_or(0, of);
            self.datasets += 1;
            self.pending += status.pending_records;
            for (all, more) in [
                (&mut self.conflicts, status.conflicts.saturating_sub(was(|it| it.conflicts))),
                (&mut self.parked, status.parked.saturating_sub(was(|it| it.parked))),
                (&mut self.questions, status.questions),
            ] {
                if more > 0 {
                    all.insert(name.clone(), more);
                }
            }
        }
    }

    fn exit(&self) -> Exit {
        if !self.parked.is_empty() {
            Exit::Rejected
        } else if !self.questions.is_empty() {
            Exit::Unresolved
        } else if !self.damaged.is_empty() {
            Exit::Failure
        } else {
            Exit::Success
        }
    }

    /// Whether anything has happened that a person would want to know.
    fn has_news(&self) -> bool {
        let told = [&self.conflicts, &self.parked].into_iter().any(|numbers| !numbers.is_empty());
        let lists = [&self.repaired, &self.damaged, &self.not_deleted];
        let reset = !self.resets.is_empty() || lists.into_iter().any(|names| !names.is_empty());
        self.pushed + self.pulled > 0 || told || reset || self.copied
    }

    fn progress(&self) -> String {
        let total: u64 = self.total.values().sum();
        format!("pushed {}, pulled {} of {}", count(self.pushed, "change"), self.pulled, count(total, "record"))
    }

    fn sentences(&self) -> String {
        let moved = match (self.pushed, self.pulled) {
            (0, 0) => "nothing new".to_owned(),
            (0, pulled) => format!("pulled {}", count(pulled, "record")),
            (pushed, 0) => format!("pushed {}", count(pushed, "change")),
            (pushed, pulled) => format!("pushed {}, pulled {}", count(pushed, "change"), count(pulled, "record")),
        };
        let mut lines = vec![format!("synced {}: {moved}", count(self.datasets, "dataset"))];
        if self.copied {
            lines.push("this file is a copy of another device's; it is a device of its own now".to_owned());
        }
        for (dataset, reset) in &self.resets {
            lines.push(format!(
                "the server's `{dataset}` was not what this device had pulled ({reset}); it was pulled anew"
            ));
        }
        for dataset in &self.repaired {
            lines.push(format!("`{dataset}` differed from the server's and was repaired"));
        }
        for dataset in &self.damaged {
            lines.push(format!(
                "the server has lost or damaged records of `{dataset}`: what it has was taken, and what this device \
                 held is in `conflicts {dataset}`; tell whoever runs the server, who can put back a backup"
            ));
        }
        for dataset in &self.not_deleted {
            lines.push(format!(
                "`{dataset}` was not deleted, because somebody has changed it since; look and delete again"
            ));
        }
        for dataset in &self.missing {
            lines.push(format!("there is no `{dataset}`, here or on the server; `put` makes it"));
        }
        for (dataset, number) in &self.conflicts {
            let (conflicts, was) = (count(*number, "conflict"), if *number == 1 { "was" } else { "were" });
            lines.push(format!("{conflicts} {was} resolved; `conflicts {dataset}` lists what lost"));
        }
        for (dataset, number) in &self.questions {
            lines.push(format!("{} open; `resolve {dataset}` lists and answers", count(*number, "question")));
        }
        for (dataset, number) in &self.parked {
            let groups = count(*number, "group");
            lines.push(format!("the server refused {groups} of `{dataset}`, parked here; `parked {dataset}` says why"));
        }
        lines.join("\n")
    }

    fn to_json(&self) -> serde_json::Value {
        let by_name = |numbers: &BTreeMap<DatasetName, u64>| -> serde_json::Value {
            numbers.iter().map(|(name, number)| (name.as_str().to_owned(), json!(number))).collect()
        };
        let names = |names: &[DatasetName]| names.iter().map(|it| it.as_str().to_owned()).collect::<Vec<_>>();
        let resets: serde_json::Value =
            self.resets.iter().map(|(name, reset)| (name.as_str().to_owned(), json!(reset))).collect();
        json!({
            "datasets": self.datasets,
            "pushed": self.pushed,
            "pulled": self.pulled,
            "pending": self.pending,
            "conflicts": by_name(&self.conflicts),
            "questions": by_name(&self.questions),
            "parked": by_name(&self.parked),
            "resets": resets,
            "repaired": names(&self.repaired),
            "damaged": names(&self.damaged),
            "not_deleted": names(&self.not_deleted),
            "missing": names(&self.missing),
            "copied": self.copied,
        })
    }
}

const fn reset_name(divergence: Divergence) -> &'static str {
    match divergence {
        Divergence::Deleted => "deleted",
        Divergence::Erased => "erased",
        Divergence::Restored { .. } => "restored",
        Divergence::RolledBack { .. } => "rolled_back",
        Divergence::Foreign => "foreign",
        Divergence::Pruned => "pruned",
    }
}
