//! What an orchestrator counts, for its operator.
//!
//! `docs/metrics.md` lists names, labels and alarms. Labels are texts of this program and never
//! come from a message. So no sender can create a series of its own, and no label identifies a
//! tenant, wallet or job.
//!
//! Several orchestrators share the jobs. Each counts what it did itself, so sums over them are
//! correct. The number of open jobs is different: each orchestrator shows the total.

use core::{sync::atomic::AtomicU64, time::Duration};
use std::sync::Arc;

use duet_protocol::ids::{PartyId, ShareIndex};
use duet_queue::offers::Total;
use duet_wire::{Code, JobRecord, JobStateName, Pair, unknown::UnknownName};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};

use crate::{
    board::OpenJobs,
    orchestrator::Orchestrator,
    webhooks::{Delivery, DeliveryOutcome},
};

/// Bounds of how long a job waits and lasts, in seconds. Two running parties sign in 50 ms. An
/// owner takes as long as a person does, and a request may be open for days. So each bound is
/// several times the previous one.
const JOB_SECONDS: [f64; 13] =
    [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0];

/// Bounds of a request's time until its answer begins, in seconds. Accepting a job takes one
/// durable write. A request times out after 10 s, a batch after three times that
/// ([`HttpSettings`](crate::HttpSettings)).
const REQUEST_SECONDS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0, 30.0];

/// Bounds of the time between a result and its delivery, in seconds. The first attempt follows at
/// once; further ones come after pauses of up to hours ([`webhooks`](crate::webhooks)).
const LAG_SECONDS: [f64; 9] = [0.05, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0, 3_600.0, 21_600.0];

/// The code of a success.
const NO_CODE: &str = "none";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    outcome: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AgainstLabel {
    against: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartyLabel {
    party: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PairLabel {
    pair: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    request: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

/// `route` is the pattern that the request's path matched. The interface has a fixed number of
/// them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

/// Counts and durations.
#[derive(Debug)]
pub(crate) struct Metrics {
    accepted: Counter,
    put_back: Counter,
    stores_lost: Counter,
    broker_went_back: Counter,
    broker_epoch: Gauge,
    memories_not_believed: Family<PartyLabel, Counter>,
    ended: Family<EndLabels, Counter>,
    duration: Family<OutcomeLabel, Histogram>,
    queue_wait: Histogram,
    attempts_started: Family<PairLabel, Counter>,
    attempts_ended: Family<EndLabels, Counter>,
    ends_published: Family<OutcomeLabel, Counter>,
    clock_skew: Family<AgainstLabel, Gauge<f64, AtomicU64>>,
    refused: Family<RefusalLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    request_duration: Family<RouteLabel, Histogram>,
    http_refused: Family<CodeLabel, Counter>,
    deliveries: Family<OutcomeLabel, Counter>,
    deliveries_waiting: Gauge,
    retries_waiting: Gauge,
    delivery_lag: Histogram,
}

impl Default for Metrics {
    /// Creates every series that an alarm may use, so that its first event shows as an increase.
    fn default() -> Self {
        let metrics = Self {
            accepted: Counter::default(),
            put_back: Counter::default(),
            stores_lost: Counter::default(),
            broker_went_back: Counter::default(),
            broker_epoch: Gauge::default(),
            memories_not_believed: Family::default(),
            ended: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(JOB_SECONDS)),
            queue_wait: Histogram::new(JOB_SECONDS),
            attempts_started: Family::default(),
            attempts_ended: Family::default(),
            ends_published: Family::default(),
            clock_skew: Family::default(),
            refused: Family::default(),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS)),
            http_refused: Family::default(),
            deliveries: Family::default(),
            deliveries_waiting: Gauge::default(),
            retries_waiting: Gauge::default(),
            delivery_lag: Histogram::new(LAG_SECONDS),
        };
        let signed = EndLabels { outcome: "signed", code: NO_CODE };
        drop(metrics.attempts_ended.get_or_create(&signed));
        drop(metrics.ended.get_or_create(&signed));
        for (outcome, code) in [("expired", Code::JobExpired), ("cancelled", Code::Cancelled)] {
            drop(metrics.ended.get_or_create(&EndLabels { outcome, code: code.as_str() }));
        }
        for code in Code::ALL.iter().map(|code| code.as_str()) {
            let failed = EndLabels { outcome: "failed", code };
            drop(metrics.attempts_ended.get_or_create(&failed));
            drop(metrics.ended.get_or_create(&failed));
            drop(metrics.http_refused.get_or_create(&CodeLabel { code }));
            for request in ["job", "approval", "report", "token"] {
                drop(metrics.refused.get_or_create(&RefusalLabels { request, code }));
            }
        }
        for outcome in ["signed", "failed", "expired", "cancelled"] {
            drop(metrics.duration.get_or_create(&OutcomeLabel { outcome }));
        }
        for outcome in ["published", "failed"] {
            drop(metrics.ends_published.get_or_create(&OutcomeLabel { outcome }));
        }
        for outcome in ["delivered", "retrying", "given_up"] {
            drop(metrics.deliveries.get_or_create(&OutcomeLabel { outcome }));
        }
        for pair in Pair::ALL {
            drop(metrics.attempts_started.get_or_create(&PairLabel { pair: pair.as_str() }));
        }
        metrics
    }
}

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "duet_jobs_accepted",
            "jobs accepted, from tenants and devices",
            self.accepted.clone(),
        );
        registry.register(
            "duet_jobs_put_back",
            "dead letters put back into the queue",
            self.put_back.clone(),
        );
        registry.register(
            "duet_broker_stores_lost",
            "streams and buckets that the broker had lost and that the orchestrator made anew. \
             Watch for: above 0: the queue's content is gone (deploy/README.md)",
            self.stores_lost.clone(),
        );
        registry.register(
            "duet_broker_went_back",
            "how often the orchestrator found the broker put back to an earlier copy of its store. \
             Watch for: above 0: what was accepted since is gone (deploy/README.md)",
            self.broker_went_back.clone(),
        );
        registry.register(
            "duet_broker_epoch",
            "the broker's epoch: 1, and one more each time that it was put back or lost its store; 0 \
             before the first comparison. Watch for: orchestrators that differ for minutes",
            self.broker_epoch.clone(),
        );
        registry.register(
            "duet_party_memories_not_believed",
            "how often a party said that the broker held more than it does, and was not believed: it had \
             been believed within a day. Watch for: any: a party lies, or the \
             broker was put back several times",
            self.memories_not_believed.clone(),
        );
        registry.register(
            "duet_jobs_ended",
            "jobs stored as ended: `signed`, `failed` (a dead letter), `expired`, `cancelled`; \
             one that was put back can end again. Watch for: the share of `failed` with a code \
             that the tenant does not cause",
            self.ended.clone(),
        );
        registry.register_with_unit(
            "duet_job_duration",
            "from acceptance to end. Watch for: the 99th percentile of `signed`",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register_with_unit(
            "duet_job_queue_wait",
            "from acceptance to the first attempt. Watch for: the 99th percentile: too few \
             orchestrators or workers",
            Unit::Seconds,
            self.queue_wait.clone(),
        );
        registry.register("duet_attempts_started", "attempts begun", self.attempts_started.clone());
        registry.register(
            "duet_attempts_ended",
            "attempts stored as ended, `signed` or `failed`; orchestrators repeat them where that \
             helps. Watch for: `peer-misbehaved`, `locked`, `deadline`, `clock-differs`",
            self.attempts_ended.clone(),
        );
        registry.register(
            "duet_job_ends_published",
            "tries to publish a job's end to the stream of results: `published`, `failed` (tried \
             again). Watch for: `failed`: the stream is full or the broker away",
            self.ends_published.clone(),
        );
        registry.register_with_unit(
            "duet_clock_skew",
            "how far a clock was ahead of the broker's (negative: behind) when it caused a \
             refusal: `device`, `service`, `partner` (0 again once that party accepts an \
             invitation), `requester`; and how far the broker's is ahead of this machine's: \
             `broker`. Watch for: more than 5 or less than −5: set the clock that is wrong",
            Unit::Seconds,
            self.clock_skew.clone(),
        );
        registry.register(
            "duet_refusals",
            "refusals, over HTTP and the broker: `job` (a submission), `approval` and `report` \
             (of a device or party), `token` (unknown). Watch for: many `token` or \
             `bad-signature`: a client guesses; `report`: a party misbehaves",
            self.refused.clone(),
        );
        registry.register(
            "duet_http_requests",
            "answered requests, by the route's pattern (`unmatched` for none) and `1xx` to `5xx`. \
             Watch for: the share of `5xx`",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "duet_http_request_duration",
            "from arrival to the beginning of the answer. Watch for: the 99th percentile of \
             `/v1/jobs`",
            Unit::Seconds,
            self.request_duration.clone(),
        );
        registry.register(
            "duet_http_refusals",
            "requests answered with a problem. Watch for: `queue-full` and `rate-limited` (both \
             429), `overloaded`, `storage-unavailable`",
            self.http_refused.clone(),
        );
        registry.register(
            "duet_webhook_deliveries",
            "attempts at a delivery: `delivered`, `retrying`, `given_up`. Watch for: `given_up`",
            self.deliveries.clone(),
        );
        registry.register(
            "duet_webhook_results_waiting",
            "*all*: results that enabled endpoints have not yet accepted, new and replayed, \
             counted once for each endpoint; a few seconds old. Watch for: grows and does not \
             fall",
            self.deliveries_waiting.clone(),
        );
        registry.register(
            "duet_webhook_retries_waiting",
            "*all*: deliveries to enabled endpoints that wait to be retried, or until an endpoint \
             stops failing. Watch for: grows; an endpoint with 10,000 is disabled",
            self.retries_waiting.clone(),
        );
        registry.register_with_unit(
            "duet_webhook_delivery_lag",
            "from a result's publication to its delivery, replays not counted. Watch for: the \
             99th percentile: endpoints fail or are slow, and deliveries pile up",
            Unit::Seconds,
            self.delivery_lag.clone(),
        );
    }

    /// A job was accepted.
    pub(crate) fn job_accepted(&self) {
        self.accepted.inc();
    }

    /// A dead letter was put back.
    pub(crate) fn job_put_back(&self) {
        self.put_back.inc();
    }

    /// Counts streams and buckets that were found lost.
    pub(crate) fn broker_went_back(&self) {
        self.broker_went_back.inc();
    }

    /// Shows the counters of each of these parties, from 0 on.
    pub(crate) fn knows<'a>(&self, parties: impl Iterator<Item = &'a PartyId>) {
        for party in parties {
            drop(self.memories_not_believed.get_or_create(&PartyLabel { party: party.to_string() }));
        }
    }

    /// Counts what a party said of the broker and was not believed.
    pub(crate) fn memory_not_believed(&self, party: &PartyId) {
        self.memories_not_believed.get_or_create(&PartyLabel { party: party.to_string() }).inc();
    }

    pub(crate) fn broker_epoch(&self, epoch: u64) {
        self.broker_epoch.set(epoch.try_into().unwrap_or(i64::MAX));
    }

    pub(crate) fn stores_lost(&self, count: usize) {
        self.stores_lost.inc_by(count as u64);
    }

    /// Counts a job whose end was stored. `code` is the reason when it has no signature.
    pub(crate) fn job_ended(&self, record: &JobRecord, code: Option<Code>) {
        let outcome = record.state.name().as_str();
        self.ended.get_or_create(&EndLabels { outcome, code: code.map_or(NO_CODE, Code::as_str) }).inc();
        self.duration
            .get_or_create(&OutcomeLabel { outcome })
            .observe(seconds(record.created_at_ms, record.updated_at_ms));
    }

    /// Counts an attempt whose start was stored.
    pub(crate) fn attempt_started(&self, record: &JobRecord, pair: Pair) {
        self.attempts_started.get_or_create(&PairLabel { pair: pair.as_str() }).inc();
        if record.attempts_started == 1 {
            self.queue_wait.observe(seconds(record.created_at_ms, record.updated_at_ms));
        }
    }

    /// Counts an attempt whose end was stored. `code` is the reason when it has no signature.
    pub(crate) fn attempt_ended(&self, code: Option<Code>) {
        let labels = match code {
            None => EndLabels { outcome: "signed", code: NO_CODE },
            Some(code) => EndLabels { outcome: "failed", code: code.as_str() },
        };
        self.attempts_ended.get_or_create(&labels).inc();
    }

    /// Counts one attempt to publish a job's end.
    pub(crate) fn end_published(&self, succeeded: bool) {
        let outcome = if succeeded { "published" } else { "failed" };
        self.ends_published.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Sets how far the clock of the holder of share `index` is ahead of the broker's, in
    /// milliseconds.
    pub(crate) fn clock_skew(&self, index: ShareIndex, ahead_ms: i64) {
        let against = match index {
            ShareIndex::Device => "device",
            ShareIndex::Service => "service",
            ShareIndex::Partner => "partner",
        };
        self.set_clock_skew(against, ahead_ms);
    }

    /// Sets how far a requester's clock is ahead of the broker's, in milliseconds.
    pub(crate) fn requester_skew(&self, ahead_ms: u64) {
        self.set_clock_skew("requester", i64::try_from(ahead_ms).unwrap_or(i64::MAX));
    }

    /// Sets how far the broker's clock is ahead of this machine's, in milliseconds, if it is known.
    pub(crate) fn broker_ahead(&self, ahead_ms: Option<i64>) {
        if let Some(ahead_ms) = ahead_ms {
            self.set_clock_skew("broker", ahead_ms);
        }
    }

    fn set_clock_skew(&self, against: &'static str, ahead_ms: i64) {
        let seconds = ahead_ms as f64 / 1000.0;
        self.clock_skew.get_or_create(&AgainstLabel { against }).set(seconds);
    }

    /// Counts a refused request of the kind `request`, over HTTP or the broker.
    pub(crate) fn refused(&self, request: &'static str, code: Code) {
        self.refused.get_or_create(&RefusalLabels { request, code: code.as_str() }).inc();
    }

    /// Counts a request answered over HTTP, with a problem if there is a `code`.
    pub(crate) fn http_answered(
        &self,
        method: &'static str,
        route: &str,
        status: u16,
        code: Option<Code>,
        took: Duration,
    ) {
        let status = match status {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.requests.get_or_create(&RequestLabels { method, route: route.to_owned(), status }).inc();
        self.request_duration
            .get_or_create(&RouteLabel { route: route.to_owned() })
            .observe(took.as_secs_f64());
        if let Some(code) = code {
            self.http_refused.get_or_create(&CodeLabel { code: code.as_str() }).inc();
        }
    }

    /// Adds a place where results wait for an endpoint.
    pub(crate) fn waiting(&self) -> Waiting {
        Waiting { all: self.deliveries_waiting.clone(), here: 0 }
    }

    /// Adds a place where deliveries wait to be retried.
    pub(crate) fn retries_waiting(&self) -> Waiting {
        Waiting { all: self.retries_waiting.clone(), here: 0 }
    }

    /// Counts a result sent to an endpoint. `published_at_ms` is when it was published, or `None`
    /// for a replay.
    pub(crate) fn delivery(&self, delivery: &Delivery, published_at_ms: Option<u64>) {
        let outcome = match delivery.outcome {
            DeliveryOutcome::Delivered => "delivered",
            DeliveryOutcome::Retrying => "retrying",
            DeliveryOutcome::GivenUp => "given_up",
        };
        self.deliveries.get_or_create(&OutcomeLabel { outcome }).inc();
        if let (DeliveryOutcome::Delivered, Some(published_at_ms)) = (delivery.outcome, published_at_ms) {
            self.delivery_lag.observe(seconds(published_at_ms, delivery.at_ms));
        }
    }
}

/// How many results wait at one place. Dropping it removes them from the total.
#[derive(Debug)]
pub(crate) struct Waiting {
    all: Gauge,
    here: i64,
}

impl Waiting {
    pub(crate) fn are(&mut self, results: u64) {
        let results = i64::try_from(results).unwrap_or(i64::MAX);
        self.all.inc_by(results.saturating_sub(self.here));
        self.here = results;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.all.dec_by(self.here);
    }
}

/// How long it was between two moments, possibly by two machines' clocks.
fn seconds(from_ms: u64, to_ms: u64) -> f64 {
    Duration::from_millis(to_ms.saturating_sub(from_ms)).as_secs_f64()
}

/// The values that an orchestrator reads when the metrics are read.
#[derive(Debug)]
struct Present(Arc<Orchestrator>);

impl Collector for Present {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), core::fmt::Error> {
        let help = "*all*: open jobs, `queued` (waiting in line), `awaiting_owner`, `running`, and those that only a later \
             release understands: `unknown` (their state) and `unreadable` (their record). Watch for: `queued` grows and does \
             not fall, or the last two after an upgrade or its reversal is over";
        let mut metric = encoder.encode_descriptor("duet_jobs_open", help, None, MetricType::Gauge)?;
        let OpenJobs { queued, awaiting_owner, running, unknown } = self.0.board.open();
        for (state, jobs) in [
            (JobStateName::Queued.as_str(), queued),
            (JobStateName::AwaitingOwner.as_str(), awaiting_owner),
            (JobStateName::Running.as_str(), running),
            (UnknownName::LABEL, unknown),
            ("unreadable", self.0.board.left_to_later()),
        ] {
            let labels = [("state", state)];
            ConstGauge::new(whole(jobs)).encode(metric.encode_family(&labels)?)?;
        }
        let help = "*all*: jobs that wait for the reason `code`, by what the orchestrators wrote, except that `no-seat` \
                    also counts those that this process holds back. Watch for: above 0 for minutes: docs/errors.md says \
                    what to do";
        let mut metric = encoder.encode_descriptor("duet_jobs_waiting", help, None, MetricType::Gauge)?;
        for (code, jobs) in self.0.board.reasons().by_code() {
            let labels = [("code", code.as_str())];
            ConstGauge::new(whole(jobs)).encode(metric.encode_family(&labels)?)?;
        }
        let help = "0 while the party answers no question of this process, which asks when a job needs it. Watch for: 0 \
                    for a minute: no worker of that party runs, or the broker keeps it away";
        let mut metric = encoder.encode_descriptor("duet_party_reachable", help, None, MetricType::Gauge)?;
        for (party, silence) in self.0.directory.silences() {
            let labels = [("party", party.as_str())];
            ConstGauge::new(i64::from(silence.is_none())).encode(metric.encode_family(&labels)?)?;
        }
        let totals: Vec<_> =
            self.0.directory.parties().map(|party| (party, self.0.attempts.offered(party))).collect();
        for (name, help, of) in [
            (
                "duet_party_workers",
                "*all*: workers of the party that offer seats. Those of the release before offer none",
                (|total: &Total| whole(total.workers)) as fn(&Total) -> i64,
            ),
            ("duet_party_seats", "*all*: seats of the party's workers, by what they offer", |total| {
                i64::try_from(total.seats).unwrap_or(i64::MAX)
            }),
            (
                "duet_party_seats_free",
                "*all*: those of its seats that are free. Watch for: 0 for minutes: add workers or seats",
                |total| i64::try_from(total.free).unwrap_or(i64::MAX),
            ),
        ] {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (party, total) in &totals {
                let labels = [("party", party.as_str())];
                ConstGauge::new(of(total)).encode(metric.encode_family(&labels)?)?;
            }
        }
        let help = "jobs that this process holds back until the party has a seat for them. Watch for: grows and does not \
                    fall: add workers or seats";
        let mut metric = encoder.encode_descriptor("duet_jobs_parked", help, None, MetricType::Gauge)?;
        for (party, _) in &totals {
            let labels = [("party", party.as_str())];
            ConstGauge::new(whole(self.0.board.parked(party))).encode(metric.encode_family(&labels)?)?;
        }
        let broker = &self.0.broker;
        for (name, help, value) in [
            (
                "duet_results_readers",
                "requests to this process that wait for results: pages, event streams and batches",
                whole(self.0.feed.readers()),
            ),
            (
                "duet_broker_safe",
                "1 while each node of the broker that answers says that it flushes what it acknowledges. \
                 Watch for: 0 for a minute: no job is accepted or started (`unsafe-broker`)",
                i64::from(broker.is_safe()),
            ),
            (
                "duet_broker_trusted",
                "1 if `--trust-broker` has jobs accepted and started although `duet_broker_safe` is 0. Watch \
                 for: 1: a power cut may revoke what was acknowledged",
                i64::from(broker.is_trusted()),
            ),
            (
                "duet_broker_clocks_agree",
                "1 unless the clocks of the broker's nodes differ by more than 2 s. Watch for: 0: no job \
                 expires; set the clock of the node that the log names",
                i64::from(self.0.clock.require_agreement().is_ok()),
            ),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Orchestrator {
    /// Registers this orchestrator's metrics with `registry`.
    pub(crate) fn register_metrics(self: &Arc<Self>, registry: &mut Registry) {
        self.metrics.register(registry);
        self.bus.register_metrics(registry);
        registry.register_collector(Box::new(Present(Arc::clone(self))));
    }
}
