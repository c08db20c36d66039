//! Accounts of a wallet: addresses that libraries derive from its extended public key.
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use duet_harness::{
    duet::text,
    http::Api,
    judges,
    stack::{ALL_KINDS, Pair, Stack},
};
use serde_json::{Value, json};

/// What a judge compares: the address that it derives itself.
fn account(xpub: &Value, account: &Value) -> Value {
    json!({"name": account["path"], "kind": "account", "xpub": xpub["xpub"], "below": xpub["path"],
           "path": account["path"], "address": account["address"]})
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts__should_have_the_addresses_that_other_libraries_derive() {
    let (mut stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    let mut checks = Vec::new();

    // The owner's device and the orchestrator say the same.
    let root = wallet.duet.json(&["wallet", "xpub", "--wallet", &wallet.id]).await.unwrap();
    let asked = api.get(&format!("/v1/wallets/{}/xpub", wallet.id)).await.unwrap();
    assert_eq!((asked.status, &asked.body["xpub"]), (200, &root["xpub"]));
    let branch = api.get(&format!("/v1/wallets/{}/xpub?path=m/0", wallet.id)).await.unwrap().body;
    assert_eq!(branch["xpub"], wallet.duet.json(&["wallet", "xpub", "--path", "m/0"]).await.unwrap()["xpub"]);
    let addresses = format!("/v1/wallets/{}/addresses", wallet.id);
    let page = api.get(&format!("{addresses}?from=3&limit=3")).await.unwrap().body;
    let own = ["wallet", "address", "--wallet", &wallet.id, "--path", "m/0/3", "--count", "3"];
    let own = wallet.duet.json(&own).await.unwrap();
    assert_eq!(page["next"], 6);
    let accounts = page["addresses"].as_array().unwrap();
    assert_eq!(accounts.len(), 3);
    for (told, derived) in accounts.iter().zip(own["addresses"].as_array().unwrap()) {
        assert_eq!((&told["path"], &told["address"]), (&derived["path"], &derived["address"]));
        checks.extend([account(&root, told), account(&branch, told)]);
    }
    let deep = api.get(&format!("{addresses}?path=m/7/2147483647/1")).await.unwrap().body;
    checks.push(account(&root, &deep["addresses"][0]));
    let itself = api.get(&format!("{addresses}?path=m")).await.unwrap().body;
    assert_eq!(text(&itself, "/addresses/0/address").unwrap(), wallet.address);
    checks.push(account(&root, &itself["addresses"][0]));

    // A signature for a path is the address's own.
    let deposit = &accounts[2];
    let signing = ["message", "from a deposit address", "--path", text(deposit, "/path").unwrap()];
    let signed = wallet.sign_by(Pair::ServicePartner, &signing).await.unwrap();
    assert_eq!(signed["address"], deposit["address"]);
    checks.push(json!({"name": "signed", "kind": "personal_message", "address": deposit["address"],
        "text": "from a deposit address", "signature": signed["signature"]}));
    judges::verify(&checks).await.unwrap();

    // No party is asked for an address once the holders have agreed.
    stack.partner.kill().await.unwrap();
    stack.service.kill().await.unwrap();
    let alone = api.get(&format!("{addresses}?from=0")).await.unwrap();
    assert_eq!((alone.status, alone.body["addresses"].as_array().map(Vec::len)), (200, Some(50)));
    let most = api.get(&format!("{addresses}?from=2147483600&limit=1000")).await.unwrap();
    assert_eq!(most.body["addresses"].as_array().map(Vec::len), Some(48));
    assert!(most.body["next"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_paths__should_be_refused_with_what_is_wrong() {
    let (stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    for (path, why) in [
        ("m/44h/0", "hardened steps"),
        ("m/0'/1", "hardened steps"),
        ("m/2147483648", "hardened steps"),
        ("m/99999999999", "at most 2147483647"),
        ("m/0/0/0/0/0/0/0/0/0/0/0", "at most 10 steps"),
        ("0/5", "expected a path such as"),
        ("m/00", "expected a path such as"),
        ("m/", "expected a path such as"),
    ] {
        for command in ["address", "xpub"] {
            let refused = wallet.duet.refused(&["wallet", command, "--path", path]).await.unwrap();
            assert!(refused.message.contains(why), "{path}: {}", refused.message);
        }
        for route in ["addresses", "xpub"] {
            let answer = api.get(&format!("/v1/wallets/{}/{route}?path={path}", wallet.id)).await.unwrap();
            assert_eq!(
                (answer.status, answer.body["code"].as_str()),
                (400, Some("malformed-json")),
                "{path}"
            );
            assert!(text(&answer.body, "/detail").unwrap().contains(why), "{path}: {}", answer.body);
        }
    }
    for query in ["from=2147483648", "path=m/0/1&limit=3", "path=m&from=0", "from=-1", "surprise=1"] {
        let answer = api.get(&format!("/v1/wallets/{}/addresses?{query}", wallet.id)).await.unwrap();
        assert_eq!(answer.status, 400, "{query}: {}", answer.body);
    }
    for id in ["5a".repeat(32), "nonsense".to_owned()] {
        let answer = api.get(&format!("/v1/wallets/{id}/addresses")).await.unwrap();
        assert_eq!((answer.status, answer.body["code"].as_str()), (404, Some("unknown-wallet")));
    }
}
