//! Asks one party about wallets, on behalf of every job that waits for the answer.
//!
//! - Callers that ask about the same wallet share one question.
//! - Until the party has answered, one question is under way at a time, and after that a bounded
//!   number.
//! - A party that does not answer is silent. Jobs in the queue read that ([`Prober::silence`]) and
//!   ask nothing. Callers for whom a person waits ask all the same, and share one question.
//! - One task asks a silent party again, with pauses that double, until it answers. It asks at once
//!   when a worker of the party offers seats.
//!
//! So the number of questions to a silent party does not depend on how many jobs wait for it.

use core::time::Duration;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use duet_bus::{Address, Bus, RequestError, Speaker};
use duet_protocol::{
    codec::{self, Message},
    ids::{PartyId, WalletId},
};
use duet_wire::{
    Code, Refusal,
    card_request::{CardReply, CardRequest},
};
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep},
};
use tokio_util::task::AbortOnDropHandle;

/// How long a party may take to answer a question.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);

/// The first and the longest pause before a silent party is asked again; each doubles the last.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// The pause before a silent party that offers seats is asked. It bounds the questions to a party
/// that offers seats and does not answer.
const OFFER_PAUSE: Duration = Duration::from_millis(250);

/// How many questions to one party are under way at once. A worker answers one in milliseconds.
const MAX_UNDER_WAY: usize = 16;

/// How long after an answer a party is not doubted again. So many invitations that find no worker
/// cause few questions.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// A party's answer to a question, or why there is none.
type Asked = Result<CardReply, Refusal>;

/// A question that several callers wait for.
type Question = Shared<BoxFuture<'static, Asked>>;

#[derive(Default)]
struct State {
    /// The questions under way.
    under_way: HashMap<WalletId, Question>,
    /// When the party answered last. `None` before the first answer, and once it is doubted.
    heard_at: Option<Instant>,
    /// The wallet that the last question was about.
    last_asked: Option<WalletId>,
    /// Why the party is taken to be silent, and the task that asks it again.
    silence: Option<(Refusal, AbortOnDropHandle<()>)>,
}

/// Asks one party.
pub(crate) struct Prober {
    bus: Bus,
    party: PartyId,
    state: Mutex<State>,
    /// Bounds the questions under way.
    room: Semaphore,
    /// Changes when the party becomes silent, and when it answers again.
    changed: watch::Sender<()>,
    /// Told when a silent party offers seats.
    offered: Arc<Notify>,
}

impl Prober {
    /// `changed` is told when the party becomes silent, and when it answers again.
    pub(crate) fn new(bus: Bus, party: PartyId, changed: watch::Sender<()>) -> Arc<Self> {
        let room = Semaphore::new(MAX_UNDER_WAY);
        Arc::new(Self { bus, party, state: Mutex::default(), room, changed, offered: Arc::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The party's name.
    pub(crate) const fn party(&self) -> &PartyId {
        &self.party
    }

    /// Why the party is taken to be silent, if it is.
    pub(crate) fn silence(&self) -> Option<Refusal> {
        self.state().silence.as_ref().map(|(refusal, _)| refusal.clone())
    }

    /// Asks about a wallet, or joins a caller that does. A silent party is asked too: it may be
    /// back.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) async fn wallet(self: &Arc<Self>, id: WalletId) -> Asked {
        loop {
            let (question, is_own) = {
                let mut state = self.state();
                let first = if state.heard_at.is_none() { state.under_way.iter().next() } else { None };
                match (state.under_way.get(&id), first) {
                    (Some(question), _) => (question.clone(), true),
                    // Whether it answers is not known yet. The question under way will tell.
                    (None, Some((_, question))) => (question.clone(), false),
                    (None, None) => (self.begin(&mut state, id), true),
                }
            };
            let asked = question.await;
            if is_own || (asked.is_err() && self.silence().is_some()) {
                return asked;
            }
        }
    }

    /// Begins a question about a wallet.
    fn begin(self: &Arc<Self>, state: &mut State, id: WalletId) -> Question {
        let prober = Arc::clone(self);
        let was_silent = state.silence.is_some();
        let asking = async move {
            let asked = prober.ask_in_turn(id, was_silent).await;
            prober.state().under_way.remove(&id);
            asked
        };
        // The question goes on when the caller that began it is gone: others may wait for it.
        let task = AbortOnDropHandle::new(tokio::spawn(asking));
        let question = async move {
            task.await.unwrap_or_else(|error| Err(Refusal::new(Code::Internal, error.to_string())))
        };
        let question = question.boxed().shared();
        state.under_way.insert(id, question.clone());
        state.last_asked = Some(id);
        question
    }

    /// Asks once there is room. `was_silent` is whether the party was silent when the caller asked.
    async fn ask_in_turn(self: &Arc<Self>, id: WalletId, was_silent: bool) -> Asked {
        let Ok(_permit) = self.room.acquire().await else {
            return Err(Refusal::new(Code::Internal, "the prober is closed"));
        };
        // Meanwhile another question may have told.
        if !was_silent && let Some(refusal) = self.silence() {
            return Err(refusal);
        }
        let sent_at = Instant::now();
        let asked = self.ask(&CardRequest::Wallet { id }).await;
        self.note(&asked, sent_at, id);
        asked.map_err(|unanswered| unanswered.refusal)
    }

    /// Asks the party anything. What the answer says of the party is not noted.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) async fn ask(&self, request: &CardRequest) -> Result<CardReply, Unanswered> {
        let reply = self.request(request).await?;
        codec::decode(&reply).map_err(|error| {
            let party = &self.party;
            tracing::warn!(%party, %error, "a party's answer does not parse");
            let message = format!("the answer of {party} does not parse");
            Unanswered::here(Refusal::new(Code::PeerMisbehaved, message))
        })
    }

    /// Sends the party a question. Returns the bytes of its answer.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) async fn request(&self, question: &impl Message) -> Result<Bytes, Unanswered> {
        let internal = |error: &dyn core::fmt::Display| Refusal::new(Code::Internal, error.to_string());
        let payload = codec::encode(question).map_err(|error| Unanswered::here(internal(&error)))?;
        let address = Address::Card { from: Speaker::Orchestrator, to: self.party.clone() };
        let asked = self.bus.request(&address, Bytes::from(payload), ANSWER_DEADLINE).await;
        asked.map_err(|error| Unanswered::by(&error, &self.party))
    }

    /// Notes what the result of a question says of the party.
    fn note(self: &Arc<Self>, asked: &Result<CardReply, Unanswered>, sent_at: Instant, id: WalletId) {
        let mut state = self.state();
        match asked {
            Ok(_) => {
                state.heard_at = Some(Instant::now());
                if state.silence.take().is_some() {
                    drop(state);
                    self.changed.send_replace(());
                }
            }
            // One lost message is no silence: the party has answered another question since.
            Err(unanswered)
                if unanswered.is_silence
                    && state.silence.is_none()
                    && state.heard_at.is_none_or(|heard_at| heard_at < sent_at) =>
            {
                state.heard_at = None;
                let asking = tokio::spawn(ask_again(Arc::downgrade(self), id));
                state.silence = Some((unanswered.refusal.clone(), AbortOnDropHandle::new(asking)));
                drop(state);
                self.changed.send_replace(());
            }
            Err(_) => {}
        }
    }

    /// Records that an invitation found no worker of the party. Asks whether it still answers,
    /// unless it did a moment ago, or is being asked.
    pub(crate) fn doubt(self: &Arc<Self>, id: WalletId) {
        let mut state = self.state();
        let is_trusted = state.heard_at.is_some_and(|heard_at| heard_at.elapsed() < TRUSTED_FOR);
        if is_trusted || state.silence.is_some() || !state.under_way.is_empty() {
            return;
        }
        state.heard_at = None;
        let question = self.begin(&mut state, id);
        drop(state);
        tokio::spawn(question);
    }

    /// Asks whether the party still answers, about the wallet that it was asked about last. Does
    /// nothing if it is silent, or was never asked.
    pub(crate) async fn ask_whether_present(self: &Arc<Self>) {
        let question = {
            let mut state = self.state();
            let Some(id) = state.last_asked.filter(|_| state.silence.is_none()) else { return };
            state.heard_at = None;
            self.begin(&mut state, id)
        };
        drop(question.await);
    }

    /// Records that a worker of the party offers seats. A silent party is asked at once.
    pub(crate) fn hear_offer(&self) {
        if self.state().silence.is_some() {
            self.offered.notify_one();
        }
    }
}

/// Asks a silent party again and again until it answers.
async fn ask_again(prober: Weak<Prober>, id: WalletId) {
    let (mut pause, longest) = PAUSES;
    let Some(offered) = prober.upgrade().map(|prober| Arc::clone(&prober.offered)) else { return };
    loop {
        tokio::select! {
            () = sleep(pause) => {}
            () = async {
                offered.notified().await;
                sleep(OFFER_PAUSE).await;
            } => {}
        }
        let Some(prober) = prober.upgrade() else { return };
        let sent_at = Instant::now();
        let asked = prober.ask(&CardRequest::Wallet { id }).await;
        // An answer ends the silence, and with it this task.
        prober.note(&asked, sent_at, id);
        pause = (2 * pause).min(longest);
    }
}

/// Why a question has no answer that could be read.
#[derive(Debug, Clone)]
pub(crate) struct Unanswered {
    pub(crate) refusal: Refusal,
    /// Whether the party was asked and did not answer.
    is_silence: bool,
}

impl Unanswered {
    /// A question that failed in this process, or an answer that does not parse.
    const fn here(refusal: Refusal) -> Self {
        Self { refusal, is_silence: false }
    }

    fn by(error: &RequestError, party: &PartyId) -> Self {
        let is_silence = matches!(error, RequestError::NoResponders { .. } | RequestError::TimedOut { .. });
        Self { refusal: unanswered(error, party), is_silence }
    }
}

/// Why a party gave no answer.
pub(crate) fn unanswered(error: &RequestError, party: &PartyId) -> Refusal {
    match error {
        RequestError::NoResponders { .. } => {
            Refusal::new(Code::PartyAway, format!("no worker of {party} is there"))
        }
        other => other.to_refusal(party.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use duet_bus::{Filter, Role};
    use duet_harness::broker::Broker;
    use futures::future::join_all;
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Asks about so many wallets at once. Returns the codes of the refusals.
    async fn ask_about(prober: &Arc<Prober>, wallets: u8) -> Vec<Option<Code>> {
        let asked = join_all((0..wallets).map(|wallet| prober.wallet(WalletId([wallet; 32])))).await;
        asked.into_iter().map(|asked| asked.err().map(|refusal| refusal.code)).collect()
    }

    #[tokio::test]
    async fn a_silent_party_is_asked_one_question_for_all_who_wait() {
        let broker = Broker::start().await.unwrap();
        let (orchestrator, partner) =
            (broker.connect(Role::Orchestrator).await.unwrap(), broker.connect(Role::Partner).await.unwrap());
        let name: PartyId = "partner".parse().unwrap();
        let mut questions = partner.subscribe_registered(&Filter::cards(&name), PATIENCE).await.unwrap();
        let (changed, mut changes) = watch::channel(());
        let prober = Prober::new(orchestrator, name, changed);
        for _ in 0..2 {
            assert_eq!(ask_about(&prober, 200).await, [Some(Code::Deadline); 200]);
        }
        assert!(prober.silence().is_some() && changes.has_changed().unwrap());
        changes.mark_unchanged();
        // A question for each 200 callers, and those of the task that asks again meanwhile.
        let mut asked = 0;
        while questions.next().now_or_never().flatten().is_some() {
            asked += 1;
        }
        assert!((2..6).contains(&asked), "{asked} questions");
        // The next one is answered, whether the task asks it or a caller.
        let answering = async {
            loop {
                let question = questions.next().await.unwrap();
                let reply = CardReply::Refused(Refusal::new(Code::UnknownWallet, "not here"));
                question.respond(codec::encode(&reply).unwrap()).await.unwrap();
            }
        };
        let answered = async {
            assert_eq!(ask_about(&prober, 3).await, [None; 3], "a party that is back is asked at once");
            changes.changed().await.unwrap();
        };
        let answered = timeout(PATIENCE, answered);
        tokio::select! { answered = answered => answered.unwrap(), () = answering => {} }
        assert_eq!(prober.silence(), None);
    }
}
