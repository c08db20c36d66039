//! Checks sessions. None was resumed, no one-time value was used twice, and no key was locked. Only
//! a job's own digest was charged or signed. Every session with a signature was overheard.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use duet_protocol::codec;
use duet_wire::{Outcome, OutcomeResult, SignedOutcome};

use super::{Finding, jobs};
use crate::{
    capture::{Run, Sighting},
    history::{History, OneTime},
};

/// The number of different messages of a seat in a session. The initiator sends the first and
/// third, the responder the others.
const MESSAGES_OF_A_SEAT: usize = 2;

pub(super) fn check(history: &History) -> Vec<Finding> {
    let mut findings = Vec::new();
    let rounds = Rounds::of(history);
    check_rounds(&rounds, &mut findings);
    check_outcomes(history, &mut findings);
    check_overheard(history, &rounds, &mut findings);
    check_one_time_values(history, &mut findings);
    for key in history.paillier_keys.iter().filter(|key| key.is_locked) {
        findings.push(Finding::Locked { party: key.party.clone(), key: key.id.clone() });
    }
    findings
}

/// The messages of one seat in one session.
#[derive(Default)]
struct Said<'a> {
    runs: BTreeSet<&'a Run>,
    messages: BTreeSet<&'a Bytes>,
}

/// The overheard rounds, by session.
struct Rounds<'a> {
    initiators: BTreeMap<&'a str, Said<'a>>,
    responders: BTreeMap<&'a str, Said<'a>>,
    /// The answers to each message of an initiator.
    answers: BTreeMap<(&'a str, &'a Bytes), BTreeSet<&'a Bytes>>,
}

impl<'a> Rounds<'a> {
    fn of(history: &'a History) -> Self {
        let mut initiators: BTreeMap<&str, Said<'_>> = BTreeMap::new();
        // The inbox of each answer, with the session and message that it answers.
        let mut inboxes: BTreeMap<&str, (&str, &Bytes)> = BTreeMap::new();
        for sighting in &history.captured {
            let Some(session) = session_of_round(&sighting.subject) else { continue };
            let said = initiators.entry(session).or_default();
            said.runs.insert(&sighting.by);
            said.messages.insert(&sighting.payload);
            if let Some(reply) = &sighting.reply {
                inboxes.insert(reply, (session, &sighting.payload));
            }
        }
        let mut responders: BTreeMap<&str, Said<'_>> = BTreeMap::new();
        let mut answers: BTreeMap<(&str, &Bytes), BTreeSet<&Bytes>> = BTreeMap::new();
        for sighting in &history.captured {
            let Some(&(session, question)) = inboxes.get(sighting.subject.as_str()) else { continue };
            let said = responders.entry(session).or_default();
            said.runs.insert(&sighting.by);
            said.messages.insert(&sighting.payload);
            answers.entry((session, question)).or_default().insert(&sighting.payload);
        }
        Self { initiators, responders, answers }
    }

    /// The messages of each seat.
    fn seats(&self) -> [(&'static str, &BTreeMap<&'a str, Said<'a>>); 2] {
        [("initiator", &self.initiators), ("responder", &self.responders)]
    }
}

/// The session in the subject of a round: `duet.v1.round.<session>.<from>.<to>`.
fn session_of_round(subject: &str) -> Option<&str> {
    subject.strip_prefix("duet.v1.round.")?.split('.').next()
}

fn check_rounds(rounds: &Rounds<'_>, findings: &mut Vec<Finding>) {
    for (seat, all) in rounds.seats() {
        for (session, said) in all {
            if said.runs.len() > 1 {
                findings.push(Finding::Resumed {
                    session: (*session).to_owned(),
                    seat,
                    runs: said.runs.iter().map(ToString::to_string).collect(),
                });
            }
        }
    }
    for (session, said) in &rounds.initiators {
        if said.messages.len() > MESSAGES_OF_A_SEAT {
            let (session, messages) = ((*session).to_owned(), said.messages.len());
            findings.push(Finding::SaidTooMuch { session, seat: "initiator", messages });
        }
    }
    // The same message must get the same answer, no matter how often it is sent.
    for ((session, _), answers) in &rounds.answers {
        if answers.len() > 1 {
            let (session, messages) = ((*session).to_owned(), answers.len());
            findings.push(Finding::SaidTooMuch { session, seat: "responder", messages });
        }
    }
    let all = rounds.initiators.iter().chain(&rounds.responders);
    let sealed = all.flat_map(|(session, said)| said.messages.iter().map(move |bytes| (*bytes, *session)));
    for sessions in in_several(sealed) {
        findings.push(Finding::SameBytes { sessions });
    }
}

/// The sessions of each value that occurs in more than one session.
fn in_several<'a, T: Ord>(items: impl Iterator<Item = (T, &'a str)>) -> Vec<Vec<String>> {
    let mut sessions: BTreeMap<T, BTreeSet<&str>> = BTreeMap::new();
    for (item, session) in items {
        sessions.entry(item).or_default().insert(session);
    }
    sessions
        .into_values()
        .filter(|sessions| sessions.len() > 1)
        .map(|sessions| sessions.into_iter().map(str::to_owned).collect())
        .collect()
}

/// The outcome that a party reported, even if the orchestrator ignored it.
fn reported(sighting: &Sighting) -> Option<Outcome> {
    sighting.subject.strip_prefix("duet.v1.outcome.")?;
    let signed: SignedOutcome = codec::decode(&sighting.payload).ok()?;
    codec::decode(&signed.outcome).ok()
}

fn check_outcomes(history: &History, findings: &mut Vec<Finding>) {
    let asked = jobs::asked(history);
    let charged: BTreeMap<&str, [u8; 32]> =
        history.charges.iter().map(|charge| (charge.session.as_str(), charge.digest)).collect();
    let mut nonces: Vec<(Vec<u8>, String)> = Vec::new();
    for outcome in history.captured.iter().filter_map(reported) {
        let (session, job) = (outcome.session.to_string(), outcome.job.to_string());
        let Some(submission) = asked.get(job.as_str()) else { continue };
        if charged.get(session.as_str()).is_some_and(|charged| *charged != jobs::digest(&submission.payload))
        {
            findings.push(Finding::AnotherDigest { job: job.clone(), session: session.clone() });
        }
        let OutcomeResult::Signed { signature } = outcome.result else { continue };
        let signature = signature.to_bytes();
        if !jobs::is_by_the_wallet(submission, &format!("0x{}", hex::encode(signature))) {
            findings.push(Finding::BadSignature { job, seen: format!("session {session}") });
        }
        if !charged.contains_key(session.as_str()) {
            findings.push(Finding::Uncharged { session: session.clone() });
        }
        nonces.push((signature.get(..32).unwrap_or_default().to_vec(), session));
    }
    let nonces = nonces.iter().map(|(r, session)| (r, session.as_str()));
    for sessions in in_several(nonces) {
        findings.push(Finding::SameNonce { sessions });
    }
}

/// Judging a session's messages requires that all were overheard. So this checks every session with
/// a published signature, whichever party reported it.
fn check_overheard(history: &History, rounds: &Rounds<'_>, findings: &mut Vec<Finding>) {
    let asked = jobs::asked(history);
    let results = history.results.iter().filter_map(|result| jobs::verified(history, result).ok());
    let results = results.filter(|result| asked.contains_key(result.job.to_string().as_str()));
    let sessions: BTreeSet<String> = results.map(|result| result.session.to_string()).collect();
    for session in sessions {
        for (seat, all) in rounds.seats() {
            let messages = all.get(session.as_str()).map_or(0, |said| said.messages.len());
            if messages < MESSAGES_OF_A_SEAT {
                findings.push(Finding::Unheard { session: session.clone(), seat, messages });
            }
        }
    }
}

fn check_one_time_values(history: &History, findings: &mut Vec<Finding>) {
    for what in [OneTime::R1, OneTime::R2, OneTime::C3] {
        let noted = history.used.iter().filter(|used| used.what == what);
        for sessions in in_several(noted.map(|used| (&used.hash, used.session.as_str()))) {
            findings.push(Finding::Reused { what, sessions });
        }
    }
}
