//! A party's own keys, with its card.

use std::sync::Arc;

use duet_protocol::{card::Card, identity::PartyKeys, ids::PartyId};

/// A party's own keys, and the card with their public halves.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The secret keys.
    pub keys: Arc<PartyKeys>,
    /// The card.
    pub card: Arc<Card>,
}

impl Identity {
    /// The party's name.
    #[must_use]
    pub fn party(&self) -> &PartyId {
        self.card.party()
    }
}
