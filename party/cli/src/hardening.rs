//! What the process forbids the operating system to do with its memory.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::error::CliError;

/// Leaves no core dump behind, whatever the shell or the service manager allows, and lets no other process of the same user
/// read this one's memory: every role holds keys.
///
/// # Errors
/// When the operating system refuses, which it does to nobody who gives up a right.
pub(crate) fn keep_memory_private() -> Result<(), CliError> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|error| CliError::internal(format!("core dumps cannot be turned off: {error}")))
}
