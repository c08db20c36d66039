import assert from "node:assert/strict";
import { test } from "node:test";

import { ProviderError, providerError, rpcCodes } from "../dist/eip1193-errors.js";
import {
  bindingError,
  duetError,
  Failure,
  outcomeOf,
  refusalError,
  toError,
} from "../dist/errors.js";

test("refusals__should_become_errors_that_a_program_can_act_on", () => {
  const kindOf = code => refusalError({ code, message: "why" }, "service").kind;
  assert.equal(kindOf("locked"), "paillier-locked");
  assert.equal(kindOf("needs-rotation"), "needs-rotation");
  assert.equal(kindOf("job-expired"), "job-expired");
  assert.equal(kindOf("rejected-by-owner"), "rejected");
  assert.equal(kindOf("deadline"), "party-unreachable");
  assert.equal(kindOf("requester-not-allowed"), "refused");
  // Codes that are newer than this build.
  assert.equal(kindOf("something-new"), "refused");
  assert.deepEqual(refusalError({ code: "quota", message: "no more room" }, "partner"), {
    kind: "refused",
    message: "No more room.",
    code: "quota",
    by: "partner",
  });
});

test("binding_errors__should_name_the_field", () => {
  const refused = {
    kind: "refused",
    code: "malformed-json",
    message: "expected a number",
    path: "payload.gas",
  };
  assert.deepEqual(bindingError(refused), {
    kind: "invalid",
    message: "Expected a number.",
    code: "malformed-json",
    field: "payload.gas",
  });
  assert.equal(bindingError({ kind: "malformed", message: "x" }, "signature").field, "signature");
  assert.equal(
    bindingError({ kind: "peer-misbehaved", message: "x", culprit: "service" }).by,
    "service",
  );
  assert.equal(bindingError({ kind: "misuse", message: "x" }).kind, "internal");
});

test("exceptions__should_never_leave_as_such", async () => {
  assert.deepEqual(toError(new Failure(duetError("locked", "Locked."))), {
    kind: "locked",
    message: "Locked.",
  });
  assert.equal(toError(new DOMException("gone", "AbortError")).kind, "cancelled");
  assert.equal(toError(new DOMException("full", "QuotaExceededError")).kind, "storage");
  assert.equal(toError("text").kind, "internal");
  assert.deepEqual(await outcomeOf(() => 5), { ok: true, value: 5 });
  const failed = await outcomeOf(() => {
    throw new Failure(duetError("refused", "No.", { by: undefined }));
  });
  assert.deepEqual(failed, { ok: false, error: { kind: "refused", message: "No." } });
});

test("provider_errors__should_have_the_standard_codes", () => {
  const codeOf = kind => providerError(new Failure(duetError(kind, "x"))).code;
  assert.equal(codeOf("cancelled"), 4001);
  assert.equal(codeOf("rejected"), 4001);
  assert.equal(codeOf("locked"), 4100);
  assert.equal(codeOf("gateway-unreachable"), 4900);
  assert.equal(codeOf("invalid"), -32602);
  assert.equal(codeOf("internal"), -32603);
  assert.equal(rpcCodes.unknownChain, 4902);
  const error = providerError(new Failure(duetError("locked", "Locked.")));
  assert.ok(error instanceof ProviderError && error instanceof Error);
  assert.equal(error.data.kind, "locked");
});
