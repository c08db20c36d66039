//! What each kind of store does in its own way. Everything else is written once over it, in
//! [`shared`](super::shared).

use std::{fmt, future::Future, sync::Arc};

use duet_protocol::ids::{PaillierKeyId, SessionId, WalletId};
use duet_wire::audit::Draft;
use sqlx::{Database, Pool, Transaction};

use super::{
    AnswersOf, Charge, KeyChange, Lock, LockOutcome, MAX_ANSWERS_PER_REQUEST, NewPending, PaillierState,
    Spending, StoreError,
    audit::{append, require_open},
    columns::{number, unavailable},
    connection::{Connection, Statement, Value, values},
    health::Health,
};

/// The rows of a back end.
pub(super) type RowOf<B> = <<B as Backend>::Connection as Connection>::Row;

/// A claim of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) session: SessionId,
    pub(super) wallet: WalletId,
    pub(super) expires_at_ms: u64,
    pub(super) now_ms: u64,
}

/// A kind of store: the database, how a transaction of it is isolated, and the decisions whose
/// safety rests on that. Each of the `write_` methods says in each back end why it is safe.
pub(super) trait Backend: Clone + fmt::Debug + Send + Sync + 'static {
    type Database: Database<Connection = Self::Connection>;
    type Connection: Connection + sqlx::Connection<Database = Self::Database>;

    fn health(&self) -> &Health;
    /// What goes with the next decision.
    fn attached(&self) -> &Attached;
    /// This store with something else attached.
    fn with(&self, attached: Attached) -> Self;
    /// Connections that only read.
    fn reader(&self) -> &Pool<Self::Database>;
    /// Connections that also write.
    fn writer(&self) -> &Pool<Self::Database>;
    /// Begins a transaction that writes.
    fn begin(
        &self,
        operation: &'static str,
    ) -> impl Future<Output = Result<Transaction<'static, Self::Database>, StoreError>> + Send;
    /// Does `work`, within the time that the database has for it.
    fn within<T: Send>(
        operation: &'static str,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> impl Future<Output = Result<T, StoreError>> + Send;
    /// After the transaction of a lock, of a new Paillier key or of a restore: notes outside of the
    /// database what [`Connection::raise_generation`] noted in it.
    fn record_generation(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Which opening of the store this is.
    fn instance(&self) -> [u8; 16];
    /// Makes sure that the database is the one that was opened, and shows this opening to the
    /// others.
    fn appear(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Which of these openings have ended. One that lives may be among them: what it left behind
    /// is judged, which does no harm to it.
    fn ended(&self, others: Vec<[u8; 16]>) -> impl Future<Output = Result<Vec<[u8; 16]>, StoreError>> + Send;
    /// Ends this opening, and closes the connections.
    fn shut(&self) -> impl Future<Output = ()> + Send;

    /// Claims a session, with all that is attached; `false`, and nothing is done, if it was claimed
    /// before.
    fn write_claim(&self, claim: &Claim) -> impl Future<Output = Result<bool, StoreError>> + Send;
    /// Charges a session, with all that is attached; `false`, and nothing is done, if it was
    /// charged before.
    fn write_charge(&self, charge: &Charge) -> impl Future<Output = Result<bool, StoreError>> + Send;
    /// Locks a key in the transaction it is given, and destroys it.
    fn write_lock(
        connection: &mut Self::Connection,
        lock: &Lock,
    ) -> impl Future<Output = Result<LockOutcome, sqlx::Error>> + Send;
    /// The gate: counts a verdict under a key that is ready, serialised with every lock, and
    /// forgets what was pending of the session; the key's state. `None`: there is no such key.
    fn write_verdict(
        &self,
        key: PaillierKeyId,
        session: SessionId,
    ) -> impl Future<Output = Result<Option<PaillierState>, StoreError>> + Send;
    /// Writes a pending verdict so that it survives this process, without a flush of its own.
    fn write_pending(&self, pending: &NewPending) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Changes what opens the store; how many records were wrapped anew.
    fn write_key(&self, change: &KeyChange) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// What a statement that only reads finds, as `read` reads the rows.
    fn list<T: Send>(
        &self,
        operation: &'static str,
        statement: Statement<'_>,
        values: &[Value<'_>],
        read: impl Fn(&RowOf<Self>) -> Result<T, StoreError> + Send,
    ) -> impl Future<Output = Result<Vec<T>, StoreError>> + Send {
        Self::within(operation, async move {
            let failed = unavailable(operation);
            let mut connection = self.reader().acquire().await.map_err(&failed)?;
            let rows = connection.rows(statement, values).await.map_err(&failed)?;
            rows.iter().map(read).collect()
        })
    }

    /// The first row of what a statement that only reads finds, as `read` reads it.
    fn find<T: Send>(
        &self,
        operation: &'static str,
        statement: Statement<'_>,
        values: &[Value<'_>],
        read: impl Fn(&RowOf<Self>) -> Result<T, StoreError> + Send,
    ) -> impl Future<Output = Result<Option<T>, StoreError>> + Send {
        Self::within(operation, async move {
            let failed = unavailable(operation);
            let mut connection = self.reader().acquire().await.map_err(&failed)?;
            let row = connection.row(statement, values).await.map_err(&failed)?;
            row.as_ref().map(read).transpose()
        })
    }

    /// Runs one statement that writes; how many rows it wrote.
    fn execute(
        &self,
        operation: &'static str,
        statement: Statement<'_>,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<u64, StoreError>> + Send {
        Self::within(operation, async move {
            let failed = unavailable(operation);
            let mut connection = self.writer().acquire().await.map_err(&failed)?;
            connection.run(statement, values).await.map_err(&failed)
        })
    }
}

/// What a store writes in the transaction of its next decision.
#[derive(Debug, Clone, Default)]
pub(super) struct Attached {
    /// What is appended to the audit log.
    pub(super) noted: Option<Arc<Draft>>,
    /// What is charged to limits.
    pub(super) spending: Option<Arc<Spending>>,
    /// Which request an answer is counted for.
    pub(super) answering: Option<Arc<AnswersOf>>,
}

impl Attached {
    /// Appends what [`AuditStore::noting`](super::AuditStore::noting) was given, if anything.
    pub(super) async fn append(&self, connection: &mut impl Connection) -> Result<(), StoreError> {
        require_open(self.append_if_open(connection).await?)
    }

    /// Appends as [`Self::append`] does, for what has to go on in a restored store, whose chain is
    /// closed until its worker begins the next one: `false`, and nothing is appended, then.
    pub(super) async fn append_if_open(&self, connection: &mut impl Connection) -> Result<bool, StoreError> {
        match self.noted.as_deref() {
            Some(entry) => append(connection, std::slice::from_ref(entry)).await,
            None => Ok(true),
        }
    }

    /// Counts the answer that [`PendingStore::answering`](super::PendingStore::answering) was
    /// given, if anything, and keeps at `at_ms` what its job signs.
    pub(super) async fn count_answer(
        &self,
        connection: &mut impl Connection,
        at_ms: u64,
    ) -> Result<(), StoreError> {
        let Some(of) = self.answering.as_deref() else { return Ok(()) };
        let counted = connection
            .run(
                &["INSERT INTO answers AS a (request, role, answers, expires_at_ms) VALUES ($1, $2, 1, $3)
                 ON CONFLICT (request, role) DO UPDATE SET answers = a.answers + 1 WHERE a.answers < $4"],
                values![&of.request, of.role as u32, of.expires_at_ms, MAX_ANSWERS_PER_REQUEST],
            )
            .await
            .map_err(unavailable("count an answer"))?;
        if counted == 0 {
            return Err(StoreError::TooManyAnswers);
        }
        keep_job(connection, of, at_ms).await
    }
}

/// Keeps what a job signs, or finds that it signed something else before. Of two transactions at
/// once the second waits for the first at the primary key, and looks at what the first wrote.
async fn keep_job(connection: &mut impl Connection, of: &AnswersOf, at_ms: u64) -> Result<(), StoreError> {
    let failed = unavailable("keep what a job signs");
    let epoch = of.remembered.map(|seen| seen.epoch);
    let revision = of.remembered.map(|seen| seen.revision);
    let created_ns = of.remembered.map(|seen| seen.created_ns);
    let kept = connection
        .run(
            &["INSERT INTO job_digests AS j
               (job, signs, charged_at_ms, expires_at_ms, broker_epoch, broker_revision, broker_created_ns)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (job) DO UPDATE SET expires_at_ms =
               CASE WHEN excluded.expires_at_ms > j.expires_at_ms THEN excluded.expires_at_ms ELSE j.expires_at_ms END,
               broker_epoch = COALESCE(excluded.broker_epoch, j.broker_epoch),
               broker_revision = COALESCE(excluded.broker_revision, j.broker_revision),
               broker_created_ns = COALESCE(excluded.broker_created_ns, j.broker_created_ns)
             WHERE j.signs = excluded.signs"],
            values![of.job.as_bytes(), &of.signs, at_ms, of.expires_at_ms, epoch, revision, created_ns],
        )
        .await
        .map_err(&failed)?;
    if kept > 0 {
        return Ok(());
    }
    let statement = ["SELECT charged_at_ms FROM job_digests WHERE job = $1"];
    let row = connection.row(&statement, values![of.job.as_bytes()]).await.map_err(&failed)?;
    let row = row.ok_or(StoreError::Corrupt("a charge that is not there"))?;
    Err(StoreError::OtherPayload { charged_at_ms: number(&row, "charged_at_ms")? })
}
