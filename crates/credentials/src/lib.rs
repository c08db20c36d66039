//! What `duet init` writes into a directory, and reading it back.
//!
//! | path | what | who needs it |
//! |---|---|---|
//! | `nkeys/<role>.nk` | the role's nkey seed | that role's process |
//! | `tls/ca.pem` | the certificate authority | everyone who connects |
//! | `tls/server.pem`, `tls/server.key` | the broker's certificate and key | the broker |
//! | `tls/names` | names and addresses in the broker's certificate, one a line | `duet credentials` |
//! | `broker.env` | public nkeys and paths for `nats.conf` | the broker |
//! | `orchestrator.key` | the Ed25519 key that signs results, hexadecimal | the orchestrators |
//! | `gateway.key` | the Ed25519 key that signs the gateways' audit log, hexadecimal | the gateways |
//! | `tokens/<tenant>` | the tenant's bearer token for the HTTP API | orchestrators, the tenant |
//! | `jetstream/` | the broker's store | the broker |
//! | `nodes/<name>/` | what one node of a cluster needs, see [`nodes`] | that node |
//!
//! While one is exchanged its file holds two, see [`secret_file`] and [`rotation`].
//!
//! Files are readable by their owner alone, and directories likewise. Running it again adds what
//! is missing and changes nothing that is there. The authority's private key is not kept: when one
//! of the TLS files is missing, all are made anew.
//!
//! This is for development and for one machine. Across hosts each process is given its own file
//! and no other.

mod broker_keys;
mod certificates;
mod initialise;
mod layout;
pub mod nodes;
pub mod rotation;
pub mod secret_file;

pub use initialise::{InitError, InitSettings, Made, initialise};
pub use layout::{Layout, ReadError, Token};
