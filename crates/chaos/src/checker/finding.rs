//! What a run may have violated.

use std::fmt;

use crate::history::OneTime;

/// A violation that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// An accepted job is gone, or never ended.
    Lost {
        /// The idempotency key.
        key: String,
        /// What is known of the job.
        state: String,
    },
    /// One idempotency key stands for two jobs.
    TwoJobs {
        /// The key.
        key: String,
        /// The jobs.
        jobs: Vec<String>,
    },
    /// An orchestrator accepted another payload under a used key.
    KeyReused {
        /// The key.
        key: String,
        /// The HTTP status of the answer.
        status: u16,
    },
    /// Two different results were published for one job.
    TwoResults {
        /// The job.
        job: String,
    },
    /// A job ended in more than one way.
    EndedTwice {
        /// The job.
        job: String,
        /// The ways in which it ended.
        ends: Vec<String>,
    },
    /// A job ended without a signature, and had no cause of its own for that: its payload deserved
    /// no refusal, and no fault broke its attempts.
    Unsigned {
        /// The job.
        job: String,
        /// How it ended, with the reason.
        end: String,
        /// Why that is no cause of its own.
        why: String,
    },
    /// A job is signed, although every party had to refuse it.
    Undeserved {
        /// The job.
        job: String,
        /// The code that its payload earns.
        earns: String,
    },
    /// A receiver of webhooks never took a job's result, although it takes deliveries again.
    Undelivered {
        /// The job.
        job: String,
        /// The receiver.
        receiver: String,
    },
    /// A receiver of webhooks took something else than the published result.
    WrongDelivery {
        /// The job that the delivery names.
        job: String,
        /// The receiver.
        receiver: String,
    },
    /// A signed job's result was never published, or a failed job is no dead letter.
    Unpublished {
        /// The job.
        job: String,
    },
    /// A result was published for a job that no team requested.
    Unasked {
        /// The job.
        job: String,
    },
    /// A result is unreadable, or not signed by the orchestrators.
    BadResult {
        /// The job.
        job: String,
        /// The fault in the result.
        why: String,
    },
    /// A signature does not verify for the payload under the wallet's key.
    BadSignature {
        /// The job.
        job: String,
        /// Where the signature was found.
        seen: String,
    },
    /// A party charged or signed another digest than that of the job's payload.
    AnotherDigest {
        /// The job.
        job: String,
        /// The session.
        session: String,
    },
    /// A session gave a signature although the responder charged nothing.
    Uncharged {
        /// The session.
        session: String,
    },
    /// A one-time value was used in two sessions.
    Reused {
        /// The kind of value.
        what: OneTime,
        /// The sessions.
        sessions: Vec<String>,
    },
    /// Signatures of two sessions have the same `r`: both nonces were equal.
    SameNonce {
        /// The sessions.
        sessions: Vec<String>,
    },
    /// More than one process spoke in one seat of a session.
    Resumed {
        /// The session.
        session: String,
        /// The seat.
        seat: &'static str,
        /// The processes.
        runs: Vec<String>,
    },
    /// A seat sent more messages in a session than the protocol has.
    SaidTooMuch {
        /// The session.
        session: String,
        /// The seat.
        seat: &'static str,
        /// The number of different messages.
        messages: usize,
    },
    /// A session gave a signature, but not all its messages were overheard. So the checker cannot
    /// judge them.
    Unheard {
        /// The session.
        session: String,
        /// The seat whose messages are missing.
        seat: &'static str,
        /// The number of different messages.
        messages: usize,
    },
    /// The same sealed bytes occur in two sessions.
    SameBytes {
        /// The sessions.
        sessions: Vec<String>,
    },
    /// A Paillier key is locked, but there was no bad signature.
    Locked {
        /// The party that holds the key.
        party: String,
        /// The key.
        key: String,
    },
    /// A process or service did not recover by itself.
    Unrecovered {
        /// Its name.
        what: String,
    },
    /// A process uses more resources at the end than at the beginning.
    Grew {
        /// The process.
        process: String,
        /// The resource.
        what: &'static str,
        /// Its use at the beginning.
        before: u64,
        /// Its use at the end.
        after: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { key, state } => write!(f, "lost: the job of key {key} was accepted and is {state}"),
            Self::TwoJobs { key, jobs } => {
                write!(f, "key {key} stands for several jobs: {}", jobs.join(", "))
            }
            Self::KeyReused { key, status } => {
                write!(f, "key {key} was answered with {status} for another payload")
            }
            Self::TwoResults { job } => write!(f, "two different results were published for job {job}"),
            Self::EndedTwice { job, ends } => write!(f, "job {job} ended as {}", ends.join(" and ")),
            Self::Unsigned { job, end, why } => {
                write!(f, "job {job} ended without a signature and without a cause of its own: {end}; {why}")
            }
            Self::Undeserved { job, earns } => {
                write!(f, "job {job} is signed, although its payload earns {earns}")
            }
            Self::Undelivered { job, receiver } => {
                write!(f, "the result of job {job} was never delivered to {receiver}")
            }
            Self::WrongDelivery { job, receiver } => {
                write!(f, "{receiver} was delivered another result for job {job} than the published one")
            }
            Self::Unpublished { job } => write!(f, "the end of job {job} was never published"),
            Self::Unasked { job } => write!(f, "a result for job {job}, which no client submitted"),
            Self::BadResult { job, why } => write!(f, "the result of job {job}: {why}"),
            Self::BadSignature { job, seen } => {
                write!(f, "a signature for job {job} does not verify ({seen})")
            }
            Self::AnotherDigest { job, session } => {
                write!(f, "another digest than that of job {job} in session {session}")
            }
            Self::Uncharged { session } => {
                write!(f, "a signature of session {session}, which was never charged")
            }
            Self::Reused { what, sessions } => {
                write!(f, "{what:?} was used in several sessions: {}", sessions.join(", "))
            }
            Self::SameNonce { sessions } => {
                write!(f, "the same r in several sessions: {}", sessions.join(", "))
            }
            Self::Resumed { session, seat, runs } => {
                write!(f, "session {session}: the {seat} was {}", runs.join(" and "))
            }
            Self::SaidTooMuch { session, seat, messages } => {
                write!(f, "session {session}: the {seat} sent {messages} different messages")
            }
            Self::Unheard { session, seat, messages } => {
                write!(f, "session {session}: a signature, and {messages} messages of the {seat} overheard")
            }
            Self::SameBytes { sessions } => {
                write!(f, "the same sealed message in several sessions: {}", sessions.join(", "))
            }
            Self::Locked { party, key } => {
                write!(f, "{party}'s Paillier key {key} is locked without a bad signature")
            }
            Self::Unrecovered { what } => write!(f, "did not recover: {what}"),
            Self::Grew { process, what, before, after } => {
                write!(f, "{process} grew: {what} from {before} to {after}")
            }
        }
    }
}
