//! The owner's side of policies: signs a policy, and gives it to the parties of a wallet.

use duet_bus::Bus;
use duet_protocol::ids::{PartyId, ShareIndex, WalletId};
use duet_wire::{
    Code, Refusal,
    policy::{HeldPolicy, PolicyReceipt, PolicyReply, PolicyRequest, SignedPolicy},
};

use super::Device;
use crate::{error::PartyError, policy::ask};

impl Device {
    /// Signs a policy as the wallet's owner, and gives it to every backend party of the wallet.
    /// Returns their receipts, whose signatures it has verified. It stops at a party that refuses
    /// or does not answer. The call can be repeated.
    ///
    /// # Errors
    /// When the document is no policy, or when a party refuses it.
    pub async fn set_policy(
        &self,
        bus: &Bus,
        wallet: WalletId,
        document: Vec<u8>,
    ) -> Result<Vec<(PartyId, PolicyReceipt)>, PartyError> {
        let policy = SignedPolicy::sign(document, self.owner_key())
            .map_err(|error| PartyError::Refused(Refusal::from(error)))?;
        let hash = duet_protocol::transcript::sha256(&policy.body);
        let mut receipts = Vec::new();
        for (party, card_key) in self.backends(wallet).await? {
            let request = PolicyRequest::Set { wallet, policy: policy.clone() };
            let PolicyReply::Set { receipt } = ask(bus, self.id(), &party, &request).await? else {
                return Err(unexpected(&party));
            };
            let receipt = receipt
                .verify(&card_key)
                .map_err(|error| PartyError::refused(Code::PeerMisbehaved, format!("{party}: {error}")))?;
            if (receipt.wallet, receipt.hash) != (wallet, hash) {
                return Err(PartyError::refused(
                    Code::PeerMisbehaved,
                    format!("{party} signed a receipt for another policy"),
                ));
            }
            receipts.push((party, receipt));
        }
        Ok(receipts)
    }

    /// The policies of a wallet, as each of its backend parties holds them.
    ///
    /// # Errors
    /// When a party does not answer.
    pub async fn policies(
        &self,
        bus: &Bus,
        wallet: WalletId,
    ) -> Result<Vec<(PartyId, Vec<HeldPolicy>)>, PartyError> {
        let mut held = Vec::new();
        for (party, _) in self.backends(wallet).await? {
            match ask(bus, self.id(), &party, &PolicyRequest::Show { wallet }).await? {
                PolicyReply::Policies { policies } => held.push((party, policies)),
                _ => return Err(unexpected(&party)),
            }
        }
        Ok(held)
    }

    /// The parties that hold shares 2 and 3, with the Ed25519 keys of their cards.
    async fn backends(&self, wallet: WalletId) -> Result<Vec<(PartyId, [u8; 32])>, PartyError> {
        let info = self.wallet(wallet).await?;
        let backends = [ShareIndex::Service, ShareIndex::Partner].into_iter();
        Ok(backends
            .filter_map(|index| info.party(index))
            .map(|holder| (holder.party.clone(), holder.signing_key))
            .collect())
    }
}

fn unexpected(party: &PartyId) -> PartyError {
    PartyError::refused(Code::PeerMisbehaved, format!("the answer of {party} is not of the expected kind"))
}
