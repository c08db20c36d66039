//! What a tenant owns: wallets and webhooks.

use serde_json::{Value, json};

use super::{
    address, as_a, closed, hexadecimal, list, moment, nullable, number, object, of, one_of, text, variants,
};

pub(super) fn wallets() -> Vec<(&'static str, Value)> {
    let requester = [
        ("key", true, hexadecimal(32, "Its Ed25519 key.")),
        ("kinds", true, list(&of("PayloadKind"), "What it may have signed.")),
    ];
    let pair = [
        ("pair", true, of("Pair")),
        ("usable", true, json!({ "type": "boolean", "description": "Whether it could sign now." })),
        ("reason", false, as_a(of("Refusal"), "Why not.")),
    ];
    let holder = nullable(&of("Party"), "Null where the share is a backup.");
    let wallet = [
        ("id", true, of("WalletId")),
        ("address", true, address("The root key's Ethereum address, with its EIP-55 checksum.")),
        ("public_key", true, hexadecimal(33, "The root public key, SEC1 compressed.")),
        ("chain_code", true, hexadecimal(32, "The BIP-32 chain code.")),
        ("epoch", true, number("The epoch of its shares.")),
        ("tenant", true, of("Tenant")),
        (
            "status",
            true,
            one_of(
                ["prepared", "committed"],
                "How far its creation has come, at the party that is behind the others.",
            ),
        ),
        (
            "parties",
            true,
            json!({ "type": "array", "items": holder, "minItems": 3, "maxItems": 3, "description": "The holders of shares 1, 2 and 3." }),
        ),
        ("requesters", true, list(&object("A requester.", requester), "Who may ask for signatures.")),
        ("pairs", true, list(&object("A pair.", pair), "What each pair can do.")),
    ];
    let account = [
        ("path", true, of("Path")),
        ("address", true, address("Its Ethereum address, with its EIP-55 checksum.")),
        ("public_key", true, hexadecimal(33, "Its public key, SEC1 compressed.")),
    ];
    let xpub = [
        ("wallet", true, of("WalletId")),
        ("path", true, of("Path")),
        (
            "xpub",
            true,
            json!({ "type": "string", "pattern": "^xpub[1-9A-HJ-NP-Za-km-z]{107}$", "description": "The key, as BIP-32 writes it." }),
        ),
    ];
    let addresses = [
        ("wallet", true, of("WalletId")),
        ("addresses", true, list(&object("An account.", account), "In the order of their indices.")),
        (
            "next",
            false,
            number("What to pass as `from` for the next page; absent for one path and on the last page."),
        ),
    ];
    vec![
        ("AddressPage", object("Accounts of a wallet.", addresses)),
        ("Xpub", object("An extended public key of a wallet.", xpub)),
        ("Wallet", object("A wallet.", wallet)),
        (
            "WalletPage",
            object(
                "A page of wallets.",
                [
                    ("wallets", true, list(&of("Wallet"), "In the order of their ids.")),
                    (
                        "next",
                        false,
                        as_a(
                            of("WalletId"),
                            "What to pass as `after` for the next page; absent on the last.",
                        ),
                    ),
                ],
            ),
        ),
    ]
}

pub(super) fn webhooks() -> Vec<(&'static str, Value)> {
    let replay = [
        ("number", true, number("Which of the webhook's replays, from 1.")),
        ("from_ms", true, moment("From when the results were stored")),
        ("until_ms", true, moment("Until when")),
    ];
    let webhook = [
        ("id", true, of("WebhookId")),
        ("url", true, text("Where the orchestrator posts results.")),
        ("created_at_ms", true, moment("When it was added")),
        ("failing_since_ms", false, moment("Since when every attempt at a delivery has failed")),
        ("retries_waiting", true, number("How many deliveries wait to be retried. May be some seconds old.")),
        (
            "disabled",
            false,
            object(
                "Since when, and why, the orchestrator delivers nothing any more.",
                [("at_ms", true, moment("Since when")), ("reason", true, text("Why, for a person."))],
            ),
        ),
        ("replays", false, list(&of("Replay"), "Replays under way.")),
    ];
    let delivery = [
        ("message", true, text("The message's id: a job's, or `test-…`.")),
        ("attempt", true, number("Which attempt, from 1; 0 for a delivery that the tenant requested.")),
        ("at_ms", true, moment("When it was sent")),
        ("took_ms", true, number("How long it took, in milliseconds.")),
        ("outcome", true, one_of(["delivered", "retrying", "given_up"], "How it ended.")),
        (
            "status",
            false,
            json!({ "type": "integer", "description": "The HTTP status of the answer, if there was one." }),
        ),
        ("error", false, text("Why the endpoint did not accept it.")),
        ("next_attempt_at_ms", false, moment("When the orchestrator tries again")),
    ];
    vec![
        (
            "NewWebhook",
            closed(object("A webhook to add.", [("url", true, text("Where to post results: https."))])),
        ),
        (
            "WebhookCreated",
            object(
                "A webhook just added.",
                [
                    ("webhook", true, of("Webhook")),
                    (
                        "secret",
                        true,
                        text(
                            "The secret with which its receiver verifies deliveries (Standard Webhooks). It is not shown again.",
                        ),
                    ),
                ],
            ),
        ),
        ("Webhook", object("Where results are delivered.", webhook)),
        (
            "WebhookPage",
            object("A tenant's webhooks.", [("webhooks", true, list(&of("Webhook"), "Oldest first."))]),
        ),
        ("Replay", object("Results that are delivered once more.", replay)),
        ("Delivery", object("One attempt at a delivery.", delivery)),
        (
            "DeliveryPage",
            object("The latest deliveries.", [("deliveries", true, list(&of("Delivery"), "Newest first."))]),
        ),
        (
            "ReplayOf",
            variants(
                "What to deliver once more: one job's result, or those of a span of time.",
                [
                    closed(object("One result.", [("job", true, of("JobId"))])),
                    closed(object(
                        "A span of time.",
                        [
                            ("from_ms", true, moment("From when the results were stored")),
                            ("until_ms", false, moment("Until when; now, when absent")),
                        ],
                    )),
                ],
            ),
        ),
        (
            "ReplayAccepted",
            object(
                "The delivery of one result, or the replay of a span of time: one of the two.",
                [("delivery", false, of("Delivery")), ("replay", false, of("Replay"))],
            ),
        ),
    ]
}
