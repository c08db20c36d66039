//! Audit chains, and what shows that a store forgot a lock.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use duet_protocol::ids::{PaillierKeyId, PartyId};
use duet_wire::audit::{Body, ChainId, Draft, Event, Record};

use super::{
    MemoryStore,
    state::{Chain, card_of},
};
use crate::{
    clock::Clock,
    store::{
        AuditChain, AuditStore, HeadRow, LIMITS_USED_UP_SINCE, PaillierState, RESTORED_AT, ShareStore,
        StoreError, WitnessStore, audit::require_open,
    },
};

/// The keys that a record names as locked.
fn named_as_locked(record: &Record) -> Vec<PaillierKeyId> {
    match serde_json::from_slice(&record.body) {
        Ok(Body { event: Event::KeyLocked { paillier_key, .. }, .. }) => vec![paillier_key],
        Ok(Body { event: Event::KeysFoundLocked { paillier_keys }, .. }) => paillier_keys,
        _ => Vec::new(),
    }
}

#[async_trait]
impl AuditStore for MemoryStore {
    fn noting(&self, entry: Draft) -> Arc<dyn ShareStore> {
        Arc::new(self.note(entry))
    }

    async fn begin_audit(
        &self,
        id: ChainId,
        genesis: &Draft,
        after: Option<ChainId>,
    ) -> Result<(), StoreError> {
        self.write("begin an audit chain", |state| {
            let newest = state.chains.last();
            if newest.map(|chain| chain.id) != after || newest.is_some_and(|chain| !chain.is_closed) {
                return Ok(());
            }
            let first = Arc::new((Record::first(id, genesis.clone()), genesis.at_ms));
            state.chains.push(Chain { id, is_closed: false, shipped: 0, records: vec![first] });
            let locked = state.keys.iter().filter(|key| key.row.state == PaillierState::Locked);
            let paillier_keys: Vec<_> = locked.map(|key| key.row.id).collect();
            if after.is_some() && !paillier_keys.is_empty() {
                state.append(&[Draft::new(genesis.at_ms, Event::KeysFoundLocked { paillier_keys })]);
            }
            Ok(())
        })
        .await
    }

    async fn append_audit(&self, entries: &[Draft]) -> Result<(), StoreError> {
        self.write("append to the audit log", |state| require_open(state.append(entries))).await
    }

    async fn audit_chains(&self) -> Result<Vec<AuditChain>, StoreError> {
        self.read("list audit chains", |state| {
            let chain = |chain: &Chain| {
                let (head, head_at_ms) = &**chain.records.last()?;
                let (closed, shipped) = (chain.is_closed, chain.shipped);
                Some(AuditChain { head: head.position(), head_at_ms: *head_at_ms, closed, shipped })
            };
            state.chains.iter().filter_map(chain).collect()
        })
        .await
    }

    async fn audit_records(&self, id: ChainId, after: u64, limit: u32) -> Result<Vec<Record>, StoreError> {
        self.read("read audit records", |state| {
            let records = state.chains.iter().filter(|chain| chain.id == id).flat_map(|chain| &chain.records);
            let records = records.map(|held| &held.0).filter(|record| record.sequence > after);
            records.take(limit as usize).cloned().collect()
        })
        .await
    }

    async fn audit_shipped(&self, id: ChainId, sequence: u64) -> Result<(), StoreError> {
        self.write("note what was published", |state| {
            for chain in state.chains.iter_mut().filter(|chain| chain.id == id) {
                chain.shipped = chain.shipped.max(sequence);
            }
            Ok(())
        })
        .await
    }

    async fn unship_audit(&self, from: Option<(ChainId, u64)>) -> Result<u64, StoreError> {
        self.write("note what is to be published again", |state| {
            let (id, sequence) = from.unwrap_or((ChainId([0; 16]), 0));
            let first = state.chains.iter().position(|chain| chain.id == id);
            let mut again = 0;
            for chain in state.chains.iter_mut().skip(first.unwrap_or(0)) {
                let after = if chain.id == id { sequence } else { 0 };
                chain.shipped = chain.shipped.min(after);
                again += chain.records.iter().filter(|held| held.0.sequence > after).count() as u64;
            }
            Ok(again)
        })
        .await
    }

    async fn trim_audit(&self, before_ms: u64) -> Result<u64, StoreError> {
        self.write("remove old audit records", |state| {
            let mut removed = 0;
            for chain in &mut state.chains {
                let newest = chain.records.last().map(|held| held.0.sequence);
                let (before, shipped) = (chain.records.len(), chain.shipped);
                chain.records.retain(|held| {
                    let (record, at_ms) = &**held;
                    *at_ms >= before_ms
                        || record.sequence > shipped
                        || Some(record.sequence) == newest
                        || !named_as_locked(record).is_empty()
                });
                removed += (before - chain.records.len()) as u64;
            }
            Ok(removed)
        })
        .await
    }
}

#[async_trait]
impl WitnessStore for MemoryStore {
    async fn locked_by_audit(&self) -> Result<BTreeSet<PaillierKeyId>, StoreError> {
        self.read("read audit records", |state| {
            let records = state.chains.iter().flat_map(|chain| &chain.records);
            records.flat_map(|held| named_as_locked(&held.0)).collect()
        })
        .await
    }

    async fn lock_witnessed(
        &self,
        keys: &BTreeSet<PaillierKeyId>,
        now_ms: u64,
    ) -> Result<Vec<PaillierKeyId>, StoreError> {
        self.write("repair a lock", |state| {
            let mut repaired = Vec::new();
            for id in keys {
                let Some(key) = state.key_mut(*id).filter(|key| key.row.state != PaillierState::Locked)
                else {
                    continue;
                };
                key.row.state = PaillierState::Locked;
                let is_counted = key.locked_at_ms.is_some();
                key.locked_at_ms.get_or_insert(now_ms);
                key.locked_card = key.locked_card.or_else(|| card_of(&key.row.scope));
                state.destroy_key(*id);
                if !is_counted {
                    state.count_failure(*id);
                }
                repaired.push(*id);
            }
            if !repaired.is_empty() {
                state.note_if_open(&self.attached);
            }
            Ok(repaired)
        })
        .await
    }

    async fn mark_restored(&self) -> Result<(), StoreError> {
        self.write("mark it as restored", |state| {
            let now = Clock::system().now_ms().to_be_bytes().to_vec();
            state.settings.insert("restored".to_owned(), vec![1]);
            state.settings.insert(RESTORED_AT.to_owned(), now.clone());
            state.settings.insert(LIMITS_USED_UP_SINCE.to_owned(), now);
            for key in state.keys.iter_mut().filter(|key| key.row.state == PaillierState::Ready) {
                key.row.state = PaillierState::NeedsRotation;
            }
            for (_, restored) in &mut state.deals {
                *restored = true;
            }
            for chain in &mut state.chains {
                chain.is_closed = true;
            }
            Ok(())
        })
        .await
    }

    async fn keep_head(&self, head: &HeadRow, max_chains: u32) -> Result<(), StoreError> {
        self.write("keep a head", |state| {
            let is_same = |kept: &&mut HeadRow| (&kept.writer, kept.chain) == (&head.writer, head.chain);
            match state.heads.iter_mut().find(is_same) {
                Some(kept) if kept.sequence < head.sequence => *kept = head.clone(),
                Some(_) => {}
                None => state.heads.push(head.clone()),
            }
            let of_writer = state.heads.iter().filter(|kept| kept.writer == head.writer).count();
            let mut surplus = of_writer.saturating_sub(max_chains as usize);
            state.heads.retain(|kept| {
                let goes = surplus > 0 && kept.writer == head.writer;
                surplus -= usize::from(goes);
                !goes
            });
            Ok(())
        })
        .await
    }

    async fn heads(&self, writer: &PartyId) -> Result<Vec<HeadRow>, StoreError> {
        self.read("read heads", |state| {
            state.heads.iter().filter(|kept| kept.writer == *writer).cloned().collect()
        })
        .await
    }
}
