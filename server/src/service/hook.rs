//! The push hook: somebody who looks at what is pushed before it is decided, and may refuse or rewrite groups.
//!
//! It is asked before a push waits for its turn, so that no other push waits for it, and it sees only what is pushed.
//! A push that is sent again is reviewed again, and its answer comes from the push memory: a hook must be repeatable.

use async_trait::async_trait;
use sync_core::merge::push::Review;
use sync_core::model::{Group, Owner};

use crate::auth::policy::Caller;
use crate::error::ServiceError;
use crate::service::Service;
use crate::store::DatasetAddress;

/// Looks at pushes.
#[async_trait]
pub trait PushHook: Send + Sync {
    /// One review for each group, in order.
    ///
    /// # Errors
    /// If it could not be asked, and pushes are not to go on without it.
    async fn review(&self, push: PushedGroups<'_>) -> Result<Vec<Review>, ServiceError>;
}

/// What a hook is told.
#[derive(Clone, Copy, Debug)]
pub struct PushedGroups<'a> {
    /// Who pushes: an identity; nothing for a back-end job.
    pub identity: Option<&'a Owner>,
    /// To which dataset.
    pub dataset: &'a DatasetAddress,
    /// What.
    pub groups: &'a [Group],
}

impl Service {
    /// Asks the hook about each group, if there is one.
    pub(crate) async fn review(
        &self,
        caller: &Caller,
        dataset: &DatasetAddress,
        groups: &[Group],
    ) -> Result<Vec<Review>, ServiceError> {
        match &self.parts.hook {
            Some(hook) if !groups.is_empty() => {
                hook.review(PushedGroups { identity: caller.default_owner(), dataset, groups }).await
            }
            _ => Ok(Vec::new()),
        }
    }
}
