//! The events that a chain records.

use std::collections::BTreeMap;

use duet_protocol::ids::{CardFingerprint, PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId};
use serde::{Deserialize, Serialize};

use super::Position;
use crate::{
    Code, JobId, PayloadKindTag, SignedRequest, SigningRequest, TenantId,
    encoding::{hex_array, prefixed_array},
    request::Pair,
    signing::{self, Identity, Purpose},
};

/// The content of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// When it was decided, in milliseconds since 1970 by the writer's clock.
    pub at_ms: u64,
    /// The event.
    pub event: Event,
}

/// Who asked, and what for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The requester's Ed25519 key.
    #[serde(with = "hex_array")]
    pub requester: [u8; 32],
    /// The tenant.
    pub tenant: TenantId,
    /// The job.
    pub job: JobId,
    /// The wallet.
    pub wallet: WalletId,
}

impl Asked {
    /// The requester of `signed`, whose content is `request`, and what it asks for.
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

/// What one side of a session used in it, and must not use in another session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// The session.
    pub session: SessionId,
    /// Who asked, and for what.
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

/// One side of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The side that starts and learns the signature first.
    Initiator,
    /// The side that answers.
    Responder,
}

/// Why a chain continues another one of the same writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continues {
    /// Where the earlier chain ended, as far as this writer knows. The store came out of a backup,
    /// or is an older copy of itself. Records written after that copy was made are missing from it.
    pub after: Position,
}

/// A decision. New kinds may be added, and members of the known ones; an older reader counts the
/// former as unknown and passes over the latter. Both are under the record's hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A chain begins.
    ///
    /// Recorded by every writer.
    Opened {
        /// The writer: a party's name, `orchestrator` or `gateway`.
        writer: String,
        /// The process, when the chain belongs to one process of the writer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// The Ed25519 key that signs its checkpoints: a party's card key, or an orchestrator's
        /// result key.
        #[serde(with = "hex_array")]
        key: [u8; 32],
        /// The party's card.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        card: Option<CardFingerprint>,
        /// The chain that it continues.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        continues: Option<Continues>,
    },
    /// The writer's signature over the chain up to a record.
    ///
    /// Recorded by every writer.
    Checkpoint {
        /// That record's number.
        sequence: u64,
        /// That record's hash.
        #[serde(with = "hex_array")]
        hash: [u8; 32],
        /// Ed25519 over the tag `duet/v1/audit` and the hash of the chain, the number and the hash.
        #[serde(with = "hex_array")]
        signature: [u8; 64],
    },
    /// The chain is complete: the process that wrote it ends. A party's chain does not end with a
    /// process.
    ///
    /// Recorded by orchestrators and gateways.
    Closed,
    /// Entries were lost before they got a place in the chain, because more was decided than could
    /// be written.
    ///
    /// Recorded by orchestrators and gateways.
    Lost {
        /// How many.
        entries: u64,
    },
    /// A worker began to serve.
    ///
    /// Recorded by parties, within half a second.
    WorkerStarted {
        /// Its instance.
        instance: String,
    },
    /// A worker ended in order.
    ///
    /// Recorded by parties, within half a second.
    WorkerStopped {
        /// Its instance.
        instance: String,
    },

    /// A party took its seat in a session: who asked, for what digest, and with whom it signs.
    ///
    /// Recorded by parties, in the transaction of the decision.
    SessionAccepted {
        /// The session.
        session: SessionId,
        /// Which attempt at the job.
        attempt: u32,
        /// Who asked, and for what.
        asked: Asked,
        /// The seat that it took.
        role: Role,
        /// The party in the other seat.
        peer: PartyId,
        /// The kind of payload.
        payload: PayloadKindTag,
        /// Its digest, as the party derived it.
        #[serde(with = "prefixed_array")]
        digest: [u8; 32],
        /// The rule of the wallet's policy that allowed it, when the wallet has a policy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<String>,
    },
    /// A responder charged a session to the wallet's limits. Its only answer leaves after this
    /// record.
    ///
    /// Recorded by parties, in the transaction of the decision.
    SessionCharged(Exchange),
    /// An initiator has a signature that verifies, and released it.
    ///
    /// Recorded by parties, within half a second.
    SessionSigned(Exchange),
    /// A session ended without a signature: the code, and the party to blame.
    ///
    /// Recorded by parties, within half a second.
    SessionFailed {
        /// The session.
        session: SessionId,
        /// Who asked, and for what.
        asked: Asked,
        /// Why.
        code: Code,
        /// The party demonstrably at fault.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        culprit: Option<PartyId>,
        /// An explanation for a person.
        message: String,
    },
    /// A bad signature locked a Paillier key.
    ///
    /// Recorded by parties, in the transaction of the decision.
    KeyLocked {
        /// The key.
        paillier_key: PaillierKeyId,
        /// The session.
        session: SessionId,
        /// Who asked for the signature, and for which job.
        asked: Asked,
        /// The party that answered.
        culprit: PartyId,
    },
    /// A request was refused.
    ///
    /// Recorded by every writer; a party within half a second.
    Refused {
        /// The kind of request: `invitation`, `share`, `card`, `job`, `approval`, `report`,
        /// `device` or `token`.
        what: String,
        /// Who asked, by the request's own claim, which may be why it was refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<Asked>,
        /// The session, when there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<SessionId>,
        /// The wallet, when it is known without a requester.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wallet: Option<WalletId>,
        /// The code of the check that failed.
        code: Code,
        /// The rule of the wallet's policy that refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<String>,
        /// An explanation for a person.
        message: String,
    },
    /// More requests were refused than are recorded one by one.
    ///
    /// Recorded by every writer; a party within half a second.
    RefusalsSuppressed {
        /// How many, by code.
        refusals: BTreeMap<Code, u64>,
    },

    /// A party verified and stored a new wallet.
    ///
    /// Recorded by parties, in the transaction of the decision.
    WalletPrepared {
        /// The wallet.
        wallet: WalletId,
        /// The tenant that owns it.
        tenant: TenantId,
        /// The hash of the package it came in.
        #[serde(with = "hex_array")]
        package: [u8; 32],
    },
    /// All holders have the wallet.
    ///
    /// Recorded by parties, in the transaction of the decision.
    WalletCommitted {
        /// The wallet.
        wallet: WalletId,
    },
    /// A party accepted an initiator's enrolment. From now on it answers under that key.
    ///
    /// Recorded by parties, in the transaction of the decision.
    EnrolmentTaken {
        /// The wallet.
        wallet: WalletId,
        /// The initiator's share.
        initiator: ShareIndex,
        /// The key.
        paillier_key: PaillierKeyId,
    },
    /// A responder agreed to a key of this party. From now on the party initiates with it.
    ///
    /// Recorded by parties, in the transaction of the decision.
    EnrolmentAgreed {
        /// The wallet.
        wallet: WalletId,
        /// The responder.
        responder: PartyId,
        /// The key.
        paillier_key: PaillierKeyId,
    },
    /// A party made a Paillier key: for a first enrolment, or a rotation.
    ///
    /// Recorded by parties, in the transaction of the decision.
    KeyMade {
        /// The key.
        paillier_key: PaillierKeyId,
        /// What it may be used for.
        scope: String,
    },
    /// A party deleted Paillier keys that are no longer used.
    ///
    /// Recorded by parties, within half a second.
    KeysRemoved {
        /// The keys.
        paillier_keys: Vec<PaillierKeyId>,
    },
    /// A party's store was restored, and these keys were locked in it when its next chain began. If
    /// a key was locked after the previous chain was closed, this is the only record of it.
    ///
    /// Recorded by parties, in the transaction of the decision.
    KeysFoundLocked {
        /// The keys.
        paillier_keys: Vec<PaillierKeyId>,
    },
    /// The operator changed what opens the party's share store.
    ///
    /// Recorded by parties, in the transaction of the decision.
    StoreKeyChanged {
        /// What opens it from now on: `key`, `passphrase` or `vault`.
        opened_by: String,
        /// Whether its records are under another key as well.
        new_key: bool,
    },
    /// A party pinned another party's card.
    ///
    /// Recorded by parties, in the transaction of the decision.
    CardPinned {
        /// The other party.
        party: PartyId,
        /// The card.
        card: CardFingerprint,
        /// Whether it was pinned on first contact and not by the operator.
        first_contact: bool,
    },

    /// An operator said to go on with a card after its first bad signature.
    ///
    /// Recorded by parties, in the transaction of the decision.
    CulpritAccepted {
        /// The card.
        card: CardFingerprint,
    },

    /// A party accepted a policy from a wallet's owner.
    ///
    /// Recorded by parties, in the transaction of the decision.
    PolicySet {
        /// The wallet.
        wallet: WalletId,
        /// The policy's revision.
        revision: u64,
        /// The SHA-256 of its document.
        #[serde(with = "hex_array")]
        policy: [u8; 32],
        /// From when it alone applies, in milliseconds since 1970. Until then a request has to pass
        /// the earlier policies as well.
        effective_at_ms: u64,
    },
    /// A party recorded an approval of a request.
    ///
    /// Recorded by parties, in the transaction of the decision.
    RequestApproved {
        /// Who asked, and for what.
        asked: Asked,
        /// The approver.
        #[serde(with = "hex_array")]
        approver: [u8; 32],
    },

    /// A party stored a revocation. It no longer signs the request.
    ///
    /// Recorded by parties, in the transaction of the decision.
    RequestRevoked {
        /// Who had asked, and for what.
        asked: Asked,
        /// The signer of the revocation: the requester's key, or the owner's.
        #[serde(with = "hex_array")]
        by: [u8; 32],
    },
    /// An operator confirmed that the limits apply again as the restored store has them.
    ///
    /// Recorded by parties, within half a second.
    LimitsReset {
        /// Since when they had counted as used up, in milliseconds since 1970.
        used_up_since_ms: u64,
    },

    /// An orchestrator accepted a job.
    ///
    /// Recorded by orchestrators.
    JobAccepted {
        /// Who asked, and for what.
        asked: Asked,
        /// What kind of payload.
        payload: PayloadKindTag,
        /// Its digest.
        #[serde(with = "prefixed_array")]
        digest: [u8; 32],
    },
    /// An orchestrator began an attempt.
    ///
    /// Recorded by orchestrators.
    AttemptStarted {
        /// Who asked, and for what.
        asked: Asked,
        /// The attempt's session.
        session: SessionId,
        /// Which attempt.
        attempt: u32,
        /// The pair that tries.
        pair: Pair,
    },
    /// An attempt ended without a signature.
    ///
    /// Recorded by orchestrators.
    AttemptFailed {
        /// Who asked, and for what.
        asked: Asked,
        /// The attempt's session.
        session: SessionId,
        /// Why.
        code: Code,
        /// The party that is said to be at fault.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        culprit: Option<PartyId>,
        /// An explanation for a person.
        message: String,
    },
    /// An orchestrator verified a signature and stored the result.
    ///
    /// Recorded by orchestrators.
    JobSigned {
        /// Who asked, and for what.
        asked: Asked,
        /// The session that produced it.
        session: SessionId,
        /// What was signed.
        #[serde(with = "prefixed_array")]
        digest: [u8; 32],
    },
    /// A job ended without a signature: given up (a dead letter), expired, cancelled or rejected.
    ///
    /// Recorded by orchestrators.
    JobEnded {
        /// Who asked, and for what.
        asked: Asked,
        /// Why.
        code: Code,
        /// An explanation for a person.
        message: String,
    },
    /// An operator put a dead letter back.
    ///
    /// Recorded by orchestrators.
    JobPutBack {
        /// Who had asked for the job.
        asked: Asked,
    },
    /// A device proved to a gateway that it holds the key of a wallet's device.
    ///
    /// Recorded by gateways.
    DeviceAuthenticated {
        /// The wallet.
        wallet: WalletId,
        /// The device's key.
        #[serde(with = "hex_array")]
        device: [u8; 32],
    },
    /// An orchestrator found streams or buckets of the broker missing, or replaced by others: the
    /// broker came back without its streams.
    ///
    /// Recorded by orchestrators.
    StoresLost {
        /// Their names at the broker.
        stores: Vec<String>,
        /// How many jobs were open, as far as this orchestrator knew.
        open_jobs: u64,
    },
    /// An orchestrator found the broker put back to an earlier copy of its store, or heard of it
    /// from another one.
    ///
    /// Recorded by orchestrators.
    BrokerWentBack {
        /// The broker's new epoch.
        epoch: u64,
        /// The streams and buckets that went further before, by their names at the broker. None
        /// when another orchestrator found out.
        stores: Vec<String>,
        /// How many jobs were open, as far as this orchestrator knew.
        open_jobs: u64,
    },
}

impl Position {
    /// A checkpoint: `key`'s signature over everything up to here. It may stand anywhere later in
    /// the chain.
    #[must_use]
    pub fn sign(&self, key: &impl Identity) -> Event {
        let signature = signing::sign(Purpose::Audit, &self.statement(), key);
        Event::Checkpoint { sequence: self.sequence, hash: self.hash, signature }
    }
}

#[cfg(test)]
mod tests {
    use duet_test_docs::{Field, Item, Variant, table};

    use super::*;

    #[test]
    fn the_table_of_events_is_that_of_the_code() {
        let source = include_str!("event.rs");
        let row = |variant: &Variant| {
            let fields = match &variant.wraps {
                Some(kind) => Item::read(source, &format!("struct {kind}")).unwrap().fields,
                None => variant.fields.clone(),
            };
            let member =
                |field: &Field| format!("`{}`{}", field.name, if field.is_optional { "?" } else { "" });
            let members = fields.iter().map(member).collect::<Vec<_>>().join(", ");
            let [meaning, recorded] = &variant.paragraphs[..] else { panic!("two paragraphs: {variant:?}") };
            let by = recorded.strip_prefix("Recorded by ").unwrap().trim_end_matches('.').to_owned();
            let members = if members.is_empty() { "–".to_owned() } else { members };
            [format!("`{}`", variant.snake_case()), by, meaning.clone(), members]
        };
        let events = Item::read(source, "enum Event").unwrap().variants;
        let table = table(["kind", "recorded by", "meaning", "members"], events.iter().map(row));
        duet_test_docs::part("docs/audit.md", "events", &table).unwrap();

        // The reader knows the same kinds.
        let unknown = serde_json::from_str::<Event>(r#"{"kind": "unknown"}"#).unwrap_err().to_string();
        let read: Vec<&str> = unknown.split('`').skip(3).step_by(2).collect();
        assert_eq!(read, events.iter().map(Variant::snake_case).collect::<Vec<_>>());
    }
}
