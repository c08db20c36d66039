//! Sessions, charges and revocations.

use async_trait::async_trait;
use duet_protocol::ids::{SessionId, WalletId};
use duet_wire::JobId;

use crate::store::{
    Charge, MAX_REVOCATIONS, RESTORED_AT, RequestFacts, Revoked, RevokedRequest, SessionStore, StoreError,
    backend::{Backend, Claim},
    columns::{number, request_facts, unavailable},
    connection::{Connection, NamedLock, values},
};

/// Keeps a revocation in the transaction it is given.
async fn revoke(
    connection: &mut impl Connection,
    revoked: &RevokedRequest,
    now_ms: u64,
) -> Result<Revoked, sqlx::Error> {
    // A charge of the wallet comes before this or finds it.
    connection.take(NamedLock::Policy, revoked.wallet.as_bytes()).await?;
    connection
        .run(
            &["DELETE FROM revocations WHERE wallet = $1 AND expires_at_ms <= $2"],
            values![&revoked.wallet, now_ms],
        )
        .await?;
    let statement = ["SELECT COUNT(*) AS count FROM revocations WHERE wallet = $1"];
    if connection.count(&statement, values![&revoked.wallet]).await? >= MAX_REVOCATIONS {
        return Ok(Revoked::Full);
    }
    let new = connection
        .run(
            &["INSERT INTO revocations (wallet, request, revoked_by, expires_at_ms) VALUES ($1, $2, $3, $4)
             ON CONFLICT (wallet, request) DO NOTHING"],
            values![&revoked.wallet, &revoked.request, &revoked.by, revoked.expires_at_ms],
        )
        .await?;
    Ok(if new == 1 { Revoked::Now } else { Revoked::Before })
}

#[async_trait]
impl<B: Backend> SessionStore for B {
    async fn claim_session(
        &self,
        session: SessionId,
        wallet: WalletId,
        expires_at_ms: u64,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        let claim = Claim { session, wallet, expires_at_ms, now_ms };
        self.health().judge(self.write_claim(&claim).await)
    }

    async fn charge(&self, charge: &Charge) -> Result<bool, StoreError> {
        self.health().judge(self.write_charge(charge).await)
    }

    async fn revoke_request(&self, revoked: &RevokedRequest, now_ms: u64) -> Result<Revoked, StoreError> {
        const OPERATION: &str = "keep a revocation";
        Self::within(OPERATION, async {
            let failed = unavailable(OPERATION);
            let mut transaction = self.begin(OPERATION).await?;
            let outcome = revoke(&mut *transaction, revoked, now_ms).await.map_err(&failed)?;
            if outcome == Revoked::Full {
                return Ok(outcome);
            }
            if outcome == Revoked::Now {
                self.attached().append(&mut *transaction).await?;
            }
            transaction.commit().await.map_err(&failed)?;
            Ok(outcome)
        })
        .await
    }

    async fn request_facts(
        &self,
        wallet: WalletId,
        request: [u8; 32],
        job: JobId,
    ) -> Result<RequestFacts, StoreError> {
        let statement =
            ["SELECT (SELECT COUNT(*) FROM revocations WHERE wallet = $1 AND request = $2) AS is_revoked,
               (SELECT value FROM settings WHERE name = $3) AS restored_at,
               (SELECT signs FROM job_digests WHERE job = $4) AS job_signs,
               (SELECT charged_at_ms FROM job_digests WHERE job = $4) AS job_charged_at_ms"];
        let values = values![&wallet, &request, RESTORED_AT, job.as_bytes()];
        let facts = self.find("read what bears on a request", &statement, values, request_facts);
        Ok(facts.await?.unwrap_or_default())
    }

    async fn charges(&self, wallet: WalletId, digest: [u8; 32]) -> Result<u64, StoreError> {
        let statement = ["SELECT COUNT(*) AS count FROM charges WHERE wallet = $1 AND digest = $2"];
        let values = values![&wallet, &digest];
        let count = self.find("count charges", &statement, values, |row| number(row, "count"));
        Ok(count.await?.unwrap_or_default())
    }
}
