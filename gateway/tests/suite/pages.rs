//! The gateway's answers over HTTP, and the settings with which it refuses to start.

use std::fs;

use duet_actors::browser::socket::{Socket, upgrade};
use duet_harness::{
    anvil::{http_client, https_client},
    stack::PAGE_ORIGIN,
};
use duet_wire::gateway::GATEWAY_PROTOCOL;
use reqwest::{Method, Response};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Error;

use crate::bounds::Alone;

/// A folder as the page's build makes it.
fn page() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    fs::create_dir(folder.path().join("assets")).unwrap();
    write("index.html", "<!doctype html><title>Duet</title>");
    write("build.json", r#"{"build":"0123abcd"}"#);
    write("assets/main-abc.js", "export {}");
    write("assets/main-abc.js.br", "not really brotli");
    folder
}

async fn get(url: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = http_client().unwrap().get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn page__should_be_served_with_headers_that_let_it_load_nothing_else() {
    let folder = page();
    let path = folder.path().to_str().unwrap();
    let more = ["--page", path, "--rpc", "http://127.0.0.1:8545/", "--chain-id", "31337"];
    let alone = Alone::start(&more).await;
    let port = alone.url.rsplit(':').next().unwrap().to_owned();

    let index = get(&alone.url, &[]).await;
    assert_eq!(index.status(), 200);
    for (name, value) in [
        ("cache-control", "no-store"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-embedder-policy", "require-corp"),
        ("cross-origin-resource-policy", "same-origin"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(header(&index, name), value, "{name}");
    }
    let policy = header(&index, "content-security-policy").to_owned();
    let directive = |name: &str| {
        policy.split("; ").find_map(|text| text.strip_prefix(name)).unwrap_or_default().trim().to_owned()
    };
    assert_eq!(directive("default-src"), "'none'");
    assert_eq!(directive("script-src"), "'self' 'wasm-unsafe-eval'");
    assert_eq!(directive("frame-ancestors"), "'none'");
    assert!(directive("connect-src").contains(&format!("ws://127.0.0.1:{port}")), "{policy}");
    assert!(directive("connect-src").ends_with("http://127.0.0.1:8545"), "{policy}");
    for excluded in ["unsafe-inline", "*", "[::1]"] {
        assert!(!policy.contains(excluded), "{policy}");
    }

    let script = get(&format!("{}/assets/main-abc.js", alone.url), &[("accept-encoding", "br, gzip")]).await;
    assert_eq!(header(&script, "content-encoding"), "br");
    assert_eq!(header(&script, "content-type"), "text/javascript");
    assert_eq!(header(&script, "cache-control"), "public, max-age=31536000, immutable");
    let plain = get(&format!("{}/assets/main-abc.js", alone.url), &[]).await;
    assert_eq!(plain.text().await.unwrap(), "export {}");
    for outside in ["/nothing", "/assets/none.js", "/../Cargo.toml", "/%2e%2e/secret"] {
        assert_eq!(get(&format!("{}{outside}", alone.url), &[]).await.status(), 404, "{outside}");
    }

    // The gateway tells pages its build, and the page's own origin may connect.
    let info: Value = get(&format!("{}/v1/info", alone.url), &[]).await.json().await.unwrap();
    assert_eq!(
        (info["build"].as_str(), info["protocol"].as_u64()),
        (Some("0123abcd"), Some(GATEWAY_PROTOCOL.into()))
    );
    assert_eq!(info["rpc"]["chainId"], 31337);
    assert_eq!(Socket::silent(&alone.url, "127.0.0.1").await.unwrap().build, "0123abcd");
    for own in [alone.url.clone(), format!("http://localhost:{port}")] {
        assert!(upgrade(&alone.url, "127.0.0.1", Some(&own)).await.is_ok(), "{own}");
    }
    // Replace the page while the gateway runs, as an update does.
    fs::write(folder.path().join("build.json"), r#"{"build":"4567"}"#).unwrap();
    assert_eq!(Socket::silent(&alone.url, "127.0.0.1").await.unwrap().build, "4567");
}

#[tokio::test]
async fn info__should_be_for_pages_that_are_allowed() {
    let alone = Alone::start(&[]).await;
    let url = format!("{}/v1/info", alone.url);
    let allowed = get(&url, &[("origin", PAGE_ORIGIN)]).await;
    assert_eq!(header(&allowed, "access-control-allow-origin"), PAGE_ORIGIN);
    let info: Value = allowed.json().await.unwrap();
    assert_eq!((info["build"].as_str(), info["tenant"].as_str()), (Some(""), Some("demo")));
    assert_eq!(info["backends"][0], serde_json::json!({"role": "service", "party": "service"}));
    assert!(info.get("admission").is_none() && info.get("rpc").is_none(), "{info}");
    // A page of another origin may read the refusal, which names its origin. The page's browser
    // would tell it nothing about a refused socket.
    for (foreign, named) in
        [("https://evil.example", "--origin https://evil.example"), ("null", "none of the web's")]
    {
        let refused = get(&url, &[("origin", foreign)]).await;
        assert_eq!((refused.status().as_u16(), header(&refused, "access-control-allow-origin")), (401, "*"));
        assert_eq!(header(&refused, "content-type"), "application/problem+json");
        let problem: Value = refused.json().await.unwrap();
        assert_eq!(problem["code"], "unauthorized");
        assert!(problem["detail"].as_str().unwrap().contains(named), "{problem}");
        assert!(problem.get("backends").is_none());
        let socket = upgrade(&alone.url, "127.0.0.1", Some(foreign)).await;
        let Err(Error::Http(answer)) = socket else { panic!("{socket:?}") };
        let body = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned();
        assert!(body.contains(named), "{body}");
    }
    // A foreign name that resolves to this machine is not the gateway's.
    let rebound = get(&url, &[("host", "evil.example")]).await;
    assert_eq!(rebound.status(), 401);
    assert_eq!(get(&format!("{}/", alone.url), &[]).await.status(), 404, "there is no page here");
    assert_eq!(get(&format!("{}/healthz", alone.url), &[]).await.status(), 200);
}

#[tokio::test]
async fn pages_of_this_machine__should_be_allowed_when_trying_out() {
    let alone = Alone::start(&["--loopback-origins"]).await;
    let url = format!("{}/v1/info", alone.url);
    for here in ["http://localhost:5173", "http://127.0.0.1:1", "https://localhost", "http://[::1]:3000"] {
        let allowed = get(&url, &[("origin", here)]).await;
        assert_eq!((allowed.status().as_u16(), header(&allowed, "access-control-allow-origin")), (200, here));
        assert!(upgrade(&alone.url, "127.0.0.1", Some(here)).await.is_ok(), "{here}");
    }
    for elsewhere in
        ["http://localhost.evil.example", "http://10.0.0.1:5173", "http://evil.example:5173", "null"]
    {
        assert_eq!(get(&url, &[("origin", elsewhere)]).await.status(), 401, "{elsewhere}");
        assert!(upgrade(&alone.url, "127.0.0.1", Some(elsewhere)).await.is_err(), "{elsewhere}");
    }
    // The gateway itself is still reached under its own names only.
    assert_eq!(get(&url, &[("host", "localhost:5173")]).await.status(), 401);
    assert_eq!(
        get(&url, &[("host", &alone.url.replace("http://127.0.0.1", "localhost"))]).await.status(),
        200
    );
}

#[tokio::test]
async fn wrong_method__should_be_refused_with_those_that_are_right() {
    let folder = page();
    let with_page = Alone::start(&["--page", folder.path().to_str().unwrap()]).await;
    let without = Alone::start(&[]).await;
    let client = http_client().unwrap();
    for (url, paths) in [
        (&with_page.url, &["/v1/info", "/v1/device", "/healthz", "/readyz", "/", "/index.html"][..]),
        (&without.url, &["/v1/info", "/v1/device", "/healthz", "/readyz"][..]),
    ] {
        for path in paths {
            for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
                let refused = client.request(method.clone(), format!("{url}{path}")).send().await.unwrap();
                assert_eq!(refused.status(), 405, "{method} {path}");
                let allow = header(&refused, "allow").to_owned();
                let mut allowed: Vec<&str> = allow.split(',').map(str::trim).collect();
                allowed.sort_unstable();
                assert_eq!(allowed, ["GET", "HEAD"], "{method} {path}");
                assert_eq!(header(&refused, "content-type"), "application/problem+json");
                let problem: Value = refused.json().await.unwrap();
                assert_eq!(problem["code"], "method-not-allowed", "{method} {path}");
            }
            let (get, head) = (get(&format!("{url}{path}"), &[]).await, client.head(format!("{url}{path}")));
            assert_eq!(head.send().await.unwrap().status(), get.status(), "{path}");
        }
    }
    assert_eq!(client.post(format!("{}/nothing", without.url)).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_gateway_for_others__should_tell_no_tokens_and_not_be_for_trying_out() {
    let alone = Alone::start(&[]).await;
    let info: Value = get(&format!("{}/v1/info", alone.url), &[]).await.json().await.unwrap();
    assert_eq!(info["trial"], false, "{info}");
    let credentials = alone.broker.credentials();
    let tls = |name: &str| credentials.join("tls").join(name).to_string_lossy().into_owned();
    let (certificate, key) = (tls("server.pem"), tls("server.key"));
    let duet = duet_harness::duet::Duet::new(credentials).with("DUET_NATS_URL", &alone.broker.url());
    let elsewhere = ["gateway", "--listen", "0.0.0.0:0", "--tls-cert", &certificate, "--tls-key", &key];
    for arguments in [
        [&elsewhere[..], &["--trial"]].concat(),
        [&elsewhere[..], &["--admission-token", "service=token"]].concat(),
        vec!["gateway", "--listen", "127.0.0.1:0", "--admission-token", "service=token"],
    ] {
        assert_eq!(duet.refused(&arguments).await.unwrap().code, "usage", "{arguments:?}");
    }
    let trial = Alone::start(&["--trial"]).await;
    let info: Value = get(&format!("{}/v1/info", trial.url), &[]).await.json().await.unwrap();
    assert_eq!(info["trial"], true, "{info}");
}

#[tokio::test]
async fn gateway_beyond_the_loopback__should_need_a_certificate_and_serve_no_page() {
    let alone = Alone::start(&[]).await;
    let credentials = alone.broker.credentials();
    let tls = |name: &str| credentials.join("tls").join(name).to_string_lossy().into_owned();
    // As an editor saves them that puts a byte order mark before a text.
    let marked = |name: &str| {
        let file = tls(&format!("marked-{name}"));
        fs::write(&file, format!("\u{feff}{}", fs::read_to_string(tls(name)).unwrap())).unwrap();
        file
    };
    let (certificate, key) = (marked("server.pem"), marked("server.key"));
    let duet = duet_harness::duet::Duet::new(credentials).with("DUET_NATS_URL", &alone.broker.url());
    let encrypted = ["gateway", "--listen", "0.0.0.0:0", "--tls-cert", &certificate, "--tls-key", &key];
    let folder = page();
    for arguments in [
        vec!["gateway", "--listen", "0.0.0.0:0"],
        [&encrypted[..], &["--page", folder.path().to_str().unwrap()]].concat(),
        vec!["gateway", "--page", "/nowhere"],
        vec!["gateway", "--origin", "*"],
        [&encrypted[..], &["--loopback-origins"]].concat(),
        vec!["gateway", "--tls-cert", &certificate],
    ] {
        assert_eq!(duet.refused(&arguments).await.unwrap().code, "usage", "{arguments:?}");
    }
    let logs = tempfile::tempdir().unwrap();
    let mut gateway = duet_harness::stack::Server::new("encrypted", duet, &encrypted, logs.path());
    let ready = gateway.start().await.unwrap();
    let url = duet_harness::duet::text(&ready, "/url").unwrap().replace("0.0.0.0", "127.0.0.1");
    assert!(url.starts_with("https://"));
    let client = https_client(&credentials.join("tls").join("ca.pem")).unwrap();
    assert_eq!(client.get(format!("{url}/healthz")).send().await.unwrap().status(), 200);
    let plain = http_client().unwrap().get(format!("{}/healthz", url.replace("https", "http"))).send().await;
    assert!(plain.is_err());
}
