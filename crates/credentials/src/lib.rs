//! Writes the directory of credentials that `duet init` makes, reads it back, and exchanges
//! credentials.
//!
//! The two central types are [`Layout`], the paths below the directory, and
//! [`rotation::Credential`], one credential that can be exchanged.
//!
//! The path through the crate: [`initialise()`] creates the missing files below a directory. Each
//! process reads its own through [`Layout`], for example with [`Layout::connect_settings`].
//! [`rotation::Credential::take`] takes one step of an exchange, and the operator restarts the
//! processes that [`rotation::Standing::restart`] names.
//!
//! | path | what | who needs it |
//! |---|---|---|
//! | `nkeys/<role>.nk` | the role's nkey seed | that role's process |
//! | `tls/ca.pem` | the certificate authority | every client of the broker |
//! | `tls/server.pem`, `tls/server.key` | the broker's certificate and key | the broker |
//! | `tls/names` | names and addresses in the broker's certificate, one a line | `duet credentials` |
//! | `broker.env` | public nkeys and paths for `nats.conf` | the broker |
//! | `orchestrator.key` | the Ed25519 key that signs results, hexadecimal | the orchestrators |
//! | `gateway.key` | the Ed25519 key that signs the gateways' audit log, hexadecimal | the gateways |
//! | `tokens/<tenant>` | the tenant's bearer token for the HTTP API | orchestrators, the tenant |
//! | `jetstream/` | the broker's store | the broker |
//! | `nodes/<name>/` | what one node of a cluster needs, see [`nodes`] | that node |
//!
//! During an exchange a credential's file holds two secrets, see [`secret_file`] and [`rotation`].
//!
//! Only their owner can read files and directories. A second run adds what is missing and changes
//! nothing that exists. The authority's private key is not kept, so when one of the TLS files is
//! missing, all are made anew.
//!
//! The directory is for development and for one machine. In a deployment over several hosts the
//! operator gives each process only its own files.

mod broker_keys;
mod certificates;
mod initialise;
mod layout;
mod node;
pub mod nodes;
mod reader;
pub mod rotation;
pub mod secret_file;
mod settings;
mod writer;

pub use initialise::initialise;
pub use layout::{Layout, Token};
pub use reader::ReadError;
pub use settings::InitSettings;
pub use writer::{InitError, Made};
