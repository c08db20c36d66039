//! Teams that ask for signatures while everything breaks: they ask again until they are heard, at whichever orchestrator
//! answers, and now and then ask twice at once, or for something else under a key that is taken.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use duet_wire::request::SignedRequest;
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::seed::Seed;
use crate::{
    history::{Asked, Submission},
    http::Api,
};

/// The pause before an orchestrator is asked again, or another one.
const PAUSE: Duration = Duration::from_millis(300);

/// The longest pause between two looks at a job: a hundred that wait shall not keep the orchestrators busy with that.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long a job may take from the first attempt to submit it to its end, with faults all the way.
const JOB_DEADLINE: Duration = Duration::from_secs(480);

/// One in so many jobs is submitted to two orchestrators at once.
const DOUBLED: usize = 6;

/// One in so many is followed by another payload under its key.
const CONTRADICTED: usize = 10;

/// One in so many is a bare digest.
const DIGESTS: usize = 4;

/// The orchestrators, as a team sees them.
pub(super) type Apis = Arc<Vec<Api>>;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How many jobs at most.
    pub jobs: usize,
    /// How many at a time.
    pub at_a_time: usize,
    /// Whether none is begun any more once things no longer go wrong, however few there were.
    pub ends_in_time: bool,
}

impl Load {
    /// Submits all jobs, named after `name`, and returns once all have ended. `end` is when things no longer go wrong.
    ///
    /// # Errors
    /// When a job is refused that should not be, or has not ended in time.
    pub(super) async fn run(
        self,
        apis: Apis,
        name: String,
        mut seed: Seed,
        end: Instant,
    ) -> Result<Vec<Submission>> {
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
            let mut client = Client { apis: Arc::clone(&apis), seed: seed.split() };
            let key = format!("{name}-{number}");
            tasks.spawn(async move { client.job(key).await });
        }
        while let Some(job) = tasks.join_next().await {
            done.push(job??);
        }
        Ok(done)
    }
}

struct Client {
    apis: Apis,
    seed: Seed,
}

impl Client {
    async fn job(&mut self, key: String) -> Result<Submission> {
        let end = Instant::now() + JOB_DEADLINE;
        let payload = if self.seed.once_in(DIGESTS) {
            let mut digest = [0; 32];
            for byte in &mut digest {
                *byte = u8::try_from(self.seed.below(256)).unwrap_or_default();
            }
            Asked::Digest(digest)
        } else {
            Asked::Message(format!("please sign {key}"))
        };
        let request = self.request(&payload, &key)?;
        let mut accepted = vec![self.submitted(&request, &key, end).await?];
        if self.seed.once_in(DOUBLED) {
            let mut twin = Self { apis: Arc::clone(&self.apis), seed: self.seed.split() };
            let (one, other) =
                tokio::join!(self.submitted(&request, &key, end), twin.submitted(&request, &key, end));
            accepted.extend([one?, other?]);
        }
        let mut with_another_payload = Vec::new();
        if self.seed.once_in(CONTRADICTED) {
            let another = self.request(&Asked::Message(format!("something else than {key}")), &key)?;
            with_another_payload.push(self.answered(&another, &key, end).await?.0);
        }
        let job = accepted.first().context("it was accepted")?.clone();
        self.ended(&job, end).await?;
        Ok(Submission { key, payload, accepted, with_another_payload })
    }

    fn api(&mut self) -> Result<usize> {
        ensure!(!self.apis.is_empty(), "there is no orchestrator");
        Ok(self.seed.below(self.apis.len()))
    }

    fn request(&mut self, payload: &Asked, key: &str) -> Result<SignedRequest> {
        let payload = match payload {
            Asked::Message(text) => json!({"kind": "personal_message", "text": text}),
            Asked::Digest(digest) => {
                json!({"kind": "digest", "digest": format!("0x{}", hex::encode(digest))})
            }
        };
        self.apis.first().context("there is no orchestrator")?.request(&payload, key)
    }

    /// Submits until somebody takes the job, and returns its id.
    async fn submitted(&mut self, request: &SignedRequest, key: &str, end: Instant) -> Result<String> {
        let (status, body) = self.answered(request, key, end).await?;
        ensure!((200..300).contains(&status), "the job of key {key} was refused with {status}: {body}");
        Ok(body.get("id").and_then(Value::as_str).context("a job without an id")?.to_owned())
    }

    /// Submits until somebody judges the request.
    async fn answered(&mut self, request: &SignedRequest, key: &str, end: Instant) -> Result<(u16, Value)> {
        loop {
            let number = self.api()?;
            let api = self.apis.get(number).context("there is no such orchestrator")?;
            let last = match api.submit(request, key).await {
                Ok(answer) if answer.status < 500 && answer.status != 429 => {
                    return Ok((answer.status, answer.body));
                }
                Ok(answer) => format!("{answer:?}"),
                Err(error) => error.to_string(),
            };
            if Instant::now() > end {
                bail!("nobody took the job of key {key}: {last}");
            }
            sleep(PAUSE).await;
        }
    }

    /// Asks for the job until it has ended.
    async fn ended(&mut self, job: &str, end: Instant) -> Result<()> {
        let mut pause = PAUSE;
        loop {
            let number = self.api()?;
            let api = self.apis.get(number).context("there is no such orchestrator")?;
            let last = match api.get(&format!("/v1/jobs/{job}")).await {
                Ok(answer) => {
                    let state = answer.body.get("state").and_then(Value::as_str).unwrap_or_default();
                    if ["signed", "failed", "expired", "cancelled"].contains(&state) {
                        return Ok(());
                    }
                    answer.body.to_string()
                }
                Err(error) => error.to_string(),
            };
            if Instant::now() > end {
                bail!("job {job} did not end: {last}");
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }
}
