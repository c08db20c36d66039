//! Teams that request signatures while faults happen. A team repeats a request, at any
//! orchestrator, until it gets an answer. Sometimes it submits twice at once, or submits another
//! payload under a used key. Some of the jobs are for the owner's device, and some earn a refusal.
//! Beside them stands a backlog: batches of hundreds of jobs, more than all workers have seats for.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use duet_harness::http::Api;
use duet_wire::{
    Code, Priority,
    batch::{BatchItem, BatchRequest},
    request::SignedRequest,
};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    devices::Devices,
    pauses::{LONGEST_PAUSE, PAUSE},
    seed::Seed,
};
use crate::history::{Asked, Submission};

/// How long a job may take from the first submission to its end once all faults have ended.
const JOB_DEADLINE: Duration = Duration::from_secs(600);

/// How long a request is valid: longer than any run, so that no job expires.
const VALID: Duration = Duration::from_secs(6 * 3600);

/// How long a request is valid that every party refuses for that.
const VALID_TOO_LONG: Duration = Duration::from_secs(2 * 86_400);

/// One in this many jobs is valid for too long, and earns its refusal.
const EARNING: usize = 25;

/// The most jobs in one batch of the backlog.
const BATCH: usize = 150;

/// One in this many jobs is submitted to two orchestrators at once.
const DOUBLED: usize = 6;

/// One in this many jobs is followed by another payload under its key.
const CONTRADICTED: usize = 10;

/// One in this many jobs is a bare digest.
const DIGESTS: usize = 4;

/// One in this many jobs is for the device. The owner requests half of those.
const BY_DEVICE: usize = 10;

/// The HTTP interfaces of all orchestrators.
pub(super) type Apis = Arc<Vec<Api>>;

/// The wallets that sign.
pub(super) struct Signers {
    pub(super) apis: Apis,
    /// The address of the wallet that service and partner sign with.
    pub(super) address: String,
    pub(super) devices: Devices,
}

/// The load of a run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// The most jobs.
    pub jobs: usize,
    /// The number of jobs at a time.
    pub at_a_time: usize,
    /// Whether no further job begins once the faults have ended, even if there were few.
    pub ends_in_time: bool,
    /// The number of jobs in the backlog, which are queued in batches over all orchestrators. If no
    /// job begins once the faults have ended, the backlog is queued again whenever it has ended.
    pub backlog: usize,
}

impl Load {
    /// Submits all jobs, with names that begin with `name`, and returns after all have ended. `end`
    /// is the time at which faults end.
    ///
    /// # Errors
    /// When an orchestrator refuses a valid job, or when the device could not sign one in time.
    pub(super) async fn run(
        self,
        signers: Arc<Signers>,
        name: String,
        mut seed: Seed,
        end: Instant,
    ) -> Result<Vec<Submission>> {
        let mut client = || Client { signers: Arc::clone(&signers), seed: seed.split(), faults_end: end };
        let mut batches = JoinSet::new();
        for number in 0..self.backlog.div_ceil(BATCH) {
            let (mut client, count) = (client(), BATCH.min(self.backlog - number * BATCH));
            let name = format!("{name}-backlog-{number}");
            let is_standing = self.ends_in_time;
            batches.spawn(async move { client.backlog(&name, count, is_standing).await });
        }
        let mut tasks = JoinSet::new();
        let mut done = Vec::new();
        for number in 0..self.jobs {
            if tasks.len() >= self.at_a_time
                && let Some(job) = tasks.join_next().await
            {
                done.push(job??);
            }
            if self.ends_in_time && Instant::now() > end {
                break;
            }
            let (mut client, key) = (client(), format!("{name}-{number}"));
            tasks.spawn(async move { client.job(key).await });
        }
        while let Some(job) = tasks.join_next().await {
            done.push(job??);
        }
        while let Some(batch) = batches.join_next().await {
            done.extend(batch??);
        }
        Ok(done)
    }
}

struct Client {
    signers: Arc<Signers>,
    seed: Seed,
    faults_end: Instant,
}

impl Client {
    /// The time at which a job that begins now has ended.
    fn deadline(&self) -> Instant {
        Instant::now().max(self.faults_end) + JOB_DEADLINE
    }

    /// Queues a batch of `count` messages. A standing backlog gets another one when all have ended,
    /// until the faults have ended.
    async fn backlog(&mut self, name: &str, count: usize, is_standing: bool) -> Result<Vec<Submission>> {
        let mut done = Vec::new();
        for round in 0.. {
            done.extend(self.batch(&format!("{name}-{round}"), count).await?);
            if !is_standing || Instant::now() > self.faults_end {
                break;
            }
        }
        Ok(done)
    }

    /// Queues messages in one batch, and waits until all have ended.
    async fn batch(&mut self, name: &str, count: usize) -> Result<Vec<Submission>> {
        let end = self.deadline();
        let address = self.signers.address.clone();
        let mut submissions = Vec::new();
        let mut items = Vec::new();
        for number in 0..count {
            let key = format!("{name}-{number}");
            let payload = Asked::Message(format!("please sign {key}"));
            let request = self.request(&payload, &key, VALID)?;
            items.push(BatchItem { request, priority: Priority::Normal, repeat_digest: false });
            submissions.push(Submission {
                key,
                address: address.clone(),
                payload,
                earns: None,
                accepted: Vec::new(),
                with_another_payload: Vec::new(),
            });
        }
        let batch = BatchRequest { items };
        // The answer may be lost, or only a part be accepted. Both times the same batch is right.
        loop {
            let last = match self.api()?.submit_batch(&batch).await {
                Ok(answer) => {
                    let items =
                        answer.body.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                    let accepted = |item: &Value| {
                        let verdict = item.get("verdict").and_then(Value::as_str)?;
                        let job = item.get("job").and_then(Value::as_str)?;
                        ["accepted", "known"].contains(&verdict).then(|| job.to_owned())
                    };
                    let jobs: Vec<Option<String>> = items.iter().map(accepted).collect();
                    for (submission, job) in submissions.iter_mut().zip(&jobs) {
                        submission.accepted.extend(job.clone());
                    }
                    if jobs.len() == count && jobs.iter().all(Option::is_some) {
                        break;
                    }
                    format!("{}: {:?}", answer.status, items.iter().find(|item| accepted(item).is_none()))
                }
                Err(error) => error.to_string(),
            };
            if Instant::now() > end {
                bail!("no orchestrator took the batch {name}: {last}");
            }
            sleep(PAUSE).await;
        }
        for submission in &submissions {
            let job = submission.accepted.first().context("it was accepted")?;
            self.ended(job, end).await?;
        }
        Ok(submissions)
    }

    async fn job(&mut self, key: String) -> Result<Submission> {
        let end = self.deadline();
        if self.seed.once_in(BY_DEVICE) {
            return self.device_job(key, end).await;
        }
        let payload = if self.seed.once_in(DIGESTS) {
            let mut digest = [0; 32];
            for byte in &mut digest {
                *byte = u8::try_from(self.seed.below(256)).unwrap_or_default();
            }
            Asked::Digest(digest)
        } else {
            Asked::Message(format!("please sign {key}"))
        };
        let earns = self.seed.once_in(EARNING).then_some(Code::ValidTooLong);
        let valid = if earns.is_some() { VALID_TOO_LONG } else { VALID };
        let request = self.request(&payload, &key, valid)?;
        let mut accepted = vec![self.submitted(&request, &key, end).await?];
        if self.seed.once_in(DOUBLED) {
            let (signers, seed) = (Arc::clone(&self.signers), self.seed.split());
            let mut twin = Self { signers, seed, faults_end: self.faults_end };
            let (one, other) =
                tokio::join!(self.submitted(&request, &key, end), twin.submitted(&request, &key, end));
            accepted.extend([one?, other?]);
        }
        let mut with_another_payload = Vec::new();
        if self.seed.once_in(CONTRADICTED) {
            let another = self.request(&Asked::Message(format!("something else than {key}")), &key, VALID)?;
            with_another_payload.push(self.answered(&another, &key, end).await?.0);
        }
        let job = accepted.first().context("it was accepted")?.clone();
        self.ended(&job, end).await?;
        let address = self.signers.address.clone();
        Ok(Submission { key, address, payload, earns, accepted, with_another_payload })
    }

    /// A job for the device: requested by the owner, or queued by a team and approved by the owner.
    async fn device_job(&mut self, key: String, end: Instant) -> Result<Submission> {
        let signers = Arc::clone(&self.signers);
        let devices = &signers.devices;
        let text = format!("please sign {key}");
        let request = devices.request(&key, &text, &mut self.seed);
        let is_own = self.seed.once_in(2);
        let is_doubled = self.seed.once_in(DOUBLED);
        let mut accepted = Vec::new();
        if !is_own {
            accepted.push(self.submitted(&request, &key, end).await?);
        }
        accepted.extend(devices.sign(&request, is_own, &mut self.seed, end).await?);
        if is_doubled {
            accepted.push(self.submitted(&request, &key, end).await?);
        }
        let mut with_another_payload = Vec::new();
        if self.seed.once_in(CONTRADICTED) {
            let another = devices.request(&key, &format!("something else than {key}"), &mut self.seed);
            with_another_payload.push(self.answered(&another, &key, end).await?.0);
        }
        let job = accepted.first().context("it was accepted")?.clone();
        self.ended(&job, end).await?;
        let (address, payload) = (devices.address(), Asked::Message(text));
        Ok(Submission { key, address, payload, earns: None, accepted, with_another_payload })
    }

    fn api(&mut self) -> Result<&Api> {
        let apis = &self.signers.apis;
        apis.get(self.seed.below(apis.len())).context("there is no orchestrator")
    }

    fn request(&mut self, payload: &Asked, key: &str, valid: Duration) -> Result<SignedRequest> {
        let payload = match payload {
            Asked::Message(text) => json!({"kind": "personal_message", "text": text}),
            Asked::Digest(digest) => {
                json!({"kind": "digest", "digest": format!("0x{}", hex::encode(digest))})
            }
        };
        self.api()?.request_within(&payload, key, valid)
    }

    /// Submits until an orchestrator accepts the job, and returns its id.
    async fn submitted(&mut self, request: &SignedRequest, key: &str, end: Instant) -> Result<String> {
        let (status, body) = self.answered(request, key, end).await?;
        ensure!((200..300).contains(&status), "the job of key {key} was refused with {status}: {body}");
        Ok(body.get("id").and_then(Value::as_str).context("a job without an id")?.to_owned())
    }

    /// Submits until an orchestrator accepts or refuses the request.
    async fn answered(&mut self, request: &SignedRequest, key: &str, end: Instant) -> Result<(u16, Value)> {
        loop {
            let last = match self.api()?.submit(request, key).await {
                Ok(answer) if answer.status < 500 && answer.status != 429 => {
                    return Ok((answer.status, answer.body));
                }
                Ok(answer) => format!("{answer:?}"),
                Err(error) => error.to_string(),
            };
            if Instant::now() > end {
                bail!("no orchestrator answered about the job of key {key}: {last}");
            }
            sleep(PAUSE).await;
        }
    }

    /// Asks for the job until it has ended, at the latest until `end`. The checker names a job that
    /// has not, and needs the rest of the evidence for that.
    async fn ended(&mut self, job: &str, end: Instant) -> Result<()> {
        let mut pause = PAUSE;
        while Instant::now() < end {
            if let Ok(answer) = self.api()?.get(&format!("/v1/jobs/{job}")).await {
                let state = answer.body.get("state").and_then(Value::as_str).unwrap_or_default();
                if ["signed", "failed", "expired", "cancelled"].contains(&state) {
                    break;
                }
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
        Ok(())
    }
}
