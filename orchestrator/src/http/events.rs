//! A job's event stream: server-sent events until the job is settled.
//!
//! | event | data |
//! |---|---|
//! | `state` | the job ([`crate::api::JobView`]); at once, and after each change; the last one is the settled job |
//! | `progress` | what a party says about the session under way ([`ProgressEvent`]); none with `?progress=false` |
//!
//! The id of a `state` event is the record's revision. A client may send `Last-Event-ID`, but it
//! changes nothing: a stream always begins with the job's current state. Progress is not repeated.

use std::sync::Arc;

use axum::{
    extract::{Path, Query, State, rejection::QueryRejection},
    response::{Response, sse::Event},
};
use duet_bus::{
    Address, Filter, Incoming, Subscription,
    kv::{Entry, Key},
};
use duet_protocol::ids::SessionId;
use duet_wire::{JobRecord, JobState, progress};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    ApiError, Caller, bad_query,
    jobs::{self, job_id},
    stream,
};
use crate::{api::ProgressEvent, board::Observer, orchestrator::Orchestrator, tenants::StreamPermit};

/// The query of an event stream.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamQuery {
    /// Whether the stream also reports progress, which costs a subscription at the broker and some
    /// ten messages a session.
    #[serde(default = "told")]
    progress: bool,
}

const fn told() -> bool {
    true
}

/// `GET /v1/jobs/{id}/events`
pub(super) async fn follow(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
    query: Result<Query<StreamQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(StreamQuery { progress: tells_progress }) = query.map_err(|_| bad_query("progress"))?;
    let permit = stream::permit(&orchestrator, &tenant)?;
    let key = Key::from((&tenant, job_id(&id)?));
    // Observes before the first read, so that no change is missed.
    let observer = orchestrator.board.observe(&key);
    let entry = orchestrator.jobs.recent(&key).await?;
    let entry = entry.ok_or_else(|| ApiError::not_found("job"))?;
    let (events, receiver) = mpsc::channel(stream::BUFFER);
    let answer = stream::answer(&orchestrator, receiver);
    let teller = Teller {
        orchestrator,
        key,
        observer,
        events,
        told: None,
        tells_progress,
        progress: None,
        _permit: permit,
    };
    tokio::spawn(teller.run(entry));
    Ok(answer)
}

/// Reports one job to one reader. It ends with the job, the reader, or the process.
struct Teller {
    orchestrator: Arc<Orchestrator>,
    key: Key,
    observer: Observer,
    events: stream::Sender,
    told: Option<u64>,
    tells_progress: bool,
    progress: Option<(SessionId, Subscription)>,
    _permit: StreamPermit,
}

/// The reader has gone, or there is nothing more to report.
struct End;

impl Teller {
    async fn run(mut self, first: Entry<JobRecord>) {
        let shutdown = self.orchestrator.shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = self.tell_all(first) => {}
        }
    }

    async fn tell_all(&mut self, first: Entry<JobRecord>) -> Result<(), End> {
        self.tell_state(&first).await?;
        // The observer may miss changes while the watch is being renewed.
        let mut look_again = interval(self.orchestrator.http_settings().keep_alive);
        look_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look_again.tick().await;
        loop {
            tokio::select! {
                () = self.events.closed() => return Err(End),
                snapshot = self.observer.changed() => {
                    self.tell_state(&*snapshot.ok_or(End)?).await?;
                }
                message = next_progress(&mut self.progress) => match message {
                    Some((session, message)) => self.tell_progress(session, &message).await?,
                    None => self.progress = None,
                },
                _ = look_again.tick() => {
                    match self.orchestrator.jobs.get(&self.key).await {
                        Ok(Some(entry)) => self.tell_state(&entry).await?,
                        // The broker has lost the job. A client that asks again learns that.
                        Ok(None) => return Err(End),
                        Err(_) => {}
                    }
                }
            }
        }
    }

    /// Sends the job's state unless it was already sent, and follows its session's progress.
    async fn tell_state(&mut self, entry: &Entry<JobRecord>) -> Result<(), End> {
        let revision = u64::from(entry.revision);
        if self.told.is_some_and(|told| told >= revision) {
            return Ok(());
        }
        self.told = Some(revision);
        let record = &entry.value;
        match &record.state {
            JobState::Running { session, .. } if self.tells_progress => {
                if self.progress.as_ref().is_none_or(|(current, _)| current != session) {
                    let filter = Filter::events_of(*session);
                    let subscription = self.orchestrator.bus.subscribe(&filter).await.map_err(|_| End)?;
                    self.progress = Some((*session, subscription));
                }
            }
            _ => self.progress = None,
        }
        let view = jobs::shown(&self.orchestrator.board, record).map_err(|error| {
            tracing::error!(%error, "a job cannot be shown");
            End
        })?;
        let event = Event::default().event("state").id(revision.to_string()).retry(stream::RECONNECT_AFTER);
        self.send(event.json_data(&view)).await?;
        if record.state.is_final() { Err(End) } else { Ok(()) }
    }

    async fn tell_progress(&mut self, session: SessionId, message: &Incoming) -> Result<(), End> {
        let Address::Event { from, .. } = &message.address else { return Ok(()) };
        if message.payload.len() > progress::MAX_PROGRESS_SIZE_BYTES {
            return Ok(());
        }
        let Ok(said) = serde_json::from_slice::<Box<RawValue>>(&message.payload) else { return Ok(()) };
        let progress = ProgressEvent { session, from: from.to_string(), event: said };
        self.send(Event::default().event("progress").json_data(&progress)).await
    }

    async fn send(&self, event: Result<Event, axum::Error>) -> Result<(), End> {
        let event = event.map_err(|error| {
            tracing::error!(%error, "an event does not serialise");
            End
        })?;
        self.events.send(Ok(event)).await.map_err(|_| End)
    }
}

/// The next progress message of the running session. Never resolves while there is no session.
async fn next_progress(progress: &mut Option<(SessionId, Subscription)>) -> Option<(SessionId, Incoming)> {
    match progress {
        Some((session, subscription)) => {
            let message = subscription.next().await?;
            Some((*session, message))
        }
        None => core::future::pending().await,
    }
}
