//! One process: a core with what its driver keeps for it.

use std::collections::{BTreeMap, BTreeSet};

use duet_protocol::ids::{PartyId, SessionId};
use duet_queue::{
    Config, Core, QueueSettings,
    actions::{ActionId, Caller},
    line::FairQueue,
    store::{JobKey, Version},
};

use crate::{broker::Announcement, clients::Client};

/// An announcement in hand.
pub(crate) struct Permit {
    pub(crate) announcement: Announcement,
    /// Whether the job that it names was tried out of turn.
    pub(crate) is_named_tried: bool,
}

/// Why the core was asked.
#[derive(Clone)]
pub(crate) enum Calling {
    Work { permit: u64, job: JobKey },
    Sweep,
    Tell(JobKey),
    Report { number: u64 },
    Client(Client),
}

pub(crate) struct Process {
    pub(crate) core: Core,
    /// How often the process was started.
    pub(crate) generation: u32,
    pub(crate) began_ms: u64,
    /// How far its wall clock is ahead.
    pub(crate) ahead_ms: i64,
    pub(crate) is_up: bool,
    pub(crate) tick_at_ms: u64,
    pub(crate) line: FairQueue,
    /// Each job's newest version that it knows, and since when.
    pub(crate) known: BTreeMap<JobKey, (Version, u64)>,
    pub(crate) callers: BTreeMap<Caller, Calling>,
    pub(crate) permits: BTreeMap<u64, Permit>,
    pub(crate) is_sweeping: bool,
    /// The jobs whose revocations are being told.
    pub(crate) telling: BTreeSet<JobKey>,
    /// The invitations under way: to whom, to which session, and until when it may be accepted.
    pub(crate) invitations: BTreeMap<ActionId, (PartyId, SessionId, u64)>,
    /// The seats of whose acceptance the core has heard, and which it has not released.
    pub(crate) accepted: BTreeSet<(PartyId, SessionId)>,
    /// Questions to parties in the second `.0`.
    pub(crate) questions: (u64, u32),
    next: u64,
}

impl Process {
    pub(crate) fn new(
        number: usize,
        queue: &QueueSettings,
        seed: [u8; 32],
        (began_ms, ahead_ms): (u64, i64),
    ) -> Self {
        let duplicate_window = core::time::Duration::from_secs(120);
        let own_name = format!("o{number}").parse().unwrap();
        let config = Config { queue: queue.clone(), duplicate_window, own_name };
        Self {
            core: Core::new(config, seed),
            generation: 0,
            began_ms,
            ahead_ms,
            is_up: true,
            tick_at_ms: u64::MAX,
            line: FairQueue::new(2),
            known: BTreeMap::new(),
            callers: BTreeMap::new(),
            permits: BTreeMap::new(),
            is_sweeping: false,
            telling: BTreeSet::new(),
            invitations: BTreeMap::new(),
            accepted: BTreeSet::new(),
            questions: (0, 0),
            next: 0,
        }
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn wall_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add_signed(self.ahead_ms)
    }
}
