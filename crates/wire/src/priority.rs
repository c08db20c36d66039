//! How urgent a job is among its tenant's jobs.
//!
//! It stands beside the signed request, not in it. The signature is about what a wallet may sign,
//! and parties neither need nor respect an order of jobs. The order matters only to the queue,
//! where a tenant competes with itself. The tenant's token is enough authority for that. So the
//! request's version does not change, and a request submitted again with another priority is still
//! the same job.

use serde::{Deserialize, Serialize};

/// How urgent a job is among its tenant's jobs. It does not affect other tenants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// For jobs that may wait: one start in 21 while the other priorities have jobs as well.
    Low,
    /// The default: four starts in 21.
    #[default]
    Normal,
    /// For jobs that a person waits for: sixteen starts in 21.
    High,
}

/// The text names no priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected low, normal or high")]
pub struct UnknownPriority;

impl Priority {
    /// All three, the most urgent first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The priority as text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }

    /// How many of a tenant's 21 starts the priority gets while all three have waiting jobs. Above
    /// zero, so that none starves.
    #[must_use]
    pub const fn weight(self) -> u32 {
        match self {
            Self::Low => 1,
            Self::Normal => 4,
            Self::High => 16,
        }
    }

    /// Whether it is the default.
    #[must_use]
    pub const fn is_normal(&self) -> bool {
        matches!(self, Self::Normal)
    }
}

impl core::fmt::Display for Priority {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::str::FromStr for Priority {
    type Err = UnknownPriority;
    fn from_str(text: &str) -> Result<Self, UnknownPriority> {
        Self::ALL.into_iter().find(|priority| priority.as_str() == text).ok_or(UnknownPriority)
    }
}
