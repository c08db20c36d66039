//! HTTP clients of the command line: the proxy for an address, and where a secret may go.
//!
//! The environment names proxies as for curl (`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`,
//! in upper or lower case). The loopback is never reached through a proxy.

use std::net::IpAddr;

use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use reqwest::{Proxy, Url, redirect};

use crate::error::CliError;

/// The route to one address.
#[derive(Debug)]
pub(crate) struct Route {
    proxy: Option<Intercept>,
}

impl Route {
    /// The route to `url`, which the option `option` names.
    ///
    /// # Errors
    /// When the environment names a proxy that does not speak HTTP.
    pub(crate) fn to(url: &Url, option: &str) -> Result<Self, CliError> {
        Self::chosen_by(&Matcher::from_env(), url, option)
    }

    fn chosen_by(proxies: &Matcher, url: &Url, option: &str) -> Result<Self, CliError> {
        if is_loopback(url) {
            return Ok(Self { proxy: None });
        }
        let proxy = url.as_str().parse().ok().and_then(|address| proxies.intercept(&address));
        let scheme = proxy.as_ref().and_then(|proxy| proxy.uri().scheme_str());
        if !matches!(scheme, None | Some("http" | "https")) {
            let what = format!(
                "the environment names the proxy {} for --{option}, and only HTTP proxies are spoken to",
                proxy.as_ref().map(shown).unwrap_or_default()
            );
            return Err(CliError::usage(what).remedy(
                "Name an HTTP proxy in HTTPS_PROXY or HTTP_PROXY, or the host in NO_PROXY to use none.",
            ));
        }
        Ok(Self { proxy })
    }

    /// The proxy for a client. `None` when the client connects directly.
    ///
    /// # Errors
    /// When the client does not accept the proxy's address.
    pub(crate) fn proxy(&self) -> Result<Option<Proxy>, CliError> {
        let Some(proxy) = &self.proxy else { return Ok(None) };
        let made = Proxy::all(proxy.uri().to_string())
            .map_err(|error| CliError::usage(format!("the proxy {} is not usable: {error}", shown(proxy))))?;
        Ok(Some(match proxy.basic_auth() {
            Some(credentials) => made.custom_http_auth(credentials.clone()),
            None => made,
        }))
    }

    /// A client for this address alone. It follows no redirect, so requests go to no other host.
    ///
    /// # Errors
    /// As [`Self::proxy`].
    pub(crate) fn client(&self) -> Result<reqwest::ClientBuilder, CliError> {
        let client = reqwest::Client::builder().no_proxy().redirect(redirect::Policy::none());
        Ok(match self.proxy()? {
            Some(proxy) => client.proxy(proxy),
            None => client,
        })
    }

    /// ` through the proxy http://proxy:3128`, or nothing. For messages that name an address.
    pub(crate) fn described(&self) -> String {
        self.proxy.as_ref().map(|proxy| format!(" through the proxy {}", shown(proxy))).unwrap_or_default()
    }

    /// A remedy for an unreachable address, if a proxy may be the cause.
    pub(crate) fn remedy(&self) -> Option<&'static str> {
        self.proxy.as_ref().map(|_| {
            "The environment names this proxy (HTTPS_PROXY, HTTP_PROXY or ALL_PROXY): check it, or name the host in NO_PROXY."
        })
    }
}

/// A proxy in printable form, without its credentials.
fn shown(proxy: &Intercept) -> String {
    let uri = proxy.uri();
    format!(
        "{}://{}",
        uri.scheme_str().unwrap_or("http"),
        uri.authority().map_or("", |authority| authority.as_str())
    )
}

/// Whether `url` names this machine: `localhost`, or an address of the loopback.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.trim_end_matches('.') == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Refuses to send `secret` to `url` where others could read it on the way. Beyond this machine,
/// TLS is required.
///
/// # Errors
/// `usage` when `url` is plain HTTP to another machine. `option` is the option that gave the URL.
pub(crate) fn may_carry(secret: &str, url: &Url, option: &str) -> Result<(), CliError> {
    if url.scheme() == "https" || is_loopback(url) {
        return Ok(());
    }
    let host = url.host_str().unwrap_or_default();
    Err(CliError::usage(format!(
        "--{option} is plain HTTP to {host}: {secret} would cross the network where anyone on the way can read it"
    ))
    .remedy(
        "Give an https URL (TLS may end at a proxy in front of it), or an SSH tunnel's end on this machine's loopback.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn only_this_machine_is_the_loopback() {
        for here in [
            "http://127.0.0.1:8080/",
            "http://127.8.9.1/",
            "http://localhost/",
            "https://LOCALHOST:1/",
            "http://localhost./",
            "http://[::1]:8080/",
            "http://[::ffff:127.0.0.1]/",
            "http://2130706433/",
        ] {
            assert!(is_loopback(&url(here)), "{here}");
        }
        for elsewhere in [
            "http://10.0.0.1/",
            "http://0.0.0.0/",
            "http://localhost.example/",
            "http://127.0.0.1.example/",
            "http://[::ffff:10.0.0.1]/",
            "http://[fe80::1]/",
        ] {
            assert!(!is_loopback(&url(elsewhere)), "{elsewhere}");
        }
    }

    #[test]
    fn the_loopback_has_no_proxy_and_others_have_the_one_that_is_named() {
        let proxies =
            Matcher::builder().all("http://user:secret@proxy.example:3128").no("db.example").build();
        let described = |text: &str| Route::chosen_by(&proxies, &url(text), "api-url").unwrap().described();
        for direct in ["http://127.0.0.1:8080/", "https://localhost/", "http://[::1]/", "https://db.example/"]
        {
            assert_eq!(described(direct), "", "{direct}");
        }
        assert_eq!(described("https://api.example/"), " through the proxy http://proxy.example:3128");
        let socks = Matcher::builder().all("socks5h://proxy.example:1080").build();
        let refused =
            Route::chosen_by(&socks, &url("https://api.example/"), "api-url").unwrap_err().to_string();
        assert!(
            refused.contains("socks5h://proxy.example:1080") && refused.contains("--api-url"),
            "{refused}"
        );
        assert!(Route::chosen_by(&socks, &url("http://127.0.0.1/"), "api-url").is_ok());
    }

    #[test]
    fn a_secret_leaves_this_machine_by_tls_alone() {
        for allowed in ["https://api.example/", "http://127.0.0.1:8080/", "http://localhost:1/"] {
            may_carry("the token", &url(allowed), "api-url").unwrap();
        }
        for refused in ["http://api.example/", "http://10.0.0.1:8080/"] {
            let error = may_carry("the token", &url(refused), "api-url").unwrap_err().to_string();
            assert!(error.contains("--api-url") && error.contains("the token"), "{error}");
        }
    }
}
