//! The orchestrator on the real broker, with parties that follow a script.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that fails fails its test"
)]
#![expect(non_snake_case, reason = "test names read as sentences: subject, then what it should do")]

mod accounts;
mod attempts;
mod batches;
mod behind_nginx;
mod broker_time;
mod cases;
mod clocks;
mod dead_letters;
mod digests;
mod emptied_broker;
mod fairness;
mod methods;
mod nginx;
mod owner;
mod poison;
mod pressure;
mod put_back_broker;
mod recorded;
mod releases;
mod removal;
mod revocations;
mod rig;
mod seats;
mod several;
mod silence;
mod soak;
mod submission;
mod unsafe_broker;
mod waiting;
mod webhooks;
