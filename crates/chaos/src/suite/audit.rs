//! One-time values in the parties' audit records: hashes of their nonce points and of the one
//! answer.
//!
//! This module reads them as plain JSON, without the code that writes them. A party without an
//! audit log leaves none, and the checker judges the rest.

use serde_json::Value;

use crate::history::{OneTime, Used};

/// The one-time values in one message. `subject` is `duet.v1.audit.<party>`. Each line of the
/// message is a JSON record, whose `body` is itself a document.
pub(super) fn used(subject: &str, message: &[u8]) -> Vec<Used> {
    let Some(party) = subject.strip_prefix("duet.v1.audit.") else { return Vec::new() };
    let text = String::from_utf8_lossy(message);
    text.lines().filter_map(event).flat_map(|event| of_event(party, &event)).collect()
}

fn event(line: &str) -> Option<Value> {
    let record: Value = serde_json::from_str(line).ok()?;
    let body: Value = serde_json::from_str(record.get("body")?.as_str()?).ok()?;
    body.get("event").cloned()
}

fn of_event(party: &str, event: &Value) -> Vec<Used> {
    let member = |name: &str| event.get(name).and_then(Value::as_str);
    let nonce = match member("kind") {
        Some("session_charged") => OneTime::R2,
        Some("session_signed") => OneTime::R1,
        _ => return Vec::new(),
    };
    let Some(session) = member("session") else { return Vec::new() };
    // Both parties record the answer. Within one session it is the same.
    [(nonce, member("nonce")), (OneTime::C3, member("answer"))]
        .into_iter()
        .filter_map(|(what, hash)| {
            let hash = hex::decode(hash?).ok()?;
            Some(Used { party: party.to_owned(), session: session.to_owned(), what, hash })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nonces_and_answers_are_found_and_the_rest_is_passed_over() {
        let record = |event: Value| {
            let body = json!({"at_ms": 1, "event": event}).to_string();
            json!({"chain": "00", "sequence": 1, "previous": "00", "body": body}).to_string()
        };
        let message = [
            record(json!({"kind": "worker_started", "instance": "one"})),
            "no record at all".to_owned(),
            record(json!({"kind": "session_charged", "session": "aa", "nonce": "01", "answer": "03"})),
            record(json!({"kind": "session_signed", "session": "aa", "nonce": "02", "answer": "03"})),
        ]
        .join("\n");
        let found = used("duet.v1.audit.partner", message.as_bytes());
        let found: Vec<_> = found.iter().map(|used| (used.what, used.hash.clone())).collect();
        assert_eq!(
            found,
            [(OneTime::R2, vec![1]), (OneTime::C3, vec![3]), (OneTime::R1, vec![2]), (OneTime::C3, vec![3])]
        );
        assert!(used("duet.v1.result.demo", message.as_bytes()).is_empty());
    }
}
