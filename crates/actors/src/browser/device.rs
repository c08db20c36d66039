//! A wallet's device that signs through gateways.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use duet_party::compute::system_rng;
use duet_protocol::{
    admission::AdmissionToken,
    arithmetic::default_arithmetic,
    card::{Card, VerifiedCard},
    codec,
    identity::IdentityKey,
    ids::{CardFingerprint, PaillierKeyId, PartyId, SessionId, WalletId},
    initiator::{Initiator, InitiatorSetup},
    keygen::{Backend, DealerSetup, DeviceWallet, PendingWallet, ThirdHolder, deal},
    paillier::ModulusSize,
    receipt::{CommitAck, Receipt},
    share::Requester,
    verdict::{Unlocked, Verdict},
};
use duet_wire::{
    Code, JobId, Manifest, Outcome, OutcomeReply, OutcomeResult, RecoverableSignature, Refusal,
    SignedOutcome, SignedRequest,
    approval::{ApprovalAction, ApprovalReply, ApprovalRequest, SignedApproval},
    card_request::{CardReply, CardRequest},
    gateway::{ClientFrame, Destination},
    progress::{Progress, Step},
    seating::Seated,
    share_request::{ShareReply, ShareRequest},
    signing::SigningKey,
};
use serde_json::{Value, json};

use duet_harness::{anvil::http_client, duet::text, stack::TENANT};
use tokio::time::sleep;

use super::socket::Socket;
use crate::stage::{name as party, now_ms, random};

/// How often message 1 is sent while the responder's subscription is unknown. In a cluster, a
/// subscription takes a moment to spread.
const FIRST_MESSAGE_ATTEMPTS: u32 = 5;

/// The pause before the second attempt. It doubles each time.
const FIRST_MESSAGE_PAUSE: Duration = Duration::from_millis(50);

/// A wallet, with what its device holds.
pub struct Device {
    /// Share, keys and card.
    pub wallet: DeviceWallet,
    /// The owner's request key.
    pub owner: SigningKey,
    cards: Vec<Arc<Card>>,
    /// For each session that began, the hash of its nonce point.
    nonces: Mutex<Vec<(SessionId, [u8; 32])>>,
    is_locked: AtomicBool,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("wallet", &self.id()).finish_non_exhaustive()
    }
}

async fn share(socket: &mut Socket, name: &str, request: &ShareRequest) -> Result<ShareReply> {
    let reply = socket.request(Destination::Share(party(name)), codec::encode(request)?).await?;
    Ok(codec::decode(&reply)?)
}

/// A party that a device deals a share to.
#[derive(Debug, Clone)]
pub struct Recipient {
    /// Its name.
    pub party: PartyId,
    /// The fingerprint that its card must have.
    pub fingerprint: CardFingerprint,
    /// Its admission token.
    pub token: AdmissionToken,
}

impl Recipient {
    /// Service and partner, as the gateway at `url` names them. For trials only.
    ///
    /// # Errors
    /// When it does not name them, or gives no tokens.
    pub async fn named_by(url: &str) -> Result<[Self; 2]> {
        let info: Value =
            http_client()?.get(format!("{url}/v1/info")).send().await?.error_for_status()?.json().await?;
        let mut named = Vec::new();
        for backend in info.get("backends").and_then(Value::as_array).context("no backends")? {
            let name = text(backend, "/party")?;
            named.push(Self {
                party: party(name),
                fingerprint: text(backend, "/fingerprint")?.parse()?,
                token: text(&info, &format!("/admission/{name}"))?.parse()?,
            });
        }
        named.try_into().map_err(|_| anyhow!("there are not a service and a partner in {info}"))
    }
}

impl Device {
    /// Makes a wallet through the gateway at `url`, with the parties in its `/v1/info`.
    ///
    /// # Errors
    /// When a party fails.
    pub async fn create(url: &str, socket: &mut Socket) -> Result<Self> {
        Self::deal(Recipient::named_by(url).await?, socket).await
    }

    /// Makes a wallet with shares for these parties, no matter which ones the gateway behind
    /// `socket` names.
    ///
    /// # Errors
    /// When a card is not the pinned one, or when a party fails.
    pub async fn deal(recipients: [Recipient; 2], socket: &mut Socket) -> Result<Self> {
        let (mut backends, mut cards) = (Vec::new(), Vec::new());
        for Recipient { party, fingerprint, token } in recipients {
            let reply = socket.request(Destination::Card(party), codec::encode(&CardRequest::Card)?).await?;
            let CardReply::Card { card } = codec::decode(&reply)? else { bail!("no card") };
            let card: Arc<Card> = Arc::new(codec::decode(&card)?);
            cards.push(Arc::clone(&card));
            let card = VerifiedCard::verify(card, &fingerprint, default_arithmetic())?;
            backends.push(Backend { card, token });
        }
        let [service, partner]: [Backend; 2] =
            backends.try_into().ok().context("there is a service and a partner")?;
        let owner = SigningKey::from_bytes(&random());
        let setup = DealerSetup {
            tenant: TENANT.parse()?,
            device: party("device"),
            service,
            third: ThirdHolder::Partner(partner),
            requesters: vec![Requester::new(IdentityKey::from_bytes(owner.verifying_key().as_bytes())?)],
            modulus: ModulusSize::Bits2048,
            generation: now_ms(),
            arithmetic: default_arithmetic(),
        };
        let dealt = tokio::task::spawn_blocking(move || deal(&setup, &mut (), &mut system_rng())).await??;
        let wallet = Self::deliver(socket, dealt.pending).await?;
        let (nonces, is_locked) = (Mutex::default(), AtomicBool::new(false));
        Ok(Self { wallet, owner, cards, nonces, is_locked })
    }

    async fn deliver(socket: &mut Socket, pending: PendingWallet) -> Result<DeviceWallet> {
        let mut receipts: Vec<Receipt> = Vec::new();
        for delivery in pending.deliveries() {
            let request = ShareRequest::Prepare { package: delivery.envelope().to_vec() };
            match share(socket, delivery.party().as_str(), &request).await? {
                ShareReply::Receipt { receipt } => receipts.push(codec::decode(&receipt)?),
                other => bail!("{other:?}"),
            }
        }
        let bundle = pending.bundle(&receipts)?;
        let mut acknowledgements: Vec<CommitAck> = Vec::new();
        for delivery in pending.deliveries() {
            let request = ShareRequest::Commit { bundle: codec::encode(&bundle)? };
            match share(socket, delivery.party().as_str(), &request).await? {
                ShareReply::CommitAck { acknowledgement } => {
                    acknowledgements.push(codec::decode(&acknowledgement)?);
                }
                other => bail!("{other:?}"),
            }
        }
        pending.finish(&bundle, &acknowledgements).map_err(|(_, refusal)| refusal.into())
    }

    /// The wallet's id.
    #[must_use]
    pub fn id(&self) -> WalletId {
        self.wallet.share().wallet().id()
    }

    /// The Paillier key with which it initiates, and whether a bad signature has locked the key.
    #[must_use]
    pub fn paillier_key(&self) -> (PaillierKeyId, bool) {
        (self.wallet.paillier().id(), self.is_locked.load(Ordering::Relaxed))
    }

    /// The hash of the nonce point of every session that it began, including interrupted ones.
    #[must_use]
    pub fn nonces(&self) -> Vec<(SessionId, [u8; 32])> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Proves possession of the device's key on a socket.
    ///
    /// # Errors
    /// As [`Socket::request`].
    pub async fn authenticate(&self, socket: &mut Socket) -> Result<()> {
        socket.authenticate(self.id(), &**self.wallet.keys()).await
    }

    /// The owner's request to sign a message. Its idempotency key derives from the text.
    #[must_use]
    pub fn request(&self, text: &str, pairs: &[&str]) -> SignedRequest {
        self.request_under(&text.replace(' ', "-"), text, pairs)
    }

    /// The owner's request to sign a message, with this idempotency key.
    #[must_use]
    pub fn request_under(&self, key: &str, text: &str, pairs: &[&str]) -> SignedRequest {
        let document = json!({
            "version": 2,
            "tenant": TENANT,
            "wallet": self.id().to_string(),
            "payload": {"kind": "personal_message", "text": text},
            "idempotency_key": key,
            "issued_at": now_ms() / 1000,
            "expires_at": now_ms() / 1000 + 3600,
            "pairs": pairs,
        });
        SignedRequest::sign(document.to_string().into_bytes(), &self.owner)
    }

    /// An approval, signed by the device.
    ///
    /// # Errors
    /// When it is too large.
    pub fn approval(&self, action: ApprovalAction) -> Result<Vec<u8>> {
        let request = ApprovalRequest { wallet: self.id(), action, issued_at_ms: now_ms(), nonce: random() };
        Ok(codec::encode(&SignedApproval::sign(&request, &**self.wallet.keys())?)?)
    }

    /// Asks the orchestrator about the wallet's jobs.
    ///
    /// # Errors
    /// As [`Socket::request`].
    pub async fn ask(&self, socket: &mut Socket, action: ApprovalAction) -> Result<ApprovalReply> {
        let reply = socket.request(Destination::Approval(self.id()), self.approval(action)?).await?;
        Ok(codec::decode(&reply)?)
    }

    /// Begins a session for a request of the owner, and returns its manifest.
    ///
    /// # Errors
    /// When no session begins.
    pub async fn begin(&self, socket: &mut Socket, text: &str, with: &str) -> Result<Manifest> {
        let request = self.request(text, &[with]);
        match self.ask(socket, ApprovalAction::Sign { request }).await? {
            ApprovalReply::Session { manifest } => Ok(Manifest::decode(&manifest)?),
            other => bail!("no session: {other:?}"),
        }
    }

    /// Signs a message for the owner, in one trip and one session.
    ///
    /// # Errors
    /// When the message is not signed.
    pub async fn sign(&self, socket: &mut Socket, text: &str, with: &str) -> Result<RecoverableSignature> {
        let manifest = self.begin(socket, text, with).await?;
        self.run(socket, &manifest).await
    }

    /// Approves a waiting job and signs it.
    ///
    /// # Errors
    /// When the job is not signed.
    pub async fn approve(&self, socket: &mut Socket, job: JobId) -> Result<RecoverableSignature> {
        match self.ask(socket, ApprovalAction::Approve { job }).await? {
            ApprovalReply::Session { manifest } => self.run(socket, &Manifest::decode(&manifest)?).await,
            other => bail!("no session: {other:?}"),
        }
    }

    /// Runs a session and reports its outcome.
    ///
    /// # Errors
    /// When it ends without a signature, or when the orchestrator does not accept the report.
    pub async fn run(&self, socket: &mut Socket, manifest: &Manifest) -> Result<RecoverableSignature> {
        let (signature, outcome) = self.compute(socket, manifest).await?;
        let reply = self.tell(socket, manifest.session, outcome).await?;
        ensure!(reply == OutcomeReply::Acknowledged, "{reply:?}");
        Ok(signature)
    }

    /// Sends the signed report of an outcome, and returns the orchestrator's answer.
    ///
    /// # Errors
    /// As [`Socket::request`].
    pub async fn tell(
        &self,
        socket: &mut Socket,
        session: SessionId,
        outcome: Vec<u8>,
    ) -> Result<OutcomeReply> {
        Ok(codec::decode(&socket.request(Destination::Outcome { session }, outcome).await?)?)
    }

    /// Runs a session up to the signed report of its outcome, and does not send the report.
    ///
    /// # Errors
    /// When it ends without a signature. The session cannot be continued.
    pub async fn compute(
        &self,
        socket: &mut Socket,
        manifest: &Manifest,
    ) -> Result<(RecoverableSignature, Vec<u8>)> {
        self.compute_slowly(socket, manifest, Duration::ZERO).await
    }

    /// Runs a session as [`Self::compute`] does, on a slow device: it waits for `pause` between
    /// message 2 and message 3.
    ///
    /// # Errors
    /// As [`Self::compute`].
    pub async fn compute_slowly(
        &self,
        socket: &mut Socket,
        manifest: &Manifest,
        pause: Duration,
    ) -> Result<(RecoverableSignature, Vec<u8>)> {
        ensure!(!self.is_locked.load(Ordering::Relaxed), "the Paillier key is locked");
        let session = manifest.session;
        let (state, message1) = Initiator::start(self.setup(manifest)?, &mut system_rng())?;
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner).push((session, state.nonce_hash()));
        let round = Destination::Round { session, to: manifest.responder.party.clone() };
        let message2 = first(socket, &round, message1).await?;
        sleep(pause).await;
        let (state, message3) = state.receive(&message2, &mut system_rng())?;
        let progress = Progress { session, step: Step::Received { message: 2 }, at_ms: now_ms() };
        let event = Destination::Event { session };
        socket.send(&ClientFrame::Request { id: u32::MAX, to: event, message: progress.to_json() }).await?;
        let message4 = socket.request(round, message3).await?;
        let Verdict::Good(gated) = state.receive(&message4, &mut system_rng())? else {
            self.is_locked.store(true, Ordering::Relaxed);
            bail!("a bad signature")
        };
        ensure!(!self.is_locked.load(Ordering::Relaxed), "the Paillier key is locked");
        let unlocked = Unlocked::found_by_linearisable_read(manifest.paillier_key, gated.session());
        let (signature, _) = gated.release(unlocked)?;
        Ok((signature, self.report(manifest, OutcomeResult::Signed { signature })?))
    }

    /// The device's input to a session. It checks the manifest as any party does.
    fn setup(&self, manifest: &Manifest) -> Result<InitiatorSetup> {
        let bytes = manifest.encode()?;
        let seated = Seated::check(&bytes, self.wallet.share(), now_ms())?;
        let responder = self.cards.iter().find(|card| *card.party() == manifest.responder.party);
        Ok(InitiatorSetup {
            manifest: bytes,
            session: manifest.session,
            digest: seated.digest,
            path: seated.request.path,
            share: Arc::clone(self.wallet.share()),
            paillier: Arc::clone(self.wallet.paillier()),
            keys: Arc::clone(self.wallet.keys()),
            card: Arc::clone(self.wallet.card()),
            responder_index: manifest.responder.index,
            responder: Arc::clone(responder.context("the responder has no card")?),
        })
    }

    /// A signed report on a session.
    ///
    /// # Errors
    /// When it is too large.
    pub fn report(&self, manifest: &Manifest, result: OutcomeResult) -> Result<Vec<u8>> {
        let outcome = Outcome {
            session: manifest.session,
            job: manifest.job,
            attempt: manifest.attempt,
            from: party("device"),
            result,
        };
        Ok(codec::encode(&SignedOutcome::sign(&outcome, &**self.wallet.keys())?)?)
    }
}

/// Sends message 1 of a session. Repeats the same bytes while the responder has not subscribed yet.
async fn first(socket: &mut Socket, round: &Destination, message: Vec<u8>) -> Result<Vec<u8>> {
    let mut pause = FIRST_MESSAGE_PAUSE;
    for _ in 1..FIRST_MESSAGE_ATTEMPTS {
        match socket.request(round.clone(), message.clone()).await {
            Err(error) if is_unheard(&error) => {
                sleep(pause).await;
                pause *= 2;
            }
            answer => return answer,
        }
    }
    socket.request(round.clone(), message).await
}

/// Whether the gateway found no subscriber, so that the message was certainly not delivered.
fn is_unheard(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.code == Code::NoPairAvailable)
}
