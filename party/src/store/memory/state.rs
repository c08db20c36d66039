//! What a store in memory holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use duet_protocol::ids::{CardFingerprint, PaillierKeyId, PartyId, SessionId, WalletId};
use duet_wire::{
    JobId,
    audit::{ChainId, Draft, Record},
    policy::Usage,
    remembered::Remembered,
};

use crate::{
    at_rest::{RecordLabel, SealedRecord},
    store::{
        Charge, EnrolmentRow, HeadRow, KEY_ID, Lock, LockOutcome, OwnEnrolment, PaillierKeyRow,
        PaillierScope, PaillierState, PendingRow, PolicyRow, RevokedRequest, Standing, StoreError, WalletRow,
        pending_label,
    },
};

/// A label in an order.
type Place = (u8, Option<WalletId>, u8, u32, Vec<u8>);

fn place(label: &RecordLabel) -> Place {
    (label.kind as u8, label.wallet, label.index.map_or(0, u8::from), label.epoch.0, label.item.clone())
}

#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) opened: u64,
    /// The processes that have the store open.
    pub(super) openings: BTreeSet<[u8; 16]>,
    pub(super) settings: BTreeMap<String, Vec<u8>>,
    pub(super) records: BTreeMap<Place, Arc<(RecordLabel, SealedRecord)>>,
    pub(super) wallets: BTreeMap<WalletId, Wallet>,
    pub(super) pins: BTreeMap<PartyId, CardFingerprint>,
    /// Oldest first.
    pub(super) enrolments: Vec<EnrolmentRow>,
    pub(super) deals: Vec<(WalletId, bool)>,
    /// Oldest first.
    pub(super) keys: Vec<Key>,
    pub(super) own: BTreeMap<(WalletId, PartyId), OwnEnrolment>,
    pub(super) enrolled_under: BTreeSet<(PaillierKeyId, WalletId)>,
    pub(super) suspects: BTreeSet<(PaillierKeyId, CardFingerprint)>,
    pub(super) accepted: BTreeSet<CardFingerprint>,
    pub(super) sessions: BTreeMap<SessionId, Claimed>,
    pub(super) charges: BTreeMap<SessionId, Charge>,
    pub(super) jobs: BTreeMap<JobId, Job>,
    /// How many answers a request has had on one side, and when it expires.
    pub(super) answers: BTreeMap<([u8; 32], u8), (u32, u64)>,
    pub(super) revocations: BTreeMap<(WalletId, [u8; 32]), RevokedRequest>,
    pub(super) pending: Vec<Pending>,
    pub(super) policies: BTreeMap<WalletId, Vec<PolicyRow>>,
    pub(super) approvals: BTreeMap<(WalletId, [u8; 32], [u8; 32]), u64>,
    /// What was signed, by wallet, scope, seconds and slice.
    pub(super) usage: BTreeMap<(WalletId, String, u64, u64), Usage>,
    pub(super) spent: BTreeMap<(WalletId, [u8; 32]), u64>,
    /// Oldest first.
    pub(super) chains: Vec<Chain>,
    /// Oldest first.
    pub(super) heads: Vec<HeadRow>,
    /// In order.
    pub(super) decided: Vec<Decided>,
}

/// What was decided of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decided {
    Claimed(SessionId),
    /// With the digest.
    Charged(SessionId, [u8; 32]),
    Pending(SessionId),
    /// The gate was open.
    Released(SessionId),
    Locked(SessionId),
}

#[derive(Debug, Clone)]
pub(super) struct Wallet {
    pub(super) row: WalletRow,
    pub(super) public_key: Option<[u8; 33]>,
    pub(super) token: Option<[u8; 16]>,
    pub(super) expires_at_ms: u64,
    pub(super) committed_at_ms: u64,
    pub(super) is_enrolled: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) row: PaillierKeyRow,
    pub(super) superseded_at_ms: Option<u64>,
    pub(super) is_removed: bool,
    /// Good verdicts.
    pub(super) verdicts: u64,
    pub(super) locked_at_ms: Option<u64>,
    pub(super) locked_card: Option<CardFingerprint>,
    pub(super) evidence: Option<Vec<u8>>,
}

#[derive(Debug, Clone)]
pub(super) struct Claimed {
    pub(super) claimed_at_ms: u64,
    pub(super) expires_at_ms: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) signs: [u8; 32],
    pub(super) charged_at_ms: u64,
    pub(super) expires_at_ms: u64,
    pub(super) remembered: Option<Remembered>,
}

#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) row: PendingRow,
    pub(super) instance: [u8; 16],
    pub(super) at_ms: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Chain {
    pub(super) id: ChainId,
    pub(super) is_closed: bool,
    pub(super) shipped: u64,
    pub(super) records: Vec<Arc<(Record, u64)>>,
}

impl State {
    pub(super) fn record(&self, label: &RecordLabel) -> Option<&SealedRecord> {
        self.records.get(&place(label)).map(|held| &held.1)
    }

    /// Stores a record, unless it is sealed under another key than the store's.
    pub(super) fn put_record(
        &mut self,
        label: &RecordLabel,
        record: &SealedRecord,
    ) -> Result<(), StoreError> {
        if let Some(key) = record.sealed_with() {
            let held = self.settings.entry(KEY_ID.to_owned()).or_insert_with(|| key.0.to_vec());
            if held.as_slice() != key.0.as_slice() {
                return Err(StoreError::KeyChanged);
            }
        }
        self.records.insert(place(label), Arc::new((label.clone(), record.clone())));
        Ok(())
    }

    pub(super) fn remove_record(&mut self, label: &RecordLabel) {
        self.records.remove(&place(label));
    }

    pub(super) fn key(&self, id: PaillierKeyId) -> Option<&Key> {
        self.keys.iter().find(|key| key.row.id == id)
    }

    pub(super) fn key_mut(&mut self, id: PaillierKeyId) -> Option<&mut Key> {
        self.keys.iter_mut().find(|key| key.row.id == id)
    }

    pub(super) fn standing(&self, card: CardFingerprint) -> Standing {
        let locks = self.keys.iter().filter(|key| key.locked_card == Some(card)).count();
        let is_suspect = self.suspects.iter().any(|(_, suspect)| *suspect == card);
        let locks = u32::try_from(locks).unwrap_or(u32::MAX) + u32::from(is_suspect);
        Standing { locks, is_accepted: self.accepted.contains(&card) }
    }

    pub(super) fn forget_pending(&mut self, session: SessionId) {
        self.remove_record(&pending_label(session));
        self.pending.retain(|pending| pending.row.session != session);
    }

    fn forget_pending_of(&mut self, key: PaillierKeyId) {
        let of_key = self.pending.iter().filter(|pending| pending.row.key == key);
        for session in of_key.map(|pending| pending.row.session).collect::<Vec<_>>() {
            self.forget_pending(session);
        }
    }

    /// Removes a locked key, and what is pending under it.
    pub(super) fn destroy_key(&mut self, key: PaillierKeyId) {
        self.forget_pending_of(key);
        self.remove_record(&crate::context::paillier_label(key));
    }

    /// Counts a lock for every wallet that was ever enrolled under the key.
    pub(super) fn count_failure(&mut self, key: PaillierKeyId) {
        for (_, wallet) in self.enrolled_under.iter().filter(|(under, _)| *under == key) {
            if let Some(wallet) = self.wallets.get_mut(wallet) {
                wallet.row.failures += 1;
            }
        }
    }

    pub(super) fn lock(&mut self, lock: &Lock) -> LockOutcome {
        let Some(key) = self.key_mut(lock.key).filter(|key| key.row.state != PaillierState::Locked) else {
            self.forget_pending_of(lock.key);
            return LockOutcome::AlreadyLocked;
        };
        key.row.state = PaillierState::Locked;
        key.locked_at_ms = Some(lock.at_ms);
        key.locked_card = lock.card.or_else(|| card_of(&key.row.scope));
        key.evidence = Some(lock.evidence.clone());
        if let Some(wallet) = lock.wallet {
            self.enrolled_under.insert((lock.key, wallet));
        }
        self.destroy_key(lock.key);
        self.count_failure(lock.key);
        self.decided.push(Decided::Locked(lock.session));
        LockOutcome::Locked
    }

    /// Appends to the newest chain, if there is any: whether it is open.
    pub(super) fn append(&mut self, entries: &[Draft]) -> bool {
        let Some(chain) = self.chains.last_mut() else { return true };
        if chain.is_closed {
            return false;
        }
        for entry in entries {
            let Some(newest) = chain.records.last() else { continue };
            let record = newest.0.position().follow(entry.clone());
            chain.records.push(Arc::new((record, entry.at_ms)));
        }
        true
    }
}

/// The card that a key's scope names.
pub(super) fn card_of(scope: &str) -> Option<CardFingerprint> {
    match PaillierScope::parse(scope) {
        Some(PaillierScope::Responder { card, .. }) => Some(card),
        _ => None,
    }
}
