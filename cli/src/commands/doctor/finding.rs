//! What a check finds: stable causes, and the way out of each.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! causes {
    ($($(#[doc = $meaning:literal])+ $name:ident = $code:literal;)+) => {
        /// Why a check is not ok. Its text form never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Cause {
            $($(#[doc = $meaning])+ $name,)+
        }

        impl Cause {
            /// All causes, in the order of the documentation.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The cause as text, for example `party-away`.
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// What it means for signatures, the same for every occurrence.
            pub(crate) const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($meaning),+),)+ }
            }
        }
    };
}

causes! {
    /// The doctor could not look: it lacks a credential, or what it would ask is out of reach.
    NotLookedAt = "not-looked-at";
    /// No process can reach another one: nothing is signed.
    BrokerUnreachable = "broker-unreachable";
    /// The broker knows other keys than the one presented. Processes with that key cannot connect.
    BrokerRefuses = "broker-refuses";
    /// The broker's certificate is not trusted, expired or names another host. Processes that
    /// connect anew stay away.
    BrokerUntrusted = "broker-untrusted";
    /// A power cut can take back jobs and results that the broker acknowledged.
    BrokerUnsafe = "broker-unsafe";
    /// The broker's server keeps no streams. Orchestrators cannot start.
    BrokerWithoutStreams = "broker-without-streams";
    /// The server is older than the one that Duet is tested with. Earlier ones lost acknowledged
    /// writes.
    BrokerOld = "broker-old";
    /// Nodes run different servers. That is normal during an upgrade only.
    BrokerVersionsDiffer = "broker-versions-differ";
    /// A node of the broker is out of reach. If one more goes, nothing is stored any more.
    NodeAway = "node-away";
    /// The nodes of the broker have no leader: nothing is stored, no job is accepted or ends.
    NoLeader = "no-leader";
    /// A stream or bucket is missing. The orchestrators are not ready.
    StreamMissing = "stream-missing";
    /// A stream or bucket is nearly full. Once it is full, the broker refuses further writes: jobs
    /// are refused or cannot end.
    StreamNearlyFull = "stream-nearly-full";
    /// An earlier version made the bucket. Each removed entry leaves some 200 bytes in it for ever.
    MarkersRemain = "markers-remain";
    /// A copy of a stream is behind or away. If its other copies go, what they hold is out of
    /// reach.
    ReplicaBehind = "replica-behind";
    /// The orchestrator does not answer. Teams that use this address cannot submit jobs.
    OrchestratorUnreachable = "orchestrator-unreachable";
    /// The orchestrator accepts no jobs, for the reason that it states.
    OrchestratorUnready = "orchestrator-unready";
    /// The broker lost its streams and buckets, and this orchestrator made them anew. What was
    /// queued is gone.
    StoresLost = "stores-lost";
    /// The broker was put back to an earlier copy of its store. What was accepted since is gone.
    BrokerWentBack = "broker-went-back";
    /// Another process that was asked for its readiness is not ready, or does not answer.
    ProcessUnready = "process-unready";
    /// No worker of the party takes work: no pair with this party signs.
    PartyAway = "party-away";
    /// Workers of the party are connected that take no work. The others have to do it all.
    WorkerSilent = "worker-silent";
    /// The worker initiates no sessions before it has compared its share store with what others
    /// know of it.
    WorkerUncompared = "worker-uncompared";
    /// All seats of the party are taken. Further sessions wait.
    PartyFull = "party-full";
    /// Orchestrators work on more jobs at once than the party has seats. Jobs wait for a seat.
    SeatsFew = "seats-few";
    /// A clock differs from the broker's. From 30 s on, parties refuse jobs because of their times.
    ClockOff = "clock-off";
    /// The clocks of the broker's nodes differ from each other. Nothing can tell which is right.
    NodeClocksDiffer = "node-clocks-differ";
    /// A certificate expires soon. Then connections to its owner fail.
    CertificateEnding = "certificate-ending";
    /// A certificate has expired or is not valid yet. New connections to its owner fail.
    CertificateInvalid = "certificate-invalid";
    /// A certificate cannot be read or was not presented.
    CertificateUnreadable = "certificate-unreadable";
    /// Processes run different builds. That is normal during an upgrade only.
    BuildsDiffer = "builds-differ";
    /// The tenant's token is refused, so the tenant's jobs cannot be looked at.
    TenantRefused = "tenant-refused";
    /// Jobs wait longer than they should, for the reason of their last attempt.
    JobsStuck = "jobs-stuck";
    /// Jobs wait longer than they should, and no attempt at them has failed: more is queued than is
    /// signed.
    JobsWaiting = "jobs-waiting";
    /// Jobs ended without a signature in the last hour.
    JobsFailed = "jobs-failed";
    /// A bad signature locked the key of a pair. The pair signs nothing until an operator acts.
    KeyLocked = "key-locked";
    /// A share was restored from a backup. Its pairs sign nothing until its key is rotated.
    KeyNeedsRotation = "key-needs-rotation";
    /// A pair of a wallet cannot sign, for the reason that its parties state.
    PairUnusable = "pair-unusable";
    /// A receiver of webhooks fails. Its results wait, in order, until it accepts one.
    WebhookFailing = "webhook-failing";
    /// Deliveries to a receiver of webhooks are off, because it failed for too long.
    WebhookDisabled = "webhook-disabled";
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// How a check went. The worst is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Nothing is wrong.
    Ok,
    /// The doctor could not look.
    Skipped,
    /// Signing goes on, but a person should act.
    Warning,
    /// Signing stalls, or part of it does.
    Failed,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Failed => "failed",
        })
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Its cause.
    pub(crate) cause: Cause,
    /// How bad it is.
    pub(crate) status: Status,
    /// What it is about: a process, a stream, a tenant, a file.
    pub(crate) subject: String,
    /// What was seen.
    pub(crate) message: String,
    /// The command or setting that mends it.
    pub(crate) remedy: String,
}

impl Finding {
    /// Signing stalls over `subject`.
    pub(crate) fn failed(
        cause: Cause,
        subject: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            cause,
            status: Status::Failed,
            subject: subject.into(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    /// Signing goes on, but a person should look at `subject`.
    pub(crate) fn warning(
        cause: Cause,
        subject: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { status: Status::Warning, ..Self::failed(cause, subject, message, remedy) }
    }

    /// The doctor could not look at `subject`.
    pub(crate) fn skipped(
        subject: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { status: Status::Skipped, ..Self::failed(Cause::NotLookedAt, subject, message, remedy) }
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Document<'a> {
            code: Cause,
            status: Status,
            subject: &'a str,
            message: &'a str,
            meaning: &'static str,
            remedy: &'a str,
        }
        let Self { cause, status, subject, message, remedy } = self;
        Document { code: *cause, status: *status, subject, message, meaning: cause.meaning().trim(), remedy }
            .serialize(serializer)
    }
}

/// One check with its findings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// Its name.
    pub(crate) name: &'static str,
    /// What was looked at, in a few words.
    pub(crate) summary: String,
    /// What is not as it should be.
    pub(crate) findings: Vec<Finding>,
}

impl Check {
    /// The worst status of its findings.
    pub(crate) fn status(&self) -> Status {
        self.findings.iter().map(|finding| finding.status).max().unwrap_or(Status::Ok)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_manual_lists_every_cause() {
        let rows = Cause::ALL
            .iter()
            .map(|cause| [format!("`{}`", cause.as_str()), cause.meaning().trim().to_owned()]);
        let table = duet_test_docs::table(["code", "what it means"], rows);
        duet_test_docs::part("docs/cli.md", "findings", &table).unwrap();
        let codes: BTreeSet<_> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
        assert_eq!(codes.len(), Cause::ALL.len());
    }

    #[test]
    fn a_check_is_as_bad_as_its_worst_finding() {
        let finding = |status| Finding { status, ..Finding::skipped("x", "y", "z") };
        let check = |statuses: &[Status]| Check {
            name: "broker",
            summary: String::new(),
            findings: statuses.iter().copied().map(finding).collect(),
        };
        assert_eq!(check(&[]).status(), Status::Ok);
        assert_eq!(check(&[Status::Skipped]).status(), Status::Skipped);
        assert_eq!(check(&[Status::Failed, Status::Warning]).status(), Status::Failed);
    }
}
