//! Policies, their limits, approvals. Whatever is decided upon a wallet's policies and limits takes
//! the wallet's advisory lock: workers that charge at once stay within a limit together.

use std::sync::Arc;

use async_trait::async_trait;
use duet_protocol::ids::WalletId;
use sqlx::{PgConnection, Postgres, QueryBuilder};

use super::{AdvisoryLock, PostgresStore, within};
use crate::store::{
    PolicyMark, PolicyRow, PolicyStore, PutPolicy, ShareStore, Spending, StoreError, WalletRow,
    columns::{bytes, integer, number, policy_mark, policy_row, unavailable, wallet_row},
    policy::Account,
    spending::{DECIDED, due, looks, write},
};

/// Forgets the slices of an account that count no more.
async fn forget(
    connection: &mut PgConnection,
    spending: &Spending,
    account: Account<'_>,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM policy_usage WHERE wallet = $1 AND scope = $2 AND within_s = $3 AND slice < $4")
        .bind(spending.wallet.as_bytes().as_slice())
        .bind(account.scope)
        .bind(integer(account.within_s))
        .bind(integer(account.oldest_slice(spending.at_ms)))
        .execute(connection)
        .await
        .map(drop)
}

/// Writes a decision in the transaction it is given, which has the wallet's lock, together with a
/// look at the limits, and charges them unless the same was charged before. `false`, and nothing is
/// written, if the decision was made before.
async fn decide(
    connection: &mut PgConnection,
    decision: impl FnOnce(&mut QueryBuilder<Postgres>),
    spending: &Spending,
) -> Result<bool, StoreError> {
    let failed = unavailable("charge a limit");
    let mut first = QueryBuilder::new("WITH decided AS (");
    decision(&mut first);
    first.push(format!(
        " RETURNING 1) SELECT CAST({DECIDED} AS BIGINT) AS part, CAST(0 AS BIGINT) AS slice, CAST(NULL AS BYTEA) AS value,
           CAST(0 AS BIGINT) AS signatures FROM decided UNION ALL "
    ));
    let accounts = spending.accounts();
    let mut rows = Vec::new();
    for mut look in looks(spending, &accounts, first) {
        rows.extend(look.build().fetch_all(&mut *connection).await.map_err(&failed)?);
    }
    let decided = rows.iter().position(|row| number::<i64>(row, "part").is_ok_and(|part| part == DECIDED));
    let Some(decided) = decided else { return Ok(false) };
    rows.swap_remove(decided);
    let Some(due) = due(spending, &accounts, &rows)? else { return Ok(true) };
    let mut write = write::<Postgres>(spending, &due, ["WITH spent AS (", ")"]);
    write.build().execute(&mut *connection).await.map_err(&failed)?;
    for due in due.iter().filter(|due| due.is_new) {
        forget(connection, spending, due.account).await.map_err(&failed)?;
    }
    Ok(true)
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
    AdvisoryLock::Policy.take(connection, wallet.as_bytes()).await.map_err(&failed)?;
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
    /// Makes a decision of a session by the insertion that `decision` writes, with what
    /// [`PolicyStore::spending`] and [`AuditStore::noting`](crate::store::AuditStore::noting) were
    /// given; `false`, and nothing is done, if it was made before.
    pub(super) async fn decide(
        &self,
        operation: &'static str,
        decision: impl FnOnce(&mut QueryBuilder<Postgres>),
    ) -> Result<bool, StoreError> {
        let failed = unavailable(operation);
        let (mut transaction, new);
        if let Some(spending) = self.spending.as_deref() {
            // Other decisions that charge nothing go on then. A call that stores a policy waits.
            let is_shared = spending.spends.is_empty();
            let beginning = AdvisoryLock::Policy.beginning(spending.wallet.as_bytes(), is_shared);
            transaction = self.pool.begin_with(beginning).await.map_err(&failed)?;
            new = decide(&mut transaction, decision, spending).await?;
        } else {
            let mut insertion = QueryBuilder::default();
            decision(&mut insertion);
            transaction = self.begin(operation).await?;
            let done = insertion.build().execute(&mut *transaction).await.map_err(&failed)?;
            new = done.rows_affected() == 1;
        }
        if new {
            self.count_answer(&mut transaction).await?;
            self.append_noted(&mut transaction).await?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(new)
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

    async fn wallet_with_policy(
        &self,
        wallet: WalletId,
    ) -> Result<Option<(WalletRow, Option<PolicyMark>)>, StoreError> {
        const OPERATION: &str = "read a wallet";
        within(OPERATION, async {
            sqlx::query(
                "SELECT wallets.*, policies.revision AS policy_revision,
                   policies.effective_at_ms AS policy_effective_at_ms, policies.signature AS policy_signature
                 FROM wallets LEFT JOIN policies ON policies.wallet = wallets.id
                 WHERE wallets.id = $1 ORDER BY policies.revision DESC LIMIT 1",
            )
            .bind(wallet.as_bytes().as_slice())
            .fetch_optional(&self.pool)
            .await
            .map_err(unavailable(OPERATION))?
            .map(|row| Ok((wallet_row(&row)?, policy_mark(&row)?)))
            .transpose()
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
            AdvisoryLock::Policy.take(&mut transaction, wallet.as_bytes()).await.map_err(&failed)?;
            sqlx::query("DELETE FROM policy_approvals WHERE wallet = $1 AND expires_at_ms <= $2")
                .bind(wallet.as_bytes().as_slice())
                .bind(integer(now_ms))
                .execute(&mut *transaction)
                .await
                .map_err(&failed)?;
            let is_new = sqlx::query(
                "INSERT INTO policy_approvals (wallet, request, approver, expires_at_ms) VALUES ($1, $2, $3, $4)
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
        })
        .await
    }

    async fn approvals(
        &self,
        wallet: WalletId,
        request: [u8; 32],
        now_ms: u64,
    ) -> Result<Vec<[u8; 32]>, StoreError> {
        const OPERATION: &str = "read approvals";
        within(OPERATION, async {
            sqlx::query(
                "SELECT approver FROM policy_approvals
                 WHERE wallet = $1 AND request = $2 AND expires_at_ms > $3",
            )
            .bind(wallet.as_bytes().as_slice())
            .bind(request.as_slice())
            .bind(integer(now_ms))
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
