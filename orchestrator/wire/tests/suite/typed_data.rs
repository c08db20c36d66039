//! Typed data: what it must not be able to do to whoever signs it, or to the machine.

use duet_wire::Payload;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    samples::{hash, payload, problem},
    vectors::mail,
};

#[test]
fn what_the_types_do_not_name_is_refused() {
    let mut document = mail();
    document["message"]["to"]["nickname"] = "Bobby".into();
    assert!(problem(document).starts_with("message.to.nickname: unknown field"));
    let mut document = mail();
    document["domain"]["url"] = "https://example.org".into();
    assert!(problem(document).starts_with("domain.url: unknown field"));
}

#[test]
fn what_the_types_name_must_be_there() {
    let mut document = mail();
    document["message"]["from"].as_object_mut().unwrap().remove("wallet");
    assert_eq!(problem(document), "message.from.wallet: missing");
}

#[test]
fn a_value_that_does_not_fit_its_type_is_refused() {
    let mut document = mail();
    document["message"]["from"]["wallet"] = "0x1234".into();
    assert!(problem(document).contains("does not fit"));
}

#[test]
fn the_declared_domain_must_be_the_one_that_is_hashed() {
    let mut document = mail();
    document["types"]["EIP712Domain"].as_array_mut().unwrap().swap(0, 1);
    assert!(problem(document).starts_with("domain: "));
    let mut document = mail();
    document["domain"].as_object_mut().unwrap().remove("version");
    assert!(problem(document).starts_with("domain: "));
    // Undeclared, it follows from the domain's fields, and the digest is the same.
    let mut document = mail();
    document["types"].as_object_mut().unwrap().remove("EIP712Domain");
    assert_eq!(hash(document), hash(mail()));
}

#[test]
fn what_is_written_back_has_the_same_digest() {
    assert_eq!(hash(serde_json::to_value(payload(mail())).unwrap()), hash(mail()));
}

fn document(types: Value, message: Value) -> Value {
    json!({
        "kind": "typed_data", "types": types, "primaryType": "T0", "domain": { "name": "x" }, "message": message,
    })
}

#[test]
fn types_that_double_with_every_step_are_refused_at_once() {
    let types: serde_json::Map<_, _> = (0..30)
        .map(|i| {
            let next = if i == 29 { "bool".to_owned() } else { format!("T{}", i + 1) };
            (format!("T{i}"), json!([{ "name": "a", "type": next }, { "name": "b", "type": next }]))
        })
        .collect();
    assert!(problem(document(types.into(), json!({}))).contains("spelt out"));
}

#[test]
fn types_that_contain_themselves_are_refused() {
    let types = json!({ "T0": [{ "name": "a", "type": "T1[]" }], "T1": [{ "name": "b", "type": "T0" }] });
    assert!(problem(document(types, json!({ "a": [] }))).contains("contains itself"));
}

#[test]
fn types_too_deep_or_of_too_many_dimensions_are_refused() {
    let types: serde_json::Map<_, _> = (0..100)
        .map(|i| {
            let next = if i == 99 { "bool".to_owned() } else { format!("T{}", i + 1) };
            (format!("T{i}"), json!([{ "name": "a", "type": next }]))
        })
        .collect();
    assert!(problem(document(types.into(), json!({}))).contains("deep"));
    let types = json!({ "T0": [{ "name": "a", "type": format!("uint8{}", "[]".repeat(9)) }] });
    assert!(problem(document(types, json!({ "a": [] }))).contains("dimensions"));
}

#[test]
fn a_primary_type_that_is_no_struct_is_refused() {
    for primary in ["EIP712Domain", "uint256", "Nobody", "Person[]"] {
        let mut document = mail();
        document["primaryType"] = primary.into();
        assert!(problem(document).starts_with("primaryType: "), "{primary}");
    }
}

#[test]
fn arrays_of_structs_are_signed_and_checked_inside() {
    let types =
        json!({ "T0": [{ "name": "all", "type": "T1[2]" }], "T1": [{ "name": "x", "type": "uint8" }] });
    assert_eq!(hash(document(types.clone(), json!({ "all": [{ "x": 1 }, { "x": 2 }] }))).len(), 64);
    assert!(problem(document(types.clone(), json!({ "all": [{ "x": 1 }] }))).contains("does not fit"));
    assert!(
        problem(document(types.clone(), json!({ "all": [{ "x": 1 }, { "x": 2, "y": 3 }] })))
            .starts_with("message.all[1].y: unknown field")
    );
    assert!(problem(document(types, json!({ "all": [{ "x": 1 }, { "x": 256 }] }))).contains("does not fit"));
}

#[test]
fn types_that_have_no_encoding_are_refused() {
    for kind in [
        "(uint8,uint8)",
        "(uint8)[]",
        "function",
        "uint7",
        "Nobody",
        "uint8[",
        "uint8]",
        "uint8[-1]",
        "uint8[0]",
        "uint8[x]",
        "",
        "[]",
        "uint8[] ",
        "tuple",
        "mapping(uint8=>uint8)",
        "T0[][]x",
    ] {
        let types = json!({ "T0": [{ "name": "a", "type": kind }] });
        let problem = problem(document(types, json!({ "a": [1, 2] })));
        assert!(problem.starts_with("types.T0[0].type: "), "{kind}: {problem}");
    }
    let types =
        json!({ "T0": [{ "name": "a", "type": "uint8" }], "uint8": [{ "name": "b", "type": "bool" }] });
    assert!(problem(document(types, json!({ "a": 1 }))).starts_with("types.uint8: "));
}

fn type_name() -> impl Strategy<Value = String> {
    let stems = [
        "uint8",
        "uint256",
        "int8",
        "int256",
        "bool",
        "address",
        "string",
        "bytes",
        "bytes1",
        "bytes32",
        "uint",
        "int",
        "function",
        "T0",
        "T1",
        "T2",
        "EIP712Domain",
        "(bool,T1)",
        "fixed128x18",
        "é",
        "",
    ];
    let suffixes = ["", "", "", "[]", "[2]", "[][1]", "[0]", "["];
    (prop::sample::select(stems.to_vec()), prop::sample::select(suffixes.to_vec()))
        .prop_map(|(a, b)| format!("{a}{b}"))
}

fn message() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "(0x)?[0-9a-f]{0,64}".prop_map(Value::from),
        "-?[0-9]{1,80}".prop_map(Value::from),
        Just(Value::from(format!("0x{}", "11".repeat(20)))),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[abc]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_document_panics_and_what_is_read_is_read_again(
        fields in prop::collection::vec(prop::collection::vec(("[abc]", type_name()), 0..3), 1..4),
        message in message(),
    ) {
        let types: serde_json::Map<_, _> = fields
            .into_iter()
            .enumerate()
            .map(|(i, fields)| {
                let fields = fields.into_iter().map(|(name, kind)| json!({ "name": name, "type": kind }));
                (format!("T{i}"), fields.collect())
            })
            .collect();
        let text = document(types.into(), message).to_string();
        if let Ok(read) = Payload::from_json(text.as_bytes()) {
            prop_assert_eq!(payload(serde_json::to_value(&read).unwrap()), read);
        }
    }
}
