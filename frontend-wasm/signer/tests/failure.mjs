import assert from "node:assert/strict";

/** What a thrown `Failure` has to say at least. */
export const failure = expected => thrown => {
  assert.equal(thrown.name, "Failure");
  assert.deepEqual({ ...thrown.error, ...expected }, thrown.error);
  return true;
};
