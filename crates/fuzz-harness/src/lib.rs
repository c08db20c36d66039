//! The bodies of the fuzz targets. Each module has one function `run`, which accepts any bytes and
//! panics when an invariant of its subject is broken. [`TARGETS`] lists them.
//!
//! `fuzz/` wraps each into a libFuzzer target (`cargo xtask fuzz`). This crate's tests replay the
//! corpora in `fuzz/corpus`. A finding stays in its corpus as a regression test.

pub mod at_rest;
pub mod decoders;
pub mod documents;
pub mod frames;
pub mod jobs;
pub mod policies;
pub mod sessions;

/// The body of one target.
pub type Run = fn(&[u8]);

/// Every target, by the name of its file in `fuzz/fuzz_targets` and of its folder in `fuzz/corpus`.
pub const TARGETS: [(&str, Run); 7] = [
    ("at_rest", at_rest::run),
    ("decoders", decoders::run),
    ("documents", documents::run),
    ("frames", frames::run),
    ("jobs", jobs::run),
    ("policies", policies::run),
    ("sessions", sessions::run),
];
