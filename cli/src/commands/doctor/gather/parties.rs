//! The workers of a party. The broker picks the one that answers, so each is met by chance.

use std::{collections::BTreeMap, time::Duration};

use duet_bus::{Address, Bus, RequestError, Speaker};
use duet_protocol::{
    codec::{self, Message as _},
    ids::PartyId,
};
use duet_wire::{
    card_request::CardReply,
    hello::{Hello, HelloReply},
};
use futures::future::join_all;

use super::moment::now_ms;
use crate::commands::doctor::facts::{PartyFacts, Reading, Told, Unasked, Worker};

/// How many questions are under way at once.
const AT_ONCE: usize = 8;

/// How many questions a party gets at most.
const MAX_QUESTIONS: usize = 512;

/// How many questions without a new worker, for each worker known and one more, show that there is
/// none. A worker more would be missed once in three thousand times.
const QUESTIONS_PER_WORKER: usize = 8;

/// An answer to one question.
enum Heard {
    Worker(Worker),
    /// Of a worker that does not know the question.
    Older,
    /// None, for this reason.
    Silence(String),
}

/// Asks a party until no more workers turn up.
pub(super) async fn look(
    bus: &Told<Bus>,
    party: &PartyId,
    connected: Option<usize>,
    patience: Duration,
) -> PartyFacts {
    let facts = |workers, has_older| PartyFacts { party: party.to_string(), workers, has_older, connected };
    let (bus, question) = match (bus, codec::encode(&Hello)) {
        (Ok(bus), Ok(question)) => (bus, question),
        (Err(why), _) => return facts(Err(why.clone()), false),
        (_, Err(error)) => {
            let why = Unasked { why: error.to_string(), remedy: String::new() };
            return facts(Err(why), false);
        }
    };
    let address = Address::Card { from: Speaker::Orchestrator, to: party.clone() };
    let mut workers: BTreeMap<String, Worker> = BTreeMap::new();
    let (mut has_older, mut silence, mut in_vain) = (false, None, 0);
    for _ in 0..MAX_QUESTIONS / AT_ONCE {
        let answers = join_all((0..AT_ONCE).map(|_| ask(bus, &address, &question, patience))).await;
        in_vain += AT_ONCE;
        let mut is_silent = true;
        for answer in answers {
            match answer {
                Heard::Worker(worker) => {
                    is_silent = false;
                    let clock = worker.clock;
                    let known = workers.entry(worker.instance.clone()).or_insert_with(|| {
                        in_vain = 0;
                        worker
                    });
                    known.clock = known.clock.or(clock);
                }
                Heard::Older => {
                    is_silent = false;
                    has_older = true;
                }
                Heard::Silence(why) => silence = Some(why),
            }
        }
        if is_silent || in_vain >= QUESTIONS_PER_WORKER * (workers.len() + 1) {
            break;
        }
    }
    match silence {
        Some(why) if workers.is_empty() && !has_older => facts(Ok(Err(why)), false),
        _ => facts(Ok(Ok(workers.into_values().collect())), has_older),
    }
}

async fn ask(bus: &Bus, address: &Address, question: &[u8], patience: Duration) -> Heard {
    let sent_ms = now_ms();
    let reply = match bus.request(address, question.to_vec(), patience).await {
        Ok(reply) => reply,
        Err(RequestError::NoResponders { .. }) => return Heard::Silence("no worker listens".to_owned()),
        Err(error) => return Heard::Silence(error.to_string()),
    };
    let received_ms = now_ms();
    match codec::decode::<HelloReply>(&reply) {
        Ok(HelloReply { instance, version, now_ms, seats, free_seats, is_initiating, .. }) => {
            let clock = Reading::taken(now_ms, sent_ms, received_ms);
            Heard::Worker(Worker { instance, version, clock, seats, free_seats, is_initiating })
        }
        Err(_) if reply.first() == Some(&CardReply::KIND) => Heard::Older,
        Err(error) => Heard::Silence(format!("a worker's answer is not understood: {error}")),
    }
}
