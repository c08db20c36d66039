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

use std::path::PathBuf;

use duet_protocol::ids::CardFingerprint;

mod audit;
mod backend;
mod columns;
#[cfg(test)]
mod conformance;
mod connection;
mod health;
mod keys;
mod migrations;
mod pending;
mod policy;
pub mod postgres;
mod records;
mod sessions;
mod shared;
mod spending;
pub mod sqlite;
mod transfer;
mod wallets;
mod witness;

pub use self::{
    audit::{AuditChain, AuditStore},
    keys::{
        Culprit, Gate, KeyStore, Lock, LockOutcome, MOVE_FUNDS_AFTER, OwnEnrolment, PaillierKeyRow,
        PaillierScope, PaillierState, Standing, UnblamedLock,
    },
    pending::{AnswerRole, AnswersOf, MAX_ANSWERS_PER_REQUEST, NewPending, PendingRow, PendingStore},
    policy::{MAX_PENDING_POLICIES, PolicyMark, PolicyRow, PolicyStore, PutPolicy, Spending},
    records::{KeyChange, NewKey, Readiness, RecordStore, Rewrap, UnlockRefused},
    sessions::{Charge, RequestFacts, Revoked, RevokedRequest, SessionStore},
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

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be read or written.
    #[error("share store unavailable while it should {operation}: {source}")]
    Unavailable {
        /// What was asked for.
        operation: &'static str,
        /// What the database said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A lock could not be written earlier; until [`ShareStore::recover`] succeeds nothing is
    /// initiated and no verdict is released.
    #[error("share store not ready: {0}")]
    NotReady(String),
    /// A limit of a wallet's policy has no room: which one. Nothing was decided.
    #[error("a limit of the wallet's policy has no room: {0}")]
    LimitExceeded(String),
    /// The request was revoked. Nothing was decided.
    #[error("the request was revoked")]
    Revoked,
    /// A policy of the wallet was stored after the request was decided upon. Nothing was decided.
    #[error("the wallet's policy was changed meanwhile; ask again")]
    PolicyChanged,
    /// The signed request has had as many answers as one request may have. Nothing was decided.
    #[error("the request has had {MAX_ANSWERS_PER_REQUEST} answers; sign a new one")]
    TooManyAnswers,
    /// The responder's card is quarantined by now. Nothing was written, so nothing may be
    /// decrypted.
    #[error("the responder's card {0} is quarantined after a bad signature")]
    Quarantined(CardFingerprint),
    /// The database is set up so that it may forget what it has committed.
    #[error("share store unsafe: {0}")]
    Unsafe(String),
    /// A row that this build cannot have written.
    #[error("share store corrupt: {0}")]
    Corrupt(&'static str),
    /// What was to be written is sealed under a key that the store does not have any more. Or the
    /// caller wanted to change the key, and another process did so first. Nothing was written.
    #[error("the share store's key has been changed")]
    KeyChanged,
    /// A file beside the store.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The store exists already, or does not exist yet.
    #[error("{0}")]
    Exists(String),
    /// A file holds something else than a share store.
    #[error("{path} is not a share store: {reason}")]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },
}

/// The durable memory of a party, shared by all its workers.
///
/// # Cancel safety
/// A method whose future is dropped has either done all it does or nothing; which of the two is
/// unknown to the caller. All are safe to repeat.
pub trait ShareStore:
    RecordStore + WalletStore + KeyStore + SessionStore + PendingStore + AuditStore + PolicyStore + WitnessStore
{
}

impl<S> ShareStore for S where
    S: RecordStore
        + WalletStore
        + KeyStore
        + SessionStore
        + PendingStore
        + AuditStore
        + PolicyStore
        + WitnessStore
{
}
