//! The first signature of each message and typed-data document, sealed in the device's store.
//!
//! Sites derive keys from a signature, and expect the same signature every time. But two parties
//! make a different one in each session. So the device returns the first one.
//!
//! It does so only after a session made a new signature of the same message. Then the other party
//! has allowed this very request by its present policy, and the owner has approved it. A refused,
//! rejected or expired request gets no old signature. The device never keeps signatures of
//! transactions.

use std::{future::Future, time::Duration};

use duet_bus::Bus;
use duet_protocol::{
    ids::{Epoch, ShareIndex, WalletId},
    public_key::{ChainCode, DerivationPath, PublicKey},
    signature,
};
use duet_wire::{
    JobId, JobRecord, JobState, Payload, RecoverableSignature, SigningRequest,
    approval::{ApprovalAction, ApprovalReply},
    encoding::prefixed_array,
};
use serde::{Deserialize, Serialize};

use super::Device;
use crate::{
    at_rest::{RecordKind, RecordLabel},
    error::PartyError,
    identity::Identity,
};

/// The most messages of one wallet. A further one replaces the one used longest ago.
const MAX_ANSWERS: usize = 512;
/// The version of the record's layout.
const VERSION: u8 = 1;
/// How long the orchestrator may take to return its result.
const RESULT_DEADLINE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    path: DerivationPath,
    #[serde(with = "prefixed_array")]
    digest: [u8; 32],
    signature: RecoverableSignature,
}

/// The kept signatures of one wallet. The one used last is at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Answers {
    version: u8,
    answers: Vec<Answer>,
}

impl Answers {
    const fn none() -> Self {
        Self { version: VERSION, answers: Vec::new() }
    }

    fn find(&self, path: &DerivationPath, digest: &[u8; 32]) -> Option<&Answer> {
        self.answers.iter().find(|answer| answer.path == *path && answer.digest == *digest)
    }

    /// Keeps `answer` as the one used last. It replaces another answer to the same message.
    fn keep(&mut self, answer: Answer) {
        self.answers.retain(|kept| kept.path != answer.path || kept.digest != answer.digest);
        let too_many = (self.answers.len() + 1).saturating_sub(MAX_ANSWERS);
        self.answers.drain(..too_many);
        self.answers.push(answer);
    }
}

fn label(wallet: WalletId) -> RecordLabel {
    RecordLabel::of_wallet(RecordKind::Application, wallet, ShareIndex::Device, Epoch(0), b"answers")
}

impl Device {
    /// The signature to return for `request`: the first one of the same message by the same key.
    /// The device's store may have it, or the orchestrator, which keeps signatures of other parties
    /// too. Otherwise it is `made`, the signature of this session.
    ///
    /// # Errors
    /// When the store cannot be read or written, or when its record is invalid.
    pub(super) async fn first_signature(
        &self,
        bus: &Bus,
        identity: &Identity,
        job: JobId,
        (request, digest): (&SigningRequest, [u8; 32]),
        made: RecoverableSignature,
    ) -> Result<RecoverableSignature, PartyError> {
        if !matches!(request.payload, Payload::PersonalMessage(_) | Payload::TypedData(_)) {
            return Ok(made);
        }
        let wallet = self.wallet(request.wallet).await?;
        let (key, _) = PublicKey::from_bytes(&wallet.public_key)
            .ok()
            .and_then(|root| root.child(&ChainCode(wallet.chain_code), &request.path).ok())
            .ok_or_else(|| stored("its key has no child at this path"))?;
        let mut answers = match self.context.vault.read(&label(request.wallet)).await? {
            Some(content) => serde_json::from_slice(&content).map_err(|error| stored(&error.to_string()))?,
            None => Answers::none(),
        };
        if answers.version != VERSION {
            return Err(stored("it is of another version"));
        }
        let holds = |one: &RecoverableSignature| signature::verify(&key, &digest, one).is_ok();
        let kept = answers.find(&request.path, &digest).map(|answer| answer.signature).filter(holds);
        let first = match kept {
            Some(kept) => kept,
            None => {
                within(self.result_of(bus, identity, request.wallet, job)).await.filter(holds).unwrap_or(made)
            }
        };
        answers.keep(Answer { path: request.path.clone(), digest, signature: first });
        let content = serde_json::to_vec(&answers).map_err(|error| stored(&error.to_string()))?;
        self.context.vault.write(&label(request.wallet), &content).await?;
        Ok(first)
    }

    /// The signature in the orchestrator's result, if it has one and answers in time.
    async fn result_of(
        &self,
        bus: &Bus,
        identity: &Identity,
        wallet: WalletId,
        job: JobId,
    ) -> Option<RecoverableSignature> {
        let reply = self.approval(bus, identity, wallet, ApprovalAction::Job { job }).await.ok()?;
        let ApprovalReply::Job { record } = reply else { return None };
        let record: JobRecord = serde_json::from_slice(&record).ok()?;
        let JobState::Signed { result } = record.state else { return None };
        result.parse_unverified().ok().map(|result| result.signature)
    }
}

async fn within<T>(asking: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::time::timeout(RESULT_DEADLINE, asking).await.ok().flatten()
}

fn stored(reason: &str) -> PartyError {
    PartyError::Stored { what: "first signatures", reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(number: u32, s: u8) -> Answer {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        let signature = RecoverableSignature::new([1; 32], [s; 32], false).unwrap();
        Answer { path: DerivationPath::default(), digest, signature }
    }

    #[test]
    fn the_answer_used_longest_ago_makes_way() {
        let most = u32::try_from(MAX_ANSWERS).unwrap();
        let mut answers = Answers::none();
        (0..most).for_each(|number| answers.keep(answer(number, 1)));
        // The oldest is used again, and so it stays.
        answers.keep(answer(0, 1));
        answers.keep(answer(most, 1));
        assert_eq!(answers.answers.len(), MAX_ANSWERS);
        let has = |number| answers.find(&DerivationPath::default(), &answer(number, 1).digest).is_some();
        assert!(has(0) && !has(1) && has(2) && has(most));
    }

    #[test]
    fn a_message_of_another_path_is_another_message() {
        let mut answers = Answers::none();
        answers.keep(answer(7, 1));
        let child = Answer { path: "m/1".parse().unwrap(), ..answer(7, 2) };
        answers.keep(child.clone());
        assert_eq!(answers.find(&child.path, &child.digest), Some(&child));
        assert_eq!(answers.find(&DerivationPath::default(), &child.digest), Some(&answer(7, 1)));
        let text = serde_json::to_string(&answers).unwrap();
        assert_eq!(serde_json::from_str::<Answers>(&text).unwrap(), answers);
    }
}
