//! Decides what to do next with a job that runs in no session: which pair to try, when, or why to
//! give up. A pure function of the request's pairs, the parties' last answers, and the past
//! attempts.

use core::time::Duration;

use duet_protocol::ids::ShareIndex;
use duet_wire::{
    error::{Class, Code, Refusal},
    request::Pair,
};

use crate::settings::QueueSettings;

/// One attempt that ended without a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PastAttempt {
    /// The pair that was asked.
    pub(crate) pair: Pair,
    /// Why it ended.
    pub(crate) code: Code,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Start a session of this pair now.
    Try(Pair),
    /// Wait for the owner's device, the initiator of this pair, to come and approve.
    AwaitOwner(Pair),
    /// Look again later. No pair can sign now, but one may soon, without an operator's help.
    Wait(Refusal),
    /// Give up.
    Fail(Refusal),
}

/// Whether the pair does not sign this job, however often it is asked, until a person repairs
/// something. Another pair still may.
#[must_use]
pub(crate) const fn rules_out_pair(code: Code) -> bool {
    matches!(code.class(), Class::Refused)
}

/// Whether a refusal with this code shows that the directory is out of date, so that the wallet's
/// facts have to be fetched again.
#[must_use]
pub(crate) const fn facts_are_stale(code: Code) -> bool {
    matches!(
        code,
        Code::StaleEpoch
            | Code::StalePaillierKey
            | Code::NotEnrolled
            | Code::UnknownWallet
            | Code::Locked
            | Code::NeedsRotation
            // The initiator has locked its key after a bad answer.
            | Code::PeerMisbehaved
            // The party may have no worker at all, as while its only one restarts. Then the job
            // waits for one.
            | Code::Overloaded
    )
}

/// Decides what to do with a job that allows `pairs`, in order of preference, after the attempts
/// `past`. `usable` tells whether a pair can sign by the parties' last answers, and if not, why.
///
/// A pair gets up to [`QueueSettings::max_attempts_per_pair`] attempts in a row. Then the next pair
/// has its turn, in a circle, until [`QueueSettings::max_attempts`]. A pair that refused for a
/// reason that a repetition does not cure is left out. A pair in which one party accuses the other
/// yields to the next pair at once. Neither case counts towards the job's attempts.
pub(crate) fn decide(
    pairs: &[Pair],
    past: &[PastAttempt],
    usable: impl Fn(Pair) -> Result<(), Refusal>,
    settings: &QueueSettings,
) -> Decision {
    let made = counted(past);
    if let Some(last) = past.last()
        && made >= usize::try_from(settings.max_attempts).unwrap_or(usize::MAX)
    {
        let message = format!("gave up after {made} attempts; the last one ended with {}", last.code);
        return Decision::Fail(Refusal::new(last.code, message));
    }
    let mut reasons = Vec::new();
    let mut candidates = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let usability = match refusal_for_good(past, *pair) {
            Some(p) => Err(Refusal::new(p.code, format!("the pair {pair} refused"))),
            None => usable(*pair),
        };
        match usability {
            Ok(()) => candidates.push(*pair),
            Err(refusal) => reasons.push(refusal),
        }
    }
    match next_pair(pairs, &candidates, past, settings) {
        Some(pair) if pair.initiator() == ShareIndex::Device => Decision::AwaitOwner(pair),
        Some(pair) => Decision::Try(pair),
        None => match reasons.iter().position(|refusal| !rules_out_pair(refusal.code)) {
            Some(passing) => Decision::Wait(reasons.swap_remove(passing)),
            None => Decision::Fail(
                reasons
                    .into_iter()
                    .next()
                    .unwrap_or_else(|| Refusal::new(Code::NoPairAvailable, "the request allows no pair")),
            ),
        },
    }
}

/// The attempts that count towards [`QueueSettings::max_attempts`]. Three kinds do not. A refusal
/// that repetition does not cure, and a pair's first accusation: each pair has one of either at
/// most, and another pair goes on at once. And an attempt that says nothing about the job
/// ([`Class::Wait`]): the job waits until the cause is gone, or until it expires.
fn counted(past: &[PastAttempt]) -> usize {
    let counts = |&(at, attempt): &(usize, &PastAttempt)| {
        attempt.code.class() == Class::Tried
            && !is_first_accusation(past.get(..at).unwrap_or_default(), attempt)
    };
    past.iter().enumerate().filter(counts).count()
}

/// Whether one of the attempt's pair accuses the other, for the first time after `before`.
fn is_first_accusation(before: &[PastAttempt], attempt: &PastAttempt) -> bool {
    is_accusation(attempt) && !before.iter().any(|one| one.pair == attempt.pair && is_accusation(one))
}

/// Whether one party of the pair accused the other, as the initiator does when it locks its key.
fn is_accusation(attempt: &PastAttempt) -> bool {
    attempt.code == Code::PeerMisbehaved
}

/// The attempt at which `pair` refused for a reason that a repetition does not cure, if it did.
fn refusal_for_good(past: &[PastAttempt], pair: Pair) -> Option<&PastAttempt> {
    past.iter().rev().find(|p| p.pair == pair && rules_out_pair(p.code))
}

/// The pairs that the request prefers to its owner's device.
fn preferred_backends(pairs: &[Pair]) -> impl Iterator<Item = Pair> {
    pairs.iter().copied().take_while(|pair| pair.initiator() != ShareIndex::Device)
}

/// Whether a job with these pairs waits for its owner only because no preferred pair can sign. A
/// requester that names a device's pair first wants to wait for the device.
#[must_use]
pub(crate) fn prefers_backends(pairs: &[Pair]) -> bool {
    preferred_backends(pairs).next().is_some()
}

/// The pair that can sign without the owner, for a job that waits for its owner. The last attempt
/// is reserved for the owner, so that a backend that keeps failing cannot use it up.
pub(crate) fn without_owner(
    pairs: &[Pair],
    past: &[PastAttempt],
    usable: impl Fn(Pair) -> Result<(), Refusal>,
    settings: &QueueSettings,
) -> Option<Pair> {
    let max_attempts = usize::try_from(settings.max_attempts).unwrap_or(usize::MAX);
    if counted(past).saturating_add(1) >= max_attempts {
        return None;
    }
    preferred_backends(pairs).find(|pair| refusal_for_good(past, *pair).is_none() && usable(*pair).is_ok())
}

/// The pair among `candidates` that tries next.
fn next_pair(
    pairs: &[Pair],
    candidates: &[Pair],
    past: &[PastAttempt],
    settings: &QueueSettings,
) -> Option<Pair> {
    let Some(newest) = past.last() else { return candidates.first().copied() };
    let last = newest.pair;
    let in_a_row = past.iter().rev().take_while(|p| p.pair == last).count();
    let exhausted = in_a_row >= usize::try_from(settings.max_attempts_per_pair).unwrap_or(usize::MAX);
    if !exhausted && !is_accusation(newest) && candidates.contains(&last) {
        return Some(last);
    }
    // The next pair in the circle after `last`; `last` itself comes at the very end.
    let position = pairs.iter().position(|pair| *pair == last).map_or(0, |at| at + 1);
    pairs.iter().cycle().skip(position).take(pairs.len()).find(|pair| candidates.contains(pair)).copied()
}

/// How long to wait before the next attempt. There is no pause after a pair was ruled out, nor
/// after its first accusation, since the next pair is not to blame. Otherwise the pause doubles
/// from [`QueueSettings::retry_pause`] to [`QueueSettings::max_retry_pause`]. `jitter`, from 0 to
/// 1, takes off up to half.
#[must_use]
pub(crate) fn pause(past: &[PastAttempt], jitter: f64, settings: &QueueSettings) -> Duration {
    let Some((last, before)) = past.split_last() else { return Duration::ZERO };
    if rules_out_pair(last.code) || is_first_accusation(before, last) {
        return Duration::ZERO;
    }
    let tried = past.iter().filter(|p| !rules_out_pair(p.code)).count();
    let doublings = u32::try_from(tried.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    let full = settings.retry_pause.saturating_mul(1 << doublings).min(settings.max_retry_pause);
    full.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Pair; 3] = [Pair::ServicePartner, Pair::DeviceService, Pair::DevicePartner];

    fn past(attempts: &[(Pair, Code)]) -> Vec<PastAttempt> {
        attempts.iter().map(|(pair, code)| PastAttempt { pair: *pair, code: *code }).collect()
    }

    fn decide_with(pairs: &[Pair], attempts: &[(Pair, Code)]) -> Decision {
        decide(pairs, &past(attempts), |_| Ok(()), &QueueSettings::default())
    }

    #[test]
    fn the_preferred_pair_comes_first() {
        assert_eq!(decide_with(&ALL, &[]), Decision::Try(Pair::ServicePartner));
        assert_eq!(decide_with(&[Pair::DevicePartner], &[]), Decision::AwaitOwner(Pair::DevicePartner));
    }

    #[test]
    fn a_locked_pair_gives_way_at_once() {
        let attempts = [(Pair::ServicePartner, Code::Locked)];
        assert_eq!(decide_with(&ALL, &attempts), Decision::AwaitOwner(Pair::DeviceService));
        assert_eq!(pause(&past(&attempts), 0.0, &QueueSettings::default()), Duration::ZERO);
        let Decision::Fail(refusal) = decide_with(&[Pair::ServicePartner], &attempts) else {
            panic!("one locked pair is no pair")
        };
        assert_eq!(refusal.code, Code::Locked);
    }

    #[test]
    fn a_pair_that_a_bad_answer_has_just_locked_gives_way_at_once_and_costs_no_attempt() {
        let locked = (Pair::ServicePartner, Code::PeerMisbehaved);
        let settings = QueueSettings { max_attempts: 1, ..QueueSettings::default() };
        let ways = [Pair::ServicePartner, Pair::DeviceService];
        let decision = decide(&ways, &past(&[locked]), |_| Ok(()), &settings);
        assert_eq!(decision, Decision::AwaitOwner(Pair::DeviceService));
        assert_eq!(pause(&past(&[locked]), 0.0, &settings), Duration::ZERO);
        // A sole pair is asked once more, and then says what the owner or an operator has to do.
        assert_eq!(decide_with(&[Pair::ServicePartner], &[locked]), Decision::Try(Pair::ServicePartner));
        assert!(matches!(
            decide(&ways[..1], &past(&[locked, locked]), |_| Ok(()), &settings),
            Decision::Fail(_)
        ));
        assert!(pause(&past(&[locked, locked]), 0.0, &settings) > Duration::ZERO);
        assert!(facts_are_stale(Code::PeerMisbehaved), "the next job is not given to it either");
    }

    #[test]
    fn one_clock_that_is_wrong_ends_no_job() {
        let attempts = [(Pair::ServicePartner, Code::JobExpired)];
        assert_eq!(decide_with(&[Pair::ServicePartner], &attempts), Decision::Try(Pair::ServicePartner));
        assert!(pause(&past(&attempts), 0.0, &QueueSettings::default()) > Duration::ZERO);
    }

    #[test]
    fn what_says_nothing_about_the_job_uses_up_no_attempt() {
        for code in Code::ALL.iter().copied().filter(|code| code.class() == Class::Wait) {
            let waits = [(Pair::ServicePartner, code); 40];
            assert_eq!(decide_with(&[Pair::ServicePartner], &waits), Decision::Try(Pair::ServicePartner));
            assert!(pause(&past(&waits), 0.0, &QueueSettings::default()) > Duration::ZERO, "{code}");
            // Another pair has its turn meanwhile.
            assert_eq!(decide_with(&ALL, &waits[..2]), Decision::AwaitOwner(Pair::DeviceService));
            let failed = [(Pair::ServicePartner, Code::Deadline); 6];
            let Decision::Fail(_) = decide_with(&[Pair::ServicePartner], &[&waits[..], &failed].concat())
            else {
                panic!("the others count as before")
            };
        }
    }

    #[test]
    fn pairs_take_turns() {
        let once = (Pair::ServicePartner, Code::Deadline);
        assert_eq!(decide_with(&ALL, &[once]), Decision::Try(Pair::ServicePartner));
        assert_eq!(decide_with(&ALL, &[once, once]), Decision::AwaitOwner(Pair::DeviceService));
        let other = (Pair::DeviceService, Code::Deadline);
        let third = (Pair::DevicePartner, Code::Deadline);
        assert_eq!(
            decide_with(&ALL, &[once, other, other, third, third]),
            Decision::Try(Pair::ServicePartner)
        );
        assert_eq!(
            decide_with(&[Pair::ServicePartner], &[once, once, once]),
            Decision::Try(Pair::ServicePartner)
        );
    }

    #[test]
    fn a_preferred_pair_that_is_back_need_not_wait_for_the_owner() {
        let settings = QueueSettings::default();
        let failed = [(Pair::ServicePartner, Code::Overloaded); 2];
        let without = |pairs: &[Pair], attempts: &[(Pair, Code)]| {
            without_owner(pairs, &past(attempts), |_| Ok(()), &settings)
        };
        assert_eq!(decide_with(&ALL, &failed), Decision::AwaitOwner(Pair::DeviceService));
        assert_eq!(without(&ALL, &failed), Some(Pair::ServicePartner));
        let away = |_| Err(Refusal::new(Code::Deadline, "no answer"));
        assert_eq!(without_owner(&ALL, &past(&failed), away, &settings), None);
        // The request names the device first, the pair was refused for good, or one attempt is
        // left.
        assert_eq!(without(&[Pair::DeviceService, Pair::ServicePartner], &failed), None);
        assert_eq!(without(&ALL, &[(Pair::ServicePartner, Code::Locked)]), None);
        assert_eq!(without(&ALL, &[(Pair::ServicePartner, Code::Deadline); 5]), None);
    }

    #[test]
    fn a_pair_the_parties_rule_out_is_not_tried() {
        let refusal = Refusal::new(Code::NeedsRotation, "restored");
        let decision = decide(&ALL[..1], &[], |_| Err(refusal.clone()), &QueueSettings::default());
        assert_eq!(decision, Decision::Fail(refusal));
    }

    #[test]
    fn a_pair_that_is_out_of_reach_is_waited_for() {
        let refusal = Refusal::new(Code::Deadline, "no answer");
        let decision = decide(&ALL[..1], &[], |_| Err(refusal.clone()), &QueueSettings::default());
        assert_eq!(decision, Decision::Wait(refusal));
    }

    fn any_pair() -> impl Strategy<Value = Pair> {
        prop_oneof![Just(ALL[0]), Just(ALL[1]), Just(ALL[2])]
    }

    fn any_code() -> impl Strategy<Value = Code> {
        (0..Code::ALL.len()).prop_map(|at| Code::ALL[at])
    }

    proptest! {
        #[test]
        fn jobs_end(
            pairs in Just(ALL.to_vec()).prop_shuffle(),
            count in 1..=3_usize,
            codes in proptest::collection::vec(any_code(), 64),
        ) {
            let (pairs, settings) = (&pairs[..count], QueueSettings::default());
            let mut history = Vec::new();
            for code in codes {
                match decide(pairs, &history, |_| Ok(()), &settings) {
                    Decision::Try(pair) | Decision::AwaitOwner(pair) => {
                        prop_assert!(pairs.contains(&pair));
                        let out = |p: &PastAttempt| p.pair == pair && rules_out_pair(p.code);
                        prop_assert!(!history.iter().any(out), "asked a pair again that had refused");
                        history.push(PastAttempt { pair, code });
                    }
                    Decision::Wait(_) | Decision::Fail(_) => break,
                }
            }
            // Six attempts that count, and for each pair one refusal and one accusation.
            let said = history.iter().filter(|attempt| attempt.code.class() != Class::Wait).count();
            prop_assert!(said <= 6 + 2 * count);
        }

        #[test]
        fn pauses_stay_within_their_bounds(
            attempts in proptest::collection::vec((any_pair(), any_code()), 1..40),
            jitter in 0.0..=1.0_f64,
        ) {
            let settings = QueueSettings::default();
            let pause = pause(&past(&attempts), jitter, &settings);
            prop_assert!(pause <= settings.max_retry_pause);
            prop_assert!(pause == Duration::ZERO || pause >= settings.retry_pause / 2);
        }
    }
}
