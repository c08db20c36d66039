//! Keeping what the process has in memory out of core dumps, of other processes' sight, and of swap
//! space.

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
    thread::{CapabilitySet, capabilities},
};
use tracing::{info, warn};

use crate::error::CliError;

/// Leaves no core dump behind, whatever the shell or the service manager allows, and lets no other
/// process of the same user read this one's memory: every role holds keys.
///
/// # Errors
/// When the operating system refuses, which it does to nobody who gives up a right.
pub(crate) fn keep_private() -> Result<(), CliError> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|error| CliError::internal(format!("core dumps cannot be turned off: {error}")))
}

/// Keeps everything that this process has in memory, and will have, out of swap space: shares,
/// keys, and whatever libraries copy of them, wherever it is. Only where memory may be locked
/// without a limit, because there is none or because the process has the capability `CAP_IPC_LOCK`:
/// below one, the first allocation beyond it would end the process. Says in the log what came of
/// it.
pub(crate) fn lock() {
    if getrlimit(Resource::Memlock).current.is_some() && !may_pass_the_limit() {
        info!(
            "memory is not locked, and may be swapped out: the limit on locked memory (LimitMEMLOCK) is not infinite, and \
             the process lacks CAP_IPC_LOCK"
        );
        return;
    }
    // As pages are used: what is only reserved takes no memory.
    match mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT) {
        Ok(()) => info!("memory is locked"),
        Err(error) => warn!(%error, "memory is not locked, and may be swapped out"),
    }
}

/// Whether the limit on locked memory does not bind this process.
fn may_pass_the_limit() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
}
