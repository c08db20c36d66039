//! Facts of a healthy installation, for the tests of checks.

use std::collections::BTreeMap;

use super::facts::{
    BrokerFacts, BrokerHistory, Facts, OrchestratorFacts, PartyFacts, Readiness, Reading, Unasked, Work,
    Worker,
};

pub(super) fn unasked() -> Unasked {
    Unasked { why: "no key".to_owned(), remedy: "Give one.".to_owned() }
}

pub(super) fn worker() -> Worker {
    Worker {
        instance: "01A".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        clock: Reading { ahead_ms: 0, within_ms: 1 },
        seats: 32,
        free_seats: 31,
        is_initiating: true,
    }
}

pub(super) fn party() -> PartyFacts {
    PartyFacts {
        party: "service".to_owned(),
        workers: Ok(Ok(vec![worker()])),
        has_older: false,
        connected: Some(1),
    }
}

pub(super) fn orchestrator() -> OrchestratorFacts {
    OrchestratorFacts {
        url: "http://127.0.0.1:8080".to_owned(),
        readiness: Readiness::Ready(BrokerHistory::default()),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        max_in_flight: Some(32),
        clock: Some(Reading { ahead_ms: 0, within_ms: 1 }),
    }
}

pub(super) fn work() -> Work {
    Work {
        queued: Vec::new(),
        has_more: false,
        running: 0,
        awaiting_owner: 0,
        failed: Vec::new(),
        wallets: Ok(1),
        pairs: Vec::new(),
        webhooks: Vec::new(),
    }
}

pub(super) fn facts() -> Facts {
    Facts {
        now_ms: 100_000,
        stuck_after_ms: 60_000,
        broker: BrokerFacts {
            connection: Ok(Ok(())),
            nodes: Ok(Vec::new()),
            connected: Some(BTreeMap::new()),
            streams: Ok(Vec::new()),
        },
        parties: vec![party()],
        orchestrators: vec![orchestrator()],
        others: Vec::new(),
        certificates: Vec::new(),
        tenants: Ok(Vec::new()),
    }
}
