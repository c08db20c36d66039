//! Keeping what the process has in memory out of swap space.

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{Resource, getrlimit},
};
use tracing::{info, warn};

/// Keeps everything that this process has in memory, and will have, out of swap space: shares, keys, and whatever libraries
/// copy of them, wherever it is. Only where memory may be locked without a limit: below one, the first allocation
/// beyond it would end the process. Says in the log what came of it.
pub(crate) fn lock() {
    if getrlimit(Resource::Memlock).current.is_some() {
        info!(
            "memory is not locked, and may be swapped out: the limit on locked memory (LimitMEMLOCK) is not infinite"
        );
        return;
    }
    // As pages are used: what is only reserved takes no memory.
    match mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT) {
        Ok(()) => info!("memory is locked"),
        Err(error) => warn!(%error, "memory is not locked, and may be swapped out"),
    }
}
