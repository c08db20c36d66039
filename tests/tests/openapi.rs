//! The HTTP interface answers as its own description says.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper that fails is a test that fails")]
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::fs;

use duet_harness::{
    anvil::http_client,
    http::{Answer, Api},
    programs,
    stack::{ALL_KINDS, Stack},
};
use duet_wire::{
    Priority,
    batch::{BatchItem, BatchRequest},
};
use serde_json::{Value, json};

/// The description, made stricter than for clients: an answer fails if it has a field that the
/// description does not name.
struct Described(Value);

impl Described {
    async fn by(stack: &Stack) -> Self {
        // Reading the description needs no token.
        let answer =
            http_client().unwrap().get(format!("{}/v1/openapi.json", stack.api_url())).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/json");
        let document: Value = answer.json().await.unwrap();
        let kept = fs::read(programs::repository().join("docs/openapi.json")).unwrap();
        assert!(
            document == serde_json::from_slice::<Value>(&kept).unwrap(),
            "docs/openapi.json is another one"
        );
        let mut strict = document;
        close(strict.pointer_mut("/components/schemas").unwrap());
        Self(strict)
    }

    /// The faults in `instance`, by the schema at `pointer`.
    fn errors(&self, pointer: &str, instance: &Value) -> Vec<String> {
        let schema = json!({ "$ref": format!("#{pointer}"), "paths": self.0["paths"], "components": self.0["components"] });
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        validator.iter_errors(instance).map(|error| format!("{}: {error}", error.instance_path())).collect()
    }

    /// Checks that the description permits this answer of the operation.
    fn assert_may(&self, method: &str, path: &str, answer: &Answer) {
        let kind = answer.content_type.split(';').next().unwrap();
        let steps =
            ["paths", path, method, "responses", &answer.status.to_string(), "content", kind, "schema"];
        let pointer: String =
            steps.map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).concat();
        assert!(
            self.0.pointer(&pointer).is_some(),
            "{method} {path} may not answer {} {kind}: {answer:?}",
            answer.status
        );
        let encoded = pointer.replace('{', "%7B").replace('}', "%7D");
        let errors = self.errors(&encoded, &answer.body);
        assert!(errors.is_empty(), "{method} {path}: {errors:#?}\n{:#}", answer.body);
        // The code of a refusal is one of the named codes.
        if let (Some(code), "application/problem+json") = (answer.body["code"].as_str(), kind) {
            let description =
                self.0["paths"][path][method]["responses"][answer.status.to_string()]["description"].as_str();
            assert!(
                description.unwrap().contains(&format!("`{code}`")),
                "{method} {path}: {code} is not named"
            );
        }
    }
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("type") == Some(&json!("object")) && fields.contains_key("properties") {
                fields.entry("additionalProperties").or_insert(json!(false));
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_about_jobs__should_be_as_described() {
    let (stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    let described = Described::by(&stack).await;

    let payload = json!({
        "kind": "transaction", "type": "0x2", "chainId": 31337, "nonce": 0, "to": wallet.address, "value": "1",
        "gas": 21000, "maxFeePerGas": "1000000000", "maxPriorityFeePerGas": "1",
    });
    let request = api.request(&payload, "described").unwrap();
    let document: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(described.errors("/components/schemas/SigningRequest", &document), [""; 0]);
    let mut other = document;
    other["surprise"] = json!(1);
    assert!(!described.errors("/components/schemas/SigningRequest", &other).is_empty());

    let submitted = api.submit(&request, "described").await.unwrap();
    assert_eq!(submitted.status, 202);
    described.assert_may("post", "/v1/jobs", &submitted);
    let job = submitted.body["id"].as_str().unwrap();
    assert_eq!(api.settled(job).await.unwrap(), "signed");
    let known = api.submit(&request, "described").await.unwrap();
    assert_eq!(known.status, 200);
    described.assert_may("post", "/v1/jobs", &known);
    assert!(known.body["signed_transaction"].is_string(), "{known:?}");
    for path in ["/v1/jobs/{id}", "/v1/jobs/{id}/request", "/v1/dead-letters/{id}"] {
        described.assert_may("get", path, &api.get(&path.replace("{id}", job)).await.unwrap());
    }
    let cancelled = api.send("DELETE", &format!("/v1/jobs/{job}"), None).await.unwrap();
    assert_eq!(cancelled.status, 409);
    described.assert_may("delete", "/v1/jobs/{id}", &cancelled);

    // A refused request.
    let conflict = api.request(&json!({"kind": "personal_message", "text": "another"}), "described").unwrap();
    let conflict = api.submit(&conflict, "described").await.unwrap();
    assert_eq!((conflict.status, conflict.body["code"].as_str()), (409, Some("conflict")));
    described.assert_may("post", "/v1/jobs", &conflict);
    let mut forged = request.clone();
    forged.signature = [7; 64];
    let forged = api.submit(&forged, "described").await.unwrap();
    assert_eq!(forged.status, 401);
    described.assert_may("post", "/v1/jobs", &forged);
    let unnamed = api.submit(&request, "another").await.unwrap();
    assert_eq!(unnamed.status, 400);
    described.assert_may("post", "/v1/jobs", &unnamed);

    // A job that fails for good: the partner's worker is gone, and no other pair may sign.
    let mut stack = stack;
    stack.partner.kill().await.unwrap();
    let doomed = api.request(&json!({"kind": "personal_message", "text": "alone"}), "alone").unwrap();
    described.assert_may("post", "/v1/jobs", &api.submit(&doomed, "alone").await.unwrap());
    stack.partner.start().await.unwrap();

    for (path, query) in [
        ("/v1/jobs", "?limit=1"),
        ("/v1/jobs", "?state=nonsense"),
        ("/v1/dead-letters", ""),
        ("/v1/results", "?limit=1"),
        ("/v1/results", "?after=nonsense"),
        ("/v1/wallets", ""),
    ] {
        described.assert_may("get", path, &api.get(&format!("{path}{query}")).await.unwrap());
    }
    let ended = api.get("/v1/results").await.unwrap();
    assert_eq!(ended.body["results"][0]["job"], job, "{ended:?}");
    let shown = api.get(&format!("/v1/wallets/{}", wallet.id)).await.unwrap();
    assert_eq!(shown.status, 200);
    described.assert_may("get", "/v1/wallets/{id}", &shown);
    let missing = api.get(&format!("/v1/wallets/{}", "5a".repeat(32))).await.unwrap();
    assert_eq!(missing.status, 404);
    described.assert_may("get", "/v1/wallets/{id}", &missing);
    for (query, status) in [("", 200), ("?from=2147483647", 200), ("?path=m/1/2", 200), ("?path=m/0h", 400)] {
        let path = format!("/v1/wallets/{}/addresses{query}", wallet.id);
        let answer = api.get(&path).await.unwrap();
        assert_eq!(answer.status, status, "{answer:?}");
        described.assert_may("get", "/v1/wallets/{id}/addresses", &answer);
    }
    let xpub = api.get(&format!("/v1/wallets/{}/xpub", wallet.id)).await.unwrap();
    assert_eq!(xpub.status, 200);
    described.assert_may("get", "/v1/wallets/{id}/xpub", &xpub);
    for path in ["/healthz", "/readyz"] {
        described.assert_may("get", path, &api.get(path).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_about_failed_jobs_batches_and_webhooks__should_be_as_described() {
    let stack = Stack::start_with(&[("DUET_WEBHOOKS_TO_PRIVATE", "1"), ("DUET_WEBHOOK_TIMEOUT", "2s")])
        .await
        .unwrap();
    let wallet = stack.create_wallet("device", ALL_KINDS).await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    let described = Described::by(&stack).await;

    // The owner's policy refuses what the requester may ask for.
    let policy = json!({
        "version": 1, "wallet": wallet.id, "revision": 1, "delay": "1h",
        "rules": [{"name": "talk", "payloads": ["personal_message"]}],
    });
    let file = stack.directory().join("policy.json");
    fs::write(&file, policy.to_string()).unwrap();
    wallet.duet.json(&["policy", "set", &file.to_string_lossy()]).await.unwrap();
    let digest = json!({"kind": "digest", "digest": format!("0x{}", "5a".repeat(32))});
    let request = api.request(&digest, "refused").unwrap();
    let submitted = api.submit(&request, "refused").await.unwrap();
    let job = submitted.body["id"].as_str().unwrap();
    assert_eq!(api.settled(job).await.unwrap(), "failed");
    for path in ["/v1/jobs/{id}", "/v1/dead-letters/{id}"] {
        let failed = api.get(&path.replace("{id}", job)).await.unwrap();
        assert_eq!((failed.status, failed.body["failure"]["code"].as_str()), (200, Some("policy-refused")));
        assert!(failed.body["history"][0]["outcome"]["evidence"].is_object(), "{failed:?}");
        described.assert_may("get", path, &failed);
    }
    let redriven = api.send("POST", &format!("/v1/dead-letters/{job}/redrive"), None).await.unwrap();
    assert_eq!(redriven.status, 202);
    described.assert_may("post", "/v1/dead-letters/{id}/redrive", &redriven);
    let unreadable = api.send("POST", &format!("/v1/jobs/{job}/approvals"), Some(&json!({}))).await.unwrap();
    assert_eq!(unreadable.status, 400);
    described.assert_may("post", "/v1/jobs/{id}/approvals", &unreadable);
    let approved = json!({"approver": "5a".repeat(32), "signature": "5a".repeat(64)});
    let approved = api.send("POST", &format!("/v1/jobs/{job}/approvals"), Some(&approved)).await.unwrap();
    assert_eq!(approved.status, 401);
    described.assert_may("post", "/v1/jobs/{id}/approvals", &approved);

    let mut broken = api.request(&json!({"kind": "personal_message", "text": "broken"}), "broken").unwrap();
    broken.signature = [7; 64];
    let right = api.request(&json!({"kind": "personal_message", "text": "right"}), "right").unwrap();
    let items = [right, broken]
        .map(|request| BatchItem { request, priority: Priority::High, repeat_digest: false })
        .to_vec();
    let batch = BatchRequest { items };
    let document: Value = serde_json::from_slice(&batch.to_json().unwrap()).unwrap();
    assert_eq!(described.errors("/components/schemas/BatchRequest", &document), [""; 0]);
    for status in [202, 200] {
        let answer = api.submit_batch(&batch).await.unwrap();
        assert_eq!((answer.status, answer.body["items"][1]["verdict"].as_str()), (status, Some("refused")));
        described.assert_may("post", "/v1/batches", &answer);
        let id = answer.body["id"].as_str().unwrap();
        described.assert_may(
            "get",
            "/v1/batches/{id}",
            &api.get(&format!("/v1/batches/{id}")).await.unwrap(),
        );
    }
    let nothing = api.send("POST", "/v1/batches", Some(&json!({"requests": []}))).await.unwrap();
    assert_eq!(nothing.status, 400);
    described.assert_may("post", "/v1/batches", &nothing);

    // No server listens there.
    let added =
        api.send("POST", "/v1/webhooks", Some(&json!({"url": "http://127.0.0.1:1/hook"}))).await.unwrap();
    assert_eq!(added.status, 201);
    described.assert_may("post", "/v1/webhooks", &added);
    let refused = api.send("POST", "/v1/webhooks", Some(&json!({"url": "ftp://nowhere"}))).await.unwrap();
    assert_eq!(refused.status, 422);
    described.assert_may("post", "/v1/webhooks", &refused);
    described.assert_may("get", "/v1/webhooks", &api.get("/v1/webhooks").await.unwrap());
    let webhook = added.body["webhook"]["id"].as_str().unwrap();
    for (method, path, document) in [
        ("post", "/v1/webhooks/{id}/test", None),
        ("post", "/v1/webhooks/{id}/replay", Some(json!({"from_ms": 0}))),
        ("post", "/v1/webhooks/{id}/replay", Some(json!({}))),
        ("post", "/v1/webhooks/{id}/enable", None),
        ("get", "/v1/webhooks/{id}/deliveries", None),
        ("get", "/v1/webhooks/{id}", None),
        ("delete", "/v1/webhooks/{id}", None),
        ("delete", "/v1/webhooks/{id}", None),
    ] {
        let answer = api
            .send(&method.to_uppercase(), &path.replace("{id}", webhook), document.as_ref())
            .await
            .unwrap();
        described.assert_may(method, path, &answer);
    }
}
