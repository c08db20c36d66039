//! `duet wallet`: creates and maintains the owner's wallets on this machine.

mod backup;

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use clap::{Args, Subcommand};
use duet_bus::{Bus, Role};
use duet_party::device::{BackendChoice, CreateProgress, CreateWallet, Device, OnProgress};
use duet_protocol::{
    admission::AdmissionToken,
    codec,
    identity::IdentityKey,
    ids::{CardFingerprint, PartyId},
    keygen::KeygenStep,
    paillier::ModulusSize,
    share::Requester,
};
use duet_wire::{JobId, Payload, PayloadKindTag};
use serde::Serialize;

use self::backup::{BackupArguments, OpenArguments};
use crate::{
    broker::{self, COMMAND_PATIENCE},
    commands::{
        account::{self, AddressArguments, XpubArguments},
        culprit,
    },
    config::{BrokerOptions, CredentialsOptions, TenantOptions},
    device::{self, DeviceOptions, WalletReport},
    error::CliError,
    input::parse_key,
    output::Output,
    parties::{self, ListedParty},
    progress::{StepTiming, Steps},
    request::WalletName,
    secrets,
};

/// A command about wallets.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum WalletCommand {
    /// Make a key on this machine and give service and partner their shares
    Create(CreateArguments),
    /// Finish creations that were interrupted
    Resume(OnlineArguments),
    /// List the wallets of this machine
    List {
        #[command(flatten)]
        device: DeviceOptions,
    },
    /// Show one wallet
    Show {
        /// The wallet [default: the only one]
        wallet: Option<WalletName>,
        #[command(flatten)]
        device: DeviceOptions,
    },
    /// Print addresses of a wallet's accounts, m/0/0 and on, each of which signs under its path
    Address(AddressArguments),
    /// Print a wallet's extended public key, from which other programs derive its addresses.
    ///
    /// It is not secret, but keep it from strangers: it links all accounts below it. Together with
    /// the private key of one of these accounts, it gives the private key of the whole wallet.
    Xpub(XpubArguments),
    /// Make a new Paillier key for a wallet: this ends a lock, but no quarantine
    Rotate {
        /// The wallet [default: the only one]
        wallet: Option<WalletName>,
        #[command(flatten)]
        online: OnlineArguments,
    },
    /// Write a backup file of this machine's part in a wallet, under a passphrase
    Backup(BackupArguments),
    /// Open a backup file as a restore would, and note that it works
    Rehearse(OpenArguments),
    /// Put a wallet back from its backup file; it signs nothing before `rotate`
    Restore(OpenArguments),
    /// Sign again with a party whose bad signature locked a key; its next bad signature is final
    AcceptCulprit {
        /// The fingerprint of that party's card
        #[arg(value_name = "CARD")]
        card: CardFingerprint,
        #[command(flatten)]
        device: DeviceOptions,
    },
    /// List the jobs that wait for the owner
    Waiting {
        /// The wallet [default: the only one]
        wallet: Option<WalletName>,
        #[command(flatten)]
        online: OnlineArguments,
    },
    /// Refuse a job that waits for the owner, for good
    Reject {
        /// The job
        job: JobId,
        /// The wallet [default: the only one]
        #[arg(long, value_name = "WALLET")]
        wallet: Option<WalletName>,
        #[command(flatten)]
        online: OnlineArguments,
    },
}

/// How to open the device and reach the broker.
#[derive(Debug, Clone, Args)]
pub(crate) struct OnlineArguments {
    #[command(flatten)]
    device: DeviceOptions,
    #[command(flatten)]
    broker: BrokerOptions,
    #[command(flatten)]
    credentials: CredentialsOptions,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CreateArguments {
    #[command(flatten)]
    tenant: TenantOptions,
    /// File that lists the parties, as the page has it (config.json): the role, name and
    /// fingerprint of each, and optionally an admission token
    #[arg(
        long,
        env = "DUET_PARTIES",
        value_name = "FILE",
        conflicts_with_all = ["service", "service_fingerprint", "partner", "partner_fingerprint"],
        help_heading = "Parties"
    )]
    parties: Option<PathBuf>,
    /// The party that gets share 2
    #[arg(long, value_name = "NAME", default_value = "service", help_heading = "Parties")]
    service: PartyId,
    /// The fingerprint of its card, from its organisation [default: the pinned one]
    #[arg(long, env = "DUET_SERVICE_FINGERPRINT", value_name = "HEX", help_heading = "Parties")]
    service_fingerprint: Option<CardFingerprint>,
    /// File with its admission token
    #[arg(
        long,
        env = "DUET_SERVICE_TOKEN_FILE",
        value_name = "FILE",
        required_unless_present = "parties",
        help_heading = "Parties"
    )]
    service_token_file: Option<PathBuf>,
    /// The party that gets share 3
    #[arg(long, value_name = "NAME", default_value = "partner", help_heading = "Parties")]
    partner: PartyId,
    /// The fingerprint of its card, from its organisation [default: the pinned one]
    #[arg(long, env = "DUET_PARTNER_FINGERPRINT", value_name = "HEX", help_heading = "Parties")]
    partner_fingerprint: Option<CardFingerprint>,
    /// File with its admission token
    #[arg(
        long,
        env = "DUET_PARTNER_TOKEN_FILE",
        value_name = "FILE",
        required_unless_present = "parties",
        help_heading = "Parties"
    )]
    partner_token_file: Option<PathBuf>,
    /// A further request key, and the kinds it may ask for (transaction, personal_message,
    /// typed_data, digest) [default kinds: all but digest]; can be repeated
    #[arg(long = "requester", value_name = "HEX[=KIND,…]")]
    requesters: Vec<RequesterArgument>,
    /// Allow the owner to sign bare digests as well
    #[arg(long)]
    allow_digests: bool,
    #[command(flatten)]
    online: OnlineArguments,
}

/// A request key and the kinds of payload it may ask for.
#[derive(Debug, Clone)]
struct RequesterArgument(Requester);

impl FromStr for RequesterArgument {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, kinds) = text.split_once('=').map_or((text, None), |(key, kinds)| (key, Some(kinds)));
        let key = IdentityKey::from_bytes(&parse_key(key)?).map_err(|error| error.to_string())?;
        let Some(kinds) = kinds else { return Ok(Self(Requester::new(key))) };
        let kinds = kinds.split(',').map(parse_kind).collect::<Result<Vec<_>, _>>()?;
        Ok(Self(Requester { key, kinds }))
    }
}

fn parse_kind(text: &str) -> Result<PayloadKindTag, String> {
    match text.trim() {
        "transaction" => Ok(PayloadKindTag::Transaction),
        "personal_message" => Ok(PayloadKindTag::PersonalMessage),
        "typed_data" => Ok(PayloadKindTag::TypedData),
        "digest" => Ok(PayloadKindTag::Digest),
        other => Err(format!("`{other}` is no kind: transaction, personal_message, typed_data, digest")),
    }
}

#[derive(Debug, Serialize)]
struct Created {
    wallet: WalletReport,
    steps: Vec<StepTiming>,
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.wallet.fmt(f)
    }
}

#[derive(Debug, Serialize)]
struct Resumed {
    wallets: Vec<WalletReport>,
    steps: Vec<StepTiming>,
}

impl fmt::Display for Resumed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wallets.is_empty() {
            return f.write_str("nothing was interrupted");
        }
        write_all(f, &self.wallets)
    }
}

#[derive(Debug, Serialize)]
struct Listed {
    wallets: Vec<WalletReport>,
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wallets.is_empty() {
            return f.write_str("no wallets");
        }
        write_all(f, &self.wallets)
    }
}

fn write_all(f: &mut fmt::Formatter<'_>, wallets: &[WalletReport]) -> fmt::Result {
    let wallets: Vec<String> = wallets.iter().map(ToString::to_string).collect();
    f.write_str(&wallets.join("\n"))
}

#[derive(Debug, Serialize)]
struct Shown {
    wallet: WalletReport,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.wallet.fmt(f)
    }
}

#[derive(Debug, Serialize)]
struct Rotated {
    wallet: String,
    paillier_key: String,
}

impl fmt::Display for Rotated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wallet {} has the Paillier key {} now", self.wallet, self.paillier_key)
    }
}

#[derive(Debug, Serialize)]
struct WaitingJobReport {
    id: JobId,
    created_at_ms: u64,
    requester: String,
    digest: String,
    payload: Payload,
}

#[derive(Debug, Serialize)]
struct WaitingJobs {
    jobs: Vec<WaitingJobReport>,
}

impl fmt::Display for WaitingJobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.jobs.is_empty() {
            return f.write_str("no jobs wait");
        }
        for job in &self.jobs {
            let payload = serde_json::to_string(&job.payload).map_err(|_| fmt::Error)?;
            writeln!(f, "{} asked for by {}\n  {payload}", job.id, job.requester)?;
        }
        Ok(())
    }
}

#[derive(Debug, Serialize)]
struct Rejected {
    job: JobId,
    rejected: bool,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {} is refused for good", self.job)
    }
}

impl OnlineArguments {
    /// Opens the device.
    ///
    /// # Errors
    /// When there is no device, or when the key does not open it.
    pub(crate) async fn open_device(&self) -> Result<Device, CliError> {
        self.device.open().await
    }

    /// The options of the credentials directory, for its other files.
    pub(crate) const fn credentials(&self) -> &CredentialsOptions {
        &self.credentials
    }

    /// Connects to the broker as the device.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses the credential.
    pub(crate) async fn connect(&self) -> Result<Bus, CliError> {
        broker::connect(&self.broker, &self.credentials, Role::Gateway, COMMAND_PATIENCE).await
    }
}

/// Runs the command.
///
/// # Errors
/// When the store, the broker or a party fails.
pub(crate) async fn run(command: WalletCommand, output: Output) -> Result<(), CliError> {
    match command {
        WalletCommand::Create(arguments) => create(arguments, output).await,
        WalletCommand::Resume(online) => resume(online, output).await,
        WalletCommand::List { device } => {
            let device = device.open().await?;
            let mut wallets = Vec::new();
            for wallet in device.wallets().await? {
                wallets.push(WalletReport::in_full(&device, &wallet).await?);
            }
            output.emit(&Listed { wallets })
        }
        WalletCommand::Show { wallet, device } => {
            let device = device.open().await?;
            let wallet = device::pick(&device, wallet.as_ref()).await?;
            output.emit(&Shown { wallet: WalletReport::in_full(&device, &wallet).await? })
        }
        WalletCommand::Backup(arguments) => backup::backup(arguments, output).await,
        WalletCommand::Rehearse(arguments) => backup::rehearse(arguments, output).await,
        WalletCommand::Restore(arguments) => backup::restore(arguments, output).await,
        WalletCommand::Address(arguments) => {
            let wallet = device::pick(&arguments.device.open().await?, arguments.wallet.as_ref()).await?;
            account::address(&wallet, &arguments, output)
        }
        WalletCommand::Xpub(arguments) => {
            let wallet = device::pick(&arguments.device.open().await?, arguments.wallet.as_ref()).await?;
            account::xpub(&wallet, arguments.path, output)
        }
        WalletCommand::AcceptCulprit { card, device } => {
            culprit::accept(device.open().await?.context(), card, output).await
        }
        WalletCommand::Rotate { wallet, online } => {
            let device = online.device.open().await?;
            let wallet = device::pick(&device, wallet.as_ref()).await?;
            let bus = online.connect().await?;
            let key = device.rotate(&bus, wallet.id).await?;
            bus.drain().await;
            output.emit(&Rotated { wallet: wallet.id.to_string(), paillier_key: key.to_string() })
        }
        WalletCommand::Waiting { wallet, online } => waiting(wallet.as_ref(), &online, output).await,
        WalletCommand::Reject { job, wallet, online } => {
            let device = online.device.open().await?;
            let wallet = device::pick(&device, wallet.as_ref()).await?;
            let bus = online.connect().await?;
            device.reject(&bus, wallet.id, job).await.map_err(|error| CliError::from(error).job(job))?;
            bus.drain().await;
            output.emit(&Rejected { job, rejected: true })
        }
    }
}

async fn create(arguments: CreateArguments, output: Output) -> Result<(), CliError> {
    let tokens = [&arguments.service_token_file, &arguments.partner_token_file];
    let [service_token, partner_token] = tokens.map(|file| file.as_deref().map(read_token).transpose());
    let (service_token, partner_token) = (service_token?, partner_token?);
    let listed = arguments.parties.as_deref().map(parties::read).transpose()?;
    let device = arguments.online.device.open_or_make().await?;
    let [service, partner] = match listed {
        Some(listed) => [listed.service, listed.partner],
        None => [
            named(&device, arguments.service, arguments.service_fingerprint, "--service-fingerprint").await?,
            named(&device, arguments.partner, arguments.partner_fingerprint, "--partner-fingerprint").await?,
        ],
    };
    let service = backend(service, service_token, "--service-token-file")?;
    let partner = backend(partner, partner_token, "--partner-token-file")?;
    let mut requesters: Vec<Requester> = arguments.requesters.into_iter().map(|given| given.0).collect();
    if arguments.allow_digests {
        requesters.insert(0, device.owner()?.with_digest());
    }
    let order = CreateWallet {
        tenant: arguments.tenant.tenant,
        service,
        partner,
        requesters,
        modulus: ModulusSize::default(),
    };
    let bus = arguments.online.connect().await?;
    let steps = SharedSteps::new(output);
    let created = device.create_wallet(&bus, order, steps.listener()).await.map_err(|error| {
        CliError::from(error)
            .remedy("If shares were given out already, `duet wallet resume` finishes the creation.")
    })?;
    bus.drain().await;
    output.emit(&Created { wallet: WalletReport::from(&created), steps: steps.finish() })
}

async fn resume(online: OnlineArguments, output: Output) -> Result<(), CliError> {
    let device = online.device.open().await?;
    if device.pending().await?.is_empty() {
        return output.emit(&Resumed { wallets: Vec::new(), steps: Vec::new() });
    }
    let bus = online.connect().await?;
    let steps = SharedSteps::new(output);
    let mut wallets = Vec::new();
    let mut failure = None;
    for (wallet, resumed) in device.resume_pending(&bus, steps.listener()).await? {
        match resumed {
            Ok(info) => wallets.push(WalletReport::from(&info)),
            Err(error) => {
                tracing::warn!(%wallet, %error, "not finished");
                failure = Some(CliError::from(error));
            }
        }
    }
    bus.drain().await;
    match failure {
        Some(error) => Err(error.remedy("Repeat `duet wallet resume` when the party answers again.")),
        None => output.emit(&Resumed { wallets, steps: steps.finish() }),
    }
}

async fn waiting(
    wallet: Option<&WalletName>,
    online: &OnlineArguments,
    output: Output,
) -> Result<(), CliError> {
    let device = online.device.open().await?;
    let wallet = device::pick(&device, wallet).await?;
    let bus = online.connect().await?;
    let mut jobs = Vec::new();
    for job in device.waiting_jobs(&bus, wallet.id).await? {
        // Verify what the requester signed. A request that fails is not shown as if it were valid.
        let Ok(request) = job.request.verify() else {
            tracing::warn!(job = %job.job, "the request of this job does not hold; not shown");
            continue;
        };
        let digest = request.payload.digest().map_err(crate::error::payload_error)?;
        jobs.push(WaitingJobReport {
            id: job.job,
            created_at_ms: job.created_at_ms,
            requester: hex::encode(job.request.requester),
            digest: format!("0x{}", hex::encode(digest)),
            payload: request.payload,
        });
    }
    bus.drain().await;
    output.emit(&WaitingJobs { jobs })
}

/// A party named by this command, with its card's fingerprint: from this command, or pinned before.
async fn named(
    device: &Device,
    party: PartyId,
    fingerprint: Option<CardFingerprint>,
    flag: &str,
) -> Result<ListedParty, CliError> {
    let pinned = match fingerprint {
        Some(given) => Some(given),
        None => device.context().vault.store().pinned_card(&party).await?,
    };
    let fingerprint = pinned.ok_or_else(|| {
        CliError::usage(format!("no fingerprint of the card of {party} is given")).remedy(format!(
            "Get the fingerprint from the organisation that runs it (`duet party card` shows it there), and give {flag}, \
             or list both parties in a file and give --parties."
        ))
    })?;
    Ok(ListedParty { party, fingerprint, token: None })
}

/// A party with the admission token of this command, or else of the configuration.
fn backend(
    listed: ListedParty,
    token: Option<AdmissionToken>,
    flag: &str,
) -> Result<BackendChoice, CliError> {
    let ListedParty { party, fingerprint, token: configured } = listed;
    let token = token.or(configured).ok_or_else(|| {
        CliError::usage(format!("{party} takes new wallets only with an admission token"))
            .remedy(format!("Its operator makes one with `duet party token`; give its file as {flag}."))
    })?;
    Ok(BackendChoice { party, fingerprint, token })
}

fn read_token(file: &Path) -> Result<AdmissionToken, CliError> {
    let text = secrets::read_line_file(file)?;
    let none = |problem: &dyn fmt::Display| {
        CliError::input(format!("{} does not hold an admission token: {problem}", file.display()))
            .remedy("The party's operator makes one with `duet party token`.")
    };
    let bytes = hex::decode(text.trim()).map_err(|error| none(&error))?;
    codec::decode(&bytes).map_err(|error| none(&error))
}

/// The steps of a creation. Any thread may report progress to them.
struct SharedSteps(Arc<Mutex<Option<Steps>>>);

impl SharedSteps {
    fn new(output: Output) -> Self {
        Self(Arc::new(Mutex::new(Some(Steps::new(output)))))
    }

    fn listener(&self) -> OnProgress {
        let steps = Arc::clone(&self.0);
        Arc::new(move |progress| {
            let Some((name, sentence)) = step_of(&progress) else { return };
            let mut steps = steps.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(steps) = steps.as_mut() {
                steps.continue_or_begin(name, sentence);
            }
        })
    }

    fn finish(self) -> Vec<StepTiming> {
        let steps = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        steps.map(Steps::finish).unwrap_or_default()
    }
}

/// The step that this progress begins or continues.
fn step_of(progress: &CreateProgress) -> Option<(&'static str, &'static str)> {
    Some(match progress {
        CreateProgress::Card(_) => ("cards", "cards of service and partner, with their proofs"),
        CreateProgress::Deal(KeygenStep::Shares) => ("shares", "key and shares"),
        CreateProgress::Deal(KeygenStep::PaillierKey) => ("paillier_key", "Paillier key"),
        CreateProgress::Deal(KeygenStep::Proofs(_)) => ("proofs", "proofs for the receivers"),
        CreateProgress::Deal(KeygenStep::Sealing(_)) => ("sealing", "sealing the packages"),
        CreateProgress::Stored(_) => ("prepare", "service and partner verify and store"),
        CreateProgress::Committed(_) => ("commit", "service and partner commit"),
        CreateProgress::Ready(_) => ("ready", "stored on this machine"),
        CreateProgress::Candidate | CreateProgress::Prepared(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requesters_have_all_kinds_but_digests_unless_they_are_named() {
        // The public key of RFC 8032, test 1.
        let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let kinds = |text: &str| text.parse::<RequesterArgument>().map(|given| given.0.kinds);
        use PayloadKindTag::{Digest, PersonalMessage, Transaction, TypedData};
        assert_eq!(kinds(key), Ok(vec![Transaction, PersonalMessage, TypedData]));
        assert_eq!(kinds(&format!("{key}=transaction,digest")), Ok(vec![Transaction, Digest]));
        assert!(kinds(&format!("{key}=everything")).is_err());
        assert!(kinds("d75a").is_err());
    }
}
