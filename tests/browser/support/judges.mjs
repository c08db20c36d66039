// ethers and viem, which took no part in making the signatures, as `tests/js/verify.mjs` asks them.
// They are loaded once, into the process of the scenarios.

import assert from "node:assert/strict";

import { verify } from "../../js/verify.mjs";

/** Fails unless both libraries accept every check. */
export async function judge(...checks) {
  const { ok, text } = await verify(checks);
  assert.ok(ok, `ethers or viem disagrees: ${text}`);
}
