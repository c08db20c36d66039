//! Where the arithmetic runs: off the async threads, and no more of it at once than there are
//! cores.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use duet_protocol::hedge::{Environment, Surrounded};
use getrandom::SysRng;
use rand_core::{Rng as _, UnwrapErr};
use tokio::sync::Semaphore;
use tracing::Span;
use zeroize::Zeroize as _;

/// How far below its own frame a computation may have left something, in bytes: GMP takes at most
/// 64 KiB of a stack for what is temporary.
const WIPED_STACK: usize = 128 << 10;

/// The work was not done: the runtime is stopping, or the work itself panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the computation was abandoned; the process is stopping")]
pub struct Abandoned;

/// Runs CPU-bound work on the runtime's blocking threads, at most so many at a time. Whoever waits
/// for a turn is itself one of a bounded number: a session, a request being served.
#[derive(Debug, Clone)]
pub struct Compute {
    turns: Arc<Semaphore>,
}

impl Compute {
    /// As many at a time as there are cores.
    #[must_use]
    pub fn per_core() -> Self {
        Self::limited(std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// At most `limit` at a time, at least one.
    #[must_use]
    pub fn limited(limit: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(limit.max(1))) }
    }

    /// Runs `work` when there is a turn.
    ///
    /// # Errors
    /// When the runtime stops before it is done, or `work` panics.
    ///
    /// # Cancel safety
    /// Before its turn, dropping the future drops the work. Once it runs, it runs to its end, and
    /// its result is dropped.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Abandoned> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Abandoned)?;
        let span = Span::current();
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let result = span.in_scope(|| step_within(&span).in_scope(|| apart(work)));
            wipe_stack();
            result
        })
        .await
        .map_err(|_| Abandoned)
    }
}

/// The span of a computation for `span`; what is computed ahead of any need is no step of anything.
fn step_within(span: &Span) -> Span {
    if span.is_none() { Span::none() } else { tracing::debug_span!("compute") }
}

/// Runs `work` in frames of its own, which are below its caller's.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// Overwrites the stack below its caller's frame: there lie the frames of functions that have
/// returned, with what the compiler kept in them of the numbers they computed with.
#[inline(never)]
fn wipe_stack() {
    let mut below = [0_u64; WIPED_STACK / size_of::<u64>()];
    below.zeroize();
    core::hint::black_box(&below);
}

/// The random number of this process, drawn when it is first needed, and again by
/// [`renew_process`].
static PROCESS: Mutex<Option<[u8; 32]>> = Mutex::new(None);

fn process() -> [u8; 32] {
    let mut process = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
    *process.get_or_insert_with(|| {
        let mut drawn = [0; 32];
        UnwrapErr(SysRng).fill_bytes(&mut drawn);
        drawn
    })
}

/// Forgets the random number of this process: its memory may have been copied.
pub(crate) fn renew_process() {
    *PROCESS.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// The operating system's generator, with what hedges it: a random number of this process and the
/// wall clock. Make one for each step. A failure of the generator ends the work in a panic, which
/// [`Compute`] contains: there is nothing to fall back on.
#[must_use]
pub fn system_rng() -> Surrounded<UnwrapErr<SysRng>> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    Surrounded::new(UnwrapErr(SysRng), Environment { process: process(), now_ns })
}

// There memory is a file.
#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::FileExt as _};

    use super::*;

    const PATTERN: [u8; 32] = *b"what a computation left of a key";

    /// Leaves the pattern at the lower end of a frame; where.
    #[inline(never)]
    fn leave() -> u64 {
        let mut frame = [0_u8; 96 << 10];
        frame[..PATTERN.len()].copy_from_slice(&PATTERN);
        core::hint::black_box(&mut frame);
        frame.as_ptr().addr().try_into().unwrap()
    }

    fn is_left_at(address: u64) -> bool {
        let mut bytes = [0; PATTERN.len()];
        File::open("/proc/self/mem").unwrap().read_exact_at(&mut bytes, address).unwrap();
        bytes == PATTERN
    }

    #[tokio::test]
    async fn what_a_computation_leaves_on_its_stack_is_overwritten() {
        // By itself it stays.
        assert!(is_left_at(apart(leave)));
        let address = Compute::limited(1).run(leave).await.unwrap();
        assert!(!is_left_at(address));
    }
}
