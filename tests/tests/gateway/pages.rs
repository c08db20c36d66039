//! What a gateway answers over HTTP, and where it refuses to start.

use std::fs;

use duet_tests::{
    anvil::{http_client, https_client},
    browser::socket::{Socket, upgrade},
    stack::PAGE_ORIGIN,
};
use duet_wire::gateway::GATEWAY_PROTOCOL;
use reqwest::Response;
use serde_json::Value;

use crate::gateway::bounds::Alone;

/// A folder as the page's build leaves it.
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

    // The build is told to pages, and the page's own origin may connect.
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
    // Replaced while it runs, as an update is.
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
    let foreign = get(&url, &[("origin", "https://evil.example")]).await;
    assert_eq!(header(&foreign, "access-control-allow-origin"), "");
    // A name that was made to point here is not ours.
    let rebound = get(&url, &[("host", "evil.example")]).await;
    assert_eq!(rebound.status(), 401);
    assert_eq!(get(&format!("{}/", alone.url), &[]).await.status(), 404, "there is no page here");
    assert_eq!(get(&format!("{}/healthz", alone.url), &[]).await.status(), 200);
}

#[tokio::test]
async fn gateway_beyond_the_loopback__should_need_a_certificate_and_serve_no_page() {
    let alone = Alone::start(&[]).await;
    let credentials = alone.broker.credentials();
    let tls = |name: &str| credentials.join("tls").join(name).to_string_lossy().into_owned();
    let (certificate, key) = (tls("server.pem"), tls("server.key"));
    let duet = duet_tests::duet::Duet::new(credentials).with("DUET_NATS_URL", &alone.broker.url());
    let encrypted = ["gateway", "--listen", "0.0.0.0:0", "--tls-cert", &certificate, "--tls-key", &key];
    let folder = page();
    for arguments in [
        vec!["gateway", "--listen", "0.0.0.0:0"],
        [&encrypted[..], &["--page", folder.path().to_str().unwrap()]].concat(),
        vec!["gateway", "--page", "/nowhere"],
        vec!["gateway", "--origin", "*"],
        vec!["gateway", "--tls-cert", &certificate],
    ] {
        assert_eq!(duet.refused(&arguments).await.unwrap().code, "usage", "{arguments:?}");
    }
    let logs = tempfile::tempdir().unwrap();
    let mut gateway = duet_tests::stack::Server::new("encrypted", duet, &encrypted, logs.path());
    let ready = gateway.start().await.unwrap();
    let url = duet_tests::duet::text(&ready, "/url").unwrap().replace("0.0.0.0", "127.0.0.1");
    assert!(url.starts_with("https://"));
    let client = https_client(&credentials.join("tls").join("ca.pem")).unwrap();
    assert_eq!(client.get(format!("{url}/healthz")).send().await.unwrap().status(), 200);
    let plain = http_client().unwrap().get(format!("{}/healthz", url.replace("https", "http"))).send().await;
    assert!(plain.is_err());
}
