//! What a client sends: signing requests, alone and in batches. Also the answer to a batch.

use duet_wire::{
    batch::MAX_BATCH_ITEMS,
    payload::MAX_PAYLOAD_SIZE_BYTES,
    request::{MAX_REQUEST_SIZE_BYTES, REQUEST_VERSION, UNDATED_REQUEST_VERSION},
};
use serde_json::{Value, json};

use super::{as_a, closed, hexadecimal, list, moment, number, object, of, one_of, text, variants};

pub(super) fn requests() -> Vec<(&'static str, Value)> {
    let quantity = |what: &str| json!({ "type": ["integer", "string"], "description": format!("{what}: a number, decimal digits, or 0x and hexadecimal digits.") });
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
    let optional_bytes = |what: &str| or_null(bytes(what), json!(["string", "null"]));
    let kind = |name: &'static str| ("kind", true, json!({ "const": name }));
    let transaction = [
        kind("transaction"),
        (
            "type",
            false,
            json!({ "type": ["integer", "string", "null"], "description": "0x0, 0x1 or 0x2 (legacy, eip2930, eip1559); by its fee fields when absent." }),
        ),
        (
            "chainId",
            true,
            json!({ "type": ["integer", "string", "null"], "description": "Null for a legacy transaction for any chain." }),
        ),
        ("nonce", true, quantity("The sender's transaction count")),
        (
            "to",
            true,
            json!({ "type": ["string", "null"], "description": "The recipient; null to create a contract, which takes its code as `data`." }),
        ),
        ("value", false, optional("Wei that are sent")),
        ("gas", false, optional("The most gas it may use; also called gasLimit")),
        ("gasLimit", false, optional("The same as gas")),
        ("data", false, optional_bytes("What is called; also called input.")),
        ("input", false, optional_bytes("The same as data.")),
        ("gasPrice", false, optional("Of types 0 and 1")),
        (
            "accessList",
            false,
            json!({ "type": ["array", "null"], "description": "Of types 1 and 2 (EIP-2930).", "items": { "type": "object" } }),
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
        ("types", true, json!({ "type": "object" })),
        ("primaryType", true, json!({ "type": "string" })),
        (
            "domain",
            true,
            json!({ "type": "object", "description": "Hashed by the declared `EIP712Domain`, or else by the members that are there in the order of the standard." }),
        ),
        ("message", true, json!({ "type": "object" })),
        (
            "undeclared",
            false,
            json!({ "enum": ["refuse", "drop"], "description": "What happens to members that `types` does not declare; `refuse` when absent. `drop` signs without them." }),
        ),
    ];
    let digest = [
        kind("digest"),
        ("digest", true, bytes("32 bytes of unknown meaning; only for requesters that may.")),
    ];
    let payload = [
        closed(object("An Ethereum transaction.", transaction)),
        closed(object("A message under EIP-191: either `text` or `hex`.", message)),
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
        (
            "path",
            false,
            text("Which key signs: `m`, the default, or a BIP-32 child, `m/1/2`; no hardened step."),
        ),
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
            closed(object(
                &format!(
                    "What a requester wants signed, at most {MAX_REQUEST_SIZE_BYTES} bytes. Its exact bytes are what the requester signs."
                ),
                request,
            )),
        ),
        ("Payload", variants(&format!("What is signed, at most {MAX_PAYLOAD_SIZE_BYTES} bytes."), payload)),
        ("SignedRequest", object("A request as its requester signed it.", signed_request)),
        ("Revocation", closed(object("That a job's request is not to be signed any more.", revocation))),
        ("Approval", closed(object("An approver's word on a job's request.", approval))),
        (
            "Approved",
            object("Who noted an approval.", [("parties", true, list(&of("Party"), "The parties."))]),
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
                "Many requests at once; each stands or falls alone.",
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
