//! Wallets, pins, the enrolments of their initiators, unfinished key generations.

use std::collections::BTreeMap;

use async_trait::async_trait;
use duet_protocol::ids::{CardFingerprint, PartyId, WalletId};

use super::records::{remove_record, write_record};
use crate::{
    at_rest::{RecordKind, SealedRecord},
    store::{
        CommitOutcome, DealRow, EnrolmentRow, NewWallet, PinOutcome, PrepareOutcome, StoreError, WalletRow,
        WalletStore,
        backend::Backend,
        columns::{
            DEAL, ENROLMENT, PIN, WALLET, bytes, card, deal_row, enrolment_row, integer, number, pin_row,
            unavailable, wallet_row,
        },
        connection::{Connection, NamedLock, values},
        deal_label, enrolment_label,
        pending::ANSWERS_KEPT_FOR_MS,
        sessions::{CHARGES_KEPT_FOR_MS, REMOVED_AT_ONCE, SESSIONS_KEPT_FOR_MS},
    },
};

/// How many enrolments of an initiator are kept for a wallet.
const KEPT_ENROLMENTS: usize = 2;

async fn write_enrolment<C: Connection>(
    connection: &mut C,
    row: &EnrolmentRow,
    now_ms: u64,
) -> Result<(), sqlx::Error> {
    let statement = [
        "INSERT INTO enrolments (wallet, initiator, paillier_key, epoch, added_at_ms, sequence)
         VALUES ($1, $2, $3, $4, $5, ",
        C::NEXT_ENROLMENT,
        ")
         ON CONFLICT (wallet, initiator, paillier_key)
         DO UPDATE SET sequence = excluded.sequence, epoch = excluded.epoch",
    ];
    let values = values![&row.wallet, row.initiator, &row.paillier_key, row.epoch, now_ms];
    connection.run(&statement, values).await.map(drop)
}

async fn read_wallet(
    connection: &mut impl Connection,
    id: WalletId,
    lock: &'static str,
) -> Result<Option<WalletRow>, StoreError> {
    let statement = ["SELECT ", WALLET, " FROM wallets WHERE id = $1", lock];
    let row = connection.row(&statement, values![&id]).await.map_err(unavailable("read a wallet"))?;
    row.as_ref().map(wallet_row).transpose()
}

/// Stores a wallet that is not there, with its records and enrolments.
pub(in crate::store) async fn insert_wallet(
    connection: &mut impl Connection,
    wallet: &NewWallet,
) -> Result<(), sqlx::Error> {
    let token = wallet.admission.as_ref().map(|admission| admission.token.as_slice());
    connection
        .run(
            &["INSERT INTO wallets (id, epoch, share_index, tenant, public_key, package_hash, receipt, token,
               prepared_at_ms, expires_at_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"],
            values![
                &wallet.id,
                wallet.epoch,
                wallet.index,
                wallet.tenant.as_str(),
                &wallet.public_key,
                &wallet.package_hash,
                wallet.receipt.as_slice(),
                token,
                wallet.prepared_at_ms,
                wallet.expires_at_ms,
            ],
        )
        .await?;
    for (label, record) in &wallet.records {
        write_record(connection, label, record).await?;
    }
    for enrolment in &wallet.enrolments {
        write_enrolment(connection, enrolment, wallet.prepared_at_ms).await?;
    }
    Ok(())
}

/// Prepares a wallet in the transaction it is given.
async fn prepare(connection: &mut impl Connection, wallet: &NewWallet) -> Result<PrepareOutcome, StoreError> {
    let failed = unavailable("prepare a wallet");
    // Always the wallet's lock before the key's, and that before the token's, so that no
    // transactions wait in a circle.
    connection.take(NamedLock::Wallet, wallet.id.as_bytes()).await.map_err(&failed)?;
    if let Some(row) = read_wallet(connection, wallet.id, "").await? {
        return Ok(if row.package_hash == wallet.package_hash {
            PrepareOutcome::Already(row)
        } else {
            PrepareOutcome::Conflict
        });
    }
    connection.take(NamedLock::PublicKey, &wallet.public_key).await.map_err(&failed)?;
    let of_the_key = "SELECT id FROM wallets WHERE public_key = $1 LIMIT 1";
    if connection.row(&[of_the_key], values![&wallet.public_key]).await.map_err(&failed)?.is_some() {
        return Ok(PrepareOutcome::SameKey);
    }
    if let Some(admission) = wallet.admission {
        connection.take(NamedLock::Token, &admission.token).await.map_err(&failed)?;
        let statement = ["SELECT COUNT(*) AS count FROM wallets WHERE token = $1"];
        let used = connection.count(&statement, values![&admission.token]).await.map_err(&failed)?;
        if used >= i64::from(admission.max_wallets) {
            return Ok(PrepareOutcome::QuotaExceeded);
        }
    }
    insert_wallet(connection, wallet).await.map_err(&failed)?;
    Ok(PrepareOutcome::Prepared)
}

pub(in crate::store) async fn mark_committed(
    connection: &mut impl Connection,
    id: WalletId,
    commit_ack: &[u8],
    now_ms: u64,
) -> Result<(), sqlx::Error> {
    connection
        .run(
            &["UPDATE wallets SET commit_ack = $1, committed_at_ms = $2,
               enrolled = CASE WHEN EXISTS (SELECT 1 FROM own_enrolments WHERE wallet = $3 AND agreed IS NOT NULL)
                               THEN 1 ELSE 0 END
             WHERE id = $3"],
            values![commit_ack, now_ms, &id],
        )
        .await?;
    remove_records(connection, RecordKind::Prepared, id).await
}

/// Removes a wallet's records of one kind. The kind is named because SQLite has the records in
/// order of their kinds first.
async fn remove_records(
    connection: &mut impl Connection,
    kind: RecordKind,
    wallet: WalletId,
) -> Result<(), sqlx::Error> {
    let statement = ["DELETE FROM records WHERE kind = $1 AND wallet = $2"];
    connection.run(&statement, values![kind as i64, &wallet]).await.map(drop)
}

/// Commits a wallet in the transaction it is given.
async fn commit<C: Connection>(
    connection: &mut C,
    id: WalletId,
    commit_ack: &[u8],
    now_ms: u64,
) -> Result<CommitOutcome, StoreError> {
    match read_wallet(connection, id, C::FOR_UPDATE).await? {
        None => return Ok(CommitOutcome::Unknown),
        Some(WalletRow { commit_ack: Some(ack), .. }) => return Ok(CommitOutcome::Already(ack)),
        Some(WalletRow { commit_ack: None, .. }) => {}
    }
    mark_committed(connection, id, commit_ack, now_ms).await.map_err(unavailable("commit a wallet"))?;
    Ok(CommitOutcome::Committed)
}

/// Remove the oldest charges and what goes with them, up to a number of each.
const REMOVE_OLD_CHARGES: [&str; 3] = [
    "DELETE FROM job_digests WHERE job IN
       (SELECT job FROM job_digests WHERE expires_at_ms <= $1 ORDER BY expires_at_ms LIMIT $2)",
    "DELETE FROM charges WHERE session IN
       (SELECT session FROM charges WHERE charged_at_ms <= $1 ORDER BY charged_at_ms LIMIT $2)",
    "DELETE FROM policy_digests WHERE (wallet, digest) IN
       (SELECT wallet, digest FROM policy_digests WHERE charged_at_ms <= $1 ORDER BY charged_at_ms LIMIT $2)",
];

/// Forgets what expired; how many wallets.
async fn expire<C: Connection>(connection: &mut C, now_ms: u64) -> Result<u64, StoreError> {
    let failed = unavailable("expire prepared wallets");
    // A wallet that is being committed at this moment is not expired.
    let statement =
        ["SELECT id FROM wallets WHERE commit_ack IS NULL AND expires_at_ms <= $1", C::FOR_UPDATE_IF_FREE];
    let expired = connection.rows(&statement, values![now_ms]).await.map_err(&failed)?;
    for row in &expired {
        let id = WalletId(bytes(row, "id")?);
        // The kinds that a preparation stores.
        for kind in [RecordKind::Share, RecordKind::Enrolment, RecordKind::Prepared] {
            remove_records(connection, kind, id).await.map_err(&failed)?;
        }
        for statement in ["DELETE FROM enrolments WHERE wallet = $1", "DELETE FROM wallets WHERE id = $1"] {
            connection.run(&[statement], values![&id]).await.map_err(&failed)?;
        }
    }
    // Expired manifests are refused before their session id is looked at, and expired requests
    // before their answers are counted.
    for (statement, kept_for_ms) in [
        ("DELETE FROM sessions WHERE expires_at_ms <= $1", SESSIONS_KEPT_FOR_MS),
        ("DELETE FROM answers WHERE expires_at_ms <= $1", ANSWERS_KEPT_FOR_MS),
    ] {
        let before = integer(now_ms).saturating_sub(kept_for_ms);
        connection.run(&[statement], values![before]).await.map_err(&failed)?;
    }
    let before = integer(now_ms).saturating_sub(CHARGES_KEPT_FOR_MS);
    for statement in REMOVE_OLD_CHARGES {
        connection.run(&[statement], values![before, REMOVED_AT_ONCE]).await.map_err(&failed)?;
    }
    Ok(expired.len() as u64)
}

/// Stores an enrolment and forgets all of its initiator but the newest.
async fn replace_enrolment(
    connection: &mut impl Connection,
    row: &EnrolmentRow,
    record: &SealedRecord,
    now_ms: u64,
) -> Result<(), StoreError> {
    let failed = unavailable("store an enrolment");
    connection.take(NamedLock::Wallet, row.wallet.as_bytes()).await.map_err(&failed)?;
    write_record(connection, &enrolment_label(row), record).await.map_err(&failed)?;
    write_enrolment(connection, row, now_ms).await.map_err(&failed)?;
    let statement = [
        "SELECT ",
        ENROLMENT,
        " FROM enrolments WHERE wallet = $1 AND initiator = $2 ORDER BY sequence DESC",
    ];
    let held = connection.rows(&statement, values![&row.wallet, row.initiator]).await.map_err(&failed)?;
    for old in held.iter().skip(KEPT_ENROLMENTS) {
        let old = enrolment_row(old)?;
        remove_record(connection, &enrolment_label(&old)).await.map_err(&failed)?;
        connection
            .run(
                &["DELETE FROM enrolments WHERE wallet = $1 AND initiator = $2 AND paillier_key = $3"],
                values![&old.wallet, old.initiator, &old.paillier_key],
            )
            .await
            .map_err(&failed)?;
    }
    Ok(())
}

/// Pins a card in the transaction it is given, unless another is pinned.
async fn pin(
    connection: &mut impl Connection,
    party: &PartyId,
    pinned: CardFingerprint,
) -> Result<PinOutcome, StoreError> {
    let failed = unavailable("pin a card");
    let statement = ["INSERT INTO pins (party, card) VALUES ($1, $2) ON CONFLICT (party) DO NOTHING"];
    if connection.run(&statement, values![party, &pinned]).await.map_err(&failed)? == 1 {
        return Ok(PinOutcome::Pinned);
    }
    // Pins are never removed.
    let row = connection.row(&[PINNED_CARD], values![party]).await.map_err(&failed)?;
    let before = card(&row.ok_or(StoreError::Corrupt("a pin that is not there"))?)?;
    Ok(if before == pinned { PinOutcome::Same } else { PinOutcome::Different(before) })
}

/// Finds the card that is pinned of a party.
const PINNED_CARD: &str = "SELECT card FROM pins WHERE party = $1";

#[async_trait]
impl<B: Backend> WalletStore for B {
    async fn pin_card(&self, party: &PartyId, card: CardFingerprint) -> Result<PinOutcome, StoreError> {
        const OPERATION: &str = "pin a card";
        Self::within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            let outcome = pin(&mut *transaction, party, card).await?;
            if outcome == PinOutcome::Pinned {
                self.attached().append(&mut *transaction).await?;
            }
            transaction.commit().await.map_err(unavailable(OPERATION))?;
            Ok(outcome)
        })
        .await
    }

    async fn pinned_card(&self, party: &PartyId) -> Result<Option<CardFingerprint>, StoreError> {
        self.find("read a pin", &[PINNED_CARD], values![party], card).await
    }

    async fn pins(&self) -> Result<BTreeMap<PartyId, CardFingerprint>, StoreError> {
        let statement = ["SELECT ", PIN, " FROM pins"];
        Ok(self.list("list pins", &statement, values![], pin_row).await?.into_iter().collect())
    }

    async fn wallets_without_public_key(&self, limit: u32) -> Result<Vec<WalletRow>, StoreError> {
        let statement = ["SELECT ", WALLET, " FROM wallets WHERE public_key IS NULL ORDER BY id LIMIT $1"];
        self.list("list wallets", &statement, values![limit], wallet_row).await
    }

    async fn note_public_key(&self, id: WalletId, public_key: [u8; 33]) -> Result<(), StoreError> {
        let statement = ["UPDATE wallets SET public_key = $1 WHERE id = $2 AND public_key IS NULL"];
        self.execute("note a public key", &statement, values![&public_key, &id]).await.map(drop)
    }

    async fn prepare_wallet(&self, wallet: &NewWallet) -> Result<PrepareOutcome, StoreError> {
        const OPERATION: &str = "prepare a wallet";
        Self::within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            let outcome = prepare(&mut *transaction, wallet).await?;
            if outcome == PrepareOutcome::Prepared {
                self.attached().append(&mut *transaction).await?;
            }
            transaction.commit().await.map_err(unavailable(OPERATION))?;
            Ok(outcome)
        })
        .await
    }

    async fn commit_wallet(
        &self,
        id: WalletId,
        commit_ack: &[u8],
        now_ms: u64,
    ) -> Result<CommitOutcome, StoreError> {
        const OPERATION: &str = "commit a wallet";
        Self::within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            let outcome = commit(&mut *transaction, id, commit_ack, now_ms).await?;
            if outcome == CommitOutcome::Committed {
                self.attached().append(&mut *transaction).await?;
            }
            transaction.commit().await.map_err(unavailable(OPERATION))?;
            Ok(outcome)
        })
        .await
    }

    async fn wallet(&self, id: WalletId) -> Result<Option<WalletRow>, StoreError> {
        let statement = ["SELECT ", WALLET, " FROM wallets WHERE id = $1"];
        self.find("read a wallet", &statement, values![&id], wallet_row).await
    }

    async fn wallets(&self, after: Option<WalletId>, limit: u32) -> Result<Vec<WalletRow>, StoreError> {
        let after = after.as_ref().map_or(&[][..], |id| id.as_bytes().as_slice());
        let statement = [
            "SELECT ",
            WALLET,
            " FROM wallets WHERE commit_ack IS NOT NULL AND id > $1 ORDER BY id LIMIT $2",
        ];
        self.list("list wallets", &statement, values![after, limit], wallet_row).await
    }

    async fn count_wallets(&self) -> Result<u64, StoreError> {
        let statement = ["SELECT COUNT(*) AS count FROM wallets WHERE commit_ack IS NOT NULL"];
        let count = self.find("count wallets", &statement, values![], |row| number(row, "count")).await?;
        Ok(count.unwrap_or_default())
    }

    async fn expire_prepared(&self, now_ms: u64) -> Result<u64, StoreError> {
        const OPERATION: &str = "expire prepared wallets";
        let failed = unavailable(OPERATION);
        Self::within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            if !transaction.try_take(NamedLock::House).await.map_err(&failed)? {
                // Another worker is at it.
                return Ok(0);
            }
            let expired = expire(&mut *transaction, now_ms).await?;
            transaction.commit().await.map_err(&failed)?;
            Ok(expired)
        })
        .await
    }

    async fn put_enrolment(
        &self,
        row: &EnrolmentRow,
        record: &SealedRecord,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "store an enrolment";
        Self::within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            replace_enrolment(&mut *transaction, row, record, now_ms).await?;
            self.attached().append(&mut *transaction).await?;
            transaction.commit().await.map_err(unavailable(OPERATION))
        })
        .await
    }

    async fn enrolments(&self, wallet: WalletId) -> Result<Vec<EnrolmentRow>, StoreError> {
        let statement = ["SELECT ", ENROLMENT, " FROM enrolments WHERE wallet = $1 ORDER BY sequence DESC"];
        self.list("list enrolments", &statement, values![&wallet], enrolment_row).await
    }

    async fn put_deal(&self, wallet: WalletId, record: &SealedRecord, now_ms: u64) -> Result<(), StoreError> {
        const OPERATION: &str = "store a key generation";
        let failed = unavailable(OPERATION);
        Self::within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            write_record(&mut *transaction, &deal_label(wallet), record).await.map_err(&failed)?;
            transaction
                .run(
                    &["INSERT INTO deals (wallet, created_at_ms) VALUES ($1, $2) ON CONFLICT (wallet) DO NOTHING"],
                    values![&wallet, now_ms],
                )
                .await
                .map_err(&failed)?;
            transaction.commit().await.map_err(&failed)
        })
        .await
    }

    async fn deals(&self) -> Result<Vec<DealRow>, StoreError> {
        let statement = ["SELECT ", DEAL, " FROM deals ORDER BY created_at_ms"];
        self.list("list key generations", &statement, values![], deal_row).await
    }

    async fn remove_deal(&self, wallet: WalletId) -> Result<(), StoreError> {
        const OPERATION: &str = "forget a key generation";
        let failed = unavailable(OPERATION);
        Self::within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            remove_record(&mut *transaction, &deal_label(wallet)).await.map_err(&failed)?;
            transaction
                .run(&["DELETE FROM deals WHERE wallet = $1"], values![&wallet])
                .await
                .map_err(&failed)?;
            transaction.commit().await.map_err(&failed)
        })
        .await
    }
}
