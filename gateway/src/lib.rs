//! The gateway: connects browser parties to the broker.
//!
//! The two central types are [`Config`], a gateway's whole configuration, and [`GatewayServer`], a
//! gateway that is ready to serve. A browser opens a WebSocket and speaks [`duet_wire::gateway`].
//! The gateway forwards each message inside to the broker as `device`, and the reply back.
//!
//! The gateway makes no message of its own, and parses one only to see which wallet or session it
//! is about. It holds no key that lets it sign. Packages are sealed to the parties. Sessions run
//! through a Noise channel between device and responder. The device signs approvals and outcomes.
//!
//! # The path of a request
//!
//! 1. `server` accepts a connection, if its address has room for one more, and encrypts it.
//! 2. `http` checks `Host` and `Origin` and opens the WebSocket.
//! 3. `socket` sends the challenge, and reads frames no faster than the address's rate allows.
//! 4. `device` records what this socket may do: the wallets whose device key it has proven to hold,
//!    and the sessions whose manifests came through it.
//! 5. `forward` decides by that record and asks over the broker. The reply goes out with the
//!    request's number.
//! 6. Beside it, `waiting` asks the orchestrator how many jobs wait for these wallets' owners.
//!
//! # What it keeps
//!
//! A gateway keeps nothing beyond a socket. Several run side by side, and a restarted one needs no
//! state: devices connect again and prove their keys again.
//!
//! # Bounds
//!
//! Everything that a stranger can make a gateway hold is bounded:
//!
//! - connections, in all and per address;
//! - the size of frames, and their number per address and second;
//! - requests under way, per socket, per address and in all;
//! - frames that wait to be written to a socket;
//! - the time that a handshake, a greeting, a silence and a write may take.
//!
//! [`Limits`] has the bounds. IPv6 addresses count by their /64. A client of a trusted proxy counts
//! by the address that the proxy states ([`TrustedProxies`]).

mod addresses;
mod device;
mod forward;
mod gateway;
mod http;
mod invalid_setting;
mod metrics;
mod outbox;
mod page;
mod proxies;
mod rates;
mod server;
mod settings;
mod socket;
mod waiting;

pub use invalid_setting::InvalidSetting;
pub use ipnet::IpNet;
pub use proxies::{ClientHeader, TrustedProxies};
pub use server::{GatewayError, GatewayServer};
pub use settings::{Backend, BackendRole, Config, InvalidOrigin, Limits, Origin, Rpc, TlsFiles};
