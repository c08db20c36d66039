//! A policy as JSON: read strictly, and kept byte for byte under its owner's signature.

use std::collections::BTreeSet;

use alloy_primitives::U256;
use serde::{Deserialize, Serialize};

use super::{
    Allowed, Approvals, Bound, Call, Limit, MAX_DELAY_S, MAX_LIMITS, MAX_LIST, MAX_POLICY_SIZE_BYTES,
    MAX_RULES, MAX_WINDOW_S, POLICY_VERSION, Policy, Rule, Window,
};
use crate::{
    Code, PayloadKindTag, Refusal,
    encoding::{exact_text, hex_array, parse_address},
    signing::{self, Identity, Purpose},
    strict_json::{self, JsonError, Node},
};

/// The fields of a policy.
pub(crate) const POLICY_FIELDS: [&str; 6] = ["version", "wallet", "revision", "delay", "limits", "rules"];
/// The fields of a rule.
pub(crate) const RULE_FIELDS: [&str; 15] = [
    "name",
    "requesters",
    "payloads",
    "pairs",
    "chains",
    "to",
    "create_contracts",
    "calls",
    "max_value",
    "max_fee",
    "primary_types",
    "times",
    "limits",
    "approvals",
    "owner_above",
];
/// The fields of a limit.
pub(crate) const LIMIT_FIELDS: [&str; 3] = ["within", "value", "signatures"];
/// The fields of a time window.
pub(crate) const WINDOW_FIELDS: [&str; 3] = ["days", "from", "until"];
/// The fields of a rule's approvals.
pub(crate) const APPROVALS_FIELDS: [&str; 2] = ["keys", "threshold"];

/// The largest fee when a rule does not state one: 0.01 ether.
const DEFAULT_MAX_FEE_WEI: u64 = 10_000_000_000_000_000;
/// The longest name of a rule.
const MAX_NAME_LENGTH: usize = 64;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const MINUTES_PER_DAY: u16 = 24 * 60;

/// Why a policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The document is malformed.
    #[error("policy: {0}")]
    Json(#[from] JsonError),
    /// The document has a version that this build does not read.
    #[error("version: this build reads version {POLICY_VERSION} of the policy")]
    UnsupportedVersion,
    /// The wallet's owner did not sign it.
    #[error("the policy is not signed by the wallet's owner")]
    BadSignature(#[from] signing::BadSignature),
}

impl PolicyError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Json(_) => Code::MalformedJson,
            Self::UnsupportedVersion => Code::UnsupportedVersion,
            Self::BadSignature(_) => Code::BadSignature,
        }
    }
}

impl From<PolicyError> for Refusal {
    fn from(error: PolicyError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// With the path of what is wrong, which may be an unknown field.
    pub fn from_json(body: &[u8]) -> Result<Self, PolicyError> {
        let value = strict_json::parse(body, MAX_POLICY_SIZE_BYTES)?;
        let node = Node::root(&value);
        let fields = node.object(&POLICY_FIELDS)?;
        if fields.required("version")?.value.as_u64() != Some(POLICY_VERSION.into()) {
            return Err(PolicyError::UnsupportedVersion);
        }
        let revision = fields.required("revision")?;
        let rules = fields.required("rules")?;
        let policy = Self {
            wallet: fields.required("wallet")?.parse()?,
            revision: revision
                .value
                .as_u64()
                .filter(|number| (1..=i64::MAX.unsigned_abs()).contains(number))
                .ok_or_else(|| revision.error("expected a number from 1"))?,
            delay_s: fields.field("delay").map_or(Ok(0), |delay| read_duration(&delay, 0, MAX_DELAY_S))?,
            limits: fields.field("limits").map_or(Ok(Vec::new()), |limits| read_limits(&limits))?,
            rules: read_list(&rules, MAX_RULES, read_rule)?,
        };
        let mut names = BTreeSet::new();
        for rule in &policy.rules {
            if !names.insert(&rule.name) {
                return Err(rules.error(format_args!("two rules are called {}", rule.name)).into());
            }
        }
        Ok(policy)
    }
}

fn read_rule(node: &Node<'_>) -> Result<Rule, JsonError> {
    let fields = node.object(&RULE_FIELDS)?;
    let name = fields.required("name")?;
    let is_name = |text: &str| {
        (1..=MAX_NAME_LENGTH).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if !is_name(name.text()?) {
        return Err(name.error(format_args!(
            "expected 1 to {MAX_NAME_LENGTH} letters, digits, hyphens, underscores and dots"
        )));
    }
    let bound =
        |field: &str, default: Bound| fields.field(field).map_or(Ok(default), |node| read_bound(&node));
    let payloads = fields.required("payloads")?;
    Ok(Rule {
        name: name.text()?.to_owned(),
        requesters: read_allowed(fields.field("requesters"), Allowed::Any, read_key)?,
        payloads: read_set(&payloads, read_kind)?,
        pairs: read_allowed(fields.field("pairs"), Allowed::Any, |pair| pair.parse())?,
        chains: read_allowed(fields.field("chains"), Allowed::nothing(), |chain| chain.quantity_u64())?,
        to: read_allowed(fields.field("to"), Allowed::nothing(), |to| {
            parse_address(to.text()?).map_err(|error| to.error(error))
        })?,
        create_contracts: match fields.field("create_contracts") {
            None => false,
            Some(node) => node.value.as_bool().ok_or_else(|| node.error("expected true or false"))?,
        },
        calls: read_allowed(
            fields.field("calls"),
            Allowed::Only(BTreeSet::from([Call::Transfer])),
            read_call,
        )?,
        max_value: bound("max_value", Bound::AtMost(U256::ZERO))?,
        max_fee: bound("max_fee", Bound::AtMost(U256::from(DEFAULT_MAX_FEE_WEI)))?,
        primary_types: read_allowed(fields.field("primary_types"), Allowed::nothing(), |name| {
            name.text().map(str::to_owned)
        })?,
        times: fields
            .field("times")
            .map_or(Ok(Vec::new()), |times| read_list(&times, MAX_LIST, read_window))?,
        limits: fields.field("limits").map_or(Ok(Vec::new()), |limits| read_limits(&limits))?,
        approvals: fields.field("approvals").as_ref().map(read_approvals).transpose()?,
        owner_above: bound("owner_above", Bound::None)?,
    })
}

fn read_list<T>(
    node: &Node<'_>,
    max: usize,
    read: impl Fn(&Node<'_>) -> Result<T, JsonError>,
) -> Result<Vec<T>, JsonError> {
    let mut items = Vec::new();
    for item in node.array()? {
        if items.len() == max {
            return Err(node.error(format_args!("more than {max} members")));
        }
        items.push(read(&item)?);
    }
    Ok(items)
}

fn read_set<T: Ord>(
    node: &Node<'_>,
    read: impl Fn(&Node<'_>) -> Result<T, JsonError>,
) -> Result<BTreeSet<T>, JsonError> {
    let items = read_list(node, MAX_LIST, read)?;
    let count = items.len();
    let set = BTreeSet::from_iter(items);
    if set.len() == count { Ok(set) } else { Err(node.error("a member is there twice")) }
}

fn read_allowed<T: Ord>(
    node: Option<Node<'_>>,
    default: Allowed<T>,
    read: impl Fn(&Node<'_>) -> Result<T, JsonError>,
) -> Result<Allowed<T>, JsonError> {
    let Some(node) = node else { return Ok(default) };
    if node.value.as_str() == Some("any") {
        return Ok(Allowed::Any);
    }
    if !node.value.is_array() {
        return Err(node.error("expected an array, or \"any\""));
    }
    read_set(&node, read).map(Allowed::Only)
}

fn read_bound(node: &Node<'_>) -> Result<Bound, JsonError> {
    if node.value.as_str() == Some("any") {
        return Ok(Bound::None);
    }
    node.quantity(256).map(Bound::AtMost)
}

fn read_key(node: &Node<'_>) -> Result<[u8; 32], JsonError> {
    let mut key = [0; 32];
    hex::decode_to_slice(node.text()?, &mut key)
        .map_err(|_| node.error("expected an Ed25519 key: 64 hexadecimal digits"))?;
    Ok(key)
}

fn read_kind(node: &Node<'_>) -> Result<PayloadKindTag, JsonError> {
    serde_json::from_value(node.value.clone())
        .map_err(|_| node.error("expected transaction, personal_message, typed_data or digest"))
}

fn read_call(node: &Node<'_>) -> Result<Call, JsonError> {
    if node.value.as_str() == Some("transfer") {
        return Ok(Call::Transfer);
    }
    node.array_of_bytes()
        .map(Call::Function)
        .map_err(|_| node.error("expected \"transfer\", or the function's 0x and 8 hexadecimal digits"))
}

fn read_limits(node: &Node<'_>) -> Result<Vec<Limit>, JsonError> {
    let limits = read_list(node, MAX_LIMITS, |node| {
        let fields = node.object(&LIMIT_FIELDS)?;
        let value = fields.field("value").map_or(Ok(Bound::None), |value| read_bound(&value))?;
        let signatures = fields.field("signatures").map(|count| count.quantity_u64()).transpose()?;
        if value == Bound::None && signatures.is_none() {
            return Err(node.error("a limit limits value or signatures"));
        }
        let within_s = read_duration(&fields.required("within")?, 60, MAX_WINDOW_S)?;
        Ok(Limit { within_s, value, signatures })
    })?;
    let windows: BTreeSet<u64> = limits.iter().map(|limit| limit.within_s).collect();
    if windows.len() == limits.len() {
        Ok(limits)
    } else {
        Err(node.error("two limits are for the same time; write them as one"))
    }
}

/// A duration: a number with `s`, `m`, `h` or `d`.
fn read_duration(node: &Node<'_>, least_s: u64, most_s: u64) -> Result<u64, JsonError> {
    let refused = || {
        node.error(format_args!(
            "expected a time such as \"90s\", \"15m\", \"24h\" or \"7d\", from {least_s} s to {most_s} s"
        ))
    };
    let text = node.text()?;
    let (digits, unit) = text
        .char_indices()
        .next_back()
        .and_then(|(at, unit)| Some((text.get(..at)?, unit)))
        .ok_or_else(refused)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(refused()),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused());
    }
    let number: u64 = digits.parse().map_err(|_| refused())?;
    number.checked_mul(seconds).filter(|duration| (least_s..=most_s).contains(duration)).ok_or_else(refused)
}

fn read_window(node: &Node<'_>) -> Result<Window, JsonError> {
    let fields = node.object(&WINDOW_FIELDS)?;
    let day = |node: &Node<'_>| {
        let text = node.text()?;
        DAYS.iter()
            .position(|day| *day == text)
            .and_then(|at| u8::try_from(at).ok())
            .ok_or_else(|| node.error("expected mon, tue, wed, thu, fri, sat or sun"))
    };
    let (from, until) = (fields.required("from")?, fields.required("until")?);
    let window = Window {
        days: match fields.field("days") {
            None => (0..7).collect(),
            Some(days) => read_set(&days, day)?,
        },
        from_minute: read_minute(&from)?,
        until_minute: read_minute(&until)?,
    };
    if window.from_minute >= window.until_minute {
        return Err(until.error("expected a later time of the day; what goes past midnight is two windows"));
    }
    Ok(window)
}

fn read_minute(node: &Node<'_>) -> Result<u16, JsonError> {
    let refused = || node.error("expected a time of the day in UTC, from 00:00 to 24:00");
    let text = node.text()?;
    let (hours, minutes) = text.split_once(':').filter(|_| text.len() == 5).ok_or_else(refused)?;
    if !hours.bytes().chain(minutes.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(refused());
    }
    let (hours, minutes): (u16, u16) =
        (hours.parse().map_err(|_| refused())?, minutes.parse().map_err(|_| refused())?);
    let minute = hours * 60 + minutes;
    if minutes < 60 && minute <= MINUTES_PER_DAY { Ok(minute) } else { Err(refused()) }
}

fn read_approvals(node: &Node<'_>) -> Result<Approvals, JsonError> {
    let fields = node.object(&APPROVALS_FIELDS)?;
    let keys = read_set(&fields.required("keys")?, read_key)?;
    let threshold = fields.required("threshold")?;
    let number = u8::try_from(threshold.quantity_u64()?).unwrap_or(u8::MAX);
    if number == 0 || usize::from(number) > keys.len() {
        return Err(threshold.error("expected a number from 1 to how many keys there are"));
    }
    Ok(Approvals { keys, threshold: number })
}

/// A policy's exact bytes with its owner's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedPolicy {
    /// The document, byte for byte.
    #[serde(with = "exact_text")]
    pub body: Vec<u8>,
    /// Ed25519 by the wallet's owner over the tag `duet/v1/policy` and the document.
    #[serde(with = "hex_array")]
    pub signature: [u8; 64],
}

impl SignedPolicy {
    /// Signs the document's bytes as they are.
    ///
    /// # Errors
    /// When it is not a policy.
    pub fn sign(body: Vec<u8>, owner: &impl Identity) -> Result<Self, PolicyError> {
        Policy::from_json(&body)?;
        let signature = signing::sign(Purpose::Policy, &body, owner);
        Ok(Self { body, signature })
    }

    /// Checks that `owner`, the Ed25519 key of the wallet's owner, signed it, then parses it.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn verify(&self, owner: &[u8; 32]) -> Result<Policy, PolicyError> {
        signing::verify(Purpose::Policy, &self.body, owner, &self.signature)?;
        Policy::from_json(&self.body)
    }
}
