//! What the core hears and what it wants done.
//!
//! Each [`Action`] has a number. The driver performs it as one call and answers it by exactly one
//! [`Event::Answered`]. An action without an answer in time has [`Outcome::Unknown`].

use core::time::Duration;
use std::sync::Arc;

use duet_protocol::ids::{PartyId, SessionId, ShareIndex, WalletId};
use duet_wire::{
    InstanceId, JobEnded, JobId, JobRecord, Pair, Refusal, Seat, SignedResult, SignedRevocation,
    SigningRequest, TenantId,
    progress::Step,
    session_state::{SessionEvent, SessionRecord},
};

use crate::{
    failure::Failure,
    intake::{Denied, DigestKey, Holder, Holders, Rejected, Standing, Submission, Submitted, Told},
    need::Backlog,
    offers::Offered,
    room::Fill,
    store::{JobKey, StoreFailure, Version, Written},
    summary::Summary,
    terms::PairTerms,
    verified::{SealedResult, VerifiedRequest, VerifiedRevocation},
};

/// The time of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The broker's time, in milliseconds since 1970. Records and manifests have its times.
    pub wall_ms: u64,
    /// How long the process has run, by a clock that is never set. Deadlines go by it.
    pub steady: Duration,
}

/// Who made a [`Request`]: a number that the driver uses once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller(pub u64);

/// The number of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionId(pub u64);

/// What the core hears.
#[derive(Debug, Clone)]
pub enum Event {
    /// A part of the process asks for something.
    Asked(Caller, Request),
    /// An action has its outcome.
    Answered(ActionId, Outcome),
    /// The job that this caller has in hand changed.
    Changed(Caller, Version),
    /// The connection to the broker was lost, or is back.
    Connected(bool),
    /// The broker was put back to an earlier copy of its store, or lost it. From now on a revision
    /// may be another version's than the one that it was. All that is under way ends with
    /// [`Reply::WentBack`].
    WentBack,
    /// The clocks of the broker's nodes differ, as this says, so nothing expires. Or they agree
    /// again.
    Disputed(Option<Refusal>),
    /// A worker offers seats.
    Offered {
        /// The worker's party.
        party: PartyId,
        /// The worker.
        instance: InstanceId,
        /// What it offers.
        offered: Offered,
    },
    /// An orchestrator has jobs to start.
    AtWork(InstanceId),
    /// Time has passed. The core asks for this by [`crate::Core::next_due`].
    Passed,
}

/// What a part of the process asks for. Each is replied to once.
#[derive(Debug, Clone)]
pub enum Request {
    /// Take a job as far as it goes now. Replied to with [`Reply::Looked`].
    Work {
        /// The job.
        job: JobKey,
        /// How often its announcement was delivered; 1 if the job was taken from the fair queue.
        deliveries: i64,
    },
    /// Accept a request as a job, and announce it. Replied to with [`Reply::Submitted`].
    Submit(Submission),
    /// Accept the request of a wallet's owner as a job, and begin the session in which the owner's
    /// device signs it. Replied to with [`Reply::Begun`].
    SubmitForOwner(Submission),
    /// Begin the session in which the owner's device signs a job of the wallet that waits. Replied
    /// to with [`Reply::Begun`].
    Approve {
        /// The job.
        job: JobKey,
        /// The wallet.
        wallet: WalletId,
    },
    /// End a job of the wallet that waits for its owner. Replied to with [`Reply::Changed`].
    Reject {
        /// The job.
        job: JobKey,
        /// The wallet.
        wallet: WalletId,
    },
    /// Cancel a job, unless it runs or has ended. Replied to with [`Reply::Changed`].
    Cancel(JobKey),
    /// Note that a job's request is revoked, cancel the job unless it runs or has ended, and tell
    /// the parties. `version` is the job as it was when the revocation was verified. Replied to
    /// with [`Reply::Changed`].
    Revoke {
        /// The job.
        version: Version,
        /// The revocation.
        revocation: VerifiedRevocation,
    },
    /// Tell the parties that have not acknowledged a job's revocation. Replied to with
    /// [`Reply::Done`].
    TellParties(JobKey),
    /// Put a dead letter back into the queue. Replied to with [`Reply::Changed`].
    PutBack(JobKey),
    /// End a session without a signature. Nothing happens if the job is not in it. Replied to with
    /// [`Reply::Done`].
    EndAttempt {
        /// The job.
        job: JobKey,
        /// Its session.
        session: SessionId,
        /// Why the session ended.
        failure: Failure,
    },
    /// Store a job's result. Replied to with [`Reply::Signed`] once it is stored.
    Sign(Version, SealedResult),
    /// Give jobs what they need that no process works on. Replied to with [`Reply::Done`].
    Sweep(Vec<Summary>),
    /// Announce jobs that wait for their owner although they prefer other pairs: a party that was
    /// unreachable may be back. Replied to with [`Reply::Done`].
    LookPastOwners(Vec<Summary>),
}

impl Request {
    /// Whether it says what it wants of certain versions of jobs, so that it means nothing once the
    /// broker has gone back.
    #[must_use]
    pub const fn goes_by_a_version(&self) -> bool {
        match self {
            Self::Revoke { .. } | Self::Sign(..) | Self::Sweep(_) | Self::LookPastOwners(_) => true,
            Self::Work { .. }
            | Self::Submit(_)
            | Self::SubmitForOwner(_)
            | Self::Approve { .. }
            | Self::Reject { .. }
            | Self::Cancel(_)
            | Self::TellParties(_)
            | Self::PutBack(_)
            | Self::EndAttempt { .. } => false,
        }
    }
}

/// The reply to a [`Request`].
#[derive(Debug, Clone)]
pub enum Reply {
    /// How far a job was taken.
    Looked(Looked),
    /// The job that a request has, or why it has none.
    Submitted(Result<Submitted, Rejected>),
    /// The session for the owner's device, or why there is none.
    Begun(Result<Begun, NotBegun>),
    /// The job as it is after the change, or why it is not changed.
    Changed(Result<Arc<JobRecord>, Denied>),
    /// The job as stored with its result, or why it is not.
    Signed(Result<Version, NotSigned>),
    /// Whether the store has the job.
    Done(Result<bool, StoreFailure>),
    /// The core failed at it.
    Broke,
    /// The broker went back while it was under way. Whether something was stored is not known.
    WentBack,
}

/// How far a job was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// The job needs no announcement any more: it is settled, or waits for its owner.
    Worked,
    /// The job has to be looked at again after this pause.
    Later(Duration),
    /// A party has no seat for the job, which is parked. The announcement may serve another job.
    Parked,
    /// There was nothing to do for the job here. The announcement may serve another job.
    Nothing,
    /// This version cannot read the job's entry, for this reason. Nothing was done.
    Unreadable(String),
}

/// What the owner's device gets.
#[derive(Debug, Clone)]
pub enum Begun {
    /// The manifest of its session.
    Session(Vec<u8>),
    /// The job that it submitted before, which does not wait for it.
    Known(Arc<JobRecord>),
}

/// Why the owner's device gets no session.
#[derive(Debug, Clone)]
pub enum NotBegun {
    /// For this reason.
    Refused(Refusal),
    /// Its request is not accepted as a job.
    Rejected(Rejected),
    /// Another process has changed the job meanwhile.
    Moved,
    /// The orchestrator failed, for this reason.
    Internal(String),
    /// The store failed.
    Store(StoreFailure),
}

/// Why a result is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotSigned {
    /// The job is no longer in that session.
    Over,
    /// The store failed.
    Store(StoreFailure),
}

/// Something that the driver does.
#[derive(Debug, Clone)]
pub struct Action {
    /// Its number.
    pub id: ActionId,
    /// The caller for which it is done.
    pub caller: Caller,
    /// What to do.
    pub what: What,
}

impl What {
    /// Whether it stores something at the broker. The driver performs such an action only on the
    /// broker as it was when the core asked for it: not after the broker went back, and over a new
    /// connection not before it is known whether it did.
    #[must_use]
    pub const fn is_stored(&self) -> bool {
        match self {
            Self::Create(_)
            | Self::Write { .. }
            | Self::Remove { .. }
            | Self::CreateSession(_)
            | Self::EndSession(..)
            | Self::RemoveSession(_)
            | Self::WriteClaim { .. }
            | Self::Publish { .. }
            | Self::Announce { .. } => true,
            Self::Read { .. }
            | Self::Forget(_)
            | Self::Learn(_)
            | Self::FindSession { .. }
            | Self::AskBroker
            | Self::AskRoom(_)
            | Self::AskBacklog
            | Self::AskStanding { .. }
            | Self::AskHolders { .. }
            | Self::Tell(..)
            | Self::ReadClaim(_)
            | Self::AskParties { .. }
            | Self::DoubtParty { .. }
            | Self::AskParty(_)
            | Self::Park { .. }
            | Self::Unpark { .. }
            | Self::WakeWaiting
            | Self::ForgetParties { .. }
            | Self::Enter { .. }
            | Self::Invite { .. }
            | Self::Release(..)
            | Self::Show(..)
            | Self::FindEnd(_)
            | Self::Note(_)
            | Self::Reply(_)
            | Self::End => false,
        }
    }
}

/// What to do, and in which variant of [`Outcome`] its outcome comes.
#[derive(Debug, Clone)]
pub enum What {
    /// Read a job's entry: [`Outcome::Read`].
    Read {
        /// The job.
        job: JobKey,
        /// Whether what the process knows of the job will do, which may be behind.
        may_be_behind: bool,
    },
    /// Store a new job, unless there is one under its key: [`Outcome::Written`].
    Create(Arc<JobRecord>),
    /// Write a job's entry if it still is at a revision: [`Outcome::Written`].
    Write {
        /// The job.
        job: JobKey,
        /// The revision.
        revision: u64,
        /// The new record.
        record: Arc<JobRecord>,
    },
    /// Remove a job for good if its entry still is at a revision: [`Outcome::Removed`].
    Remove {
        /// The job.
        job: JobKey,
        /// The revision.
        revision: u64,
    },
    /// Forget a job unless the store still has it: [`Outcome::Done`].
    Forget(Box<Summary>),
    /// Remember that the job's entry is as given: [`Outcome::Done`].
    Learn(Version),
    /// Store a new session: [`Outcome::Written`].
    CreateSession(Box<SessionRecord>),
    /// Read who initiates a session of a job: [`Outcome::Session`].
    FindSession {
        /// The job.
        job: JobKey,
        /// The session.
        session: SessionId,
    },
    /// Note how a session ended: [`Outcome::Done`].
    EndSession(SessionId, SessionEvent),
    /// Remove a session that its job does not list: [`Outcome::Removed`].
    RemoveSession(SessionId),
    /// Find out whether the broker is safe to begin a session on: [`Outcome::Broker`].
    AskBroker,
    /// Find out how full the queue is for a tenant: [`Outcome::Room`].
    AskRoom(TenantId),
    /// Find out whether announcements wait that no process has: [`Outcome::Backlog`].
    AskBacklog,
    /// Find out what a wallet's parties say of a request: [`Outcome::Standing`].
    AskStanding {
        /// The request.
        request: Arc<VerifiedRequest>,
        /// Whether only answers of this moment count. Otherwise last ones serve.
        anew: bool,
    },
    /// Find out who may revoke a wallet's requests, and who has to hear of it:
    /// [`Outcome::Holders`].
    AskHolders {
        /// The wallet.
        wallet: WalletId,
        /// The tenant that owns it.
        tenant: TenantId,
    },
    /// Tell a party of a revocation: [`Outcome::Told`].
    Tell(PartyId, Arc<SignedRevocation>),
    /// Read which job has a digest: [`Outcome::Holder`].
    ReadClaim(DigestKey),
    /// Note which job has a digest: [`Outcome::Written`].
    WriteClaim {
        /// The digest.
        digest: DigestKey,
        /// The job.
        holder: Holder,
        /// The revision of the entry that this one follows; `None` if there must be none.
        follows: Option<u64>,
    },
    /// Find out which pairs of a wallet's parties can sign: [`Outcome::Terms`].
    AskParties {
        /// The wallet.
        wallet: WalletId,
        /// Which of their answers count.
        answers: Answers,
    },
    /// Note that an invitation to a session of a wallet found no worker of a party:
    /// [`Outcome::Done`].
    DoubtParty {
        /// The party.
        party: PartyId,
        /// The wallet.
        wallet: WalletId,
    },
    /// Ask a party whether it still answers, since its workers offer no seats any more. From its
    /// outcome on, the answers of [`What::AskParties`] say whether it does: [`Outcome::Done`].
    AskParty(PartyId),
    /// Park a job in hand under the party that has no seat for it: [`Outcome::Done`]. It is
    /// performed before any action that follows.
    Park {
        /// The job.
        job: JobKey,
        /// The party.
        party: PartyId,
    },
    /// Release jobs that are parked under a party, in fair order: [`Outcome::Unparked`]. It is
    /// performed before any action that follows.
    Unpark {
        /// The party.
        party: PartyId,
        /// How many at most.
        most: u64,
    },
    /// Have the jobs looked at that wait for parties which were silent, since a party offers seats
    /// again: [`Outcome::Done`].
    WakeWaiting,
    /// Ask a wallet's parties when they are needed next: [`Outcome::Done`].
    ForgetParties {
        /// The wallet.
        wallet: WalletId,
        /// Whether an answer of this moment is kept.
        but_newest: bool,
    },
    /// What follows for this caller belongs to a session: [`Outcome::Done`].
    Enter {
        /// The session.
        session: SessionId,
        /// The job's trace, as a `traceparent`.
        trace: Option<String>,
    },
    /// Invite a party to a session: [`Outcome::Invited`]. The driver waits for the answer as long
    /// as the session may last, since a worker that accepts late has to be released.
    Invite {
        /// The seat.
        seat: Seat,
        /// The worker. `None`: any that is free.
        instance: Option<InstanceId>,
        /// The session.
        session: SessionId,
        /// Its manifest.
        manifest: Vec<u8>,
        /// How long the session may still last.
        lasts: Duration,
    },
    /// Take a seat back from the worker that accepted: [`Outcome::Done`].
    Release(SessionId, Seated),
    /// Show how far a session has come: [`Outcome::Done`].
    Show(SessionId, Step),
    /// Store a document about a job's end: [`Outcome::Published`].
    Publish {
        /// The document.
        document: Document,
        /// The message's id. The broker drops a repetition within some time.
        message_id: String,
    },
    /// Search for a job's end among those published: [`Outcome::Found`].
    FindEnd(Arc<JobRecord>),
    /// Announce a job to the queue: [`Outcome::Published`].
    Announce {
        /// The job.
        job: JobKey,
        /// Distinguishes this announcement from earlier ones.
        wake_up: String,
    },
    /// Record and count an event: [`Outcome::Done`].
    Note(Note),
    /// Give the caller its reply: [`Outcome::Done`].
    Reply(Reply),
    /// Nothing more follows for this caller: [`Outcome::Done`].
    End,
}

/// Which of the parties' answers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// Their last ones. The invitation tells whether a party is there.
    Last,
    /// Their last ones, without those of a party that is silent now.
    OfPresent,
    /// Those of this moment.
    New,
}

/// A document about a job's end.
#[derive(Debug, Clone)]
pub enum Document {
    /// A job that failed, with its history.
    DeadLetter(Arc<JobRecord>),
    /// The result of a signed job.
    Result(Arc<JobRecord>, SignedResult),
    /// The end of a job without a signature.
    Ended(Arc<JobRecord>, JobEnded),
}

/// A worker that accepted its invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seated {
    /// The party.
    pub party: PartyId,
    /// The worker.
    pub instance: InstanceId,
}

/// An event to record and to count.
#[derive(Debug, Clone)]
pub enum Note {
    /// A job was accepted.
    Accepted(Arc<JobRecord>, Arc<VerifiedRequest>),
    /// A dead letter was put back.
    PutBack(Arc<JobRecord>),
    /// The clock of a requester is ahead by this many milliseconds.
    RequesterAhead(u64),
    /// An attempt began.
    Started {
        /// The job.
        record: Arc<JobRecord>,
        /// Its request.
        request: Arc<SigningRequest>,
        /// The attempt's session.
        session: SessionId,
        /// The attempt's pair.
        pair: Pair,
    },
    /// An attempt ended without a signature.
    Failed {
        /// The job.
        record: Arc<JobRecord>,
        /// Its request.
        request: Arc<SigningRequest>,
        /// The attempt's session.
        session: SessionId,
        /// Why.
        failure: Failure,
    },
    /// A verified signature was stored.
    Signed {
        /// The job.
        record: Arc<JobRecord>,
        /// Its request.
        request: Arc<SigningRequest>,
        /// The session that made it.
        session: SessionId,
        /// The digest.
        digest: [u8; 32],
    },
    /// A job ended without a signature.
    Ended(Arc<JobRecord>),
    /// A job waits for another reason than before.
    Waits(Refusal),
    /// A job did not get what it needs, for this reason. The next sweep tries again.
    NotSwept(JobId, StoreFailure),
    /// A job's end was published, or was not.
    EndPublished(bool),
    /// A party's clock is ahead by this many milliseconds.
    ClockSkew(ShareIndex, i64),
    /// Something went wrong that only a person needs to know.
    Trouble(String),
}

/// The outcome of an action.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Nothing follows from how it went.
    Done,
    /// The entry; `None` if there is none.
    Read(Result<Option<Version>, StoreFailure>),
    /// See [`Written`].
    Written(Written),
    /// Whether it is removed.
    Removed(Result<(), StoreFailure>),
    /// The job that has the digest, and the revision of the entry; `None` if none has it.
    Holder(Result<Option<(Holder, u64)>, StoreFailure>),
    /// The session; `None` if there is none.
    Session(Result<Option<FoundSession>, StoreFailure>),
    /// Whether sessions may begin.
    Broker(Result<(), Refusal>),
    /// How full the queue is.
    Room(Fill),
    /// Whether announcements wait.
    Backlog(Backlog),
    /// Which pairs can sign.
    Terms(PairTerms),
    /// What the parties say of the request.
    Standing(Standing),
    /// Who may revoke, and who has to hear of it.
    Holders(Holders),
    /// The party's answer.
    Told(Told),
    /// A party's answer to its invitation.
    Invited(Invited),
    /// Whether the broker has stored it.
    Published(bool),
    /// How many jobs are still parked under the party.
    Unparked(usize),
    /// Whether it was found; `None` if that is not known.
    Found(Option<bool>),
    /// It is not known whether the action happened.
    Unknown,
}

/// A session that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSession {
    /// Who initiates.
    pub initiator: PartyId,
    /// When this process first saw the job as it is, by its wall clock.
    pub seen_at_ms: Option<u64>,
}

/// A party's answer to its invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invited {
    /// A worker accepted, under this name.
    Accepted(String),
    /// A worker refused.
    Refused {
        /// Why.
        refusal: Refusal,
        /// For a refusal because of a time: the party's time and, of the same moment, this
        /// process's, in milliseconds since 1970.
        times: Option<(u64, u64)>,
    },
    /// The broker knows of no worker that is free.
    NoWorker,
    /// No worker answered.
    Silence,
    /// A worker's answer does not parse.
    Malformed {
        /// The SHA-256 of the answer.
        sha256: [u8; 32],
        /// What is wrong.
        reason: String,
    },
    /// The invitation was not sent.
    NotSent(Refusal),
}
