//! Who calls, and which dataset is meant.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::header;
use axum::http::request::Parts;
use sync_core::model::{DatasetName, DeviceId, Owner, RecordKey, Timestamp};

use crate::auth::policy::Caller;
use crate::auth::rules::SignedIn;
use crate::http::App;
use crate::http::crowd::all_taken;
use crate::http::error::HttpError;
use crate::http::places::Places;
use crate::store::DatasetAddress;

impl FromRequestParts<App> for SignedIn {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, HttpError> {
        let authorization = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Self { caller: login, expires_at } = app.deps.verifier.verify(authorization, app.deps.clock.now()).await?;
        let caller = app.deps.service.resolve_caller(login).await?;
        app.rates.check(&caller)?;
        let of_identity = app.crowd.enter(&caller)?;
        let among_all = Arc::clone(&app.requests).try_acquire_owned().map_err(|_| all_taken())?;
        let Ok(places) = Places::from_request_parts(parts, app).await;
        places.keep(among_all, of_identity, app.memory.room(&caller));
        Ok(Self { caller, expires_at })
    }
}

/// A caller, and the owner that the path names; the caller itself if the path names none.
pub(super) struct ForOwner {
    pub(super) caller: Caller,
    pub(super) owner: Owner,
    /// When the caller's token expires, if it does.
    pub(super) expires_at: Option<Timestamp>,
}

/// A caller, and the dataset that the path names.
pub(super) struct ForDataset {
    pub(super) caller: Caller,
    pub(super) dataset: DatasetAddress,
}

/// A caller, and the device of an owner that the path names.
pub(super) struct ForDevice {
    pub(super) caller: Caller,
    pub(super) owner: Owner,
    pub(super) device: DeviceId,
}

/// A caller, and the record that the path names.
pub(super) struct ForRecord {
    pub(super) caller: Caller,
    pub(super) dataset: DatasetAddress,
    pub(super) key: RecordKey,
}

impl FromRequestParts<App> for ForOwner {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, HttpError> {
        let SignedIn { caller, expires_at } = SignedIn::from_request_parts(parts, app).await?;
        let owner = match path_part(parts, app, "owner").await? {
            Some(owner) => app.deps.service.resolve(&Owner::parse(owner)?).await?,
            None => caller.default_owner().cloned().ok_or_else(owner_missing)?,
        };
        Ok(Self { caller, owner, expires_at })
    }
}

impl FromRequestParts<App> for ForDataset {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, HttpError> {
        let ForOwner { caller, owner, expires_at: _ } = ForOwner::from_request_parts(parts, app).await?;
        let name = DatasetName::parse(path_part(parts, app, "dataset").await?.unwrap_or_default())?;
        Ok(Self { caller, dataset: DatasetAddress { owner, name } })
    }
}

impl FromRequestParts<App> for ForDevice {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, HttpError> {
        let ForOwner { caller, owner, expires_at: _ } = ForOwner::from_request_parts(parts, app).await?;
        let device = DeviceId::parse(&path_part(parts, app, "device").await?.unwrap_or_default());
        let not_an_id = |_| HttpError::invalid("the device is written in 32 hexadecimal digits");
        Ok(Self { caller, owner, device: device.map_err(not_an_id)? })
    }
}

impl FromRequestParts<App> for ForRecord {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, HttpError> {
        let ForDataset { caller, dataset } = ForDataset::from_request_parts(parts, app).await?;
        let key = RecordKey::parse(path_part(parts, app, "key").await?.unwrap_or_default())?;
        Ok(Self { caller, dataset, key })
    }
}

/// A parameter of the path, with its percent signs resolved.
async fn path_part(parts: &mut Parts, app: &App, name: &str) -> Result<Option<String>, HttpError> {
    let all = RawPathParams::from_request_parts(parts, app).await;
    let all = all.map_err(|_| HttpError::invalid("the path is not UTF-8 in percent encoding"))?;
    Ok(all.iter().find(|(part, _)| *part == name).map(|(_, value)| value.to_owned()))
}

fn owner_missing() -> HttpError {
    HttpError::invalid("a service has no datasets of its own: name an owner, /v1/owners/{owner}/…")
}
