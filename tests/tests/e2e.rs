//! The end-to-end tests, in one program. It is linked once, and waiting tests leave the processor
//! to others.

mod accounts;
mod answers;
mod at_rest;
mod attack;
mod audit;
mod backup;
mod busy;
mod chaos;
mod clocks;
mod cluster;
mod doctor;
mod metrics;
mod openapi;
mod party_flows;
mod policy;
mod proxy;
mod put_back;
mod recovery;
mod refusals;
mod rotation;
mod shipped;
mod signing;
mod signing_docs;
mod traces;
mod traffic;
mod upgrade;
mod vault_transit;
mod webhooks;
mod workers;
