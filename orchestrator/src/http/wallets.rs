//! The tenant's wallets.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use duet_protocol::ids::WalletId;
use duet_queue::intake::unknown_wallet;
use duet_wire::Code;

use super::{ApiError, Caller, PageParameters};
use crate::{
    api::{WalletPage, WalletView},
    orchestrator::Orchestrator,
    wallet_facts::disputed,
};

/// How many wallets a page has by default.
pub(super) const DEFAULT_PAGE: usize = 50;

/// How many wallets a page has at most.
pub(super) const MAX_PAGE: usize = 200;

/// `GET /v1/wallets`
pub(super) async fn list(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    PageParameters { after, limit }: PageParameters,
) -> Result<Json<WalletPage>, ApiError> {
    let after: Option<WalletId> = after
        .map(|text| text.parse())
        .transpose()
        .map_err(|_| ApiError::new(Code::MalformedJson, "after: expected a wallet's id"))?;
    let limit = limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
    let (facts, more) = orchestrator.directory.list(&tenant, after, limit).await?;
    let all: Vec<_> = facts.iter().filter_map(|facts| Some((facts, facts.view(&tenant)?))).collect();
    let next = all.last().map(|(_, wallet)| wallet.id).filter(|_| more);
    // The address of a disputed wallet would be what the first of its parties chose.
    let undisputed = all.into_iter().filter(|(facts, _)| facts.is_undisputed());
    let wallets: Vec<WalletView> = undisputed.map(|(_, wallet)| wallet).collect();
    Ok(Json(WalletPage { wallets, next }))
}

/// `GET /v1/wallets/{id}`
pub(super) async fn show(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
) -> Result<Json<WalletView>, ApiError> {
    let wallet: WalletId = id.parse().map_err(|_| ApiError::from(unknown_wallet()))?;
    // Fetched anew: a client that looks at one wallet wants its current state.
    let facts = orchestrator.directory.refresh(wallet).await;
    if let Some(refusal) = facts.silence() {
        return Err(refusal.clone().into());
    }
    let view = facts.view(&tenant).ok_or_else(unknown_wallet)?;
    // Its address would be what the first of them chose.
    if !facts.is_undisputed() {
        return Err(disputed().into());
    }
    Ok(Json(view))
}
