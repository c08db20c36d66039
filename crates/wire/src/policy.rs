//! Policies: what the parties of a wallet sign and what they refuse, whichever requester asks.
//!
//! The wallet's owner writes a [`Policy`] as a JSON document, signs its exact bytes, and gives it
//! to the parties. Each party stores it and decides by it alone. [`Policy::decide`] is a pure
//! function of the policy and the [`Facts`] of a request. The caller passes the time in, and also
//! what was spent before ([`Limit::admits`]).
//!
//! A request passes if **some rule allows it and has room for it**. The first such rule decides,
//! and its limits are charged together with those of the whole wallet. Rules only allow. So a
//! policy that loses a rule, or has one narrowed, never allows more. A rule does not allow what it
//! does not mention: no chain, no destination, no value, no call. A policy without rules allows
//! nothing.
//!
//! A policy that replaces another narrows at once and widens after the other's delay. Until then a
//! request has to pass both.
//! request has to pass both.

mod document;
mod engine;
mod request;
mod rules;
mod warnings;

pub use self::{
    document::{PolicyError, SignedPolicy},
    engine::{Condition, Decision, Facts, Spend, SpendLimit, SpendOption, Usage},
    request::{
        DatedApproval, HeldPolicy, PolicyReceipt, PolicyReply, PolicyRequest, ReceiptError, RequestApproval,
        SignedReceipt,
    },
    rules::{
        Allowed, Approvals, Bound, Call, Limit, MAX_DELAY_S, MAX_LIMITS, MAX_LIST, MAX_POLICY_SIZE_BYTES,
        MAX_RULES, MAX_WINDOW_S, POLICY_VERSION, Policy, Rule, Window, wei,
    },
    warnings::{Unbounded, Warning},
};
