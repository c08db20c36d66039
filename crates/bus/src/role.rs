//! The broker's users. Each has one nkey, one inbox prefix and one set of permissions in
//! `nats.conf`.

use core::{fmt, str::FromStr};

/// A user of the broker.
///
/// The parties of the development broker are `service` and `partner`. The owner's device, native or
/// in a browser, connects as `gateway` and speaks as `device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The orchestrator: jobs, invitations and results. It alone may use the API of streams and
    /// buckets.
    Orchestrator,
    /// The party that holds share 2.
    Service,
    /// The party that holds share 3.
    Partner,
    /// The connection of the owner's device. This role alone may speak as `device`.
    Gateway,
    /// Reads the audit stream and nothing else.
    Auditor,
    /// A tenant's subscriber to its own results; the development broker knows the tenant `demo`.
    Results,
    /// The broker's operator: monitoring in the system account, none of Duet's subjects.
    Sys,
}

/// The text names no role of the broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no role; roles are orchestrator, service, partner, gateway, auditor, results and sys")]
pub struct UnknownRole(pub String);

impl Role {
    /// Every role, in the order in which `nats.conf` lists them.
    pub const ALL: [Self; 7] = [
        Self::Orchestrator,
        Self::Service,
        Self::Partner,
        Self::Gateway,
        Self::Auditor,
        Self::Results,
        Self::Sys,
    ];

    /// The role's name: the file of its seed, its client's name, the tail of its inbox prefix.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Orchestrator => "orchestrator",
            Self::Service => "service",
            Self::Partner => "partner",
            Self::Gateway => "gateway",
            Self::Auditor => "auditor",
            Self::Results => "results",
            Self::Sys => "sys",
        }
    }

    /// The environment variable from which `nats.conf` takes the role's public nkey.
    #[must_use]
    pub fn nkey_variable(self) -> String {
        format!("DUET_NKEY_{}", self.as_str().to_uppercase())
    }

    /// The environment variable from which `nats.conf` takes another public nkey that the role may
    /// use as well.
    #[must_use]
    pub fn other_nkey_variable(self) -> String {
        format!("{}_OTHER", self.nkey_variable())
    }

    /// The first token of every inbox of the role. The broker lets no other role listen below it.
    #[must_use]
    pub fn inbox_prefix(self) -> String {
        format!("{INBOX_MARK}{}", self.as_str())
    }
}

/// How every role's inbox prefix begins.
const INBOX_MARK: &str = "_INBOX_";

/// How reply subjects begin that the broker itself makes up for requests from another account. The
/// broker refuses requests that name such a subject.
const BROKER_REPLY_PREFIX: &str = "_R_.";

/// Whether a reply may go to `subject`: it is a private inbox of some role, or the broker's
/// stand-in for an inbox in another account.
///
/// # Security
/// The broker does not check which reply subject a requester names. Without this check a requester
/// could have the answer published anywhere the answering process may publish.
#[must_use]
pub(crate) fn is_inbox(subject: &str) -> bool {
    if subject.strip_prefix(BROKER_REPLY_PREFIX).is_some_and(|rest| !rest.is_empty()) {
        return true;
    }
    subject.split_once('.').is_some_and(|(prefix, rest)| {
        !rest.is_empty() && prefix.strip_prefix(INBOX_MARK).is_some_and(|role| role.parse::<Role>().is_ok())
    })
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_round_trip_as_text() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn only_roles_inboxes_are_inboxes() {
        assert!(is_inbox("_INBOX_service.abc"));
        assert!(is_inbox("_INBOX_orchestrator.abc.7"));
        assert!(is_inbox("_R_.gUI8md.axXXQ0"));
        for other in
            ["$KV.duet_jobs.x", "_INBOX.abc", "_INBOX_service", "_INBOX_service.", "_INBOX_stranger.a", ""]
        {
            assert!(!is_inbox(other), "{other}");
        }
    }
}
