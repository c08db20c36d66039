// The same vectors as the helper in Rust.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { verifyWebhook } from "../dist/webhooks.js";

const file = new URL("../../../crates/wire/tests/webhooks.json", import.meta.url);
const vectors = JSON.parse(await readFile(file, "utf8"));

function headersOf({ id, timestamp, signature }) {
  return { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signature };
}

test("deliveries__should_get_the_verdict_of_every_vector", async () => {
  assert.ok(vectors.length >= 16);
  for (const vector of vectors) {
    for (const headers of [headersOf(vector), new Headers(headersOf(vector))]) {
      for (const body of [vector.body, new TextEncoder().encode(vector.body)]) {
        const verdict = await verifyWebhook(vector.secret, headers, body, { now: vector.now });
        assert.equal(verdict.ok ? "ok" : verdict.refusal, vector.verdict, vector.name);
        if (verdict.ok)
          assert.deepEqual(verdict.delivered, {
            id: vector.id,
            timestamp: Number(vector.timestamp),
          });
      }
    }
  }
});

test("secrets__should_verify_nothing_when_malformed", async () => {
  const [vector] = vectors;
  for (const secret of ["", "whsec_", "whsec_AAAA", vector.secret.slice("whsec_".length)]) {
    const verdict = await verifyWebhook(secret, headersOf(vector), vector.body, {
      now: vector.now,
    });
    assert.deepEqual(verdict, { ok: false, refusal: "malformed-secret" });
  }
});
