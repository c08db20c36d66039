//! Policies, their limits, approvals. Spent is in the transaction that is passed in; the write
//! lock, which that transaction holds, keeps workers that charge at once within a limit together.

use std::sync::Arc;

use async_trait::async_trait;
use duet_protocol::ids::WalletId;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::SqliteStore;
use crate::store::{
    PolicyMark, PolicyRow, PolicyStore, PutPolicy, ShareStore, Spending, StoreError, WalletRow,
    columns::{bytes, integer, policy_mark, policy_row, unavailable, wallet_row},
    policy::Account,
    spending::{due, looks, write},
};

/// Forgets the slices of an account that count no more.
async fn forget(
    connection: &mut SqliteConnection,
    spending: &Spending,
    account: Account<'_>,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM policy_usage WHERE wallet = ? AND scope = ? AND within_s = ? AND slice < ?")
        .bind(spending.wallet.as_bytes().as_slice())
        .bind(account.scope)
        .bind(integer(account.within_s))
        .bind(integer(account.oldest_slice(spending.at_ms)))
        .execute(connection)
        .await
        .map(drop)
}

impl SqliteStore {
    /// Charges what [`PolicyStore::spending`] was given, if anything and if it has not been before.
    pub(super) async fn charge_limits(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        let Some(spending) = self.spending.as_deref() else { return Ok(()) };
        let failed = unavailable("charge a limit");
        let accounts = spending.accounts();
        let mut rows = Vec::new();
        for mut look in looks(spending, &accounts, QueryBuilder::<Sqlite>::default()) {
            rows.extend(look.build().fetch_all(&mut *connection).await.map_err(&failed)?);
        }
        let Some(due) = due(spending, &accounts, &rows)? else { return Ok(()) };
        let mut write = write::<Sqlite>(spending, &due, ["", ";"]);
        write.build().execute(&mut *connection).await.map_err(&failed)?;
        for due in due.iter().filter(|due| due.is_new) {
            forget(connection, spending, due.account).await.map_err(&failed)?;
        }
        Ok(())
    }
}

async fn read_policies(
    connection: &mut SqliteConnection,
    wallet: WalletId,
) -> Result<Vec<PolicyRow>, StoreError> {
    sqlx::query("SELECT * FROM policies WHERE wallet = ? ORDER BY revision")
        .bind(wallet.as_bytes().as_slice())
        .fetch_all(connection)
        .await
        .map_err(unavailable("read policies"))?
        .iter()
        .map(policy_row)
        .collect()
}

#[async_trait]
impl PolicyStore for SqliteStore {
    fn spending(&self, spending: Spending) -> Arc<dyn ShareStore> {
        Arc::new(Self { spending: Some(Arc::new(spending)), ..self.clone() })
    }

    async fn put_policy(
        &self,
        wallet: WalletId,
        new: &PolicyRow,
        now_ms: u64,
    ) -> Result<PutPolicy, StoreError> {
        let failed = unavailable("store a policy");
        let mut transaction = self.write("store a policy").await?;
        let known = read_policies(&mut transaction, wallet).await?;
        let kept_from = match new.admit(&known, now_ms) {
            Ok(revision) => revision,
            Err(outcome) => return Ok(outcome),
        };
        sqlx::query("DELETE FROM policies WHERE wallet = ? AND revision < ?")
            .bind(wallet.as_bytes().as_slice())
            .bind(integer(kept_from))
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        sqlx::query(
            "INSERT INTO policies (wallet, revision, effective_at_ms, body, signature) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(wallet.as_bytes().as_slice())
        .bind(integer(new.revision))
        .bind(integer(new.effective_at_ms))
        .bind(new.body()?)
        .bind(new.signed.signature.as_slice())
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        self.append_noted(&mut transaction).await?;
        transaction.commit().await.map_err(&failed)?;
        Ok(PutPolicy::Stored)
    }

    async fn wallet_with_policy(
        &self,
        wallet: WalletId,
    ) -> Result<Option<(WalletRow, Option<PolicyMark>)>, StoreError> {
        sqlx::query(
            "SELECT wallets.*, policies.revision AS policy_revision,
               policies.effective_at_ms AS policy_effective_at_ms, policies.signature AS policy_signature
             FROM wallets LEFT JOIN policies ON policies.wallet = wallets.id
             WHERE wallets.id = ? ORDER BY policies.revision DESC LIMIT 1",
        )
        .bind(wallet.as_bytes().as_slice())
        .fetch_optional(&self.reader)
        .await
        .map_err(unavailable("read a wallet"))?
        .map(|row| Ok((wallet_row(&row)?, policy_mark(&row)?)))
        .transpose()
    }

    async fn policies(&self, wallet: WalletId) -> Result<Vec<PolicyRow>, StoreError> {
        let mut connection = self.reader.acquire().await.map_err(unavailable("read policies"))?;
        read_policies(&mut connection, wallet).await
    }

    async fn put_approval(
        &self,
        wallet: WalletId,
        request: [u8; 32],
        approver: [u8; 32],
        expires_at_ms: u64,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let failed = unavailable("note an approval");
        let mut transaction = self.write("note an approval").await?;
        sqlx::query("DELETE FROM policy_approvals WHERE wallet = ? AND expires_at_ms <= ?")
            .bind(wallet.as_bytes().as_slice())
            .bind(integer(now_ms))
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        let is_new = sqlx::query(
            "INSERT INTO policy_approvals (wallet, request, approver, expires_at_ms) VALUES (?, ?, ?, ?)
             ON CONFLICT (wallet, request, approver) DO UPDATE SET expires_at_ms = excluded.expires_at_ms
             WHERE excluded.expires_at_ms > policy_approvals.expires_at_ms",
        )
        .bind(wallet.as_bytes().as_slice())
        .bind(request.as_slice())
        .bind(approver.as_slice())
        .bind(integer(expires_at_ms))
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?
        .rows_affected()
            == 1;
        if is_new {
            self.append_noted(&mut transaction).await?;
        }
        transaction.commit().await.map_err(&failed)
    }

    async fn approvals(
        &self,
        wallet: WalletId,
        request: [u8; 32],
        now_ms: u64,
    ) -> Result<Vec<[u8; 32]>, StoreError> {
        sqlx::query(
            "SELECT approver FROM policy_approvals WHERE wallet = ? AND request = ? AND expires_at_ms > ?",
        )
        .bind(wallet.as_bytes().as_slice())
        .bind(request.as_slice())
        .bind(integer(now_ms))
        .fetch_all(&self.reader)
        .await
        .map_err(unavailable("read approvals"))?
        .iter()
        .map(|row| bytes(row, "approver"))
        .collect()
    }
}
