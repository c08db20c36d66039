//! What a gateway is told.

use core::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    str::FromStr,
    time::Duration,
};
use std::{collections::BTreeMap, path::PathBuf};

use duet_bus::ConnectSettings;
use duet_protocol::{
    admission::AdmissionToken,
    ids::{CardFingerprint, PartyId, TenantId},
};
use duet_wire::signing::SigningKey;
use serde::Serialize;

use crate::TrustedProxies;

/// All that a gateway is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens; port 0 picks a free one. Without [`Self::tls`] on the loopback only.
    pub listen: SocketAddr,
    /// The certificate to serve under.
    pub tls: Option<TlsFiles>,
    /// The broker, with the gateway's credential.
    pub broker: ConnectSettings,
    /// The parties that devices may speak to.
    pub backends: Vec<Backend>,
    /// The tenant that wallets made here belong to.
    pub tenant: Option<TenantId>,
    /// A node for the chain that the page is about.
    pub rpc: Option<Rpc>,
    /// Folder of the built page, served on the loopback only.
    pub page: Option<PathBuf>,
    /// Whose pages may speak to it, beside the one it serves itself.
    pub origins: Vec<Origin>,
    /// Whether pages of any origin on this machine's loopback may too; on the loopback only, for
    /// trying out.
    pub loopback_origins: bool,
    /// Whether it says that it is for trying out: pages that pin no parties then deal to those it
    /// names. On the loopback only.
    pub trial: bool,
    /// Admission tokens that it tells every page; only with [`Self::trial`].
    pub admission: BTreeMap<PartyId, AdmissionToken>,
    /// Proxies in front of it. Default none: an address is that of whoever connects.
    pub proxies: TrustedProxies,
    /// The Ed25519 key that signs the gateway's audit log. It signs nothing else.
    pub audit_key: SigningKey,
    /// Bounds.
    pub limits: Limits,
}

impl Config {
    /// Where a gateway listens when nothing says otherwise.
    pub const DEFAULT_LISTEN: SocketAddr =
        SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::LOCALHOST), 8081);

    /// Refuses what would be served in the clear, or to others than this machine.
    ///
    /// # Errors
    /// The first setting that does not hold.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let loopback = self.listen.ip().is_loopback();
        if !loopback && self.tls.is_none() {
            return Err(InvalidSetting(
                "a gateway that others than this machine can reach needs a certificate and its key",
            ));
        }
        if !loopback && self.page.is_some() {
            return Err(InvalidSetting(
                "the page is served on the loopback only; elsewhere it belongs on an origin of its own",
            ));
        }
        if !loopback && self.loopback_origins {
            return Err(InvalidSetting("pages of the loopback are allowed on the loopback only"));
        }
        if !loopback && self.trial {
            return Err(InvalidSetting(
                "a gateway for trying out (--trial) listens on the loopback only; elsewhere pages pin the \
                 parties themselves",
            ));
        }
        if !self.trial && !self.admission.is_empty() {
            return Err(InvalidSetting(
                "only a gateway for trying out (--trial) tells admission tokens; owners get theirs from the \
                 parties",
            ));
        }
        if !self.backends.iter().any(|backend| backend.role == BackendRole::Service) {
            return Err(InvalidSetting("there is no service to speak to"));
        }
        self.proxies.check()?;
        self.limits.check()
    }
}

/// A setting that a gateway does not start with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSetting(pub &'static str);

/// A certificate chain and its key, PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The chain, the gateway's own certificate first.
    pub certificates: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// Which share a backend party holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendRole {
    /// Share 2.
    Service,
    /// Share 3.
    Partner,
}

/// A party that devices may speak to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// Which share it holds.
    pub role: BackendRole,
    /// Its name.
    pub party: PartyId,
    /// Its card's fingerprint. Pages pin their own; one that differs from this refuses to deal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<CardFingerprint>,
}

/// An Ethereum node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rpc {
    /// The chain it is on.
    pub chain_id: u64,
    /// Where its JSON-RPC is.
    pub url: String,
}

/// Where a page comes from: scheme, host and port (RFC 6454), as browsers write it in `Origin`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(String);

/// Text that is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an origin is http:// or https:// with a host and maybe a port, lower case, and nothing after it")]
pub struct InvalidOrigin;

impl Origin {
    /// The origin as browsers write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is of this machine's loopback: `localhost` or a loopback address, at any port.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let authority = self.authority();
        let host = match authority.split_once(']') {
            Some((host, _)) => host.trim_start_matches('['),
            None => authority.split_once(':').map_or(authority, |(host, _)| host),
        };
        host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
    }

    /// Host and port, as browsers write them in `Host`.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.0.split_once("://").map_or("", |(_, authority)| authority)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;
    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let (scheme, authority) = text.split_once("://").ok_or(InvalidOrigin)?;
        let host_is_plain = !authority.is_empty()
            && authority.bytes().all(|b| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b':' | b'[' | b']')
            });
        if matches!(scheme, "http" | "https") && host_is_plain {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidOrigin)
        }
    }
}

/// Bounds on what strangers can make a gateway do.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections in all, sockets and page visits. Default 1024, some 2 MiB each at the very
    /// worst.
    pub max_connections: usize,
    /// Connections of one address. Default 64: a household or an office behind one address.
    pub max_connections_per_address: usize,
    /// Connections and sockets that one address may open per second, five times as many at once.
    /// Default 20.
    pub connections_per_second: NonZeroU32,
    /// Frames that are read from one address per second, four times as many at once; what comes
    /// faster waits. Default 100.
    pub frames_per_second: NonZeroU32,
    /// Messages about wallets being made that one address may send per minute, half of it at once.
    /// Making one takes four. Default 60.
    pub shares_per_minute: NonZeroU32,
    /// Proofs of a device's key from one address that may fail per minute, and as many at once.
    /// What fails beyond that is answered later, and its socket closed when that takes longer than
    /// [`Self::handshake`]; proofs that hold are never held up. Default 30.
    pub refused_proofs_per_minute: NonZeroU32,
    /// Requests about one wallet per second, over all its sockets, four times as many at once. A
    /// signature takes some ten with its progress. Default 100.
    pub requests_per_second_per_device: NonZeroU32,
    /// Requests under way in all. Default 512.
    pub max_requests: usize,
    /// Requests under way of one address. Default 64.
    pub max_requests_per_address: usize,
    /// How long a socket may be silent before it is closed; it is pinged after half of that.
    /// Default 60 s.
    pub idle: Duration,
    /// How long a socket on which no wallet is authenticated may go without a request. Default 10
    /// min.
    pub unauthenticated: Duration,
    /// How long a TLS handshake, a request's header, and a device's first frame may take, each.
    /// Default 10 s.
    pub handshake: Duration,
    /// How long one frame may take to be written. Default 10 s.
    pub write: Duration,
    /// How often a socket asks how many jobs wait, for one of its wallets after the other. Default
    /// 1.5 s.
    pub waiting_interval: Duration,
    /// How long requests under way may go on after the gateway was told to stop. Default 10 s.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const fn number(value: u32) -> NonZeroU32 {
            match NonZeroU32::new(value) {
                Some(number) => number,
                None => NonZeroU32::MIN,
            }
        }
        Self {
            max_connections: 1024,
            max_connections_per_address: 64,
            connections_per_second: number(20),
            frames_per_second: number(100),
            shares_per_minute: number(60),
            refused_proofs_per_minute: number(30),
            requests_per_second_per_device: number(100),
            max_requests: 512,
            max_requests_per_address: 64,
            idle: Duration::from_secs(60),
            unauthenticated: Duration::from_secs(600),
            handshake: Duration::from_secs(10),
            write: Duration::from_secs(10),
            waiting_interval: Duration::from_millis(1500),
            drain: Duration::from_secs(10),
        }
    }
}

impl Limits {
    fn check(&self) -> Result<(), InvalidSetting> {
        if self.max_connections == 0 || self.max_connections_per_address == 0 {
            return Err(InvalidSetting("a gateway without room for a connection serves nobody"));
        }
        if self.max_requests == 0 || self.max_requests_per_address == 0 {
            return Err(InvalidSetting("a gateway without room for a request serves nobody"));
        }
        if self.idle < Duration::from_secs(1) {
            return Err(InvalidSetting("sockets may be silent for at least a second"));
        }
        if self.waiting_interval < Duration::from_millis(50) {
            return Err(InvalidSetting("waiting jobs are asked for at most every 50 ms"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_what_browsers_write() {
        for good in ["https://wallet.example", "http://127.0.0.1:5173", "http://[::1]:8081"] {
            assert_eq!(good.parse::<Origin>().unwrap().as_str(), good);
        }
        assert_eq!("https://a.example:8443".parse::<Origin>().unwrap().authority(), "a.example:8443");
        for bad in [
            "",
            "*",
            "null",
            "wallet.example",
            "https://",
            "https://a/",
            "https://A",
            "ftp://a",
            "http://a b",
        ] {
            assert_eq!(bad.parse::<Origin>(), Err(InvalidOrigin), "{bad}");
        }
    }
}
