//! Documents and keys that the tests share.

use duet_protocol::ids::{Epoch, PaillierKeyId, SessionId, ShareIndex, WalletId};
use duet_wire::{
    JobResult, Manifest, Payload, RecoverableSignature, Seat, SignedRequest, SigningRequest,
    signing::SigningKey,
};
use serde_json::{Value, json};

pub(crate) fn word(digits: &str) -> [u8; 32] {
    hex::decode(digits).unwrap().try_into().unwrap()
}

pub(crate) fn payload(document: Value) -> Payload {
    Payload::from_json(document.to_string().as_bytes()).unwrap_or_else(|e| panic!("{e}"))
}

/// The digest of a payload document, in hexadecimal.
pub(crate) fn hash(document: Value) -> String {
    hex::encode(payload(document).digest().unwrap())
}

/// What is wrong with a payload document, path first.
pub(crate) fn problem(document: Value) -> String {
    Payload::from_json(document.to_string().as_bytes()).unwrap_err().to_string()
}

/// A transfer, EIP-1559.
pub(crate) fn transfer() -> Value {
    json!({
        "kind": "transaction",
        "type": "0x2",
        "chainId": 31337,
        "nonce": 0,
        "to": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "value": "0xde0b6b3a7640000",
        "gas": 21000,
        "maxFeePerGas": "2000000000",
        "maxPriorityFeePerGas": 1,
    })
}

/// A complete request document.
pub(crate) fn request_document() -> Value {
    json!({
        "version": 1,
        "tenant": "acme",
        "wallet": "11".repeat(32),
        "path": "m/0/5",
        "payload": transfer(),
        "idempotency_key": "payout-1",
        "expires_at": 2_000_000_000,
        "pairs": ["device+service", "service+partner"],
    })
}

/// A complete request document of version 2: issued a second before 1,800,000,000, for ten minutes.
pub(crate) fn dated_document() -> Value {
    let mut document = request_document();
    document["version"] = 2.into();
    document["issued_at"] = 1_799_999_999.into();
    document["expires_at"] = 1_800_000_599.into();
    document
}

pub(crate) fn requester() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// That document, signed.
pub(crate) fn signed_request() -> SignedRequest {
    SignedRequest::sign(request_document().to_string().into_bytes(), &requester())
}

pub(crate) fn request() -> SigningRequest {
    signed_request().verify().unwrap()
}

/// A session in which the service and the partner sign that request.
pub(crate) fn manifest() -> Manifest {
    Manifest {
        session: SessionId([2; 16]),
        job: request().job(),
        attempt: 1,
        wallet: WalletId([0x11; 32]),
        epoch: Epoch(0),
        paillier_key: PaillierKeyId([3; 16]),
        initiator: Seat { party: "service".parse().unwrap(), index: ShareIndex::Service },
        responder: Seat { party: "partner".parse().unwrap(), index: ShareIndex::Partner },
        request: signed_request(),
        expires_at_ms: 1_900_000_000_000,
    }
}

pub(crate) fn signature() -> RecoverableSignature {
    RecoverableSignature::new([1; 32], [2; 32], true).unwrap()
}

pub(crate) fn result() -> JobResult {
    JobResult {
        job: request().job(),
        tenant: "acme".parse().unwrap(),
        wallet: WalletId([0x11; 32]),
        path: "m/0/5".parse().unwrap(),
        address: duet_wire::encoding::parse_address("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed").unwrap(),
        digest: [4; 32],
        signature: signature(),
        signed_transaction: Some(vec![2, 0xf8].into()),
        transaction_hash: Some([6; 32].into()),
        session: SessionId([2; 16]),
        completed_at_ms: 1_900_000_000_000,
    }
}
