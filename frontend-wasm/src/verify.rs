//! Payloads, requests and signatures, without any secret but the requester's own.

use duet_protocol::{public_key::PublicKey, signature};
use duet_wire::{
    Manifest, Payload, PayloadKindTag, RecoverableSignature, SignedRequest, payload::PayloadError,
    request::RequestError, signing::SigningKey,
};
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

use crate::{
    convert::{array, bytes, object},
    failure::{Failure, outcome},
};

/// Whether a signature (65 bytes: r, s, parity) holds for a digest (32 bytes) under a public key (33
/// bytes), and its parity recovers exactly that key.
#[wasm_bindgen(unchecked_return_type = "Result<undefined>")]
#[must_use]
pub fn verify(public_key: &[u8], digest: &[u8], signature: &[u8]) -> JsValue {
    outcome(verified(public_key, digest, signature).map(|()| JsValue::UNDEFINED))
}

fn verified(public_key: &[u8], digest: &[u8], signature: &[u8]) -> Result<(), Failure> {
    let key = PublicKey::from_bytes(&array("publicKey", public_key)?)
        .map_err(|why| Failure::malformed("publicKey", why))?;
    let signature = RecoverableSignature::from_bytes(&array("signature", signature)?)
        .map_err(|why| Failure::malformed("signature", why))?;
    Ok(signature::verify(&key, &array("digest", digest)?, &signature)?)
}

/// What is signed of a payload, given as a JSON document.
#[wasm_bindgen(js_name = readPayload, unchecked_return_type = "Result<PayloadInfo>")]
#[must_use]
pub fn read_payload(json: &str) -> JsValue {
    outcome(Payload::from_json(json.as_bytes()).and_then(|payload| info(&payload)).map_err(refused))
}

fn info(payload: &Payload) -> Result<JsValue, PayloadError> {
    let kind = match payload.kind() {
        PayloadKindTag::Transaction => "transaction",
        PayloadKindTag::PersonalMessage => "personal_message",
        PayloadKindTag::TypedData => "typed_data",
        PayloadKindTag::Digest => "digest",
    };
    let chain_id = payload.chain_id().map(|id| ("chainId", id.into()));
    let fields = [("kind", kind.into()), ("digest", bytes(&payload.digest()?))];
    Ok(object(fields.into_iter().chain(chain_id)))
}

fn refused(error: PayloadError) -> Failure {
    duet_wire::Problem::from(RequestError::from(error)).into()
}

/// The bytes to broadcast of a transaction payload and its signature (65 bytes).
#[wasm_bindgen(js_name = signedTransaction, unchecked_return_type = "Result<Uint8Array>")]
#[must_use]
pub fn signed_transaction(json: &str, signature: &[u8]) -> JsValue {
    let signed = array("signature", signature).and_then(|signature| {
        let signature = RecoverableSignature::from_bytes(&signature)
            .map_err(|why| Failure::malformed("signature", why))?;
        Payload::from_json(json.as_bytes())
            .map_err(refused)?
            .signed_transaction(&signature)
            .map(|raw| bytes(&raw))
            .ok_or_else(|| Failure::Misuse("the payload is no transaction".to_owned()))
    });
    outcome(signed)
}

/// Signs a request document, byte for byte, with the requester's Ed25519 secret key (32 bytes): the
/// requester's public key and the signature, both to be sent beside the document.
#[wasm_bindgen(
    js_name = signRequest,
    unchecked_return_type = "Result<{ requester: Uint8Array; signature: Uint8Array }>"
)]
#[must_use]
pub fn sign_request(document: &[u8], secret_key: &[u8]) -> JsValue {
    outcome(signed_request(document, secret_key))
}

fn signed_request(document: &[u8], secret_key: &[u8]) -> Result<JsValue, Failure> {
    let key = SigningKey::from_bytes(&array("secretKey", secret_key)?);
    let signed = SignedRequest::sign(document.to_vec(), &key);
    // A document that parties would refuse is refused here, where its author can still correct it.
    signed.verify().map_err(duet_wire::Problem::from)?;
    Ok(object([("requester", bytes(&signed.requester)), ("signature", bytes(&signed.signature))]))
}

/// The document that the requester of a session's manifest signed, to show to the owner.
#[wasm_bindgen(js_name = readManifest, unchecked_return_type = "Result<string>")]
#[must_use]
pub fn read_manifest(manifest: &[u8]) -> JsValue {
    let document = Manifest::decode(manifest).map_err(Failure::from).and_then(|manifest| {
        manifest.request.verify().map_err(duet_wire::Problem::from)?;
        String::from_utf8(manifest.request.body).map_err(|why| Failure::malformed("request", why))
    });
    outcome(document)
}
