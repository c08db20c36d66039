//! Whether a job that ended without a signature has a cause of its own.
//!
//! There are two causes. The payload deserves its refusal, and a party refused it with exactly that
//! code. Or injected faults broke sessions: each attempt that counted ran while a fault was there
//! that can break a session. A queue that is busy, a restart by the book, a clock that is wrong and
//! a receiver that refuses are no causes. Jobs expire hours after a run, so none may expire.

use duet_wire::Code;
use serde_json::Value;

use crate::history::{History, Injected, Submission};

/// How long a fault has its effect after it ended: processes start again, connections open again,
/// and a broken session ends by its deadline.
const AFTERMATH_MS: u64 = 45_000;

/// The codes with which a session ends that a fault broke. Each says something about the attempt
/// alone, so orchestrators count it. A code that says that a party was busy, away or had another
/// time is no reason to give up a job. A broken session blames no party, so misbehaviour is no such
/// code either.
const BROKEN_SESSION: [Code; 2] = [Code::Deadline, Code::Internal];

/// Checks that the `failed`, `expired` or `cancelled` job in `document` has a cause of its own.
///
/// # Errors
/// Why it has none.
pub(super) fn check(history: &History, submission: &Submission, document: &Value) -> Result<(), String> {
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if text("/state") != "failed" {
        return Err("no client cancelled it, and it was valid for hours".to_owned());
    }
    let code = text("/failure/code");
    if let Some(earned) = submission.earns {
        return if code == earned.as_str() { Ok(()) } else { Err(format!("its payload earns {earned}")) };
    }
    if !is_broken_session(code) {
        return Err("no injected fault makes a party refuse a payload".to_owned());
    }
    let attempts = document.pointer("/history").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut counted = attempts.iter().filter(|attempt| is_broken_session(code_of(attempt))).peekable();
    if counted.peek().is_none() {
        return Err("no attempt of it was broken".to_owned());
    }
    match counted.find(|attempt| !is_explained(history, attempt)) {
        Some(attempt) => {
            let number = attempt.get("attempt").and_then(Value::as_u64).unwrap_or_default();
            Err(format!("no fault that breaks sessions ran during attempt {number}"))
        }
        None => Ok(()),
    }
}

fn code_of(attempt: &Value) -> &str {
    attempt.pointer("/outcome/code").and_then(Value::as_str).unwrap_or_default()
}

fn is_broken_session(code: &str) -> bool {
    BROKEN_SESSION.iter().any(|known| known.as_str() == code)
}

/// Whether a fault that breaks sessions ran during an attempt.
fn is_explained(history: &History, attempt: &Value) -> bool {
    let moment = |name: &str| attempt.get(name).and_then(Value::as_u64);
    let Some(from_ms) = moment("started_at_ms") else { return false };
    let until_ms = moment("ended_at_ms").unwrap_or(from_ms);
    // The orchestrator that noted both times may have had a wrong clock.
    let off_ms = 1000 * history.faults.iter().map(|fault| fault.clock_s).max().unwrap_or_default();
    let overlaps = |fault: &Injected| {
        fault.from_ms <= until_ms + off_ms && from_ms <= fault.until_ms.saturating_add(AFTERMATH_MS + off_ms)
    };
    history.faults.iter().any(|fault| fault.breaks_sessions && overlaps(fault))
}
