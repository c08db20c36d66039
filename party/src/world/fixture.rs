//! Two parties that hold one wallet: their stores as every seed begins with them.

use std::sync::{Arc, OnceLock};

use duet_adversary::{
    test_fixtures::rng,
    world::{World, party},
};
use duet_protocol::{
    arithmetic::default_arithmetic,
    identity::PartyKeys,
    ids::{Epoch, PaillierKeyId, PartyId, ShareIndex, WalletId},
    public_key::PublicKey,
    share::KeyShare,
};

use super::executor::START_MS;
use crate::{
    at_rest::{RecordLabel, SealedRecord},
    clock::Clock,
    compute::Compute,
    context::{Context, paillier_label, share_label},
    identity::Identity,
    key_encryption::KeyFile,
    party::Party,
    store::{
        EnrolmentRow, NewWallet, PaillierScope, PaillierState, WalletRow, WalletState, enrolment_label,
        memory::MemoryStore,
    },
    vault::Vault,
};

/// A party's store and what opens it.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) party: PartyId,
    pub(super) identity: Identity,
    pub(super) store: MemoryStore,
    pub(super) vault: Vault,
}

/// The initiator, the responder, and their wallet.
#[derive(Debug)]
pub(super) struct Fixture {
    pub(super) holders: [Holder; 2],
    pub(super) wallet: WalletId,
    pub(super) public_key: PublicKey,
    pub(super) paillier_key: PaillierKeyId,
    pub(super) requester: PartyKeys,
}

/// Made once per test program: the keys' proofs take a second.
pub(super) fn fixture() -> &'static Fixture {
    static MADE: OnceLock<Fixture> = OnceLock::new();
    MADE.get_or_init(|| futures::executor::block_on(make()))
}

async fn make() -> Fixture {
    let arithmetic = default_arithmetic();
    let requester = PartyKeys::generate(&mut rng(7));
    let mut world = World::new(arithmetic, 1);
    world.owner = requester.identity();
    let wallet = world.wallet(None);
    let folder = tempfile::tempdir().unwrap();
    let source = KeyFile::at(folder.path().join("key"));
    let (id, paillier_key) = (wallet.service.wallet().id(), wallet.service_paillier.id());
    let enrolment = wallet.from_service_to_partner.clone().unwrap();
    let mut holders = Vec::new();
    for (holder, share) in [(&world.service, &wallet.service), (&world.partner, &wallet.partner)] {
        let store = MemoryStore::create();
        let vault = Vault::create(Arc::new(store.clone()), &source).await.unwrap();
        let context = context(&vault);
        let adopted = Party::adopt(
            context.clone(),
            PartyKeys::from_secret_bytes(&holder.keys.to_secret_bytes()).unwrap(),
            (*holder.card).clone(),
            holder.index,
        );
        let identity = adopted.await.unwrap().identity().clone();
        for card in [&world.service.card, &world.partner.card] {
            context.store_card(card).await.unwrap();
        }
        hold(&context, share).await;
        holders.push(Holder { party: holder.card.party().clone(), identity, store, vault });
    }
    let holders = <[Holder; 2]>::try_from(holders).unwrap();
    let [service, partner] = &holders;

    let scope =
        PaillierScope::Responder { card: world.partner.card.fingerprint(), tenant: "acme".to_owned() };
    let label = paillier_label(paillier_key);
    let record = service.vault.seal(&label, &wallet.service_paillier.to_secret_bytes()).await.unwrap();
    let store = service.vault.store();
    store.put_paillier_key(paillier_key, &scope, &record, PaillierState::Ready, START_MS).await.unwrap();
    store.agree_enrolment(id, &party("partner"), paillier_key).await.unwrap();

    let row = EnrolmentRow { wallet: id, initiator: ShareIndex::Service, paillier_key, epoch: Epoch(0) };
    let record = partner.vault.seal(&enrolment_label(&row), &enrolment.to_bytes().unwrap()).await.unwrap();
    partner.vault.store().put_enrolment(&row, &record, START_MS).await.unwrap();
    Fixture {
        holders,
        wallet: id,
        public_key: *wallet.service.wallet().public_key(),
        paillier_key,
        requester,
    }
}

/// A context at the time when a run begins.
fn context(vault: &Vault) -> Context {
    let mut context = Context::new(vault.clone());
    context.clock = Clock::new(|| START_MS);
    context.compute = Compute::seeded(0);
    context
}

/// Stores a committed wallet.
async fn hold(context: &Context, share: &KeyShare) {
    let wallet = share.wallet();
    let row = WalletRow {
        id: wallet.id(),
        epoch: wallet.epoch(),
        index: share.index(),
        tenant: wallet.tenant().to_string(),
        state: WalletState::Committed,
        package_hash: [0; 32],
        receipt: Vec::new(),
        commit_ack: None,
        failures: 0,
    };
    let label: RecordLabel = share_label(&row);
    let record: SealedRecord = context.vault.seal(&label, &share.to_secret_bytes().unwrap()).await.unwrap();
    let new = NewWallet {
        id: row.id,
        epoch: row.epoch,
        index: row.index,
        tenant: row.tenant,
        public_key: wallet.public_key().to_bytes(),
        package_hash: row.package_hash,
        receipt: row.receipt,
        admission: None,
        prepared_at_ms: START_MS,
        expires_at_ms: START_MS + 1,
        records: vec![(label, record)],
        enrolments: Vec::new(),
    };
    context.store().prepare_wallet(&new).await.unwrap();
    context.store().commit_wallet(row.id, b"ack", START_MS).await.unwrap();
}
