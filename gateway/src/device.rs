//! What one socket may do: the wallets whose device key it has proven to hold, and the sessions
//! that it takes part in.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use duet_protocol::ids::{PartyId, SessionId, WalletId};
use duet_wire::{Manifest, gateway::MAX_WALLETS_PER_SOCKET};

/// How many unexpired sessions one socket may have. A device has one per wallet at a time, and a
/// session lasts half a minute.
const MAX_SESSIONS: usize = 128;

struct Authenticated {
    /// The Ed25519 key of the device's card.
    device_key: [u8; 32],
    /// The last number of waiting jobs that the device was told.
    told: Option<u32>,
}

struct Session {
    wallet: WalletId,
    responder: PartyId,
    expires_at_ms: u64,
}

#[derive(Default)]
struct State {
    wallets: BTreeMap<WalletId, Authenticated>,
    sessions: BTreeMap<SessionId, Session>,
}

/// The rights of one socket.
#[derive(Default)]
pub(crate) struct Device(Mutex<State>);

/// The socket already has as many wallets as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyWallets;

impl Device {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that the socket may add `wallet`.
    pub(crate) fn has_room_for(&self, wallet: WalletId) -> Result<(), TooManyWallets> {
        let state = self.lock();
        let fits = state.wallets.contains_key(&wallet) || state.wallets.len() < MAX_WALLETS_PER_SOCKET;
        fits.then_some(()).ok_or(TooManyWallets)
    }

    /// Records that the socket has proven to hold `device_key`, the device key of `wallet`.
    pub(crate) fn authenticated(&self, wallet: WalletId, device_key: [u8; 32]) {
        self.lock().wallets.insert(wallet, Authenticated { device_key, told: None });
    }

    /// Forgets a wallet and its sessions.
    pub(crate) fn leave(&self, wallet: WalletId) {
        let mut state = self.lock();
        state.wallets.remove(&wallet);
        state.sessions.retain(|_, session| session.wallet != wallet);
    }

    /// Whether `wallet` is authenticated.
    pub(crate) fn holds(&self, wallet: WalletId) -> bool {
        self.lock().wallets.contains_key(&wallet)
    }

    /// Whether any wallet is authenticated.
    pub(crate) fn is_anyone(&self) -> bool {
        !self.lock().wallets.is_empty()
    }

    /// The authenticated wallets' device keys.
    pub(crate) fn device_keys(&self) -> Vec<(WalletId, [u8; 32])> {
        self.lock().wallets.iter().map(|(wallet, known)| (*wallet, known.device_key)).collect()
    }

    /// Records a session of this socket: the orchestrator has answered the device with this
    /// manifest.
    pub(crate) fn joins(&self, manifest: &Manifest, now_ms: u64) {
        let mut state = self.lock();
        state.sessions.retain(|_, session| session.expires_at_ms > now_ms);
        if state.sessions.len() < MAX_SESSIONS && state.wallets.contains_key(&manifest.wallet) {
            let session = Session {
                wallet: manifest.wallet,
                responder: manifest.responder.party.clone(),
                expires_at_ms: manifest.expires_at_ms,
            };
            state.sessions.insert(manifest.session, session);
        }
    }

    /// The wallet of a session of this socket.
    pub(crate) fn wallet_of(&self, session: SessionId) -> Option<WalletId> {
        self.lock().sessions.get(&session).map(|session| session.wallet)
    }

    /// The wallet of a session of this socket whose responder is `to`.
    pub(crate) fn wallet_of_round(&self, session: SessionId, to: &PartyId) -> Option<WalletId> {
        self.lock().sessions.get(&session).filter(|session| session.responder == *to).map(|s| s.wallet)
    }

    /// The next authenticated wallet after `last`, in a circle.
    pub(crate) fn wallet_after(&self, last: Option<WalletId>) -> Option<WalletId> {
        let state = self.lock();
        let after = last.and_then(|last| state.wallets.keys().find(|wallet| **wallet > last));
        after.or_else(|| state.wallets.keys().next()).copied()
    }

    /// Whether the device has to be told that `jobs` wait for `wallet`'s owner. Records that it has
    /// been told.
    pub(crate) fn is_news(&self, wallet: WalletId, jobs: u32) -> bool {
        match self.lock().wallets.get_mut(&wallet) {
            Some(known) if known.told != Some(jobs) => {
                known.told = Some(jobs);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wallets_take_turns() {
        let device = Device::default();
        assert_eq!(device.wallet_after(None), None);
        for wallet in [3, 1, 2] {
            device.authenticated(WalletId([wallet; 32]), [0; 32]);
        }
        let mut last = None;
        let mut seen = Vec::new();
        for _ in 0..4 {
            last = device.wallet_after(last);
            seen.push(last.unwrap().0[0]);
        }
        assert_eq!(seen, [1, 2, 3, 1]);
        device.leave(WalletId([1; 32]));
        device.leave(WalletId([2; 32]));
        assert_eq!(device.wallet_after(Some(WalletId([1; 32]))), Some(WalletId([3; 32])));
    }

    #[test]
    fn a_number_is_told_once() {
        let device = Device::default();
        let wallet = WalletId([1; 32]);
        assert!(!device.is_news(wallet, 0), "not authenticated");
        device.authenticated(wallet, [0; 32]);
        assert!(device.is_news(wallet, 0));
        assert!(!device.is_news(wallet, 0));
        assert!(device.is_news(wallet, 1));
    }

    #[test]
    fn a_socket_holds_so_many_wallets_and_no_more() {
        let device = Device::default();
        for number in 0..MAX_WALLETS_PER_SOCKET {
            let wallet = WalletId([u8::try_from(number).unwrap(); 32]);
            assert_eq!(device.has_room_for(wallet), Ok(()));
            device.authenticated(wallet, [0; 32]);
        }
        assert_eq!(device.has_room_for(WalletId([0xff; 32])), Err(TooManyWallets));
        assert_eq!(device.has_room_for(WalletId([0; 32])), Ok(()), "known already");
    }
}
