//! `duet.v1.card.<from>.<party>`: answers questions about this worker, about its party's card and
//! wallets, and about offers of enrolments, policies and revocations.

use std::sync::Arc;

use duet_bus::{Address, Incoming, Speaker};
use duet_protocol::codec::{self, Message as _};
use duet_wire::{
    Code,
    audit::{HeadReply, HeadRequest, Refused},
    card_request::{CardReply, CardRequest, MAX_WALLETS_PER_PAGE},
    hello::{Hello, HelloReply},
    policy::{PolicyReply, PolicyRequest},
    remembered::{MAX_REMEMBERED, Recall, Recalled},
    revocation::{RevocationReply, SignedRevocation},
};
use tracing::Instrument as _;

use super::shared::{Shared, answer, refusal};
use crate::{enrolment::take_offer, error::PartyError, policy, revocation, store::Readiness, witness};

pub(super) async fn serve(shared: Arc<Shared>, message: Incoming) {
    let span = tracing::info_span!("card", subject = %message.address);
    message.continue_trace(&span);
    async {
        if message.payload.first() == Some(&PolicyRequest::KIND) {
            let reply = match codec::decode::<PolicyRequest>(&message.payload) {
                Ok(request) => shared.answer_about_policies(request).await,
                Err(error) => Err(PartyError::refused(Code::MalformedMessage, error.to_string())),
            };
            let reply = reply.unwrap_or_else(|error| {
                let refusal = refusal(&error);
                shared.journal.refused(Refused::new("policy", refusal.clone()));
                PolicyReply::Refused(refusal)
            });
            answer(&message, &reply).await;
            return;
        }
        if message.payload.first() == Some(&SignedRevocation::KIND) {
            let kept = match codec::decode::<SignedRevocation>(&message.payload) {
                Ok(signed) => revocation::take(&shared.party.context, &signed).await,
                Err(error) => Err(PartyError::refused(Code::MalformedMessage, error.to_string())),
            };
            let reply = kept.map(|()| RevocationReply::Kept).unwrap_or_else(|error| {
                let refusal = refusal(&error);
                shared.journal.refused(Refused::new("revocation", refusal.clone()));
                RevocationReply::Refused(refusal)
            });
            answer(&message, &reply).await;
            return;
        }
        if message.payload.first() == Some(&HeadRequest::KIND) {
            let reply = shared.answer_about_heads(&message).await.unwrap_or_else(|error| {
                let refusal = refusal(&error);
                shared.journal.refused(Refused::new("head", refusal.clone()));
                HeadReply::Refused(refusal)
            });
            answer(&message, &reply).await;
            return;
        }
        // How much room a worker has concerns operators, not devices.
        let is_operators = matches!(message.address, Address::Card { from: Speaker::Orchestrator, .. });
        if is_operators && codec::decode::<Hello>(&message.payload).is_ok() {
            answer(&message, &shared.introduce()).await;
            return;
        }
        if is_operators && codec::decode::<Recall>(&message.payload).is_ok() {
            match shared.party.context.store().remembered(MAX_REMEMBERED).await {
                Ok(remembered) => answer(&message, &Recalled { remembered }).await,
                // The orchestrator asks again.
                Err(error) => tracing::warn!(%error, "what is remembered of the broker cannot be read"),
            }
            return;
        }
        let reply = match codec::decode::<CardRequest>(&message.payload) {
            Ok(request) => shared.answer_question(request).await,
            Err(error) => Err(PartyError::refused(Code::MalformedMessage, error.to_string())),
        };
        let reply = reply.unwrap_or_else(|error| {
            let refusal = refusal(&error);
            shared.journal.refused(Refused::new("card", refusal.clone()));
            CardReply::Refused(refusal)
        });
        answer(&message, &reply).await;
    }
    .instrument(span)
    .await;
}

impl Shared {
    /// What this worker says of itself.
    fn introduce(&self) -> HelloReply {
        let context = &self.party.context;
        let (all, free) = self.seats.count();
        HelloReply {
            instance: self.instance.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now_ms: context.clock.now_ms(),
            seats: all,
            free_seats: free,
            is_store_ready: matches!(context.store().readiness(), Readiness::Ready),
            is_initiating: !context.witness.is_pending(),
        }
    }

    async fn answer_about_policies(&self, request: PolicyRequest) -> Result<PolicyReply, PartyError> {
        let (context, identity) = (&self.party.context, &self.party.identity);
        match request {
            PolicyRequest::Set { wallet, policy } => {
                Ok(PolicyReply::Set { receipt: policy::take(context, identity, wallet, policy).await? })
            }
            PolicyRequest::Show { wallet } => {
                Ok(PolicyReply::Policies { policies: policy::show(context, wallet).await? })
            }
            PolicyRequest::Approve { approval } => {
                policy::take_approval(context, &approval).await?;
                Ok(PolicyReply::Approved)
            }
            PolicyRequest::ApproveDated { approval } => {
                policy::take_dated_approval(context, &approval).await?;
                Ok(PolicyReply::Approved)
            }
        }
    }

    async fn answer_about_heads(&self, message: &Incoming) -> Result<HeadReply, PartyError> {
        let Address::Card { from: Speaker::Party(from), .. } = &message.address else {
            return Err(PartyError::refused(
                Code::Unauthorized,
                "this party keeps audit heads for other parties only",
            ));
        };
        let request = codec::decode(&message.payload)
            .map_err(|error| PartyError::refused(Code::MalformedMessage, error.to_string()))?;
        witness::answer(&self.party.context, from, request).await
    }

    async fn answer_question(&self, request: CardRequest) -> Result<CardReply, PartyError> {
        let party = &self.party;
        match request {
            CardRequest::Card => Ok(CardReply::Card { card: codec::encode(&**party.card())? }),
            CardRequest::Wallets { after, limit } => {
                let (wallets, more) = party.wallets(after, limit.clamp(1, MAX_WALLETS_PER_PAGE)).await?;
                Ok(CardReply::Wallets { wallets, more })
            }
            CardRequest::Wallet { id } => Ok(CardReply::Wallet { wallet: Box::new(party.wallet(id).await?) }),
            CardRequest::Enrol { offer } => {
                take_offer(&party.context, &self.bus, &party.identity, &offer).await?;
                Ok(CardReply::Enrolled)
            }
        }
    }
}
