//! Decides what to do next with a job that runs in no session: which pair to try, when, or why to
//! give up. A pure function of the request's pairs, the parties' last answers, and the past
//! attempts.
//!
//! Each attempt has a class ([`Class`]), and so has each answer of a party:
//!
//! - *wait* says nothing about the job. The next pair has its turn at once. The pair itself is
//!   tried again after a pause that grows up to [`QueueSettings::max_retry_pause`], for as long as
//!   the job is valid.
//! - *tried* counts. The same pair or the next tries after a pause. The job is given up once
//!   [`QueueSettings::max_attempts`] attempts were counted **and** the last of them ended
//!   [`QueueSettings::give_up_after`] after the first one began.
//! - *no* rules the pair out for this job.

use core::time::Duration;

use duet_protocol::ids::ShareIndex;
use duet_wire::{
    error::{Class, Code, Refusal},
    job::{Attempt, AttemptOutcome},
    request::Pair,
};

use crate::settings::QueueSettings;

/// One attempt that ended without a signature, or several that ended alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastAttempt {
    /// The pair that was asked.
    pub pair: Pair,
    /// Why it ended.
    pub code: Code,
    /// The explanation that goes with the code.
    pub message: String,
    /// What that means for the job.
    pub class: Class,
    /// How many attempts ended so.
    pub times: u32,
    /// When the first of them began, in milliseconds since 1970.
    pub began_at_ms: u64,
    /// When the last of them ended, in milliseconds since 1970.
    pub ended_at_ms: u64,
}

impl PastAttempt {
    /// A past attempt, unless it still runs, was signed, or ended because the job expired.
    pub fn of(attempt: &Attempt) -> Option<Self> {
        let outcome = attempt.outcome.as_ref()?;
        let AttemptOutcome::Failed { code, message, .. } = outcome else { return None };
        Some(Self {
            pair: attempt.pair,
            code: *code,
            message: message.clone(),
            class: outcome.class()?,
            times: attempt.times(),
            began_at_ms: attempt.first_started_at_ms(),
            ended_at_ms: attempt.ended_at_ms.unwrap_or(attempt.started_at_ms),
        })
    }

    /// Whether it counts towards the job's attempts, unless it is a pair's first accusation.
    fn is_tried(&self) -> bool {
        match self.class {
            Class::Tried | Class::NeverFromASession => true,
            Class::Wait | Class::No => false,
        }
    }

    /// Whether one party of the pair accused the other, as the initiator does when it locks its
    /// key.
    fn is_accusation(&self) -> bool {
        self.code == Code::PeerMisbehaved
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Start a session of this pair, after this pause.
    Try(Pair, Duration),
    /// Wait for the owner's device, the initiator of this pair, to come and approve.
    AwaitOwner(Pair),
    /// Look again later. No pair can sign now.
    Wait(Refusal),
    /// Give up.
    Fail(Refusal),
}

/// The moment of a decision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// In milliseconds since 1970.
    pub now_ms: u64,
    /// From 0 to 1: takes off up to half of a pause. 1 takes off the most. With it a job is never
    /// found to be too early that was put off with another.
    pub jitter: f64,
}

/// Whether the pair does not sign this job, however often it is asked. Another pair still may.
#[must_use]
pub const fn rules_out_pair(code: Code) -> bool {
    matches!(code.class(), Class::No)
}

/// Whether a refusal with this code shows that the directory is out of date, so that the wallet's
/// facts have to be fetched again.
#[must_use]
pub const fn facts_are_stale(code: Code) -> bool {
    matches!(
        code,
        Code::StaleEpoch
            | Code::StalePaillierKey
            | Code::NotEnrolled
            | Code::UnknownWallet
            | Code::CardMismatch
            | Code::Locked
            | Code::NeedsRotation
            // The initiator has locked its key after a bad answer.
            | Code::PeerMisbehaved
    )
}

/// Decides what to do with a job that allows `pairs`, in order of preference, after the attempts
/// `past`. `usable` tells whether a pair can sign by the parties' last answers, and if not, why.
///
/// A pair gets up to [`QueueSettings::max_attempts_per_pair`] counted attempts in a row. Then the
/// next pair has its turn, in a circle. It has its turn at once after an attempt that says nothing
/// about the job, and after one in which one party accuses the other for the first time.
pub fn decide(
    pairs: &[Pair],
    past: &[PastAttempt],
    usable: impl Fn(Pair) -> Result<(), Refusal>,
    settings: &QueueSettings,
    moment: Moment,
) -> Decision {
    if let Some(refusal) = given_up(past, settings) {
        return Decision::Fail(refusal);
    }
    let mut refusals = Vec::new();
    let mut candidates = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let usability = match refusal_for_good(past, *pair) {
            Some(p) => Err(Refusal::new(p.code, p.message.clone())),
            None => usable(*pair),
        };
        match usability {
            Ok(()) => candidates.push(*pair),
            Err(refusal) => refusals.push(refusal),
        }
    }
    let turns = in_turn(pairs, past, settings).into_iter().filter(|pair| candidates.contains(pair));
    let turns = turns.map(|pair| (pair, rest(past, pair, settings, moment)));
    // The first in turn that need not rest, or else the one whose rest ends first.
    match turns.min_by_key(|(_, rest)| *rest) {
        Some((pair, _)) if pair.initiator() == ShareIndex::Device => Decision::AwaitOwner(pair),
        Some((pair, rest)) => Decision::Try(pair, rest),
        None => match refusals.iter().position(|refusal| !rules_out_pair(refusal.code)) {
            Some(passing) => Decision::Wait(refusals.swap_remove(passing)),
            None => Decision::Fail(
                refusals
                    .into_iter()
                    .next()
                    .unwrap_or_else(|| Refusal::new(Code::NoPairAvailable, "the request allows no pair")),
            ),
        },
    }
}

/// How many attempts count. Of a pair's accusations the first does not: the accused pair is asked
/// no more until its key is rotated, and another pair goes on at once.
fn counted(past: &[PastAttempt]) -> u32 {
    let tried = past.iter().filter(|p| p.is_tried()).fold(0_u32, |sum, p| sum.saturating_add(p.times));
    let accused = Pair::ALL.iter().filter(|pair| past.iter().any(|p| p.pair == **pair && p.is_accusation()));
    tried.saturating_sub(u32::try_from(accused.count()).unwrap_or(u32::MAX))
}

/// Whether all attempts are used up.
fn is_used_up(past: &[PastAttempt], settings: &QueueSettings) -> bool {
    counted(past) >= settings.max_attempts
}

/// How long after the first counted attempt began the last one ended.
fn tried_for(past: &[PastAttempt]) -> Duration {
    let mut tried = past.iter().filter(|p| p.is_tried());
    let began_at_ms = tried.clone().map(|p| p.began_at_ms).min().unwrap_or(0);
    Duration::from_millis(tried.next_back().map_or(0, |last| last.ended_at_ms).saturating_sub(began_at_ms))
}

/// The last cause, once both bounds are reached. Only the end of a counted attempt reaches them: a
/// job that waits for its owner is not given up because time has passed.
fn given_up(past: &[PastAttempt], settings: &QueueSettings) -> Option<Refusal> {
    let last = past.iter().rev().find(|p| p.is_tried())?;
    let is_over = is_used_up(past, settings) && tried_for(past) >= settings.give_up_after;
    is_over.then(|| {
        let message = format!("gave up after {} attempts: {}", counted(past), last.message);
        Refusal::new(last.code, message)
    })
}

/// The attempt at which `pair` refused the job, if it did.
fn refusal_for_good(past: &[PastAttempt], pair: Pair) -> Option<&PastAttempt> {
    past.iter().rev().find(|p| p.pair == pair && matches!(p.class, Class::No))
}

/// The pairs in the order of their turns.
fn in_turn(pairs: &[Pair], past: &[PastAttempt], settings: &QueueSettings) -> Vec<Pair> {
    let Some(newest) = past.last() else { return pairs.to_vec() };
    let last = newest.pair;
    let in_a_row = past.iter().rev().take_while(|p| p.pair == last && p.is_tried());
    let in_a_row = in_a_row.fold(0_u32, |sum, p| sum.saturating_add(p.times));
    let stays = newest.is_tried() && !newest.is_accusation() && in_a_row < settings.max_attempts_per_pair;
    let at = pairs.iter().position(|pair| *pair == last).map_or(0, |at| if stays { at } else { at + 1 });
    pairs.iter().cycle().skip(at).take(pairs.len()).copied().collect()
}

/// How long `pair` still has to rest. After a counted attempt all pairs rest. After a wait only the
/// pair itself does, unless it is the owner's device, which comes when it comes.
fn rest(past: &[PastAttempt], pair: Pair, settings: &QueueSettings, moment: Moment) -> Duration {
    let Some((newest, before)) = past.split_last() else { return Duration::ZERO };
    let (since_ms, full) = if newest.is_tried() && !is_first_accusation(before, newest) {
        (newest.ended_at_ms, pause_after_tried(past, settings))
    } else if pair.initiator() == ShareIndex::Device {
        return Duration::ZERO;
    } else {
        let own = || past.iter().rev().filter(|p| p.pair == pair);
        let waits = own().take_while(|p| matches!(p.class, Class::Wait));
        let waited = waits.fold(0_u32, |sum, p| sum.saturating_add(p.times));
        let Some(last) = own().next().filter(|_| waited > 0) else { return Duration::ZERO };
        (last.ended_at_ms, doubled(waited, settings).min(settings.max_retry_pause))
    };
    let pause = full.mul_f64(1.0 - moment.jitter.clamp(0.0, 1.0) / 2.0);
    // A clock that was ahead noted an end that is yet to come. It holds no pair back.
    match moment.now_ms.checked_sub(since_ms) {
        Some(rested_ms) => pause.saturating_sub(Duration::from_millis(rested_ms)),
        None => Duration::ZERO,
    }
}

/// Whether one of the attempt's pair accuses the other, for the first time after `before`.
fn is_first_accusation(before: &[PastAttempt], attempt: &PastAttempt) -> bool {
    attempt.is_accusation()
        && attempt.times == 1
        && !before.iter().any(|one| one.pair == attempt.pair && one.is_accusation())
}

/// [`QueueSettings::retry_pause`], doubled for each of `times` after the first.
fn doubled(times: u32, settings: &QueueSettings) -> Duration {
    settings.retry_pause.saturating_mul(1 << times.saturating_sub(1).min(16))
}

/// The pause after a counted attempt. It doubles up to [`QueueSettings::max_retry_pause`] while the
/// job has attempts left, and after that until the time to give up. The last attempt comes then.
fn pause_after_tried(past: &[PastAttempt], settings: &QueueSettings) -> Duration {
    let pause = doubled(counted(past), settings);
    if !is_used_up(past, settings) {
        return pause.min(settings.max_retry_pause);
    }
    let left = settings.give_up_after.saturating_sub(tried_for(past));
    // Twice, because up to half of it is taken off.
    pause.min(2 * left).clamp(settings.retry_pause, settings.longest_pause())
}

/// The pairs that the request prefers to its owner's device.
fn preferred_backends(pairs: &[Pair]) -> impl Iterator<Item = Pair> {
    pairs.iter().copied().take_while(|pair| pair.initiator() != ShareIndex::Device)
}

/// Whether a job with these pairs waits for its owner only because no preferred pair can sign. A
/// requester that names a device's pair first wants to wait for the device.
#[must_use]
pub fn prefers_backends(pairs: &[Pair]) -> bool {
    preferred_backends(pairs).next().is_some()
}

/// The pair that can sign without the owner, for a job that waits for its owner. The last attempt
/// is reserved for the owner, so that a backend that keeps failing cannot use it up.
pub fn without_owner(
    pairs: &[Pair],
    past: &[PastAttempt],
    usable: impl Fn(Pair) -> Result<(), Refusal>,
    settings: &QueueSettings,
) -> Option<Pair> {
    if counted(past).saturating_add(1) >= settings.max_attempts {
        return None;
    }
    preferred_backends(pairs).find(|pair| refusal_for_good(past, *pair).is_none() && usable(*pair).is_ok())
}

#[cfg(test)]
mod tests {
    use duet_protocol::ids::SessionId;
    use duet_wire::job::Evidence;
    use proptest::prelude::*;

    use super::*;

    const ALL: [Pair; 3] = [Pair::ServicePartner, Pair::DeviceService, Pair::DevicePartner];
    const BACKEND: Pair = Pair::ServicePartner;
    const NOW: Moment = Moment { now_ms: 1_000_000_000, jitter: 0.0 };

    /// Attempts that ended one right after the other, the last one just now.
    fn past(attempts: &[(Pair, Code)]) -> Vec<PastAttempt> {
        attempts
            .iter()
            .map(|(pair, code)| PastAttempt {
                pair: *pair,
                code: *code,
                message: format!("it was {code}"),
                class: code.class(),
                times: 1,
                began_at_ms: NOW.now_ms,
                ended_at_ms: NOW.now_ms,
            })
            .collect()
    }

    fn decide_after(pairs: &[Pair], past: &[PastAttempt], settings: &QueueSettings) -> Decision {
        decide(pairs, past, |_| Ok(()), settings, NOW)
    }

    fn decide_with(pairs: &[Pair], attempts: &[(Pair, Code)]) -> Decision {
        decide_after(pairs, &past(attempts), &QueueSettings::default())
    }

    /// The pause before `pair` tries, which must be next.
    fn pause_of(pair: Pair, decision: Decision) -> Duration {
        match decision {
            Decision::Try(next, pause) if next == pair => pause,
            other => panic!("{other:?}"),
        }
    }

    fn codes_of(class: Class) -> impl Iterator<Item = Code> {
        Code::ALL.iter().copied().filter(move |code| code.class() == class)
    }

    #[test]
    fn the_preferred_pair_comes_first() {
        assert_eq!(decide_with(&ALL, &[]), Decision::Try(BACKEND, Duration::ZERO));
        assert_eq!(decide_with(&[Pair::DevicePartner], &[]), Decision::AwaitOwner(Pair::DevicePartner));
    }

    #[test]
    fn a_wait_gives_way_at_once_and_is_tried_again_for_ever() {
        let settings = QueueSettings::default();
        for code in codes_of(Class::Wait) {
            let wait = past(&[(BACKEND, code)]);
            assert_eq!(decide_after(&ALL, &wait, &settings), Decision::AwaitOwner(Pair::DeviceService));
            let mut last = Duration::ZERO;
            for times in [1, 2, 5, 1_000, u32::MAX] {
                let waited = PastAttempt { times, ..wait[0].clone() };
                let pause = pause_of(BACKEND, decide_after(&[BACKEND], &[waited], &settings));
                assert!(pause >= last && pause <= settings.max_retry_pause, "{code}: {pause:?}");
                last = pause;
            }
            assert_eq!(last, settings.max_retry_pause, "{code}");
        }
    }

    #[test]
    fn what_a_pair_waits_for_holds_no_other_pair_back() {
        // Two pairs without the device.
        let pairs = [BACKEND, Pair::DeviceService];
        let mut waited = past(&[(BACKEND, Code::Locked), (Pair::DeviceService, Code::Overloaded)]);
        assert_eq!(decide_after(&pairs, &waited, &QueueSettings::default()), Decision::AwaitOwner(pairs[1]));
        // The first has rested for long enough by now.
        waited[0].ended_at_ms -= 60_000;
        let decision = decide_after(&pairs, &waited, &QueueSettings::default());
        assert_eq!(decision, Decision::Try(BACKEND, Duration::ZERO));
    }

    #[test]
    fn an_end_that_a_clock_ahead_noted_holds_no_pair_back() {
        let mut waited = past(&[(BACKEND, Code::Overloaded)]);
        waited[0].ended_at_ms += 300_000;
        let decision = decide_after(&[BACKEND], &waited, &QueueSettings::default());
        assert_eq!(decision, Decision::Try(BACKEND, Duration::ZERO));
    }

    #[test]
    fn a_job_that_was_put_off_is_not_found_to_be_early() {
        let settings = QueueSettings::default();
        for code in [Code::Overloaded, Code::Deadline] {
            let ended = past(&[(BACKEND, code)]);
            for jitter in [0.0, 0.3, 1.0] {
                let put_off = decide(&[BACKEND], &ended, |_| Ok(()), &settings, Moment { jitter, ..NOW });
                let pause = pause_of(BACKEND, put_off);
                let now_ms = NOW.now_ms + u64::try_from(pause.as_millis()).unwrap();
                let due = decide(&[BACKEND], &ended, |_| Ok(()), &settings, Moment { now_ms, jitter: 1.0 });
                assert_eq!(due, Decision::Try(BACKEND, Duration::ZERO));
            }
        }
    }

    #[test]
    fn a_refusal_rules_its_pair_out_and_ends_a_job_without_another() {
        for code in codes_of(Class::No) {
            let refused = past(&[(BACKEND, code)]);
            let settings = QueueSettings::default();
            assert_eq!(decide_after(&ALL, &refused, &settings), Decision::AwaitOwner(Pair::DeviceService));
            let failed = Refusal::new(code, format!("it was {code}"));
            assert_eq!(decide_after(&[BACKEND], &refused, &settings), Decision::Fail(failed));
        }
    }

    /// Attempts of the sole pair, `each` long and one after the other.
    fn tried(codes: &[Code], each: Duration) -> Vec<PastAttempt> {
        let each_ms = u64::try_from(each.as_millis()).unwrap();
        let mut attempts = past(&codes.iter().map(|code| (BACKEND, *code)).collect::<Vec<_>>());
        for (attempt, left) in attempts.iter_mut().zip((0..u64::try_from(codes.len()).unwrap()).rev()) {
            attempt.ended_at_ms -= left * each_ms;
            attempt.began_at_ms = attempt.ended_at_ms - each_ms;
        }
        attempts
    }

    #[test]
    fn a_dead_letter_needs_both_bounds_and_has_the_last_cause() {
        let settings = QueueSettings::default();
        let quick = tried(&[Code::Deadline; 12], Duration::from_secs(1));
        assert!(matches!(decide_after(&[BACKEND], &quick, &settings), Decision::Try(BACKEND, _)));
        let few = tried(&[Code::Deadline; 5], Duration::from_secs(600));
        assert!(matches!(decide_after(&[BACKEND], &few, &settings), Decision::Try(BACKEND, _)));
        let mut codes = [Code::Deadline; 6];
        codes[5] = Code::Internal;
        let both = tried(&codes, Duration::from_secs(100));
        let Decision::Fail(refusal) = decide_after(&[BACKEND], &both, &settings) else { panic!() };
        assert_eq!(refusal.code, Code::Internal);
        assert!(refusal.message.ends_with("it was internal"), "{refusal}");
        // Time that passes after the last attempt gives up no job: it may wait for its owner.
        let late = Moment { now_ms: NOW.now_ms + 86_400_000, ..NOW };
        let decision = decide(&[BACKEND], &quick, |_| Ok(()), &settings, late);
        assert_eq!(decision, Decision::Try(BACKEND, Duration::ZERO));
    }

    #[test]
    fn waits_and_ends_before_acceptance_use_up_no_attempt() {
        let settings = QueueSettings { give_up_after: Duration::ZERO, ..QueueSettings::default() };
        let five = tried(&[Code::Deadline; 5], Duration::from_secs(1));
        for code in codes_of(Class::Wait) {
            let mut waited = PastAttempt { times: 4_000, ..past(&[(BACKEND, code)])[0].clone() };
            waited.began_at_ms = 0;
            let history = [&five[..], &[waited.clone()]].concat();
            assert!(matches!(decide_after(&[BACKEND], &history, &settings), Decision::Try(BACKEND, _)));
            let history = [&[waited][..], &five, &five[..1]].concat();
            assert!(matches!(decide_after(&[BACKEND], &history, &settings), Decision::Fail(_)));
        }
        let ended = |before_acceptance| {
            PastAttempt::of(&Attempt {
                attempt: 1,
                session: SessionId([1; 16]),
                pair: BACKEND,
                started_at_ms: 1,
                ended_at_ms: Some(2),
                outcome: Some(AttemptOutcome::Failed {
                    code: Code::Deadline,
                    culprit: None,
                    evidence: Some(Evidence::Silence { of: "partner".parse().unwrap(), before_acceptance }),
                    message: String::new(),
                }),
                earlier: None,
            })
        };
        assert_eq!(ended(true).unwrap().class, Class::Wait);
        assert_eq!(ended(false).unwrap().class, Class::Tried);
    }

    #[test]
    fn the_pauses_of_a_job_that_keeps_failing_fill_the_time_with_few_attempts() {
        let settings = QueueSettings::default();
        for jitter in [0.0, 0.5, 1.0] {
            let (mut attempts, mut now_ms) = (Vec::<PastAttempt>::new(), 1_000_000);
            let began_at_ms = now_ms;
            while let Decision::Try(pair, pause) =
                decide(&[BACKEND], &attempts, |_| Ok(()), &settings, Moment { now_ms, jitter })
            {
                assert!(pause <= settings.longest_pause());
                now_ms += u64::try_from(pause.as_millis()).unwrap();
                let attempt = past(&[(pair, Code::Deadline)]).remove(0);
                attempts.push(PastAttempt { began_at_ms: now_ms, ended_at_ms: now_ms, ..attempt });
            }
            assert!((6..=15).contains(&attempts.len()), "{} attempts", attempts.len());
            let took = Duration::from_millis(now_ms - began_at_ms);
            assert!((600..1_200).contains(&took.as_secs()), "{took:?}");
        }
    }

    #[test]
    fn a_pair_that_a_bad_answer_has_just_locked_gives_way_at_once_and_costs_no_attempt() {
        let locked = (BACKEND, Code::PeerMisbehaved);
        let settings =
            QueueSettings { max_attempts: 1, give_up_after: Duration::ZERO, ..QueueSettings::default() };
        let ways = [BACKEND, Pair::DeviceService];
        assert_eq!(
            decide_after(&ways, &past(&[locked]), &settings),
            Decision::AwaitOwner(Pair::DeviceService)
        );
        // A sole pair is asked once more, and then waits for the owner or an operator.
        assert_eq!(decide_with(&[BACKEND], &[locked]), Decision::Try(BACKEND, Duration::ZERO));
        assert!(matches!(decide_after(&ways[..1], &past(&[locked, locked]), &settings), Decision::Fail(_)));
        assert!(pause_of(BACKEND, decide_with(&[BACKEND], &[locked, locked])) > Duration::ZERO);
        assert!(facts_are_stale(Code::PeerMisbehaved), "the next job is not given to it either");
    }

    #[test]
    fn pairs_take_turns() {
        let once = (BACKEND, Code::Deadline);
        assert!(matches!(decide_with(&ALL, &[once]), Decision::Try(BACKEND, _)));
        assert_eq!(decide_with(&ALL, &[once, once]), Decision::AwaitOwner(Pair::DeviceService));
        let other = (Pair::DeviceService, Code::Deadline);
        assert_eq!(decide_with(&ALL[1..], &[other]), Decision::AwaitOwner(Pair::DeviceService));
        assert_eq!(decide_with(&ALL[1..], &[other, other]), Decision::AwaitOwner(Pair::DevicePartner));
        assert!(matches!(decide_with(&[BACKEND], &[once, once, once]), Decision::Try(BACKEND, _)));
    }

    #[test]
    fn a_preferred_pair_that_is_back_need_not_wait_for_the_owner() {
        let settings = QueueSettings::default();
        let failed = [(BACKEND, Code::Overloaded); 2];
        let without = |pairs: &[Pair], attempts: &[(Pair, Code)]| {
            without_owner(pairs, &past(attempts), |_| Ok(()), &settings)
        };
        assert_eq!(decide_with(&ALL, &failed), Decision::AwaitOwner(Pair::DeviceService));
        assert_eq!(without(&ALL, &failed), Some(BACKEND));
        assert_eq!(without(&ALL, &[(BACKEND, Code::Locked)]), Some(BACKEND));
        let away = |_| Err(Refusal::new(Code::Deadline, "no answer"));
        assert_eq!(without_owner(&ALL, &past(&failed), away, &settings), None);
        // The request names the device first, the pair refused the job, or one attempt is left.
        assert_eq!(without(&[Pair::DeviceService, BACKEND], &failed), None);
        assert_eq!(without(&ALL, &[(BACKEND, Code::PolicyRefused)]), None);
        assert_eq!(without(&ALL, &[(BACKEND, Code::Deadline); 5]), None);
    }

    #[test]
    fn a_pair_that_cannot_sign_now_is_waited_for() {
        for code in [Code::NeedsRotation, Code::Locked, Code::UnknownWallet, Code::PartyAway, Code::Deadline]
        {
            let refusal = Refusal::new(code, "not now");
            let decision = decide(&ALL[..1], &[], |_| Err(refusal.clone()), &QueueSettings::default(), NOW);
            assert_eq!(decision, Decision::Wait(refusal));
        }
    }

    fn any_code() -> impl Strategy<Value = Code> {
        (0..Code::ALL.len()).prop_map(|at| Code::ALL[at])
    }

    proptest! {
        #[test]
        fn jobs_end_only_by_a_refusal_or_by_both_bounds(
            pairs in Just(ALL.to_vec()).prop_shuffle(),
            count in 1..=3_usize,
            codes in proptest::collection::vec(any_code(), 200),
            jitter in 0.0..=1.0_f64,
        ) {
            let (pairs, settings) = (&pairs[..count], QueueSettings::default());
            let (mut history, mut now_ms) = (Vec::<PastAttempt>::new(), 1_000_000);
            let began_at_ms = now_ms;
            for code in codes {
                let decision = decide(pairs, &history, |_| Ok(()), &settings, Moment { now_ms, jitter });
                let (pair, pause) = match decision {
                    Decision::Try(pair, pause) => (pair, pause),
                    Decision::AwaitOwner(pair) => (pair, Duration::from_secs(1)),
                    Decision::Wait(_) => panic!("every pair is usable"),
                    Decision::Fail(refusal) => {
                        let tried = history.iter().filter(|p| p.is_tried()).count();
                        let used_up = tried >= 6 && now_ms - began_at_ms >= 600_000;
                        prop_assert!(used_up || refusal.code.class() == Class::No);
                        break;
                    }
                };
                prop_assert!(pairs.contains(&pair));
                let out = |p: &PastAttempt| p.pair == pair && p.class == Class::No;
                prop_assert!(!history.iter().any(out), "asked a pair again that had refused");
                prop_assert!(pause <= settings.longest_pause());
                now_ms += u64::try_from(pause.as_millis()).unwrap();
                let attempt = past(&[(pair, code)]).remove(0);
                history.push(PastAttempt { began_at_ms: now_ms, ended_at_ms: now_ms, ..attempt });
            }
        }
    }
}
