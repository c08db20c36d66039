//! Judges a run from its evidence alone. It shares no code with what it judges but the decoding of
//! documents: digests are computed and signers recovered by libraries that have no part in Duet.

mod growth;
mod jobs;
mod sessions;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::history::{History, OneTime};

/// Something that must not happen, and did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// A job was accepted and is gone, or never ended.
    Lost {
        /// The idempotency key.
        key: String,
        /// What is known of it.
        state: String,
    },
    /// One idempotency key stands for two jobs.
    TwoJobs {
        /// The key.
        key: String,
        /// The jobs.
        jobs: Vec<String>,
    },
    /// A key was taken for another payload as well.
    KeyReused {
        /// The key.
        key: String,
        /// What was answered.
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
        /// How.
        ends: Vec<String>,
    },
    /// A job ended without a signature, though everything that it takes came back.
    Unsigned {
        /// The job.
        job: String,
        /// How it ended, and why.
        end: String,
    },
    /// A job is signed and its result was never published, or it was given up and is no dead
    /// letter.
    Unpublished {
        /// The job.
        job: String,
    },
    /// A result was published for a job that nobody asked for.
    Unasked {
        /// The job.
        job: String,
    },
    /// A result is not signed by the orchestrators, or cannot be read.
    BadResult {
        /// The job.
        job: String,
        /// What is wrong.
        why: String,
    },
    /// A signature does not verify for the payload under the wallet's key.
    BadSignature {
        /// The job.
        job: String,
        /// Where it was seen.
        seen: String,
    },
    /// Something other than the payload's digest was charged or signed for a job.
    AnotherDigest {
        /// The job.
        job: String,
        /// In which session.
        session: String,
    },
    /// A signature came of a session in which the responder charged nothing.
    Uncharged {
        /// The session.
        session: String,
    },
    /// A one-time value was used in two sessions.
    Reused {
        /// Which.
        what: OneTime,
        /// The sessions.
        sessions: Vec<String>,
    },
    /// Two signatures of different sessions have the same `r`: both nonces were the same.
    SameNonce {
        /// The sessions.
        sessions: Vec<String>,
    },
    /// More than one process spoke in one seat of a session.
    Resumed {
        /// The session.
        session: String,
        /// Which seat.
        seat: &'static str,
        /// Who.
        runs: Vec<String>,
    },
    /// A seat said more in a session than the protocol has for it.
    SaidTooMuch {
        /// The session.
        session: String,
        /// Which seat.
        seat: &'static str,
        /// How many different messages.
        messages: usize,
    },
    /// A signature came of a session whose messages were not all overheard, so that nothing can be
    /// said of them.
    Unheard {
        /// The session.
        session: String,
        /// Whose messages.
        seat: &'static str,
        /// How many different ones there were.
        messages: usize,
    },
    /// The very same sealed bytes in two sessions.
    SameBytes {
        /// The sessions.
        sessions: Vec<String>,
    },
    /// A Paillier key is locked and there was no bad signature.
    Locked {
        /// Whose.
        party: String,
        /// Which.
        key: String,
    },
    /// Something did not recover by itself.
    Unrecovered {
        /// What.
        what: String,
    },
    /// A process takes more at the end than at the beginning.
    Grew {
        /// Which.
        process: String,
        /// Of what.
        what: &'static str,
        /// How much at first.
        before: u64,
        /// How much at the end.
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
            Self::Unsigned { job, end } => write!(f, "job {job} ended without a signature: {end}"),
            Self::Unpublished { job } => write!(f, "the end of job {job} was never published"),
            Self::Unasked { job } => write!(f, "a result for job {job}, which nobody asked for"),
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

/// Everything in a run that must not be. An empty list is the only good one.
#[must_use]
pub fn check(history: &History) -> Vec<Finding> {
    let mut findings = jobs::check(history);
    findings.extend(sessions::check(history));
    findings.extend(growth::check(history));
    findings.extend(history.unrecovered.iter().map(|what| Finding::Unrecovered { what: what.clone() }));
    findings.sort();
    findings.dedup();
    findings
}
