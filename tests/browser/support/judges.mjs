// ethers and viem, which took no part in making the signatures: runs `tests/js/verify.mjs` as a
// process.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";

const JUDGES = fileURLToPath(new URL("../../js/verify.mjs", import.meta.url));

/** Fails unless both libraries accept every check. */
export function judge(...checks) {
  const run = spawnSync(process.execPath, [JUDGES], {
    input: JSON.stringify(checks),
    encoding: "utf8",
  });
  assert.equal(run.status, 0, `ethers or viem disagrees: ${run.stdout}${run.stderr}`);
}
