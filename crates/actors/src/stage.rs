//! Parties in the test's process, over a real broker, with the test as the orchestrator. For tests
//! that reach into a party, take a worker away, or take a party's place.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use duet_adversary::test_fixtures;
use duet_bus::{
    Address, Bus, Filter, Incoming, RequestError, Role, ServeOptions, Service, streams::StorageSettings,
};
use duet_harness::{
    broker::Broker,
    folders::{copy_folder, kept_folder},
};
use duet_party::{
    Context, Device, Party, PartySettings, SessionLimits, Worker, WorkerSettings,
    compute::system_rng,
    device::{BackendChoice, CreateWallet},
    key_encryption::KeyFile,
    store::{
        RecordStore as _, ShareStore,
        sqlite::{SqliteOptions, SqliteStore},
    },
    vault::Vault,
};
use duet_protocol::{
    arithmetic::default_arithmetic,
    card::Card,
    codec,
    identity::PartyKeys,
    ids::{PaillierKeyId, PartyId, SessionId, ShareIndex, TenantId, WalletId},
    paillier::ModulusSize,
    public_key::{ChainCode, PublicKey},
    signature,
};
use duet_wire::{
    Code, Invitation, InvitationReply, Manifest, Outcome, OutcomeReply, OutcomeResult, Pair, Release, Seat,
    SignedOutcome, SignedRequest, SigningRequest, WalletInfo,
    approval::{ApprovalAction, ApprovalReply, ApprovalRequest, SignedApproval},
    signing::SigningKey,
};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};

use crate::held_gate::HeldGate;

/// The name of the owner's device.
const DEVICE: &str = "device";

/// The longest wait.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The present time, in Unix milliseconds.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A party's id.
///
/// # Panics
/// When the text is no party id.
#[must_use]
pub fn name(text: &str) -> PartyId {
    text.parse().unwrap()
}

/// The tenant of all wallets.
///
/// # Panics
/// Never.
#[must_use]
pub fn tenant() -> TenantId {
    "demo".parse().unwrap()
}

/// Random bytes from the operating system.
///
/// # Panics
/// When it provides none.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

async fn context(directory: &TempDir) -> Result<Context> {
    Ok(open(directory).await?.0)
}

async fn open(directory: &TempDir) -> Result<(Context, SqliteStore, HeldGate)> {
    let path = directory.path().join("store.db");
    let source = KeyFile::at(directory.path().join("key"));
    let clock = duet_party::clock::Clock::system();
    let exists = path.exists();
    let options = SqliteOptions::at(path);
    let sqlite =
        if exists { SqliteStore::open(&options).await? } else { SqliteStore::create(&options).await? };
    let gate = HeldGate::new(Arc::new(sqlite.clone()));
    let store: Arc<dyn ShareStore> = Arc::new(gate.clone());
    let vault = if exists {
        Vault::open(store, &source, &clock).await?
    } else {
        Vault::create(store, &source).await?
    };
    Ok((Context::new(vault), sqlite, gate))
}

/// Limits longer than the defaults, for busy machines.
#[must_use]
pub fn limits() -> SessionLimits {
    SessionLimits {
        round: Duration::from_secs(20),
        session: Duration::from_secs(60),
        ..SessionLimits::default()
    }
}

/// A party's settings, with these limits.
fn settings() -> PartySettings {
    PartySettings { limits: limits(), ..PartySettings::default() }
}

/// A backend party with its worker.
#[derive(Debug)]
pub struct Backend {
    /// The directory of its store and of the key that opens the store.
    pub directory: TempDir,
    /// Its share store.
    pub sqlite: SqliteStore,
    /// The gate between its worker and that store, which a test can hold shut.
    pub gate: HeldGate,
    /// The party itself.
    pub party: Party,
    /// Its connection to the broker.
    pub bus: Bus,
    /// Its worker, while it runs.
    pub worker: Option<Worker>,
}

impl Backend {
    /// A new party.
    async fn make(broker: &Broker, role: Role, index: ShareIndex, which: usize) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut rng = system_rng();
        let keys = PartyKeys::generate(&mut rng);
        // These safe primes were found in advance, because a search takes seconds.
        let (parameters, trapdoor) = test_fixtures::ring_pedersen(which, default_arithmetic(), &mut rng);
        let card = Card::new_verifier(name(role.as_str()), &keys, &parameters, &trapdoor, &mut rng);
        let (context, sqlite, gate) = open(&directory).await?;
        let party = Party::adopt(context, keys, card, index).await?.with_settings(settings());
        let bus = broker.connect(role).await?;
        Ok(Self { directory, sqlite, gate, party, bus, worker: None })
    }

    /// A copy of the party in `folder`.
    async fn copy_of(folder: &Path, broker: &Broker, role: Role) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        copy_folder(&folder.join(role.as_str()), directory.path())?;
        let (context, sqlite, gate) = open(&directory).await?;
        let party = Party::open(context).await?.with_settings(settings());
        let bus = broker.connect(role).await?;
        Ok(Self { directory, sqlite, gate, party, bus, worker: None })
    }

    /// Starts a worker.
    ///
    /// # Errors
    /// When it cannot serve.
    pub async fn start(&mut self) -> Result<()> {
        self.worker =
            Some(Worker::start(self.party.clone(), self.bus.clone(), WorkerSettings::default()).await?);
        Ok(())
    }

    /// Simulates a crash of its process: aborts everything that runs, and opens the store again.
    ///
    /// # Errors
    /// When the store does not open.
    pub async fn crash(&mut self) -> Result<()> {
        drop(self.worker.take());
        let (context, sqlite, gate) = open(&self.directory).await?;
        self.party = Party::open(context).await?.with_settings(settings());
        self.sqlite = sqlite;
        self.gate = gate;
        Ok(())
    }

    /// Another worker of the same party. It has its own connections to the share store, as another
    /// process would.
    ///
    /// # Errors
    /// When the store does not open or the worker cannot serve.
    pub async fn another_worker(&self) -> Result<Worker> {
        let party = self.once_more(limits()).await?;
        Ok(Worker::start(party, self.bus.clone(), WorkerSettings::default()).await?)
    }

    /// This party, with its own connections to the share store.
    ///
    /// # Errors
    /// When the store does not open.
    pub async fn once_more(&self, limits: SessionLimits) -> Result<Party> {
        let party = Party::open(context(&self.directory).await?).await?;
        Ok(party.with_settings(PartySettings { limits, ..PartySettings::default() }))
    }

    fn choice(&self) -> BackendChoice {
        BackendChoice {
            party: self.party.id().clone(),
            fingerprint: self.party.card().fingerprint(),
            token: self.party.issue_token(tenant(), now_ms() / 1000 + 3600, 100),
        }
    }
}

/// Broker, service, partner, device, and an orchestrator's connection with the outcomes that it
/// receives.
#[derive(Debug)]
pub struct Stage {
    /// The broker.
    pub broker: Broker,
    /// The party with share 2.
    pub service: Backend,
    /// The party with share 3.
    pub partner: Backend,
    device_directory: TempDir,
    /// The owner's device, with share 1.
    pub device: Device,
    /// The device's connection, with a gateway's role.
    pub device_bus: Bus,
    /// An orchestrator's connection.
    pub orchestrator: Bus,
    /// The outcomes that the parties report. Each report has been acknowledged.
    pub outcomes: mpsc::Receiver<SignedOutcome>,
    _outcomes_service: Service,
}

impl Stage {
    /// Starts everything.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn set() -> Result<Self> {
        Ok(Box::pin(Self::with_new_parties()).await?.0)
    }

    /// Also returns the device's store.
    async fn with_new_parties() -> Result<(Self, SqliteStore)> {
        let broker = Broker::start().await?;
        let service = Backend::make(&broker, Role::Service, ShareIndex::Service, 0).await?;
        let partner = Backend::make(&broker, Role::Partner, ShareIndex::Partner, 1).await?;
        let directory = tempfile::tempdir()?;
        let (context, store, _) = open(&directory).await?;
        let device = Device::set_up(context, name(DEVICE)).await?;
        let stage = Box::pin(Self::start(broker, [service, partner], directory, device)).await?;
        Ok((stage, store))
    }

    /// Starts everything with a wallet of which every pair can sign. Parties and wallet are copies
    /// of kept ones, and the broker is new.
    ///
    /// # Errors
    /// When something does not start, or when the kept wallet cannot be made.
    pub async fn with_wallet() -> Result<(Self, WalletInfo)> {
        let kept = kept_folder(&std::env::current_exe()?, "stage", async |folder| {
            Box::pin(Self::keep(folder)).await
        })
        .await?;
        let broker = Broker::start().await?;
        let service = Backend::copy_of(&kept, &broker, Role::Service).await?;
        let partner = Backend::copy_of(&kept, &broker, Role::Partner).await?;
        let directory = tempfile::tempdir()?;
        copy_folder(&kept.join(DEVICE), directory.path())?;
        let device = Device::open(context(&directory).await?).await?;
        let wallet = device.wallets().await?.pop().context("the kept device has no wallet")?;
        let stage = Box::pin(Self::start(broker, [service, partner], directory, device)).await?;
        Ok((stage, wallet))
    }

    /// Makes parties with a wallet, and copies their files to `folder`.
    async fn keep(folder: &Path) -> Result<()> {
        let (stage, store) = Box::pin(Self::with_new_parties()).await?;
        let wallet = stage.create().await?;
        stage.enrolled(wallet.id).await?;
        let Self { service, partner, device_directory, device, .. } = stage;
        drop(device);
        store.close().await;
        copy_folder(device_directory.path(), &folder.join(DEVICE))?;
        for Backend { directory, sqlite, party, worker, .. } in [service, partner] {
            worker.context("it runs")?.drain().await;
            sqlite.close().await;
            copy_folder(directory.path(), &folder.join(party.id().as_str()))?;
        }
        Ok(())
    }

    async fn start(
        broker: Broker,
        [mut service, mut partner]: [Backend; 2],
        device_directory: TempDir,
        device: Device,
    ) -> Result<Self> {
        let orchestrator = broker.connect(Role::Orchestrator).await?;
        orchestrator.ensure_streams(&StorageSettings::default()).await?;
        service.start().await?;
        partner.start().await?;
        let device = device.with_limits(limits());
        let device_bus = broker.connect(Role::Gateway).await?;
        let (sender, outcomes) = mpsc::channel(256);
        let outcomes_service = orchestrator
            .serve(Filter::outcomes(), ServeOptions::waiting(64), move |message: Incoming| {
                let sender = sender.clone();
                async move {
                    let outcome: SignedOutcome = codec::decode(&message.payload).unwrap();
                    let reply = codec::encode(&OutcomeReply::Acknowledged).unwrap();
                    sender.send(outcome).await.unwrap();
                    message.respond(reply).await.unwrap();
                }
            })
            .await?;
        Ok(Self {
            broker,
            service,
            partner,
            device_directory,
            device,
            device_bus,
            orchestrator,
            outcomes,
            _outcomes_service: outcomes_service,
        })
    }

    /// An order for a new wallet.
    #[must_use]
    pub fn order(&self) -> CreateWallet {
        CreateWallet {
            tenant: tenant(),
            service: self.service.choice(),
            partner: self.partner.choice(),
            requesters: vec![],
            modulus: ModulusSize::Bits2048,
        }
    }

    /// Creates a wallet.
    ///
    /// # Errors
    /// When the creation fails.
    pub async fn create(&self) -> Result<WalletInfo> {
        Ok(self.device.create_wallet(&self.device_bus, self.order(), Arc::new(|_| {})).await?)
    }

    /// The database of the device's share store.
    #[must_use]
    pub fn device_database(&self) -> PathBuf {
        self.device_directory.path().join("store.db")
    }

    /// Forgets the device's process and opens its store anew.
    ///
    /// # Errors
    /// When the store does not open.
    pub async fn reopen_device(&mut self) -> Result<()> {
        self.device = Device::open(context(&self.device_directory).await?).await?.with_limits(limits());
        Ok(())
    }

    /// A request to sign a message, by any pair.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn request(&self, wallet: &WalletInfo, path: &str, text: &str) -> SigningRequest {
        self.request_for(wallet, path, &serde_json::json!({ "kind": "personal_message", "text": text }))
    }

    /// A request to sign a payload, by any pair.
    ///
    /// # Panics
    /// When the payload is invalid.
    #[must_use]
    pub fn request_for(
        &self,
        wallet: &WalletInfo,
        path: &str,
        payload: &serde_json::Value,
    ) -> SigningRequest {
        let body = serde_json::json!({
            "version": 2,
            "tenant": wallet.tenant,
            "wallet": wallet.id,
            "path": path,
            "payload": payload,
            "idempotency_key": hex::encode(random::<16>()),
            "issued_at": now_ms() / 1000,
            "expires_at": now_ms() / 1000 + 600,
            "pairs": ["device+service", "device+partner", "service+partner"],
        });
        SigningRequest::from_json(body.to_string().as_bytes()).unwrap()
    }

    /// The manifest of a session, with the request signed by the owner.
    #[must_use]
    pub fn manifest(
        &self,
        wallet: &WalletInfo,
        pair: Pair,
        paillier_key: PaillierKeyId,
        request: &SigningRequest,
    ) -> Manifest {
        manifest(wallet, pair, paillier_key, request, self.device.owner_key())
    }

    /// The key that the initiator of `pair` would use now, from its own answer.
    ///
    /// # Errors
    /// When it is not enrolled.
    pub async fn paillier_key(&self, wallet: WalletId, pair: Pair) -> Result<PaillierKeyId> {
        let info = match pair.initiator() {
            ShareIndex::Device => self.device.wallet(wallet).await?,
            _ => self.service.party.wallet(wallet).await?,
        };
        let responder = info.party(pair.responder()).context("a backup")?.party.clone();
        info.initiates
            .iter()
            .find(|initiates| initiates.responders.contains(&responder))
            .map(|initiates| initiates.paillier_key)
            .context("not enrolled")
    }

    /// Waits until the service has enrolled with the partner, which it does by itself.
    ///
    /// # Errors
    /// After a minute.
    pub async fn enrolled(&self, wallet: WalletId) -> Result<()> {
        timeout(PATIENCE, async {
            while self.paillier_key(wallet, Pair::ServicePartner).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await?;
        Ok(())
    }

    /// Invites one worker of a party.
    ///
    /// # Errors
    /// When no reply comes.
    pub async fn invite(&self, party: &PartyId, manifest: &[u8]) -> Result<InvitationReply> {
        let invitation = codec::encode(&Invitation { manifest: manifest.to_vec() })?;
        let reply = self.orchestrator.request(&Address::Invite(party.clone()), invitation, PATIENCE).await?;
        Ok(InvitationReply::read(&reply)?.0)
    }

    /// Takes a worker's seat back, as an orchestrator does.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn release(&self, party: &PartyId, instance: &str, session: SessionId) -> Result<()> {
        let address = Address::Release { party: party.clone(), instance: instance.parse()? };
        self.orchestrator.publish(&address, codec::encode(&Release { session })?).await?;
        Ok(self.orchestrator.sync(PATIENCE).await?)
    }

    /// Invites a party, and waits until one of its workers is in its queue group.
    ///
    /// # Errors
    /// When no worker joins in time, or when the answer does not parse.
    pub async fn invite_when_present(&self, party: &PartyId, manifest: &[u8]) -> Result<InvitationReply> {
        let invitation = codec::encode(&Invitation { manifest: manifest.to_vec() })?;
        let address = Address::Invite(party.clone());
        let reply = self.orchestrator.request_resending(&address, invitation, PATIENCE).await?;
        Ok(InvitationReply::read(&reply)?.0)
    }

    /// Invites a party with a failing store until none of its workers is in its queue group.
    ///
    /// # Errors
    /// When an answer is anything but that the store fails.
    pub async fn invite_until_absent(&self, party: &PartyId, manifest: &[u8]) -> Result<()> {
        let invitation = codec::encode(&Invitation { manifest: manifest.to_vec() })?;
        let address = Address::Invite(party.clone());
        loop {
            // An invitation to a worker that was just leaving is lost.
            match self.orchestrator.request(&address, invitation.clone(), Duration::from_secs(2)).await {
                Err(RequestError::NoResponders { .. }) => return Ok(()),
                Err(RequestError::TimedOut { .. }) => {}
                reply => match InvitationReply::read(&reply?)?.0 {
                    InvitationReply::Refused(refusal) if refusal.code == Code::StorageUnavailable => {}
                    reply => bail!("{party} answered {reply:?}"),
                },
            }
        }
    }

    /// Runs a session between the two backend parties. Returns the outcome that the initiator
    /// reports.
    ///
    /// # Errors
    /// When a party refuses the invitation, or when no report comes.
    pub async fn run(&mut self, manifest: &Manifest) -> Result<OutcomeResult> {
        let bytes = manifest.encode()?;
        for party in [&manifest.responder.party, &manifest.initiator.party] {
            match self.invite(party, &bytes).await? {
                InvitationReply::Accepted { .. } => {}
                InvitationReply::Refused(refusal) => bail!("{party} refused: {refusal}"),
            }
        }
        self.outcome(manifest, ShareIndex::Service).await
    }

    /// The outcome that the party of `index` reports on a session.
    ///
    /// # Errors
    /// When no report comes.
    pub async fn outcome(&mut self, manifest: &Manifest, index: ShareIndex) -> Result<OutcomeResult> {
        let mut outcomes = self.outcomes_of(std::slice::from_ref(manifest), index).await?;
        Ok(outcomes.remove(0))
    }

    /// The outcomes that the party of `index` reports on sessions, in the order of the reports.
    ///
    /// # Errors
    /// When a report does not come.
    pub async fn outcomes_of(
        &mut self,
        manifests: &[Manifest],
        index: ShareIndex,
    ) -> Result<Vec<OutcomeResult>> {
        let backend = if index == ShareIndex::Partner { &self.partner } else { &self.service };
        let card_key = *backend.party.card().identity().as_bytes();
        let mut outcomes = Vec::new();
        while outcomes.len() < manifests.len() {
            let signed = timeout(PATIENCE, self.outcomes.recv()).await?.context("no more outcomes")?;
            let unverified: Outcome = codec::decode(&signed.outcome)?;
            let is_asked = manifests.iter().any(|manifest| manifest.session == unverified.session);
            if is_asked && unverified.from == *backend.party.id() {
                outcomes.push(signed.verify(&card_key)?.result);
            }
        }
        Ok(outcomes)
    }

    /// Signs with service and partner.
    ///
    /// # Errors
    /// When they do not sign, or when the signature is invalid.
    pub async fn sign_service_partner(&mut self, wallet: &WalletInfo, path: &str) -> Result<()> {
        let key = self.paillier_key(wallet.id, Pair::ServicePartner).await?;
        let request = self.request(wallet, path, "service and partner");
        let manifest = self.manifest(wallet, Pair::ServicePartner, key, &request);
        match self.run(&manifest).await? {
            OutcomeResult::Signed { signature } => verify(wallet, &request, &signature),
            other => bail!("{other:?}"),
        }
    }

    /// Signs a message with the device and the backend of `pair`.
    ///
    /// # Errors
    /// When the pair does not sign.
    pub async fn sign_device(&mut self, wallet: &WalletInfo, pair: Pair, path: &str) -> Result<()> {
        let request = self.request(wallet, path, "device");
        self.approve(wallet, pair, &request).await
    }

    /// Signs a request with the device and the backend of `pair`. The test answers the approval as
    /// an orchestrator.
    ///
    /// # Errors
    /// When the pair does not sign. If the device does not, the error is a
    /// [`PartyError`](duet_party::PartyError).
    pub async fn approve(&mut self, wallet: &WalletInfo, pair: Pair, request: &SigningRequest) -> Result<()> {
        let key = self.paillier_key(wallet.id, pair).await?;
        let manifest = self.manifest(wallet, pair, key, request);
        let mut approvals = self.orchestrator.subscribe_registered(&Filter::approvals(), PATIENCE).await?;
        let (device, bus) = (self.device.clone(), self.device_bus.clone());
        let (id, job, digest) = (wallet.id, request.job(), request.payload.digest()?);
        let signing = tokio::spawn(async move { device.approve(&bus, id, job, digest).await });

        let approval = timeout(PATIENCE, approvals.next()).await?.context("no approval")?;
        let signed: SignedApproval = codec::decode(&approval.payload)?;
        let device_key = wallet.party(ShareIndex::Device).context("no device")?.signing_key;
        let asked: ApprovalRequest = signed.verify(&device_key, now_ms())?;
        ensure!(asked.action == ApprovalAction::Approve { job }, "{asked:?}");
        let bytes = manifest.encode()?;
        match self.invite(&manifest.responder.party, &bytes).await? {
            InvitationReply::Accepted { .. } => {}
            InvitationReply::Refused(refusal) => bail!("refused: {refusal}"),
        }
        approval.respond(codec::encode(&ApprovalReply::Session { manifest: bytes })?).await?;
        let signature = signing.await??;
        verify(wallet, request, &signature.signature)
    }

    /// Signs with every pair.
    ///
    /// # Errors
    /// When a pair does not sign.
    pub async fn all_pairs_sign(&mut self, wallet: &WalletInfo) -> Result<()> {
        self.enrolled(wallet.id).await?;
        self.sign_device(wallet, Pair::DeviceService, "m").await?;
        self.sign_device(wallet, Pair::DevicePartner, "m/7").await?;
        self.sign_service_partner(wallet, "m/0/5").await
    }
}

/// The manifest of a session, with the request signed by `requester`.
///
/// # Panics
/// When a seat of the pair has no holder in this wallet.
#[must_use]
pub fn manifest(
    wallet: &WalletInfo,
    pair: Pair,
    paillier_key: PaillierKeyId,
    request: &SigningRequest,
    requester: &SigningKey,
) -> Manifest {
    let seat = |index| Seat { party: wallet.party(index).unwrap().party.clone(), index };
    Manifest {
        session: SessionId(random()),
        job: request.job(),
        attempt: 1,
        wallet: wallet.id,
        epoch: wallet.epoch,
        paillier_key,
        initiator: seat(pair.initiator()),
        responder: seat(pair.responder()),
        request: SignedRequest::sign(request.to_json().unwrap(), requester),
        expires_at_ms: now_ms() + 120_000,
    }
}

/// Checks that a signature is the wallet's, over the request.
///
/// # Errors
/// When it is not.
pub fn verify(
    wallet: &WalletInfo,
    request: &SigningRequest,
    signature: &duet_wire::RecoverableSignature,
) -> Result<()> {
    let root = PublicKey::from_bytes(&wallet.public_key)?;
    let (child, _) = root.child(&ChainCode(wallet.chain_code), &request.path)?;
    let digest = request.payload.digest()?;
    signature::verify(&child, &digest, signature).map_err(|error| anyhow!("{error}"))
}
