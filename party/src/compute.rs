//! Runs arithmetic outside the async threads, and no more at once than there are cores.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use duet_protocol::hedge::{Entropy, Environment, Surrounded};
use getrandom::SysRng;
use rand_core::{Rng as _, UnwrapErr};
use tokio::sync::Semaphore;
use tracing::Span;
use zeroize::Zeroize as _;

/// How many bytes of stack below its own frame a computation may have used. GMP keeps at most 64
/// KiB of temporary values on a stack.
const WIPED_STACK: usize = 128 << 10;

/// The work has no result: the runtime stops, or the work panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the computation was abandoned; the process is stopping")]
pub struct Abandoned;

/// Runs CPU-bound work on the runtime's blocking threads, with a bound on parallel work. The number
/// of waiting callers is bounded too: each is a session, or a request being served.
#[derive(Debug, Clone)]
pub struct Compute(Place);

#[derive(Debug, Clone)]
enum Place {
    /// The runtime's blocking threads.
    Threads { permits: Arc<Semaphore> },
    /// The caller's thread, with a seeded generator: in the seeded world.
    #[cfg(test)]
    Here(Arc<Mutex<rand_chacha::ChaCha20Rng>>),
}

impl Compute {
    /// One computation for each core.
    #[must_use]
    pub fn per_core() -> Self {
        Self::limited(std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// At most `limit` computations at a time, and at least one.
    #[must_use]
    pub fn limited(limit: usize) -> Self {
        Self(Place::Threads { permits: Arc::new(Semaphore::new(limit.max(1))) })
    }

    /// Runs everything in the caller's thread. Draws from a generator of this seed.
    #[cfg(test)]
    pub(crate) fn seeded(seed: u64) -> Self {
        use rand_chacha::rand_core::SeedableRng as _;
        Self(Place::Here(Arc::new(Mutex::new(rand_chacha::ChaCha20Rng::seed_from_u64(seed)))))
    }

    /// Runs `work` as [`Self::run`] does, with a generator of its own.
    ///
    /// # Errors
    /// As of [`Self::run`].
    pub(crate) async fn draw<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Entropy) -> T + Send + 'static,
    ) -> Result<T, Abandoned> {
        #[cfg(test)]
        if let Place::Here(generator) = &self.0 {
            use rand_chacha::rand_core::SeedableRng as _;
            let forked = generator.lock().unwrap_or_else(PoisonError::into_inner).next_u64();
            let rng = rand_chacha::ChaCha20Rng::seed_from_u64(forked);
            return Ok(work(&mut Surrounded::new(rng, Environment { process: [0; 32], now_ns: 0 })));
        }
        self.run(move || work(&mut system_rng())).await
    }

    /// Runs `work` as soon as a permit is free.
    ///
    /// # Errors
    /// When the runtime stops before the end of `work`, or when `work` panics.
    ///
    /// # Cancel safety
    /// Before it has a permit, dropping the future drops the work. Work that has begun runs to its
    /// end, and its result is dropped.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Abandoned> {
        let permits = match &self.0 {
            Place::Threads { permits } => permits,
            #[cfg(test)]
            Place::Here(_) => return Ok(work()),
        };
        let permit = Arc::clone(permits).acquire_owned().await.map_err(|_| Abandoned)?;
        let span = Span::current();
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let result = span.in_scope(|| step_within(&span).in_scope(|| apart(work)));
            wipe_stack();
            result
        })
        .await
        .map_err(|_| Abandoned)
    }
}

/// The span of a computation within `span`. A computation ahead of any need belongs to no span.
fn step_within(span: &Span) -> Span {
    if span.is_none() { Span::none() } else { tracing::debug_span!("compute") }
}

/// Runs `work` in stack frames of its own, below those of its caller.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// Overwrites the stack below its caller's frame. Frames of returned functions lie there, with
/// numbers that the compiler kept in them.
#[inline(never)]
fn wipe_stack() {
    let mut below = [0_u64; WIPED_STACK / size_of::<u64>()];
    below.zeroize();
    core::hint::black_box(&below);
}

/// The random number of this process. It is drawn at first use, and again after [`renew_process`].
static PROCESS: Mutex<Option<[u8; 32]>> = Mutex::new(None);

fn process() -> [u8; 32] {
    let mut process = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
    *process.get_or_insert_with(|| {
        let mut drawn = [0; 32];
        UnwrapErr(SysRng).fill_bytes(&mut drawn);
        drawn
    })
}

/// Drops the random number of this process, because its memory may have been copied.
pub(crate) fn renew_process() {
    *PROCESS.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// The operating system's generator, hedged with a random number of this process and the wall
/// clock. Make one for each step. If the generator fails, the work panics, and [`Compute`] contains
/// the panic: there is no safe substitute.
#[must_use]
pub fn system_rng() -> Surrounded<UnwrapErr<SysRng>> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    Surrounded::new(UnwrapErr(SysRng), Environment { process: process(), now_ns })
}

// Memory is a file there.
#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::FileExt as _};

    use super::*;

    const PATTERN: [u8; 32] = *b"what a computation left of a key";

    /// Writes a pattern to the lower end of a frame, and returns its address.
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
        // Without the wipe, the pattern stays.
        assert!(is_left_at(apart(leave)));
        let address = Compute::limited(1).run(leave).await.unwrap();
        assert!(!is_left_at(address));
    }
}
