//! How a decision is charged to limits: two statements in the transaction of the decision, which
//! are the same in both databases. The first looks at everything that it depends on, the second
//! writes. No other transaction charges the wallet or stores a policy of it between them: the
//! caller has the writer's lock, or the wallet's turn.

use sqlx::{Database, Encode, QueryBuilder, Type};

use super::{
    LIMITS_USED_UP_SINCE, StoreError,
    columns::{Columns, blob, bytes, integer, number, usage_row},
    moment,
    policy::{Account, Due, Held, PolicyMark, Spending},
};

/// What a row of the first statement is about: the newest policy, that the same was charged before,
/// that the request was revoked, that limits count as used up, or one of the accounts, which are
/// numbered from zero. Before them, where the statement makes the decision as well, that it is new.
#[cfg(feature = "postgres")]
pub(super) const DECIDED: i64 = -3;
const NEWEST_POLICY: i64 = -2;
const SPENT_BEFORE: i64 = -1;
const REVOKED: i64 = -4;
const USED_UP_SINCE: i64 = -5;

/// Accounts that one statement looks at: SQLite takes five hundred parts, and an owner may write
/// policies with more limits.
const MAX_ACCOUNTS_AT_ONCE: usize = 64;

/// The statements that look, as a rule one; the first goes on where `first` ends.
pub(super) fn looks<DB>(
    spending: &Spending,
    accounts: &[Account<'_>],
    first: QueryBuilder<DB>,
) -> impl Iterator<Item = QueryBuilder<DB>>
where
    DB: Database,
    for<'v> i64: Encode<'v, DB> + Type<DB>,
    for<'v> &'v str: Encode<'v, DB> + Type<DB>,
    for<'v> &'v [u8]: Encode<'v, DB> + Type<DB>,
{
    // Also without accounts: the policy has to be the newest.
    let starts = (0..accounts.len().max(1)).step_by(MAX_ACCOUNTS_AT_ONCE);
    let mut first = Some(first);
    starts.map(move |start| {
        let accounts = accounts.iter().enumerate().skip(start).take(MAX_ACCOUNTS_AT_ONCE);
        look(first.take().unwrap_or_default(), spending, accounts)
    })
}

fn look<'a, DB>(
    mut query: QueryBuilder<DB>,
    spending: &Spending,
    accounts: impl Iterator<Item = (usize, &'a Account<'a>)>,
) -> QueryBuilder<DB>
where
    DB: Database,
    for<'v> i64: Encode<'v, DB> + Type<DB>,
    for<'v> &'v str: Encode<'v, DB> + Type<DB>,
    for<'v> &'v [u8]: Encode<'v, DB> + Type<DB>,
{
    let wallet = spending.wallet.as_bytes().as_slice();
    query.push(format!(
        "SELECT CAST({NEWEST_POLICY} AS BIGINT) AS part, revision AS slice, signature AS value, effective_at_ms AS signatures
         FROM policies WHERE wallet = "
    ));
    query.push_bind(wallet).push(" AND revision = (SELECT MAX(revision) FROM policies WHERE wallet = ");
    query.push_bind(wallet).push(format!(
        ") UNION ALL SELECT CAST({SPENT_BEFORE} AS BIGINT), charged_at_ms, digest, CAST(0 AS BIGINT)
           FROM policy_digests WHERE wallet = "
    ));
    query.push_bind(wallet).push(" AND digest = ").push_bind(spending.spent.as_slice());
    query.push(format!(
        " UNION ALL SELECT CAST({REVOKED} AS BIGINT), expires_at_ms, request, CAST(0 AS BIGINT)
           FROM revocations WHERE wallet = "
    ));
    query.push_bind(wallet).push(" AND request = ").push_bind(spending.request.as_slice());
    query.push(format!(
        " UNION ALL SELECT CAST({USED_UP_SINCE} AS BIGINT), CAST(0 AS BIGINT), value, CAST(0 AS BIGINT)
           FROM settings WHERE name = '{LIMITS_USED_UP_SINCE}'"
    ));
    for (number, account) in accounts {
        query.push(format!(
            " UNION ALL SELECT CAST({number} AS BIGINT), slice, value, signatures FROM policy_usage WHERE wallet = "
        ));
        query.push_bind(wallet);
        query.push(" AND scope = ").push_bind(account.scope);
        query.push(" AND within_s = ").push_bind(integer(account.within_s));
        query.push(" AND slice >= ").push_bind(integer(account.oldest_slice(spending.at_ms)));
    }
    query
}

/// What is due after a look at the rows of [`looks`]; `None` when nothing is, as the same was
/// charged before or no policy charges anything.
///
/// # Errors
/// [`StoreError::Revoked`], [`StoreError::PolicyChanged`] and [`StoreError::LimitExceeded`].
pub(super) fn due<'a>(
    spending: &'a Spending,
    accounts: &[Account<'a>],
    rows: &[impl Columns],
) -> Result<Option<Vec<Due<'a>>>, StoreError> {
    let (mut newest, mut is_spent, mut used_up_since, mut held) = (None, false, None, Held::new());
    for row in rows {
        match number(row, "part")? {
            NEWEST_POLICY => {
                newest = Some(PolicyMark {
                    revision: number(row, "slice")?,
                    effective_at_ms: number(row, "signatures")?,
                    signature: bytes(row, "value")?,
                });
            }
            SPENT_BEFORE => is_spent = true,
            REVOKED => return Err(StoreError::Revoked),
            USED_UP_SINCE => used_up_since = Some(moment(&blob(row, "value")?)?),
            part => {
                let account = usize::try_from(part).ok().and_then(|part| accounts.get(part));
                let account = account.ok_or(StoreError::Corrupt("a part that was not asked for"))?;
                held.entry(*account).or_default().push(usage_row(row)?);
            }
        }
    }
    spending.require_newest(newest)?;
    if spending.spends.is_empty() || is_spent {
        return Ok(None);
    }
    spending.due(&held, used_up_since).map(Some)
}

/// The statement that writes what is due, and that this was charged. `around` is what the database
/// wants around the first of two tables' insertions to take both at once: a semicolon, or a `WITH`.
pub(super) fn write<DB>(spending: &Spending, due: &[Due<'_>], around: [&str; 2]) -> QueryBuilder<DB>
where
    DB: Database,
    for<'v> i64: Encode<'v, DB> + Type<DB>,
    for<'v> &'v str: Encode<'v, DB> + Type<DB>,
    for<'v> &'v [u8]: Encode<'v, DB> + Type<DB>,
{
    const NOTE: &str = "INSERT INTO policy_digests (wallet, digest, charged_at_ms) VALUES (";
    let wallet = spending.wallet.as_bytes().as_slice();
    let [before, after] = if due.is_empty() { [""; 2] } else { around };
    let mut query = QueryBuilder::new(format!("{before}{NOTE}"));
    query
        .separated(", ")
        .push_bind(wallet)
        .push_bind(spending.spent.as_slice())
        .push_bind(integer(spending.at_ms));
    query.push(format!("){after}"));
    if due.is_empty() {
        return query;
    }
    query.push(" INSERT INTO policy_usage (wallet, scope, within_s, slice, value, signatures) ");
    query.push_values(due, |mut values, Due { account, slice, usage, .. }| {
        values.push_bind(wallet).push_bind(account.scope).push_bind(integer(account.within_s));
        values
            .push_bind(integer(*slice))
            .push_bind(usage.value.as_slice())
            .push_bind(integer(usage.signatures));
    });
    query.push(
        " ON CONFLICT (wallet, scope, within_s, slice)
          DO UPDATE SET value = excluded.value, signatures = excluded.signatures",
    );
    query
}
