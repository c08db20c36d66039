//! Finds the address of a client behind a proxy.
//!
//! A proxy appends the address of its peer to a header. Entries further left came with the request
//! and are only the client's claim. So the list is read from the right, as long as the writer of an
//! entry is trusted. The first address that is not a trusted proxy's is the client's; entries left
//! of it are ignored (RFC 7239, section 8.1).

use core::{net::IpAddr, net::SocketAddr, str::FromStr};

use axum::http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

use crate::invalid_setting::InvalidSetting;

/// The header in which proxies state their client's address. It is a setting and never guessed: a
/// header that the proxies do not write would come from the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientHeader {
    /// `X-Forwarded-For`, addresses with commas between them.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl ClientHeader {
    const fn name(self) -> HeaderName {
        match self {
            Self::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
            Self::Forwarded => header::FORWARDED,
        }
    }

    /// The address in one element. `None` for an element without one, such as `unknown` or a hidden
    /// name.
    fn address(self, element: &str) -> Option<IpAddr> {
        match self {
            Self::XForwardedFor => address(element),
            Self::Forwarded => element.split(';').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                name.trim().eq_ignore_ascii_case("for").then(|| address(value.trim().trim_matches('"')))?
            }),
        }
    }
}

impl FromStr for ClientHeader {
    type Err = InvalidSetting;
    fn from_str(text: &str) -> Result<Self, InvalidSetting> {
        match text.to_ascii_lowercase().as_str() {
            "x-forwarded-for" => Ok(Self::XForwardedFor),
            "forwarded" => Ok(Self::Forwarded),
            _ => Err(InvalidSetting("proxies name their clients in `x-forwarded-for` or in `forwarded`")),
        }
    }
}

/// Reads an address, with or without a port, IPv6 with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// The proxies whose statements about their clients' addresses count. None by default.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies {
    /// Their networks.
    pub networks: Vec<IpNet>,
    /// The header that they write.
    pub header: ClientHeader,
}

impl TrustedProxies {
    pub(crate) fn check(&self) -> Result<(), InvalidSetting> {
        if self.networks.iter().any(|network| network.prefix_len() == 0) {
            return Err(InvalidSetting(
                "if every address were a trusted proxy, every client could name its own",
            ));
        }
        Ok(())
    }

    /// Whether `peer` is a trusted proxy.
    pub(crate) fn contains(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.networks.iter().any(|network| network.contains(&peer))
    }

    /// The client that a request of `peer` is for: `peer` itself, unless it is a trusted proxy that
    /// names another address.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        let values = headers.get_all(self.header.name());
        let elements =
            values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        for element in elements.collect::<Vec<_>>().into_iter().rev() {
            if !self.contains(client) {
                break;
            }
            // An element without an address was written by a trusted proxy that does not know its
            // client.
            let Some(named) = self.header.address(element) else { break };
            client = named;
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(header: ClientHeader, peer: &str, lines: &[&str]) -> String {
        let networks = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().unwrap()).to_vec();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header.name(), line.parse().unwrap());
        }
        TrustedProxies { networks, header }.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_right_most_untrusted_address_is_the_clients() {
        let found = |peer, lines: &[&str]| client(ClientHeader::XForwardedFor, peer, lines);
        assert_eq!(found("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        // The client's own claims stand further left.
        assert_eq!(found("10.0.0.1", &["203.0.113.9, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(found("10.0.0.1", &["203.0.113.9", "198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(found("::ffff:10.0.0.1", &["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(found("2001:db8::1", &["[2a00::5]:80"]), "2a00::5");
        // Only proxies are in the list: the left-most one sent the request itself.
        assert_eq!(found("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let found = |peer, lines: &[&str]| client(ClientHeader::XForwardedFor, peer, lines);
        assert_eq!(found("198.51.100.1", &["203.0.113.9"]), "198.51.100.1");
        assert_eq!(found("10.0.0.1", &[]), "10.0.0.1");
        for none in ["", "unknown", "203.0.113.9, ", "203.0.113.9, not-an-address", "203.0.113.9,1.2.3"] {
            assert_eq!(found("10.0.0.1", &[none]), "10.0.0.1", "{none}");
        }
        // The client wrote the other header.
        let mut headers = HeaderMap::new();
        headers.insert(header::FORWARDED, "for=203.0.113.9".parse().unwrap());
        let proxies =
            TrustedProxies { networks: vec!["10.0.0.0/8".parse().unwrap()], ..TrustedProxies::default() };
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(proxies.client(peer, &headers), peer);
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let found = |lines: &[&str]| client(ClientHeader::Forwarded, "10.0.0.1", lines);
        assert_eq!(found(&["for=198.51.100.7;proto=https;by=10.0.0.1"]), "198.51.100.7");
        assert_eq!(found(&["for=203.0.113.9, For=\"[2a00::5]:4711\";proto=https"]), "2a00::5");
        assert_eq!(found(&["proto=https;for=198.51.100.7, for=10.0.0.2"]), "198.51.100.7");
        for hidden in ["for=unknown", "for=_secret", "for=203.0.113.9, for=unknown", "proto=https"] {
            assert_eq!(found(&[hidden]), "10.0.0.1", "{hidden}");
        }
    }

    #[test]
    fn a_network_of_all_addresses_is_refused() {
        for network in ["0.0.0.0/0", "::/0"] {
            let proxies =
                TrustedProxies { networks: vec![network.parse().unwrap()], ..TrustedProxies::default() };
            assert!(proxies.check().is_err(), "{network}");
        }
        assert!(TrustedProxies::default().check().is_ok());
    }
}
