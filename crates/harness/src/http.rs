//! The orchestrator's HTTP interface as a team's program uses it, without the `duet` command.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use duet_wire::{
    Priority,
    batch::{BatchItem, BatchRequest},
    request::{SignedRequest, SigningRequest},
    signing::SigningKey,
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    anvil::http_client,
    duet::text,
    stack::{Stack, TENANT, Wallet},
};

/// How long a queued signature may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// How often a job that has to wait for something is read.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How often many jobs are read until all have ended.
const SETTLED_INTERVAL: Duration = Duration::from_millis(500);

/// A client with a tenant's token and a requester's key.
#[derive(Debug)]
pub struct Api {
    client: reqwest::Client,
    url: String,
    token: String,
    wallet: String,
    key: SigningKey,
    deadline: Duration,
}

/// An answer of the interface.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `content-type`.
    pub content_type: String,
    /// The body: a job, a list, or a problem.
    pub body: Value,
}

/// The token of the tenant `demo`, from a directory that `duet init` filled.
///
/// # Errors
/// When it cannot be read.
pub fn http_token(credentials: &Path) -> Result<String> {
    let tokens = fs::read_to_string(credentials.join("tokens").join(TENANT))?;
    // The first line is the one in use.
    Ok(tokens.lines().next().context("the token's file is empty")?.trim().to_owned())
}

impl Api {
    /// A client for the tenant `demo` that signs with the wallet's requester key.
    ///
    /// # Errors
    /// When token or key cannot be read.
    pub fn new(stack: &Stack, wallet: &Wallet) -> Result<Self> {
        Self::at(stack.api_url(), stack.broker.credentials(), wallet)
    }

    /// A client for the orchestrator at `url`, with the tenant's token from a directory that `duet
    /// init` filled.
    ///
    /// # Errors
    /// When token or key cannot be read.
    pub fn at(url: &str, credentials: &Path, wallet: &Wallet) -> Result<Self> {
        let token = http_token(credentials)?;
        let mut key = [0; 32];
        hex::decode_to_slice(fs::read_to_string(&wallet.requester_key)?.trim(), &mut key)?;
        Ok(Self {
            client: http_client()?,
            url: url.to_owned(),
            deadline: DEADLINE,
            token,
            wallet: wallet.id.clone(),
            key: SigningKey::from_bytes(&key),
        })
    }

    /// This client, with another deadline for each request.
    #[must_use]
    pub const fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// A request that service and partner sign a payload. It is valid for ten minutes.
    ///
    /// # Errors
    /// When the payload is invalid.
    pub fn request(&self, payload: &Value, idempotency_key: &str) -> Result<SignedRequest> {
        self.request_within(payload, idempotency_key, Duration::from_secs(600))
    }

    /// A request that service and partner sign a payload. It is valid for `valid`, in whole
    /// seconds.
    ///
    /// # Errors
    /// When the payload is invalid.
    pub fn request_within(
        &self,
        payload: &Value,
        idempotency_key: &str,
        valid: Duration,
    ) -> Result<SignedRequest> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let request = json!({
            "version": 2, "tenant": TENANT, "wallet": self.wallet, "path": "m", "payload": payload,
            "idempotency_key": idempotency_key, "issued_at": now,
            "expires_at": now + valid.as_secs(),
            "pairs": ["service+partner"],
        });
        let request = SigningRequest::from_json(request.to_string().as_bytes())?;
        Ok(SignedRequest::sign(request.to_json()?, &self.key))
    }

    /// `POST /v1/jobs` with exactly this request and this `Idempotency-Key`.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn submit(&self, request: &SignedRequest, idempotency_key: &str) -> Result<Answer> {
        answer(self.submission(request, idempotency_key)).await
    }

    /// `POST /v1/jobs`, as a part of a trace.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn submit_traced(
        &self,
        request: &SignedRequest,
        idempotency_key: &str,
        traceparent: &str,
    ) -> Result<Answer> {
        answer(self.submission(request, idempotency_key).header("traceparent", traceparent)).await
    }

    fn submission(&self, request: &SignedRequest, idempotency_key: &str) -> reqwest::RequestBuilder {
        self.client
            .post(format!("{}/v1/jobs", self.url))
            .bearer_auth(&self.token)
            .header("Content-Type", "application/json")
            .header("Idempotency-Key", idempotency_key)
            .header("Duet-Requester", hex::encode(request.requester))
            .header("Duet-Signature", hex::encode(request.signature))
            .timeout(self.deadline)
            .body(request.body.clone())
    }

    /// `POST /v1/batches`.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn submit_batch(&self, batch: &BatchRequest) -> Result<Answer> {
        let post = self
            .client
            .post(format!("{}/v1/batches", self.url))
            .bearer_auth(&self.token)
            .header("Content-Type", "application/json")
            .timeout(DEADLINE)
            .body(batch.to_json()?);
        answer(post).await
    }

    /// Queues `count` messages in one batch. Returns the ids of their jobs. Their idempotency keys
    /// are `<name>-<number>`.
    ///
    /// # Errors
    /// When no answer comes, or a message is not accepted.
    pub async fn queue_messages(&self, name: &str, count: usize) -> Result<Vec<String>> {
        let items = (0..count).map(|number| {
            let key = format!("{name}-{number}");
            let request = self.request(&json!({"kind": "personal_message", "text": key}), &key)?;
            Ok(BatchItem { request, priority: Priority::Normal, repeat_digest: false })
        });
        let batch = BatchRequest { items: items.collect::<Result<_>>()? };
        let answer = self.submit_batch(&batch).await?;
        let items = answer.body.pointer("/items").and_then(Value::as_array).context("a batch has items")?;
        items.iter().map(|item| Ok(text(item, "/job")?.to_owned())).collect()
    }

    /// `GET` of a path.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        answer(self.client.get(format!("{}{path}", self.url)).bearer_auth(&self.token).timeout(self.deadline))
            .await
    }

    /// `method` of a path, with `document` as the body, if given.
    ///
    /// # Errors
    /// When no answer comes, or when `method` is invalid.
    pub async fn send(&self, method: &str, path: &str, document: Option<&Value>) -> Result<Answer> {
        let mut request = self
            .client
            .request(method.parse()?, format!("{}{path}", self.url))
            .bearer_auth(&self.token)
            .timeout(self.deadline);
        if let Some(document) = document {
            request = request.json(document);
        }
        answer(request).await
    }

    /// Reads a job until it waits for `code`.
    ///
    /// # Errors
    /// When it does not within a minute.
    pub async fn waits(&self, job: &str, code: &str) -> Result<()> {
        let path = format!("/v1/jobs/{job}");
        let mut last = Value::Null;
        let wait = async {
            loop {
                last = self.get(&path).await?.body;
                if last.pointer("/waiting/code").and_then(Value::as_str) == Some(code) {
                    return Ok(());
                }
                sleep(LOOK_INTERVAL).await;
            }
        };
        let waited = timeout(DEADLINE, wait).await;
        waited.with_context(|| format!("job {job} does not wait for {code}: {last}"))?
    }

    /// Reads a job's event stream until the job is settled. Returns its last state.
    ///
    /// # Errors
    /// When the stream ends, or after a minute.
    pub async fn settled(&self, job: &str) -> Result<String> {
        let request = self.client.get(format!("{}/v1/jobs/{job}/events", self.url)).bearer_auth(&self.token);
        let wait = async {
            let mut chunks = request.send().await?.error_for_status()?.bytes_stream();
            let mut text = String::new();
            while let Some(chunk) = chunks.next().await {
                text.push_str(&String::from_utf8_lossy(&chunk?));
                while let Some((line, rest)) = text.split_once('\n') {
                    let state = line.strip_prefix("data:").and_then(state);
                    text = rest.to_owned();
                    if let Some(state) = state.filter(|state| is_settled(state)) {
                        return Ok(state);
                    }
                }
            }
            bail!("the event stream of job {job} ended before the job did")
        };
        timeout(DEADLINE, wait).await.with_context(|| format!("job {job} was not settled in {DEADLINE:?}"))?
    }

    /// Reads jobs until all have ended. Returns how many ended in each state, and prints those that
    /// were not signed.
    ///
    /// # Errors
    /// When no answer comes, or when some have not ended after `deadline`.
    pub async fn all_settled(&self, jobs: &[String], deadline: Duration) -> Result<BTreeMap<String, usize>> {
        let end = Instant::now() + deadline;
        let mut open: Vec<&String> = jobs.iter().collect();
        let mut states = BTreeMap::new();
        while !open.is_empty() {
            if Instant::now() > end {
                bail!("{} of {} jobs did not end: {states:?}", open.len(), jobs.len());
            }
            let mut still_open = Vec::new();
            for job in open {
                let answer = self.get(&format!("/v1/jobs/{job}")).await?;
                let state = text(&answer.body, "/state")?;
                if !is_settled(state) {
                    still_open.push(job);
                    continue;
                }
                if state != "signed" {
                    eprintln!("{job} is {state}: {}", answer.body);
                }
                *states.entry(state.to_owned()).or_default() += 1;
            }
            open = still_open;
            sleep(SETTLED_INTERVAL).await;
        }
        Ok(states)
    }

    /// Reads an event stream until `count` events of a name were heard, and returns their data as
    /// it came.
    ///
    /// # Errors
    /// When the stream ends or a minute passes before, or data is no JSON.
    pub async fn events(&self, path: &str, name: &str, count: usize) -> Result<Vec<Value>> {
        let request = self.client.get(format!("{}{path}", self.url)).bearer_auth(&self.token);
        let listen = async {
            let mut chunks = request.send().await?.error_for_status()?.bytes_stream();
            let (mut text, mut heard) = (String::new(), Vec::new());
            while let Some(chunk) = chunks.next().await {
                text.push_str(&String::from_utf8_lossy(&chunk?));
                while let Some((event, rest)) = text.split_once("\n\n") {
                    let field = |field: &str| event.lines().find_map(|line| line.strip_prefix(field));
                    if field("event:").map(str::trim) == Some(name) {
                        heard.push(serde_json::from_str(field("data:").context("an event without data")?)?);
                    }
                    text = rest.to_owned();
                    if heard.len() == count {
                        return Ok(heard);
                    }
                }
            }
            bail!("{path} ended after {} of {count} events `{name}`", heard.len())
        };
        timeout(DEADLINE, listen).await.with_context(|| format!("{path}: no {count} events `{name}`"))?
    }

    /// Queues a message and returns how long it took until it was signed.
    ///
    /// # Errors
    /// When it is not signed.
    pub async fn sign_message(&self, message: &str) -> Result<Duration> {
        // An idempotency key must not contain spaces.
        let key = message.replace(' ', "-");
        let request = self.request(&json!({"kind": "personal_message", "text": message}), &key)?;
        let started = Instant::now();
        let submitted = self.submit(&request, &key).await?;
        let job = submitted.body.get("id").and_then(Value::as_str);
        let job = job.with_context(|| format!("no job: {submitted:?}"))?;
        let state = self.settled(job).await?;
        let took = started.elapsed();
        if state != "signed" {
            bail!("job {job} is {state}");
        }
        Ok(took)
    }
}

/// The state in an event, if it has one.
fn state(data: &str) -> Option<String> {
    let event: Value = serde_json::from_str(data.trim()).ok()?;
    let state = event.get("state")?;
    state.as_str().or_else(|| state.get("state")?.as_str()).map(str::to_owned)
}

fn is_settled(state: &str) -> bool {
    ["signed", "failed", "expired", "cancelled"].contains(&state)
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Answer> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let header = response.headers().get("content-type").and_then(|value| value.to_str().ok());
    let content_type = header.unwrap_or_default().to_owned();
    let text = response.text().await?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Answer { status, content_type, body })
}
