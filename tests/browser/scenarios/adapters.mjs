// What leaves through the adapters for viem, ethers and EIP-1193: 65 bytes whose last is 27 or 28,
// and transactions with the parity as their own type has it.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";

import { judge } from "../support/judges.mjs";
import { PASSPHRASE } from "../support/page.mjs";
import { scenario } from "../support/world.mjs";

const FRONTEND = fileURLToPath(new URL("../../../frontend-wasm/", import.meta.url));
const SOURCE = join(FRONTEND, "signer/tests/page");

/** Rounds until both parities were there; more are needed once in half a million runs. */
const MOST = 10;

/** The page that signs, built into a folder of its own; once for all scenarios. */
let built;
async function build() {
  const folder = mkdtempSync(join(tmpdir(), "duet-adapters-"));
  process.once("exit", () => rmSync(folder, { recursive: true }));
  const entry = createRequire(join(FRONTEND, "package.json")).resolve("vite");
  const vite = await import(pathToFileURL(entry).href);
  const output = { outDir: folder, emptyOutDir: true, modulePreload: { polyfill: false } };
  await vite.build({
    root: SOURCE,
    configFile: false,
    logLevel: "error",
    base: "./",
    build: { target: "es2022", assetsInlineLimit: 0, ...output },
    worker: { format: "es" },
  });
  return folder;
}

for (const way of ["viem", "ethers", "eip1193"]) {
  scenario(
    `signatures leave ${way} with 27 or 28, transactions with the parity of their type`,
    async scene => {
      scene.folders.adapters = await (built ??= build());
      const profile = await scene.profile(scene.site);
      const tab = await profile.tab("adapters/");
      await tab.waitForFunction(() => globalThis.duetOpen !== undefined);
      const { rpc: rpcUrl, chainId } = scene.stack.facts;
      const options = { gateway: scene.stack.url, passphrase: PASSPHRASE, rpcUrl, chainId };
      const address = await tab.evaluate(given => globalThis.duetOpen(given), options);
      const ask = (what, ...given) =>
        tab.evaluate(
          ([name, method, all]) => globalThis.duetWays[name][method](...all),
          [way, what, given],
        );

      const checks = [];
      const seen = new Set();
      for (let number = 1; seen.size < 2; number += 1) {
        assert.ok(number <= MOST, `only ${[...seen]} in ${2 * MOST} signatures`);
        const text = `${way} ${number}`;
        for (const what of ["message", "typed"]) {
          const signature = await ask(what, text);
          assert.match(signature, /^0x[0-9a-f]{128}(1b|1c)$/, what);
          seen.add(signature.slice(-2));
          checks.push(
            what === "message"
              ? { name: text, kind: "personal_message", address, signature, text }
              : { name: text, kind: "typed_data", address, signature, typed_data: letter(text) },
          );
        }
      }
      for (const [nonce, type] of ["legacy", "eip2930", "eip1559"].entries()) {
        const raw = await ask("transaction", type, nonce);
        const parity = parityOf(raw, type, chainId);
        assert.ok(parity === 0 || parity === 1, `${type}: ${raw}`);
        const expect = { chainId, to: address, value: 1, nonce };
        checks.push({ name: type, kind: "transaction", address, signed_transaction: raw, expect });
      }
      await judge(...checks);
    },
  );
}

/** What the page signs as typed data. */
function letter(text) {
  const types = { Letter: [{ name: "text", type: "string" }] };
  return { domain: { name: "Duet" }, primaryType: "Letter", types, message: { text } };
}

/** The parity as the encoding has it: EIP-155's `v` in a legacy transaction, else a bare 0 or 1. */
function parityOf(raw, type, chainId) {
  const bytes = Buffer.from(raw.slice(2), "hex");
  const prefix = { legacy: null, eip2930: 1, eip1559: 2 }[type];
  if (prefix !== null) assert.equal(bytes[0], prefix, "the type of the envelope");
  const items = list(prefix === null ? bytes : bytes.subarray(1));
  const v = Number(`0x0${items.at(-3).toString("hex")}`);
  return prefix === null ? v - 35 - 2 * chainId : v;
}

/** The items of an RLP list, each with its content only. */
function list(bytes) {
  const items = [];
  for (let [, at] = head(bytes, 0); at < bytes.length;) {
    const [length, start] = head(bytes, at);
    items.push(bytes.subarray(start, start + length));
    at = start + length;
  }
  return items;
}

/** The length of the item at a place, and where its content begins. */
function head(bytes, at) {
  const first = bytes[at];
  if (first < 0x80) return [1, at];
  const short = first < 0xc0 ? 0x80 : 0xc0;
  if (first - short <= 55) return [first - short, at + 1];
  const digits = first - short - 55;
  return [Number(`0x${bytes.subarray(at + 1, at + 1 + digits).toString("hex")}`), at + 1 + digits];
}
