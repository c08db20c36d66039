import assert from "node:assert/strict";
import { test } from "node:test";

import { attemptPauseMs, pauseMs } from "../dist/worker/backoff.js";

const BACKOFF = { firstMs: 300, maxMs: 15_000 };

test("pauses__should_grow_to_their_bound_and_no_further", () => {
  const bounds = Array.from({ length: 12 }, (_, at) => pauseMs(BACKOFF, at + 1, () => 1));
  assert.deepEqual(bounds.slice(0, 4), [300, 600, 1200, 2400]);
  assert.equal(Math.max(...bounds), 15_000);
  assert.equal(
    pauseMs(BACKOFF, 10_000, () => 1),
    15_000,
  );
});

test("pauses__should_spread_over_everything_below_the_bound", () => {
  assert.equal(
    pauseMs(BACKOFF, 3, () => 0),
    0,
  );
  assert.equal(
    pauseMs(BACKOFF, 3, () => 0.5),
    600,
  );
});

test("attempts__should_be_slowed_from_the_third_wrong_one", () => {
  assert.deepEqual([0, 1, 2, 3, 4, 5].map(attemptPauseMs), [0, 0, 0, 1000, 2000, 4000]);
  assert.equal(attemptPauseMs(1000), 60_000);
});
