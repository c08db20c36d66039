//! Offers load: jobs at a constant rate, or a constant number of open jobs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alloy_primitives::Address;
use duet_protocol::{ids::WalletId, public_key::DerivationPath};
use duet_wire::{
    Code, IdempotencyKey, JobStateName, Pair, Payload, SignedRequest, SigningRequest, TenantId,
    payload::PersonalMessage, request::REQUEST_VERSION, signing::SigningKey,
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::{
    measure::{Recorder, Sample, thousandth, to_f64},
    processes::{self, NamedProcess, Usage},
    report::{Offered, ProcessUse, Step, Timing},
};
use crate::{
    api::ApiClient,
    commands::job::{self, Signed},
    duration,
    error::{CliError, ErrorCode},
};

/// How long a closed loop pauses after a failure. Otherwise it would flood a deployment that
/// refuses at once.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// How long a request stays valid after its job's deadline.
const VALID_BEYOND: Duration = Duration::from_secs(60);

/// The deployment under load, and the accounts whose signatures it is asked for.
pub(super) struct Target {
    pub(super) api: ApiClient,
    pub(super) tenant: TenantId,
    pub(super) accounts: Vec<Account>,
    pub(super) pairs: Vec<Pair>,
    pub(super) path: DerivationPath,
    pub(super) message_bytes: usize,
    /// The share of the signatures to verify, from 0 to 1.
    pub(super) verify: f64,
    /// Distinguishes this run's jobs from those of other runs.
    pub(super) run: String,
    /// The number of jobs begun.
    pub(super) begun: AtomicU64,
}

/// A wallet, and a requester's key that may ask it to sign.
pub(super) struct Account {
    pub(super) wallet: WalletId,
    /// The account that must have signed.
    pub(super) address: Address,
    pub(super) key: SigningKey,
}

/// A random name for a run.
///
/// # Errors
/// When the operating system provides no randomness.
pub(super) fn random_name() -> Result<String, CliError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| CliError::internal(format!("no randomness from the system: {error}")))?;
    Ok(hex::encode(bytes))
}

/// Offers one load, and returns the measured step.
///
/// # Errors
/// When a request cannot be made at all. The step counts failures of requests that were made.
pub(super) async fn step(
    target: &Arc<Target>,
    offered: Offered,
    timing: &Timing,
    max_open: usize,
    processes: &[NamedProcess],
) -> Result<Step, CliError> {
    let start = Instant::now();
    let recorder = Arc::new(Recorder::new(start, timing)?);
    let load = async {
        match offered {
            Offered::Open { per_second } => {
                open_loop(target, &recorder, start, per_second, timing, max_open).await;
            }
            Offered::Closed { in_flight } => closed_loop(target, &recorder, in_flight, timing).await,
        }
    };
    let ((), used) = tokio::join!(load, watch(processes, &recorder));
    Ok(Step { busy_cores: used.busy_cores, processes: used.processes, ..recorder.step(offered, timing) })
}

/// Starts a job every `1 / per_second` from `start` on. A job that has to wait for room is sent
/// later, but its time runs from when it was due.
async fn open_loop(
    target: &Arc<Target>,
    recorder: &Arc<Recorder>,
    start: Instant,
    per_second: f64,
    timing: &Timing,
    max_open: usize,
) {
    let room = Arc::new(Semaphore::new(max_open));
    let mut open = JoinSet::new();
    let end = start + timing.running();
    for number in 0_u64.. {
        let due = start + Duration::from_secs_f64(to_f64(number) / per_second);
        if due >= end {
            break;
        }
        sleep_until(due).await;
        while open.try_join_next().is_some() {}
        let deadline = due + timing.job_timeout();
        let Ok(Ok(permit)) = timeout_at(deadline, Arc::clone(&room).acquire_owned()).await else {
            let now = Instant::now();
            recorder.take(&Sample { due, sent: now, ended: now, outcome: Err(Code::Deadline.into()) });
            continue;
        };
        let (target, recorder) = (Arc::clone(target), Arc::clone(recorder));
        open.spawn(async move {
            recorder.take(&target.sign(due, deadline).await);
            drop(permit);
        });
    }
    // Each job has its own deadline.
    while open.join_next().await.is_some() {}
}

async fn closed_loop(target: &Arc<Target>, recorder: &Arc<Recorder>, in_flight: usize, timing: &Timing) {
    let (_, end) = recorder.counted();
    let mut loops = JoinSet::new();
    for _ in 0..in_flight {
        let (target, recorder, timeout) = (Arc::clone(target), Arc::clone(recorder), timing.job_timeout());
        loops.spawn(async move {
            loop {
                let due = Instant::now();
                if due >= end {
                    return;
                }
                let sample = target.sign(due, due + timeout).await;
                recorder.take(&sample);
                if sample.outcome.is_err() {
                    sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        });
    }
    while loops.join_next().await.is_some() {}
}

impl Target {
    /// Runs one job from submission to signature.
    async fn sign(&self, due: Instant, deadline: Instant) -> Sample {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let sent = Instant::now();
        let outcome = match timeout_at(deadline, self.signature(number, deadline - sent)).await {
            Ok(outcome) => outcome.map_err(|error| error.code()),
            Err(_) => Err(ErrorCode::from(Code::Deadline)),
        };
        Sample { due, sent, ended: Instant::now(), outcome }
    }

    /// Submits a request and waits for its signature. Returns whether it was verified.
    async fn signature(&self, number: u64, patience: Duration) -> Result<bool, CliError> {
        let account = self.account(number)?;
        let (signed, key, digest) = self.request(number, account, patience)?;
        let submitted = self.api.submit_once(&signed, key.as_str()).await?;
        let settled = job::follow(&self.api, submitted.id, |_| Ok(())).await?;
        if settled.state == JobStateName::Signed && !self.is_verified(number) {
            return Ok(false);
        }
        Signed::new(&settled, digest, account.address).map(|_| true)
    }

    fn account(&self, number: u64) -> Result<&Account, CliError> {
        let count = u64::try_from(self.accounts.len()).unwrap_or(u64::MAX).max(1);
        let index = usize::try_from(number % count).unwrap_or_default();
        self.accounts.get(index).ok_or_else(|| CliError::usage("there is no wallet to load"))
    }

    /// Spreads verification evenly over all jobs: a share of 1/100 picks the last of each hundred.
    fn is_verified(&self, number: u64) -> bool {
        let wanted = |count: u64| (to_f64(count) * self.verify).floor();
        wanted(number + 1) > wanted(number)
    }

    fn request(
        &self,
        number: u64,
        account: &Account,
        patience: Duration,
    ) -> Result<(SignedRequest, IdempotencyKey, [u8; 32]), CliError> {
        let name = format!("load-{}-{number}", self.run);
        let idempotency_key: IdempotencyKey =
            name.parse().map_err(|error| CliError::internal(format!("{name} is no key: {error}")))?;
        let text = format!("{name:.<width$}", width = self.message_bytes);
        let payload = Payload::PersonalMessage(PersonalMessage::Text(text));
        let digest = payload.digest().map_err(crate::error::payload_error)?;
        let request = SigningRequest {
            version: REQUEST_VERSION,
            tenant: self.tenant.clone(),
            wallet: account.wallet,
            path: self.path.clone(),
            payload,
            idempotency_key: idempotency_key.clone(),
            issued_at: Some(duration::since_1970().as_secs()),
            expires_at: (duration::since_1970() + patience + VALID_BEYOND).as_secs(),
            pairs: self.pairs.clone(),
        };
        let body = request.to_json().map_err(|error| CliError::internal(error.to_string()))?;
        Ok((SignedRequest::sign(body, &account.key), idempotency_key, digest))
    }
}

/// What processes used while a step counted.
struct Used {
    busy_cores: Option<f64>,
    processes: Vec<ProcessUse>,
}

/// Reads the usage of `processes` and of this process when counting begins and when it ends.
async fn watch(processes: &[NamedProcess], recorder: &Recorder) -> Used {
    let own = NamedProcess { name: "load".to_owned(), id: std::process::id() };
    let watched: Vec<&NamedProcess> = processes.iter().chain([&own]).collect();
    let look =
        || -> Vec<Option<Usage>> { watched.iter().map(|process| processes::usage(process.id)).collect() };
    let (from, until) = recorder.counted();
    sleep_until(from).await;
    let (busy_before, before) = (processes::machine_cpu_ms(), look());
    sleep_until(until).await;
    let (busy_after, after) = (processes::machine_cpu_ms(), look());
    let signed = recorder.signed_meanwhile();
    let uses = watched.iter().zip(before.into_iter().zip(after)).filter_map(|(process, (before, after))| {
        let (before, after) = (before?, after?);
        let cpu_ms = after.cpu_ms - before.cpu_ms;
        Some(ProcessUse {
            name: process.name.clone(),
            cpu_ms: thousandth(cpu_ms),
            cpu_ms_per_signature: (signed > 0).then(|| thousandth(cpu_ms / to_f64(signed))),
            resident_bytes: after.resident_bytes,
        })
    });
    let milliseconds = (until - from).as_secs_f64() * 1e3;
    Used {
        busy_cores: busy_before
            .zip(busy_after)
            .map(|(before, after)| thousandth((after - before) / milliseconds)),
        processes: uses.collect(),
    }
}
