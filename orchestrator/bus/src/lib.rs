//! Duet on NATS: who may say what on which subject, and how it is said with a deadline.
//!
//! The two central types are [`Bus`], a connection of one [`Role`], and [`Address`], a concrete
//! subject made of parsed identifiers. Everything else hangs off them:
//!
//! | module | what |
//! |---|---|
//! | [`subjects`] | [`Address`] (one subject) and [`Filter`] (what is listened to), the only places where subjects are put together |
//! | [`role`] | the broker's users, their inbox prefixes and credential names |
//! | [`connect`] | TLS, nkey, private inboxes, reconnection with back-off and jitter |
//! | [`request`] | request and reply with deadlines; publishing into streams |
//! | [`subscription`] | bounded subscriptions, and the round trip after which they exist at the server |
//! | [`service`] | answering requests with bounded concurrency and a clean drain |
//! | [`ends`] | reading how jobs ended, by place in the results' stream |
//! | [`streams`] | the JetStream streams, created or brought up to date |
//! | [`audit`] | publishing audit records; the chain of a process without a store |
//! | [`kv`] | typed buckets in which only compare-and-swap writes |
//! | [`deliveries`] | what webhooks need: cursors into the results, a log |
//! | [`trace`] | which trace a message belongs to, in its headers |
//! | [`failures`] | who has failed how often, to slow it down |
//! | [`credentials`] | what `duet init` writes: nkeys, TLS, the orchestrator's key, tenants' tokens |
//! | [`pem`] | PEM files as editors leave them |
//! | [`nodes`] | what it writes for each node of a cluster |
//! | [`rotation`] | exchanging any of it while everything runs; [`secret_file`] is what a file holds meanwhile |
//!
//! # What the broker is trusted with
//!
//! Availability, and keeping strangers out. It is never the authority on whether a message is
//! genuine (parties sign and encrypt end to end) nor on whether a session was used before.

pub mod audit;
mod broker_keys;
mod certificates;
pub mod connect;
pub mod credentials;
pub mod deliveries;
pub mod ends;
pub mod failures;
pub mod kv;
mod metrics;
pub mod nodes;
pub mod pem;
pub mod request;
pub mod role;
pub mod rotation;
pub mod secret_file;
pub mod service;
pub mod streams;
pub mod subjects;
pub mod subscription;
pub mod trace;

pub use connect::{Bus, BusEvent, ConnectError, ConnectSettings};
pub use request::{PublishError, RequestError};
pub use role::Role;
pub use service::{Attendance, Incoming, ServeOptions, Service, WhenFull};
pub use subjects::{Address, Filter, Speaker};
pub use subscription::{SubscribeError, Subscription};
