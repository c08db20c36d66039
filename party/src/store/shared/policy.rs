//! Policies, their limits, approvals. Whatever is decided upon a wallet's policies and limits has
//! the wallet's lock ([`NamedLock::Policy`]): workers that charge at once stay within a limit
//! together.

use std::sync::Arc;

use async_trait::async_trait;
use duet_protocol::ids::WalletId;

use crate::store::{
    PolicyMark, PolicyRow, PolicyStore, PutPolicy, ShareStore, Spending, StoreError, WalletRow,
    backend::{Attached, Backend},
    columns::{POLICY, WALLET, bytes, policy_mark, policy_row, unavailable, wallet_row},
    connection::{Connection, NamedLock, values},
    policy::Due,
};

/// Forgets those slices of newly charged accounts that count no more.
pub(in crate::store) async fn forget(
    connection: &mut impl Connection,
    spending: &Spending,
    due: &[Due<'_>],
) -> Result<(), sqlx::Error> {
    for account in due.iter().filter(|due| due.is_new).map(|due| due.account) {
        connection
            .run(
                &["DELETE FROM policy_usage WHERE wallet = $1 AND scope = $2 AND within_s = $3 AND slice < $4"],
                values![
                    &spending.wallet,
                    account.scope,
                    account.within_s,
                    account.oldest_slice(spending.at_ms)
                ],
            )
            .await?;
    }
    Ok(())
}

/// Stores a policy in the transaction it is given.
async fn put(
    connection: &mut impl Connection,
    wallet: WalletId,
    new: &PolicyRow,
    now_ms: u64,
) -> Result<PutPolicy, StoreError> {
    let failed = unavailable("store a policy");
    connection.take(NamedLock::Policy, wallet.as_bytes()).await.map_err(&failed)?;
    let known = connection.rows(&POLICIES, values![&wallet]).await.map_err(&failed)?;
    let known = known.iter().map(policy_row).collect::<Result<Vec<_>, _>>()?;
    let kept_from = match new.admit(&known, now_ms) {
        Ok(revision) => revision,
        Err(outcome) => return Ok(outcome),
    };
    connection
        .run(&["DELETE FROM policies WHERE wallet = $1 AND revision < $2"], values![&wallet, kept_from])
        .await
        .map_err(&failed)?;
    connection
        .run(
            &["INSERT INTO policies (wallet, revision, effective_at_ms, body, signature) VALUES ($1, $2, $3, $4, $5)"],
            values![&wallet, new.revision, new.effective_at_ms, new.body()?, &new.signed.signature],
        )
        .await
        .map_err(&failed)?;
    Ok(PutPolicy::Stored)
}

/// Finds a wallet's policies, oldest first.
const POLICIES: [&str; 3] = ["SELECT ", POLICY, " FROM policies WHERE wallet = $1 ORDER BY revision"];

#[async_trait]
impl<B: Backend> PolicyStore for B {
    fn spending(&self, spending: Spending) -> Arc<dyn ShareStore> {
        Arc::new(self.with(Attached { spending: Some(Arc::new(spending)), ..self.attached().clone() }))
    }

    async fn put_policy(
        &self,
        wallet: WalletId,
        new: &PolicyRow,
        now_ms: u64,
    ) -> Result<PutPolicy, StoreError> {
        const OPERATION: &str = "store a policy";
        Self::within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            let outcome = put(&mut *transaction, wallet, new, now_ms).await?;
            if outcome == PutPolicy::Stored {
                self.attached().append(&mut *transaction).await?;
            }
            transaction.commit().await.map_err(unavailable(OPERATION))?;
            Ok(outcome)
        })
        .await
    }

    async fn wallet_with_policy(
        &self,
        wallet: WalletId,
    ) -> Result<Option<(WalletRow, Option<PolicyMark>)>, StoreError> {
        let statement = [
            "SELECT ",
            WALLET,
            ", policies.revision AS policy_revision, policies.effective_at_ms AS policy_effective_at_ms,
               policies.signature AS policy_signature
             FROM wallets LEFT JOIN policies ON policies.wallet = wallets.id
             WHERE wallets.id = $1 ORDER BY policies.revision DESC LIMIT 1",
        ];
        self.find("read a wallet", &statement, values![&wallet], |row| {
            Ok((wallet_row(row)?, policy_mark(row)?))
        })
        .await
    }

    async fn policies(&self, wallet: WalletId) -> Result<Vec<PolicyRow>, StoreError> {
        self.list("read policies", &POLICIES, values![&wallet], policy_row).await
    }

    async fn put_approval(
        &self,
        wallet: WalletId,
        request: [u8; 32],
        approver: [u8; 32],
        expires_at_ms: u64,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "note an approval";
        let failed = unavailable(OPERATION);
        Self::within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            transaction.take(NamedLock::Policy, wallet.as_bytes()).await.map_err(&failed)?;
            transaction
                .run(
                    &["DELETE FROM policy_approvals WHERE wallet = $1 AND expires_at_ms <= $2"],
                    values![&wallet, now_ms],
                )
                .await
                .map_err(&failed)?;
            let written = transaction
                .run(
                    &["INSERT INTO policy_approvals (wallet, request, approver, expires_at_ms) VALUES ($1, $2, $3, $4)
                     ON CONFLICT (wallet, request, approver) DO UPDATE SET expires_at_ms = excluded.expires_at_ms
                     WHERE excluded.expires_at_ms > policy_approvals.expires_at_ms"],
                    values![&wallet, &request, &approver, expires_at_ms],
                )
                .await
                .map_err(&failed)?;
            if written == 1 {
                self.attached().append(&mut *transaction).await?;
            }
            transaction.commit().await.map_err(&failed)
        })
        .await
    }

    async fn approvals(
        &self,
        wallet: WalletId,
        request: [u8; 32],
        now_ms: u64,
    ) -> Result<Vec<[u8; 32]>, StoreError> {
        self.list(
            "read approvals",
            &["SELECT approver FROM policy_approvals
             WHERE wallet = $1 AND request = $2 AND expires_at_ms > $3"],
            values![&wallet, &request, now_ms],
            |row| bytes(row, "approver"),
        )
        .await
    }
}
