//! The failure of a command: a message, a stable code and a remedy.

use std::{fmt, io};

use duet_party::{PartyError, store::StoreError};
use duet_wire::{Code, Problem, Refusal, error::ExitCode, payload::PayloadError};
use serde::{Serialize, Serializer};

/// A code shared with the services, or one of the command line alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorCode {
    /// A code that all Duet programs share.
    Shared(Code),
    /// The command line does not parse, or a setting is missing.
    Usage,
    /// A file cannot be read or written, or has the wrong contents.
    File,
    /// The orchestrator's HTTP interface cannot be reached.
    ApiUnreachable,
    /// The Ethereum node cannot be reached.
    NodeUnreachable,
    /// HashiCorp Vault cannot be reached, is sealed, or is busy.
    VaultUnreachable,
    /// The Ethereum node refused a call.
    NodeRefused,
    /// HashiCorp Vault refused a request.
    VaultRefused,
    /// A block included the transaction, and its execution failed.
    TransactionReverted,
    /// The audit log was tampered with.
    AuditBroken,
    /// The share store lacks what this build needs, and was not to be changed.
    StoreNotExpanded,
    /// A newer build removed from the share store what this build reads.
    StoreContracted,
    /// A check of `duet doctor` failed.
    Unhealthy,
    /// A signal stopped the command before it was done.
    Interrupted,
}

impl ErrorCode {
    /// The codes of the command line alone.
    pub(crate) const LOCAL: &'static [Self] = &[
        Self::Usage,
        Self::File,
        Self::ApiUnreachable,
        Self::NodeUnreachable,
        Self::VaultUnreachable,
        Self::NodeRefused,
        Self::VaultRefused,
        Self::TransactionReverted,
        Self::AuditBroken,
        Self::StoreNotExpanded,
        Self::StoreContracted,
        Self::Unhealthy,
        Self::Interrupted,
    ];

    /// Every code that a command can end with, in the order of the documentation.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::LOCAL.iter().copied().chain(Code::ALL.iter().copied().map(Self::Shared))
    }

    /// The code as text.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Shared(code) => code.as_str(),
            Self::Usage => "usage",
            Self::File => "file",
            Self::ApiUnreachable => "api-unreachable",
            Self::NodeUnreachable => "node-unreachable",
            Self::VaultUnreachable => "vault-unreachable",
            Self::NodeRefused => "node-refused",
            Self::VaultRefused => "vault-refused",
            Self::TransactionReverted => "transaction-reverted",
            Self::AuditBroken => "audit-broken",
            Self::StoreNotExpanded => "store-not-expanded",
            Self::StoreContracted => "store-contracted",
            Self::Unhealthy => "unhealthy",
            Self::Interrupted => "interrupted",
        }
    }

    /// A few words for the code, the same for every occurrence.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Shared(code) => code.title(),
            Self::Usage => "Command line not understood",
            Self::File => "File not usable",
            Self::ApiUnreachable => "Orchestrator unreachable",
            Self::NodeUnreachable => "Ethereum node unreachable",
            Self::VaultUnreachable => "Vault unreachable",
            Self::NodeRefused => "Refused by the Ethereum node",
            Self::VaultRefused => "Refused by Vault",
            Self::TransactionReverted => "Transaction failed on the chain",
            Self::AuditBroken => "Audit log tampered with",
            Self::StoreNotExpanded => "Share store to be expanded first",
            Self::StoreContracted => "Share store of a newer build",
            Self::Unhealthy => "A check failed",
            Self::Interrupted => "Interrupted",
        }
    }

    /// The process's exit code.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Shared(code) => code.exit_code(),
            Self::Usage => 2,
            Self::File => ExitCode::Input as u8,
            Self::ApiUnreachable | Self::NodeUnreachable | Self::VaultUnreachable | Self::Unhealthy => {
                ExitCode::Unavailable as u8
            }
            Self::NodeRefused | Self::VaultRefused | Self::StoreContracted => ExitCode::Refused as u8,
            Self::StoreNotExpanded => ExitCode::Locked as u8,
            Self::TransactionReverted => ExitCode::Ended as u8,
            Self::AuditBroken => ExitCode::Misbehaviour as u8,
            Self::Interrupted => 130,
        }
    }

    /// What the user can usually do about it.
    const fn remedy(self) -> Option<&'static str> {
        let Self::Shared(code) = self else {
            return match self {
                Self::ApiUnreachable => {
                    Some("Check --api-url (DUET_API_URL) and that the orchestrator runs.")
                }
                Self::NodeUnreachable => Some("Check --rpc (DUET_RPC_URL) and that the node runs."),
                Self::StoreNotExpanded => Some("Run `duet party migrate --expand` once, with this build."),
                Self::StoreContracted => Some(
                    "Use the newer build, or put back a backup from before `duet party migrate --contract`.",
                ),
                _ => None,
            };
        };
        Some(match code {
            Code::BrokerUnreachable => {
                "Check --nats-url, --nats-ca and --nats-nkey, and that the broker runs."
            }
            Code::UnsafeBroker => {
                "The broker's operator has to correct its configuration (deploy/README.md); what is queued waits meanwhile."
            }
            Code::ChainIdMismatch => "Use a node of the transaction's chain, or correct the chain id.",
            Code::Unauthorized => "Check the tenant's API token (--api-token-file, DUET_API_TOKEN).",
            Code::UnknownWallet => "`duet wallet list` names the wallets of this machine.",
            Code::Locked => {
                "Rotate the Paillier key (`duet party rotate`, or `duet wallet rotate` on a device). If a card is quarantined, `accept-culprit` permits sessions with it again."
            }
            Code::TooManyAnswers => "Sign a new request, with an idempotency key of its own.",
            Code::NeedsRotation => "Run `duet party rotate` once; until then this share only responds.",
            Code::WrongPassphrase => "Give the passphrase or key file that the store was made with.",
            Code::CardMismatch => {
                "Ask the party's operator for the card's fingerprint over another channel, and compare it before you go on."
            }
            Code::AdmissionToken => "Ask the party's operator for a new token (`duet party token`).",
            Code::JobExpired => {
                "Submit the request again, with a new idempotency key and a longer --expires-in."
            }
            Code::ValidTooLong => "Submit it with a shorter --expires-in; every pair accepts up to 24h.",
            Code::IssuedBeforeRestore => {
                "Check whether the request was signed before the party was restored; if not, submit a new one."
            }
            Code::ClockDiffers => "Set the clock that is wrong; the message says which, and by how much.",
            Code::QueueFull | Code::NoSeat | Code::Overloaded | Code::PartyAway | Code::NoPairAvailable => {
                "Try again in a moment."
            }
            Code::Deadline => {
                "Try again; `duet job get` shows the state of a job. A longer --timeout may help."
            }
            Code::RequesterNotAllowed | Code::KindNotAllowed => {
                "The wallet's owner decides who may request what: `duet wallet show` lists it."
            }
            _ => return None,
        })
    }
}

impl From<Code> for ErrorCode {
    fn from(code: Code) -> Self {
        Self::Shared(code)
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Why a command failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct CliError {
    code: ErrorCode,
    message: String,
    remedy: Option<String>,
    path: Option<String>,
    job: Option<String>,
    details: Option<Box<serde_json::Value>>,
}

impl CliError {
    /// An error with `code`, explained by `message`.
    pub(crate) fn new(code: impl Into<ErrorCode>, message: impl Into<String>) -> Self {
        let code = code.into();
        Self {
            code,
            message: message.into(),
            remedy: code.remedy().map(str::to_owned),
            path: None,
            job: None,
            details: None,
        }
    }

    /// A setting is missing, or settings contradict each other.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Usage, message)
    }

    /// A file or standard input has unexpected contents.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::File, message)
    }

    /// A file or stream cannot be read or written.
    pub(crate) fn io(what: &str, error: &io::Error) -> Self {
        Self::new(ErrorCode::File, format!("{what}: {error}"))
    }

    /// A share store lacks what this build needs: `missing` names it.
    pub(crate) fn not_expanded(missing: &str) -> Self {
        StoreError::NotExpanded(missing.to_owned()).into()
    }

    /// An error that should be impossible.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// The command line asks for a part that was left out when this program was built.
    #[cfg(any(test, not(all(feature = "load", feature = "postgres", feature = "traces"))))]
    pub(crate) fn built_without(what: &str, feature: &str) -> Self {
        Self::usage(format!("this program was built without {what}"))
            .remedy(format!("Build it with cargo's default features, or at least with `{feature}`."))
    }

    /// Sets a remedy for this occurrence.
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Sets the path of the fault in a JSON input.
    pub(crate) fn at(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Sets the job that the error is about.
    pub(crate) fn job(mut self, job: impl fmt::Display) -> Self {
        self.job = Some(job.to_string());
        self
    }

    /// Its code.
    pub(crate) const fn code(&self) -> ErrorCode {
        self.code
    }

    /// Sets a JSON document with further details, for programs.
    pub(crate) fn details(mut self, details: serde_json::Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// The process's exit code.
    pub(crate) const fn exit_code(&self) -> u8 {
        self.code.exit_code()
    }

    /// The error as the only document on standard output.
    pub(crate) fn document(&self) -> impl Serialize + '_ {
        #[derive(Serialize)]
        struct Body<'a> {
            code: ErrorCode,
            title: &'static str,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            remedy: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            path: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            job: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            details: Option<&'a serde_json::Value>,
            exit_code: u8,
        }
        #[derive(Serialize)]
        struct Document<'a> {
            error: Body<'a>,
        }
        Document {
            error: Body {
                code: self.code,
                title: self.code.title(),
                message: &self.message,
                remedy: self.remedy.as_deref(),
                path: self.path.as_deref(),
                job: self.job.as_deref(),
                details: self.details.as_deref(),
                exit_code: self.exit_code(),
            },
        }
    }

    /// The error as text of one to three lines, for people.
    pub(crate) fn text(&self) -> String {
        use fmt::Write as _;
        let mut text = format!("error: {} [{}]", self.message, self.code.as_str());
        if let Some(path) = &self.path {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n   at: {path}");
        }
        if let Some(job) = &self.job {
            let _ = write!(text, "\n  job: {job}");
        }
        if let Some(remedy) = &self.remedy {
            let _ = write!(text, "\n help: {remedy}");
        }
        text
    }
}

impl From<Refusal> for CliError {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.message)
    }
}

impl From<PartyError> for CliError {
    fn from(error: PartyError) -> Self {
        let message = match &error {
            // The command prints the code beside the message already.
            PartyError::Refused(refusal) | PartyError::RefusedByPolicy { refusal, .. } => {
                refusal.message.clone()
            }
            PartyError::RefusedBy { by, refusal } => format!("{by}: {}", refusal.message),
            other => other.to_string(),
        };
        let code = match &error {
            PartyError::Store(StoreError::NotAStore { .. }) => ErrorCode::File,
            PartyError::Store(StoreError::NotExpanded(_)) => ErrorCode::StoreNotExpanded,
            PartyError::Store(StoreError::Contracted(_)) => ErrorCode::StoreContracted,
            other => ErrorCode::Shared(other.code()),
        };
        Self::new(code, message)
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        PartyError::from(error).into()
    }
}

impl From<Problem> for CliError {
    fn from(problem: Problem) -> Self {
        let error = Self::new(problem.code, problem.detail);
        match problem.path {
            Some(path) => error.at(path),
            None => error,
        }
    }
}

/// The error of a payload, with the path of the fault.
pub(crate) fn payload_error(error: PayloadError) -> CliError {
    let cli_error = CliError::new(error.code(), error.to_string());
    let (PayloadError::Json(error) | PayloadError::TypedData(error)) = error;
    cli_error.at(error.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_pinned() {
        let error = CliError::new(Code::ChainIdMismatch, "the node is on chain 1").at("chainId");
        assert_eq!(
            serde_json::to_value(error.document()).unwrap(),
            serde_json::json!({"error": {
                "code": "chain-id-mismatch", "title": "Chain id mismatch", "message": "the node is on chain 1",
                "remedy": "Use a node of the transaction's chain, or correct the chain id.",
                "path": "chainId", "exit_code": 3}})
        );
    }

    #[test]
    fn every_code_fails_and_is_named_once() {
        let mut seen = std::collections::BTreeSet::new();
        for code in ErrorCode::all() {
            assert_ne!(code.exit_code(), 0, "{}", code.as_str());
            assert!(seen.insert(code.as_str()), "{} is there twice", code.as_str());
        }
    }
}
