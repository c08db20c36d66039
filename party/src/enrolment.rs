//! Enrolments between backend parties. A party offers its encrypted share to its responders, and
//! accepts the offers of its initiators. The same mechanism serves first contact, rotation,
//! unlocking, and a restored store.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use duet_bus::Bus;
use duet_protocol::{
    card::{Card, VerifiedCard},
    codec,
    enrolment::{EnrolmentOffer, EnrolmentRefusal, ModulusProofs, OfferSetup, OfferVerifier},
    ids::{CardFingerprint, PaillierKeyId, PartyId, ShareIndex, TenantId, WalletId},
    paillier::ModulusSize,
    paillier_key::PaillierKey,
    share::KeyShare,
};
use duet_wire::{
    Code,
    audit::Event,
    card_request::{CardReply, CardRequest},
    wallet::WalletStatus,
};

use crate::{
    at_rest::SealedRecord,
    compute::system_rng,
    context::{Context, paillier_label},
    error::PartyError,
    identity::Identity,
    party::{ask, fetch_card, unexpected},
    session::require_unlocked,
    store::{EnrolmentRow, PaillierKeyRow, PaillierScope, PaillierState, enrolment_label},
};

/// The initiator's side. It offers enrolments and keeps them current. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Enroller {
    context: Context,
    bus: Bus,
    modulus: ModulusSize,
    /// Held while a key is made: otherwise two wallets at once would make two keys for one
    /// responder.
    making: Arc<tokio::sync::Mutex<()>>,
    /// The keys whose proofs a responder has accepted since this process started.
    proved: Arc<Mutex<HashSet<(PaillierKeyId, CardFingerprint)>>>,
}

/// The result of a rotation for one scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The tenant of the wallets.
    pub tenant: TenantId,
    /// The responder.
    pub responder: PartyId,
    /// The new key.
    pub paillier_key: PaillierKeyId,
    /// The number of wallets that use the key now.
    pub wallets: u32,
}

impl Enroller {
    /// An enroller over `bus` that makes Paillier keys of size `modulus`.
    #[must_use]
    pub fn new(context: Context, bus: Bus, modulus: ModulusSize) -> Self {
        Self { context, bus, modulus, making: Arc::default(), proved: Arc::default() }
    }

    /// Enrols with every responder of `wallet` that `identity` has no agreement with yet.
    ///
    /// # Errors
    /// When a responder cannot be reached or refuses, or when the existing key is locked. The
    /// caller repeats it later.
    pub async fn ensure(&self, identity: &Identity, wallet: WalletId) -> Result<(), PartyError> {
        let row = self.context.committed(wallet).await?;
        let share = self.context.share(&row).await?;
        if responders(&share).all(|index| share.wallet().holder(index).party().is_none()) {
            return Ok(self.context.store().waive_enrolment(wallet).await?);
        }
        for index in responders(&share) {
            let Some(responder) = share.wallet().holder(index).party() else { continue };
            if self.context.store().own_enrolment(wallet, responder).await?.agreed.is_some() {
                continue;
            }
            let card = self.responder_card(identity, &share, index).await?;
            let scope = scope(&share, &card);
            let paillier = self.current_key(identity.party(), &scope).await?;
            self.enrol(identity, &share, index, card, &paillier).await?;
        }
        Ok(())
    }

    /// Makes a new Paillier key for each responder and tenant that this party initiates with, or
    /// only for some. It enrols every such wallet under the new key. A wallet uses its old key
    /// until its responder acknowledged the new one. An interrupted rotation can be repeated.
    ///
    /// # Errors
    /// When a responder cannot be reached, or refuses.
    pub async fn rotate(
        &self,
        identity: &Identity,
        responder: Option<&PartyId>,
        tenant: Option<&TenantId>,
    ) -> Result<Vec<Rotated>, PartyError> {
        let mut rotated: Vec<(PaillierScope, Arc<PaillierKey>, Rotated)> = Vec::new();
        let mut after = None;
        loop {
            let rows = self.context.store().wallets(after, 64).await?;
            let Some(last) = rows.last() else { break };
            after = Some(last.id);
            for row in &rows {
                let share = self.context.share(row).await?;
                if tenant.is_some_and(|only| only != share.wallet().tenant()) {
                    continue;
                }
                for index in responders(&share) {
                    let Some(party) = share.wallet().holder(index).party().cloned() else { continue };
                    if responder.is_some_and(|only| *only != party) {
                        continue;
                    }
                    let card = self.responder_card(identity, &share, index).await?;
                    let scope = scope(&share, &card);
                    let known = rotated.iter().position(|(known, _, _)| *known == scope);
                    let at = match known {
                        Some(at) => at,
                        None => {
                            let key = self.make_key(identity.party(), &scope).await?;
                            let report = Rotated {
                                tenant: share.wallet().tenant().clone(),
                                responder: party,
                                paillier_key: key.id(),
                                wallets: 0,
                            };
                            rotated.push((scope, key, report));
                            rotated.len() - 1
                        }
                    };
                    if let Some((_, key, report)) = rotated.get_mut(at) {
                        let key = Arc::clone(key);
                        self.enrol(identity, &share, index, card, &key).await?;
                        report.wallets += 1;
                    }
                }
            }
        }
        self.context.clear_superseded_keys().await;
        Ok(rotated.into_iter().map(|(_, _, report)| report).collect())
    }

    /// Makes a new Paillier key for one wallet of a device, and enrols it with both responders.
    ///
    /// # Errors
    /// As [`Self::rotate`].
    pub async fn rotate_wallet(
        &self,
        identity: &Identity,
        wallet: WalletId,
    ) -> Result<PaillierKeyId, PartyError> {
        let row = self.context.committed(wallet).await?;
        let share = self.context.share(&row).await?;
        let key = self.make_key(identity.party(), &PaillierScope::Wallet(wallet)).await?;
        for index in responders(&share) {
            if share.wallet().holder(index).party().is_some() {
                let card = self.responder_card(identity, &share, index).await?;
                self.enrol(identity, &share, index, card, &key).await?;
            }
        }
        self.context.clear_superseded_keys().await;
        Ok(key.id())
    }

    /// Offers `paillier` to the holder of share `index`, and records the agreement when it is
    /// accepted.
    async fn enrol(
        &self,
        identity: &Identity,
        share: &Arc<KeyShare>,
        index: ShareIndex,
        card: VerifiedCard,
        paillier: &Arc<PaillierKey>,
    ) -> Result<(), PartyError> {
        let store = self.context.store();
        let (wallet, party) = (share.wallet().id(), card.card().party().clone());
        self.require_committed(identity.party(), &party, wallet).await?;
        store.offer_enrolment(wallet, &party, paillier.id()).await?;
        let proved = (paillier.id(), card.card().fingerprint());
        // The proofs of the modulus are nine tenths of the work, and serve all wallets.
        let known = self.proved(|proved_keys| proved_keys.contains(&proved));
        let offered = match self.offer(identity, share, index, &card, paillier, !known).await {
            Err(PartyError::RefusedBy { refusal, .. }) if known && refusal.code == Code::PeerMisbehaved => {
                self.offer(identity, share, index, &card, paillier, true).await
            }
            other => other,
        };
        match offered? {
            CardReply::Enrolled => {}
            other => return Err(unexpected(&party, &other)),
        }
        self.proved(|proved_keys| proved_keys.insert(proved));
        let paillier_key = paillier.id();
        let agreed = Event::EnrolmentAgreed { wallet, responder: party.clone(), paillier_key };
        self.context.noting(agreed).agree_enrolment(wallet, &party, paillier_key).await?;
        tracing::info!(%wallet, responder = %party, paillier_key = %paillier.id(), "enrolled");
        Ok(())
    }

    /// Asks the responder whether it has committed the wallet. It would refuse an earlier offer,
    /// and the proofs in an offer are expensive.
    async fn require_committed(
        &self,
        own: &PartyId,
        responder: &PartyId,
        wallet: WalletId,
    ) -> Result<(), PartyError> {
        match ask(&self.bus, own, responder, &CardRequest::Wallet { id: wallet }).await? {
            CardReply::Wallet { wallet } if wallet.status == WalletStatus::Committed => Ok(()),
            CardReply::Wallet { .. } => Err(PartyError::refused(
                Code::NotEnrolled,
                format!("{responder} has not committed the wallet yet"),
            )),
            other => Err(unexpected(responder, &other)),
        }
    }

    async fn offer(
        &self,
        identity: &Identity,
        share: &Arc<KeyShare>,
        responder_index: ShareIndex,
        responder: &VerifiedCard,
        paillier: &Arc<PaillierKey>,
        with_proofs: bool,
    ) -> Result<CardReply, PartyError> {
        let (own, share, card, key) =
            (identity.clone(), Arc::clone(share), responder.clone(), Arc::clone(paillier));
        let generation = self.context.clock.now_ms();
        let offer = self
            .context
            .compute
            .run(move || {
                let mut rng = system_rng();
                let proofs = with_proofs
                    .then(|| ModulusProofs::prove(&key, &own.card, &card, &mut rng))
                    .transpose()?;
                let setup = OfferSetup {
                    share: &share,
                    paillier: &key,
                    keys: &own.keys,
                    card: &own.card,
                    responder: &card,
                    responder_index,
                    generation,
                };
                EnrolmentOffer::make(&setup, proofs, &mut rng)
            })
            .await?
            .map_err(|error| PartyError::refused(Code::Internal, error.to_string()))?;
        let request = CardRequest::Enrol { offer: codec::encode(&offer)? };
        ask(&self.bus, identity.party(), responder.card().party(), &request).await
    }

    /// The responder's card, with verified parameters. It comes from the store, or from the
    /// responder and is compared with the wallet's record.
    async fn responder_card(
        &self,
        identity: &Identity,
        share: &KeyShare,
        index: ShareIndex,
    ) -> Result<VerifiedCard, PartyError> {
        let card = known_or_fetched(&self.context, &self.bus, identity.party(), share, index).await?;
        let pinned = card.fingerprint();
        self.context.verified_card(card, pinned).await
    }

    /// The newest key of a scope. Makes one if there is none.
    async fn current_key(
        &self,
        owner: &PartyId,
        scope: &PaillierScope,
    ) -> Result<Arc<PaillierKey>, PartyError> {
        let _making = self.making.lock().await;
        match self.context.store().paillier_keys(scope).await?.into_iter().next() {
            Some(PaillierKeyRow { id, state, .. }) => {
                require_unlocked(Some(state))?;
                self.context.paillier_key(id, owner).await
            }
            None => self.make_first_key(owner, scope).await,
        }
    }

    async fn make_key(&self, owner: &PartyId, scope: &PaillierScope) -> Result<Arc<PaillierKey>, PartyError> {
        let (key, record) = self.generate(owner).await?;
        let now_ms = self.context.clock.now_ms();
        let noting = self.context.noting(made(&key, scope));
        noting.put_paillier_key(key.id(), scope, &record, PaillierState::Ready, now_ms).await?;
        Ok(key)
    }

    /// Makes the scope's first key. Returns another worker's key if that worker was faster.
    async fn make_first_key(
        &self,
        owner: &PartyId,
        scope: &PaillierScope,
    ) -> Result<Arc<PaillierKey>, PartyError> {
        let (key, record) = self.generate(owner).await?;
        let now_ms = self.context.clock.now_ms();
        let noting = self.context.noting(made(&key, scope));
        let stands = noting.put_first_paillier_key(key.id(), scope, &record, now_ms).await?;
        if stands.id == key.id() {
            return Ok(key);
        }
        require_unlocked(Some(stands.state))?;
        self.context.paillier_key(stands.id, owner).await
    }

    async fn generate(&self, owner: &PartyId) -> Result<(Arc<PaillierKey>, SealedRecord), PartyError> {
        let (party, size, arithmetic) = (owner.clone(), self.modulus, self.context.arithmetic);
        let key = self
            .context
            .compute
            .run(move || PaillierKey::generate(party, size, arithmetic, &mut system_rng(), &mut |_| {}))
            .await?;
        let record = self.context.vault.seal(&paillier_label(key.id()), &key.to_secret_bytes()).await?;
        Ok((Arc::new(key), record))
    }

    fn proved<T>(&self, f: impl FnOnce(&mut HashSet<(PaillierKeyId, CardFingerprint)>) -> T) -> T {
        f(&mut self.proved.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The audit event of a new key.
fn made(key: &PaillierKey, scope: &PaillierScope) -> Event {
    Event::KeyMade { paillier_key: key.id(), scope: scope.to_string() }
}

/// The shares that this share initiates with.
fn responders(share: &KeyShare) -> impl Iterator<Item = ShareIndex> + use<> {
    let own = share.index();
    ShareIndex::ALL.into_iter().filter(move |index| *index > own)
}

/// The scope of a key: one wallet for a device, one responder and tenant for a service.
fn scope(share: &KeyShare, responder: &VerifiedCard) -> PaillierScope {
    match share.index() {
        ShareIndex::Device => PaillierScope::Wallet(share.wallet().id()),
        ShareIndex::Service | ShareIndex::Partner => PaillierScope::Responder {
            card: responder.card().fingerprint(),
            tenant: share.wallet().tenant().to_string(),
        },
    }
}

/// The card of the holder of share `index`. It comes from the store, or from the holder and is
/// compared with the fingerprint in the wallet's record.
pub(crate) async fn known_or_fetched(
    context: &Context,
    bus: &Bus,
    own: &PartyId,
    share: &KeyShare,
    index: ShareIndex,
) -> Result<Arc<Card>, PartyError> {
    if let Some(card) = context.holder_card(share, index).await? {
        return Ok(card);
    }
    let holder = share.wallet().holder(index);
    let (Some(party), Some(expected)) = (holder.party(), holder.card()) else {
        return Err(PartyError::refused(
            Code::NoPairAvailable,
            "the share is in a backup file: no party responds with it",
        ));
    };
    let card = fetch_card(bus, own, party).await?;
    if card.fingerprint() != *expected {
        return Err(PartyError::refused(
            Code::CardMismatch,
            format!("{party} shows card {}, the wallet is bound to {expected}", card.fingerprint()),
        ));
    }
    context.store_card(&card).await?;
    Ok(Arc::new(card))
}

/// The responder's side: verifies an offer, and stores it.
///
/// # Errors
/// [`PartyError::Refused`], which names the failed check.
pub(crate) async fn take_offer(
    context: &Context,
    bus: &Bus,
    identity: &Identity,
    offer: &[u8],
) -> Result<(), PartyError> {
    let offer: EnrolmentOffer = codec::decode(offer)
        .map_err(|error| PartyError::refused(Code::MalformedMessage, error.to_string()))?;
    let row = context.committed(offer.wallet()).await?;
    let share = context.share(&row).await?;
    let initiator_index = offer.initiator_index();
    if initiator_index >= share.index() {
        return Err(PartyError::refused(Code::PeerMisbehaved, EnrolmentRefusal::Roles.to_string()));
    }
    let initiator = known_or_fetched(context, bus, identity.party(), &share, initiator_index).await?;
    let held = context.store().enrolments(row.id).await?;
    let newest_generation = match held.iter().find(|held| held.initiator == initiator_index) {
        Some(held) => Some(context.enrolment(held).await?.generation()),
        None => None,
    };
    let modulus = context.modulus_check(&offer.modulus_fingerprint()).await?;
    let (own, arithmetic) = (identity.clone(), context.arithmetic);
    let (enrolment, verdict) = context
        .compute
        .run(move || {
            let verifier = OfferVerifier {
                wallet: share.wallet(),
                index: share.index(),
                card: &own.card,
                initiator: &initiator,
                modulus,
                newest_generation,
                arithmetic,
            };
            verifier.verify(&offer)
        })
        .await?
        .map_err(|refusal| {
            PartyError::refused(Code::PeerMisbehaved, format!("{refusal} ({})", refusal.check()))
        })?;
    context.store_modulus_check(&verdict).await?;
    let row = EnrolmentRow {
        wallet: row.id,
        initiator: initiator_index,
        paillier_key: enrolment.paillier_key(),
        epoch: enrolment.epoch(),
    };
    let bytes = enrolment.to_bytes()?;
    let record = context.vault.seal(&enrolment_label(&row), &bytes).await?;
    let taken = Event::EnrolmentTaken {
        wallet: row.wallet,
        initiator: row.initiator,
        paillier_key: row.paillier_key,
    };
    context.noting(taken).put_enrolment(&row, &record, context.clock.now_ms()).await?;
    tracing::info!(wallet = %row.wallet, initiator = %row.initiator, paillier_key = %row.paillier_key, "took an enrolment");
    Ok(())
}

/// A Paillier key of this party, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStatus {
    /// The key.
    pub paillier_key: PaillierKeyId,
    /// The wallets and responders that it may be used for.
    pub scope: PaillierScope,
    /// Whether it may be used, and if not, why.
    pub state: PaillierState,
}

/// Every Paillier key of the party, newest first.
///
/// # Errors
/// When the store cannot be read.
pub async fn key_status(context: &Context) -> Result<Vec<KeyStatus>, PartyError> {
    context
        .store()
        .all_paillier_keys()
        .await?
        .into_iter()
        .map(|row| {
            let scope = PaillierScope::parse(&row.scope)
                .ok_or(crate::store::StoreError::Corrupt("not a Paillier key's scope"))?;
            Ok(KeyStatus { paillier_key: row.id, scope, state: row.state })
        })
        .collect()
}
