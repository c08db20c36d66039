//! Addresses of a wallet's accounts, when a party lies or is away.

use duet_protocol::ids::ShareIndex;
use duet_wire::Code;
use reqwest::StatusCode;
use serde_json::Value;

use crate::rig::{Rig, problem};

#[tokio::test]
async fn a_lying_party__should_not_choose_an_address() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let wallet = format!("/v1/wallets/{}", rig.world.wallet.id);
    let addresses = format!("{wallet}/addresses?path=m");
    for liar in [ShareIndex::Service, ShareIndex::Partner] {
        *rig.world.liar.lock().unwrap() = Some(liar);
        for path in [&addresses, &format!("{wallet}/xpub"), &wallet] {
            let answer = rig.get(&orchestrator.url, path).await;
            problem(answer, StatusCode::BAD_GATEWAY, Code::PeerMisbehaved).await;
        }
    }
    *rig.world.liar.lock().unwrap() = None;
    *rig.world.ignorant.lock().unwrap() = Some(ShareIndex::Partner);
    // Has both asked again. Else an answer of the last second may count.
    assert_eq!(rig.get(&orchestrator.url, &wallet).await.status(), StatusCode::OK);
    let answer = rig.get(&orchestrator.url, &addresses).await;
    problem(answer, StatusCode::NOT_FOUND, Code::UnknownWallet).await;
    *rig.world.ignorant.lock().unwrap() = None;
    assert_eq!(rig.get(&orchestrator.url, &wallet).await.status(), StatusCode::OK);

    // Once both have agreed, a liar comes too late.
    let address = |answer: Value| answer["addresses"][0]["address"].as_str().unwrap().to_lowercase();
    let right = format!("0x{}", hex::encode(rig.world.wallet.address()));
    assert_eq!(address(rig.get(&orchestrator.url, &addresses).await.json().await.unwrap()), right);
    *rig.world.liar.lock().unwrap() = Some(ShareIndex::Partner);
    assert_eq!(address(rig.get(&orchestrator.url, &addresses).await.json().await.unwrap()), right);

    // Another tenant does not learn that the wallet exists.
    let path = format!("{}{addresses}", orchestrator.url);
    let answer = rig.http.get(path).bearer_auth(crate::rig::OTHER_TOKEN).send().await.unwrap();
    problem(answer, StatusCode::NOT_FOUND, Code::UnknownWallet).await;
}
