//! The context of all of a party's operations: its unlocked store, the time, the processor.

use std::{
    collections::HashSet,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use duet_protocol::{
    arithmetic::{Arithmetic, default_arithmetic},
    card::{Card, VerifiedCard},
    codec,
    enrolment::{ModulusCheck, VerifiedEnrolment},
    ids::{CardFingerprint, PaillierKeyId, PartyId, ShareIndex, WalletId},
    paillier_key::PaillierKey,
    share::KeyShare,
};
use duet_wire::{
    Code,
    audit::{Draft, Event},
};
use lru::LruCache;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    at_rest::{RecordKind, RecordLabel},
    clock::Clock,
    compute::Compute,
    error::PartyError,
    metrics::Metrics,
    policy::VerifiedPolicies,
    store::{
        EnrolmentRow, PaillierState, PolicyMark, ShareStore, StoreError, WalletRow, WalletState,
        enrolment_label,
    },
    vault::Vault,
    witness::Witness,
};

/// An unlocked store, with what is needed to work on it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    /// The store.
    pub vault: Vault,
    /// The clock.
    pub clock: Clock,
    /// Runs arithmetic.
    pub compute: Compute,
    /// The arithmetic.
    pub arithmetic: &'static dyn Arithmetic,
    /// Recently verified policies.
    pub(crate) policies: VerifiedPolicies,
    /// The party's counters.
    pub(crate) metrics: Metrics,
    /// Whether the store was compared with the audit heads that others keep.
    pub(crate) witness: Witness,
    hot: Arc<Mutex<Hot>>,
    /// Whether the pending verdicts of earlier processes have been judged. Nothing is initiated
    /// before.
    finished_pending: Arc<AtomicBool>,
}

/// Recently used values that stay in memory.
#[derive(Debug)]
struct Hot {
    keys: LruCache<PaillierKeyId, Arc<PaillierKey>>,
    enrolments: LruCache<EnrolmentRow, Arc<VerifiedEnrolment>>,
    cards: LruCache<CardFingerprint, Arc<Card>>,
}

/// The most Paillier keys in memory. A key carries the blinding of its decryptions, which gains
/// value the longer the key lives. A service has one key for each tenant and responder.
const MAX_HOT_KEYS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// The most enrolments in memory, prepared from their second answer on: 16 MB for 2048 bits. An
/// enrolment may be stored again under the same key for the same epoch. The cached one then still
/// serves: it encrypts the same share and was verified too.
const MAX_HOT_ENROLMENTS: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// The most cards in memory, some kilobytes each.
const MAX_HOT_CARDS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

fn unknown(wallet: WalletId) -> PartyError {
    PartyError::refused(Code::UnknownWallet, format!("there is no wallet {wallet} here"))
}

fn stored<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> PartyError {
    move |reason| PartyError::Stored { what, reason: reason.to_string() }
}

impl Context {
    /// A context with the default arithmetic, the system's clock and one computation per core.
    #[must_use]
    pub fn new(vault: Vault) -> Self {
        Self {
            vault,
            clock: Clock::system(),
            compute: Compute::per_core(),
            arithmetic: default_arithmetic(),
            policies: VerifiedPolicies::default(),
            metrics: Metrics::default(),
            witness: Witness::default(),
            hot: Arc::new(Mutex::new(Hot {
                keys: LruCache::new(MAX_HOT_KEYS),
                enrolments: LruCache::new(MAX_HOT_ENROLMENTS),
                cards: LruCache::new(MAX_HOT_CARDS),
            })),
            finished_pending: Arc::default(),
        }
    }

    pub(crate) fn has_finished_pending(&self) -> bool {
        self.finished_pending.load(Ordering::Acquire)
    }

    pub(crate) fn note_finished_pending(&self) {
        self.finished_pending.store(true, Ordering::Release);
    }

    /// Drops a key that was locked and deleted from the store.
    pub(crate) fn forget_key(&self, key: PaillierKeyId) {
        self.hot(|hot| hot.keys.pop(&key));
    }

    pub(crate) fn store(&self) -> &Arc<dyn ShareStore> {
        self.vault.store()
    }

    /// The store, which will record `event` together with the next decision.
    pub(crate) fn noting(&self, event: Event) -> Arc<dyn ShareStore> {
        self.store().noting(Draft::new(self.clock.now_ms(), event))
    }

    /// A committed wallet.
    pub(crate) async fn committed(&self, wallet: WalletId) -> Result<WalletRow, PartyError> {
        match self.store().wallet(wallet).await? {
            Some(row) if row.state == WalletState::Committed => Ok(row),
            _ => Err(unknown(wallet)),
        }
    }

    /// A committed wallet, with the mark of its newest policy.
    pub(crate) async fn committed_with_policy(
        &self,
        wallet: WalletId,
    ) -> Result<(WalletRow, Option<PolicyMark>), PartyError> {
        match self.store().wallet_with_policy(wallet).await? {
            Some((row, newest)) if row.state == WalletState::Committed => Ok((row, newest)),
            _ => Err(unknown(wallet)),
        }
    }

    /// Adds the public key to wallets that an earlier version stored without it. So no second
    /// wallet can get the same key.
    pub(crate) async fn note_public_keys(&self) -> Result<(), PartyError> {
        const AT_ONCE: u32 = 256;
        loop {
            let rows = self.store().wallets_without_public_key(AT_ONCE).await?;
            if rows.is_empty() {
                return Ok(());
            }
            for row in rows {
                let public_key = self.share(&row).await?.wallet().public_key().to_bytes();
                self.store().note_public_key(row.id, public_key).await?;
            }
        }
    }

    pub(crate) async fn share(&self, row: &WalletRow) -> Result<Arc<KeyShare>, PartyError> {
        let bytes = self.vault.require(&share_label(row), "share").await?;
        KeyShare::from_secret_bytes(&bytes).map(Arc::new).map_err(stored("share"))
    }

    /// The card with this fingerprint, if the store has it.
    pub(crate) async fn card(&self, fingerprint: CardFingerprint) -> Result<Option<Arc<Card>>, PartyError> {
        if let Some(card) = self.hot(|hot| hot.cards.get(&fingerprint).cloned()) {
            return Ok(Some(card));
        }
        let Some(bytes) = self.vault.read(&card_label(fingerprint)).await? else { return Ok(None) };
        let card: Arc<Card> = Arc::new(codec::decode(&bytes).map_err(stored("card"))?);
        self.hot(|hot| hot.cards.put(fingerprint, Arc::clone(&card)));
        Ok(Some(card))
    }

    pub(crate) async fn store_card(&self, card: &Card) -> Result<(), PartyError> {
        self.vault.write(&card_label(card.fingerprint()), &codec::encode(card)?).await
    }

    /// The card of the holder of share `index`.
    pub(crate) async fn holder_card(
        &self,
        share: &KeyShare,
        index: ShareIndex,
    ) -> Result<Option<Arc<Card>>, PartyError> {
        match share.wallet().holder(index).card() {
            Some(fingerprint) => self.card(*fingerprint).await,
            None => Ok(None),
        }
    }

    /// A card with verified parameters: by an earlier check, or by a proof that is verified now.
    pub(crate) async fn verified_card(
        &self,
        card: Arc<Card>,
        pinned: CardFingerprint,
    ) -> Result<VerifiedCard, PartyError> {
        let label = RecordLabel::of_party(RecordKind::ParametersCheck, pinned.as_bytes());
        if let Some(check) = self.read_json(&label, "card check").await? {
            return VerifiedCard::with_check(card, &pinned, &check, self.arithmetic)
                .map_err(|refusal| PartyError::refused(Code::CardMismatch, refusal.to_string()));
        }
        let arithmetic = self.arithmetic;
        let verified = self
            .compute
            .run(move || VerifiedCard::verify(card, &pinned, arithmetic))
            .await?
            .map_err(|refusal| PartyError::refused(Code::CardMismatch, refusal.to_string()))?;
        self.write_json(&label, &verified.check(), "card check").await?;
        Ok(verified)
    }

    pub(crate) async fn modulus_check(&self, modulus: &[u8; 32]) -> Result<Option<ModulusCheck>, PartyError> {
        self.read_json(&modulus_label(modulus), "modulus check").await
    }

    pub(crate) async fn store_modulus_check(&self, check: &ModulusCheck) -> Result<(), PartyError> {
        self.write_json(&modulus_label(check.modulus_fingerprint()), check, "modulus check").await
    }

    pub(crate) async fn enrolment(&self, row: &EnrolmentRow) -> Result<Arc<VerifiedEnrolment>, PartyError> {
        if let Some(enrolment) = self.hot(|hot| hot.enrolments.get(row).cloned()) {
            if !enrolment.is_prepared() {
                let preparing = Arc::clone(&enrolment);
                self.compute.run(move || preparing.prepare()).await?;
            }
            return Ok(enrolment);
        }
        let bytes = self.vault.require(&enrolment_label(row), "enrolment").await?;
        let enrolment = VerifiedEnrolment::from_trusted_bytes(&bytes, self.arithmetic)
            .map(Arc::new)
            .map_err(stored("enrolment"))?;
        self.hot(|hot| hot.enrolments.put(row.clone(), Arc::clone(&enrolment)));
        Ok(enrolment)
    }

    pub(crate) async fn paillier_key(
        &self,
        id: PaillierKeyId,
        owner: &PartyId,
    ) -> Result<Arc<PaillierKey>, PartyError> {
        if let Some(key) = self.hot(|hot| hot.keys.get(&id).cloned())
            && key.owner() == owner
        {
            return Ok(key);
        }
        let bytes = self.vault.require(&paillier_label(id), "Paillier key").await?;
        let (owner, arithmetic) = (owner.clone(), self.arithmetic);
        let key = self
            .compute
            .run(move || PaillierKey::from_secret_bytes(owner, &bytes, arithmetic))
            .await?
            .map_err(stored("Paillier key"))?;
        if key.id() != id {
            return Err(stored("Paillier key")("it is another party's"));
        }
        let key = Arc::new(key);
        self.hot(|hot| hot.keys.put(id, Arc::clone(&key)));
        Ok(key)
    }

    /// Deletes, from the store and from memory, the Paillier keys that a rotation has replaced and
    /// no session can use. A key that cannot be deleted now is deleted in a later call.
    pub(crate) async fn clear_superseded_keys(&self) {
        if let Err(error) = self.remove_superseded_keys().await {
            tracing::warn!(%error, "superseded Paillier keys were not deleted");
        }
    }

    async fn remove_superseded_keys(&self) -> Result<(), StoreError> {
        let removed = self.store().remove_superseded_keys(self.clock.now_ms()).await?;
        for key in &removed {
            tracing::info!(paillier_key = %key, "deleted a superseded Paillier key");
        }
        if !removed.is_empty() {
            let event = Event::KeysRemoved { paillier_keys: removed };
            self.store().append_audit(&[Draft::new(self.clock.now_ms(), event)]).await?;
        }
        // Another process of the party may have deleted some, or destroyed them by locking.
        let rows = self.store().all_paillier_keys().await?;
        let kept: HashSet<PaillierKeyId> =
            rows.into_iter().filter(|row| row.state != PaillierState::Locked).map(|row| row.id).collect();
        self.hot(|hot| {
            let gone: Vec<PaillierKeyId> =
                hot.keys.iter().map(|(id, _)| *id).filter(|id| !kept.contains(id)).collect();
            for id in gone {
                hot.keys.pop(&id);
            }
        });
        Ok(())
    }

    /// Drops the Paillier keys in memory, with their blinding. Another process may have a copy of
    /// them.
    pub(crate) fn forget_keys(&self) {
        self.hot(|hot| hot.keys.clear());
    }

    fn hot<T>(&self, f: impl FnOnce(&mut Hot) -> T) -> T {
        f(&mut self.hot.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn read_json<T: DeserializeOwned>(
        &self,
        label: &RecordLabel,
        what: &'static str,
    ) -> Result<Option<T>, PartyError> {
        let Some(bytes) = self.vault.read(label).await? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(stored(what))
    }

    async fn write_json<T: Serialize>(
        &self,
        label: &RecordLabel,
        value: &T,
        what: &'static str,
    ) -> Result<(), PartyError> {
        let bytes = serde_json::to_vec(value).map_err(stored(what))?;
        self.vault.write(label, &bytes).await
    }
}

pub(crate) fn share_label(row: &WalletRow) -> RecordLabel {
    RecordLabel::of_wallet(RecordKind::Share, row.id, row.index, row.epoch, &[])
}

pub(crate) fn card_label(fingerprint: CardFingerprint) -> RecordLabel {
    RecordLabel::of_party(RecordKind::Card, fingerprint.as_bytes())
}

pub(crate) fn paillier_label(id: PaillierKeyId) -> RecordLabel {
    RecordLabel::of_party(RecordKind::PaillierKey, id.as_bytes())
}

fn modulus_label(modulus: &[u8; 32]) -> RecordLabel {
    RecordLabel::of_party(RecordKind::ModulusCheck, modulus)
}
