//! The published examples of the standards, byte for byte.

use duet_protocol::{public_key::PublicKey, signature::RecoverableSignature};
use duet_wire::Payload;
use serde_json::json;

use crate::samples::{hash, payload, word};

fn address_of_signer(digest: &[u8; 32], signature: &RecoverableSignature) -> String {
    let plain = k256::ecdsa::Signature::from_scalars(*signature.r(), *signature.s()).unwrap();
    let id = k256::ecdsa::RecoveryId::new(signature.y_parity(), false);
    let key = k256::ecdsa::VerifyingKey::recover_from_prehash(digest, &plain, id).unwrap();
    let key = PublicKey::from_bytes(key.to_sec1_point(true).as_bytes().try_into().unwrap()).unwrap();
    duet_protocol::signature::verify(&key, digest, signature).unwrap();
    hex::encode(key.address())
}

fn check(payload: &Payload, digest: &str, (r, s, y_parity): (&str, &str, bool), raw: &str) -> String {
    assert_eq!(hex::encode(payload.digest().unwrap()), digest);
    let signature = RecoverableSignature::new(word(r), word(s), y_parity).unwrap();
    assert_eq!(hex::encode(payload.signed_transaction(&signature).unwrap()), raw);
    assert_eq!(
        payload.transaction_hash(&signature),
        Some(alloy_primitives::keccak256(hex::decode(raw).unwrap()).0)
    );
    address_of_signer(&payload.digest().unwrap(), &signature)
}

#[test]
fn eip_155_the_example_of_the_standard() {
    // https://eips.ethereum.org/EIPS/eip-155#example
    let payload = payload(json!({
        "kind": "transaction",
        "chainId": 1,
        "nonce": 9,
        "gasPrice": "20000000000",
        "gas": 21000,
        "to": "0x3535353535353535353535353535353535353535",
        "value": "1000000000000000000",
    }));
    let signer = check(
        &payload,
        "daf5a779ae972f972197303d7b574746c7ef83eadac0f2791ad23db92e4c8e53",
        (
            "28ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276",
            "67cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83",
            false,
        ),
        "f86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a76400008025a028ef61340b\
         d939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276a067cbe9d8997f761aecb703304b3800ccf555c9f3dc64\
         214b297fb1966a3b6d83",
    );
    // The address of the private key 0x4646…46 that the example signs with.
    assert_eq!(signer, "9d8a62f656a8d1615c1294fd71e9cfb3e4855a4f");
}

#[test]
fn a_legacy_transaction_for_any_chain_as_go_ethereum_encodes_it() {
    // go-ethereum, core/types/transaction_test.go, `rightvrsTx`: before EIP-155, v = 28.
    let payload = payload(json!({
        "kind": "transaction",
        "type": "legacy",
        "chainId": null,
        "nonce": "0x3",
        "gasPrice": "0x1",
        "gasLimit": 2000,
        "to": "0xb94f5374fce5edbc8e2a8697c15331677e6ebf0b",
        "value": 10,
        "input": "0x5544",
    }));
    assert_eq!(payload.chain_id(), None);
    let signature = RecoverableSignature::new(
        word("98ff921201554726367d2be8c804a7ff89ccf285ebc57dff8ae4c44b9c19ac4a"),
        word("8887321be575c8095f789dd4c743dfe42c1820f9231f98a962b210e3ac2452a3"),
        true,
    );
    // The example's s is the high one, which is never signed nor accepted here.
    assert!(signature.is_err());
    assert_eq!(
        hex::encode(payload.digest().unwrap()),
        "fe7a79529ed5f7c3375d06b26b186a8644e0e16c373d7a12be41c62d6042b77a"
    );
}

#[test]
fn eip_2930_the_signed_example_of_go_ethereum() {
    // go-ethereum, core/types/transaction_test.go, `signedEip2718Tx`.
    let payload = payload(json!({
        "kind": "transaction",
        "type": "0x1",
        "chainId": "0x1",
        "nonce": "0x3",
        "gasPrice": "0x1",
        "gas": "0x61a8",
        "to": "0xb94f5374fce5edbc8e2a8697c15331677e6ebf0b",
        "value": "0xa",
        "accessList": [],
        "data": "0x5544",
    }));
    check(
        &payload,
        "49b486f0ec0a60dfbbca2d30cb07c9e8ffb2a2ff41f29a1ab6737475f6ff69f3",
        (
            "c9519f4f2b30335884581971573fadf60c6204f59a911df35ee8a540456b2660",
            "32f1e8e2c5dd761f9e4f88f41c8310aeaba26a8bfcdacfedfa12ec3862d37521",
            true,
        ),
        "01f8630103018261a894b94f5374fce5edbc8e2a8697c15331677e6ebf0b0a825544c001a0c9519f4f2b30335884581971573f\
         adf60c6204f59a911df35ee8a540456b2660a032f1e8e2c5dd761f9e4f88f41c8310aeaba26a8bfcdacfedfa12ec3862d37521",
    );
}

#[test]
fn eip_1559_a_transaction_of_the_main_network() {
    // 0xce4dc6d7a7549a98ee3b071b67e970879ff51b5b95d1c340bacd80fa1e1aab31
    let payload = payload(json!({
        "kind": "transaction",
        "type": "0x2",
        "chainId": "0x1",
        "nonce": "0x2",
        "maxPriorityFeePerGas": "0x3b9aca00",
        "maxFeePerGas": "0x29e7822d6",
        "gas": "0x98f0",
        "to": "0xD9e1459A7A482635700cBc20BBAF52D495Ab9C96",
        "value": "0x0",
        "data": "0x1b55ba3a",
    }));
    let signature = RecoverableSignature::new(
        word("c199674fcb29f353693dd779c017823b954b3c69dffa3cd6b2a6ff7888798039"),
        word("28ca912de909e7e6cdef9cdcaf24c54dd8c1032946dfa1d85c206b32a9064fe8"),
        false,
    )
    .unwrap();
    assert_eq!(
        hex::encode(payload.signed_transaction(&signature).unwrap()),
        "02f86f0102843b9aca0085029e7822d68298f094d9e1459a7a482635700cbc20bbaf52d495ab9c9680841b55ba3ac080a0c199\
         674fcb29f353693dd779c017823b954b3c69dffa3cd6b2a6ff7888798039a028ca912de909e7e6cdef9cdcaf24c54dd8c10329\
         46dfa1d85c206b32a9064fe8"
    );
    assert_eq!(
        payload.transaction_hash(&signature),
        Some(word("ce4dc6d7a7549a98ee3b071b67e970879ff51b5b95d1c340bacd80fa1e1aab31"))
    );
    assert_eq!(
        address_of_signer(&payload.digest().unwrap(), &signature),
        "001e2b7de757ba469a57bf6b23d982458a07efce"
    );
}

#[test]
fn eip_191_messages_of_published_documentation() {
    for (message, digest) in [
        // web3.js, `web3.eth.accounts.hashMessage`.
        (
            json!({ "text": "Hello World" }),
            "a1de988600a42c4b4ab089b619297c17d53cffae5d5120d82d8a92d0bb3b78f2",
        ),
        // ethers and viem, `hashMessage`.
        (
            json!({ "text": "hello world" }),
            "d9eba16ed0ecae432b71fe008c98cc872bb4cc214d3220a36f365326cf807d68",
        ),
        (
            json!({ "hex": "0x68656c6c6f20776f726c64" }),
            "d9eba16ed0ecae432b71fe008c98cc872bb4cc214d3220a36f365326cf807d68",
        ),
        // The length counts bytes, not characters.
        (json!({ "text": "🤗" }), "716ce69c5d2d629c168bc02e24a961456bdc5a362d366119305aea73978a0332"),
        (json!({ "hex": "0x" }), "5f35dce98ba4fba25530a026ed80b2cecdaa31091ba4958b99b52ea1d068adad"),
    ] {
        let mut document = message;
        document["kind"] = "personal_message".into();
        assert_eq!(hash(document.clone()), digest, "{document}");
    }
}

/// The example of EIP-712.
pub(crate) fn mail() -> serde_json::Value {
    json!({
        "kind": "typed_data",
        "types": {
            "EIP712Domain": [
                { "name": "name", "type": "string" },
                { "name": "version", "type": "string" },
                { "name": "chainId", "type": "uint256" },
                { "name": "verifyingContract", "type": "address" },
            ],
            "Person": [{ "name": "name", "type": "string" }, { "name": "wallet", "type": "address" }],
            "Mail": [
                { "name": "from", "type": "Person" },
                { "name": "to", "type": "Person" },
                { "name": "contents", "type": "string" },
            ],
        },
        "primaryType": "Mail",
        "domain": {
            "name": "Ether Mail",
            "version": "1",
            "chainId": 1,
            "verifyingContract": "0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC",
        },
        "message": {
            "from": { "name": "Cow", "wallet": "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826" },
            "to": { "name": "Bob", "wallet": "0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB" },
            "contents": "Hello, Bob!",
        },
    })
}

#[test]
fn eip_712_the_mail_of_the_standard() {
    assert_eq!(hash(mail()), "be609aee343fb3c4b28e1df9e632fca64fcfaede20f02e86244efddf30957bd2");
    assert_eq!(payload(mail()).chain_id(), Some(1));
}
