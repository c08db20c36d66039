//! `duet job`: queues signatures and follows them.

mod access;
mod dead;
mod report;

use std::{path::PathBuf, pin::pin, time::Duration};

use alloy_primitives::Address;
use clap::{Args, Subcommand};
use duet_orchestrator::api::JobView;
use duet_wire::{
    Code, JobId, JobStateName, Pair, Priority, RecoverableSignature, SignedRequest,
    revocation::RevocationProof, signing::SigningKey,
};
use futures::StreamExt as _;

pub(crate) use self::access::Access;
use self::{
    access::{BRIEF, LONG, Page},
    dead::DeadCommand,
    report::{JobReport, JobsReport, ResultsReport},
};

use crate::{
    api::ApiClient,
    commands::{requester, verify},
    config::{ApiOptions, CredentialsOptions, TenantOptions},
    error::CliError,
    input::PayloadCommand,
    output::Output,
    request::{self, RequestOptions, WalletName},
};

/// A command about jobs.
#[expect(clippy::large_enum_variant, reason = "one is made per process")]
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum JobCommand {
    /// Queue a payload to be signed
    Submit {
        #[command(subcommand)]
        payload: PayloadCommand<SubmitOptions>,
    },
    /// Show a job
    Get {
        /// The job
        job: JobId,
        #[command(flatten)]
        access: Access,
    },
    /// List jobs, newest first
    List {
        /// Only jobs in this state
        #[arg(long, value_name = "STATE")]
        state: Option<JobStateName>,
        #[command(flatten)]
        page: Page,
        #[command(flatten)]
        access: Access,
    },
    /// Follow a job until it is settled
    Watch {
        /// The job
        job: JobId,
        #[command(flatten)]
        access: Access,
    },
    /// Cancel a job; with the request key, the parties refuse its request from then on
    Cancel {
        /// The job
        job: JobId,
        /// File with the key that signed the request, or the owner's key. It signs a revocation
        /// that the parties keep. Without it only the orchestrator learns of it, and only before
        /// signing has begun
        #[arg(long, env = "DUET_REQUESTER_KEY", value_name = "FILE")]
        requester_key: Option<PathBuf>,
        #[command(flatten)]
        access: Access,
    },
    /// List how jobs ended, in order, after a cursor
    Results {
        /// Only those after this one: `next` of the previous page
        #[arg(long, value_name = "CURSOR")]
        after: Option<String>,
        /// At most this many
        #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=200))]
        limit: u16,
        #[command(flatten)]
        access: Access,
    },
    /// Look at jobs that failed for good, and put them back into the queue
    Dead {
        #[command(subcommand)]
        command: DeadCommand,
    },
}

/// The request to queue.
#[derive(Debug, Clone, Args)]
pub(crate) struct SubmitOptions {
    /// The wallet: its id, an unambiguous head of it, or its address [default: the only one]
    #[arg(long, value_name = "WALLET")]
    wallet: Option<WalletName>,
    /// File with the request key (`duet requester new`)
    #[arg(long, env = "DUET_REQUESTER_KEY", value_name = "FILE")]
    requester_key: PathBuf,
    /// The pairs that may sign, in order of preference
    #[arg(long, value_name = "PAIR", value_delimiter = ',', default_value = "service+partner")]
    pairs: Vec<Pair>,
    /// The job's priority among the tenant's jobs: low, normal or high
    #[arg(long, value_name = "PRIORITY", default_value_t)]
    priority: Priority,
    /// Sign a transaction even if another job has the same one
    #[arg(long)]
    repeat_digest: bool,
    /// Wait until the job is settled
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    request: RequestOptions,
    #[command(flatten)]
    tenant: TenantOptions,
    #[command(flatten)]
    api: ApiOptions,
    #[command(flatten)]
    credentials: CredentialsOptions,
}

/// Runs the command.
///
/// # Errors
/// The orchestrator's problem, or that it cannot be reached. With `--wait`, also the reason why the
/// job has no signature.
pub(crate) async fn run(command: JobCommand, output: Output) -> Result<(), CliError> {
    match command {
        JobCommand::Submit { payload } => submit(payload, output).await,
        JobCommand::Get { job, access } => {
            output.emit(&JobReport::new(access.client(BRIEF)?.job(job).await?))
        }
        JobCommand::Cancel { job, requester_key, access } => {
            let api = access.client(BRIEF)?;
            let revocation = match requester_key {
                Some(file) => Some(revocation(&api, job, &requester::read_key(&file)?).await?),
                None => None,
            };
            output.emit(&JobReport::new(api.cancel(job, revocation.as_ref()).await?))
        }
        JobCommand::List { state, page, access } => {
            output.emit(&JobsReport::new(access.client(BRIEF)?.jobs(state, page.after, page.limit).await?))
        }
        JobCommand::Results { after, limit, access } => {
            output.emit(&ResultsReport(access.client(BRIEF)?.results(after.as_deref(), limit).await?))
        }
        JobCommand::Dead { command } => dead::run(command, output).await,
        JobCommand::Watch { job, access } => {
            let api = access.client(LONG)?;
            follow(&api, job, |view| output.emit(&JobReport::new(view.clone()))).await.map(drop)
        }
    }
}

/// Signs a revocation of the request of `job`.
async fn revocation(api: &ApiClient, job: JobId, key: &SigningKey) -> Result<RevocationProof, CliError> {
    let signed = api.job_request(job).await?;
    let request = signed.verify().map_err(|error| CliError::new(error.code(), error.to_string()))?;
    if request.job() != job {
        return Err(CliError::new(Code::Conflict, "the orchestrator answered with another job's request"));
    }
    Ok(RevocationProof::sign(request.wallet, signed.content_hash(), key))
}

async fn submit(payload: PayloadCommand<SubmitOptions>, output: Output) -> Result<(), CliError> {
    let options = payload.common();
    let unprepared = payload.read()?;
    let key = requester::read_key(&options.requester_key)?;
    let api =
        ApiClient::new(&options.api, &options.credentials, &options.tenant.tenant, options.request.timeout)?;
    let wallet = request::find_wallet(&api, options.wallet.as_ref()).await?;
    let account = request::account(&wallet.public_key, wallet.chain_code, &options.request.path)?;
    let prepared = unprepared.prepare(account).await?;
    let made = options.request.make(
        &options.tenant.tenant,
        wallet.id,
        prepared.payload,
        options.pairs.clone(),
        &key,
    )?;
    let submitted = api
        .submit(&made.signed, made.request.idempotency_key.as_str(), options.priority, options.repeat_digest)
        .await?;
    let id = submitted.id;
    let broadcast = payload.broadcast();
    if !options.wait && broadcast.is_none() {
        return output.emit(&JobReport::new(submitted));
    }
    let settled = follow(&api, id, |_| Ok(())).await.map_err(|error| error.job(id))?;
    let signed = Signed::new(&settled, made.digest, account).map_err(|error| error.job(id))?;
    let mut report = JobReport::new(settled);
    if let (Some(options), Some(node)) = (broadcast, &prepared.node) {
        let (raw, hash) = signed.transaction(&made.signed)?;
        report.receipt =
            Some(node.broadcast(&raw, hash, options.receipt_timeout).await.map_err(|e| e.job(id))?);
    }
    output.emit(&report)
}

/// A job's signature that this process has verified: over the requested digest, by the wallet's
/// account.
pub(crate) struct Signed(RecoverableSignature);

impl Signed {
    /// Verifies the signature of a settled job.
    ///
    /// # Errors
    /// The reason why the job has no signature, or that it is not over `digest` by `account`.
    pub(crate) fn new(job: &JobView, digest: [u8; 32], account: Address) -> Result<Self, CliError> {
        match job.state {
            JobStateName::Signed => {}
            JobStateName::Expired => return Err(CliError::new(Code::JobExpired, "the job expired unsigned")),
            JobStateName::Cancelled => return Err(CliError::new(Code::Cancelled, "the job was cancelled")),
            _ => {
                return Err(match job.ending.failure.clone() {
                    Some(failure) => CliError::from(failure),
                    None => CliError::internal(format!(
                        "the orchestrator reports the job as {}, without a reason",
                        job.state
                    )),
                });
            }
        }
        let signature: RecoverableSignature =
            job.ending.signature.as_deref().and_then(|text| text.parse().ok()).ok_or_else(|| {
                CliError::new(
                    Code::BadSignature,
                    "the orchestrator reports the job as signed, but sent no signature",
                )
            })?;
        let signer = verify::recover(&signature, digest)?;
        if signer != account {
            return Err(CliError::new(
                Code::BadSignature,
                format!("the job's signature is not by {account} over what was submitted"),
            ));
        }
        Ok(Self(signature))
    }

    /// The signed transaction and its hash, encoded from the request itself.
    ///
    /// # Errors
    /// When the request is not for a transaction.
    pub(crate) fn transaction(
        &self,
        request: &SignedRequest,
    ) -> Result<(Vec<u8>, alloy_primitives::B256), CliError> {
        let payload = request.verify().map_err(|error| CliError::internal(error.to_string()))?.payload;
        let raw = payload.signed_transaction(&self.0);
        let hash = payload.transaction_hash(&self.0);
        raw.zip(hash.map(Into::into)).ok_or_else(|| CliError::internal("only transactions are broadcast"))
    }
}

/// Follows a job until it settles or the client's deadline passes. Calls `changed` for each change.
///
/// # Errors
/// The orchestrator's problem, or that the deadline passed.
pub(crate) async fn follow(
    api: &ApiClient,
    id: JobId,
    mut changed: impl FnMut(&JobView) -> Result<(), CliError>,
) -> Result<JobView, CliError> {
    let is_final = |view: &JobView| view.settled_at_ms.is_some();
    let mut last = None;
    let mut see = |view: JobView, changed: &mut dyn FnMut(&JobView) -> Result<(), CliError>| {
        let mark = (view.state, view.updated_at_ms, view.attempts);
        if last != Some(mark) {
            last = Some(mark);
            changed(&view)?;
        }
        Ok::<_, CliError>(view)
    };
    let watching = async {
        let mut pause = Duration::from_millis(100);
        loop {
            // A stream begins with the job's present state, so changes between two streams are not
            // missed.
            let mut events = pin!(api.events(id).await?);
            while let Some(view) = events.next().await {
                pause = Duration::from_millis(100);
                let view = see(view, &mut changed)?;
                if is_final(&view) {
                    return Ok(view);
                }
            }
            // The stream broke: the orchestrator stopped, or a proxy closed the connection.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    };
    tokio::time::timeout_at(api.deadline(), watching).await.map_err(|_| {
        CliError::new(Code::Deadline, "the job is not settled yet")
            .job(id)
            .remedy("`duet job watch` goes on waiting.")
    })?
}
