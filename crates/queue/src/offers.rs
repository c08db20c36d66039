//! Which worker gets a session: what workers offered, less what this orchestrator took since.
//!
//! Every orchestrator hears every offer. Those that have jobs to start divide a worker's free seats
//! among them, so that they seldom reach for the same seat. What is left over goes to another one
//! with each offer. An offer that has not changed for a moment is open to all of them. An offer is
//! a hint: the worker refuses what is too much.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use duet_protocol::ids::{PartyId, WalletId};
use duet_wire::{Code, InstanceId, Refusal};

use crate::reasons;

/// How long an offer counts, and how long an orchestrator counts as one that has jobs to start.
const LASTS: Duration = Duration::from_secs(3);

/// From this age on, all free seats of an offer are open to every orchestrator.
const UNCLAIMED_AFTER: Duration = Duration::from_millis(200);

/// How many workers of a party are known at most, and how many orchestrators with jobs to start.
const MAX_WORKERS: usize = 1024;
const MAX_AT_WORK: usize = 256;

/// For how many wallets it is known which worker signed last.
const MAX_WALLETS: usize = 4096;

/// What a worker offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offered {
    /// Counts the worker's offers.
    pub number: u64,
    /// How many sessions it takes at once; 0 if it takes none any more.
    pub seats: u32,
    /// How many more sessions it takes now.
    pub free: u32,
}

/// What the workers of a party offer together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    /// How many workers offer seats.
    pub workers: usize,
    /// All their seats.
    pub seats: u64,
    /// Those that are free.
    pub free: u64,
}

/// Why a party has no seat for a session now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Its seats are taken, or other orchestrators may take those that are free.
    Full(PartyId),
    /// Its workers offer none any more.
    Away(PartyId),
}

impl From<Lack> for Refusal {
    fn from(lack: Lack) -> Self {
        match lack {
            Lack::Full(party) => reasons::no_seat(&party),
            Lack::Away(party) => Self::new(Code::PartyAway, format!("no worker of {party} offers seats")),
        }
    }
}

/// How a seat that was in hand was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// No invitation reached the worker, or the worker refused the job.
    None,
    /// The worker took the session, or may have taken it.
    Taken,
    /// The worker has no seat.
    Full,
    /// The worker is not there.
    Gone,
}

#[derive(Debug)]
struct Worker {
    offered: Offered,
    heard_at: Duration,
    /// Since when it has offered as many free seats.
    stands_since: Duration,
    /// How many seats this orchestrator used since the last offer.
    used: u32,
    /// How many seats this orchestrator has in hand for sessions to come.
    in_hand: u32,
}

impl Worker {
    fn available(&self, share: u32, now: Duration) -> u32 {
        let is_unclaimed = now.saturating_sub(self.stands_since) >= UNCLAIMED_AFTER;
        let part = if is_unclaimed { self.offered.free } else { share };
        part.saturating_sub(self.used).saturating_sub(self.in_hand)
    }
}

/// How the workers of a party are invited.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// By the party's name: none of them has offered seats since a question was answered. They may
    /// be of the version before, which offers none.
    #[default]
    ByParty,
    /// Each by its own name, as it offers seats.
    ByName,
    /// Not at all, until it is known whether the party answers questions.
    Asked,
}

#[derive(Debug, Default)]
struct Party {
    standing: Standing,
    workers: BTreeMap<InstanceId, Worker>,
    /// When any of its workers was heard last.
    heard_at: Duration,
}

/// What workers of all parties offer.
#[derive(Debug)]
pub(crate) struct Offers {
    own_name: InstanceId,
    /// The orchestrators with jobs to start, and when each was heard.
    at_work: BTreeMap<InstanceId, Duration>,
    parties: BTreeMap<PartyId, Party>,
    /// The worker that signed last, by party and wallet, with its place in `order`.
    signed: BTreeMap<(PartyId, WalletId), (InstanceId, u64)>,
    order: BTreeMap<u64, (PartyId, WalletId)>,
    next_place: u64,
    /// The parties under which jobs may be parked, with the number of the last one.
    lacking: BTreeMap<PartyId, u64>,
    next_lack: u64,
    /// Those of them that may have seats since this was looked at last.
    changed: BTreeSet<PartyId>,
}

impl Offers {
    pub(crate) const fn new(own_name: InstanceId) -> Self {
        Self {
            own_name,
            at_work: BTreeMap::new(),
            parties: BTreeMap::new(),
            signed: BTreeMap::new(),
            order: BTreeMap::new(),
            next_place: 0,
            lacking: BTreeMap::new(),
            next_lack: 0,
            changed: BTreeSet::new(),
        }
    }

    /// Records an offer. Returns whether the party offered no seats before.
    pub(crate) fn hear(
        &mut self,
        party: &PartyId,
        instance: InstanceId,
        offered: Offered,
        now: Duration,
    ) -> bool {
        self.changed.insert(party.clone());
        let known = self.parties.entry(party.clone()).or_default();
        known.heard_at = now;
        known.standing = Standing::ByName;
        if offered.seats == 0 {
            known.workers.remove(&instance);
            return false;
        }
        let is_back = known.workers.is_empty();
        let is_full = known.workers.len() >= MAX_WORKERS;
        match known.workers.get_mut(&instance) {
            Some(worker) => {
                if worker.offered.free != offered.free {
                    worker.stands_since = now;
                }
                (worker.offered, worker.heard_at, worker.used) = (offered, now, 0);
            }
            None if is_full => {}
            None => {
                let worker = Worker { offered, heard_at: now, stands_since: now, used: 0, in_hand: 0 };
                known.workers.insert(instance, worker);
            }
        }
        is_back
    }

    /// Records that an orchestrator has jobs to start.
    pub(crate) fn hear_at_work(&mut self, orchestrator: InstanceId, now: Duration) {
        let is_known = self.at_work.contains_key(&orchestrator);
        if orchestrator != self.own_name && (is_known || self.at_work.len() < MAX_AT_WORK) {
            self.at_work.insert(orchestrator, now);
        }
    }

    /// Forgets what is too old. Returns the parties whose workers offer no seats any more, once.
    pub(crate) fn lapse(&mut self, now: Duration) -> Vec<PartyId> {
        let counts = |heard_at: Duration| now.saturating_sub(heard_at) < LASTS;
        self.at_work.retain(|_, heard_at| counts(*heard_at));
        let mut away = Vec::new();
        for (name, party) in &mut self.parties {
            party.workers.retain(|_, worker| counts(worker.heard_at));
            // Not at once: workers that stop leave their queue groups just then.
            if party.standing == Standing::ByName && party.workers.is_empty() && !counts(party.heard_at) {
                party.standing = Standing::Asked;
                self.changed.insert(name.clone());
                away.push(name.clone());
            }
        }
        away
    }

    /// When the next offer is too old.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let parties = self.parties.values().filter(|party| party.standing == Standing::ByName);
        let heard = parties.flat_map(|party| {
            let workers = party.workers.values().map(|worker| worker.heard_at);
            workers.chain(party.workers.is_empty().then_some(party.heard_at))
        });
        heard.min().map(|heard_at| heard_at.saturating_add(LASTS))
    }

    /// Records that it is known whether a party that offers no seats answers. If it does not, the
    /// parties' answers say so from here on.
    pub(crate) fn answered(&mut self, party: &PartyId) {
        if let Some(known) = self.parties.get_mut(party)
            && known.standing == Standing::Asked
        {
            known.standing = Standing::ByParty;
            self.changed.insert(party.clone());
        }
    }

    /// Records that a job may be parked under `party`.
    pub(crate) fn lacks(&mut self, party: PartyId) {
        self.next_lack += 1;
        self.lacking.insert(party, self.next_lack);
    }

    /// The number of the last job that was parked under `party`.
    pub(crate) fn last_lack(&self, party: &PartyId) -> Option<u64> {
        self.lacking.get(party).copied()
    }

    /// Records that no job was parked under `party` when all until the `last` one were released.
    pub(crate) fn lacks_no_more(&mut self, party: &PartyId, last: Option<u64>) {
        if self.last_lack(party) == last {
            self.lacking.remove(party);
        }
    }

    /// The parties under which jobs may be parked and whose seats have changed since the last call,
    /// with how many jobs may be released: as many as there are seats, or all if the party is
    /// away or is invited by its name.
    pub(crate) fn take_releases(&mut self, now: Duration) -> Vec<(PartyId, u64)> {
        let changed = core::mem::take(&mut self.changed);
        let seats = changed.into_iter().filter(|party| self.lacking.contains_key(party)).map(|party| {
            let known = self.parties.get(&party).filter(|known| known.standing == Standing::ByName);
            let available = |worker: &Worker| u64::from(worker.available(self.share(worker.offered), now));
            let most = match known {
                Some(known) if !known.workers.is_empty() => known.workers.values().map(available).sum(),
                _ => u64::MAX,
            };
            (party, most)
        });
        seats.filter(|(_, most)| *most > 0).collect()
    }

    /// How many of a worker's free seats are this orchestrator's.
    fn share(&self, offered: Offered) -> u32 {
        let others = u64::try_from(self.at_work.len()).unwrap_or(u64::MAX);
        let before = self.at_work.range(..&self.own_name).count();
        let (all, rank) = (others.saturating_add(1), u64::try_from(before).unwrap_or(u64::MAX));
        let free = u64::from(offered.free);
        let turn = (rank + all - offered.number % all) % all;
        u32::try_from(free / all + u64::from(turn < free % all)).unwrap_or(u32::MAX)
    }

    /// Takes a seat of `party` for a session of `wallet`. Returns the worker, or `None` if the
    /// party's workers are invited by its name. With `alone` it leaves none to other orchestrators.
    pub(crate) fn take(
        &mut self,
        party: &PartyId,
        wallet: WalletId,
        alone: bool,
        now: Duration,
    ) -> Result<Option<InstanceId>, Lack> {
        match self.parties.get(party).map(|known| known.standing).unwrap_or_default() {
            Standing::ByParty => return Ok(None),
            Standing::Asked => return Err(Lack::Away(party.clone())),
            Standing::ByName => {}
        }
        let available = |worker: &Worker| {
            let share = if alone { worker.offered.free } else { self.share(worker.offered) };
            worker.available(share, now)
        };
        let full = || Lack::Full(party.clone());
        let known = self.parties.get(party).ok_or_else(full)?;
        if known.workers.is_empty() {
            return Err(Lack::Away(party.clone()));
        }
        let last = self.signed.get(&(party.clone(), wallet)).map(|(instance, _)| instance);
        let last = last.filter(|last| known.workers.get(*last).is_some_and(|worker| available(worker) > 0));
        let roomiest = || {
            let most = known.workers.iter().max_by_key(|(_, worker)| available(worker))?;
            (available(most.1) > 0).then_some(most.0)
        };
        let instance = last.or_else(roomiest).cloned().ok_or_else(full)?;
        if let Some(worker) = self.parties.get_mut(party).and_then(|known| known.workers.get_mut(&instance)) {
            worker.in_hand += 1;
        }
        Ok(Some(instance))
    }

    /// Records how a seat that was in hand was used.
    pub(crate) fn settle(&mut self, party: &PartyId, instance: &InstanceId, outcome: Use) {
        let Some(known) = self.parties.get_mut(party) else { return };
        if matches!(outcome, Use::Gone | Use::None) {
            self.changed.insert(party.clone());
        }
        if outcome == Use::Gone {
            known.workers.remove(instance);
            return;
        }
        let Some(worker) = known.workers.get_mut(instance) else { return };
        worker.in_hand = worker.in_hand.saturating_sub(1);
        match outcome {
            Use::None | Use::Gone => {}
            Use::Taken => worker.used = worker.used.saturating_add(1),
            Use::Full => worker.used = u32::MAX,
        }
    }

    /// Records which worker of a party signed last for a wallet.
    pub(crate) fn note_signed(&mut self, party: &PartyId, wallet: WalletId, instance: InstanceId) {
        let key = (party.clone(), wallet);
        self.next_place += 1;
        self.order.insert(self.next_place, key.clone());
        if let Some((_, before)) = self.signed.insert(key, (instance, self.next_place)) {
            self.order.remove(&before);
        }
        while self.signed.len() > MAX_WALLETS
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.signed.remove(&oldest);
        }
    }

    /// What the workers of each party offer together.
    pub(crate) fn totals(&self) -> BTreeMap<PartyId, Total> {
        let total = |party: &Party| {
            party.workers.values().fold(Total::default(), |sum, worker| Total {
                workers: sum.workers + 1,
                seats: sum.seats + u64::from(worker.offered.seats),
                free: sum.free + u64::from(worker.offered.free),
            })
        };
        self.parties.iter().map(|(name, party)| (name.clone(), total(party))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALLET: WalletId = WalletId([1; 32]);
    const NOW: Duration = Duration::from_secs(100);

    fn partner() -> PartyId {
        "partner".parse().unwrap()
    }

    fn name(text: &str) -> InstanceId {
        text.parse().unwrap()
    }

    fn offer(number: u64, free: u32) -> Offered {
        Offered { number, seats: 8, free }
    }

    /// What the orchestrator of this name takes until there is none, of one worker's offer.
    fn taken(own_name: &str, at_work: &[&str], offered: Offered, now: Duration) -> usize {
        let mut offers = Offers::new(name(own_name));
        for other in at_work {
            offers.hear_at_work(name(other), NOW);
        }
        offers.hear(&partner(), name("w"), offered, NOW);
        (0..1000).take_while(|_| offers.take(&partner(), WALLET, false, now).is_ok()).count()
    }

    #[test]
    fn free_seats_are_divided_by_the_orchestrators_at_work_without_rest_or_overlap() {
        let all = ["a", "b", "c", "d"];
        for free in 0..=9 {
            for number in 0..5 {
                let each = all.map(|own| taken(own, &all, offer(number, free), NOW));
                assert_eq!(each.iter().sum::<usize>(), usize::try_from(free).unwrap(), "{each:?}");
                assert!(each.iter().max().unwrap() - each.iter().min().unwrap() <= 1, "{each:?}");
            }
        }
        // One seat goes to another one each time.
        let who = |number| all.map(|own| taken(own, &all, offer(number, 1), NOW));
        assert_eq!((0..4).map(who).fold([0; 4], |sum, one| [0, 1, 2, 3].map(|i| sum[i] + one[i])), [1; 4]);
        assert_eq!(taken("a", &[], offer(3, 5), NOW), 5, "who is alone takes all");
        assert_eq!(taken("a", &all, offer(3, 5), NOW + UNCLAIMED_AFTER), 5, "they were not taken");
    }

    #[test]
    fn a_seat_in_hand_or_used_is_not_taken_again_before_the_next_offer() {
        let mut offers = Offers::new(name("a"));
        let take = |offers: &mut Offers| offers.take(&partner(), WALLET, false, NOW);
        assert_eq!(take(&mut offers), Ok(None), "nothing was offered yet");
        offers.hear(&partner(), name("w"), offer(1, 2), NOW);
        assert_eq!(take(&mut offers), Ok(Some(name("w"))));
        assert_eq!(take(&mut offers), Ok(Some(name("w"))));
        assert_eq!(take(&mut offers), Err(Lack::Full(partner())));
        // One comes back. The other is in hand across the next offer.
        offers.settle(&partner(), &name("w"), Use::None);
        offers.hear(&partner(), name("w"), offer(2, 2), NOW);
        assert_eq!(take(&mut offers), Ok(Some(name("w"))));
        assert_eq!(take(&mut offers), Err(Lack::Full(partner())));
        offers.settle(&partner(), &name("w"), Use::Taken);
        offers.settle(&partner(), &name("w"), Use::Taken);
        assert_eq!(take(&mut offers), Err(Lack::Full(partner())));
        offers.hear(&partner(), name("w"), offer(3, 1), NOW);
        assert_eq!(take(&mut offers), Ok(Some(name("w"))));
        offers.settle(&partner(), &name("w"), Use::Full);
        assert_eq!(take(&mut offers), Err(Lack::Full(partner())));
    }

    #[test]
    fn a_wallet_goes_to_the_worker_that_signed_last_while_it_has_a_seat() {
        let mut offers = Offers::new(name("a"));
        offers.hear(&partner(), name("v"), offer(1, 8), NOW);
        offers.hear(&partner(), name("w"), offer(1, 1), NOW);
        let take = |offers: &mut Offers| offers.take(&partner(), WALLET, false, NOW).unwrap().unwrap();
        assert_eq!(take(&mut offers), name("v"));
        offers.note_signed(&partner(), WALLET, name("w"));
        assert_eq!(take(&mut offers), name("w"));
        assert_eq!(take(&mut offers), name("v"));
        for wallet in 0..=u32::try_from(MAX_WALLETS).unwrap() {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&wallet.to_be_bytes());
            offers.note_signed(&partner(), WalletId(id), name("v"));
        }
        assert_eq!((offers.signed.len(), offers.order.len()), (MAX_WALLETS, MAX_WALLETS));
        assert!(!offers.signed.contains_key(&(partner(), WALLET)));
    }

    #[test]
    fn a_party_that_offers_no_more_is_away_until_it_is_asked() {
        let mut offers = Offers::new(name("a"));
        offers.hear(&partner(), name("w"), offer(1, 1), NOW);
        offers.hear_at_work(name("b"), NOW);
        assert_eq!(offers.next_due(), Some(NOW + LASTS));
        assert_eq!(offers.lapse(NOW + LASTS / 2), []);
        assert_eq!(offers.lapse(NOW + LASTS), [partner()]);
        assert_eq!(offers.lapse(NOW + LASTS), [], "it is asked once");
        assert_eq!((offers.next_due(), offers.at_work.len()), (None, 0));
        let take = |offers: &mut Offers| offers.take(&partner(), WALLET, false, NOW);
        assert_eq!(take(&mut offers), Err(Lack::Away(partner())));
        offers.answered(&partner());
        assert_eq!(take(&mut offers), Ok(None), "its workers may be of the version before");
        offers.hear(&partner(), name("w"), offer(1, 1), NOW);
        assert_eq!(take(&mut offers), Ok(Some(name("w"))));
        // A worker that stops says so.
        offers.hear(&partner(), name("w"), Offered { number: 2, seats: 0, free: 0 }, NOW);
        assert_eq!(take(&mut offers), Err(Lack::Away(partner())));
        assert_eq!(offers.lapse(NOW), [], "it may still answer, and then be gone");
        assert_eq!(offers.lapse(offers.next_due().unwrap()), [partner()]);
        assert_eq!(take(&mut offers), Err(Lack::Away(partner())));
    }
}
