//! The decisions as PostgreSQL makes them. Other transactions run beside each, so that a decision
//! writes first and looks at what it wrote, or has the lock of what it looks at. The head of
//! [`postgres`](super) says which does what.

use std::future::Future;

use duet_protocol::ids::{PaillierKeyId, SessionId};
use sqlx::{PgConnection, PgPool, Postgres, QueryBuilder, Transaction};

use super::{PostgresStore, connection::beginning, within};
use crate::store::{
    Charge, KeyChange, Lock, LockOutcome, NewPending, PaillierState, Spending, StoreError,
    backend::{Attached, Backend, Claim},
    columns::{integer, number, paillier_state, unavailable},
    connection::{Connection as _, NamedLock, values},
    health::Health,
    shared::{
        keys::{count_failure, destroy_key, note_enrolled_under},
        pending::insert_pending,
        policy::forget,
        records::{remove_pending, remove_pending_of_key},
    },
    spending::{DECIDED, due, looks, write},
};

impl Backend for PostgresStore {
    type Database = Postgres;
    type Connection = PgConnection;

    fn health(&self) -> &Health {
        &self.health
    }

    fn attached(&self) -> &Attached {
        &self.attached
    }

    fn with(&self, attached: Attached) -> Self {
        Self { attached, ..self.clone() }
    }

    fn reader(&self) -> &PgPool {
        &self.pool
    }

    fn writer(&self) -> &PgPool {
        &self.pool
    }

    async fn begin(&self, operation: &'static str) -> Result<Transaction<'static, Postgres>, StoreError> {
        self.pool.begin().await.map_err(unavailable(operation))
    }

    async fn within<T: Send>(
        operation: &'static str,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        within(operation, work).await
    }

    /// Nothing lies beside the database.
    async fn record_generation(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn instance(&self) -> [u8; 16] {
        self.presence.id()
    }

    async fn appear(&self) -> Result<(), StoreError> {
        // The server may have been replaced by another one meanwhile.
        self.enter().await?;
        self.presence.show(&self.options).await
    }

    async fn ended(&self, others: Vec<[u8; 16]>) -> Result<Vec<[u8; 16]>, StoreError> {
        self.presence.ended(&self.options, others).await
    }

    async fn shut(&self) {
        self.presence.close().await;
        self.pool.close().await;
    }

    /// Of two claims at once the second waits for the first at the unique index and then inserts
    /// nothing.
    async fn write_claim(&self, claim: &Claim) -> Result<bool, StoreError> {
        const OPERATION: &str = "claim a session";
        let insertion = |query: &mut QueryBuilder<Postgres>| {
            query.push("INSERT INTO sessions (id, wallet, claimed_at_ms, expires_at_ms) VALUES (");
            query
                .separated(", ")
                .push_bind(claim.session.as_bytes().to_vec())
                .push_bind(claim.wallet.as_bytes().to_vec())
                .push_bind(integer(claim.now_ms))
                .push_bind(integer(claim.expires_at_ms));
            query.push(") ON CONFLICT (id) DO NOTHING");
        };
        within(OPERATION, self.decide(OPERATION, claim.now_ms, insertion)).await
    }

    /// As a claim, at the unique index of charges.
    async fn write_charge(&self, charge: &Charge) -> Result<bool, StoreError> {
        const OPERATION: &str = "charge a signature";
        let insertion = |query: &mut QueryBuilder<Postgres>| {
            query.push("INSERT INTO charges (session, wallet, digest, charged_at_ms) VALUES (");
            query
                .separated(", ")
                .push_bind(charge.session.as_bytes().to_vec())
                .push_bind(charge.wallet.as_bytes().to_vec())
                .push_bind(charge.digest.to_vec())
                .push_bind(integer(charge.charged_at_ms));
            query.push(") ON CONFLICT (session) DO NOTHING");
        };
        within(OPERATION, self.decide(OPERATION, charge.charged_at_ms, insertion)).await
    }

    /// The `UPDATE` locks the row until the transaction ends, and looks at the state that was
    /// committed while it waited for that.
    async fn write_lock(connection: &mut PgConnection, lock: &Lock) -> Result<LockOutcome, sqlx::Error> {
        let changed = connection
            .run(
                &["UPDATE paillier_keys
                 SET state = $1, locked_session = $2, locked_evidence = $3, locked_at_ms = $4,
                   locked_card = CASE WHEN $6::BYTEA IS NULL AND scope LIKE 'responder/%'
                                      THEN decode(substr(scope, 11, 64), 'hex') ELSE $6 END
                 WHERE id = $5 AND state <> $1"],
                values![
                    PaillierState::Locked,
                    &lock.session,
                    lock.evidence.as_slice(),
                    lock.at_ms,
                    &lock.key,
                    lock.card.as_ref().map(|card| card.as_bytes().as_slice())
                ],
            )
            .await?;
        if changed == 0 {
            remove_pending_of_key(connection, lock.key).await?;
            return Ok(LockOutcome::AlreadyLocked);
        }
        if let Some(wallet) = lock.wallet {
            note_enrolled_under(connection, wallet, lock.key).await?;
        }
        destroy_key(connection, lock.key).await?;
        count_failure(connection, lock.key).await?;
        Ok(LockOutcome::Locked)
    }

    /// One `UPDATE` counts and reads. A lock changes that row too: what was committed before is
    /// seen, and what is being written is waited for and then seen. The commit flushes, as the
    /// lock's does.
    async fn write_verdict(
        &self,
        key: PaillierKeyId,
        session: SessionId,
    ) -> Result<Option<PaillierState>, StoreError> {
        const OPERATION: &str = "release a verdict";
        within(OPERATION, async {
            let failed = unavailable(OPERATION);
            let mut transaction = self.begin(OPERATION).await?;
            let row = transaction
                .row(
                    &["UPDATE paillier_keys SET verdicts = verdicts + CASE WHEN state = $1 THEN 1 ELSE 0 END
                     WHERE id = $2 RETURNING state"],
                    values![PaillierState::Ready, &key],
                )
                .await
                .map_err(&failed)?;
            remove_pending(&mut *transaction, session).await.map_err(&failed)?;
            transaction.commit().await.map_err(&failed)?;
            row.as_ref().map(paillier_state).transpose()
        })
        .await
    }

    /// The server has it when this returns, and on the disk with whatever is committed next: a
    /// worker that is killed takes nothing with it, and no disk is waited for. The setting is this
    /// transaction's own.
    async fn write_pending(&self, pending: &NewPending) -> Result<(), StoreError> {
        const OPERATION: &str = "write a pending verdict";
        within(OPERATION, async {
            let failed = unavailable(OPERATION);
            let beginning = "BEGIN; SET LOCAL synchronous_commit = off";
            let mut transaction = self.pool.begin_with(beginning).await.map_err(&failed)?;
            insert_pending(&mut *transaction, pending, self.presence.id(), &self.attached).await?;
            transaction.commit().await.map_err(&failed)
        })
        .await
    }

    async fn write_key(&self, change: &KeyChange) -> Result<u64, StoreError> {
        self.replace_key(change).await
    }
}

impl PostgresStore {
    /// Makes a decision of a session at `at_ms` by the insertion that `decision` writes, with what
    /// is attached to it; `false`, and nothing is done, if it was made before.
    async fn decide(
        &self,
        operation: &'static str,
        at_ms: u64,
        decision: impl FnOnce(&mut QueryBuilder<Postgres>),
    ) -> Result<bool, StoreError> {
        let failed = unavailable(operation);
        let (mut transaction, new);
        if let Some(spending) = self.attached.spending.as_deref() {
            // Other decisions that charge nothing go on then. A call that stores a policy waits.
            let is_shared = spending.spends.is_empty();
            let beginning = beginning(NamedLock::Policy, spending.wallet.as_bytes(), is_shared);
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
            self.attached.count_answer(&mut *transaction, at_ms).await?;
            self.attached.append(&mut *transaction).await?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(new)
    }
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
    let parts = rows.iter().map(|row| number::<i64>(row, "part")).collect::<Result<Vec<_>, _>>()?;
    let Some(decided) = parts.into_iter().position(|part| part == DECIDED) else { return Ok(false) };
    rows.swap_remove(decided);
    let Some(due) = due(spending, &accounts, &rows)? else { return Ok(true) };
    let mut write = write::<Postgres>(spending, &due, ["WITH spent AS (", ")"]);
    write.build().execute(&mut *connection).await.map_err(&failed)?;
    forget(connection, spending, &due).await.map_err(&failed)?;
    Ok(true)
}
