//! The judgement of verdicts that were left behind.

/// How many verdicts were left behind, by how they were judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Finished {
    /// Verdicts that were good: they are counted, and their signatures lost.
    pub(crate) good: u64,
    /// Verdicts that were bad, or that no process can judge any more: their keys are locked.
    pub(crate) bad: u64,
}
