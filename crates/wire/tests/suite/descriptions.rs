//! What a person is shown before signing, and which address a signature is by.

use duet_wire::Payload;
use serde_json::json;

fn fields(payload: &serde_json::Value) -> Vec<(String, String, String)> {
    let payload = Payload::from_json(payload.to_string().as_bytes()).unwrap();
    let description = payload.describe().unwrap();
    assert_eq!(description.digest, format!("0x{}", hex::encode(payload.digest().unwrap())));
    description.fields.into_iter().map(|field| (field.path, field.kind, field.value)).collect()
}

fn expect(payload: &serde_json::Value, expected: &[(&str, &str, &str)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(path, kind, value)| ((*path).into(), (*kind).into(), (*value).into()))
        .collect();
    assert_eq!(fields(payload), expected);
}

#[test]
fn a_transaction_is_spelled_out() {
    expect(
        &json!({
            "kind": "transaction", "chainId": 1, "nonce": 3, "value": "0xde0b6b3a7640000", "gas": 21000,
            "to": "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed", "maxFeePerGas": 2, "maxPriorityFeePerGas": 1,
            "data": "0x00ff",
            "accessList": [{
                "address": "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
                "storageKeys": [format!("0x{}", "11".repeat(32))]
            }]
        }),
        &[
            ("type", "string", "EIP-1559"),
            ("chainId", "uint64", "1"),
            ("nonce", "uint64", "3"),
            ("maxPriorityFeePerGas", "uint128", "1"),
            ("maxFeePerGas", "uint128", "2"),
            ("gas", "uint64", "21000"),
            ("to", "address", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"),
            ("value", "uint256", "1000000000000000000"),
            ("data", "bytes", "0x00ff"),
            ("accessList[0].address", "address", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"),
            ("accessList[0].storageKeys[0]", "bytes32", &format!("0x{}", "11".repeat(32))),
        ],
    );
}

#[test]
fn messages_and_digests_are_spelled_out() {
    expect(&json!({"kind": "personal_message", "text": "hi"}), &[("text", "string", "hi")]);
    expect(&json!({"kind": "personal_message", "hex": "0x6869"}), &[("text", "string", "hi")]);
    expect(&json!({"kind": "personal_message", "hex": "0xff"}), &[("hex", "bytes", "0xff")]);
    let digest = format!("0x{}", "22".repeat(32));
    expect(&json!({"kind": "digest", "digest": digest}), &[("digest", "bytes32", &digest)]);
}

#[test]
fn typed_data_is_spelled_out_as_it_is_encoded() {
    let document = json!({
        "kind": "typed_data",
        "types": {
            "EIP712Domain": [{"name": "name", "type": "string"}, {"name": "chainId", "type": "uint256"}],
            "Person": [{"name": "name", "type": "string"}, {"name": "wallet", "type": "address"}],
            "Mail": [
                {"name": "from", "type": "Person"},
                {"name": "to", "type": "Person[]"},
                {"name": "amount", "type": "int8"},
                {"name": "limit", "type": "uint256"},
                {"name": "selector", "type": "bytes4"},
                {"name": "urgent", "type": "bool"},
                {"name": "tags", "type": "string[]"}
            ]
        },
        "primaryType": "Mail",
        "domain": {"name": "Ether Mail", "chainId": 1},
        "message": {
            "from": {"name": "Cow", "wallet": "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed"},
            "to": [{"name": "Bob", "wallet": "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed"}],
            "amount": -5,
            "limit": 18446744073709551615_u64,
            "selector": "0x01020304",
            "urgent": true,
            "tags": []
        }
    });
    let address = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
    expect(
        &document,
        &[
            ("domain.name", "string", "Ether Mail"),
            ("domain.chainId", "uint256", "1"),
            ("primaryType", "string", "Mail"),
            ("message.from.name", "string", "Cow"),
            ("message.from.wallet", "address", address),
            ("message.to[0].name", "string", "Bob"),
            ("message.to[0].wallet", "address", address),
            ("message.amount", "int8", "-5"),
            ("message.limit", "uint256", "18446744073709551615"),
            ("message.selector", "bytes4", "0x01020304"),
            ("message.urgent", "bool", "true"),
            ("message.tags", "array", "empty"),
        ],
    );
    // The document that goes with it survives JavaScript's numbers, and means the same.
    let payload = Payload::from_json(document.to_string().as_bytes()).unwrap();
    let shown = payload.describe().unwrap().payload;
    assert_eq!(shown["message"]["limit"], json!("18446744073709551615"));
    assert_eq!(shown["message"]["amount"], json!(-5));
    let again = Payload::from_json(shown.to_string().as_bytes()).unwrap();
    assert_eq!(again.digest(), payload.digest());
}

#[test]
fn a_signature_verifies_for_its_signers_address_alone() {
    // The address of this key, as in the example of EIP-155.
    let key = k256::ecdsa::SigningKey::from_slice(&[0x46; 32]).unwrap();
    let payload = Payload::from_json(br#"{"kind":"personal_message","text":"hello"}"#).unwrap();
    let (signature, recovery) = key.sign_prehash_recoverable(&payload.digest().unwrap());
    let mut bytes = [0; 65];
    bytes[..64].copy_from_slice(&signature.to_bytes());
    bytes[64] = recovery.to_byte();
    let address = duet_wire::encoding::parse_address("0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F").unwrap();
    for v in [bytes[64], bytes[64] + 27] {
        bytes[64] = v;
        let found = payload.verify(&bytes, &address).unwrap();
        assert!(found.valid && found.reason.is_none(), "{found:?}");
    }
    let other = payload.verify(&bytes, &[1; 20]).unwrap();
    assert!(!other.valid);
    assert_eq!(other.signer.as_deref(), Some("0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F"));
    let elsewhere = Payload::from_json(br#"{"kind":"personal_message","text":"hell"}"#).unwrap();
    assert!(!elsewhere.verify(&bytes, &address).unwrap().valid);
    bytes[64] = 3;
    let malformed = payload.verify(&bytes, &address).unwrap();
    assert!(!malformed.valid && malformed.signer.is_none());
}
