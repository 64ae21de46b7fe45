//! Devices that are registered to be woken: `…/devices`.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::caller::{ForDevice, ForOwner};
use crate::http::error::HttpError;
use crate::http::openapi::{BodyFailures, ErrorBody, Failures};
use crate::http::places::Places;
use crate::http::{App, NO_STORE, message, rfc3339};
use crate::store::devices::{DeviceLabel, Platform, PushToken, Registration};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(register, unregister))
}

/// Which device.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it describes the path for the OpenAPI document; `ForDevice` reads it")]
struct DeviceParam {
    /// The device's id, by which it also syncs: 32 hexadecimal digits.
    #[param(example = "7c1f0a9e5b3d4286a0c4e8f1d2b39a57", pattern = "^[0-9a-fA-F]{32}$")]
    device: String,
}

/// How a device is woken.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RegistrationBody {
    /// Who delivers to it.
    platform: PlatformBody,
    /// What the platform told the app to be its token there: printable ASCII without blanks. It is never shown again.
    #[schema(min_length = 1, max_length = 4096, pattern = "^[!-~]+$", example = "fJ2mQ9xTRkG:APA91bH-example")]
    token: String,
    /// What the user calls the device.
    #[schema(min_length = 1, max_length = 128, example = "Ada's phone")]
    name: Option<String>,
}

/// Apple, Apple for apps in development, Google, or Amazon.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum PlatformBody {
    Apns,
    ApnsSandbox,
    Fcm,
    Adm,
}

/// A registered device.
#[derive(Serialize, ToSchema)]
struct DeviceBody {
    /// Its id.
    #[schema(example = "7c1f0a9e5b3d4286a0c4e8f1d2b39a57")]
    device: String,
    /// Who delivers to it.
    platform: PlatformBody,
    /// What its user calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "Ada's phone")]
    name: Option<String>,
    /// When it registered last, by the server's clock.
    #[schema(example = "2026-11-25T10:00:00.000Z")]
    registered_at: String,
}

/// Registered devices.
#[derive(Serialize, ToSchema)]
struct DevicesBody {
    /// All of them, the latest registration first.
    devices: Vec<DeviceBody>,
}

/// List registered devices
#[utoipa::path(get, path = "/devices", operation_id = "list_devices", tag = "devices",
    responses((status = 200, body = DevicesBody, description = "The devices, without their tokens."), Failures))]
async fn list(State(app): State<App>, ForOwner { caller, owner, .. }: ForOwner) -> Result<Response, HttpError> {
    let devices = app.deps.service.registered_devices(&caller, &owner).await?;
    Ok((NO_STORE, Json(DevicesBody { devices: devices.into_iter().map(body).collect() })).into_response())
}

/// Register a device
///
/// So that it can be woken when a dataset moves on. This server keeps registrations, and wakes nobody yet. An app registers
/// whenever it starts, and whenever its token changes. A token belongs to the device of this owner that registered with it
/// last. Of more than 100 devices of an owner, those are forgotten that registered longest ago.
#[utoipa::path(put, path = "/devices/{device}", operation_id = "register_device", tag = "devices", params(DeviceParam),
    request_body(content = RegistrationBody, description = "How it is woken.",
        example = json!({"platform": "fcm", "token": "fJ2mQ9xTRkG:APA91bH-example", "name": "Ada's phone"})),
    responses((status = 200, body = DeviceBody, description = "It was registered before, and is now so."),
        (status = 201, body = DeviceBody, description = "It is registered."), Failures, BodyFailures))]
async fn register(
    State(app): State<App>,
    ForDevice { caller, owner, device }: ForDevice,
    places: Places,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, HttpError> {
    let RegistrationBody { platform, token, name } = message::read_all(&app, places, &headers, body).await?;
    let token = PushToken::parse(token)?;
    let name = name.map(DeviceLabel::parse).transpose()?;
    let how = (platform.into(), token, name);
    let (registration, is_new) = app.deps.service.register_device(&caller, &owner, device, how).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, NO_STORE, Json(self::body(registration))).into_response())
}

/// Forget a device
///
/// An app does so when its user signs out.
#[utoipa::path(delete, path = "/devices/{device}", operation_id = "unregister_device", tag = "devices", params(DeviceParam),
    responses((status = 204, description = "It is forgotten."), Failures,
        (status = 404, body = ErrorBody, description = "It is not registered.",
            example = json!({"code": "ResourceNotFound", "message": "the device `7c1f0a9e5b3d4286a0c4e8f1d2b39a57` is not registered"}))))]
async fn unregister(
    State(app): State<App>,
    ForDevice { caller, owner, device }: ForDevice,
) -> Result<Response, HttpError> {
    app.deps.service.unregister_device(&caller, &owner, device).await?;
    Ok((StatusCode::NO_CONTENT, NO_STORE).into_response())
}

fn body(registration: Registration) -> DeviceBody {
    let Registration { device, platform, token: _, name, registered_at } = registration;
    DeviceBody {
        device: device.to_string(),
        platform: platform.into(),
        name: name.map(|name| name.as_str().to_owned()),
        registered_at: rfc3339(registered_at),
    }
}

impl From<PlatformBody> for Platform {
    fn from(body: PlatformBody) -> Self {
        match body {
            PlatformBody::Apns => Self::Apns,
            PlatformBody::ApnsSandbox => Self::ApnsSandbox,
            PlatformBody::Fcm => Self::Fcm,
            PlatformBody::Adm => Self::Adm,
        }
    }
}

impl From<Platform> for PlatformBody {
    fn from(platform: Platform) -> Self {
        match platform {
            Platform::Apns => Self::Apns,
            Platform::ApnsSandbox => Self::ApnsSandbox,
            Platform::Fcm => Self::Fcm,
            Platform::Adm => Self::Adm,
        }
    }
}
