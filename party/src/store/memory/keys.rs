//! Paillier keys, whom they are agreed with, and their locks.

use std::collections::BTreeSet;

use async_trait::async_trait;
use duet_protocol::ids::{CardFingerprint, PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId};

use super::{
    MemoryStore,
    state::{Decided, Key, State},
};
use crate::{
    at_rest::SealedRecord,
    context::paillier_label,
    store::{
        Culprit, Gate, KeyStore, Lock, LockOutcome, OwnEnrolment, PaillierKeyRow, PaillierScope,
        PaillierState, Standing, StoreError, UnblamedLock, WalletRow, keys::SUPERSEDED_FOR_MS,
    },
};

impl State {
    fn insert_key(
        &mut self,
        id: PaillierKeyId,
        scope: &PaillierScope,
        record: &SealedRecord,
        state: PaillierState,
    ) -> Result<bool, StoreError> {
        if self.key(id).is_some() {
            return Ok(false);
        }
        self.keys.push(Key {
            row: PaillierKeyRow { id, scope: scope.to_string(), state },
            superseded_at_ms: None,
            is_removed: false,
            verdicts: 0,
            locked_at_ms: None,
            locked_card: None,
            evidence: None,
        });
        self.put_record(&paillier_label(id), record)?;
        Ok(true)
    }

    fn listed_keys(&self) -> impl Iterator<Item = &PaillierKeyRow> {
        self.keys.iter().rev().filter(|key| !key.is_removed).map(|key| &key.row)
    }

    fn age(&self, id: PaillierKeyId) -> Option<usize> {
        self.keys.iter().position(|key| key.row.id == id)
    }

    /// Nothing uses the key: there is a newer one of its scope, and it is neither agreed nor
    /// offered.
    fn is_unused(&self, at: usize, key: &Key) -> bool {
        let newer = self.keys.iter().skip(at + 1).any(|newer| newer.row.scope == key.row.scope);
        let id = Some(key.row.id);
        newer && !self.own.values().any(|own| own.agreed == id || own.offered == id)
    }

    fn remove_superseded(&mut self, now_ms: u64) -> Vec<PaillierKeyId> {
        let unused: Vec<bool> =
            self.keys.iter().enumerate().map(|(at, key)| self.is_unused(at, key)).collect();
        for (key, is_unused) in self.keys.iter_mut().zip(unused).filter(|(key, _)| !key.is_removed) {
            key.superseded_at_ms = is_unused.then(|| key.superseded_at_ms.unwrap_or(now_ms));
        }
        let is_removable = |key: &&Key| {
            let Some(superseded_at_ms) = key.superseded_at_ms.filter(|_| !key.is_removed) else {
                return false;
            };
            let is_in_use = self.pending.iter().any(|pending| pending.row.key == key.row.id)
                || self.sessions.values().any(|session| {
                    session.claimed_at_ms <= superseded_at_ms + SUPERSEDED_FOR_MS
                        && session.expires_at_ms > now_ms
                });
            superseded_at_ms + SUPERSEDED_FOR_MS <= now_ms && !is_in_use
        };
        let removable: Vec<_> = self.keys.iter().filter(is_removable).map(|key| key.row.id).collect();
        for id in &removable {
            self.remove_record(&paillier_label(*id));
            if let Some(key) = self.key_mut(*id) {
                key.is_removed = true;
            }
        }
        removable
    }
}

#[async_trait]
impl KeyStore for MemoryStore {
    async fn put_paillier_key(
        &self,
        id: PaillierKeyId,
        scope: &PaillierScope,
        record: &SealedRecord,
        state: PaillierState,
        _: u64,
    ) -> Result<(), StoreError> {
        self.write("store a Paillier key", |held| {
            if held.insert_key(id, scope, record, state)? {
                held.note(&self.attached)?;
            }
            Ok(())
        })
        .await
    }

    async fn put_first_paillier_key(
        &self,
        id: PaillierKeyId,
        scope: &PaillierScope,
        record: &SealedRecord,
        _: u64,
    ) -> Result<PaillierKeyRow, StoreError> {
        self.write("store a first Paillier key", |state| {
            let name = scope.to_string();
            if let Some(known) = state.listed_keys().find(|row| row.scope == name) {
                return Ok(known.clone());
            }
            if state.insert_key(id, scope, record, PaillierState::Ready)? {
                state.note(&self.attached)?;
            }
            Ok(PaillierKeyRow { id, scope: name, state: PaillierState::Ready })
        })
        .await
    }

    async fn paillier_key(&self, id: PaillierKeyId) -> Result<Option<PaillierKeyRow>, StoreError> {
        self.read("read a Paillier key", |state| state.listed_keys().find(|row| row.id == id).cloned()).await
    }

    async fn paillier_keys(&self, scope: &PaillierScope) -> Result<Vec<PaillierKeyRow>, StoreError> {
        let scope = scope.to_string();
        self.read("list Paillier keys", |state| {
            state.listed_keys().filter(|row| row.scope == scope).cloned().collect()
        })
        .await
    }

    async fn all_paillier_keys(&self) -> Result<Vec<PaillierKeyRow>, StoreError> {
        self.read("list Paillier keys", |state| state.listed_keys().cloned().collect()).await
    }

    async fn remove_superseded_keys(&self, now_ms: u64) -> Result<Vec<PaillierKeyId>, StoreError> {
        self.write("remove superseded Paillier keys", |state| Ok(state.remove_superseded(now_ms))).await
    }

    async fn offer_enrolment(
        &self,
        wallet: WalletId,
        responder: &PartyId,
        key: PaillierKeyId,
    ) -> Result<(), StoreError> {
        self.write("note an offer", |state| {
            state.own.entry((wallet, responder.clone())).or_default().offered = Some(key);
            state.enrolled_under.insert((key, wallet));
            Ok(())
        })
        .await
    }

    async fn agree_enrolment(
        &self,
        wallet: WalletId,
        responder: &PartyId,
        key: PaillierKeyId,
    ) -> Result<(), StoreError> {
        self.write("note an agreement", |state| {
            let before = state.own.get(&(wallet, responder.clone())).and_then(|own| own.agreed);
            let before = before.filter(|before| {
                matches!((state.age(*before), state.age(key)), (Some(held), Some(new)) if held > new)
            });
            let own = state.own.entry((wallet, responder.clone())).or_default();
            own.agreed = Some(before.unwrap_or(key));
            own.offered = own.offered.filter(|offered| *offered != key);
            state.enrolled_under.insert((key, wallet));
            if let Some(wallet) = state.wallets.get_mut(&wallet) {
                wallet.is_enrolled = true;
            }
            state.note(&self.attached)
        })
        .await
    }

    async fn waive_enrolment(&self, wallet: WalletId) -> Result<(), StoreError> {
        self.write("waive an enrolment", |state| {
            if let Some(wallet) = state.wallets.get_mut(&wallet) {
                wallet.is_enrolled = true;
            }
            Ok(())
        })
        .await
    }

    async fn own_enrolment(&self, wallet: WalletId, responder: &PartyId) -> Result<OwnEnrolment, StoreError> {
        self.read("read an agreement", |state| {
            state.own.get(&(wallet, responder.clone())).copied().unwrap_or_default()
        })
        .await
    }

    async fn wallets_without_enrolment(
        &self,
        index: ShareIndex,
        limit: u32,
    ) -> Result<Vec<WalletId>, StoreError> {
        self.read("list wallets without an enrolment", |state| {
            let is_missing = |wallet: &&super::state::Wallet| {
                wallet.row.commit_ack.is_some() && !wallet.is_enrolled && wallet.row.index == index
            };
            let mut missing: Vec<_> = state.wallets.values().filter(is_missing).collect();
            missing.sort_by_key(|wallet| wallet.committed_at_ms);
            missing.into_iter().map(|wallet| wallet.row.id).take(limit as usize).collect()
        })
        .await
    }

    async fn lock_paillier_key(&self, lock: &Lock) -> Result<LockOutcome, StoreError> {
        self.lock(lock).await
    }

    async fn release_verdict(&self, key: PaillierKeyId, session: SessionId) -> Result<Gate, StoreError> {
        self.health.require_ready()?;
        let released = self.write("release a verdict", |state| {
            state.forget_pending(session);
            let Some(key) = state.key_mut(key) else { return Ok(None) };
            let found = key.row.state;
            if found == PaillierState::Ready {
                key.verdicts += 1;
                state.decided.push(Decided::Released(session));
            }
            Ok(Some(found))
        });
        let state = self.health.judge(released.await)?;
        self.health.require_ready()?;
        match state {
            Some(PaillierState::Ready) => Ok(Gate::Open),
            Some(state) => Ok(Gate::Closed(state)),
            None => Err(StoreError::Corrupt("a Paillier key vanished")),
        }
    }

    async fn standing(&self, card: CardFingerprint) -> Result<Standing, StoreError> {
        self.read("look for a card's locks", |state| state.standing(card)).await
    }

    async fn culprits(&self) -> Result<Vec<Culprit>, StoreError> {
        self.read("list culprits", |state| {
            let locked = state.keys.iter().filter_map(|key| key.locked_card);
            let cards: BTreeSet<_> = locked.chain(state.suspects.iter().map(|(_, card)| *card)).collect();
            cards.into_iter().map(|card| Culprit { card, standing: state.standing(card) }).collect()
        })
        .await
    }

    async fn unblamed_locks(&self) -> Result<Vec<UnblamedLock>, StoreError> {
        self.read("list locks that blame no card", |state| {
            let is_unblamed = |key: &&Key| {
                key.row.state == PaillierState::Locked
                    && key.locked_card.is_none()
                    && !state.suspects.iter().any(|(suspected, _)| *suspected == key.row.id)
            };
            let unblamed = state.keys.iter().filter(is_unblamed);
            let unblamed = unblamed.filter_map(|key| match PaillierScope::parse(&key.row.scope) {
                Some(PaillierScope::Wallet(wallet)) => {
                    Some(UnblamedLock { key: key.row.id, wallet, evidence: key.evidence.clone() })
                }
                _ => None,
            });
            unblamed.collect()
        })
        .await
    }

    async fn blame(&self, key: PaillierKeyId, cards: &[CardFingerprint]) -> Result<(), StoreError> {
        self.write("blame a card for a lock", |state| {
            let Some(held) = state.key_mut(key) else { return Ok(()) };
            if held.row.state != PaillierState::Locked || held.locked_card.is_some() {
                return Ok(());
            }
            match cards {
                [card] => held.locked_card = Some(*card),
                cards => state.suspects.extend(cards.iter().map(|card| (key, *card))),
            }
            Ok(())
        })
        .await
    }

    async fn accept_culprit(&self, card: CardFingerprint, _: u64) -> Result<Standing, StoreError> {
        self.write("accept a culprit", |state| {
            let standing = state.standing(card);
            if standing.locks != 1 || standing.is_accepted {
                return Ok(standing);
            }
            state.accepted.insert(card);
            state.note(&self.attached)?;
            Ok(state.standing(card))
        })
        .await
    }

    async fn losses(&self, wallet: WalletId) -> Result<Vec<u64>, StoreError> {
        self.read("list a wallet's locks", |state| {
            let is_lost = |key: &&Key| {
                key.row.state == PaillierState::Locked && state.enrolled_under.contains(&(key.row.id, wallet))
            };
            state.keys.iter().filter(is_lost).map(|key| key.verdicts).collect()
        })
        .await
    }

    async fn failed_wallets(&self, limit: u32) -> Result<Vec<WalletRow>, StoreError> {
        self.read("list wallets with failures", |state| {
            let rows = state.wallets.values().map(|wallet| &wallet.row);
            let mut failed: Vec<_> =
                rows.filter(|row| row.commit_ack.is_some() && row.failures > 0).cloned().collect();
            failed.sort_by_key(|row| std::cmp::Reverse(row.failures));
            failed.truncate(limit as usize);
            failed
        })
        .await
    }
}
