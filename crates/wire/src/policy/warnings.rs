//! What a policy of version 1 allows although its author may think otherwise.

use core::fmt;

use serde::Serialize;

use super::{Allowed, Bound, Call, Policy, Rule};
use crate::PayloadKindTag;

/// What a rule allows and its `owner_above` does not bound, because the amount is not in the
/// transaction's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unbounded {
    /// Function calls: the tokens that they move are in the transaction's data.
    Calls,
    /// Typed data: a permit is an allowance of any amount.
    TypedData,
    /// Messages: the owner of a Safe can approve by a message.
    PersonalMessage,
    /// Bare digests: they may be of anything.
    Digest,
}

impl fmt::Display for Unbounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Calls => "calls",
            Self::TypedData => "typed data",
            Self::PersonalMessage => "messages",
            Self::Digest => "digests",
        })
    }
}

/// A rule that asks the owner above a value, and also allows payloads without a value to compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The rule.
    pub rule: String,
    /// What passes without the owner, however much it moves. Never empty.
    pub unbounded: Vec<Unbounded>,
    /// The warning as sentences, with the remedy.
    pub message: String,
}

impl Policy {
    /// The rules whose `owner_above` bounds less than it seems to. It compares the ether that a
    /// transaction transfers, but the rule also allows calls, typed data, messages or digests.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        self.rules.iter().filter_map(Rule::warning).collect()
    }
}

impl Rule {
    fn warning(&self) -> Option<Warning> {
        if self.owner_above == Bound::None {
            return None;
        }
        let calls_functions = match &self.calls {
            Allowed::Any => true,
            Allowed::Only(calls) => calls.iter().any(|call| *call != Call::Transfer),
        };
        let unbounded: Vec<Unbounded> = [
            (self.payloads.contains(&PayloadKindTag::Transaction) && calls_functions, Unbounded::Calls),
            (self.payloads.contains(&PayloadKindTag::TypedData), Unbounded::TypedData),
            (self.payloads.contains(&PayloadKindTag::PersonalMessage), Unbounded::PersonalMessage),
            (self.payloads.contains(&PayloadKindTag::Digest), Unbounded::Digest),
        ]
        .into_iter()
        .filter_map(|(is_allowed, what)| is_allowed.then_some(what))
        .collect();
        if unbounded.is_empty() {
            return None;
        }
        let names: Vec<String> = unbounded.iter().map(ToString::to_string).collect();
        let message = format!(
            "rule {}: owner_above compares the ether that a transaction transfers; {} count as 0 and pass without the \
             owner, whatever they move. Put them into a rule of their own, with `pairs` that include the device or \
             with `approvals`.",
            self.name,
            names.join(", "),
        );
        Some(Warning { rule: self.name.clone(), unbounded, message })
    }
}
