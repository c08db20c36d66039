//! Sessions, charges, revocations and pending verdicts.

use std::sync::Arc;

use async_trait::async_trait;
use duet_protocol::ids::{SessionId, WalletId};
use duet_wire::{JobId, remembered::Remembered};

use super::{
    MemoryStore,
    state::{Claimed, Decided, Pending},
};
use crate::store::{
    AnswersOf, Charge, ChargedJob, MAX_REVOCATIONS, NewPending, PendingRow, PendingStore, RESTORED_AT,
    RequestFacts, Revoked, RevokedRequest, SessionStore, ShareStore, StoreError,
    backend::Attached,
    moment,
    pending::{OWN_PENDING_FOR_MS, UNCLEAN_STARTS, unclean_starts},
    pending_label,
};

#[async_trait]
impl SessionStore for MemoryStore {
    async fn claim_session(
        &self,
        session: SessionId,
        _: WalletId,
        expires_at_ms: u64,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        let claiming = self.write("claim a session", |state| {
            if state.sessions.contains_key(&session) {
                return Ok(false);
            }
            state.sessions.insert(session, Claimed { claimed_at_ms: now_ms, expires_at_ms });
            state.decided.push(Decided::Claimed(session));
            state.spend(&self.attached)?;
            state.count_answer(&self.attached, now_ms)?;
            state.note(&self.attached)?;
            Ok(true)
        });
        self.health.judge(claiming.await)
    }

    async fn charge(&self, charge: &Charge) -> Result<bool, StoreError> {
        let charging = self.write("charge a signature", |state| {
            if state.charges.contains_key(&charge.session) {
                return Ok(false);
            }
            state.charges.insert(charge.session, *charge);
            state.decided.push(Decided::Charged(charge.session, charge.digest));
            state.spend(&self.attached)?;
            state.count_answer(&self.attached, charge.charged_at_ms)?;
            state.note(&self.attached)?;
            Ok(true)
        });
        self.health.judge(charging.await)
    }

    async fn revoke_request(&self, revoked: &RevokedRequest, now_ms: u64) -> Result<Revoked, StoreError> {
        self.write("keep a revocation", |state| {
            let wallet = revoked.wallet;
            state.revocations.retain(|_, held| held.wallet != wallet || held.expires_at_ms > now_ms);
            let kept = state.revocations.keys().filter(|(of, _)| *of == wallet).count();
            if i64::try_from(kept).unwrap_or(i64::MAX) >= MAX_REVOCATIONS {
                return Ok(Revoked::Full);
            }
            if state.revocations.insert((wallet, revoked.request), *revoked).is_some() {
                return Ok(Revoked::Before);
            }
            state.note(&self.attached)?;
            Ok(Revoked::Now)
        })
        .await
    }

    async fn request_facts(
        &self,
        wallet: WalletId,
        request: [u8; 32],
        job: JobId,
    ) -> Result<RequestFacts, StoreError> {
        self.read("read what bears on a request", |state| {
            let charged = state.jobs.get(&job);
            Ok(RequestFacts {
                is_revoked: state.revocations.contains_key(&(wallet, request)),
                restored_at_ms: state.settings.get(RESTORED_AT).map(|at| moment(at)).transpose()?,
                charged: charged.map(|job| ChargedJob { signs: job.signs, charged_at_ms: job.charged_at_ms }),
            })
        })
        .await?
    }

    async fn charges(&self, wallet: WalletId, digest: [u8; 32]) -> Result<u64, StoreError> {
        self.read("count charges", |state| {
            let charges = state.charges.values();
            charges.filter(|charge| (charge.wallet, charge.digest) == (wallet, digest)).count() as u64
        })
        .await
    }
}

#[async_trait]
impl PendingStore for MemoryStore {
    async fn remembered(&self, limit: u32) -> Result<Vec<Remembered>, StoreError> {
        self.read("read what is remembered of the broker", |state| {
            let mut seen: Vec<_> = state.jobs.values().filter_map(|job| job.remembered).collect();
            seen.sort_by_key(|one| core::cmp::Reverse((one.epoch, one.revision)));
            let mut highest: Vec<Remembered> = Vec::new();
            for one in seen {
                if !highest.iter().any(|known| known.created_ns == one.created_ns) {
                    highest.push(one);
                }
            }
            highest.truncate(limit as usize);
            highest
        })
        .await
    }

    fn answering(&self, of: AnswersOf) -> Arc<dyn ShareStore> {
        Arc::new(self.with(Attached { answering: Some(Arc::new(of)), ..self.attached.clone() }))
    }

    async fn put_pending(&self, pending: &NewPending) -> Result<(), StoreError> {
        self.health.require_ready()?;
        let NewPending { session, key, card, record, at_ms } = pending;
        let putting = self.write("write a pending verdict", |state| {
            if !state.standing(*card).is_trusted() {
                return Err(StoreError::Quarantined(*card));
            }
            state.count_answer(&self.attached, *at_ms)?;
            state.put_record(&pending_label(*session), record)?;
            state.decided.push(Decided::Pending(*session));
            let row = PendingRow { session: *session, key: *key };
            state.pending.push(Pending { row, instance: self.instance, at_ms: *at_ms });
            Ok(())
        });
        self.health.judge(putting.await)
    }

    async fn abandoned(&self, now_ms: u64, limit: u32) -> Result<Vec<PendingRow>, StoreError> {
        self.read("look for what was left behind", |state| {
            let own_before = now_ms.checked_sub(OWN_PENDING_FOR_MS.unsigned_abs());
            let is_left = |pending: &&Pending| {
                if pending.instance == self.instance {
                    own_before.is_some_and(|before| pending.at_ms <= before)
                } else {
                    !state.openings.contains(&pending.instance)
                }
            };
            let mut oldest: Vec<_> = state.pending.iter().collect();
            oldest.sort_by_key(|pending| pending.at_ms);
            oldest.into_iter().take(limit as usize).filter(is_left).map(|pending| pending.row).collect()
        })
        .await
    }

    async fn count_unclean_start(&self) -> Result<u64, StoreError> {
        self.write("count an unclean start", |state| {
            let before = unclean_starts(state.settings.get(UNCLEAN_STARTS).map(Vec::as_slice));
            let count = before.saturating_add(1);
            state.settings.insert(UNCLEAN_STARTS.to_owned(), count.to_be_bytes().to_vec());
            Ok(count)
        })
        .await
    }

    async fn unclean_starts(&self) -> Result<u64, StoreError> {
        self.read("read a setting", |state| {
            unclean_starts(state.settings.get(UNCLEAN_STARTS).map(Vec::as_slice))
        })
        .await
    }
}
