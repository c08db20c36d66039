//! The decision: a pure function of a policy and the facts of a request.

use core::fmt;
use std::collections::BTreeSet;

use alloy_primitives::U256;
use duet_protocol::ids::{ShareIndex, WalletId};
use serde::{Deserialize, Serialize};

use super::{Bound, Call, Limit, Policy, Rule, Window};
use crate::{Code, Payload, Refusal, payload::TransactionRequest, request::Pair};

/// The facts of a request at the time of the decision.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The requester.
    pub requester: &'a [u8; 32],
    /// What is to be signed.
    pub payload: &'a Payload,
    /// The pair that is to sign.
    pub pair: Pair,
    /// The time, in seconds since 1970.
    pub now_s: u64,
    /// The wallet's owner.
    pub owner: &'a [u8; 32],
    /// The approvers of exactly this request.
    pub approved_by: &'a BTreeSet<[u8; 32]>,
}

/// A condition of a rule, in the order in which they are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// `payloads`.
    Payload,
    /// `requesters`.
    Requester,
    /// `pairs`.
    Pair,
    /// `chains`.
    Chain,
    /// `create_contracts`.
    Creation,
    /// `to`.
    Destination,
    /// `calls`.
    Call,
    /// `primary_types`.
    PrimaryType,
    /// `max_value`.
    Value,
    /// `max_fee`.
    Fee,
    /// `times`.
    Time,
    /// `approvals`.
    Approvals,
    /// `owner_above`.
    Owner,
}

impl Condition {
    /// What a request lacks when it does not meet the condition.
    const fn lack(self) -> &'static str {
        match self {
            Self::Payload => "the kind of payload is not among its payloads",
            Self::Requester => "the requester is not among its requesters",
            Self::Pair => "the pair is not among its pairs",
            Self::Chain => "the chain is not among its chains",
            Self::Creation => "it does not let contracts be created",
            Self::Destination => "the destination is not among those of `to`",
            Self::Call => "the call is not among its calls",
            Self::PrimaryType => "the primary type is not among its primary_types",
            Self::Value => "the value is above its max_value",
            Self::Fee => "the highest possible fee is above its max_fee",
            Self::Time => "it is outside its times",
            Self::Approvals => "approvals are missing",
            Self::Owner => "above this value the owner has to agree",
        }
    }

    /// The stable code of a refusal for this condition.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Approvals | Self::Owner => Code::ApprovalMissing,
            _ => Code::PolicyRefused,
        }
    }
}

/// A policy's decision on a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Allowed, if the limits of one of the rules that allow it have room for it.
    Allowed {
        /// The first rule that allows it.
        rule: String,
        /// What to charge to which limits.
        spend: Spend,
    },
    /// Refused.
    Refused {
        /// The rule that came nearest to allowing it. `None` when the policy has no rules.
        rule: Option<String>,
        /// The condition of that rule that the request does not meet.
        condition: Option<Condition>,
    },
}

impl Decision {
    /// The refusal, if the decision is one.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        let Self::Refused { rule, condition } = self else { return None };
        let code = condition.map_or(Code::PolicyRefused, Condition::code);
        let message = match (rule, condition) {
            (Some(rule), Some(condition)) => {
                format!(
                    "no rule of the wallet's policy allows this; the nearest is {rule}: {}",
                    condition.lack()
                )
            }
            _ => "the wallet's policy has no rule, so nothing is allowed".to_owned(),
        };
        Some(Refusal::new(code, message))
    }

    /// The rule that decided.
    #[must_use]
    pub fn rule(&self) -> Option<&str> {
        match self {
            Self::Allowed { rule, .. } => Some(rule),
            Self::Refused { rule, .. } => rule.as_deref(),
        }
    }
}

/// What to charge for a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spend {
    /// The wallet that signs.
    pub wallet: WalletId,
    /// The value of the transaction in wei, big endian; zeros for anything else.
    pub value: [u8; 32],
    /// The rules that allow it, in order, with the limits that must have room. The first rule whose
    /// limits all have room is charged. The others are tried so that no rule stands in another's
    /// way. Thus removing a rule never allows more.
    pub options: Vec<SpendOption>,
}

/// One rule that allows a request, and the limits that must have room, the wallet's among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpendOption {
    /// The rule.
    pub rule: String,
    /// The limits.
    pub limits: Vec<SpendLimit>,
}

/// One limit that has to have room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpendLimit {
    /// What it belongs to: `wallet`, or `rule/` and the rule's name.
    pub scope: String,
    /// The limit.
    pub limit: Limit,
}

impl fmt::Display for SpendLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} within {} s", self.scope, self.limit.within_s)
    }
}

/// What has been signed within a limit's span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// The value in wei, big endian.
    pub value: [u8; 32],
    /// How many signatures.
    pub signatures: u64,
}

impl Usage {
    /// The exact sum of both. `None` when it does not fit into 256 bits. No bound can be compared
    /// with such a sum, so there is no room for it.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Option<Self> {
        let value = U256::from_be_bytes(self.value).checked_add(U256::from_be_bytes(other.value))?;
        let signatures = self.signatures.checked_add(other.signatures)?;
        Some(Self { value: value.to_be_bytes(), signatures })
    }

    /// One signature over a transaction of `value`.
    #[must_use]
    pub const fn of_one(value: [u8; 32]) -> Self {
        Self { value, signatures: 1 }
    }
}

impl Limit {
    /// Whether there is room for one more signature over `value` after `used`.
    #[must_use]
    pub fn admits(&self, used: &Usage, value: &[u8; 32]) -> bool {
        used.plus(&Usage::of_one(*value)).is_some_and(|after| {
            self.value.allows(U256::from_be_bytes(after.value))
                && self.signatures.is_none_or(|most| after.signatures <= most)
        })
    }
}

impl Policy {
    /// Whether any rule depends on the approvals of a request.
    #[must_use]
    pub fn asks_for_approvals(&self) -> bool {
        self.rules.iter().any(|rule| rule.approvals.is_some() || rule.owner_above != Bound::None)
    }

    /// Decides on a request. It ignores what was spent before; the answer names the limits to
    /// charge.
    #[must_use]
    pub fn decide(&self, facts: &Facts<'_>) -> Decision {
        let mut nearest: Option<(Condition, &Rule)> = None;
        let mut options = Vec::new();
        for rule in &self.rules {
            match rule.lacks(facts) {
                None => options.push(self.option(rule)),
                Some(condition) => {
                    if nearest.is_none_or(|(farthest, _)| condition > farthest) {
                        nearest = Some((condition, rule));
                    }
                }
            }
        }
        if let Some(SpendOption { rule, .. }) = options.first() {
            let (rule, value) = (rule.clone(), value_of(facts.payload).to_be_bytes());
            return Decision::Allowed { rule, spend: Spend { wallet: self.wallet, value, options } };
        }
        let (condition, rule) = nearest.unzip();
        Decision::Refused { rule: rule.map(|rule| rule.name.clone()), condition }
    }

    /// Whether the rule of this name allows the request only because of an approval.
    #[must_use]
    pub fn needs_approval(&self, rule: &str, payload: &Payload) -> bool {
        self.rules.iter().any(|known| {
            known.name == rule && (known.approvals.is_some() || !known.owner_above.allows(value_of(payload)))
        })
    }

    fn option(&self, rule: &Rule) -> SpendOption {
        let of_rule = rule.limits.iter().map(|limit| (format!("rule/{}", rule.name), limit));
        let of_wallet = self.limits.iter().map(|limit| ("wallet".to_owned(), limit));
        let limits =
            of_rule.chain(of_wallet).map(|(scope, limit)| SpendLimit { scope, limit: *limit }).collect();
        SpendOption { rule: rule.name.clone(), limits }
    }
}

fn transaction(payload: &Payload) -> Option<&TransactionRequest> {
    match payload {
        Payload::Transaction(transaction) => Some(transaction),
        Payload::PersonalMessage(_) | Payload::TypedData(_) | Payload::Digest { .. } => None,
    }
}

fn value_of(payload: &Payload) -> U256 {
    transaction(payload).map_or(U256::ZERO, TransactionRequest::value)
}

impl Rule {
    /// The first condition that the request does not meet.
    fn lacks(&self, facts: &Facts<'_>) -> Option<Condition> {
        let general = [
            (self.payloads.contains(&facts.payload.kind()), Condition::Payload),
            (self.requesters.allows(Some(facts.requester)), Condition::Requester),
            (self.pairs.allows(Some(&facts.pair)), Condition::Pair),
        ];
        let failed = |checks: &[(bool, Condition)]| {
            checks.iter().find(|(holds, _)| !holds).map(|(_, condition)| *condition)
        };
        failed(&general)
            .or_else(|| match facts.payload {
                Payload::Transaction(transaction) => self.lacks_of_transaction(transaction),
                Payload::TypedData(typed) => failed(&[
                    (self.chains.allows(typed.chain_id().as_ref()), Condition::Chain),
                    (self.to.allows(typed.verifying_contract().as_ref()), Condition::Destination),
                    (
                        self.primary_types.allows(Some(&typed.primary_type().to_owned())),
                        Condition::PrimaryType,
                    ),
                ]),
                // Messages and digests have no further conditions.
                Payload::PersonalMessage(_) | Payload::Digest { .. } => None,
            })
            .or_else(|| {
                failed(&[
                    (self.is_time(facts.now_s), Condition::Time),
                    (self.is_approved(facts), Condition::Approvals),
                    (self.owner_agrees(facts), Condition::Owner),
                ])
            })
    }

    fn lacks_of_transaction(&self, transaction: &TransactionRequest) -> Option<Condition> {
        if !self.chains.allows(transaction.chain_id().as_ref()) {
            return Some(Condition::Chain);
        }
        match transaction.to() {
            None if !self.create_contracts => return Some(Condition::Creation),
            // A new contract has no address to list, and its code is not a call.
            None => {}
            Some(to) => {
                if !self.to.allows(Some(&to)) {
                    return Some(Condition::Destination);
                }
                if !self.calls.allows(call(transaction.data()).as_ref()) {
                    return Some(Condition::Call);
                }
            }
        }
        if !self.max_value.allows(transaction.value()) {
            return Some(Condition::Value);
        }
        // Exact: 128 and 64 bits multiply to at most 192.
        let fee = U256::from(transaction.max_fee_per_gas()) * U256::from(transaction.gas_limit());
        (!self.max_fee.allows(fee)).then_some(Condition::Fee)
    }

    fn is_time(&self, now_s: u64) -> bool {
        self.times.is_empty() || self.times.iter().any(|window| window.contains(now_s))
    }

    fn is_approved(&self, facts: &Facts<'_>) -> bool {
        self.approvals.as_ref().is_none_or(|approvals| {
            approvals.keys.intersection(facts.approved_by).count() >= usize::from(approvals.threshold)
        })
    }

    fn owner_agrees(&self, facts: &Facts<'_>) -> bool {
        let takes_part = facts.pair.initiator() == ShareIndex::Device;
        self.owner_above.allows(value_of(facts.payload))
            || takes_part
            || facts.approved_by.contains(facts.owner)
    }
}

/// How `data` calls. `None` when it selects no function but is not empty.
fn call(data: &[u8]) -> Option<Call> {
    match data.split_first_chunk::<4>() {
        Some((selector, _)) => Some(Call::Function(*selector)),
        None => data.is_empty().then_some(Call::Transfer),
    }
}

impl Window {
    fn contains(&self, now_s: u64) -> bool {
        const DAY_S: u64 = 24 * 60 * 60;
        // 1 January 1970 was a Thursday.
        let day = (now_s / DAY_S + 3) % 7;
        let minute = now_s % DAY_S / 60;
        u8::try_from(day).is_ok_and(|day| self.days.contains(&day))
            && (u64::from(self.from_minute)..u64::from(self.until_minute)).contains(&minute)
    }
}
