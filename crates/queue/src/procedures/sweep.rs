//! Gives jobs what they need that no process works on. Several processes sweep side by side.
//! Compare-and-swap and message ids ensure that only one of them takes effect.

use std::collections::BTreeSet;

use duet_wire::JobState;

use super::{
    hand::Hand,
    settle::{end_stale, expire, publish_again},
};
use crate::{
    actions::{Note, Outcome, What},
    need::{Backlog, Need, need},
    store::{JobKey, StoreFailure},
    summary::Summary,
    time::whole_millis,
};

/// How many jobs of one kind one sweep handles. The others follow in the next sweep.
const MAX_PER_SWEEP: usize = 256;

/// Gives the jobs `found` what they need.
pub(super) async fn sweep(hand: &Hand, mut found: Vec<Summary>) {
    found.sort_unstable_by_key(|job| job.updated_at_ms);
    let now_ms = hand.now_ms();
    let mut dealt_with = [0; Need::COUNT];
    let mut backlog = None;
    for job in found {
        let Some(due) = need(&hand.queue, &job, now_ms) else { continue };
        if hand.dispute().is_some() && matches!(due, Need::Expire | Need::Remove) {
            continue;
        }
        let Some(count) = dealt_with.get_mut(due as usize) else { continue };
        *count += 1;
        if *count > MAX_PER_SWEEP {
            continue;
        }
        let key = job.key();
        // Whether the store has the job. The process may not have heard of its removal.
        let swept = match due {
            Need::Expire => expire(hand, &key).await,
            Need::EndSession => end_stale(hand, &key).await,
            Need::Publish => publish_again(hand, &key).await,
            Need::Remove => remove(hand, &key).await,
            Need::Announce => {
                let backlog = match backlog {
                    Some(backlog) => backlog,
                    None => *backlog.insert(ask_backlog(hand).await),
                };
                announce_again(hand, &key, backlog).await
            }
        };
        match swept {
            Ok(true) => {}
            Ok(false) => drop(hand.act(What::Forget(Box::new(job))).await),
            Err(error) => hand.note(Note::NotSwept(job.job, error)),
        }
    }
}

/// Announces jobs that wait for their owner although they prefer other pairs. A party that was
/// unreachable may be back.
pub(super) async fn look_past_owners(hand: &Hand, mut waiting: Vec<Summary>) {
    waiting.sort_unstable_by_key(|job| job.updated_at_ms);
    let period = hand.now_ms() / whole_millis(hand.queue.max_retry_pause).max(1);
    // Rotation gives each job its turn, however many wait.
    let turn = usize::try_from(period).unwrap_or_default().wrapping_mul(MAX_PER_SWEEP);
    let Some(first) = turn.checked_rem(waiting.len()) else { return };
    waiting.rotate_left(first);
    waiting.truncate(MAX_PER_SWEEP);
    for wallet in waiting.iter().filter_map(|job| job.waits_for).collect::<BTreeSet<_>>() {
        hand.act(What::ForgetParties { wallet, but_newest: false }).await;
    }
    for job in waiting {
        // Orchestrators that look at the same time use the same turn, so the job is announced once.
        if !hand.announce(&job.key(), format!("look.{period}")).await {
            return;
        }
    }
}

async fn ask_backlog(hand: &Hand) -> Backlog {
    match hand.act(What::AskBacklog).await {
        Outcome::Backlog(backlog) => backlog,
        _ => Backlog::Waiting,
    }
}

/// Announces a job that rests. Returns whether the store has the job.
async fn announce_again(hand: &Hand, job: &JobKey, backlog: Backlog) -> Result<bool, StoreFailure> {
    if backlog == Backlog::Waiting {
        return Ok(true);
    }
    let Some(version) = hand.read(job, false).await? else { return Ok(false) };
    let record = &version.record;
    if !matches!(record.state, JobState::Queued) {
        return Ok(true);
    }
    let wake_up = match backlog {
        // The announcement is lost, even if the stream still remembers its id. Sweepers that find
        // so at the same time compute the same number.
        Backlog::Empty => {
            let period = hand.now_ms() / whole_millis(hand.queue.announce_after).max(1);
            format!("{}.{period}", record.attempts_started)
        }
        Backlog::InWork | Backlog::Waiting => record.attempts_started.to_string(),
    };
    if hand.announce(job, wake_up).await {
        return Ok(true);
    }
    Err(StoreFailure::Unknown("the job was not announced".to_owned()))
}

/// Removes a settled job that was kept long enough, and its sessions. Its idempotency key is free
/// again afterwards. Returns whether the store had the job.
async fn remove(hand: &Hand, job: &JobKey) -> Result<bool, StoreFailure> {
    let Some(version) = hand.read(job, false).await? else { return Ok(false) };
    if !version.record.state.is_final() {
        return Ok(true);
    }
    for attempt in &version.record.attempts {
        removed(hand.act(What::RemoveSession(attempt.session)).await)?;
    }
    let remove = What::Remove { job: job.clone(), revision: version.revision };
    removed(hand.act(remove).await).map(|()| true)
}

fn removed(outcome: Outcome) -> Result<(), StoreFailure> {
    match outcome {
        Outcome::Removed(removed) => removed,
        _ => Err(StoreFailure::unanswered()),
    }
}
