//! Bad input is refused with a stable code and a message, and leaves nothing behind.
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::{fs, time::Duration};

use duet_harness::{
    http::Api,
    stack::{ALL_KINDS, Pair, Stack},
};
use serde_json::json;

const PAYEE: &str = "0x00000000000000000000000000000000DeaDBeef";

#[tokio::test(flavor = "multi_thread")]
async fn command_line__should_refuse_bad_input_with_its_code() {
    let (_stack, wallet) = Stack::with_wallet("transaction").await.unwrap();
    let unknown = "ab".repeat(32);

    let refusal = wallet.duet.refused(&["sign", "message", "x", "--wallet", &unknown]).await.unwrap();
    assert_eq!(refusal.code, "unknown-wallet", "{refusal:?}");

    let broken = ["sign", "tx", "-", "--wallet", &wallet.id];
    let refusal = wallet.duet.refused_from(&broken, r#"{"to": 12}"#).await.unwrap();
    assert_eq!(refusal.code, "malformed-json", "{refusal:?}");
    assert!(refusal.message.contains("to"), "it names the member: {refusal:?}");

    // The requester may ask for transactions only.
    let key = wallet.requester_key.to_string_lossy();
    let job = ["job", "submit", "message", "x", "--wallet", &wallet.id, "--requester-key", &key, "--wait"];
    let refusal = wallet.duet.refused(&[&job[..], &["--pairs", "service+partner"]].concat()).await.unwrap();
    assert_eq!(refusal.code, "kind-not-allowed", "{refusal:?}");

    // The owner may not sign bare digests either without having permitted it.
    let digest = format!("0x{}", "5a".repeat(32));
    let refusal = wallet.duet.refused(&["sign", "digest", &digest, "--wallet", &wallet.id]).await.unwrap();
    assert_eq!(refusal.code, "kind-not-allowed", "{refusal:?}");

    // The command retries an absent broker, then reports it as unreachable.
    let lost = wallet.duet.clone().with("DUET_NATS_URL", "tls://127.0.0.1:1");
    let refusal =
        lost.refused(&["sign", "message", "x", "--wallet", &wallet.id, "--timeout", "2s"]).await.unwrap();
    assert_eq!(refusal.code, "broker-unreachable", "{refusal:?}");

    // The wallet still signs.
    wallet.sign_by(Pair::DeviceService, &["message", "still here"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn transaction_for_another_chain__should_be_refused_before_it_is_signed() {
    let stack = Stack::start().await.unwrap();
    let anvil = duet_harness::anvil::Anvil::start(&stack.directory().join("logs")).await.unwrap();
    let wallet = stack.create_wallet("device", ALL_KINDS).await.unwrap();
    let payload = ["tx", "--to", PAYEE, "--value", "1wei", "--chain-id", "1", "--rpc", anvil.url()];
    let refusal = wallet.duet.refused(&[&["sign"], &payload[..]].concat()).await.unwrap();
    assert_eq!(refusal.code, "chain-id-mismatch", "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_store__should_not_open_with_another_key() {
    let (stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    let other = stack.directory().join("other.key");
    fs::write(&other, [17; 32]).unwrap();
    std::process::Command::new("chmod").arg("600").arg(&other).status().unwrap();
    let locked_out = wallet.duet.clone().with("DUET_KEY_FILE", &other.to_string_lossy());
    let refusal = locked_out.refused(&["sign", "message", "x", "--wallet", &wallet.id]).await.unwrap();
    assert_eq!(refusal.code, "wrong-passphrase", "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_interface__should_answer_with_problems_that_have_codes() {
    let (stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    assert_eq!(api.get("/healthz").await.unwrap().status, 200);
    assert_eq!(api.get("/readyz").await.unwrap().status, 200);

    let request = api.request(&json!({"kind": "personal_message", "text": "one"}), "key").unwrap();
    let submitted = api.submit(&request, "key").await.unwrap();
    assert_eq!(submitted.status, 202, "{submitted:?}");
    assert_eq!(api.settled(submitted.body["id"].as_str().unwrap()).await.unwrap(), "signed");

    // The same key for another request.
    let other = api.request(&json!({"kind": "personal_message", "text": "two"}), "key").unwrap();
    let conflict = api.submit(&other, "key").await.unwrap();
    assert_eq!((conflict.status, conflict.body["code"].as_str()), (409, Some("conflict")), "{conflict:?}");
    assert_eq!(conflict.content_type, "application/problem+json");

    // A signature over another document.
    let mut forged = api.request(&json!({"kind": "personal_message", "text": "three"}), "forged").unwrap();
    forged.signature = request.signature;
    let refused = api.submit(&forged, "forged").await.unwrap();
    assert_eq!((refused.status, refused.body["code"].as_str()), (401, Some("bad-signature")), "{refused:?}");

    // Not a valid document, but rightly signed.
    let mut broken = request.clone();
    broken.body = b"{".to_vec();
    assert!((400..500).contains(&api.submit(&broken, "key").await.unwrap().status));

    let missing = api.get(&format!("/v1/jobs/{}", "00".repeat(16))).await.unwrap();
    assert_eq!((missing.status, missing.body["code"].as_str()), (404, Some("not-found")), "{missing:?}");

    let client = duet_harness::anvil::http_client().unwrap();
    let anonymous =
        client.get(format!("{}/v1/jobs", stack.api_url())).timeout(Duration::from_secs(30)).send();
    assert_eq!(anonymous.await.unwrap().status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn pinned_card__should_stay_pinned() {
    let stack = Stack::start().await.unwrap();
    let service = stack.party("service").command(&stack.duet());
    let partner = stack.party("partner").fingerprint(&stack.duet()).await.unwrap();
    let pinned = service.json(&["party", "pin", &format!("partner={partner}")]).await.unwrap();
    assert_eq!(pinned, json!({"party": "service", "pins": {"partner": partner}}));

    let other = "5a".repeat(32);
    let refusal = service.refused(&["party", "pin", &format!("partner={other}")]).await.unwrap();
    assert_eq!(refusal.code, "card-mismatch", "{refusal:?}");
    assert_eq!(service.json(&["party", "pin"]).await.unwrap(), pinned);
}
