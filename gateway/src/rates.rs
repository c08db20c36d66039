//! Limits how often an address or a wallet may act: token buckets (the generic cell rate algorithm,
//! from `governor`).

use core::{num::NonZeroU32, time::Duration};

use duet_failures::{AddressKey, Failures};
use duet_protocol::ids::WalletId;
use governor::{DefaultKeyedRateLimiter, Jitter, Quota, RateLimiter};

use crate::Limits;

/// By how much frames that waited for the same moment are spread.
const JITTER: Duration = Duration::from_millis(20);

/// All rates.
pub(crate) struct Rates {
    connections: DefaultKeyedRateLimiter<AddressKey>,
    frames: DefaultKeyedRateLimiter<AddressKey>,
    shares: DefaultKeyedRateLimiter<AddressKey>,
    devices: DefaultKeyedRateLimiter<WalletId>,
    refused_proofs: Failures<AddressKey>,
}

fn several(rate: NonZeroU32, times: u32) -> NonZeroU32 {
    rate.saturating_mul(NonZeroU32::new(times).unwrap_or(NonZeroU32::MIN))
}

impl Rates {
    pub(crate) fn new(limits: &Limits) -> Self {
        let half = NonZeroU32::new(limits.shares_per_minute.get() / 2).unwrap_or(NonZeroU32::MIN);
        let per_second = |rate, at_once| Quota::per_second(rate).allow_burst(several(rate, at_once));
        Self {
            connections: RateLimiter::keyed(per_second(limits.connections_per_second, 5)),
            frames: RateLimiter::keyed(per_second(limits.frames_per_second, 4)),
            shares: RateLimiter::keyed(Quota::per_minute(limits.shares_per_minute).allow_burst(half)),
            devices: RateLimiter::keyed(per_second(limits.requests_per_second_per_device, 4)),
            refused_proofs: Failures::new("refused proof", limits.refused_proofs_per_minute),
        }
    }

    /// Whether the address may open one more connection now.
    pub(crate) fn connection(&self, address: AddressKey) -> bool {
        self.connections.check_key(&address).is_ok()
    }

    /// Waits until one more frame of the address may be read.
    ///
    /// # Cancel safety
    /// Cancel safe. The frame may have been counted.
    pub(crate) async fn frame(&self, address: AddressKey) {
        if self.frames.check_key(&address).is_err() {
            self.frames.until_key_ready_with_jitter(&address, Jitter::up_to(JITTER)).await;
        }
    }

    /// Whether the address may send one more message about a wallet that is being made.
    pub(crate) fn share(&self, address: AddressKey) -> bool {
        self.shares.check_key(&address).is_ok()
    }

    /// Whether one more request about the wallet may be forwarded.
    pub(crate) fn device(&self, wallet: WalletId) -> bool {
        self.devices.check_key(&wallet).is_ok()
    }

    /// Counts an invalid proof. Waits when the address has sent too many.
    ///
    /// # Cancel safety
    /// Cancel safe. The failure was counted.
    pub(crate) async fn refused_proof(&self, address: AddressKey) {
        if self.refused_proofs.note(&address).is_err() {
            self.refused_proofs.wait(&address).await;
        }
    }

    /// Forgets addresses and wallets whose whole allowance is restored.
    pub(crate) fn forget_quiet(&self) {
        self.connections.retain_recent();
        self.frames.retain_recent();
        self.shares.retain_recent();
        self.devices.retain_recent();
    }
}
