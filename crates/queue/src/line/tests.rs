use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 2;

fn tenant(number: u8) -> TenantId {
    format!("tenant-{number}").parse().unwrap()
}

fn job(number: u8) -> JobId {
    JobId([number; 16])
}

fn ticket(priority: Priority, since_ms: u64) -> Ticket {
    Ticket { priority, since_ms, due_ms: 0, group: None, noted: None }
}

/// Starts the next job, of any tenant. Returns its number.
fn start(queue: &mut FairQueue) -> Option<(TenantId, u8)> {
    match queue.next(0, None) {
        Next::Job(tenant, job) => Some((tenant, job.0[0])),
        Next::Crowded | Next::NoJob => None,
    }
}

#[test]
fn a_flood_does_not_keep_another_tenants_job_waiting() {
    let mut queue = FairQueue::new(100);
    for number in 0..200 {
        queue.put(&tenant(1), job(number), ticket(Priority::High, number.into()));
    }
    assert_eq!(start(&mut queue), Some((tenant(1), 0)));
    queue.put(&tenant(2), job(201), ticket(Priority::Low, 10_000));
    assert_eq!(start(&mut queue), Some((tenant(1), 1)));
    assert_eq!(start(&mut queue), Some((tenant(2), 201)));
    assert_eq!(start(&mut queue), Some((tenant(1), 2)));
}

#[test]
fn priorities_share_by_weight_and_none_starves() {
    let mut queue = FairQueue::new(1000);
    for number in 0..50 {
        queue.put(&tenant(1), job(number), ticket(Priority::Low, 0));
        queue.put(&tenant(1), job(50 + number), ticket(Priority::Normal, 0));
        queue.put(&tenant(1), job(100 + number), ticket(Priority::High, 0));
    }
    let mut counts = [0; 3];
    for _ in 0..42 {
        let (_, number) = start(&mut queue).unwrap();
        counts[usize::from(number / 50)] += 1;
    }
    assert_eq!(counts, [2, 8, 32]);
}

#[test]
fn a_tenant_at_its_limit_keeps_its_turn() {
    let mut queue = FairQueue::new(1);
    queue.put(&tenant(1), job(1), ticket(Priority::Normal, 1));
    queue.put(&tenant(1), job(2), ticket(Priority::Normal, 2));
    queue.put(&tenant(2), job(3), ticket(Priority::Normal, 3));
    assert_eq!(start(&mut queue), Some((tenant(1), 1)));
    assert_eq!(start(&mut queue), Some((tenant(2), 3)));
    assert_eq!(queue.next(0, None), Next::Crowded);
    queue.remove(&tenant(1), job(1));
    queue.let_go(&tenant(1), job(1), 0);
    assert_eq!(start(&mut queue), Some((tenant(1), 2)));
    queue.remove(&tenant(1), job(2));
    queue.remove(&tenant(2), job(3));
    queue.let_go(&tenant(1), job(2), 0);
    queue.let_go(&tenant(2), job(3), 0);
    assert_eq!(queue.next(0, None), Next::NoJob);
    assert!(queue.tenants.is_empty() && queue.ready_tenants.is_empty() && queue.resting.is_empty());
}

#[test]
fn an_announcement_is_used_for_the_job_it_names_where_it_may() {
    let mut queue = FairQueue::new(10);
    for number in 1..=4 {
        let priority = if number == 4 { Priority::High } else { Priority::Normal };
        queue.put(&tenant(1), job(number), ticket(priority, number.into()));
    }
    let owner = tenant(1);
    // A more urgent job comes first all the same.
    assert_eq!(queue.next(0, Some((&owner, job(3)))), Next::Job(tenant(1), job(4)));
    assert_eq!(queue.next(0, Some((&owner, job(3)))), Next::Job(tenant(1), job(3)));
    assert_eq!(queue.next(0, Some((&owner, job(9)))), Next::Job(tenant(1), job(1)));
}

#[test]
fn a_job_rests_until_it_is_due() {
    let mut queue = FairQueue::new(10);
    queue.put(&tenant(1), job(1), Ticket { due_ms: 100, ..ticket(Priority::Normal, 1) });
    assert_eq!(queue.next(99, None), Next::NoJob);
    assert_eq!(queue.due(&tenant(1), job(1)), Some(100));
    assert_eq!(queue.next(100, None), Next::Job(tenant(1), job(1)));
    queue.let_go(&tenant(1), job(1), 200);
    assert_eq!(queue.next(199, None), Next::NoJob);
    assert_eq!(queue.next(200, None), Next::Job(tenant(1), job(1)));
}

#[test]
fn a_job_is_in_one_hand_only() {
    let mut queue = FairQueue::new(10);
    queue.put(&tenant(1), job(1), ticket(Priority::Normal, 1));
    assert!(queue.hold(&tenant(1), job(1)));
    assert!(!queue.hold(&tenant(1), job(1)));
    assert_eq!(queue.next(0, None), Next::NoJob);
    queue.put(&tenant(1), job(1), ticket(Priority::High, 1));
    assert_eq!(queue.next(0, None), Next::NoJob);
    queue.let_go(&tenant(1), job(1), 0);
    assert_eq!(queue.next(0, None), Next::Job(tenant(1), job(1)));
}

/// An event in the life of a queue.
#[derive(Debug, Clone)]
enum Step {
    Put { tenant: u8, job: u8, priority: Priority, due_in_ms: u64 },
    Remove { tenant: u8, job: u8 },
    Next { named: Option<(u8, u8)> },
    Hold { tenant: u8, job: u8 },
    LetGo { tenant: u8, job: u8, rest_ms: u64 },
    Pass { ms: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (tenants, jobs) = (0..4_u8, 0..12_u8);
    let name = (tenants, jobs);
    let priority = prop::sample::select(Priority::ALL.to_vec());
    let step = prop_oneof![
        4 => (name.clone(), priority, prop_oneof![3 => Just(0), 1 => 0..50_u64])
            .prop_map(|((tenant, job), priority, due_in_ms)| Step::Put { tenant, job, priority, due_in_ms }),
        1 => name.clone().prop_map(|(tenant, job)| Step::Remove { tenant, job }),
        6 => prop::option::of(name.clone()).prop_map(|named| Step::Next { named }),
        1 => name.clone().prop_map(|(tenant, job)| Step::Hold { tenant, job }),
        3 => (name, 0..30_u64).prop_map(|((tenant, job), rest_ms)| Step::LetGo { tenant, job, rest_ms }),
        1 => (0..40_u64).prop_map(|ms| Step::Pass { ms }),
    ];
    prop::collection::vec(step, 0..400)
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    ticket: Option<Ticket>,
    in_hand: bool,
}

/// The stated rules, without the structures that make them fast.
#[derive(Debug, Default)]
struct Model {
    jobs: BTreeMap<(u8, u8), Known>,
    /// The tenants that started a job since each tenant became able to start one.
    passed_over: BTreeMap<u8, Vec<u8>>,
    /// How many starts in a row a tenant's priority was passed over although it had a job.
    starved: BTreeMap<(u8, Priority), u32>,
}

impl Model {
    fn in_hand(&self, tenant: u8) -> usize {
        self.jobs.iter().filter(|((owner, _), known)| *owner == tenant && known.in_hand).count()
    }

    /// The jobs of `tenant` that may be started at `now`.
    fn startable(&self, tenant: u8, now: u64) -> Vec<(Ticket, u8)> {
        self.jobs
            .iter()
            .filter(|((owner, _), known)| *owner == tenant && !known.in_hand)
            .filter_map(|((_, job), known)| Some((known.ticket.filter(|t| t.due_ms <= now)?, *job)))
            .collect()
    }

    fn able(&self, now: u64) -> Vec<u8> {
        (0..4).filter(|t| !self.startable(*t, now).is_empty() && self.in_hand(*t) < LIMIT).collect()
    }

    /// Checks the line's answer and applies it to the model.
    fn check_next(&mut self, said: &Next, named: Option<(u8, u8)>, now: u64) -> Result<(), TestCaseError> {
        let able = self.able(now);
        self.passed_over.retain(|tenant, _| able.contains(tenant));
        let someone_waits = (0..4).any(|tenant| !self.startable(tenant, now).is_empty());
        let Next::Job(owner, id) = said else {
            prop_assert!(able.is_empty(), "{able:?} could start");
            prop_assert_eq!(*said == Next::Crowded, someone_waits);
            return Ok(());
        };
        let owner = (0..4).find(|number| tenant(*number) == *owner).unwrap();
        prop_assert!(able.contains(&owner), "a tenant started that could not");
        let startable = self.startable(owner, now);
        let (chosen, number) = *startable.iter().find(|(_, number)| *number == id.0[0]).unwrap();

        // Tenants: none starts twice while another able one waits.
        for waiting in &able {
            let starts = self.passed_over.entry(*waiting).or_default();
            if *waiting == owner {
                starts.clear();
            } else {
                prop_assert!(!starts.contains(&owner), "{owner} started twice before {waiting}");
                starts.push(owner);
            }
        }
        // Priorities: each within 21 starts.
        for priority in Priority::ALL {
            let has_one = startable.iter().any(|(ticket, _)| ticket.priority == priority);
            let starved = self.starved.entry((owner, priority)).or_default();
            *starved = if has_one && priority != chosen.priority { *starved + 1 } else { 0 };
            prop_assert!(*starved < 21, "{priority} starves");
        }
        // Jobs of one priority: the oldest, or the one named.
        if named != Some((owner, number)) {
            let oldest = startable
                .iter()
                .filter(|(ticket, _)| ticket.priority == chosen.priority)
                .map(|(ticket, number)| (ticket.since_ms, *number))
                .min();
            prop_assert_eq!(oldest, Some((chosen.since_ms, number)));
        }
        self.jobs.get_mut(&(owner, number)).unwrap().in_hand = true;
        Ok(())
    }

    /// A job leaves its place. A tenant that loses its last one loses its turn.
    fn unfiled(&mut self, tenant: u8) {
        self.passed_over.remove(&tenant);
    }

    fn forget_gone(&mut self) {
        self.jobs.retain(|_, known| known.in_hand || known.ticket.is_some());
        let jobs = &self.jobs;
        self.starved.retain(|(tenant, _), _| jobs.keys().any(|(owner, _)| owner == tenant));
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_rules_hold(steps in steps()) {
        let (mut queue, mut model, mut now) = (FairQueue::new(LIMIT), Model::default(), 1_000);
        for (number, step) in (0_u64..).zip(steps) {
            match step {
                Step::Put { tenant: owner, job: id, priority, due_in_ms } => {
                    let ticket = Ticket { due_ms: now + due_in_ms, ..ticket(priority, number) };
                    queue.put(&tenant(owner), job(id), ticket);
                    model.unfiled(owner);
                    model.jobs.entry((owner, id)).or_default().ticket = Some(ticket);
                }
                Step::Remove { tenant: owner, job: id } => {
                    queue.remove(&tenant(owner), job(id));
                    model.unfiled(owner);
                    if let Some(known) = model.jobs.get_mut(&(owner, id)) {
                        known.ticket = None;
                    }
                }
                Step::Next { named } => {
                    let name = named.map(|(owner, id)| (tenant(owner), job(id)));
                    let said = queue.next(now, name.as_ref().map(|(owner, id)| (owner, *id)));
                    model.check_next(&said, named, now)?;
                }
                Step::Hold { tenant: owner, job: id } => {
                    model.unfiled(owner);
                    let known = model.jobs.entry((owner, id)).or_default();
                    prop_assert_eq!(queue.hold(&tenant(owner), job(id)), !known.in_hand);
                    known.in_hand = true;
                }
                Step::LetGo { tenant: owner, job: id, rest_ms } => {
                    queue.let_go(&tenant(owner), job(id), now + rest_ms);
                    if let Some(known) = model.jobs.get_mut(&(owner, id)).filter(|known| known.in_hand) {
                        known.in_hand = false;
                        if let Some(ticket) = &mut known.ticket {
                            ticket.due_ms = ticket.due_ms.max(now + rest_ms);
                        }
                    }
                }
                Step::Pass { ms } => now += ms,
            }
            model.forget_gone();
            // Nothing is kept of finished jobs.
            let kept: usize = queue.tenants.values().map(|tenant| tenant.jobs.len()).sum();
            prop_assert_eq!(kept, model.jobs.len());
        }
    }
}

#[test]
fn parked_jobs_are_released_in_fair_order_as_many_as_there_are_seats() {
    let (partner, other): (PartyId, PartyId) = ("partner".parse().unwrap(), "other".parse().unwrap());
    let mut queue = FairQueue::new(10);
    for number in 0..4 {
        queue.put(&tenant(1), job(number), ticket(Priority::Normal, number.into()));
    }
    queue.put(&tenant(2), job(9), ticket(Priority::Low, 100));
    while let Some((tenant, number)) = start(&mut queue) {
        queue.park(&tenant, job(number), &partner);
        queue.let_go(&tenant, job(number), 0);
    }
    assert_eq!(queue.next(0, None), Next::Crowded, "they wait for seats");
    assert_eq!(queue.parked().collect::<Vec<_>>(), [(&partner, 5)]);
    assert_eq!(queue.unpark(&other, 9), 0);
    assert_eq!(start(&mut queue), None);
    assert_eq!(queue.unpark(&partner, 2), 3);
    assert_eq!([start(&mut queue), start(&mut queue)], [Some((tenant(1), 0)), Some((tenant(2), 9))]);
    assert_eq!(start(&mut queue), None);
    // A parked job that ends needs no seat.
    queue.remove(&tenant(1), job(1));
    assert_eq!(queue.unpark(&partner, 9), 0);
    assert_eq!([start(&mut queue), start(&mut queue)], [Some((tenant(1), 2)), Some((tenant(1), 3))]);
    for (tenant, number) in [(tenant(1), 0), (tenant(2), 9), (tenant(1), 2), (tenant(1), 3)] {
        queue.remove(&tenant, job(number));
        queue.let_go(&tenant, job(number), 0);
    }
    assert!(queue.tenants.is_empty() && queue.parked.is_empty() && queue.resting.is_empty());
}

#[test]
fn a_job_released_while_it_is_still_in_hand_is_not_lost() {
    let partner: PartyId = "partner".parse().unwrap();
    let mut queue = FairQueue::new(10);
    queue.put(&tenant(1), job(1), ticket(Priority::Normal, 1));
    assert_eq!(start(&mut queue), Some((tenant(1), 1)));
    queue.park(&tenant(1), job(1), &partner);
    assert_eq!(queue.unpark(&partner, 1), 0);
    assert_eq!(start(&mut queue), None, "it is in hand");
    queue.let_go(&tenant(1), job(1), 0);
    assert_eq!(start(&mut queue), Some((tenant(1), 1)));
}

/// A job's id, of which there are more than of [`job`].
fn one_of_many(number: u64) -> JobId {
    JobId(u128::from(number).to_be_bytes())
}

fn group(wallet: u8) -> Option<Group> {
    Some(Group { wallet: WalletId([wallet; 32]), pairs: [Some(Pair::ServicePartner), None, None] })
}

/// Looks at jobs until there is none, and parks those whose number is below `full`. Returns the
/// numbers of those that were looked at.
fn look_at_all(queue: &mut FairQueue, full: u64, party: &PartyId) -> Vec<u64> {
    let mut looks = Vec::new();
    while let Next::Job(tenant, job) = queue.next(0, None) {
        let number = u64::try_from(u128::from_be_bytes(job.0)).unwrap();
        looks.push(number);
        if number < full {
            queue.park(&tenant, job, party);
        } else {
            queue.remove(&tenant, job);
        }
        queue.let_go(&tenant, job, 0);
    }
    looks
}

#[test]
fn jobs_of_a_full_party_hold_up_no_job_of_another_party() {
    let partner: PartyId = "partner".parse().unwrap();
    let jobs = 500;
    // Each of another wallet, then all of one.
    for (is_one_wallet, looks) in [(false, jobs + 1), (true, 2)] {
        let mut queue = FairQueue::new(10);
        for number in 0..jobs {
            let group = group(1).filter(|_| is_one_wallet);
            let ticket = Ticket { group, ..ticket(Priority::Normal, number) };
            queue.put(&tenant(1), one_of_many(number), ticket);
        }
        let other = Ticket { group: group(2), ..ticket(Priority::Normal, jobs) };
        queue.put(&tenant(1), one_of_many(jobs), other);
        let looked = look_at_all(&mut queue, jobs, &partner);
        assert_eq!((looked.last(), looked.len()), (Some(&jobs), usize::try_from(looks).unwrap()));
        assert_eq!(queue.parked().collect::<Vec<_>>(), [(&partner, usize::try_from(jobs).unwrap())]);
        // So is a job that comes later, and the parked ones are released in their order.
        let new = Ticket { group: group(1), ..ticket(Priority::Normal, jobs) };
        queue.put(&tenant(1), one_of_many(jobs + 1), new);
        queue.unpark(&partner, 2);
        assert_eq!([start(&mut queue), start(&mut queue)].map(|started| started.is_some()), [true; 2]);
        assert_eq!(start(&mut queue).is_some(), !is_one_wallet, "it is looked at only for a new wallet");
        assert_eq!(queue.lacks_seat_of(&tenant(1), one_of_many(jobs + 1)).is_some(), is_one_wallet);
    }
}

#[test]
fn one_call_passes_only_so_many_jobs_of_a_full_party() {
    let partner: PartyId = "partner".parse().unwrap();
    let mut queue = FairQueue::new(10);
    let jobs = 2 * u64::try_from(MAX_SKIPPED).unwrap();
    for number in 0..jobs {
        queue.put(
            &tenant(1),
            one_of_many(number),
            Ticket { group: group(1), ..ticket(Priority::Normal, number) },
        );
    }
    let looked = look_at_all(&mut queue, jobs, &partner);
    assert_eq!(looked, [0, 1 + u64::try_from(MAX_SKIPPED).unwrap()]);
}

#[test]
fn a_parked_job_waits_for_a_seat_whatever_its_record_says() {
    let partner: PartyId = "partner".parse().unwrap();
    let mut queue = FairQueue::new(10);
    let mut noted = Reasons::default();
    for (number, code) in [(0, Some(Code::PartyAway)), (1, None), (2, Some(Code::Locked))] {
        queue.put(
            &tenant(1),
            one_of_many(number),
            Ticket { noted: code, ..ticket(Priority::Normal, number) },
        );
        noted.add(code);
    }
    let count = |queue: &FairQueue| {
        let reasons = queue.reasons(noted.clone()).by_code();
        [Code::NoSeat, Code::PartyAway, Code::Locked]
            .map(|code| reasons.iter().find(|(known, _)| *known == code).unwrap().1)
    };
    assert_eq!(count(&queue), [0, 1, 1]);
    for _ in 0..2 {
        let Next::Job(tenant, job) = queue.next(0, None) else { panic!("there is a job") };
        queue.park(&tenant, job, &partner);
        queue.let_go(&tenant, job, 0);
    }
    assert_eq!(count(&queue), [2, 0, 1]);
    queue.remove(&tenant(1), one_of_many(1));
    assert_eq!(count(&queue), [1, 0, 1]);
    queue.unpark(&partner, 9);
    assert_eq!(count(&queue), [0, 1, 1]);
}
