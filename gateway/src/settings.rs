//! A gateway's settings.

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

use crate::{TrustedProxies, invalid_setting::InvalidSetting};

/// A gateway's whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address to listen on; port 0 picks a free one. Without [`Self::tls`] it must be on the
    /// loopback.
    pub listen: SocketAddr,
    /// The certificate to serve with.
    pub tls: Option<TlsFiles>,
    /// The broker, with the gateway's credential.
    pub broker: ConnectSettings,
    /// The parties that devices may speak to.
    pub backends: Vec<Backend>,
    /// The tenant that wallets made with this gateway belong to.
    pub tenant: Option<TenantId>,
    /// An Ethereum node for the page's chain.
    pub rpc: Option<Rpc>,
    /// Folder of the built page, served on the loopback only.
    pub page: Option<PathBuf>,
    /// The origins whose pages may use it, beside the page that it serves itself.
    pub origins: Vec<Origin>,
    /// Whether pages of any origin on this machine's loopback may use it as well. For trials, and
    /// on the loopback only.
    pub loopback_origins: bool,
    /// Whether the gateway tells pages that it is for trials. A page that pins no parties then
    /// deals to the parties that this gateway names. On the loopback only.
    pub trial: bool,
    /// Admission tokens that it gives to every page. Only with [`Self::trial`].
    pub admission: BTreeMap<PartyId, AdmissionToken>,
    /// The trusted proxies in front of it. Default none: then a client's address is its
    /// connection's.
    pub proxies: TrustedProxies,
    /// The Ed25519 key that signs the gateway's audit log. It signs nothing else.
    pub audit_key: SigningKey,
    /// The bounds on what clients can make it do.
    pub limits: Limits,
}

impl Config {
    /// The default address to listen on.
    pub const DEFAULT_LISTEN: SocketAddr =
        SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::LOCALHOST), 8081);

    /// Refuses settings that would serve in the clear, or serve other machines what is for this
    /// one.
    ///
    /// # Errors
    /// The first invalid setting.
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

/// A certificate chain and its key, PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The chain, the gateway's own certificate first.
    pub certificates: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// The share that a backend party holds.
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
    /// The share that it holds.
    pub role: BackendRole,
    /// Its name.
    pub party: PartyId,
    /// Its card's fingerprint. Pages pin their own, and refuse to deal when it differs from this
    /// one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<CardFingerprint>,
}

/// An Ethereum node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rpc {
    /// The chain it is on.
    pub chain_id: u64,
    /// The URL of its JSON-RPC.
    pub url: String,
}

/// The origin of a page: scheme, host and port (RFC 6454), as browsers write it in `Origin`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(String);

/// The text is not an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an origin is http:// or https:// with a host and maybe a port, lower case, and nothing after it")]
pub struct InvalidOrigin;

impl Origin {
    /// The origin as browsers write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is on this machine's loopback: `localhost` or a loopback address, at any port.
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
    /// How many connections may be open in all, sockets and page visits. Default 1024, some 2 MiB
    /// each at the very worst.
    pub max_connections: usize,
    /// How many connections one address may have open. Default 64: a household or an office behind
    /// one address.
    pub max_connections_per_address: usize,
    /// How many connections and sockets one address may open per second; five times as many at
    /// once. Default 20.
    pub connections_per_second: NonZeroU32,
    /// How many frames of one address are read per second; four times as many at once. Faster
    /// frames wait. Default 100.
    pub frames_per_second: NonZeroU32,
    /// How many messages about new wallets one address may send per minute; half of it at once.
    /// Creating a wallet takes four. Default 60.
    pub shares_per_minute: NonZeroU32,
    /// How many invalid proofs of a device's key one address may send per minute, and as many at
    /// once. A further invalid proof is answered later, and its socket is closed when that takes
    /// longer than [`Self::handshake`]. Valid proofs never wait. Default 30.
    pub refused_proofs_per_minute: NonZeroU32,
    /// How many requests about one wallet may arrive per second, over all its sockets; four times
    /// as many at once. A signature takes some ten with its progress. Default 100.
    pub requests_per_second_per_device: NonZeroU32,
    /// How many requests may be under way in all. Default 512.
    pub max_requests: usize,
    /// How many requests of one address may be under way. Default 64.
    pub max_requests_per_address: usize,
    /// How long a socket may be silent before the gateway closes it. It is pinged after half of
    /// that. Default 60 s.
    pub idle: Duration,
    /// How long a socket without an authenticated wallet may go without a request. Default 10 min.
    pub unauthenticated: Duration,
    /// How long each of these may take: a TLS handshake, a request's header, a device's first
    /// frame. Default 10 s.
    pub handshake: Duration,
    /// How long writing one frame may take. Default 10 s.
    pub write: Duration,
    /// How often a socket asks how many jobs wait, for one of its wallets after another. Default
    /// 1.5 s.
    pub waiting_interval: Duration,
    /// How long requests under way may go on after the gateway is told to stop. Default 10 s.
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
            return Err(InvalidSetting(
                "a gateway must allow at least one connection, in all and per address",
            ));
        }
        if self.max_requests == 0 || self.max_requests_per_address == 0 {
            return Err(InvalidSetting("a gateway must allow at least one request, in all and per address"));
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
