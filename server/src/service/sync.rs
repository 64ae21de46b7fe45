//! `POST /v1/sync`: one round trip that pushes and pulls several datasets.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use sync_core::merge::push::Outcome;
use sync_core::model::{DeviceId, Group, Owner, SyncCount, limits};
use sync_core::protocol::{
    DatasetRequest, DatasetResponse, PROTOCOL_VERSION, Push, PushAnswer, SyncRequest, SyncResponse,
};

use crate::auth::policy::{Action, Caller};
use crate::causes::with_causes;
use crate::error::ServiceError;
use crate::service::Service;
use crate::service::line::Standing;
use crate::service::pull::Pulled;
use crate::service::push::{PushRequest, Pushed, push_answer};
use crate::store::{DatasetAddress, RecordsRead};

/// The oldest protocol version that is served.
const PROTOCOL_VERSION_MIN: u32 = 1;
/// Datasets of one request that are pushed to at once.
const PUSHES_AT_ONCE: usize = 64;

/// A dataset of a request after its push.
struct Half {
    address: DatasetAddress,
    request: DatasetRequest,
    response: DatasetResponse,
    /// What the push has read already of what is to be pulled.
    unread: Option<Arc<RecordsRead>>,
    /// Whether there is nothing more to say.
    complete: bool,
}

/// A request whose pushes are through.
pub(crate) struct Begun {
    /// As far as it goes.
    response: SyncResponse,
    halves: Vec<Half>,
    /// Whose datasets are to be listed, if they are.
    list: Option<Owner>,
}

impl Begun {
    /// Gives back the memory of what pushes have read already: it is read again.
    pub(crate) fn forget_reads(&mut self) {
        self.halves.iter_mut().for_each(|half| half.unread = None);
    }
}

impl Service {
    /// Pushes and pulls. What fails for one dataset is said in its answer, and does not hold up the others.
    ///
    /// # Errors
    /// If the request as a whole cannot be served.
    pub async fn sync(&self, caller: &Caller, request: SyncRequest) -> Result<SyncResponse, ServiceError> {
        let begun = self.begin_sync(caller, request).await?;
        self.finish_sync(begun, usize::MAX).await
    }

    /// The first half of [`Service::sync`]: pushes.
    ///
    /// # Errors
    /// If the request as a whole cannot be served. Then nothing is pushed.
    pub(crate) async fn begin_sync(&self, caller: &Caller, request: SyncRequest) -> Result<Begun, ServiceError> {
        self.check(&request)?;
        let SyncRequest { version: _, device, app: _, limits_version, list, datasets } = request;
        let datasets = self.addressed(caller, datasets).await?;
        let list = list.then(|| caller.default_owner().cloned().ok_or_else(owner_missing)).transpose()?;
        let mut response =
            SyncResponse { version: PROTOCOL_VERSION, server_time: self.parts.clock.now(), ..SyncResponse::default() };
        if limits_version != Some(self.limits_version) {
            response.limits = Some(self.settings.limits.clone());
            response.limits_version = Some(self.limits_version);
        }
        let push = |(address, dataset)| self.push_half(caller, device, address, dataset);
        let halves = stream::iter(datasets).map(push).buffered(PUSHES_AT_ONCE).collect().await;
        Ok(Begun { response, halves, list })
    }

    /// The second half: pulls, of which the answer has some MB, or fewer bytes of records if there is less room.
    ///
    /// # Errors
    /// If the store fails to list datasets.
    pub(crate) async fn finish_sync(&self, begun: Begun, bytes_max: usize) -> Result<SyncResponse, ServiceError> {
        let Begun { mut response, halves, list } = begun;
        let mut bytes_left = self.settings.response_bytes_max.min(bytes_max);
        for half in halves {
            response.datasets.extend(self.pull_half(half, &mut bytes_left).await);
        }
        if let Some(identity) = list {
            response.names = Some(self.names(&identity).await?);
            response.identity = Some(identity);
        }
        Ok(response)
    }

    /// What can be said against the request as a whole.
    fn check(&self, request: &SyncRequest) -> Result<(), ServiceError> {
        if request.version < PROTOCOL_VERSION_MIN {
            return Err(ServiceError::UpgradeRequired { version: request.version });
        }
        if request.datasets.len() > limits::REQUEST_DATASETS_MAX {
            let most = limits::REQUEST_DATASETS_MAX;
            return Err(ServiceError::LimitExceeded(format!("a request names at most {most} datasets")));
        }
        let pushes = || request.datasets.iter().filter_map(|dataset| dataset.push.as_ref());
        let patches: usize = pushes().flat_map(|push| &push.groups).map(|group| group.patches.len()).sum();
        let patches_max = self.settings.limits.request_patches_max;
        if patches > patches_max {
            let text = format!("a request has at most {patches_max} patches, and this one has {patches}");
            return Err(ServiceError::LimitExceeded(text));
        }
        let weight: usize = pushes().flat_map(|push| &push.groups).map(Group::weight).sum();
        let earlier_max = limits::REQUEST_PATCHES_MAX;
        if weight - patches > earlier_max {
            let text = format!("a request tells of at most {earlier_max} earlier writes to counters");
            return Err(ServiceError::LimitExceeded(text));
        }
        if pushes().any(|push| push.sequence > SyncCount::NEVER.0) {
            return Err(ServiceError::InvalidParameter("the sequence of a push is below 2^53".to_owned()));
        }
        Ok(())
    }

    /// Which dataset each part of a request is about. No two are about the same.
    async fn addressed(
        &self,
        caller: &Caller,
        datasets: Vec<DatasetRequest>,
    ) -> Result<Vec<(DatasetAddress, DatasetRequest)>, ServiceError> {
        let mut seen = BTreeSet::new();
        let mut addressed = Vec::new();
        for dataset in datasets {
            let owner = match &dataset.owner {
                Some(owner) => self.resolve(owner).await?,
                None => caller.default_owner().cloned().ok_or_else(owner_missing)?,
            };
            let address = DatasetAddress { owner, name: dataset.name.clone() };
            if !seen.insert(address.clone()) {
                let text = format!("the request names dataset `{}` twice", dataset.name);
                return Err(ServiceError::InvalidParameter(text));
            }
            addressed.push((address, dataset));
        }
        Ok(addressed)
    }

    async fn push_half(
        &self,
        caller: &Caller,
        device: DeviceId,
        address: DatasetAddress,
        mut request: DatasetRequest,
    ) -> Half {
        let response = DatasetResponse::empty(request.owner.clone(), request.name.clone());
        let push = request.push.take();
        let action = if push.is_some() || request.delete { Action::Write } else { Action::Read };
        let mut half = Half { address, request, response, unread: None, complete: false };
        let done = match self.allow(caller, &half.address, action) {
            Ok(()) => self.push_or_delete(caller, device, push, &mut half).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tell(&mut half.response, &error);
            half.complete = true;
        }
        half
    }

    async fn push_or_delete(
        &self,
        caller: &Caller,
        device: DeviceId,
        push: Option<Push>,
        half: &mut Half,
    ) -> Result<(), ServiceError> {
        let Half { address, request, response, unread, complete } = half;
        if let Some(Push { device, sequence, groups }) = push {
            let reviews = self.review(caller, address, &groups).await?;
            let standing = Standing::of(request);
            let push = PushRequest { standing, device, sequence: Some(sequence), groups, reviews, once: None };
            match self.push(address, push).await? {
                Pushed::Answered { answer, unread: read } => {
                    if answer.outcomes.iter().any(is_written) {
                        self.audit(caller, address, answer.ack);
                    }
                    *unread = read;
                    response.push = Some(push_answer(sequence, answer));
                }
                Pushed::Copied => {
                    response.push = Some(PushAnswer { sequence, copied: true, ack: None, groups: Vec::new() });
                }
                Pushed::OffLine => return Ok(()),
            }
        }
        if request.delete {
            let deleted = self.delete(address, request.cursor, device).await?;
            if deleted {
                self.audit(caller, address, request.cursor);
            }
            response.deleted = Some(deleted);
            *unread = None;
            *complete = deleted;
        }
        Ok(())
    }

    async fn pull_half(&self, half: Half, bytes_left: &mut usize) -> Option<DatasetResponse> {
        let Half { address, request, mut response, unread, complete } = half;
        if complete {
            return Some(response);
        }
        let acked = response.push.as_ref().and_then(|push| push.ack);
        match self.pull(&address, &request, acked, unread, *bytes_left).await {
            // The answer is full: the device asks for this dataset again.
            Ok(pulled) if *bytes_left == 0 && pulled.bytes() > 0 => {
                tell(&mut response, &ServiceError::TooManyRequests { retry_after_ms: 0 });
            }
            Ok(pulled) => {
                *bytes_left = bytes_left.saturating_sub(pulled.bytes());
                match pulled {
                    Pulled::Page(page, _) => response.page = Some(page),
                    Pulled::Restart(restart) => response.restart = Some(restart),
                    Pulled::Reset(reset) => response.reset = Some(reset),
                    Pulled::Unchanged if response.push.is_none() && response.deleted.is_none() => return None,
                    Pulled::Unchanged => {}
                }
            }
            Err(error) => tell(&mut response, &error),
        }
        Some(response)
    }
}

/// What a service is told that does not say for whom it acts.
fn owner_missing() -> ServiceError {
    ServiceError::InvalidParameter("a service names the owner of each dataset".to_owned())
}

/// Whether a group changed something.
const fn is_written(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Conflict { .. } | Outcome::Refused(_))
}

/// Says in a dataset's answer that it cannot be served. What is told to nobody is logged here.
fn tell(response: &mut DatasetResponse, error: &ServiceError) {
    if let Some(error) = error.untold() {
        let error = with_causes(error);
        tracing::error!(dataset.name = %response.name, error, "failed to sync dataset `{}`", response.name);
    }
    response.error = Some(error.body());
}
