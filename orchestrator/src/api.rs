//! The documents of the HTTP interface.

use duet_bus::{Address, ends::StoredEnd};
use duet_protocol::{
    ids::{Epoch, PartyId, SessionId, WalletId},
    public_key::DerivationPath,
};
use duet_wire::{
    JobEnded, JobId, JobRecord, JobResult, JobState, JobStateName, PayloadKindTag, Priority, Problem,
    Refusal, SignedResult, SigningRequest, TenantId,
    batch::BatchId,
    encoding::{address, checksummed_address, hex_array, prefixed_array},
    job::{Attempt, JobRevocation, Waiting},
    request::Pair,
    wallet::{RequesterInfo, WalletStatus},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::epochs::Cursor;

/// The outcome of a job: a signature, or why there is none. Empty while the job is open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// The signature: `r`, `s` and `v` (27 or 28), 65 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// The signing key's Ethereum address, with its EIP-55 checksum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The bytes to broadcast, for a signed transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_transaction: Option<String>,
    /// The signed transaction's hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction_hash: Option<String>,
    /// Why there is no signature and will be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Refusal>,
    /// The result under the orchestrator's signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<SignedResult>,
}

impl Ending {
    fn signed(job: &JobResult, result: SignedResult) -> Self {
        Self {
            signature: Some(job.signature.to_string()),
            address: Some(checksummed_address(&job.address)),
            signed_transaction: job.signed_transaction.as_ref().map(ToString::to_string),
            transaction_hash: job.transaction_hash.as_ref().map(ToString::to_string),
            failure: None,
            result: Some(result),
        }
    }

    fn failed(failure: Refusal) -> Self {
        Self { failure: Some(failure), ..Self::default() }
    }
}

/// A job as its tenant sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobView {
    /// The job.
    pub id: JobId,
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// The wallet that signs.
    pub wallet: WalletId,
    /// The kind of its payload.
    pub kind: PayloadKindTag,
    /// The requester's idempotency key.
    pub idempotency_key: String,
    /// How urgent it is among its tenant's jobs.
    #[serde(default)]
    pub priority: Priority,
    /// Its state.
    pub state: JobStateName,
    /// How many attempts were started.
    pub attempts: u32,
    /// The running session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The pair of the latest attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<Pair>,
    /// When it was accepted, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it last changed.
    pub updated_at_ms: u64,
    /// When it expires at the latest.
    pub expires_at_ms: u64,
    /// When an operator last put it back from the dead letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put_back_at_ms: Option<u64>,
    /// When it was settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at_ms: Option<u64>,
    /// Why it waits. An expired job shows what it last waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Its request's revocation, and which parties know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<JobRevocation>,
    /// The 32 bytes that are signed.
    #[serde(with = "prefixed_array")]
    pub digest: [u8; 32],
    /// Its outcome.
    #[serde(flatten)]
    pub ending: Ending,
    /// The attempts, oldest first.
    pub history: Vec<Attempt>,
}

/// A stored record that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored job {job} cannot be shown: {reason}")]
pub struct Unshowable {
    /// The job.
    pub job: JobId,
    /// What is wrong.
    pub reason: String,
}

impl JobView {
    /// The view of `record`.
    ///
    /// # Errors
    /// When the record holds a request or a result that does not parse, so that another version
    /// wrote it.
    pub fn new(record: &JobRecord) -> Result<Self, Unshowable> {
        let unshowable = |reason: String| Unshowable { job: record.id, reason };
        let asked = Asked::of(record).map_err(unshowable)?;
        let mut view = Self {
            id: record.id,
            tenant: record.tenant.clone(),
            wallet: asked.wallet,
            kind: asked.kind,
            idempotency_key: asked.idempotency_key,
            priority: record.priority,
            state: record.state.name(),
            attempts: record.attempts_started,
            session: None,
            pair: record.attempts.last().map(|attempt| attempt.pair),
            created_at_ms: record.created_at_ms,
            updated_at_ms: record.updated_at_ms,
            expires_at_ms: record.expires_at_ms,
            put_back_at_ms: record.put_back.map(|put_back| put_back.at_ms),
            settled_at_ms: record.state.is_final().then_some(record.updated_at_ms),
            waiting: match record.state {
                JobState::Queued | JobState::AwaitingOwner | JobState::Expired => record.waiting.clone(),
                JobState::Running { .. }
                | JobState::Signed { .. }
                | JobState::Failed { .. }
                | JobState::Cancelled
                | JobState::Unknown(_) => None,
            },
            revocation: record.revocation.clone(),
            digest: asked.digest,
            ending: Ending::default(),
            history: record.attempts.clone(),
        };
        match &record.state {
            JobState::Running { session, .. } => view.session = Some(*session),
            JobState::Failed { code, message } => {
                view.ending = Ending::failed(Refusal::new(*code, message.clone()));
            }
            JobState::Signed { result } => {
                let signed = result.parse_unverified().map_err(|error| unshowable(error.to_string()))?;
                view.ending = Ending::signed(&signed, result.clone());
            }
            JobState::Queued
            | JobState::AwaitingOwner
            | JobState::Expired
            | JobState::Cancelled
            | JobState::Unknown(_) => {}
        }
        Ok(view)
    }
}

/// The fields of a request that a view shows.
struct Asked {
    wallet: WalletId,
    kind: PayloadKindTag,
    idempotency_key: String,
    digest: [u8; 32],
}

impl Asked {
    fn of(record: &JobRecord) -> Result<Self, String> {
        let problem = match SigningRequest::from_json(&record.request.body) {
            Ok(request) => {
                return Ok(Self {
                    wallet: request.wallet,
                    kind: request.payload.kind(),
                    idempotency_key: request.idempotency_key.to_string(),
                    digest: request.payload.digest().map_err(|error| error.to_string())?,
                });
            }
            Err(problem) => problem.to_string(),
        };
        // What an earlier version signed stays readable, even if its payload would be refused
        // today.
        let JobState::Signed { result } = &record.state else { return Err(problem) };
        let result = result.parse_unverified().map_err(|error| error.to_string())?;
        let body: serde_json::Value =
            serde_json::from_slice(&record.request.body).map_err(|_| problem.clone())?;
        let text = |pointer: &str| body.pointer(pointer).and_then(serde_json::Value::as_str);
        let kind = body.pointer("/payload/kind").cloned().map(serde_json::from_value);
        match (text("/idempotency_key"), kind) {
            (Some(key), Some(Ok(kind))) => Ok(Self {
                wallet: result.wallet,
                kind,
                idempotency_key: key.to_owned(),
                digest: result.digest,
            }),
            _ => Err(problem),
        }
    }
}

/// How a job ended, as its tenant sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndView {
    /// Its place. A client passes it as `after` to read what follows.
    pub cursor: String,
    /// The job.
    pub job: JobId,
    /// `signed`, `failed`, `expired` or `cancelled`.
    pub state: JobStateName,
    /// When it ended, in milliseconds since 1970.
    pub ended_at_ms: u64,
    /// The wallet that signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wallet: Option<WalletId>,
    /// The 32 bytes that were signed, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The job's outcome.
    #[serde(flatten)]
    pub ending: Ending,
}

/// A stored end that another version wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored end does not parse: {0}")]
pub struct UnshowableEnd(String);

impl EndView {
    /// The view of `end`, an entry of the stream, at its place `cursor`.
    ///
    /// # Errors
    /// When it does not parse.
    pub(crate) fn of(cursor: Cursor, end: &StoredEnd) -> Result<Self, UnshowableEnd> {
        let cursor = cursor.to_string();
        let unshowable = |error: serde_json::Error| UnshowableEnd(error.to_string());
        match &end.address {
            Address::Result(_) => {
                Self::signed(cursor, serde_json::from_slice(&end.payload).map_err(unshowable)?)
            }
            Address::Ended(_) => {
                Ok(Self::unsigned(cursor, serde_json::from_slice(&end.payload).map_err(unshowable)?))
            }
            other => Err(UnshowableEnd(format!("{other} is no subject of ends"))),
        }
    }

    /// How `record` ended. `None` when it is open, or cannot be shown.
    pub(crate) fn of_record(record: &JobRecord, cursor: String) -> Option<Self> {
        match &record.state {
            JobState::Signed { result } => Self::signed(cursor, result.clone()).ok(),
            _ => JobEnded::of(record).map(|ended| Self::unsigned(cursor, ended)),
        }
    }

    fn signed(cursor: String, signed: SignedResult) -> Result<Self, UnshowableEnd> {
        let result = signed.parse_unverified().map_err(|error| UnshowableEnd(error.to_string()))?;
        Ok(Self {
            cursor,
            job: result.job,
            state: JobStateName::Signed,
            ended_at_ms: result.completed_at_ms,
            wallet: Some(result.wallet),
            digest: Some(format!("0x{}", hex::encode(result.digest))),
            ending: Ending::signed(&result, signed),
        })
    }

    fn unsigned(cursor: String, ended: JobEnded) -> Self {
        Self {
            cursor,
            job: ended.job,
            state: ended.state,
            ended_at_ms: ended.ended_at_ms,
            wallet: None,
            digest: None,
            ending: Ending::failed(ended.failure),
        }
    }
}

/// A page of ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndPage {
    /// In the order in which they were published.
    pub results: Vec<EndView>,
    /// The value of `after` for what follows, now or later.
    pub next: String,
}

/// The result of one request of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemStatus {
    /// It created a job.
    Accepted,
    /// It was accepted before.
    Known,
    /// It was refused.
    Refused,
}

/// One request of a batch, in the order of the batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchItemView {
    /// Its result.
    #[serde(rename = "verdict")]
    pub status: ItemStatus,
    /// Its job. For a conflict, the job that already has its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// The job's state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<JobStateName>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// When to submit it again, if that may help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

/// The answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchAnswer {
    /// The batch; absent when none of its requests names a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<BatchId>,
    /// The result of each request.
    pub items: Vec<BatchItemView>,
}

/// One job of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchJobView {
    /// The job.
    pub job: JobId,
    /// Its state. Absent when the job was not accepted, or is no longer kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<JobStateName>,
}

/// A batch as its tenant sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchView {
    /// The batch.
    pub id: BatchId,
    /// When it was first submitted, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// Its jobs, in the order of their ids.
    pub jobs: Vec<BatchJobView>,
}

/// A page of jobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobPage {
    /// Newest first.
    pub jobs: Vec<JobView>,
    /// The value of `after` for the next page. Absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<JobId>,
}

/// Whether a pair of a wallet's parties could sign now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairView {
    /// The pair.
    pub pair: Pair,
    /// Whether it could sign now.
    pub usable: bool,
    /// Why it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Refusal>,
}

/// A wallet as its tenant sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalletView {
    /// The wallet.
    pub id: WalletId,
    /// The root key's Ethereum address.
    #[serde(with = "address")]
    pub address: [u8; 20],
    /// The root public key, SEC1 compressed.
    #[serde(with = "hex_array")]
    pub public_key: [u8; 33],
    /// The BIP-32 chain code.
    #[serde(with = "hex_array")]
    pub chain_code: [u8; 32],
    /// The epoch of its shares.
    pub epoch: Epoch,
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// How far its creation has come, at the party that is behind the others.
    pub status: WalletStatus,
    /// The holders of shares 1, 2 and 3. `None` where the share is a backup.
    pub parties: [Option<PartyId>; 3],
    /// The requesters that may request signatures.
    pub requesters: Vec<RequesterInfo>,
    /// Which pairs could sign now.
    pub pairs: Vec<PairView>,
}

/// A page of wallets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalletPage {
    /// In the order of their ids.
    pub wallets: Vec<WalletView>,
    /// The value of `after` for the next page. Absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<WalletId>,
}

/// An account of a wallet: a BIP-32 child of its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressView {
    /// The path, as a signing request names it.
    pub path: DerivationPath,
    /// The Ethereum address.
    #[serde(with = "address")]
    pub address: [u8; 20],
    /// The public key, SEC1 compressed.
    #[serde(with = "hex_array")]
    pub public_key: [u8; 33],
}

/// Accounts of a wallet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPage {
    /// The wallet.
    pub wallet: WalletId,
    /// In the order of their indices.
    pub addresses: Vec<AddressView>,
    /// The value of `from` for the next page. Absent where one path was asked for, and on the last
    /// page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
}

/// A wallet's extended public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XpubView {
    /// The wallet.
    pub wallet: WalletId,
    /// The path of the key.
    pub path: DerivationPath,
    /// The key, as BIP-32 writes it.
    pub xpub: String,
}

/// The data of an event `progress` in a job's event stream: a report of one speaker about the
/// running session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProgressEvent {
    /// The session.
    pub session: SessionId,
    /// The speaker that reports.
    pub from: String,
    /// The report as the speaker sent it: JSON.
    pub event: Box<RawValue>,
}

#[cfg(test)]
mod tests {
    use duet_wire::{SignedRequest, signing::SigningKey};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_earlier_version_signed_stays_readable() {
        // An earlier version signed contract creations without code.
        let mut body = json!({
            "version": 1, "tenant": "acme", "wallet": "11".repeat(32), "idempotency_key": "old",
            "expires_at": 2_000_000_000,
            "payload": {"kind": "transaction", "chainId": 1, "nonce": 0, "to": null, "gas": 21000, "gasPrice": 1, "data": "0x60"},
        });
        let key = SigningKey::from_bytes(&[7; 32]);
        let signed = |body: &serde_json::Value| SignedRequest::sign(body.to_string().into_bytes(), &key);
        let request = signed(&body).verify().unwrap();
        let mut record = JobRecord::new(signed(&body), &request, 1);
        body["payload"]["data"] = "0x".into();
        record.request = signed(&body);
        assert!(JobView::new(&record).is_err());
        let result = JobResult {
            job: record.id,
            tenant: record.tenant.clone(),
            wallet: request.wallet,
            path: request.path.clone(),
            address: [1; 20],
            digest: [4; 32],
            signature: duet_wire::RecoverableSignature::new([1; 32], [2; 32], true).unwrap(),
            signed_transaction: None,
            transaction_hash: None,
            session: SessionId([2; 16]),
            completed_at_ms: 2,
        };
        record.state = JobState::Signed { result: SignedResult::sign(&result, &key).unwrap() };
        let view = JobView::new(&record).unwrap();
        assert_eq!(
            (view.wallet, view.digest, view.idempotency_key.as_str()),
            (request.wallet, [4; 32], "old")
        );
        assert_eq!(view.kind, PayloadKindTag::Transaction);
    }
}
