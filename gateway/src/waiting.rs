//! Tells a device how many jobs wait for the owners of its wallets. It asks the orchestrators about
//! one wallet after another, so that a socket costs the same however many wallets it has. The next
//! round makes up for a lost or late answer.

use core::time::Duration;
use std::sync::Arc;

use duet_bus::Address;
use duet_protocol::{codec, ids::WalletId};
use duet_wire::gateway::{ServerFrame, WaitingAnswer, WaitingQuestion};
use tokio::{sync::mpsc, time::sleep};

use crate::{device::Device, gateway::Gateway, outbox::Outbox};

/// How long an answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// How many wallets may wait to be asked about out of turn. Beyond that, they have their regular
/// turn.
pub(crate) const NUDGES: usize = 64;

/// Tells the device how many jobs wait, until its socket is closed. A wallet that arrives through
/// `nudges` is asked about at once.
pub(crate) async fn run(
    gateway: Arc<Gateway>,
    device: Arc<Device>,
    mut nudges: mpsc::Receiver<WalletId>,
    outbox: Outbox,
) {
    let mut last = None;
    loop {
        let wallet = tokio::select! {
            nudge = nudges.recv() => match nudge {
                Some(wallet) => wallet,
                None => return,
            },
            () = sleep(pause(gateway.limits.waiting_interval)) => match device.wallet_after(last) {
                Some(wallet) => {
                    last = Some(wallet);
                    wallet
                }
                None => continue,
            },
        };
        let Some(jobs) = ask(&gateway, wallet).await else { continue };
        if device.is_news(wallet, jobs) && outbox.frame(&ServerFrame::Waiting { wallet, jobs }).await.is_err()
        {
            return;
        }
    }
}

async fn ask(gateway: &Gateway, wallet: WalletId) -> Option<u32> {
    let question = codec::encode(&WaitingQuestion { wallet }).ok()?;
    let address = Address::Approval(wallet);
    let reply = gateway.forwarder.bus.request(&address, question, ANSWER_DEADLINE).await.ok()?;
    match codec::decode(&reply) {
        Ok(WaitingAnswer { wallet: about, jobs }) if about == wallet => Some(jobs),
        _ => None,
    }
}

/// The interval, up to a quarter shorter or longer, so that sockets that were opened together
/// spread out.
fn pause(interval: Duration) -> Duration {
    let random = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
    interval.mul_f64(0.75 + random / 2.0)
}
