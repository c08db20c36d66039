//! Deals a wallet over the broker. The process may be interrupted anywhere: the dealt wallet is
//! stored, sealed, before anything is sent. Every message can be sent again, and the address is
//! shown last.

use std::{sync::Arc, time::Duration};

use duet_bus::{Address, Bus, RequestError};
use duet_protocol::{
    admission::AdmissionToken,
    card::{Card, VerifiedCard},
    codec,
    identity::PartyKeys,
    ids::{CardFingerprint, Epoch, PartyId, ShareIndex, TenantId, WalletId},
    keygen::{
        Backend, DealerSetup, Delivery, DeviceWallet, KeygenObserver, KeygenStep, PendingWallet, ThirdHolder,
        deal,
    },
    paillier::ModulusSize,
    receipt::{CommitAck, Receipt, ReceiptBundle},
    share::{KeyShare, Requester},
};
use duet_wire::{
    Code, WalletInfo,
    share_request::{ShareReply, ShareRequest},
};

use super::{Device, owner::wallet_keys_label};
use crate::{
    at_rest::{RecordKind, RecordLabel},
    compute::system_rng,
    context::{Context, card_label, paillier_label},
    error::PartyError,
    party::fetch_card,
    session::distrusted,
    store::{NewWallet, PaillierScope, PaillierState, PinOutcome, PrepareOutcome, deal_label},
};

/// How long each attempt at a message waits. After the last one, the wallet is left to
/// [`Device::resume_pending`]. The first attempts are short, because a worker that died with the
/// message never answers it. A worker that is only slow may get the message twice without harm.
const ATTEMPT_DEADLINES: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(10), Duration::from_secs(20), Duration::from_secs(30)];
const PAUSE: Duration = Duration::from_millis(300);

/// A backend party of a new wallet.
#[derive(Debug, Clone)]
pub struct BackendChoice {
    /// Its name.
    pub party: PartyId,
    /// Its card's fingerprint, from the organisation that runs it. It must not come from the broker
    /// or a gateway: these could name parties of their own, and would get two shares.
    pub fingerprint: CardFingerprint,
    /// Its admission token.
    pub token: AdmissionToken,
}

/// The order to create a wallet.
#[derive(Debug, Clone)]
pub struct CreateWallet {
    /// The tenant of the wallet.
    pub tenant: TenantId,
    /// The party that gets share 2.
    pub service: BackendChoice,
    /// The party that gets share 3.
    pub partner: BackendChoice,
    /// Further requesters. The device's owner may always request signatures.
    pub requesters: Vec<Requester>,
    /// The length of the device's Paillier modulus, usually 2048 bits.
    pub modulus: ModulusSize,
}

/// A step in the creation of a wallet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateProgress {
    /// A party is asked for its card, and the proof on it is verified.
    Card(PartyId),
    /// The wallet is dealt.
    Deal(KeygenStep),
    /// A further candidate for a prime of the Paillier key was tried.
    Candidate,
    /// The dealt wallet is stored: from here on the creation can be resumed.
    Stored(WalletId),
    /// A party has verified and stored its share.
    Prepared(PartyId),
    /// A party has committed.
    Committed(PartyId),
    /// The wallet is ready.
    Ready(WalletId),
}

/// A callback for progress.
pub type OnProgress = Arc<dyn Fn(CreateProgress) + Send + Sync>;

struct DealProgress(OnProgress);

impl KeygenObserver for DealProgress {
    fn step(&mut self, step: KeygenStep) {
        (self.0)(CreateProgress::Deal(step));
    }

    fn candidate(&mut self) {
        (self.0)(CreateProgress::Candidate);
    }
}

impl Device {
    /// Creates a wallet. It fetches and verifies the cards, deals, stores the dealt wallet,
    /// delivers the packages and commits. A failure after [`CreateProgress::Stored`] leaves a
    /// pending wallet, which [`Self::resume_pending`] finishes.
    ///
    /// # Errors
    /// When a party cannot be reached, has another card than expected, or refuses its package.
    pub async fn create_wallet(
        &self,
        bus: &Bus,
        order: CreateWallet,
        progress: OnProgress,
    ) -> Result<WalletInfo, PartyError> {
        let wallet = self.deal_wallet(bus, order, Arc::clone(&progress)).await?;
        self.resume(bus, wallet, false, &progress).await
    }

    /// The first half of [`Self::create_wallet`]: deals and stores the wallet, and sends nothing.
    ///
    /// # Errors
    /// As [`Self::create_wallet`].
    pub async fn deal_wallet(
        &self,
        bus: &Bus,
        order: CreateWallet,
        progress: OnProgress,
    ) -> Result<WalletId, PartyError> {
        let CreateWallet { tenant, service, partner, requesters, modulus } = order;
        for card in [service.fingerprint, partner.fingerprint] {
            let standing = self.context.store().standing(card).await?;
            if !standing.is_trusted() {
                return Err(distrusted(card, standing, None));
            }
        }
        let service = self.backend(bus, service, &progress).await?;
        let partner = self.backend(bus, partner, &progress).await?;
        let mut all = vec![self.owner()?];
        for requester in requesters {
            // If the order names the owner again, it may permit more, such as bare digests.
            match all.iter_mut().find(|known| known.key == requester.key) {
                Some(known) => *known = requester,
                None => all.push(requester),
            }
        }
        let cards = [Arc::clone(service.card.card()), Arc::clone(partner.card.card())];
        let setup = DealerSetup {
            tenant,
            device: self.party.clone(),
            service,
            third: ThirdHolder::Partner(partner),
            requesters: all,
            modulus,
            generation: self.context.clock.now_ms(),
            arithmetic: self.context.arithmetic,
        };
        let heard = Arc::clone(&progress);
        let dealt = self
            .context
            .compute
            .run(move || deal(&setup, &mut DealProgress(heard), &mut system_rng()))
            .await?
            .map_err(|error| PartyError::refused(Code::InvalidPayload, error.to_string()))?;
        for card in &cards {
            self.context.store_card(card).await?;
        }
        let wallet = dealt.pending.wallet();
        let record = self.context.vault.seal(&deal_label(wallet), &dealt.pending.to_secret_bytes()?).await?;
        self.context.store().put_deal(wallet, &record, self.context.clock.now_ms()).await?;
        progress(CreateProgress::Stored(wallet));
        Ok(wallet)
    }

    async fn backend(
        &self,
        bus: &Bus,
        choice: BackendChoice,
        progress: &OnProgress,
    ) -> Result<Backend, PartyError> {
        progress(CreateProgress::Card(choice.party.clone()));
        let card = self.verified_backend_card(bus, &choice.party, choice.fingerprint).await?;
        Ok(Backend { card, token: choice.token })
    }

    /// The card of a backend party. The device asks for it, compares it with the expected and the
    /// pinned fingerprint, verifies the proof of its parameters, and pins it.
    ///
    /// # Errors
    /// When the party does not answer, or when its card is another one.
    pub async fn verified_backend_card(
        &self,
        bus: &Bus,
        party: &PartyId,
        expected: CardFingerprint,
    ) -> Result<VerifiedCard, PartyError> {
        let mismatch = |found, expected| {
            PartyError::refused(
                Code::CardMismatch,
                format!("{party} shows card {found}, expected is {expected}"),
            )
        };
        let card = fetch_card(bus, &self.party, party).await?;
        let found = card.fingerprint();
        if expected != found {
            return Err(mismatch(found, expected));
        }
        if let Some(pinned) = self.context.store().pinned_card(party).await?
            && pinned != found
        {
            return Err(mismatch(found, pinned));
        }
        let verified = self.context.verified_card(Arc::new(card), found).await?;
        match self.context.store().pin_card(party, found).await? {
            PinOutcome::Pinned | PinOutcome::Same => Ok(verified),
            PinOutcome::Different(pinned) => Err(mismatch(found, pinned)),
        }
    }

    /// The wallets with an interrupted creation.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn pending(&self) -> Result<Vec<WalletId>, PartyError> {
        Ok(self.context.store().deals().await?.into_iter().map(|deal| deal.wallet).collect())
    }

    /// Finishes every interrupted creation, at any of its steps. A wallet that cannot be finished
    /// now does not block the others.
    ///
    /// # Errors
    /// When the store cannot be read. The list contains the failures of single wallets.
    pub async fn resume_pending(
        &self,
        bus: &Bus,
        progress: OnProgress,
    ) -> Result<Vec<(WalletId, Result<WalletInfo, PartyError>)>, PartyError> {
        let mut finished = Vec::new();
        for deal in self.context.store().deals().await? {
            finished.push((deal.wallet, self.resume(bus, deal.wallet, deal.restored, &progress).await));
        }
        Ok(finished)
    }

    async fn resume(
        &self,
        bus: &Bus,
        wallet: WalletId,
        restored: bool,
        progress: &OnProgress,
    ) -> Result<WalletInfo, PartyError> {
        let bytes = self.context.vault.require(&deal_label(wallet), "key generation").await?;
        let pending = PendingWallet::from_secret_bytes(&bytes, self.context.arithmetic)
            .map_err(|error| PartyError::Stored { what: "key generation", reason: error.to_string() })?;
        let mut receipts = Vec::new();
        for delivery in pending.deliveries() {
            receipts.push(self.prepare(bus, &pending, delivery).await?);
            progress(CreateProgress::Prepared(delivery.party().clone()));
        }
        let misbehaved = |error: duet_protocol::keygen::PaperRefusal| {
            PartyError::refused(Code::PeerMisbehaved, error.to_string())
        };
        let bundle = pending.bundle(&receipts).map_err(misbehaved)?;
        let mut acknowledgements = Vec::new();
        for delivery in pending.deliveries() {
            acknowledgements.push(self.commit(bus, delivery, &bundle).await?);
            progress(CreateProgress::Committed(delivery.party().clone()));
        }
        let finished =
            pending.finish(&bundle, &acknowledgements).map_err(|(_, refusal)| misbehaved(refusal))?;
        self.store_finished(&finished, restored).await?;
        progress(CreateProgress::Ready(wallet));
        self.wallet(wallet).await
    }

    async fn prepare(
        &self,
        bus: &Bus,
        pending: &PendingWallet,
        delivery: &Delivery,
    ) -> Result<Receipt, PartyError> {
        let request = ShareRequest::Prepare { package: delivery.envelope().to_vec() };
        match deliver(bus, delivery.party(), &request).await? {
            ShareReply::Receipt { receipt } => {
                let receipt: Receipt = parse(delivery.party(), &receipt)?;
                pending
                    .check_receipt(&receipt)
                    .map_err(|error| PartyError::refused(Code::PeerMisbehaved, error.to_string()))?;
                Ok(receipt)
            }
            _ => Err(unexpected(delivery.party())),
        }
    }

    async fn commit(
        &self,
        bus: &Bus,
        delivery: &Delivery,
        bundle: &ReceiptBundle,
    ) -> Result<CommitAck, PartyError> {
        let request = ShareRequest::Commit { bundle: codec::encode(bundle)? };
        match deliver(bus, delivery.party(), &request).await? {
            ShareReply::CommitAck { acknowledgement } => parse(delivery.party(), &acknowledgement),
            _ => Err(unexpected(delivery.party())),
        }
    }

    /// Stores the finished wallet, then deletes the pending one. Each step can be repeated, and
    /// none unlocks a locked key.
    async fn store_finished(&self, finished: &DeviceWallet, restored: bool) -> Result<(), PartyError> {
        let context = &self.context;
        let store = context.store();
        let now_ms = context.clock.now_ms();
        let share = finished.share();
        let wallet = share.wallet();
        let (id, paillier) = (wallet.id(), finished.paillier());

        let record = context.vault.seal(&paillier_label(paillier.id()), &paillier.to_secret_bytes()).await?;
        let state = if restored { PaillierState::NeedsRotation } else { PaillierState::Ready };
        store.put_paillier_key(paillier.id(), &PaillierScope::Wallet(id), &record, state, now_ms).await?;
        for index in [ShareIndex::Service, ShareIndex::Partner] {
            let Some(responder) = wallet.holder(index).party() else { continue };
            // A rotation may have happened between two attempts to finish.
            if store.own_enrolment(id, responder).await?.agreed.is_none() {
                store.agree_enrolment(id, responder, paillier.id()).await?;
            }
        }
        store_wallet(context, share, finished.keys(), finished.card()).await?;
        Ok(store.remove_deal(id).await?)
    }
}

/// Stores a finished wallet of this device, with the keys and the card for it, and without its
/// Paillier key. Can be repeated.
///
/// # Errors
/// When the store has the wallet with other contents.
pub(super) async fn store_wallet(
    context: &Context,
    share: &KeyShare,
    keys: &PartyKeys,
    card: &Card,
) -> Result<(), PartyError> {
    let (store, wallet, now_ms) = (context.store(), share.wallet(), context.clock.now_ms());
    let id = wallet.id();
    let plain = [
        (
            RecordLabel::of_wallet(RecordKind::Share, id, ShareIndex::Device, Epoch(0), &[]),
            share.to_secret_bytes()?,
        ),
        (wallet_keys_label(id), keys.to_secret_bytes()),
        (card_label(card.fingerprint()), codec::encode(card)?.into()),
    ];
    let mut records = Vec::with_capacity(plain.len());
    for (label, plaintext) in plain {
        let record = context.vault.seal(&label, &plaintext).await?;
        records.push((label, record));
    }
    let row = NewWallet {
        id,
        epoch: wallet.epoch(),
        index: ShareIndex::Device,
        tenant: wallet.tenant().to_string(),
        public_key: wallet.public_key().to_bytes(),
        // The device made the wallet, so it received no package.
        package_hash: [0; 32],
        receipt: Vec::new(),
        admission: None,
        prepared_at_ms: now_ms,
        expires_at_ms: u64::MAX,
        records,
        enrolments: Vec::new(),
    };
    match store.prepare_wallet(&row).await? {
        PrepareOutcome::Prepared | PrepareOutcome::Already(_) => {}
        PrepareOutcome::Conflict | PrepareOutcome::SameKey | PrepareOutcome::QuotaExceeded => {
            return Err(PartyError::refused(
                Code::WalletExists,
                "this store holds the wallet already, with other contents",
            ));
        }
    }
    store.commit_wallet(id, b"device", now_ms).await?;
    Ok(())
}

/// Sends one message of a key generation, and repeats it while no answer comes. Both kinds of
/// message are idempotent.
async fn deliver(bus: &Bus, party: &PartyId, request: &ShareRequest) -> Result<ShareReply, PartyError> {
    let address = Address::Share(party.clone());
    let message = codec::encode(request)?;
    let mut pause = PAUSE;
    let mut deadlines = ATTEMPT_DEADLINES.into_iter().peekable();
    let mut last = RequestError::Unreachable;
    let reply = loop {
        let Some(deadline) = deadlines.next() else { return Err(last.into()) };
        match bus.request_resending(&address, message.clone(), deadline).await {
            Ok(reply) => break reply,
            Err(error @ (RequestError::TimedOut { .. } | RequestError::Unreachable)) => last = error,
            Err(error) => return Err(error.into()),
        }
        if deadlines.peek().is_some() {
            tracing::info!(%party, "no answer; sending again");
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    };
    match codec::decode(&reply) {
        Ok(ShareReply::Refused(refusal)) => Err(PartyError::RefusedBy { by: party.to_string(), refusal }),
        Ok(reply) => Ok(reply),
        Err(reason) => Err(PartyError::Malformed { from: party.to_string(), reason }),
    }
}

fn parse<M: codec::Message>(from: &PartyId, bytes: &[u8]) -> Result<M, PartyError> {
    codec::decode(bytes).map_err(|reason| PartyError::Malformed { from: from.to_string(), reason })
}

fn unexpected(from: &PartyId) -> PartyError {
    PartyError::refused(Code::PeerMisbehaved, format!("the answer of {from} is not of the expected kind"))
}
