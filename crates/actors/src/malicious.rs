//! Cheating parties. A responder and an initiator are played by hand, message by message, with the
//! real cryptography and the real broker. A real party gets a store that makes it answer wrongly.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, Result, anyhow, ensure};
use bytes::Bytes;
use duet_bus::{Address, Bus, Filter, Incoming, RequestError, Subscription};
use duet_harness::parties::PartyFolder;
use duet_party::{
    Identity,
    at_rest::{RecordKind, RecordLabel},
    clock::Clock,
    compute::system_rng,
    key_encryption::KeyFile,
    store::{
        ShareStore,
        postgres::{PostgresOptions, PostgresStore},
        sqlite::{SqliteOptions, SqliteStore},
    },
    vault::Vault,
};
use duet_protocol::{
    arithmetic::default_arithmetic,
    card::Card,
    enrolment::VerifiedEnrolment,
    ids::{Epoch, PaillierKeyId, ShareIndex, WalletId},
    initiator::InitiatorSetup,
    paillier_key::PaillierKey,
    responder::{ReadyToRespond, Responder, ResponderSetup},
    session::{CipherEvidence, SessionError},
    share::KeyShare,
};
use duet_wire::{Manifest, SigningRequest, WalletInfo};
use tokio::time::timeout;

use crate::stage::{Backend, PATIENCE, Stage};

async fn read(backend: &Backend, label: &RecordLabel) -> Result<Vec<u8>> {
    let record = backend.party.context().vault.read(label).await?.context("no such record")?;
    Ok(record.to_vec())
}

async fn share(backend: &Backend, wallet: WalletId) -> Result<Arc<KeyShare>> {
    let label = RecordLabel::of_wallet(RecordKind::Share, wallet, backend.party.index(), Epoch(0), &[]);
    Ok(Arc::new(KeyShare::from_secret_bytes(&read(backend, &label).await?)?))
}

/// P2*: the partner, with its shares and enrolments of some wallets. It answers the service by
/// hand.
#[derive(Debug)]
pub struct MaliciousPartner {
    identity: Identity,
    wallets: BTreeMap<WalletId, (Arc<KeyShare>, Arc<VerifiedEnrolment>)>,
    service_card: Arc<Card>,
    bus: Bus,
}

impl MaliciousPartner {
    /// Takes the partner's place in `wallets`, for sessions with the service's Paillier key `key`.
    ///
    /// # Errors
    /// When the partner does not hold these wallets.
    pub async fn of(stage: &Stage, wallets: &[&WalletInfo], key: PaillierKeyId) -> Result<Self> {
        let backend = &stage.partner;
        let mut held = BTreeMap::new();
        for wallet in wallets {
            let label = RecordLabel::of_wallet(
                RecordKind::Enrolment,
                wallet.id,
                ShareIndex::Service,
                Epoch(0),
                key.as_bytes(),
            );
            let enrolment =
                VerifiedEnrolment::from_trusted_bytes(&read(backend, &label).await?, default_arithmetic())?;
            held.insert(wallet.id, (share(backend, wallet.id).await?, Arc::new(enrolment)));
        }
        Ok(Self {
            identity: backend.party.identity().clone(),
            wallets: held,
            service_card: Arc::clone(stage.service.party.card()),
            bus: backend.bus.clone(),
        })
    }

    /// The service's enrolment in a wallet, which holds its encrypted share.
    ///
    /// # Errors
    /// When the wallet is not one of `wallets`.
    pub fn enrolment(&self, wallet: WalletId) -> Result<&Arc<VerifiedEnrolment>> {
        Ok(&self.wallets.get(&wallet).context("no such wallet")?.1)
    }

    /// Subscribes to the rounds of a session.
    ///
    /// # Errors
    /// When the broker does not confirm the subscription.
    pub async fn listen(&self, manifest: &Manifest) -> Result<Subscription> {
        let filter = Filter::rounds(manifest.session, &manifest.initiator.party, &manifest.responder.party);
        Ok(self.bus.subscribe_registered(&filter, PATIENCE).await?)
    }

    /// Runs a session up to message 3.
    ///
    /// # Errors
    /// When the initiator does not send message 3.
    pub async fn opened(
        &self,
        manifest: &Manifest,
        request: &SigningRequest,
        rounds: &mut Subscription,
    ) -> Result<Opened> {
        let first = timeout(PATIENCE, rounds.next()).await?.context("no message 1")?;
        let (share, enrolment) = self.wallets.get(&manifest.wallet).context("no such wallet")?;
        let setup = ResponderSetup {
            manifest: manifest.encode()?,
            session: manifest.session,
            digest: request.payload.digest()?,
            path: request.path.clone(),
            share: Arc::clone(share),
            enrolment: Arc::clone(enrolment),
            keys: Arc::clone(&self.identity.keys),
            card: Arc::clone(&self.identity.card),
            initiator: Arc::clone(&self.service_card),
        };
        let (state, second) = Responder::accept(setup, &first.payload, &mut system_rng())?;
        first.respond(second).await?;
        let message = timeout(PATIENCE, rounds.next()).await?.context("no message 3")?;
        let state = state.receive(&message.payload)?;
        Ok(Opened { state, message })
    }
}

/// A session whose initiator waits for message 4.
#[derive(Debug)]
pub struct Opened {
    /// The state from which an honest responder answers.
    pub state: ReadyToRespond,
    /// Message 3, which is to be answered.
    pub message: Incoming,
}

impl Opened {
    /// Answers with the message that `cheat` makes from the state.
    ///
    /// # Errors
    /// When `cheat` fails, or when the answer cannot be sent.
    pub async fn answer(
        self,
        cheat: impl FnOnce(ReadyToRespond) -> Result<(Vec<u8>, CipherEvidence), SessionError> + Send + 'static,
    ) -> Result<()> {
        let state = self.state;
        // Paillier arithmetic blocks, so it runs off the runtime's threads.
        let (fourth, _) = tokio::task::spawn_blocking(move || cheat(state)).await??;
        self.message.respond(fourth).await?;
        Ok(())
    }
}

/// P1*: the service, with its share of a wallet and its Paillier key. It drives the partner by
/// hand.
#[derive(Debug)]
pub struct MaliciousService {
    /// The service's keys and card.
    pub identity: Identity,
    share: Arc<KeyShare>,
    paillier: Arc<PaillierKey>,
    partner_card: Arc<Card>,
    bus: Bus,
}

impl MaliciousService {
    /// Takes the service's place in `wallet`, with its Paillier key `key`.
    ///
    /// # Errors
    /// When the service does not hold the wallet or the key.
    pub async fn of(stage: &Stage, wallet: &WalletInfo, key: PaillierKeyId) -> Result<Self> {
        let backend = &stage.service;
        let label = RecordLabel::of_party(RecordKind::PaillierKey, key.as_bytes());
        let bytes = read(backend, &label).await?;
        let owner = backend.party.id().clone();
        let paillier = PaillierKey::from_secret_bytes(owner, &bytes, default_arithmetic())
            .map_err(|invalid| anyhow!("{invalid}"))?;
        Ok(Self {
            identity: backend.party.identity().clone(),
            share: share(backend, wallet.id).await?,
            paillier: Arc::new(paillier),
            partner_card: Arc::clone(stage.partner.party.card()),
            bus: backend.bus.clone(),
        })
    }

    /// The state with which an honest initiator begins.
    ///
    /// # Errors
    /// When the request has no digest.
    pub fn setup(&self, manifest: &Manifest, request: &SigningRequest) -> Result<InitiatorSetup> {
        Ok(InitiatorSetup {
            manifest: manifest.encode()?,
            session: manifest.session,
            digest: request.payload.digest()?,
            path: request.path.clone(),
            share: Arc::clone(&self.share),
            paillier: Arc::clone(&self.paillier),
            keys: Arc::clone(&self.identity.keys),
            card: Arc::clone(&self.identity.card),
            responder_index: ShareIndex::Partner,
            responder: Arc::clone(&self.partner_card),
        })
    }

    /// Sends a round message to the partner and returns its answer.
    ///
    /// # Errors
    /// When no party subscribes to the session, or when no answer comes.
    pub async fn send(&self, manifest: &Manifest, message: Vec<u8>) -> Result<Bytes, RequestError> {
        let address = Address::Round {
            session: manifest.session,
            from: manifest.initiator.party.clone(),
            to: manifest.responder.party.clone(),
        };
        self.bus.request(&address, message, PATIENCE).await
    }
}

/// Makes a party answer a wallet's device with authentic but wrong `c3`s. The party must not run
/// meanwhile.
///
/// # Errors
/// As [`answer_badly_to`].
pub async fn answer_badly(party: &PartyFolder, wallet: WalletId) -> Result<()> {
    answer_badly_to(party, wallet, ShareIndex::Device).await
}

/// Makes a party answer the holder of share `initiator` with authentic but wrong `c3`s. It changes
/// that holder's encrypted share in the party's store. The party must not run meanwhile. The effect
/// lasts until the holder enrols again.
///
/// # Errors
/// When the store does not open, or the initiator has not enrolled for the wallet.
pub async fn answer_badly_to(party: &PartyFolder, wallet: WalletId, initiator: ShareIndex) -> Result<()> {
    let store: Arc<dyn ShareStore> = match party.database() {
        Some(database) => {
            let password = database.password.clone().into();
            let options = PostgresOptions::at(&database.url)?.with_password(&password);
            Arc::new(PostgresStore::open(&options).await?)
        }
        None => Arc::new(SqliteStore::open(&SqliteOptions::at(party.store())).await?),
    };
    let vault = Vault::open(Arc::clone(&store), &KeyFile::at(party.key_file()), &Clock::system()).await?;
    spoil(&vault, wallet, initiator).await?;
    drop(vault);
    store.close().await;
    Ok(())
}

/// Makes a party of this process answer the holder of share `initiator` with authentic and wrong
/// `c3`s, as [`answer_badly_to`] does. It takes effect when the party is opened anew.
///
/// # Errors
/// When the initiator has not enrolled for the wallet.
pub async fn answer_badly_in(backend: &Backend, wallet: WalletId, initiator: ShareIndex) -> Result<()> {
    spoil(&backend.party.context().vault, wallet, initiator).await
}

/// Changes what a party takes for an initiator's encrypted share.
async fn spoil(vault: &Vault, wallet: WalletId, initiator: ShareIndex) -> Result<()> {
    let held = vault.store().enrolments(wallet).await?;
    let of_initiator: Vec<_> = held.iter().filter(|row| row.initiator == initiator).collect();
    ensure!(!of_initiator.is_empty(), "share {initiator} has not enrolled for {wallet}");
    for row in of_initiator {
        let item = row.paillier_key.as_bytes().to_vec();
        let label = RecordLabel::of_wallet(RecordKind::Enrolment, wallet, row.initiator, row.epoch, &item);
        let mut record = vault.read(&label).await?.context("the enrolment has no record")?;
        // The last byte of the ciphertext: it now encrypts an unknown number.
        *record.last_mut().context("the record is empty")? ^= 1;
        VerifiedEnrolment::from_trusted_bytes(&record, default_arithmetic())
            .context("the changed record is no enrolment")?;
        vault.write(&label, &record).await?;
    }
    Ok(())
}
