//! A client of the orchestrator's HTTP interface.
//!
//! The client repeats reads and submissions with back-off and jitter until the command's deadline.
//! A submission is safe to repeat: its idempotency key identifies the job.

use std::{
    future::Future,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use backon::{ExponentialBuilder, Retryable as _};
use duet_orchestrator::{
    api::{BatchAnswer, BatchView, EndPage, JobPage, JobView, WalletPage, WalletView},
    retry_after,
    webhooks::{Delivery, DeliveryPage, ReplayAccepted, WebhookCreated, WebhookPage, WebhookView},
};
use duet_protocol::ids::WalletId;
use duet_wire::{
    Code, JobId, JobStateName, Priority, Problem, SignedRequest, TenantId, batch::BatchId,
    policy::DatedApproval, revocation::RevocationProof, webhook::EndpointId,
};
use eventsource_stream::Eventsource as _;
use futures::{Stream, StreamExt as _};
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::warn;
use zeroize::Zeroizing;

use crate::{
    config::{ApiOptions, CredentialsOptions},
    error::{CliError, ErrorCode},
    outgoing::{self, Route},
    secrets,
};

/// The deadline of one call. An event stream may last longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest pause that the client accepts from a `Retry-After` header.
const LONGEST_ASKED: Duration = Duration::from_secs(60);
/// The largest answer that the client reads, in bytes.
const MAX_ANSWER_SIZE_BYTES: usize = 8 * 1024 * 1024;

/// Selects dead letters. What is empty selects all.
#[derive(Debug, Default)]
pub(crate) struct DeadFilter {
    /// The codes of their failures.
    pub(crate) codes: Vec<Code>,
    /// Their wallet.
    pub(crate) wallet: Option<WalletId>,
    /// They ended then or later, in milliseconds since 1970.
    pub(crate) ended_after_ms: Option<u64>,
    /// They ended before, in milliseconds since 1970.
    pub(crate) ended_before_ms: Option<u64>,
}

/// The HTTP interface as one tenant sees it.
pub(crate) struct ApiClient {
    http: reqwest::Client,
    base: Url,
    route: Route,
    token: Zeroizing<String>,
    deadline: Instant,
    said_unreachable: AtomicBool,
}

/// Why one try of a call failed.
enum Failure {
    /// Worth another try, after the pause that the answer asked for, if any.
    Passing(CliError, Option<Duration>),
    /// Not worth another try.
    Final(CliError),
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Passing(error, _) | Failure::Final(error) => error,
        }
    }
}

impl ApiClient {
    /// A client for `tenant`. It gives up after `timeout`.
    ///
    /// # Errors
    /// When the address is no URL, when there is no token, or when the token would travel without
    /// TLS.
    pub(crate) fn new(
        options: &ApiOptions,
        credentials: &CredentialsOptions,
        tenant: &TenantId,
        timeout: Duration,
    ) -> Result<Self, CliError> {
        let mut base: Url = options
            .api_url
            .parse()
            .map_err(|error| CliError::usage(format!("--api-url is no URL: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(CliError::usage("--api-url takes an http or https URL"));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        outgoing::may_carry("the tenant's API token", &base, "api-url")?;
        let route = Route::to(&base, "api-url")?;
        let token = read_token(options, credentials, tenant)?;
        if token.is_empty() || !token.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(CliError::input("the API token is empty, or has characters that no token has")
                .remedy("Give the token as `duet init` wrote it: one line of letters, digits and signs."));
        }
        let http = route
            .client()?
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| CliError::internal(format!("no HTTP client: {error}")))?;
        Ok(Self {
            http,
            base,
            route,
            token,
            deadline: Instant::now() + timeout,
            said_unreachable: AtomicBool::new(false),
        })
    }

    /// When the client gives up.
    pub(crate) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Submits a request. Submitting it again returns the same job. `repeat_digest` permits a
    /// transaction that another job has already.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn submit(
        &self,
        request: &SignedRequest,
        idempotency_key: &str,
        priority: Priority,
        repeat_digest: bool,
    ) -> Result<JobView, CliError> {
        self.call(|| {
            let submission = self.submission(request, idempotency_key, priority)?;
            Ok(if repeat_digest { submission.header("Duet-Repeat-Digest", "true") } else { submission })
        })
        .await
    }

    /// Submits a request as [`Self::submit`] does, but tries only once. The caller gets a refusal
    /// even if a later try could succeed.
    ///
    /// # Errors
    /// As [`Self::submit`].
    #[cfg(feature = "load")]
    pub(crate) async fn submit_once(
        &self,
        request: &SignedRequest,
        idempotency_key: &str,
    ) -> Result<JobView, CliError> {
        self.call_once(self.submission(request, idempotency_key, Priority::default())?)
            .await
            .map_err(CliError::from)
    }

    fn submission(
        &self,
        request: &SignedRequest,
        idempotency_key: &str,
        priority: Priority,
    ) -> Result<RequestBuilder, CliError> {
        Ok(self
            .request(Method::POST, "v1/jobs", &[])?
            .header("Content-Type", "application/json")
            .header("Idempotency-Key", idempotency_key)
            .header("Duet-Priority", priority.as_str())
            .header("Duet-Requester", hex::encode(request.requester))
            .header("Duet-Signature", hex::encode(request.signature))
            .body(request.body.clone()))
    }

    /// One job.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn job(&self, id: JobId) -> Result<JobView, CliError> {
        self.call(|| self.request(Method::GET, &format!("v1/jobs/{id}"), &[])).await
    }

    /// The request that the job's requester signed.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn job_request(&self, id: JobId) -> Result<SignedRequest, CliError> {
        self.call(|| self.request(Method::GET, &format!("v1/jobs/{id}/request"), &[])).await
    }

    /// Approves a job's request. Returns the parties that recorded the approval.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn approve(&self, id: JobId, approval: &DatedApproval) -> Result<Vec<String>, CliError> {
        #[derive(serde::Deserialize)]
        struct Noted {
            parties: Vec<String>,
        }
        let body = serde_json::json!({
            "approver": hex::encode(approval.approver),
            "issued_at": approval.issued_at,
            "signature": hex::encode(approval.signature),
        });
        let noted: Noted = self
            .call(|| {
                let request = self.request(Method::POST, &format!("v1/jobs/{id}/approvals"), &[])?;
                Ok(request.header("content-type", "application/json").body(body.to_string()))
            })
            .await?;
        Ok(noted.parties)
    }

    /// A page of jobs.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn jobs(
        &self,
        state: Option<JobStateName>,
        after: Option<JobId>,
        limit: u16,
    ) -> Result<JobPage, CliError> {
        let mut query = vec![("limit", limit.to_string())];
        query.extend(state.map(|state| ("state", state.to_string())));
        query.extend(after.map(|after| ("after", after.to_string())));
        self.call(|| self.request(Method::GET, "v1/jobs", &query)).await
    }

    /// Cancels a job. Cancelling a cancelled job changes nothing.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn cancel(
        &self,
        id: JobId,
        revocation: Option<&RevocationProof>,
    ) -> Result<JobView, CliError> {
        let body = revocation
            .map(serde_json::to_string)
            .transpose()
            .map_err(|error| CliError::internal(format!("a revocation does not serialise: {error}")))?;
        self.call(|| {
            let request = self.request(Method::POST, &format!("v1/jobs/{id}/cancel"), &[])?;
            Ok(match &body {
                Some(body) => request.header("content-type", "application/json").body(body.clone()),
                None => request,
            })
        })
        .await
    }

    /// The dead letters that `filter` selects from the next `limit`. So a page may have none,
    /// although its `next` names further ones.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn dead_letters(
        &self,
        filter: &DeadFilter,
        after: Option<JobId>,
        limit: u16,
    ) -> Result<JobPage, CliError> {
        let DeadFilter { codes, wallet, ended_after_ms, ended_before_ms } = filter;
        let codes = codes.iter().map(|code| code.as_str()).collect::<Vec<_>>().join(",");
        let mut query = vec![("limit", limit.to_string())];
        query.extend(Some(codes).filter(|codes| !codes.is_empty()).map(|codes| ("code", codes)));
        query.extend(wallet.map(|wallet| ("wallet", wallet.to_string())));
        query.extend(ended_after_ms.map(|ms| ("ended_after_ms", ms.to_string())));
        query.extend(ended_before_ms.map(|ms| ("ended_before_ms", ms.to_string())));
        query.extend(after.map(|after| ("after", after.to_string())));
        self.call(|| self.request(Method::GET, "v1/dead-letters", &query)).await
    }

    /// One dead letter.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn dead_letter(&self, id: JobId) -> Result<JobView, CliError> {
        self.call(|| self.request(Method::GET, &format!("v1/dead-letters/{id}"), &[])).await
    }

    /// Puts a dead letter back into the queue. If it is back already, nothing changes.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn redrive(&self, id: JobId) -> Result<JobView, CliError> {
        self.call(|| self.request(Method::POST, &format!("v1/dead-letters/{id}/redrive"), &[])).await
    }

    /// Submits a batch. Repeating it returns the same batch.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn submit_batch(&self, batch: Vec<u8>) -> Result<BatchAnswer, CliError> {
        self.call(|| {
            Ok(self
                .request(Method::POST, "v1/batches", &[])?
                .header("Content-Type", "application/json")
                .body(batch.clone()))
        })
        .await
    }

    /// The progress of a batch's jobs.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn batch(&self, id: BatchId) -> Result<BatchView, CliError> {
        self.call(|| self.request(Method::GET, &format!("v1/batches/{id}"), &[])).await
    }

    /// How a batch's jobs end after the cursor `after`: the name and data of each event. The stream
    /// ends when the orchestrator ends it or the connection breaks.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn batch_events(
        &self,
        id: BatchId,
        after: Option<&str>,
    ) -> Result<impl Stream<Item = (String, String)> + use<>, CliError> {
        let query: Vec<_> = after.map(|after| ("after", after.to_owned())).into_iter().collect();
        self.event_stream(&format!("v1/batches/{id}/events"), &query).await
    }

    /// A page of the ends of the tenant's jobs, after the cursor `after`.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn results(&self, after: Option<&str>, limit: u16) -> Result<EndPage, CliError> {
        let mut query = vec![("limit", limit.to_string())];
        query.extend(after.map(|after| ("after", after.to_owned())));
        self.call(|| self.request(Method::GET, "v1/results", &query)).await
    }

    /// A wallet as the orchestrator knows it.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn wallet(&self, id: WalletId) -> Result<WalletView, CliError> {
        self.call(|| self.request(Method::GET, &format!("v1/wallets/{id}"), &[])).await
    }

    /// Adds a webhook. The client does not repeat this call: a repetition could add a second
    /// webhook.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn add_webhook(&self, url: &str) -> Result<WebhookCreated, CliError> {
        let document = serde_json::json!({ "url": url });
        self.post_once("v1/webhooks", Some(&document)).await
    }

    /// The tenant's webhooks.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn webhooks(&self) -> Result<WebhookPage, CliError> {
        self.call(|| self.request(Method::GET, "v1/webhooks", &[])).await
    }

    /// One webhook.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn webhook(&self, id: EndpointId) -> Result<WebhookView, CliError> {
        self.call(|| self.request(Method::GET, &format!("v1/webhooks/{id}"), &[])).await
    }

    /// Removes a webhook.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn remove_webhook(&self, id: EndpointId) -> Result<WebhookView, CliError> {
        self.call(|| self.request(Method::DELETE, &format!("v1/webhooks/{id}"), &[])).await
    }

    /// Enables deliveries to a webhook again. An enabled webhook stays enabled.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn enable_webhook(&self, id: EndpointId) -> Result<WebhookView, CliError> {
        self.call(|| self.request(Method::POST, &format!("v1/webhooks/{id}/enable"), &[])).await
    }

    /// Makes the orchestrator deliver a test message, and returns the delivery's outcome.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn test_webhook(&self, id: EndpointId) -> Result<Delivery, CliError> {
        self.post_once(&format!("v1/webhooks/{id}/test"), None).await
    }

    /// The latest deliveries of a webhook.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn webhook_deliveries(
        &self,
        id: EndpointId,
        limit: u16,
    ) -> Result<DeliveryPage, CliError> {
        let query = [("limit", limit.to_string())];
        self.call(|| self.request(Method::GET, &format!("v1/webhooks/{id}/deliveries"), &query)).await
    }

    /// Delivers one job's result, or the results of a span of time, once more.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn replay_webhook(
        &self,
        id: EndpointId,
        job: Option<JobId>,
        from_ms: Option<u64>,
        until_ms: Option<u64>,
    ) -> Result<ReplayAccepted, CliError> {
        let mut document = serde_json::Map::new();
        document.extend(job.map(|job| ("job".to_owned(), job.to_string().into())));
        document.extend(from_ms.map(|moment| ("from_ms".to_owned(), moment.into())));
        document.extend(until_ms.map(|moment| ("until_ms".to_owned(), moment.into())));
        self.post_once(&format!("v1/webhooks/{id}/replay"), Some(&document.into())).await
    }

    /// Posts a request that the client must not repeat blindly: the first try may have taken
    /// effect.
    async fn post_once<T: DeserializeOwned>(
        &self,
        path: &str,
        document: Option<&serde_json::Value>,
    ) -> Result<T, CliError> {
        let mut request = self.request(Method::POST, path, &[])?;
        if let Some(document) = document {
            request = request.header("Content-Type", "application/json").body(document.to_string());
        }
        self.call_once(request).await.map_err(CliError::from)
    }

    /// The first page of the tenant's wallets. Tries only once: while a party is away, the caller
    /// gets the refusal at once.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn first_wallets(&self) -> Result<Vec<WalletView>, CliError> {
        let page: WalletPage = self.call_once(self.request(Method::GET, "v1/wallets", &[])?).await?;
        Ok(page.wallets)
    }

    /// All wallets of the tenant.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn wallets(&self) -> Result<Vec<WalletView>, CliError> {
        let mut wallets = Vec::new();
        let mut after: Option<WalletId> = None;
        loop {
            let query: Vec<_> = after.iter().map(|after| ("after", after.to_string())).collect();
            let page: WalletPage = self.call(|| self.request(Method::GET, "v1/wallets", &query)).await?;
            wallets.extend(page.wallets);
            // A cursor that leads back would make this loop endless.
            match page.next {
                Some(next) if after.is_none_or(|before| next > before) => after = Some(next),
                _ => return Ok(wallets),
            }
        }
    }

    /// The job's state after each change. The stream ends when the orchestrator ends it or the
    /// connection breaks.
    ///
    /// # Errors
    /// The interface's problem, or that it is out of reach.
    pub(crate) async fn events(&self, id: JobId) -> Result<impl Stream<Item = JobView> + use<>, CliError> {
        // Progress events are for pages that draw them; no command does.
        let query = [("progress", "false".to_owned())];
        let events = self.event_stream(&format!("v1/jobs/{id}/events"), &query).await?;
        Ok(events.filter_map(|(_, data)| futures::future::ready(serde_json::from_str(&data).ok())))
    }

    /// The names and data of server-sent events until the connection breaks. The caller reconnects.
    async fn event_stream(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<impl Stream<Item = (String, String)> + use<>, CliError> {
        let answer = self
            .repeat(|| async {
                let request = self
                    .request(Method::GET, path, query)
                    .map_err(Failure::Final)?
                    .header("Accept", "text/event-stream");
                self.accepted(request).await
            })
            .await?;
        Ok(answer
            .bytes_stream()
            .eventsource()
            .take_while(|event| futures::future::ready(event.is_ok()))
            .filter_map(|event| futures::future::ready(event.ok().map(|event| (event.event, event.data)))))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<RequestBuilder, CliError> {
        let mut url = self.base.join(path).map_err(|error| {
            CliError::internal(format!("the path {path} does not join --api-url: {error}"))
        })?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(self.http.request(method, url).bearer_auth(self.token.as_str()))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        request: impl Fn() -> Result<RequestBuilder, CliError>,
    ) -> Result<T, CliError> {
        self.repeat(|| async { self.call_once(request().map_err(Failure::Final)?).await }).await
    }

    async fn call_once<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        let answer = self.accepted(request.timeout(CALL_TIMEOUT)).await?;
        let body = self.body(answer).await?;
        serde_json::from_slice(&body).map_err(|error| {
            Failure::Final(CliError::new(
                Code::UnsupportedVersion,
                format!("the orchestrator's answer is not understood: {error}"),
            ))
        })
    }

    /// Sends one request. An unsuccessful answer becomes an error with its problem.
    async fn accepted(&self, request: RequestBuilder) -> Result<reqwest::Response, Failure> {
        let answer =
            request.send().await.map_err(|error| Failure::Passing(self.unreachable(&error), None))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let pause = retry_after(answer.headers(), SystemTime::now()).map(|pause| pause.min(LONGEST_ASKED));
        let body = self.body(answer).await?;
        let problem = serde_json::from_slice::<Problem>(&body);
        // 429: the queue is full. 502 to 504: the broker, a proxy or a party. All of these may
        // pass. So may a conflict while the parties of a new or rotated wallet still work on their
        // agreement.
        let passing = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        ) || problem.as_ref().is_ok_and(|problem| {
            matches!(problem.code, Code::NotEnrolled | Code::StaleEpoch | Code::StalePaillierKey)
        });
        let error = problem.map_or_else(
            |_| {
                let what = format!("{} answers {status}{}", self.host(), self.route.described());
                self.remedied(CliError::new(ErrorCode::ApiUnreachable, what))
            },
            CliError::from,
        );
        Err(if passing { Failure::Passing(error, pause) } else { Failure::Final(error) })
    }

    async fn body(&self, answer: reqwest::Response) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        let mut chunks = answer.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| Failure::Passing(self.unreachable(&error), None))?;
            if body.len() + chunk.len() > MAX_ANSWER_SIZE_BYTES {
                return Err(Failure::Final(CliError::new(
                    Code::TooLarge,
                    "the orchestrator's answer is too large",
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn host(&self) -> &str {
        self.base.host_str().unwrap_or("the orchestrator")
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        let how = if error.is_connect() {
            "nothing accepts the connection"
        } else if error.is_timeout() {
            "no answer in time"
        } else {
            "the connection broke"
        };
        let (base, by) = (&self.base, self.route.described());
        self.remedied(CliError::new(
            ErrorCode::ApiUnreachable,
            format!("the orchestrator at {base} is out of reach{by}: {how}"),
        ))
    }

    fn remedied(&self, error: CliError) -> CliError {
        match self.route.remedy() {
            Some(remedy) => error.remedy(remedy),
            None => error,
        }
    }

    /// Tries until `attempt` succeeds, fails for good, or the deadline passes. Then it returns the
    /// last failure.
    async fn repeat<T, Try>(&self, attempt: impl FnMut() -> Try) -> Result<T, CliError>
    where
        Try: Future<Output = Result<T, Failure>>,
    {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .with_total_delay(Some(self.deadline.saturating_duration_since(Instant::now())))
            .with_jitter()
            .without_max_times();
        let mut last = None;
        let tries = attempt
            .retry(pauses)
            .when(|failure| matches!(failure, Failure::Passing(..)))
            .adjust(|failure, pause| match failure {
                // When the pauses end, the command's deadline has come: it stays the end.
                Failure::Passing(_, Some(asked)) => pause.map(|pause| pause.max(*asked)),
                _ => pause,
            })
            .notify(|failure, _| {
                if let Failure::Passing(error, _) = failure {
                    if !self.said_unreachable.swap(true, Ordering::Relaxed) {
                        warn!("{error}; trying again");
                    }
                    last = Some(error.clone());
                }
            });
        match tokio::time::timeout_at(self.deadline, tries).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(failure)) => Err(failure.into()),
            Err(_) => Err(last
                .unwrap_or_else(|| CliError::new(Code::Deadline, "the orchestrator did not answer in time"))),
        }
    }
}

fn read_token(
    options: &ApiOptions,
    credentials: &CredentialsOptions,
    tenant: &TenantId,
) -> Result<Zeroizing<String>, CliError> {
    let in_use =
        |file: &Path| secrets::read_secret_file(file).map(|held| Zeroizing::new(held.in_use().to_owned()));
    if let Some(file) = &options.api_token_file {
        return in_use(file);
    }
    if let Some(token) = secrets::file_or_variable(None, "DUET_API_TOKEN")? {
        return Ok(token);
    }
    let Some(directory) = &credentials.credentials else {
        return Err(CliError::usage("no API token is given")
            .remedy("Give --api-token-file or --credentials, or set DUET_API_TOKEN."));
    };
    in_use(&directory.join("tokens").join(tenant.as_str()))
}
