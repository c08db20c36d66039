//! Decides which messages to forward, for which device, and how long an answer may take.

use core::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use duet_bus::{Address, Bus, RequestError, Speaker};
use duet_failures::AddressKey;
use duet_protocol::{
    codec::{self, Message as _},
    enrolment::EnrolmentOffer,
    ids::{PartyId, SessionId, ShareIndex, WalletId},
};
use duet_wire::{
    Code, Manifest, Outcome, Refusal, SignedOutcome,
    approval::{ApprovalReply, SignedApproval},
    card_request::{CardReply, CardRequest},
    gateway::{Authentication, AuthenticationError, Destination, MAX_FORWARDED_SIZE_BYTES},
    policy::PolicyRequest,
    progress::Progress,
    share_request::ShareRequest,
};
use futures::{StreamExt as _, stream::FuturesUnordered};

use crate::{Backend, device::Device, rates::Rates};

/// How long a party may take to verify a package or an enrolment.
const PARTY_DEADLINE: Duration = Duration::from_secs(30);
/// How long the orchestrator may take. It invites the responder meanwhile.
const APPROVAL_DEADLINE: Duration = Duration::from_secs(15);
/// How long one round of a session may take: as long as a party waits for it.
const ROUND_DEADLINE: Duration = Duration::from_secs(10);
/// How long storing an outcome may take.
const OUTCOME_DEADLINE: Duration = Duration::from_secs(5);
/// How long a party may take to answer about a wallet.
const FACTS_DEADLINE: Duration = Duration::from_secs(3);
/// How long a message that may arrive twice is sent again while no process listens, for example
/// while a worker starts.
const RESEND_FOR: Duration = Duration::from_secs(1);

/// Milliseconds since 1970; 0 on a clock set before that.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Forwards the messages of devices.
pub(crate) struct Forwarder {
    pub(crate) bus: Bus,
    pub(crate) backends: Vec<Backend>,
    /// The party name under which devices speak.
    pub(crate) device: PartyId,
}

fn unauthorized(message: &str) -> Refusal {
    Refusal::new(Code::Unauthorized, message)
}

fn malformed(error: &dyn core::fmt::Display) -> Refusal {
    Refusal::new(Code::MalformedMessage, format!("the message does not parse: {error}"))
}

impl Forwarder {
    /// Checks a device's proof. It asks the parties for the wallet's device key, and the first that
    /// names the key of the proof decides. A party that names a wrong key gains nothing: approvals
    /// and outcomes are checked again, and a session needs the device's share.
    ///
    /// # Errors
    /// When no party knows the wallet, or none names the key, or none answers.
    pub(crate) async fn authenticate(
        &self,
        proof: &Authentication,
        signature: &[u8; 64],
    ) -> Result<[u8; 32], Refusal> {
        let mut answers: FuturesUnordered<_> =
            self.backends.iter().map(|backend| self.device_key(&backend.party, proof.wallet)).collect();
        let mut reason: Option<Refusal> = None;
        while let Some(answer) = answers.next().await {
            let refusal = match answer {
                Ok(key) => match proof.verify(signature, &key, now_ms()) {
                    Ok(()) => return Ok(key),
                    Err(error @ AuthenticationError::BadSignature) => {
                        Refusal::new(Code::BadSignature, error.to_string())
                    }
                    Err(error @ AuthenticationError::NotFresh { issued_at_ms, now_ms }) => {
                        tracing::warn!(device_ms = issued_at_ms, gateway_ms = now_ms, "clocks differ");
                        Refusal::new(Code::ClockDiffers, error.to_string())
                    }
                },
                Err(refusal) => refusal,
            };
            // A bad proof says more than a wallet that one party does not know. Silence says least.
            let weight = |refusal: &Refusal| match refusal.code {
                Code::ClockDiffers => 3,
                Code::BadSignature => 2,
                Code::UnknownWallet => 1,
                _ => 0,
            };
            if reason.as_ref().is_none_or(|known| weight(&refusal) > weight(known)) {
                reason = Some(refusal);
            }
        }
        Err(reason.unwrap_or_else(|| unauthorized("there is no party to ask about the wallet")))
    }

    async fn device_key(&self, party: &PartyId, wallet: WalletId) -> Result<[u8; 32], Refusal> {
        let request =
            codec::encode(&CardRequest::Wallet { id: wallet }).map_err(|error| malformed(&error))?;
        let address = self.card_address(party);
        let reply = self.bus.request(&address, request, FACTS_DEADLINE).await;
        match codec::decode(&reply.map_err(|error| unanswered(party.as_str(), &error))?) {
            Ok(CardReply::Wallet { wallet: info }) if info.id == wallet => info
                .party(ShareIndex::Device)
                .map(|device| device.signing_key)
                .ok_or_else(|| Refusal::new(Code::UnknownWallet, "the wallet has no device")),
            Ok(CardReply::Refused(refusal)) => Err(refusal),
            Ok(_) => Err(Refusal::new(
                Code::PeerMisbehaved,
                format!("the answer of {party} is not of the expected kind"),
            )),
            Err(error) => Err(Refusal::new(
                Code::PeerMisbehaved,
                format!("the answer of {party} does not parse: {error}"),
            )),
        }
    }

    /// Forwards `message` if the socket may send it. Returns the reply, or `None` for a message
    /// that gets no answer.
    ///
    /// # Errors
    /// Why it was not forwarded, or not answered.
    pub(crate) async fn forward(
        &self,
        device: &Device,
        rates: &Rates,
        from: AddressKey,
        to: Destination,
        message: Vec<u8>,
    ) -> Result<Option<Bytes>, Refusal> {
        match to {
            Destination::Card(party) => {
                self.check_card(device, rates, &party, &message)?;
                let address = self.card_address(&party);
                self.resending(&address, party.as_str(), message, PARTY_DEADLINE).await.map(Some)
            }
            Destination::Share(party) => {
                self.backend(&party)?;
                codec::decode::<ShareRequest>(&message).map_err(|error| malformed(&error))?;
                if !rates.share(from) {
                    let message = "too many wallets are being made from this address; try again in a minute";
                    return Err(Refusal::new(Code::Overloaded, message));
                }
                let address = Address::Share(party.clone());
                self.resending(&address, party.as_str(), message, PARTY_DEADLINE).await.map(Some)
            }
            Destination::Approval(wallet) => self.approve(device, rates, wallet, message).await.map(Some),
            Destination::Round { session, to } => {
                let wallet = device.wallet_of_round(session, &to).ok_or_else(not_its_session)?;
                within_rate(rates, wallet)?;
                let address = Address::Round { session, from: self.device.clone(), to: to.clone() };
                let reply = self.bus.request(&address, message, ROUND_DEADLINE).await;
                bounded(reply.map_err(|error| unanswered(to.as_str(), &error))?).map(Some)
            }
            Destination::Outcome { session } => {
                let wallet = check_outcome(device, &self.device, session, &message)?;
                within_rate(rates, wallet)?;
                let address = Address::Outcome { session, from: self.device.clone() };
                self.resending(&address, "orchestrator", message, OUTCOME_DEADLINE).await.map(Some)
            }
            Destination::Event { session } => {
                let wallet = device.wallet_of(session).ok_or_else(not_its_session)?;
                within_rate(rates, wallet)?;
                let progress = Progress::from_json(&message);
                if progress.is_none_or(|progress| progress.session != session) {
                    return Err(Refusal::new(
                        Code::MalformedMessage,
                        "the message does not report progress of the session",
                    ));
                }
                let address = Address::Event { session, from: Speaker::from(&self.device) };
                if let Err(error) = self.bus.publish(&address, message).await {
                    tracing::debug!(%session, %error, "a device's progress was not published");
                }
                Ok(None)
            }
        }
    }

    fn backend(&self, party: &PartyId) -> Result<(), Refusal> {
        if self.backends.iter().any(|backend| backend.party == *party) {
            Ok(())
        } else {
            Err(Refusal::new(Code::NotFound, format!("there is no party {party} behind this gateway")))
        }
    }

    fn card_address(&self, party: &PartyId) -> Address {
        Address::Card { from: Speaker::from(&self.device), to: party.clone() }
    }

    fn check_card(
        &self,
        device: &Device,
        rates: &Rates,
        party: &PartyId,
        message: &[u8],
    ) -> Result<(), Refusal> {
        self.backend(party)?;
        if message.first() == Some(&PolicyRequest::KIND) {
            let request = codec::decode::<PolicyRequest>(message).map_err(|error| malformed(&error))?;
            let wallet = request.wallet().map_err(Refusal::from)?;
            return if device.holds(wallet) { within_rate(rates, wallet) } else { Err(not_authenticated()) };
        }
        let wallet = match codec::decode::<CardRequest>(message).map_err(|error| malformed(&error))? {
            CardRequest::Card => return Ok(()),
            CardRequest::Wallet { id } => id,
            CardRequest::Enrol { offer } => {
                codec::decode::<EnrolmentOffer>(&offer).map_err(|error| malformed(&error))?.wallet()
            }
            CardRequest::Wallets { .. } => {
                return Err(unauthorized("a device may not ask which wallets there are"));
            }
        };
        if !device.holds(wallet) {
            return Err(not_authenticated());
        }
        within_rate(rates, wallet)
    }

    async fn approve(
        &self,
        device: &Device,
        rates: &Rates,
        wallet: WalletId,
        message: Vec<u8>,
    ) -> Result<Bytes, Refusal> {
        if !device.holds(wallet) {
            return Err(not_authenticated());
        }
        within_rate(rates, wallet)?;
        let signed: SignedApproval = codec::decode(&message).map_err(|error| malformed(&error))?;
        if signed.unverified().map_err(|error| malformed(&error))?.wallet != wallet {
            return Err(Refusal::new(Code::MalformedMessage, "the request is about another wallet"));
        }
        let address = Address::Approval(wallet);
        let reply = self.resending(&address, "orchestrator", message, APPROVAL_DEADLINE).await?;
        // The session's manifest gives the device the right to speak in it.
        if let Ok(ApprovalReply::Session { manifest }) = codec::decode(&reply) {
            match Manifest::decode(&manifest) {
                Ok(manifest) if manifest.wallet == wallet && manifest.initiator.party == self.device => {
                    device.joins(&manifest, now_ms());
                }
                _ => tracing::warn!(%wallet, "the orchestrator answered with another device's session"),
            }
        }
        Ok(reply)
    }

    /// Sends a request, and again for a moment while no process listens. Only for messages that may
    /// arrive twice.
    async fn resending(
        &self,
        address: &Address,
        whom: &str,
        message: Vec<u8>,
        deadline: Duration,
    ) -> Result<Bytes, Refusal> {
        let reply = self.bus.request_resending_for(RESEND_FOR, address, message, deadline, &[]).await;
        bounded(reply.map_err(|error| unanswered(whom, &error))?)
    }
}

fn not_its_session() -> Refusal {
    unauthorized("no session with this party came to this connection; ask for a new one")
}

fn not_authenticated() -> Refusal {
    unauthorized("the wallet is not authenticated on this connection")
}

fn within_rate(rates: &Rates, wallet: WalletId) -> Result<(), Refusal> {
    if rates.device(wallet) {
        Ok(())
    } else {
        Err(Refusal::new(Code::Overloaded, "too many requests about this wallet; slow down"))
    }
}

/// The wallet whose device signed this outcome of `session`. The session may have begun on another
/// connection: a device that lost that connection still has to report the outcome.
fn check_outcome(
    device: &Device,
    from: &PartyId,
    session: SessionId,
    message: &[u8],
) -> Result<WalletId, Refusal> {
    let signed: SignedOutcome = codec::decode(message).map_err(|error| malformed(&error))?;
    let signer = device
        .device_keys()
        .into_iter()
        .find_map(|(wallet, key)| signed.verify(&key).ok().map(|outcome| (wallet, outcome)));
    let (wallet, outcome) =
        signer.ok_or_else(|| unauthorized("the outcome is not signed by a wallet of this connection"))?;
    let Outcome { session: about, from: reporter, .. } = outcome;
    if about == session && reporter == *from {
        Ok(wallet)
    } else {
        Err(Refusal::new(Code::MalformedMessage, "the outcome is about another session"))
    }
}

fn bounded(reply: Bytes) -> Result<Bytes, Refusal> {
    if reply.len() <= MAX_FORWARDED_SIZE_BYTES {
        Ok(reply)
    } else {
        Err(Refusal::new(Code::TooLarge, "the answer is larger than a gateway forwards"))
    }
}

/// The refusal when `whom` did not answer.
fn unanswered(whom: &str, error: &RequestError) -> Refusal {
    match error {
        RequestError::TooLarge { .. } => Refusal::new(Code::TooLarge, "the message is too large"),
        RequestError::PermissionDenied { .. } => {
            tracing::error!(%error, "the broker refuses what this gateway forwards");
            Refusal::new(Code::Internal, "the broker refused the message")
        }
        other => other.to_refusal(whom),
    }
}
