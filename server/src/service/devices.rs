//! Devices that are registered to be woken: by whoever may see which datasets move on.

use sync_core::model::{DeviceId, Owner};

use crate::auth::policy::Caller;
use crate::error::ServiceError;
use crate::service::Service;
use crate::store::devices::{DeviceLabel, Platform, PushToken, Registration};

impl Service {
    /// The registered devices of an owner, the latest first.
    ///
    /// # Errors
    /// If the caller may not see this owner's datasets, or the store fails.
    pub async fn registered_devices(&self, caller: &Caller, owner: &Owner) -> Result<Vec<Registration>, ServiceError> {
        self.allow_to_see(caller, owner)?;
        Ok(self.parts.store.directory().devices(owner).await?)
    }

    /// Registers a device, in place of what was registered for it, and says whether it is new. If the owner has as many as
    /// it may, the one is forgotten that registered longest ago: apps that are gone say nothing, and those that are there
    /// register whenever they start.
    ///
    /// # Errors
    /// If the caller may not see this owner's datasets, or the store fails.
    pub async fn register_device(
        &self,
        caller: &Caller,
        owner: &Owner,
        device: DeviceId,
        (platform, token, name): (Platform, PushToken, Option<DeviceLabel>),
    ) -> Result<(Registration, bool), ServiceError> {
        self.allow_to_see(caller, owner)?;
        let registration = Registration { device, platform, token, name, registered_at: self.parts.clock.now() };
        let is_new = self.parts.store.directory().register(owner, registration.clone()).await?;
        Ok((registration, is_new))
    }

    /// Forgets a device.
    ///
    /// # Errors
    /// `NotFound` if it is not registered; or the caller may not see this owner's datasets, or the store fails.
    pub async fn unregister_device(
        &self,
        caller: &Caller,
        owner: &Owner,
        device: DeviceId,
    ) -> Result<(), ServiceError> {
        self.allow_to_see(caller, owner)?;
        if self.parts.store.directory().unregister(owner, device).await? {
            return Ok(());
        }
        Err(ServiceError::NotFound(format!("the device `{device}` is not registered")))
    }
}
