//! Webhooks: each of a tenant's results is posted to the tenant's endpoints, signed under the
//! Standard Webhooks specification ([`duet_wire::webhook`]).
//!
//! An endpoint is an entry of a bucket ([`endpoint`]); its place in the results is a durable
//! consumer at the broker, from which every orchestrator takes its share ([`worker`]). There is no
//! leader: what one took and did not acknowledge, the broker gives to another. One attempt is
//! [`deliver`]; where it may go says [`address`]; what became of it is logged ([`log`]) and, when
//! it failed, tried again after a pause ([`schedule`]).
//!
//! A result is delivered **at least once and in no particular order**. Its `webhook-id` is the
//! job's id, the same every time.

mod address;
mod deliver;
mod endpoint;
mod log;
mod schedule;
mod settings;
mod view;
mod worker;

pub(crate) use self::{
    deliver::Deliverer,
    endpoint::{Endpoint, Endpoints},
    worker::run,
};
pub use self::{
    endpoint::{Disabled, Replay},
    log::{Delivery, DeliveryOutcome},
    settings::WebhookSettings,
    view::{DeliveryPage, ReplayAccepted, WebhookCreated, WebhookPage, WebhookView},
};
