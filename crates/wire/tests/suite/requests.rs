//! Request documents.

use duet_wire::{Code, Pair, Problem, SignedRequest, SigningRequest, request::MAX_REQUEST_SIZE_BYTES};
use serde_json::{Value, json};

use crate::samples::{dated_document, request, request_document, requester, signed_request};

fn refusal(document: &Value) -> Problem {
    SigningRequest::from_json(document.to_string().as_bytes()).unwrap_err().into()
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut document = request_document();
    document[name] = value.into();
    document
}

#[test]
fn a_request_says_what_its_document_says() {
    let request = request();
    assert_eq!(request.tenant.as_str(), "acme");
    assert_eq!(request.path.to_string(), "m/0/5");
    assert_eq!(request.pairs, [Pair::DeviceService, Pair::ServicePartner]);
    assert_eq!(request.payload.chain_id(), Some(31337));
    assert_eq!(SigningRequest::from_json(&request.to_json().unwrap()), Ok(request));
}

#[test]
fn only_the_path_and_the_pairs_have_defaults() {
    let mut document = request_document();
    for name in ["path", "pairs"] {
        document.as_object_mut().unwrap().remove(name);
    }
    let request = SigningRequest::from_json(document.to_string().as_bytes()).unwrap();
    assert!(request.path.is_root());
    assert_eq!(request.pairs, [Pair::DeviceService, Pair::ServicePartner]);
    for name in ["version", "tenant", "wallet", "payload", "idempotency_key", "issued_at", "expires_at"] {
        let mut document = dated_document();
        document.as_object_mut().unwrap().remove(name);
        let problem = refusal(&document);
        assert_eq!((problem.code, problem.path.as_deref()), (Code::MalformedJson, Some(name)));
    }
}

#[test]
fn each_wrong_field_is_refused_with_its_path() {
    for (name, value, path) in [
        ("tenant", json!("Acme"), "tenant"),
        ("wallet", json!("11"), "wallet"),
        ("path", json!("m/0'"), "path"),
        ("payload", json!({ "kind": "blob" }), "payload.kind"),
        ("payload", json!({ "kind": "digest", "digest": "0x11" }), "payload.digest"),
        ("payload", json!({ "kind": "personal_message" }), "payload"),
        ("idempotency_key", json!("a b"), "idempotency_key"),
        ("expires_at", json!("soon"), "expires_at"),
        ("issued_at", json!(1_799_999_999), "issued_at"),
        ("pairs", json!([]), "pairs"),
        ("pairs", json!(["service+device"]), "pairs[0]"),
        ("pairs", json!(["device+service", "device+service"]), "pairs[1]"),
        ("priority", json!(1), "priority"),
    ] {
        let problem = refusal(&with(name, value.clone()));
        assert_eq!(
            (problem.code, problem.path.as_deref(), problem.status),
            (Code::MalformedJson, Some(path), 400),
            "{name} {value}"
        );
    }
    let mut transaction = request_document();
    transaction["payload"]["to"] = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD".into();
    assert_eq!(refusal(&transaction).path.as_deref(), Some("payload.to"));
    assert_eq!(refusal(&with("version", 3)).code, Code::UnsupportedVersion);
}

#[test]
fn version_1_is_read_as_it_was_and_version_2_states_its_issue() {
    let document = dated_document();
    let request = SigningRequest::from_json(document.to_string().as_bytes()).unwrap();
    assert_eq!((request.version, request.issued_at), (2, Some(1_799_999_999)));
    assert_eq!(SigningRequest::from_json(&request.to_json().unwrap()), Ok(request));
    let mut wrong = document;
    wrong["issued_at"] = json!(1.5);
    assert_eq!(refusal(&wrong).path.as_deref(), Some("issued_at"));

    let document = request_document();
    let request = SigningRequest::from_json(document.to_string().as_bytes()).unwrap();
    assert_eq!((request.version, request.issued_at), (1, None));
    let written = String::from_utf8(request.to_json().unwrap()).unwrap();
    assert!(written.starts_with(r#"{"version":1,"#) && !written.contains("issued_at"), "{written}");
    assert_eq!(SigningRequest::from_json(written.as_bytes()), Ok(request));
}

#[test]
fn a_field_twice_is_refused_even_deep_inside() {
    let text = request_document().to_string().replace("\"nonce\":0", "\"nonce\":0,\"nonce\":1");
    let problem = Problem::from(SigningRequest::from_json(text.as_bytes()).unwrap_err());
    assert_eq!((problem.code, problem.path.as_deref()), (Code::MalformedJson, Some("payload")));
}

#[test]
fn a_request_over_its_size_is_refused_unread() {
    let body = vec![b' '; MAX_REQUEST_SIZE_BYTES + 1];
    let problem = Problem::from(SignedRequest::sign(body, &requester()).verify().unwrap_err());
    assert_eq!((problem.code, problem.status), (Code::TooLarge, 413));
}

#[test]
fn every_change_of_the_signed_bytes_breaks_the_signature() {
    let signed = signed_request();
    assert!(signed.verify().is_ok());
    for at in 0..signed.body.len() {
        let mut changed = signed.clone();
        changed.body[at] ^= 1;
        assert_eq!(changed.verify().unwrap_err().code(), Code::BadSignature, "byte {at}");
    }
    // The same document, spelt otherwise, is another document.
    let mut reformatted = signed.clone();
    reformatted.body.push(b'\n');
    assert_eq!(reformatted.verify().unwrap_err().code(), Code::BadSignature);
    for at in 0..64 {
        let mut changed = signed.clone();
        changed.signature[at] ^= 1;
        assert_eq!(changed.verify().unwrap_err().code(), Code::BadSignature, "signature byte {at}");
    }
    for at in 0..32 {
        let mut changed = signed.clone();
        changed.requester[at] ^= 1;
        assert_eq!(changed.verify().unwrap_err().code(), Code::BadSignature, "key byte {at}");
        assert_ne!(changed.content_hash(), signed.content_hash());
    }
}

#[test]
fn the_exact_bytes_survive_json_and_the_binary_codec() {
    let body = request_document().to_string().replace(':', " :\t").replace("acme", "\\u0061cme").into_bytes();
    let signed = SignedRequest::sign(body.clone(), &requester());
    assert_eq!(signed.verify().unwrap().tenant.as_str(), "acme");
    let stored: SignedRequest = serde_json::from_str(&serde_json::to_string(&signed).unwrap()).unwrap();
    assert_eq!((stored.body.clone(), stored), (body, signed));
}
