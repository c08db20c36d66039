//! Why jobs wait, for operators: counted by code, and logged when that changes. Also wakes jobs
//! once a party that was silent answers.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use duet_protocol::ids::PartyId;
use duet_queue::{reasons::Reasons, store::JobKey};
use duet_wire::Code;
use tokio::time::{Duration, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{clock::whole_millis, orchestrator::Orchestrator};

/// How often the reasons are compared with those that were logged.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How many looks in a row find no job waiting for a reason before that is logged. A busy queue
/// waits for a free worker again and again.
const LOOKS_UNTIL_OVER: u32 = 3;

/// How many jobs are announced at once when a party answers again. Each that is done makes room for
/// another, and the rest come when their pauses end.
const MAX_WOKEN: usize = 256;

/// A change of the reasons that is worth a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// So many jobs wait under the code, after none did.
    Begun(Code, usize),
    /// None does any more.
    Over(Code),
}

/// What was logged: the codes under which jobs wait, and how many looks in a row found none.
#[derive(Debug, Default)]
struct Logged(HashMap<&'static str, u32>);

impl Logged {
    fn changes(&mut self, reasons: &[(Code, usize)]) -> Vec<Change> {
        let mut changes = Vec::new();
        for (code, count) in reasons {
            let name = code.as_str();
            match (self.0.get_mut(name), *count) {
                (None, 0) => {}
                (None, count) => {
                    self.0.insert(name, 0);
                    changes.push(Change::Begun(*code, count));
                }
                (Some(looks), 0) => {
                    *looks += 1;
                    if *looks == LOOKS_UNTIL_OVER {
                        self.0.remove(name);
                        changes.push(Change::Over(*code));
                    }
                }
                (Some(looks), _) => *looks = 0,
            }
        }
        changes
    }
}

/// Logs what changes, and wakes jobs, until `stop`.
pub(crate) async fn run(orchestrator: Arc<Orchestrator>, stop: CancellationToken) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silences = orchestrator.directory.silence_changes();
    let (mut logged, mut silent) = (Logged::default(), BTreeMap::<PartyId, bool>::new());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => log(&mut logged, &orchestrator.board.reasons()),
            // The sender is part of the orchestrator.
            _ = silences.changed() => {
                if orchestrator.note_silences(&mut silent) {
                    orchestrator.wake_waiting().await;
                }
            }
        }
    }
}

fn log(logged: &mut Logged, reasons: &Reasons) {
    for change in logged.changes(&reasons.by_code()) {
        match change {
            Change::Begun(code, jobs) => {
                tracing::warn!(%code, jobs, "jobs wait; docs/errors.md says what to do")
            }
            Change::Over(code) => tracing::info!(%code, "no job waits for this reason any more"),
        }
    }
}

impl Orchestrator {
    /// Logs which parties became silent, or answer again. Returns whether any answers again.
    fn note_silences(&self, known: &mut BTreeMap<PartyId, bool>) -> bool {
        let mut is_any_back = false;
        for (party, silence) in self.directory.silences() {
            let was_silent = known.insert(party.clone(), silence.is_some()).unwrap_or_default();
            match silence {
                Some(refusal) if !was_silent => {
                    tracing::warn!(%party, code = %refusal.code, "a party is unreachable: {}", refusal.message);
                }
                None if was_silent => {
                    tracing::info!(%party, "a party is reachable again");
                    is_any_back = true;
                }
                Some(_) | None => {}
            }
        }
        is_any_back
    }

    /// Has the jobs looked at that wait for a party which was silent. Their announcements come back
    /// only when their pauses end, so some are announced anew.
    pub(crate) async fn wake_waiting(&self) {
        let now_ms = self.clock.now_ms();
        let woken = self.board.wake_after_silence(now_ms, MAX_WOKEN);
        // Orchestrators that see it at the same time announce a job once, and so does one whose
        // party comes and goes.
        let period = now_ms / whole_millis(self.queue.max_retry_pause).max(1);
        for (tenant, job) in woken {
            if let Err(error) = self.announce(&JobKey { tenant, job }, &format!("reach.{period}")).await {
                tracing::debug!(%job, %error, "not announced; its own announcement comes later");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_logged_when_it_comes_and_when_it_is_over() {
        let mut logged = Logged::default();
        let mut look = |count| logged.changes(&[(Code::Overloaded, count)]);
        assert_eq!(look(0), []);
        assert_eq!(look(3), [Change::Begun(Code::Overloaded, 3)]);
        assert_eq!([look(5), look(0), look(2), look(0), look(0)].concat().len(), 0, "it is not over");
        assert_eq!(look(0), [Change::Over(Code::Overloaded)]);
        assert_eq!(look(0), []);
        assert_eq!(look(1), [Change::Begun(Code::Overloaded, 1)]);
    }
}
