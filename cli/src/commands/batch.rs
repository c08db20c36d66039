//! `duet batch`: queues many signatures at once.

use std::{fmt, path::PathBuf, pin::pin, time::Duration};

use clap::{Args, Subcommand};
use duet_orchestrator::api::{BatchAnswer, BatchView, EndView, Ending, ItemStatus};
use duet_protocol::ids::WalletId;
use duet_wire::{
    Code, Pair, Priority, SignedRequest, SigningRequest,
    batch::{BatchId, BatchItem, BatchRequest, MAX_BATCH_SIZE_BYTES},
    priority::UnknownPriority,
    request::REQUEST_VERSION,
    signing::SigningKey,
    strict_json,
};
use futures::StreamExt as _;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    api::ApiClient,
    commands::{job::Access, requester},
    config::{ApiOptions, CredentialsOptions, TenantOptions},
    duration,
    error::CliError,
    input::read_document,
    output::Output,
    request::{self, WalletName},
};

/// A command about batches.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum BatchCommand {
    /// Queue many payloads at once
    Submit(SubmitOptions),
    /// Show how far a batch's jobs are
    Get {
        /// The batch
        batch: BatchId,
        #[command(flatten)]
        access: Access,
    },
    /// Report the end of each of a batch's jobs, until all have ended
    Watch {
        /// The batch
        batch: BatchId,
        /// Continue after this `cursor`, from the end printed last
        #[arg(long, value_name = "CURSOR")]
        after: Option<String>,
        #[command(flatten)]
        access: Access,
    },
}

/// What to queue, and for which requester.
#[derive(Debug, Clone, Args)]
pub(crate) struct SubmitOptions {
    /// File with one JSON object a line, each a signing request without what the options say:
    /// `idempotency_key` and `payload`, if need be `path`, `pairs`, `priority` and `repeat_digest`;
    /// `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The wallet: its id, an unambiguous head of it, or its address [default: the only one]
    #[arg(long, value_name = "WALLET")]
    wallet: Option<WalletName>,
    /// File with the request key (`duet requester new`)
    #[arg(long, env = "DUET_REQUESTER_KEY", value_name = "FILE")]
    requester_key: PathBuf,
    /// The pairs that may sign, in order of preference, where a line names none
    #[arg(long, value_name = "PAIR", value_delimiter = ',', default_value = "service+partner")]
    pairs: Vec<Pair>,
    /// How long the requests are valid from now
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration::parse)]
    expires_in: Duration,
    /// The end of their validity in unix seconds; with this and --issued-at, repeated commands sign
    /// the same bytes
    #[arg(long, value_name = "SECONDS", conflicts_with = "expires_in")]
    expires_at: Option<u64>,
    /// The time of issue in unix seconds [default: now]
    #[arg(long, value_name = "SECONDS")]
    issued_at: Option<u64>,
    /// Report the end of each job, until all have ended
    #[arg(long)]
    wait: bool,
    /// How long the command may take in all
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    tenant: TenantOptions,
    #[command(flatten)]
    api: ApiOptions,
    #[command(flatten)]
    credentials: CredentialsOptions,
}

#[derive(Debug, Serialize)]
struct AnswerReport {
    batch: BatchAnswer,
}

impl fmt::Display for AnswerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |status| self.batch.items.iter().filter(|item| item.status == status).count();
        let (accepted, known, refused) =
            (count(ItemStatus::Accepted), count(ItemStatus::Known), count(ItemStatus::Refused));
        match self.batch.id {
            Some(id) => write!(f, "batch {id}: ")?,
            None => f.write_str("no batch: ")?,
        }
        write!(f, "{accepted} accepted, {known} known, {refused} refused")?;
        for (line, item) in (1..).zip(&self.batch.items) {
            if let Some(problem) = &item.problem {
                write!(f, "\nrequest {line}: {problem}")?;
            }
        }
        Ok(())
    }
}

#[derive(Debug, Serialize)]
struct ViewReport {
    batch: BatchView,
}

impl fmt::Display for ViewReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch {}", self.batch.id)?;
        for job in &self.batch.jobs {
            match job.state {
                Some(state) => write!(f, "\n{}  {state}", job.job)?,
                None => write!(f, "\n{}  not accepted", job.job)?,
            }
        }
        Ok(())
    }
}

/// How one job ended.
#[derive(Debug, Serialize)]
struct EndReport {
    end: EndView,
}

impl fmt::Display for EndReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EndView { cursor, job, state, ending: Ending { signature, failure, .. }, .. } = &self.end;
        write!(f, "{cursor}  {job}  {state}")?;
        if let Some(signature) = signature {
            write!(f, "  {signature}")?;
        }
        if let Some(failure) = failure {
            write!(f, "  {failure}")?;
        }
        Ok(())
    }
}

/// Runs the command.
///
/// # Errors
/// The orchestrator's problem, or that it is out of reach.
pub(crate) async fn run(command: BatchCommand, output: Output) -> Result<(), CliError> {
    const BRIEF: Duration = Duration::from_secs(30);
    const LONG: Duration = Duration::from_secs(600);
    match command {
        BatchCommand::Submit(options) => submit(options, output).await,
        BatchCommand::Get { batch, access } => {
            output.emit(&ViewReport { batch: access.client(BRIEF)?.batch(batch).await? })
        }
        BatchCommand::Watch { batch, after, access } => {
            watch(&access.client(LONG)?, batch, after, output).await
        }
    }
}

async fn submit(options: SubmitOptions, output: Output) -> Result<(), CliError> {
    let lines = read(&options.file)?;
    let key = requester::read_key(&options.requester_key)?;
    let api = ApiClient::new(&options.api, &options.credentials, &options.tenant.tenant, options.timeout)?;
    let wallet = request::find_wallet(&api, options.wallet.as_ref()).await?;
    let now = duration::since_1970();
    let issued_at = options.issued_at.unwrap_or(now.as_secs());
    let expires_at = options.expires_at.unwrap_or_else(|| now.saturating_add(options.expires_in).as_secs());
    let items = (1..)
        .zip(&lines)
        .map(|(number, line)| {
            item(&options, wallet.id, (issued_at, expires_at), line, &key)
                .map_err(|wrong| CliError::new(Code::MalformedJson, format!("request {number}: {wrong}")))
        })
        .collect::<Result<_, _>>()?;
    let batch = BatchRequest { items }.to_json().map_err(|error| CliError::internal(error.to_string()))?;
    if batch.len() > MAX_BATCH_SIZE_BYTES {
        let message =
            format!("the batch has {} bytes, at most {MAX_BATCH_SIZE_BYTES} are allowed", batch.len());
        return Err(CliError::new(Code::TooLarge, message).remedy("Submit it in several batches."));
    }
    let answer = submit_until_taken(&api, batch).await?;
    let id = answer.id;
    output.emit(&AnswerReport { batch: answer })?;
    match id {
        Some(id) if options.wait => watch(&api, id, None, output).await,
        _ => Ok(()),
    }
}

/// Submits the batch. While the orchestrator has no room for some of it, tries again until the
/// deadline.
async fn submit_until_taken(api: &ApiClient, batch: Vec<u8>) -> Result<BatchAnswer, CliError> {
    loop {
        let answer = api.submit_batch(batch.clone()).await?;
        let Some(seconds) = answer.items.iter().filter_map(|item| item.retry_after_seconds).max() else {
            return Ok(answer);
        };
        let again = tokio::time::Instant::now() + Duration::from_secs(seconds);
        if again >= api.deadline() {
            return Ok(answer);
        }
        tokio::time::sleep_until(again).await;
    }
}

/// The non-empty lines of the file.
fn read(file: &std::path::Path) -> Result<Vec<String>, CliError> {
    let bytes = read_document(file, MAX_BATCH_SIZE_BYTES)?;
    let text =
        String::from_utf8(bytes).map_err(|_| CliError::input(format!("{} is not text", file.display())))?;
    Ok(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
}

/// The signed request of one line, or the reason why the line is invalid.
fn item(
    options: &SubmitOptions,
    wallet: WalletId,
    (issued_at, expires_at): (u64, u64),
    line: &str,
    key: &SigningKey,
) -> Result<BatchItem, String> {
    let parsed = strict_json::parse(line.as_bytes(), line.len()).map_err(|error| error.to_string())?;
    let Value::Object(mut fields) = parsed else { return Err("expected a JSON object".to_owned()) };
    let priority = match fields.remove("priority") {
        None => Priority::default(),
        Some(value) => value
            .as_str()
            .ok_or("priority: expected text")?
            .parse()
            .map_err(|error: UnknownPriority| format!("priority: {error}"))?,
    };
    let repeat_digest = match fields.remove("repeat_digest") {
        None => false,
        Some(value) => value.as_bool().ok_or("repeat_digest: expected true or false")?,
    };
    let pairs: Vec<String> = options.pairs.iter().map(ToString::to_string).collect();
    let common: Map<String, Value> = [
        ("version", Value::from(REQUEST_VERSION)),
        ("tenant", Value::from(options.tenant.tenant.as_str())),
        ("wallet", Value::from(wallet.to_string())),
        ("expires_at", Value::from(expires_at)),
        ("pairs", Value::from(pairs)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect();
    for (name, value) in common {
        fields.entry(name).or_insert(value);
    }
    if fields.get("version") == Some(&Value::from(REQUEST_VERSION)) {
        fields.entry("issued_at".to_owned()).or_insert(Value::from(issued_at));
    }
    let body = Value::Object(fields).to_string().into_bytes();
    // Read it here first, as every party will.
    SigningRequest::from_json(&body).map_err(|error| error.to_string())?;
    Ok(BatchItem { request: SignedRequest::sign(body, key), priority, repeat_digest })
}

/// Prints the end of each of the batch's jobs until all have ended. Reconnects when a stream
/// breaks.
async fn watch(
    api: &ApiClient,
    batch: BatchId,
    mut after: Option<String>,
    output: Output,
) -> Result<(), CliError> {
    let watching = async {
        let mut pause = Duration::from_millis(100);
        loop {
            let mut events = pin!(api.batch_events(batch, after.as_deref()).await?);
            while let Some((name, data)) = events.next().await {
                pause = Duration::from_millis(100);
                if name == "done" {
                    return Ok(());
                }
                let end: EndView = serde_json::from_str(&data).map_err(|error| {
                    CliError::new(Code::UnsupportedVersion, format!("an event is not understood: {error}"))
                })?;
                after = Some(end.cursor.clone());
                output.emit(&EndReport { end })?;
            }
            // The stream broke. Continue from the cursor; another orchestrator may answer.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    };
    tokio::time::timeout_at(api.deadline(), watching).await.map_err(|_| {
        CliError::new(Code::Deadline, "not all jobs of the batch have ended yet")
            .remedy("`duet batch watch --after CURSOR` goes on from the end seen last.")
    })?
}
