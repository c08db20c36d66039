//! What a client sends: signing requests, alone and in batches. Also the answer to a batch.

use duet_wire::{
    batch::MAX_BATCH_ITEMS,
    payload::MAX_PAYLOAD_SIZE_BYTES,
    request::{MAX_REQUEST_SIZE_BYTES, REQUEST_VERSION, UNDATED_REQUEST_VERSION},
};
use serde_json::{Value, json};

use super::{as_a, both, closed, hexadecimal, list, moment, number, object, of, one_of, text, variants};

pub(super) fn requests() -> Vec<(&'static str, Value)> {
    let quantity = |what: &str| {
        json!({ "type": ["integer", "string"], "examples": [1, "1", "0x1"],
        "description": format!("{what}: a number, decimal digits, or 0x and hexadecimal digits.") })
    };
    let bytes =
        |what: &str| json!({ "type": "string", "pattern": "^0x([0-9a-fA-F]{2})*$", "description": what });
    // An optional member may also be null, with the same meaning.
    let or_null = |mut schema: Value, kinds: Value| {
        if let Some(members) = schema.as_object_mut() {
            members.insert("type".to_owned(), kinds);
        }
        schema
    };
    let optional = |what: &str| or_null(quantity(what), json!(["integer", "string", "null"]));
    let optional_code = |what: &str| json!({ "type": ["string", "null"], "pattern": "^0x([0-9a-fA-F]{2})*$", "examples": ["0x6000"], "description": what });
    let kind = |name: &'static str| ("kind", true, json!({ "const": name }));
    // A transaction's member that is null is missing.
    let has =
        |name: &str| json!({ "required": [name], "properties": { name: { "not": { "type": "null" } } } });
    let creates = |name: &str| json!({ "required": [name], "properties": { name: { "type": "string", "minLength": 4 } } });
    let lacks = |name: &str| json!({ "properties": { name: { "type": "null" } } });
    let is_of = |names: Value| json!({ "properties": { "type": { "enum": names } } });
    let transaction = [
        kind("transaction"),
        (
            "type",
            false,
            json!({ "type": ["integer", "string", "null"], "examples": ["0x0", 1, "eip1559", null],
                "description": "0x0, 0x1 or 0x2 (legacy, eip2930, eip1559); by its fee fields when absent." }),
        ),
        (
            "chainId",
            true,
            json!({ "type": ["integer", "string", "null"], "examples": [1, "0x1", null],
                "description": "Null for a legacy transaction for any chain." }),
        ),
        ("nonce", true, quantity("The sender's transaction count")),
        (
            "to",
            true,
            json!({ "type": ["string", "null"], "examples": ["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", null],
                "description": "The recipient; null to create a contract, which takes its code as `data`." }),
        ),
        ("value", false, optional("Wei that are sent")),
        ("gas", false, optional("The most gas it may use; also called gasLimit")),
        ("gasLimit", false, optional("The same as gas")),
        ("data", false, optional_code("What is called; also called input.")),
        ("input", false, optional_code("The same as data.")),
        ("gasPrice", false, optional("Of types 0 and 1")),
        (
            "accessList",
            false,
            json!({ "type": ["array", "null"], "description": "Of types 1 and 2 (EIP-2930).", "items": { "type": "object" },
                "examples": [[], [{ "address": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "storageKeys": [] }]] }),
        ),
        ("maxFeePerGas", false, optional("Of type 2")),
        ("maxPriorityFeePerGas", false, optional("Of type 2")),
    ];
    let message = [
        kind("personal_message"),
        ("text", false, text("Signed as its UTF-8 bytes.")),
        ("hex", false, bytes("Bytes.")),
    ];
    let typed_data = [
        kind("typed_data"),
        (
            "types",
            true,
            json!({ "type": "object", "examples": [{ "Mail": [{ "name": "contents", "type": "string" }] }] }),
        ),
        ("primaryType", true, json!({ "type": "string", "examples": ["Mail"] })),
        (
            "domain",
            true,
            json!({ "type": "object", "examples": [{ "name": "Duet", "chainId": 1 }], "description": "Hashed by the declared `EIP712Domain`, or else by the members that are there in the order of the standard." }),
        ),
        ("message", true, json!({ "type": "object", "examples": [{ "contents": "Hello" }] })),
        (
            "undeclared",
            false,
            json!({ "enum": ["refuse", "drop"], "description": "What happens to members that `types` does not declare; `refuse` when absent. `drop` signs without them." }),
        ),
    ];
    let digest = [
        kind("digest"),
        (
            "digest",
            true,
            json!({ "type": "string", "pattern": "^0x[0-9a-fA-F]{64}$",
                "description": "32 bytes of unknown meaning; only for requesters to whom the wallet permits digests." }),
        ),
    ];
    let payload = [
        both(
            closed(object("An Ethereum transaction.", transaction)),
            json!({ "allOf": [
                { "anyOf": [has("gas"), has("gasLimit")] },
                { "anyOf": [has("to"), creates("data"), creates("input")] },
                { "oneOf": [
                    { "title": "Legacy", "allOf": [
                        is_of(json!(["0x0", "0", 0, "legacy", null])), has("gasPrice"), lacks("accessList"),
                        lacks("maxFeePerGas"), lacks("maxPriorityFeePerGas"),
                    ] },
                    { "title": "EIP-2930", "allOf": [
                        is_of(json!(["0x1", "1", 1, "eip2930", null])), has("chainId"), has("gasPrice"),
                        { "anyOf": [has("type"), has("accessList")] },
                        lacks("maxFeePerGas"), lacks("maxPriorityFeePerGas"),
                    ] },
                    { "title": "EIP-1559", "allOf": [
                        is_of(json!(["0x2", "2", 2, "eip1559", null])), has("chainId"), has("maxFeePerGas"),
                        has("maxPriorityFeePerGas"), lacks("gasPrice"),
                    ] },
                ] },
            ] }),
        ),
        both(
            closed(object("A message under EIP-191: either `text` or `hex`.", message)),
            json!({ "oneOf": [{ "required": ["text"] }, { "required": ["hex"] }] }),
        ),
        closed(object("An EIP-712 document.", typed_data)),
        closed(object("A bare digest.", digest)),
    ];
    let request = [
        (
            "version",
            true,
            json!({ "enum": [UNDATED_REQUEST_VERSION, REQUEST_VERSION],
                "description": "2; 1 states no `issued_at` and has to end within 24 hours." }),
        ),
        ("tenant", true, of("Tenant")),
        ("wallet", true, of("WalletId")),
        ("path", false, as_a(of("Path"), "Which key signs; `m` when absent.")),
        ("payload", true, of("Payload")),
        ("idempotency_key", true, of("IdempotencyKey")),
        ("issued_at", false, number("When it was signed, in seconds since 1970; required in version 2.")),
        (
            "expires_at",
            true,
            number(
                "When it ends, in seconds since 1970: at most 24 hours after `issued_at`, or 30 days where the owner's device \
                 initiates or the policy asks for an approval.",
            ),
        ),
        (
            "pairs",
            false,
            json!({ "type": "array", "items": of("Pair"), "minItems": 1, "uniqueItems": true,
                "description": "Which pairs may sign, in order of preference; by default device+service, then service+partner." }),
        ),
    ];
    let signed_request = [
        ("body", true, text("The signing request, byte for byte.")),
        ("requester", true, hexadecimal(32, "The requester's Ed25519 key.")),
        ("signature", true, hexadecimal(64, "Ed25519 over the tag `duet/v1/signing-request` and the body.")),
    ];
    let approval = [
        ("approver", true, hexadecimal(32, "The approver's Ed25519 key.")),
        (
            "issued_at",
            false,
            number(
                "When the approver signed, in seconds since 1970: the approval counts for 24 hours from then.",
            ),
        ),
        (
            "signature",
            true,
            hexadecimal(
                64,
                "With `issued_at`: Ed25519 over the tag `duet/v1/dated-approval`, the request's content hash (32 bytes) and \
                 `issued_at` (8 bytes, little endian). Without: over the tag `duet/v1/request-approval` and the content hash.",
            ),
        ),
    ];
    let revocation = [
        (
            "by",
            true,
            hexadecimal(32, "The Ed25519 key of the request's requester, or of the wallet's owner."),
        ),
        (
            "signature",
            true,
            hexadecimal(
                64,
                "Ed25519 over the tag `duet/v1/revocation`, the wallet's id (32 bytes) and the request's content hash: SHA-256 of \
                 the requester's key and the body.",
            ),
        ),
    ];
    vec![
        (
            "SigningRequest",
            both(
                closed(object(
                    &format!(
                        "What a requester wants signed, at most {MAX_REQUEST_SIZE_BYTES} bytes. Its exact bytes are what the requester signs."
                    ),
                    request,
                )),
                json!({
                    "if": { "properties": { "version": { "const": UNDATED_REQUEST_VERSION } } },
                    "then": { "not": { "required": ["issued_at"] } },
                    "else": { "required": ["issued_at"] },
                }),
            ),
        ),
        ("Payload", variants(&format!("What is signed, at most {MAX_PAYLOAD_SIZE_BYTES} bytes."), payload)),
        ("SignedRequest", object("A request as its requester signed it.", signed_request)),
        (
            "Revocation",
            closed(object(
                "A signed statement that parties are not to sign a job's request any more.",
                revocation,
            )),
        ),
        ("Approval", closed(object("An approver's signature on a job's request.", approval))),
        (
            "Approved",
            object(
                "The parties that stored an approval.",
                [("parties", true, list(&of("Party"), "The parties."))],
            ),
        ),
    ]
}

pub(super) fn batches() -> Vec<(&'static str, Value)> {
    let request = [
        ("body", true, text("A signing request, byte for byte.")),
        ("requester", true, hexadecimal(32, "The requester's Ed25519 key.")),
        ("signature", true, hexadecimal(64, "As in the header Duet-Signature.")),
        ("priority", false, of("Priority")),
        (
            "repeat_digest",
            false,
            json!({ "type": "boolean", "default": false, "description": "As the header Duet-Repeat-Digest." }),
        ),
    ];
    let item = [
        (
            "verdict",
            true,
            one_of(["accepted", "known", "refused"], "Whether it is a new job, was one before, or is none."),
        ),
        ("job", false, as_a(of("JobId"), "Its job; where that is refused for another job, the other one.")),
        ("state", false, of("JobState")),
        ("problem", false, as_a(of("Problem"), "Why it was refused.")),
        ("retry_after_seconds", false, number("When to submit it again, if that may help.")),
    ];
    let job = [
        ("job", true, of("JobId")),
        ("state", false, as_a(of("JobState"), "Absent when it was not accepted, or is not kept any more.")),
    ];
    let batch = [
        ("id", true, of("BatchId")),
        ("created_at_ms", true, moment("When it was first submitted")),
        ("jobs", true, list(&object("One job.", job), "In the order of their ids.")),
    ];
    vec![
        (
            "BatchRequest",
            closed(object(
                "Many requests at once; the orchestrator accepts or refuses each alone.",
                [(
                    "requests",
                    true,
                    json!({ "type": "array", "items": closed(object("One request.", request)), "minItems": 1, "maxItems": MAX_BATCH_ITEMS }),
                )],
            )),
        ),
        (
            "BatchAnswer",
            object(
                "The answer to a batch.",
                [
                    ("id", false, as_a(of("BatchId"), "Absent when none of its requests names a job.")),
                    ("items", true, list(&object("One request.", item), "In the order of the batch.")),
                ],
            ),
        ),
        ("Batch", object("A batch.", batch)),
    ]
}
