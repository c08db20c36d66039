//! Payloads and signatures.

use duet_protocol::{public_key::PublicKey, signature};
use duet_wire::{
    Payload, RecoverableSignature, SignedRequest,
    encoding::{checksummed_address, parse_address},
    payload::{PayloadError, TransactionCall},
    request::RequestError,
    signing::SigningKey,
};
use js_sys::Array;
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

use crate::{
    convert::{array, bytes, from_json, hexadecimal},
    failure::{Failure, outcome},
    object::object,
};

/// Whether a signature (65 bytes: r, s, parity) holds for a digest (32 bytes) under a public key
/// (33 bytes), and its parity recovers exactly that key.
#[wasm_bindgen(unchecked_return_type = "Result<undefined>")]
#[must_use]
pub fn verify(public_key: &[u8], digest: &[u8], signature: &[u8]) -> JsValue {
    outcome(verified(public_key, digest, signature).map(|()| JsValue::UNDEFINED))
}

fn verified(public_key: &[u8], digest: &[u8], signature: &[u8]) -> Result<(), Failure> {
    let key = PublicKey::from_bytes(&array("publicKey", public_key)?)
        .map_err(|why| Failure::malformed("publicKey", why))?;
    let signature = RecoverableSignature::from_ethereum_bytes(&array("signature", signature)?)
        .map_err(|why| Failure::malformed("signature", why))?;
    Ok(signature::verify(&key, &array("digest", digest)?, &signature)?)
}

/// A payload, given as a JSON document, with its digest and every field that goes into it. What is
/// wrong comes with its path.
#[wasm_bindgen(unchecked_return_type = "Result<Description>")]
#[must_use]
pub fn describe(json: &str) -> JsValue {
    outcome(read(json).and_then(|payload| from_json(&payload.describe().map_err(refused)?)))
}

fn read(json: &str) -> Result<Payload, Failure> {
    Payload::from_json(json.as_bytes()).map_err(refused)
}

/// A transaction as JSON-RPC's `eth_sendTransaction` has it, read as strictly as one that is
/// signed, with the names of what is still missing. Without a recipient it creates a contract.
#[wasm_bindgen(js_name = readTransaction, unchecked_return_type = "Result<ReadTransaction>")]
#[must_use]
pub fn read_transaction(json: &str) -> JsValue {
    outcome(transaction(json))
}

fn transaction(json: &str) -> Result<JsValue, Failure> {
    let TransactionCall { from, draft } = TransactionCall::from_json(json.as_bytes()).map_err(refused)?;
    let draft = draft.or_creation();
    draft.check_creation().map_err(|error| refused(error.into()))?;
    let missing: Array = draft.missing().into_iter().map(JsValue::from).collect();
    let mut fields = vec![("members", from_json(&draft.to_value())?), ("missing", missing.into())];
    fields.extend(from.map(|from| ("from", checksummed_address(&from).into())));
    fields.extend(draft.known_type().map(|kind| ("type", kind.as_str().into())));
    Ok(object(fields))
}

/// Typed data from the text of an EIP-712 document, as `eth_signTypedData_v4` takes it: as a
/// payload whose numbers JavaScript does not round.
#[wasm_bindgen(js_name = readTypedData, unchecked_return_type = "Result<Record<string, unknown>>")]
#[must_use]
pub fn read_typed_data(json: &str, drop_undeclared: bool) -> JsValue {
    outcome(typed_data(json, drop_undeclared))
}

fn typed_data(json: &str, drop_undeclared: bool) -> Result<JsValue, Failure> {
    let payload = Payload::typed_data_from_json(json.as_bytes(), drop_undeclared).map_err(refused)?;
    from_json(&payload.describe().map_err(refused)?.payload)
}

/// Whether a signature (65 bytes: r, s, and v as 0, 1, 27 or 28) over a payload is by an address,
/// and otherwise the address that it is by.
#[wasm_bindgen(js_name = verifyPayload, unchecked_return_type = "Result<Verification>")]
#[must_use]
pub fn verify_payload(json: &str, signature: &[u8], address: &str) -> JsValue {
    outcome(verified_payload(json, signature, address))
}

fn verified_payload(json: &str, signature: &[u8], address: &str) -> Result<JsValue, Failure> {
    let address = parse_address(address).map_err(|why| Failure::malformed("address", why))?;
    let found = read(json)?.verify(&array("signature", signature)?, &address).map_err(refused)?;
    from_json(&found)
}

/// An address with its EIP-55 checksum. One of mixed case that fails its own is refused.
#[wasm_bindgen(js_name = checksumAddress, unchecked_return_type = "Result<string>")]
#[must_use]
pub fn checksum_address(address: &str) -> JsValue {
    outcome(
        parse_address(address)
            .map(|address| checksummed_address(&address))
            .map_err(|why| Failure::malformed("address", why)),
    )
}

fn refused(error: PayloadError) -> Failure {
    duet_wire::Problem::from(RequestError::from(error)).into()
}

/// What to broadcast of a transaction payload and its signature (65 bytes), and the hash it will be
/// known by.
#[wasm_bindgen(js_name = signedTransaction, unchecked_return_type = "Result<{ raw: string; hash: string }>")]
#[must_use]
pub fn signed_transaction(json: &str, signature: &[u8]) -> JsValue {
    outcome(broadcast(json, signature))
}

fn broadcast(json: &str, signature: &[u8]) -> Result<JsValue, Failure> {
    let signature = RecoverableSignature::from_ethereum_bytes(&array("signature", signature)?)
        .map_err(|why| Failure::malformed("signature", why))?;
    let payload = read(json)?;
    match (payload.signed_transaction(&signature), payload.transaction_hash(&signature)) {
        (Some(raw), Some(hash)) => Ok(object([("raw", hexadecimal(&raw)), ("hash", hexadecimal(&hash))])),
        _ => Err(Failure::Misuse("the payload is no transaction".to_owned())),
    }
}

pub(crate) fn signed_request(document: &[u8], key: &SigningKey) -> Result<JsValue, Failure> {
    let signed = SignedRequest::sign(document.to_vec(), key);
    // A document that parties would refuse is refused here, where its author can still correct it.
    signed.verify().map_err(duet_wire::Problem::from)?;
    Ok(object([("requester", bytes(&signed.requester)), ("signature", bytes(&signed.signature))]))
}
