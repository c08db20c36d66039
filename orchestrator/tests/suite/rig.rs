//! A real broker, a real orchestrator, and parties that follow a script. The parties exchange the
//! real messages with real keys over the broker. But one of them signs alone, with the whole key.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use duet_bus::{
    Address, Bus, Filter, Incoming, Role, ServeOptions, Service, Subscription,
    kv::{self, Bucket, Entry, Key},
    streams::StorageSettings,
};
use duet_harness::broker::Broker;
use duet_orchestrator::{
    ApiServer, Config, PartyEntry, TenantAccess, TokenHash,
    api::{EndPage, EndView, JobView},
};
use duet_protocol::{
    codec::{self, Message as _},
    ids::{CardFingerprint, Epoch, PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId},
    public_key::PublicKey,
    signature::{self, RecoverableSignature},
};
use duet_wire::{
    Code, Invitation, InvitationReply, JobId, JobRecord, JobStateName, Manifest, Outcome, OutcomeReply,
    OutcomeResult, PayloadKindTag, Refusal, Release, SignedOutcome, SignedRequest, TenantId, WalletInfo,
    approval::{ApprovalAction, ApprovalReply, ApprovalRequest, SignedApproval},
    card_request::{CardReply, CardRequest},
    invite::TimeRefusal,
    progress::{Progress, Step},
    remembered::{Recall, Recalled, Remembered},
    revocation::{RevocationProof, RevocationReply, SignedRevocation},
    signing::SigningKey,
    wallet::{Initiates, InitiatorState, RequesterInfo, RespondsTo, WalletParty, WalletStatus},
};
use futures::StreamExt as _;
use k256::ecdsa::signature::hazmat::RandomizedPrehashSigner as _;
use prometheus_client::registry::Registry;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// The longest wait of any test.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The tenant's bearer token.
pub(crate) const TOKEN: &str = "the tenant's token";

/// The bearer token of the tenant `other`.
pub(crate) const OTHER_TOKEN: &str = "another token";

pub(crate) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn ed25519(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// What the scripted initiator does in its next session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Accepts, and reports a signature.
    Sign,
    /// Accepts, and reports a different valid signature than [`Act::Sign`] does.
    SignAfresh,
    /// Accepts, and reports a signature over another digest.
    SignAnotherDigest,
    /// Accepts, and reports a failure.
    Fail(Code),
    /// Accepts, and reports nothing: the test gets the manifest.
    Hold,
    /// Refuses the invitation.
    Refuse(Code),
    /// Accepts once the test permits it, which may be too late.
    Late,
    /// Refuses the invitation because the session has expired by its own clock, which is this many
    /// milliseconds ahead.
    Ahead(u64),
}

/// A wallet whose whole key the test has.
pub(crate) struct Wallet {
    pub(crate) id: WalletId,
    key: k256::ecdsa::SigningKey,
    chain_code: [u8; 32],
}

impl Wallet {
    fn new(number: u8) -> Self {
        let key = k256::ecdsa::SigningKey::from_slice(&[number; 32]).unwrap();
        Self { id: WalletId([number; 32]), key, chain_code: [number ^ 0xff; 32] }
    }

    pub(crate) fn public_key(&self) -> [u8; 33] {
        self.key.verifying_key().to_sec1_point(true).as_bytes().try_into().unwrap()
    }

    pub(crate) fn address(&self) -> [u8; 20] {
        PublicKey::from_bytes(&self.public_key()).unwrap().address()
    }

    pub(crate) fn sign(&self, digest: &[u8; 32]) -> RecoverableSignature {
        let (signature, recovery) = self.key.sign_prehash_recoverable(digest);
        let (r, s) = signature.split_bytes();
        RecoverableSignature::new(r.into(), s.into(), recovery.is_y_odd()).unwrap()
    }

    /// A signature with another nonce than [`Self::sign`] uses.
    fn sign_afresh(&self, digest: &[u8; 32]) -> RecoverableSignature {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        let mut rng = ChaCha20Rng::from_seed(seed);
        let made: k256::ecdsa::Signature = self.key.sign_prehash_with_rng(&mut rng, digest).unwrap();
        let (r, s) = made.split_bytes();
        let key = PublicKey::from_bytes(&self.public_key()).unwrap();
        let both = [false, true].map(|odd| RecoverableSignature::new(r.into(), s.into(), odd).unwrap());
        both.into_iter().find(|one| signature::verify(&key, digest, one).is_ok()).unwrap()
    }
}

/// The state that all scripted parties share.
pub(crate) struct World {
    pub(crate) wallet: Wallet,
    /// The wallet of the tenant `other`.
    pub(crate) other_wallet: Wallet,
    pub(crate) tenant: Mutex<TenantId>,
    pub(crate) requester: SigningKey,
    pub(crate) script: Mutex<VecDeque<Act>>,
    pub(crate) initiator_state: Mutex<InitiatorState>,
    pub(crate) held: mpsc::UnboundedSender<Manifest>,
    pub(crate) invited: mpsc::UnboundedSender<PartyId>,
    /// Permits [`Act::Late`] to accept.
    pub(crate) late: Notify,
    /// The party that does not know the wallet.
    pub(crate) ignorant: Mutex<Option<ShareIndex>>,
    /// The party that claims another key for every wallet.
    pub(crate) liar: Mutex<Option<ShareIndex>>,
    /// The revocations that the parties keep: the party, and the hash of the request.
    pub(crate) revoked: Mutex<Vec<(ShareIndex, [u8; 32])>>,
    /// How many revocations they refuse first, because their stores fail.
    pub(crate) busy: AtomicU32,
    /// What the parties remember of the broker.
    pub(crate) remembered: Mutex<Vec<Remembered>>,
}

impl World {
    pub(crate) fn card(&self, index: ShareIndex) -> SigningKey {
        ed25519(100 + u8::from(index))
    }

    /// The wallet of a session.
    fn wallet_of(&self, id: WalletId) -> &Wallet {
        if id == self.other_wallet.id { &self.other_wallet } else { &self.wallet }
    }

    fn info(&self, speaker: ShareIndex, wallet: &Wallet) -> WalletInfo {
        let holder = |name: &str, index| {
            Some(WalletParty {
                party: name.parse().unwrap(),
                card: CardFingerprint([u8::from(index); 32]),
                signing_key: self.card(index).verifying_key().to_bytes(),
            })
        };
        let (device_key, service_key) = (PaillierKeyId([1; 16]), PaillierKeyId([2; 16]));
        let from_device = RespondsTo { initiator: ShareIndex::Device, paillier_key: device_key };
        let from_service = RespondsTo { initiator: ShareIndex::Service, paillier_key: service_key };
        let (responds_to, initiates) = if speaker == ShareIndex::Partner {
            (vec![from_device, from_service], vec![])
        } else {
            let initiates = Initiates {
                paillier_key: service_key,
                responders: vec!["partner".parse().unwrap()],
                state: *self.initiator_state.lock().unwrap(),
            };
            (vec![from_device], vec![initiates])
        };
        WalletInfo {
            id: wallet.id,
            epoch: Epoch(0),
            public_key: wallet.public_key(),
            chain_code: wallet.chain_code,
            address: wallet.address(),
            tenant: if wallet.id == self.other_wallet.id {
                "other".parse().unwrap()
            } else {
                self.tenant.lock().unwrap().clone()
            },
            parties: [
                holder("device", ShareIndex::Device),
                holder("service", ShareIndex::Service),
                holder("partner", ShareIndex::Partner),
            ],
            requesters: vec![RequesterInfo {
                key: self.requester.verifying_key().to_bytes(),
                kinds: vec![
                    PayloadKindTag::Transaction,
                    PayloadKindTag::PersonalMessage,
                    PayloadKindTag::TypedData,
                ],
            }],
            index: speaker,
            status: WalletStatus::Committed,
            responds_to,
            initiates,
        }
    }
}

/// Reports how a session ended, as the role of `bus`, signed with `key`, in the name of `from`.
pub(crate) async fn report(
    bus: &Bus,
    key: &SigningKey,
    from: &PartyId,
    manifest: &Manifest,
    result: OutcomeResult,
) -> OutcomeReply {
    let outcome = Outcome {
        session: manifest.session,
        job: manifest.job,
        attempt: manifest.attempt,
        from: from.clone(),
        result,
    };
    let signed = SignedOutcome::sign(&outcome, key).unwrap();
    let address = Address::Outcome { session: manifest.session, from: from.clone() };
    let reply = bus.request_resending(&address, codec::encode(&signed).unwrap(), DEADLINE).await.unwrap();
    codec::decode(&reply).unwrap()
}

/// The signature that a session should make.
pub(crate) fn signature_for(world: &World, manifest: &Manifest) -> RecoverableSignature {
    let request = manifest.request.verify().unwrap();
    assert!(request.path.is_root(), "the scripted parties know the root key only");
    world.wallet_of(manifest.wallet).sign(&request.payload.digest().unwrap())
}

async fn play_invitation(world: Arc<World>, bus: Bus, me: PartyId, index: ShareIndex, incoming: Incoming) {
    let invitation: Invitation = codec::decode(&incoming.payload).unwrap();
    let manifest = Manifest::decode(&invitation.manifest).unwrap();
    manifest.verify(now_ms()).unwrap();
    world.invited.send(me.clone()).unwrap();
    let initiates = manifest.initiator.party == me;
    assert!(initiates || manifest.responder.party == me, "invited to a session of others");
    let act =
        if initiates { world.script.lock().unwrap().pop_front().unwrap_or(Act::Sign) } else { Act::Hold };
    if act == Act::Late {
        world.late.notified().await;
    }
    if let Act::Ahead(ahead_ms) = act {
        let refusal = Refusal::new(Code::JobExpired, "the session is over here");
        let reply = TimeRefusal { refusal, now_ms: now_ms() + ahead_ms };
        return incoming.respond(codec::encode(&reply).unwrap()).await.unwrap();
    }
    let reply = match act {
        Act::Refuse(code) => InvitationReply::Refused(Refusal::new(code, "as the script says")),
        _ => InvitationReply::Accepted { instance: "scripted".to_owned() },
    };
    incoming.respond(codec::encode(&reply).unwrap()).await.unwrap();
    if !initiates {
        return;
    }
    let progress = Progress { session: manifest.session, step: Step::Sent { message: 1 }, at_ms: now_ms() };
    let events = Address::Event { session: manifest.session, from: (&me).into() };
    bus.publish(&events, progress.to_json()).await.unwrap();
    let result = match act {
        Act::Sign => OutcomeResult::Signed { signature: signature_for(&world, &manifest) },
        Act::SignAfresh => {
            let request = manifest.request.verify().unwrap();
            let signature = world.wallet.sign_afresh(&request.payload.digest().unwrap());
            OutcomeResult::Signed { signature }
        }
        Act::SignAnotherDigest => OutcomeResult::Signed { signature: world.wallet.sign(&[9; 32]) },
        Act::Fail(code) => {
            OutcomeResult::Failed { code, culprit: None, message: "as the script says".to_owned() }
        }
        Act::Hold | Act::Refuse(_) | Act::Late | Act::Ahead(_) => {
            world.held.send(manifest).ok();
            return;
        }
    };
    // If the orchestrator was killed in the meantime, no answer comes.
    report(&bus, &world.card(index), &me, &manifest, result).await;
}

async fn play_card_request(world: Arc<World>, index: ShareIndex, incoming: Incoming) {
    if incoming.payload.first() == Some(&SignedRevocation::KIND) {
        let SignedRevocation { request, proof } = codec::decode(&incoming.payload).unwrap();
        proof.verify(request.verify().unwrap().wallet, request.content_hash()).unwrap();
        let is_busy = world.busy.fetch_update(SeqCst, SeqCst, |busy| busy.checked_sub(1)).is_ok();
        let reply = if is_busy {
            RevocationReply::Refused(Refusal::new(Code::StorageUnavailable, "as the test says"))
        } else {
            world.revoked.lock().unwrap().push((index, request.content_hash()));
            RevocationReply::Kept
        };
        return incoming.respond(codec::encode(&reply).unwrap()).await.unwrap();
    }
    if incoming.payload.first() == Some(&Recall::KIND) {
        let recalled = Recalled { remembered: world.remembered.lock().unwrap().clone() };
        return incoming.respond(codec::encode(&recalled).unwrap()).await.unwrap();
    }
    let is_ignorant = *world.ignorant.lock().unwrap() == Some(index);
    let reply = match codec::decode::<CardRequest>(&incoming.payload).unwrap() {
        CardRequest::Wallet { .. } if is_ignorant => {
            CardReply::Refused(Refusal::new(Code::UnknownWallet, "as the test says"))
        }
        CardRequest::Wallet { id } if id == world.wallet.id || id == world.other_wallet.id => {
            let mut info = world.info(index, world.wallet_of(id));
            if *world.liar.lock().unwrap() == Some(index) {
                info.public_key = Wallet::new(99).public_key();
                info.address = Wallet::new(99).address();
            }
            CardReply::Wallet { wallet: Box::new(info) }
        }
        CardRequest::Wallets { after, .. } => {
            let wallets = if after.is_none() { vec![world.info(index, &world.wallet)] } else { vec![] };
            CardReply::Wallets { wallets, more: false }
        }
        _ => CardReply::Refused(Refusal::new(Code::UnknownWallet, "not here")),
    };
    incoming.respond(codec::encode(&reply).unwrap()).await.unwrap();
}

/// A scripted party that is subscribed.
pub(crate) struct Party {
    pub(crate) bus: Bus,
    pub(crate) name: PartyId,
    index: ShareIndex,
    world: Arc<World>,
    cards: Option<Service>,
    invitations: Option<Service>,
    /// The releases of its seats.
    pub(crate) releases: Subscription,
}

impl Party {
    /// Leaves the queue group of invitations.
    pub(crate) async fn stop_taking_part(&mut self) {
        if let Some(invitations) = self.invitations.take() {
            invitations.drain(DEADLINE).await;
            self.bus.sync(DEADLINE).await.unwrap();
        }
    }

    /// Leaves every queue group, as a party whose only worker restarts.
    pub(crate) async fn leave(&mut self) {
        self.stop_taking_part().await;
        if let Some(cards) = self.cards.take() {
            cards.drain(DEADLINE).await;
            self.bus.sync(DEADLINE).await.unwrap();
        }
    }

    /// Joins the queue groups that it left.
    pub(crate) async fn come_back(&mut self) {
        let (world, index) = (Arc::clone(&self.world), self.index);
        let on_card = move |incoming| play_card_request(Arc::clone(&world), index, incoming);
        if self.cards.is_none() {
            let cards = self.bus.serve(Filter::cards(&self.name), ServeOptions::waiting(8), on_card).await;
            self.cards = Some(cards.unwrap());
        }
        if self.invitations.is_none() {
            self.invitations = Some(self.take_invitations(Filter::invites(&self.name)).await);
        }
    }

    /// Takes invitations to the one worker `scripted` in place of those to any worker.
    pub(crate) async fn take_part_by_name(&mut self) {
        self.stop_taking_part().await;
        let filter = Filter::invites_to(&self.name, &"scripted".parse().unwrap());
        self.invitations = Some(self.take_invitations(filter).await);
    }

    async fn take_invitations(&self, filter: Filter) -> Service {
        let (world, bus, me, index) =
            (Arc::clone(&self.world), self.bus.clone(), self.name.clone(), self.index);
        let on_invitation =
            move |incoming| play_invitation(Arc::clone(&world), bus.clone(), me.clone(), index, incoming);
        self.bus.serve(filter, ServeOptions::waiting(64), on_invitation).await.unwrap()
    }

    /// The session of the next release of one of its seats.
    pub(crate) async fn released(&mut self) -> SessionId {
        let message = timeout(DEADLINE, self.releases.next()).await.unwrap().unwrap();
        codec::decode::<Release>(&message.payload).unwrap().session
    }
}

async fn party(world: &Arc<World>, broker: &Broker, role: Role, index: ShareIndex) -> Party {
    let bus = broker.connect(role).await.unwrap();
    let name: PartyId = role.as_str().parse().unwrap();
    let filter = Filter::releases(&name, &"scripted".parse().unwrap());
    let releases = bus.subscribe_registered(&filter, DEADLINE).await.unwrap();
    let world = Arc::clone(world);
    let mut party = Party { bus, name, index, world, cards: None, invitations: None, releases };
    party.come_back().await;
    party
}

/// A running orchestrator.
pub(crate) struct Running {
    pub(crate) url: String,
    metrics: Registry,
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Running {
    /// The value of a metric without labels.
    pub(crate) fn metric(&self, name: &str) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}: {text}")).to_owned()
    }

    /// Ends it as a crash would.
    pub(crate) async fn crash(self) {
        self.task.abort();
        self.task.await.ok();
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        timeout(DEADLINE, self.task).await.unwrap().unwrap();
    }
}

/// The whole rig.
pub(crate) struct Rig {
    pub(crate) broker: Broker,
    pub(crate) world: Arc<World>,
    pub(crate) service: Party,
    pub(crate) partner: Party,
    pub(crate) device: Bus,
    pub(crate) held: mpsc::UnboundedReceiver<Manifest>,
    pub(crate) invited: mpsc::UnboundedReceiver<PartyId>,
    pub(crate) http: reqwest::Client,
    config: Config,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A rig whose orchestrators have the configuration that `adjust` makes.
    pub(crate) async fn with(adjust: impl FnOnce(&mut Config)) -> Self {
        let broker = Broker::start().await.unwrap();
        let (held_sender, held) = mpsc::unbounded_channel();
        let (invited_sender, invited) = mpsc::unbounded_channel();
        let world = Arc::new(World {
            wallet: Wallet::new(7),
            other_wallet: Wallet::new(8),
            tenant: Mutex::new("demo".parse().unwrap()),
            requester: ed25519(50),
            script: Mutex::default(),
            initiator_state: Mutex::new(InitiatorState::Ready),
            held: held_sender,
            invited: invited_sender,
            late: Notify::new(),
            ignorant: Mutex::default(),
            liar: Mutex::default(),
            revoked: Mutex::default(),
            busy: AtomicU32::default(),
            remembered: Mutex::default(),
        });
        let access = |tenant: &str, token: &str| TenantAccess {
            tenant: tenant.parse().unwrap(),
            tokens: vec![TokenHash::of(token)],
        };
        let tenants = vec![access("demo", TOKEN), access("other", OTHER_TOKEN)];
        let mut config =
            Config::new(broker.settings(Role::Orchestrator).unwrap(), tenants, ed25519(60)).unwrap();
        assert_eq!(config.parties.len(), 2);
        config.parties.iter().for_each(|PartyEntry { party, .. }| assert_ne!(party.as_str(), "device"));
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.storage.job_ack_wait = Duration::from_secs(1);
        config.queue.retry_pause = Duration::from_millis(10);
        config.queue.give_up_after = Duration::ZERO;
        config.queue.sweep_interval = Duration::from_millis(100);
        config.queue.announce_after = Duration::from_millis(500);
        adjust(&mut config);
        let service = party(&world, &broker, Role::Service, ShareIndex::Service).await;
        let partner = party(&world, &broker, Role::Partner, ShareIndex::Partner).await;
        let device = broker.connect(Role::Gateway).await.unwrap();
        let http = duet_harness::anvil::http_client().unwrap();
        Self { broker, world, service, partner, device, held, invited, http, config }
    }

    pub(crate) fn result_key(&self) -> [u8; 32] {
        self.config.result_key.verifying_key().to_bytes()
    }

    /// Starts an orchestrator. Several may run at once.
    pub(crate) async fn start(&self) -> Running {
        let server = Box::pin(ApiServer::bind(self.config.clone())).await.unwrap();
        let url = format!("http://{}", server.address());
        let mut metrics = Registry::default();
        server.register_metrics(&mut metrics);
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let stop = stop.clone();
            async move { server.serve(stop).await.unwrap() }
        });
        Running { url, metrics, task, stop }
    }

    /// Sets what the initiator does in the next sessions.
    pub(crate) fn script(&self, acts: &[Act]) {
        self.world.script.lock().unwrap().extend(acts);
    }

    /// A permitted request that is valid for an hour.
    pub(crate) fn request(&self, key: &str, pairs: &[&str]) -> Value {
        json!({
            "version": 2,
            "tenant": "demo",
            "wallet": self.world.wallet.id.to_string(),
            "payload": {"kind": "personal_message", "text": format!("pay for {key}")},
            "idempotency_key": key,
            "issued_at": now_ms() / 1000,
            "expires_at": now_ms() / 1000 + 3600,
            "pairs": pairs,
        })
    }

    /// A permitted request of the tenant `other`.
    pub(crate) fn other_request(&self, key: &str, pairs: &[&str]) -> Value {
        let mut request = self.request(key, pairs);
        request["tenant"] = json!("other");
        request["wallet"] = json!(self.world.other_wallet.id.to_string());
        request
    }

    /// `request`, signed by its requester.
    pub(crate) fn signed(&self, request: &Value) -> SignedRequest {
        SignedRequest::sign(serde_json::to_vec(request).unwrap(), &self.world.requester)
    }

    /// Submits `request`, signed by its requester.
    pub(crate) async fn submit(&self, url: &str, request: &Value) -> Response {
        self.submit_as(url, TOKEN, request["idempotency_key"].as_str().unwrap(), self.signed(request)).await
    }

    /// Submits `request` with a priority, as the tenant that it names.
    pub(crate) async fn submit_urgently(&self, url: &str, request: &Value, priority: &str) -> Response {
        let token = if request["tenant"] == "other" { OTHER_TOKEN } else { TOKEN };
        self.submission(url, token, request["idempotency_key"].as_str().unwrap(), self.signed(request))
            .header("Duet-Priority", priority)
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn submit_as(
        &self,
        url: &str,
        token: &str,
        key: &str,
        signed: SignedRequest,
    ) -> Response {
        self.submission(url, token, key, signed).send().await.unwrap()
    }

    pub(crate) fn submission(
        &self,
        url: &str,
        token: &str,
        key: &str,
        signed: SignedRequest,
    ) -> RequestBuilder {
        self.http
            .post(format!("{url}/v1/jobs"))
            .bearer_auth(token)
            .header("Idempotency-Key", key)
            .header("Duet-Requester", hex::encode(signed.requester))
            .header("Duet-Signature", hex::encode(signed.signature))
            .body(signed.body)
            .timeout(DEADLINE)
    }

    /// Submits `request`, which must be accepted.
    pub(crate) async fn accepted(&self, url: &str, request: &Value) -> JobView {
        self.accepted_urgently(url, request, "normal").await
    }

    /// Submits `request` with a priority. It must be accepted.
    pub(crate) async fn accepted_urgently(&self, url: &str, request: &Value, priority: &str) -> JobView {
        let response = self.submit_urgently(url, request, priority).await;
        let status = response.status();
        let body = response.text().await.unwrap();
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) async fn get(&self, url: &str, path: &str) -> Response {
        self.http.get(format!("{url}{path}")).bearer_auth(TOKEN).timeout(DEADLINE).send().await.unwrap()
    }

    pub(crate) async fn cancel(&self, url: &str, job: &JobView) -> Response {
        let path = format!("{url}/v1/jobs/{}/cancel", job.id);
        self.http.post(path).bearer_auth(TOKEN).timeout(DEADLINE).send().await.unwrap()
    }

    /// A revocation of a job's request, signed with `key`.
    pub(crate) async fn revocation(&self, url: &str, job: &JobView, key: &SigningKey) -> RevocationProof {
        let answer = self.get(url, &format!("/v1/jobs/{}/request", job.id)).await;
        let request: SignedRequest = answer.json().await.unwrap();
        RevocationProof::sign(job.wallet, request.content_hash(), key)
    }

    /// Cancels a job with a revocation.
    pub(crate) async fn revoke(&self, url: &str, job: &JobView, proof: &RevocationProof) -> Response {
        let path = format!("{url}/v1/jobs/{}/cancel", job.id);
        self.http.post(path).bearer_auth(TOKEN).timeout(DEADLINE).json(proof).send().await.unwrap()
    }

    /// Opens a job's event stream.
    pub(crate) async fn events(&self, url: &str, job: &JobView) -> Events {
        let token = if job.tenant.as_str() == "other" { OTHER_TOKEN } else { TOKEN };
        self.event_stream(&format!("{url}/v1/jobs/{}/events", job.id), token, "12345").await
    }

    /// Opens an event stream after the cursor `last`.
    pub(crate) async fn event_stream(&self, url: &str, token: &str, last: &str) -> Events {
        let mut request = self.http.get(url).bearer_auth(token);
        if !last.is_empty() {
            request = request.header("Last-Event-ID", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { chunks: response.bytes_stream().boxed(), buffer: String::new() }
    }

    /// The bucket of jobs, as orchestrators use it.
    pub(crate) async fn bucket(&self) -> Bucket<JobRecord> {
        let bus = self.broker.connect(Role::Orchestrator).await.unwrap();
        bus.ensure_bucket(kv::JOBS, &StorageSettings::default()).await.unwrap()
    }

    /// Waits until the ends of jobs are published and recorded as published. Before that, an
    /// orchestrator may publish an end again. The stream drops the second one, but a subscriber of
    /// the subject receives both. Returns the jobs' entries.
    pub(crate) async fn told(&self, jobs: impl IntoIterator<Item = &JobView>) -> Vec<Entry<JobRecord>> {
        let bucket = self.bucket().await;
        let mut entries = Vec::new();
        for job in jobs {
            let key = Key::from((&job.tenant, job.id));
            let noted = async {
                loop {
                    let entry = bucket.get(&key).await.unwrap().unwrap();
                    if entry.value.end_published_at_ms.is_some() {
                        return entry;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            entries.push(timeout(DEADLINE, noted).await.unwrap());
        }
        entries
    }

    /// The jobs of these ends. Each end must contain a result that the orchestrator signed.
    pub(crate) fn with_results(&self, ends: &[EndView]) -> Vec<JobId> {
        let result = |end: &EndView| end.ending.result.as_ref().unwrap().verify(&self.result_key()).unwrap();
        ends.iter().map(|end| result(end).job).collect()
    }

    /// Every end of a tenant's jobs, from the first on.
    pub(crate) async fn ends(&self, url: &str, token: &str) -> Vec<EndView> {
        let request = self.http.get(format!("{url}/v1/results?limit=200")).bearer_auth(token);
        let page: EndPage = request.timeout(DEADLINE).send().await.unwrap().json().await.unwrap();
        page.results
    }

    /// Lets the held session of the initiator end with its signature.
    pub(crate) async fn release(&self, manifest: &Manifest) {
        let signed = OutcomeResult::Signed { signature: signature_for(&self.world, manifest) };
        let key = self.world.card(ShareIndex::Service);
        let reply = report(&self.service.bus, &key, &self.service.name, manifest, signed).await;
        assert_eq!(reply, OutcomeReply::Acknowledged);
    }

    /// Follows a job until it has ended.
    pub(crate) async fn settled(&self, url: &str, job: &JobView) -> JobView {
        let mut events = self.events(url, job).await;
        let mut last = None;
        while let Some((name, data)) = events.next().await {
            if name == "state" {
                last = Some(serde_json::from_str::<JobView>(&data).unwrap());
            }
        }
        last.unwrap()
    }

    /// Follows a job until it reaches `state`.
    pub(crate) async fn reaches(&self, url: &str, job: &JobView, state: JobStateName) -> JobView {
        let mut events = self.events(url, job).await;
        while let Some((name, data)) = events.next().await {
            if name == "state" {
                let view: JobView = serde_json::from_str(&data).unwrap();
                if view.state == state {
                    return view;
                }
                eprintln!("{} {:?}", view.state, view.ending.failure);
            }
        }
        panic!("the job never was {state}");
    }

    /// Follows a job until it waits for `code`.
    pub(crate) async fn waits(&self, url: &str, job: &JobView, code: Code) -> JobView {
        self.sees(url, job, |view| view.waiting.as_ref().is_some_and(|waiting| waiting.code == code)).await
    }

    /// Follows a job until it is as `wanted` says.
    pub(crate) async fn sees(&self, url: &str, job: &JobView, wanted: impl Fn(&JobView) -> bool) -> JobView {
        let mut events = self.events(url, job).await;
        while let Some((name, data)) = events.next().await {
            if name == "state" {
                let view: JobView = serde_json::from_str(&data).unwrap();
                if wanted(&view) {
                    return view;
                }
            }
        }
        panic!("the job ended before");
    }

    /// Sends a request as the owner's device, signed with `key`.
    pub(crate) async fn owner(&self, key: &SigningKey, action: ApprovalAction) -> ApprovalReply {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&NONCE.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_be_bytes());
        let request = ApprovalRequest { wallet: self.world.wallet.id, action, issued_at_ms: now_ms(), nonce };
        let signed = SignedApproval::sign(&request, key).unwrap();
        let address = Address::Approval(self.world.wallet.id);
        let reply =
            self.device.request_resending(&address, codec::encode(&signed).unwrap(), DEADLINE).await.unwrap();
        codec::decode(&reply).unwrap()
    }
}

static NONCE: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

/// A stream of server-sent events.
pub(crate) struct Events {
    chunks: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    buffer: String,
}

impl Events {
    /// The name and data of the next event. `None` at the end of the stream. Comments are skipped.
    pub(crate) async fn next(&mut self) -> Option<(String, String)> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let field = |name: &str| {
                    block.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_owned())
                };
                let event = field("event:").zip(field("data:"));
                self.buffer = rest.to_owned();
                if let Some(event) = event {
                    return Some(event);
                }
                continue;
            }
            let chunk = timeout(DEADLINE, self.chunks.next()).await.expect("no event in time")?.unwrap();
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

/// The body of a refusal, which must be problem+json with `code`.
pub(crate) async fn problem(response: Response, status: StatusCode, code: Code) -> Value {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let actual = response.status();
    let body: Value = response.json().await.unwrap();
    assert_eq!((actual, body["code"].as_str()), (status, Some(code.as_str())), "{body}");
    assert_eq!(body["status"], status.as_u16());
    body
}
