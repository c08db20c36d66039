//! A job as the orchestrators store it.

mod attempt;
mod state;

use duet_protocol::ids::PartyId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::{
    JobId, Priority, TenantId,
    error::{Class, Code, Refusal, bounded},
    record::{self, Kept},
    request::{SignedRequest, SigningRequest},
    revocation::RevocationProof,
};

pub use self::{
    attempt::{Attempt, AttemptOutcome, Earlier, Evidence},
    state::{JobEvent, JobState, JobStateName, TransitionError, UnknownJobState, next},
};

/// How many attempts a record keeps. Attempts beyond that are counted and no longer listed.
pub const MAX_REMEMBERED_ATTEMPTS: usize = 32;

/// Why a job waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The code.
    pub code: Code,
    /// An explanation for a person: what has to happen before the job goes on.
    pub message: String,
    /// Since when the job waits, for this or for another reason, in milliseconds since 1970.
    pub since_ms: u64,
}

/// A dead letter's return to the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutBack {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// How many attempts had been started by then. They are kept but no longer count.
    pub attempts: u32,
}

/// A party that refuses to store a revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationRefused {
    /// The party.
    pub party: PartyId,
    /// Why.
    pub refusal: Refusal,
}

/// The revocation of a job's request, and which parties know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRevocation {
    /// The signer, and the signature.
    pub proof: RevocationProof,
    /// When the orchestrator accepted it, in milliseconds since 1970.
    pub at_ms: u64,
    /// The parties that have stored it and no longer sign the request.
    pub kept_by: Vec<PartyId>,
    /// The parties that have not acknowledged it yet. The orchestrator tells them until they do, or
    /// the request has expired.
    pub waits_for: Vec<PartyId>,
    /// The parties that refused it for a reason that a repetition does not cure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused_by: Vec<RevocationRefused>,
}

/// Where the members of a record's state stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StateForm {
    /// Among the record's other members, `state` being its name. Schema 1.
    #[default]
    Flat,
    /// In an object of their own under `state`, its name under `name`. Schema 2. No release writes
    /// it yet.
    Member,
}

/// A job as it is stored: JSON in the key-value bucket, changed by compare-and-swap only.
///
/// Members that this build does not know are kept, see [`crate::record`]. A record is written in
/// the form in which it was read, and a new one in the form of schema 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct JobRecord {
    /// The job.
    pub id: JobId,
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// The request as the requester signed it.
    pub request: SignedRequest,
    /// How urgent it is among its tenant's jobs.
    #[serde(default, skip_serializing_if = "Priority::is_normal")]
    pub priority: Priority,
    /// Its state.
    #[serde(skip)]
    pub state: JobState,
    /// How many attempts were started.
    pub attempts_started: u32,
    /// The latest attempts, oldest first, at most [`MAX_REMEMBERED_ATTEMPTS`]. Attempts that said
    /// nothing about the job are listed once for each pair and code.
    pub attempts: Vec<Attempt>,
    /// The fence token. It grows with each attempt. The orchestrator that runs an attempt holds its
    /// value, and only the current value may end the attempt.
    pub fence: u64,
    /// When the next attempt may begin, in milliseconds since 1970.
    pub next_attempt_at_ms: u64,
    /// Why it waits, or last waited, unless an attempt has since ended otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// When it was accepted, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it last changed, in milliseconds since 1970.
    pub updated_at_ms: u64,
    /// When it expires at the latest, in milliseconds since 1970.
    pub expires_at_ms: u64,
    /// Its last return from the dead letters by an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put_back: Option<PutBack>,
    /// When its end was published in the results' stream, and for a failure among the dead letters.
    /// Any orchestrator that finds a settled job without this publishes it (again).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_published_at_ms: Option<u64>,
    /// The revocation of its request, and which parties know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<JobRevocation>,
    /// The trace in which it was accepted, as a `traceparent` of W3C Trace Context, if traces are
    /// exported. No decision depends on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// Where its state stands.
    #[serde(skip)]
    pub form: StateForm,
    /// What this build does not know of it.
    #[serde(skip)]
    pub kept: Kept,
}

impl<'de> Deserialize<'de> for JobRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let whole = Map::deserialize(deserializer)?;
        record::require_readable(&whole).map_err(D::Error::custom)?;
        let mut record = Self::deserialize(&whole).map_err(D::Error::custom)?;
        let state = match whole.get("state") {
            Some(Value::Object(members)) => {
                record.form = StateForm::Member;
                JobState::read(members, "name")
            }
            _ => JobState::read(&whole, "state"),
        };
        record.state = state.map_err(D::Error::custom)?;
        record.kept = Kept::of(whole, record.known().map_err(D::Error::custom)?);
        Ok(record)
    }
}

impl Serialize for JobRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error as _;
        self.kept.with(self.known().map_err(S::Error::custom)?).serialize(serializer)
    }
}

impl JobRecord {
    /// The members that this build knows.
    fn known(&self) -> Result<Value, serde_json::Error> {
        let mut known = Self::serialize(self, serde_json::value::Serializer)?;
        if let Value::Object(members) = &mut known {
            match self.form {
                StateForm::Flat => members.extend(self.state.write("state")?),
                StateForm::Member => {
                    members.insert("state".to_owned(), Value::Object(self.state.write("name")?));
                }
            }
        }
        Ok(known)
    }

    /// A job that was just accepted. `request` is the content of `signed`; the caller has verified
    /// it.
    #[must_use]
    pub fn new(signed: SignedRequest, request: &SigningRequest, now_ms: u64) -> Self {
        Self {
            id: request.job(),
            tenant: request.tenant.clone(),
            request: signed,
            priority: Priority::default(),
            state: JobState::Queued,
            attempts_started: 0,
            attempts: Vec::new(),
            fence: 0,
            next_attempt_at_ms: now_ms,
            waiting: None,
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
            expires_at_ms: request.expires_at.saturating_mul(1000),
            put_back: None,
            end_published_at_ms: None,
            revocation: None,
            trace: None,
            form: StateForm::default(),
            kept: Kept::default(),
        }
    }

    /// Sets the job's priority.
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// The attempts that count: those since the job was put back, or all.
    pub fn counting_attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| self.counts(attempt))
    }

    /// Whether the attempt was started since the job was put back, or the job never was.
    fn counts(&self, attempt: &Attempt) -> bool {
        attempt.attempt > self.put_back.map_or(0, |put_back| put_back.attempts)
    }

    /// Counts the attempt at `older` in the one at `newer`, and lists it no longer.
    fn fold(&mut self, older: usize, newer: usize) {
        if older >= newer || newer >= self.attempts.len() {
            return;
        }
        let folded = self.attempts.remove(older);
        if let Some(into) = self.attempts.get_mut(newer - 1) {
            let attempts = folded.times().saturating_add(into.times()).saturating_sub(1);
            into.earlier = Some(Earlier { attempts, first_started_at_ms: folded.first_started_at_ms() });
        }
    }

    /// The oldest attempt that ended as a later one did, with the first such later one.
    fn repeated(&self) -> Option<(usize, usize)> {
        let attempts = || self.attempts.iter().enumerate();
        attempts().find_map(|(older, attempt)| {
            let is_repeat = |&(at, later): &(usize, &Attempt)| {
                at > older && attempt.is_like(later) && self.counts(attempt) == self.counts(later)
            };
            attempts().find(is_repeat).map(|(newer, _)| (older, newer))
        })
    }

    /// Makes room for one more attempt. The attempts that count stay counted after a long wait.
    fn make_room(&mut self) {
        if self.attempts.len() < MAX_REMEMBERED_ATTEMPTS {
            return;
        }
        match self.repeated() {
            Some((older, newer)) => self.fold(older, newer),
            None => {
                let at = self.attempts.iter().position(Attempt::says_nothing).unwrap_or(0);
                self.attempts.remove(at);
            }
        }
    }

    /// Lists an attempt that said nothing about the job once, however often it was made.
    fn fold_waits(&mut self) {
        let Some((newer, last)) = self.attempts.iter().enumerate().next_back() else { return };
        if !last.says_nothing() {
            return;
        }
        let is_repeat = |attempt: &Attempt| attempt.is_like(last) && self.counts(attempt);
        if let Some(older) = self.attempts.iter().take(newer).position(is_repeat) {
            self.fold(older, newer);
        }
    }

    /// Notes why the job waits.
    fn wait_for(&mut self, code: Code, message: &str, now_ms: u64) {
        let since_ms = self.waiting.as_ref().map_or(now_ms, |waiting| waiting.since_ms);
        self.waiting = Some(Waiting { code, message: bounded(message.to_owned()), since_ms });
    }

    /// Applies `event` at `now_ms`. `fence` is the token that the caller holds: the record's token
    /// when its attempt began. It matters only for events that end an attempt.
    ///
    /// # Errors
    /// When the state does not allow the event, or a newer attempt has begun. The record is then
    /// unchanged.
    pub fn apply(&mut self, event: &JobEvent, fence: u64, now_ms: u64) -> Result<(), TransitionError> {
        if event.ends_attempt() && fence != self.fence {
            return Err(TransitionError::StaleFence { held: fence, current: self.fence });
        }
        let state = next(&self.state, event, self.attempts_started)?;
        if self.revocation.is_some() && matches!(event, JobEvent::Start { .. } | JobEvent::Requeue) {
            return Err(TransitionError::Revoked);
        }
        let was_running = matches!(self.state, JobState::Running { .. });
        match event {
            JobEvent::Start { session, pair } => {
                self.fence = self.fence.saturating_add(1);
                self.attempts_started = self.attempts_started.saturating_add(1);
                self.make_room();
                self.attempts.push(Attempt {
                    attempt: self.attempts_started,
                    session: *session,
                    pair: *pair,
                    started_at_ms: now_ms,
                    ended_at_ms: None,
                    outcome: None,
                    earlier: None,
                });
            }
            JobEvent::Wait { code, message, next_attempt_at_ms } => {
                self.next_attempt_at_ms = *next_attempt_at_ms;
                self.wait_for(*code, message, now_ms);
            }
            JobEvent::Retry { next_attempt_at_ms, .. } => self.next_attempt_at_ms = *next_attempt_at_ms,
            JobEvent::Requeue => {
                self.next_attempt_at_ms = now_ms;
                self.put_back = Some(PutBack { at_ms: now_ms, attempts: self.attempts_started });
                self.end_published_at_ms = None;
            }
            _ => {}
        }
        if was_running && let Some(attempt) = self.attempts.last_mut() {
            attempt.ended_at_ms = Some(now_ms);
            attempt.outcome = match event {
                JobEvent::Sign { .. } => Some(AttemptOutcome::Signed),
                JobEvent::Retry { code, culprit, evidence, message, .. }
                | JobEvent::ReturnToOwner { code, culprit, evidence, message }
                | JobEvent::CancelRevoked { code, culprit, evidence, message }
                | JobEvent::Fail { code, culprit, evidence, message } => Some(AttemptOutcome::Failed {
                    code: *code,
                    culprit: culprit.clone(),
                    evidence: evidence.clone(),
                    message: bounded(message.clone()),
                }),
                _ => Some(AttemptOutcome::Expired),
            };
            let outcome = attempt.outcome.clone();
            self.fold_waits();
            match outcome {
                Some(AttemptOutcome::Failed { code, ref message, .. })
                    if !state.is_final()
                        && outcome.as_ref().and_then(AttemptOutcome::class) == Some(Class::Wait) =>
                {
                    self.wait_for(code, message, now_ms);
                }
                // An expired job still shows what it waited for.
                Some(AttemptOutcome::Expired) => {}
                _ => self.waiting = None,
            }
        }
        if matches!(event, JobEvent::Requeue) || (state.is_final() && state != JobState::Expired) {
            self.waiting = None;
        }
        self.state = state;
        self.updated_at_ms = now_ms;
        Ok(())
    }
}
