//! The queue's decisions, pure: no broker, clock, randomness or task. The caller passes in the
//! time.
//!
//! The two central types are [`Core`], the life of jobs from their submission to their end, and
//! [`actions::Event`], what it hears. For each event [`Core::handle`] returns the actions to
//! perform. The driver performs each as one call and answers it by one event.
//!
//! - [`intake`] has submissions and the facts that decide about them, and [`room`] whether there is
//!   room for one more job.
//! - [`line`] decides which job is next.
//! - [`offers`] decides which worker gets a session, and whether any has a seat for it.
//! - [`plan`] decides which pair tries it, when, or why the job is given up.
//! - [`reasons`] counts why jobs wait.
//! - [`failure`] decides what follows from an attempt without a signature.
//! - [`need`] finds jobs that no process works on, by the facts in [`summary`].
//! - [`verified`] has the types that only verification makes.
//! - [`settings`] bounds all of it.

pub mod actions;
pub mod failure;
pub mod intake;
pub mod line;
pub mod meter;
pub mod need;
pub mod offers;
pub mod plan;
mod procedures;
pub mod reasons;
pub mod room;
pub mod settings;
pub mod store;
pub mod summary;
pub mod terms;
pub mod time;
pub mod verified;

pub use procedures::{Config, Core, already_signed};
pub use settings::{InvalidSetting, QueueSettings};
