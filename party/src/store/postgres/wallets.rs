//! Many wallets at once, for measurements.

use super::PostgresStore;
use crate::store::{
    NewWallet, StoreError,
    backend::Backend as _,
    columns::unavailable,
    shared::wallets::{insert_wallet, mark_committed},
};

#[cfg(any(test, feature = "test-hooks"))]
impl PostgresStore {
    /// Stores committed wallets, each with its acknowledgement, all in one transaction: for
    /// measurements of a full store.
    ///
    /// # Errors
    /// When one is there already, or the database cannot be written.
    pub async fn load_committed(&self, wallets: &[(NewWallet, Vec<u8>)]) -> Result<(), StoreError> {
        let failed = unavailable("load wallets");
        let mut transaction = self.begin("load wallets").await?;
        for (wallet, commit_ack) in wallets {
            insert_wallet(&mut *transaction, wallet).await.map_err(&failed)?;
            let (id, now_ms) = (wallet.id, wallet.prepared_at_ms);
            mark_committed(&mut *transaction, id, commit_ack, now_ms).await.map_err(&failed)?;
        }
        transaction.commit().await.map_err(&failed)
    }
}
