//! What the doctor gathers before it judges anything.

use std::collections::BTreeMap;

use duet_bus::inspect::{Answer, Node, StreamReport};
use serde::Deserialize;

/// Why something was not asked, and what to give so that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unasked {
    /// Why.
    pub(crate) why: String,
    /// What to give or mend.
    pub(crate) remedy: String,
}

/// What was told, or why nothing was asked.
pub(crate) type Told<T> = Result<T, Unasked>;

/// Why there is no connection to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoConnection {
    /// No server answers.
    Unreachable(String),
    /// The server knows other keys.
    Refused(String),
    /// Its certificate is not trusted.
    Untrusted(String),
}

/// The broker.
#[derive(Debug, Clone)]
pub(crate) struct BrokerFacts {
    /// Whether the doctor reached it.
    pub(crate) connection: Told<Result<(), NoConnection>>,
    /// Its nodes.
    pub(crate) nodes: Told<Vec<Answer<Node>>>,
    /// How many clients of each name are connected.
    pub(crate) connected: Option<BTreeMap<String, usize>>,
    /// Streams and buckets; `None` for a missing one.
    pub(crate) streams: Told<Vec<(String, Option<StreamReport>)>>,
}

/// A reading of another process's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// How far it is ahead of this machine's clock, in milliseconds.
    pub(crate) ahead_ms: i64,
    /// How far the reading may be wrong either way, in milliseconds.
    pub(crate) within_ms: u64,
}

impl Reading {
    /// A clock that showed `now_ms` between the moments when a question was sent and answered.
    pub(crate) fn taken(now_ms: u64, sent_ms: u64, received_ms: u64) -> Self {
        let half = received_ms.saturating_sub(sent_ms) / 2;
        Self {
            ahead_ms: i128::from(now_ms)
                .saturating_sub(i128::from(sent_ms.saturating_add(half)))
                .try_into()
                .unwrap_or(i64::MAX),
            // Both clocks show whole milliseconds.
            within_ms: half + 1,
        }
    }

    /// The more exact of two readings of one clock.
    pub(crate) fn or(self, other: Self) -> Self {
        if other.within_ms < self.within_ms { other } else { self }
    }
}

/// A worker of a party.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Worker {
    /// Its process.
    pub(crate) instance: String,
    /// Its build.
    pub(crate) version: String,
    /// Its clock.
    pub(crate) clock: Reading,
    /// How many sessions it takes at once.
    pub(crate) seats: u32,
    /// How many more it takes now.
    pub(crate) free_seats: u32,
    /// Whether it initiates sessions.
    pub(crate) is_initiating: bool,
}

/// A party.
#[derive(Debug, Clone)]
pub(crate) struct PartyFacts {
    /// Its name.
    pub(crate) party: String,
    /// The workers that answered, or why none did.
    pub(crate) workers: Told<Result<Vec<Worker>, String>>,
    /// Whether workers of an earlier build answered, which do not say what they are.
    pub(crate) has_older: bool,
    /// How many of its workers are connected to the broker.
    pub(crate) connected: Option<usize>,
}

/// What a ready orchestrator found out about the broker, and when, in milliseconds since 1970.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct BrokerHistory {
    /// That it had lost streams or buckets.
    pub(crate) stores_lost_at_ms: Option<u64>,
    /// That it was put back to an earlier copy of its store.
    pub(crate) broker_went_back_at_ms: Option<u64>,
}

/// What a process says at `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It takes work.
    Ready(BrokerHistory),
    /// It takes no work, for this reason.
    Unready { code: String, detail: String },
    /// It does not answer.
    Unreachable(String),
}

/// An orchestrator.
#[derive(Debug, Clone)]
pub(crate) struct OrchestratorFacts {
    /// Its address.
    pub(crate) url: String,
    /// Whether it takes jobs.
    pub(crate) readiness: Readiness,
    /// Its build; `None` when it is of an earlier one, which does not say.
    pub(crate) version: Option<String>,
    /// How many jobs it works on at once.
    pub(crate) max_in_flight: Option<usize>,
    /// Its clock.
    pub(crate) clock: Option<Reading>,
}

/// Another process that was asked whether it is ready.
#[derive(Debug, Clone)]
pub(crate) struct OtherFacts {
    /// Its address.
    pub(crate) url: String,
    /// Whether it takes work.
    pub(crate) readiness: Readiness,
}

/// A certificate, in a file or as a server presented it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateFacts {
    /// The file or the server.
    pub(crate) source: String,
    /// From when until when it is valid, in seconds since 1970; or why that is not known.
    pub(crate) validity: Result<(i64, i64), String>,
}

/// Why a job is not signed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reason {
    /// The stable code.
    pub(crate) code: String,
    /// An explanation for a person.
    pub(crate) message: String,
}

/// A job without a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unsigned {
    /// The job.
    pub(crate) job: String,
    /// Since when it waits, or when it ended, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// Why, if that is known.
    pub(crate) reason: Option<Reason>,
}

/// A pair that cannot sign for a wallet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnusablePair {
    /// The wallet.
    pub(crate) wallet: String,
    /// The pair.
    pub(crate) pair: String,
    /// Why it cannot sign.
    pub(crate) reason: Reason,
}

/// A receiver of webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebhookFacts {
    /// The webhook.
    pub(crate) id: String,
    /// Where results are posted.
    pub(crate) url: String,
    /// Since when every delivery failed, in milliseconds since 1970.
    pub(crate) failing_since_ms: Option<u64>,
    /// Why deliveries are off, if they are.
    pub(crate) disabled: Option<String>,
    /// What the last failed delivery met.
    pub(crate) last_error: Option<String>,
}

/// What a tenant has at the orchestrators.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// Jobs that wait for their turn, and whether there are more than were read.
    pub(crate) queued: Vec<Unsigned>,
    /// Whether there are more queued jobs than were read.
    pub(crate) has_more: bool,
    /// How many jobs run.
    pub(crate) running: usize,
    /// How many jobs wait for their owner.
    pub(crate) awaiting_owner: usize,
    /// The newest jobs that ended without a signature.
    pub(crate) failed: Vec<Unsigned>,
    /// How many wallets were looked at, or why none could be.
    pub(crate) wallets: Result<usize, Reason>,
    /// The pairs of wallets that cannot sign.
    pub(crate) pairs: Vec<UnusablePair>,
    /// The receivers of webhooks.
    pub(crate) webhooks: Vec<WebhookFacts>,
}

/// A tenant.
#[derive(Debug, Clone)]
pub(crate) struct TenantFacts {
    /// Its name.
    pub(crate) tenant: String,
    /// Its work, or why it cannot be seen.
    pub(crate) work: Result<Work, Reason>,
}

/// Everything that was gathered.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// This machine's clock, in milliseconds since 1970.
    pub(crate) now_ms: u64,
    /// How long a job may wait, in milliseconds.
    pub(crate) stuck_after_ms: u64,
    /// The broker.
    pub(crate) broker: BrokerFacts,
    /// The parties.
    pub(crate) parties: Vec<PartyFacts>,
    /// The orchestrators.
    pub(crate) orchestrators: Vec<OrchestratorFacts>,
    /// Other processes.
    pub(crate) others: Vec<OtherFacts>,
    /// Certificates.
    pub(crate) certificates: Vec<CertificateFacts>,
    /// Tenants.
    pub(crate) tenants: Told<Vec<TenantFacts>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_round_trip_is_not_the_clocks_fault() {
        assert_eq!(Reading::taken(1_050, 1_000, 1_100), Reading { ahead_ms: 0, within_ms: 51 });
        assert_eq!(Reading::taken(61_001, 1_000, 1_002), Reading { ahead_ms: 60_000, within_ms: 2 });
        assert_eq!(Reading::taken(0, 60_000, 60_000).ahead_ms, -60_000);
        let (vague, exact) = (Reading::taken(9, 0, 100), Reading::taken(9, 0, 2));
        assert_eq!((vague.or(exact), exact.or(vague)), (exact, exact));
    }
}
