//! The broker goes back: an operator puts an earlier copy of its store in place, or it comes back
//! empty.
//!
//! Every process finds that out at once, as it does over its next connection
//! (`orchestrator/src/stores.rs`). It forgets what it knew of jobs, tells its core, and reads the
//! store again. What it was about to store is left undone.

use duet_queue::{actions::Event, line::FairQueue};
use duet_wire::JobState;

use crate::{
    broker::Broker,
    clients::{Client, Deed},
    jobs::{self, OWNERS, Variant},
};

use super::{ACK_WAIT_MS, FAULTS_MS, Happening, JOBS, PROCESSES, World};

/// In how many runs of a hundred the broker goes back.
const PERCENT: u64 = 35;

impl World {
    /// Draws whether the broker goes back in this run, to which moment, and when. Without a copy it
    /// is lost whole.
    pub(super) fn draw_going_back(&mut self) {
        if self.below(100) >= PERCENT {
            return;
        }
        let copied_ms = self.below(FAULTS_MS / 2);
        let lasts_ms = 500 + self.below(FAULTS_MS / 3);
        if self.below(4) > 0 {
            self.schedule(copied_ms, Happening::Copy);
        }
        self.schedule(copied_ms + lasts_ms, Happening::GoBack);
    }

    /// The broker with the announcements that processes have in hand: they are not acknowledged.
    pub(super) fn whole_broker(&self) -> Broker {
        let mut whole = self.broker.clone();
        for permit in self.processes.iter().flat_map(|process| process.permits.values()) {
            let mut announcement = permit.announcement.clone();
            announcement.at_ms = self.now_ms + ACK_WAIT_MS;
            whole.announcements.push(announcement);
        }
        whole
    }

    pub(super) fn go_back(&mut self) {
        self.trace.line(self.now_ms, format_args!("the broker goes back"));
        let copy = core::mem::take(&mut self.copy);
        let before = core::mem::replace(&mut self.broker, copy);
        self.agenda.retain(|_, happening| match happening {
            Happening::Learn(..) => false,
            Happening::Effect(_, _, action) => !action.what.is_stored(),
            _ => true,
        });
        let is_cancelled = |broker: &Broker, id| {
            let mut newest = broker.jobs.values().filter_map(|versions| versions.last());
            newest.any(|newest| newest.record.id == id && newest.record.state == JobState::Cancelled)
        };
        let broker = &self.broker;
        self.cancelled.retain(|id| is_cancelled(broker, *id));
        for process in 0..PROCESSES {
            if self.processes[process].is_up {
                self.find_out(process);
            }
        }
        // Clients miss their jobs and submit again. Some want something else by now.
        for number in 0..JOBS {
            if before.jobs.contains_key(&jobs::key(number)) && self.newest(number).is_none() {
                let variant = if self.below(100) < 30 { Variant::Changed } else { Variant::First };
                for variant in [variant, Variant::First] {
                    let client = Client { number, deed: Deed::Submit(variant), left: u32::MAX };
                    self.will_ask(500, 10_000, client);
                }
            }
        }
        let owner = Client { number: OWNERS, deed: Deed::Approve, left: u32::MAX };
        self.will_ask(1_000, 20_000, owner);
    }

    /// A process compares the broker with what it remembers.
    fn find_out(&mut self, process: usize) {
        let this = &mut self.processes[process];
        this.permits.clear();
        this.known.clear();
        this.line = FairQueue::new(2);
        // Their workers keep these seats until their own deadlines.
        this.accepted.clear();
        this.questions = (0, 0);
        self.feed(process, Event::WentBack);
        self.learn_all(process);
    }
}
