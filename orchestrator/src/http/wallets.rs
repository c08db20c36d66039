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
    let wallets: Vec<WalletView> = facts.iter().filter_map(|facts| facts.view(&tenant)).collect();
    let next = wallets.last().map(|wallet| wallet.id).filter(|_| more);
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
    facts.view(&tenant).map(Json).ok_or_else(|| unknown_wallet().into())
}
