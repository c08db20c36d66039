//! Policies: what the parties of a wallet sign, and what they do not, whoever asks them.
//!
//! The wallet's owner writes a [`Policy`] as a JSON document, signs its exact bytes, and gives it
//! to the parties. Each holds it and decides by it alone: [`Policy::decide`] is a pure function of
//! the policy and of what is known of a request ([`Facts`]); the time is passed in, and so is what
//! was spent before ([`Limit::admits`]).
//!
//! A request passes if **some rule allows it and has room for it**; the first that does is the one
//! that decided, and its limits are charged together with those of the whole wallet. Rules only
//! allow, so that taking one away, or narrowing it, never lets anything more pass. What a rule does
//! not mention it does not allow: no chain, no destination, no value, no call. A policy without
//! rules allows nothing.
//!
//! A policy that replaces another narrows at once and widens after the other's delay: until then a
//! request has to pass both.

mod document;
mod engine;
mod request;
mod warnings;

use std::collections::BTreeSet;

use alloy_primitives::U256;
use duet_protocol::ids::WalletId;

pub use self::{
    document::{PolicyError, SignedPolicy},
    engine::{Condition, Decision, Facts, Spend, SpendLimit, SpendOption, Usage},
    request::{
        DatedApproval, HeldPolicy, PolicyReceipt, PolicyReply, PolicyRequest, ReceiptError, RequestApproval,
        SignedReceipt,
    },
    warnings::{Unbounded, Warning},
};
use crate::{PayloadKindTag, request::Pair};

/// The largest policy document in bytes.
pub const MAX_POLICY_SIZE_BYTES: usize = 64 * 1024;
/// The version of the policy document this build reads.
pub const POLICY_VERSION: u8 = 1;
/// The most rules a policy has.
pub const MAX_RULES: usize = 32;
/// The most members a list in a policy has.
pub const MAX_LIST: usize = 512;
/// The most limits a rule, or the wallet, has.
pub const MAX_LIMITS: usize = 4;
/// The longest window of a limit, in seconds: 31 days.
pub const MAX_WINDOW_S: u64 = 31 * 24 * 60 * 60;
/// The longest delay of a change, in seconds: 31 days.
pub const MAX_DELAY_S: u64 = 31 * 24 * 60 * 60;

/// What is allowed with a wallet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The wallet.
    pub wallet: WalletId,
    /// Rises with every change; a party takes no lower one.
    pub revision: u64,
    /// How long a later change that widens this policy waits before it counts, in seconds.
    pub delay_s: u64,
    /// Limits of the whole wallet, whichever rule allows.
    pub limits: Vec<Limit>,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// Anything, or only what is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed<T> {
    /// `"any"`.
    Any,
    /// A list; an empty one allows nothing.
    Only(BTreeSet<T>),
}

impl<T: Ord> Allowed<T> {
    /// Nothing.
    #[must_use]
    pub const fn nothing() -> Self {
        Self::Only(BTreeSet::new())
    }

    /// Whether `item` is allowed. What is not known is allowed only where anything is.
    #[must_use]
    pub fn allows(&self, item: Option<&T>) -> bool {
        match self {
            Self::Any => true,
            Self::Only(items) => item.is_some_and(|item| items.contains(item)),
        }
    }
}

/// An upper bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// `"any"`.
    None,
    /// At most this, in wei.
    AtMost(U256),
}

impl Bound {
    /// Whether `value` is within it.
    #[must_use]
    pub fn allows(&self, value: U256) -> bool {
        match self {
            Self::None => true,
            Self::AtMost(most) => value <= *most,
        }
    }
}

/// So many wei.
#[must_use]
pub fn wei(value: u64) -> U256 {
    U256::from(value)
}

/// How a transaction calls its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// `"transfer"`: not at all, it has no data.
    Transfer,
    /// A function, by the four bytes that select it.
    Function([u8; 4]),
}

/// One way to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it is called in refusals and in the audit log; unlike all others.
    pub name: String,
    /// Who may ask. Default any requester of the wallet.
    pub requesters: Allowed<[u8; 32]>,
    /// For what kinds of payload. Required.
    pub payloads: BTreeSet<PayloadKindTag>,
    /// Which pairs may sign. Default any.
    pub pairs: Allowed<Pair>,
    /// On which chains: a transaction's, or that of typed data's domain. Default none.
    pub chains: Allowed<u64>,
    /// To which addresses: a transaction's destination, or typed data's verifying contract. Default
    /// none.
    pub to: Allowed<[u8; 20]>,
    /// Whether contracts may be created. Default no.
    pub create_contracts: bool,
    /// Which functions may be called. Default transfers without data.
    pub calls: Allowed<Call>,
    /// The most one transaction transfers. Default 0.
    pub max_value: Bound,
    /// The most one transaction's fee may come to, gas limit times the highest price. Default 0.01
    /// ether.
    pub max_fee: Bound,
    /// Which primary types of typed data. Default none.
    pub primary_types: Allowed<String>,
    /// When; no window means at any time.
    pub times: Vec<Window>,
    /// How much over time.
    pub limits: Vec<Limit>,
    /// Whose approvals it takes.
    pub approvals: Option<Approvals>,
    /// Above which value the owner has to agree: by the device taking part, or by an approval with
    /// the owner's key. Default never. Only a transaction's ether is compared: see
    /// [`Policy::warnings`].
    pub owner_above: Bound,
}

/// A time of the week, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// On which days, from 0 for Monday.
    pub days: BTreeSet<u8>,
    /// From this minute of the day …
    pub from_minute: u16,
    /// … until before this one.
    pub until_minute: u16,
}

/// How much may be signed within a time that ends now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The time in seconds.
    pub within_s: u64,
    /// The most value of all transactions in it.
    pub value: Bound,
    /// The most signatures in it.
    pub signatures: Option<u64>,
}

/// So many of these keys have to approve a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approvals {
    /// Whose Ed25519 approvals count.
    pub keys: BTreeSet<[u8; 32]>,
    /// How many it takes; at least one, at most all.
    pub threshold: u8,
}
