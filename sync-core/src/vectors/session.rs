//! `sessions/*.json`: what a sync session is told, and what it asks for.

use serde::{Deserialize, Serialize};

use crate::client::session::{Failure, Input, Output, RequestId, Session, SessionConfig, SessionEnd};
use crate::model::{DatasetName, DeviceId, Limits, Owner, Timestamp};
use crate::protocol::{DatasetRequest, DatasetResponse, ErrorBody, SyncRequest, SyncResponse};
use crate::vectors::layout::layout;
use crate::vectors::random::CountingRandom;
use crate::vectors::step::AbsorbedForm;
use crate::vectors::{InvalidVector, is_default, read};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    config: Config,
    /// The clock when the session begins.
    now: Timestamp,
    /// What it asks for at once.
    #[serde(default)]
    outputs: Vec<OutputForm>,
    steps: Vec<Step>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Also the prefix of the random source.
    device: DeviceId,
    #[serde(default)]
    datasets: Vec<DatasetName>,
    #[serde(default)]
    known: Vec<DatasetName>,
    #[serde(default, skip_serializing_if = "is_default")]
    limits: Limits,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limits_version: Option<u32>,
    give_up_after_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    about: Option<String>,
    now: Timestamp,
    input: InputForm,
    #[serde(default)]
    outputs: Vec<OutputForm>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum InputForm {
    Prepared {
        dataset: DatasetName,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<Box<DatasetRequest>>,
    },
    Received {
        id: u64,
        response: Box<SyncResponse>,
    },
    /// The server could not be reached.
    Unreachable {
        id: u64,
    },
    /// The server answered with an error.
    Status {
        id: u64,
        status: u16,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ErrorBody>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    Absorbed {
        dataset: DatasetName,
        #[serde(default, skip_serializing_if = "is_default")]
        absorbed: AbsorbedForm,
    },
    Woken,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutputForm {
    Prepare {
        dataset: DatasetName,
        #[serde(default, skip_serializing_if = "is_default")]
        first: bool,
    },
    Send {
        id: u64,
        request: Box<SyncRequest>,
    },
    Absorb {
        request: Box<DatasetRequest>,
        #[serde(default)]
        response: Option<Box<DatasetResponse>>,
        server_time: Timestamp,
    },
    Learn {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        identity: Option<Owner>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limits: Option<(Limits, u32)>,
    },
    WakeAt(Timestamp),
    Done {
        end: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ErrorBody>,
        /// Datasets that could not be synced.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        errors: Vec<(DatasetName, ErrorBody)>,
    },
}

/// Replays a session.
///
/// # Errors
/// If the file is not of its form.
pub fn session(text: &str) -> Result<String, InvalidVector> {
    let mut file: File = read(text)?;
    let mut random = CountingRandom::of(file.config.device);
    let config = SessionConfig {
        device: file.config.device,
        datasets: file.config.datasets.clone(),
        known: file.config.known.clone(),
        limits: file.config.limits.clone(),
        limits_version: file.config.limits_version,
        give_up_after_ms: file.config.give_up_after_ms,
    };
    let mut session = Session::new(config, file.now);
    file.outputs = outputs(&mut session);
    for step in &mut file.steps {
        session.handle(step.input.clone().into(), step.now, &mut random);
        step.outputs = outputs(&mut session);
    }
    Ok(layout(&file))
}

impl From<InputForm> for Input {
    fn from(form: InputForm) -> Self {
        match form {
            InputForm::Prepared { dataset, request } => Self::Prepared { dataset, request },
            InputForm::Received { id, response } => Self::Received { id: RequestId(id), response: *response },
            InputForm::Unreachable { id } => Self::Failed { id: RequestId(id), failure: Failure::Unreachable },
            InputForm::Status { id, status, error, retry_after_ms } => {
                Self::Failed { id: RequestId(id), failure: Failure::Status { status, error, retry_after_ms } }
            }
            InputForm::Absorbed { dataset, absorbed } => {
                Self::Absorbed { dataset, absorbed: Box::new(absorbed.into()) }
            }
            InputForm::Woken => Self::Woken,
        }
    }
}

fn outputs(session: &mut Session) -> Vec<OutputForm> {
    let mut outputs = Vec::new();
    while let Some(output) = session.poll_output() {
        outputs.push(match output {
            Output::Prepare { dataset, first } => OutputForm::Prepare { dataset, first },
            Output::Send { id, request } => OutputForm::Send { id: id.0, request },
            Output::Absorb { request, response, server_time } => OutputForm::Absorb { request, response, server_time },
            Output::Learn { identity, limits } => OutputForm::Learn { identity, limits },
            Output::WakeAt(at) => OutputForm::WakeAt(at),
            Output::Done(end) => {
                let (end, error) = match end {
                    SessionEnd::Complete => ("complete", None),
                    SessionEnd::Offline(error) => ("offline", error),
                    SessionEnd::NotSignedIn(error) => ("not_signed_in", Some(error)),
                    SessionEnd::Rejected(error) => ("rejected", Some(error)),
                    SessionEnd::UpgradeRequired(error) => ("upgrade_required", Some(error)),
                };
                let errors = session.errors().iter().map(|(name, error)| (name.clone(), error.clone())).collect();
                OutputForm::Done { end: end.to_owned(), error, errors }
            }
        });
    }
    outputs
}
