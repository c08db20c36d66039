//! The metrics of a party's worker.
//!
//! `docs/metrics.md` lists names, labels and alarms. Every label value is one of a few constants of
//! this program. None comes from a message, so that no sender can create series, and no label
//! identifies a wallet or session.

use std::time::Instant;

use duet_wire::Code;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tracing::Instrument as _;

use crate::{error::PartyError, policy::Ruling, resumption::Noticed, session::Finished};

/// Bucket bounds of a session's duration, in seconds. A session takes some 20 ms of arithmetic,
/// four messages and three durable writes. A round ends after 10 s and a session after 30 s
/// ([`SessionLimits`](crate::SessionLimits)). Each bound is two to two and a half times the
/// previous one, which shows well enough where a busy machine stands.
const SESSION_SECONDS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabel {
    role: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    role: &'static str,
    outcome: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    request: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NoticedLabel {
    noticed: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabel {
    decision: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabel {
    verdict: &'static str,
}

/// The value of the label `code` for a success.
const NO_CODE: &str = "none";

/// Bucket bounds of the share store's decisions, in seconds. A decision is a transaction and one
/// flush to the disk, or a read.
const STORE_SECONDS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];

/// The decisions of the share store in every signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreDecision {
    /// The session is new.
    Claim,
    /// An answer may leave the party.
    Charge,
    /// An answer may be decrypted.
    Pending,
    /// A verdict may be published.
    Release,
}

impl StoreDecision {
    const ALL: [Self; 4] = [Self::Claim, Self::Charge, Self::Pending, Self::Release];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Charge => "charge",
            Self::Pending => "pending",
            Self::Release => "release",
        }
    }
}

const ROLES: [&str; 2] = ["initiator", "responder"];

/// Counters, durations and gauges. Clones share them, and cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    active: Family<RoleLabel, Gauge>,
    ended: Family<EndLabels, Counter>,
    duration: Family<RoleLabel, Histogram>,
    refused: Family<RefusalLabels, Counter>,
    locks: Counter,
    resumptions: Family<NoticedLabel, Counter>,
    finished: Family<VerdictLabel, Counter>,
    unclean_starts: Gauge,
    decisions: Family<DecisionLabel, Counter>,
    store: Family<DecisionLabel, Histogram>,
}

impl Default for Metrics {
    /// Creates every series that an alarm watches at zero, so that the first event is an increase.
    fn default() -> Self {
        let metrics = Self {
            active: Family::default(),
            ended: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(SESSION_SECONDS)),
            refused: Family::default(),
            locks: Counter::default(),
            resumptions: Family::default(),
            finished: Family::default(),
            unclean_starts: Gauge::default(),
            decisions: Family::default(),
            store: Family::new_with_constructor(|| Histogram::new(STORE_SECONDS)),
        };
        for verdict in ["good", "bad"] {
            drop(metrics.finished.get_or_create(&VerdictLabel { verdict }));
        }
        for decision in StoreDecision::ALL {
            drop(metrics.store.get_or_create(&DecisionLabel { decision: decision.as_str() }));
        }
        for noticed in Noticed::ALL {
            drop(metrics.resumptions.get_or_create(&NoticedLabel { noticed }));
        }
        for role in ROLES {
            drop(metrics.active.get_or_create(&RoleLabel { role }));
            drop(metrics.duration.get_or_create(&RoleLabel { role }));
            let success = if role == "initiator" { "signed" } else { "answered" };
            let failed = Code::ALL.iter().map(|code| ("failed", code.as_str()));
            for (outcome, code) in
                failed.chain([(success, NO_CODE), ("released", NO_CODE), ("silent", NO_CODE)])
            {
                drop(metrics.ended.get_or_create(&EndLabels { role, outcome, code }));
            }
        }
        for request in ["invitation", "share", "card", "policy"] {
            for code in Code::ALL {
                drop(metrics.refused.get_or_create(&RefusalLabels { request, code: code.as_str() }));
            }
        }
        for decision in
            ["allowed", "no_policy", Code::PolicyRefused.as_str(), Code::ApprovalMissing.as_str(), "failed"]
        {
            drop(metrics.decisions.get_or_create(&DecisionLabel { decision }));
        }
        metrics
    }
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "duet_sessions_active",
            "open sessions, as `initiator` or `responder`. Watch for: at `--sessions` for long: \
             add workers",
            self.active.clone(),
        );
        registry.register(
            "duet_sessions_ended",
            "sessions ended: `signed` (an initiator's), `answered` (a responder's), `failed`, \
             `released` (the orchestrator took the seat back), `silent` (a lock could not be \
             written, so the party reports nothing). Watch for: any `silent`; `peer-misbehaved`",
            self.ended.clone(),
        );
        registry.register_with_unit(
            "duet_session_duration",
            "from the accepted invitation to the end. Watch for: the 99th percentile",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register(
            "duet_refusals",
            "refusals: `invitation`, `share` (a package), `card` (a question), `policy` (setting \
             or showing one). Watch for: `session-replayed`, `bad-signature`, `card-mismatch`",
            self.refused.clone(),
        );
        registry.register(
            "duet_paillier_key_locks",
            "Paillier keys locked after a bad signature. Watch for: any: the other party is \
             broken or malicious; see SECURITY.md before `duet party rotate` and `accept-culprit`",
            self.locks.clone(),
        );
        registry.register(
            "duet_resumptions",
            "how often this worker noticed that its machine was resumed or copied: an `identity` \
             (the boot id, a generation file) changed, or the `clocks` differed by more than 2 s. \
             The worker ended its open sessions. Watch for: any that is neither a planned \
             migration nor a stepped clock: see SECURITY.md",
            self.resumptions.clone(),
        );
        registry.register(
            "duet_pending_verdicts_judged",
            "verdicts that an earlier process or another worker left pending when it ended, \
             judged by this worker: `good` or `bad`. Watch for: any: workers end without \
             draining. `bad`: a lock was nearly lost",
            self.finished.clone(),
        );
        registry.register(
            "duet_unclean_starts",
            "*all*: starts, in the share store's life, that found verdicts of a process that \
             ended with open sessions. Watch for: it rises: workers are killed, or crash",
            self.unclean_starts.clone(),
        );
        registry.register(
            "duet_policy_decisions",
            "decisions of policies on invitations: `allowed`, `no_policy`, `policy-refused`, \
             `approval-missing`, `failed` (not read). Limits are charged later, so \
             `limit-exceeded` counts elsewhere. Watch for: many `policy-refused`: a requester \
             asks for what the owner does not want",
            self.decisions.clone(),
        );
        registry.register_with_unit(
            "duet_store_decision_duration",
            "time of the share store's decisions that a signature waits for: `claim` (the session \
             is new), `charge` (an answer may leave), `pending` (an answer may be decrypted), \
             `release` (a verdict may be reported). Watch for: the 99th percentile of `charge`: a \
             slow disk or database",
            Unit::Seconds,
            self.store.clone(),
        );
    }

    /// Counts a session as active until the returned value is dropped.
    pub(crate) fn session(&self, role: &'static str) -> Session {
        let active = self.active.get_or_create_owned(&RoleLabel { role });
        active.inc();
        Session { metrics: self.clone(), role, active, began: Instant::now() }
    }

    /// Counts a refused request of the kind `request`.
    pub(crate) fn refused(&self, request: &'static str, code: Code) {
        self.refused.get_or_create(&RefusalLabels { request, code: code.as_str() }).inc();
    }

    /// Waits for a decision of the share store, and records its duration, even of a failure.
    pub(crate) async fn stored<T>(&self, decision: StoreDecision, deciding: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let decided = deciding.instrument(tracing::debug_span!("store", decision = decision.as_str())).await;
        let label = DecisionLabel { decision: decision.as_str() };
        self.store.get_or_create(&label).observe(began.elapsed().as_secs_f64());
        decided
    }

    /// Counts a locked Paillier key.
    pub(crate) fn locked(&self) {
        self.locks.inc();
    }

    /// Counts a resumption or copy of the machine.
    pub(crate) fn resumed(&self, noticed: &Noticed) {
        self.resumptions.get_or_create(&NoticedLabel { noticed: noticed.as_str() }).inc();
    }

    /// Counts pending verdicts of earlier processes that were judged.
    pub(crate) fn finished(&self, Finished { good, bad }: Finished) {
        for (verdict, count) in [("good", good), ("bad", bad)] {
            self.finished.get_or_create(&VerdictLabel { verdict }).inc_by(count);
        }
    }

    /// So many starts have found verdicts left behind, in the store's life.
    pub(crate) fn unclean_starts(&self, starts: u64) {
        self.unclean_starts.set(i64::try_from(starts).unwrap_or(i64::MAX));
    }

    /// Policies were asked.
    pub(crate) fn decided(&self, decided: &Result<Ruling, PartyError>) {
        let decision = match decided {
            Ok(Ruling { rule: Some(_), .. }) => "allowed",
            Ok(_) => "no_policy",
            Err(PartyError::RefusedByPolicy { refusal, .. }) => refusal.code.as_str(),
            Err(_) => "failed",
        };
        self.decisions.get_or_create(&DecisionLabel { decision }).inc();
    }
}

/// An active session.
#[derive(Debug)]
pub(crate) struct Session {
    metrics: Metrics,
    role: &'static str,
    active: Gauge,
    began: Instant,
}

impl Session {
    /// Records its end.
    pub(crate) fn ended(&self, outcome: &'static str, code: Option<Code>) {
        let code = code.map_or(NO_CODE, Code::as_str);
        let role = self.role;
        self.metrics.ended.get_or_create(&EndLabels { role, outcome, code }).inc();
        let duration = self.began.elapsed().as_secs_f64();
        self.metrics.duration.get_or_create(&RoleLabel { role }).observe(duration);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.active.dec();
    }
}
