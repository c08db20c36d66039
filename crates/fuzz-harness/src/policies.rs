//! The policy engine, for any document, payload and circumstances. What a policy allows, it also
//! allows with more rules or more approvals. An allowed payload is charged in full, to a rule that
//! exists.

use std::collections::BTreeSet;

use duet_wire::{
    Pair, Payload,
    policy::{Decision, Facts, Policy},
};

const PAIRS: [Pair; 3] = [Pair::DeviceService, Pair::DevicePartner, Pair::ServicePartner];

/// A policy and a payload, both as JSON, and the circumstances, separated by zero bytes. The
/// circumstances are the requester, the pair, the time and the approvers.
pub fn run(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let (Some(policy), Some(payload)) = (parts.next(), parts.next()) else { return };
    let Ok(policy) = Policy::from_json(policy) else { return };
    let Ok(payload) = Payload::from_json(payload) else { return };
    let mut circumstances = parts.next().unwrap_or_default().iter().copied();
    let mut byte = || circumstances.next().unwrap_or_default();
    let (owner, requester) = ([1; 32], [byte(); 32]);
    let pair = PAIRS.get(usize::from(byte() % 3)).copied().unwrap_or(Pair::ServicePartner);
    let now_s = u64::from(u32::from_be_bytes([byte(), byte(), byte(), byte()]));
    let everyone: BTreeSet<[u8; 32]> = (0..=u8::MAX).map(|key| [key; 32]).collect();
    let some: BTreeSet<[u8; 32]> = [[byte(); 32], [byte(); 32]].into();
    let none = BTreeSet::new();
    let facts = |approved_by| Facts {
        requester: &requester,
        payload: &payload,
        pair,
        now_s,
        owner: &owner,
        approved_by,
    };

    let mut before = false;
    for approved_by in [&none, &some, &everyone] {
        let facts = facts(approved_by);
        let decision = policy.decide(&facts);
        assert_eq!(decision, policy.decide(&facts), "the same question has one answer");
        let allowed = decision.refusal().is_none();
        assert!(allowed || !before, "an approval took something away");
        before = allowed;
        if let Decision::Allowed { rule, spend } = &decision {
            assert_eq!(spend.wallet, policy.wallet);
            assert_eq!(spend.options.first().map(|option| &option.rule), Some(rule));
            for option in &spend.options {
                let own = policy.rules.iter().find(|own| own.name == option.rule);
                let limits = own.map(|own| own.limits.len() + policy.limits.len());
                assert_eq!(limits, Some(option.limits.len()), "a limit is left out");
            }
        }
        for without in 0..policy.rules.len() {
            let mut narrower = policy.clone();
            narrower.rules.remove(without);
            assert!(allowed || narrower.decide(&facts).refusal().is_some(), "a rule stood in another's way");
        }
    }
}
