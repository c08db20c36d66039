//! The documents of the interface as JSON Schemas. Lists and bounds that exist elsewhere in the
//! code come from there. The end-to-end tests check that answers match.

mod requests;
mod tenant;

use duet_wire::{
    Code, JobStateName, Priority,
    error::{ERRORS_PAGE, MAX_EXPLANATION_SIZE_BYTES},
    request::Pair,
};
use serde_json::{Map, Value, json};

/// A field of an object: its name, whether it is always present, and its schema.
type Field = (&'static str, bool, Value);

/// The schema called `name`.
pub(super) fn of(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// `schema` with a description for this place.
fn as_a(mut schema: Value, description: &str) -> Value {
    if let Value::Object(fields) = &mut schema {
        fields.insert("description".to_owned(), description.into());
    }
    schema
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn hexadecimal(bytes: usize, description: &str) -> Value {
    json!({ "type": "string", "pattern": format!("^[0-9a-f]{{{}}}$", 2 * bytes), "description": description })
}

/// Bytes in hexadecimal with the prefix that Ethereum uses.
fn prefixed(bytes: usize, description: &str) -> Value {
    json!({ "type": "string", "pattern": format!("^0x[0-9a-f]{{{}}}$", 2 * bytes), "description": description })
}

fn address(description: &str) -> Value {
    json!({ "type": "string", "pattern": "^0x[0-9a-fA-F]{40}$", "description": description })
}

fn number(description: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": description })
}

fn moment(what: &str) -> Value {
    number(&format!("{what}, in milliseconds since 1970."))
}

fn one_of(names: impl IntoIterator<Item = &'static str>, description: &str) -> Value {
    let names: Vec<&str> = names.into_iter().collect();
    json!({ "type": "string", "enum": names, "description": description })
}

fn list(items: &Value, description: &str) -> Value {
    json!({ "type": "array", "items": items, "description": description })
}

fn nullable(schema: &Value, description: &str) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }], "description": description })
}

fn object(description: &str, fields: impl IntoIterator<Item = Field>) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (name, is_required, schema) in fields {
        properties.insert(name.to_owned(), schema);
        if is_required {
            required.push(name);
        }
    }
    json!({ "type": "object", "description": description, "properties": properties, "required": required })
}

/// A request's document: unknown members are refused.
fn closed(mut object: Value) -> Value {
    if let Value::Object(fields) = &mut object {
        fields.insert("additionalProperties".to_owned(), false.into());
    }
    object
}

/// `object`, with what `rules` says about several of its members together.
fn both(mut object: Value, rules: Value) -> Value {
    if let (Value::Object(fields), Value::Object(rules)) = (&mut object, rules) {
        fields.extend(rules);
    }
    object
}

fn variants(description: &str, variants: impl IntoIterator<Item = Value>) -> Value {
    let variants: Vec<Value> = variants.into_iter().collect();
    json!({ "description": description, "oneOf": variants })
}

/// All schemas, by name.
pub(super) fn all() -> Value {
    let mut schemas = Map::new();
    for (name, schema) in names()
        .into_iter()
        .chain(refusals())
        .chain(jobs())
        .chain(requests::requests())
        .chain(requests::batches())
        .chain(tenant::wallets())
        .chain(tenant::webhooks())
    {
        schemas.insert(name.to_owned(), schema);
    }
    schemas.into()
}

fn names() -> Vec<(&'static str, Value)> {
    let token =
        |what: &str| json!({ "type": "string", "pattern": "^[a-z][a-z0-9-]{0,31}$", "description": what });
    vec![
        ("JobId", hexadecimal(16, "A job: derived from tenant and idempotency key.")),
        ("BatchId", hexadecimal(16, "A batch: derived from its jobs.")),
        ("WalletId", hexadecimal(32, "A wallet.")),
        (
            "Path",
            json!({ "type": "string", "examples": ["m", "m/0/5"],
                "description": "A key of a wallet: `m`, its own, or a BIP-32 child such as `m/0/5`. At most ten steps, none of \
                 them hardened: each is a number up to 2147483647, without leading zeros." }),
        ),
        ("SessionId", hexadecimal(16, "One attempt of two parties at a signature.")),
        ("WebhookId", hexadecimal(16, "A webhook.")),
        ("Tenant", token("A tenant's name.")),
        ("Party", token("A party's name.")),
        (
            "Cursor",
            text(
                "A place in a sequence of ends. It is opaque: pass it on exactly as an answer gave it. When the broker was put back to an \
                 earlier copy, one that names a later place is answered with 410 and the place to go on from.",
            ),
        ),
        (
            "IdempotencyKey",
            json!({ "type": "string", "pattern": "^[!-~]{1,255}$", "description":
                "The requester's name for a job. The same key of the same tenant is the same job for as long as it is kept." }),
        ),
        (
            "JobState",
            one_of(
                JobStateName::ALL.map(JobStateName::as_str),
                "`queued`, `awaiting_owner` and `running` are open; the others are final, except that a `failed` job is a dead \
                 letter and can be put back. A later release may add states: wait on one that you do not know.",
            ),
        ),
        (
            "Pair",
            one_of(Pair::ALL.map(Pair::as_str), "Two of the three holders of shares, the initiator first."),
        ),
        (
            "Priority",
            one_of(Priority::ALL.map(Priority::as_str), "How urgent a job is among its tenant's own."),
        ),
        (
            "PayloadKind",
            one_of(["transaction", "personal_message", "typed_data", "digest"], "A kind of payload."),
        ),
        (
            "Code",
            one_of(
                Code::ALL.iter().map(|code| code.as_str()),
                &format!(
                    "What went wrong. Codes keep their meaning; new ones may be added. Explained in {ERRORS_PAGE}."
                ),
            ),
        ),
    ]
}

fn refusals() -> Vec<(&'static str, Value)> {
    let sentence = |what: &str| json!({ "type": "string", "description": format!("{what}, at most {MAX_EXPLANATION_SIZE_BYTES} bytes.") });
    let refusal = [("code", true, of("Code")), ("message", true, sentence("An explanation for a person"))];
    let problem = [
        ("type", true, text(&format!("Where the code is explained: an anchor in {ERRORS_PAGE}."))),
        ("title", true, text("A short title of the kind of problem.")),
        ("status", true, json!({ "type": "integer", "description": "The HTTP status." })),
        ("detail", true, sentence("What happened, as a sentence that a person can act on")),
        ("code", true, of("Code")),
        (
            "path",
            false,
            text("The JSON path of the faulty value in the request's body, if that is the cause."),
        ),
        (
            "job",
            false,
            as_a(
                of("JobId"),
                "The job that an idempotency key stands for already, or that has the same transaction.",
            ),
        ),
    ];
    vec![
        ("Refusal", object("A refusal: its code and an explanation.", refusal)),
        ("Problem", object("A refusal over HTTP (RFC 9457).", problem)),
        (
            "Alive",
            object(
                "A process that runs.",
                [
                    ("status", true, one_of(["alive"], "The process's state.")),
                    ("version", true, text("The version of its build.")),
                    ("now_ms", true, moment("Its clock")),
                    ("max_in_flight", true, number("How many jobs it works on at once.")),
                ],
            ),
        ),
        (
            "Health",
            object(
                "A process that can accept jobs.",
                [
                    ("status", true, one_of(["ready"], "The process's state.")),
                    (
                        "broker",
                        true,
                        one_of(
                            ["safe", "trusted"],
                            "Whether the broker's nodes say that they flush what they acknowledge, or \
                             the operator vouches for them (`--trust-broker`), whatever they say.",
                        ),
                    ),
                    (
                        "stores_lost_at_ms",
                        false,
                        moment("When this process found that the broker had lost streams or buckets"),
                    ),
                    (
                        "broker_went_back_at_ms",
                        false,
                        moment("When this process found the broker put back to an earlier copy of its store"),
                    ),
                    (
                        "broker_epoch",
                        true,
                        number("1, and one more each time that the broker was put back or lost its store."),
                    ),
                ],
            ),
        ),
    ]
}

/// The outcome of a job, beside its other fields.
fn ending() -> Vec<Field> {
    vec![
        ("signature", false, prefixed(65, "The signature: r, s and v (27 or 28).")),
        ("address", false, address("The signing key's Ethereum address, with its EIP-55 checksum.")),
        (
            "signed_transaction",
            false,
            json!({ "type": "string", "pattern": "^0x([0-9a-f]{2})+$", "description": "The bytes to broadcast, for a transaction." }),
        ),
        ("transaction_hash", false, prefixed(32, "The hash by which that transaction will be known.")),
        ("failure", false, as_a(of("Refusal"), "Why there is no signature and will be none.")),
        ("result", false, as_a(of("SignedResult"), "The result under the orchestrator's signature.")),
    ]
}

fn jobs() -> Vec<(&'static str, Value)> {
    let job: Vec<Field> = [
        ("id", true, of("JobId")),
        ("tenant", true, of("Tenant")),
        ("wallet", true, of("WalletId")),
        ("kind", true, of("PayloadKind")),
        ("idempotency_key", true, of("IdempotencyKey")),
        ("priority", true, of("Priority")),
        ("state", true, of("JobState")),
        ("attempts", true, number("How many attempts were started.")),
        ("session", false, as_a(of("SessionId"), "The session under way.")),
        ("pair", false, as_a(of("Pair"), "The pair of the latest attempt.")),
        ("created_at_ms", true, moment("When it was accepted")),
        ("updated_at_ms", true, moment("When it last changed")),
        ("expires_at_ms", true, moment("When it expires")),
        ("put_back_at_ms", false, moment("When it was last put back from the dead letters")),
        ("settled_at_ms", false, moment("When it was settled")),
        (
            "waiting",
            false,
            as_a(of("Waiting"), "Why it waits. An expired job shows what it last waited for."),
        ),
        ("revocation", false, as_a(of("JobRevocation"), "The revocation of its request, if there is one.")),
        ("digest", true, prefixed(32, "The 32 bytes that are signed.")),
        ("history", true, list(&of("Attempt"), "The attempts, oldest first.")),
    ]
    .into_iter()
    .chain(ending())
    .collect();
    let end: Vec<Field> = [
        ("cursor", true, as_a(of("Cursor"), "Its place: what to pass as `after` to go on behind it.")),
        ("job", true, of("JobId")),
        ("state", true, as_a(of("JobState"), "A final one.")),
        ("ended_at_ms", true, moment("When it ended")),
        ("wallet", false, as_a(of("WalletId"), "The wallet that signed.")),
        ("digest", false, prefixed(32, "The 32 bytes that were signed.")),
    ]
    .into_iter()
    .chain(ending())
    .collect();
    let attempt = [
        ("attempt", true, number("Which, from 1.")),
        ("session", true, of("SessionId")),
        ("pair", true, of("Pair")),
        ("started_at_ms", true, moment("When it began")),
        ("ended_at_ms", true, nullable(&moment("When it ended"), "Null while it is under way.")),
        ("outcome", true, nullable(&of("AttemptOutcome"), "Null while it is under way.")),
        (
            "earlier",
            false,
            object(
                "Earlier attempts of the pair that ended with the same code. They are not listed.",
                [
                    ("attempts", true, number("How many.")),
                    ("first_started_at_ms", true, moment("When the first of them began")),
                ],
            ),
        ),
    ];
    let waiting = [
        ("code", true, of("Code")),
        ("message", true, text("What has to happen before the job goes on.")),
        ("since_ms", true, moment("Since when it waits, for this or for another reason")),
    ];
    let outcome = |name: &'static str| ("outcome", true, json!({ "const": name }));
    let outcomes = [
        object("With the signature.", [outcome("signed")]),
        object("The job's time passed.", [outcome("expired")]),
        object(
            "Without.",
            [
                outcome("failed"),
                ("code", true, of("Code")),
                (
                    "culprit",
                    true,
                    nullable(
                        &of("Party"),
                        "The party that demonstrably caused the failure, if there is one.",
                    ),
                ),
                ("evidence", false, of("Evidence")),
                ("message", true, text("An explanation for a person.")),
            ],
        ),
    ];
    let kind = |name: &'static str| ("kind", true, json!({ "const": name }));
    let by = || ("by", true, of("Party"));
    let sha256 = || ("sha256", true, hexadecimal(32, "The SHA-256 of the bytes that the party sent."));
    let evidence = [
        object("The party refused its invitation.", [kind("refusal"), by()]),
        object("A party's answer to its invitation does not parse.", [kind("nonsense"), by(), sha256()]),
        object(
            "A party's signed report. If it blames the other party, only this party says so.",
            [kind("report"), by(), sha256()],
        ),
        object(
            "A signed report of a signature that does not verify.",
            [kind("invalid_signature"), by(), sha256()],
        ),
        object(
            "A party's message did not come in time. No party is blamed for it.",
            [
                kind("silence"),
                ("of", true, of("Party")),
                (
                    "before_acceptance",
                    false,
                    json!({
                        "type": "boolean",
                        "default": false,
                        "description": "Whether the orchestrator has not seen both parties accept the session. \
                                        Then the silence says nothing about the job.",
                    }),
                ),
            ],
        ),
    ];
    let signed_result = [
        ("body", true, text("The result's JSON, byte for byte.")),
        ("key", true, hexadecimal(32, "The orchestrator's Ed25519 key.")),
        ("signature", true, hexadecimal(64, "Ed25519 over the tag `duet/v1/result` and the body.")),
    ];
    let progress = [
        ("session", true, of("SessionId")),
        ("from", true, text("The sender: a party, or the orchestrator.")),
        ("event", true, json!({ "description": "The event, as the sender stated it." })),
    ];
    let refused_by = [("party", true, of("Party")), ("refusal", true, of("Refusal"))];
    let revocation = [
        ("proof", true, of("Revocation")),
        ("at_ms", true, moment("When the orchestrator accepted it")),
        ("kept_by", true, list(&of("Party"), "The parties that keep it: they sign the request no more.")),
        ("waits_for", true, list(&of("Party"), "The parties that are yet to acknowledge it.")),
        (
            "refused_by",
            false,
            list(&object("A party and its reason.", refused_by), "The parties that do not keep it."),
        ),
    ];
    vec![
        ("Job", object("A job.", job)),
        ("JobRevocation", object("A revocation, and which parties know of it.", revocation)),
        ("Attempt", object("An attempt at a job.", attempt)),
        ("Waiting", object("Why a job waits.", waiting)),
        ("AttemptOutcome", variants("How an attempt ended.", outcomes)),
        (
            "Evidence",
            variants("The orchestrator's own statement of what shows how an attempt ended.", evidence),
        ),
        ("SignedResult", object("A result under the orchestrator's signature.", signed_result)),
        (
            "JobPage",
            object(
                "A page of jobs, newest first.",
                [
                    ("jobs", true, list(&of("Job"), "Newest first.")),
                    (
                        "next",
                        false,
                        as_a(of("JobId"), "What to pass as `after` for the next page; absent on the last."),
                    ),
                ],
            ),
        ),
        ("End", object("How a job ended.", end)),
        (
            "EndPage",
            object(
                "A page of ends.",
                [
                    ("results", true, list(&of("End"), "In the order of publication.")),
                    (
                        "next",
                        true,
                        as_a(of("Cursor"), "What to pass as `after` for what follows, now or later."),
                    ),
                ],
            ),
        ),
        (
            "Progress",
            object("What a party, or the orchestrator, says about the session under way.", progress),
        ),
    ]
}
