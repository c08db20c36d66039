//! The accounts of a tenant's wallets.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
};
use duet_protocol::{
    ids::WalletId,
    public_key::{DerivationPath, InvalidPublicKey, MAX_INDEX},
};
use duet_queue::intake::unknown_wallet;
use duet_wire::{Code, Refusal};
use serde::Deserialize;

use super::{ApiError, Caller, bad_query};
use crate::{
    accounts,
    api::{AddressPage, XpubView},
    orchestrator::Orchestrator,
};

/// How many accounts a page has by default.
pub(super) const DEFAULT_PAGE: usize = 50;

/// How many accounts a page has at most: some 20 ms of arithmetic.
pub(super) const MAX_PAGE: usize = 200;

/// The query of a page of accounts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AddressParameters {
    path: Option<String>,
    from: Option<u64>,
    limit: Option<usize>,
}

/// The query of an extended public key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct XpubParameters {
    path: Option<String>,
}

/// `GET /v1/wallets/{id}/addresses`
pub(super) async fn addresses(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
    query: Result<Query<AddressParameters>, QueryRejection>,
) -> Result<Json<AddressPage>, ApiError> {
    let takes = "path, or from and limit";
    let Query(AddressParameters { path, from, limit }) = query.map_err(|_| bad_query(takes))?;
    if path.is_some() && (from.is_some() || limit.is_some()) {
        return Err(bad_query(takes));
    }
    let path = path.as_deref().map(parse).transpose()?;
    let from = u32::try_from(from.unwrap_or(0)).ok().filter(|from| *from <= MAX_INDEX).ok_or_else(|| {
        ApiError::new(Code::MalformedJson, format!("from: an index of a path is at most {MAX_INDEX}"))
    })?;
    let limit = u32::try_from(limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE)).unwrap_or(1);
    let wallet: WalletId = id.parse().map_err(|_| ApiError::from(unknown_wallet()))?;
    let root = orchestrator.accounts.root(&orchestrator.directory, &tenant, wallet).await?;
    let page = tokio::task::spawn_blocking(move || match path {
        Some(path) => {
            accounts::address(&root, path).map(|one| AddressPage { wallet, addresses: vec![one], next: None })
        }
        None => accounts::page(wallet, &root, from, limit),
    });
    let page = page.await.map_err(|_| ApiError::new(Code::Internal, "the addresses were not derived"))?;
    Ok(Json(page.map_err(no_child)?))
}

/// `GET /v1/wallets/{id}/xpub`
pub(super) async fn xpub(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
    query: Result<Query<XpubParameters>, QueryRejection>,
) -> Result<Json<XpubView>, ApiError> {
    let Query(XpubParameters { path }) = query.map_err(|_| bad_query("path"))?;
    let path = path.as_deref().map(parse).transpose()?.unwrap_or_default();
    let wallet: WalletId = id.parse().map_err(|_| ApiError::from(unknown_wallet()))?;
    let root = orchestrator.accounts.root(&orchestrator.directory, &tenant, wallet).await?;
    let xpub = root.derive(&path).map_err(no_child)?.to_string();
    Ok(Json(XpubView { wallet, path, xpub }))
}

fn parse(path: &str) -> Result<DerivationPath, ApiError> {
    path.parse().map_err(|error| ApiError::new(Code::MalformedJson, format!("path: {error}")))
}

fn no_child(error: InvalidPublicKey) -> ApiError {
    Refusal::new(Code::InvalidPayload, error.to_string()).into()
}
