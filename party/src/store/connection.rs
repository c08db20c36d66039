//! Statements that both databases understand, and what of them differs.
//!
//! A statement is written once, over [`Connection`]. Its placeholders are `$1`, `$2` and so on,
//! which SQLite reads as PostgreSQL does. Both keep numbers as 64-bit integers, names as text, and
//! everything else as bytes ([`Value`]). The few words that differ are constants of the trait, and
//! each back end says beside its own why. A decision that the databases make in different ways is
//! not here: see [`Backend`](super::backend::Backend).

use std::future::Future;

use duet_protocol::ids::{CardFingerprint, Epoch, PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId};
use duet_wire::audit::ChainId;
use sqlx::{AssertSqlSafe, Database, Encode, SqlSafeStr as _, Type, query::Query};

use super::{
    AuditChain, PaillierState, StoreError,
    columns::{Columns, integer, state_number},
};

/// What stands in a placeholder.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    /// `None` is `NULL`.
    Number(Option<i64>),
    Text(&'a str),
    /// `None` is `NULL`.
    Bytes(Option<&'a [u8]>),
}

macro_rules! value_of {
    ($($type:ty: $value:ident => $as:expr;)*) => {
        $(impl<'a> From<$type> for Value<'a> {
            fn from($value: $type) -> Self {
                $as
            }
        })*
    };
}

value_of! {
    i64: number => Self::Number(Some(number));
    u32: number => Self::Number(Some(number.into()));
    u64: number => Self::Number(Some(integer(number)));
    Option<u64>: number => Self::Number(number.map(integer));
    Epoch: epoch => Self::Number(Some(epoch.0.into()));
    ShareIndex: index => Self::Number(Some(u8::from(index).into()));
    PaillierState: state => Self::Number(Some(state_number(state)));
    &'a str: text => Self::Text(text);
    &'a PartyId: party => Self::Text(party.as_str());
    &'a [u8]: bytes => Self::Bytes(Some(bytes));
    Option<&'a [u8]>: bytes => Self::Bytes(bytes);
    &'a CardFingerprint: card => Self::Bytes(Some(card.as_bytes()));
    &'a ChainId: chain => Self::Bytes(Some(chain.as_bytes()));
    &'a PaillierKeyId: key => Self::Bytes(Some(key.as_bytes()));
    &'a SessionId: session => Self::Bytes(Some(session.as_bytes()));
    &'a WalletId: wallet => Self::Bytes(Some(wallet.as_bytes()));
}

impl<'a, const N: usize> From<&'a [u8; N]> for Value<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Bytes(Some(bytes))
    }
}

/// What stands in the placeholders of a statement, in their order.
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        &[$($crate::store::connection::Value::from($value)),*]
    };
}
pub(super) use values;

/// A statement: parts of the program's own text, such as the columns of a table, one after the
/// other.
pub(super) type Statement<'a> = &'a [&'static str];

/// Locks of decisions that exclude each other beyond single rows. The numbers are those of
/// PostgreSQL's advisory locks.
#[derive(Debug, Clone, Copy)]
pub(super) enum NamedLock {
    Home = 1,
    Unlock = 2,
    House = 3,
    Token = 4,
    Wallet = 5,
    Scope = 6,
    Policy = 7,
    Chain = 8,
    /// That an opening of the store lives. This one and `Level` are held by a session, not by a
    /// transaction.
    #[cfg(feature = "postgres")]
    Presence = 9,
    PublicKey = 10,
    /// Which level of the schema an opening of the store knows; held beside its presence.
    #[cfg(feature = "postgres")]
    Level = 11,
}

/// A connection to a database of either kind.
pub(super) trait Connection: Send {
    type Row: Columns + Send + Sync;

    /// Ends a `SELECT` of rows that the transaction is about to change.
    const FOR_UPDATE: &'static str;
    /// Ends a `SELECT` of rows that the transaction is about to change, without those that another
    /// transaction is changing.
    const FOR_UPDATE_IF_FREE: &'static str;
    /// Ends a `SELECT` of rows that must not change until the transaction ends.
    const FOR_SHARE: &'static str;
    /// The next number of a Paillier key, of an enrolment of the wallet `$1`, and of a kept head:
    /// newer rows have larger ones.
    const NEXT_KEY: &'static str;
    const NEXT_ENROLMENT: &'static str;
    const NEXT_HEAD: &'static str;
    /// The card in a Paillier key's `scope` that begins with `responder/`.
    const CARD_OF_SCOPE: &'static str;
    /// Whether an audit record's `body` names locked keys: the condition of the index
    /// `audit_locks`, word for word, because otherwise the database does not use it.
    const NAMES_LOCKS: &'static str;

    /// The `count` of the store's tables that are called `$1`.
    const COUNT_TABLES: &'static str;

    /// Runs a statement; how many rows it wrote.
    fn run(
        &mut self,
        statement: Statement<'_>,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// The first row of what a statement finds.
    fn row(
        &mut self,
        statement: Statement<'_>,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Option<Self::Row>, sqlx::Error>> + Send;

    /// Every row of what a statement finds.
    fn rows(
        &mut self,
        statement: Statement<'_>,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Vec<Self::Row>, sqlx::Error>> + Send;

    /// The number in the column `count` of the one row that a statement finds.
    fn count(
        &mut self,
        statement: Statement<'_>,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<i64, sqlx::Error>> + Send {
        async move {
            let row = self.row(statement, values).await?.ok_or(sqlx::Error::RowNotFound)?;
            row.number_at("count")?.ok_or(sqlx::Error::RowNotFound)
        }
    }

    /// Waits for the lock of `name`; it ends with the transaction.
    fn take(&mut self, lock: NamedLock, name: &[u8]) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Takes the lock if no transaction has it.
    fn try_take(&mut self, lock: NamedLock) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;

    /// The newest audit chain and its number. No other transaction appends to it until this one
    /// ends.
    fn newest_chain(&mut self) -> impl Future<Output = Result<Option<(i64, AuditChain)>, StoreError>> + Send;

    /// Notes in the transaction of a lock, of a new Paillier key or of a restore what later shows
    /// that the database is an older copy of itself.
    fn raise_generation(&mut self) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// A statement with its values, for either database.
pub(super) fn bound<'q, DB>(
    statement: Statement<'_>,
    values: &[Value<'_>],
) -> Query<'q, DB, <DB as Database>::Arguments>
where
    DB: Database,
    for<'v> Option<i64>: Encode<'v, DB> + Type<DB>,
    for<'v> &'v str: Encode<'v, DB> + Type<DB>,
    for<'v> Option<&'v [u8]>: Encode<'v, DB> + Type<DB>,
{
    let text = match *statement {
        [text] => text.into_sql_str(),
        _ => AssertSqlSafe(statement.concat()).into_sql_str(),
    };
    values.iter().fold(sqlx::query(text), |query, value| match *value {
        Value::Number(number) => query.bind(number),
        Value::Text(text) => query.bind(text),
        Value::Bytes(bytes) => query.bind(bytes),
    })
}
