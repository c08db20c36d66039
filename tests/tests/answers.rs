//! All answers have one form, and the same message gets the same signature.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::fs;

use alloy_primitives::Address;
use duet_chaos::signers;
use duet_harness::{
    anvil::Anvil,
    duet::text,
    http::Api,
    stack::{ALL_KINDS, Pair, Stack},
};
use duet_wire::{
    Priority,
    batch::{BatchItem, BatchRequest},
};
use serde_json::{Value, json};

/// Collects every text in a document under a member of this name, also in signed documents inside
/// it.
fn members(name: &str, document: &Value, found: &mut Vec<String>) {
    match document {
        Value::Object(fields) => {
            for (member, value) in fields {
                if member == name
                    && let Value::String(text) = value
                {
                    found.push(text.clone());
                }
                members(name, value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| members(name, item, found)),
        Value::String(text) if text.starts_with('{') => {
            if let Ok(inside) = serde_json::from_str(text) {
                members(name, &inside, found);
            }
        }
        _ => {}
    }
}

/// Checks a document's signatures and addresses: at least `least` of each.
fn check_forms(outlet: &str, document: &Value, least: usize) {
    let (mut signatures, mut addresses) = (Vec::new(), Vec::new());
    members("signature", document, &mut signatures);
    members("address", document, &mut addresses);
    // Ed25519 signatures of documents have 64 bytes and no 0x.
    signatures.retain(|signature| signature.starts_with("0x"));
    assert!(signatures.len() >= least && addresses.len() >= least, "{outlet}: {document:#}");
    for signature in signatures {
        let end = signature.get(130..).unwrap();
        assert!(end == "1b" || end == "1c", "{outlet}: {signature}");
    }
    for address in addresses {
        let parsed: Address = address.parse().unwrap();
        assert_eq!(parsed.to_checksum(None), address, "{outlet}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_and_addresses__should_leave_in_one_form() {
    let (stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    let anvil = Anvil::start(stack.directory()).await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    // Enough signatures that both parities occur, except in one run of a thousand.
    let mut last = Value::Null;
    for number in 0..10 {
        last = wallet.queue(&["message", &format!("form {number}")]).await.unwrap();
        check_forms("duet job submit --wait", &last, 2);
    }
    let job = text(&last, "/job/id").unwrap();

    for (path, least) in [
        (format!("/v1/jobs/{job}"), 2),
        ("/v1/jobs".to_owned(), 20),
        ("/v1/results".to_owned(), 20),
        ("/v1/wallets".to_owned(), 0),
    ] {
        check_forms(&path, &api.get(&path).await.unwrap().body, least);
    }
    // What the streams themselves say, and not what our own client makes of it.
    let request = api.request(&json!({"kind": "personal_message", "text": "batch"}), "batch").unwrap();
    let item = BatchItem { request, priority: Priority::High, repeat_digest: false };
    let batch = api.submit_batch(&BatchRequest { items: vec![item] }).await.unwrap();
    let batch = text(&batch.body, "/id").unwrap();
    for (path, name, count) in [
        (format!("/v1/jobs/{job}/events"), "state", 1),
        (format!("/v1/batches/{batch}/events"), "end", 1),
        ("/v1/results/events".to_owned(), "end", 11),
    ] {
        for event in api.events(&path, name, count).await.unwrap() {
            check_forms(&path, &event, 2);
        }
    }
    for (arguments, least) in [
        (vec!["job", "get", job], 2),
        (vec!["job", "list"], 20),
        (vec!["job", "results"], 20),
        (vec!["job", "watch", job], 2),
        (vec!["wallet", "list"], 0),
    ] {
        let shown = wallet.duet.json(&arguments).await.unwrap();
        check_forms(&arguments.join(" "), &shown, least);
    }
    for pair in Pair::ALL {
        let signed = wallet.sign_by(pair, &["typed-data", &mail(&stack)]).await.unwrap();
        check_forms(&format!("{pair:?}"), &signed, 1);
        assert!(signed.get("y_parity").is_none_or(Value::is_boolean), "{signed}");
    }

    // Take this very string apart as a contract does: the chain's own ecrecover must find the
    // wallet.
    let shown = api.get(&format!("/v1/jobs/{job}")).await.unwrap().body;
    let (digest, signature) = (text(&shown, "/digest").unwrap(), text(&shown, "/signature").unwrap());
    let (r, rest) = signature.split_at(2).1.split_at(64);
    let (s, v) = rest.split_at(64);
    let input = format!("{digest}{}{v}{r}{s}", "00".repeat(31));
    let call = json!([{"to": format!("0x{:040x}", 1), "data": input}, "latest"]);
    let recovered = anvil.call("eth_call", call).await.unwrap();
    let recovered = recovered.as_str().unwrap().get(26..).unwrap().to_owned();
    assert_eq!(format!("0x{recovered}"), wallet.address.to_lowercase());
}

/// Writes a file with typed data.
fn mail(stack: &Stack) -> String {
    let file = stack.directory().join("login.json");
    let document = json!({
        "types": {"EIP712Domain": [{"name": "name", "type": "string"}],
                  "Login": [{"name": "account", "type": "string"}]},
        "primaryType": "Login", "domain": {"name": "Exchange"}, "message": {"account": "main"},
    });
    fs::write(&file, document.to_string()).unwrap();
    file.to_string_lossy().into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_message__should_get_the_same_signature_by_every_pair() {
    let (stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    let file = mail(&stack);
    for payload in [["message", "log in"], ["typed-data", file.as_str()]] {
        let mut signatures = Vec::new();
        // The device signs first and last. In between the parties sign without it.
        for pair in Pair::ALL.into_iter().chain(Pair::ALL) {
            let signed = wallet.sign_by(pair, &payload).await.unwrap();
            signatures.push(text(&signed, "/signature").unwrap().to_owned());
        }
        signatures.dedup();
        assert_eq!(signatures.len(), 1, "{signatures:#?}");
        let other = wallet.sign_by(Pair::DeviceService, &["message", "log in!"]).await.unwrap();
        assert_ne!(text(&other, "/signature").unwrap(), signatures[0]);
    }
    // Another key of the wallet gets an answer of its own. A bare digest gets none.
    let child = wallet.sign_by(Pair::ServicePartner, &["message", "log in", "--path", "m/1"]).await.unwrap();
    let signer = signers::message_signer(b"log in", text(&child, "/signature").unwrap()).unwrap();
    assert_ne!(signer.to_string(), wallet.address);
    let digest = format!("0x{}", "5d".repeat(32));
    let mut seen = Vec::new();
    for _ in 0..2 {
        let signed = wallet.sign_by(Pair::DeviceService, &["digest", &digest]).await.unwrap();
        seen.push(text(&signed, "/signature").unwrap().to_owned());
    }
    assert_ne!(seen[0], seen[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_signature__should_be_no_way_around_a_policy_or_an_absent_party() {
    let (mut stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    let first = wallet.queue(&["message", "log in"]).await.unwrap();
    let first = text(&first, "/job/signature").unwrap().to_owned();
    let own = wallet.sign_by(Pair::DeviceService, &["message", "log in"]).await.unwrap();
    assert_eq!(text(&own, "/signature").unwrap(), first);

    // The device alone returns nothing, although it has the signature.
    stack.service.stop().await.unwrap();
    wallet.sign_by(Pair::DeviceService, &["message", "log in", "--timeout", "8s"]).await.unwrap_err();
    stack.service.start().await.unwrap();

    // From now on the owner permits no messages.
    let policy = json!({"version": 1, "wallet": wallet.id, "revision": 1, "rules": []});
    let file = stack.directory().join("policy.json");
    fs::write(&file, policy.to_string()).unwrap();
    wallet.duet.json(&["policy", "set", &file.to_string_lossy()]).await.unwrap();
    for pair in [Pair::ServicePartner, Pair::DeviceService] {
        let refused = wallet.sign_by(pair, &["message", "log in"]).await.unwrap_err();
        let refused = format!("{refused:#}");
        assert!(refused.contains("policy-refused") && !refused.contains(&first), "{pair:?}: {refused}");
    }
}
