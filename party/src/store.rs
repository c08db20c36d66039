//! The share store: what a party must not forget.
//!
//! [`ShareStore`] is what the rest of the crate knows of it; [`sqlite::SqliteStore`] serves the
//! workers of one machine, [`postgres::PostgresStore`] those of several. A store keeps sealed
//! records (see [`crate::at_rest`]) and, in plain columns, what it must decide upon in a
//! transaction: states, counts, locks. All workers of a party share one store, so every decision
//! below is a transaction, never a read followed by a write.
//!
//! The statements that both databases understand are written once (`shared`), over what each does
//! in its own way (`backend`).

mod audit;
mod backend;
mod chain;
mod columns;
#[cfg(test)]
mod conformance;
mod connection;
mod error;
mod health;
mod keys;
#[cfg(test)]
pub(crate) mod memory;
mod migrations;
mod pending;
mod policy;
#[cfg(feature = "postgres")]
pub mod postgres;
mod records;
mod sessions;
mod share_store;
mod shared;
mod spending;
pub mod sqlite;
#[cfg(feature = "postgres")]
mod transfer;
mod wallets;
mod witness;

pub use self::{
    chain::AuditChain,
    error::{MAX_ANSWERS_PER_REQUEST, StoreError},
    keys::{
        Culprit, Gate, KeyStore, Lock, LockOutcome, MOVE_FUNDS_AFTER, OwnEnrolment, PaillierKeyRow,
        PaillierScope, PaillierState, Standing, UnblamedLock,
    },
    migrations::SchemaReport,
    pending::{AnswerRole, AnswersOf, NewPending, PendingRow},
    policy::{MAX_PENDING_POLICIES, PolicyMark, PolicyRow, PutPolicy, Spending},
    records::{KeyChange, NewKey, Readiness, RecordStore, Rewrap, UnlockRefused},
    sessions::{Charge, ChargedJob, RequestFacts, Revoked, RevokedRequest, SessionStore},
    share_store::{AuditStore, PendingStore, PolicyStore, ShareStore},
    wallets::{
        Admission, CommitOutcome, DealRow, EnrolmentRow, NewWallet, PinOutcome, PrepareOutcome, WalletRow,
        WalletState, WalletStore,
    },
    witness::{HeadRow, WitnessStore},
};
pub(crate) use self::{
    pending::pending_label,
    records::{KEY_DESCRIPTOR, KEY_ID, KEY_SUCCESSION, LIMITS_USED_UP_SINCE, RESTORED_AT, moment, rewrapped},
    sessions::MAX_REVOCATIONS,
    wallets::{deal_label, enrolment_label},
};
