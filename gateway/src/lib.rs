//! The gateway: how a browser party reaches the broker.
//!
//! The two central types are [`Config`], all that a gateway is told, and [`Server`], one that is
//! ready to serve. A browser opens a WebSocket and speaks [`duet_wire::gateway`]; the gateway
//! forwards what is inside to the broker as `device`, and what is answered back. It makes no
//! message of its own, opens none but to see whom it concerns, and holds nothing that lets it sign:
//! packages are sealed to the parties, sessions run through a Noise channel between device and
//! responder, approvals and outcomes are signed by the device.
//!
//! # The path of a request
//!
//! 1. `server` accepts a connection, if its address has room for one more, and encrypts it.
//! 2. `http` checks `Host` and `Origin` and lets the WebSocket begin.
//! 3. `socket` sends the challenge, and reads frames no faster than the address's rate allows.
//! 4. `device` keeps what this socket may do: the wallets whose device key it has proven to hold,
//!    and the sessions whose manifests came through it.
//! 5. `forward` decides by that and asks over the broker; the reply goes out with the request's
//!    number.
//! 6. Beside it `waiting` asks the orchestrator how many jobs wait for these wallets' owners.
//!
//! # What it keeps
//!
//! Nothing beyond a socket. Several run side by side, and one that is started again knows as much
//! as the one before: devices connect again and prove their keys again.
//!
//! # Bounds
//!
//! Everything a stranger can make it hold is bounded: connections in all and per address, frames in
//! size, per address and second, requests under way per socket, per address and in all, what waits
//! to be written per socket, and the time that a handshake, a greeting, a silence and a write may
//! take. See [`Limits`]. IPv6 addresses count by their /64; clients of a proxy that is trusted
//! count by what it says of them ([`TrustedProxies`]).

mod addresses;
mod device;
mod forward;
mod http;
mod metrics;
mod page;
mod proxies;
mod rates;
mod server;
mod settings;
mod socket;
mod waiting;

pub use ipnet::IpNet;
pub use proxies::{ClientHeader, TrustedProxies};
pub use server::{GatewayError, Server};
pub use settings::{
    Backend, BackendRole, Config, InvalidOrigin, InvalidSetting, Limits, Origin, Rpc, TlsFiles,
};
