//! What others know of this party's store, and this store of others: heads of audit chains.
//!
//! Everything a store says of itself is gone with the store: a lock with the row that held it, and
//! every trace of it when the whole machine is put back to yesterday. So a party signs how far its
//! audit chain goes and which of its keys are locked ([`Head`]), and leaves that with the broker's
//! stream and with the parties whose cards it has pinned. When a worker starts, it asks all of
//! them, and compares:
//!
//! - A key that a head, or a record of the store's own chains, names as locked is locked; a row
//!   that says otherwise is repaired.
//! - A head that is ahead of the store, or of a chain that the store does not know, shows an older
//!   copy of the store. The store is then marked as restored: it initiates nothing before its
//!   Paillier keys are rotated.
//!
//! Nothing is initiated, published or enrolled until the stream, or at least one peer, has
//! answered. Those that did not answer are asked again, less and less often, until they do. A party
//! that gets no answer at all waits: without the broker it could not sign either.
//!
//! A head that is not signed by the party itself counts for nothing, so neither the broker nor a
//! peer can lock a key or mark a store. Both can withhold what they keep; then the other one is the
//! witness.

mod state;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use duet_bus::{Address, Bus, audit};
use duet_protocol::{
    codec,
    ids::{PaillierKeyId, PartyId},
};
use duet_wire::{
    Code,
    audit::{
        Event, Head, HeadReply, HeadRequest, MAX_HEADS_PER_WRITER, MAX_LOCKED_KEYS, Position, SignedHead,
    },
};
use futures::future::join_all;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub(crate) use self::state::Witness;
use crate::{
    audit::open,
    context::Context,
    error::PartyError,
    identity::Identity,
    store::{AuditChain, HeadRow, PaillierState},
};

/// How long the stream or a peer may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Pauses before those that did not answer are asked again: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often a peer is told at most, unless a key was locked: each time costs it one flush of its
/// disk.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Locks the keys that `named` or this store's own audit records name as locked, where their rows
/// say otherwise.
pub(crate) async fn repair_locks(
    context: &Context,
    named: impl IntoIterator<Item = PaillierKeyId>,
) -> Result<(), PartyError> {
    let store = context.store();
    let mut locked = store.locked_by_audit().await?;
    locked.extend(named);
    let rows = store.all_paillier_keys().await?;
    let forgotten: BTreeSet<_> = rows
        .into_iter()
        .filter(|row| row.state != PaillierState::Locked && locked.contains(&row.id))
        .map(|row| row.id)
        .collect();
    if forgotten.is_empty() {
        return Ok(());
    }
    let found = Event::KeysFoundLocked { paillier_keys: forgotten.iter().copied().collect() };
    for key in context.noting(found).lock_witnessed(&forgotten, context.clock.now_ms()).await? {
        tracing::error!(paillier_key = %key, "the share store forgot that this key is locked; it is locked again");
        context.forget_key(key);
    }
    Ok(())
}

/// What is compared when a worker starts.
#[derive(Debug)]
pub(crate) struct Comparison {
    context: Context,
    identity: Identity,
    bus: Bus,
    is_stream_asked: bool,
    peers: BTreeSet<PartyId>,
    has_answer: bool,
}

impl Comparison {
    /// Begins to compare; until one of those who keep heads has answered, nothing is initiated.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn begin(context: &Context, identity: &Identity, bus: &Bus) -> Result<Self, PartyError> {
        context.witness.set_pending(true);
        let peers = peers(context, identity).await?;
        Ok(Self {
            context: context.clone(),
            identity: identity.clone(),
            bus: bus.clone(),
            is_stream_asked: false,
            peers,
            has_answer: false,
        })
    }

    /// Asks all who have not answered yet. Returns whether all have.
    pub(crate) async fn round(&mut self) -> bool {
        match self.compare().await {
            Ok(()) if self.has_answer && self.context.witness.is_pending() => {
                tracing::debug!("the share store agrees with what others know of it");
                self.context.witness.set_pending(false);
            }
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "the share store was not compared; nothing is initiated"),
        }
        self.has_answer && self.is_stream_asked && self.peers.is_empty()
    }

    /// Goes on until all have answered; `ready` is called once something may be initiated.
    pub(crate) async fn run(mut self, stop: CancellationToken, ready: impl Fn()) {
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
            }
            let was_pending = self.context.witness.is_pending();
            let is_done = self.round().await;
            if was_pending && !self.context.witness.is_pending() {
                ready();
            }
            if is_done {
                return;
            }
            if self.context.witness.is_pending() && pause > DEADLINE {
                tracing::warn!(
                    "neither the broker's stream nor a peer says how far the audit log went; nothing is initiated"
                );
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn compare(&mut self) -> Result<(), PartyError> {
        let own = self.identity.party();
        let asking_stream = async {
            if self.is_stream_asked { None } else { Some(audit::read_head(&self.bus, own, DEADLINE).await) }
        };
        let asking_peers = join_all(
            self.peers
                .iter()
                .map(async |peer| (peer.clone(), ask(&self.bus, own, peer, &HeadRequest::Show).await)),
        );
        let (of_stream, of_peers) = tokio::join!(asking_stream, asking_peers);
        let mut heads = Vec::new();
        let (mut is_stream_asked, mut answered) = (self.is_stream_asked, BTreeSet::new());
        match of_stream {
            Some(Ok(head)) => {
                is_stream_asked = true;
                heads.extend(head);
            }
            Some(Err(error)) => tracing::debug!(%error, "the stream of heads does not answer"),
            None => {}
        }
        for (peer, reply) in of_peers {
            match reply {
                Ok(HeadReply::Heads { heads: kept }) => {
                    heads.extend(kept);
                    answered.insert(peer);
                }
                // A peer of an earlier version keeps none.
                Ok(_) | Err(PartyError::Malformed { .. }) => {
                    answered.insert(peer);
                }
                Err(error) => tracing::debug!(%peer, %error, "a peer does not say which heads it keeps"),
            }
        }
        self.judge(&heads).await?;
        // Only what the store has taken note of counts as heard.
        self.has_answer |= is_stream_asked || !answered.is_empty();
        self.is_stream_asked = is_stream_asked;
        self.peers.retain(|peer| !answered.contains(peer));
        Ok(())
    }

    /// Takes note of what others know.
    async fn judge(&self, heads: &[SignedHead]) -> Result<(), PartyError> {
        let store = self.context.store();
        let own = self.identity.party();
        let mut believed = Vec::new();
        for signed in heads {
            match signed.verify(self.identity.card.identity().as_bytes()) {
                Ok(head) if head.writer == *own => believed.push((head, signed)),
                _ => tracing::warn!("a head of this party's audit log is not signed by this party"),
            }
        }
        repair_locks(&self.context, believed.iter().flat_map(|(head, _)| head.locked.iter().copied()))
            .await?;
        let chains = store.audit_chains().await?;
        let noted = store.heads(own).await?;
        let mut is_behind = false;
        for (head, signed) in believed {
            if !self.is_ahead(&head.position, &chains, &noted).await? {
                continue;
            }
            if !is_behind {
                is_behind = true;
                tracing::error!(
                    chain = %head.position.chain,
                    sequence = head.position.sequence,
                    "the audit log went further than this share store: it is an older copy, and initiates nothing \
                     until its Paillier keys are rotated"
                );
                store.mark_restored().await?;
            }
            store.keep_head(&row(signed)?, max_chains()).await?;
        }
        if is_behind {
            open(&self.context, &self.identity).await?;
        }
        Ok(())
    }

    /// Whether a chain went further than this store knows, or elsewhere.
    async fn is_ahead(
        &self,
        position: &Position,
        chains: &[AuditChain],
        noted: &[HeadRow],
    ) -> Result<bool, PartyError> {
        let Some(chain) = chains.iter().find(|chain| chain.head.chain == position.chain) else {
            return Ok(!noted
                .iter()
                .any(|row| row.chain == position.chain && row.sequence >= position.sequence));
        };
        // The store says itself that it was restored after this chain.
        if chain.closed {
            return Ok(false);
        }
        if position.sequence > chain.head.sequence {
            return Ok(true);
        }
        let before = position.sequence.saturating_sub(1);
        let records = self.context.store().audit_records(position.chain, before, 1).await?;
        // It may have been removed for its age.
        Ok(records.first().is_some_and(|record| {
            record.sequence == position.sequence && record.position().hash != position.hash
        }))
    }
}

/// The parties whose cards are pinned.
async fn peers(context: &Context, identity: &Identity) -> Result<BTreeSet<PartyId>, PartyError> {
    let pins = context.store().pins().await?;
    Ok(pins.into_keys().filter(|party| party != identity.party()).collect())
}

fn max_chains() -> u32 {
    u32::try_from(MAX_HEADS_PER_WRITER).unwrap_or(u32::MAX)
}

fn row(signed: &SignedHead) -> Result<HeadRow, PartyError> {
    let Head { writer, position, .. } = &signed.head;
    Ok(HeadRow {
        writer: writer.clone(),
        chain: position.chain,
        sequence: position.sequence,
        head: codec::encode(signed)?,
    })
}

async fn ask(
    bus: &Bus,
    from: &PartyId,
    to: &PartyId,
    request: &HeadRequest,
) -> Result<HeadReply, PartyError> {
    let address = Address::Card { from: from.into(), to: to.clone() };
    let reply = bus.request(&address, codec::encode(request)?, DEADLINE).await?;
    codec::decode(&reply).map_err(|reason| PartyError::Malformed { from: to.to_string(), reason })
}

/// Answers a peer's question about its own heads.
///
/// # Errors
/// When the sender is no party whose card is pinned here, or did not sign the head.
pub(crate) async fn answer(
    context: &Context,
    from: &PartyId,
    request: HeadRequest,
) -> Result<HeadReply, PartyError> {
    let refuse = |why: &str| PartyError::refused(Code::CardMismatch, format!("{from}: {why}"));
    let store = context.store();
    match request {
        HeadRequest::Keep { head: signed } => {
            let pinned =
                store.pinned_card(from).await?.ok_or_else(|| refuse("no card of it is pinned here"))?;
            let card = context.card(pinned).await?.ok_or_else(|| refuse("its card is not known here yet"))?;
            let head = signed
                .verify(card.identity().as_bytes())
                .map_err(|_| refuse("the head is not signed by the card's key"))?;
            if head.writer != *from {
                return Err(refuse("the head is another party's"));
            }
            store.keep_head(&row(&signed)?, max_chains()).await?;
            Ok(HeadReply::Kept)
        }
        HeadRequest::Show => {
            let decode = |row: HeadRow| {
                codec::decode(&row.head)
                    .map_err(|error| PartyError::Stored { what: "head", reason: error.to_string() })
            };
            let heads = store.heads(from).await?.into_iter().map(decode).collect::<Result<_, _>>()?;
            Ok(HeadReply::Heads { heads })
        }
    }
}

/// Leaves this party's head with the stream and its peers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Telling {
    published: Option<Position>,
    peers: BTreeMap<PartyId, Told>,
}

/// When a peer was told last, what, and whether it keeps that.
#[derive(Debug, Clone)]
struct Told {
    position: Position,
    locked: usize,
    at: Instant,
    is_kept: bool,
}

impl Told {
    fn is_due(&self, head: &Head) -> bool {
        let is_new = !self.is_kept || self.position != head.position;
        is_new && (self.at.elapsed() >= TELL_EVERY || self.locked != head.locked.len())
    }
}

impl Telling {
    /// Tells the stream and the peers that do not know it yet how far the chain goes.
    ///
    /// # Errors
    /// When the store cannot be read, or the stream does not take the head. Peers are told another
    /// time.
    pub(crate) async fn tell(
        &mut self,
        context: &Context,
        identity: &Identity,
        bus: &Bus,
    ) -> Result<(), String> {
        let head = match newest(context, identity).await {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        let peers = peers(context, identity).await.map_err(|error| error.to_string())?;
        let due: Vec<PartyId> = peers
            .into_iter()
            .filter(|peer| self.peers.get(peer).is_none_or(|told| told.is_due(&head)))
            .collect();
        let is_published = self.published == Some(head.position);
        if is_published && due.is_empty() {
            return Ok(());
        }
        let signed = head.sign(&*identity.keys);
        let own = identity.party();
        let publishing =
            async { if is_published { Ok(()) } else { audit::publish_head(bus, &signed, DEADLINE).await } };
        let telling = join_all(due.iter().map(|peer| {
            let keep = HeadRequest::Keep { head: signed.clone() };
            async move { ask(bus, own, peer, &keep).await }
        }));
        let (published, replies) = tokio::join!(publishing, telling);
        for (peer, reply) in due.into_iter().zip(replies) {
            let is_kept = matches!(reply, Ok(HeadReply::Kept));
            if !is_kept {
                tracing::debug!(%peer, ?reply, "a peer does not keep this party's head");
            }
            let Head { position, locked, .. } = &signed.head;
            let told = Told { position: *position, locked: locked.len(), at: Instant::now(), is_kept };
            self.peers.insert(peer, told);
        }
        published.map_err(|error| error.to_string())?;
        self.published = Some(signed.head.position);
        Ok(())
    }
}

/// How far the newest chain goes, and which keys are locked; nothing if no chain is open.
async fn newest(context: &Context, identity: &Identity) -> Result<Option<Head>, PartyError> {
    let store = context.store();
    // The place first: a lock that is written meanwhile is named a moment too early, and not too
    // late.
    let Some(AuditChain { head, closed: false, .. }) = store.audit_chains().await?.pop() else {
        return Ok(None);
    };
    let mut locked = store.locked_by_audit().await?;
    let rows = store.all_paillier_keys().await?;
    let newest_first = rows.into_iter().filter(|row| row.state == PaillierState::Locked).map(|row| row.id);
    let mut keys: Vec<PaillierKeyId> = newest_first
        .inspect(|id| {
            locked.remove(id);
        })
        .collect();
    keys.extend(locked);
    if keys.len() > MAX_LOCKED_KEYS {
        tracing::warn!(keys = keys.len(), "more locked keys than a head names");
        keys.truncate(MAX_LOCKED_KEYS);
    }
    Ok(Some(Head { writer: identity.party().clone(), position: head, locked: keys }))
}
