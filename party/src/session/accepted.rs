//! A session that this party takes part in.

use std::{sync::Arc, time::Duration};

use duet_protocol::{card::Card, share::KeyShare};
use duet_wire::{Manifest, Seat, SigningRequest, remembered::Remembered, validity::CLOCK_GRACE_MS};

use super::{
    engine::{Engine, Side},
    protocol::Protocol,
};
use crate::{
    identity::Identity,
    policy::Ruling,
    store::{AnswerRole, AnswersOf},
};

/// A session this party takes part in: checked, and claimed so that no other worker does.
#[derive(Debug)]
pub(crate) struct Accepted<E: Engine = Protocol> {
    /// The manifest's bytes as they were received.
    pub(crate) bytes: Vec<u8>,
    pub(crate) manifest: Manifest,
    pub(crate) request: SigningRequest,
    /// Derived from the payload by this party.
    pub(crate) digest: [u8; 32],
    pub(crate) identity: Identity,
    pub(crate) share: Arc<KeyShare>,
    pub(crate) peer_card: Arc<Card>,
    pub(crate) role: Role<E>,
    /// What the wallet's policy said.
    pub(crate) ruling: Ruling,
    /// What the orchestrator said of the broker, to be kept with the charge.
    pub(crate) remembered: Option<Remembered>,
}

/// Which side of the session this party is, with what that side needs.
#[derive(Debug)]
pub(crate) enum Role<E: Engine = Protocol> {
    Initiator { paillier: Arc<E::Key> },
    Responder { enrolment: Arc<E::Enrolment> },
}

impl<E: Engine> Role<E> {
    /// The role as a label of metrics.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Initiator { .. } => "initiator",
            Self::Responder { .. } => "responder",
        }
    }
}

impl<E: Engine> Accepted<E> {
    pub(crate) fn own(&self) -> &Seat {
        match self.role {
            Role::Initiator { .. } => &self.manifest.initiator,
            Role::Responder { .. } => &self.manifest.responder,
        }
    }

    pub(crate) fn peer(&self) -> &Seat {
        match self.role {
            Role::Initiator { .. } => &self.manifest.responder,
            Role::Responder { .. } => &self.manifest.initiator,
        }
    }

    /// The request that this session's answer is counted for.
    pub(crate) fn answers(&self) -> AnswersOf {
        AnswersOf {
            request: self.manifest.request.content_hash(),
            role: match self.role {
                Role::Initiator { .. } => AnswerRole::Initiator,
                Role::Responder { .. } => AnswerRole::Responder,
            },
            expires_at_ms: self.request.expires_at.saturating_mul(1000),
            job: self.manifest.job,
            signs: self.request.signs(self.digest),
            remembered: self.remembered,
        }
    }

    /// How long the session may still take at `now_ms` by this party's clock, which may be off.
    pub(crate) fn remaining(&self, now_ms: u64) -> Duration {
        let ends_at_ms = self.manifest.expires_at_ms.saturating_add(CLOCK_GRACE_MS);
        Duration::from_millis(ends_at_ms.saturating_sub(now_ms))
    }

    /// What this party's side of the session begins with.
    pub(super) fn side(&self) -> Side {
        Side {
            manifest: self.bytes.clone(),
            session: self.manifest.session,
            digest: self.digest,
            path: self.request.path.clone(),
            share: Arc::clone(&self.share),
            keys: Arc::clone(&self.identity.keys),
            card: Arc::clone(&self.identity.card),
            peer_index: self.peer().index,
            peer: Arc::clone(&self.peer_card),
        }
    }
}
