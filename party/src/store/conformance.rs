//! What every share store must do, written over the trait: another back end passes the same tests.
//! `make` gives a new, empty, ready store each time, opened twice: as two workers of a party have
//! it open. What only one does is checked here, their races in [`workers`].

mod audit;
mod jobs;
mod key_change;
mod keys;
mod limits;
mod pending;
mod policy;
mod records;
mod sessions;
mod wallets;
mod witness;
mod workers;

use std::{collections::BTreeSet, future::Future, sync::Arc};

use duet_protocol::ids::{CardFingerprint, Epoch, PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId};
use duet_wire::{
    JobId,
    audit::{ChainId, Draft, Event, Record},
    policy::{Bound, Limit, SignedPolicy, Spend, SpendLimit, SpendOption},
};

use super::*;
use crate::at_rest::{KeyEncryptionKey, RecordKind, RecordLabel, SealedRecord};

fn party(name: &str) -> PartyId {
    name.parse().unwrap()
}

fn sealed(label: &RecordLabel, content: &[u8]) -> SealedRecord {
    SealedRecord::seal(&key(), label, content).unwrap()
}

fn key() -> KeyEncryptionKey {
    KeyEncryptionKey::from_bytes([1; 32].into())
}

fn new_wallet(id: u8, package: u8, token: Option<Admission>) -> NewWallet {
    let wallet = WalletId([id; 32]);
    let share = RecordLabel::of_wallet(RecordKind::Share, wallet, ShareIndex::Service, Epoch(0), &[]);
    let record = sealed(&share, b"share");
    NewWallet {
        id: wallet,
        epoch: Epoch(0),
        index: ShareIndex::Service,
        tenant: "acme".to_owned(),
        public_key: [id; 33],
        package_hash: [package; 32],
        receipt: vec![package],
        admission: token,
        prepared_at_ms: 1_000,
        expires_at_ms: 2_000,
        records: vec![(share, record)],
        enrolments: vec![EnrolmentRow {
            wallet,
            initiator: ShareIndex::Device,
            paillier_key: PaillierKeyId([id; 16]),
            epoch: Epoch(0),
        }],
    }
}

/// A lock because of a session of the wallet that [`put_key`]'s keys are for.
pub(super) fn lock(key: PaillierKeyId, session: SessionId, evidence: &[u8], at_ms: u64) -> Lock {
    let (wallet, card) = (Some(WalletId([9; 32])), Some(CardFingerprint([8; 32])));
    Lock { key, session, wallet, card, evidence: evidence.to_vec(), at_ms }
}

/// An answer for a request of job 1 that expires at 5 s.
pub(super) fn answers(request: u8, role: AnswerRole) -> AnswersOf {
    let job = JobId([1; 16]);
    AnswersOf { request: [request; 32], role, expires_at_ms: 5_000, job, signs: [1; 32], remembered: None }
}

async fn put_key<S: ShareStore>(store: &S, id: u8) -> PaillierKeyId {
    let id = PaillierKeyId([id; 16]);
    let label = RecordLabel::of_party(RecordKind::PaillierKey, id.as_bytes());
    let scope = PaillierScope::Wallet(WalletId([9; 32]));
    store.put_paillier_key(id, &scope, &sealed(&label, b"key"), PaillierState::Ready, 1).await.unwrap();
    id
}

/// Runs every check against stores from `make_two`.
pub(super) async fn all<S: ShareStore, F: Future<Output = [S; 2]>>(make_two: impl Fn() -> F) {
    let make = async || {
        let [store, _] = make_two().await;
        store
    };
    records::settings_and_records(&make().await).await;
    wallets::pins(&make().await).await;
    wallets::preparing_and_committing(&make().await).await;
    wallets::quota(Arc::new(make().await)).await;
    wallets::enrolments(&make().await).await;
    keys::own_enrolments(&make().await).await;
    keys::locks(&make().await).await;
    keys::superseded_keys(&make().await).await;
    keys::parallel_bad_verdicts(Arc::new(make().await)).await;
    sessions::sessions_and_charges(Arc::new(make().await)).await;
    wallets::deals(&make().await).await;
    records::unlock_attempts(&make().await).await;
    audit::audit_chains(Arc::new(make().await)).await;
    audit::noted_decisions(&make().await).await;
    witness::witnessed_locks(&make().await).await;
    witness::kept_heads(&make().await).await;
    policy::policies(&make().await).await;
    policy::policies_change(&make().await).await;
    policy::newest_policies(&make().await).await;
    limits::limits(&make().await).await;
    limits::limits_at_once(Arc::new(make().await)).await;
    policy::approvals(&make().await).await;
    pending::all(async || make_two().await.map(Arc::new)).await;
    jobs::all(async || make_two().await.map(Arc::new)).await;
    sessions::revocations(&make().await).await;
    limits::limits_after_a_restore(&make().await).await;
    key_change::all(async || make_two().await.map(Arc::new)).await;
    workers::all(async || make_two().await.map(Arc::new)).await;
}

fn draft(at_ms: u64, instance: &str) -> Draft {
    Draft::new(at_ms, Event::WorkerStarted { instance: instance.to_owned() })
}

fn is_chained(records: &[Record]) -> bool {
    records.windows(2).all(|pair| {
        let before = pair[0].position();
        (pair[1].sequence, pair[1].previous) == (before.sequence + 1, before.hash)
    })
}

/// A limit of 10 within a minute under this scope.
fn limited(scope: &str) -> SpendLimit {
    let value = Bound::AtMost(duet_wire::policy::wei(10));
    SpendLimit { scope: scope.to_owned(), limit: Limit { within_s: 60, value, signatures: Some(3) } }
}

fn spend(value: u8, options: &[&[&str]]) -> Spend {
    let mut wei = [0; 32];
    wei[31] = value;
    let option = |scopes: &&[&str]| SpendOption {
        rule: "rule".to_owned(),
        limits: scopes.iter().map(|scope| limited(scope)).collect(),
    };
    Spend { wallet: WalletId([1; 32]), value: wei, options: options.iter().map(option).collect() }
}

/// A charge of nothing against a limit with room.
pub(super) fn spending(wallet: WalletId, digest: u8) -> Spending {
    Spending {
        wallet,
        request: [digest; 32],
        spent: [digest; 32],
        decided_by: None,
        at_ms: 1,
        spends: vec![spend(0, &[&["wallet"]])],
    }
}

async fn charge_at<S: ShareStore>(
    store: &S,
    number: u8,
    at_ms: u64,
    spends: Vec<Spend>,
) -> Result<bool, StoreError> {
    let (wallet, digest) = (WalletId([1; 32]), [number; 32]);
    let charge = Charge { session: SessionId([number; 16]), wallet, digest, charged_at_ms: at_ms };
    store
        .spending(Spending { wallet, request: [0; 32], spent: digest, decided_by: None, at_ms, spends })
        .charge(&charge)
        .await
}
