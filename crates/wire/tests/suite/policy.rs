//! Policies: what they allow by example, that documents are read strictly, and that tightening one
//! never lets anything more pass.

use std::collections::BTreeSet;

use duet_wire::{
    Code, Payload,
    policy::{
        Allowed, Bound, Call, Condition, Decision, Facts, Limit, Policy, Rule, SignedPolicy, Unbounded,
        Usage, Window,
    },
    request::Pair,
    signing::SigningKey,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const REQUESTER: [u8; 32] = [3; 32];
const OWNER: [u8; 32] = [1; 32];
const TO: &str = "0x00000000000000000000000000000000DeaDBeef";
/// A Wednesday, 12:00 UTC.
const NOON_S: u64 = 1_764_158_400;

fn policy(rules: Value) -> Policy {
    let document = json!({
        "version": 1, "wallet": "05".repeat(32), "revision": 1, "rules": rules,
    });
    Policy::from_json(document.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}: {document}"))
}

fn transfer(changes: Value) -> Payload {
    let mut payload = json!({
        "kind": "transaction", "chainId": 1, "nonce": 0, "to": TO, "value": "5", "gas": 21000,
        "maxFeePerGas": "1000000000", "maxPriorityFeePerGas": "1",
    });
    payload.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    Payload::from_json(payload.to_string().as_bytes()).unwrap()
}

fn decide_as(policy: &Policy, payload: &Payload, change: impl FnOnce(&mut Facts<'_>)) -> Decision {
    let no_approver = BTreeSet::new();
    let mut facts = Facts {
        requester: &REQUESTER,
        payload,
        pair: Pair::ServicePartner,
        now_s: NOON_S,
        owner: &OWNER,
        approved_by: &no_approver,
    };
    change(&mut facts);
    policy.decide(&facts)
}

fn decide(policy: &Policy, payload: &Payload) -> Decision {
    decide_as(policy, payload, |_| {})
}

fn lacks(decision: &Decision) -> Option<Condition> {
    match decision {
        Decision::Allowed { .. } => None,
        Decision::Refused { condition, .. } => Some(condition.unwrap()),
    }
}

fn payouts() -> Value {
    json!({
        "name": "payouts", "payloads": ["transaction"], "chains": [1], "to": [TO], "max_value": "10",
        "max_fee": "100000000000000",
    })
}

fn with(field: &str, value: Value) -> Policy {
    let mut rule = payouts();
    rule[field] = value;
    policy(json!([rule]))
}

#[test]
fn a_policy_without_rules_and_a_rule_without_fields_allow_nothing() {
    let decision = decide(&policy(json!([])), &transfer(json!({})));
    assert_eq!(decision.refusal().unwrap().code, Code::PolicyRefused);
    assert_eq!(decision.rule(), None);
    let bare = policy(json!([{"name": "bare", "payloads": ["transaction", "typed_data"]}]));
    let decision = decide(&bare, &transfer(json!({"value": "0"})));
    assert_eq!((lacks(&decision), decision.rule()), (Some(Condition::Chain), Some("bare")));
}

#[test]
fn a_transaction_has_to_meet_every_condition() {
    let payouts = policy(json!([payouts()]));
    let lack = |changes: Value| lacks(&decide(&payouts, &transfer(changes)));
    assert_eq!(lack(json!({})), None);
    assert_eq!(lack(json!({"value": "10"})), None, "just the most");
    assert_eq!(lack(json!({"value": "11"})), Some(Condition::Value));
    assert_eq!(lack(json!({"chainId": 5})), Some(Condition::Chain));
    assert_eq!(lack(json!({"to": format!("0x{}", "11".repeat(20))})), Some(Condition::Destination));
    assert_eq!(lack(json!({"to": null, "data": "0x60"})), Some(Condition::Creation));
    assert_eq!(lack(json!({"data": "0xa9059cbb"})), Some(Condition::Call));
    assert_eq!(lack(json!({"gas": 1_000_000})), Some(Condition::Fee));
    // A transaction without a chain id holds on every chain.
    let everywhere = json!({"chainId": null, "gasPrice": "1", "type": "legacy"});
    let mut legacy = json!({"kind": "transaction", "nonce": 0, "to": TO, "value": "5", "gas": 21000});
    legacy.as_object_mut().unwrap().extend(everywhere.as_object().unwrap().clone());
    let legacy = Payload::from_json(legacy.to_string().as_bytes()).unwrap();
    assert_eq!(lacks(&decide(&payouts, &legacy)), Some(Condition::Chain));
    assert_eq!(lacks(&decide(&with("chains", json!("any")), &legacy)), None);
}

#[test]
fn calls_are_told_apart_by_their_selector() {
    let token = with("calls", json!(["0xa9059cbb"]));
    let lack = |data: &str| lacks(&decide(&token, &transfer(json!({"data": data}))));
    assert_eq!(lack("0xa9059cbb00"), None);
    assert_eq!(lack("0x095ea7b3"), Some(Condition::Call));
    assert_eq!(lack("0x"), Some(Condition::Call), "a transfer is listed by itself");
    assert_eq!(lack("0xa9059c"), Some(Condition::Call), "three bytes select nothing");
    let all = with("calls", json!("any"));
    assert_eq!(lacks(&decide(&all, &transfer(json!({"data": "0xa9059c"})))), None);
}

#[test]
fn kinds_requesters_pairs_and_times_are_conditions_too() {
    let message = Payload::from_json(br#"{"kind":"personal_message","text":"x"}"#).unwrap();
    assert_eq!(lacks(&decide(&policy(json!([payouts()])), &message)), Some(Condition::Payload));
    let talk = policy(json!([{"name": "talk", "payloads": ["personal_message"]}]));
    assert_eq!(lacks(&decide(&talk, &message)), None);

    let others = with("requesters", json!(["04".repeat(32)]));
    assert_eq!(lacks(&decide(&others, &transfer(json!({})))), Some(Condition::Requester));
    let own = with("requesters", json!(["03".repeat(32)]));
    assert_eq!(lacks(&decide(&own, &transfer(json!({})))), None);

    let device = with("pairs", json!(["device+service"]));
    assert_eq!(lacks(&decide(&device, &transfer(json!({})))), Some(Condition::Pair));
    let decision = decide_as(&device, &transfer(json!({})), |facts| facts.pair = Pair::DeviceService);
    assert_eq!(lacks(&decision), None);

    let office = with("times", json!([{"days": ["mon", "wed"], "from": "09:00", "until": "17:00"}]));
    let at = |now_s| lacks(&decide_as(&office, &transfer(json!({})), |facts| facts.now_s = now_s));
    const HOUR: u64 = 60 * 60;
    assert_eq!(at(NOON_S), None);
    assert_eq!(at(NOON_S - 3 * HOUR), None, "09:00");
    assert_eq!(at(NOON_S - 3 * HOUR - 1), Some(Condition::Time));
    assert_eq!(at(NOON_S + 5 * HOUR - 1), None);
    assert_eq!(at(NOON_S + 5 * HOUR), Some(Condition::Time), "17:00");
    assert_eq!(at(NOON_S + 24 * HOUR), Some(Condition::Time), "Thursday");
    assert_eq!(at(NOON_S + 5 * 24 * HOUR), None, "Monday");
}

#[test]
fn typed_data_is_known_by_chain_contract_and_primary_type() {
    let typed = json!({
        "kind": "typed_data",
        "types": {
            "EIP712Domain": [{"name": "chainId", "type": "uint256"}, {"name": "verifyingContract", "type": "address"}],
            "Permit": [{"name": "spender", "type": "address"}],
        },
        "primaryType": "Permit",
        "domain": {"chainId": 1, "verifyingContract": TO},
        "message": {"spender": TO},
    });
    let narrow = {
        let mut narrow = typed.clone();
        narrow["types"]["EIP712Domain"] = json!([{"name": "name", "type": "string"}]);
        narrow["domain"]["name"] = "x".into();
        Payload::from_json(narrow.to_string().as_bytes()).unwrap()
    };
    let typed = Payload::from_json(typed.to_string().as_bytes()).unwrap();
    let rule = |chains: Value, to: Value, primary: Value| {
        policy(json!([{"name": "permits", "payloads": ["typed_data"], "chains": chains, "to": to,
            "primary_types": primary}]))
    };
    let lack = |policy: Policy| lacks(&decide(&policy, &typed));
    assert_eq!(lack(rule(json!([1]), json!([TO]), json!(["Permit"]))), None);
    assert_eq!(lack(rule(json!([5]), json!([TO]), json!(["Permit"]))), Some(Condition::Chain));
    assert_eq!(lack(rule(json!([1]), json!([]), json!(["Permit"]))), Some(Condition::Destination));
    assert_eq!(lack(rule(json!([1]), json!([TO]), json!(["Order"]))), Some(Condition::PrimaryType));
    // Members that the domain's type does not cover count as absent: the signature holds anywhere.
    let lack = |policy: Policy| lacks(&decide(&policy, &narrow));
    assert_eq!(lack(rule(json!([1]), json!([TO]), json!(["Permit"]))), Some(Condition::Chain));
    assert_eq!(lack(rule(json!("any"), json!([TO]), json!(["Permit"]))), Some(Condition::Destination));
    assert_eq!(lack(rule(json!("any"), json!("any"), json!(["Permit"]))), None);
}

#[test]
fn approvals_and_the_owners_word_are_counted() {
    let key = |byte: u8| [byte; 32];
    let two = with(
        "approvals",
        json!({"keys": ["0a".repeat(32), "0b".repeat(32), "0c".repeat(32)], "threshold": 2}),
    );
    let by = |policy: &Policy, keys: &[u8], pair: Pair| {
        let approved: BTreeSet<_> = keys.iter().map(|byte| key(*byte)).collect();
        let payload = transfer(json!({}));
        let facts = Facts {
            requester: &REQUESTER,
            payload: &payload,
            pair,
            now_s: NOON_S,
            owner: &OWNER,
            approved_by: &approved,
        };
        lacks(&policy.decide(&facts))
    };
    let pair = Pair::ServicePartner;
    assert_eq!(by(&two, &[10], pair), Some(Condition::Approvals));
    assert_eq!(by(&two, &[10, 99], pair), Some(Condition::Approvals), "a stranger's does not count");
    assert_eq!(by(&two, &[10, 12], pair), None);
    assert_eq!(Condition::Approvals.code(), Code::ApprovalMissing);

    let above = with("owner_above", json!("4"));
    assert_eq!(by(&above, &[], pair), Some(Condition::Owner));
    assert_eq!(by(&above, &[1], pair), None, "the owner's key");
    assert_eq!(by(&above, &[], Pair::DevicePartner), None, "the owner's device takes part");
    assert_eq!(by(&with("owner_above", json!("5")), &[], pair), None, "not above");
    // A party whose policy has no such rule need not look up approvals.
    assert!(two.asks_for_approvals() && above.asks_for_approvals());
    let plain = with("max_value", json!("any"));
    assert!(!plain.asks_for_approvals());
    assert_eq!(by(&plain, &[], pair), by(&plain, &[1, 10, 12], pair));
}

#[test]
fn the_first_rule_that_allows_decides_and_names_its_limits() {
    let mut large = payouts();
    large["name"] = json!("large");
    large["max_value"] = json!("any");
    large["limits"] = json!([{"within": "24h", "value": "1000"}, {"within": "1h", "signatures": 3}]);
    let document = json!({
        "version": 1, "wallet": "05".repeat(32), "revision": 1, "rules": [payouts(), large],
        "limits": [{"within": "7d", "signatures": 100}],
    });
    let policy = Policy::from_json(document.to_string().as_bytes()).unwrap();
    assert_eq!(decide(&policy, &transfer(json!({}))).rule(), Some("payouts"));
    let Decision::Allowed { rule, spend } = decide(&policy, &transfer(json!({"value": "11"}))) else {
        panic!()
    };
    let scopes: Vec<_> =
        spend.options[0].limits.iter().map(|limit| (limit.scope.as_str(), limit.limit.within_s)).collect();
    assert_eq!(rule, "large");
    assert_eq!(scopes, [("rule/large", 86_400), ("rule/large", 3600), ("wallet", 604_800)]);
    assert_eq!(spend.value[31], 11);
    // The one that comes nearest is named in a refusal.
    let refused = decide(&policy, &transfer(json!({"value": "11", "gas": 1_000_000})));
    assert_eq!((refused.rule(), lacks(&refused)), (Some("large"), Some(Condition::Fee)));
    let message = refused.refusal().unwrap().message;
    assert!(message.contains("large") && message.contains("max_fee"), "{message}");
}

#[test]
fn a_limit_has_room_until_it_is_full() {
    let limit = Limit { within_s: 60, value: Bound::AtMost(alloy(10)), signatures: Some(3) };
    let wei = |value: u8| {
        let mut bytes = [0; 32];
        bytes[31] = value;
        bytes
    };
    let used = |value: u8, signatures: u64| Usage { value: wei(value), signatures };
    assert!(limit.admits(&used(0, 0), &wei(10)));
    assert!(!limit.admits(&used(1, 1), &wei(10)));
    assert!(limit.admits(&used(1, 2), &wei(9)));
    assert!(!limit.admits(&used(0, 3), &wei(0)), "the fourth signature");
    assert!(!limit.admits(&Usage { value: [0xff; 32], signatures: 0 }, &wei(1)), "no wrapping around");
}

fn alloy(value: u64) -> alloy_primitives::U256 {
    alloy_primitives::U256::from(value)
}

#[test]
fn documents_are_read_strictly() {
    let refused = |change: fn(&mut Value)| {
        let mut document = json!({
            "version": 1, "wallet": "05".repeat(32), "revision": 1, "delay": "24h", "rules": [payouts()],
        });
        change(&mut document);
        Policy::from_json(document.to_string().as_bytes()).unwrap_err().to_string()
    };
    for (change, path) in [
        ((|d| d["rulez"] = json!([])) as fn(&mut Value), "rulez"),
        (|d| d["rules"][0]["max_valu"] = json!("1"), "rules[0].max_valu"),
        (|d| d["rules"][0]["to"] = json!("everyone"), "rules[0].to"),
        (|d| d["rules"][0]["to"] = json!(["0x12"]), "rules[0].to[0]"),
        (|d| d["rules"][0]["to"] = json!([TO, TO]), "rules[0].to"),
        (|d| d["rules"][0]["chains"] = json!(null), "rules[0].chains"),
        (|d| d["rules"][0]["calls"] = json!(["0xa9"]), "rules[0].calls[0]"),
        (|d| d["rules"][0]["max_value"] = json!(-1), "rules[0].max_value"),
        (|d| d["rules"][0]["limits"] = json!([{"within": "24h"}]), "rules[0].limits[0]"),
        (
            |d| d["rules"][0]["limits"] = json!([{"within": "1s", "signatures": 1}]),
            "rules[0].limits[0].within",
        ),
        (
            |d| d["rules"][0]["times"] = json!([{"from": "22:00", "until": "06:00"}]),
            "rules[0].times[0].until",
        ),
        (|d| d["rules"][0]["times"] = json!([{"from": "9:00", "until": "10:00"}]), "rules[0].times[0].from"),
        (
            |d| d["rules"][0]["approvals"] = json!({"keys": [], "threshold": 0}),
            "rules[0].approvals.threshold",
        ),
        (|d| d["rules"][0]["name"] = json!("a b"), "rules[0].name"),
        (|d| d["rules"] = json!([payouts(), payouts()]), "rules"),
        (|d| d["delay"] = json!("32d"), "delay"),
        (|d| d["delay"] = json!("99999999999999999999d"), "delay"),
        (|d| d["revision"] = json!(0), "revision"),
        (|d| d["version"] = json!(2), "version"),
    ] {
        let message = refused(change);
        assert!(message.contains(path), "{path}: {message}");
    }
}

#[test]
fn only_the_owners_signature_makes_a_policy() {
    let owner = SigningKey::from_bytes(&[1; 32]);
    let body = json!({"version": 1, "wallet": "05".repeat(32), "revision": 1, "rules": []}).to_string();
    let signed = SignedPolicy::sign(body.clone().into_bytes(), &owner).unwrap();
    let key = owner.verifying_key().to_bytes();
    assert_eq!(signed.verify(&key).unwrap().revision, 1);
    assert!(signed.verify(&[3; 32]).is_err());
    let mut altered = signed.clone();
    altered.body = body.replace("\"revision\":1", "\"revision\":2").into_bytes();
    assert!(altered.verify(&key).is_err());
    assert!(SignedPolicy::sign(b"{}".to_vec(), &owner).is_err());
}

#[test]
fn the_schema_names_the_fields_that_are_read() {
    let schema: Value = serde_json::from_str(include_str!("../../../../docs/policy.schema.json")).unwrap();
    let fields = |pointer: &str| {
        let object = schema.pointer(pointer).unwrap();
        assert_eq!(object["additionalProperties"], false, "{pointer}");
        object["properties"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>()
    };
    // What is unknown to the reader is refused with the list of what is known.
    let known = |document: Value| {
        let message = Policy::from_json(document.to_string().as_bytes()).unwrap_err().to_string();
        let (_, list) = message.split_once("the fields here are ").unwrap();
        list.split(", ").map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let document =
        |rule: Value| json!({"version": 1, "wallet": "05".repeat(32), "revision": 1, "rules": [rule]});
    let rule = |field: &str, value: Value| {
        let mut rule = payouts();
        rule[field] = value;
        document(rule)
    };
    assert_eq!(fields(""), known(json!({"?": 1})));
    assert_eq!(fields("/$defs/rule"), known(document(json!({"?": 1}))));
    assert_eq!(fields("/$defs/limit"), known(rule("limits", json!([{"?": 1}]))));
    assert_eq!(fields("/$defs/window"), known(rule("times", json!([{"?": 1}]))));
    assert_eq!(fields("/$defs/rule/properties/approvals"), known(rule("approvals", json!({"?": 1}))));
}

#[test]
fn the_example_of_the_documentation_is_a_policy() {
    let page = include_str!("../../../../docs/policy.md");
    let (_, rest) = page.split_once("```json\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let policy = Policy::from_json(example.as_bytes()).unwrap();
    assert!(policy.rules.len() > 1);
}

fn any_allowed<T: Ord + Clone + core::fmt::Debug + 'static>(
    items: Vec<T>,
) -> impl Strategy<Value = Allowed<T>> {
    let most = items.len();
    prop_oneof![
        1 => Just(Allowed::Any),
        3 => prop::sample::subsequence(items, 0..=most).prop_map(|only| Allowed::Only(only.into_iter().collect())),
    ]
}

fn any_bound() -> impl Strategy<Value = Bound> {
    prop_oneof![Just(Bound::None), (0_u64..12).prop_map(|most| Bound::AtMost(alloy(most)))]
}

prop_compose! {
    fn any_rule(name: &'static str)(
        payloads in prop::sample::subsequence(
            vec![duet_wire::PayloadKindTag::Transaction, duet_wire::PayloadKindTag::PersonalMessage], 0..=2),
        requesters in any_allowed(vec![[3; 32], [4; 32]]),
        pairs in any_allowed(Pair::ALL.to_vec()),
        chains in any_allowed(vec![1, 5]),
        to in any_allowed(vec![[0; 20], [7; 20]]),
        create_contracts in any::<bool>(),
        calls in any_allowed(vec![Call::Transfer, Call::Function([1, 2, 3, 4])]),
        max_value in any_bound(),
        owner_above in any_bound(),
        hours in (0_u16..24, 0_u16..24),
        limit in any_bound(),
    ) -> Rule {
        let times = if hours.0 < hours.1 {
            vec![Window { days: (0..7).collect(), from_minute: hours.0 * 60, until_minute: hours.1 * 60 }]
        } else {
            Vec::new()
        };
        let limits = vec![Limit { within_s: 60, value: limit, signatures: Some(5) }];
        Rule {
            name: name.to_owned(),
            requesters, payloads: payloads.into_iter().collect(), pairs, chains, to, create_contracts, calls,
            max_value, max_fee: Bound::None, primary_types: Allowed::Any, times, limits, approvals: None, owner_above,
        }
    }
}

prop_compose! {
    fn any_policy()(one in any_rule("one"), two in any_rule("two"), count in 0..=2_usize) -> Policy {
        let wallet = duet_protocol::ids::WalletId([5; 32]);
        let rules = [one, two].into_iter().take(count).collect();
        Policy { wallet, revision: 1, delay_s: 0, limits: Vec::new(), rules }
    }
}

fn fewer<T: Ord + Clone>(allowed: &Allowed<T>, all: &[T], keep: u64) -> Allowed<T> {
    let items: BTreeSet<T> = match allowed {
        Allowed::Any => all.iter().cloned().collect(),
        Allowed::Only(items) => items.clone(),
    };
    Allowed::Only(
        items.into_iter().enumerate().filter(|(at, _)| keep >> at & 1 == 1).map(|(_, item)| item).collect(),
    )
}

fn tighter_of(one: Bound, other: Bound) -> Bound {
    match (one, other) {
        (Bound::None, bound) | (bound, Bound::None) => bound,
        (Bound::AtMost(one), Bound::AtMost(two)) => Bound::AtMost(one.min(two)),
    }
}

/// The policy with one thing narrowed.
fn tightened(policy: &Policy, what: u8, keep: u64) -> Policy {
    let mut policy = policy.clone();
    let which = usize::from(what / 16) % policy.rules.len().max(1);
    let Some(rule) = policy.rules.get_mut(which) else { return policy };
    let tighter = Bound::AtMost(alloy(keep % 12));
    match what % 11 {
        0 => rule.requesters = fewer(&rule.requesters, &[[3; 32], [4; 32]], keep),
        1 => rule.pairs = fewer(&rule.pairs, &Pair::ALL, keep),
        2 => rule.chains = fewer(&rule.chains, &[1, 5], keep),
        3 => rule.to = fewer(&rule.to, &[[0; 20], [7; 20]], keep),
        4 => rule.create_contracts = false,
        5 => rule.calls = fewer(&rule.calls, &[Call::Transfer, Call::Function([1, 2, 3, 4])], keep),
        6 => rule.max_value = tighter_of(rule.max_value, tighter),
        7 => rule.owner_above = tighter_of(rule.owner_above, tighter),
        8 => rule.limits[0].value = tighter_of(rule.limits[0].value, tighter),
        9 => {
            rule.payloads.pop_first();
        }
        _ => {
            policy.rules.remove(which);
        }
    }
    policy
}

/// Whether the policy lets it pass after `used`.
fn passes(policy: &Policy, facts: &Facts<'_>, used: impl Fn(&str) -> Usage) -> bool {
    match policy.decide(facts) {
        Decision::Allowed { spend, .. } => spend.options.iter().any(|option| {
            option.limits.iter().all(|limit| limit.limit.admits(&used(&limit.scope), &spend.value))
        }),
        Decision::Refused { .. } => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Narrowing a policy never lets a request pass that it refused before.
    #[test]
    fn tightening_never_allows_more(
        policy in any_policy(), what in any::<u8>(), keep in any::<u64>(),
        requester in prop::sample::select(vec![[3; 32], [4; 32], [9; 32]]),
        pair in prop::sample::select(Pair::ALL.to_vec()),
        chain in prop::sample::select(vec![1_u64, 5, 9]),
        to in prop::sample::select(vec![Some(0_u8), Some(7), Some(9), None]),
        data in prop::sample::select(vec!["0x", "0x01020304", "0x05060708", "0x01"]),
        value in 0_u64..14, hour in 0_u64..24, spent in (0_u64..14, 0_u64..14),
    ) {
        // Creating a contract takes its code.
        let data = if to.is_none() && data == "0x" { "0x60" } else { data };
        let to = to.map(|byte| format!("0x{}", hex::encode([byte; 20])));
        let payload = transfer(json!({"chainId": chain, "to": to, "data": data, "value": value.to_string()}));
        let no_approver = BTreeSet::new();
        let facts = Facts {
            requester: &requester, payload: &payload, pair, now_s: hour * 3600, owner: &OWNER, approved_by: &no_approver,
        };
        let tighter = tightened(&policy, what, keep);
        let allowed = |policy: &Policy| matches!(policy.decide(&facts), Decision::Allowed { .. });
        if allowed(&tighter) {
            prop_assert!(allowed(&policy), "{policy:?}\n{tighter:?}");
        }
        // Nor with what was spent before.
        let used = |scope: &str| {
            let value = if scope == "rule/one" { spent.0 } else { spent.1 };
            Usage { value: alloy(value).to_be_bytes(), signatures: 1 }
        };
        if passes(&tighter, &facts, used) {
            prop_assert!(passes(&policy, &facts, used), "{policy:?}\n{tighter:?}");
        }
    }

    /// Every refusal names a condition of an existing rule, or no rule when the policy has none.
    #[test]
    fn a_refusal_names_a_rule(policy in any_policy(), value in 0_u64..14) {
        let decision = decide(&policy, &transfer(json!({"value": value.to_string()})));
        match &decision {
            Decision::Allowed { rule, .. } => prop_assert!(policy.rules.iter().any(|known| known.name == *rule)),
            Decision::Refused { rule, condition } => {
                prop_assert_eq!(rule.is_some(), !policy.rules.is_empty());
                prop_assert_eq!(rule.is_some(), condition.is_some());
                prop_assert!(decision.refusal().is_some());
            }
        }
    }

    /// No document makes the reader panic, and what it reads it reads again.
    #[test]
    fn the_reader_takes_anything(body in prop::collection::vec(any::<u8>(), 0..300)) {
        Policy::from_json(&body).ok();
    }
}

#[test]
fn a_sum_that_does_not_fit_has_no_room() {
    let most = alloy_primitives::U256::MAX;
    let limit = |value| Limit { within_s: 60, value, signatures: None };
    let used = Usage { value: most.to_be_bytes(), signatures: 1 };
    // The largest bound is still a bound, and a limit without one counts no further.
    for value in [Bound::AtMost(most), Bound::None] {
        assert!(limit(value).admits(&Usage::default(), &most.to_be_bytes()));
        assert!(limit(value).admits(&used, &[0; 32]));
        assert!(!limit(value).admits(&used, &alloy(1).to_be_bytes()), "{value:?}");
    }
    assert_eq!(used.plus(&used), None);
    let counted = Usage { signatures: u64::MAX, ..Usage::default() };
    assert_eq!(counted.plus(&Usage::of_one([0; 32])), None);
    assert!(!limit(Bound::None).admits(&counted, &[0; 32]));
}

#[test]
fn an_owner_above_beside_payloads_without_a_value_brings_a_warning() {
    let rule = |changes: Value| {
        let mut rule = json!({
            "name": "team", "payloads": ["transaction"], "chains": [1], "to": [TO], "max_value": "any",
            "owner_above": "0",
        });
        rule.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        policy(json!([rule])).warnings()
    };
    // Transfers of ether alone are bounded, and so is nothing where the owner is not asked.
    assert_eq!(rule(json!({})), []);
    assert_eq!(rule(json!({"calls": ["transfer"]})), []);
    assert_eq!(rule(json!({"calls": "any", "owner_above": "any"})), []);
    assert_eq!(
        rule(json!({"payloads": ["typed_data"], "calls": "any"}))[0].unbounded,
        [Unbounded::TypedData]
    );
    for (changes, unbounded) in [
        (json!({"calls": "any"}), vec![Unbounded::Calls]),
        (json!({"calls": ["transfer", "0xa9059cbb"]}), vec![Unbounded::Calls]),
        (json!({"payloads": ["transaction", "personal_message"]}), vec![Unbounded::PersonalMessage]),
        (
            json!({"payloads": ["transaction", "personal_message", "typed_data", "digest"], "calls": "any"}),
            vec![Unbounded::Calls, Unbounded::TypedData, Unbounded::PersonalMessage, Unbounded::Digest],
        ),
    ] {
        let warnings = rule(changes.clone());
        assert_eq!(warnings.len(), 1, "{changes}");
        assert_eq!((warnings[0].rule.as_str(), &warnings[0].unbounded), ("team", &unbounded), "{changes}");
        let message = &warnings[0].message;
        assert!(message.contains("team") && message.contains("owner_above"), "{message}");
    }
    // What is warned of: it passes without the owner.
    let calls = policy(json!([{
        "name": "team", "payloads": ["transaction"], "chains": [1], "to": [TO], "calls": ["0xa9059cbb"],
        "owner_above": "0",
    }]));
    let all_of_it = format!("0xa9059cbb{}{}", "00".repeat(32), "ff".repeat(32));
    let decision = decide(&calls, &transfer(json!({"value": "0", "data": all_of_it, "gas": 100_000})));
    assert_eq!(decision.rule(), Some("team"));
    assert!(decision.refusal().is_none());
}
