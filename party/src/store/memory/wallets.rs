//! Wallets, pins, the enrolments of their initiators, unfinished key generations.

use std::collections::BTreeMap;

use async_trait::async_trait;
use duet_protocol::ids::{CardFingerprint, PartyId, WalletId};

use super::{
    MemoryStore,
    state::{State, Wallet},
};
use crate::{
    at_rest::{RecordKind, SealedRecord},
    store::{
        CommitOutcome, DealRow, EnrolmentRow, NewWallet, PinOutcome, PrepareOutcome, StoreError, WalletRow,
        WalletState, WalletStore, deal_label, enrolment_label,
        pending::ANSWERS_KEPT_FOR_MS,
        sessions::{CHARGES_KEPT_FOR_MS, SESSIONS_KEPT_FOR_MS},
    },
};

/// How many enrolments of an initiator are kept for a wallet.
const KEPT_ENROLMENTS: usize = 2;

impl State {
    fn put_enrolment(&mut self, row: &EnrolmentRow) {
        self.enrolments.retain(|held| {
            (held.wallet, held.initiator, held.paillier_key) != (row.wallet, row.initiator, row.paillier_key)
        });
        self.enrolments.push(row.clone());
    }

    fn remove_records(&mut self, kind: RecordKind, wallet: WalletId) {
        self.records.retain(|_, held| (held.0.kind, held.0.wallet) != (kind, Some(wallet)));
    }

    fn prepare(&mut self, wallet: &NewWallet) -> Result<PrepareOutcome, StoreError> {
        if let Some(held) = self.wallets.get(&wallet.id) {
            return Ok(if held.row.package_hash == wallet.package_hash {
                PrepareOutcome::Already(held.row.clone())
            } else {
                PrepareOutcome::Conflict
            });
        }
        if self.wallets.values().any(|held| held.public_key == Some(wallet.public_key)) {
            return Ok(PrepareOutcome::SameKey);
        }
        if let Some(admission) = wallet.admission {
            let used = self.wallets.values().filter(|held| held.token == Some(admission.token)).count();
            if used >= usize::try_from(admission.max_wallets).unwrap_or(usize::MAX) {
                return Ok(PrepareOutcome::QuotaExceeded);
            }
        }
        let row = WalletRow {
            id: wallet.id,
            epoch: wallet.epoch,
            index: wallet.index,
            tenant: wallet.tenant.clone(),
            state: WalletState::Prepared,
            package_hash: wallet.package_hash,
            receipt: wallet.receipt.clone(),
            commit_ack: None,
            failures: 0,
        };
        let held = Wallet {
            row,
            public_key: Some(wallet.public_key),
            token: wallet.admission.map(|admission| admission.token),
            expires_at_ms: wallet.expires_at_ms,
            committed_at_ms: 0,
            is_enrolled: false,
        };
        self.wallets.insert(wallet.id, held);
        for (label, record) in &wallet.records {
            self.put_record(label, record)?;
        }
        for enrolment in &wallet.enrolments {
            self.put_enrolment(enrolment);
        }
        Ok(PrepareOutcome::Prepared)
    }

    fn expire(&mut self, now_ms: u64) -> u64 {
        let is_over = |wallet: &Wallet| wallet.row.commit_ack.is_none() && wallet.expires_at_ms <= now_ms;
        let expired = self.wallets.iter().filter(|(_, wallet)| is_over(wallet));
        let expired: Vec<WalletId> = expired.map(|(id, _)| *id).collect();
        for id in &expired {
            for kind in [RecordKind::Share, RecordKind::Enrolment, RecordKind::Prepared] {
                self.remove_records(kind, *id);
            }
            self.enrolments.retain(|row| row.wallet != *id);
            self.wallets.remove(id);
        }
        let before = |kept_for_ms: i64| now_ms.checked_sub(kept_for_ms.unsigned_abs());
        if let Some(before) = before(SESSIONS_KEPT_FOR_MS) {
            self.sessions.retain(|_, claimed| claimed.expires_at_ms > before);
        }
        if let Some(before) = before(ANSWERS_KEPT_FOR_MS) {
            self.answers.retain(|_, (_, expires_at_ms)| *expires_at_ms > before);
        }
        if let Some(before) = before(CHARGES_KEPT_FOR_MS) {
            self.jobs.retain(|_, job| job.expires_at_ms > before);
            self.charges.retain(|_, charge| charge.charged_at_ms > before);
            self.spent.retain(|_, at_ms| *at_ms > before);
        }
        expired.len() as u64
    }
}

#[async_trait]
impl WalletStore for MemoryStore {
    async fn pin_card(&self, party: &PartyId, card: CardFingerprint) -> Result<PinOutcome, StoreError> {
        self.write("pin a card", |state| match state.pins.get(party) {
            Some(pinned) if *pinned == card => Ok(PinOutcome::Same),
            Some(pinned) => Ok(PinOutcome::Different(*pinned)),
            None => {
                state.pins.insert(party.clone(), card);
                state.note(&self.attached)?;
                Ok(PinOutcome::Pinned)
            }
        })
        .await
    }

    async fn pinned_card(&self, party: &PartyId) -> Result<Option<CardFingerprint>, StoreError> {
        self.read("read a pin", |state| state.pins.get(party).copied()).await
    }

    async fn pins(&self) -> Result<BTreeMap<PartyId, CardFingerprint>, StoreError> {
        self.read("list pins", |state| state.pins.clone()).await
    }

    async fn wallets_without_public_key(&self, limit: u32) -> Result<Vec<WalletRow>, StoreError> {
        self.read("list wallets", |state| {
            let lacking = state.wallets.values().filter(|wallet| wallet.public_key.is_none());
            lacking.map(|wallet| wallet.row.clone()).take(limit as usize).collect()
        })
        .await
    }

    async fn note_public_key(&self, id: WalletId, public_key: [u8; 33]) -> Result<(), StoreError> {
        self.write("note a public key", |state| {
            if let Some(wallet) = state.wallets.get_mut(&id) {
                wallet.public_key.get_or_insert(public_key);
            }
            Ok(())
        })
        .await
    }

    async fn prepare_wallet(&self, wallet: &NewWallet) -> Result<PrepareOutcome, StoreError> {
        self.write("prepare a wallet", |state| {
            let outcome = state.prepare(wallet)?;
            if outcome == PrepareOutcome::Prepared {
                state.note(&self.attached)?;
            }
            Ok(outcome)
        })
        .await
    }

    async fn commit_wallet(
        &self,
        id: WalletId,
        commit_ack: &[u8],
        now_ms: u64,
    ) -> Result<CommitOutcome, StoreError> {
        self.write("commit a wallet", |state| {
            let has_agreed = state.own.iter().any(|((wallet, _), own)| *wallet == id && own.agreed.is_some());
            let Some(wallet) = state.wallets.get_mut(&id) else { return Ok(CommitOutcome::Unknown) };
            if let Some(ack) = &wallet.row.commit_ack {
                return Ok(CommitOutcome::Already(ack.clone()));
            }
            wallet.row.commit_ack = Some(commit_ack.to_vec());
            wallet.row.state = WalletState::Committed;
            wallet.committed_at_ms = now_ms;
            wallet.is_enrolled = has_agreed;
            state.remove_records(RecordKind::Prepared, id);
            state.note(&self.attached)?;
            Ok(CommitOutcome::Committed)
        })
        .await
    }

    async fn wallet(&self, id: WalletId) -> Result<Option<WalletRow>, StoreError> {
        self.read("read a wallet", |state| state.wallets.get(&id).map(|wallet| wallet.row.clone())).await
    }

    async fn wallets(&self, after: Option<WalletId>, limit: u32) -> Result<Vec<WalletRow>, StoreError> {
        self.read("list wallets", |state| {
            let rows = state.wallets.values().map(|wallet| &wallet.row);
            let listed = rows.filter(|row| row.commit_ack.is_some() && after.is_none_or(|id| row.id > id));
            listed.take(limit as usize).cloned().collect()
        })
        .await
    }

    async fn count_wallets(&self) -> Result<u64, StoreError> {
        self.read("count wallets", |state| {
            state.wallets.values().filter(|wallet| wallet.row.commit_ack.is_some()).count() as u64
        })
        .await
    }

    async fn expire_prepared(&self, now_ms: u64) -> Result<u64, StoreError> {
        self.write("expire prepared wallets", |state| Ok(state.expire(now_ms))).await
    }

    async fn put_enrolment(
        &self,
        row: &EnrolmentRow,
        record: &SealedRecord,
        _: u64,
    ) -> Result<(), StoreError> {
        self.write("store an enrolment", |state| {
            state.put_record(&enrolment_label(row), record)?;
            state.put_enrolment(row);
            let of_initiator =
                |held: &&EnrolmentRow| (held.wallet, held.initiator) == (row.wallet, row.initiator);
            let old = state.enrolments.iter().rev().filter(of_initiator).skip(KEPT_ENROLMENTS);
            for old in old.cloned().collect::<Vec<_>>() {
                state.remove_record(&enrolment_label(&old));
                state.enrolments.retain(|held| *held != old);
            }
            state.note(&self.attached)
        })
        .await
    }

    async fn enrolments(&self, wallet: WalletId) -> Result<Vec<EnrolmentRow>, StoreError> {
        self.read("list enrolments", |state| {
            state.enrolments.iter().rev().filter(|row| row.wallet == wallet).cloned().collect()
        })
        .await
    }

    async fn put_deal(&self, wallet: WalletId, record: &SealedRecord, _: u64) -> Result<(), StoreError> {
        self.write("store a key generation", |state| {
            state.put_record(&deal_label(wallet), record)?;
            if !state.deals.iter().any(|(held, _)| *held == wallet) {
                state.deals.push((wallet, false));
            }
            Ok(())
        })
        .await
    }

    async fn deals(&self) -> Result<Vec<DealRow>, StoreError> {
        self.read("list key generations", |state| {
            state
                .deals
                .iter()
                .map(|(wallet, restored)| DealRow { wallet: *wallet, restored: *restored })
                .collect()
        })
        .await
    }

    async fn remove_deal(&self, wallet: WalletId) -> Result<(), StoreError> {
        self.write("forget a key generation", |state| {
            state.remove_record(&deal_label(wallet));
            state.deals.retain(|(held, _)| *held != wallet);
            Ok(())
        })
        .await
    }
}
