//! Duet on NATS: subjects, roles and permissions, and requests with deadlines.
//!
//! The two central types are [`Bus`], the connection of one [`Role`], and [`Address`], one concrete
//! subject made of parsed identifiers.
//!
//! The path through the crate: [`Bus::connect`] proves the role to the broker. A caller builds an
//! [`Address`] and sends with [`Bus::request`], or with [`Bus::publish_stored`] into a stream. The
//! receiver subscribes to a [`Filter`] with [`Bus::serve`], which hands each [`Incoming`] message
//! to a handler; the handler replies with [`Incoming::respond`].
//!
//! | module | what |
//! |---|---|
//! | [`subjects`] | [`Address`], one subject, and [`Filter`], what a subscription listens to |
//! | [`role`] | the broker's users, their inbox prefixes and credential names |
//! | [`nkey`] | the seed with which a role proves who it is |
//! | [`pem`] | reading PEM files with byte order marks |
//! | [`connect`] | TLS, nkey, private inboxes, reconnection with back-off and jitter |
//! | [`request`] | request and reply with deadlines; publishing into streams |
//! | [`subscription`] | bounded subscriptions, and the round trip that shows they are registered |
//! | [`service`] | answering requests with bounded concurrency and a clean drain |
//! | [`ends`] | reading how jobs ended, by place in the results' stream |
//! | [`streams`] | the JetStream streams, created or brought up to date |
//! | [`audit`] | publishing audit records; the chain of a process without a store |
//! | [`kv`] | typed buckets in which only compare-and-swap writes |
//! | [`markers`] | what removed entries leave in a bucket for ever, found and given a time to live |
//! | [`deliveries`] | what webhooks need: cursors into the results, a log |
//! | [`inspect`] | what the broker says of its nodes, connections and streams |
//! | [`clock`] | the broker's time, and how far this machine's clock is from it |
//! | [`trace`] | which trace a message belongs to, in its headers |
//!
//! # What the broker is trusted with
//!
//! Duet trusts the broker to be available and to keep strangers out. It never trusts the broker on
//! whether a message is genuine: parties sign and encrypt end to end. Nor does it trust the broker
//! on whether a session was used before.

pub mod audit;
pub mod clock;
pub mod connect;
mod counters;
pub mod deliveries;
pub mod ends;
mod event;
mod gather;
mod incoming;
pub mod inspect;
pub mod kv;
pub mod markers;
mod metrics;
pub mod nkey;
pub mod pem;
pub mod request;
pub mod role;
pub mod service;
pub mod streams;
pub mod subjects;
pub mod subscription;
pub mod trace;

pub use clock::BrokerClock;
pub use connect::{Bus, ConnectError, ConnectSettings};
pub use event::{BusEvent, Denied, connection_changed};
pub use incoming::Incoming;
pub use nkey::NkeySeed;
pub use request::{PublishError, RequestError};
pub use role::Role;
pub use service::{Attendance, ServeOptions, Service, WhenFull};
pub use subjects::{Address, Filter, Speaker};
pub use subscription::{SubscribeError, Subscription};
