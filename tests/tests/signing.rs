//! Every pair signs every kind of payload. alloy, ethers, viem and an Ethereum node verify the
//! signatures.
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::fs;

use duet_chaos::signers;
use duet_harness::{
    anvil::{Anvil, CHAIN_ID},
    duet::text,
    judges,
    stack::{ALL_KINDS, Pair, Stack},
};
use serde_json::{Value, json};

const RECIPIENT: &str = "0x00000000000000000000000000000000DeaDBeef";
const DIGEST: &str = "0xd7a8fbb307d7809469ca9abcb0082e4f8d5651e46d3cdb762d02d0bf37c9e592";
const ETHER: u128 = 1_000_000_000_000_000_000;

/// The example of EIP-712.
fn mail() -> Value {
    json!({
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"}, {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"}, {"name": "verifyingContract", "type": "address"}
            ],
            "Person": [{"name": "name", "type": "string"}, {"name": "wallet", "type": "address"}],
            "Mail": [
                {"name": "from", "type": "Person"}, {"name": "to", "type": "Person"},
                {"name": "contents", "type": "string"}
            ]
        },
        "primaryType": "Mail",
        "domain": {
            "name": "Ether Mail", "version": "1", "chainId": 1,
            "verifyingContract": "0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC"
        },
        "message": {
            "from": {"name": "Cow", "wallet": "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"},
            "to": {"name": "Bob", "wallet": "0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB"},
            "contents": "Hello, Bob!"
        }
    })
}

/// The digest that EIP-712 publishes for [`mail`].
const MAIL_DIGEST: &str = "0xbe609aee343fb3c4b28e1df9e632fca64fcfaede20f02e86244efddf30957bd2";

#[tokio::test(flavor = "multi_thread")]
async fn every_pair__should_sign_every_kind_of_payload() {
    let (stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    let file = stack.directory().join("mail.json");
    fs::write(&file, mail().to_string()).unwrap();
    let mail_file = file.to_string_lossy();
    let address = wallet.address.as_str();

    let mut checks = Vec::new();
    for pair in Pair::ALL {
        let message = wallet.sign_by(pair, &["message", "Grüße aus dem Duett ✓"]).await.unwrap();
        let signature = text(&message, "/signature").unwrap();
        let signer = signers::message_signer("Grüße aus dem Duett ✓".as_bytes(), signature).unwrap();
        assert_eq!(signer.to_string(), address, "{pair:?}");
        checks.push(json!({"name": format!("{pair:?} text"), "kind": "personal_message", "address": address,
            "text": "Grüße aus dem Duett ✓", "signature": signature, "digest": message["digest"]}));

        let bytes = wallet.sign_by(pair, &["message", "--hex", "0x00ff80"]).await.unwrap();
        checks
            .push(json!({"name": format!("{pair:?} bytes"), "kind": "personal_message", "address": address,
            "hex": "0x00ff80", "signature": bytes["signature"], "digest": bytes["digest"]}));

        let typed = wallet.sign_by(pair, &["typed-data", &mail_file]).await.unwrap();
        assert_eq!(typed["digest"], MAIL_DIGEST);
        checks.push(json!({"name": format!("{pair:?} typed data"), "kind": "typed_data", "address": address,
            "typed_data": mail(), "signature": typed["signature"], "digest": typed["digest"]}));

        let digest = wallet.sign_by(pair, &["digest", DIGEST]).await.unwrap();
        let signer = signers::digest_signer(DIGEST, text(&digest, "/signature").unwrap()).unwrap();
        assert_eq!(signer.to_string(), address, "{pair:?}");
        checks.push(json!({"name": format!("{pair:?} digest"), "kind": "digest", "address": address,
            "digest": DIGEST, "signature": digest["signature"]}));
    }
    judges::verify(&checks).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_every_type_and_pair__should_be_accepted_by_a_node() {
    let stack = Stack::start().await.unwrap();
    let anvil = Anvil::start(&stack.directory().join("logs")).await.unwrap();
    let wallet = stack.create_wallet("device", ALL_KINDS).await.unwrap();
    let address = wallet.address.as_str();
    anvil.fund(address, 2 * ETHER).await.unwrap();

    let chain = CHAIN_ID.to_string();
    let mut checks = Vec::new();
    let mut nonce = 0_u64;
    for pair in Pair::ALL {
        let legacy = json!({"type": "0x0", "gasPrice": "3gwei"});
        let eip2930 = json!({"type": "0x1", "gasPrice": "3gwei", "accessList": [{"address": RECIPIENT,
            "storageKeys": ["0x0000000000000000000000000000000000000000000000000000000000000001"]}]});
        let eip1559 = json!({"type": "0x2", "maxFeePerGas": "3gwei", "maxPriorityFeePerGas": "1gwei"});
        for (name, mut transaction) in [("legacy", legacy), ("EIP-2930", eip2930), ("EIP-1559", eip1559)] {
            let members = transaction.as_object_mut().unwrap();
            for (member, value) in [
                ("chainId", json!(chain.parse::<u64>().unwrap())),
                ("nonce", json!(nonce)),
                ("to", json!(RECIPIENT)),
                ("value", json!("0.01ether")),
                ("gas", json!(50_000)),
                ("input", json!("0xd0e7")),
            ] {
                members.insert(member.to_owned(), value);
            }
            let file = stack.directory().join("transaction.json");
            fs::write(&file, transaction.to_string()).unwrap();
            let signed = wallet.sign_by(pair, &["tx", &file.to_string_lossy()]).await.unwrap();
            let raw = text(&signed, "/signed_transaction").unwrap();
            assert_eq!(signers::transaction_signer(raw).unwrap().to_string(), address, "{pair:?} {name}");
            let receipt = anvil.broadcast(raw).await.unwrap();
            assert_eq!(receipt["transactionHash"], signed["transaction_hash"]);
            assert_eq!(text(&receipt, "/from").unwrap().to_lowercase(), address.to_lowercase());
            checks.push(json!({"name": format!("{pair:?} {name}"), "kind": "transaction", "address": address,
                "signed_transaction": raw, "digest": signed["digest"],
                "expect": {"chainId": CHAIN_ID, "nonce": nonce, "to": RECIPIENT, "value": (ETHER / 100).to_string(),
                           "data": "0xd0e7"}}));
            nonce += 1;
        }
    }
    assert_eq!(anvil.balance(RECIPIENT).await.unwrap(), u128::from(nonce) * ETHER / 100);
    judges::verify(&checks).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn child_keys__should_sign_for_their_own_addresses() {
    let (_stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    let mut checks = Vec::new();
    let mut addresses = Vec::new();
    for path in ["m/0", "m/0/5"] {
        let mut seen = Vec::new();
        for pair in Pair::ALL {
            let signed = wallet.sign_by(pair, &["message", "child", "--path", path]).await.unwrap();
            let signature = text(&signed, "/signature").unwrap();
            let signer = signers::message_signer(b"child", signature).unwrap().to_string();
            assert_ne!(signer, wallet.address);
            checks.push(
                json!({"name": format!("{pair:?} {path}"), "kind": "personal_message", "address": signer,
                "text": "child", "signature": signature}),
            );
            seen.push(signer);
        }
        // All pairs sign for one and the same address.
        seen.dedup();
        assert_eq!(seen.len(), 1, "{path}: {seen:?}");
        addresses.append(&mut seen);
    }
    addresses.dedup();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    judges::verify(&checks).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_keys__should_sign_for_the_same_address() {
    let (stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    wallet.sign_by(Pair::ServicePartner, &["message", "before"]).await.unwrap();

    let service = stack.party("service").command(&stack.duet());
    let rotated = service.json(&["party", "rotate"]).await.unwrap();
    assert!(!rotated["rotated"].as_array().unwrap().is_empty(), "{rotated}");

    for pair in Pair::ALL {
        let after = wallet.sign_by(pair, &["message", "after"]).await.unwrap();
        let signer = signers::message_signer(b"after", text(&after, "/signature").unwrap()).unwrap();
        assert_eq!(signer.to_string(), wallet.address, "{pair:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn result__should_carry_the_orchestrators_signature() {
    let (stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    let job = wallet.sign_by(Pair::ServicePartner, &["message", "signed result"]).await.unwrap();
    let file = stack.directory().join("result.json");
    fs::write(&file, job["result"].to_string()).unwrap();
    let file = file.to_string_lossy();
    let verify = ["verify", "result", &file, "--orchestrator-key", stack.orchestrator_key()];
    let verified = wallet.duet.json(&verify).await.unwrap();
    assert_eq!(verified["valid"], true, "{verified}");

    let other_key = "00".repeat(31) + "01";
    let refusal =
        wallet.duet.refused(&["verify", "result", &file, "--orchestrator-key", &other_key]).await.unwrap();
    assert_eq!(refusal.code, "bad-signature");
}
