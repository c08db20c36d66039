//! A holder's holding, which its receipt confirms.

use serde::{Deserialize, Serialize};

use crate::ids::{CardFingerprint, ShareIndex};

/// A holder's holding: everything but its share, which the index and the wallet's commitments fix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
pub(crate) struct Holding {
    /// The hash of the wallet's public record.
    #[udigest(as_bytes)]
    pub(crate) wallet: [u8; 32],
    pub(crate) index: ShareIndex,
    pub(crate) device_card: CardFingerprint,
    #[udigest(as_bytes)]
    pub(crate) token: [u8; 16],
    /// The hash of the device's enrolment offer.
    #[udigest(as_bytes)]
    pub(crate) enrolment: [u8; 32],
}
