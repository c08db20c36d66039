//! Why a store did not do what it was asked.

use std::{
    path::PathBuf,
    time::{Duration, UNIX_EPOCH},
};

use duet_protocol::ids::CardFingerprint;

/// How many answers an initiator decrypts, and a responder gives, for one signed request. A retry
/// takes one; an attacker learns the more about a share the more sessions one request is worth.
pub const MAX_ANSWERS_PER_REQUEST: u32 = 16;

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
    /// A lock could not be written earlier. Until
    /// [`RecordStore::recover`](super::RecordStore::recover) succeeds, nothing is initiated and no
    /// verdict is released.
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
    /// The job was charged for something else before: for another payload, path or wallet. Nothing
    /// was decided.
    #[error(
        "another payload was charged under the same idempotency key at {}; sign this one under a key of its own",
        rfc3339(*.charged_at_ms)
    )]
    OtherPayload {
        /// When the first was charged, in Unix milliseconds.
        charged_at_ms: u64,
    },
    /// The responder's card is quarantined by now. Nothing was written, so nothing may be
    /// decrypted.
    #[error("the responder's card {0} is quarantined after a bad signature")]
    Quarantined(CardFingerprint),
    /// The database is set up so that it may forget what it has committed.
    #[error("share store unsafe: {0}")]
    Unsafe(String),
    /// The store's schema lacks what this build needs, and the caller asked not to expand it: what
    /// is missing.
    #[error("the share store lacks what this build needs: {0}")]
    NotExpanded(String),
    /// A newer build removed what this build reads: the versions of the migrations that did.
    #[error("a newer build removed from the share store what this build reads: migration {0}")]
    Contracted(String),
    /// Nothing was removed: so many openings of the store are of builds that still read it.
    #[error("{0} processes of an older build have the share store open and read what would be removed")]
    OlderBuilds(u64),
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

/// The last second of the year 9999, in Unix milliseconds. RFC 3339 has no later year.
const LAST_MS: u64 = 253_402_300_799_000;

fn rfc3339(ms: u64) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms.min(LAST_MS)))
}
