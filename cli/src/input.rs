//! Reads payloads from the command line, from files and from standard input.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use alloy_primitives::Address;
use clap::{Args, Subcommand};
use duet_wire::{
    Code, Payload,
    payload::{MAX_PAYLOAD_SIZE_BYTES, PersonalMessage},
};

use crate::{
    error::{CliError, payload_error},
    rpc::{Node, NodeOptions},
    secrets,
    transaction::{Draft, DraftOptions},
};

/// The payload, with one subcommand for each kind. `Common` holds the options of the command around
/// it.
#[expect(clippy::large_enum_variant, reason = "one is made per process")]
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum PayloadCommand<Common: Args> {
    /// An Ethereum transaction, as JSON or flags (flags override the JSON)
    Tx {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        transaction: TransactionArguments,
    },
    /// A message for people (EIP-191)
    Message {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        message: MessageArguments,
    },
    /// A typed-data document (EIP-712)
    TypedData {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        document: DocumentArgument,
    },
    /// 32 bytes without a visible meaning; off unless the wallet lists it for the requester
    Digest {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        digest: DigestArgument,
    },
}

/// A transaction.
#[derive(Debug, Clone, Args)]
pub(crate) struct TransactionArguments {
    /// File with the transaction's JSON; `-` is standard input
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    draft: DraftOptions,
    #[command(flatten)]
    pub(crate) node: NodeOptions,
}

/// A message, in exactly one of three forms.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct MessageArguments {
    /// The message
    #[arg(value_name = "TEXT")]
    text: Option<String>,
    /// The message's bytes
    #[arg(long, value_name = "HEX")]
    hex: Option<String>,
    /// File with the message, signed byte for byte; `-` is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// The file of a JSON document.
#[derive(Debug, Clone, Args)]
pub(crate) struct DocumentArgument {
    /// File with the document; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,
    /// Sign without members that the document's types do not declare, instead of refusing them
    #[arg(long)]
    pub(crate) drop_undeclared: bool,
}

/// A digest.
#[derive(Debug, Clone, Args)]
pub(crate) struct DigestArgument {
    /// 32 bytes, 0x and 64 hexadecimal digits
    #[arg(value_name = "HEX", value_parser = parse_digest)]
    pub(crate) digest: [u8; 32],
}

/// A payload to sign, and the node that broadcasts its transaction.
pub(crate) struct Prepared {
    /// The payload.
    pub(crate) payload: Payload,
    /// The node, if the user named one.
    pub(crate) node: Option<Node>,
}

impl<Common: Args> PayloadCommand<Common> {
    /// The options of the command around the payload.
    pub(crate) const fn common(&self) -> &Common {
        match self {
            Self::Tx { common, .. }
            | Self::Message { common, .. }
            | Self::TypedData { common, .. }
            | Self::Digest { common, .. } => common,
        }
    }

    /// The options for the broadcast, if the user asked for one.
    pub(crate) fn broadcast(&self) -> Option<&NodeOptions> {
        match self {
            Self::Tx { transaction, .. } if transaction.node.broadcast => Some(&transaction.node),
            _ => None,
        }
    }

    /// Checks what needs neither a wallet nor a service: files, JSON, contradicting options.
    ///
    /// # Errors
    /// When the input is malformed, with the path of the fault.
    pub(crate) fn read(&self) -> Result<Unprepared, CliError> {
        match self {
            Self::Tx { transaction, .. } => {
                let draft = transaction.draft()?;
                Ok(Unprepared::Transaction(Box::new(draft), transaction.node.node()?))
            }
            Self::Message { message, .. } => Ok(Unprepared::Ready(Payload::PersonalMessage(message.read()?))),
            Self::TypedData { document, .. } => document.read_typed_data().map(Unprepared::Ready),
            Self::Digest { digest, .. } => Ok(Unprepared::Ready(Payload::Digest { digest: digest.digest })),
        }
    }
}

/// Parsed input. A transaction may still lack members that a node fills in.
pub(crate) enum Unprepared {
    /// A transaction, and the node if the user named one.
    Transaction(Box<Draft>, Option<Node>),
    /// Any other payload.
    Ready(Payload),
}

impl Unprepared {
    /// Completes a transaction to be sent from `account`.
    ///
    /// # Errors
    /// When the transaction is for another account or chain, or when a member is missing.
    pub(crate) async fn prepare(self, account: Address) -> Result<Prepared, CliError> {
        match self {
            Self::Ready(payload) => Ok(Prepared { payload, node: None }),
            Self::Transaction(draft, node) => {
                draft.check_sender(account)?;
                let draft = match &node {
                    Some(node) => node.fill(*draft, account).await?,
                    None => *draft,
                };
                Ok(Prepared { payload: Payload::Transaction(draft.complete()?), node })
            }
        }
    }
}

impl TransactionArguments {
    fn draft(&self) -> Result<Draft, CliError> {
        let draft = match &self.file {
            Some(file) => Draft::from_json(&read_document(file, MAX_PAYLOAD_SIZE_BYTES)?)?,
            None if self.draft.is_empty() => {
                return Err(CliError::usage("no transaction is given")
                    .remedy("Name a file with its JSON, `-` for standard input, or give flags such as --to and --value."));
            }
            None => Draft::default(),
        };
        draft.overridden_by(&self.draft)
    }
}

impl MessageArguments {
    /// The message.
    ///
    /// # Errors
    /// When the file cannot be read, or when the hexadecimal digits do not parse.
    pub(crate) fn read(&self) -> Result<PersonalMessage, CliError> {
        if let Some(digits) = &self.hex {
            return parse_bytes(digits).map(PersonalMessage::Hex).map_err(CliError::usage);
        }
        if let Some(file) = &self.file {
            let bytes = read_bounded(file)?;
            // Text stays text, so that an approver can read it.
            return Ok(String::from_utf8(bytes)
                .map_or_else(|not_text| PersonalMessage::Hex(not_text.into_bytes()), PersonalMessage::Text));
        }
        Ok(PersonalMessage::Text(self.text.clone().unwrap_or_default()))
    }
}

impl DocumentArgument {
    /// The document as EIP-712 typed data.
    ///
    /// # Errors
    /// When the document cannot be read or is too large. When it is not typed data, with the path
    /// of the fault.
    pub(crate) fn read_typed_data(&self) -> Result<Payload, CliError> {
        let document = read_document(&self.file, MAX_PAYLOAD_SIZE_BYTES)?;
        Payload::typed_data_from_json(&document, self.drop_undeclared).map_err(payload_error)
    }
}

/// Reads a file, or standard input for `-`, of at most the size of a payload.
///
/// # Errors
/// When it cannot be read, or is larger.
pub(crate) fn read_bounded(file: &Path) -> Result<Vec<u8>, CliError> {
    read_at_most(file, MAX_PAYLOAD_SIZE_BYTES)
}

/// Reads a file, or standard input for `-`, of at most `limit` bytes.
///
/// # Errors
/// When it cannot be read, or is larger.
pub(crate) fn read_at_most(file: &Path, limit: usize) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let limit = limit as u64;
    let (name, read) = if file.as_os_str() == "-" {
        ("standard input".to_owned(), io::stdin().lock().take(limit + 1).read_to_end(&mut bytes))
    } else {
        let read = fs::File::open(file).and_then(|opened| opened.take(limit + 1).read_to_end(&mut bytes));
        (file.display().to_string(), read)
    };
    read.map_err(|error| CliError::io(&name, &error))?;
    if bytes.len() as u64 > limit {
        return Err(CliError::new(Code::TooLarge, format!("{name} holds more than {limit} bytes")));
    }
    Ok(bytes)
}

/// Reads a document as [`read_at_most`] reads a file, and strips a byte order mark.
///
/// # Errors
/// When it cannot be read, is too large, or is UTF-16.
pub(crate) fn read_document(file: &Path, limit: usize) -> Result<Vec<u8>, CliError> {
    secrets::document_bytes(&file.display().to_string(), read_at_most(file, limit)?)
}

/// Parses `0x` and an even number of hexadecimal digits.
///
/// # Errors
/// When the text has another form.
pub(crate) fn parse_bytes(text: &str) -> Result<Vec<u8>, String> {
    text.strip_prefix("0x")
        .and_then(|digits| hex::decode(digits).ok())
        .ok_or_else(|| "0x and an even number of hexadecimal digits expected".to_owned())
}

/// Parses 32 bytes.
///
/// # Errors
/// When the text has another form.
pub(crate) fn parse_digest(text: &str) -> Result<[u8; 32], String> {
    parse_bytes(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| "0x and 64 hexadecimal digits expected".to_owned())
}

/// Parses an Ed25519 public key: 64 hexadecimal digits.
///
/// # Errors
/// When the text has another form.
pub(crate) fn parse_key(text: &str) -> Result<[u8; 32], String> {
    let mut key = [0; 32];
    hex::decode_to_slice(text, &mut key).map_err(|_| "64 hexadecimal digits expected".to_owned())?;
    Ok(key)
}
