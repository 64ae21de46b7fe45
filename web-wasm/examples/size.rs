//! What the core weighs in a browser: the planners of a device with all policies over the reference replica, session,
//! watch and codec. `./dev size` builds and measures it; it is not for running.

use std::hint::black_box;

use sync_core::client::events::EventParser;
use sync_core::client::exchange::{plan_answer, plan_request, plan_response};
use sync_core::client::memory::MemoryReplica;
use sync_core::client::session::Session;
use sync_core::client::watch::Watch;
use sync_core::merge::claim::plan_claim;
use sync_core::merge::replica::Replica;
use sync_core::merge::write::{
    plan_delete, plan_discard, plan_local_only, plan_resolve, plan_restore, plan_retry, plan_write, questions,
};
use sync_core::model::DatasetName;
use sync_core::protocol::{SyncRequest, SyncResponse, decode, encode};

/// Functions that nobody is seen to call cannot be left out while compiling, nor what they call.
fn main() {
    let replica = MemoryReplica::default();
    black_box(&replica as &dyn Replica);
    black_box([
        plan_write as *const (),
        plan_resolve as *const (),
        plan_restore as *const (),
        plan_retry as *const (),
        plan_discard as *const (),
        plan_delete as *const (),
        plan_local_only as *const (),
        questions as *const (),
        plan_claim as *const (),
        plan_request as *const (),
        plan_answer as *const (),
        plan_response as *const (),
        MemoryReplica::execute as *const (),
        Session::new as *const (),
        Session::handle as *const (),
        Session::poll_output as *const (),
        (|names| Watch::new(names)) as fn(Vec<DatasetName>) -> Watch as *const (),
        Watch::poll_output as *const (),
        EventParser::feed as *const (),
        encode::<SyncRequest> as *const (),
        decode::<SyncResponse> as *const (),
    ]);
}
