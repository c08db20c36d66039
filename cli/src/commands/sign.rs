//! `duet sign`: this machine signs together with service or partner.

use std::{fmt, time::Duration};

use alloy_primitives::Address;
use clap::{Args, Subcommand, ValueEnum};
use duet_bus::Bus;
use duet_orchestrator::api::JobView;
use duet_party::device::Device;
use duet_wire::{
    Code, JobId, JobStateName, Pair, Payload, PayloadKindTag, Priority, RecoverableSignature, SignedResult,
    payload::NotSigned,
};
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    api::ApiClient,
    commands::{verify, wallet::OnlineArguments},
    config::{ApiOptions, TenantOptions},
    device,
    error::CliError,
    input::{PayloadCommand, Prepared},
    output::Output,
    progress::{StepTiming, Steps},
    request::{self, Made, RequestOptions, WalletName},
    rpc::{NodeOptions, Receipt},
};

/// The payload to sign, or the waiting job to approve.
#[derive(Debug, Clone, Args)]
pub(crate) struct SignCommand {
    #[command(subcommand)]
    what: SignWhat,
}

#[expect(clippy::large_enum_variant, reason = "one is made per process")]
#[derive(Debug, Clone, Subcommand)]
enum SignWhat {
    #[command(flatten)]
    Payload(PayloadCommand<SignOptions>),
    /// Approve a job that waits for the owner, and sign it; `duet wallet waiting` lists them
    Job {
        /// The job
        job: JobId,
        /// The digest that you have seen: only this is signed
        #[arg(long, value_name = "HEX", value_parser = crate::input::parse_digest)]
        digest: [u8; 32],
        /// The wallet [default: the only one]
        #[arg(long, value_name = "WALLET")]
        wallet: Option<WalletName>,
        #[command(flatten)]
        online: Box<OnlineArguments>,
    },
}

/// The party that the device signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Partner {
    Service,
    Partner,
}

/// The options of `sign` besides the payload.
#[derive(Debug, Clone, Args)]
pub(crate) struct SignOptions {
    /// The party to sign with
    #[arg(long, value_name = "PARTY", default_value = "service")]
    with: Partner,
    /// The wallet: its id, an unambiguous head of it, or its address [default: the only one]
    #[arg(long, value_name = "WALLET")]
    wallet: Option<WalletName>,
    #[command(flatten)]
    request: RequestOptions,
    #[command(flatten)]
    tenant: TenantOptions,
    #[command(flatten)]
    api: ApiOptions,
    #[command(flatten)]
    online: OnlineArguments,
}

impl SignOptions {
    const fn pair(&self) -> Pair {
        match self.with {
            Partner::Service => Pair::DeviceService,
            Partner::Partner => Pair::DevicePartner,
        }
    }
}

#[derive(Debug, Serialize)]
struct SignatureReport {
    job: JobId,
    wallet: String,
    kind: PayloadKindTag,
    address: String,
    digest: String,
    signature: String,
    r: String,
    s: String,
    y_parity: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_transaction: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_hash: Option<String>,
    /// Members of typed data that the signature does not cover.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_signed: Vec<NotSigned>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Receipt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<SignedResult>,
    steps: Vec<StepTiming>,
}

impl fmt::Display for SignatureReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "signature {}\nby {}\njob {}", self.signature, self.address, self.job)?;
        if let Some(raw) = &self.signed_transaction {
            write!(f, "\nsigned transaction {raw}")?;
        }
        if let Some(hash) = &self.transaction_hash {
            write!(f, "\ntransaction {hash}")?;
        }
        for member in &self.not_signed {
            write!(f, "\nnot signed: {}, which is {}", member.path, member.value)?;
        }
        if let Some(receipt) = &self.receipt {
            write!(f, "\n{receipt}")?;
        }
        Ok(())
    }
}

fn not_signed(payload: &Payload) -> Vec<NotSigned> {
    payload.describe().map(|description| description.not_signed).unwrap_or_default()
}

fn hexadecimal(bytes: impl AsRef<[u8]>) -> String {
    format!("0x{}", hex::encode(bytes))
}

/// Runs the command.
///
/// # Errors
/// The reason why there is no signature.
pub(crate) async fn run(command: SignCommand, output: Output) -> Result<(), CliError> {
    match command.what {
        SignWhat::Payload(payload) => sign(&payload, output).await,
        SignWhat::Job { job, digest, wallet, online } => {
            approve_waiting(job, digest, wallet.as_ref(), &online, output).await
        }
    }
}

async fn sign(payload: &PayloadCommand<SignOptions>, output: Output) -> Result<(), CliError> {
    let options = payload.common();
    let unprepared = payload.read()?;
    let mut steps = Steps::new(output);
    steps.begin("opened", "opening the device");
    let device = options.online.open_device().await?;
    let wallet = device::pick(&device, options.wallet.as_ref()).await?;
    // Before a job is submitted that this machine could not sign.
    device::require_enrolled(&wallet)?;
    let account = request::account(&wallet.public_key, wallet.chain_code, &options.request.path)?;
    steps.begin("prepared", "completing the request");
    let prepared = unprepared.prepare(account).await?;
    let Prepared { payload: asked, node } = prepared;
    // The wallet records its tenant. With another tenant the request would only be refused later.
    let made =
        options.request.make(&wallet.tenant, wallet.id, asked, vec![options.pair()], device.owner_key())?;
    let api = ApiClient::new(
        &options.api,
        options.online.credentials(),
        &options.tenant.tenant,
        options.request.timeout,
    )?;
    steps.begin("submitted", "submitting the job");
    // The owner is present and wants this signature, even if another job has the same digest.
    let submitted =
        api.submit(&made.signed, made.request.idempotency_key.as_str(), Priority::High, true).await?;
    let job = submitted.id;
    let signed = match already_signed(&submitted)? {
        Some(signature) => signature,
        None => {
            steps.begin("connected", "connecting to the broker");
            let bus = options.online.connect().await.map_err(|error| error.job(job))?;
            steps.begin("signed", "signing");
            let signature = approve(&device, &bus, &api, &made, job).await.map_err(|error| error.job(job))?;
            bus.drain().await;
            signature
        }
    };
    check(&signed, made.digest, account).map_err(|error| error.job(job))?;
    let mut report = SignatureReport::new(job, &made, account, &signed);
    steps.begin("settled", "fetching the orchestrator's result");
    // The signature is here already. The orchestrator's signed result is welcome but not required.
    report.result = api.job(job).await.ok().and_then(|view| view.ending.result);
    let broadcast = payload.broadcast().zip(node.as_ref());
    if let Some((options, node)) = broadcast {
        steps.begin("included", "broadcasting and waiting for the receipt");
        report.receipt = Some(send(node, options, &made, &signed).await.map_err(|error| error.job(job))?);
    }
    report.steps = steps.finish();
    output.emit(&report)
}

async fn send(
    node: &crate::rpc::Node,
    options: &NodeOptions,
    made: &Made,
    signed: &RecoverableSignature,
) -> Result<Receipt, CliError> {
    let payload = &made.request.payload;
    let (Some(raw), Some(hash)) = (payload.signed_transaction(signed), payload.transaction_hash(signed))
    else {
        return Err(CliError::internal("only transactions are broadcast"));
    };
    node.broadcast(&raw, hash.into(), options.receipt_timeout).await
}

impl SignatureReport {
    fn new(job: JobId, made: &Made, account: Address, signature: &RecoverableSignature) -> Self {
        let payload = &made.request.payload;
        Self {
            job,
            wallet: made.request.wallet.to_string(),
            kind: payload.kind(),
            address: account.to_checksum(None),
            digest: hexadecimal(made.digest),
            signature: signature.to_string(),
            r: hexadecimal(signature.r()),
            s: hexadecimal(signature.s()),
            y_parity: signature.y_parity(),
            signed_transaction: payload.signed_transaction(signature).map(hexadecimal),
            transaction_hash: payload.transaction_hash(signature).map(hexadecimal),
            not_signed: not_signed(payload),
            receipt: None,
            result: None,
            steps: Vec::new(),
        }
    }
}

/// The signature of a job that was submitted and signed earlier.
fn already_signed(job: &JobView) -> Result<Option<RecoverableSignature>, CliError> {
    match job.state {
        JobStateName::Signed => {
            let signature = job.ending.signature.as_deref().and_then(|text| text.parse().ok());
            signature.map(Some).ok_or_else(|| {
                CliError::internal("the orchestrator reports the job as signed, but sent no signature")
            })
        }
        JobStateName::Queued
        | JobStateName::AwaitingOwner
        | JobStateName::Running
        | JobStateName::Unknown(_) => Ok(None),
        JobStateName::Failed | JobStateName::Expired | JobStateName::Cancelled => Err(job
            .ending
            .failure
            .clone()
            .map_or_else(
                || CliError::new(Code::JobExpired, format!("the job is {}", job.state)),
                CliError::from,
            )
            .job(job.id)),
    }
}

fn check(signature: &RecoverableSignature, digest: [u8; 32], account: Address) -> Result<(), CliError> {
    let signer = verify::recover(signature, digest)?;
    if signer == account {
        Ok(())
    } else {
        Err(CliError::new(Code::BadSignature, format!("the signature is not by {account}")))
    }
}

/// Approves the job and signs it. Repeats failures that may pass, until the deadline.
async fn approve(
    device: &Device,
    bus: &Bus,
    api: &ApiClient,
    made: &Made,
    job: JobId,
) -> Result<RecoverableSignature, CliError> {
    let mut pause = Duration::from_millis(50);
    loop {
        let error = match device.approve(bus, made.request.wallet, job, made.digest).await {
            Ok(signed) => return Ok(signed.signature),
            Err(error) => error,
        };
        let passing = matches!(
            error.code(),
            // The queue took the job at the same moment, or an earlier attempt has not ended.
            Code::Conflict
                | Code::NotEnrolled
                | Code::StaleEpoch
                | Code::StalePaillierKey
                | Code::NoSeat
                | Code::Overloaded
                | Code::PartyAway
                | Code::NoPairAvailable
                | Code::Deadline
        );
        if !passing || Instant::now() + pause >= api.deadline() {
            return Err(error.into());
        }
        tracing::info!(%error, "trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
        // The job may have ended: signed in an attempt whose answer was lost, expired or cancelled.
        if let Some(signature) = already_signed(&api.job(job).await?)? {
            return Ok(signature);
        }
    }
}

async fn approve_waiting(
    job: JobId,
    digest: [u8; 32],
    wallet: Option<&WalletName>,
    online: &OnlineArguments,
    output: Output,
) -> Result<(), CliError> {
    let mut steps = Steps::new(output);
    steps.begin("opened", "opening the device");
    let device = online.open_device().await?;
    let wallet = device::pick(&device, wallet).await?;
    device::require_enrolled(&wallet)?;
    steps.begin("connected", "connecting to the broker");
    let bus = online.connect().await?;
    steps.begin("signed", "signing");
    let signed =
        device.approve(&bus, wallet.id, job, digest).await.map_err(|error| CliError::from(error).job(job))?;
    bus.drain().await;
    let account = request::account(&wallet.public_key, wallet.chain_code, &signed.request.path)?;
    check(&signed.signature, digest, account)?;
    let payload = &signed.request.payload;
    output.emit(&SignatureReport {
        job,
        wallet: wallet.id.to_string(),
        kind: payload.kind(),
        address: account.to_checksum(None),
        digest: hexadecimal(digest),
        signature: signed.signature.to_string(),
        r: hexadecimal(signed.signature.r()),
        s: hexadecimal(signed.signature.s()),
        y_parity: signed.signature.y_parity(),
        signed_transaction: payload.signed_transaction(&signed.signature).map(hexadecimal),
        transaction_hash: payload.transaction_hash(&signed.signature).map(hexadecimal),
        not_signed: not_signed(payload),
        receipt: None,
        result: None,
        steps: steps.finish(),
    })
}
