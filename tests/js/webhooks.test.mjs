// The specification's own library checks the test vectors of Duet's webhook signatures.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { mock, test } from "node:test";

import { Webhook } from "standardwebhooks";

const vectors = JSON.parse(
  await readFile(new URL("../../crates/wire/tests/webhooks.json", import.meta.url)),
);

function verifies({ secret, id, timestamp, signature, body, now }) {
  mock.timers.enable({ apis: ["Date"], now: now * 1000 });
  try {
    const headers = {
      "webhook-id": id,
      "webhook-timestamp": timestamp,
      "webhook-signature": signature,
    };
    new Webhook(secret).verify(body, headers);
    return true;
  } catch (error) {
    assert.equal(error.name, "WebhookVerificationError");
    return false;
  } finally {
    mock.timers.reset();
  }
}

test("vectors__should_get_the_same_verdict_from_the_specification", () => {
  // The library reads the beginning of a malformed timestamp as a number. Duet's receivers do not.
  const judged = vectors.filter(({ verdict }) => verdict !== "malformed-timestamp");
  assert.ok(judged.length >= 13);
  for (const vector of judged) {
    assert.equal(verifies(vector), vector.verdict === "ok", vector.name);
  }
});
