//! Parties over a real broker: key generation, sessions in every pair, refusals, locks and rotation.
//! The test itself plays the orchestrator.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(non_snake_case, reason = "test names read as sentences: subject, then what it should do")]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use duet_bus::{Address, Bus, Filter, Incoming, Role, ServeOptions, Service};
use duet_party::{
    Context, Device, Party, PartySettings, SessionLimits, Worker, WorkerSettings,
    at_rest::{Argon2Cost, KeySource, RecordKind, RecordLabel},
    compute::{Compute, system_rng},
    device::{BackendChoice, CreateProgress, CreateWallet, OnProgress},
    enrolment::Enroller,
    store::{
        Readiness, ShareStore,
        sqlite::{SqliteOptions, SqliteStore},
    },
    vault::Vault,
};
use duet_protocol::{
    arithmetic::default_arithmetic,
    card::Card,
    codec,
    enrolment::VerifiedEnrolment,
    identity::PartyKeys,
    ids::{Epoch, PaillierKeyId, PartyId, SessionId, ShareIndex, TenantId, WalletId},
    natural::Natural,
    paillier::ModulusSize,
    public_key::{ChainCode, PublicKey},
    responder::{Responder, ResponderSetup},
    share::KeyShare,
    signature, test_fixtures,
};
use duet_tests::broker::Broker;
use duet_wire::{
    Code, Invitation, InvitationReply, Manifest, Outcome, OutcomeReply, OutcomeResult, Pair, Seat,
    SignedOutcome, SignedRequest, SigningRequest, WalletInfo,
    approval::{ApprovalAction, ApprovalReply, ApprovalRequest, SignedApproval},
    signing::SigningKey,
};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};

const PATIENCE: Duration = Duration::from_secs(60);
const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 8, passes: 1, lanes: 1 };

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn name(text: &str) -> PartyId {
    text.parse().unwrap()
}

fn tenant() -> TenantId {
    "demo".parse().unwrap()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

async fn context(directory: &TempDir) -> Result<Context> {
    Ok(open(directory).await?.0)
}

async fn open(directory: &TempDir) -> Result<(Context, SqliteStore)> {
    let path = directory.path().join("store.db");
    let source = KeySource::File(directory.path().join("key"));
    let compute = Compute::per_core();
    let clock = duet_party::clock::Clock::system();
    let exists = path.exists();
    let options = SqliteOptions::at(path);
    let sqlite =
        if exists { SqliteStore::open(&options).await? } else { SqliteStore::create(&options).await? };
    let store: Arc<dyn ShareStore> = Arc::new(sqlite.clone());
    let vault = if exists {
        Vault::open(store, &source, &compute, &clock).await?
    } else {
        Vault::create(store, &source, CHEAP, &compute).await?
    };
    Ok((Context::new(vault), sqlite))
}

fn limits() -> SessionLimits {
    SessionLimits {
        round: Duration::from_secs(20),
        session: Duration::from_secs(60),
        ..SessionLimits::default()
    }
}

/// A backend party with its worker.
struct Backend {
    directory: TempDir,
    sqlite: SqliteStore,
    party: Party,
    bus: Bus,
    worker: Option<Worker>,
}

impl Backend {
    async fn make(broker: &Broker, role: Role, index: ShareIndex, which: usize) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut rng = system_rng();
        let keys = PartyKeys::generate(&mut rng);
        // Safe primes that were found beforehand: looking for them takes seconds.
        let (parameters, trapdoor) = test_fixtures::ring_pedersen(which, default_arithmetic(), &mut rng);
        let card = Card::new_verifier(name(role.as_str()), &keys, &parameters, &trapdoor, &mut rng);
        let settings = PartySettings { limits: limits(), ..PartySettings::default() };
        let (context, sqlite) = open(&directory).await?;
        let party = Party::adopt(context, keys, card, index).await?.with_settings(settings);
        let bus = broker.connect(role).await?;
        Ok(Self { directory, sqlite, party, bus, worker: None })
    }

    async fn start(&mut self) -> Result<()> {
        self.worker =
            Some(Worker::start(self.party.clone(), self.bus.clone(), WorkerSettings::default()).await?);
        Ok(())
    }

    /// Forgets the process: everything that runs is aborted, the store is opened anew.
    async fn crash(&mut self) -> Result<()> {
        drop(self.worker.take());
        let settings = PartySettings { limits: limits(), ..PartySettings::default() };
        let (context, sqlite) = open(&self.directory).await?;
        self.party = Party::open(context).await?.with_settings(settings);
        self.sqlite = sqlite;
        Ok(())
    }

    fn choice(&self) -> BackendChoice {
        BackendChoice {
            party: self.party.id().clone(),
            fingerprint: Some(self.party.card().fingerprint()),
            token: self.party.issue_token(tenant(), now_ms() / 1000 + 3600, 100),
        }
    }
}

/// Broker, service, partner, device, and an orchestrator's connection with the outcomes it hears.
struct Stage {
    broker: Broker,
    service: Backend,
    partner: Backend,
    device_directory: TempDir,
    device: Device,
    device_bus: Bus,
    orchestrator: Bus,
    outcomes: mpsc::Receiver<SignedOutcome>,
    _outcomes_service: Service,
}

impl Stage {
    async fn set() -> Result<Self> {
        let broker = Broker::start().await?;
        let mut service = Backend::make(&broker, Role::Service, ShareIndex::Service, 0).await?;
        let mut partner = Backend::make(&broker, Role::Partner, ShareIndex::Partner, 1).await?;
        service.start().await?;
        partner.start().await?;
        let device_directory = tempfile::tempdir()?;
        let device =
            Device::set_up(context(&device_directory).await?, name("device")).await?.with_limits(limits());
        let device_bus = broker.connect(Role::Gateway).await?;
        let orchestrator = broker.connect(Role::Orchestrator).await?;
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

    fn order(&self) -> CreateWallet {
        CreateWallet {
            tenant: tenant(),
            service: self.service.choice(),
            partner: self.partner.choice(),
            requesters: vec![],
            modulus: ModulusSize::Bits2048,
        }
    }

    async fn create(&self) -> Result<WalletInfo> {
        Ok(self.device.create_wallet(&self.device_bus, self.order(), Arc::new(|_| {})).await?)
    }

    async fn reopen_device(&mut self) -> Result<()> {
        self.device = Device::open(context(&self.device_directory).await?).await?.with_limits(limits());
        Ok(())
    }

    fn request(&self, wallet: &WalletInfo, path: &str, text: &str) -> SigningRequest {
        let body = serde_json::json!({
            "version": 1,
            "tenant": wallet.tenant,
            "wallet": wallet.id,
            "path": path,
            "payload": { "kind": "personal_message", "text": text },
            "idempotency_key": hex::encode(random::<16>()),
            "expires_at": now_ms() / 1000 + 600,
            "pairs": ["device+service", "device+partner", "service+partner"],
        });
        SigningRequest::from_json(body.to_string().as_bytes()).unwrap()
    }

    fn manifest(
        &self,
        wallet: &WalletInfo,
        pair: Pair,
        paillier_key: PaillierKeyId,
        request: &SigningRequest,
    ) -> Manifest {
        manifest(wallet, pair, paillier_key, request, self.device.owner_key())
    }

    /// The key that the initiator of `pair` would use now, as it says itself.
    async fn paillier_key(&self, wallet: WalletId, pair: Pair) -> Result<PaillierKeyId> {
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
    async fn enrolled(&self, wallet: WalletId) -> Result<()> {
        timeout(PATIENCE, async {
            while self.paillier_key(wallet, Pair::ServicePartner).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await?;
        Ok(())
    }

    async fn invite(&self, party: &PartyId, manifest: &[u8]) -> Result<InvitationReply> {
        let invitation = codec::encode(&Invitation { manifest: manifest.to_vec() })?;
        let reply = self.orchestrator.request(&Address::Invite(party.clone()), invitation, PATIENCE).await?;
        Ok(codec::decode(&reply)?)
    }

    /// Runs a session between the two backend parties; what the initiator reports.
    async fn run(&mut self, manifest: &Manifest) -> Result<OutcomeResult> {
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
    async fn outcome(&mut self, manifest: &Manifest, index: ShareIndex) -> Result<OutcomeResult> {
        let backend = if index == ShareIndex::Partner { &self.partner } else { &self.service };
        let card_key = *backend.party.card().identity().as_bytes();
        loop {
            let signed = timeout(PATIENCE, self.outcomes.recv()).await?.context("no more outcomes")?;
            let unverified: Outcome = codec::decode(&signed.outcome)?;
            if unverified.session == manifest.session && unverified.from == *backend.party.id() {
                return Ok(signed.verify(&card_key)?.result);
            }
        }
    }

    async fn sign_service_partner(&mut self, wallet: &WalletInfo, path: &str) -> Result<()> {
        let key = self.paillier_key(wallet.id, Pair::ServicePartner).await?;
        let request = self.request(wallet, path, "service and partner");
        let manifest = self.manifest(wallet, Pair::ServicePartner, key, &request);
        match self.run(&manifest).await? {
            OutcomeResult::Signed { signature } => verify(wallet, &request, &signature),
            other => bail!("{other:?}"),
        }
    }

    /// The device signs with the backend of `pair`; the test answers its approval as an orchestrator.
    async fn sign_device(&mut self, wallet: &WalletInfo, pair: Pair, path: &str) -> Result<()> {
        let key = self.paillier_key(wallet.id, pair).await?;
        let request = self.request(wallet, path, "device");
        let manifest = self.manifest(wallet, pair, key, &request);
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
        verify(wallet, &request, &signature.signature)
    }

    async fn all_pairs_sign(&mut self, wallet: &WalletInfo) -> Result<()> {
        self.enrolled(wallet.id).await?;
        self.sign_device(wallet, Pair::DeviceService, "m").await?;
        self.sign_device(wallet, Pair::DevicePartner, "m/7").await?;
        self.sign_service_partner(wallet, "m/0/5").await
    }
}

fn manifest(
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

fn verify(
    wallet: &WalletInfo,
    request: &SigningRequest,
    signature: &duet_wire::RecoverableSignature,
) -> Result<()> {
    let root = PublicKey::from_bytes(&wallet.public_key)?;
    let (child, _) = root.child(&ChainCode(wallet.chain_code), &request.path)?;
    let digest = request.payload.digest()?;
    signature::verify(&child, &digest, signature).map_err(|error| anyhow!("{error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pair_of_a_new_wallet__should_sign() -> Result<()> {
    let mut stage = Stage::set().await?;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    let progress: OnProgress = Arc::new(move |step| hearing.lock().unwrap().push(step));
    let wallet = stage.device.create_wallet(&stage.device_bus, stage.order(), progress).await?;
    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard.last(), Some(&CreateProgress::Ready(wallet.id)));
    assert_eq!(wallet.initiates.len(), 1, "one Paillier key for both responders");
    assert_eq!(stage.device.pending().await?, []);
    assert_eq!(stage.service.party.wallet(wallet.id).await?.address, wallet.address);
    stage.all_pairs_sign(&wallet).await?;

    // Drained workers leave in order, and what they stored is there after a restart.
    for backend in [&mut stage.service, &mut stage.partner] {
        assert!(backend.worker.take().unwrap().drain().await, "drains cleanly");
        backend.crash().await?;
        backend.start().await?;
    }
    stage.reopen_device().await?;
    stage.all_pairs_sign(&wallet).await?;
    drop(stage.broker);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_with_one_wrong_thing__should_be_refused_by_the_party_itself() -> Result<()> {
    let mut stage = Stage::set().await?;
    let wallet = stage.create().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    let request = stage.request(&wallet, "m", "checked");
    let good = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
    let owner = stage.device.owner_key().clone();
    let resigned = |request: &SigningRequest, key: &SigningKey| Manifest {
        job: request.job(),
        request: SignedRequest::sign(request.to_json().unwrap(), key),
        ..good.clone()
    };
    let with = |change: &dyn Fn(&mut SigningRequest)| {
        let mut request = request.clone();
        change(&mut request);
        resigned(&request, &owner)
    };
    let digest = serde_json::json!({ "kind": "digest", "digest": format!("0x{}", hex::encode([1; 32])) });
    let digest = duet_wire::Payload::from_json(digest.to_string().as_bytes())?;
    let mut forged = good.clone();
    forged.request.signature[0] ^= 1;
    let cases: Vec<(&str, Manifest, Code)> = vec![
        ("signature", forged, Code::BadSignature),
        ("requester", resigned(&request, &SigningKey::from_bytes(&[7; 32])), Code::RequesterNotAllowed),
        ("kind", with(&|request| request.payload = digest.clone()), Code::KindNotAllowed),
        ("tenant", with(&|request| request.tenant = "other".parse().unwrap()), Code::WrongTenant),
        ("request expiry", with(&|request| request.expires_at = now_ms() / 1000), Code::JobExpired),
        ("session expiry", Manifest { expires_at_ms: now_ms(), ..good.clone() }, Code::JobExpired),
        ("pair", with(&|request| request.pairs = vec![Pair::DeviceService]), Code::PeerMisbehaved),
        ("job", Manifest { job: duet_wire::JobId([0; 16]), ..good.clone() }, Code::PeerMisbehaved),
        ("epoch", Manifest { epoch: Epoch(1), ..good.clone() }, Code::StaleEpoch),
        (
            "Paillier key",
            Manifest { paillier_key: PaillierKeyId([0; 16]), ..good.clone() },
            Code::StalePaillierKey,
        ),
        (
            "wallet",
            Manifest { wallet: WalletId([0; 32]), ..with(&|request| request.wallet = WalletId([0; 32])) },
            Code::UnknownWallet,
        ),
        (
            "seat of the peer",
            Manifest {
                initiator: Seat { party: name("stranger"), index: ShareIndex::Service },
                ..good.clone()
            },
            Code::CardMismatch,
        ),
    ];
    for (what, manifest, expected) in cases {
        let party = good.responder.party.clone();
        match stage.invite(&party, &manifest.encode()?).await? {
            InvitationReply::Refused(refusal) => assert_eq!(refusal.code, expected, "{what}: {refusal}"),
            InvitationReply::Accepted { .. } => panic!("{what} was accepted"),
        }
    }
    // None of the refusals used the session up; but it can be used once.
    let result = stage.run(&good).await?;
    assert!(matches!(result, OutcomeResult::Signed { .. }), "{result:?}");
    for party in [&good.responder.party, &good.initiator.party] {
        match stage.invite(party, &good.encode()?).await? {
            InvitationReply::Refused(refusal) => assert_eq!(refusal.code, Code::SessionReplayed),
            InvitationReply::Accepted { .. } => panic!("a session was taken twice"),
        }
    }
    Ok(())
}

/// Interrupts a creation when `at` is heard, as a crash of the device would.
async fn interrupted(stage: &Stage, at: usize) -> Result<usize> {
    let (sender, mut events) = mpsc::unbounded_channel();
    let progress: OnProgress = Arc::new(move |step| {
        if !matches!(step, CreateProgress::Candidate | CreateProgress::Card(_) | CreateProgress::Deal(_)) {
            sender.send(step).ok();
        }
    });
    let (device, bus, order) = (stage.device.clone(), stage.device_bus.clone(), stage.order());
    let creation = tokio::spawn(async move { device.create_wallet(&bus, order, progress).await });
    let mut seen = 0;
    while let Some(step) = timeout(PATIENCE, events.recv()).await? {
        if seen == at || matches!(step, CreateProgress::Ready(_)) {
            break;
        }
        seen += 1;
    }
    creation.abort();
    creation.await.ok();
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_is_interrupted_anywhere__should_be_resumable() -> Result<()> {
    let mut stage = Stage::set().await?;
    // Stored, two receipts, two acknowledgements: a crash after each, on either side.
    for at in 0..5 {
        let seen = interrupted(&stage, at).await?;
        assert_eq!(seen, at, "interrupted where it should be");
        let backend = if at % 2 == 0 { &mut stage.service } else { &mut stage.partner };
        backend.crash().await?;
        backend.start().await?;
        stage.reopen_device().await?;
        let pending = stage.device.pending().await?;
        let finished = stage.device.resume_pending(&stage.device_bus, Arc::new(|_| {})).await?;
        for (wallet, result) in finished {
            assert!(pending.contains(&wallet));
            let wallet = result?;
            stage.all_pairs_sign(&wallet).await?;
        }
        assert_eq!(stage.device.pending().await?, []);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_beyond_the_tokens_quota__should_be_refused() -> Result<()> {
    let stage = Stage::set().await?;
    let mut order = stage.order();
    order.service.token = stage.service.party.issue_token(tenant(), now_ms() / 1000 + 60, 1);
    stage.device.create_wallet(&stage.device_bus, order.clone(), Arc::new(|_| {})).await?;
    let refused = stage.device.create_wallet(&stage.device_bus, order.clone(), Arc::new(|_| {})).await;
    assert_eq!(refused.unwrap_err().code(), Code::Quota);
    order.service.token = stage.service.party.issue_token(tenant(), now_ms() / 1000, 9);
    let refused = stage.device.create_wallet(&stage.device_bus, order.clone(), Arc::new(|_| {})).await;
    assert_eq!(refused.unwrap_err().code(), Code::AdmissionToken);
    // Somebody else's card in the service's place.
    order.service.fingerprint = Some(stage.partner.party.card().fingerprint());
    let refused = stage.device.create_wallet(&stage.device_bus, order, Arc::new(|_| {})).await;
    assert_eq!(refused.unwrap_err().code(), Code::CardMismatch);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_store__should_initiate_nothing_until_it_is_rotated() -> Result<()> {
    let mut stage = Stage::set().await?;
    let wallet = stage.create().await?;
    stage.all_pairs_sign(&wallet).await?;
    let old = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;

    // The service's store is lost and comes back from a backup.
    let SqliteBackup { directory, file } = backup(&stage.service).await?;
    drop(stage.service.worker.take());
    let restored = tempfile::tempdir()?;
    std::fs::copy(directory.path().join("key"), restored.path().join("key"))?;
    SqliteStore::restore(&file, &SqliteOptions::at(restored.path().join("store.db"))).await?.close().await;
    stage.service.directory = restored;
    stage.service.crash().await?;
    stage.service.start().await?;
    let refused = stage.sign_service_partner(&wallet, "m").await.unwrap_err();
    assert!(refused.to_string().contains("needs-rotation"), "{refused}");
    // It responds all the same.
    stage.sign_device(&wallet, Pair::DeviceService, "m").await?;

    let service = &stage.service;
    let enroller = Enroller::new(service.party.context().clone(), service.bus.clone(), ModulusSize::Bits2048);
    let rotated = enroller.rotate(service.party.identity(), None, None).await?;
    assert_eq!(rotated.len(), 1);
    let new = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    assert_ne!(new, old);
    stage.sign_service_partner(&wallet, "m").await?;

    // The device rotates the same way, while the old key still serves.
    let old = stage.paillier_key(wallet.id, Pair::DeviceService).await?;
    let new = stage.device.rotate(&stage.device_bus, wallet.id).await?;
    assert_ne!(new, old);
    let wallet = stage.device.wallet(wallet.id).await?;
    stage.all_pairs_sign(&wallet).await
}

struct SqliteBackup {
    directory: TempDir,
    file: std::path::PathBuf,
}

async fn backup(backend: &Backend) -> Result<SqliteBackup> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("backup.db");
    let store = SqliteStore::open(&SqliteOptions::at(backend.directory.path().join("store.db"))).await?;
    store.back_up(&file).await?;
    store.close().await;
    std::fs::copy(backend.directory.path().join("key"), directory.path().join("key"))?;
    Ok(SqliteBackup { directory, file })
}

/// A partner that answers with what it likes, by hand.
struct MaliciousPartner {
    identity: duet_party::Identity,
    share: Arc<KeyShare>,
    enrolment: Arc<VerifiedEnrolment>,
    service_card: Arc<Card>,
    bus: Bus,
}

impl MaliciousPartner {
    async fn of(stage: &Stage, wallet: &WalletInfo, key: PaillierKeyId) -> Result<Self> {
        let vault = &stage.partner.party.context().vault;
        let read = |kind, index, item: Vec<u8>| async move {
            let label = RecordLabel::of_wallet(kind, wallet.id, index, Epoch(0), &item);
            vault.read(&label).await?.context("no such record")
        };
        let share = read(RecordKind::Share, ShareIndex::Partner, vec![]).await?;
        let enrolment = read(RecordKind::Enrolment, ShareIndex::Service, key.as_bytes().to_vec()).await?;
        Ok(Self {
            identity: stage.partner.party.identity().clone(),
            share: Arc::new(KeyShare::from_secret_bytes(&share)?),
            enrolment: Arc::new(VerifiedEnrolment::from_trusted_bytes(&enrolment, default_arithmetic())?),
            service_card: Arc::clone(stage.service.party.card()),
            bus: stage.partner.bus.clone(),
        })
    }

    /// Plays one session up to message 3, waits for the others, and answers with the abort oracle.
    async fn attack(
        &self,
        manifest: &Manifest,
        request: &SigningRequest,
        together: Arc<tokio::sync::Barrier>,
    ) -> Result<()> {
        let filter = Filter::rounds(manifest.session, &manifest.initiator.party, &manifest.responder.party);
        let mut rounds = self.bus.subscribe_registered(&filter, PATIENCE).await?;
        together.wait().await;
        let first = timeout(PATIENCE, rounds.next()).await?.context("no message 1")?;
        let setup = ResponderSetup {
            manifest: manifest.encode()?,
            session: manifest.session,
            digest: request.payload.digest()?,
            path: request.path.clone(),
            share: Arc::clone(&self.share),
            enrolment: Arc::clone(&self.enrolment),
            keys: Arc::clone(&self.identity.keys),
            card: Arc::clone(&self.identity.card),
            initiator: Arc::clone(&self.service_card),
        };
        let (state, second) = Responder::accept(setup, &first.payload, &mut system_rng())?;
        first.respond(second).await?;
        let third = timeout(PATIENCE, rounds.next()).await?.context("no message 3")?;
        let state = state.receive(&third.payload)?;
        together.wait().await;
        // Right only if the victim's share has these 64 low bits: practically never.
        let guess = Natural::from_be_bytes(&random::<8>());
        let (fourth, _) =
            tokio::task::spawn_blocking(move || state.respond_as_abort_oracle(64, &guess, &mut system_rng()))
                .await??;
        third.respond(fourth).await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_bad_answers_at_once__should_yield_one_verdict() -> Result<()> {
    const SESSIONS: usize = 64;
    let mut stage = Stage::set().await?;
    let wallet = stage.create().await?;
    let other = stage.create().await?;
    stage.enrolled(wallet.id).await?;
    stage.enrolled(other.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    assert_eq!(key, stage.paillier_key(other.id, Pair::ServicePartner).await?, "one key serves both");

    let long = SessionLimits {
        round: Duration::from_secs(100),
        session: Duration::from_secs(110),
        ..SessionLimits::default()
    };
    drop(stage.partner.worker.take());
    drop(stage.service.worker.take());
    let party = stage.service.party.clone();
    stage.service.party = party.with_settings(PartySettings { limits: long, ..PartySettings::default() });
    let settings = WorkerSettings { sessions: 2 * SESSIONS, ..WorkerSettings::default() };
    stage.service.worker =
        Some(Worker::start(stage.service.party.clone(), stage.service.bus.clone(), settings).await?);
    // A second worker of the service, to whom half of the sessions go, with a handle of its own on the store.
    let second = Party::open(context(&stage.service.directory).await?).await?;
    let second = second.with_settings(PartySettings { limits: long, ..PartySettings::default() });
    let _second = Worker::start(second, stage.broker.connect(Role::Service).await?, settings).await?;

    let attacker = Arc::new(MaliciousPartner::of(&stage, &wallet, key).await?);
    let together = Arc::new(tokio::sync::Barrier::new(SESSIONS));
    let mut attacks = Vec::new();
    let mut manifests = Vec::new();
    for number in 0..SESSIONS {
        let request = stage.request(&wallet, "m", &format!("attack {number}"));
        let manifest = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
        let (attacker, together) = (Arc::clone(&attacker), Arc::clone(&together));
        let attacked = manifest.clone();
        attacks.push(tokio::spawn(async move { attacker.attack(&attacked, &request, together).await }));
        manifests.push(manifest);
    }
    for manifest in &manifests {
        match stage.invite(&manifest.initiator.party, &manifest.encode()?).await? {
            InvitationReply::Accepted { .. } => {}
            InvitationReply::Refused(refusal) => bail!("refused: {refusal}"),
        }
    }
    for attack in attacks {
        attack.await??;
    }
    let (mut verdicts, mut locked) = (0, 0);
    for _ in 0..SESSIONS {
        let signed = timeout(2 * PATIENCE, stage.outcomes.recv()).await?.context("no more outcomes")?;
        let outcome = signed.verify(stage.service.party.card().identity().as_bytes())?;
        match outcome.result {
            OutcomeResult::Failed { code: Code::PeerMisbehaved, culprit, .. } => {
                assert_eq!(culprit, Some(name("partner")), "the responder is blamed");
                verdicts += 1;
            }
            OutcomeResult::Failed { code: Code::Locked, culprit: None, .. } => locked += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((verdicts, locked), (1, SESSIONS - 1));

    // Every wallet under that key refuses, before and after a restart of every worker.
    stage.partner.start().await?;
    for _ in 0..2 {
        for wallet in [&wallet, &other] {
            let refused = stage.sign_service_partner(wallet, "m").await.unwrap_err();
            assert!(refused.to_string().contains("[locked]"), "{refused}");
        }
        stage.service.crash().await?;
        stage.service.start().await?;
    }
    // The lock stops initiating, not responding; and a rotation ends it.
    stage.sign_device(&wallet, Pair::DeviceService, "m").await?;
    let service = &stage.service;
    let enroller = Enroller::new(service.party.context().clone(), service.bus.clone(), ModulusSize::Bits2048);
    let rotated = enroller.rotate(service.party.identity(), None, None).await?;
    assert_eq!(rotated.first().map(|rotated| rotated.wallets), Some(2));
    for wallet in [&wallet, &other] {
        stage.sign_service_partner(wallet, "m").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_cannot_be_written__should_silence_the_party_until_it_is() -> Result<()> {
    let mut stage = Stage::set().await?;
    let wallet = stage.create().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    drop(stage.partner.worker.take());
    let attacker = MaliciousPartner::of(&stage, &wallet, key).await?;
    let request = stage.request(&wallet, "m", "attack");
    let manifest = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
    let together = Arc::new(tokio::sync::Barrier::new(2));
    let (attacked, meeting) = (manifest.clone(), Arc::clone(&together));
    let attack = tokio::spawn(async move { attacker.attack(&attacked, &request, meeting).await });
    together.wait().await;
    let accepted = stage.invite(&manifest.initiator.party, &manifest.encode()?).await?;
    assert!(matches!(accepted, InvitationReply::Accepted { .. }), "{accepted:?}");

    // The disk fails just before the bad answer arrives.
    stage.service.sqlite.refuse_writes(true).await?;
    together.wait().await;
    attack.await??;
    let becomes = |ready: bool| {
        let worker = stage.service.worker.as_ref().unwrap();
        timeout(PATIENCE, async move {
            while (worker.readiness() == Readiness::Ready) != ready {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    };
    becomes(false).await?;
    let request = stage.request(&wallet, "m", "afterwards");
    let next = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
    match stage.invite(&next.initiator.party, &next.encode()?).await? {
        InvitationReply::Refused(refusal) => assert_eq!(refusal.code, Code::StorageUnavailable),
        InvitationReply::Accepted { .. } => panic!("initiates without a store"),
    }

    // The disk works again: the lock is written before anything else happens.
    stage.service.sqlite.refuse_writes(false).await?;
    becomes(true).await?;
    match stage.invite(&next.initiator.party, &next.encode()?).await? {
        InvitationReply::Refused(refusal) => assert_eq!(refusal.code, Code::Locked),
        InvitationReply::Accepted { .. } => panic!("the lock was forgotten"),
    }
    assert!(stage.outcomes.try_recv().is_err(), "the session that could not lock said nothing");
    Ok(())
}
