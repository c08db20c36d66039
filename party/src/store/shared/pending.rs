//! Pending verdicts, the count of answers, and which openings of the store are still there.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    keys::standing_of,
    records::{read_setting, write_record, write_setting},
};
use duet_wire::remembered::Remembered;

use crate::store::{
    AnswersOf, NewPending, PendingRow, PendingStore, RecordStore as _, ShareStore, StoreError,
    backend::{Attached, Backend},
    columns::{PENDING, bytes, integer, number, pending_row, unavailable},
    connection::{Connection, NamedLock, values},
    pending::{OWN_PENDING_FOR_MS, UNCLEAN_STARTS, unclean_starts},
    pending_label,
};

/// Writes a pending verdict in the transaction it is given, unless its card is quarantined.
pub(in crate::store) async fn insert_pending(
    connection: &mut impl Connection,
    pending: &NewPending,
    instance: [u8; 16],
    attached: &Attached,
) -> Result<(), StoreError> {
    let failed = unavailable("write a pending verdict");
    if !standing_of(connection, pending.card).await?.is_trusted() {
        return Err(StoreError::Quarantined(pending.card));
    }
    attached.count_answer(connection, pending.at_ms).await?;
    write_record(connection, &pending_label(pending.session), &pending.record).await.map_err(&failed)?;
    connection
        .run(
            &["INSERT INTO pending_verdicts (session, paillier_key, instance, written_at_ms)
             VALUES ($1, $2, $3, $4)"],
            values![&pending.session, &pending.key, &instance, pending.at_ms],
        )
        .await
        .map(drop)
        .map_err(&failed)
}

/// A pending verdict, the opening of the store that wrote it, and when.
type Written = (PendingRow, [u8; 16], i64);

#[async_trait]
impl<B: Backend> PendingStore for B {
    async fn remembered(&self, limit: u32) -> Result<Vec<Remembered>, StoreError> {
        const OPERATION: &str = "read what is remembered of the broker";
        let mut all: Vec<Remembered> = Vec::new();
        let mut below = None;
        // One look into the index for each bucket, however many jobs there are.
        while all.len() < usize::try_from(limit).unwrap_or(usize::MAX) {
            let statement = ["SELECT broker_epoch, broker_revision, broker_created_ns FROM job_digests
                 WHERE broker_epoch IS NOT NULL AND broker_epoch <= $1
                 ORDER BY broker_epoch DESC, broker_revision DESC LIMIT 1"];
            let read = |row: &<B::Connection as Connection>::Row| {
                Ok(Remembered {
                    epoch: number(row, "broker_epoch")?,
                    revision: number(row, "broker_revision")?,
                    created_ns: number(row, "broker_created_ns")?,
                })
            };
            let most = below.unwrap_or(i64::MAX.unsigned_abs());
            let Some(highest) = self.list(OPERATION, &statement, values![most], read).await?.pop() else {
                break;
            };
            if !all.iter().any(|known| known.created_ns == highest.created_ns) {
                all.push(highest);
            }
            match highest.epoch.checked_sub(1) {
                Some(next) => below = Some(next),
                None => break,
            }
        }
        Ok(all)
    }

    fn answering(&self, of: AnswersOf) -> Arc<dyn ShareStore> {
        Arc::new(self.with(Attached { answering: Some(Arc::new(of)), ..self.attached().clone() }))
    }

    async fn put_pending(&self, pending: &NewPending) -> Result<(), StoreError> {
        self.health().require_ready()?;
        self.health().judge(self.write_pending(pending).await)
    }

    async fn abandoned(&self, now_ms: u64, limit: u32) -> Result<Vec<PendingRow>, StoreError> {
        const OPERATION: &str = "look for what was left behind";
        let statement = [
            "SELECT ",
            PENDING,
            ", instance, written_at_ms FROM pending_verdicts ORDER BY written_at_ms LIMIT $1",
        ];
        Self::within(OPERATION, async {
            let written: Vec<Written> = self
                .list(OPERATION, &statement, values![limit], |row| {
                    Ok((pending_row(row)?, bytes(row, "instance")?, number(row, "written_at_ms")?))
                })
                .await?;
            let own = self.instance();
            let mut others: Vec<_> = written.iter().map(|(_, instance, _)| *instance).collect();
            others.sort_unstable();
            others.dedup();
            others.retain(|instance| *instance != own);
            let ended = self.ended(others).await?;
            let own_before = integer(now_ms).saturating_sub(OWN_PENDING_FOR_MS);
            let is_left = |(_, instance, at_ms): &Written| {
                let is_own_and_old = *instance == own && *at_ms <= own_before;
                is_own_and_old || ended.contains(instance)
            };
            Ok(written.into_iter().filter(is_left).map(|(row, ..)| row).collect())
        })
        .await
    }

    async fn count_unclean_start(&self) -> Result<u64, StoreError> {
        const OPERATION: &str = "count an unclean start";
        let failed = unavailable(OPERATION);
        Self::within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            transaction.take(NamedLock::Home, &[]).await.map_err(&failed)?;
            let before = read_setting(&mut *transaction, UNCLEAN_STARTS).await.map_err(&failed)?;
            let count = unclean_starts(before.as_deref()).saturating_add(1);
            write_setting(&mut *transaction, UNCLEAN_STARTS, &count.to_be_bytes()).await.map_err(&failed)?;
            transaction.commit().await.map_err(&failed)?;
            Ok(count)
        })
        .await
    }

    async fn unclean_starts(&self) -> Result<u64, StoreError> {
        Ok(unclean_starts(self.setting(UNCLEAN_STARTS).await?.as_deref()))
    }
}
