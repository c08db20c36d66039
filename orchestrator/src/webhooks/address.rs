//! Where deliveries may go. A tenant that adds an endpoint must not make the orchestrator connect
//! to what only the orchestrator can reach (server-side request forgery). That is its own machine,
//! its network, or a cloud's metadata service.
//!
//! Names are resolved here, and connections go only to the addresses that were checked. So a name
//! that resolves differently a moment later gains nothing. Redirects are not followed and proxies
//! are not used.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::{io, sync::Arc};

use duet_wire::{Code, Problem};
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// The longest URL of an endpoint.
const MAX_URL_SIZE_BYTES: usize = 2048;

/// Checks an endpoint's URL as far as possible without resolving its name.
///
/// # Errors
/// What is wrong with it.
pub(super) fn endpoint_url(text: &str, allow_private: bool) -> Result<Url, Problem> {
    let refuse = |why: &str| Err(Problem::new(Code::InvalidEndpoint, why).at("url"));
    if text.len() > MAX_URL_SIZE_BYTES {
        return refuse("an endpoint's URL has at most 2048 bytes");
    }
    let Ok(url) = text.parse::<Url>() else { return refuse("expected an absolute URL") };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse(
            "a URL with credentials in it would be logged with them; deliveries are signed instead",
        );
    }
    if url.fragment().is_some() {
        return refuse("a fragment is never sent");
    }
    let literal = literal_address(&url);
    let is_loopback =
        literal.is_some_and(|address| address.is_loopback()) || url.host_str() == Some("localhost");
    match url.scheme() {
        "https" => {}
        "http" if is_loopback => {}
        _ => return refuse("expected https"),
    }
    if !allow_private && (is_loopback || literal.is_some_and(|address| !is_public(address))) {
        return refuse("the address is not public; the operator has to allow it");
    }
    Ok(url)
}

/// The address that a URL has in place of a host name.
fn literal_address(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// Resolves names to addresses that deliveries may go to.
pub(super) struct Guard {
    pub(super) allow_private: bool,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> =
                found.into_iter().filter(|address| allow_private || is_public(address.ip())).collect();
            if allowed.is_empty() {
                return Err("the name resolves to no public address".into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// How many connections to one receiver stay open between deliveries.
const MAX_IDLE_CONNECTIONS: usize = 2;

/// A client that delivers under these rules.
///
/// # Errors
/// When TLS cannot be set up.
pub(super) fn client(settings: &super::WebhookSettings) -> io::Result<reqwest::Client> {
    // TLS needs the process's default provider and would panic without one. One that is already
    // installed serves as well.
    rustls::crypto::ring::default_provider().install_default().ok();
    reqwest::Client::builder()
        .dns_resolver(Arc::new(Guard { allow_private: settings.allow_private }))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(settings.timeout)
        // After an outage many deliveries to one receiver run at once.
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        .user_agent(concat!("duet/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(io::Error::other)
}

/// Whether an address is publicly reachable, by IANA's registries of special-purpose addresses.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        // Reserved, and broadcast.
        || a >= 240
        // Shared address space behind carrier-grade NAT.
        || (a == 100 && (64..128).contains(&b))
        // Protocol assignments.
        || (a == 192 && b == 0 && c == 0)
        // Benchmarking of networks.
        || (a == 198 && (b == 18 || b == 19));
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    // Only 2000::/3 is allocated. Within it, 2001::/23 is for protocols, and 2001:db8::/32 and
    // 3fff::/20 are for documentation.
    (0x2000..0x4000).contains(&first)
        && !(first == 0x2001 && second < 0x200)
        && !(first == 0x2001 && second == 0xdb8)
        && !(first == 0x3fff && second < 0x1000)
}

/// The IPv4 address that an IPv6 address contains: mapped, translated (RFC 6052), or 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) => Some(join(g, h)),
        (0x2002, ..) => Some(join(b, c)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_only_this_machine_reaches_are_not_public() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.7",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "fec0::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "3fff::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in
            ["1.1.1.1", "172.32.0.1", "198.20.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"]
        {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_url_is_refused_with_the_reason() {
        let refused = |text: &str, allow| endpoint_url(text, allow).unwrap_err().detail;
        for text in [
            "https://10.0.0.1/",
            "https://[::1]/x",
            "http://127.0.0.1:1/",
            "https://localhost/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://169.254.169.254/latest",
        ] {
            assert!(refused(text, false).contains("not public"), "{text}");
        }
        for text in ["http://example.com/", "ftp://example.com/", "http://10.0.0.1/"] {
            assert!(refused(text, true).contains("https"), "{text}");
        }
        assert!(refused("/hook", true).contains("absolute"));
        assert!(refused("https://user:pw@example.com/", true).contains("credentials"));
        assert!(refused("https://example.com/#x", true).contains("fragment"));
        assert!(endpoint_url("https://hooks.example.com/duet?x=1", false).is_ok());
        assert!(endpoint_url("http://127.0.0.1:8099/hook", true).is_ok());
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_resolved() {
        let name: Name = "localhost".parse().unwrap();
        assert!(Guard { allow_private: false }.resolve(name).await.is_err());
        let name: Name = "localhost".parse().unwrap();
        assert!(Guard { allow_private: true }.resolve(name).await.is_ok());
    }
}
