//! A signing session as a sequence of deliveries to either side. A message may come in any order,
//! changed, repeated, or from another session. Only the right message at the right time advances a
//! side, and no sequence ends in a bad signature.

use std::sync::{Mutex, OnceLock, PoisonError};

use duet_adversary::world::{Job, Pair, Wallet, World};
use duet_protocol::{
    arithmetic::default_arithmetic,
    initiator::{AwaitingCipher, AwaitingResponse, Initiator},
    responder::{AwaitingOpening, Responder},
    verdict::Verdict,
};

/// The most deliveries in one input. Each may cost a Paillier operation.
const MAX_DELIVERIES: usize = 12;

/// Both parties and a wallet, made once.
fn stage() -> &'static Mutex<(World, Wallet)> {
    static STAGE: OnceLock<Mutex<(World, Wallet)>> = OnceLock::new();
    STAGE.get_or_init(|| {
        let mut world = World::new(default_arithmetic(), 1);
        let wallet = world.wallet(None);
        Mutex::new((world, wallet))
    })
}

/// Makes the parties and the wallet in advance, which takes longer than one input may.
pub fn prepare() {
    let _made = stage();
}

enum First {
    AwaitsResponse(Box<AwaitingResponse>),
    AwaitsCipher(Box<AwaitingCipher>),
    Over,
}

enum Second {
    AwaitsCommitment,
    AwaitsOpening(Box<AwaitingOpening>),
    Over,
}

struct Session {
    job: Job,
    first: First,
    second: Second,
    /// Every message sent so far, newest last.
    sent: Vec<Vec<u8>>,
    /// For each side, the position in `sent` of the message that it must get next.
    due: [Option<usize>; 2],
}

impl Session {
    fn start(world: &mut World, wallet: &Wallet, sent: Vec<Vec<u8>>) -> Option<Self> {
        let job = Job::random(&mut world.rng, "m");
        let setup = wallet.initiator(world, Pair::DeviceService, &job);
        let (state, message) = Initiator::start(setup, &mut world.rng).ok()?;
        let mut session = Self {
            job,
            first: First::AwaitsResponse(Box::new(state)),
            second: Second::AwaitsCommitment,
            sent,
            due: [None, None],
        };
        session.due = [None, session.send(message)];
        Some(session)
    }

    fn send(&mut self, message: Vec<u8>) -> Option<usize> {
        self.sent.push(message);
        self.sent.len().checked_sub(1)
    }

    /// A side that a wrong message ended expects no message.
    fn forget_what_is_over(&mut self) {
        if matches!(self.first, First::Over) {
            self.due[0] = None;
        }
        if matches!(self.second, Second::Over) {
            self.due[1] = None;
        }
    }

    fn first_gets(&mut self, world: &mut World, message: &[u8]) -> bool {
        match core::mem::replace(&mut self.first, First::Over) {
            First::AwaitsResponse(state) => match state.receive(message, &mut world.rng) {
                Ok((state, next)) => {
                    self.first = First::AwaitsCipher(Box::new(state));
                    self.due = [None, self.send(next)];
                    true
                }
                Err(_) => false,
            },
            First::AwaitsCipher(state) => match state.receive(message, &mut world.rng) {
                Ok(Verdict::Good(_)) => true,
                Ok(Verdict::Bad(_)) => unreachable!("a bad signature of two honest sides"),
                Err(_) => false,
            },
            First::Over => false,
        }
    }

    fn second_gets(&mut self, world: &mut World, wallet: &Wallet, message: &[u8]) -> bool {
        match core::mem::replace(&mut self.second, Second::Over) {
            Second::AwaitsCommitment => {
                let setup = wallet.responder(world, Pair::DeviceService, &self.job);
                match Responder::accept(setup, message, &mut world.rng) {
                    Ok((state, next)) => {
                        self.second = Second::AwaitsOpening(Box::new(state));
                        self.due = [self.send(next), None];
                        true
                    }
                    // As in the driver: a forged message does not end the session of the invited
                    // parties.
                    Err(_) => {
                        self.second = Second::AwaitsCommitment;
                        false
                    }
                }
            }
            Second::AwaitsOpening(state) => {
                let Ok(ready) = state.receive(message) else { return false };
                let charge = self.job.charged(wallet);
                if let Ok((next, _)) = ready.respond(charge, None, &mut world.rng) {
                    self.due = [self.send(next), None];
                }
                true
            }
            Second::Over => false,
        }
    }
}

/// Three bytes are one delivery: the receiver and the message, the position of a change, and its
/// value.
pub fn run(bytes: &[u8]) {
    let mut stage = stage().lock().unwrap_or_else(PoisonError::into_inner);
    let (world, wallet) = &mut *stage;
    let Some(mut session) = Session::start(world, wallet, Vec::new()) else { return };
    for delivery in bytes.chunks_exact(3).take(MAX_DELIVERIES) {
        let &[what, place, change] = delivery else { continue };
        if what == u8::MAX {
            // Begin another session. The messages of the last one can be replayed into it.
            let sent = core::mem::take(&mut session.sent);
            let Some(next) = Session::start(world, wallet, sent) else { return };
            session = next;
            continue;
        }
        let side = usize::from(what & 1);
        let due = session.due.get(side).copied().flatten();
        // Half of the deliveries are the right ones. Otherwise no session would get far.
        let at = if what & 2 == 0 { due } else { Some(usize::from(what >> 2) % session.sent.len()) };
        let Some((at, mut message)) = at.and_then(|at| Some((at, session.sent.get(at)?.clone()))) else {
            continue;
        };
        let position = usize::from(place) * message.len() / 256;
        if let Some(byte) = message.get_mut(position) {
            *byte ^= change;
        }
        let right = due == Some(at) && change == 0;
        let moved = if side == 0 {
            session.first_gets(world, &message)
        } else {
            session.second_gets(world, wallet, &message)
        };
        assert_eq!(moved, right, "a side moves by the right message and by no other");
        session.forget_what_is_over();
    }
}
