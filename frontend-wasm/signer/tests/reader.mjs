// The payloads' reader of the real module, as the worker calls it.

import { createRequire } from "node:module";
import { resolve } from "node:path";

import { bindingError, toError } from "../dist/errors.js";
import { payloadDocument, plainDocument } from "../dist/payload.js";

const folder = process.env.DUET_WASM_PACKAGE;
if (!folder) throw new Error("DUET_WASM_PACKAGE is not set: run `cargo xtask test wasm`");
const wasm = createRequire(import.meta.url)(resolve(folder, "duet_frontend_wasm.js"));

async function outcome(work, field) {
  try {
    const result = work();
    return result.ok ? result : { ok: false, error: bindingError(result.error, field) };
  } catch (thrown) {
    return { ok: false, error: toError(thrown) };
  }
}

export const reader = {
  describe: payload => outcome(() => wasm.describe(payloadDocument(payload)), "payload"),
  readTransaction: request =>
    outcome(() => wasm.readTransaction(plainDocument(request)), "transaction"),
  readTypedData: (document, undeclared = "refuse") =>
    outcome(
      () =>
        wasm.readTypedData(
          typeof document === "string" ? document : plainDocument(document),
          undeclared === "drop",
        ),
      "document",
    ),
};
