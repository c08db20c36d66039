//! What to make in a credentials directory.

use duet_protocol::ids::TenantId;

use crate::node::Node;

/// What [`crate::initialise()`] makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitSettings {
    /// Tenants of the HTTP API; each gets a token. Default `demo`.
    pub tenants: Vec<TenantId>,
    /// Names and addresses in the broker's certificate. Default localhost, 127.0.0.1 and ::1.
    pub server_names: Vec<String>,
    /// Where the broker listens. Default 127.0.0.1.
    pub host: String,
    /// The broker's port. Default 4222.
    pub port: u16,
    /// The port of the broker's monitoring on the loopback. Default 8222.
    pub monitor_port: u16,
    /// The nodes of a cluster. None by default. They listen on the ports above, each on its own
    /// host.
    pub nodes: Vec<Node>,
    /// The port on which the nodes listen for each other. Default 6222.
    pub cluster_port: u16,
}

impl Default for InitSettings {
    fn default() -> Self {
        Self {
            // A literal that satisfies the token's rules.
            tenants: "demo".parse().into_iter().collect(),
            server_names: ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec(),
            host: "127.0.0.1".to_owned(),
            port: 4222,
            monitor_port: 8222,
            nodes: Vec::new(),
            cluster_port: 6222,
        }
    }
}
