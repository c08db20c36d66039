//! Webhook signatures against vectors that were made with Python's `hmac`, the first of them with
//! the specification's own libraries. `@duet/signer` is tested with the same file.

use duet_wire::webhook::{Delivered, Headers, Secret, TOLERANCE_SECONDS, WebhookError, verify};
use serde_json::Value;

const VECTORS: &str = include_str!("../webhooks.json");

#[test]
fn every_vector_gets_its_verdict() {
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
    assert!(vectors.len() >= 16);
    for vector in &vectors {
        let text = |name: &str| vector[name].as_str().unwrap();
        let secret: Secret = text("secret").parse().unwrap();
        let headers = Headers { id: text("id"), timestamp: text("timestamp"), signature: text("signature") };
        let now = vector["now"].as_u64().unwrap();
        let verified = match verify(&secret, &headers, text("body").as_bytes(), now, TOLERANCE_SECONDS) {
            Ok(Delivered { id, timestamp }) => {
                assert_eq!((id.as_str(), timestamp.to_string().as_str()), (headers.id, headers.timestamp));
                assert!(headers.signature.contains(&secret.sign(&id, timestamp, text("body").as_bytes())));
                "ok"
            }
            Err(WebhookError::BadSignature) => "bad-signature",
            Err(WebhookError::OutOfTime) => "out-of-time",
            Err(WebhookError::MalformedTimestamp) => "malformed-timestamp",
        };
        assert_eq!(verified, text("verdict"), "{}", text("name"));
    }
}
