//! Signs as the owner's device. The device approves a waiting job, and the orchestrator answers
//! with the session's manifest. The device checks the manifest like any party, and initiates.

use std::time::Duration;

use duet_bus::{Address, Bus};
use duet_protocol::{
    codec,
    ids::{SessionId, WalletId},
};
use duet_wire::{
    Code, JobId, JobRecord, Manifest, Outcome, RecoverableSignature, SigningRequest,
    approval::{ApprovalAction, ApprovalReply, ApprovalRequest, SignedApproval, WaitingJob},
    revocation::RevocationProof,
    signing::Purpose,
};
use rand_core::Rng as _;

use super::Device;
use crate::{
    compute::system_rng,
    error::PartyError,
    identity::Identity,
    randomizers::{RandomizerSettings, Randomizers},
    session::{Ended, Online, Reporter, Role, accept, report, run},
};

/// How long the orchestrator may take. It invites the responder in that time.
const APPROVAL_DEADLINE: Duration = Duration::from_secs(15);

/// A signature that the device helped to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSignature {
    /// The session that made it.
    pub session: SessionId,
    /// The request.
    pub request: SigningRequest,
    /// The signed digest.
    pub digest: [u8; 32],
    /// The signature. For a message or typed data, the first one ever made of it by the same key.
    pub signature: RecoverableSignature,
}

impl Device {
    /// The oldest jobs of a wallet that wait for its owner.
    ///
    /// # Errors
    /// When no orchestrator answers, or when one refuses.
    pub async fn waiting_jobs(&self, bus: &Bus, wallet: WalletId) -> Result<Vec<WaitingJob>, PartyError> {
        let identity = self.identity(wallet).await?;
        match self.approval(bus, &identity, wallet, ApprovalAction::List).await? {
            ApprovalReply::Jobs { jobs, .. } => Ok(jobs),
            _ => Err(unexpected()),
        }
    }

    /// Refuses a job for good. It revokes the request under the owner's key, so that the parties
    /// refuse it from every sender.
    ///
    /// # Errors
    /// When no orchestrator answers, or when one refuses.
    pub async fn reject(&self, bus: &Bus, wallet: WalletId, job: JobId) -> Result<(), PartyError> {
        let identity = self.identity(wallet).await?;
        let asked = self.approval(bus, &identity, wallet, ApprovalAction::Job { job }).await?;
        let ApprovalReply::Job { record } = asked else { return Err(unexpected()) };
        let record: JobRecord = serde_json::from_slice(&record).map_err(|_| unexpected())?;
        let request =
            record.request.verify().map_err(|error| PartyError::Refused(duet_wire::Refusal::from(error)))?;
        if request.job() != job {
            return Err(unexpected());
        }
        let proof = RevocationProof::sign(wallet, record.request.content_hash(), self.owner_key());
        match self.approval(bus, &identity, wallet, ApprovalAction::Revoke { job, proof }).await? {
            ApprovalReply::Done => Ok(()),
            _ => Err(unexpected()),
        }
    }

    /// Approves a job and signs it now. `digest` is what the owner saw: a session about another
    /// digest is refused. The device reports the outcome before this returns.
    ///
    /// # Errors
    /// When no orchestrator answers, the manifest is invalid, or the session fails.
    pub async fn approve(
        &self,
        bus: &Bus,
        wallet: WalletId,
        job: JobId,
        digest: [u8; 32],
    ) -> Result<DeviceSignature, PartyError> {
        let identity = self.identity(wallet).await?;
        let manifest = match self.approval(bus, &identity, wallet, ApprovalAction::Approve { job }).await? {
            ApprovalReply::Session { manifest } => manifest,
            _ => return Err(unexpected()),
        };
        self.initiate(bus, &identity, manifest, wallet, job, digest).await
    }

    /// Runs the session of this manifest.
    async fn initiate(
        &self,
        bus: &Bus,
        identity: &Identity,
        manifest: Vec<u8>,
        wallet: WalletId,
        job: JobId,
        digest: [u8; 32],
    ) -> Result<DeviceSignature, PartyError> {
        let host = Online::new(bus, &Randomizers::new(RandomizerSettings::default()));
        let (accepted, rounds) = match accept(&self.context, &host, identity, manifest.clone()).await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Report the failure at once. Then the orchestrator refreshes what it knows of the
                // wallet, and the owner need not wait until the session expires.
                if let Ok(Manifest { session, job, attempt, .. }) = Manifest::decode(&manifest) {
                    let from = identity.party().clone();
                    let outcome = Outcome::failed(session, job, attempt, from, None, error.to_refusal());
                    report(bus, identity, &outcome, self.limits.outcome).await;
                }
                return Err(error);
            }
        };
        if let Role::Responder { .. } = accepted.role {
            return Err(PartyError::refused(Code::PeerMisbehaved, "a device only initiates"));
        }
        let about_another =
            accepted.manifest.wallet != wallet || accepted.manifest.job != job || accepted.digest != digest;
        let ended = if about_another {
            Ended::failed(Code::PeerMisbehaved, "the session is about something else than was approved")
        } else {
            // A device is never drained: it ends with its command.
            let never = std::future::pending();
            Box::pin(run(&self.context, &host, &accepted, rounds, self.limits, never, ())).await
        };
        if let Some(step) = ended.step() {
            let own = &accepted.own().party;
            Reporter::new(bus, &self.context.clock, accepted.manifest.session, own).step(step).await;
        }
        let result = match &ended {
            Ended::Signed { signature, .. } => Ok(DeviceSignature {
                session: accepted.manifest.session,
                request: accepted.request.clone(),
                digest: accepted.digest,
                signature: *signature,
            }),
            Ended::Failed { refusal, .. } => Err(PartyError::Refused(refusal.clone())),
            Ended::Answered | Ended::Released => {
                Err(PartyError::refused(Code::Internal, "a device neither answers nor is released"))
            }
            Ended::Silent => Err(PartyError::refused(
                Code::StorageUnavailable,
                "the device's store cannot be written; nothing is signed until it can",
            )),
        };
        if let Some(outcome) = ended.outcome(&accepted) {
            report(bus, identity, &outcome, self.limits.outcome).await;
        }
        let mut signed = result?;
        let asked = (&signed.request, signed.digest);
        match self.first_signature(bus, identity, job, asked, signed.signature).await {
            Ok(first) => signed.signature = first,
            Err(error) => {
                tracing::warn!(%error, "the same message may get another signature than it had before");
            }
        }
        Ok(signed)
    }

    pub(super) async fn approval(
        &self,
        bus: &Bus,
        identity: &Identity,
        wallet: WalletId,
        action: ApprovalAction,
    ) -> Result<ApprovalReply, PartyError> {
        let mut nonce = [0; 16];
        system_rng().fill_bytes(&mut nonce);
        let issued_at_ms = self.context.clock.now_ms();
        let request = codec::encode(&ApprovalRequest { wallet, action, issued_at_ms, nonce })?;
        // An Ed25519 signature by the card's key, as `SignedApproval::verify` expects it.
        let tagged = [Purpose::Approval.tag(), request.as_slice()].concat();
        let signature = identity.keys.sign(&tagged).0;
        let message = codec::encode(&SignedApproval { request, signature })?;
        let reply = bus.request(&Address::Approval(wallet), message, APPROVAL_DEADLINE).await?;
        match codec::decode(&reply) {
            Ok(ApprovalReply::Refused(refusal)) => {
                Err(PartyError::RefusedBy { by: "orchestrator".to_owned(), refusal })
            }
            Ok(reply) => Ok(reply),
            Err(reason) => Err(PartyError::Malformed { from: "orchestrator".to_owned(), reason }),
        }
    }
}

fn unexpected() -> PartyError {
    PartyError::refused(Code::PeerMisbehaved, "the orchestrator's answer is not of the expected kind")
}
