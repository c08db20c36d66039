//! What the wallets' owners allow, and what was spent of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use duet_protocol::ids::WalletId;
use duet_wire::policy::{SignedPolicy, Spend, SpendLimit, SpendOption, Usage};

use super::StoreError;

/// A policy as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRow {
    /// Its revision.
    pub revision: u64,
    /// From when it counts, in Unix milliseconds. A later one counts from the beginning where it
    /// refuses, and from then on where it allows more.
    pub effective_at_ms: u64,
    /// As its owner signed it.
    pub signed: SignedPolicy,
}

/// Which policy is a wallet's newest: two that differ in anything have different marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyMark {
    /// Its revision.
    pub revision: u64,
    /// When it starts to count, in Unix milliseconds, as the party settled when it took it.
    pub effective_at_ms: u64,
    /// Its owner's signature.
    pub signature: [u8; 64],
}

/// The outcome of an attempt to store a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutPolicy {
    /// It is stored.
    Stored,
    /// The very same one was stored before.
    Already(PolicyRow),
    /// One of this revision or a newer one is stored; its revision.
    Stale(u64),
    /// So many changes wait already that no further one is taken.
    TooManyPending,
}

/// Policies that wait to count at most. Each is decided by with every request until it does.
pub const MAX_PENDING_POLICIES: usize = 4;

/// What is charged with the next decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spending {
    /// The wallet.
    pub wallet: WalletId,
    /// The content hash of the request: nothing is charged for one that was revoked.
    pub request: [u8; 32],
    /// What is signed and by which of the wallet's keys: the same is spent once.
    pub spent: [u8; 32],
    /// The newest policy that was looked at; `None` when the wallet has none.
    pub decided_by: Option<PolicyMark>,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// What each of the policies that count charges; all of them must have room.
    pub spends: Vec<Spend>,
}

/// How many parts a limit's time has, so that a decision looks at no more than sixty-one rows of it
/// however much was signed.
const SLICES: u64 = 60;

/// What a limit is charged to. Limits of the same scope and time share an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Account<'a> {
    /// Whose limit it is.
    pub(super) scope: &'a str,
    /// The limit's time in seconds.
    pub(super) within_s: u64,
}

impl fmt::Display for Account<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} within {} s", self.scope, self.within_s)
    }
}

impl<'a> Account<'a> {
    fn of(limit: &'a SpendLimit) -> Self {
        Self { scope: &limit.scope, within_s: limit.limit.within_s }
    }

    fn time_ms(self) -> u64 {
        self.within_s.saturating_mul(1000)
    }

    fn slice_ms(self) -> u64 {
        (self.time_ms() / SLICES).max(1)
    }

    /// The oldest slice that still counts at `at_ms`: the one in which the limit's time begins
    /// counts whole.
    pub(super) fn oldest_slice(self, at_ms: u64) -> u64 {
        at_ms.saturating_sub(self.time_ms()) / self.slice_ms()
    }
}

/// What each account holds, by slices that still count.
pub(super) type Held<'a> = BTreeMap<Account<'a>, Vec<(u64, Usage)>>;

/// What a slice of an account holds from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due<'a> {
    pub(super) account: Account<'a>,
    pub(super) slice: u64,
    pub(super) usage: Usage,
    /// Whether it held nothing before: then those that count no more can go.
    pub(super) is_new: bool,
}

impl Spending {
    /// That no policy was stored since it was decided; `newest` is the one that is the newest now.
    ///
    /// # Errors
    /// [`StoreError::PolicyChanged`].
    pub(super) fn require_newest(&self, newest: Option<PolicyMark>) -> Result<(), StoreError> {
        if newest == self.decided_by { Ok(()) } else { Err(StoreError::PolicyChanged) }
    }

    /// The accounts of all limits that may be charged.
    pub(super) fn accounts(&self) -> Vec<Account<'_>> {
        let options = self.spends.iter().flat_map(|spend| &spend.options);
        let accounts: BTreeSet<_> = options.flat_map(|option| &option.limits).map(Account::of).collect();
        accounts.into_iter().collect()
    }

    /// What is charged to accounts that hold what `held` says. A limit whose time reaches back to
    /// before `used_up_since` (Unix milliseconds) counts as used up.
    ///
    /// # Errors
    /// [`StoreError::LimitExceeded`] when one of the policies has no room.
    pub(super) fn due<'a>(
        &'a self,
        held: &Held<'a>,
        used_up_since: Option<u64>,
    ) -> Result<Vec<Due<'a>>, StoreError> {
        let is_unknown = |limit: &SpendLimit| {
            used_up_since.is_some_and(|since| self.at_ms < since.saturating_add(Account::of(limit).time_ms()))
        };
        // First looked at, then charged: two policies may know the same limit, which is charged
        // once.
        let mut charged = BTreeMap::new();
        for Spend { value, options, .. } in &self.spends {
            let full = |option: &'a SpendOption| {
                option.limits.iter().find(|limit| {
                    let mut slices = held.get(&Account::of(limit)).into_iter().flatten();
                    let used = slices.try_fold(Usage::default(), |sum, (_, usage)| sum.plus(usage));
                    is_unknown(limit) || !used.is_some_and(|used| limit.limit.admits(&used, value))
                })
            };
            let Some(option) = options.iter().find(|&option| full(option).is_none()) else {
                let limit = options.first().and_then(full);
                let mut said = limit.map(ToString::to_string).unwrap_or_default();
                if limit.is_some_and(is_unknown) {
                    said.push_str(
                        "; it counts as used up since this party's store was restored, until its time has \
                         passed or the operator runs `duet party limits --reset`",
                    );
                }
                return Err(StoreError::LimitExceeded(said));
            };
            for limit in &option.limits {
                charged.entry(Account::of(limit)).or_insert(*value);
            }
        }
        let due = |(account, value): (Account<'a>, [u8; 32])| {
            let slice = self.at_ms / account.slice_ms();
            let mut slices = held.get(&account).into_iter().flatten();
            let before = slices.find(|(at, _)| *at == slice).map(|(_, usage)| *usage);
            let usage = before.unwrap_or_default().plus(&Usage::of_one(value));
            let usage = usage.ok_or_else(|| StoreError::LimitExceeded(account.to_string()))?;
            Ok(Due { account, slice, usage, is_new: before.is_none() })
        };
        charged.into_iter().map(due).collect()
    }
}

impl PolicyRow {
    /// What tells it from every other one.
    #[must_use]
    pub const fn mark(&self) -> PolicyMark {
        let Self { revision, effective_at_ms, signed } = self;
        PolicyMark { revision: *revision, effective_at_ms: *effective_at_ms, signature: signed.signature }
    }

    /// The document as a column holds it.
    pub(super) fn body(&self) -> Result<&str, StoreError> {
        str::from_utf8(&self.signed.body).map_err(|_| StoreError::Corrupt("a policy that is no text"))
    }

    /// Whether it may be stored beside those that are `known`, oldest first: from which revision on
    /// they are kept then, or what is answered instead.
    pub(super) fn admit(&self, known: &[Self], now_ms: u64) -> Result<u64, PutPolicy> {
        if let Some(newest) = known.last()
            && newest.revision >= self.revision
        {
            return Err(match known.iter().find(|row| row.signed == self.signed) {
                Some(row) => PutPolicy::Already(row.clone()),
                None => PutPolicy::Stale(newest.revision),
            });
        }
        let in_effect = known.iter().rev().find(|row| row.effective_at_ms <= now_ms);
        let pending = known.iter().filter(|row| row.effective_at_ms > now_ms).count();
        if pending >= MAX_PENDING_POLICIES {
            return Err(PutPolicy::TooManyPending);
        }
        Ok(in_effect.map(|row| row.revision).unwrap_or_default())
    }
}
