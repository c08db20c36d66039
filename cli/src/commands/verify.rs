//! `duet verify`: verifies signatures offline, with library code alone.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use alloy_consensus::{Transaction as _, TxEnvelope, transaction::SignerRecoverable as _};
use alloy_eips::eip2718::Decodable2718 as _;
use alloy_primitives::{Address, B256, Signature, U256};
use clap::{Args, Subcommand};
use duet_protocol::signature::RecoverableSignature;
use duet_wire::{Code, SignedResult, result::MAX_RESULT_SIZE_BYTES};
use serde::Serialize;

use crate::{
    error::{CliError, payload_error},
    input::{
        DigestArgument, DocumentArgument, MessageArguments, parse_bytes, parse_key, read_bounded,
        read_document,
    },
    output::Output,
    quantity::parse_address,
    secrets,
};

/// The kind of signature to verify.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum VerifyCommand {
    /// A signed transaction
    Tx {
        /// The signed transaction (0x…); `-` reads it from standard input
        #[arg(value_name = "RAW", default_value = "-")]
        raw: String,
        #[command(flatten)]
        expected: ExpectedAddress,
    },
    /// A signed message (EIP-191)
    Message {
        #[command(flatten)]
        message: MessageArguments,
        #[command(flatten)]
        signed: SignatureOptions,
    },
    /// A signed typed-data document (EIP-712)
    TypedData {
        #[command(flatten)]
        document: DocumentArgument,
        #[command(flatten)]
        signed: SignatureOptions,
    },
    /// A signed digest
    Digest {
        #[command(flatten)]
        digest: DigestArgument,
        #[command(flatten)]
        signed: SignatureOptions,
    },
    /// A job's result: the orchestrator's signature, and the wallet's signature in it
    Result {
        /// File with the signed result, or any of this program's JSON documents that holds one; `-`
        /// is standard input
        #[arg(value_name = "FILE", default_value = "-")]
        file: PathBuf,
        /// The orchestrator's public key (64 hexadecimal digits); several, separated by commas,
        /// while the key is exchanged
        #[arg(
            long,
            env = "DUET_ORCHESTRATOR_PUBLIC_KEY",
            value_name = "HEX",
            required = true,
            value_delimiter = ',',
            value_parser = parse_key
        )]
        orchestrator_key: Vec<[u8; 32]>,
    },
}

/// The address that should have signed.
#[derive(Debug, Clone, Args)]
pub(crate) struct ExpectedAddress {
    /// The address that should have signed
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    address: Option<Address>,
}

/// A signature, and the address that should have made it.
#[derive(Debug, Clone, Args)]
pub(crate) struct SignatureOptions {
    /// The signature: 65 bytes r, s, v; v as 27 or 28, or as 0 or 1
    #[arg(long, value_name = "HEX")]
    signature: RecoverableSignature,
    #[command(flatten)]
    expected: ExpectedAddress,
}

/// The outcome of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Verified {
    valid: bool,
    kind: &'static str,
    digest: B256,
    #[serde(serialize_with = "checksummed")]
    address: Address,
    #[serde(skip_serializing_if = "Option::is_none")]
    chain_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_hash: Option<B256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
}

fn checksummed<S: serde::Serializer>(address: &Address, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&address.to_checksum(None))
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "valid: signed by {}\ndigest {}", self.address, self.digest)?;
        if let Some(chain) = self.chain_id {
            write!(f, "\nchain {chain}")?;
        }
        if let Some(hash) = self.transaction_hash {
            write!(f, "\ntransaction {hash}")?;
        }
        if let Some(job) = &self.job {
            write!(f, "\njob {job}")?;
        }
        Ok(())
    }
}

/// Runs the command.
///
/// # Errors
/// `bad-signature` when the signature is invalid; other codes when the input does not parse.
pub(crate) fn run(command: VerifyCommand, output: Output) -> Result<(), CliError> {
    let verified = match command {
        VerifyCommand::Tx { raw, expected } => transaction(&raw, &expected)?,
        VerifyCommand::Message { message, signed } => {
            signed.check("personal_message", message.read()?.digest())?
        }
        VerifyCommand::TypedData { document, signed } => {
            let digest = document.read_typed_data()?.digest().map_err(payload_error)?;
            signed.check("typed_data", digest)?
        }
        VerifyCommand::Digest { digest, signed } => signed.check("digest", digest.digest)?,
        VerifyCommand::Result { file, orchestrator_key: keys } => result(&file, &keys)?,
    };
    output.emit(&verified)
}

impl ExpectedAddress {
    fn check(&self, found: Address) -> Result<(), CliError> {
        match self.address {
            Some(expected) if expected != found => Err(CliError::new(
                Code::BadSignature,
                format!("the signature is by {found}, not by {expected}"),
            )),
            _ => Ok(()),
        }
    }
}

impl SignatureOptions {
    fn check(&self, kind: &'static str, digest: [u8; 32]) -> Result<Verified, CliError> {
        let address = recover(&self.signature, digest)?;
        self.expected.check(address)?;
        Ok(Verified {
            valid: true,
            kind,
            digest: digest.into(),
            address,
            chain_id: None,
            transaction_hash: None,
            job: None,
        })
    }
}

/// The address whose key made `signature` over `digest`, recovered by the library.
pub(crate) fn recover(signature: &RecoverableSignature, digest: [u8; 32]) -> Result<Address, CliError> {
    Signature::new(
        U256::from_be_bytes(*signature.r()),
        U256::from_be_bytes(*signature.s()),
        signature.y_parity(),
    )
    .recover_address_from_prehash(&digest.into())
    .map_err(|_| CliError::new(Code::BadSignature, "the signature is by no key over this digest"))
}

fn transaction(raw: &str, expected: &ExpectedAddress) -> Result<Verified, CliError> {
    let text = match raw {
        "-" => String::from_utf8(read_bounded(Path::new("-"))?)
            .map_err(|_| CliError::input("standard input is not text"))?,
        given => given.to_owned(),
    };
    decode_transaction(&parse_bytes(secrets::without_mark(&text).trim()).map_err(CliError::input)?, expected)
}

fn decode_transaction(mut rest: &[u8], expected: &ExpectedAddress) -> Result<Verified, CliError> {
    let malformed = |problem: &dyn fmt::Display| {
        CliError::new(Code::MalformedMessage, format!("this is no signed transaction: {problem}"))
    };
    let envelope = TxEnvelope::decode_2718(&mut rest).map_err(|error| malformed(&error))?;
    if !rest.is_empty() {
        return Err(malformed(&format_args!("{} bytes follow it", rest.len())));
    }
    // Recovery refuses a high s (EIP-2).
    let address = envelope
        .recover_signer()
        .map_err(|_| CliError::new(Code::BadSignature, "the transaction's signature recovers no key"))?;
    expected.check(address)?;
    Ok(Verified {
        valid: true,
        kind: "transaction",
        digest: envelope.signature_hash(),
        address,
        chain_id: envelope.chain_id(),
        transaction_hash: Some(*envelope.tx_hash()),
        job: None,
    })
}

/// Verifies that one of `keys` signed the result. Then it verifies the wallet's signature, and that
/// the signed transaction contains that signature.
fn result(file: &Path, keys: &[[u8; 32]]) -> Result<Verified, CliError> {
    // The document is in hexadecimal digits, inside other documents.
    let text = read_document(file, 4 * MAX_RESULT_SIZE_BYTES)?;
    let signed = find_result(&text)?;
    let refused = |problem: &dyn fmt::Display| CliError::new(Code::BadSignature, problem.to_string());
    let key = keys.iter().find(|key| **key == signed.key).or(keys.first());
    let key = key.ok_or_else(|| CliError::usage("no orchestrator's key is given"))?;
    let result = signed.verify(key).map_err(|error| refused(&error))?;
    let address = recover(&result.signature, result.digest)?;
    if address != Address::from(result.address) {
        return Err(refused(&format_args!("the signature inside is by {address}, not by the wallet")));
    }
    let inner = match &result.signed_transaction {
        Some(raw) => Some(decode_transaction(raw, &ExpectedAddress { address: Some(address) })?),
        None => None,
    };
    if let Some(inner) = &inner
        && inner.digest != B256::from(result.digest)
    {
        return Err(refused(&"the signed transaction inside is another one than was signed"));
    }
    Ok(Verified {
        valid: true,
        kind: "result",
        digest: result.digest.into(),
        address,
        chain_id: inner.as_ref().and_then(|inner| inner.chain_id),
        transaction_hash: inner.and_then(|inner| inner.transaction_hash),
        job: Some(result.job.to_string()),
    })
}

/// The signed result in `text`: the whole document, its member `result`, or the member `result` of
/// its member `job`.
fn find_result(text: &[u8]) -> Result<SignedResult, CliError> {
    let malformed =
        |problem: &dyn fmt::Display| CliError::new(Code::MalformedJson, problem.to_string()).at("$");
    let value: serde_json::Value = serde_json::from_slice(text).map_err(|error| malformed(&error))?;
    ["", "/result", "/job/result"]
        .into_iter()
        .filter_map(|place| value.pointer(place))
        .find_map(|candidate| serde_json::from_value(candidate.clone()).ok())
        .ok_or_else(|| malformed(&"there is no signed result in this document: body, key and signature"))
}
