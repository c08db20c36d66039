//! Recovers signers with alloy. Ethereum checks a wallet's signature by the recovered signer.

use alloy_consensus::{TxEnvelope, transaction::SignerRecoverable as _};
use alloy_eips::eip2718::Decodable2718 as _;
use alloy_primitives::{Address, B256, Signature, eip191_hash_message};
use anyhow::{Context, Result, ensure};

/// The signer of an encoded transaction.
///
/// # Errors
/// When the bytes are not exactly one signed transaction.
pub fn transaction_signer(raw: &str) -> Result<Address> {
    let bytes = hex::decode(raw.trim_start_matches("0x"))?;
    let mut rest = bytes.as_slice();
    let transaction = TxEnvelope::decode_2718(&mut rest)?;
    ensure!(rest.is_empty(), "bytes after the transaction");
    Ok(transaction.recover_signer()?)
}

/// The signer of a personal message (EIP-191).
///
/// # Errors
/// When the signature is invalid, or not in low-s form.
pub fn message_signer(message: &[u8], signature: &str) -> Result<Address> {
    signer(eip191_hash_message(message), signature)
}

/// The signer of a digest.
///
/// # Errors
/// When the signature is invalid, or not in low-s form.
pub fn digest_signer(digest: &str, signature: &str) -> Result<Address> {
    let digest: B256 = digest.parse().context("a digest has 32 bytes")?;
    signer(digest, signature)
}

fn signer(digest: B256, signature: &str) -> Result<Address> {
    let signature = Signature::from_raw(&hex::decode(signature.trim_start_matches("0x"))?)?;
    ensure!(signature.normalize_s().is_none(), "s is above half the order");
    Ok(signature.recover_address_from_prehash(&digest)?)
}
