//! Paillier keys, whom they are agreed with, and their locks.

use async_trait::async_trait;
use duet_protocol::{
    ids::{CardFingerprint, PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId},
    transcript::sha256,
};

use super::records::{remove_pending_of_key, remove_record, try_lock, write_record};
use crate::{
    at_rest::{RecordKind, RecordLabel, SealedRecord},
    store::{
        Culprit, Gate, KeyStore, Lock, LockOutcome, OwnEnrolment, PaillierKeyRow, PaillierScope,
        PaillierState, Standing, StoreError, UnblamedLock, WalletRow,
        backend::Backend,
        columns::{
            OWN_ENROLMENT, PAILLIER_KEY, UNBLAMED_LOCK, WALLET, bytes, culprit, number, own_enrolment,
            paillier_row, standing, unavailable, unblamed_lock, wallet_row,
        },
        connection::{Connection, NamedLock, values},
        health::UnwrittenLock,
        keys::SUPERSEDED_FOR_MS,
    },
};

/// Removes a locked key, and what is pending under it.
pub(in crate::store) async fn destroy_key(
    connection: &mut impl Connection,
    key: PaillierKeyId,
) -> Result<(), sqlx::Error> {
    remove_pending_of_key(connection, key).await?;
    remove_record(connection, &RecordLabel::of_party(RecordKind::PaillierKey, key.as_bytes())).await
}

/// Counts the lock of a key for every wallet that was ever enrolled under it.
pub(in crate::store) async fn count_failure<C: Connection>(
    connection: &mut C,
    key: PaillierKeyId,
) -> Result<(), sqlx::Error> {
    // In the order of their ids, so that two locks at once do not wait for each other.
    let statement = [
        "UPDATE wallets SET failures = failures + 1 WHERE id IN (
           SELECT id FROM wallets WHERE id IN (SELECT wallet FROM enrolled_under WHERE paillier_key = $1)
           ORDER BY id",
        C::FOR_UPDATE,
        ")",
    ];
    connection.run(&statement, values![&key]).await.map(drop)
}

/// Finds how many locks a card caused, and the operator's word about it.
const STANDING: &str = "SELECT (SELECT COUNT(*) FROM paillier_keys WHERE locked_card = $1)
       + CASE WHEN EXISTS (SELECT 1 FROM suspects WHERE card = $1) THEN 1 ELSE 0 END AS locks,
       (SELECT COUNT(*) FROM accepted_culprits WHERE card = $1) AS accepted";

/// What this party thinks of a card, in the transaction it is given.
pub(in crate::store) async fn standing_of(
    connection: &mut impl Connection,
    card: CardFingerprint,
) -> Result<Standing, StoreError> {
    let row = connection.row(&[STANDING], values![&card]).await;
    let row = row.map_err(unavailable("look for a card's locks"))?;
    standing(&row.ok_or(StoreError::Corrupt("no standing"))?)
}

/// That a responder may have a wallet's share encrypted under a key, for good.
pub(in crate::store) async fn note_enrolled_under(
    connection: &mut impl Connection,
    wallet: WalletId,
    key: PaillierKeyId,
) -> Result<(), sqlx::Error> {
    connection
        .run(
            &["INSERT INTO enrolled_under (paillier_key, wallet) VALUES ($1, $2) ON CONFLICT DO NOTHING"],
            values![&key, &wallet],
        )
        .await
        .map(drop)
}

/// Stores a key unless it is known; whether it was not.
async fn insert_key<C: Connection>(
    connection: &mut C,
    id: PaillierKeyId,
    scope: &PaillierScope,
    record: &SealedRecord,
    state: PaillierState,
    now_ms: u64,
) -> Result<bool, sqlx::Error> {
    // Never over an existing key: its state, a lock perhaps, must survive a repetition.
    let statement = [
        "INSERT INTO paillier_keys (id, scope, state, created_at_ms, sequence) VALUES ($1, $2, $3, $4, ",
        C::NEXT_KEY,
        ") ON CONFLICT (id) DO NOTHING",
    ];
    let scope = scope.to_string();
    let values = values![&id, scope.as_str(), state, now_ms];
    if connection.run(&statement, values).await? == 0 {
        return Ok(false);
    }
    let label = RecordLabel::of_party(RecordKind::PaillierKey, id.as_bytes());
    write_record(connection, &label, record).await?;
    connection.raise_generation().await?;
    Ok(true)
}

/// Nothing uses the key: there is a newer one of its scope, and it is neither agreed nor offered.
const UNUSED: &str = "EXISTS (SELECT 1 FROM paillier_keys AS newer
        WHERE newer.scope = paillier_keys.scope AND newer.sequence > paillier_keys.sequence)
     AND NOT EXISTS (SELECT 1 FROM own_enrolments WHERE agreed = paillier_keys.id)
     AND NOT EXISTS (SELECT 1 FROM own_enrolments WHERE offered = paillier_keys.id)";

/// Deletes the keys that nothing uses any more, and says which.
async fn remove_superseded(
    connection: &mut impl Connection,
    now_ms: u64,
) -> Result<Vec<PaillierKeyId>, StoreError> {
    let failed = unavailable("remove superseded Paillier keys");
    // Nothing is written where nothing changes.
    let superseded = [
        "UPDATE paillier_keys SET superseded_at_ms = $1
         WHERE removed_at_ms IS NULL AND superseded_at_ms IS NULL AND ",
        UNUSED,
    ];
    connection.run(&superseded, values![now_ms]).await.map_err(&failed)?;
    let used_again = [
        "UPDATE paillier_keys SET superseded_at_ms = NULL
         WHERE removed_at_ms IS NULL AND superseded_at_ms IS NOT NULL AND NOT (",
        UNUSED,
        ")",
    ];
    connection.run(&used_again, values![]).await.map_err(&failed)?;
    let removable = connection
        .rows(
            &["SELECT id FROM paillier_keys
             WHERE removed_at_ms IS NULL AND superseded_at_ms <= $2 - $1
             AND NOT EXISTS (SELECT 1 FROM pending_verdicts WHERE paillier_key = paillier_keys.id)
             AND NOT EXISTS (
               SELECT 1 FROM sessions
               WHERE claimed_at_ms <= paillier_keys.superseded_at_ms + $1 AND expires_at_ms > $2)"],
            values![SUPERSEDED_FOR_MS, now_ms],
        )
        .await
        .map_err(&failed)?;
    let removable = removable.iter().map(|row| bytes(row, "id").map(PaillierKeyId));
    let removable = removable.collect::<Result<Vec<_>, _>>()?;
    for id in &removable {
        let label = RecordLabel::of_party(RecordKind::PaillierKey, id.as_bytes());
        remove_record(connection, &label).await.map_err(&failed)?;
        // The row stays, with its lock: the key cannot be brought back as a new one.
        connection
            .run(&["UPDATE paillier_keys SET removed_at_ms = $1 WHERE id = $2"], values![now_ms, id])
            .await
            .map_err(&failed)?;
    }
    Ok(removable)
}

/// Notes an agreement and that the wallet has one.
async fn write_agreement(
    connection: &mut impl Connection,
    wallet: WalletId,
    responder: &PartyId,
    key: PaillierKeyId,
) -> Result<(), sqlx::Error> {
    // A worker that was slow does not bring an older key back.
    connection
        .run(
            &["INSERT INTO own_enrolments AS own (wallet, responder, agreed) VALUES ($1, $2, $3)
             ON CONFLICT (wallet, responder) DO UPDATE SET
               agreed = CASE WHEN (SELECT sequence FROM paillier_keys WHERE id = own.agreed)
                                > (SELECT sequence FROM paillier_keys WHERE id = excluded.agreed)
                             THEN own.agreed ELSE excluded.agreed END,
               offered = CASE WHEN own.offered = excluded.agreed THEN NULL ELSE own.offered END"],
            values![&wallet, responder, &key],
        )
        .await?;
    note_enrolled_under(connection, wallet, key).await?;
    connection.run(&[MARK_ENROLLED], values![&wallet]).await.map(drop)
}

/// Notes that a wallet has agreed with a responder, or has none to agree with.
const MARK_ENROLLED: &str = "UPDATE wallets SET enrolled = 1 WHERE id = $1 AND enrolled = 0";

#[async_trait]
impl<B: Backend> KeyStore for B {
    async fn put_paillier_key(
        &self,
        id: PaillierKeyId,
        scope: &PaillierScope,
        record: &SealedRecord,
        state: PaillierState,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "store a Paillier key";
        let failed = unavailable(OPERATION);
        let is_new = Self::within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            let is_new =
                insert_key(&mut *transaction, id, scope, record, state, now_ms).await.map_err(&failed)?;
            if is_new {
                self.attached().append(&mut *transaction).await?;
            }
            transaction.commit().await.map_err(&failed)?;
            Ok(is_new)
        })
        .await?;
        if is_new { self.record_generation().await } else { Ok(()) }
    }

    async fn put_first_paillier_key(
        &self,
        id: PaillierKeyId,
        scope: &PaillierScope,
        record: &SealedRecord,
        now_ms: u64,
    ) -> Result<PaillierKeyRow, StoreError> {
        const OPERATION: &str = "store a first Paillier key";
        let failed = unavailable(OPERATION);
        let (row, is_new) = Self::within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            let name = scope.to_string();
            transaction.take(NamedLock::Scope, &sha256(name.as_bytes())).await.map_err(&failed)?;
            let statement = [
                "SELECT ",
                PAILLIER_KEY,
                " FROM paillier_keys WHERE scope = $1 AND removed_at_ms IS NULL
                 ORDER BY sequence DESC LIMIT 1",
            ];
            let known = transaction.row(&statement, values![name.as_str()]).await.map_err(&failed)?;
            if let Some(row) = known {
                return Ok((paillier_row(&row)?, false));
            }
            let state = PaillierState::Ready;
            if insert_key(&mut *transaction, id, scope, record, state, now_ms).await.map_err(&failed)? {
                self.attached().append(&mut *transaction).await?;
            }
            transaction.commit().await.map_err(&failed)?;
            Ok((PaillierKeyRow { id, scope: name, state }, true))
        })
        .await?;
        if is_new {
            self.record_generation().await?;
        }
        Ok(row)
    }

    async fn paillier_key(&self, id: PaillierKeyId) -> Result<Option<PaillierKeyRow>, StoreError> {
        let statement =
            ["SELECT ", PAILLIER_KEY, " FROM paillier_keys WHERE id = $1 AND removed_at_ms IS NULL"];
        self.find("read a Paillier key", &statement, values![&id], paillier_row).await
    }

    async fn paillier_keys(&self, scope: &PaillierScope) -> Result<Vec<PaillierKeyRow>, StoreError> {
        let statement = [
            "SELECT ",
            PAILLIER_KEY,
            " FROM paillier_keys WHERE scope = $1 AND removed_at_ms IS NULL ORDER BY sequence DESC",
        ];
        let scope = scope.to_string();
        self.list("list Paillier keys", &statement, values![scope.as_str()], paillier_row).await
    }

    async fn all_paillier_keys(&self) -> Result<Vec<PaillierKeyRow>, StoreError> {
        let statement = [
            "SELECT ",
            PAILLIER_KEY,
            " FROM paillier_keys WHERE removed_at_ms IS NULL ORDER BY sequence DESC",
        ];
        self.list("list Paillier keys", &statement, values![], paillier_row).await
    }

    async fn remove_superseded_keys(&self, now_ms: u64) -> Result<Vec<PaillierKeyId>, StoreError> {
        const OPERATION: &str = "remove superseded Paillier keys";
        let failed = unavailable(OPERATION);
        Self::within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            if !transaction.try_take(NamedLock::House).await.map_err(&failed)? {
                // Another worker is at it.
                return Ok(Vec::new());
            }
            let removed = remove_superseded(&mut *transaction, now_ms).await?;
            transaction.commit().await.map_err(&failed)?;
            Ok(removed)
        })
        .await
    }

    async fn offer_enrolment(
        &self,
        wallet: WalletId,
        responder: &PartyId,
        key: PaillierKeyId,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "note an offer";
        let failed = unavailable(OPERATION);
        Self::within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            transaction
                .run(
                    &["INSERT INTO own_enrolments (wallet, responder, offered) VALUES ($1, $2, $3)
                     ON CONFLICT (wallet, responder) DO UPDATE SET offered = excluded.offered"],
                    values![&wallet, responder, &key],
                )
                .await
                .map_err(&failed)?;
            note_enrolled_under(&mut *transaction, wallet, key).await.map_err(&failed)?;
            transaction.commit().await.map_err(&failed)
        })
        .await
    }

    async fn agree_enrolment(
        &self,
        wallet: WalletId,
        responder: &PartyId,
        key: PaillierKeyId,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "note an agreement";
        let failed = unavailable(OPERATION);
        Self::within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            write_agreement(&mut *transaction, wallet, responder, key).await.map_err(&failed)?;
            self.attached().append(&mut *transaction).await?;
            transaction.commit().await.map_err(&failed)
        })
        .await
    }

    async fn waive_enrolment(&self, wallet: WalletId) -> Result<(), StoreError> {
        self.execute("waive an enrolment", &[MARK_ENROLLED], values![&wallet]).await.map(drop)
    }

    async fn own_enrolment(&self, wallet: WalletId, responder: &PartyId) -> Result<OwnEnrolment, StoreError> {
        let statement =
            ["SELECT ", OWN_ENROLMENT, " FROM own_enrolments WHERE wallet = $1 AND responder = $2"];
        let values = values![&wallet, responder];
        Ok(self.find("read an agreement", &statement, values, own_enrolment).await?.unwrap_or_default())
    }

    async fn wallets_without_enrolment(
        &self,
        index: ShareIndex,
        limit: u32,
    ) -> Result<Vec<WalletId>, StoreError> {
        self.list(
            "list wallets without an enrolment",
            &["SELECT id FROM wallets WHERE commit_ack IS NOT NULL AND enrolled = 0 AND share_index = $1
             ORDER BY committed_at_ms LIMIT $2"],
            values![index, limit],
            |row| bytes(row, "id").map(WalletId),
        )
        .await
    }

    async fn lock_paillier_key(&self, lock: &Lock) -> Result<LockOutcome, StoreError> {
        let lock = UnwrittenLock { lock: lock.clone(), entry: self.attached().noted.clone() };
        let store = self.clone();
        self.health().lock(lock, |lock| async move { try_lock(&store, &lock).await }).await
    }

    async fn release_verdict(&self, key: PaillierKeyId, session: SessionId) -> Result<Gate, StoreError> {
        self.health().require_ready()?;
        let state = self.health().judge(self.write_verdict(key, session).await)?;
        // A lock may have failed to be written between the first look and the transaction.
        self.health().require_ready()?;
        match state {
            Some(PaillierState::Ready) => Ok(Gate::Open),
            Some(state) => Ok(Gate::Closed(state)),
            None => Err(StoreError::Corrupt("a Paillier key vanished")),
        }
    }

    async fn standing(&self, card: CardFingerprint) -> Result<Standing, StoreError> {
        let standing = self.find("look for a card's locks", &[STANDING], values![&card], standing).await?;
        Ok(standing.unwrap_or_default())
    }

    async fn culprits(&self) -> Result<Vec<Culprit>, StoreError> {
        self.list(
            "list culprits",
            &["SELECT blamed.card, COUNT(*) AS locks,
                    (SELECT COUNT(*) FROM accepted_culprits AS a WHERE a.card = blamed.card) AS accepted
             FROM (SELECT locked_card AS card FROM paillier_keys WHERE locked_card IS NOT NULL
                   UNION ALL SELECT DISTINCT card FROM suspects) AS blamed
             GROUP BY blamed.card ORDER BY blamed.card"],
            values![],
            culprit,
        )
        .await
    }

    async fn unblamed_locks(&self) -> Result<Vec<UnblamedLock>, StoreError> {
        let statement = [
            "SELECT ",
            UNBLAMED_LOCK,
            " FROM paillier_keys
             WHERE state = $1 AND locked_card IS NULL AND scope LIKE 'wallet/%'
               AND NOT EXISTS (SELECT 1 FROM suspects WHERE paillier_key = id)
             ORDER BY sequence",
        ];
        let values = values![PaillierState::Locked];
        self.list("list locks that blame no card", &statement, values, unblamed_lock).await
    }

    async fn blame(&self, key: PaillierKeyId, cards: &[CardFingerprint]) -> Result<(), StoreError> {
        const OPERATION: &str = "blame a card for a lock";
        let statement = match cards {
            [_] => {
                "UPDATE paillier_keys SET locked_card = $2
                 WHERE id = $1 AND state = $3 AND locked_card IS NULL"
            }
            _ => {
                "INSERT INTO suspects (paillier_key, card)
                 SELECT id, $2 FROM paillier_keys WHERE id = $1 AND state = $3 AND locked_card IS NULL
                 ON CONFLICT DO NOTHING"
            }
        };
        Self::within(OPERATION, async {
            let failed = unavailable(OPERATION);
            let mut transaction = self.begin(OPERATION).await?;
            for card in cards {
                let values = values![&key, card, PaillierState::Locked];
                transaction.run(&[statement], values).await.map_err(&failed)?;
            }
            transaction.commit().await.map_err(&failed)
        })
        .await
    }

    async fn accept_culprit(&self, card: CardFingerprint, now_ms: u64) -> Result<Standing, StoreError> {
        const OPERATION: &str = "accept a culprit";
        Self::within(OPERATION, async {
            let mut transaction = self.begin(OPERATION).await?;
            let standing = standing_of(&mut *transaction, card).await?;
            // Never ahead of the first lock, and never after the second.
            if standing.locks != 1 || standing.is_accepted {
                return Ok(standing);
            }
            let new = transaction
                .run(
                    &["INSERT INTO accepted_culprits (card, accepted_at_ms) VALUES ($1, $2)
                     ON CONFLICT (card) DO NOTHING"],
                    values![&card, now_ms],
                )
                .await
                .map_err(unavailable(OPERATION))?;
            if new > 0 {
                self.attached().append(&mut *transaction).await?;
            }
            // A lock that was written meanwhile counts: it is final.
            let standing = standing_of(&mut *transaction, card).await?;
            transaction.commit().await.map_err(unavailable(OPERATION))?;
            Ok(standing)
        })
        .await
    }

    async fn losses(&self, wallet: WalletId) -> Result<Vec<u64>, StoreError> {
        self.list(
            "list a wallet's locks",
            &["SELECT verdicts FROM paillier_keys JOIN enrolled_under ON paillier_key = id
             WHERE wallet = $1 AND state = $2 ORDER BY sequence"],
            values![&wallet, PaillierState::Locked],
            |row| number(row, "verdicts"),
        )
        .await
    }

    async fn failed_wallets(&self, limit: u32) -> Result<Vec<WalletRow>, StoreError> {
        let statement = [
            "SELECT ",
            WALLET,
            " FROM wallets WHERE commit_ack IS NOT NULL AND failures > 0
             ORDER BY failures DESC, id LIMIT $1",
        ];
        self.list("list wallets with failures", &statement, values![limit], wallet_row).await
    }
}
