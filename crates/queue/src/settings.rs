//! How jobs are accepted, processed and tried again, with defaults that fit one host.

use core::time::Duration;

/// A setting outside the bounds its documentation states.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} must be {bounds}")]
pub struct InvalidSetting {
    /// The setting's name.
    pub setting: &'static str,
    /// What it may be.
    pub bounds: &'static str,
}

/// That a setting is `within` its bounds.
///
/// # Errors
/// When it is not: its name and its bounds.
pub fn check(within: bool, setting: &'static str, bounds: &'static str) -> Result<(), InvalidSetting> {
    if within { Ok(()) } else { Err(InvalidSetting { setting, bounds }) }
}

/// How jobs are accepted, processed and tried again.
#[derive(Debug, Clone)]
pub struct QueueSettings {
    /// How many jobs may be open (not settled) at once, over all tenants; one more is refused with
    /// 429. Default 20 000; 1 to 1 000 000. Each orchestrator counts from its own board, so several
    /// can overshoot by what they accept at the same moment. The bucket's own size is the hard
    /// bound.
    pub max_open_jobs: usize,
    /// How many open jobs one tenant may have. Default 10 000; 1 to 1 000 000. Keep it below
    /// `max_open_jobs`, so that one tenant alone cannot have the others refused.
    pub max_open_jobs_per_tenant: usize,
    /// How many jobs this orchestrator processes at once. Default 32; 1 to 1024. A higher limit
    /// keeps more of the parties' workers busy. Each job holds an announcement that no other
    /// orchestrator can receive.
    pub max_in_flight: usize,
    /// How many jobs of one tenant this orchestrator processes at once. Default three quarters of
    /// `max_in_flight`, rounded up; at least 1. The rest is reserved, so that other tenants' jobs
    /// do not wait for this tenant's hanging sessions. A tenant that is alone cannot use the rest.
    pub max_in_flight_per_tenant: Option<usize>,
    /// How many counted attempts a job gets at least, over all its pairs. Default 6; 1 to 32. Each
    /// costs the responder at most one charge against the wallet's limits.
    pub max_attempts: u32,
    /// How long a job is tried at least, from the beginning of its first counted attempt. Default
    /// 10 min; 0 to 1 day. A job is given up once both this time and `max_attempts` are over. A
    /// longer time survives longer outages in the midst of sessions. With the default pauses a job
    /// has some 13 attempts in 10 min; parties give a request 16 answers.
    pub give_up_after: Duration,
    /// How many attempts in a row one pair gets before the next allowed pair has its turn.
    /// Default 2; 1 to 32.
    pub max_attempts_per_pair: u32,
    /// The pause before the second attempt; it doubles with each further one, and a random part of
    /// up to half is taken off. Default 250 ms; 10 ms to 1 min.
    pub retry_pause: Duration,
    /// The longest pause between attempts, until `max_attempts` are used up. Default 15 s; at least
    /// `retry_pause`, at most 10 min. It bounds how late a job goes on after what it waited for.
    pub max_retry_pause: Duration,
    /// How long a party may take to answer an invitation. Default 5 s; 100 ms to 1 min. A free
    /// worker answers in milliseconds. When none is free, the broker says so at once.
    pub invitation_timeout: Duration,
    /// How long the orchestrator goes on asking for a worker while the broker knows of none.
    /// Default 1 s; 0 to 1 min, and at most `invitation_timeout`. In a cluster a worker's
    /// subscription may still be on its way to the server that was asked. A longer time finds more
    /// seats without a new session, and holds the other party's seat for longer.
    pub worker_search: Duration,
    /// How long a session may last, from the first invitation to the outcome. Default 30 s; 1 s to
    /// 10 min. It is in the manifest, so the parties enforce it as well. A lower limit retries a
    /// crashed worker's jobs earlier; one that is too low fails sessions on a busy host.
    pub session_timeout: Duration,
    /// How long after a session's end the orchestrator waits for its outcome. Default 2 s; 0 to 1
    /// min.
    pub outcome_grace: Duration,
    /// How often the sweeper looks for jobs that no orchestrator processes. Default 1 s; 50 ms to 1
    /// min. It bounds how late a lost announcement, an expiry or an unpublished result is noticed.
    /// It costs no broker traffic while there is nothing to do.
    pub sweep_interval: Duration,
    /// How long a queued job may rest untouched before it is announced again. Default 3 s; 50 ms to
    /// 10 min. Repeated announcements within the broker's duplicate window cost nothing.
    pub announce_after: Duration,
    /// How long facts about a wallet or a party's card are used before they are fetched again.
    /// Default 5 min; 1 s to 1 day. When a party finds them stale, it says so, and they are fetched
    /// at once.
    pub directory_age: Duration,
    /// How long a settled job is kept. Default 30 days; 1 s to 10 years. While it is kept, its
    /// idempotency key returns the same result; afterwards the key is free. The bucket has to hold
    /// all jobs settled in this time, some 4 KiB each.
    pub keep_settled: Duration,
    /// How long the jobs at hand may take to finish when the process stops. Default 10 s; 0 to 10
    /// min. Another orchestrator takes over unfinished jobs, or this one after a restart.
    pub drain: Duration,
}

/// The longest pause between two attempts at a job.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            max_open_jobs: 20_000,
            max_open_jobs_per_tenant: 10_000,
            max_in_flight: 32,
            max_in_flight_per_tenant: None,
            max_attempts: 6,
            give_up_after: LONGEST_PAUSE,
            max_attempts_per_pair: 2,
            retry_pause: Duration::from_millis(250),
            max_retry_pause: Duration::from_secs(15),
            invitation_timeout: Duration::from_secs(5),
            worker_search: Duration::from_secs(1),
            session_timeout: Duration::from_secs(30),
            outcome_grace: Duration::from_secs(2),
            sweep_interval: Duration::from_secs(1),
            announce_after: Duration::from_secs(3),
            directory_age: Duration::from_secs(300),
            keep_settled: Duration::from_secs(30 * 86_400),
            drain: Duration::from_secs(10),
        }
    }
}

impl QueueSettings {
    /// How many jobs of one tenant this orchestrator processes at once.
    #[must_use]
    pub fn in_flight_per_tenant(&self) -> usize {
        self.max_in_flight_per_tenant.unwrap_or_else(|| (3 * self.max_in_flight).div_ceil(4))
    }

    /// The longest pause between two attempts at a job, also once `max_attempts` are used up.
    #[must_use]
    pub fn longest_pause(&self) -> Duration {
        self.max_retry_pause.max(self.give_up_after.min(LONGEST_PAUSE))
    }

    /// # Errors
    /// The first setting outside its bounds.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let minute = Duration::from_secs(60);
        check((1..=1_000_000).contains(&self.max_open_jobs), "max_open_jobs", "1 to 1000000")?;
        check(
            (1..=1_000_000).contains(&self.max_open_jobs_per_tenant),
            "max_open_jobs_per_tenant",
            "1 to 1000000",
        )?;
        check((1..=1024).contains(&self.max_in_flight), "max_in_flight", "1 to 1024")?;
        check(self.max_in_flight_per_tenant != Some(0), "max_in_flight_per_tenant", "at least 1")?;
        check((1..=32).contains(&self.max_attempts), "max_attempts", "1 to 32")?;
        check(self.give_up_after <= Duration::from_secs(86_400), "give_up_after", "0 to 1 day")?;
        check((1..=32).contains(&self.max_attempts_per_pair), "max_attempts_per_pair", "1 to 32")?;
        check(
            (Duration::from_millis(10)..=minute).contains(&self.retry_pause),
            "retry_pause",
            "10 ms to 1 min",
        )?;
        check(
            (self.retry_pause..=LONGEST_PAUSE).contains(&self.max_retry_pause),
            "max_retry_pause",
            "retry_pause to 10 min",
        )?;
        check(
            (Duration::from_millis(100)..=minute).contains(&self.invitation_timeout),
            "invitation_timeout",
            "100 ms to 1 min",
        )?;
        check(self.worker_search <= minute, "worker_search", "0 to 1 min")?;
        check(
            (Duration::from_secs(1)..=Duration::from_secs(600)).contains(&self.session_timeout),
            "session_timeout",
            "1 s to 10 min",
        )?;
        check(self.outcome_grace <= minute, "outcome_grace", "0 to 1 min")?;
        check(
            (Duration::from_millis(50)..=minute).contains(&self.sweep_interval),
            "sweep_interval",
            "50 ms to 1 min",
        )?;
        check(
            (Duration::from_millis(50)..=Duration::from_secs(600)).contains(&self.announce_after),
            "announce_after",
            "50 ms to 10 min",
        )?;
        check(
            (Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&self.directory_age),
            "directory_age",
            "1 s to 1 day",
        )?;
        check(
            (Duration::from_secs(1)..=Duration::from_secs(10 * 366 * 86_400)).contains(&self.keep_settled),
            "keep_settled",
            "1 s to 10 years",
        )?;
        check(self.drain <= Duration::from_secs(600), "drain", "0 to 10 min")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_within_their_bounds() {
        assert_eq!(QueueSettings::default().check(), Ok(()));
    }

    #[test]
    fn a_setting_outside_its_bounds_is_named() {
        let settings = QueueSettings { max_in_flight: 0, ..QueueSettings::default() };
        assert_eq!(settings.check().unwrap_err().setting, "max_in_flight");
    }
}
