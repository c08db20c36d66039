//! The documents of the HTTP interface.

use duet_protocol::ids::{Epoch, PartyId, SessionId, WalletId};
use duet_wire::{
    JobId, JobRecord, JobState, JobStateName, PayloadKindTag, Refusal, SignedResult, TenantId,
    encoding::{address, hex_array, prefixed_array},
    job::Attempt,
    request::Pair,
    wallet::{RequesterInfo, WalletStatus},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A job as its tenant sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobView {
    /// The job.
    pub id: JobId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The wallet that signs.
    pub wallet: WalletId,
    /// What kind of payload it is about.
    pub kind: PayloadKindTag,
    /// The requester's name for it.
    pub idempotency_key: String,
    /// Where it stands.
    pub state: JobStateName,
    /// How many attempts were started.
    pub attempts: u32,
    /// The session that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The pair of the latest attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<Pair>,
    /// When it was accepted, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it last changed.
    pub updated_at_ms: u64,
    /// When it ends whatever happens.
    pub expires_at_ms: u64,
    /// When an operator last put it back from the dead letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put_back_at_ms: Option<u64>,
    /// When it came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at_ms: Option<u64>,
    /// The 32 bytes that are signed.
    #[serde(with = "prefixed_array")]
    pub digest: [u8; 32],
    /// The signature: `r`, `s` and the parity, 65 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// The signing key's Ethereum address, once signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The bytes to broadcast, for a signed transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_transaction: Option<String>,
    /// The hash by which that transaction will be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction_hash: Option<String>,
    /// Why there is no signature and will be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Refusal>,
    /// The result under the orchestrator's signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<SignedResult>,
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
    /// When the record holds a request or a result that does not parse; it was not written by this
    /// version then.
    pub fn new(record: &JobRecord) -> Result<Self, Unshowable> {
        let unshowable = |reason: String| Unshowable { job: record.id, reason };
        let request = duet_wire::SigningRequest::from_json(&record.request.body)
            .map_err(|error| unshowable(error.to_string()))?;
        let digest = request.payload.digest().map_err(|error| unshowable(error.to_string()))?;
        let mut view = Self {
            id: record.id,
            tenant: record.tenant.clone(),
            wallet: request.wallet,
            kind: request.payload.kind(),
            idempotency_key: request.idempotency_key.to_string(),
            state: record.state.name(),
            attempts: record.attempts_started,
            session: None,
            pair: record.attempts.last().map(|attempt| attempt.pair),
            created_at_ms: record.created_at_ms,
            updated_at_ms: record.updated_at_ms,
            expires_at_ms: record.expires_at_ms,
            put_back_at_ms: record.put_back.map(|put_back| put_back.at_ms),
            settled_at_ms: record.state.is_final().then_some(record.updated_at_ms),
            digest,
            signature: None,
            address: None,
            signed_transaction: None,
            transaction_hash: None,
            failure: None,
            result: None,
            history: record.attempts.clone(),
        };
        match &record.state {
            JobState::Running { session, .. } => view.session = Some(*session),
            JobState::Failed { code, message } => {
                view.failure = Some(Refusal::new(*code, message.clone()));
            }
            JobState::Signed { result } => {
                let signed = result.parse_unverified().map_err(|error| unshowable(error.to_string()))?;
                view.signature = Some(format!("0x{}", hex::encode(signed.signature.to_bytes())));
                view.address = Some(format!("0x{}", hex::encode(signed.address)));
                view.signed_transaction = signed.signed_transaction.map(|raw| raw.to_string());
                view.transaction_hash = signed.transaction_hash.map(|hash| hash.to_string());
                view.result = Some(result.clone());
            }
            JobState::Queued | JobState::AwaitingOwner | JobState::Expired | JobState::Cancelled => {}
        }
        Ok(view)
    }
}

/// A page of jobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobPage {
    /// Newest first.
    pub jobs: Vec<JobView>,
    /// What to pass as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<JobId>,
}

/// Whether a pair of a wallet's parties could sign now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairView {
    /// The pair.
    pub pair: Pair,
    /// Whether it could.
    pub usable: bool,
    /// Why not.
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
    /// Whose it is.
    pub tenant: TenantId,
    /// How far its creation has come, at the party that is least far.
    pub status: WalletStatus,
    /// The holders of shares 1, 2 and 3; none where the share is a backup.
    pub parties: [Option<PartyId>; 3],
    /// Who may ask for signatures.
    pub requesters: Vec<RequesterInfo>,
    /// What each pair can do.
    pub pairs: Vec<PairView>,
}

/// A page of wallets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalletPage {
    /// In the order of their ids.
    pub wallets: Vec<WalletView>,
    /// What to pass as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<WalletId>,
}

/// The data of an event `progress` of a job's event stream: something a party said about the
/// session under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Progress {
    /// The session.
    pub session: SessionId,
    /// Who said it.
    pub from: String,
    /// What, as it was said: JSON.
    pub event: Box<RawValue>,
}
