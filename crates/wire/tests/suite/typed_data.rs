//! Typed data: what a document must not be able to do to its signer, or to the machine.

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
    assert!(problem(document).starts_with("message.from.wallet: expected an address"));
}

#[test]
fn the_domain_is_hashed_as_it_is_declared() {
    let mut document = mail();
    document["types"]["EIP712Domain"].as_array_mut().unwrap().swap(0, 1);
    assert_ne!(hash(document), hash(mail()));
    let mut document = mail();
    document["domain"].as_object_mut().unwrap().remove("version");
    assert_eq!(problem(document), "domain.version: missing");
    let mut document = mail();
    document["domain"]["version"] = Value::Null;
    assert!(problem(document).starts_with("domain.version: expected a string, found null"));
    // Undeclared, its type follows from the members that are there, and the digest is the same.
    let mut document = mail();
    document["types"].as_object_mut().unwrap().remove("EIP712Domain");
    document["domain"]["salt"] = Value::Null;
    assert_eq!(hash(document), hash(mail()));
}

#[test]
fn a_member_of_the_domain_that_is_not_covered_decides_nothing() {
    let mut document = mail();
    let covered = payload(document.clone());
    let Payload::TypedData(covered) = covered else { panic!() };
    assert_eq!(covered.chain_id(), Some(1));
    assert!(covered.verifying_contract().is_some());
    document["types"]["EIP712Domain"].as_array_mut().unwrap().truncate(2);
    let narrow = payload(document.clone());
    let not_signed: Vec<_> =
        narrow.describe().unwrap().not_signed.into_iter().map(|member| member.path).collect();
    assert_eq!(not_signed, ["domain.chainId", "domain.verifyingContract"]);
    let Payload::TypedData(narrow) = narrow else { panic!() };
    assert_eq!((narrow.chain_id(), narrow.verifying_contract()), (None, None));
    // A member with another type than the standard's is hashed as declared, and no decision depends
    // on it either.
    document["types"]["EIP712Domain"] =
        json!([{ "name": "chainId", "type": "string" }, { "name": "verifyingContract", "type": "address" }]);
    document["domain"]["chainId"] = "1".into();
    let Payload::TypedData(odd) = payload(document) else { panic!() };
    assert_eq!((odd.chain_id(), odd.verifying_contract()), (None, covered.verifying_contract()));
}

#[test]
fn undeclared_members_are_dropped_only_by_choice() {
    let mut document = mail();
    document["message"]["to"]["nickname"] = "Bobby".into();
    document["domain"]["url"] = "https://example.org".into();
    document["undeclared"] = "refuse".into();
    assert!(problem(document.clone()).contains("unknown field"));
    document["undeclared"] = "maybe".into();
    assert!(problem(document.clone()).starts_with("undeclared: "));
    document["undeclared"] = "drop".into();
    assert_eq!(hash(document.clone()), hash(mail()));
    let dropped = payload(document).describe().unwrap().not_signed;
    let dropped: Vec<_> = dropped.iter().map(|member| (&*member.path, &*member.value)).collect();
    assert_eq!(dropped, [("domain.url", "\"https://example.org\""), ("message.to.nickname", "\"Bobby\"")]);
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
fn types_that_double_with_every_step_cost_nothing() {
    let types: serde_json::Map<_, _> = (0..30)
        .map(|i| {
            let next = if i == 29 { "bool".to_owned() } else { format!("T{}", i + 1) };
            (format!("T{i}"), json!([{ "name": "a", "type": next }, { "name": "b", "type": next }]))
        })
        .collect();
    assert_eq!(problem(document(types.into(), json!({}))), "message.a: missing");
}

#[test]
fn types_that_are_too_long_once_spelt_out_are_refused() {
    // Each struct is spelt out with all that come after it.
    let mut types: serde_json::Map<_, _> = (1..1100)
        .map(|i| (format!("T{i}"), json!([{ "name": "a", "type": format!("T{}[]", (i + 1).min(1099)) }])))
        .collect();
    let all = (1..1100).map(|i| json!({ "name": format!("a{i}"), "type": format!("T{i}") }));
    types.insert("T0".to_owned(), all.collect());
    let message: serde_json::Map<_, _> = (1..1100).map(|i| (format!("a{i}"), json!({ "a": [] }))).collect();
    assert!(problem(document(types.into(), message.into())).contains("spelt out"));
}

#[test]
fn types_may_contain_themselves_through_arrays() {
    let types = json!({ "T0": [{ "name": "a", "type": "T1[]" }], "T1": [{ "name": "b", "type": "T0" }] });
    assert_eq!(hash(document(types.clone(), json!({ "a": [{ "b": { "a": [] } }] }))).len(), 64);
    let endless = json!({ "T0": [{ "name": "a", "type": "T0" }] });
    assert_eq!(problem(document(endless.clone(), json!({ "a": {} }))), "message.a.a: missing");
    assert!(problem(document(endless, json!({ "a": null }))).starts_with("message.a: expected an object"));
}

#[test]
fn types_of_too_many_dimensions_are_refused() {
    let types = json!({ "T0": [{ "name": "a", "type": format!("uint8{}", "[]".repeat(9)) }] });
    assert!(problem(document(types, json!({ "a": [] }))).contains("dimensions"));
}

#[test]
fn names_that_only_one_library_signs_are_refused() {
    let of = |types: Value, message: Value| {
        let mut document = document(types, message);
        document["primaryType"] = "A-B".into();
        document
    };
    let uint = json!([{ "name": "v", "type": "uint8" }]);
    assert_eq!(hash(of(json!({ "A-B": uint }), json!({ "v": 1 }))).len(), 64);
    // viem refuses the name, and ethers these types.
    for types in [
        json!({ "A-B": uint, "Unused": uint }),
        json!({ "A-B": [{ "name": "v", "type": "A-B[]" }] }),
        json!({ "A-B": uint, "EIP712Domain": [{ "name": "chainId", "type": "uint8" }] }),
    ] {
        assert!(problem(of(types, json!({ "v": 1 }))).contains("only one library signs this"));
    }
    // MetaMask would not find what this is made of.
    let types = json!({ "A-B": [{ "name": "v", "type": "C" }], "C": uint });
    assert!(problem(of(types, json!({ "v": { "v": 1 } }))).contains("do not agree"));
    for name in ["", "A(B", "A,B", "A B", "A\"B", "A\u{7}B", "uint7", "bytes33", "__proto__"] {
        let mut document = of(json!({ name: uint }), json!({ "v": 1 }));
        document["primaryType"] = name.into();
        assert!(problem(document).starts_with("types."), "{name}");
    }
}

#[test]
fn an_address_in_capital_letters_needs_ethers_as_the_second_library() {
    let capitals = "0x70997970C51812DC3A010C7D01B50E0D17DC79C8";
    let address = json!([{ "name": "a", "type": "address" }]);
    let mut whole = document(json!({ "T0": address }), json!({ "a": capitals }));
    assert_eq!(hash(whole.clone()).len(), 64);
    // ethers signs every member of a domain that is there, and knows no type of the domain's.
    whole["types"]["EIP712Domain"] = json!([]);
    assert!(problem(whole).starts_with("message.a: an address in capital letters"));
    let types = json!({
        "EIP712Domain": [{ "name": "name", "type": "string" }],
        "T0": [{ "name": "a", "type": "address" }, { "name": "b", "type": "EIP712Domain" }],
    });
    let inside = |a: &str| document(types.clone(), json!({ "a": a, "b": { "name": "y" } }));
    assert!(problem(inside(capitals)).contains("the domain's type"));
    assert_eq!(hash(inside(&capitals.to_lowercase())).len(), 64);
}

#[test]
fn values_are_read_as_strictly_as_those_of_transactions() {
    let problem_of = |kind: &str, value: Value| {
        problem(document(json!({ "T0": [{ "name": "a", "type": kind }] }), json!({ "a": value })))
    };
    let address = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
    for (kind, value) in [
        ("bool", json!("true")),
        ("bool", json!(1)),
        ("bool", json!(null)),
        ("address", json!(address.replace("C8", "c8"))),
        ("address", json!(address.trim_start_matches("0x"))),
        ("address", json!(7)),
        ("bytes", json!("text")),
        ("bytes", json!("0x123")),
        ("bytes", json!("")),
        ("bytes4", json!("0x010203")),
        ("bytes4", json!("0x0102030405")),
        ("string", json!(5)),
        ("string", json!(null)),
        ("uint256", json!("")),
        ("uint256", json!(" 5")),
        ("uint256", json!("1e3")),
        ("uint256", json!("-1")),
        ("uint256", json!(true)),
        ("uint8", json!(256)),
        ("uint8", json!("0x100")),
        ("int8", json!(128)),
        ("int8", json!(-129)),
        ("int8", json!("-0x1")),
        ("int8", json!("--1")),
        ("uint8[2]", json!([1])),
        ("uint8[]", json!({ "0": 1 })),
    ] {
        let problem = problem_of(kind, value.clone());
        assert!(problem.starts_with("message.a: "), "{kind} {value}: {problem}");
    }
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
    let problem = problem(document(types, json!({ "all": [{ "x": 1 }, { "x": 256 }] })));
    assert_eq!(problem, "message.all[1].x: expected at most 8 bits");
}

#[test]
fn types_that_have_no_encoding_are_refused() {
    for kind in [
        "(uint8,uint8)",
        "(uint8)[]",
        "function",
        "uint7",
        "Nobody",
        "uint",
        "int[]",
        "uint264",
        "uint08",
        "bytes0",
        "bytes33",
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
        "T-0",
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
            prop_assert_eq!(payload(serde_json::to_value(&read).unwrap()), read.clone());
            // alloy computes the same digest for documents that it can express.
            let judge: Result<alloy_dyn_abi::TypedData, _> = serde_json::from_str(&text);
            if let Ok(Ok(digest)) = judge.map(|judge| judge.eip712_signing_hash()) {
                prop_assert_eq!(digest.0, read.digest().unwrap());
            }
        }
    }
}
