//! The steps of a store's schema.

/// What `duet party migrate` does with a store's schema.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SchemaStep {
    /// Compares it with this build.
    Check,
    /// Adds what this build needs.
    Expand,
    /// Removes what only older builds need.
    Contract,
}
