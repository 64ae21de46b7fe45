//! A guest's dataset becomes an identity's.

use crate::merge::replica::{GroupHeader, GroupState, PendingPatch, Plan, Replica, ReplicaError, Write};
use crate::merge::stack::{Context, Stack};

/// Carries a guest's pending groups over into the identity's replica of the same dataset, on top of what is pending
/// there. Change ids are kept, so that a file that was copied before it was claimed does not bring its changes twice.
/// What merges is merged; of two plain values the identity's wins, and the guest's goes to the conflict log.
///
/// The plan is for the identity's replica; afterwards the host drops the guest's.
///
/// # Errors
/// If a replica cannot be read.
pub fn plan_claim(
    guest: &dyn Replica,
    identity: &dyn Replica,
    context: &mut Context<'_>,
) -> Result<Plan, ReplicaError> {
    let mut writes = Vec::new();
    let mut stack = Stack::over_base(identity)?;
    if *stack.policies == Default::default() {
        stack.policies = guest.policies()?.into();
        writes.push(Write::Policies((*stack.policies).clone()));
    }
    // An open group must stay the topmost one for its keys.
    for group in identity.groups()?.into_iter().filter(|group| group.state == GroupState::Open) {
        stack.change_header(group.id)?.state = GroupState::Sealed;
    }
    let mut keys = Vec::new();
    for group in guest.groups()? {
        let GroupHeader { change_id, steps, .. } = group;
        let header = |id| GroupHeader { steps, ..GroupHeader::new(id, GroupState::Sealed, change_id) };
        let id = stack.push_group(header);
        for (key, patch) in guest.group_patches(group.id)? {
            stack.set_patch(id, &key, PendingPatch { claimed: true, question: None, sent: None, ..patch })?;
            keys.push(key);
        }
    }
    stack.restack(keys, context.now)?;
    let (planned, changes) = stack.into_writes();
    writes.extend(planned);
    Ok(Plan { writes, changes })
}
