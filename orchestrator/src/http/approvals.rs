//! Approvals of jobs whose wallet's policy requires them. The orchestrator shows the request and
//! passes approvals on to the parties, which alone count them.

use core::time::Duration;
use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
};
use duet_bus::{Address, Speaker};
use duet_protocol::codec;
use duet_queue::store::JobKey;
use duet_wire::{
    Code, JobState, Refusal, SignedRequest,
    encoding::hex_array,
    policy::{DatedApproval, PolicyReply, PolicyRequest, RequestApproval},
};
use serde::{Deserialize, Serialize};

use super::{ApiError, Caller, jobs};
use crate::orchestrator::Orchestrator;

/// How long a party may take to record an approval.
const DEADLINE: Duration = Duration::from_secs(10);

/// An approver's signature over a job's request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Approval {
    #[serde(with = "hex_array")]
    approver: [u8; 32],
    /// When the approver signed, in seconds since 1970. Absent in an approval without a date.
    issued_at: Option<u64>,
    #[serde(with = "hex_array")]
    signature: [u8; 64],
}

/// The parties that recorded the approval.
#[derive(Debug, Serialize)]
pub(super) struct Noted {
    pub(super) parties: Vec<String>,
}

/// `GET /v1/jobs/{id}/request`
pub(super) async fn request(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
) -> Result<Json<SignedRequest>, ApiError> {
    Ok(Json(jobs::record(&orchestrator, &tenant, &id).await?.request))
}

/// `POST /v1/jobs/{id}/approvals`
pub(super) async fn approve(
    State(orchestrator): State<Arc<Orchestrator>>,
    Caller(tenant): Caller,
    Path(id): Path<String>,
    approval: Result<Json<Approval>, JsonRejection>,
) -> Result<Json<Noted>, ApiError> {
    let Json(Approval { approver, issued_at, signature }) =
        approval.map_err(|rejection| ApiError::new(Code::MalformedJson, rejection.body_text()))?;
    let request = jobs::record(&orchestrator, &tenant, &id).await?.request;
    let content_hash = hex::encode(request.content_hash());
    let (tag, dated, verified, asked) = match issued_at {
        Some(issued_at) => {
            let approval = DatedApproval { request, approver, issued_at, signature };
            let dated = ", and `issued_at` (8 bytes, little endian)";
            ("duet/v1/dated-approval", dated, approval.verify(), PolicyRequest::ApproveDated { approval })
        }
        None => {
            let approval = RequestApproval { request, approver, signature };
            ("duet/v1/request-approval", "", approval.verify(), PolicyRequest::Approve { approval })
        }
    };
    verified.map_err(|error| match orchestrator.tenants.bad_signature(&tenant) {
        Ok(()) => ApiError::new(
            Code::BadSignature,
            format!(
                "{error}: expected in `signature` Ed25519 by the key {} (`approver`) over the line `{tag}`, a \
                 newline, the 32 bytes SHA-256(requester's key, request body), here {content_hash}{dated}. \
                 docs/signing.md has examples and vectors",
                hex::encode(approver),
            ),
        ),
        Err(wait) => ApiError::new(Code::RateLimited, "too many approvals with bad signatures; slow down")
            .retry_after(wait),
    })?;
    let message = codec::encode(&asked).map_err(|error| ApiError::new(Code::TooLarge, error.to_string()))?;
    let mut parties = Vec::new();
    for party in orchestrator.directory.parties() {
        let address = Address::Card { from: Speaker::Orchestrator, to: party.clone() };
        let reply = orchestrator
            .bus
            .request(&address, message.clone(), DEADLINE)
            .await
            .map_err(|error| error.to_refusal(party.as_str()))?;
        match codec::decode(&reply) {
            Ok(PolicyReply::Approved) => parties.push(party.to_string()),
            Ok(PolicyReply::Refused(refusal)) => {
                return Err(Refusal::new(refusal.code, format!("{party}: {}", refusal.message)).into());
            }
            Ok(_) | Err(_) => {
                let message = format!("the answer of {party} is not of the expected kind");
                return Err(Refusal::new(Code::PeerMisbehaved, message).into());
            }
        }
    }
    // A job that failed for want of this approval, or of another one, is tried again.
    let job = jobs::record(&orchestrator, &tenant, &id).await?;
    if matches!(job.state, JobState::Failed { code: Code::ApprovalMissing, .. }) {
        orchestrator.attempts.put_back(JobKey::of(&job)).await?;
    }
    Ok(Json(Noted { parties }))
}
