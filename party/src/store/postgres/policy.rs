//! Policies, their limits, approvals. Whatever is decided upon a wallet's policies and limits takes the wallet's turn:
//! workers that charge at once stay within a limit together.

use std::sync::Arc;

use async_trait::async_trait;
use duet_protocol::ids::WalletId;
use duet_wire::policy::Usage;
use sqlx::PgConnection;

use super::{PostgresStore, Turn, within};
use crate::store::{
    PolicyRow, PolicyStore, PutPolicy, ShareStore, Spending, StoreError,
    columns::{bytes, integer, policy_row, unavailable, usage_row},
    policy::{Account, Due, Held},
};

/// What an account holds in the slices that still count.
async fn held(
    connection: &mut PgConnection,
    spending: &Spending,
    account: Account<'_>,
) -> Result<Vec<(u64, Usage)>, StoreError> {
    sqlx::query(
        "SELECT slice, value, signatures FROM policy_usage
         WHERE wallet = $1 AND scope = $2 AND within_s = $3 AND slice >= $4",
    )
    .bind(spending.wallet.as_bytes().as_slice())
    .bind(account.scope)
    .bind(integer(account.within_s))
    .bind(integer(account.oldest_slice(spending.at_ms)))
    .fetch_all(connection)
    .await
    .map_err(unavailable("read what was spent"))?
    .iter()
    .map(usage_row)
    .collect()
}

async fn write_due(
    connection: &mut PgConnection,
    spending: &Spending,
    due: &Due<'_>,
) -> Result<(), sqlx::Error> {
    let Due { account, slice, usage, is_new } = due;
    sqlx::query(
        "INSERT INTO policy_usage (wallet, scope, within_s, slice, value, signatures)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (wallet, scope, within_s, slice)
         DO UPDATE SET value = excluded.value, signatures = excluded.signatures",
    )
    .bind(spending.wallet.as_bytes().as_slice())
    .bind(account.scope)
    .bind(integer(account.within_s))
    .bind(integer(*slice))
    .bind(usage.value.as_slice())
    .bind(integer(usage.signatures))
    .execute(&mut *connection)
    .await?;
    if *is_new {
        sqlx::query(
            "DELETE FROM policy_usage WHERE wallet = $1 AND scope = $2 AND within_s = $3 AND slice < $4",
        )
        .bind(spending.wallet.as_bytes().as_slice())
        .bind(account.scope)
        .bind(integer(account.within_s))
        .bind(integer(account.oldest_slice(spending.at_ms)))
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Charges the limits in the transaction it is given, unless the same was charged before.
async fn charge(connection: &mut PgConnection, spending: &Spending) -> Result<(), StoreError> {
    let failed = unavailable("charge a limit");
    let wallet = spending.wallet.as_bytes();
    if spending.spends.is_empty() {
        // Others that charge nothing may go on; whoever stores a policy may not.
        Turn::Policy.share(connection, wallet).await.map_err(&failed)?;
    } else {
        Turn::Policy.take(connection, wallet).await.map_err(&failed)?;
    }
    let newest = sqlx::query_scalar("SELECT MAX(revision) FROM policies WHERE wallet = $1")
        .bind(wallet.as_slice())
        .fetch_one(&mut *connection)
        .await
        .map_err(&failed)?;
    spending.require_newest(newest)?;
    if spending.spends.is_empty() {
        return Ok(());
    }
    let is_new = sqlx::query(
        "INSERT INTO policy_digests (wallet, digest, charged_at_ms) VALUES ($1, $2, $3)
         ON CONFLICT (wallet, digest) DO NOTHING",
    )
    .bind(spending.wallet.as_bytes().as_slice())
    .bind(spending.spent.as_slice())
    .bind(integer(spending.at_ms))
    .execute(&mut *connection)
    .await
    .map_err(&failed)?
    .rows_affected()
        == 1;
    if !is_new {
        return Ok(());
    }
    let mut accounts = Held::new();
    for account in spending.accounts() {
        accounts.insert(account, held(connection, spending, account).await?);
    }
    for due in spending.due(&accounts)? {
        write_due(connection, spending, &due).await.map_err(&failed)?;
    }
    Ok(())
}

async fn read_policies(
    connection: &mut PgConnection,
    wallet: WalletId,
) -> Result<Vec<PolicyRow>, StoreError> {
    sqlx::query("SELECT * FROM policies WHERE wallet = $1 ORDER BY revision")
        .bind(wallet.as_bytes().as_slice())
        .fetch_all(connection)
        .await
        .map_err(unavailable("read policies"))?
        .iter()
        .map(policy_row)
        .collect()
}

/// Stores a policy in the transaction it is given.
async fn put(
    connection: &mut PgConnection,
    wallet: WalletId,
    new: &PolicyRow,
    now_ms: u64,
) -> Result<PutPolicy, StoreError> {
    let failed = unavailable("store a policy");
    Turn::Policy.take(connection, wallet.as_bytes()).await.map_err(&failed)?;
    let known = read_policies(connection, wallet).await?;
    let kept_from = match new.admit(&known, now_ms) {
        Ok(revision) => revision,
        Err(outcome) => return Ok(outcome),
    };
    sqlx::query("DELETE FROM policies WHERE wallet = $1 AND revision < $2")
        .bind(wallet.as_bytes().as_slice())
        .bind(integer(kept_from))
        .execute(&mut *connection)
        .await
        .map_err(&failed)?;
    sqlx::query(
        "INSERT INTO policies (wallet, revision, effective_at_ms, body, signature) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(wallet.as_bytes().as_slice())
    .bind(integer(new.revision))
    .bind(integer(new.effective_at_ms))
    .bind(new.body()?)
    .bind(new.signed.signature.as_slice())
    .execute(connection)
    .await
    .map_err(&failed)?;
    Ok(PutPolicy::Stored)
}

impl PostgresStore {
    /// Charges what [`PolicyStore::spending`] was given, if anything and if it has not been before.
    pub(super) async fn charge_limits(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        match self.spending.as_deref() {
            Some(spending) => charge(connection, spending).await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl PolicyStore for PostgresStore {
    fn spending(&self, spending: Spending) -> Arc<dyn ShareStore> {
        Arc::new(Self { spending: Some(Arc::new(spending)), ..self.clone() })
    }

    async fn put_policy(
        &self,
        wallet: WalletId,
        new: &PolicyRow,
        now_ms: u64,
    ) -> Result<PutPolicy, StoreError> {
        const OPERATION: &str = "store a policy";
        within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            let outcome = put(&mut transaction, wallet, new, now_ms).await?;
            if outcome == PutPolicy::Stored {
                self.append_noted(&mut transaction).await?;
            }
            transaction.commit().await.map_err(unavailable(OPERATION))?;
            Ok(outcome)
        })
        .await
    }

    async fn policies(&self, wallet: WalletId) -> Result<Vec<PolicyRow>, StoreError> {
        const OPERATION: &str = "read policies";
        within(OPERATION, async {
            let mut connection = self.pool.acquire().await.map_err(unavailable(OPERATION))?;
            read_policies(&mut connection, wallet).await
        })
        .await
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
        within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            Turn::Policy.take(&mut transaction, wallet.as_bytes()).await.map_err(&failed)?;
            sqlx::query("DELETE FROM policy_approvals WHERE wallet = $1 AND expires_at_ms <= $2")
                .bind(wallet.as_bytes().as_slice())
                .bind(integer(now_ms))
                .execute(&mut *transaction)
                .await
                .map_err(&failed)?;
            let is_new = sqlx::query(
                "INSERT INTO policy_approvals (wallet, request, approver, expires_at_ms) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (wallet, request, approver) DO NOTHING",
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
        })
        .await
    }

    async fn approvals(&self, wallet: WalletId, request: [u8; 32]) -> Result<Vec<[u8; 32]>, StoreError> {
        const OPERATION: &str = "read approvals";
        within(OPERATION, async {
            sqlx::query("SELECT approver FROM policy_approvals WHERE wallet = $1 AND request = $2")
                .bind(wallet.as_bytes().as_slice())
                .bind(request.as_slice())
                .fetch_all(&self.pool)
                .await
                .map_err(unavailable(OPERATION))?
                .iter()
                .map(|row| bytes(row, "approver"))
                .collect()
        })
        .await
    }
}
