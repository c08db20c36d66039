//! A browser party, natively: the protocol crate and the gateway's frames, nothing of the native device.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use duet_protocol::{
    arithmetic::default_arithmetic,
    card::{Card, VerifiedCard},
    codec,
    identity::IdentityKey,
    ids::WalletId,
    initiator::{Initiator, InitiatorSetup},
    keygen::{Backend, DealerSetup, DeviceWallet, PendingWallet, ThirdHolder, deal},
    paillier::ModulusSize,
    receipt::{CommitAck, Receipt},
    share::Requester,
    verdict::{Unlocked, Verdict},
};
use duet_tests::stack::{Stack, TENANT};
use duet_wire::{
    JobId, Manifest, Outcome, OutcomeReply, OutcomeResult, RecoverableSignature, SignedOutcome,
    SignedRequest,
    approval::{ApprovalAction, ApprovalReply, ApprovalRequest, SignedApproval},
    card_request::{CardReply, CardRequest},
    gateway::Destination,
    progress::{Progress, Step},
    seating::Seated,
    share_request::{ShareReply, ShareRequest},
    signing::SigningKey,
};
use getrandom::{SysRng, rand_core::UnwrapErr};
use serde_json::{Value, json};

use crate::gateway::socket::{Socket, now_ms, party};

fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// A wallet as its device has it.
pub(crate) struct Device {
    pub(crate) wallet: DeviceWallet,
    pub(crate) owner: SigningKey,
    cards: Vec<Arc<Card>>,
}

async fn share(socket: &mut Socket, name: &str, request: &ShareRequest) -> Result<ShareReply> {
    let reply = socket.request(Destination::Share(party(name)), codec::encode(request)?).await?;
    Ok(codec::decode(&reply)?)
}

impl Device {
    /// Makes a wallet through a gateway, with what `/v1/info` says.
    pub(crate) async fn create(stack: &Stack, socket: &mut Socket) -> Result<Self> {
        let info: Value = duet_tests::anvil::http_client()?
            .get(format!("{}/v1/info", stack.gateway_url()))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let (mut backends, mut cards) = (Vec::new(), Vec::new());
        for backend in info["backends"].as_array().context("no backends")? {
            let name = backend["party"].as_str().context("no name")?;
            let pinned = backend["fingerprint"].as_str().context("no fingerprint")?.parse()?;
            let token = info["admission"][name].as_str().context("no token")?.parse()?;
            let reply =
                socket.request(Destination::Card(party(name)), codec::encode(&CardRequest::Card)?).await?;
            let CardReply::Card { card } = codec::decode(&reply)? else { bail!("no card") };
            let card: Arc<Card> = Arc::new(codec::decode(&card)?);
            cards.push(Arc::clone(&card));
            backends
                .push(Backend { card: VerifiedCard::verify(card, &pinned, default_arithmetic())?, token });
        }
        let [service, partner]: [Backend; 2] =
            backends.try_into().ok().context("there is a service and a partner")?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        let owner = SigningKey::from_bytes(&seed);
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
        let dealt = tokio::task::spawn_blocking(move || deal(&setup, &mut (), &mut rng())).await??;
        let wallet = Self::deliver(socket, dealt.pending).await?;
        Ok(Self { wallet, owner, cards })
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

    pub(crate) fn id(&self) -> WalletId {
        self.wallet.share().wallet().id()
    }

    /// Proves the device's key on a socket.
    pub(crate) async fn authenticate(&self, socket: &mut Socket) -> Result<()> {
        Ok(socket.authenticate(self.id(), &**self.wallet.keys()).await?)
    }

    /// A request of the owner's, for a message.
    pub(crate) fn request(&self, text: &str, pairs: &[&str]) -> SignedRequest {
        let document = json!({
            "version": 1,
            "tenant": TENANT,
            "wallet": self.id().to_string(),
            "payload": {"kind": "personal_message", "text": text},
            "idempotency_key": text.replace(' ', "-"),
            "expires_at": now_ms() / 1000 + 3600,
            "pairs": pairs,
        });
        SignedRequest::sign(document.to_string().into_bytes(), &self.owner)
    }

    /// An approval, signed by the device.
    pub(crate) fn approval(&self, action: ApprovalAction) -> Vec<u8> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).unwrap();
        let request = ApprovalRequest { wallet: self.id(), action, issued_at_ms: now_ms(), nonce };
        codec::encode(&SignedApproval::sign(&request, &**self.wallet.keys()).unwrap()).unwrap()
    }

    pub(crate) async fn ask(&self, socket: &mut Socket, action: ApprovalAction) -> Result<ApprovalReply> {
        let reply = socket.request(Destination::Approval(self.id()), self.approval(action)).await?;
        Ok(codec::decode(&reply)?)
    }

    /// Has a session begun for a request of its own.
    pub(crate) async fn begin(&self, socket: &mut Socket, text: &str, with: &str) -> Result<Manifest> {
        let request = self.request(text, &[with]);
        match self.ask(socket, ApprovalAction::Sign { request }).await? {
            ApprovalReply::Session { manifest } => Ok(Manifest::decode(&manifest)?),
            other => bail!("no session: {other:?}"),
        }
    }

    /// Signs a message of its own in one trip and a session.
    pub(crate) async fn sign(
        &self,
        socket: &mut Socket,
        text: &str,
        with: &str,
    ) -> Result<RecoverableSignature> {
        let manifest = self.begin(socket, text, with).await?;
        self.run(socket, &manifest).await
    }

    /// Approves a job that waits and signs it.
    pub(crate) async fn approve(&self, socket: &mut Socket, job: JobId) -> Result<RecoverableSignature> {
        match self.ask(socket, ApprovalAction::Approve { job }).await? {
            ApprovalReply::Session { manifest } => self.run(socket, &Manifest::decode(&manifest)?).await,
            other => bail!("no session: {other:?}"),
        }
    }

    /// Runs a session and reports its outcome.
    pub(crate) async fn run(&self, socket: &mut Socket, manifest: &Manifest) -> Result<RecoverableSignature> {
        let (signature, outcome) = self.compute(socket, manifest).await?;
        let session = manifest.session;
        let reply = socket.request(Destination::Outcome { session }, outcome).await?;
        assert_eq!(codec::decode::<OutcomeReply>(&reply)?, OutcomeReply::Acknowledged);
        Ok(signature)
    }

    /// Runs a session up to the signed report of its outcome, which is not sent yet.
    pub(crate) async fn compute(
        &self,
        socket: &mut Socket,
        manifest: &Manifest,
    ) -> Result<(RecoverableSignature, Vec<u8>)> {
        let bytes = manifest.encode()?;
        let seated = Seated::check(&bytes, self.wallet.share(), now_ms())?;
        let responder = self.cards.iter().find(|card| *card.party() == manifest.responder.party);
        let setup = InitiatorSetup {
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
        };
        let round = Destination::Round { session: manifest.session, to: manifest.responder.party.clone() };
        let (state, message1) = Initiator::start(setup, &mut rng())?;
        let message2 = socket.request(round.clone(), message1).await?;
        let (state, message3) = state.receive(&message2, &mut rng())?;
        let progress =
            Progress { session: manifest.session, step: Step::Received { message: 2 }, at_ms: now_ms() };
        let event = Destination::Event { session: manifest.session };
        let frame =
            duet_wire::gateway::ClientFrame::Request { id: u32::MAX, to: event, message: progress.to_json() };
        socket.send(&frame).await;
        let message4 = socket.request(round, message3).await?;
        let Verdict::Good(gated) = state.receive(&message4, &mut rng())? else { bail!("a bad signature") };
        let unlocked = Unlocked::found_by_linearisable_read(manifest.paillier_key, gated.session());
        let (signature, _) = gated.release(unlocked)?;
        Ok((signature, self.report(manifest, OutcomeResult::Signed { signature })))
    }

    /// A signed report on a session.
    pub(crate) fn report(&self, manifest: &Manifest, result: OutcomeResult) -> Vec<u8> {
        let outcome = Outcome {
            session: manifest.session,
            job: manifest.job,
            attempt: manifest.attempt,
            from: party("device"),
            result,
        };
        codec::encode(&SignedOutcome::sign(&outcome, &**self.wallet.keys()).unwrap()).unwrap()
    }
}
