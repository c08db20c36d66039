//! Bodies of requests to the HTTP interface, and the documents in them: each JSON text has one
//! meaning.

use duet_wire::{Payload, SigningRequest, batch::BatchRequest, progress::Progress, strict_json};

/// Any bytes as a request document, a batch, a payload and JSON.
pub fn run(bytes: &[u8]) {
    if let Ok(value) = strict_json::parse(bytes, bytes.len()) {
        let again = value.to_string();
        let twice = strict_json::parse(again.as_bytes(), again.len());
        assert_eq!(twice.as_ref(), Ok(&value), "what was read is read again");
    }
    if let Ok(request) = SigningRequest::from_json(bytes) {
        if let Ok(written) = request.to_json() {
            let again = SigningRequest::from_json(&written);
            assert!(again.is_ok_and(|again| again == request), "a request that is written means the same");
        }
        payload(&request.payload);
    }
    if let Ok(batch) = BatchRequest::from_json(bytes)
        && let Ok(written) = batch.to_json()
    {
        let again = BatchRequest::from_json(&written);
        assert!(again.is_ok_and(|again| again == batch), "a batch that is written means the same");
    }
    if let Ok(read) = Payload::from_json(bytes) {
        payload(&read);
    }
    let _ = Progress::from_json(bytes);
}

/// The text shown to the owner and the signed bytes come from the same payload.
fn payload(payload: &Payload) {
    assert_eq!(payload.digest().ok(), payload.digest().ok());
    drop(payload.describe());
    let _ = payload.chain_id();
}
