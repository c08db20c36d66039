//! Transactions that a node, or their author, may still have to complete.

use alloy_consensus::{TxEip1559, TxEip2930, TxLegacy};
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use serde_json::{Map, Value};

use super::{TransactionRequest, access_list_to_value};
use crate::{
    encoding::parse_address,
    payload::{MAX_PAYLOAD_SIZE_BYTES, PayloadError},
    strict_json::{self, JsonError, Node, Object},
};

/// Members of JSON-RPC requests that wallets add for themselves. They change nothing about the
/// transaction and are ignored. `docs/adapters.md` lists them.
pub const IGNORED_HINTS: [&str; 4] = ["estimateGasError", "estimateSuggested", "estimateUsed", "gasUsed"];

/// The members that a transaction to sign may have.
pub(crate) const MEMBERS: [&str; 13] = [
    "type",
    "chainId",
    "nonce",
    "to",
    "value",
    "gas",
    "gasLimit",
    "data",
    "input",
    "gasPrice",
    "maxFeePerGas",
    "maxPriorityFeePerGas",
    "accessList",
];
/// Members of transaction types that Duet does not sign, each with its type.
const FOREIGN_MEMBERS: [(&str, &str); 6] = [
    ("authorizationList", "EIP-7702 (type 0x4)"),
    ("blobs", "EIP-4844 (type 0x3)"),
    ("blobVersionedHashes", "EIP-4844 (type 0x3)"),
    ("maxFeePerBlobGas", "EIP-4844 (type 0x3)"),
    ("sidecars", "EIP-4844 (type 0x3)"),
    ("kzg", "EIP-4844 (type 0x3)"),
];

/// EIP-2294: from this chain id on, `v = 2·chainId + 36` exceeds 64 bits.
const MORE_THAN_A_CHAIN_ID: u64 = u64::MAX / 2 - 35;

/// The types of transactions that Duet signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionType {
    /// Type 0, before EIP-2718.
    Legacy,
    /// Type 1, EIP-2930: with an access list.
    AccessList,
    /// Type 2, EIP-1559: with a priority fee and a highest fee.
    DynamicFee,
}

impl TransactionType {
    const fn name(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::AccessList => "EIP-2930",
            Self::DynamicFee => "EIP-1559",
        }
    }

    /// The type in JSON-RPC's form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "0x0",
            Self::AccessList => "0x1",
            Self::DynamicFee => "0x2",
        }
    }

    fn read(node: &Node<'_>) -> Result<Self, JsonError> {
        match node.value.as_str() {
            Some("legacy") => return Ok(Self::Legacy),
            Some("eip2930") => return Ok(Self::AccessList),
            Some("eip1559") => return Ok(Self::DynamicFee),
            _ => {}
        }
        match node.quantity_u64() {
            Ok(0) => Ok(Self::Legacy),
            Ok(1) => Ok(Self::AccessList),
            Ok(2) => Ok(Self::DynamicFee),
            _ => {
                Err(node
                    .error("expected 0x0, 0x1 or 0x2 (legacy, eip2930, eip1559); no other type is signed"))
            }
        }
    }
}

/// The chain that a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// This one, under EIP-155 or as a member of the transaction.
    Id(u64),
    /// Any: a legacy transaction without a chain id.
    Any,
}

/// A transaction that may lack members. A member that is `null` is missing, except `to` and
/// `chainId`, whose `null` has a meaning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionDraft {
    /// `type`, if stated.
    pub transaction_type: Option<TransactionType>,
    /// `chainId`. `null` means any chain.
    pub chain: Option<Chain>,
    /// `nonce`.
    pub nonce: Option<u64>,
    /// `to`. `null` creates a contract.
    pub to: Option<TxKind>,
    /// `value`, in wei.
    pub value: Option<U256>,
    /// `gas` or `gasLimit`.
    pub gas: Option<u64>,
    /// `data` or `input`.
    pub input: Option<Bytes>,
    /// `gasPrice`, in wei.
    pub gas_price: Option<u128>,
    /// `maxFeePerGas`, in wei.
    pub max_fee_per_gas: Option<u128>,
    /// `maxPriorityFeePerGas`, in wei.
    pub max_priority_fee_per_gas: Option<u128>,
    /// `accessList`.
    pub access_list: Option<AccessList>,
}

/// A transaction in the form of JSON-RPC's `eth_sendTransaction`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionCall {
    /// `from`: the account it is sent from.
    pub from: Option<[u8; 20]>,
    /// The other members.
    pub draft: TransactionDraft,
}

impl TransactionCall {
    /// Reads a request in JSON-RPC's form. Beside the members of a transaction it may have `from`
    /// and the [`IGNORED_HINTS`].
    ///
    /// # Errors
    /// With the path of what is wrong, which may be an unknown member.
    pub fn from_json(bytes: &[u8]) -> Result<Self, PayloadError> {
        Self::from_value(&strict_json::parse(bytes, MAX_PAYLOAD_SIZE_BYTES)?)
    }

    /// Reads a request that was parsed by [`strict_json::parse`].
    ///
    /// # Errors
    /// With the path of what is wrong.
    pub fn from_value(value: &Value) -> Result<Self, PayloadError> {
        let node = Node::root(value);
        let fields = members(&node, &[&["from"][..], &IGNORED_HINTS[..]].concat())?;
        let from = present(&fields, "from").map(|from| read_address(&from)).transpose()?;
        let mut draft = TransactionDraft::of(&fields)?;
        // Here `null` means that the chain is not stated. It does not ask for a transaction without
        // one.
        if draft.chain == Some(Chain::Any) {
            draft.chain = None;
        }
        Ok(Self { from: from.map(Into::into), draft })
    }
}

impl TransactionDraft {
    pub(super) fn read(node: &Node<'_>) -> Result<Self, JsonError> {
        Self::of(&members(node, &[])?)
    }

    fn of(fields: &Object<'_>) -> Result<Self, JsonError> {
        let draft = Self {
            transaction_type: present(fields, "type").map(|node| TransactionType::read(&node)).transpose()?,
            chain: fields.field("chainId").map(|node| read_chain(&node)).transpose()?,
            nonce: present(fields, "nonce").map(|node| node.quantity_u64()).transpose()?,
            to: fields.field("to").map(|node| read_to(&node)).transpose()?,
            value: present(fields, "value").map(|node| node.quantity(256)).transpose()?,
            gas: either(fields, "gas", "gasLimit", Node::quantity_u64)?,
            input: either(fields, "data", "input", Node::bytes)?.map(Into::into),
            gas_price: present(fields, "gasPrice").map(|node| node.quantity_u128()).transpose()?,
            max_fee_per_gas: present(fields, "maxFeePerGas").map(|node| node.quantity_u128()).transpose()?,
            max_priority_fee_per_gas: present(fields, "maxPriorityFeePerGas")
                .map(|node| node.quantity_u128())
                .transpose()?,
            access_list: present(fields, "accessList").map(|node| read_access_list(&node)).transpose()?,
        };
        draft.check().map_err(|error| JsonError::new(fields.path_of(&error.path), error.problem))?;
        Ok(draft)
    }

    /// The type, if it is stated or follows from the members that are present.
    #[must_use]
    pub fn known_type(&self) -> Option<TransactionType> {
        self.transaction_type.or_else(|| {
            if self.gas_price.is_some() {
                let has_list = self.access_list.is_some();
                return Some(if has_list { TransactionType::AccessList } else { TransactionType::Legacy });
            }
            let is_dynamic = self.max_fee_per_gas.is_some() || self.max_priority_fee_per_gas.is_some();
            is_dynamic.then_some(TransactionType::DynamicFee)
        })
    }

    /// Checks that the members fit together.
    ///
    /// # Errors
    /// With the member that does not fit.
    pub fn check(&self) -> Result<(), JsonError> {
        if self.chain.is_some_and(|chain| matches!(chain, Chain::Id(0 | MORE_THAN_A_CHAIN_ID..))) {
            return Err(JsonError::new(
                "chainId",
                format_args!("a chain id is from 1 to {}", MORE_THAN_A_CHAIN_ID - 1),
            ));
        }
        let fee = if self.max_fee_per_gas.is_some() { "maxFeePerGas" } else { "maxPriorityFeePerGas" };
        let is_dynamic = self.max_fee_per_gas.is_some() || self.max_priority_fee_per_gas.is_some();
        if is_dynamic && self.gas_price.is_some() {
            return Err(JsonError::new(
                "gasPrice",
                format_args!(
                    "does not go with `{fee}`, which is of another way to pay; leave one of them out"
                ),
            ));
        }
        let refused = |member: &str, kind: TransactionType, remedy: &str| {
            let name = kind.name();
            Err(JsonError::new(member, format_args!("not a field of {name} transactions; {remedy}")))
        };
        match self.known_type() {
            Some(kind @ TransactionType::DynamicFee) if self.gas_price.is_some() => {
                return refused("gasPrice", kind, "they have `maxFeePerGas`");
            }
            Some(kind @ (TransactionType::Legacy | TransactionType::AccessList)) if is_dynamic => {
                return refused(fee, kind, "they have `gasPrice`");
            }
            Some(kind @ TransactionType::Legacy) if self.access_list.is_some() => {
                return refused("accessList", kind, "types 0x1 and 0x2 have it");
            }
            _ => {}
        }
        match (self.max_priority_fee_per_gas, self.max_fee_per_gas) {
            (Some(tip), Some(most)) if tip > most => {
                Err(JsonError::new("maxPriorityFeePerGas", "more than maxFeePerGas; no node would take it"))
            }
            _ => Ok(()),
        }
    }

    /// Completes the draft as JSON-RPC means it: without a recipient it creates a contract.
    #[must_use]
    pub fn or_creation(mut self) -> Self {
        self.to.get_or_insert(TxKind::Create);
        self
    }

    /// Checks that a transaction that creates a contract has its code.
    ///
    /// # Errors
    /// When `to` is `null` and the code is missing or empty.
    pub fn check_creation(&self) -> Result<(), JsonError> {
        if self.to == Some(TxKind::Create) && self.input.as_ref().is_none_or(|code| code.is_empty()) {
            return Err(JsonError::new(
                "to",
                "there is no recipient, and creating a contract takes its code as `data`; name the recipient \
                 or give the code",
            ));
        }
        Ok(())
    }

    /// The members that are missing before it can be signed. A transaction whose type is not known
    /// yet counts as EIP-1559.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let priced = self.known_type().is_some_and(|kind| kind != TransactionType::DynamicFee);
        [
            ("chainId", self.chain.is_none()),
            ("nonce", self.nonce.is_none()),
            ("to", self.to.is_none()),
            ("gas", self.gas.is_none()),
            ("gasPrice", priced && self.gas_price.is_none()),
            ("maxFeePerGas", !priced && self.max_fee_per_gas.is_none()),
            ("maxPriorityFeePerGas", !priced && self.max_priority_fee_per_gas.is_none()),
        ]
        .into_iter()
        .filter_map(|(name, is_missing)| is_missing.then_some(name))
        .collect()
    }

    /// Completes the draft to a transaction.
    ///
    /// # Errors
    /// With the first member that is missing or does not fit.
    pub fn complete(self) -> Result<TransactionRequest, JsonError> {
        self.check()?;
        self.check_creation()?;
        let lacks = |name| JsonError::new(name, "missing");
        let chain = self.chain.ok_or_else(|| lacks("chainId"))?;
        let nonce = self.nonce.ok_or_else(|| lacks("nonce"))?;
        let to = self.to.ok_or_else(|| lacks("to"))?;
        let gas_limit = self.gas.ok_or_else(|| lacks("gas"))?;
        let value = self.value.unwrap_or_default();
        let kind = self.known_type().unwrap_or(TransactionType::DynamicFee);
        let input = self.input.unwrap_or_default();
        let access_list = self.access_list.unwrap_or_default();
        let chain_id = match chain {
            Chain::Id(id) => Some(id),
            Chain::Any if kind == TransactionType::Legacy => None,
            Chain::Any => {
                return Err(JsonError::new("chainId", "only a legacy transaction may be for any chain"));
            }
        };
        // Only a legacy transaction has no chain id here.
        let typed_chain_id = chain_id.unwrap_or_default();
        let gas_price = self.gas_price.ok_or_else(|| lacks("gasPrice"));
        Ok(match kind {
            TransactionType::Legacy => TransactionRequest::Legacy(TxLegacy {
                chain_id,
                nonce,
                gas_price: gas_price?,
                gas_limit,
                to,
                value,
                input,
            }),
            TransactionType::AccessList => TransactionRequest::Eip2930(TxEip2930 {
                chain_id: typed_chain_id,
                nonce,
                gas_price: gas_price?,
                gas_limit,
                to,
                value,
                access_list,
                input,
            }),
            TransactionType::DynamicFee => TransactionRequest::Eip1559(TxEip1559 {
                chain_id: typed_chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas: self.max_fee_per_gas.ok_or_else(|| lacks("maxFeePerGas"))?,
                max_priority_fee_per_gas: self
                    .max_priority_fee_per_gas
                    .ok_or_else(|| lacks("maxPriorityFeePerGas"))?,
                to,
                value,
                access_list,
                input,
            }),
        })
    }

    /// The present members, in the form that [`TransactionRequest`] is written in.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let quantity = |number: u128| Value::String(format!("{number:#x}"));
        let members = [
            ("type", self.transaction_type.map(|kind| kind.as_str().into())),
            (
                "chainId",
                self.chain.map(|chain| match chain {
                    Chain::Id(id) => quantity(id.into()),
                    Chain::Any => Value::Null,
                }),
            ),
            ("nonce", self.nonce.map(|nonce| quantity(nonce.into()))),
            (
                "to",
                self.to.map(|to| match to {
                    TxKind::Call(to) => to.to_checksum(None).into(),
                    TxKind::Create => Value::Null,
                }),
            ),
            ("value", self.value.map(|value| format!("{value:#x}").into())),
            ("gas", self.gas.map(|gas| quantity(gas.into()))),
            ("data", self.input.as_ref().map(|input| format!("0x{}", hex::encode(input)).into())),
            ("gasPrice", self.gas_price.map(quantity)),
            ("maxFeePerGas", self.max_fee_per_gas.map(quantity)),
            ("maxPriorityFeePerGas", self.max_priority_fee_per_gas.map(quantity)),
            ("accessList", self.access_list.as_ref().map(access_list_to_value)),
        ];
        let members = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(members.collect::<Map<_, _>>())
    }
}

/// The object, if all its members are among [`MEMBERS`] or `others`. An unknown member may be
/// `null`.
fn members<'a>(node: &Node<'a>, others: &[&str]) -> Result<Object<'a>, JsonError> {
    let fields = node.any_object()?;
    let is_known = |name: &str| MEMBERS.contains(&name) || others.contains(&name);
    let Some(unknown) = fields.names().find(|name| !is_known(name) && present(&fields, name).is_some())
    else {
        return Ok(fields);
    };
    let foreign = FOREIGN_MEMBERS.iter().find(|(name, _)| *name == unknown);
    let problem = match foreign {
        Some((_, of)) => format!("unknown field; it belongs to {of}, which is not signed"),
        None => format!("unknown field; the fields here are {}", MEMBERS.join(", ")),
    };
    Err(JsonError::new(fields.path_of(unknown), problem))
}

/// The member. `None` if it is missing or `null`.
fn present<'a>(fields: &Object<'a>, name: &str) -> Option<Node<'a>> {
    fields.field(name).filter(|node| !node.value.is_null())
}

/// A member with two names. Both may be present if they have the same value.
fn either<'a, T: PartialEq>(
    fields: &Object<'a>,
    name: &str,
    other: &str,
    read: impl Fn(&Node<'a>) -> Result<T, JsonError>,
) -> Result<Option<T>, JsonError> {
    let one = present(fields, name).map(|node| read(&node)).transpose()?;
    let Some(two) = present(fields, other) else { return Ok(one) };
    let value = read(&two)?;
    match one {
        Some(one) if one != value => {
            Err(two.error(format_args!("contradicts `{name}`, which means the same")))
        }
        _ => Ok(Some(value)),
    }
}

fn read_chain(node: &Node<'_>) -> Result<Chain, JsonError> {
    if node.value.is_null() { Ok(Chain::Any) } else { node.quantity_u64().map(Chain::Id) }
}

fn read_address(node: &Node<'_>) -> Result<Address, JsonError> {
    parse_address(node.text()?).map(Into::into).map_err(|problem| node.error(problem))
}

fn read_to(node: &Node<'_>) -> Result<TxKind, JsonError> {
    if node.value.is_null() { Ok(TxKind::Create) } else { read_address(node).map(TxKind::Call) }
}

fn read_access_list(node: &Node<'_>) -> Result<AccessList, JsonError> {
    let items = node.array()?.map(|item| {
        let fields = item.object(&["address", "storageKeys"])?;
        Ok(AccessListItem {
            address: read_address(&fields.required("address")?)?,
            storage_keys: fields
                .required("storageKeys")?
                .array()?
                .map(|key| key.array_of_bytes::<32>().map(B256::from))
                .collect::<Result<_, _>>()?,
        })
    });
    items.collect::<Result<Vec<_>, JsonError>>().map(AccessList)
}

impl TransactionRequest {
    pub(in crate::payload) fn read(node: &Node<'_>) -> Result<Self, PayloadError> {
        let fields = node.any_object()?;
        let at_node = |error: JsonError| JsonError::new(fields.path_of(&error.path), error.problem);
        Ok(TransactionDraft::read(node)?.complete().map_err(at_node)?)
    }
}
