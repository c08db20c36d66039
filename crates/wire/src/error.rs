//! What can go wrong, as stable codes that users, scripts and operators can rely on.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::unknown::UnknownName;

/// The process exit code of a group of errors. 0 is success, 1 an unforeseen failure, 2 a command
/// line that does not parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ExitCode {
    /// 3: the input is malformed.
    Input = 3,
    /// 4: something that the caller named does not exist.
    NotFound = 4,
    /// 5: not allowed.
    Refused = 5,
    /// 6: the share cannot be used before an operator or owner acts.
    Locked = 6,
    /// 7: busy or unreachable; trying again later may work.
    Unavailable = 7,
    /// 8: the job ended without a signature.
    Ended = 8,
    /// 9: another party broke the protocol.
    Misbehaviour = 9,
    /// 10: an internal failure.
    Internal = 10,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $exit:ident, $title:literal;)+) => {
        /// A stable error code. Its text form never changes its meaning; new codes may be added.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)+
            /// A code that a later release added. Its text is kept and shown.
            Unknown(UnknownName),
        }

        impl Code {
            /// All codes that this build knows, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The code as a text of this program, for example `chain-id-mismatch`. It is
            /// `unknown` for a code that this build does not know, which displays as its own text.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ Self::Unknown(_) => UnknownName::LABEL }
            }

            /// The HTTP status it is reported with.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$name => $status,)+ Self::Unknown(_) => 503 }
            }

            /// The exit code of the command line for it.
            #[must_use]
            pub const fn exit_code(self) -> u8 {
                match self {
                    $(Self::$name => ExitCode::$exit as u8,)+
                    Self::Unknown(_) => ExitCode::Unavailable as u8,
                }
            }

            /// A few words that do not depend on the occurrence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)+ Self::Unknown(_) => "Unknown code" }
            }
        }

        impl FromStr for Code {
            type Err = UnknownCode;
            fn from_str(text: &str) -> Result<Self, UnknownCode> {
                match text {
                    $($text => Ok(Self::$name),)+
                    _ => Err(UnknownCode),
                }
            }
        }
    };
}

codes! {
    /// The document is not the expected JSON.
    MalformedJson = "malformed-json", 400, Input, "Malformed JSON";
    /// Something exceeds its size limit.
    TooLarge = "too-large", 413, Input, "Too large";
    /// This build does not speak the version.
    UnsupportedVersion = "unsupported-version", 400, Input, "Unsupported version";
    /// A binary message does not parse.
    MalformedMessage = "malformed-message", 400, Input, "Malformed message";
    /// The payload has no digest.
    InvalidPayload = "invalid-payload", 422, Input, "Payload cannot be signed";
    /// A webhook cannot be delivered to this URL.
    InvalidEndpoint = "invalid-endpoint", 422, Input, "Endpoint not usable";
    /// The chain is not the expected one.
    ChainIdMismatch = "chain-id-mismatch", 422, Input, "Chain id mismatch";
    /// A signature over a document does not verify.
    BadSignature = "bad-signature", 401, Refused, "Bad signature";
    /// The credential is missing or wrong.
    Unauthorized = "unauthorized", 401, Refused, "Unauthorized";
    /// The requester's key may not request signatures of this wallet.
    RequesterNotAllowed = "requester-not-allowed", 403, Refused, "Requester not allowed";
    /// The requester may not request signatures over this kind of payload.
    KindNotAllowed = "kind-not-allowed", 403, Refused, "Payload kind not allowed";
    /// The wallet's policy does not allow it.
    PolicyRefused = "policy-refused", 403, Refused, "Refused by the policy";
    /// A limit of the wallet's policy has no room for it.
    LimitExceeded = "limit-exceeded", 403, Refused, "Limit exceeded";
    /// The signed request has had as many answers as one may have.
    TooManyAnswers = "too-many-answers", 403, Ended, "Too many answers";
    /// The wallet's policy requires approvals that are missing.
    ApprovalMissing = "approval-missing", 403, Refused, "Approval missing";
    /// The wallet does not belong to the tenant.
    WrongTenant = "wrong-tenant", 403, Refused, "Wrong tenant";
    /// A card is not the pinned one.
    CardMismatch = "card-mismatch", 403, Refused, "Card mismatch";
    /// The admission token is missing, expired, or not for this.
    AdmissionToken = "admission-token", 403, Refused, "Admission token refused";
    /// The owner rejected it.
    RejectedByOwner = "rejected-by-owner", 403, Ended, "Rejected by the owner";
    /// The tenant may not store more.
    Quota = "quota", 403, Refused, "Quota exhausted";
    /// The wallet is unknown here.
    UnknownWallet = "unknown-wallet", 404, NotFound, "Unknown wallet";
    /// Nothing exists under this name.
    NotFound = "not-found", 404, NotFound, "Not found";
    /// The path does not support this HTTP method.
    MethodNotAllowed = "method-not-allowed", 405, Input, "Method not allowed";
    /// It contradicts what already exists.
    Conflict = "conflict", 409, Refused, "Conflict";
    /// Another job has the same transaction.
    DuplicateDigest = "duplicate-digest", 409, Refused, "Transaction is another job's";
    /// The wallet is already stored.
    WalletExists = "wallet-exists", 409, Refused, "Wallet exists";
    /// The responder has no enrolment of the initiator.
    NotEnrolled = "not-enrolled", 409, Unavailable, "Not enrolled";
    /// The shares were refreshed meanwhile.
    StaleEpoch = "stale-epoch", 409, Unavailable, "Stale epoch";
    /// The initiator's Paillier key was rotated meanwhile.
    StalePaillierKey = "stale-paillier-key", 409, Unavailable, "Stale Paillier key";
    /// The session was already used.
    SessionReplayed = "session-replayed", 409, Misbehaviour, "Session replayed";
    /// The Paillier key is locked.
    Locked = "locked", 423, Locked, "Locked";
    /// The share was restored and its key not yet rotated.
    NeedsRotation = "needs-rotation", 423, Locked, "Rotation needed";
    /// The passphrase, or the key file, does not open the share store.
    WrongPassphrase = "wrong-passphrase", 401, Locked, "Wrong passphrase or key";
    /// The job's or request's time has passed.
    JobExpired = "job-expired", 410, Ended, "Expired";
    /// The job was cancelled.
    Cancelled = "cancelled", 410, Ended, "Cancelled";
    /// The broker went back in time after the cursor was given out.
    CursorGone = "cursor-gone", 410, Ended, "Cursor gone";
    /// The requester made the request valid for longer than parties allow.
    ValidTooLong = "valid-too-long", 403, Refused, "Valid for too long";
    /// The request was issued before the party's store was restored.
    IssuedBeforeRestore = "issued-before-restore", 403, Refused, "Issued before a restore";
    /// Two machines' clocks differ by more than is allowed.
    ClockDiffers = "clock-differs", 503, Unavailable, "Clocks differ";
    /// The queue is full.
    QueueFull = "queue-full", 429, Unavailable, "Queue full";
    /// The tenant makes more requests than it may.
    RateLimited = "rate-limited", 429, Unavailable, "Too many requests";
    /// All seats of a party are taken.
    NoSeat = "no-seat", 503, Unavailable, "No seat free";
    /// A process has no room for another request.
    Overloaded = "overloaded", 503, Unavailable, "Overloaded";
    /// No worker of a party is there.
    PartyAway = "party-away", 503, Unavailable, "Party away";
    /// None of the request's pairs can sign now.
    NoPairAvailable = "no-pair-available", 503, Unavailable, "No pair available";
    /// The broker is unreachable.
    BrokerUnreachable = "broker-unreachable", 503, Unavailable, "Broker unreachable";
    /// The broker does not prove that it keeps what it acknowledges.
    UnsafeBroker = "unsafe-broker", 503, Unavailable, "Unsafe broker";
    /// The store refuses to work.
    StorageUnavailable = "storage-unavailable", 503, Unavailable, "Storage unavailable";
    /// An answer did not arrive in time.
    Deadline = "deadline", 504, Unavailable, "Deadline passed";
    /// Another party broke the protocol.
    PeerMisbehaved = "peer-misbehaved", 502, Misbehaviour, "Peer misbehaved";
    /// An internal failure.
    Internal = "internal", 500, Internal, "Internal error";
}

/// Where the codes are explained, relative to the repository.
pub const ERRORS_PAGE: &str = "docs/errors.md";

/// What a code means for a job when a session or an invitation ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The code says nothing about the job. The orchestrator counts no attempt, and the next pair
    /// has its turn at once. The job waits under this reason until the cause is gone or the job
    /// expires, and the orchestrator tries it again with growing pauses.
    Wait,
    /// The orchestrator counts the attempt. The job fails with the last code once two bounds are
    /// reached: `--max-attempts` counted attempts, and `--give-up-after` since the first of them.
    Tried,
    /// The party refuses this job. The orchestrator does not ask this pair again. The job goes to
    /// another pair. Without one it fails with the code.
    No,
    /// Only the HTTP interface, a share store or a delivery of shares gives the code. If a session
    /// ends with it nevertheless, the attempt counts as `tried`.
    NeverFromASession,
}

impl Class {
    /// All classes, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::Wait, Self::Tried, Self::No, Self::NeverFromASession];

    /// The class as text, for example `wait`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Tried => "tried",
            Self::No => "no",
            Self::NeverFromASession => "never from a session",
        }
    }
}

impl Code {
    /// What the code means for a job when a session or an invitation ends with it.
    ///
    /// `deadline` has one exception, which only the attempt knows: silence before both parties have
    /// accepted says nothing about the job (`AttemptOutcome::class`).
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            // No seat is free, or no worker is there.
            Self::NoSeat
            | Self::Overloaded
            | Self::PartyAway
            | Self::NoPairAvailable
            | Self::StorageUnavailable
            | Self::BrokerUnreachable
            | Self::UnsafeBroker
            | Self::QueueFull
            | Self::RateLimited
            | Self::SessionReplayed
            // A person has to repair something. The job waits for that.
            | Self::Locked
            | Self::NeedsRotation
            | Self::NotEnrolled
            | Self::UnknownWallet
            | Self::CardMismatch
            | Self::UnsupportedVersion
            // Another release knows what it means.
            | Self::Unknown(_)
            // The orchestrator knew an older state of the wallet, and asks again.
            | Self::StaleEpoch
            | Self::StalePaillierKey
            | Self::ClockDiffers
            // A party says so by its own clock, which may be wrong. Only the orchestrators decide
            // when a job expires.
            | Self::JobExpired => Class::Wait,
            Self::Deadline | Self::PeerMisbehaved | Self::MalformedMessage | Self::Internal => Class::Tried,
            Self::PolicyRefused
            | Self::LimitExceeded
            | Self::RequesterNotAllowed
            | Self::KindNotAllowed
            | Self::WrongTenant
            | Self::BadSignature
            | Self::InvalidPayload
            | Self::ChainIdMismatch
            | Self::MalformedJson
            | Self::TooLarge
            // The approver puts the job back.
            | Self::ApprovalMissing
            // These two end the job; no pair is asked any more.
            | Self::RejectedByOwner
            | Self::Cancelled
            | Self::Conflict
            | Self::DuplicateDigest
            | Self::TooManyAnswers
            | Self::ValidTooLong
            | Self::IssuedBeforeRestore => Class::No,
            Self::Unauthorized
            | Self::Quota
            | Self::WalletExists
            | Self::AdmissionToken
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::CursorGone
            | Self::InvalidEndpoint
            | Self::WrongPassphrase => Class::NeverFromASession,
        }
    }
}

/// The text is no code that this build knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown error code")]
pub struct UnknownCode;

impl Code {
    /// Where the code is explained: a page of the repository with an anchor.
    #[must_use]
    pub fn documentation(self) -> String {
        format!("{ERRORS_PAGE}#{self}")
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => name.fmt(f),
            known => f.write_str(known.as_str()),
        }
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Code {
    /// Reads any code, also one that this build does not know. What a caller asks for is parsed
    /// with [`FromStr`], which refuses such a code.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.parse() {
            Ok(known) => Ok(known),
            Err(UnknownCode) => UnknownName::new(&text).map(Self::Unknown).map_err(D::Error::custom),
        }
    }
}

/// The longest explanation that is sent, in bytes.
pub const MAX_EXPLANATION_SIZE_BYTES: usize = 512;

/// Bounds a text for people to [`MAX_EXPLANATION_SIZE_BYTES`]. A longer text is cut, whichever
/// process sent it.
pub(crate) fn bounded(mut text: String) -> String {
    if text.len() > MAX_EXPLANATION_SIZE_BYTES {
        let end = (0..=MAX_EXPLANATION_SIZE_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// A refusal as processes send it: a code, and a sentence that a person can act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message} [{code}]")]
pub struct Refusal {
    /// What went wrong.
    pub code: Code,
    /// An explanation for a person, without secrets.
    pub message: String,
}

impl Refusal {
    /// A refusal with `code`, explained by `message`.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: bounded(message.into()) }
    }
}

impl<'de> Deserialize<'de> for Refusal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            code: Code,
            message: String,
        }
        Fields::deserialize(deserializer).map(|f| Self::new(f.code, f.message))
    }
}

/// An error of the HTTP API: the body of an `application/problem+json` answer (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail} [{code}]")]
pub struct Problem {
    /// Where the kind of problem is explained.
    #[serde(rename = "type")]
    pub kind: String,
    /// A short title of the kind of problem.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened, as a sentence that a person can act on.
    pub detail: String,
    /// The stable code.
    pub code: Code,
    /// The JSON path of the faulty value in the request's body, if that is the cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl Problem {
    /// The problem `code`, explained by `detail`.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: code.documentation(),
            title: code.title().to_owned(),
            status: code.http_status(),
            detail: bounded(detail.into()),
            code,
            path: None,
        }
    }

    /// Adds the path of the faulty value in the request's body.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.path = Some(bounded(path.into()));
        self
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.message)
    }
}

#[cfg(test)]
mod tests {
    use duet_test_docs::{Item, table};

    use super::*;

    const PAGE: &str = include_str!("../../../docs/errors.md");
    const SOURCE: &str = include_str!("error.rs");

    #[test]
    fn the_tables_of_the_page_are_those_of_the_code() {
        let classes = Item::read(SOURCE, "enum Class").unwrap().variants;
        let rows = Class::ALL.map(|class| {
            let codes = Code::ALL.iter().filter(|code| code.class() == class);
            let listed: Vec<String> = codes.map(|code| format!("`{code}`")).collect();
            let meaning = classes.iter().find(|variant| variant.name == format!("{class:?}")).unwrap();
            [class.as_str().to_owned(), listed.join(", "), meaning.paragraphs.join(" ")]
        });
        let heading = ["class", "codes", "meaning for the job"];
        duet_test_docs::part(ERRORS_PAGE, "classes", &table(heading, rows)).unwrap();

        let others = ["0: success.", "1: an unforeseen failure.", "2: the command line does not parse."];
        let groups = Item::read(SOURCE, "enum ExitCode").unwrap().variants;
        let groups = groups.iter().map(|group| group.paragraphs.join(" "));
        let rows = others.map(str::to_owned).into_iter().chain(groups).map(|text| {
            let (code, meaning) = text.split_once(": ").unwrap();
            [code.to_owned(), meaning.trim_end_matches('.').to_owned()]
        });
        let exit_codes = table(["exit code", "group"], rows);
        duet_test_docs::part(ERRORS_PAGE, "exit codes", &exit_codes).unwrap();
    }

    #[test]
    fn the_page_has_one_section_per_code_with_cause_and_remedy() {
        let sections: Vec<_> = PAGE.split("\n## ").skip(1).collect();
        assert_eq!(sections.len(), Code::ALL.len());
        for (code, section) in Code::ALL.iter().zip(sections) {
            let (heading, text) = section.split_once('\n').unwrap();
            assert_eq!(heading, code.as_str());
            let summary =
                format!("{}. HTTP {}, exit code {}.", code.title(), code.http_status(), code.exit_code());
            assert!(text.contains(&summary), "{code}: expected `{summary}`");
            for part in ["**Cause:** ", "**Remedy:** "] {
                assert_eq!(text.matches(part).count(), 1, "{code}: {part}");
            }
        }
    }

    #[test]
    fn the_page_lists_the_codes_of_each_class() {
        for class in Class::ALL {
            let codes = Code::ALL.iter().filter(|code| code.class() == class);
            let listed: Vec<String> = codes.map(|code| format!("`{code}`")).collect();
            let start = format!("| {} | {} |", class.as_str(), listed.join(", "));
            assert!(PAGE.contains(&start), "expected a row that begins: {start}");
        }
    }

    #[test]
    fn codes_are_their_text_everywhere() {
        for code in Code::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert!((3..=10).contains(&code.exit_code()) && (400..600).contains(&code.http_status()));
        }
        assert_eq!("no-such-code".parse::<Code>(), Err(UnknownCode));
    }

    #[test]
    fn own_and_received_explanations_are_cut_at_a_character() {
        let long = "é".repeat(400);
        let refusal = Refusal::new(Code::Internal, format!("x{long}"));
        assert_eq!(refusal.message.len(), 511);
        let sent = serde_json::json!({ "code": "internal", "message": long }).to_string();
        assert_eq!(serde_json::from_str::<Refusal>(&sent).unwrap().message.len(), 512);
    }

    #[test]
    fn a_problem_is_a_problem_document() {
        let problem = Problem::new(Code::ChainIdMismatch, "The node is on chain 5.").at("payload.chainId");
        assert_eq!(
            serde_json::to_value(&problem).unwrap(),
            serde_json::json!({
                "type": "docs/errors.md#chain-id-mismatch",
                "title": "Chain id mismatch",
                "status": 422,
                "detail": "The node is on chain 5.",
                "code": "chain-id-mismatch",
                "path": "payload.chainId",
            })
        );
    }
}
