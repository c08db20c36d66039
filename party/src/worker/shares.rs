//! `duet.v1.share.<party>`: prepare and commit. A dealer may repeat both, after its own crash or a
//! worker's.

use std::{collections::BTreeMap, sync::Arc};

use duet_bus::Incoming;
use duet_protocol::{
    card::Card,
    codec,
    ids::{CardFingerprint, PartyId, ShareIndex, WalletId},
    package::{OpenedPackage, PackageRefusal, PreparedShare, Receiver},
    receipt::{BundleRefusal, ReceiptBundle},
    transcript::sha256,
};
use duet_wire::{
    Code,
    audit::{Event, Refused},
    share_request::{ShareReply, ShareRequest},
};
use tracing::Instrument as _;

use super::shared::{Shared, answer, refusal};
use crate::{
    at_rest::{RecordKind, RecordLabel},
    context::card_label,
    enrolment::known_or_fetched,
    error::PartyError,
    party::{fetch_card, pin_card},
    store::{
        Admission, CommitOutcome, EnrolmentRow, NewWallet, PinOutcome, PrepareOutcome, WalletRow,
        WalletState, enrolment_label,
    },
};

pub(super) async fn serve(shared: Arc<Shared>, message: Incoming) {
    let span = tracing::info_span!("share", party = %shared.party.id());
    message.continue_trace(&span);
    async {
        let reply = match codec::decode::<ShareRequest>(&message.payload) {
            Ok(ShareRequest::Prepare { package }) => {
                shared.prepare(package).await.map(|receipt| ShareReply::Receipt { receipt })
            }
            Ok(ShareRequest::Commit { bundle }) => {
                shared.commit(&bundle).await.map(|acknowledgement| ShareReply::CommitAck { acknowledgement })
            }
            Err(error) => Err(PartyError::refused(Code::MalformedMessage, error.to_string())),
        };
        let reply = reply.unwrap_or_else(|error| {
            let refusal = refusal(&error);
            shared.journal.refused(Refused::new("share", refusal.clone()));
            ShareReply::Refused(refusal)
        });
        answer(&message, &reply).await;
    }
    .instrument(span)
    .await;
}

fn refused(refusal: &PackageRefusal) -> PartyError {
    let code = match refusal {
        PackageRefusal::Admission(duet_protocol::admission::AdmissionRefusal::Quota { .. }) => Code::Quota,
        PackageRefusal::Admission(_) => Code::AdmissionToken,
        PackageRefusal::PeerCard(_) | PackageRefusal::OwnCard => Code::CardMismatch,
        PackageRefusal::Envelope(_) => Code::MalformedMessage,
        _ => Code::PeerMisbehaved,
    };
    PartyError::refused(code, format!("{refusal} ({})", refusal.check()))
}

fn prepared_label(row: WalletId, index: ShareIndex) -> RecordLabel {
    RecordLabel::of_wallet(RecordKind::Prepared, row, index, duet_protocol::ids::Epoch(0), &[])
}

impl Shared {
    /// Verifies a package, stores it as prepared, and only then signs a receipt.
    async fn prepare(&self, package: Vec<u8>) -> Result<Vec<u8>, PartyError> {
        let package_hash = sha256(&package);
        let opened = self.open(&package)?;
        let (wallet, max_wallets) = (opened.wallet(), opened.admitted_wallets());
        if let Some(row) = self.party.context.store().wallet(wallet).await? {
            return repeated(&row, package_hash);
        }
        let prepared = match self.verify(opened).await? {
            Ok(prepared) => prepared,
            Err(PackageRefusal::PeerCard(peer)) => {
                self.meet(&peer).await?;
                self.verify(self.open(&package)?).await?.map_err(|refusal| refused(&refusal))?
            }
            Err(refusal) => return Err(refused(&refusal)),
        };
        self.store_prepared(prepared, package_hash, max_wallets).await
    }

    /// Opens a package. This is cheap; nothing in it is trusted yet.
    fn open(&self, package: &[u8]) -> Result<OpenedPackage, PartyError> {
        let no_pins = BTreeMap::new();
        self.receiver(&no_pins).open(package).map_err(|refusal| refused(&refusal))
    }

    fn receiver<'a>(&'a self, pinned: &'a BTreeMap<PartyId, CardFingerprint>) -> Receiver<'a> {
        let identity = &self.party.identity;
        Receiver {
            index: self.party.index,
            keys: &identity.keys,
            card: &identity.card,
            pinned,
            arithmetic: self.party.context.arithmetic,
        }
    }

    async fn verify(
        &self,
        opened: OpenedPackage,
    ) -> Result<Result<PreparedShare, PackageRefusal>, PartyError> {
        let context = &self.party.context;
        let pinned = context.store().pins().await?;
        let now_s = context.clock.now_s();
        let (identity, index, arithmetic) =
            (self.party.identity.clone(), self.party.index, context.arithmetic);
        Ok(context
            .compute
            .run(move || {
                let receiver = Receiver {
                    index,
                    keys: &identity.keys,
                    card: &identity.card,
                    pinned: &pinned,
                    arithmetic,
                };
                // The token's limit on wallets is checked in the transaction that stores the
                // wallet.
                opened.verify(&receiver, now_s, 0)
            })
            .await?)
    }

    /// First contact with another backend party: asks it for its card, and pins that card. A
    /// package that names another one is refused afterwards. So neither a dealer alone nor a broker
    /// alone can introduce a false card. If an operator pinned the card before, nothing is asked.
    async fn meet(&self, peer: &PartyId) -> Result<(), PartyError> {
        let context = &self.party.context;
        if let Some(pinned) = context.store().pinned_card(peer).await? {
            return Err(PartyError::refused(
                Code::CardMismatch,
                format!("the package names another card for {peer} than the pinned {pinned}"),
            ));
        }
        let card = fetch_card(&self.bus, self.party.id(), peer).await?;
        context.store_card(&card).await?;
        match pin_card(context, peer, card.fingerprint(), true).await? {
            PinOutcome::Pinned => {
                tracing::warn!(%peer, card = %card.fingerprint(), "pinned a card on first contact");
            }
            PinOutcome::Same | PinOutcome::Different(_) => {}
        }
        Ok(())
    }

    async fn store_prepared(
        &self,
        prepared: PreparedShare,
        package_hash: [u8; 32],
        max_wallets: u32,
    ) -> Result<Vec<u8>, PartyError> {
        let (context, identity) = (&self.party.context, &self.party.identity);
        let receipt = codec::encode(&prepared.receipt(&identity.keys, &identity.card))?;
        let wallet = prepared.share().wallet();
        let (id, epoch, index) = (wallet.id(), wallet.epoch(), prepared.share().index());
        let tenant = wallet.tenant().clone();
        let enrolment = EnrolmentRow {
            wallet: id,
            initiator: prepared.enrolment().initiator_index(),
            paillier_key: prepared.enrolment().paillier_key(),
            epoch,
        };
        let admission = Admission { token: *prepared.token(), max_wallets };
        context.store_modulus_check(&prepared.modulus()).await?;
        let plain: [(RecordLabel, zeroize::Zeroizing<Vec<u8>>); 4] = [
            (prepared_label(id, index), prepared.to_secret_bytes()?),
            (
                RecordLabel::of_wallet(RecordKind::Share, id, index, epoch, &[]),
                prepared.share().to_secret_bytes()?,
            ),
            (enrolment_label(&enrolment), prepared.enrolment().to_bytes()?.into()),
            (
                card_label(prepared.device_card().fingerprint()),
                codec::encode(&**prepared.device_card())?.into(),
            ),
        ];
        let mut records = Vec::with_capacity(plain.len());
        for (label, plaintext) in plain {
            let record = context.vault.seal(&label, &plaintext).await?;
            records.push((label, record));
        }
        let now_ms = context.clock.now_ms();
        let stored = NewWallet {
            id,
            epoch,
            index,
            tenant: tenant.to_string(),
            public_key: prepared.share().wallet().public_key().to_bytes(),
            package_hash,
            receipt: receipt.clone(),
            admission: Some(admission),
            prepared_at_ms: now_ms,
            expires_at_ms: now_ms.saturating_add(self.party.settings.prepared_for_ms),
            records,
            enrolments: vec![enrolment],
        };
        let prepared = Event::WalletPrepared { wallet: id, tenant, package: package_hash };
        // Wallets from an earlier version must be compared as well.
        context.note_public_keys().await?;
        match context.noting(prepared).prepare_wallet(&stored).await? {
            PrepareOutcome::Prepared => {
                tracing::info!(wallet = %id, "prepared");
                Ok(receipt)
            }
            PrepareOutcome::Already(row) => repeated(&row, package_hash),
            PrepareOutcome::Conflict => Err(exists(id)),
            PrepareOutcome::SameKey => Err(PartyError::refused(
                Code::WalletExists,
                "another wallet with this public key is stored already; a key belongs to one wallet",
            )),
            PrepareOutcome::QuotaExceeded => Err(PartyError::refused(
                Code::Quota,
                format!("the admission token's {} wallets are used up", admission.max_wallets),
            )),
        }
    }

    /// Checks that all parties prepared the same wallet, commits, and only then acknowledges.
    async fn commit(&self, bundle: &[u8]) -> Result<Vec<u8>, PartyError> {
        let context = &self.party.context;
        let identity = &self.party.identity;
        let bundle: ReceiptBundle = codec::decode(bundle)
            .map_err(|error| PartyError::refused(Code::MalformedMessage, error.to_string()))?;
        let unknown = || {
            PartyError::refused(
                Code::UnknownWallet,
                format!("there is no prepared wallet {} here; send its package again", bundle.wallet()),
            )
        };
        let row = context.store().wallet(bundle.wallet()).await?.ok_or_else(unknown)?;
        if let (WalletState::Committed, Some(ack)) = (row.state, row.commit_ack) {
            return Ok(ack);
        }
        let bytes = context.vault.require(&prepared_label(row.id, row.index), "prepared wallet").await?;
        let prepared = PreparedShare::from_secret_bytes(&bytes, context.arithmetic)
            .map_err(|error| PartyError::Stored { what: "prepared wallet", reason: error.to_string() })?;
        let mut peers: Vec<Arc<Card>> = Vec::new();
        for index in [ShareIndex::Service, ShareIndex::Partner] {
            let has_party = prepared.share().wallet().holder(index).party().is_some();
            if has_party && index != row.index {
                peers.push(
                    known_or_fetched(context, &self.bus, identity.party(), prepared.share(), index).await?,
                );
            }
        }
        let peers: Vec<&Card> = peers.iter().map(|card| &**card).collect();
        let order = bundle.verify(&prepared, &identity.card, &peers).map_err(|refusal| {
            let code = match refusal {
                BundleRefusal::UnknownCard(_) => Code::CardMismatch,
                _ => Code::PeerMisbehaved,
            };
            PartyError::refused(code, refusal.to_string())
        })?;
        let ack = codec::encode(&order.acknowledge(&identity.keys))?;
        let committed = Event::WalletCommitted { wallet: row.id };
        match context.noting(committed).commit_wallet(row.id, &ack, context.clock.now_ms()).await? {
            CommitOutcome::Committed => {
                tracing::info!(wallet = %row.id, "committed");
                // The service enrols with the partner next.
                self.wake.notify_one();
                Ok(ack)
            }
            CommitOutcome::Already(ack) => Ok(ack),
            CommitOutcome::Unknown => Err(unknown()),
        }
    }
}

fn repeated(row: &WalletRow, package_hash: [u8; 32]) -> Result<Vec<u8>, PartyError> {
    if row.package_hash == package_hash { Ok(row.receipt.clone()) } else { Err(exists(row.id)) }
}

fn exists(wallet: WalletId) -> PartyError {
    PartyError::refused(Code::WalletExists, format!("another package of wallet {wallet} is stored already"))
}
