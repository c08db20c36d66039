//! What a payload says, spelled out for the person who is to sign it: made from the same parsed values
//! as the digest, so that what is shown is what is signed.

use alloy_dyn_abi::DynSolValue;
use alloy_primitives::Address;
use serde::Serialize;
use serde_json::Value;

use super::{Payload, PayloadError, TransactionRequest, TypedDataRequest};
use crate::PayloadKindTag;

/// Integers up to here are exact in a JavaScript number.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// One value that goes into the digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DescribedField {
    /// Where it is: `to`, `accessList[0].address`, `message.from.wallet`.
    pub path: String,
    /// Its type: `address`, `uint256`, `bytes`, `string`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Quantities in decimal digits, bytes as `0x…`, addresses with their EIP-55 checksum.
    pub value: String,
}

/// A payload spelled out.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// Which kind it is.
    pub kind: PayloadKindTag,
    /// The 32 bytes that ECDSA signs, as `0x…`.
    pub digest: String,
    /// Of a transaction, or of the domain of typed data; left out where JavaScript could not hold it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<u64>,
    /// The payload read and written again: quantities of a transaction as `0x…`, addresses checksummed.
    pub payload: Value,
    /// Every field that goes into the digest, in order.
    pub fields: Vec<DescribedField>,
}

impl Payload {
    /// The payload spelled out.
    ///
    /// # Errors
    /// None for a payload that was parsed.
    pub fn describe(&self) -> Result<Description, PayloadError> {
        let mut fields = Fields::default();
        match self {
            Self::Transaction(transaction) => fields.transaction(transaction),
            Self::PersonalMessage(message) => {
                // Bytes that are text are shown as it, whichever way they were given.
                match core::str::from_utf8(message.as_bytes()) {
                    Ok(text) => fields.add("text", "string", text),
                    Err(_) => fields.add("hex", "bytes", hexadecimal(message.as_bytes())),
                }
            }
            Self::TypedData(typed_data) => fields.typed_data(typed_data)?,
            Self::Digest { digest } => fields.add("digest", "bytes32", hexadecimal(digest)),
        }
        let payload =
            self.to_value().map_err(|error| PayloadError::TypedData(format!("no JSON: {error}")))?;
        Ok(Description {
            kind: self.kind(),
            digest: hexadecimal(&self.digest()?),
            chain_id: self.chain_id().filter(|id| *id <= MAX_SAFE_INTEGER),
            payload: exact(payload),
            fields: fields.0,
        })
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

/// The same document with the numbers that JavaScript would round as decimal strings, which mean the
/// same.
fn exact(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            let is_safe = number.as_i64().is_some_and(|number| number.unsigned_abs() <= MAX_SAFE_INTEGER);
            if is_safe { Value::Number(number) } else { Value::String(number.to_string()) }
        }
        Value::Array(items) => items.into_iter().map(exact).collect(),
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(name, value)| (name, exact(value))).collect())
        }
        other => other,
    }
}

#[derive(Default)]
struct Fields(Vec<DescribedField>);

impl Fields {
    fn add(&mut self, path: impl Into<String>, kind: impl Into<String>, value: impl ToString) {
        self.0.push(DescribedField { path: path.into(), kind: kind.into(), value: value.to_string() });
    }

    fn transaction(&mut self, transaction: &TransactionRequest) {
        let name = match transaction {
            TransactionRequest::Legacy(_) => "legacy",
            TransactionRequest::Eip2930(_) => "EIP-2930",
            TransactionRequest::Eip1559(_) => "EIP-1559",
        };
        self.add("type", "string", name);
        if let Some(id) = transaction.chain_id() {
            self.add("chainId", "uint64", id);
        }
        self.add("nonce", "uint64", transaction.nonce());
        match transaction {
            TransactionRequest::Legacy(tx) => self.add("gasPrice", "uint128", tx.gas_price),
            TransactionRequest::Eip2930(tx) => self.add("gasPrice", "uint128", tx.gas_price),
            TransactionRequest::Eip1559(tx) => {
                self.add("maxPriorityFeePerGas", "uint128", tx.max_priority_fee_per_gas);
                self.add("maxFeePerGas", "uint128", tx.max_fee_per_gas);
            }
        }
        self.add("gas", "uint64", transaction.gas_limit());
        if let Some(to) = transaction.to() {
            self.add("to", "address", Address::from(to).to_checksum(None));
        }
        self.add("value", "uint256", transaction.value());
        self.add("data", "bytes", hexadecimal(transaction.data()));
        let access_list = match transaction {
            TransactionRequest::Legacy(_) => None,
            TransactionRequest::Eip2930(tx) => Some(&tx.access_list),
            TransactionRequest::Eip1559(tx) => Some(&tx.access_list),
        };
        for (at, item) in access_list.into_iter().flat_map(|list| &list.0).enumerate() {
            self.add(format!("accessList[{at}].address"), "address", item.address.to_checksum(None));
            for (key_at, key) in item.storage_keys.iter().enumerate() {
                let path = format!("accessList[{at}].storageKeys[{key_at}]");
                self.add(path, "bytes32", hexadecimal(key.as_slice()));
            }
        }
    }

    fn typed_data(&mut self, typed_data: &TypedDataRequest) -> Result<(), PayloadError> {
        let parsed = typed_data.parsed();
        let domain = &parsed.domain;
        if let Some(name) = &domain.name {
            self.add("domain.name", "string", name);
        }
        if let Some(version) = &domain.version {
            self.add("domain.version", "string", version);
        }
        if let Some(id) = domain.chain_id {
            self.add("domain.chainId", "uint256", id);
        }
        if let Some(contract) = domain.verifying_contract {
            self.add("domain.verifyingContract", "address", contract.to_checksum(None));
        }
        if let Some(salt) = domain.salt {
            self.add("domain.salt", "bytes32", hexadecimal(salt.as_slice()));
        }
        self.add("primaryType", "string", &parsed.primary_type);
        let message = parsed.coerce().map_err(|error| PayloadError::TypedData(error.to_string()))?;
        self.value("message", &message);
        Ok(())
    }

    fn value(&mut self, path: &str, value: &DynSolValue) {
        match value {
            DynSolValue::Bool(bit) => self.add(path, "bool", bit),
            DynSolValue::Int(number, bits) => self.add(path, format!("int{bits}"), number),
            DynSolValue::Uint(number, bits) => self.add(path, format!("uint{bits}"), number),
            DynSolValue::FixedBytes(word, size) => {
                let bytes = word.as_slice().get(..*size).unwrap_or_default();
                self.add(path, format!("bytes{size}"), hexadecimal(bytes));
            }
            DynSolValue::Address(address) => self.add(path, "address", address.to_checksum(None)),
            DynSolValue::Function(function) => self.add(path, "function", hexadecimal(function.as_slice())),
            DynSolValue::Bytes(bytes) => self.add(path, "bytes", hexadecimal(bytes)),
            DynSolValue::String(text) => self.add(path, "string", text),
            // An array without elements is signed, too, and has to show.
            DynSolValue::Array(items) | DynSolValue::FixedArray(items) | DynSolValue::Tuple(items) => {
                if items.is_empty() {
                    self.add(path, "array", "empty");
                }
                for (at, item) in items.iter().enumerate() {
                    self.value(&format!("{path}[{at}]"), item);
                }
            }
            DynSolValue::CustomStruct { name, prop_names, tuple } => {
                if tuple.is_empty() {
                    self.add(path, name, "empty");
                }
                for (property, value) in prop_names.iter().zip(tuple) {
                    self.value(&format!("{path}.{property}"), value);
                }
            }
        }
    }
}
