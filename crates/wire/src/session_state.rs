//! The states of a session, and the one function that changes them.

use duet_protocol::ids::{SessionId, WalletId};
use serde::{Deserialize, Serialize};

use crate::{JobId, TenantId, manifest::Seat, record::Kept, unknown::UnknownName};

/// A session's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// It has an id and a manifest.
    Created,
    /// The orchestrator is inviting the parties.
    Inviting,
    /// Both parties have accepted, and the rounds are running.
    Running,
    /// It produced a signature that verifies.
    Signed,
    /// It ended without a signature.
    Failed,
    /// Its deadline passed.
    Expired,
    /// A state that a later release added. Orchestrators of this one leave it as it is.
    #[serde(untagged, deserialize_with = "crate::unknown::read")]
    Unknown(UnknownName),
}

/// An event in the life of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionEvent {
    /// The first invitation is about to go out.
    Invite,
    /// Both parties have accepted.
    Start,
    /// A signature was reported and verified.
    Sign,
    /// A party refused, failed, or broke the rules.
    Fail,
    /// The deadline passed.
    Expire,
}

/// The state does not allow the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session that is {state:?} cannot take the event {event:?}")]
pub struct IllegalTransition {
    /// The state it was in.
    pub state: SessionState,
    /// What was tried.
    pub event: SessionEvent,
}

impl SessionState {
    /// All states that this build knows.
    pub const ALL: [Self; 6] =
        [Self::Created, Self::Inviting, Self::Running, Self::Signed, Self::Failed, Self::Expired];

    /// Whether no further state can follow.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Signed | Self::Failed | Self::Expired)
    }
}

impl SessionEvent {
    /// All events.
    pub const ALL: [Self; 5] = [Self::Invite, Self::Start, Self::Sign, Self::Fail, Self::Expire];
}

/// The state after `event`. Every change of a session's state goes through this function.
///
/// # Errors
/// When the state does not allow the event; a final state allows none.
pub const fn next(state: SessionState, event: SessionEvent) -> Result<SessionState, IllegalTransition> {
    use SessionEvent as E;
    use SessionState as S;
    match (state, event) {
        (S::Created, E::Invite) => Ok(S::Inviting),
        (S::Inviting, E::Start) => Ok(S::Running),
        (S::Running, E::Sign) => Ok(S::Signed),
        (S::Created | S::Inviting | S::Running, E::Fail) => Ok(S::Failed),
        (S::Created | S::Inviting | S::Running, E::Expire) => Ok(S::Expired),
        _ => Err(IllegalTransition { state, event }),
    }
}

/// A session as the orchestrators store it. Members that this build does not know are kept, see
/// [`crate::record`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct SessionRecord {
    /// The session.
    pub session: SessionId,
    /// The tenant that owns the job. Tenant and job make up the key of the job's entry.
    pub tenant: TenantId,
    /// The job it is for.
    pub job: JobId,
    /// Which attempt at the job.
    pub attempt: u32,
    /// The wallet.
    pub wallet: WalletId,
    /// The seat of the party that starts.
    pub initiator: Seat,
    /// The seat of the party that answers.
    pub responder: Seat,
    /// Its state.
    pub state: SessionState,
    /// When it was created, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When its state last changed.
    pub updated_at_ms: u64,
    /// When it expires at the latest.
    pub expires_at_ms: u64,
    /// What this build does not know of it.
    #[serde(skip)]
    pub kept: Kept,
}

crate::stored_record!(SessionRecord);

impl SessionRecord {
    /// Applies `event` at `now_ms`.
    ///
    /// # Errors
    /// When the state does not allow it; the record is then unchanged.
    pub fn apply(&mut self, event: SessionEvent, now_ms: u64) -> Result<(), IllegalTransition> {
        self.state = next(self.state, event)?;
        self.updated_at_ms = now_ms;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_path_to_a_signature() {
        let mut state = SessionState::Created;
        for event in [SessionEvent::Invite, SessionEvent::Start, SessionEvent::Sign] {
            state = next(state, event).unwrap();
        }
        assert_eq!(state, SessionState::Signed);
    }

    #[test]
    fn exactly_these_pairs_are_legal() {
        use SessionEvent::*;
        let legal: Vec<_> = SessionState::ALL
            .into_iter()
            .flat_map(|state| SessionEvent::ALL.map(|event| (state, event)))
            .filter(|(state, event)| next(*state, *event).is_ok())
            .collect();
        use SessionState::*;
        assert_eq!(
            legal,
            [
                (Created, Invite),
                (Created, Fail),
                (Created, Expire),
                (Inviting, Start),
                (Inviting, Fail),
                (Inviting, Expire),
                (Running, Sign),
                (Running, Fail),
                (Running, Expire),
            ]
        );
    }

    proptest! {
        #[test]
        fn whatever_happens_a_session_ends_once_and_only_a_running_one_signs(
            events in prop::collection::vec(prop::sample::select(&SessionEvent::ALL[..]), 0..30)
        ) {
            let mut state = SessionState::Created;
            for event in events {
                let before = state;
                match next(state, event) {
                    Ok(after) => {
                        prop_assert!(!before.is_final());
                        prop_assert_ne!(before, after);
                        prop_assert!(after != SessionState::Signed || before == SessionState::Running);
                        state = after;
                    }
                    Err(refused) => prop_assert_eq!(refused, IllegalTransition { state: before, event }),
                }
            }
        }
    }
}
