//! Orchestrators and parties: whether they are there, ready, of one build, and large enough.

use std::collections::{BTreeMap, BTreeSet};

use super::words::{counted, unasked};
use crate::commands::doctor::{
    facts::{BrokerHistory, OrchestratorFacts, OtherFacts, PartyFacts, Readiness, Worker},
    finding::{Cause, Check, Finding},
};

/// The name with which an orchestrator connects to the broker.
const ORCHESTRATOR: &str = "orchestrator";

/// How processes of different builds become one.
const UPGRADE: &str =
    "Finish the upgrade: restart the processes that are left with the new program, one after the other.";

/// Whether each orchestrator takes jobs, and each other process that was asked takes work.
pub(super) fn orchestrators(
    orchestrators: &[OrchestratorFacts],
    others: &[OtherFacts],
    connected: Option<&BTreeMap<String, usize>>,
) -> Check {
    let mut findings: Vec<Finding> = orchestrators.iter().flat_map(orchestrator).collect();
    findings.extend(others.iter().filter_map(other));
    let there = connected.map(|connected| connected.get(ORCHESTRATOR).copied().unwrap_or(0));
    let of = there.map_or_else(String::new, |there| format!(", {there} connected to the broker"));
    let summary = format!("{} asked{of}", orchestrators.len() + others.len());
    Check { name: "orchestrators", summary, findings }
}

fn orchestrator(orchestrator: &OrchestratorFacts) -> Option<Finding> {
    let url = orchestrator.url.as_str();
    match &orchestrator.readiness {
        Readiness::Ready(BrokerHistory { stores_lost_at_ms: None, broker_went_back_at_ms: None }) => None,
        Readiness::Ready(BrokerHistory { broker_went_back_at_ms: Some(at_ms), .. }) => {
            Some(Finding::warning(
                Cause::BrokerWentBack,
                url,
                format!("it found at {at_ms} ms since 1970 that the broker was put back to an earlier copy"),
                "Have teams submit again what they have no result of, under the same idempotency keys \
                 (deploy/README.md, \"A broker that is put back\"). A restart of the orchestrator ends this notice.",
            ))
        }
        Readiness::Ready(BrokerHistory { stores_lost_at_ms: Some(at_ms), .. }) => Some(Finding::warning(
            Cause::StoresLost,
            url,
            format!("it found at {at_ms} ms since 1970 that the broker had lost streams or buckets"),
            "Have teams submit again what they have no result of, under the same idempotency keys \
             (deploy/README.md, \"A broker that comes back empty\"). A restart of the orchestrator ends this notice.",
        )),
        Readiness::Unready { code, detail } => Some(Finding::failed(
            Cause::OrchestratorUnready,
            url,
            format!("{code}: {detail}"),
            format!(
                "docs/errors.md#{code} has cause and remedy. The broker's checks above say what is wrong there."
            ),
        )),
        Readiness::Unreachable(why) => Some(Finding::failed(
            Cause::OrchestratorUnreachable,
            url,
            why,
            "Start it (`systemctl restart duet-orchestrator`) and look into its log, or correct --api-url or \
             --orchestrator.",
        )),
    }
}

fn other(other: &OtherFacts) -> Option<Finding> {
    let message = match &other.readiness {
        Readiness::Ready(_) => return None,
        Readiness::Unready { code, detail } => format!("{code}: {detail}"),
        Readiness::Unreachable(why) => why.clone(),
    };
    let remedy = "Look into its log. docs/errors.md has cause and remedy of each code.";
    Some(Finding::failed(Cause::ProcessUnready, other.url.as_str(), message, remedy))
}

/// Whether each party has workers that take work.
pub(super) fn parties(parties: &[PartyFacts]) -> Check {
    let seen = parties.iter().map(|party| {
        let workers = || party.workers.iter().flatten().flatten();
        let workers_of = format!("{} {}", counted(workers().count(), "worker"), party.party);
        let (free, all) = workers().fold((0, 0), |(free, all), worker| {
            (free + u64::from(worker.free_seats), all + u64::from(worker.seats))
        });
        if all == 0 { workers_of } else { format!("{workers_of} ({free} of {all} seats free)") }
    });
    let summary = seen.collect::<Vec<_>>().join(", ");
    Check { name: "parties", summary, findings: parties.iter().flat_map(party).collect() }
}

fn party(facts: &PartyFacts) -> Vec<Finding> {
    let party = facts.party.as_str();
    let connected = facts.connected;
    let workers = match &facts.workers {
        Err(why) => return vec![unasked(party, why)],
        Ok(Err(why)) => return vec![away(party, connected, why)],
        Ok(Ok(workers)) => workers,
    };
    let mut findings = Vec::new();
    // Workers of an earlier build answer without a name, so they cannot be counted.
    if let Some(connected) = connected
        && connected > workers.len()
        && !facts.has_older
    {
        findings.push(Finding::warning(
            Cause::WorkerSilent,
            party,
            format!("{connected} workers are connected to the broker, {} answer", workers.len()),
            "Look at the logs of its workers and at their /readyz (`duet party run --health`): one that drains, or \
             whose share store cannot be written, takes no work.",
        ));
    }
    findings.extend(workers.iter().filter(|worker| !worker.is_initiating).map(|worker| {
        Finding::warning(
            Cause::WorkerUncompared,
            format!("{party} {}", worker.instance),
            "it answers, and initiates nothing",
            "Have the broker's stream DUET_HEADS or another party be in its reach; its log names whom it asks.",
        )
    }));
    if !workers.is_empty() && !facts.has_older && workers.iter().all(|worker| worker.free_seats == 0) {
        let seats = seats_of(workers);
        findings.push(Finding::warning(
            Cause::PartyFull,
            party,
            format!("all {seats} seats are taken"),
            "Start another worker of the party on the same share store, or raise `duet party run --sessions`.",
        ));
    }
    findings
}

fn away(party: &str, connected: Option<usize>, why: &str) -> Finding {
    let (seen, remedy) = match connected {
        Some(0) => (
            ": none of its workers is connected to the broker".to_owned(),
            "Start one (`systemctl restart duet-party@1` on its host) and look into its log: it names a broker that \
             it cannot reach, or a share store that does not open.",
        ),
        Some(connected) => (
            format!(": {connected} connected to the broker, and none takes work"),
            "Look at the logs of its workers and at their /readyz (`duet party run --health`): a worker takes no work \
             while its share store cannot be written, often because a disk is full.",
        ),
        None => {
            (String::new(), "Start its workers, and look into their logs for the broker and the share store.")
        }
    };
    Finding::failed(Cause::PartyAway, party, format!("{why}{seen}"), remedy)
}

fn seats_of(workers: &[Worker]) -> u64 {
    workers.iter().map(|worker| u64::from(worker.seats)).sum()
}

/// Whether the parties have a seat for each job that orchestrators work on at once.
pub(super) fn seats(
    orchestrators: &[OrchestratorFacts],
    parties: &[PartyFacts],
    connected: Option<&BTreeMap<String, usize>>,
) -> Check {
    let name = "seats";
    let told: Vec<usize> =
        orchestrators.iter().filter_map(|orchestrator| orchestrator.max_in_flight).collect();
    let Some(most) = told.iter().max() else {
        let finding = Finding::skipped(
            "seats",
            "no orchestrator says how many jobs it works on at once",
            "Give --api-url or --orchestrator the address of one that runs this build.",
        );
        return Check { name, summary: "not compared".to_owned(), findings: vec![finding] };
    };
    let there = connected.and_then(|connected| connected.get(ORCHESTRATOR)).copied().unwrap_or(0);
    let count = there.max(told.len());
    // Orchestrators that were not asked usually have the settings of the others.
    let jobs = told.iter().sum::<usize>() + (count - told.len()) * most;
    let assumed = if count > told.len() { ", if those that were not asked are like the others" } else { "" };
    let mut seen = vec![format!("{jobs} jobs at once")];
    let mut findings = Vec::new();
    for facts in parties {
        let Ok(Ok(workers)) = &facts.workers else { continue };
        if workers.is_empty() || facts.has_older {
            continue;
        }
        let seats = seats_of(workers);
        seen.push(format!("{seats} seats of {}", facts.party));
        if u64::try_from(jobs).unwrap_or(u64::MAX) > seats {
            let each = seats / u64::try_from(count).unwrap_or(u64::MAX);
            findings.push(Finding::warning(
                Cause::SeatsFew,
                facts.party.as_str(),
                format!(
                    "{} work on {jobs} jobs at once{assumed}; {} of {} take {seats} sessions",
                    counted(count, "orchestrator"),
                    counted(workers.len(), "worker"),
                    facts.party
                ),
                format!(
                    "Start further workers of {}, or raise their `duet party run --sessions`, or start each \
                     orchestrator with --max-in-flight {each}.",
                    facts.party
                ),
            ));
        }
    }
    Check { name, summary: seen.join(", "), findings }
}

/// Whether all processes run one build.
pub(super) fn builds(orchestrators: &[OrchestratorFacts], parties: &[PartyFacts]) -> Check {
    const OLDER: &str = "an earlier build";
    let mut of: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    of.entry(env!("CARGO_PKG_VERSION")).or_default().insert("this command");
    for facts in orchestrators {
        if !matches!(facts.readiness, Readiness::Unreachable(_)) {
            let version = facts.version.as_deref().unwrap_or(OLDER);
            of.entry(version).or_default().insert(&facts.url);
        }
    }
    for facts in parties {
        for worker in facts.workers.iter().flatten().flatten() {
            of.entry(&worker.version).or_default().insert(&facts.party);
        }
        if facts.has_older {
            of.entry(OLDER).or_default().insert(&facts.party);
        }
    }
    let seen = of
        .iter()
        .map(|(version, who)| format!("{version}: {}", who.iter().copied().collect::<Vec<_>>().join(", ")));
    let seen = seen.collect::<Vec<_>>().join("; ");
    let differs = of.len() > 1;
    let finding = differs.then(|| Finding::warning(Cause::BuildsDiffer, "builds", seen.clone(), UPGRADE));
    let summary = if differs { counted(of.len(), "build") } else { env!("CARGO_PKG_VERSION").to_owned() };
    Check { name: "builds", summary, findings: finding.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::commands::doctor::{finding::Status, samples};

    fn causes(check: &Check) -> Vec<(Cause, Status)> {
        check.findings.iter().map(|finding| (finding.cause, finding.status)).collect()
    }

    fn connected(orchestrators: usize) -> BTreeMap<String, usize> {
        BTreeMap::from([(ORCHESTRATOR.to_owned(), orchestrators)])
    }

    #[test]
    fn an_orchestrator_says_itself_why_it_is_not_ready() {
        let look = |readiness| {
            let facts = OrchestratorFacts { readiness, ..samples::orchestrator() };
            let check = orchestrators(&[facts], &[], None);
            check.findings.into_iter().map(|found| (found.cause, found.status, found.message)).next()
        };
        let ready = |stores_lost_at_ms, broker_went_back_at_ms| {
            look(Readiness::Ready(BrokerHistory { stores_lost_at_ms, broker_went_back_at_ms }))
        };
        assert_eq!(ready(None, None), None);
        let lost = ready(Some(7), None).unwrap();
        assert_eq!((lost.0, lost.1), (Cause::StoresLost, Status::Warning));
        let back = ready(Some(7), Some(8)).unwrap();
        assert_eq!((back.0, back.1), (Cause::BrokerWentBack, Status::Warning));
        let unready = Readiness::Unready { code: "unsafe-broker".to_owned(), detail: "no answer".to_owned() };
        let said = (Cause::OrchestratorUnready, Status::Failed, "unsafe-broker: no answer".to_owned());
        assert_eq!(look(unready), Some(said));
        let away = look(Readiness::Unreachable("refused".to_owned())).unwrap();
        assert_eq!((away.0, away.1), (Cause::OrchestratorUnreachable, Status::Failed));
    }

    #[test]
    fn another_process_is_asked_for_its_readiness() {
        let gone =
            OtherFacts { url: "http://w".to_owned(), readiness: Readiness::Unreachable("gone".to_owned()) };
        assert_eq!(causes(&orchestrators(&[], &[gone], None)), [(Cause::ProcessUnready, Status::Failed)]);
    }

    #[test]
    fn a_party_without_a_worker_is_away() {
        let there = parties(&[samples::party()]);
        assert_eq!(causes(&there), []);
        assert!(there.summary.ends_with("seats free)"), "{there:?}");
        for (connected, words) in [(Some(0), "none of its workers"), (Some(2), "2 connected")] {
            let facts =
                PartyFacts { workers: Ok(Err("no answer".to_owned())), connected, ..samples::party() };
            let check = parties(&[facts]);
            assert_eq!(causes(&check), [(Cause::PartyAway, Status::Failed)]);
            assert!(check.findings.first().unwrap().message.contains(words), "{check:?}");
        }
        let unasked = PartyFacts { workers: Err(samples::unasked()), ..samples::party() };
        assert_eq!(parties(&[unasked]).status(), Status::Skipped);
    }

    #[test]
    fn workers_are_counted_against_those_that_are_connected() {
        let silent = PartyFacts { connected: Some(2), ..samples::party() };
        assert_eq!(causes(&parties(slice::from_ref(&silent))), [(Cause::WorkerSilent, Status::Warning)]);
        // Workers of an earlier build answer without a name.
        assert_eq!(causes(&parties(&[PartyFacts { has_older: true, ..silent }])), []);
    }

    #[test]
    fn a_worker_may_be_full_or_not_compared() {
        let with = |worker| PartyFacts { workers: Ok(Ok(vec![worker])), ..samples::party() };
        let full = Worker { free_seats: 0, ..samples::worker() };
        assert_eq!(causes(&parties(&[with(full)])), [(Cause::PartyFull, Status::Warning)]);
        let uncompared = Worker { is_initiating: false, ..samples::worker() };
        assert_eq!(causes(&parties(&[with(uncompared)])), [(Cause::WorkerUncompared, Status::Warning)]);
    }

    #[test]
    fn two_orchestrators_take_more_jobs_than_one_worker_has_seats() {
        let (one, party) = ([samples::orchestrator()], [samples::party()]);
        assert_eq!(causes(&seats(&one, &party, Some(&connected(1)))), []);
        let two = [samples::orchestrator(), samples::orchestrator()];
        assert_eq!(causes(&seats(&two, &party, None)), [(Cause::SeatsFew, Status::Warning)]);
        // The second is connected, and was not asked.
        let check = seats(&one, &party, Some(&connected(2)));
        assert_eq!(causes(&check), [(Cause::SeatsFew, Status::Warning)]);
        assert!(check.findings.first().unwrap().remedy.contains("--max-in-flight 16"), "{check:?}");
        let older = [OrchestratorFacts { max_in_flight: None, ..samples::orchestrator() }];
        assert_eq!(seats(&older, &party, None).status(), Status::Skipped);
    }

    #[test]
    fn builds_are_compared() {
        let (one, party) = (samples::orchestrator(), samples::party());
        assert_eq!(causes(&builds(slice::from_ref(&one), slice::from_ref(&party))), []);
        let differ = [(Cause::BuildsDiffer, Status::Warning)];
        let other = OrchestratorFacts { version: Some("9.9.9".to_owned()), ..one.clone() };
        assert_eq!(causes(&builds(&[one.clone(), other], slice::from_ref(&party))), differ);
        let older = PartyFacts { has_older: true, ..party };
        assert_eq!(causes(&builds(slice::from_ref(&one), &[older])), differ);
        // A process that does not answer has no build.
        let gone =
            OrchestratorFacts { readiness: Readiness::Unreachable(String::new()), version: None, ..one };
        assert_eq!(causes(&builds(&[gone], &[])), []);
    }
}
