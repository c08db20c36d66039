//! What the parties said of a wallet.

use std::collections::BTreeMap;

use duet_protocol::ids::{Epoch, PaillierKeyId};
use duet_wire::{Code, Pair, Refusal, Seat};

/// The facts about a pair of a wallet's parties that go into a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The wallet's epoch.
    pub epoch: Epoch,
    /// The initiator's Paillier key that is enrolled with the responder.
    pub paillier_key: PaillierKeyId,
    /// The initiator's seat.
    pub initiator: Seat,
    /// The responder's seat.
    pub responder: Seat,
}

/// The terms of each pair that can sign by the parties' last answers, or why it cannot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PairTerms(BTreeMap<Pair, Result<Terms, Refusal>>);

impl FromIterator<(Pair, Result<Terms, Refusal>)> for PairTerms {
    fn from_iter<T: IntoIterator<Item = (Pair, Result<Terms, Refusal>)>>(pairs: T) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl PairTerms {
    /// The terms of `pair`.
    ///
    /// # Errors
    /// Why it cannot sign.
    pub fn of(&self, pair: Pair) -> Result<&Terms, Refusal> {
        match self.0.get(&pair) {
            Some(terms) => terms.as_ref().map_err(Clone::clone),
            None => Err(Refusal::new(Code::PartyAway, "nothing is known of the pair")),
        }
    }
}
