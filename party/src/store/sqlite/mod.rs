//! The share store in a SQLite file: write-ahead log, `synchronous = FULL`, one writer.
//!
//! Longer than a module should be because a trait is implemented in one block; each method is one
//! transaction.

mod open;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use duet_protocol::ids::{CardFingerprint, Epoch, PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId};
use sqlx::{Row as _, Sqlite, SqliteConnection, SqlitePool, Transaction, sqlite::SqliteRow};

pub use self::open::SqliteOptions;
use self::open::{raise_generation, read_setting, write_setting};
use super::{
    Charge, CommitOutcome, DealRow, EnrolmentRow, Gate, LockOutcome, NewWallet, OwnEnrolment, PaillierKeyRow,
    PaillierScope, PaillierState, PinOutcome, PrepareOutcome, Readiness, ShareStore, StoreError,
    UnlockRefused, WalletRow, WalletState, deal_label,
};
use crate::at_rest::{RecordKind, RecordLabel, SealedRecord};

/// Locks that could not be written are remembered up to this many; each is a bad signature under
/// another key, and the store is unready from the first.
const MAX_UNWRITTEN_LOCKS: usize = 1024;
/// Wrong passphrases without a delay; from then on it doubles, from one second to five minutes.
const FREE_UNLOCK_ATTEMPTS: u32 = 3;
const MAX_UNLOCK_DELAY_MS: u64 = 5 * 60 * 1000;

/// A share store in a SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    path: PathBuf,
    writer: SqlitePool,
    reader: SqlitePool,
    health: Arc<Mutex<Health>>,
}

#[derive(Debug)]
struct Health {
    readiness: Readiness,
    unwritten_locks: Vec<UnwrittenLock>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct UnwrittenLock {
    key: PaillierKeyId,
    session: SessionId,
    evidence: Vec<u8>,
    at_ms: u64,
}

fn unavailable(operation: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| StoreError::Unavailable { operation, source: source.into() }
}

fn state_number(state: PaillierState) -> i64 {
    match state {
        PaillierState::Ready => 0,
        PaillierState::Locked => 1,
        PaillierState::NeedsRotation => 2,
    }
}

fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn bytes<const N: usize>(row: &SqliteRow, column: &str) -> Result<[u8; N], StoreError> {
    let value: Vec<u8> = row.try_get(column).map_err(unavailable("read a row"))?;
    value.try_into().map_err(|_| StoreError::Corrupt("bytes of another length"))
}

fn number<T: TryFrom<i64>>(row: &SqliteRow, column: &str) -> Result<T, StoreError> {
    let value: i64 = row.try_get(column).map_err(unavailable("read a row"))?;
    T::try_from(value).map_err(|_| StoreError::Corrupt("a number out of range"))
}

fn optional_key(row: &SqliteRow, column: &str) -> Result<Option<PaillierKeyId>, StoreError> {
    let value: Option<Vec<u8>> = row.try_get(column).map_err(unavailable("read a row"))?;
    value
        .map(|value| value.try_into().map(PaillierKeyId))
        .transpose()
        .map_err(|_| StoreError::Corrupt("a key id of another length"))
}

fn index(row: &SqliteRow, column: &str) -> Result<ShareIndex, StoreError> {
    ShareIndex::try_from(number::<u8>(row, column)?).map_err(|_| StoreError::Corrupt("not a share index"))
}

fn wallet_row(row: &SqliteRow) -> Result<WalletRow, StoreError> {
    let failed = unavailable("read a row");
    let commit_ack: Option<Vec<u8>> = row.try_get("commit_ack").map_err(&failed)?;
    Ok(WalletRow {
        id: WalletId(bytes(row, "id")?),
        epoch: Epoch(number(row, "epoch")?),
        index: index(row, "share_index")?,
        tenant: row.try_get("tenant").map_err(&failed)?,
        state: if commit_ack.is_some() { WalletState::Committed } else { WalletState::Prepared },
        package_hash: bytes(row, "package_hash")?,
        receipt: row.try_get("receipt").map_err(&failed)?,
        commit_ack,
    })
}

fn paillier_row(row: &SqliteRow) -> Result<PaillierKeyRow, StoreError> {
    Ok(PaillierKeyRow {
        id: PaillierKeyId(bytes(row, "id")?),
        scope: row.try_get("scope").map_err(unavailable("read a row"))?,
        state: match number::<u8>(row, "state")? {
            0 => PaillierState::Ready,
            1 => PaillierState::Locked,
            2 => PaillierState::NeedsRotation,
            _ => return Err(StoreError::Corrupt("not a Paillier key's state")),
        },
    })
}

fn enrolment_label(row: &EnrolmentRow) -> RecordLabel {
    RecordLabel::of_wallet(
        RecordKind::Enrolment,
        row.wallet,
        row.initiator,
        row.epoch,
        row.paillier_key.as_bytes(),
    )
}

fn wallet_column(label: &RecordLabel) -> &[u8] {
    label.wallet.as_ref().map_or(&[], |wallet| wallet.as_bytes())
}

async fn write_record(
    connection: &mut SqliteConnection,
    label: &RecordLabel,
    record: &SealedRecord,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO records (kind, wallet, share_index, epoch, item, sealed) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (kind, wallet, share_index, epoch, item) DO UPDATE SET sealed = excluded.sealed",
    )
    .bind(label.kind as u8)
    .bind(wallet_column(label))
    .bind(label.index.map_or(0, u8::from))
    .bind(label.epoch.0)
    .bind(label.item.as_slice())
    .bind(record.as_bytes())
    .execute(connection)
    .await?;
    Ok(())
}

async fn remove_record(connection: &mut SqliteConnection, label: &RecordLabel) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM records WHERE kind = ? AND wallet = ? AND share_index = ? AND epoch = ? AND item = ?",
    )
    .bind(label.kind as u8)
    .bind(wallet_column(label))
    .bind(label.index.map_or(0, u8::from))
    .bind(label.epoch.0)
    .bind(label.item.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_enrolment(
    connection: &mut SqliteConnection,
    row: &EnrolmentRow,
    now_ms: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO enrolments (wallet, initiator, paillier_key, epoch, sequence, added_at_ms)
         VALUES (?1, ?2, ?3, ?4, (SELECT COALESCE(MAX(sequence), 0) + 1 FROM enrolments WHERE wallet = ?1), ?5)
         ON CONFLICT (wallet, initiator, paillier_key)
         DO UPDATE SET sequence = excluded.sequence, epoch = excluded.epoch",
    )
    .bind(row.wallet.as_bytes().as_slice())
    .bind(u8::from(row.initiator))
    .bind(row.paillier_key.as_bytes().as_slice())
    .bind(row.epoch.0)
    .bind(integer(now_ms))
    .execute(connection)
    .await?;
    Ok(())
}

async fn read_wallet(
    connection: &mut SqliteConnection,
    id: WalletId,
) -> Result<Option<WalletRow>, StoreError> {
    sqlx::query("SELECT * FROM wallets WHERE id = ?")
        .bind(id.as_bytes().as_slice())
        .fetch_optional(connection)
        .await
        .map_err(unavailable("read a wallet"))?
        .as_ref()
        .map(wallet_row)
        .transpose()
}

/// Locks a key in the transaction it is given.
async fn write_lock(
    connection: &mut SqliteConnection,
    lock: &UnwrittenLock,
) -> Result<LockOutcome, sqlx::Error> {
    let changed = sqlx::query(
        "UPDATE paillier_keys SET state = ?, locked_session = ?, locked_evidence = ?, locked_at_ms = ?
         WHERE id = ? AND state <> ?",
    )
    .bind(state_number(PaillierState::Locked))
    .bind(lock.session.as_bytes().as_slice())
    .bind(lock.evidence.as_slice())
    .bind(integer(lock.at_ms))
    .bind(lock.key.as_bytes().as_slice())
    .bind(state_number(PaillierState::Locked))
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if changed == 0 {
        return Ok(LockOutcome::AlreadyLocked);
    }
    raise_generation(connection, 0).await?;
    Ok(LockOutcome::Locked)
}

impl SqliteStore {
    /// The database file.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    async fn write(&self, operation: &'static str) -> Result<Transaction<'_, Sqlite>, StoreError> {
        // IMMEDIATE takes the write lock at once: what is read inside is what is decided upon.
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable(operation))
    }

    fn health<T>(&self, f: impl FnOnce(&mut Health) -> T) -> T {
        f(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn fail(&self, lock: Option<UnwrittenLock>, error: &StoreError) {
        self.health(|health| {
            health.readiness = Readiness::Unready(error.to_string());
            if let Some(lock) = lock
                && health.unwritten_locks.len() < MAX_UNWRITTEN_LOCKS
                && !health.unwritten_locks.contains(&lock)
            {
                health.unwritten_locks.push(lock);
            }
        });
    }

    fn require_ready(&self) -> Result<(), StoreError> {
        match self.readiness() {
            Readiness::Ready => Ok(()),
            Readiness::Unready(reason) => Err(StoreError::NotReady(reason)),
        }
    }

    async fn try_lock(&self, lock: &UnwrittenLock) -> Result<LockOutcome, StoreError> {
        let failed = unavailable("lock a Paillier key");
        let mut transaction = self.write("lock a Paillier key").await?;
        let outcome = write_lock(&mut transaction, lock).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        if outcome == LockOutcome::Locked {
            self.record_generation().await?;
        }
        Ok(outcome)
    }

    async fn try_recover(&self) -> Result<(), StoreError> {
        let failed = unavailable("write a canary");
        for lock in self.health(|health| health.unwritten_locks.clone()) {
            self.try_lock(&lock).await?;
            self.health(|health| health.unwritten_locks.retain(|other| *other != lock));
        }
        let mut transaction = self.write("write a canary").await?;
        let mut canary = [0; 32];
        getrandom::fill(&mut canary).map_err(|_| StoreError::Corrupt("no randomness"))?;
        write_setting(&mut transaction, "canary", &canary).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)
    }
}

#[async_trait]
impl ShareStore for SqliteStore {
    fn readiness(&self) -> Readiness {
        self.health(|health| health.readiness.clone())
    }

    async fn recover(&self) -> Result<(), StoreError> {
        match self.try_recover().await {
            Ok(()) => {
                // A lock that failed meanwhile keeps the store unready.
                self.health(|health| {
                    if health.unwritten_locks.is_empty() {
                        health.readiness = Readiness::Ready;
                    }
                });
                self.require_ready()
            }
            Err(error) => {
                self.fail(None, &error);
                Err(error)
            }
        }
    }

    async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let failed = unavailable("read a setting");
        let mut connection = self.reader.acquire().await.map_err(&failed)?;
        read_setting(&mut connection, name).await.map_err(&failed)
    }

    async fn put_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        let failed = unavailable("write a setting");
        let mut connection = self.writer.acquire().await.map_err(&failed)?;
        write_setting(&mut connection, name, value).await.map_err(&failed)
    }

    async fn count_unlock_attempt(&self, now_ms: u64) -> Result<u32, UnlockRefused> {
        let failed = unavailable("count an attempt to open it");
        let mut transaction = self.write("count an attempt to open it").await?;
        let stored = read_setting(&mut transaction, "unlock-attempts").await.map_err(&failed)?;
        // Failures (4 bytes), then the time of the next attempt (8 bytes).
        let (failures, next_at_ms) = stored
            .as_deref()
            .and_then(|value| value.split_first_chunk::<4>())
            .and_then(|(count, at)| {
                Some((u32::from_be_bytes(*count), u64::from_be_bytes(at.try_into().ok()?)))
            })
            .unwrap_or((0, 0));
        // The bound keeps a clock that was wrong once from locking the owner out for years.
        let wait_ms = next_at_ms.saturating_sub(now_ms).min(MAX_UNLOCK_DELAY_MS);
        if wait_ms > 0 {
            return Err(UnlockRefused::TooEarly { failures, wait_ms });
        }
        let failures = failures.saturating_add(1);
        let doublings = failures.saturating_sub(FREE_UNLOCK_ATTEMPTS);
        let delay_ms = match doublings {
            0 => 0,
            1..=16 => (500_u64 << doublings).min(MAX_UNLOCK_DELAY_MS),
            _ => MAX_UNLOCK_DELAY_MS,
        };
        let value =
            [failures.to_be_bytes().as_slice(), now_ms.saturating_add(delay_ms).to_be_bytes().as_slice()]
                .concat();
        write_setting(&mut transaction, "unlock-attempts", &value).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        Ok(failures)
    }

    async fn clear_unlock_attempts(&self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM settings WHERE name = 'unlock-attempts'")
            .execute(&self.writer)
            .await
            .map(drop)
            .map_err(unavailable("clear the attempts to open it"))
    }

    async fn record(&self, label: &RecordLabel) -> Result<Option<SealedRecord>, StoreError> {
        let failed = unavailable("read a record");
        sqlx::query(
            "SELECT sealed FROM records
             WHERE kind = ? AND wallet = ? AND share_index = ? AND epoch = ? AND item = ?",
        )
        .bind(label.kind as u8)
        .bind(wallet_column(label))
        .bind(label.index.map_or(0, u8::from))
        .bind(label.epoch.0)
        .bind(label.item.as_slice())
        .fetch_optional(&self.reader)
        .await
        .map_err(&failed)?
        .map(|row| row.try_get(0).map(SealedRecord::from_bytes).map_err(&failed))
        .transpose()
    }

    async fn put_records(&self, records: &[(RecordLabel, SealedRecord)]) -> Result<(), StoreError> {
        let failed = unavailable("write records");
        let mut transaction = self.write("write records").await?;
        for (label, record) in records {
            write_record(&mut transaction, label, record).await.map_err(&failed)?;
        }
        transaction.commit().await.map_err(&failed)
    }

    async fn record_labels(&self) -> Result<Vec<RecordLabel>, StoreError> {
        let failed = unavailable("list its records");
        sqlx::query("SELECT kind, wallet, share_index, epoch, item FROM records")
            .fetch_all(&self.reader)
            .await
            .map_err(&failed)?
            .iter()
            .map(|row| {
                let wallet: Vec<u8> = row.try_get("wallet").map_err(&failed)?;
                let wallet = match wallet.len() {
                    0 => None,
                    _ => Some(WalletId(bytes(row, "wallet")?)),
                };
                let index = match number::<u8>(row, "share_index")? {
                    0 => None,
                    _ => Some(index(row, "share_index")?),
                };
                Ok(RecordLabel {
                    kind: RecordKind::from_number(number(row, "kind")?)
                        .ok_or(StoreError::Corrupt("not a record's kind"))?,
                    wallet,
                    index,
                    epoch: Epoch(number(row, "epoch")?),
                    item: row.try_get("item").map_err(&failed)?,
                })
            })
            .collect()
    }

    async fn replace_records(
        &self,
        records: &[(RecordLabel, SealedRecord)],
        setting: (&str, &[u8]),
    ) -> Result<(), StoreError> {
        let failed = unavailable("replace its records");
        let mut transaction = self.write("replace its records").await?;
        for (label, record) in records {
            write_record(&mut transaction, label, record).await.map_err(&failed)?;
        }
        write_setting(&mut transaction, setting.0, setting.1).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)
    }

    async fn pin_card(&self, party: &PartyId, card: CardFingerprint) -> Result<PinOutcome, StoreError> {
        let failed = unavailable("pin a card");
        let mut transaction = self.write("pin a card").await?;
        let pinned = sqlx::query("SELECT card FROM pins WHERE party = ?")
            .bind(party.as_str())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(&failed)?;
        if let Some(row) = pinned {
            let pinned = CardFingerprint(bytes(&row, "card")?);
            return Ok(if pinned == card { PinOutcome::Same } else { PinOutcome::Different(pinned) });
        }
        sqlx::query("INSERT INTO pins (party, card) VALUES (?, ?)")
            .bind(party.as_str())
            .bind(card.as_bytes().as_slice())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        Ok(PinOutcome::Pinned)
    }

    async fn pinned_card(&self, party: &PartyId) -> Result<Option<CardFingerprint>, StoreError> {
        sqlx::query("SELECT card FROM pins WHERE party = ?")
            .bind(party.as_str())
            .fetch_optional(&self.reader)
            .await
            .map_err(unavailable("read a pin"))?
            .map(|row| bytes(&row, "card").map(CardFingerprint))
            .transpose()
    }

    async fn pins(&self) -> Result<BTreeMap<PartyId, CardFingerprint>, StoreError> {
        let failed = unavailable("list pins");
        sqlx::query("SELECT party, card FROM pins")
            .fetch_all(&self.reader)
            .await
            .map_err(&failed)?
            .iter()
            .map(|row| {
                let party: String = row.try_get("party").map_err(&failed)?;
                let party = party.parse().map_err(|_| StoreError::Corrupt("not a party's name"))?;
                Ok((party, CardFingerprint(bytes(row, "card")?)))
            })
            .collect()
    }

    async fn prepare_wallet(&self, wallet: &NewWallet) -> Result<PrepareOutcome, StoreError> {
        let failed = unavailable("prepare a wallet");
        let mut transaction = self.write("prepare a wallet").await?;
        if let Some(row) = read_wallet(&mut transaction, wallet.id).await? {
            return Ok(if row.package_hash == wallet.package_hash {
                PrepareOutcome::Already(row)
            } else {
                PrepareOutcome::Conflict
            });
        }
        if let Some(admission) = wallet.admission {
            let used: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM wallets WHERE token = ?")
                .bind(admission.token.as_slice())
                .fetch_one(&mut *transaction)
                .await
                .map_err(&failed)?;
            if used >= i64::from(admission.max_wallets) {
                return Ok(PrepareOutcome::QuotaExceeded);
            }
        }
        sqlx::query(
            "INSERT INTO wallets (id, epoch, share_index, tenant, package_hash, receipt, token, prepared_at_ms, expires_at_ms)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(wallet.id.as_bytes().as_slice())
        .bind(wallet.epoch.0)
        .bind(u8::from(wallet.index))
        .bind(wallet.tenant.as_str())
        .bind(wallet.package_hash.as_slice())
        .bind(wallet.receipt.as_slice())
        .bind(wallet.admission.map(|admission| admission.token.to_vec()))
        .bind(integer(wallet.prepared_at_ms))
        .bind(integer(wallet.expires_at_ms))
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        for (label, record) in &wallet.records {
            write_record(&mut transaction, label, record).await.map_err(&failed)?;
        }
        for enrolment in &wallet.enrolments {
            write_enrolment(&mut transaction, enrolment, wallet.prepared_at_ms).await.map_err(&failed)?;
        }
        transaction.commit().await.map_err(&failed)?;
        Ok(PrepareOutcome::Prepared)
    }

    async fn commit_wallet(
        &self,
        id: WalletId,
        commit_ack: &[u8],
        now_ms: u64,
    ) -> Result<CommitOutcome, StoreError> {
        let failed = unavailable("commit a wallet");
        let mut transaction = self.write("commit a wallet").await?;
        match read_wallet(&mut transaction, id).await? {
            None => return Ok(CommitOutcome::Unknown),
            Some(WalletRow { commit_ack: Some(ack), .. }) => return Ok(CommitOutcome::Already(ack)),
            Some(WalletRow { commit_ack: None, .. }) => {}
        }
        sqlx::query("UPDATE wallets SET commit_ack = ?, committed_at_ms = ? WHERE id = ?")
            .bind(commit_ack)
            .bind(integer(now_ms))
            .bind(id.as_bytes().as_slice())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        sqlx::query("DELETE FROM records WHERE kind = ? AND wallet = ?")
            .bind(RecordKind::Prepared as u8)
            .bind(id.as_bytes().as_slice())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        Ok(CommitOutcome::Committed)
    }

    async fn wallet(&self, id: WalletId) -> Result<Option<WalletRow>, StoreError> {
        let mut connection = self.reader.acquire().await.map_err(unavailable("read a wallet"))?;
        read_wallet(&mut connection, id).await
    }

    async fn wallets(&self, after: Option<WalletId>, limit: u32) -> Result<Vec<WalletRow>, StoreError> {
        let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        sqlx::query("SELECT * FROM wallets WHERE commit_ack IS NOT NULL AND id > ? ORDER BY id LIMIT ?")
            .bind(after)
            .bind(limit)
            .fetch_all(&self.reader)
            .await
            .map_err(unavailable("list wallets"))?
            .iter()
            .map(wallet_row)
            .collect()
    }

    async fn expire_prepared(&self, now_ms: u64) -> Result<u64, StoreError> {
        let failed = unavailable("expire prepared wallets");
        let mut transaction = self.write("expire prepared wallets").await?;
        let expired = sqlx::query("SELECT id FROM wallets WHERE commit_ack IS NULL AND expires_at_ms <= ?")
            .bind(integer(now_ms))
            .fetch_all(&mut *transaction)
            .await
            .map_err(&failed)?;
        for row in &expired {
            let id: [u8; 32] = bytes(row, "id")?;
            for statement in [
                "DELETE FROM records WHERE wallet = ?",
                "DELETE FROM enrolments WHERE wallet = ?",
                "DELETE FROM wallets WHERE id = ?",
            ] {
                sqlx::query(statement)
                    .bind(id.as_slice())
                    .execute(&mut *transaction)
                    .await
                    .map_err(&failed)?;
            }
        }
        // Expired manifests are refused before their session id is looked at.
        sqlx::query("DELETE FROM sessions WHERE expires_at_ms + 3600000 <= ?")
            .bind(integer(now_ms))
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        Ok(expired.len() as u64)
    }

    async fn put_enrolment(
        &self,
        row: &EnrolmentRow,
        record: &SealedRecord,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let failed = unavailable("store an enrolment");
        let mut transaction = self.write("store an enrolment").await?;
        write_record(&mut transaction, &enrolment_label(row), record).await.map_err(&failed)?;
        write_enrolment(&mut transaction, row, now_ms).await.map_err(&failed)?;
        let superseded = sqlx::query(
            "SELECT paillier_key, epoch FROM enrolments WHERE wallet = ? AND initiator = ?
             ORDER BY sequence DESC LIMIT -1 OFFSET 2",
        )
        .bind(row.wallet.as_bytes().as_slice())
        .bind(u8::from(row.initiator))
        .fetch_all(&mut *transaction)
        .await
        .map_err(&failed)?;
        for old in &superseded {
            let old = EnrolmentRow {
                paillier_key: PaillierKeyId(bytes(old, "paillier_key")?),
                epoch: Epoch(number(old, "epoch")?),
                ..row.clone()
            };
            remove_record(&mut transaction, &enrolment_label(&old)).await.map_err(&failed)?;
            sqlx::query("DELETE FROM enrolments WHERE wallet = ? AND initiator = ? AND paillier_key = ?")
                .bind(old.wallet.as_bytes().as_slice())
                .bind(u8::from(old.initiator))
                .bind(old.paillier_key.as_bytes().as_slice())
                .execute(&mut *transaction)
                .await
                .map_err(&failed)?;
        }
        transaction.commit().await.map_err(&failed)
    }

    async fn enrolments(&self, wallet: WalletId) -> Result<Vec<EnrolmentRow>, StoreError> {
        sqlx::query("SELECT * FROM enrolments WHERE wallet = ? ORDER BY sequence DESC")
            .bind(wallet.as_bytes().as_slice())
            .fetch_all(&self.reader)
            .await
            .map_err(unavailable("list enrolments"))?
            .iter()
            .map(|row| {
                Ok(EnrolmentRow {
                    wallet,
                    initiator: index(row, "initiator")?,
                    paillier_key: PaillierKeyId(bytes(row, "paillier_key")?),
                    epoch: Epoch(number(row, "epoch")?),
                })
            })
            .collect()
    }

    async fn put_paillier_key(
        &self,
        id: PaillierKeyId,
        scope: &PaillierScope,
        record: &SealedRecord,
        state: PaillierState,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let failed = unavailable("store a Paillier key");
        let mut transaction = self.write("store a Paillier key").await?;
        let label = RecordLabel::of_party(RecordKind::PaillierKey, id.as_bytes());
        // Never over an existing key: its state, a lock perhaps, must survive a repetition.
        let inserted = sqlx::query(
            "INSERT OR IGNORE INTO paillier_keys (id, scope, state, sequence, created_at_ms)
             VALUES (?, ?, ?, (SELECT COALESCE(MAX(sequence), 0) + 1 FROM paillier_keys), ?)",
        )
        .bind(id.as_bytes().as_slice())
        .bind(scope.to_string())
        .bind(state_number(state))
        .bind(integer(now_ms))
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?
        .rows_affected();
        if inserted == 0 {
            return Ok(());
        }
        write_record(&mut transaction, &label, record).await.map_err(&failed)?;
        raise_generation(&mut transaction, 0).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        self.record_generation().await
    }

    async fn paillier_key(&self, id: PaillierKeyId) -> Result<Option<PaillierKeyRow>, StoreError> {
        sqlx::query("SELECT * FROM paillier_keys WHERE id = ?")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(&self.reader)
            .await
            .map_err(unavailable("read a Paillier key"))?
            .as_ref()
            .map(paillier_row)
            .transpose()
    }

    async fn paillier_keys(&self, scope: &PaillierScope) -> Result<Vec<PaillierKeyRow>, StoreError> {
        sqlx::query("SELECT * FROM paillier_keys WHERE scope = ? ORDER BY sequence DESC")
            .bind(scope.to_string())
            .fetch_all(&self.reader)
            .await
            .map_err(unavailable("list Paillier keys"))?
            .iter()
            .map(paillier_row)
            .collect()
    }

    async fn all_paillier_keys(&self) -> Result<Vec<PaillierKeyRow>, StoreError> {
        sqlx::query("SELECT * FROM paillier_keys ORDER BY sequence DESC")
            .fetch_all(&self.reader)
            .await
            .map_err(unavailable("list Paillier keys"))?
            .iter()
            .map(paillier_row)
            .collect()
    }

    async fn offer_enrolment(
        &self,
        wallet: WalletId,
        responder: &PartyId,
        key: PaillierKeyId,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO own_enrolments (wallet, responder, offered) VALUES (?, ?, ?)
             ON CONFLICT (wallet, responder) DO UPDATE SET offered = excluded.offered",
        )
        .bind(wallet.as_bytes().as_slice())
        .bind(responder.as_str())
        .bind(key.as_bytes().as_slice())
        .execute(&self.writer)
        .await
        .map(drop)
        .map_err(unavailable("note an offer"))
    }

    async fn agree_enrolment(
        &self,
        wallet: WalletId,
        responder: &PartyId,
        key: PaillierKeyId,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO own_enrolments (wallet, responder, agreed) VALUES (?1, ?2, ?3)
             ON CONFLICT (wallet, responder) DO UPDATE SET
               agreed = excluded.agreed,
               offered = CASE WHEN offered = excluded.agreed THEN NULL ELSE offered END",
        )
        .bind(wallet.as_bytes().as_slice())
        .bind(responder.as_str())
        .bind(key.as_bytes().as_slice())
        .execute(&self.writer)
        .await
        .map(drop)
        .map_err(unavailable("note an agreement"))
    }

    async fn waive_enrolment(&self, wallet: WalletId) -> Result<(), StoreError> {
        // No party has an empty name, and no key is empty.
        sqlx::query("INSERT OR IGNORE INTO own_enrolments (wallet, responder, agreed) VALUES (?, '', x'')")
            .bind(wallet.as_bytes().as_slice())
            .execute(&self.writer)
            .await
            .map(drop)
            .map_err(unavailable("waive an enrolment"))
    }

    async fn own_enrolment(&self, wallet: WalletId, responder: &PartyId) -> Result<OwnEnrolment, StoreError> {
        sqlx::query("SELECT agreed, offered FROM own_enrolments WHERE wallet = ? AND responder = ?")
            .bind(wallet.as_bytes().as_slice())
            .bind(responder.as_str())
            .fetch_optional(&self.reader)
            .await
            .map_err(unavailable("read an agreement"))?
            .map_or(Ok(OwnEnrolment::default()), |row| {
                Ok(OwnEnrolment {
                    agreed: optional_key(&row, "agreed")?,
                    offered: optional_key(&row, "offered")?,
                })
            })
    }

    async fn lock_paillier_key(
        &self,
        key: PaillierKeyId,
        session: SessionId,
        evidence: &[u8],
        now_ms: u64,
    ) -> Result<LockOutcome, StoreError> {
        let lock = UnwrittenLock { key, session, evidence: evidence.to_vec(), at_ms: now_ms };
        // In a task of its own: a caller that is cancelled must not take the lock with it.
        let (store, spare) = (self.clone(), lock.clone());
        let task = tokio::spawn(async move {
            store.try_lock(&lock).await.inspect_err(|error| store.fail(Some(lock.clone()), error))
        });
        task.await.unwrap_or_else(|_| {
            let error = StoreError::NotReady("the runtime stopped while a lock was written".to_owned());
            self.fail(Some(spare), &error);
            Err(error)
        })
    }

    async fn release_verdict(&self, key: PaillierKeyId) -> Result<Gate, StoreError> {
        self.require_ready()?;
        let failed = unavailable("read a Paillier key's lock");
        // Takes the write lock: whatever lock is being written is written before or after this.
        let mut transaction = self.write("read a Paillier key's lock").await?;
        let row = sqlx::query("SELECT * FROM paillier_keys WHERE id = ?")
            .bind(key.as_bytes().as_slice())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        // A lock may have failed to be written between the first look and the transaction.
        self.require_ready()?;
        match row.as_ref().map(paillier_row).transpose()?.map(|row| row.state) {
            Some(PaillierState::Ready) => Ok(Gate::Open),
            Some(state) => Ok(Gate::Closed(state)),
            None => Err(StoreError::Corrupt("a Paillier key vanished")),
        }
    }

    async fn claim_session(
        &self,
        session: SessionId,
        wallet: WalletId,
        expires_at_ms: u64,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        sqlx::query(
            "INSERT OR IGNORE INTO sessions (id, wallet, claimed_at_ms, expires_at_ms) VALUES (?, ?, ?, ?)",
        )
        .bind(session.as_bytes().as_slice())
        .bind(wallet.as_bytes().as_slice())
        .bind(integer(now_ms))
        .bind(integer(expires_at_ms))
        .execute(&self.writer)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(unavailable("claim a session"))
    }

    async fn charge(&self, charge: &Charge) -> Result<bool, StoreError> {
        sqlx::query(
            "INSERT OR IGNORE INTO charges (session, wallet, digest, charged_at_ms) VALUES (?, ?, ?, ?)",
        )
        .bind(charge.session.as_bytes().as_slice())
        .bind(charge.wallet.as_bytes().as_slice())
        .bind(charge.digest.as_slice())
        .bind(integer(charge.charged_at_ms))
        .execute(&self.writer)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(unavailable("charge a signature"))
    }

    async fn charges(&self, wallet: WalletId, digest: [u8; 32]) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM charges WHERE wallet = ? AND digest = ?")
            .bind(wallet.as_bytes().as_slice())
            .bind(digest.as_slice())
            .fetch_one(&self.reader)
            .await
            .map_err(unavailable("count charges"))?;
        u64::try_from(count).map_err(|_| StoreError::Corrupt("a negative count"))
    }

    async fn put_deal(&self, wallet: WalletId, record: &SealedRecord, now_ms: u64) -> Result<(), StoreError> {
        let failed = unavailable("store a key generation");
        let mut transaction = self.write("store a key generation").await?;
        write_record(&mut transaction, &deal_label(wallet), record).await.map_err(&failed)?;
        sqlx::query("INSERT OR IGNORE INTO deals (wallet, created_at_ms) VALUES (?, ?)")
            .bind(wallet.as_bytes().as_slice())
            .bind(integer(now_ms))
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        transaction.commit().await.map_err(&failed)
    }

    async fn deals(&self) -> Result<Vec<DealRow>, StoreError> {
        sqlx::query("SELECT wallet, restored FROM deals ORDER BY created_at_ms")
            .fetch_all(&self.reader)
            .await
            .map_err(unavailable("list key generations"))?
            .iter()
            .map(|row| {
                Ok(DealRow {
                    wallet: WalletId(bytes(row, "wallet")?),
                    restored: number::<u8>(row, "restored")? != 0,
                })
            })
            .collect()
    }

    async fn remove_deal(&self, wallet: WalletId) -> Result<(), StoreError> {
        let failed = unavailable("forget a key generation");
        let mut transaction = self.write("forget a key generation").await?;
        remove_record(&mut transaction, &deal_label(wallet)).await.map_err(&failed)?;
        sqlx::query("DELETE FROM deals WHERE wallet = ?")
            .bind(wallet.as_bytes().as_slice())
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        transaction.commit().await.map_err(&failed)
    }

    async fn wallets_without_enrolment(
        &self,
        index: ShareIndex,
        limit: u32,
    ) -> Result<Vec<WalletId>, StoreError> {
        sqlx::query(
            "SELECT id FROM wallets WHERE commit_ack IS NOT NULL AND share_index = ?
             AND NOT EXISTS (SELECT 1 FROM own_enrolments WHERE wallet = id AND agreed IS NOT NULL)
             ORDER BY committed_at_ms LIMIT ?",
        )
        .bind(u8::from(index))
        .bind(limit)
        .fetch_all(&self.reader)
        .await
        .map_err(unavailable("list wallets without an enrolment"))?
        .iter()
        .map(|row| bytes(row, "id").map(WalletId))
        .collect()
    }

    async fn was_restored(&self) -> Result<bool, StoreError> {
        Ok(self.setting("restored").await?.is_some())
    }
}
