//! The state that all sockets of a gateway share.

use std::{collections::BTreeMap, path::PathBuf};

use duet_bus::{BrokerClock, audit::Recorder};
use duet_protocol::ids::{PartyId, TenantId};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Limits, Origin, Rpc, TrustedProxies, forward::Forwarder, metrics::Metrics, page, rates::Rates};

/// The state that all sockets of a gateway share. None of it is about a device.
pub(crate) struct Gateway {
    pub(crate) forwarder: Forwarder,
    pub(crate) broker_clock: BrokerClock,
    pub(crate) audit: Recorder,
    pub(crate) metrics: Metrics,
    pub(crate) limits: Limits,
    pub(crate) rates: Rates,
    pub(crate) proxies: TrustedProxies,
    pub(crate) origins: Vec<Origin>,
    pub(crate) loopback_origins: bool,
    pub(crate) tenant: Option<TenantId>,
    pub(crate) rpc: Option<Rpc>,
    pub(crate) page: Option<PathBuf>,
    pub(crate) trial: bool,
    pub(crate) admission: BTreeMap<PartyId, String>,
    pub(crate) is_loopback: bool,
    pub(crate) is_encrypted: bool,
    pub(crate) port: u16,
    pub(crate) sockets: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Gateway {
    /// The build of the page that the gateway serves now. It may be replaced while the gateway
    /// runs.
    pub(crate) async fn build(&self) -> String {
        match &self.page {
            Some(folder) => page::build(folder).await,
            None => String::new(),
        }
    }

    /// Whether pages of `origin`, as a browser writes it, may speak to this gateway.
    pub(crate) fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed.as_str() == origin)
            || self.loopback_origins && origin.parse().is_ok_and(|origin: Origin| origin.is_loopback())
    }

    /// Whether `host` is a name of this gateway on the loopback.
    pub(crate) fn answers_to(&self, host: &str) -> bool {
        is_known(host, self.port, &self.origins)
    }

    /// The addresses that the page may connect to.
    pub(crate) fn connections(&self) -> page::Connections {
        page::Connections {
            authorities: loopback_authorities(self.port),
            is_encrypted: self.is_encrypted,
            rpc: self.rpc.as_ref().map(|rpc| rpc.url.clone()),
        }
    }
}

/// The names under which a browser on this machine reaches the gateway at `port`.
pub(crate) fn loopback_authorities(port: u16) -> Vec<String> {
    ["127.0.0.1", "localhost", "[::1]"].map(|host| format!("{host}:{port}")).to_vec()
}

/// Whether `host`, from a request, is a name of this gateway.
fn is_known(host: &str, port: u16, origins: &[Origin]) -> bool {
    let host = host.to_ascii_lowercase();
    loopback_authorities(port).contains(&host) || origins.iter().any(|origin| origin.authority() == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_known() {
        let origins = ["https://wallet.example".parse().unwrap()];
        for known in ["127.0.0.1:8081", "localhost:8081", "LOCALHOST:8081", "[::1]:8081", "wallet.example"] {
            assert!(is_known(known, 8081, &origins), "{known}");
        }
        for foreign in ["", "127.0.0.1", "127.0.0.1:80", "evil.example:8081", "localhost.evil.example:8081"] {
            assert!(!is_known(foreign, 8081, &origins), "{foreign}");
        }
    }
}
