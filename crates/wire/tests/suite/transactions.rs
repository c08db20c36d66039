//! Transaction documents: what is accepted, and what is refused with which path.

use duet_wire::{Payload, payload::TransactionRequest};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::samples::{hash, payload, problem, transfer};

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut document = transfer();
    document[name] = value.into();
    document
}

fn without(name: &str) -> Value {
    let mut document = transfer();
    document.as_object_mut().unwrap().remove(name);
    document
}

#[test]
fn missing_fields_are_named_with_their_path() {
    for name in ["chainId", "nonce", "to", "gas", "maxFeePerGas", "maxPriorityFeePerGas"] {
        assert_eq!(problem(without(name)), format!("{name}: missing"));
    }
    assert_eq!(problem(json!({})), "kind: missing");
}

#[test]
fn unknown_fields_are_refused() {
    assert!(problem(with("from", "0x00")).starts_with("from: unknown field"));
    assert!(problem(with("maxFeePerBlobGas", 1)).starts_with("maxFeePerBlobGas: unknown field"));
    assert!(problem(with("authorizationList", json!([]))).contains("EIP-7702"));
    assert!(problem(with("gasPrice", 1)).starts_with("gasPrice: does not go with `maxFeePerGas`"));
    let mut legacy = with("type", "legacy");
    assert!(problem(legacy.clone()).starts_with("maxFeePerGas: not a field of legacy"));
    legacy.as_object_mut().unwrap().retain(|name, _| !name.starts_with("max"));
    legacy["gasPrice"] = 1.into();
    assert_eq!(hash(legacy.clone()).len(), 64);
    legacy["type"] = "0x2".into();
    assert!(problem(legacy.clone()).starts_with("gasPrice: not a field of EIP-1559"));
    legacy["type"] = "0x0".into();
    legacy["accessList"] = json!([]);
    assert!(problem(legacy).starts_with("accessList: not a field of legacy"));
}

#[test]
fn null_says_that_a_member_is_absent() {
    for name in
        ["type", "value", "data", "input", "gasLimit", "accessList", "gasPrice", "authorizationList", "memo"]
    {
        let mut document = transfer();
        document["value"] = "0x0".into();
        document[name] = Value::Null;
        let mut without = document.clone();
        without.as_object_mut().unwrap().remove(name);
        assert_eq!(hash(document), hash(without), "{name}");
    }
    assert_eq!(problem(with("nonce", Value::Null)), "nonce: missing");
}

#[test]
fn a_mistyped_address_is_refused() {
    let error = problem(with("to", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD"));
    assert!(error.starts_with("to: ") && error.contains("checksum"), "{error}");
    assert!(problem(with("to", "vitalik.eth")).starts_with("to: expected an address"));
    assert!(problem(with("to", 7)).starts_with("to: expected a string, found a number"));
}

#[test]
fn quantities_out_of_range_are_refused() {
    for (name, value) in [
        ("nonce", "0x10000000000000000"),
        ("gas", "-1"),
        ("maxFeePerGas", "0x100000000000000000000000000000000"),
        ("value", &*format!("0x1{}", "0".repeat(64))),
        ("chainId", "0"),
        ("chainId", "0xffffffffffffffff"),
    ] {
        assert!(problem(with(name, value)).starts_with(&format!("{name}: ")), "{name} {value}");
    }
    assert!(problem(with("maxPriorityFeePerGas", "2000000001")).contains("more than maxFeePerGas"));
    assert!(problem(with("data", "0x1")).starts_with("data: "));
    assert!(problem(with("data", "cafe")).starts_with("data: "));
}

#[test]
fn only_a_legacy_transaction_may_be_for_any_chain() {
    assert!(problem(with("chainId", Value::Null)).starts_with("chainId: "));
}

#[test]
fn both_names_of_a_field_may_be_there_if_they_agree() {
    assert_eq!(hash(with("gasLimit", 21000)), hash(transfer()));
    assert_eq!(hash(with("gasLimit", "0x5208")), hash(transfer()), "by value, not by spelling");
    assert!(problem(with("gasLimit", 21001)).starts_with("gasLimit: contradicts `gas`"));
    let mut both = with("data", "0x01");
    both["input"] = "0x02".into();
    assert!(problem(both).starts_with("input: contradicts `data`"));
}

#[test]
fn null_creates_a_contract_and_a_missing_recipient_does_not() {
    let mut document = with("to", Value::Null);
    assert!(problem(document.clone()).starts_with("to: there is no recipient"));
    document["data"] = "0x60".into();
    let Payload::Transaction(creation) = payload(document) else { panic!() };
    assert_eq!(creation.to(), None);
    assert_eq!(problem(without("to")), "to: missing");
}

#[test]
fn the_type_follows_from_the_fees_if_it_is_missing() {
    assert!(matches!(payload(without("type")), Payload::Transaction(TransactionRequest::Eip1559(_))));
    for (fees, kind) in [
        (json!({ "gasPrice": 1 }), "0x0"),
        (json!({ "gasPrice": 1, "accessList": [] }), "0x1"),
        (json!({ "maxFeePerGas": 1, "maxPriorityFeePerGas": 1 }), "0x2"),
    ] {
        let mut document =
            json!({ "kind": "transaction", "chainId": 1, "nonce": 0, "to": null, "gas": 1, "data": "0x60" });
        document.as_object_mut().unwrap().extend(fees.as_object().unwrap().clone());
        let said = serde_json::to_value(payload(document.clone())).unwrap();
        assert_eq!(said["type"], kind, "{document}");
    }
    assert!(problem(with("type", "0x3")).starts_with("type: "));
}

#[test]
fn access_lists_point_at_the_wrong_key() {
    let list = json!([
        { "address": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "storageKeys": [format!("0x{}", "00".repeat(32)), "0x00"] },
    ]);
    assert!(problem(with("accessList", list)).starts_with("accessList[0].storageKeys[1]: "));
}

fn quantity(bits: u32) -> impl Strategy<Value = Value> {
    (any::<u128>(), 0..3_u8).prop_map(move |(number, form)| {
        let number = if bits < 128 { number & ((1 << bits) - 1) } else { number };
        match form {
            0 => format!("{number:#x}").into(),
            1 => number.to_string().into(),
            _ => u64::try_from(number).map_or_else(|_| number.to_string().into(), Into::into),
        }
    })
}

proptest! {
    #[test]
    fn what_is_written_back_has_the_same_digest(
        (chain, nonce, value, gas) in (1..u64::MAX / 4, quantity(64), quantity(128), quantity(64)),
        (kind, fee, to) in (0..3_u8, quantity(128), prop::option::of(any::<[u8; 20]>())),
        data in prop::collection::vec(any::<u8>(), 1..80),
        keys in prop::collection::vec(any::<[u8; 32]>(), 0..3),
    ) {
        let list = json!([{
            "address": format!("0x{}", "22".repeat(20)),
            "storageKeys": keys.iter().map(|k| format!("0x{}", hex::encode(k))).collect::<Vec<_>>(),
        }]);
        let mut document = json!({
            "kind": "transaction", "type": kind, "chainId": chain, "nonce": nonce, "value": value, "gas": gas,
            "to": to.map(|to| format!("0x{}", hex::encode(to))), "data": format!("0x{}", hex::encode(data)),
        });
        if kind < 2 {
            document["gasPrice"] = fee;
        } else {
            document["maxFeePerGas"] = fee.clone();
            document["maxPriorityFeePerGas"] = fee;
        }
        if kind > 0 {
            document["accessList"] = list;
        }
        let read = payload(document);
        let written = serde_json::to_value(&read).unwrap();
        prop_assert_eq!(hash(written.clone()), hex::encode(read.digest().unwrap()));
        prop_assert_eq!(payload(written), read);
    }

    #[test]
    fn no_document_panics(text in "\\PC{0,200}") {
        let _ = Payload::from_json(text.as_bytes());
    }
}
