//! The payload document: one of four kinds.

use alloy_primitives::keccak256;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};
use serde_json::{Map, Value};

use super::{MAX_PAYLOAD_SIZE_BYTES, PayloadError, PersonalMessage, TransactionRequest, TypedDataRequest};
use crate::{
    PayloadKindTag, RecoverableSignature,
    strict_json::{self, JsonError, Node, StrictValue},
};

/// What is to be signed. In JSON it is an object whose field `kind` names the kind, beside that
/// kind's own fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// `transaction`: an Ethereum transaction (legacy, EIP-2930 or EIP-1559).
    Transaction(TransactionRequest),
    /// `personal_message`: a message under EIP-191, version 0x45.
    PersonalMessage(PersonalMessage),
    /// `typed_data`: an EIP-712 document.
    TypedData(Box<TypedDataRequest>),
    /// `digest`: 32 bytes of unknown meaning. Refused unless the wallet allows them to the
    /// requester.
    Digest {
        /// The digest itself.
        digest: [u8; 32],
    },
}

impl Payload {
    /// Reads a payload from JSON.
    ///
    /// # Errors
    /// With the path of what is wrong.
    pub fn from_json(bytes: &[u8]) -> Result<Self, PayloadError> {
        let value = strict_json::parse(bytes, MAX_PAYLOAD_SIZE_BYTES)?;
        Self::read(&Node::root(&value))
    }

    /// Reads typed data from the text of an EIP-712 document, in the form of
    /// `eth_signTypedData_v4`. Integers of any size keep their digits. With `drop_undeclared`,
    /// members that the types do not declare are dropped and not refused.
    ///
    /// # Errors
    /// With the path of what is wrong.
    pub fn typed_data_from_json(bytes: &[u8], drop_undeclared: bool) -> Result<Self, PayloadError> {
        let read = |bytes: &[u8]| {
            let mut document = strict_json::parse(bytes, MAX_PAYLOAD_SIZE_BYTES)?;
            let Some(members) = document.as_object_mut() else {
                let problem = "expected an object: types, primaryType, domain, message";
                return Err(JsonError::new("$", problem).into());
            };
            if drop_undeclared {
                members.insert("undeclared".to_owned(), "drop".into());
            }
            Ok(Self::TypedData(Box::new(TypedDataRequest::read(&Node::root(&document))?)))
        };
        let text = core::str::from_utf8(bytes).unwrap_or_default();
        let quoted = strict_json::replace_large_integers(text, |digits| format!("\"{digits}\""));
        let Some(quoted) = quoted else { return read(bytes) };
        // A number that exceeds 64 bits means the same as a string of its digits, wherever a number
        // is allowed at all: where a smaller one is.
        if let Some(smaller) = strict_json::replace_large_integers(text, |_| "0".to_owned()) {
            read(smaller.as_bytes())?;
        }
        read(quoted.as_bytes())
    }

    pub(crate) fn read(node: &Node<'_>) -> Result<Self, PayloadError> {
        let map =
            node.value.as_object().ok_or_else(|| node.error("expected an object with the field `kind`"))?;
        let at =
            |name: &str| if node.path == "$" { name.to_owned() } else { format!("{}.{name}", node.path) };
        let kind = map.get("kind").ok_or_else(|| JsonError::new(at("kind"), "missing"))?;
        let body = Value::Object(
            map.iter().filter(|(k, _)| *k != "kind").map(|(k, v)| (k.clone(), v.clone())).collect(),
        );
        let body = Node { value: &body, path: node.path.clone() };
        match kind.as_str() {
            Some("transaction") => Ok(Self::Transaction(TransactionRequest::read(&body)?)),
            Some("personal_message") => Ok(Self::PersonalMessage(PersonalMessage::read(&body)?)),
            Some("typed_data") => Ok(Self::TypedData(Box::new(TypedDataRequest::read(&body)?))),
            Some("digest") => {
                let digest = body.object(&["digest"])?.required("digest")?.array_of_bytes()?;
                Ok(Self::Digest { digest })
            }
            _ => Err(JsonError::new(
                at("kind"),
                "expected transaction, personal_message, typed_data or digest",
            )
            .into()),
        }
    }

    /// The kind of payload.
    #[must_use]
    pub const fn kind(&self) -> PayloadKindTag {
        match self {
            Self::Transaction(_) => PayloadKindTag::Transaction,
            Self::PersonalMessage(_) => PayloadKindTag::PersonalMessage,
            Self::TypedData(_) => PayloadKindTag::TypedData,
            Self::Digest { .. } => PayloadKindTag::Digest,
        }
    }

    /// The 32 bytes that ECDSA signs.
    ///
    /// # Errors
    /// None for a parsed payload: typed data is checked against its types while parsing.
    pub fn digest(&self) -> Result<[u8; 32], PayloadError> {
        match self {
            Self::Transaction(transaction) => Ok(transaction.signature_hash()),
            Self::PersonalMessage(message) => Ok(message.digest()),
            Self::TypedData(typed_data) => typed_data.digest(),
            Self::Digest { digest } => Ok(*digest),
        }
    }

    /// The chain that it is for: of a transaction, or of the domain of typed data.
    #[must_use]
    pub fn chain_id(&self) -> Option<u64> {
        match self {
            Self::Transaction(transaction) => transaction.chain_id(),
            Self::TypedData(typed_data) => typed_data.chain_id(),
            Self::PersonalMessage(_) | Self::Digest { .. } => None,
        }
    }

    /// The bytes to broadcast, for a transaction: RLP for a legacy one, the EIP-2718 envelope for
    /// the others.
    #[must_use]
    pub fn signed_transaction(&self, signature: &RecoverableSignature) -> Option<Vec<u8>> {
        match self {
            Self::Transaction(transaction) => Some(transaction.signed(signature)),
            _ => None,
        }
    }

    /// The hash of the signed transaction.
    #[must_use]
    pub fn transaction_hash(&self, signature: &RecoverableSignature) -> Option<[u8; 32]> {
        self.signed_transaction(signature).map(|raw| keccak256(raw).0)
    }

    pub(super) fn to_value(&self) -> Result<Value, serde_json::Error> {
        let (kind, body) = match self {
            Self::Transaction(transaction) => ("transaction", transaction.to_value()),
            Self::PersonalMessage(message) => ("personal_message", message.to_value()),
            Self::TypedData(typed_data) => ("typed_data", typed_data.to_value().clone()),
            Self::Digest { digest } => {
                ("digest", serde_json::json!({ "digest": format!("0x{}", hex::encode(digest)) }))
            }
        };
        let mut map = Map::from_iter([("kind".to_owned(), kind.into())]);
        if let Value::Object(fields) = body {
            map.extend(fields);
        }
        Ok(Value::Object(map))
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let StrictValue(value) = StrictValue::deserialize(deserializer)?;
        Self::read(&Node::root(&value)).map_err(D::Error::custom)
    }
}
