//! A payload spelled out for the person who is to sign it. It is made from the same parsed values
//! as the digest, so that what is shown is what is signed.

use alloy_primitives::Address;
use serde::Serialize;
use serde_json::Value;

use super::{DescribedField, NotSigned, Payload, PayloadError, TransactionRequest, field::hexadecimal};
use crate::{PayloadKindTag, strict_json::JsonError};

/// Integers up to here are exact in a JavaScript number.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// A payload spelled out.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// The kind of payload.
    pub kind: PayloadKindTag,
    /// The 32 bytes that ECDSA signs, as `0x…`.
    pub digest: String,
    /// The chain of a transaction, or of the domain of typed data. Left out when a JavaScript
    /// number cannot hold it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<u64>,
    /// The payload, read and written again: quantities of a transaction as `0x…`, addresses with
    /// their checksum.
    pub payload: Value,
    /// Every field that goes into the digest, in order.
    pub fields: Vec<DescribedField>,
    /// Members of typed data that do not go into the digest.
    #[serde(rename = "notSigned", skip_serializing_if = "Vec::is_empty")]
    pub not_signed: Vec<NotSigned>,
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
                // Bytes that are valid text are shown as text, even if the document has them in
                // hexadecimal.
                match core::str::from_utf8(message.as_bytes()) {
                    Ok(text) => fields.add("text", "string", text),
                    Err(_) => fields.add("hex", "bytes", hexadecimal(message.as_bytes())),
                }
            }
            Self::TypedData(typed_data) => fields.0.extend_from_slice(typed_data.fields()),
            Self::Digest { digest } => fields.add("digest", "bytes32", hexadecimal(digest)),
        }
        let payload =
            self.to_value().map_err(|error| JsonError::new("$", format_args!("no JSON: {error}")))?;
        Ok(Description {
            kind: self.kind(),
            digest: hexadecimal(&self.digest()?),
            chain_id: self.chain_id().filter(|id| *id <= MAX_SAFE_INTEGER),
            payload: exact(payload),
            fields: fields.0,
            not_signed: match self {
                Self::TypedData(typed_data) => typed_data.not_signed().to_vec(),
                _ => Vec::new(),
            },
        })
    }
}

/// The document with decimal strings in place of numbers that JavaScript would round. They mean the
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
}
