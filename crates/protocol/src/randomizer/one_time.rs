//! The randomizer of one response.

use zeroize::Zeroizing;

use crate::natural::Natural;

/// `r̃^N mod N²` for a uniform `r̃`, for one response. Neither `Clone` nor `Serialize`: a second
/// use would reveal the difference of two plaintexts.
#[must_use]
pub struct OneTimeRandomizer {
    pub(crate) modulus: Natural,
    pub(crate) value: Natural,
    pub(crate) exponent_blind: Zeroizing<u64>,
}

impl core::fmt::Debug for OneTimeRandomizer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("OneTimeRandomizer(..)")
    }
}
