//! A backend party: its keys and card, its wallets, its admission tokens.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use duet_bus::{Address, Bus};
use duet_protocol::{
    admission::AdmissionToken,
    arithmetic::PrimeProgress,
    card::Card,
    codec,
    identity::PartyKeys,
    ids::{CardFingerprint, PartyId, ShareIndex, TenantId, WalletId},
    paillier::ModulusSize,
    ring_pedersen::Parameters,
    share::{Holder, KeyShare},
};
use duet_wire::{
    Code, WalletInfo,
    audit::{Draft, Event},
    card_request::{CardReply, CardRequest},
    wallet::{Initiates, InitiatorState, RequesterInfo, RespondsTo, WalletParty, WalletStatus},
};
use rand_core::Rng as _;

use crate::{
    at_rest::{RecordKind, RecordLabel},
    audit,
    compute::system_rng,
    context::Context,
    error::PartyError,
    identity::Identity,
    session::SessionLimits,
    store::{
        LIMITS_USED_UP_SINCE, PaillierState, PinOutcome, Standing, StoreError, WalletRow, WalletState, moment,
    },
};

/// How long another party may take to verify an enrolment or to list wallets.
const CARD_DEADLINE: Duration = Duration::from_secs(20);
/// How long another party may take to return its card, which it has ready.
const SHOW_CARD_DEADLINE: Duration = Duration::from_secs(5);

/// The setting with the index of the share that the party holds of every wallet.
const INDEX: &str = "share-index";

/// A step in the set-up of a party.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetUpProgress {
    /// Searching for the two safe primes of `Ñ`. Expect some 1,700 candidates for each prime of
    /// 1024 bits.
    Primes {
        /// The candidates tried for the current prime.
        candidates: u32,
    },
    /// Proving the parameters.
    Proof,
    /// Writing to the store.
    Store,
}

/// The settings of a party.
#[derive(Debug, Clone, Copy)]
pub struct PartySettings {
    /// The limits of a session's duration.
    pub limits: SessionLimits,
    /// How long a prepared wallet waits for its commit before it is deleted. Default one day: in
    /// that time a crashed dealer may return.
    pub prepared_for_ms: u64,
    /// The size of Paillier moduli this party makes. Default 2048 bits.
    pub modulus: ModulusSize,
}

impl Default for PartySettings {
    fn default() -> Self {
        Self {
            limits: SessionLimits::default(),
            prepared_for_ms: 24 * 60 * 60 * 1000,
            modulus: ModulusSize::Bits2048,
        }
    }
}

/// A party with an open share store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Party {
    pub(crate) context: Context,
    pub(crate) identity: Identity,
    pub(crate) index: ShareIndex,
    pub(crate) settings: PartySettings,
}

fn keys_label() -> RecordLabel {
    RecordLabel::of_party(RecordKind::PartyKeys, &[])
}

fn own_card_label() -> RecordLabel {
    RecordLabel::of_party(RecordKind::Card, b"own")
}

impl Party {
    /// Makes a party that holds share `index` of every wallet: its keys, ring-Pedersen parameters
    /// of `size` with their proof, and its card. It takes some seconds of one core, and calls
    /// `progress` from that thread.
    ///
    /// # Errors
    /// When the store has a party already, or when it cannot be written.
    pub async fn set_up(
        context: Context,
        party: PartyId,
        index: ShareIndex,
        size: ModulusSize,
        progress: impl FnMut(SetUpProgress) + Send + 'static,
    ) -> Result<Self, PartyError> {
        if context.vault.read(&keys_label()).await?.is_some() {
            return Err(PartyError::refused(Code::Conflict, "the share store belongs to a party already"));
        }
        let arithmetic = context.arithmetic;
        let (keys, card) = context
            .compute
            .run(move || {
                let mut progress = progress;
                let mut rng = system_rng();
                let keys = PartyKeys::generate(&mut rng);
                let mut on_prime =
                    |PrimeProgress { candidates }| progress(SetUpProgress::Primes { candidates });
                let (parameters, trapdoor) = Parameters::generate(size, arithmetic, &mut rng, &mut on_prime);
                progress(SetUpProgress::Proof);
                let card = Card::new_verifier(party, &keys, &parameters, &trapdoor, &mut rng);
                progress(SetUpProgress::Store);
                (keys, card)
            })
            .await?;
        Self::store(context, keys, card, index).await
    }

    /// Stores keys and a card that were made elsewhere. For a party that another machine sets up.
    ///
    /// # Errors
    /// When the store has a party already, the card is not that of the keys, or the store cannot be
    /// written.
    pub async fn adopt(
        context: Context,
        keys: PartyKeys,
        card: Card,
        index: ShareIndex,
    ) -> Result<Self, PartyError> {
        if context.vault.read(&keys_label()).await?.is_some() {
            return Err(PartyError::refused(Code::Conflict, "the share store belongs to a party already"));
        }
        if keys.identity() != *card.identity() {
            return Err(PartyError::refused(Code::CardMismatch, "the card does not show these keys"));
        }
        Self::store(context, keys, card, index).await
    }

    async fn store(
        context: Context,
        keys: PartyKeys,
        card: Card,
        index: ShareIndex,
    ) -> Result<Self, PartyError> {
        let (keys_label, card_label) = (keys_label(), own_card_label());
        let secret = context.vault.seal(&keys_label, &keys.to_secret_bytes()).await?;
        let encoded = context.vault.seal(&card_label, &codec::encode(&card)?).await?;
        // Also under its fingerprint, because the party is a holder of its own wallets like any
        // other.
        let holder_label = crate::context::card_label(card.fingerprint());
        let holder = context.vault.seal(&holder_label, &codec::encode(&card)?).await?;
        context.store().put_setting(INDEX, &[index.into()]).await?;
        let records = [(keys_label, secret), (card_label, encoded), (holder_label, holder)];
        context.store().put_records(&records).await?;
        let identity = Identity { keys: Arc::new(keys), card: Arc::new(card) };
        audit::open(&context, &identity).await?;
        Ok(Self { context, identity, index, settings: PartySettings::default() })
    }

    /// Opens a party that was set up.
    ///
    /// # Errors
    /// When the store has no party.
    pub async fn open(context: Context) -> Result<Self, PartyError> {
        let stored = |what| move |reason: String| PartyError::Stored { what, reason };
        let secret = context.vault.require(&keys_label(), "party").await?;
        let keys = PartyKeys::from_secret_bytes(&secret).map_err(|e| stored("party keys")(e.to_string()))?;
        let card = context.vault.require(&own_card_label(), "card").await?;
        let card: Card = codec::decode(&card).map_err(|e| stored("card")(e.to_string()))?;
        let index = match context.store().setting(INDEX).await?.as_deref() {
            Some([index]) => {
                ShareIndex::try_from(*index).map_err(|e| stored("share index")(e.to_string()))?
            }
            _ => return Err(stored("share index")("it is missing".to_owned())),
        };
        let identity = Identity { keys: Arc::new(keys), card: Arc::new(card) };
        audit::open(&context, &identity).await?;
        Ok(Self { context, identity, index, settings: PartySettings::default() })
    }

    /// The index of the share that it holds of every wallet.
    #[must_use]
    pub const fn index(&self) -> ShareIndex {
        self.index
    }

    /// This party with other settings.
    #[must_use]
    pub fn with_settings(mut self, settings: PartySettings) -> Self {
        self.settings = settings;
        self
    }

    /// The party's name.
    #[must_use]
    pub fn id(&self) -> &PartyId {
        self.identity.party()
    }

    /// Its card.
    #[must_use]
    pub fn card(&self) -> &Arc<Card> {
        &self.identity.card
    }

    /// Its keys and card.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The party's context.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.context
    }

    /// Issues an admission token for up to `max_wallets` wallets of `tenant`, valid until
    /// `expires_at` (seconds since 1970).
    #[must_use]
    pub fn issue_token(&self, tenant: TenantId, expires_at: u64, max_wallets: u32) -> AdmissionToken {
        let mut token = [0; 16];
        system_rng().fill_bytes(&mut token);
        let keys = &self.identity.keys;
        AdmissionToken::issue(keys, self.id().clone(), tenant, token, expires_at, max_wallets)
    }

    /// Pins another party's card by its fingerprint. A wallet that names another card for that
    /// party is then refused.
    ///
    /// # Errors
    /// When another card is pinned already.
    pub async fn pin(&self, party: &PartyId, card: CardFingerprint) -> Result<(), PartyError> {
        match pin_card(&self.context, party, card, false).await? {
            PinOutcome::Pinned | PinOutcome::Same => Ok(()),
            PinOutcome::Different(pinned) => Err(PartyError::refused(
                Code::CardMismatch,
                format!("the card {pinned} of {party} is pinned, not {card}"),
            )),
        }
    }

    /// The pinned cards: by the operator, or at first contact.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn pins(&self) -> Result<BTreeMap<PartyId, CardFingerprint>, PartyError> {
        Ok(self.context.store().pins().await?)
    }

    /// A page of committed wallets in the order of their ids, and whether there are more.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn wallets(
        &self,
        after: Option<WalletId>,
        limit: u16,
    ) -> Result<(Vec<WalletInfo>, bool), PartyError> {
        let limit = usize::from(limit);
        let rows = self.context.store().wallets(after, u32::try_from(limit + 1).unwrap_or(u32::MAX)).await?;
        let more = rows.len() > limit;
        let mut wallets = Vec::with_capacity(limit);
        for row in rows.iter().take(limit) {
            wallets.push(wallet_info(&self.context, row).await?);
        }
        Ok((wallets, more))
    }

    /// The time since which the limits of its wallets count as used up, in Unix milliseconds. This
    /// is the time of a restore. `None` without a restore, or after an operator reset the limits.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn limits_used_up_since(&self) -> Result<Option<u64>, PartyError> {
        let setting = self.context.store().setting(LIMITS_USED_UP_SINCE).await?;
        Ok(setting.as_deref().map(moment).transpose()?)
    }

    /// Makes the limits count again from the store's figures, and records that. The store does not
    /// know what was signed between the backup and the restore. Returns the time since which the
    /// limits had counted as used up.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn reset_limits(&self) -> Result<Option<u64>, PartyError> {
        let store = self.context.store();
        let Some(setting) = store.setting(LIMITS_USED_UP_SINCE).await? else { return Ok(None) };
        let used_up_since_ms = moment(&setting)?;
        store.remove_setting(LIMITS_USED_UP_SINCE, &setting).await?;
        let reset = Draft::new(self.context.clock.now_ms(), Event::LimitsReset { used_up_since_ms });
        store.append_audit(&[reset]).await?;
        Ok(Some(used_up_since_ms))
    }

    /// The number of committed wallets.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn count_wallets(&self) -> Result<u64, PartyError> {
        Ok(self.context.store().count_wallets().await?)
    }

    /// One of its wallets, prepared or committed.
    ///
    /// # Errors
    /// When the party does not hold it, or when the store cannot be read.
    pub async fn wallet(&self, id: WalletId) -> Result<WalletInfo, PartyError> {
        match self.context.store().wallet(id).await? {
            Some(row) => wallet_info(&self.context, &row).await,
            None => Err(PartyError::refused(Code::UnknownWallet, format!("there is no wallet {id} here"))),
        }
    }
}

/// Pins a card, and records that in the audit log.
pub(crate) async fn pin_card(
    context: &Context,
    party: &PartyId,
    card: CardFingerprint,
    first_contact: bool,
) -> Result<PinOutcome, StoreError> {
    let pinned = Event::CardPinned { party: party.clone(), card, first_contact };
    context.noting(pinned).pin_card(party, card).await
}

/// What a party tells other processes about a wallet.
pub(crate) async fn wallet_info(context: &Context, row: &WalletRow) -> Result<WalletInfo, PartyError> {
    let share = context.share(row).await?;
    let wallet = share.wallet();
    let mut parties = Vec::with_capacity(3);
    for index in ShareIndex::ALL {
        parties.push(wallet_party(context, &share, index).await?);
    }
    let parties = <[Option<WalletParty>; 3]>::try_from(parties)
        .map_err(|_| PartyError::Stored { what: "wallet", reason: "not three holders".to_owned() })?;
    let responds_to = context
        .store()
        .enrolments(row.id)
        .await?
        .into_iter()
        .map(|enrolment| RespondsTo { initiator: enrolment.initiator, paillier_key: enrolment.paillier_key })
        .collect();
    Ok(WalletInfo {
        id: wallet.id(),
        epoch: wallet.epoch(),
        public_key: wallet.public_key().to_bytes(),
        chain_code: wallet.chain_code().0,
        address: wallet.address(),
        tenant: wallet.tenant().clone(),
        parties,
        requesters: wallet
            .requesters()
            .iter()
            .map(|requester| RequesterInfo { key: *requester.key.as_bytes(), kinds: requester.kinds.clone() })
            .collect(),
        index: row.index,
        status: match row.state {
            WalletState::Prepared => WalletStatus::Prepared,
            WalletState::Committed => WalletStatus::Committed,
        },
        responds_to,
        initiates: initiates(context, &share).await?,
    })
}

async fn wallet_party(
    context: &Context,
    share: &KeyShare,
    index: ShareIndex,
) -> Result<Option<WalletParty>, PartyError> {
    let Holder::Party { party, card } = share.wallet().holder(index) else { return Ok(None) };
    // A missing card is fetched before this party's first session with its holder.
    let signing_key = context.holder_card(share, index).await?.map(|card| *card.identity().as_bytes());
    Ok(Some(WalletParty { party: party.clone(), card: *card, signing_key: signing_key.unwrap_or([0; 32]) }))
}

/// The Paillier keys for initiating, each with the responders that agreed to it.
async fn initiates(context: &Context, share: &KeyShare) -> Result<Vec<Initiates>, PartyError> {
    let mut initiates: Vec<Initiates> = Vec::new();
    for index in ShareIndex::ALL.into_iter().filter(|index| *index > share.index()) {
        let Some(responder) = share.wallet().holder(index).party() else { continue };
        let agreed = context.store().own_enrolment(share.wallet().id(), responder).await?.agreed;
        let Some(paillier_key) = agreed else { continue };
        let Some(key) = context.store().paillier_key(paillier_key).await? else { continue };
        let standing = match share.wallet().holder(index).card() {
            Some(card) => context.store().standing(*card).await?,
            None => Standing::default(),
        };
        let state = match key.state {
            // A new key does not end the quarantine of the responder that locked the last one.
            PaillierState::Ready if !standing.is_trusted() => InitiatorState::Locked,
            PaillierState::Ready => InitiatorState::Ready,
            PaillierState::Locked => InitiatorState::Locked,
            PaillierState::NeedsRotation => InitiatorState::NeedsRotation,
        };
        let is_known = |known: &&mut Initiates| known.paillier_key == paillier_key && known.state == state;
        match initiates.iter_mut().find(is_known) {
            Some(known) => known.responders.push(responder.clone()),
            None => initiates.push(Initiates { paillier_key, responders: vec![responder.clone()], state }),
        }
    }
    Ok(initiates)
}

/// Asks `to` for its card, in the name of `from`.
///
/// # Errors
/// When it does not answer, refuses, or sends an invalid card or another party's.
pub async fn fetch_card(bus: &Bus, from: &PartyId, to: &PartyId) -> Result<Card, PartyError> {
    match ask(bus, from, to, &CardRequest::Card).await? {
        CardReply::Card { card } => {
            let card: Card = codec::decode(&card)
                .map_err(|reason| PartyError::Malformed { from: to.to_string(), reason })?;
            if card.party() == to {
                Ok(card)
            } else {
                Err(PartyError::refused(
                    Code::CardMismatch,
                    format!("{to} answered with the card of {}", card.party()),
                ))
            }
        }
        other => Err(unexpected(to, &other)),
    }
}

/// Asks another party a question about cards, wallets or enrolments.
pub(crate) async fn ask(
    bus: &Bus,
    from: &PartyId,
    to: &PartyId,
    request: &CardRequest,
) -> Result<CardReply, PartyError> {
    let address = Address::Card { from: from.into(), to: to.clone() };
    let deadline = match request {
        CardRequest::Card => SHOW_CARD_DEADLINE,
        CardRequest::Wallets { .. } | CardRequest::Wallet { .. } | CardRequest::Enrol { .. } => CARD_DEADLINE,
    };
    let reply = bus.request(&address, codec::encode(request)?, deadline).await?;
    match codec::decode(&reply) {
        Ok(CardReply::Refused(refusal)) => Err(PartyError::RefusedBy { by: to.to_string(), refusal }),
        Ok(reply) => Ok(reply),
        Err(reason) => Err(PartyError::Malformed { from: to.to_string(), reason }),
    }
}

pub(crate) fn unexpected(from: &PartyId, reply: &CardReply) -> PartyError {
    let kind = match reply {
        CardReply::Card { .. } => "a card",
        CardReply::Wallets { .. } => "wallets",
        CardReply::Wallet { .. } => "a wallet",
        CardReply::Enrolled => "an enrolment",
        CardReply::Refused(_) => "a refusal",
    };
    PartyError::refused(Code::PeerMisbehaved, format!("{from} answered with {kind}, which was not asked for"))
}
