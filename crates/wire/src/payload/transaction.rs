//! Ethereum transactions, in the JSON that people and libraries write.

pub(super) mod draft;

use alloy_consensus::{
    SignableTransaction, TxEip1559, TxEip2930, TxLegacy, transaction::RlpEcdsaEncodableTx as _,
};
use alloy_eips::eip2930::AccessList;
use alloy_primitives::{Address, Signature, U256};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value};

use super::{MAX_PAYLOAD_SIZE_BYTES, PayloadError};
use crate::{
    RecoverableSignature,
    strict_json::{self, Node, StrictValue},
};

/// A transaction to sign.
///
/// In JSON it has the field names of the JSON-RPC interface: `type` (`0x0`, `0x1`, `0x2`, or
/// `legacy`, `eip2930`, `eip1559`; by default it follows from the fee fields), `chainId`, `nonce`,
/// `to` (`null` creates a contract), `value`, `gas` or `gasLimit`, `gasPrice` or `maxFeePerGas` and
/// `maxPriorityFeePerGas`, `accessList`, `data` or `input`. Quantities are numbers, decimal
/// strings, or `0x` and hexadecimal digits.
///
/// Only `type`, `value` (0), `accessList` (empty) and `data` (empty) may be missing. A member that
/// is `null` counts as missing, except `to` and `chainId`. Any other member is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionRequest {
    /// Type 0, with a chain id under EIP-155, or without one if `chainId` is `null`.
    Legacy(TxLegacy),
    /// Type 1, EIP-2930.
    Eip2930(TxEip2930),
    /// Type 2, EIP-1559.
    Eip1559(TxEip1559),
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

    /// The recipient. `None` when it creates a contract.
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

    /// The hash that is signed: of the RLP list (EIP-155 for legacy with a chain id), or of the
    /// type byte and the list.
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
