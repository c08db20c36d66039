//! The queue's decisions, pure: no broker, clock, randomness or task. The caller passes in the time.
//!
//! - [`line`] decides which job is next.
//! - [`plan`] decides which pair tries it, when, or why the job is given up.
//! - [`failure`] decides what follows from an attempt without a signature.
//! - [`need`] finds jobs that no process works on, by the facts in [`summary`].
//! - [`settings`] bounds all of it.

pub mod failure;
pub mod line;
pub mod meter;
pub mod need;
pub mod plan;
pub mod settings;
pub mod summary;
pub mod time;

pub use settings::{InvalidSetting, QueueSettings};
