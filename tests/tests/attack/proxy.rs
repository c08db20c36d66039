//! A proxy named by the environment must see no secret, and no traffic within this machine.

use std::time::Duration;

use duet_harness::{
    anvil::Anvil,
    duet::Duet,
    stack::{ALL_KINDS, Stack, TENANT},
};

use crate::{
    proxy::{RecordingProxy, VARIABLES},
    vault_transit::{TOKEN, VaultTransitServer},
    webhooks::{self, Receiver},
};

/// A name that never resolves (RFC 6761), so that only a proxy could know it.
const ELSEWHERE: &str = "orchestrator.invalid";

/// A documentation address (RFC 5737).
const NOWHERE: &str = "192.0.2.1:8080";

/// A command in a shell whose `variable` names `proxy`.
fn behind(proxy: &RecordingProxy, duet: &Duet, variable: &str) -> Duet {
    duet.clone().with(variable, &proxy.url())
}

#[tokio::test(flavor = "multi_thread")]
async fn loopback__should_never_be_reached_through_a_proxy() {
    let proxy = RecordingProxy::start().await.unwrap();
    let url = proxy.url();
    // Each process has every variable. Each also exports traces to a collector that is not there,
    // which costs nothing.
    let mut settings: Vec<(&str, &str)> = VARIABLES.iter().map(|name| (*name, url.as_str())).collect();
    settings.extend([
        ("DUET_TRACES", "http://localhost:9"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("DUET_WEBHOOKS_TO_PRIVATE", "1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer for-the-collector"),
    ]);
    let mut stack = Stack::start_with(&settings).await.unwrap();
    let anvil = Anvil::start(&stack.directory().join("logs")).await.unwrap();
    let wallet = stack.create_wallet("device", ALL_KINDS).await.unwrap();
    anvil.fund(&wallet.address, 1_000_000_000_000_000_000).await.unwrap();
    let vault = VaultTransitServer::start(&["duet"]).await.unwrap();
    let service = stack.party("service");

    let mut commands = 0;
    let plain = VARIABLES.iter().fold(stack.duet(), |duet, name| duet.without(name));
    for variable in VARIABLES {
        let duet = behind(&proxy, &plain, variable);
        for api in [stack.api_url().to_owned(), stack.api_url().replace("127.0.0.1", "localhost")] {
            duet.json(&["job", "list", "--api-url", &api]).await.unwrap();
            commands += 1;
        }
        let device = VARIABLES.iter().fold(wallet.duet.clone(), |duet, name| duet.without(name));
        let signed = behind(&proxy, &device, variable)
            .json(&[
                "sign",
                "tx",
                "--to",
                &wallet.address,
                "--value",
                "1wei",
                "--rpc",
                anvil.url(),
                "--broadcast",
                "--with",
                "service",
                "--wallet",
                &wallet.id,
            ])
            .await
            .unwrap();
        assert_eq!(signed.pointer("/receipt/status"), Some(&serde_json::Value::Bool(true)), "{signed}");
        let sealed = service
            .command(&duet)
            .with("DUET_VAULT_URL", &vault.url())
            .with("DUET_VAULT_TOKEN", TOKEN)
            .refused(&["party", "rewrap", "--new-vault-key", "nothing"])
            .await
            .unwrap();
        assert_eq!(sealed.code, "vault-refused", "{}", sealed.message);
        commands += 2;
    }
    // A queued job passes through every process, and its result goes to a webhook.
    let mut receiver = Receiver::start().await.unwrap();
    let (_, secret) = webhooks::add(&plain, &receiver).await.unwrap();
    wallet.queue(&["message", "through every process"]).await.unwrap();
    webhooks::check(&secret, &receiver.next().await.unwrap()).unwrap();
    for server in [&mut stack.orchestrator, &mut stack.service, &mut stack.partner, &mut stack.gateway] {
        server.stop().await.unwrap();
    }
    let heard = proxy.heard();
    assert_eq!(heard, "", "a proxy was asked for what is on this machine");
    println!(
        "evidence: variables = {}; commands = {commands}; bytes heard by the proxy = 0",
        VARIABLES.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn secret__should_leave_the_machine_by_tls_alone() {
    let proxy = RecordingProxy::start().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let credentials = directory.path().join("credentials");
    let duet = Duet::new(&credentials).within(Duration::from_secs(60));
    duet.json(&["init", "--dir", &credentials.to_string_lossy(), "--tenant", TENANT]).await.unwrap();
    let token = std::fs::read_to_string(credentials.join("tokens").join(TENANT)).unwrap();
    let token = token.trim();

    let (mut refused, mut tunnels) = (0, 0);
    for variable in VARIABLES {
        let duet = behind(&proxy, &duet, variable);
        // Plain HTTP to another machine: nothing is sent, with or without a proxy.
        let api = format!("http://{NOWHERE}");
        let answer = duet.refused(&["job", "list", "--api-url", &api]).await.unwrap();
        assert_eq!(answer.code, "usage", "{variable}: {}", answer.message);
        assert!(
            answer.message.contains("--api-url") && answer.message.contains("192.0.2.1"),
            "{}",
            answer.message
        );
        refused += 1;
        // A node's password, a collector's headers, Vault's token.
        let node = format!("http://user:secret-of-the-node@{NOWHERE}");
        let payload = ["sign", "tx", "--to", "0x00000000000000000000000000000000DeaDBeef", "--value", "1wei"];
        let answer = duet.refused(&[&payload[..], &["--rpc", &node]].concat()).await.unwrap();
        assert_eq!(answer.code, "usage", "{variable}: {}", answer.message);
        assert!(!answer.message.contains("secret-of-the-node"), "{}", answer.message);
        let traces = format!("http://{NOWHERE}");
        let answer = duet
            .clone()
            .with("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer for-the-collector")
            .refused(&["orchestrator", "--listen", "127.0.0.1:0", "--traces", &traces])
            .await
            .unwrap();
        assert_eq!(answer.code, "usage", "{variable}: {}", answer.message);
        assert!(answer.message.contains("--traces"), "{}", answer.message);
        refused += 2;

        // TLS to another machine: the client asks the proxy for a tunnel, and the error names the
        // proxy.
        let before = proxy.heard().len();
        let api = format!("https://{ELSEWHERE}");
        let answer = duet.refused(&["job", "list", "--api-url", &api, "--timeout", "1s"]).await.unwrap();
        assert_eq!(answer.code, "api-unreachable", "{variable}: {}", answer.message);
        let is_named = answer.message.contains(&format!("through the proxy {}", proxy.url()));
        let is_asked = proxy.heard().len() > before;
        // `HTTP_PROXY` applies to plain HTTP only.
        let is_wanted = !variable.eq_ignore_ascii_case("HTTP_PROXY");
        assert_eq!((is_named, is_asked), (is_wanted, is_wanted), "{variable}: {}", answer.message);
        tunnels += u32::from(is_asked);
        let answer = duet
            .clone()
            .with("NO_PROXY", ELSEWHERE)
            .refused(&["job", "list", "--api-url", &api, "--timeout", "1s"])
            .await
            .unwrap();
        assert!(!answer.message.contains("through the proxy"), "{}", answer.message);
    }
    let heard = proxy.heard();
    for line in heard.lines().filter(|line| line.contains("HTTP/1.1")) {
        assert!(line.starts_with(&format!("CONNECT {ELSEWHERE}:443 ")), "{line}");
    }
    for secret in [token, "secret-of-the-node", "for-the-collector", "uthorization: Bearer"] {
        assert!(!heard.contains(secret), "the proxy heard {secret}");
    }
    println!(
        "evidence: sent nothing = {refused}; tunnels asked for = {tunnels}; secrets heard by the proxy = 0"
    );
}
