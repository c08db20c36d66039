//! One value of a payload, for people.

use serde::Serialize;

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

/// A member of the document that is not signed. A holder of the signature may put any value in its
/// place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotSigned {
    /// Where it is: `domain.chainId`, `message.__typename`.
    pub path: String,
    /// The value as JSON.
    pub value: String,
    /// Why it is not signed.
    pub reason: NotSignedReason,
}

/// Why a member is not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotSignedReason {
    /// A member of the domain that the declared `EIP712Domain` does not cover.
    NotCovered,
    /// A member that `types` does not declare, dropped because the document says `undeclared:
    /// drop`.
    Undeclared,
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}
