//! Parties that cheat, for the stack's tests.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use duet_party::{
    at_rest::{KeySource, RecordKind, RecordLabel},
    clock::Clock,
    compute::Compute,
    store::{
        RecordStore as _, ShareStore,
        sqlite::{SqliteOptions, SqliteStore},
    },
    vault::Vault,
};
use duet_protocol::{
    arithmetic::default_arithmetic,
    enrolment::VerifiedEnrolment,
    ids::{ShareIndex, WalletId},
};

use crate::parties::PartyFolder;

/// Makes a party, which must not run meanwhile, answer a wallet's device with authentic and wrong `c3`s: what it takes
/// for the device's encrypted share is changed in its store. It goes on so until the device enrols anew.
///
/// # Errors
/// When the store does not open, or the device has not enrolled for the wallet.
pub async fn answer_badly(party: &PartyFolder, wallet: WalletId) -> Result<()> {
    let sqlite = SqliteStore::open(&SqliteOptions::at(party.store())).await?;
    let store: Arc<dyn ShareStore> = Arc::new(sqlite.clone());
    let vault =
        Vault::open(store, &KeySource::File(party.key_file()), &Compute::per_core(), &Clock::system())
            .await?;
    let held = vault.store().enrolments(wallet).await?;
    let of_device: Vec<_> = held.iter().filter(|row| row.initiator == ShareIndex::Device).collect();
    ensure!(!of_device.is_empty(), "the device has not enrolled for {wallet}");
    for row in of_device {
        let item = row.paillier_key.as_bytes().to_vec();
        let label = RecordLabel::of_wallet(RecordKind::Enrolment, wallet, row.initiator, row.epoch, &item);
        let mut record = vault.read(&label).await?.context("the enrolment has no record")?;
        // The ciphertext's last byte: another ciphertext, of who knows what.
        *record.last_mut().context("the record is empty")? ^= 1;
        VerifiedEnrolment::from_trusted_bytes(&record, default_arithmetic())
            .context("the changed record is no enrolment")?;
        vault.write(&label, &record).await?;
    }
    drop(vault);
    sqlite.close().await;
    Ok(())
}
