//! The interface described as an OpenAPI 3.1 document: `GET /v1/openapi.json`, kept in
//! `docs/openapi.json`.
//!
//! The document is written by hand, not derived from the types. Those belong mostly to the wire
//! crate, which browsers build as well, and most of their fields are texts with a form of their
//! own. A test below checks that it names exactly the existing routes, and `agreement` compares its
//! schemas with the types. The end-to-end tests check that answers match it.

#[cfg(test)]
mod agreement;
mod schemas;

use std::sync::LazyLock;

use axum::{body::Bytes, http::header, response::IntoResponse};
use duet_protocol::public_key::MAX_INDEX;
use duet_wire::{
    Code, Priority, batch::MAX_BATCH_SIZE_BYTES, error::ERRORS_PAGE, request::MAX_REQUEST_SIZE_BYTES,
};
use serde_json::{Map, Value, json};

use self::schemas::of;
use super::{MAX_CONCURRENT_BATCHES, accounts, jobs, results, wallets, webhooks};

/// `GET /v1/openapi.json`
pub(super) async fn show() -> impl IntoResponse {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| format!("{:#}\n", document()).into());
    ([(header::CONTENT_TYPE, "application/json")], TEXT.clone())
}

/// The refusals that any request with a token may get.
const TO_TENANTS: [Code; 6] = [
    Code::Unauthorized,
    Code::RateLimited,
    Code::Overloaded,
    Code::StorageUnavailable,
    Code::Deadline,
    Code::Internal,
];

/// One method of one path.
struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    description: String,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: Vec<(u16, &'static str, Value)>,
    refusals: Vec<Code>,
    has_token: bool,
}

fn operation(method: &'static str, path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation {
        method,
        path,
        id,
        summary,
        description: String::new(),
        parameters: Vec::new(),
        body: None,
        answers: Vec::new(),
        refusals: Vec::new(),
        has_token: true,
    }
}

impl Operation {
    fn described(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    fn with(mut self, parameters: impl IntoIterator<Item = Value>) -> Self {
        self.parameters.extend(parameters);
        self
    }

    fn taking(mut self, schema: &str) -> Self {
        let content = json!({ "application/json": { "schema": of(schema) } });
        self.body = Some(json!({ "required": true, "content": content }));
        self
    }

    fn may_take(mut self, schema: &str) -> Self {
        let content = json!({ "application/json": { "schema": of(schema) } });
        self.body = Some(json!({ "required": false, "content": content }));
        self
    }

    fn answers(mut self, status: u16, description: &'static str, schema: &str) -> Self {
        self.answers.push((status, description, json!({ "application/json": { "schema": of(schema) } })));
        self
    }

    fn streams(mut self, description: &'static str) -> Self {
        self.answers.push((
            200,
            description,
            json!({ "text/event-stream": { "schema": { "type": "string" } } }),
        ));
        self
    }

    fn refuses(mut self, codes: impl IntoIterator<Item = Code>) -> Self {
        self.refusals.extend(codes);
        self
    }

    /// Needs no token.
    const fn open(mut self) -> Self {
        self.has_token = false;
        self
    }

    fn to_value(&self) -> Value {
        let mut responses = Map::new();
        for (status, description, content) in &self.answers {
            let mut response = json!({ "description": description, "content": content });
            if let (Value::Object(response), true) = (&mut response, self.takes_a_job()) {
                response.insert(
                    "headers".to_owned(),
                    json!({ "Location": { "$ref": "#/components/headers/Location" } }),
                );
            }
            responses.insert(status.to_string(), response);
        }
        let mut refusals = self.refusals.clone();
        if self.has_token {
            refusals.extend(TO_TENANTS);
        }
        refusals.sort_unstable();
        for code in refusals {
            let named = format!("`{code}`: {}.", code.title());
            let response = responses
                .entry(code.http_status().to_string())
                .or_insert_with(|| refusal(code, self.takes_a_job()));
            if let Some(Value::String(description)) = response.get_mut("description") {
                let separator = if description.is_empty() { "" } else { " " };
                *description = format!("{description}{separator}{named}");
            }
        }
        let mut value = json!({ "operationId": self.id, "summary": self.summary, "responses": responses });
        if let Value::Object(fields) = &mut value {
            if !self.description.is_empty() {
                fields.insert("description".to_owned(), self.description.clone().into());
            }
            if !self.parameters.is_empty() {
                fields.insert("parameters".to_owned(), self.parameters.clone().into());
            }
            if let Some(body) = &self.body {
                fields.insert("requestBody".to_owned(), body.clone());
            }
            if !self.has_token {
                fields.insert("security".to_owned(), json!([]));
            }
        }
        value
    }

    /// Whether the answer, even a conflict, names a job.
    fn takes_a_job(&self) -> bool {
        self.id == "submitJob"
    }
}

/// The response for a refusal, still without its codes.
fn refusal(code: Code, of_a_submission: bool) -> Value {
    let mut response = json!({
        "description": "",
        "content": { "application/problem+json": { "schema": of("Problem") } },
    });
    let header = match code.http_status() {
        429 | 503 => "Retry-After",
        401 => "WWW-Authenticate",
        409 if of_a_submission => "Location",
        _ => return response,
    };
    if let Value::Object(fields) = &mut response {
        let name = header.replace('-', "");
        fields.insert(
            "headers".to_owned(),
            json!({ header: { "$ref": format!("#/components/headers/{name}") } }),
        );
    }
    response
}

fn in_path(schema: &str) -> Value {
    json!({ "name": "id", "in": "path", "required": true, "schema": of(schema) })
}

fn in_query(name: &str, schema: &Value, description: &str) -> Value {
    json!({ "name": name, "in": "query", "schema": schema, "description": description })
}

/// The filters of dead letters.
fn dead_letters() -> [Value; 4] {
    let moment = json!({ "type": "integer", "minimum": 0 });
    let codes = json!({ "type": "string", "pattern": "^[a-z0-9-]+(,[a-z0-9-]+)*$" });
    [
        in_query(
            "code",
            &codes,
            "Only those that failed with this code, or with one of several, separated by commas.",
        ),
        in_query("wallet", &of("WalletId"), "Only those of this wallet."),
        in_query(
            "ended_after_ms",
            &moment,
            "Only those that ended then or later, in milliseconds since 1970.",
        ),
        in_query("ended_before_ms", &moment, "Only those that ended before, in milliseconds since 1970."),
    ]
}

fn in_header(name: &str, is_required: bool, schema: &Value, description: &str) -> Value {
    json!({ "name": name, "in": "header", "required": is_required, "schema": schema, "description": description })
}

fn limit(default: usize, most: usize) -> Value {
    let schema = json!({ "type": "integer", "minimum": 0, "default": default });
    in_query("limit", &schema, &format!("How many at most. More than {most} counts as {most}, 0 as 1."))
}

fn after(schema: &str, description: &str) -> Value {
    in_query("after", &of(schema), description)
}

fn resumed() -> Value {
    let description = "The id of the last event that was seen, as browsers send it when they connect again: the same as `after`.";
    in_header("Last-Event-ID", false, &of("Cursor"), description)
}

/// Why accounts may not be shown. Any of the codes with which a party is silent may come as well.
const OF_ACCOUNTS: [Code; 6] = [
    Code::MalformedJson,
    Code::InvalidPayload,
    Code::UnknownWallet,
    Code::NotEnrolled,
    Code::PeerMisbehaved,
    Code::PartyAway,
];

/// An index of a derivation path.
fn index() -> Value {
    json!({ "type": "integer", "minimum": 0, "maximum": MAX_INDEX, "default": 0 })
}

fn operations() -> Vec<Operation> {
    let mut all = job_operations();
    all.extend(result_operations());
    all.extend(webhook_operations());
    all.extend(process_operations());
    all
}

fn job_operations() -> Vec<Operation> {
    use Code as C;
    let digits =
        |bytes: usize| json!({ "type": "string", "pattern": format!("^(0x)?[0-9a-fA-F]{{{}}}$", 2 * bytes) });
    let priorities = Priority::ALL.map(Priority::as_str).join(", ");
    let page = || limit(jobs::DEFAULT_PAGE, jobs::MAX_PAGE);
    let last_job = || after("JobId", "The last job of the page before: `next` there.");
    vec![
        operation("post", "/v1/jobs", "submitJob", "Submits a signing request")
            .described(format!(
                "The body is a signing request, byte for byte as its requester signed it, at most {MAX_REQUEST_SIZE_BYTES} bytes. \
                 It may be sent again: the same request under the same idempotency key is the same job for as long as it is kept, and \
                 another one under that key is refused. Two requests are the same that differ in nothing but `version`, `issued_at` and `expires_at`."
            ))
            .with([
                in_header("Idempotency-Key", true, &of("IdempotencyKey"), "As in the request."),
                in_header("Duet-Requester", true, &digits(32), "The requester's Ed25519 key."),
                in_header(
                    "Duet-Signature",
                    true,
                    &digits(64),
                    "Ed25519 over the tag `duet/v1/signing-request` and the body's exact bytes.",
                ),
                in_header(
                    "Duet-Priority",
                    false,
                    &of("Priority"),
                    &format!("One of {priorities}; it changes nothing for a job that is known."),
                ),
                in_header(
                    "Duet-Repeat-Digest",
                    false,
                    &json!({ "type": "boolean", "default": false }),
                    "`true` says that the transaction may be one that another job has signed or will sign; without it \
                     such a request is refused with `duplicate-digest`. Other payloads are never refused for that.",
                ),
            ])
            .taking("SigningRequest")
            .answers(202, "It is a new job.", "Job")
            .answers(200, "It was accepted before; the job as it is now.", "Job")
            .refuses([
                C::MalformedJson,
                C::TooLarge,
                C::UnsupportedVersion,
                C::InvalidPayload,
                C::BadSignature,
                C::RequesterNotAllowed,
                C::KindNotAllowed,
                C::WrongTenant,
                C::UnknownWallet,
                C::Conflict,
                C::DuplicateDigest,
                C::JobExpired,
                C::ValidTooLong,
                C::ClockDiffers,
                C::QueueFull,
                C::PartyAway,
                C::NoPairAvailable,
                C::BrokerUnreachable,
                C::UnsafeBroker,
            ]),
        operation("get", "/v1/jobs", "listJobs", "The tenant's jobs, newest first")
            .with([in_query("state", &of("JobState"), "Only those in this state."), last_job(), page()])
            .answers(200, "A page.", "JobPage")
            .refuses([C::MalformedJson, C::NotFound]),
        operation("get", "/v1/jobs/{id}", "showJob", "One job")
            .with([in_path("JobId")])
            .answers(200, "The job.", "Job")
            .refuses([C::NotFound]),
        operation("delete", "/v1/jobs/{id}", "deleteJob", "Cancels a job, like `cancelJob`")
            .with([in_path("JobId")])
            .may_take("Revocation")
            .answers(200, "The job; see `cancelJob`.", "Job")
            .refuses([C::MalformedJson, C::BadSignature, C::RequesterNotAllowed, C::NotFound, C::Conflict]),
        operation("post", "/v1/jobs/{id}/cancel", "cancelJob", "Cancels a job")
            .described(
                "Without a body, a job that waits is cancelled at the orchestrator alone; one that runs, or is settled, is not, because \
                 its signature may exist already. With a revocation as the body, the wallet's parties are told as well, and told again \
                 until they keep it or the request has expired: they refuse the request from then on from every sender. Then a job \
                 that runs may be revoked too: it ends with its session, and is either signed or cancelled; so may one that failed or \
                 was cancelled before. The job says which parties keep the revocation. Cancelling again changes nothing.",
            )
            .with([in_path("JobId")])
            .may_take("Revocation")
            .answers(200, "The job.", "Job")
            .refuses([C::MalformedJson, C::BadSignature, C::RequesterNotAllowed, C::NotFound, C::Conflict]),
        operation("get", "/v1/jobs/{id}/events", "followJob", "A job's events until it is settled")
            .described(
                "An event `state` has the job (schema Job) as data, at once and after each change, the last one settled; an event \
                 `progress` has what a party or the orchestrator says about the session under way (schema Progress). A stream always begins with the job as it is.",
            )
            .with([
                in_path("JobId"),
                in_query("progress", &json!({ "type": "boolean", "default": true }), "Whether the stream has events about progress."),
            ])
            .streams("Server-sent events.")
            .refuses([C::MalformedJson, C::NotFound, C::QueueFull]),
        operation("get", "/v1/jobs/{id}/request", "showRequest", "A job's request as it was signed")
            .with([in_path("JobId")])
            .answers(200, "The request.", "SignedRequest")
            .refuses([C::NotFound]),
        operation("post", "/v1/jobs/{id}/approvals", "approveJob", "Submits an approval that the wallet's policy asks for")
            .described("The orchestrator passes it on to the parties, and only they count it. It puts a job back that it gave up without the approval.")
            .with([in_path("JobId")])
            .taking("Approval")
            .answers(200, "Both parties have stored it.", "Approved")
            .refuses([C::MalformedJson, C::BadSignature, C::NotFound, C::JobExpired, C::TooLarge, C::PeerMisbehaved]),
        operation("get", "/v1/dead-letters", "listDeadLetters", "Jobs that were given up, newest first")
            .described("With a filter a page has those of the next jobs that it selects: perhaps none, although `next` names further ones.")
            .with(dead_letters())
            .with([last_job(), page()])
            .answers(200, "A page.", "JobPage")
            .refuses([C::MalformedJson, C::NotFound]),
        operation("get", "/v1/dead-letters/{id}", "showDeadLetter", "One job that was given up")
            .with([in_path("JobId")])
            .answers(200, "The job.", "Job")
            .refuses([C::NotFound]),
        operation("post", "/v1/dead-letters/{id}/redrive", "redriveDeadLetter", "Puts a job back into the queue")
            .with([in_path("JobId")])
            .answers(202, "The job, queued.", "Job")
            .refuses([
                C::NotFound,
                C::Conflict,
                C::DuplicateDigest,
                C::RejectedByOwner,
                C::JobExpired,
                C::QueueFull,
                C::UnsafeBroker,
            ]),
        operation("post", "/v1/batches", "submitBatch", "Submits many signing requests at once")
            .described(format!(
                "Each is accepted or refused alone, as if it had been submitted alone. The body has at most {MAX_BATCH_SIZE_BYTES} bytes, \
                 and {MAX_CONCURRENT_BATCHES} batches are read at the same time. The same keys are the same batch, which the client may send again."
            ))
            .taking("BatchRequest")
            .answers(202, "At least one is a new job.", "BatchAnswer")
            .answers(200, "None is a new job.", "BatchAnswer")
            .refuses([C::MalformedJson, C::TooLarge, C::QueueFull, C::UnsafeBroker]),
        operation("get", "/v1/batches/{id}", "showBatch", "How far a batch's jobs are")
            .with([in_path("BatchId")])
            .answers(200, "The batch.", "Batch")
            .refuses([C::NotFound]),
        operation("get", "/v1/batches/{id}/events", "followBatch", "The ends of a batch's jobs, as they happen")
            .described(
                "An event `end` has how a job ended (schema End) as data and the cursor as id; `done` has the batch (schema Batch): all \
                 its jobs have ended, and so does the stream.",
            )
            .with([in_path("BatchId"), after("Cursor", "Only what follows this event."), resumed()])
            .streams("Server-sent events.")
            .refuses([C::MalformedJson, C::NotFound, C::QueueFull, C::CursorGone]),
    ]
}

fn result_operations() -> Vec<Operation> {
    use Code as C;
    vec![
        operation("get", "/v1/results", "listResults", "How the tenant's jobs ended, in order")
            .described(
                "Read from the beginning, or from where the page before ended: with `next` of each page as `after` of the next one nothing \
                 is missed and nothing told twice, whichever orchestrator answers, for as long as results are kept. An empty page is \
                 the end for now.",
            )
            .with([
                after("Cursor", "Only what follows: `next` of a page, or `cursor` of an end."),
                limit(results::DEFAULT_PAGE, results::MAX_PAGE),
            ])
            .answers(200, "A page.", "EndPage")
            .refuses([C::MalformedJson, C::CursorGone]),
        operation("get", "/v1/results/events", "followResults", "The ends of the tenant's jobs, as events")
            .described("An event `end` has how a job ended (schema End) as data, and the cursor as id.")
            .with([after("Cursor", "Only what follows."), resumed()])
            .streams("Server-sent events, without an end.")
            .refuses([C::MalformedJson, C::QueueFull, C::CursorGone]),
        operation("get", "/v1/wallets", "listWallets", "The tenant's wallets, in the order of their ids")
            .described("A wallet that its parties describe differently is left out; `showWallet` says so.")
            .with([
                after("WalletId", "The last wallet of the page before: `next` there."),
                limit(wallets::DEFAULT_PAGE, wallets::MAX_PAGE),
            ])
            .answers(200, "A page.", "WalletPage")
            .refuses([C::MalformedJson]),
        operation("get", "/v1/wallets/{id}", "showWallet", "One wallet, and which of its pairs can sign now")
            .with([in_path("WalletId")])
            .answers(200, "The wallet.", "Wallet")
            .refuses([C::UnknownWallet, C::PeerMisbehaved]),
        operation("get", "/v1/wallets/{id}/addresses", "listAddresses", "Accounts of a wallet: one path, or a page of m/0/i")
            .described(
                "The orchestrator derives the addresses from the wallet's key and chain code, as every party describes them that \
                 holds a share; it refuses while one of them is silent or they disagree. Once they have agreed it asks them no more. \
                 A signing request with the same `path` is signed for that address.",
            )
            .with([
                in_path("WalletId"),
                in_query("path", &of("Path"), "Only the account of this path. Not together with the others."),
                in_query("from", &index(), "The `i` of the first account `m/0/i`: `next` of the page before."),
                limit(accounts::DEFAULT_PAGE, accounts::MAX_PAGE),
            ])
            .answers(200, "The accounts.", "AddressPage")
            .refuses(OF_ACCOUNTS),
        operation("get", "/v1/wallets/{id}/xpub", "showXpub", "A wallet's extended public key, to watch its accounts")
            .described(
                "From it any BIP-32 library derives the addresses without Duet. It is no secret, but keep it from strangers: it links \
                 all accounts below it, and **together with the private key of one of them it gives the private key of the key it \
                 stands for**. For the path `m` that is the whole wallet.",
            )
            .with([in_path("WalletId"), in_query("path", &of("Path"), "The path of the key; `m` when absent.")])
            .answers(200, "The key.", "Xpub")
            .refuses(OF_ACCOUNTS),
    ]
}

fn webhook_operations() -> Vec<Operation> {
    use Code as C;
    let one = |method, path, id, summary| {
        operation(method, path, id, summary).with([in_path("WebhookId")]).refuses([C::NotFound])
    };
    vec![
        operation("post", "/v1/webhooks", "addWebhook", "Adds an endpoint for results")
            .taking("NewWebhook")
            .answers(201, "The webhook, and its secret.", "WebhookCreated")
            .refuses([C::MalformedJson, C::TooLarge, C::InvalidEndpoint, C::Quota]),
        operation("get", "/v1/webhooks", "listWebhooks", "The tenant's webhooks").answers(
            200,
            "All of them.",
            "WebhookPage",
        ),
        one("get", "/v1/webhooks/{id}", "showWebhook", "One webhook").answers(200, "The webhook.", "Webhook"),
        one("delete", "/v1/webhooks/{id}", "removeWebhook", "Removes a webhook").answers(
            200,
            "The removed webhook.",
            "Webhook",
        ),
        one("post", "/v1/webhooks/{id}/enable", "enableWebhook", "Delivers again after failures").answers(
            200,
            "The webhook.",
            "Webhook",
        ),
        one("post", "/v1/webhooks/{id}/test", "testWebhook", "Delivers a test message").answers(
            200,
            "The delivery.",
            "Delivery",
        ),
        one("post", "/v1/webhooks/{id}/replay", "replayWebhook", "Delivers results once more")
            .taking("ReplayOf")
            .answers(200, "One result was sent.", "ReplayAccepted")
            .answers(202, "The replay has begun.", "ReplayAccepted")
            .refuses([C::MalformedJson, C::TooLarge, C::Conflict]),
        one(
            "get",
            "/v1/webhooks/{id}/deliveries",
            "listDeliveries",
            "A webhook's latest deliveries, newest first",
        )
        .with([limit(webhooks::DEFAULT_DELIVERIES, webhooks::MAX_DELIVERIES)])
        .answers(200, "The deliveries.", "DeliveryPage")
        .refuses([C::MalformedJson]),
    ]
}

fn process_operations() -> Vec<Operation> {
    vec![
        Operation {
            answers: vec![(
                200,
                "An OpenAPI 3.1 document.",
                json!({ "application/json": { "schema": { "type": "object" } } }),
            )],
            ..operation("get", "/v1/openapi.json", "describe", "This description").open()
        },
        operation("get", "/healthz", "alive", "Whether the process runs")
            .open()
            .answers(200, "It does.", "Alive"),
        operation("get", "/readyz", "ready", "Whether it can accept jobs")
            .open()
            .answers(200, "It can.", "Health")
            .refuses([Code::BrokerUnreachable, Code::UnsafeBroker, Code::StorageUnavailable]),
    ]
}

/// The whole document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for operation in operations() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Value::Object(methods) = path {
            methods.insert(operation.method.to_owned(), operation.to_value());
        }
    }
    let description = format!(
        "Every orchestrator answers for every job of the tenant whose token a request bears. Refusals are problem documents (RFC 9457) with a \
         stable `code`, which {ERRORS_PAGE} explains; clients decide by it, not by the status or the text. After 429 and 503 the same \
         request may be sent again once `Retry-After` has passed. A path answers any other method with 405, `Allow` and a problem document, \
         and HEAD wherever it answers GET. Answers may get new fields. `X-Request-Id` names a request in logs; a \
         caller may choose it. docs/webhooks.md describes what the orchestrator sends to webhooks."
    );
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Duet orchestrator",
            "version": env!("CARGO_PKG_VERSION"),
            "description": description,
            "license": { "name": "Apache-2.0 OR MIT", "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "The tenant's API token." },
            },
            "headers": {
                "Location": { "description": "The job's path.", "schema": { "type": "string" } },
                "RetryAfter": { "description": "After how many seconds to try again.", "schema": { "type": "integer", "minimum": 1 } },
                "WWWAuthenticate": { "description": "`Bearer`.", "schema": { "type": "string" } },
            },
            "schemas": schemas::all(),
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(reference) if name == "$ref" => drop(found.insert(reference)),
                        _ => references(value, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn the_document_has_just_the_routes_there_are() {
        let described: BTreeSet<_> =
            operations().iter().map(|operation| (operation.path, operation.method)).collect();
        let routes: BTreeSet<_> =
            crate::http::all_routes().iter().map(|route| (route.path, route.method)).collect();
        assert_eq!(described, routes);
        assert_eq!(described.len(), operations().len(), "none is there twice");
        let ids: BTreeSet<_> = operations().iter().map(|operation| operation.id).collect();
        assert_eq!(ids.len(), operations().len());
    }

    #[test]
    fn every_path_says_what_its_parameter_is() {
        for operation in operations() {
            let is_described = operation.parameters.iter().any(|parameter| parameter["in"] == "path");
            assert_eq!(operation.path.contains("{id}"), is_described, "{}", operation.path);
            assert!(!operation.answers.is_empty(), "{}", operation.path);
        }
    }

    #[test]
    fn every_reference_leads_to_a_part_and_every_schema_is_referred_to() {
        let document = document();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in &found {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
        let told: &[&str] = &["Progress"];
        for name in document["components"]["schemas"].as_object().unwrap().keys() {
            let is_used = found.contains(format!("#/components/schemas/{name}").as_str());
            assert!(is_used || told.contains(&name.as_str()), "{name} is used nowhere");
        }
    }

    #[test]
    fn the_documentation_has_the_document_as_it_is_served() {
        duet_test_docs::file("docs/openapi.json", &format!("{:#}\n", document())).unwrap();
    }
}
