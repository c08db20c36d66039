//! What the two databases' rows and columns have in common: both keep numbers as 64-bit integers,
//! names as text, and everything else as bytes.

use duet_protocol::ids::{CardFingerprint, Epoch, PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId};
use duet_wire::{
    audit::{ChainId, Record},
    policy::{SignedPolicy, Usage},
};
use sqlx::{ColumnIndex, Decode, Row, Type};

use super::{
    AuditChain, ChargedJob, Culprit, DealRow, EnrolmentRow, HeadRow, OwnEnrolment, PaillierKeyRow,
    PaillierScope, PaillierState, PendingRow, PolicyMark, PolicyRow, RequestFacts, Standing, StoreError,
    UnblamedLock, WalletRow, WalletState, moment,
};
use crate::at_rest::{RecordKind, RecordLabel};

/// A row of either database.
pub(super) trait Columns {
    fn number_at(&self, column: &str) -> Result<Option<i64>, sqlx::Error>;
    fn text_at(&self, column: &str) -> Result<String, sqlx::Error>;
    fn bytes_at(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error>;
}

impl<R> Columns for R
where
    R: Row,
    for<'a> &'a str: ColumnIndex<R>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    fn number_at(&self, column: &str) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(column)
    }

    fn text_at(&self, column: &str) -> Result<String, sqlx::Error> {
        self.try_get(column)
    }

    fn bytes_at(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
        self.try_get(column)
    }
}

pub(super) fn unavailable(operation: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| match source {
        sqlx::Error::Configuration(error) if error.is::<OtherKey>() => StoreError::KeyChanged,
        source => StoreError::Unavailable { operation, source: source.into() },
    }
}

/// A record was to be written that is sealed under another key than the store's; on its way out
/// through functions that otherwise fail as the database does.
#[derive(Debug, thiserror::Error)]
#[error("the record is sealed under another key than the store's")]
struct OtherKey;

/// That a record is sealed under another key than the store's.
pub(super) fn other_key() -> sqlx::Error {
    sqlx::Error::Configuration(OtherKey.into())
}

pub(super) const fn state_number(state: PaillierState) -> i64 {
    match state {
        PaillierState::Ready => 0,
        PaillierState::Locked => 1,
        PaillierState::NeedsRotation => 2,
    }
}

pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn blob(row: &impl Columns, column: &str) -> Result<Vec<u8>, StoreError> {
    row.bytes_at(column)
        .map_err(unavailable("read a row"))?
        .ok_or(StoreError::Corrupt("bytes that are missing"))
}

pub(super) fn bytes<const N: usize>(row: &impl Columns, column: &str) -> Result<[u8; N], StoreError> {
    blob(row, column)?.try_into().map_err(|_| StoreError::Corrupt("bytes of another length"))
}

pub(super) fn number<T: TryFrom<i64>>(row: &impl Columns, column: &str) -> Result<T, StoreError> {
    let value = row.number_at(column).map_err(unavailable("read a row"))?;
    let value = value.ok_or(StoreError::Corrupt("a number that is missing"))?;
    T::try_from(value).map_err(|_| StoreError::Corrupt("a number out of range"))
}

fn text(row: &impl Columns, column: &str) -> Result<String, StoreError> {
    row.text_at(column).map_err(unavailable("read a row"))
}

fn index(row: &impl Columns, column: &str) -> Result<ShareIndex, StoreError> {
    ShareIndex::try_from(number::<u8>(row, column)?).map_err(|_| StoreError::Corrupt("not a share index"))
}

pub(super) fn wallet_column(label: &RecordLabel) -> &[u8] {
    label.wallet.as_ref().map_or(&[], |wallet| wallet.as_bytes())
}

/// The share's index, or 0 for what belongs to no share.
pub(super) fn index_column(label: &RecordLabel) -> i64 {
    label.index.map_or(0, |index| i64::from(u8::from(index)))
}

pub(super) fn record_label(row: &impl Columns) -> Result<RecordLabel, StoreError> {
    let wallet = match blob(row, "wallet")?.len() {
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
        item: blob(row, "item")?,
    })
}

/// The columns of `wallets` that [`wallet_row`] reads.
pub(super) const WALLET: &str = "id, epoch, share_index, tenant, package_hash, receipt, commit_ack, failures";

pub(super) fn wallet_row(row: &impl Columns) -> Result<WalletRow, StoreError> {
    let commit_ack = row.bytes_at("commit_ack").map_err(unavailable("read a row"))?;
    Ok(WalletRow {
        id: WalletId(bytes(row, "id")?),
        epoch: Epoch(number(row, "epoch")?),
        index: index(row, "share_index")?,
        tenant: text(row, "tenant")?,
        state: if commit_ack.is_some() { WalletState::Committed } else { WalletState::Prepared },
        package_hash: bytes(row, "package_hash")?,
        receipt: blob(row, "receipt")?,
        commit_ack,
        failures: number(row, "failures")?,
    })
}

/// The columns of `enrolments` that [`enrolment_row`] reads.
pub(super) const ENROLMENT: &str = "wallet, initiator, paillier_key, epoch";

pub(super) fn enrolment_row(row: &impl Columns) -> Result<EnrolmentRow, StoreError> {
    Ok(EnrolmentRow {
        wallet: WalletId(bytes(row, "wallet")?),
        initiator: index(row, "initiator")?,
        paillier_key: PaillierKeyId(bytes(row, "paillier_key")?),
        epoch: Epoch(number(row, "epoch")?),
    })
}

/// The columns of `deals` that [`deal_row`] reads.
pub(super) const DEAL: &str = "wallet, restored";

pub(super) fn deal_row(row: &impl Columns) -> Result<DealRow, StoreError> {
    Ok(DealRow { wallet: WalletId(bytes(row, "wallet")?), restored: number::<u8>(row, "restored")? != 0 })
}

/// The columns of `paillier_keys` that [`paillier_row`] reads.
pub(super) const PAILLIER_KEY: &str = "id, scope, state";

pub(super) fn paillier_row(row: &impl Columns) -> Result<PaillierKeyRow, StoreError> {
    Ok(PaillierKeyRow {
        id: PaillierKeyId(bytes(row, "id")?),
        scope: text(row, "scope")?,
        state: paillier_state(row)?,
    })
}

pub(super) fn paillier_state(row: &impl Columns) -> Result<PaillierState, StoreError> {
    match number::<u8>(row, "state")? {
        0 => Ok(PaillierState::Ready),
        1 => Ok(PaillierState::Locked),
        2 => Ok(PaillierState::NeedsRotation),
        _ => Err(StoreError::Corrupt("not a Paillier key's state")),
    }
}

/// The columns of `pending_verdicts` that [`pending_row`] reads.
pub(super) const PENDING: &str = "session, paillier_key";

pub(super) fn pending_row(row: &impl Columns) -> Result<PendingRow, StoreError> {
    Ok(PendingRow {
        session: SessionId(bytes(row, "session")?),
        key: PaillierKeyId(bytes(row, "paillier_key")?),
    })
}

/// The columns of `paillier_keys` that [`unblamed_lock`] reads.
pub(super) const UNBLAMED_LOCK: &str = "id, scope, locked_evidence";

/// A locked key of a device, with its evidence.
pub(super) fn unblamed_lock(row: &impl Columns) -> Result<UnblamedLock, StoreError> {
    let Some(PaillierScope::Wallet(wallet)) = PaillierScope::parse(&text(row, "scope")?) else {
        return Err(StoreError::Corrupt("a device's key that is no wallet's"));
    };
    let evidence = row.bytes_at("locked_evidence").map_err(unavailable("read a row"))?;
    Ok(UnblamedLock { key: PaillierKeyId(bytes(row, "id")?), wallet, evidence })
}

/// A card with the number of locks it caused and of the operator's words about it.
pub(super) fn culprit(row: &impl Columns) -> Result<Culprit, StoreError> {
    Ok(Culprit { card: card(row)?, standing: standing(row)? })
}

pub(super) fn standing(row: &impl Columns) -> Result<Standing, StoreError> {
    Ok(Standing { locks: number(row, "locks")?, is_accepted: number::<u32>(row, "accepted")? > 0 })
}

/// The columns of `own_enrolments` that [`own_enrolment`] reads.
pub(super) const OWN_ENROLMENT: &str = "agreed, offered";

pub(super) fn own_enrolment(row: &impl Columns) -> Result<OwnEnrolment, StoreError> {
    let key = |column| {
        let value = row.bytes_at(column).map_err(unavailable("read a row"))?;
        value
            .map(|value| value.try_into().map(PaillierKeyId))
            .transpose()
            .map_err(|_| StoreError::Corrupt("a key id of another length"))
    };
    Ok(OwnEnrolment { agreed: key("agreed")?, offered: key("offered")? })
}

/// The columns of `audit_records` that [`audit_record`] reads.
pub(super) const AUDIT_RECORD: &str = "sequence, previous, body";

pub(super) fn audit_record(row: &impl Columns, chain: ChainId) -> Result<Record, StoreError> {
    Ok(Record {
        chain,
        sequence: number(row, "sequence")?,
        previous: bytes(row, "previous")?,
        body: text(row, "body")?.into_bytes(),
    })
}

/// The columns of `audit_chains AS c` and `audit_records AS r` that [`audit_chain`] reads.
pub(super) const AUDIT_CHAIN: &str = "c.id, c.closed, c.shipped, r.sequence, r.at_ms, r.previous, r.body";

/// The chain whose row joined with its newest record's is `row`.
pub(super) fn audit_chain(row: &impl Columns) -> Result<AuditChain, StoreError> {
    Ok(AuditChain {
        head: audit_record(row, ChainId(bytes(row, "id")?))?.position(),
        head_at_ms: number(row, "at_ms")?,
        closed: number::<u8>(row, "closed")? != 0,
        shipped: number(row, "shipped")?,
    })
}

/// The columns of `policies` that [`policy_row`] reads.
pub(super) const POLICY: &str = "revision, effective_at_ms, body, signature";

pub(super) fn policy_row(row: &impl Columns) -> Result<PolicyRow, StoreError> {
    Ok(PolicyRow {
        revision: number(row, "revision")?,
        effective_at_ms: number(row, "effective_at_ms")?,
        signed: SignedPolicy { body: text(row, "body")?.into_bytes(), signature: bytes(row, "signature")? },
    })
}

/// The newest policy of the wallet that it is joined to, if it has one.
pub(super) fn policy_mark(row: &impl Columns) -> Result<Option<PolicyMark>, StoreError> {
    if row.number_at("policy_revision").map_err(unavailable("read a row"))?.is_none() {
        return Ok(None);
    }
    Ok(Some(PolicyMark {
        revision: number(row, "policy_revision")?,
        effective_at_ms: number(row, "policy_effective_at_ms")?,
        signature: bytes(row, "policy_signature")?,
    }))
}

/// A part of a limit's time, and what was spent in it.
pub(super) fn usage_row(row: &impl Columns) -> Result<(u64, Usage), StoreError> {
    let usage = Usage { value: bytes(row, "value")?, signatures: number(row, "signatures")? };
    Ok((number(row, "slice")?, usage))
}

pub(super) fn request_facts(row: &impl Columns) -> Result<RequestFacts, StoreError> {
    let restored_at = row.bytes_at("restored_at").map_err(unavailable("read a row"))?;
    let is_charged = row.bytes_at("job_signs").map_err(unavailable("read a row"))?.is_some();
    let charged = || {
        let charged_at_ms = number(row, "job_charged_at_ms")?;
        Ok(ChargedJob { signs: bytes(row, "job_signs")?, charged_at_ms })
    };
    Ok(RequestFacts {
        is_revoked: number::<i64>(row, "is_revoked")? > 0,
        restored_at_ms: restored_at.as_deref().map(moment).transpose()?,
        charged: is_charged.then(charged).transpose()?,
    })
}

/// The card in the column `card`.
pub(super) fn card(row: &impl Columns) -> Result<CardFingerprint, StoreError> {
    bytes(row, "card").map(CardFingerprint)
}

/// The columns of `pins` that [`pin_row`] reads.
pub(super) const PIN: &str = "party, card";

/// Who has which card.
pub(super) fn pin_row(row: &impl Columns) -> Result<(PartyId, CardFingerprint), StoreError> {
    let party = text(row, "party")?.parse().map_err(|_| StoreError::Corrupt("not a party's name"))?;
    Ok((party, card(row)?))
}

/// The columns of `witness_heads` that [`head_row`] reads.
pub(super) const HEAD: &str = "chain, sequence, head";

/// A head that `writer` signed.
pub(super) fn head_row(row: &impl Columns, writer: &PartyId) -> Result<HeadRow, StoreError> {
    Ok(HeadRow {
        writer: writer.clone(),
        chain: ChainId(bytes(row, "chain")?),
        sequence: number(row, "sequence")?,
        head: blob(row, "head")?,
    })
}
