//! Jobs and sessions as sequences of events. In any order of events, a settled job stays settled
//! and an ended session stays ended.

use std::sync::OnceLock;

use duet_protocol::ids::SessionId;
use duet_wire::{
    Code, JobEvent, JobRecord, Pair, SignedRequest, SigningRequest,
    session_state::{self, SessionEvent, SessionState},
    signing::SigningKey,
};

const DOCUMENT: &str = r#"{"version":1,"tenant":"acme","wallet":"1111111111111111111111111111111111111111111111111111111111111111",
"path":"m","payload":{"kind":"personal_message","text":"fuzz"},"idempotency_key":"fuzz","expires_at":2000000000,
"pairs":["device+service","service+partner"]}"#;

fn record() -> Option<&'static JobRecord> {
    static RECORD: OnceLock<Option<JobRecord>> = OnceLock::new();
    let made = RECORD.get_or_init(|| {
        let signed = SignedRequest::sign(DOCUMENT.into(), &SigningKey::from_bytes(&[7; 32]));
        let request = SigningRequest::from_json(DOCUMENT.as_bytes()).ok()?;
        Some(JobRecord::new(signed, &request, 1_000))
    });
    made.as_ref()
}

fn event(byte: u8) -> JobEvent {
    match byte % 7 {
        0 => JobEvent::Park,
        1 => JobEvent::Start { session: SessionId([byte; 16]), pair: Pair::ServicePartner },
        2 => JobEvent::Reject,
        3 => JobEvent::Expire,
        4 => JobEvent::Cancel,
        5 => {
            let message = String::new();
            JobEvent::Wait { code: Code::Locked, message, next_attempt_at_ms: u64::from(byte) }
        }
        _ => JobEvent::Requeue,
    }
}

/// Each pair of bytes is an event of a job and the fence that comes with it. Each byte is also an
/// event of a session.
pub fn run(bytes: &[u8]) {
    let Some(mut job) = record().cloned() else { return };
    for pair in bytes.chunks_exact(2).take(64) {
        let &[which, fence] = pair else { continue };
        let before = job.clone();
        match job.apply(&event(which), u64::from(fence), 2_000) {
            Ok(()) => {
                let put_back = matches!(event(which), JobEvent::Requeue);
                assert!(!before.state.is_final() || put_back, "a job that is over changed");
                assert!(job.fence >= before.fence, "an older attempt took over");
            }
            Err(_) => assert_eq!(job, before, "a refused event changed the job"),
        }
    }
    let mut state = SessionState::Created;
    for byte in bytes.iter().take(64) {
        let event = SessionEvent::ALL.get(usize::from(byte % 5)).copied().unwrap_or(SessionEvent::Fail);
        if let Ok(next) = session_state::next(state, event) {
            assert!(!state.is_final(), "a session that is over changed");
            assert_eq!(next == SessionState::Signed, event == SessionEvent::Sign);
            state = next;
        }
    }
}
