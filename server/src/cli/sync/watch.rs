//! `sync --watch`: the driver of the core's watch machine.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Response;
use sync_core::client::events::EventParser;
use sync_core::client::session::{Failure, SessionEnd};
use sync_core::client::watch::{Watch, WatchEnd, WatchOutput};
use sync_core::model::{DatasetName, Timestamp};
use tokio::time::Instant;

use crate::cli::exit::{CliError, Exit};
use crate::cli::output::Output;
use crate::cli::sync::{Server, Summary, Synced, not_synced, refuse_unless_complete, statuses, sync_once};
use crate::cli::{Device, now};
use crate::clock::{Draw, SystemRandom};

/// How long a stream may be silent. A server says within this time that it is alive.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// How often it is looked whether somebody else has written to the file.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The stream of events, and when it last brought anything.
struct Stream {
    response: Response,
    heard_at: Instant,
}

/// What was waited for.
enum Waited {
    /// The stream brought bytes; nothing: it is over.
    Bytes(Option<Vec<u8>>),
    Woken,
    /// It is time to look at the file.
    Look,
}

pub(super) async fn watch(
    device: &mut Device,
    output: &Output,
    server: &Arc<Server>,
    names: Vec<DatasetName>,
) -> Result<Exit, CliError> {
    let mut watch = Watch::new(names);
    let mut random = Draw(&SystemRandom);
    let mut stream: Option<Stream> = None;
    let mut parser = EventParser::default();
    let mut has_answered = false;
    loop {
        let wake_at = match watch.poll_output() {
            Some(WatchOutput::Listen { last_id }) => {
                parser = EventParser::default();
                match server.listen(last_id.as_deref()).await {
                    Ok(response) => stream = Some(Stream { response, heard_at: Instant::now() }),
                    Err(failure) => {
                        stream = None;
                        watch.closed(&failure, now(), &mut random);
                    }
                }
                continue;
            }
            Some(WatchOutput::Sync(datasets)) => {
                let Synced { end, errors, summary } = sync_once(device, output, server, &datasets).await?;
                for (dataset, error) in &errors {
                    output.error(&not_synced(dataset, error));
                }
                if end == SessionEnd::Complete && (!has_answered || summary.has_news()) {
                    output.answer(&summary.sentences(), &summary.to_json())?;
                    has_answered = true;
                }
                watch.synced(datasets, end, now(), &mut random);
                continue;
            }
            Some(WatchOutput::Done(end)) => return Err(over(end, server)),
            Some(WatchOutput::WakeAt(at)) => Some(at),
            None => None,
        };
        match wait(stream.as_mut(), wake_at).await {
            Waited::Bytes(Some(bytes)) => {
                for event in parser.feed(&bytes) {
                    let statuses = statuses(device)?;
                    watch.hear(&event, |dataset| statuses.get(dataset).and_then(|status| status.cursor));
                }
                if parser.is_broken() {
                    stream = None;
                    watch.closed(&Failure::Unreachable, now(), &mut random);
                }
            }
            Waited::Bytes(None) => {
                stream = None;
                watch.closed(&Failure::Unreachable, now(), &mut random);
            }
            Waited::Woken => watch.woken(now()),
            Waited::Look => {
                if device.db.is_changed_by_others()? {
                    let pending = statuses(device)?.into_iter().filter(|(_, status)| status.wants_to_push());
                    watch.written(pending.map(|(name, _)| name));
                }
            }
        }
    }
}

/// Waits for whatever comes first.
async fn wait(stream: Option<&mut Stream>, wake_at: Option<Timestamp>) -> Waited {
    let bytes = async {
        let Some(Stream { response, heard_at }) = stream else { return std::future::pending().await };
        let bytes = tokio::time::timeout_at(*heard_at + SILENCE_MAX, response.chunk()).await;
        *heard_at = Instant::now();
        bytes.ok().and_then(Result::ok).flatten().map(|bytes| bytes.to_vec())
    };
    let woken = async {
        match wake_at {
            Some(at) => tokio::time::sleep(Duration::from_millis(at.ms_since(now()))).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        bytes = bytes => Waited::Bytes(bytes),
        () = woken => Waited::Woken,
        () = tokio::time::sleep(LOOK_EVERY) => Waited::Look,
    }
}

/// Why watching ended, which it never does by success.
fn over(end: WatchEnd, server: &Server) -> CliError {
    let end = match end {
        WatchEnd::NotSignedIn(error) => SessionEnd::NotSignedIn(error),
        WatchEnd::Rejected(error) => SessionEnd::Rejected(error),
        WatchEnd::Sync(end) => end,
    };
    match refuse_unless_complete(end, server, &Summary::default()) {
        Err(error) => error,
        Ok(()) => CliError::Failed("watching ended without a reason; please report it".into()),
    }
}
