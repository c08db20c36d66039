//! What a device asks parties and the orchestrator, and what they answer.

use duet_protocol::{
    card::Card,
    codec::{self, Message},
    ids::SessionId,
};
use duet_wire::{
    Code, JobRecord, JobState, OutcomeReply, Refusal,
    approval::{ApprovalReply, WaitingJob},
    card_request::{CardReply, CardRequest},
    progress::Progress,
    share_request::{ShareReply, ShareRequest},
};
use js_sys::Array;
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

use crate::{
    convert::{bytes, encoded, from_json, hexadecimal, milliseconds, parse, time, to_value},
    failure::{Failure, outcome},
    object::object,
};

/// The answer was none to the question.
fn unexpected() -> Failure {
    Failure::Malformed("the answer is to another question".to_owned())
}

/// What `read` makes of a reply that parses.
fn answered<M: Message, T: Into<JsValue>>(
    reply: &[u8],
    read: impl FnOnce(M) -> Result<T, Failure>,
) -> JsValue {
    outcome(codec::decode(reply).map_err(Failure::from).and_then(read))
}

/// Asks a party for its card.
#[wasm_bindgen(js_name = askCard, unchecked_return_type = "Result<Uint8Array>")]
#[must_use]
pub fn ask_card() -> JsValue {
    outcome(encoded(&CardRequest::Card))
}

/// The card in a party's answer. Believe it once it is compared with a pinned fingerprint.
#[wasm_bindgen(js_name = readCard, unchecked_return_type = "Result<Uint8Array>")]
#[must_use]
pub fn read_card(reply: &[u8]) -> JsValue {
    answered(reply, |reply| match reply {
        CardReply::Card { card } => Ok(bytes(&card)),
        CardReply::Refused(refusal) => Err(refusal.into()),
        _ => Err(unexpected()),
    })
}

/// The name and fingerprint on a card, its own signature checked.
#[wasm_bindgen(js_name = cardFacts, unchecked_return_type = "Result<{ party: string; fingerprint: string }>")]
#[must_use]
pub fn card_facts(card: &[u8]) -> JsValue {
    outcome(codec::decode::<Card>(card).map_err(Failure::from).map(|card| {
        object([
            ("party", card.party().as_str().into()),
            ("fingerprint", card.fingerprint().to_string().into()),
        ])
    }))
}

/// Asks a party to take an enrolment (`DeviceWallet.offer`).
#[wasm_bindgen(js_name = enrol, unchecked_return_type = "Result<Uint8Array>")]
#[must_use]
pub fn enrol(offer: Vec<u8>) -> JsValue {
    outcome(encoded(&CardRequest::Enrol { offer }))
}

/// Whether the party has taken it.
#[wasm_bindgen(js_name = readEnrolled, unchecked_return_type = "Result<undefined>")]
#[must_use]
pub fn read_enrolled(reply: &[u8]) -> JsValue {
    answered(reply, |reply| match reply {
        CardReply::Enrolled => Ok(JsValue::UNDEFINED),
        CardReply::Refused(refusal) => Err(refusal.into()),
        _ => Err(unexpected()),
    })
}

/// Asks a party to verify and store a share package.
#[wasm_bindgen(js_name = prepareShare, unchecked_return_type = "Result<Uint8Array>")]
#[must_use]
pub fn prepare_share(envelope: Vec<u8>) -> JsValue {
    outcome(encoded(&ShareRequest::Prepare { package: envelope }))
}

/// The receipt in a party's answer.
#[wasm_bindgen(js_name = readReceipt, unchecked_return_type = "Result<Uint8Array>")]
#[must_use]
pub fn read_receipt(reply: &[u8]) -> JsValue {
    answered(reply, |reply| match reply {
        ShareReply::Receipt { receipt } => Ok(bytes(&receipt)),
        ShareReply::Refused(refusal) => Err(refusal.into()),
        ShareReply::CommitAck { .. } => Err(unexpected()),
    })
}

/// Orders a party to commit, with the receipts of all holders.
#[wasm_bindgen(js_name = commitShare, unchecked_return_type = "Result<Uint8Array>")]
#[must_use]
pub fn commit_share(bundle: Vec<u8>) -> JsValue {
    outcome(encoded(&ShareRequest::Commit { bundle }))
}

/// The acknowledgement in a party's answer.
#[wasm_bindgen(js_name = readAcknowledgement, unchecked_return_type = "Result<Uint8Array>")]
#[must_use]
pub fn read_acknowledgement(reply: &[u8]) -> JsValue {
    answered(reply, |reply| match reply {
        ShareReply::CommitAck { acknowledgement } => Ok(bytes(&acknowledgement)),
        ShareReply::Refused(refusal) => Err(refusal.into()),
        ShareReply::Receipt { .. } => Err(unexpected()),
    })
}

/// Whether a report was acknowledged. A refusal is final, too.
#[wasm_bindgen(js_name = readOutcomeReply, unchecked_return_type = "Result<undefined>")]
#[must_use]
pub fn read_outcome_reply(reply: &[u8]) -> JsValue {
    answered(reply, |reply| match reply {
        OutcomeReply::Acknowledged => Ok(JsValue::UNDEFINED),
        OutcomeReply::Refused(refusal) => Err(refusal.into()),
    })
}

/// A note on how far a session has come, for the clients that follow its events: what was done at
/// `now`.
#[wasm_bindgen(js_name = progressNote, unchecked_return_type = "Result<Uint8Array>")]
#[must_use]
pub fn progress_note(
    session: &str,
    #[wasm_bindgen(unchecked_param_type = "ProgressStep")] step: &JsValue,
    now: f64,
) -> JsValue {
    outcome(noted(session, step, now))
}

fn noted(session: &str, step: &JsValue, now: f64) -> Result<JsValue, Failure> {
    let session: SessionId = parse("session", session)?;
    Ok(bytes(&Progress { session, step: to_value("step", step)?, at_ms: milliseconds(now)? }.to_json()))
}

/// The orchestrator's answer about a wallet's jobs. Jobs whose request is not signed by the
/// requester that it names are left out.
#[wasm_bindgen(js_name = readApproval, unchecked_return_type = "Result<ApprovalReply>")]
#[must_use]
pub fn read_approval(reply: &[u8]) -> JsValue {
    answered(reply, approval)
}

fn approval(reply: ApprovalReply) -> Result<JsValue, Failure> {
    match reply {
        ApprovalReply::Jobs { jobs, more } => {
            let jobs: Array = jobs.iter().filter_map(waiting_job).collect();
            Ok(object([("kind", "jobs".into()), ("jobs", jobs.into()), ("more", more.into())]))
        }
        ApprovalReply::Session { manifest } => {
            Ok(object([("kind", "session".into()), ("manifest", bytes(&manifest))]))
        }
        ApprovalReply::Job { record } => {
            let record: JobRecord =
                serde_json::from_slice(&record).map_err(|why| Failure::Malformed(why.to_string()))?;
            job(&record)
        }
        ApprovalReply::Done => Ok(object([("kind", "done".into())])),
        ApprovalReply::Refused(refusal) => Err(refusal.into()),
    }
}

fn waiting_job(waiting: &WaitingJob) -> Option<JsValue> {
    let request = waiting.request.verify().ok()?;
    if request.job() != waiting.job {
        return None;
    }
    let description = from_json(&request.payload.describe().ok()?).ok()?;
    let pairs: Array = request.pairs.iter().map(|pair| JsValue::from(pair.as_str())).collect();
    Some(object([
        ("job", waiting.job.to_string().into()),
        ("wallet", request.wallet.to_string().into()),
        ("description", description),
        ("path", request.path.to_string().into()),
        ("tenant", request.tenant.to_string().into()),
        ("requester", hex::encode(waiting.request.requester).into()),
        ("idempotencyKey", request.idempotency_key.as_str().into()),
        ("pairs", pairs.into()),
        ("createdAt", time(waiting.created_at_ms)),
        ("expiresAt", time(request.expires_at.saturating_mul(1000))),
    ]))
}

fn job(record: &JobRecord) -> Result<JsValue, Failure> {
    let mut fields = vec![
        ("kind", "job".into()),
        ("job", record.id.to_string().into()),
        ("state", record.state.name().to_string().into()),
    ];
    // By this hash the owner revokes it: of a request that makes this very job, or of none.
    if record.request.verify().is_ok_and(|request| request.job() == record.id) {
        fields.push(("requestHash", bytes(&record.request.content_hash())));
    }
    let mut refused = |code: Code, message: &str| {
        fields.extend([("code", code.to_string().into()), ("message", message.into())]);
    };
    match &record.state {
        JobState::Failed { code, message } => refused(*code, message),
        JobState::Expired => refused(Code::JobExpired, "The job has expired."),
        JobState::Cancelled => refused(Code::Cancelled, "The job was cancelled."),
        JobState::Signed { result } => {
            // The orchestrator's word is not taken for the signature: it has to verify.
            let result = result
                .parse_unverified()
                .map_err(|why| Failure::from(Refusal::new(Code::MalformedMessage, why.to_string())))?;
            fields.extend([
                ("signature", bytes(&result.signature.to_bytes())),
                ("digest", hexadecimal(&result.digest)),
                ("path", result.path.to_string().into()),
                ("session", result.session.to_string().into()),
            ]);
        }
        JobState::Queued | JobState::AwaitingOwner | JobState::Running { .. } | JobState::Unknown(_) => {}
    }
    Ok(object(fields))
}
