//! What is recorded.

use std::collections::BTreeMap;

use duet_protocol::ids::{CardFingerprint, PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId};
use serde::{Deserialize, Serialize};

use super::Position;
use crate::{
    Code, JobId, PayloadKindTag, SignedRequest, SigningRequest, TenantId,
    encoding::{hex_array, prefixed_array},
    request::Pair,
};

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    /// When it was decided, in milliseconds since 1970 by the writer's clock.
    pub at_ms: u64,
    /// What.
    pub event: Event,
}

/// Who asked, and what for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The requester's Ed25519 key.
    #[serde(with = "hex_array")]
    pub requester: [u8; 32],
    /// For whom.
    pub tenant: TenantId,
    /// As which job.
    pub job: JobId,
    /// With which wallet.
    pub wallet: WalletId,
}

impl Asked {
    /// Who asks by `signed`, whose document is `request`.
    #[must_use]
    pub fn by(signed: &SignedRequest, request: &SigningRequest) -> Self {
        Self {
            requester: signed.requester,
            tenant: request.tenant.clone(),
            job: request.job(),
            wallet: request.wallet,
        }
    }
}

/// What one side of a session used in it, and must not use in another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// The session.
    pub session: SessionId,
    /// Who asked.
    pub asked: Asked,
    /// What is signed.
    #[serde(with = "prefixed_array")]
    pub digest: [u8; 32],
    /// The hash of this side's public nonce.
    #[serde(with = "hex_array")]
    pub nonce: [u8; 32],
    /// The hash of the responder's answer, a ciphertext.
    #[serde(with = "hex_array")]
    pub answer: [u8; 32],
}

/// Which side of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The one that starts, and learns the signature first.
    Initiator,
    /// The other.
    Responder,
}

/// Why a chain takes up another one of the same writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Continues {
    /// Where the earlier chain was left, as far as this writer knows: the store came out of a backup, or
    /// is an older copy of itself, and what was recorded after that copy was made is not in it.
    pub after: Position,
}

/// Something that was decided. New ones may be added; an older reader counts them as unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A chain begins.
    Opened {
        /// Who writes it: a party's name, `orchestrator` or `gateway`.
        writer: String,
        /// Which of the writer's processes, when the chain is one process's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// The Ed25519 key that signs its checkpoints: a party's card key, an orchestrator's result key.
        #[serde(with = "hex_array")]
        key: [u8; 32],
        /// The party's card.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        card: Option<CardFingerprint>,
        /// The chain that it takes up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        continues: Option<Continues>,
    },
    /// The writer's signature over the chain up to a record.
    Checkpoint {
        /// That record's number.
        sequence: u64,
        /// That record's hash.
        #[serde(with = "hex_array")]
        hash: [u8; 32],
        /// Ed25519 over the tag `duet/v1/audit` and the hash of chain, number and hash.
        #[serde(with = "hex_array")]
        signature: [u8; 64],
    },
    /// Nothing follows: the process that wrote the chain ends.
    Closed,
    /// So many entries were lost before they got a place in the chain, because more was decided than
    /// could be written.
    Lost {
        /// How many.
        entries: u64,
    },
    /// A worker began to serve.
    WorkerStarted {
        /// Its instance.
        instance: String,
    },
    /// A worker ended in order.
    WorkerStopped {
        /// Its instance.
        instance: String,
    },

    /// A party took its seat in a session. Written in the transaction that claims the session.
    SessionAccepted {
        /// The session.
        session: SessionId,
        /// Which attempt at the job.
        attempt: u32,
        /// Who asked.
        asked: Asked,
        /// Which seat.
        role: Role,
        /// Who sits in the other.
        peer: PartyId,
        /// What kind of payload.
        payload: PayloadKindTag,
        /// Its digest, as the party derived it.
        #[serde(with = "prefixed_array")]
        digest: [u8; 32],
        /// The rule of the wallet's policy that let it pass, when it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<String>,
    },
    /// A responder charged a session to the wallet's limits, and then sent its one answer. Written in the
    /// transaction of the charge, before the answer leaves.
    SessionCharged(Exchange),
    /// An initiator has a signature that verifies, and released it.
    SessionSigned(Exchange),
    /// A session ended without a signature.
    SessionFailed {
        /// The session.
        session: SessionId,
        /// Who asked.
        asked: Asked,
        /// Why.
        code: Code,
        /// Whose fault it demonstrably is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        culprit: Option<PartyId>,
        /// The same for a person.
        message: String,
    },
    /// A bad signature locked a Paillier key. Written in the transaction of the lock.
    KeyLocked {
        /// The key.
        paillier_key: PaillierKeyId,
        /// The session.
        session: SessionId,
        /// Who asked for the signature.
        asked: Asked,
        /// Who answered.
        culprit: PartyId,
    },
    /// Something was refused.
    Refused {
        /// What: `invitation`, `share`, `card`, `job`, `approval`, `report`, `device` or `token`.
        what: String,
        /// Who asked, as far as the request said so: a refusal may be for just that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<Asked>,
        /// The session, when there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<SessionId>,
        /// The wallet, when it is known without a requester.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wallet: Option<WalletId>,
        /// The check that said no.
        code: Code,
        /// The rule of the wallet's policy that said no.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<String>,
        /// The same for a person.
        message: String,
    },
    /// More was refused than is recorded one by one.
    RefusalsSuppressed {
        /// How many, by code.
        refusals: BTreeMap<Code, u64>,
    },

    /// A party verified and stored a new wallet. Written in that transaction, as the following are in
    /// theirs.
    WalletPrepared {
        /// The wallet.
        wallet: WalletId,
        /// Whose it is.
        tenant: TenantId,
        /// The hash of the package it came in.
        #[serde(with = "hex_array")]
        package: [u8; 32],
    },
    /// All holders have it.
    WalletCommitted {
        /// The wallet.
        wallet: WalletId,
    },
    /// A party took an initiator's enrolment: it answers under that key from now on.
    EnrolmentTaken {
        /// The wallet.
        wallet: WalletId,
        /// The initiator's share.
        initiator: ShareIndex,
        /// The key.
        paillier_key: PaillierKeyId,
    },
    /// A responder agreed to a key of this party: it initiates with it from now on.
    EnrolmentAgreed {
        /// The wallet.
        wallet: WalletId,
        /// The responder.
        responder: PartyId,
        /// The key.
        paillier_key: PaillierKeyId,
    },
    /// A party made a Paillier key: for a first enrolment, or a rotation.
    KeyMade {
        /// The key.
        paillier_key: PaillierKeyId,
        /// What it may be used for.
        scope: String,
    },
    /// A party deleted Paillier keys that nothing uses any more.
    KeysRemoved {
        /// The keys.
        paillier_keys: Vec<PaillierKeyId>,
    },
    /// A party's store was restored, and these keys were locked in it when its next chain began: of a key that was locked after the chain
    /// before had been closed there is no other record.
    KeysFoundLocked {
        /// The keys.
        paillier_keys: Vec<PaillierKeyId>,
    },
    /// What opens the party's share store was changed.
    StoreKeyChanged {
        /// What opens it from now on: `key`, `passphrase` or `vault`.
        opened_by: String,
        /// Whether its records are under another key as well.
        new_key: bool,
    },
    /// A party pinned another one's card.
    CardPinned {
        /// Whose.
        party: PartyId,
        /// The card.
        card: CardFingerprint,
        /// Whether on first contact rather than by its operator.
        first_contact: bool,
    },

    /// An operator said to go on with a card after its first bad signature. Written in the
    /// transaction that notes it.
    CulpritAccepted {
        /// The card.
        card: CardFingerprint,
    },

    /// A party took a policy from a wallet's owner.
    PolicySet {
        /// The wallet.
        wallet: WalletId,
        /// The policy's revision.
        revision: u64,
        /// The SHA-256 of its document.
        #[serde(with = "hex_array")]
        policy: [u8; 32],
        /// From when it alone counts, in milliseconds since 1970; until then a request has to pass the ones
        /// before as well.
        effective_at_ms: u64,
    },
    /// A party noted that somebody approves a request.
    RequestApproved {
        /// Who asked.
        asked: Asked,
        /// Who approves.
        #[serde(with = "hex_array")]
        approver: [u8; 32],
    },

    /// A party keeps a revocation: it signs the request no more.
    RequestRevoked {
        /// Who had asked.
        asked: Asked,
        /// Who revoked it: the requester's key, or the owner's.
        #[serde(with = "hex_array")]
        by: [u8; 32],
    },
    /// An operator said that the limits count again as the restored store knows them.
    LimitsReset {
        /// Since when they had counted as used up, in milliseconds since 1970.
        used_up_since_ms: u64,
    },

    /// An orchestrator accepted a job.
    JobAccepted {
        /// Who asked.
        asked: Asked,
        /// What kind of payload.
        payload: PayloadKindTag,
        /// Its digest.
        #[serde(with = "prefixed_array")]
        digest: [u8; 32],
    },
    /// It began an attempt.
    AttemptStarted {
        /// Who asked.
        asked: Asked,
        /// The attempt's session.
        session: SessionId,
        /// Which attempt.
        attempt: u32,
        /// The pair that tries.
        pair: Pair,
    },
    /// An attempt ended without a signature.
    AttemptFailed {
        /// Who asked.
        asked: Asked,
        /// The attempt's session.
        session: SessionId,
        /// Why.
        code: Code,
        /// Whose fault it is said to be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        culprit: Option<PartyId>,
        /// The same for a person.
        message: String,
    },
    /// It verified a signature and stored the result.
    JobSigned {
        /// Who asked.
        asked: Asked,
        /// The session it came from.
        session: SessionId,
        /// What was signed.
        #[serde(with = "prefixed_array")]
        digest: [u8; 32],
    },
    /// A job ended without a signature: given up (a dead letter), expired, cancelled, rejected.
    JobEnded {
        /// Who asked.
        asked: Asked,
        /// Why.
        code: Code,
        /// The same for a person.
        message: String,
    },
    /// An operator put a dead letter back.
    JobPutBack {
        /// Who had asked for it.
        asked: Asked,
    },
    /// A device proved to a gateway that it holds the key of a wallet's device.
    DeviceAuthenticated {
        /// The wallet.
        wallet: WalletId,
        /// The device's key.
        #[serde(with = "hex_array")]
        device: [u8; 32],
    },
    /// An orchestrator found streams or buckets of the broker gone, or others in their places.
    StoresLost {
        /// Which, by the broker's names.
        stores: Vec<String>,
        /// How many jobs were open as far as this orchestrator knew.
        open_jobs: u64,
    },
}
