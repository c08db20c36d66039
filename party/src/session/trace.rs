//! What the audit log keeps of a session's one-time values.

/// What the audit log keeps of a session's one-time values: hashes, by which it can be seen that
/// none was used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace {
    /// Of this party's public nonce.
    pub(crate) nonce: [u8; 32],
    /// Of the responder's answer.
    pub(crate) answer: [u8; 32],
}
