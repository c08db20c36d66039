//! Ethereum transactions, in the JSON people and libraries write.

use alloy_consensus::{
    SignableTransaction, TxEip1559, TxEip2930, TxLegacy, transaction::RlpEcdsaEncodableTx as _,
};
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value};

use super::{MAX_PAYLOAD_SIZE_BYTES, PayloadError};
use crate::{
    RecoverableSignature,
    encoding::parse_address,
    strict_json::{self, JsonError, Node, Object, StrictValue},
};

/// A transaction to sign.
///
/// In JSON with the field names of the JSON-RPC interface: `type` (`0x0`, `0x1`, `0x2`, or `legacy`,
/// `eip2930`, `eip1559`; if missing, it follows from the fee fields), `chainId`, `nonce`, `to` (`null`
/// creates a contract), `value`, `gas` or `gasLimit`, `gasPrice` or `maxFeePerGas` and
/// `maxPriorityFeePerGas`, `accessList`, `data` or `input`. Quantities are numbers, decimal strings
/// or `0x` and hexadecimal digits. Of these only `value` (0), `accessList` (empty) and `data`
/// (empty) may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionRequest {
    /// Type 0, with a chain id under EIP-155, or without one if `chainId` is `null`.
    Legacy(TxLegacy),
    /// Type 1, EIP-2930.
    Eip2930(TxEip2930),
    /// Type 2, EIP-1559.
    Eip1559(TxEip1559),
}

/// One transaction type, as `type` names it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Legacy,
    Eip2930,
    Eip1559,
}

const COMMON_FIELDS: [&str; 9] =
    ["type", "chainId", "nonce", "to", "value", "gas", "gasLimit", "data", "input"];
const FEE_FIELDS: [&str; 4] = ["gasPrice", "maxFeePerGas", "maxPriorityFeePerGas", "accessList"];

impl Type {
    const fn name(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Eip2930 => "EIP-2930",
            Self::Eip1559 => "EIP-1559",
        }
    }

    fn allows(self, field: &str) -> bool {
        match field {
            "gasPrice" => self != Self::Eip1559,
            "accessList" => self != Self::Legacy,
            "maxFeePerGas" | "maxPriorityFeePerGas" => self == Self::Eip1559,
            _ => true,
        }
    }

    fn read(fields: &Object<'_>) -> Result<Self, JsonError> {
        let Some(node) = fields.field("type") else {
            let has = |name: &str| fields.field(name).is_some();
            return Ok(match (has("gasPrice"), has("accessList")) {
                (true, false) => Self::Legacy,
                (true, true) => Self::Eip2930,
                (false, _) => Self::Eip1559,
            });
        };
        match node.value.as_str() {
            Some("legacy") => return Ok(Self::Legacy),
            Some("eip2930") => return Ok(Self::Eip2930),
            Some("eip1559") => return Ok(Self::Eip1559),
            _ => {}
        }
        match node.quantity_u64() {
            Ok(0) => Ok(Self::Legacy),
            Ok(1) => Ok(Self::Eip2930),
            Ok(2) => Ok(Self::Eip1559),
            _ => {
                Err(node
                    .error("expected 0x0, 0x1 or 0x2 (legacy, eip2930, eip1559); no other type is signed"))
            }
        }
    }
}

impl TransactionRequest {
    /// Reads a transaction from JSON.
    ///
    /// # Errors
    /// With the path of what is wrong.
    pub fn from_json(bytes: &[u8]) -> Result<Self, PayloadError> {
        let value = strict_json::parse(bytes, MAX_PAYLOAD_SIZE_BYTES)?;
        Self::read(&Node::root(&value))
    }

    pub(super) fn read(node: &Node<'_>) -> Result<Self, PayloadError> {
        let fields = node.object(&[&COMMON_FIELDS[..], &FEE_FIELDS[..]].concat())?;
        let kind = Type::read(&fields)?;
        for name in FEE_FIELDS {
            if let Some(field) = fields.field(name)
                && !kind.allows(name)
            {
                return Err(field.error(format_args!("not a field of {} transactions", kind.name())).into());
            }
        }
        let chain_id = fields.required("chainId")?;
        let nonce = fields.required("nonce")?.quantity_u64()?;
        let to = read_to(&fields.required("to")?)?;
        let value = fields.field("value").map_or(Ok(U256::ZERO), |value| value.quantity(256))?;
        let gas_limit = fields
            .either("gas", "gasLimit")?
            .ok_or_else(|| JsonError::new(fields.path_of("gas"), "missing"))?
            .quantity_u64()?;
        let input: Bytes =
            fields.either("data", "input")?.map_or(Ok(Vec::new()), |data| data.bytes())?.into();
        let fee = |name: &str| fields.required(name)?.quantity_u128();
        let access_list =
            || fields.field("accessList").map_or(Ok(AccessList::default()), |list| read_access_list(&list));
        Ok(match kind {
            Type::Legacy => Self::Legacy(TxLegacy {
                chain_id: if chain_id.value.is_null() { None } else { Some(read_chain_id(&chain_id)?) },
                nonce,
                gas_price: fee("gasPrice")?,
                gas_limit,
                to,
                value,
                input,
            }),
            Type::Eip2930 => Self::Eip2930(TxEip2930 {
                chain_id: read_chain_id(&chain_id)?,
                nonce,
                gas_price: fee("gasPrice")?,
                gas_limit,
                to,
                value,
                access_list: access_list()?,
                input,
            }),
            Type::Eip1559 => {
                let max_fee_per_gas = fee("maxFeePerGas")?;
                let max_priority_fee_per_gas = fee("maxPriorityFeePerGas")?;
                if max_priority_fee_per_gas > max_fee_per_gas {
                    return Err(JsonError::new(
                        fields.path_of("maxPriorityFeePerGas"),
                        "more than maxFeePerGas; no node would take it",
                    )
                    .into());
                }
                Self::Eip1559(TxEip1559 {
                    chain_id: read_chain_id(&chain_id)?,
                    nonce,
                    gas_limit,
                    max_fee_per_gas,
                    max_priority_fee_per_gas,
                    to,
                    value,
                    access_list: access_list()?,
                    input,
                })
            }
        })
    }

    pub(super) fn to_value(&self) -> Value {
        let hex = |number: u128| Value::String(format!("{number:#x}"));
        let (kind, fees): (&str, Vec<(&str, Value)>) = match self {
            Self::Legacy(tx) => ("0x0", vec![("gasPrice", hex(tx.gas_price))]),
            Self::Eip2930(tx) => (
                "0x1",
                vec![("gasPrice", hex(tx.gas_price)), ("accessList", access_list_to_value(&tx.access_list))],
            ),
            Self::Eip1559(tx) => (
                "0x2",
                vec![
                    ("maxFeePerGas", hex(tx.max_fee_per_gas)),
                    ("maxPriorityFeePerGas", hex(tx.max_priority_fee_per_gas)),
                    ("accessList", access_list_to_value(&tx.access_list)),
                ],
            ),
        };
        let common = [
            ("type", kind.into()),
            ("chainId", self.chain_id().map_or(Value::Null, |id| hex(id.into()))),
            ("nonce", hex(self.nonce().into())),
            ("to", self.to().map_or(Value::Null, |to| Address::from(to).to_checksum(None).into())),
            ("value", format!("{:#x}", self.value()).into()),
            ("gas", hex(self.gas_limit().into())),
            ("data", format!("0x{}", hex::encode(self.data())).into()),
        ];
        Value::Object(
            common
                .into_iter()
                .chain(fees)
                .map(|(name, value)| (name.to_owned(), value))
                .collect::<Map<_, _>>(),
        )
    }

    fn as_transaction(&self) -> &dyn alloy_consensus::Transaction {
        match self {
            Self::Legacy(tx) => tx,
            Self::Eip2930(tx) => tx,
            Self::Eip1559(tx) => tx,
        }
    }

    /// The chain, unless it is a legacy transaction for any chain.
    #[must_use]
    pub fn chain_id(&self) -> Option<u64> {
        match self {
            Self::Legacy(tx) => tx.chain_id,
            Self::Eip2930(tx) => Some(tx.chain_id),
            Self::Eip1559(tx) => Some(tx.chain_id),
        }
    }

    /// The sender's transaction count.
    #[must_use]
    pub fn nonce(&self) -> u64 {
        self.as_transaction().nonce()
    }

    /// The recipient, unless it creates a contract.
    #[must_use]
    pub fn to(&self) -> Option<[u8; 20]> {
        self.as_transaction().to().map(Into::into)
    }

    /// What is sent, in wei.
    #[must_use]
    pub fn value(&self) -> U256 {
        self.as_transaction().value()
    }

    /// The most gas it may use.
    #[must_use]
    pub fn gas_limit(&self) -> u64 {
        self.as_transaction().gas_limit()
    }

    /// The most it may pay for a unit of gas, in wei.
    #[must_use]
    pub fn max_fee_per_gas(&self) -> u128 {
        self.as_transaction().max_fee_per_gas()
    }

    /// Call data, or the code that creates the contract.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.as_transaction().input()
    }

    /// The hash that is signed: of the RLP list (EIP-155 for legacy with a chain id), or of the type
    /// byte and the list.
    #[must_use]
    pub fn signature_hash(&self) -> [u8; 32] {
        match self {
            Self::Legacy(tx) => tx.signature_hash(),
            Self::Eip2930(tx) => tx.signature_hash(),
            Self::Eip1559(tx) => tx.signature_hash(),
        }
        .0
    }

    /// The bytes to broadcast.
    #[must_use]
    pub fn signed(&self, signature: &RecoverableSignature) -> Vec<u8> {
        let signature = Signature::new(
            U256::from_be_bytes(*signature.r()),
            U256::from_be_bytes(*signature.s()),
            signature.y_parity(),
        );
        let mut raw = Vec::new();
        match self {
            Self::Legacy(tx) => tx.eip2718_encode(&signature, &mut raw),
            Self::Eip2930(tx) => tx.eip2718_encode(&signature, &mut raw),
            Self::Eip1559(tx) => tx.eip2718_encode(&signature, &mut raw),
        }
        raw
    }
}

impl Serialize for TransactionRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TransactionRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let StrictValue(value) = StrictValue::deserialize(deserializer)?;
        Self::read(&Node::root(&value)).map_err(D::Error::custom)
    }
}

fn read_chain_id(node: &Node<'_>) -> Result<u64, JsonError> {
    // EIP-2294: above this, `v = 2·chainId + 36` would leave 64 bits.
    const MAX_CHAIN_ID: u64 = u64::MAX / 2 - 36;
    match node.quantity_u64()? {
        id @ 1..=MAX_CHAIN_ID => Ok(id),
        _ => Err(node.error(format_args!("a chain id is from 1 to {MAX_CHAIN_ID}"))),
    }
}

fn read_to(node: &Node<'_>) -> Result<TxKind, JsonError> {
    if node.value.is_null() {
        return Ok(TxKind::Create);
    }
    let address = parse_address(node.text()?).map_err(|e| node.error(e))?;
    Ok(TxKind::Call(address.into()))
}

fn read_access_list(node: &Node<'_>) -> Result<AccessList, JsonError> {
    let items = node.array()?.map(|item| {
        let fields = item.object(&["address", "storageKeys"])?;
        let address = fields.required("address")?;
        Ok(AccessListItem {
            address: parse_address(address.text()?).map_err(|e| address.error(e))?.into(),
            storage_keys: fields
                .required("storageKeys")?
                .array()?
                .map(|key| key.array_of_bytes::<32>().map(B256::from))
                .collect::<Result<_, _>>()?,
        })
    });
    items.collect::<Result<Vec<_>, JsonError>>().map(AccessList)
}

fn access_list_to_value(list: &AccessList) -> Value {
    list.0
        .iter()
        .map(|item| {
            let keys: Vec<_> =
                item.storage_keys.iter().map(|key| format!("0x{}", hex::encode(key))).collect();
            serde_json::json!({ "address": item.address.to_checksum(None), "storageKeys": keys })
        })
        .collect()
}
