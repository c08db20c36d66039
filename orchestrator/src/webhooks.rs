//! Webhooks: each of a tenant's results is posted to the tenant's endpoints, signed under the
//! Standard Webhooks specification ([`duet_wire::webhook`]).
//!
//! An endpoint is an entry of a bucket ([`endpoint`]). Its place in the results is a durable
//! consumer at the broker, from which every orchestrator takes its share ([`worker`]). There is no
//! leader: when one orchestrator does not acknowledge a result, the broker gives it to another.
//! [`deliver`] makes one attempt, and [`address`] decides where it may go. [`log`] records its
//! outcome, and [`health`] what it says about the endpoint. A delivery that failed waits in
//! [`retries`], a bucket, so that it holds up no other. [`schedule`] decides when it is tried
//! again, and [`retrier`] does that.
//!
//! A result is delivered **at least once and in no particular order**. Its `webhook-id` is the
//! job's id, the same every time.

mod address;
mod deliver;
mod endpoint;
mod health;
mod log;
mod retrier;
mod retries;
mod schedule;
mod settings;
mod view;
mod worker;

pub(crate) use self::{
    deliver::Deliverer,
    endpoint::{Endpoint, Endpoints},
    retries::{Retries, Retry},
    worker::run,
};
pub use self::{
    endpoint::{Disabled, Replay},
    log::{Delivery, DeliveryOutcome},
    settings::WebhookSettings,
    view::{DeliveryPage, ReplayAccepted, WebhookCreated, WebhookPage, WebhookView},
};
