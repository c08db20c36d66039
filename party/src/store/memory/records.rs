//! Records, settings, and what opens the store.

use std::sync::Arc;

use async_trait::async_trait;

use super::MemoryStore;
use crate::{
    at_rest::{RecordLabel, SealedRecord},
    store::{
        KEY_DESCRIPTOR, KEY_ID, KEY_SUCCESSION, KeyChange, Readiness, RecordStore, StoreError, UnlockRefused,
        health::UnlockAttempts, rewrapped,
    },
};

const UNLOCK_ATTEMPTS: &str = "unlock-attempts";

#[async_trait]
impl RecordStore for MemoryStore {
    fn readiness(&self) -> Readiness {
        self.health.readiness()
    }

    async fn until_ready(&self, ready: bool) {
        self.health.until(ready).await;
    }

    async fn recover(&self) -> Result<(), StoreError> {
        let tried = self.try_recover().await;
        self.health.recovered(tried)
    }

    async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read("read a setting", |state| state.settings.get(name).cloned()).await
    }

    async fn put_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.write("write a setting", |state| {
            state.settings.insert(name.to_owned(), value.to_vec());
            Ok(())
        })
        .await
    }

    async fn count_unlock_attempt(&self, now_ms: u64) -> Result<u32, UnlockRefused> {
        let counted = self.write("count an attempt to open it", |state| {
            let stored = state.settings.get(UNLOCK_ATTEMPTS).map(Vec::as_slice);
            let counted = UnlockAttempts::parse(stored).another(now_ms);
            if let Ok(attempts) = &counted {
                state.settings.insert(UNLOCK_ATTEMPTS.to_owned(), attempts.to_setting());
            }
            Ok(counted)
        });
        Ok(counted.await??.failures)
    }

    async fn clear_unlock_attempts(&self) -> Result<(), StoreError> {
        self.write("clear the attempts to open it", |state| {
            state.settings.remove(UNLOCK_ATTEMPTS);
            Ok(())
        })
        .await
    }

    async fn record(&self, label: &RecordLabel) -> Result<Option<SealedRecord>, StoreError> {
        self.read("read a record", |state| state.record(label).cloned()).await
    }

    async fn put_records(&self, records: &[(RecordLabel, SealedRecord)]) -> Result<(), StoreError> {
        self.write("write records", |state| {
            records.iter().try_for_each(|(label, record)| state.put_record(label, record))
        })
        .await
    }

    async fn change_key(&self, change: &KeyChange) -> Result<u64, StoreError> {
        self.write("change its key", |state| {
            if state.settings.get(KEY_DESCRIPTOR) != change.replaces.as_ref() {
                return Err(StoreError::KeyChanged);
            }
            state.settings.insert(KEY_DESCRIPTOR.to_owned(), change.descriptor.clone());
            let mut count = 0;
            if let Some(key) = &change.key {
                state.settings.insert(KEY_ID.to_owned(), key.id.0.to_vec());
                if let Some(succession) = &key.succession {
                    state.settings.insert(KEY_SUCCESSION.to_owned(), succession.clone());
                }
                for held in state.records.values_mut() {
                    let (label, record) = &**held;
                    let record = rewrapped(key, label, record.as_bytes().to_vec())?;
                    *held = Arc::new((label.clone(), record));
                    count += 1;
                }
                for (label, record) in &key.records {
                    state.put_record(label, record)?;
                }
            }
            state.note_if_open(&self.attached);
            Ok(count)
        })
        .await
    }

    async fn remove_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.write("remove a setting", |state| {
            if state.settings.get(name).is_some_and(|held| held == value) {
                state.settings.remove(name);
            }
            Ok(())
        })
        .await
    }

    async fn was_restored(&self) -> Result<bool, StoreError> {
        Ok(self.setting("restored").await?.is_some())
    }

    async fn close(&self) {
        self.died();
    }
}
