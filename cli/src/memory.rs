//! Keeps the memory of the process out of core dumps, other processes and swap space.

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
    thread::{CapabilitySet, capabilities},
};
use tracing::{info, warn};

use crate::error::CliError;

/// Turns off core dumps, even where the shell or the service manager permits them. Also prevents
/// other processes of the same user from reading this process's memory. Every role holds keys.
///
/// # Errors
/// When the operating system refuses. It permits every process to give up these rights.
pub(crate) fn keep_private() -> Result<(), CliError> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|error| CliError::internal(format!("core dumps cannot be turned off: {error}")))
}

/// Locks the present and future memory of this process, so that none of it is swapped out. It
/// covers shares, keys and the copies that libraries make of them. It does so only if memory may be
/// locked without a limit: because none is set, or because the process has `CAP_IPC_LOCK`. Under a
/// limit, the first allocation beyond it would end the process. The log tells the outcome.
pub(crate) fn lock() {
    if getrlimit(Resource::Memlock).current.is_some() && !may_pass_the_limit() {
        info!(
            "memory is not locked, and may be swapped out: the limit on locked memory (LimitMEMLOCK) is not infinite, and \
             the process lacks CAP_IPC_LOCK"
        );
        return;
    }
    // Locks each page at first use, so that reserved but unused memory costs nothing.
    match mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT) {
        Ok(()) => info!("memory is locked"),
        Err(error) => warn!(%error, "memory is not locked, and may be swapped out"),
    }
}

/// Whether this process may lock more memory than its limit.
fn may_pass_the_limit() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
}
