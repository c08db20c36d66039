//! `duet policy`: checks, signs and shows the policies of wallets, and approves jobs.

use std::{collections::BTreeSet, fmt, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use duet_bus::Role;
use duet_wire::{
    Code, JobId, Pair, Payload,
    policy::{
        Bound, Condition, DatedApproval, Decision, Facts, MAX_POLICY_SIZE_BYTES, Policy, SpendLimit, Warning,
    },
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    broker::{self, COMMAND_PATIENCE},
    commands::{job::Access, requester},
    config::{BrokerOptions, CredentialsOptions},
    device::DeviceOptions,
    duration,
    error::{CliError, payload_error},
    input::{parse_digest, parse_key, read_document},
    output::Output,
    request::WalletName,
};

/// The deadline of calls to the orchestrator.
const BRIEF: Duration = Duration::from_secs(30);

/// A command about policies.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Try a policy on a payload, and name the rule that decides
    Check(CheckArguments),
    /// Sign a policy as the wallet's owner and give it to the wallet's parties
    Set(SetArguments),
    /// Show which policies the wallet's parties hold
    Show(ShowArguments),
    /// Approve a job that a rule asks approvals for
    Approve(ApproveArguments),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CheckArguments {
    /// The policy; - is standard input
    #[arg(value_name = "POLICY")]
    policy: PathBuf,
    /// File with the payload as a signing request has it, with its `kind`
    #[arg(long, value_name = "FILE", required_unless_present = "job", conflicts_with = "job")]
    payload: Option<PathBuf>,
    /// Check the payload and requester of this job
    #[arg(long, value_name = "JOB")]
    job: Option<JobId>,
    #[command(flatten)]
    access: Access,
    /// The requester's key [default: the job's, or none that a rule names]
    #[arg(long, value_name = "HEX", value_parser = parse_key)]
    requester: Option<[u8; 32]>,
    /// The pair that signs
    #[arg(long, value_name = "PAIR", default_value = "service+partner")]
    pair: Pair,
    /// The time, in unix seconds [default: now]
    #[arg(long, value_name = "SECONDS")]
    at: Option<u64>,
    /// The key of an approver; can be repeated
    #[arg(long = "approved-by", value_name = "HEX", value_parser = parse_key)]
    approved_by: Vec<[u8; 32]>,
    /// The owner's request key, whose approval `owner_above` requires
    #[arg(long, value_name = "HEX", value_parser = parse_key)]
    owner: Option<[u8; 32]>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ApproveArguments {
    /// The job
    job: JobId,
    /// The digest that you have seen: only this is approved
    #[arg(long, value_name = "0x…", value_parser = parse_digest)]
    digest: [u8; 32],
    /// File with your key (`duet requester new`)
    #[arg(long, env = "DUET_APPROVER_KEY", value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SetArguments {
    /// The policy; - is standard input
    #[arg(value_name = "POLICY")]
    policy: PathBuf,
    #[command(flatten)]
    online: Online,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ShowArguments {
    /// The wallet [default: the only one]
    wallet: Option<WalletName>,
    #[command(flatten)]
    online: Online,
}

/// How to open the device and reach the broker.
#[derive(Debug, Clone, Args)]
struct Online {
    #[command(flatten)]
    device: DeviceOptions,
    #[command(flatten)]
    broker: BrokerOptions,
    #[command(flatten)]
    credentials: CredentialsOptions,
}

/// Runs the command.
///
/// # Errors
/// When the policy does not parse or refuses the payload, or when a party refuses the policy.
pub(crate) async fn run(command: PolicyCommand, output: Output) -> Result<(), CliError> {
    match command {
        PolicyCommand::Check(arguments) => check(arguments, output).await,
        PolicyCommand::Approve(arguments) => approve(arguments, output).await,
        PolicyCommand::Set(arguments) => set(arguments, output).await,
        PolicyCommand::Show(arguments) => show(arguments, output).await,
    }
}

#[derive(Debug, Serialize)]
struct LimitReport {
    scope: String,
    within_s: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signatures: Option<u64>,
}

impl From<&SpendLimit> for LimitReport {
    fn from(limit: &SpendLimit) -> Self {
        Self {
            scope: limit.scope.clone(),
            within_s: limit.limit.within_s,
            value: match limit.limit.value {
                Bound::None => None,
                Bound::AtMost(most) => Some(most.to_string()),
            },
            signatures: limit.limit.signatures,
        }
    }
}

#[derive(Debug, Serialize)]
struct Allowed {
    allowed: bool,
    rule: String,
    /// The limits that a signature would count against.
    limits: Vec<LimitReport>,
    /// Rules that permit more than their author may expect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

fn write_warnings(warnings: &[Warning], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    warnings.iter().try_for_each(|warning| write!(f, "\nwarning: {}", warning.message))
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "allowed by the rule {}", self.rule)?;
        for limit in &self.limits {
            write!(f, "\n  charged to a limit of {} within {} s", limit.scope, limit.within_s)?;
        }
        write_warnings(&self.warnings, f)
    }
}

fn read_policy(file: &std::path::Path) -> Result<(Vec<u8>, Policy), CliError> {
    let document = read_document(file, MAX_POLICY_SIZE_BYTES)?;
    let policy = Policy::from_json(&document).map_err(|error| {
        let message = error.to_string();
        match &error {
            duet_wire::policy::PolicyError::Json(json) => {
                CliError::new(error.code(), message).at(json.path.clone())
            }
            _ => CliError::new(error.code(), message),
        }
    })?;
    Ok((document, policy))
}

async fn check(arguments: CheckArguments, output: Output) -> Result<(), CliError> {
    let (_, policy) = read_policy(&arguments.policy)?;
    let (payload, asks) = match (arguments.job, &arguments.payload) {
        (Some(job), _) => {
            let signed = arguments.access.client(BRIEF)?.job_request(job).await?;
            let request = signed.verify().map_err(|error| CliError::new(error.code(), error.to_string()))?;
            (request.payload, signed.requester)
        }
        (None, Some(file)) => (
            Payload::from_json(&read_document(file, duet_wire::payload::MAX_PAYLOAD_SIZE_BYTES)?)
                .map_err(payload_error)?,
            <[u8; 32]>::default(),
        ),
        (None, None) => return Err(CliError::usage("nothing to check: give --payload or --job")),
    };
    let facts = Facts {
        requester: &arguments.requester.unwrap_or(asks),
        payload: &payload,
        pair: arguments.pair,
        now_s: arguments.at.unwrap_or_else(|| duration::since_1970().as_secs()),
        owner: &arguments.owner.unwrap_or_default(),
        approved_by: &BTreeSet::from_iter(arguments.approved_by),
    };
    let decision = policy.decide(&facts);
    match (&decision, decision.refusal()) {
        (Decision::Allowed { rule, spend }, _) => {
            let limits = spend.options.first().map_or(&[][..], |option| &option.limits);
            output.emit(&Allowed {
                allowed: true,
                rule: rule.clone(),
                limits: limits.iter().map(Into::into).collect(),
                warnings: policy.warnings(),
            })
        }
        (Decision::Refused { rule, condition }, refusal) => {
            let warnings = policy.warnings();
            for Warning { message, .. } in &warnings {
                tracing::warn!("{message}");
            }
            let refused = Refused { allowed: false, rule: rule.clone(), condition: *condition, warnings };
            let details = serde_json::to_value(&refused).unwrap_or(Value::Null);
            let error = refusal.map_or_else(|| CliError::internal("a refusal without a reason"), Into::into);
            Err(error.details(details))
        }
    }
}

#[derive(Debug, Serialize)]
struct Approved {
    job: String,
    approver: String,
    parties: Vec<String>,
}

impl fmt::Display for Approved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} noted that {} approves the job {}", self.parties.join(" and "), self.approver, self.job)
    }
}

async fn approve(arguments: ApproveArguments, output: Output) -> Result<(), CliError> {
    let key = requester::read_key(&arguments.key)?;
    let api = arguments.access.client(BRIEF)?;
    let signed = api.job_request(arguments.job).await?;
    let request = signed.verify().map_err(|error| CliError::new(error.code(), error.to_string()))?;
    let digest = request.payload.digest().map_err(payload_error)?;
    if request.job() != arguments.job || digest != arguments.digest {
        return Err(CliError::new(Code::Conflict, "the job signs another digest than the one given")
            .remedy("Look at what it signs again before you approve it."));
    }
    let approval = DatedApproval::sign(signed, duration::since_1970().as_secs(), &key);
    let parties = api.approve(arguments.job, &approval).await?;
    output.emit(&Approved {
        job: arguments.job.to_string(),
        approver: hex::encode(approval.approver),
        parties,
    })
}

#[derive(Debug, Serialize)]
struct Refused {
    allowed: bool,
    rule: Option<String>,
    condition: Option<Condition>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

#[derive(Debug, Serialize)]
struct HolderReport {
    party: String,
    revision: u64,
    effective_at_ms: u64,
}

#[derive(Debug, Serialize)]
struct SetReport {
    wallet: String,
    revision: u64,
    parties: Vec<HolderReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

impl fmt::Display for SetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {} of the policy of {} is held by", self.revision, self.wallet)?;
        for holder in &self.parties {
            write!(f, "\n  {}, in effect from {}", holder.party, duration::moment(holder.effective_at_ms))?;
        }
        write_warnings(&self.warnings, f)
    }
}

async fn set(arguments: SetArguments, output: Output) -> Result<(), CliError> {
    let (document, policy) = read_policy(&arguments.policy)?;
    let Online { device, broker, credentials } = arguments.online;
    let device = device.open().await?;
    let bus = broker::connect(&broker, &credentials, Role::Gateway, COMMAND_PATIENCE).await?;
    let receipts = device.set_policy(&bus, policy.wallet, document).await?;
    bus.drain().await;
    output.emit(&SetReport {
        wallet: policy.wallet.to_string(),
        revision: policy.revision,
        warnings: policy.warnings(),
        parties: receipts
            .into_iter()
            .map(|(party, receipt)| HolderReport {
                party: party.to_string(),
                revision: receipt.revision,
                effective_at_ms: receipt.effective_at_ms,
            })
            .collect(),
    })
}

#[derive(Debug, Serialize)]
struct HeldReport {
    party: String,
    effective_at_ms: u64,
    policy: Value,
}

#[derive(Debug, Serialize)]
struct Shown {
    policies: Vec<HeldReport>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.policies.is_empty() {
            return f.write_str("no party holds a policy of this wallet");
        }
        let lines: Vec<String> = self
            .policies
            .iter()
            .map(|held| {
                format!(
                    "{}, in effect from {}:\n{:#}",
                    held.party,
                    duration::moment(held.effective_at_ms),
                    held.policy
                )
            })
            .collect();
        f.write_str(&lines.join("\n"))
    }
}

async fn show(arguments: ShowArguments, output: Output) -> Result<(), CliError> {
    let Online { device, broker, credentials } = arguments.online;
    let device = device.open().await?;
    let wallets = device.wallets().await?;
    let wallet = crate::request::WalletName::pick(arguments.wallet.as_ref(), &wallets, |wallet| {
        (wallet.id, wallet.address)
    })?
    .id;
    let bus = broker::connect(&broker, &credentials, Role::Gateway, COMMAND_PATIENCE).await?;
    let held = device.policies(&bus, wallet).await?;
    bus.drain().await;
    let mut policies = Vec::new();
    for (party, of_party) in held {
        for one in of_party {
            let policy = serde_json::from_slice(&one.policy.body)
                .map_err(|error| CliError::new(Code::PeerMisbehaved, format!("{party}: {error}")))?;
            policies.push(HeldReport {
                party: party.to_string(),
                effective_at_ms: one.effective_at_ms,
                policy,
            });
        }
    }
    output.emit(&Shown { policies })
}
