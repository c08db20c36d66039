//! Checks whether a signature over a payload is by an expected address.

use alloy_primitives::{Address, B256, Signature, U256};
use duet_protocol::signature::RecoverableSignature;
use serde::Serialize;

use super::{Payload, PayloadError};

/// The result of the check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Whether the signature is by the expected address.
    pub valid: bool,
    /// The digest that it should be over, as `0x…`.
    pub digest: String,
    /// The address that made the signature, if there is one, with its EIP-55 checksum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// Why it is not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Payload {
    /// Checks 65 bytes – r, s, and v as 0, 1, 27 or 28 – as a signature of this payload by
    /// `expected`. The library recovers the key. A high s is refused, as in Ethereum.
    ///
    /// # Errors
    /// None for a parsed payload.
    pub fn verify(&self, signature: &[u8; 65], expected: &[u8; 20]) -> Result<Verification, PayloadError> {
        let digest = self.digest()?;
        let found = recover(&digest, signature);
        let (valid, reason) = match &found {
            Ok(signer) if signer.0 == *expected => (true, None),
            Ok(signer) => (false, Some(format!("The signature is by {}.", signer.to_checksum(None)))),
            Err(reason) => (false, Some(reason.clone())),
        };
        Ok(Verification {
            valid,
            digest: format!("0x{}", hex::encode(digest)),
            signer: found.ok().map(|signer| signer.to_checksum(None)),
            reason,
        })
    }
}

fn recover(digest: &[u8; 32], signature: &[u8; 65]) -> Result<Address, String> {
    let parsed = RecoverableSignature::from_ethereum_bytes(signature)
        .map_err(|why| format!("No signature: {why}."))?;
    let (r, s) = (U256::from_be_bytes(*parsed.r()), U256::from_be_bytes(*parsed.s()));
    Signature::new(r, s, parsed.y_parity())
        .recover_address_from_prehash(&B256::from(*digest))
        .map_err(|_| "The signature belongs to no key.".to_owned())
}
