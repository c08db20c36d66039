//! A share store whose gate a test can hold shut.
//!
//! A worker decrypts an answer, and then asks its store to release the verdict or to lock the key.
//! A test that kills the worker or fills its disk between the two needs that instant. So it puts
//! this store between the worker and the real one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use duet_party::{
    at_rest::{RecordLabel, SealedRecord},
    store::{
        AnswersOf, AuditChain, AuditStore, Charge, CommitOutcome, Culprit, DealRow, EnrolmentRow, Gate,
        HeadRow, KeyChange, KeyStore, Lock, LockOutcome, NewPending, NewWallet, OwnEnrolment, PaillierKeyRow,
        PaillierScope, PaillierState, PendingRow, PendingStore, PinOutcome, PolicyMark, PolicyRow,
        PolicyStore, PrepareOutcome, PutPolicy, Readiness, RecordStore, RequestFacts, Revoked,
        RevokedRequest, SessionStore, ShareStore, Spending, Standing, StoreError, UnblamedLock,
        UnlockRefused, WalletRow, WalletStore, WitnessStore,
    },
};
use duet_protocol::ids::{CardFingerprint, PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId};
use duet_wire::{
    JobId,
    audit::{ChainId, Draft, Record},
    remembered::Remembered,
};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The store of `inner`. Verdicts wait in front of its gate while a test holds the gate shut.
#[derive(Debug, Clone)]
pub struct HeldGate {
    inner: Arc<dyn ShareStore>,
    gate: Arc<Mutex<()>>,
}

impl HeldGate {
    /// Puts an open gate in front of a store.
    #[must_use]
    pub fn new(inner: Arc<dyn ShareStore>) -> Self {
        Self { inner, gate: Arc::default() }
    }

    /// Holds the gate shut, until the caller drops what this returns.
    pub async fn hold(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.gate).lock_owned().await
    }

    async fn pass(&self) {
        drop(self.gate.lock().await);
    }

    /// The same gate in front of `inner`.
    fn before(&self, inner: Arc<dyn ShareStore>) -> Arc<dyn ShareStore> {
        Arc::new(Self { inner, gate: Arc::clone(&self.gate) })
    }
}

/// Implements a trait by asking the inner store, but for the methods in the second block.
macro_rules! forward {
    (
        $trait:ident { $(fn $name:ident($($argument:ident: $type:ty),* $(,)?) -> $result:ty;)* }
        $({ $($own:tt)* })?
    ) => {
        #[async_trait]
        impl $trait for HeldGate {
            $(async fn $name(&self, $($argument: $type),*) -> $result {
                self.inner.$name($($argument),*).await
            })*
            $($($own)*)?
        }
    };
}

forward! {
    RecordStore {
        fn until_ready(ready: bool) -> ();
        fn recover() -> Result<(), StoreError>;
        fn setting(name: &str) -> Result<Option<Vec<u8>>, StoreError>;
        fn put_setting(name: &str, value: &[u8]) -> Result<(), StoreError>;
        fn count_unlock_attempt(now_ms: u64) -> Result<u32, UnlockRefused>;
        fn clear_unlock_attempts() -> Result<(), StoreError>;
        fn record(label: &RecordLabel) -> Result<Option<SealedRecord>, StoreError>;
        fn put_records(records: &[(RecordLabel, SealedRecord)]) -> Result<(), StoreError>;
        fn change_key(change: &KeyChange) -> Result<u64, StoreError>;
        fn remove_setting(name: &str, value: &[u8]) -> Result<(), StoreError>;
        fn was_restored() -> Result<bool, StoreError>;
        fn close() -> ();
    }
    {
        fn readiness(&self) -> Readiness {
            self.inner.readiness()
        }
    }
}

forward! {
    WalletStore {
        fn pin_card(party: &PartyId, card: CardFingerprint) -> Result<PinOutcome, StoreError>;
        fn pinned_card(party: &PartyId) -> Result<Option<CardFingerprint>, StoreError>;
        fn pins() -> Result<BTreeMap<PartyId, CardFingerprint>, StoreError>;
        fn wallets_without_public_key(limit: u32) -> Result<Vec<WalletRow>, StoreError>;
        fn note_public_key(id: WalletId, public_key: [u8; 33]) -> Result<(), StoreError>;
        fn prepare_wallet(wallet: &NewWallet) -> Result<PrepareOutcome, StoreError>;
        fn commit_wallet(id: WalletId, commit_ack: &[u8], now_ms: u64) -> Result<CommitOutcome, StoreError>;
        fn wallet(id: WalletId) -> Result<Option<WalletRow>, StoreError>;
        fn wallets(after: Option<WalletId>, limit: u32) -> Result<Vec<WalletRow>, StoreError>;
        fn count_wallets() -> Result<u64, StoreError>;
        fn expire_prepared(now_ms: u64) -> Result<u64, StoreError>;
        fn put_enrolment(row: &EnrolmentRow, record: &SealedRecord, now_ms: u64) -> Result<(), StoreError>;
        fn enrolments(wallet: WalletId) -> Result<Vec<EnrolmentRow>, StoreError>;
        fn put_deal(wallet: WalletId, record: &SealedRecord, now_ms: u64) -> Result<(), StoreError>;
        fn deals() -> Result<Vec<DealRow>, StoreError>;
        fn remove_deal(wallet: WalletId) -> Result<(), StoreError>;
    }
}

forward! {
    KeyStore {
        fn put_paillier_key(
            id: PaillierKeyId,
            scope: &PaillierScope,
            record: &SealedRecord,
            state: PaillierState,
            now_ms: u64,
        ) -> Result<(), StoreError>;
        fn put_first_paillier_key(
            id: PaillierKeyId,
            scope: &PaillierScope,
            record: &SealedRecord,
            now_ms: u64,
        ) -> Result<PaillierKeyRow, StoreError>;
        fn paillier_key(id: PaillierKeyId) -> Result<Option<PaillierKeyRow>, StoreError>;
        fn paillier_keys(scope: &PaillierScope) -> Result<Vec<PaillierKeyRow>, StoreError>;
        fn all_paillier_keys() -> Result<Vec<PaillierKeyRow>, StoreError>;
        fn remove_superseded_keys(now_ms: u64) -> Result<Vec<PaillierKeyId>, StoreError>;
        fn offer_enrolment(
            wallet: WalletId,
            responder: &PartyId,
            key: PaillierKeyId,
        ) -> Result<(), StoreError>;
        fn agree_enrolment(
            wallet: WalletId,
            responder: &PartyId,
            key: PaillierKeyId,
        ) -> Result<(), StoreError>;
        fn waive_enrolment(wallet: WalletId) -> Result<(), StoreError>;
        fn own_enrolment(wallet: WalletId, responder: &PartyId) -> Result<OwnEnrolment, StoreError>;
        fn wallets_without_enrolment(index: ShareIndex, limit: u32) -> Result<Vec<WalletId>, StoreError>;
        fn standing(card: CardFingerprint) -> Result<Standing, StoreError>;
        fn culprits() -> Result<Vec<Culprit>, StoreError>;
        fn unblamed_locks() -> Result<Vec<UnblamedLock>, StoreError>;
        fn blame(key: PaillierKeyId, cards: &[CardFingerprint]) -> Result<(), StoreError>;
        fn accept_culprit(card: CardFingerprint, now_ms: u64) -> Result<Standing, StoreError>;
        fn losses(wallet: WalletId) -> Result<Vec<u64>, StoreError>;
        fn failed_wallets(limit: u32) -> Result<Vec<WalletRow>, StoreError>;
    }
    {
        async fn lock_paillier_key(&self, lock: &Lock) -> Result<LockOutcome, StoreError> {
            self.pass().await;
            self.inner.lock_paillier_key(lock).await
        }
        async fn release_verdict(
            &self,
            key: PaillierKeyId,
            session: SessionId,
        ) -> Result<Gate, StoreError> {
            self.pass().await;
            self.inner.release_verdict(key, session).await
        }
    }
}

forward! {
    SessionStore {
        fn claim_session(
            session: SessionId,
            wallet: WalletId,
            expires_at_ms: u64,
            now_ms: u64,
        ) -> Result<bool, StoreError>;
        fn charge(charge: &Charge) -> Result<bool, StoreError>;
        fn revoke_request(revoked: &RevokedRequest, now_ms: u64) -> Result<Revoked, StoreError>;
        fn request_facts(
            wallet: WalletId,
            request: [u8; 32],
            job: JobId,
        ) -> Result<RequestFacts, StoreError>;
        fn charges(wallet: WalletId, digest: [u8; 32]) -> Result<u64, StoreError>;
    }
}

forward! {
    PendingStore {
        fn put_pending(pending: &NewPending) -> Result<(), StoreError>;
        fn abandoned(now_ms: u64, limit: u32) -> Result<Vec<PendingRow>, StoreError>;
        fn remembered(limit: u32) -> Result<Vec<Remembered>, StoreError>;
        fn count_unclean_start() -> Result<u64, StoreError>;
        fn unclean_starts() -> Result<u64, StoreError>;
    }
    {
        fn answering(&self, of: AnswersOf) -> Arc<dyn ShareStore> {
            self.before(self.inner.answering(of))
        }
    }
}

forward! {
    AuditStore {
        fn begin_audit(chain: ChainId, genesis: &Draft, after: Option<ChainId>) -> Result<(), StoreError>;
        fn append_audit(entries: &[Draft]) -> Result<(), StoreError>;
        fn audit_chains() -> Result<Vec<AuditChain>, StoreError>;
        fn audit_records(chain: ChainId, after: u64, limit: u32) -> Result<Vec<Record>, StoreError>;
        fn audit_shipped(chain: ChainId, sequence: u64) -> Result<(), StoreError>;
        fn unship_audit(from: Option<(ChainId, u64)>) -> Result<u64, StoreError>;
        fn trim_audit(before_ms: u64) -> Result<u64, StoreError>;
    }
    {
        fn noting(&self, entry: Draft) -> Arc<dyn ShareStore> {
            self.before(self.inner.noting(entry))
        }
    }
}

forward! {
    PolicyStore {
        fn put_policy(wallet: WalletId, policy: &PolicyRow, now_ms: u64) -> Result<PutPolicy, StoreError>;
        fn wallet_with_policy(
            wallet: WalletId,
        ) -> Result<Option<(WalletRow, Option<PolicyMark>)>, StoreError>;
        fn policies(wallet: WalletId) -> Result<Vec<PolicyRow>, StoreError>;
        fn put_approval(
            wallet: WalletId,
            request: [u8; 32],
            approver: [u8; 32],
            expires_at_ms: u64,
            now_ms: u64,
        ) -> Result<(), StoreError>;
        fn approvals(wallet: WalletId, request: [u8; 32], now_ms: u64) -> Result<Vec<[u8; 32]>, StoreError>;
    }
    {
        fn spending(&self, spending: Spending) -> Arc<dyn ShareStore> {
            self.before(self.inner.spending(spending))
        }
    }
}

forward! {
    WitnessStore {
        fn locked_by_audit() -> Result<BTreeSet<PaillierKeyId>, StoreError>;
        fn lock_witnessed(
            keys: &BTreeSet<PaillierKeyId>,
            now_ms: u64,
        ) -> Result<Vec<PaillierKeyId>, StoreError>;
        fn mark_restored() -> Result<(), StoreError>;
        fn keep_head(head: &HeadRow, max_chains: u32) -> Result<(), StoreError>;
        fn heads(writer: &PartyId) -> Result<Vec<HeadRow>, StoreError>;
    }
}
