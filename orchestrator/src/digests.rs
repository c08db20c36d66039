//! What the orchestrator remembers of digests: the job that a transaction's digest belongs to, and
//! the first signature of each message or typed data.
//!
//! # Transactions
//!
//! Two jobs with the same transaction pay once, because the nonce is the same. A caller that meant
//! two payments has lost one. A caller that submits again under a new idempotency key has lost
//! sight of its first job. So a transaction's digest belongs to the first job that has it, until
//! that job fails, expires or is cancelled.
//!
//! Another job with the digest is refused with `duplicate-digest`. There are two exceptions: the
//! submission says that the repetition is meant, or the owner has just approved it on the device.
//! This protects a caller from its own mistake. It grants no right, so it is not under the
//! requester's signature, and the parties decide without it.
//!
//! # Messages and typed data
//!
//! Sites derive keys from signatures and expect the same signature every time, but a threshold
//! signature is not deterministic. So the orchestrator keeps the first signature of a message. It
//! is the result of every later job over the same message with the same key.
//!
//! **The parties run the whole session before that.** Both check requester, policy, approvals,
//! expiry, rotation and lock afresh. A job that would get no new signature gets no old one either.
//! The only difference is which of two valid signatures the tenant receives.

use duet_bus::kv::{Key, WriteError};
use duet_protocol::{public_key::PublicKey, signature};
use duet_queue::{
    intake::{DigestKey, Holder},
    store::{StoreFailure, Written},
};
use duet_wire::{JobId, Payload, RecoverableSignature, SigningRequest, record::Kept, stored_record};
use serde::{Deserialize, Serialize};

use crate::{
    clock::whole_millis,
    jobs::{StoreError, written},
    orchestrator::Orchestrator,
};

/// How often an entry is read again because another orchestrator wrote first.
const MAX_CONFLICTS: usize = 16;

/// The job that a transaction's digest belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub(crate) struct Claim {
    job: JobId,
    at_ms: u64,
    #[serde(skip)]
    kept: Kept,
}

/// The first signature of a message or of typed data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub(crate) struct Answer {
    signature: RecoverableSignature,
    /// When it was last written, in milliseconds since 1970. It is kept for some time after its
    /// last use.
    at_ms: u64,
    #[serde(skip)]
    kept: Kept,
}

stored_record!(Claim, Answer);

/// The key of the entry.
fn entry(digest: &DigestKey) -> Key {
    Key::from((&digest.tenant, digest.of_key))
}

/// Whether sites expect the same signature for the same payload.
const fn is_answered_alike(payload: &Payload) -> bool {
    matches!(payload, Payload::PersonalMessage(_) | Payload::TypedData(_))
}

impl Orchestrator {
    /// The job that claimed `digest`, and the revision of its claim.
    pub(crate) async fn read_claim(&self, digest: &DigestKey) -> Result<Option<(Holder, u64)>, StoreFailure> {
        let held = self.claims.get(&entry(digest)).await.map_err(StoreError::from)?;
        Ok(held.map(|held| {
            let Claim { job, at_ms, .. } = held.value;
            (Holder { job, at_ms }, held.revision.into())
        }))
    }

    /// Claims `digest` for a job, unless the entry is another one than the claim `follows`.
    pub(crate) async fn write_claim(
        &self,
        digest: &DigestKey,
        holder: Holder,
        follows: Option<u64>,
    ) -> Written {
        let claim = Claim { job: holder.job, at_ms: holder.at_ms, kept: Kept::default() };
        let key = entry(digest);
        written(match follows {
            None => self.claims.create(&key, &claim).await,
            Some(revision) => self.claims.update(&key, &claim, revision.into()).await,
        })
    }

    /// The signature to return for `digest`: the first that was made of a message or typed data
    /// under this key. If there is none, `made` becomes the first.
    ///
    /// # Errors
    /// When the broker does not answer. When the bucket has no room, `made` is returned but not
    /// kept.
    pub(crate) async fn first_signature(
        &self,
        request: &SigningRequest,
        digest: &[u8; 32],
        public_key: &PublicKey,
        made: RecoverableSignature,
    ) -> Result<RecoverableSignature, StoreError> {
        if !is_answered_alike(&request.payload) {
            return Ok(made);
        }
        let key = entry(&DigestKey::new(request, digest));
        for _ in 0..MAX_CONFLICTS {
            let answer = Answer { signature: made, at_ms: self.clock.now_ms(), kept: Kept::default() };
            match self.answers.create(&key, &answer).await {
                Ok(_) => return Ok(made),
                Err(WriteError::Conflict { .. }) => {}
                Err(WriteError::Full { bucket }) => {
                    tracing::error!(bucket, "full: the same message will get another signature next time");
                    return Ok(made);
                }
                Err(error) => return Err(error.into()),
            }
            let Some(first) = self.answers.get(&key).await? else { continue };
            if signature::verify(public_key, digest, &first.value.signature).is_err() {
                tracing::error!(wallet = %request.wallet, "a kept signature does not verify; not told");
                return Ok(made);
            }
            let age_ms = answer.at_ms.saturating_sub(first.value.at_ms);
            let signature = first.value.signature;
            if age_ms > whole_millis(self.storage.audit_max_age) / 2 {
                let renewed = Answer { at_ms: answer.at_ms, ..first.value };
                if let Err(error) = self.answers.update(&key, &renewed, first.revision).await {
                    tracing::debug!(%error, "a kept signature was not renewed; the next use tries again");
                }
            }
            return Ok(signature);
        }
        Err(StoreError(StoreFailure::Contended))
    }
}
