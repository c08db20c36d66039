//! What the fuzzers do with their bytes. Each module has one function `run`, which does something
//! with any bytes at all and panics when what it is about does not hold. `fuzz/` wraps each into a
//! target of libFuzzer's (`cargo xtask fuzz`); this crate's tests replay the corpora, which are
//! kept in `fuzz/corpus`, and a finding stays there as a test for ever.

pub mod at_rest;
pub mod decoders;
pub mod documents;
pub mod frames;
pub mod jobs;
pub mod policies;
pub mod sessions;

/// What one target does with its bytes.
pub type Run = fn(&[u8]);

/// Every target by name: that of its file in `fuzz/fuzz_targets` and of its folder in
/// `fuzz/corpus`.
pub const TARGETS: [(&str, Run); 7] = [
    ("at_rest", at_rest::run),
    ("decoders", decoders::run),
    ("documents", documents::run),
    ("frames", frames::run),
    ("jobs", jobs::run),
    ("policies", policies::run),
    ("sessions", sessions::run),
];
