//! Policies, their limits, approvals. A limit's time is counted in sixtieths, so that a decision looks at
//! no more than sixty-one rows of it however much was signed.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use duet_protocol::ids::WalletId;
use duet_wire::policy::{SignedPolicy, SpendLimit, SpendOption, Usage};
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{SqliteStore, bytes, integer, number, unavailable};
use crate::store::{
    MAX_PENDING_POLICIES, PolicyRow, PolicyStore, PutPolicy, ShareStore, Spending, StoreError,
};

/// How many parts a limit's time has.
const SLICES: u64 = 60;

fn policy(row: &SqliteRow) -> Result<PolicyRow, StoreError> {
    let body: String = row.try_get("body").map_err(unavailable("read a policy"))?;
    Ok(PolicyRow {
        revision: number(row, "revision")?,
        effective_at_ms: number(row, "effective_at_ms")?,
        signed: SignedPolicy { body: body.into_bytes(), signature: bytes(row, "signature")? },
    })
}

fn slice_ms(limit: &SpendLimit) -> u64 {
    (limit.limit.within_s.saturating_mul(1000) / SLICES).max(1)
}

/// The oldest slice that still counts at `at_ms`: the one in which the limit's time begins counts whole.
fn oldest_slice(limit: &SpendLimit, at_ms: u64) -> u64 {
    at_ms.saturating_sub(limit.limit.within_s.saturating_mul(1000)) / slice_ms(limit)
}

async fn used(
    connection: &mut SqliteConnection,
    wallet: WalletId,
    limit: &SpendLimit,
    at_ms: u64,
) -> Result<Usage, StoreError> {
    let rows = sqlx::query(
        "SELECT value, signatures FROM policy_usage WHERE wallet = ? AND scope = ? AND within_s = ? AND slice >= ?",
    )
    .bind(wallet.as_bytes().as_slice())
    .bind(limit.scope.as_str())
    .bind(integer(limit.limit.within_s))
    .bind(integer(oldest_slice(limit, at_ms)))
    .fetch_all(connection)
    .await
    .map_err(unavailable("read what was spent"))?;
    rows.iter().try_fold(Usage::default(), |sum, row| {
        Ok(sum.plus(&Usage { value: bytes(row, "value")?, signatures: number(row, "signatures")? }))
    })
}

async fn spend(
    connection: &mut SqliteConnection,
    wallet: WalletId,
    limit: &SpendLimit,
    value: [u8; 32],
    at_ms: u64,
) -> Result<(), StoreError> {
    let failed = unavailable("charge a limit");
    let slice = at_ms / slice_ms(limit);
    let known = sqlx::query(
        "SELECT value, signatures FROM policy_usage WHERE wallet = ? AND scope = ? AND within_s = ? AND slice = ?",
    )
    .bind(wallet.as_bytes().as_slice())
    .bind(limit.scope.as_str())
    .bind(integer(limit.limit.within_s))
    .bind(integer(slice))
    .fetch_optional(&mut *connection)
    .await
    .map_err(&failed)?;
    let before = match &known {
        Some(row) => Usage { value: bytes(row, "value")?, signatures: number(row, "signatures")? },
        None => Usage::default(),
    };
    let after = before.plus(&Usage::of_one(value));
    sqlx::query(
        "INSERT INTO policy_usage (wallet, scope, within_s, slice, value, signatures) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (wallet, scope, within_s, slice)
         DO UPDATE SET value = excluded.value, signatures = excluded.signatures",
    )
    .bind(wallet.as_bytes().as_slice())
    .bind(limit.scope.as_str())
    .bind(integer(limit.limit.within_s))
    .bind(integer(slice))
    .bind(after.value.as_slice())
    .bind(integer(after.signatures))
    .execute(&mut *connection)
    .await
    .map_err(&failed)?;
    if known.is_none() {
        // A new slice: those that count no more go.
        sqlx::query("DELETE FROM policy_usage WHERE wallet = ? AND scope = ? AND within_s = ? AND slice < ?")
            .bind(wallet.as_bytes().as_slice())
            .bind(limit.scope.as_str())
            .bind(integer(limit.limit.within_s))
            .bind(integer(oldest_slice(limit, at_ms)))
            .execute(connection)
            .await
            .map_err(&failed)?;
    }
    Ok(())
}

/// The first limit of the option that has no room.
async fn full<'a>(
    connection: &mut SqliteConnection,
    spending: &Spending,
    option: &'a SpendOption,
    value: &[u8; 32],
) -> Result<Option<&'a SpendLimit>, StoreError> {
    for limit in &option.limits {
        let used = used(connection, spending.wallet, limit, spending.at_ms).await?;
        if !limit.limit.admits(&used, value) {
            return Ok(Some(limit));
        }
    }
    Ok(None)
}

impl SqliteStore {
    /// Charges what [`PolicyStore::spending`] was given, if anything and if it has not been before.
    pub(super) async fn charge_limits(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        let Some(spending) = self.spending.as_deref() else { return Ok(()) };
        if spending.spends.is_empty() {
            return Ok(());
        }
        let is_new = sqlx::query(
            "INSERT OR IGNORE INTO policy_digests (wallet, digest, charged_at_ms) VALUES (?, ?, ?)",
        )
        .bind(spending.wallet.as_bytes().as_slice())
        .bind(spending.digest.as_slice())
        .bind(integer(spending.at_ms))
        .execute(&mut *connection)
        .await
        .map_err(unavailable("charge a limit"))?
        .rows_affected()
            == 1;
        if !is_new {
            return Ok(());
        }
        // First looked at, then spent: two policies may know the same limit, which is charged once.
        let mut charged = BTreeSet::new();
        let mut due = Vec::new();
        for of_policy in &spending.spends {
            let (mut chosen, mut refused) = (None, None);
            for option in &of_policy.options {
                match full(connection, spending, option, &of_policy.value).await? {
                    None => {
                        chosen = Some(option);
                        break;
                    }
                    Some(limit) => {
                        refused.get_or_insert_with(|| limit.to_string());
                    }
                }
            }
            let option = chosen.ok_or_else(|| StoreError::LimitExceeded(refused.unwrap_or_default()))?;
            for limit in &option.limits {
                if charged.insert((limit.scope.as_str(), limit.limit.within_s)) {
                    due.push((limit, of_policy.value));
                }
            }
        }
        for (limit, value) in due {
            spend(connection, spending.wallet, limit, value, spending.at_ms).await?;
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
        .map(policy)
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
        if let Some(newest) = known.last()
            && newest.revision >= new.revision
        {
            return Ok(match known.iter().find(|row| row.signed == new.signed) {
                Some(row) => PutPolicy::Already(row.clone()),
                None => PutPolicy::Stale(newest.revision),
            });
        }
        let in_effect = known.iter().rev().find(|row| row.effective_at_ms <= now_ms).map(|row| row.revision);
        let pending = known.iter().filter(|row| row.effective_at_ms > now_ms).count();
        if pending >= MAX_PENDING_POLICIES {
            return Ok(PutPolicy::TooManyPending);
        }
        sqlx::query("DELETE FROM policies WHERE wallet = ? AND revision < ?")
            .bind(wallet.as_bytes().as_slice())
            .bind(integer(in_effect.unwrap_or_default()))
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        let body =
            str::from_utf8(&new.signed.body).map_err(|_| StoreError::Corrupt("a policy that is no text"))?;
        sqlx::query(
            "INSERT INTO policies (wallet, revision, effective_at_ms, body, signature) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(wallet.as_bytes().as_slice())
        .bind(integer(new.revision))
        .bind(integer(new.effective_at_ms))
        .bind(body)
        .bind(new.signed.signature.as_slice())
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        self.append_noted(&mut transaction).await?;
        transaction.commit().await.map_err(&failed)?;
        Ok(PutPolicy::Stored)
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
            "INSERT OR IGNORE INTO policy_approvals (wallet, request, approver, expires_at_ms) VALUES (?, ?, ?, ?)",
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

    async fn approvals(&self, wallet: WalletId, request: [u8; 32]) -> Result<Vec<[u8; 32]>, StoreError> {
        sqlx::query("SELECT approver FROM policy_approvals WHERE wallet = ? AND request = ?")
            .bind(wallet.as_bytes().as_slice())
            .bind(request.as_slice())
            .fetch_all(&self.reader)
            .await
            .map_err(unavailable("read approvals"))?
            .iter()
            .map(|row| bytes(row, "approver"))
            .collect()
    }
}
