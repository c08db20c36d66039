//! A policy and its rules.

use std::collections::BTreeSet;

use alloy_primitives::U256;
use duet_protocol::ids::WalletId;

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

/// What a wallet's owner allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The wallet.
    pub wallet: WalletId,
    /// Rises with every change. A party accepts no lower one.
    pub revision: u64,
    /// How long a later change that widens this policy waits before it applies, in seconds.
    pub delay_s: u64,
    /// Limits of the whole wallet, whichever rule allows a request.
    pub limits: Vec<Limit>,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// Either anything, or only the listed items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed<T> {
    /// `"any"`.
    Any,
    /// A list; an empty one allows nothing.
    Only(BTreeSet<T>),
}

impl<T: Ord> Allowed<T> {
    /// Allows nothing.
    #[must_use]
    pub const fn nothing() -> Self {
        Self::Only(BTreeSet::new())
    }

    /// Whether `item` is allowed. An unknown item is allowed only where anything is.
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
    /// Whether `value` is within the bound.
    #[must_use]
    pub fn allows(&self, value: U256) -> bool {
        match self {
            Self::None => true,
            Self::AtMost(most) => value <= *most,
        }
    }
}

/// An amount of `value` wei.
#[must_use]
pub fn wei(value: u64) -> U256 {
    U256::from(value)
}

/// How a transaction calls its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// `"transfer"`: a plain transfer without data.
    Transfer,
    /// A function, by the four bytes that select it.
    Function([u8; 4]),
}

/// One way in which a request is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name in refusals and in the audit log. Names are unique in a policy.
    pub name: String,
    /// The requesters that may ask. Default any requester of the wallet.
    pub requesters: Allowed<[u8; 32]>,
    /// The kinds of payload. Required.
    pub payloads: BTreeSet<PayloadKindTag>,
    /// The pairs that may sign. Default any.
    pub pairs: Allowed<Pair>,
    /// The chains: a transaction's, or that of typed data's domain. Default none.
    pub chains: Allowed<u64>,
    /// The addresses: a transaction's destination, or typed data's verifying contract. Default
    /// none.
    pub to: Allowed<[u8; 20]>,
    /// Whether a transaction may create a contract. Default no.
    pub create_contracts: bool,
    /// The functions that a transaction may call. Default only transfers without data.
    pub calls: Allowed<Call>,
    /// The most that one transaction may transfer. Default 0.
    pub max_value: Bound,
    /// The most that one transaction's fee may be: gas limit times the highest price. Default 0.01
    /// ether.
    pub max_fee: Bound,
    /// The primary types of typed data. Default none.
    pub primary_types: Allowed<String>,
    /// The times at which it allows requests. Without a window: at any time.
    pub times: Vec<Window>,
    /// How much it allows over time.
    pub limits: Vec<Limit>,
    /// The approvals that a request needs.
    pub approvals: Option<Approvals>,
    /// Above which value the owner has to agree, either by the device in the pair or by an approval
    /// with the owner's key. Default never. It compares only a transaction's ether: see
    /// [`Policy::warnings`].
    pub owner_above: Bound,
}

/// A time of the week, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The days, from 0 for Monday.
    pub days: BTreeSet<u8>,
    /// From this minute of the day …
    pub from_minute: u16,
    /// … until before this one.
    pub until_minute: u16,
}

/// How much may be signed within a span of time that ends now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The span, in seconds.
    pub within_s: u64,
    /// The most value of all transactions within the span, in wei.
    pub value: Bound,
    /// The most signatures within the span.
    pub signatures: Option<u64>,
}

/// How many of which keys have to approve a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approvals {
    /// The Ed25519 keys whose approvals count.
    pub keys: BTreeSet<[u8; 32]>,
    /// How many approvals are needed: at least one, at most one for each key.
    pub threshold: u8,
}
