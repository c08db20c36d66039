//! Policies, their limits, approvals.

use std::sync::Arc;

use async_trait::async_trait;
use duet_protocol::ids::WalletId;

use super::{MemoryStore, state::State};
use crate::store::{
    LIMITS_USED_UP_SINCE, PolicyMark, PolicyRow, PolicyStore, PutPolicy, ShareStore, Spending, StoreError,
    WalletRow, backend::Attached, moment, policy::Held,
};

impl State {
    /// Charges what is attached to limits, if it was not before.
    pub(super) fn spend(&mut self, attached: &Attached) -> Result<(), StoreError> {
        let Some(spending) = attached.spending.as_deref() else { return Ok(()) };
        let Spending { wallet, request, spent, at_ms, .. } = *spending;
        if self.revocations.contains_key(&(wallet, request)) {
            return Err(StoreError::Revoked);
        }
        let newest = self.policies.get(&wallet).and_then(|rows| rows.last()).map(PolicyRow::mark);
        spending.require_newest(newest)?;
        if spending.spends.is_empty() || self.spent.contains_key(&(wallet, spent)) {
            return Ok(());
        }
        let used_up_since = self.settings.get(LIMITS_USED_UP_SINCE).map(|at| moment(at)).transpose()?;
        let mut held = Held::new();
        for account in spending.accounts() {
            let key = |slice| (wallet, account.scope.to_owned(), account.within_s, slice);
            let slices = self.usage.range(key(account.oldest_slice(at_ms))..=key(u64::MAX));
            held.insert(account, slices.map(|((.., slice), usage)| (*slice, *usage)).collect());
        }
        for due in spending.due(&held, used_up_since)? {
            let (scope, within_s) = (due.account.scope, due.account.within_s);
            if due.is_new {
                let oldest = due.account.oldest_slice(at_ms);
                self.usage.retain(|(of, held, within, slice), _| {
                    (*of, held.as_str(), *within) != (wallet, scope, within_s) || *slice >= oldest
                });
            }
            self.usage.insert((wallet, scope.to_owned(), within_s, due.slice), due.usage);
        }
        self.spent.insert((wallet, spent), at_ms);
        Ok(())
    }
}

#[async_trait]
impl PolicyStore for MemoryStore {
    fn spending(&self, spending: Spending) -> Arc<dyn ShareStore> {
        Arc::new(self.with(Attached { spending: Some(Arc::new(spending)), ..self.attached.clone() }))
    }

    async fn put_policy(
        &self,
        wallet: WalletId,
        policy: &PolicyRow,
        now_ms: u64,
    ) -> Result<PutPolicy, StoreError> {
        self.write("store a policy", |state| {
            let rows = state.policies.entry(wallet).or_default();
            let kept_from = match policy.admit(rows, now_ms) {
                Ok(revision) => revision,
                Err(outcome) => return Ok(outcome),
            };
            rows.retain(|row| row.revision >= kept_from);
            rows.push(policy.clone());
            state.note(&self.attached)?;
            Ok(PutPolicy::Stored)
        })
        .await
    }

    async fn wallet_with_policy(
        &self,
        wallet: WalletId,
    ) -> Result<Option<(WalletRow, Option<PolicyMark>)>, StoreError> {
        self.read("read a wallet", |state| {
            let newest = state.policies.get(&wallet).and_then(|rows| rows.last()).map(PolicyRow::mark);
            state.wallets.get(&wallet).map(|held| (held.row.clone(), newest))
        })
        .await
    }

    async fn policies(&self, wallet: WalletId) -> Result<Vec<PolicyRow>, StoreError> {
        self.read("read policies", |state| state.policies.get(&wallet).cloned().unwrap_or_default()).await
    }

    async fn put_approval(
        &self,
        wallet: WalletId,
        request: [u8; 32],
        approver: [u8; 32],
        expires_at_ms: u64,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        self.write("note an approval", |state| {
            state.approvals.retain(|(of, ..), until_ms| *of != wallet || *until_ms > now_ms);
            let until_ms = state.approvals.entry((wallet, request, approver)).or_default();
            if expires_at_ms > *until_ms {
                *until_ms = expires_at_ms;
                state.note(&self.attached)?;
            }
            Ok(())
        })
        .await
    }

    async fn approvals(
        &self,
        wallet: WalletId,
        request: [u8; 32],
        now_ms: u64,
    ) -> Result<Vec<[u8; 32]>, StoreError> {
        self.read("read approvals", |state| {
            let counting = state.approvals.iter().filter(|((of, asked, _), until_ms)| {
                (*of, *asked) == (wallet, request) && **until_ms > now_ms
            });
            counting.map(|((.., approver), _)| *approver).collect()
        })
        .await
    }
}
